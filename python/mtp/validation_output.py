# SPDX-License-Identifier: BSD-3-Clause
"""What a validation shows: a table and figures."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from ase import units
from ase.eos import birchmurnaghan
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.table import Table

from mtp.cfg import replaced_whole
from mtp.figures import BLUE, GREY, ORANGE, RESOLUTION, STYLE
from mtp.validation import Report, Row, Structure, Value, quantity

DIGITS = {"Å": 5, "Å³": 4, "°": 3, "eV": 4, "GPa": 1, "J/m²": 3, "THz": 2, "": 2}  # after the point


def table(report: Report, limit: float) -> Table:
    """Values beside references; grades where the potential has an active set, marked above `limit`."""
    sources = list(dict.fromkeys(row.source for row in report.rows if row.source))
    graded = any(row.grade is not None for row in report.rows)
    shown = Table(title=report.title, caption="\n".join(f"[{n}] {source}" for n, source in enumerate(sources, 1)))
    shown.caption_justify = "left"
    shown.add_column("property", no_wrap=True)
    shown.add_column("value", justify="right")
    shown.add_column("unit")
    if sources:
        for heading in ("reference", "difference", "%"):
            shown.add_column(heading, justify="right")
        shown.add_column("")
    if graded:
        shown.add_column("grade", justify="right")
    previous = None
    for row in report.rows:
        first = row.key != previous
        previous = row.key
        cells = [quantity(row.key)[0], _text(row.value, row.unit), row.unit] if first else ["", "", ""]
        if sources:
            cells += _compared(row, sources)
        if graded:
            cells.append(_grade(row.grade, limit) if first else "")
        shown.add_row(*cells)
    return shown


def draw(report: Report, structure: Structure, folder: Path) -> list[Path]:
    """Write the figures of what was computed into an existing folder; returns their paths."""
    references = {key: value for group in reversed(structure.references) for key, value in group.values.items()}
    written = []
    for name, figure in (("energy_volume", energy_volume), ("phonons", phonons)):
        if details := report.details(name):
            written.append(folder / f"{report.title}_{name}.png")
            figure(written[-1], details, references)
    return written


def energy_volume(path: str | os.PathLike, found: Mapping, references: Mapping[str, float] | None = None) -> None:
    """E(V) of an atom above its minimum, the equation of state fitted around it, and the same equation with the
    references' `volume` (Å³) and `bulk_modulus` (GPa), and `bulk_modulus_derivative` (4 where it is not known).

    found: details of mtp.properties.energy_volume. Raises Error where the file cannot be written.
    """
    references = references or {}
    lowest = min(found["fitted_energies"])
    volumes = np.array(found["fitted_volumes"])
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.3), layout="constrained")
        axes = figure.add_subplot()
        energies = np.array(found["energies"]) - lowest
        axes.plot(
            volumes, np.array(found["fitted_energies"]) - lowest, color=BLUE, lw=1, label="fit around the minimum"
        )
        axes.plot(found["volumes"], energies, "o", color=BLUE, ms=4, label="potential")
        if {"volume", "bulk_modulus"} <= references.keys():
            derivative = references.get("bulk_modulus_derivative", 4.0)
            modulus = references["bulk_modulus"] * units.GPa
            curve = birchmurnaghan(volumes, 0.0, modulus, derivative, references["volume"])
            axes.plot(volumes, curve, "--", color=ORANGE, lw=1.2, label="reference")
        axes.set(xlabel="volume of an atom (Å³)", ylabel="energy of an atom above its minimum (eV)")
        top = energies.max()
        axes.set_ylim(-0.05 * top, 1.1 * top)
        axes.legend(loc="upper center")
        _save(figure, path)


def phonons(path: str | os.PathLike, found: Mapping, references: Mapping[str, Sequence[float]] | None = None) -> None:
    """Phonon bands and their density of states, with the references' frequencies at special points (`phonon_X` …).

    found: details of mtp.phonons.phonons. Raises Error where the file cannot be written.
    """
    places, names = found["places"], found["labels"]
    bands = np.array(found["bands_THz"])
    jumps = np.flatnonzero(np.diff(found["distance"]) == 0) + 1  # where the path goes on elsewhere
    ticks = {}
    for place, name in zip(places, names, strict=True):
        shown = "Γ" if name == "G" else re.sub(r"(\d+)", r"$_{\1}$", name)
        ticks[place] = f"{ticks[place]}|{shown}" if place in ticks else shown
    with rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.4), layout="constrained")
        axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
        for piece in np.split(np.arange(len(bands)), jumps):
            axes.plot(np.array(found["distance"])[piece], bands[piece], color=BLUE, lw=1)
        for place in ticks:
            axes.axvline(place, color=GREY, lw=0.6, zorder=0)
        label = "reference"
        for place, name in zip(places, names, strict=True):
            for frequency in (references or {}).get(f"phonon_{name}", ()):
                points = {"color": ORANGE, "ms": 5, "mfc": "none", "clip_on": False, "zorder": 3}
                axes.plot(place, frequency, "o", **points, label=label)
                label = None
        if label is None:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, handletextpad=0.2)
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set(xlim=(places[0], places[-1]), ylabel="frequency (THz)")
        shown = np.array(found["dos_THz"]), np.array(found["dos"])
        side.fill_betweenx(*shown, color=BLUE, alpha=0.25, lw=0)
        side.plot(shown[1], shown[0], color=BLUE, lw=1)
        side.tick_params(left=False)
        side.set(xlabel="density of states\n(1/THz)", xlim=(0, None))
        low, high = min(bands.min(), 0), bands.max()
        axes.set_ylim(low - 0.05 * high if low < -0.01 * high else 0, 1.05 * high)
        for panel in (axes, side):
            if low < -0.01 * high:
                panel.axhline(0, color=GREY, lw=0.6, zorder=0)
        _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with replaced_whole(path) as part:
        figure.savefig(part, dpi=RESOLUTION)


def _compared(row: Row, sources: list[str]) -> list[str]:
    if row.reference is None:
        return ["", "", "", ""]
    difference = row.difference
    if isinstance(difference, list):
        difference = max(difference, key=abs)
    signed = "–" if difference is None else _number(difference, DIGITS[row.unit], "+")
    percent = "" if row.percent is None else _number(row.percent, 1, "+")
    return [_text(row.reference, row.unit), signed, percent, f"[{sources.index(row.source) + 1}]"]


def _text(value: Value | None, unit: str) -> str:
    if value is None:
        return "–"
    numbers = [_number(x, DIGITS[unit]) for x in (value if isinstance(value, list) else [value])]
    counts = [(number, len(list(equal))) for number, equal in groupby(numbers)]
    return "  ".join(f"{count}×{number}" if count > 1 else number for number, count in counts)


def _number(x: float, digits: int, sign: str = "") -> str:
    return f"{round(x, digits) + 0.0:{sign}.{digits}f}"  # never minus zero


def _grade(grade: float | None, limit: float) -> str:
    if grade is None:
        return ""
    return f"{grade:.2f}" + (" extrapolated" if grade > limit else "")
