# SPDX-License-Identifier: BSD-3-Clause
"""Thermal conductivity from the heat flux of a system in equilibrium.

κ = 1 / (V kB T²) ∫_0^∞ ⟨J(t) J(0)⟩ dt along each direction, with J the flux times the volume, at constant energy. In
mixtures of diffusing atoms, κ is that without particle currents: the inverse of an element of the inverse of the matrix
of such integrals. Where atoms stay in their places, currents of the elements have integrals of zero, and the multiple
of them that makes the flux fluctuate least is taken off (the energies of the elements at rest, for the most part).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mpi4py.MPI as MPI
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtp.conductivity.flux import FLUX
from mtp.conductivity.md import System, Tell, Trajectory, own_folder, settled_cell, system, thermalise
from mtp.conductivity.results import KB, W_PER_MK, finish, joined, run_to_run, styled, too_short, value, write_arrays
from mtp.conductivity.settings import GreenKubo
from mtp.conductivity.sizes import with_size
from mtp.conductivity.spectral import Cepstral, Running, cepstral, running_integral
from mtp.conductivity.symmetry import directions
from mtp.figures import BLUE, GREY, ORANGE
from mtp.learning.ranks import on_root

DRIFT = 0.005  # of the thermal energy in a run: more is told
LONG = 100  # times as long as the autocorrelation takes to become noise a run should be
ALIASED = 0.1  # of the spectrum at zero, at the highest frequency sampled: more is told
SCALARS = ("temperature", "pressure", "potential_energy", "displacement")


def green_kubo(settings: GreenKubo, comm: MPI.Comm, tell: Tell) -> dict[str, Any]:
    """Run what is missing in the settings' folder and give the result; all ranks call it, and all get it.

    Raises:
        Error: a setting that does not fit, a run that failed, or samples that are too few.
    """
    with own_folder(settings, comm):

        def in_cell(told: GreenKubo, tell: Tell) -> dict[str, Any]:
            moving = settled_cell(on_root(comm, lambda: system(told)), settings, comm, tell)
            runs = [trajectory(told, moving, k).run(comm, tell) for k in range(told.runs)]
            return on_root(comm, lambda: analysed(told, moving, [joined(chunks) for chunks in runs], told.folder))

        return with_size(settings, in_cell, comm, tell)


def trajectory(settings: GreenKubo, moving: System, number: int) -> Trajectory:
    """Run `number`: from its own velocities, at constant energy, with the flux of every `interval`."""
    every = settings.steps(settings.interval)
    types = range(1, len(moving.masses) + 1)
    currents = "\n".join(f"group element_{t} type {t}\ncompute current_{t} element_{t} momentum" for t in types)
    columns = ["c_thermo_temp", "c_thermo_press", "c_thermo_pe", "c_moved[4]", "c_flux[1]", "c_flux[2]", "c_flux[3]"]
    columns += [f"c_current_{t}[{a}]" for t in types for a in (1, 2, 3)]
    return Trajectory(
        folder=settings.folder / f"run_{number:02d}",
        system=moving,
        settings=settings,
        prepare=lambda simulation: thermalise(simulation, settings, settings.seed + number),
        dynamics=f"fix move all nve\ncompute moved all msd\n{FLUX}{currents}",  # a restart file holds where atoms began
        sample=f"""fix sample all ave/time {every} 1 {every} {" ".join(columns)} file "{{file}}" format " %.12g" """,
        finish="unfix sample",
        read=lambda file, start: _read(file, start, moving),
        n_chunks=settings.n_chunks,
        steps=every * max(1, round(settings.steps(settings.chunk) / every)),
    )


def _read(file: Path, start: int, moving: System) -> dict[str, np.ndarray]:
    """Samples after the step `start`; vectors in the structure's own axes."""
    rows = np.loadtxt(file, ndmin=2)
    rows = rows[rows[:, 0] > start]
    back = moving.rotation.T
    momenta = rows[:, 8:].reshape(len(rows), -1, 3)
    found = {name: rows[:, column] for column, name in enumerate(SCALARS, start=1)}
    return found | {"flux": rows[:, 5:8] @ back, "currents": momenta / np.array(moving.masses)[:, None] @ back}


def analysed(settings: GreenKubo, moving: System, runs: Sequence[dict], folder: Path) -> dict[str, Any]:
    """The result of the runs' samples, written into the folder with the figure and all samples, currents.h5."""
    interval = settings.steps(settings.interval) * settings.timestep
    volume, n_atoms = moving.volume, len(moving.types)
    temperatures = [float(run["temperature"].mean()) for run in runs]
    arrays = {f"run_{k:02d}/{name}": values for k, run in enumerate(runs) for name, values in run.items()}
    facts = {"interval_ps": interval, "volume_A3": volume, "atoms": n_atoms}
    units = {"flux": "eV Å/ps: the flux density times the volume", "currents": "Å/ps: velocities summed by element"}
    units |= {"pressure": "bar, of the whole cell", "potential_energy": "eV", "temperature": "K", "displacement": "Å²"}
    write_arrays(folder / "currents.h5", arrays, facts | units)

    scale = np.sqrt(W_PER_MK / (volume * KB))
    fluxes = _without_bound_currents(settings, runs)
    series = [scale / T * flux for T, flux in zip(temperatures, fluxes, strict=True)]  # (n, currents, 3)
    groups = directions(moving.unit, settings.symmetry, moving.thickness is not None)
    found = [_along(settings, [run @ group.T for run in series], interval) for group in groups.groups]
    values, errors = [f["kappa"]["value"] for f in found], [f["kappa"]["error"] for f in found]
    kappa = value(groups.mean(values), groups.mean_error(errors))
    result = {
        "method": "green-kubo",
        "kappa_W_mK": kappa,
        "tensor_W_mK": groups.tensor(values).tolist(),
        "tensor_error_W_mK": groups.tensor_error(errors).tolist(),
        "temperature_K": float(np.mean(temperatures)),
        "pressure_GPa": moving.pressure_GPa(np.mean([run["pressure"].mean() for run in runs])),
        "volume_A3": volume,
        "thickness_A": moving.thickness,
        "atoms": n_atoms,
        "runs": len(runs),
        "time_ps": min(map(len, series)) * interval,
        "directions": [
            {"along": group.tolist(), **{k: v for k, v in f.items() if k not in ("cepstral", "running", "slowest")}}
            for group, f in zip(groups.groups, found, strict=True)
        ],
        "notes": moving.notes + too_short(kappa) + _notes(settings, moving, runs, found),
    }
    return finish(folder, result, styled(_drawn, found, groups.groups))


def _without_bound_currents(settings: GreenKubo, runs: Sequence[dict]) -> list[np.ndarray]:
    """Of each run (n, currents, 3): the heat flux, and in fluids the currents of all elements but one (the total
    momentum is zero, so that one follows)."""
    currents = [run["currents"][:, :-1] for run in runs]
    both = [np.concatenate([run["flux"][:, None], c], axis=1) for run, c in zip(runs, currents, strict=True)]
    if settings.fluid or not currents[0].shape[1]:
        return both
    return [run[:, :1] for run in uncorrelated(both)]


def _along(settings: GreenKubo, series: list[np.ndarray], interval: float) -> dict[str, Any]:
    """κ along equivalent directions, from scaled fluxes (n, currents, directions)."""
    spectrum = cepstral(series, interval, settings.cut_frequency)
    alone = []
    for run in series:
        if run.shape[1] == 1 or run.shape[2] > run.shape[1]:
            alone.append(cepstral([run], interval, spectrum.cut.frequency, spectrum.cut.n_coefficients).value)
    scatter = run_to_run(alone)
    time = min(map(len, series)) * interval
    apart, longest = uncorrelated(series), settings.longest or time / 10
    integrals = [running_integral([run[:, k] for run in apart], interval, longest) for k in range(apart[0].shape[1])]
    slowest = max(integrals, key=lambda running: (running.reached is False, running.end))
    running = slowest if len(integrals) == 1 else None  # with several currents κ is not the integral of one
    share = float(slowest.times[slowest.end]) / time
    short = slowest.reached is not None and (not slowest.reached or LONG * share > 1)
    # what structure narrower than 1 / time hides of the spectrum at zero, by the order of magnitude: docs, Errors
    unresolved = 2 * share * spectrum.value if short else 0.0
    return {
        "kappa": value(spectrum.value, np.hypot(max(spectrum.error, scatter), unresolved)),
        "error_of_the_spectrum": spectrum.error,
        "error_from_run_to_run": scatter or None,
        "error_of_short_runs": unresolved or None,
        "runs_alone": alone,
        "cut_THz": spectrum.cut.frequency,
        "coefficients": spectrum.cut.n_coefficients,
        "running_integral": running and _told(running),
        "cepstral": spectrum,
        "running": running,
        "slowest": slowest,
    }


def uncorrelated(series: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The series (n, currents, directions) with the first current less the multiples of the others that it holds."""
    flat = np.concatenate([run.transpose(0, 2, 1).reshape(-1, run.shape[1]) for run in series])
    multiple = np.linalg.lstsq(flat[:, 1:], flat[:, 0], rcond=None)[0]
    return [
        np.concatenate([(run[:, 0] - np.einsum("nsa,s->na", run[:, 1:], multiple))[:, None], run[:, 1:]], axis=1)
        for run in series
    ]


def _told(running: Running) -> dict[str, float] | None:
    """The running integral where the autocorrelation ends; None where one run along one direction gives no error."""
    if np.isnan(running.errors[running.end]):
        return None
    end = {"end_ps": float(running.times[running.end])}
    return value(running.values[running.end], running.errors[running.end]) | end


def _notes(settings: GreenKubo, moving: System, runs: Sequence[dict], found: Sequence[dict]) -> list[str]:
    """What a reader of the result should know."""
    notes = []
    pressure = moving.pressure_GPa(np.mean([run["pressure"].mean() for run in runs]))
    if abs(pressure - (settings.pressure_GPa or 0.0)) > settings.stress_limit_GPa:
        notes.append(
            f"the cell is not relaxed: the mean pressure is {pressure:.2f} GPa; set `pressure_GPa`, or another cell"
        )
    n_atoms = len(moving.types)
    for number, run in enumerate(runs):
        energy = run["potential_energy"] + 1.5 * (n_atoms - 1) * KB * run["temperature"]
        drift = np.polyfit(np.linspace(0, 1, len(energy)), energy, 1)[0]
        if abs(drift) > DRIFT * 3 * n_atoms * KB * settings.temperature:
            notes.append(
                f"run {number}: the total energy drifts by {drift:.3g} eV: shorten `timestep`, or the potential jumps"
            )
        far = np.sqrt(run["displacement"].max())
        if len(moving.masses) > 1 and not settings.fluid and far > _spacing(moving) / 2:
            notes.append(
                f"run {number}: atoms move {far:.1f} Å from where they were: if they diffuse, set `fluid = true`"
            )
    for f in found:
        spectrum: Cepstral = f["cepstral"]
        edge = spectrum.spectrum[-max(1, len(spectrum.spectrum) // 50) :].mean()
        if edge > ALIASED * spectrum.value:
            notes.append(
                f"the spectrum has not decayed at {spectrum.frequencies[-1]:.3g} THz, and what is above folds back: "
                "shorten `interval`"
            )
            break
    for f in found:
        if f["error_of_short_runs"]:
            running: Running = f["slowest"]
            end = f"{running.times[running.end]:.3g} ps"
            notes.append(
                f"the autocorrelation becomes noise at {end}, and runs should be {LONG} times as long: raise `time`; "
                "the error is widened"
                if running.reached
                else f"the autocorrelation is not yet noise at {end}: raise `time`, or `longest` where it is set; the "
                "error is widened"
            )
            break
    if len(runs) < 3:
        notes.append("fewer than three runs: the error does not know how runs differ; raise `runs`")
    return notes


def _spacing(moving: System) -> float:
    return float((moving.volume / len(moving.types)) ** (1 / 3))


def _drawn(found: Sequence[dict], groups: Sequence[np.ndarray]) -> Figure:
    """Of each group of directions the spectrum, κ by cut, and the running integral."""
    figure = Figure(figsize=(9.6, 2.9 * len(found)), layout="constrained")
    for (spectra, cuts, integral), f, group in zip(
        figure.subplots(len(found), 3, squeeze=False), found, groups, strict=True
    ):
        spectrum: Cepstral = f["cepstral"]
        running: Running | None = f["running"]
        kappa, error = f["kappa"]["value"], f["kappa"]["error"]
        shown = spectrum.spectrum > 0
        spectra.plot(spectrum.frequencies[shown], spectrum.spectrum[shown], color=GREY, lw=0.4, label="periodogram")
        smooth = spectrum.cut.smooth
        spectra.plot(spectrum.frequencies[: len(smooth)], smooth, color=BLUE, label="cepstral")
        spectra.errorbar([0], [kappa], [error], fmt="o", color=ORANGE, ms=4, capsize=2, zorder=4, label=r"$\kappa$")
        spectra.set(yscale="log", xlabel="frequency (THz)", ylabel=r"spectrum / 2 (W m$^{-1}$ K$^{-1}$)")
        spectra.set_title(_named(group), loc="left", fontsize=9)
        spectra.legend(fontsize=8)
        for number, cut in enumerate(spectrum.cuts):
            agrees = number < spectrum.n_agreeing
            cuts.errorbar(
                cut.frequency, cut.value, cut.error, fmt="o", ms=4, capsize=2, color=BLUE if agrees else GREY, lw=1
            )
        cuts.set(xscale="log", xlabel="spectrum used up to (THz)", ylabel=r"$\kappa$ (W m$^{-1}$ K$^{-1}$)")
        if running is not None:
            _draw_running(integral, running)
        for axes in [cuts] if running is None else [cuts, integral]:
            axes.axhline(kappa, color=ORANGE, lw=1, label="cepstral")
            axes.axhspan(kappa - error, kappa + error, color=ORANGE, alpha=0.2, lw=0)
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        if running is None:
            integral.set_axis_off()
            integral.text(0, 0.5, "no running integral: the flux\nholds the currents of particles", fontsize=8)
        else:
            integral.legend(fontsize=8)
    return figure


def _named(group: np.ndarray) -> str:
    if len(group) == 3:
        return "all directions alike"
    return "along " + " and ".join("(" + ", ".join(f"{x + 0:.2g}" for x in axis) + ")" for axis in group.round(3))


def _draw_running(axes: Axes, running: Running) -> None:
    axes.plot(running.times, running.values, color=BLUE, label="running integral")
    axes.fill_between(
        running.times, running.values - running.errors, running.values + running.errors, color=BLUE, alpha=0.2, lw=0
    )
    if running.end < len(running.times) - 1:
        axes.axvline(running.times[running.end], color=GREY, lw=0.8, ls="--", label="noise from here on")
    axes.set(xlabel="time (ps)", ylabel=r"$\kappa$ (W m$^{-1}$ K$^{-1}$)", xlim=(0, running.times[-1]))
