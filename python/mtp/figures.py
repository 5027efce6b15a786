# SPDX-License-Identifier: BSD-3-Clause
"""Figures (PNG or any format that matplotlib knows by its extension)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mtp.evaluation import Comparison

QUANTITIES = (
    ("energy_per_atom", "energy (eV/atom)", "energy_per_atom_eV"),
    ("force", "force component (eV/Å)", "force_eV_per_A"),
    ("stress", "stress component (GPa)", "stress_GPa"),
)


def parity(path: str | os.PathLike, comparisons: Mapping[str, Comparison]) -> None:
    """Predicted against reference values, a panel for each quantity that the data have, a colour for each data set."""
    panels = [q for q in QUANTITIES if any(len(getattr(c, q[0])[0]) for c in comparisons.values())]
    figure = Figure(figsize=(4.2 * len(panels), 4.2), layout="constrained")
    for place, (attribute, label, key) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        low, high = np.inf, -np.inf
        for name, comparison in comparisons.items():
            reference, predicted = getattr(comparison, attribute)
            if not len(reference):
                continue
            rmse = comparison.summary()[key]["rmse"]
            axes.plot(reference, predicted, ".", ms=3, alpha=0.6, label=f"{name}: RMSE {rmse:.3g}", rasterized=True)
            low = min(low, reference.min(), predicted.min())
            high = max(high, reference.max(), predicted.max())
        axes.plot([low, high], [low, high], color="0.6", lw=0.8, zorder=0)
        axes.set(xlabel=f"reference {label}", ylabel=f"predicted {label}", aspect="equal")
        axes.legend(frameon=False, fontsize=8, markerscale=3)
    figure.savefig(path, dpi=150)


def learning(path: str | os.PathLike, rounds: Sequence[Mapping], select: float, break_above: float) -> None:
    """Rounds of a learning loop: force errors, highest grade, and number of labelled configurations."""
    number = [r["round"] for r in rounds]
    figure = Figure(figsize=(6.4, 7.2), layout="constrained")
    errors, grades, counts = figure.subplots(3, 1, sharex=True)

    errors.semilogy(
        number,
        [r["train"]["force_eV_per_A"]["rmse"] for r in rounds],
        "o-",
        label="all labelled, after the fit",
    )
    fresh = [(r["round"], r["new"]["force_eV_per_A"]["rmse"]) for r in rounds if r["new"]]
    if fresh:
        errors.semilogy(*zip(*fresh, strict=True), "s--", label="newly labelled, before the fit")
    errors.set_ylabel("force RMSE (eV/Å)")
    errors.legend(frameon=False)

    explored = [(r["round"], r["highest_grade"]) for r in rounds if r["highest_grade"] is not None]
    if explored:
        grades.semilogy(*zip(*explored, strict=True), "o-", color="C2")
    for threshold, name in ((select, "select"), (break_above, "break")):
        grades.axhline(threshold, color="0.6", lw=0.8, ls="--")
        grades.annotate(name, (1, threshold), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
    grades.set_ylabel("highest grade")

    counts.bar(number, [r["labelled"] for r in rounds], color="C0", label="labelled")
    counts.bar(number, [r["flagged"] for r in rounds], width=0.3, color="C3", label="flagged in the round")
    counts.set(xlabel="round", ylabel="configurations")
    counts.legend(frameon=False)
    counts.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=150)
