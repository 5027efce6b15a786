# SPDX-License-Identifier: BSD-3-Clause
"""Figures (PNG or any format that matplotlib knows by its extension)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mtp.cfg import replaced_whole
from mtp.evaluation import Comparison

QUANTITIES = (  # attribute of a comparison, axis label, key of its summary, factor and unit of the RMSE
    ("energy_per_atom", "energy (eV/atom)", "energy_per_atom_eV", 1e3, "meV/atom"),
    ("force", "force component (eV/Å)", "force_eV_per_A", 1, "eV/Å"),
    ("stress", "stress component (GPa)", "stress_GPa", 1, "GPa"),
)
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.55"  # also told apart by the colour-blind
RESOLUTION = 200  # dots per inch


def parity(path: str | os.PathLike, comparisons: Mapping[str, Comparison]) -> None:
    """Predicted against reference values, a panel for each quantity that the data have, a colour for each data set.

    Raises Error where there is nothing to compare or the file cannot be written.
    """
    panels = [q for q in QUANTITIES if any(len(getattr(c, q[0])[0]) for c in comparisons.values())]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.3 * max(len(panels), 1), 3.3), layout="constrained")
        for place, quantity in enumerate(panels, start=1):
            _parity_panel(figure.add_subplot(1, len(panels), place), comparisons, *quantity)
        _save(figure, path)


def learning(path: str | os.PathLike, rounds: Sequence[Mapping], select: float, break_above: float) -> None:
    """Rounds of a learning loop: force errors, highest grade, and numbers of configurations.

    Raises Error where the file cannot be written.
    """
    number = [r["round"] for r in rounds]
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 6.0), layout="constrained")
        errors, grades, counts = figure.subplots(3, 1, sharex=True)

        after = [r["train"]["force_eV_per_A"]["rmse"] for r in rounds]
        fresh = [(r["round"], r["new"]["force_eV_per_A"]["rmse"]) for r in rounds if r["new"]]
        errors.plot(number, after, "o-", color=BLUE, label="all labelled, after the fit")
        if fresh:
            errors.plot(*zip(*fresh, strict=True), "s--", color=ORANGE, label="newly labelled, before the fit")
        _log_scale(errors, [*after, *(error for _, error in fresh)])
        errors.set_ylabel("force RMSE (eV/Å)")

        highest = [r["highest_grade"] for r in rounds]
        thresholds = {"select": select, "break": break_above}
        shown = {name: value for name, value in thresholds.items() if np.isfinite(value)}
        grades.plot(number, highest, "o-", color=GREEN)
        _log_scale(grades, [*highest, *shown.values()])
        for name, threshold in shown.items():
            grades.axhline(threshold, color=GREY, lw=0.8, ls="--", zorder=0)
            place = {"xy": (1, threshold), "xytext": (4, 0), "textcoords": "offset points"}
            grades.annotate(name, **place, xycoords=("axes fraction", "data"), color=GREY, va="center")
        grades.set_ylabel("highest grade")

        bars = (
            ("labelled so far", "labelled", BLUE),
            ("failed so far", "failed", GREY),
            ("chosen", "selected", ORANGE),
        )
        drawn = [bar for bar in bars if bar[1] != "failed" or any(r["failed"] for r in rounds)]
        width = 0.8 / len(drawn)
        for k, (label, key, colour) in enumerate(drawn):
            places = np.array(number) + width * (k - (len(drawn) - 1) / 2)
            counts.bar(places, [r[key] for r in rounds], width, color=colour, label=label)
        room = max(0.6, 1.5 - (number[-1] - number[0]) / 2)  # one round alone does not fill the width
        counts.set(xlabel="round", ylabel="configurations", xlim=(number[0] - room, number[-1] + room))
        counts.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        counts.yaxis.set_major_locator(MaxNLocator(5, integer=True))

        for axes in (errors, counts):  # above the axes, where no data are
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0, handlelength=1.8)
        figure.align_ylabels()
        _save(figure, path)


def _parity_panel(
    axes: Axes,
    comparisons: Mapping[str, Comparison],
    attribute: str,
    label: str,
    key: str,
    factor: float,
    unit: str,
) -> None:
    values = []
    points = {"ms": 3, "mew": 0, "alpha": 0.5, "rasterized": True}
    for (name, comparison), colour, marker in zip(
        comparisons.items(), (BLUE, ORANGE, GREEN) * len(comparisons), "os^" * len(comparisons), strict=False
    ):
        reference, predicted = getattr(comparison, attribute)
        if not len(reference):
            continue
        values += [reference, predicted]
        rmse = factor * comparison.summary()[key]["rmse"]
        axes.plot(
            reference,
            predicted,
            marker,
            **points,
            color=colour,
            label=f"{name}: RMSE {rmse:.3g} {unit}",
        )
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, lw=0.8, zorder=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"reference {label}", ylabel=f"predicted {label}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(useOffset=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, markerscale=1.5, handletextpad=0.2)


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of at least a factor of five around the values, with plain numbers at its ticks."""
    positive = [value for value in values if value > 0 and np.isfinite(value)] or [1.0]
    low, high = min(positive), max(positive)
    widen = max(1.25, np.sqrt(5 * low / high))
    axes.set_yscale("log")
    axes.set_ylim(low / widen, high * widen)
    narrow = high * widen**2 / low < 100
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with replaced_whole(path) as part:
        figure.savefig(part, dpi=RESOLUTION)
