# SPDX-License-Identifier: BSD-3-Clause
"""Thermal conductivity and interface conductance from a heat current that is imposed, and the profile of temperature.

Layers at 0 and at half of the cell are driven: by exchanged velocities (Müller-Plathe, J. Chem. Phys. 106, 6082
(1997)), or by heat put in and taken out (Wirnsberger, Frenkel, Dellago, J. Chem. Phys. 143, 124104 (2015)). Half of the
power P flows either way through the cross-section A, so that the flux is P / (2 A), κ is it by the gradient, and the
conductance of an interface is it by the jump of temperature. No flux of atoms is read: any pair style will do.

Phonons that would go further than the driven layers are apart, L, are cut short: 1/κ(L) = 1/κ (1 + l/L) (Schelling,
Phillpot, Keblinski, Phys. Rev. B 65, 144306 (2002)) is fitted to several lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import mpi4py.MPI as MPI
import numpy as np
from matplotlib.figure import Figure

from mtp.conductivity.md import System, Tell, Trajectory, own_folder, settled_cell, system, thermalise
from mtp.conductivity.results import MW_PER_M2K, W_PER_MK, finish, joined, styled, too_short, value, write_arrays
from mtp.conductivity.settings import Nemd
from mtp.errors import Error
from mtp.figures import BLUE, GREY, ORANGE
from mtp.learning.ranks import on_root

EVERY = 10  # steps between profiles that are averaged
LEAST_CHUNKS = 5


def nemd(settings: Nemd, comm: MPI.Comm, tell: Tell) -> dict[str, Any]:
    """Run what is missing in the settings' folder and give the result; all ranks call it, and all get it.

    Raises:
        Error: a setting that does not fit, a run that failed, or too few chunks.
    """
    if settings.n_chunks * settings.runs < LEAST_CHUNKS:
        raise Error(f"`time` must hold {LEAST_CHUNKS} chunks at least: errors come from their scatter")
    with own_folder(settings, comm) as folder:
        axis = "xyz".index(settings.axis)
        lengths = settings.lengths or [settings.repeat[axis]]
        found = []
        for count in sorted(lengths):
            repeat = tuple(count if k == axis else n for k, n in enumerate(settings.repeat))
            moving = on_root(comm, lambda repeat=repeat: _upright(system(settings, repeat), axis))
            moving = settled_cell(moving, settings, comm, tell)  # found for the first; the others are strained alike
            runs = [trajectory(settings, moving, count, k).run(comm, tell) for k in range(settings.runs)]
            found.append((moving, runs))
        return on_root(comm, lambda: analysed(settings, found, folder))


def _upright(moving: System, axis: int) -> System:
    others = [k for k in range(3) if k != axis]
    if np.abs(moving.cell[axis, others]).max() + np.abs(moving.cell[others, axis]).max() > 1e-6:
        raise Error(f"axis: the cell vector along {'xyz'[axis]} must be perpendicular to the other two")
    return moving


def trajectory(settings: Nemd, moving: System, count: int, number: int) -> Trajectory:
    """Run `number` in the cell of `count` repeats along the axis."""
    axis = "xyz".index(settings.axis)
    unit = lcm(EVERY, settings.swap_interval) if settings.drive == "swap" else EVERY
    steps = unit * max(1, round(settings.steps(settings.chunk) / unit))
    skipped = int(np.ceil(settings.transient / (steps * settings.timestep)))
    width = (1 + 1e-9) / settings.bins  # a little too wide: LAMMPS would add a layer for what rounding leaves over
    dynamics = [
        "fix move all nve",
        f"compute layers all chunk/atom bin/1d {settings.axis} lower {width!r} units reduced",
    ]
    sample = [f'fix profile all ave/chunk {EVERY} {steps // EVERY} {steps} layers temp file "{{file}}"']
    finish = ["unfix profile"]
    if settings.drive == "swap":
        sample += [
            f"fix drive all thermal/conductivity {settings.swap_interval} {settings.axis} {settings.bins}",
            f'fix energy all ave/time {steps} 1 {steps} f_drive file "{{file}}.energy" format " %.12g"',
        ]
        finish += ["unfix energy", "unfix drive"]
    else:
        thickness = float(moving.cell[axis, axis]) / settings.bins
        for name, place, sign in (("hot", 0, 1), ("cold", settings.bins // 2, -1)):
            limits = ["INF INF"] * 3
            limits[axis] = f"{place * thickness!r} {(place + 1) * thickness!r}"
            dynamics.append(f"region {name} block {' '.join(limits)} units box")
            dynamics.append(f"fix {name} all ehex 1 {sign * settings.power!r} region {name}")

    def read(file: Path, start: int) -> dict[str, np.ndarray]:
        with file.open() as stream:
            rows = [line.split() for line in stream if not line.startswith("#")]
        profile = np.array([row[3] for row in rows[-settings.bins :]], dtype=float)
        counts = np.array([row[2] for row in rows[-settings.bins :]], dtype=float)
        time = steps * settings.timestep
        swapped = settings.drive == "swap"
        power = np.loadtxt(f"{file}.energy", ndmin=2)[-1, 1] / time if swapped else settings.power
        return {"profile": profile[None], "atoms": counts[None], "power": np.array([power])}

    return Trajectory(
        folder=settings.folder / f"length_{count:03d}_run_{number:02d}",
        system=moving,
        settings=settings,
        prepare=lambda simulation: thermalise(simulation, settings, settings.seed + number),
        dynamics="\n".join(dynamics),
        sample="\n".join(sample),
        finish="\n".join(finish),
        read=read,
        n_chunks=settings.n_chunks + skipped,
        steps=steps,
    )


@dataclass
class Line:
    """A straight line through part of a profile.

    Attributes:
        bins: of the profile, those that were fitted.
        slope: K/Å, and its error.
        at: of each chunk, its slope and its value at 0.
        others: (n, 2), the same of the mean profile, for this part and the others that might have been chosen.
        straight: whether χ² finds the part straight; where it finds none so, the smallest is fitted.
    """

    bins: np.ndarray
    slope: dict[str, float]
    at: np.ndarray
    others: np.ndarray
    straight: bool

    def spread(self, place: float) -> float:
        """What the line's value at a place (Å) changes with the choice of the part."""
        return float(np.std(self.others @ [place, 1.0]))


def fitted(profiles: np.ndarray, places: np.ndarray, bins: np.ndarray) -> Line:
    """The line through profiles (chunks, all bins) at the `bins`; as few as needed are left out at either end.

    A part counts as straight where χ² of the mean profile is no more than two standard deviations above its mean. What
    the slope changes where more are left out is part of its error; where no part is straight, what it changes over all.
    """
    n = len(profiles)
    lines, chosen = [], None
    for skipped in range(max(1, len(bins) // 3)):
        inside = bins[skipped : len(bins) - skipped]
        if len(inside) < 4:
            break
        at = np.polynomial.polynomial.polyfit(places[inside], profiles[:, inside].T, 1).T[:, ::-1]  # slope, at 0
        slope, zero = at.mean(axis=0)
        average = profiles[:, inside].mean(axis=0)
        noise = profiles[:, inside].std(axis=0, ddof=1) / np.sqrt(n)
        freedom = len(inside) - 2
        chi2 = np.sum(((average - zero - slope * places[inside]) / noise) ** 2) / freedom
        lines.append((inside, slope, at))
        # noise has itself an error of 1/√(2n)
        if chosen is None and chi2 < 1 + 2 * np.sqrt(2 / freedom) + 2 / np.sqrt(n):
            chosen = len(lines) - 1
    if not lines:
        raise Error("too few bins for a straight line: raise `bins`, or lengthen the cell")
    straight = chosen is not None
    inside, slope, at = lines[chosen if straight else -1]
    others = np.array([line[2].mean(axis=0) for line in (lines[chosen:] if straight else lines)])
    spread = np.std(others[:, 0])
    return Line(inside, value(slope, np.hypot(block_error(at[:, 0]), spread)), at, others, straight)


def block_error(values: np.ndarray) -> float:
    """Standard error of the mean of a correlated series: the largest over blocks of 1, 2, 4 … while there are five
    (Flyvbjerg, Petersen, J. Chem. Phys. 91, 461 (1989))."""
    errors, blocks = [], np.asarray(values, dtype=float)
    while len(blocks) >= LEAST_CHUNKS:
        errors.append(blocks.std(ddof=1) / np.sqrt(len(blocks)))
        blocks = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).mean(axis=1)
    return float(max(errors))


def analysed(settings: Nemd, found: Sequence[tuple[System, list]], folder: Path) -> dict[str, Any]:
    """The result of the cells' runs, written into the folder with the figure and all profiles, profiles.h5."""
    arrays, cells, drawn = {}, [], []
    axis = "xyz".index(settings.axis)
    for moving, runs in found:
        length = float(moving.cell[axis, axis])
        skipped = len(runs[0]) - settings.n_chunks
        sampled = joined([chunk for run in runs for chunk in run[skipped:]])
        for k, run in enumerate(runs):
            arrays |= {f"length_{length:.2f}/run_{k:02d}/{name}": values for name, values in joined(run).items()}
        if not (sampled["atoms"] > 0).all():
            raise Error(f"bins: in some of the {settings.bins} layers there is no atom: take fewer")
        power = value(sampled["power"].mean(), block_error(sampled["power"]) if settings.drive == "swap" else 0.0)
        if power["value"] <= 0:
            raise Error("no energy was exchanged: lower `swap_interval`, or make `time` longer")
        flux = {key: number * length / (2 * moving.volume) for key, number in power.items()}  # eV/(Å² ps)
        places = (np.arange(settings.bins) + 0.5) / settings.bins * length
        evaluate = _interfaces if settings.interfaces else _conductivity
        cell, lines, profiles = evaluate(settings, sampled["profile"], places, flux, length)
        mean = float(sampled["profile"].mean())
        cells.append({"length_A": length / 2, "atoms": len(moving.types), "temperature_K": mean, **cell})
        cells[-1]["flux_GW_m2"] = value(*(MW_PER_M2K / 1e3 * flux[key] for key in ("value", "error")))
        drawn.append((profiles, places, lines))
    write_arrays(folder / "profiles.h5", arrays, {"profile": "K", "power": "eV/ps", "atoms": "of each layer, mean"})

    notes = found[0][0].notes
    for cell, (_, _, lines) in zip(cells, drawn, strict=True):
        if not all(line.straight for line in lines):
            notes.append(
                f"at {cell['length_A']:.0f} Å there is no straight part of the profile: the error has how much the "
                "choice of layers matters; take a longer cell, or drive less"
            )
        if abs(cell["temperature_K"] - settings.temperature) > 0.03 * settings.temperature:
            notes.append(
                f"at {cell['length_A']:.0f} Å the mean temperature is {cell['temperature_K']:.1f} K: drive less, or "
                "shorten `timestep`"
            )
    result: dict[str, Any] = {"method": "nemd", "drive": settings.drive, "axis": settings.axis}
    result["thickness_A"] = settings.thickness
    size = None
    if settings.interfaces:
        result["conductance_MW_m2K"] = cells[-1]["conductance_MW_m2K"]
        notes += too_short(result["conductance_MW_m2K"])
    elif len(cells) == 1:
        result["kappa_W_mK"] = cells[0]["kappa_W_mK"]
        notes += too_short(result["kappa_W_mK"])
        notes.append("κ of this length alone: give several `lengths` to extrapolate it")
    else:
        lengths, kappas = [cell["length_A"] for cell in cells], [cell["kappa_W_mK"] for cell in cells]
        result |= extrapolated(lengths, kappas)
        size = _of_the_shortest(lengths, kappas, result["kappa_W_mK"]["value"])
        notes += result.pop("notes") + too_short(result["kappa_W_mK"])
    for cell in cells:
        if cell["gradient_part"] > 0.3:
            notes.append(
                f"at {cell['length_A']:.0f} Å the temperature falls by {100 * cell['gradient_part']:.0f} % of its mean "
                "between the driven layers: drive less, unless κ is known to change little with temperature"
            )
    result |= {
        "temperature_K": float(np.mean([cell["temperature_K"] for cell in cells])),
        "cells": cells,
        "notes": notes,
    }
    return finish(folder, result, styled(_drawn, settings, result, drawn), size)


def _conductivity(settings: Nemd, profiles: np.ndarray, places: np.ndarray, flux: dict, length: float):
    """κ of one cell: both halves, mirrored onto each other."""
    half = settings.bins // 2
    folded = profiles.copy()
    folded[:, 1:] = (profiles[:, 1:] + profiles[:, :0:-1]) / 2
    line = fitted(folded, places, np.arange(1, half))
    cell = {
        "kappa_W_mK": _ratio(flux, line.slope, W_PER_MK),
        "gradient_K_per_A": line.slope,
        "fitted_A": places[line.bins[[0, -1]]].tolist(),
        "gradient_part": abs(line.slope["value"]) * length / 2 / profiles.mean(),
    }
    return cell, [line], folded


def _interfaces(settings: Nemd, profiles: np.ndarray, places: np.ndarray, flux: dict, length: float):
    """Conductances of one cell's interfaces, and κ of the parts beside them."""
    half, n = settings.bins // 2, settings.bins
    lines, jumps, parts, found = [], [], [], []
    for place in settings.interfaces:
        first, last = (1, half) if place < 0.5 else (half + 1, n)
        at = int(place * n)  # the layer that holds the interface; where it lies between two, both may be fitted
        between = abs(place * n - round(place * n)) < 1e-6
        beside = [np.arange(first, round(place * n) if between else at)]
        beside.append(np.arange(round(place * n) if between else at + 1, last))
        if min(map(len, beside)) < 4:
            raise Error(f"interfaces: fewer than four layers lie between {place:g} and a driven layer: raise `bins`")
        pair = [fitted(profiles, places, bins) for bins in beside]
        down = -np.sign(sum(line.slope["value"] for line in pair))  # whether the temperature falls along the axis
        left, right = (line.at[:, 0] * place * length + line.at[:, 1] for line in pair)
        jump = down * (left - right)
        spread = np.hypot(*(line.spread(place * length) for line in pair))
        jumps.append(value(jump.mean(), np.hypot(block_error(jump), spread)))
        parts += [_ratio(flux, line.slope, W_PER_MK) for line in pair]
        found.append(_ratio(flux, jumps[-1], MW_PER_M2K))
        lines += pair
    values = [f["value"] for f in found]
    scatter = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    best = value(np.mean(values), max(np.sqrt(sum(f["error"] ** 2 for f in found)) / len(found), scatter))
    cell = {
        "conductance_MW_m2K": best,
        "interfaces": [
            {
                "place": place,
                "jump_K": jump,
                "conductance_MW_m2K": conductance,
                "kappa_beside_W_mK": parts[2 * k : 2 * k + 2],
            }
            for k, (place, jump, conductance) in enumerate(zip(settings.interfaces, jumps, found, strict=True))
        ],
        "gradient_part": float(np.ptp(profiles.mean(axis=0)) / profiles.mean()),
    }
    return cell, lines, profiles


def _ratio(flux: dict[str, float], by: dict[str, float], unit: float) -> dict[str, float]:
    relative = np.hypot(flux["error"] / flux["value"], by["error"] / by["value"])
    number = unit * flux["value"] / abs(by["value"])
    return value(number, number * relative)


def extrapolated(lengths: Sequence[float], kappas: Sequence[dict[str, float]]) -> dict[str, Any]:
    """κ of infinite length and the length l of 1/κ(L) = 1/κ (1 + l/L), by weighted least squares in 1/L."""
    inverse = np.array([1 / kappa["value"] for kappa in kappas])
    errors = np.array([kappa["error"] / kappa["value"] ** 2 for kappa in kappas])
    design = np.stack([np.ones(len(lengths)), 1 / np.array(lengths)], axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    intercept, slope = covariance @ design.T @ (inverse / errors)
    freedom = len(lengths) - 2
    chi2 = float(np.sum((inverse / errors - design @ [intercept, slope]) ** 2) / freedom) if freedom else None
    stretch = max(1.0, np.sqrt(chi2)) if freedom else 1.0  # errors that do not explain the scatter are widened
    error = stretch * np.sqrt(covariance[0, 0])
    notes = []
    if freedom == 0:
        notes.append("two lengths fix the line: nothing tells whether 1/κ is linear in 1/L; add a third")
    if intercept < 2 * error:
        notes.append("the extrapolation does not bound κ from above: longer cells are needed")
    return {
        "kappa_W_mK": value(1 / intercept, error / intercept**2),
        "extrapolation": {
            "inverse_kappa_mK_W": value(intercept, error),
            "slope_A_mK_W": value(slope, stretch * np.sqrt(covariance[1, 1])),
            "chi2_per_degree_of_freedom": chi2,
        },
        "notes": notes,
    }


def _of_the_shortest(lengths: Sequence[float], kappas: Sequence[dict[str, float]], kappa: float) -> float | None:
    """By how much κ of infinite length changes without the shortest one: 1/κ is linear in 1/L for long cells alone.
    None for two lengths, which tell nothing of it."""
    if len(lengths) < 3:
        return None
    kept = [k for k in range(len(lengths)) if k != np.argmin(lengths)]
    others = extrapolated([lengths[k] for k in kept], [kappas[k] for k in kept])
    return abs(others["kappa_W_mK"]["value"] - kappa)


def _drawn(settings: Nemd, result: dict, drawn: Sequence[tuple]) -> Figure:
    """The profiles with their lines, and 1/κ against 1/L where there are several lengths."""
    extrapolates = "extrapolation" in result
    figure = Figure(figsize=(3.6 * (len(drawn) + extrapolates), 3.0), layout="constrained")
    panels = figure.subplots(1, len(drawn) + extrapolates, squeeze=False)[0]
    for axes, (profiles, places, lines), cell in zip(panels, drawn, result["cells"], strict=False):
        average = profiles.mean(axis=0)
        noise = profiles.std(axis=0, ddof=1) / np.sqrt(len(profiles))
        axes.errorbar(places, average, noise, fmt="o", ms=3, mfc="white", color=GREY, lw=0.8, label="layers")
        for line in lines:
            at = places[line.bins]
            axes.errorbar(at, average[line.bins], noise[line.bins], fmt="o", ms=3, color=BLUE, lw=0.8, label="fitted")
            slope, zero = line.at.mean(axis=0)
            axes.plot(at, zero + slope * at, color=ORANGE, lw=1.2, label="line", zorder=4)
        for place in settings.interfaces:
            axes.axvline(2 * place * cell["length_A"], color=GREY, lw=0.8, ls="--", label="interface")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), fontsize=8)
        axes.set(xlabel=f"{settings.axis} (Å)", ylabel="temperature (K)")
        axes.set_title(f"L = {cell['length_A']:.0f} Å", loc="left", fontsize=9)
    if extrapolates:
        axes, found = panels[-1], result["extrapolation"]
        inverse = [1 / cell["kappa_W_mK"]["value"] for cell in result["cells"]]
        errors = [cell["kappa_W_mK"]["error"] / cell["kappa_W_mK"]["value"] ** 2 for cell in result["cells"]]
        axes.errorbar(
            [1 / cell["length_A"] for cell in result["cells"]], inverse, errors, fmt="o", ms=4, color=BLUE, capsize=2
        )
        x = np.array([0, 1.1 / result["cells"][0]["length_A"]])
        axes.plot(x, found["inverse_kappa_mK_W"]["value"] + found["slope_A_mK_W"]["value"] * x, color=ORANGE)
        zero = found["inverse_kappa_mK_W"]
        axes.errorbar([0], [zero["value"]], [zero["error"]], fmt="s", ms=4, color=ORANGE, capsize=2)
        axes.set(xlabel="1 / L (1/Å)", ylabel=r"1 / $\kappa$ (m K W$^{-1}$)")
        axes.set_ylim(bottom=0)
    return figure
