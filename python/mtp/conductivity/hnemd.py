# SPDX-License-Identifier: BSD-3-Clause
"""Thermal conductivity from the mean heat flux under a small field that drives it (homogeneous non-equilibrium MD).

κ = ⟨J⟩ / (T V F): Evans, Phys. Lett. A 91, 457 (1982); for many-body potentials Fan et al., Phys. Rev. B 99, 064308
(2019). The plugin's fix mtp/hnemd applies the force and gives J. Whether the response is linear is seen from several
strengths of the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mpi4py.MPI as MPI
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp

from mtp.conductivity.md import (
    System,
    Tell,
    Trajectory,
    axis_vector,
    own_folder,
    settled_cell,
    system,
    thermalise,
)
from mtp.conductivity.results import (
    W_PER_MK,
    are_short,
    finish,
    joined,
    mean,
    styled,
    too_short,
    value,
    weighted,
    write_arrays,
)
from mtp.conductivity.settings import Hnemd
from mtp.conductivity.sizes import with_size
from mtp.figures import COLOURS, GREY, ORANGE
from mtp.learning.ranks import on_root

COLUMNS = "c_thermo_temp c_thermo_press f_drive[1] f_drive[2] f_drive[3]"
CHANCE = 0.05  # of a drift that is none
VAGUE = 2.0  # error in the smallest field by that of κ: above it the test of linearity says little


def hnemd(settings: Hnemd, comm: MPI.Comm, tell: Tell) -> dict[str, Any]:
    """Run what is missing in the settings' folder and give the result; all ranks call it, and all get it.

    Raises:
        Error: a setting that does not fit, a run that failed, or samples that are too few.
    """
    with own_folder(settings, comm):

        def in_cell(told: Hnemd, tell: Tell) -> dict[str, Any]:
            moving = settled_cell(on_root(comm, lambda: system(told)), settings, comm, tell)
            runs = [
                [trajectory(told, moving, field, k).run(comm, tell) for k in range(told.runs)] for field in told.fields
            ]
            return on_root(
                comm, lambda: analysed(told, moving, [[joined(chunks) for chunks in r] for r in runs], told.folder)
            )

        return with_size(settings, in_cell, comm, tell)


def trajectory(settings: Hnemd, moving: System, field: float, number: int) -> Trajectory:
    """Run `number` in a field (1/Å), at constant temperature."""
    every = settings.steps(settings.interval)
    along = axis_vector(moving, settings.axis)
    driving = " ".join(repr(float(x)) for x in field * along)
    temperature, damping = settings.temperature, 100 * settings.timestep
    return Trajectory(
        folder=settings.folder / f"field_{field:g}_run_{number:02d}",
        system=moving,
        settings=settings,
        prepare=lambda simulation: thermalise(simulation, settings, settings.seed + number),
        dynamics=f"""fix ensemble all nvt temp {temperature} {temperature} {damping}
            fix drive all mtp/hnemd {driving}""",
        sample=f'fix sample all ave/time {every} 1 {every} {COLUMNS} file "{{file}}" format " %.12g"',
        finish="unfix sample",
        read=lambda file, start: _read(file, start, along),
        n_chunks=settings.n_chunks,
        steps=every * max(1, round(settings.steps(settings.chunk) / every)),
    )


def _read(file: Path, start: int, along: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.loadtxt(file, ndmin=2)
    rows = rows[rows[:, 0] > start]
    return {"temperature": rows[:, 1], "pressure": rows[:, 2], "flux": rows[:, 3:6] @ along}


def analysed(settings: Hnemd, moving: System, runs: Sequence[Sequence[dict]], folder: Path) -> dict[str, Any]:
    """The result of the samples by field and run, written into the folder with a figure and the samples (HDF5)."""
    interval = settings.steps(settings.interval) * settings.timestep
    skipped = round(settings.transient / interval)
    arrays = {
        f"field_{field:g}/run_{k:02d}/{name}": values
        for field, group in zip(settings.fields, runs, strict=True)
        for k, run in enumerate(group)
        for name, values in run.items()
    }
    facts = {
        "interval_ps": interval,
        "volume_A3": moving.volume,
        "atoms": len(moving.types),
        "pressure": "bar, of the whole cell",
    }
    facts |= {"flux": f"eV Å/ps: along {settings.axis}, the flux density times the volume", "temperature": "K"}
    write_arrays(folder / "currents.h5", arrays, facts)

    temperatures = [float(np.mean([run["temperature"][skipped:].mean() for run in group])) for group in runs]
    series = [
        [W_PER_MK / (temperature * moving.volume * field) * run["flux"][skipped:] for run in group]
        for field, temperature, group in zip(settings.fields, temperatures, runs, strict=True)
    ]
    short = are_short(series, interval)
    fields = [
        {"field_per_A": field, "kappa": mean(group, interval, short), "temperature_K": temperature}
        for field, temperature, group in zip(settings.fields, temperatures, series, strict=True)
    ]
    kappa, n_linear, notes = _linear(fields)
    if short:
        notes.append(
            "the flux is correlated over times that are no small part of a run: raise `time`; the error is widened"
        )
    drift = _drift([run for group in series[:n_linear] for run in group])
    if n_linear * settings.runs < 3:
        notes.append("fewer than three runs: nothing tells whether the response still grows; raise `runs`")
    if drift is not None:
        kappa = value(kappa["value"], np.hypot(kappa["error"], drift / 2))
        notes.append(
            f"κ of the second halves of the runs is {drift:.3g} W/mK from that of the first: raise `transient` and "
            "`time`, or lower the fields; the error is widened"
        )
    pressure = moving.pressure_GPa(np.mean([run["pressure"].mean() for group in runs for run in group]))
    if abs(pressure - (settings.pressure_GPa or 0.0)) > settings.stress_limit_GPa:
        notes.append(f"the cell is not relaxed: the mean pressure is {pressure:.2f} GPa; set `pressure_GPa`")
    hottest = max(fields, key=lambda f: abs(f["temperature_K"] - settings.temperature))
    if abs(hottest["temperature_K"] - settings.temperature) > 0.02 * settings.temperature:
        notes.append(
            f"in the field {hottest['field_per_A']:g} the temperature is {hottest['temperature_K']:.1f} K: the "
            "thermostat does not follow; lower the field"
        )
    result = {
        "method": "hnemd",
        "kappa_W_mK": kappa,
        "axis": settings.axis,
        "temperature_K": float(np.mean([f["temperature_K"] for f in fields[:n_linear]])),
        "pressure_GPa": pressure,
        "volume_A3": moving.volume,
        "thickness_A": moving.thickness,
        "atoms": len(moving.types),
        "runs": settings.runs,
        "time_ps": min(len(run) for group in series for run in group) * interval,
        "fields": fields,
        "fields_used": n_linear,
        "too_short": short,
        "drift_W_mK": drift,
        "notes": moving.notes + too_short(kappa) + notes,
    }
    return finish(folder, result, styled(_drawn, settings, result, series, interval))


def _drift(runs: Sequence[np.ndarray]) -> float | None:
    """By how much the second halves of runs exceed the first, in the mean; None where chance would do as much, or fewer
    than three runs tell nothing."""
    if len(runs) < 3:
        return None
    steps = [np.subtract(*(half.mean() for half in np.array_split(run, 2)[::-1])) for run in runs]
    return float(np.mean(steps)) if ttest_1samp(steps, 0.0).pvalue < CHANCE else None


def _linear(fields: Sequence[dict]) -> tuple[dict[str, float], int, list[str]]:
    """κ from the fields, from the smallest on, that agree within two standard errors; how many; remarks."""
    found = [f["kappa"] for f in fields]
    for n in range(1, len(found)):
        so_far, _ = weighted(found[:n])
        apart = abs(found[n]["value"] - so_far["value"])
        if apart > 2 * np.hypot(found[n]["error"], so_far["error"]):
            far = fields[n]["field_per_A"]
            note = (
                f"the response is not linear at {far:g} 1/Å: κ differs by {apart:.3g} W/mK from that at smaller fields"
            )
            if n == 1:
                note += "; take smaller `fields`: nothing tells whether the smallest is small enough"
            return so_far, n, [note]
    kappa, _ = weighted(found)
    ratio = found[0]["error"] / kappa["error"]
    if ratio > VAGUE:
        return (
            kappa,
            len(found),
            [
                f"the error in the smallest field is {ratio:.1f} times that of κ, so that a response that is not "
                "linear may hide in it: take `fields` that differ less"
            ],
        )
    return kappa, len(found), []


def _drawn(settings: Hnemd, result: dict, series: Sequence[Sequence[np.ndarray]], interval: float) -> Figure:
    """Running means of each field and run, and κ against the field."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    means, fields = figure.subplots(1, 2)
    highest = 0.0
    for f, group, colour in zip(result["fields"], series, COLOURS, strict=False):
        times = interval * np.arange(1, 1 + min(map(len, group)))
        running = np.array([np.cumsum(run[: len(times)]) for run in group]) * interval / times
        thin = slice(len(times) // 50, None, max(1, len(times) // 1000))
        for run in running if len(running) > 1 else []:
            means.plot(times[thin], run[thin], color=colour, lw=0.4, alpha=0.6)
        means.plot(times[thin], running.mean(axis=0)[thin], color=colour, label=f"{f['field_per_A']:g} / Å")
        fields.errorbar(
            f["field_per_A"], f["kappa"]["value"], f["kappa"]["error"], fmt="o", color=colour, ms=5, capsize=3
        )
        highest = max(highest, 1.6 * f["kappa"]["value"])
    kappa = result["kappa_W_mK"]
    for axes in (means, fields):
        axes.axhline(kappa["value"], color=GREY, lw=0.8)
        axes.axhspan(kappa["value"] - kappa["error"], kappa["value"] + kappa["error"], color=ORANGE, alpha=0.15, lw=0)
        axes.set_ylabel(r"$\kappa$ (W m$^{-1}$ K$^{-1}$)")
        axes.set_ylim(min(0, kappa["value"]), highest)
    means.set(xlabel="time averaged (ps)")
    means.legend(title="field; thin: each run", fontsize=8, title_fontsize=8)
    fields.set(xlabel="field (1/Å)", xlim=(0, 1.2 * settings.fields[-1]))
    return figure
