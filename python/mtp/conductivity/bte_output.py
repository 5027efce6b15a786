# SPDX-License-Identifier: BSD-3-Clause
"""What a calculation with the Boltzmann transport equation shows: a table and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.table import Table

from mtp.cfg import replaced_whole
from mtp.conductivity.bte import PARTS
from mtp.conductivity.sheets import conducting
from mtp.figures import BLUE, COLOURS, GREY, RESOLUTION, STYLE
from mtp.validation_output import phonons

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
TICKS = 6  # temperatures named at most on an axis
SAME = 1e-6  # relative: components closer than that are equal by symmetry


def table(found: Mapping) -> Table:
    """κ at each temperature with the parts of its uncertainty; components that symmetry makes equal on one row."""
    shown = Table(title=f"κ, W/mK ({found['solution']}, {found['occupation']} occupations)")
    for heading in ("T (K)", "component", "κ", "±", *PARTS, "extrapolated"):
        shown.add_column(heading, justify="right")
    shown.caption = f"– was not computed; not counted: {found['uncertainty_W_mK']['not_counted']}"
    limit, parts = found["extrapolated_W_mK"], found["uncertainty_W_mK"]
    for t, (temperature, kappa) in enumerate(zip(found["temperatures_K"], found["kappa_W_mK"], strict=True)):
        for names, k in independent(kappa):
            stds = [parts[name] and f"{parts[name][t][k]:.3g}" for name in ("total", *PARTS)]
            values = [f"{kappa[k]:.4g}", *(std or "–" for std in stds), f"{limit[t][k]:.4g}" if limit else "–"]
            shown.add_row(f"{temperature:g}", names, *values)
    return shown


def independent(kappa: list[float]) -> list[tuple[str, int]]:
    """Components of a tensor that differ, with their names joined and the place of the first; zeros are left out."""
    size = max(map(abs, kappa))
    groups: list[tuple[list[str], int]] = []
    for k, value in enumerate(kappa):
        if abs(value) <= SAME * size:
            continue
        for names, first in groups:
            if abs(kappa[first] - value) <= SAME * size and (first < 3) == (k < 3):
                names.append(COMPONENTS[k])
                break
        else:
            groups.append(([COMPONENTS[k]], k))
    return [(" ".join(names), first) for names, first in groups]


def draw(found: Mapping, folder: Path) -> list[Path]:
    """Write phonons.png and conductivity.png; returns their paths."""
    written = [folder / "phonons.png", folder / "conductivity.png"]
    phonons(written[0], found["phonons"])
    convergence_and_origin(written[1], found)
    return written


def convergence_and_origin(path: Path, found: Mapping) -> None:
    """κ against 1/N with its extrapolation, against temperature where there are three, and the modes that carry it."""
    temperatures = found["temperatures_K"]
    meshes = found["meshes"]
    several = len(temperatures) >= 3
    with rc_context(STYLE):
        figure = Figure(figsize=(3.1 * (3 + several), 2.9), layout="constrained")
        panels = list(figure.subplots(1, 3 + several))
        colours = [COLOURS[k % len(COLOURS)] for k in range(len(temperatures))]
        directions = conducting(found.get("thickness_A"))
        inverse = np.array([mesh["q_points"] ** (-1 / directions) for mesh in meshes])

        def mean(tensor: list[float]) -> float:
            return float(np.mean(tensor[:directions]))

        axes = panels.pop(0)
        error = found["uncertainty_W_mK"]["total"]
        for t, (temperature, colour) in enumerate(zip(temperatures, colours, strict=True)):
            kappa = [mean(mesh["kappa_W_mK"][t]) for mesh in meshes]
            axes.plot(inverse, kappa, "o", color=colour, ms=4, label=f"{temperature:g} K")
            axes.errorbar(inverse[-1], kappa[-1], error and mean(error[t]), color=colour, capsize=3)
            if found["extrapolated_W_mK"]:
                limit = mean(found["extrapolated_W_mK"][t])
                axes.plot([0, inverse[-1]], [limit, kappa[-1]], "--", color=colour, lw=1)
                axes.plot(0, limit, "o", mfc="white", color=colour, ms=4, clip_on=False)
        axes.set_xlim(0, 1.15 * inverse.max())
        axes.set_xlabel("1/N of the mesh")
        axes.set_ylabel("κ (W/mK)")
        axes.legend()
        if several:
            axes = panels.pop(0)
            kappa = np.array([mean(k) for k in found["kappa_W_mK"]])
            axes.errorbar(temperatures, kappa, error and [mean(e) for e in error], fmt="o-", color=BLUE, ms=4, lw=1)
            if (kappa > 0).all():
                axes.set(xscale="log", yscale="log")
                shown = temperatures[:: 1 + len(temperatures) // TICKS]
                axes.set_xticks(shown, [f"{temperature:g}" for temperature in shown])
                axes.set_xticks([], minor=True)
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set(xlabel="temperature (K)", ylabel="κ (W/mK)")
        for axes, (name, label, factor) in zip(
            panels,
            (("mean_free_path_A", "mean free path (nm)", 0.1), ("frequency_THz", "frequency (THz)", 1.0)),
            strict=True,
        ):
            for curve, colour in zip(found["cumulative"][name], colours, strict=True):
                whole = curve["kappa_W_mK"][-1]
                axes.plot(factor * np.array(curve["x"]), 100 * np.array(curve["kappa_W_mK"]) / whole, color=colour)
            axes.axhline(100, color=GREY, lw=0.6, zorder=0)
            axes.set(xlabel=label, ylabel="carried by what lies below (%)", ylim=(0, 105))
        panels[0].set_xscale("log")
        paths = [x for c in found["cumulative"]["mean_free_path_A"] for x, k in _carrying(c)]
        panels[0].set_xlim(0.1 * min(paths), 0.1 * max(paths))
        panels[1].set_xlim(0, None)
        with replaced_whole(path) as part:
            figure.savefig(part, dpi=RESOLUTION)


def _carrying(curve: Mapping) -> list[tuple[float, float]]:
    """Points of a cumulative curve above a thousandth of its end."""
    pairs = zip(curve["x"], curve["kappa_W_mK"], strict=True)
    return [(x, k) for x, k in pairs if k > 1e-3 * curve["kappa_W_mK"][-1]]
