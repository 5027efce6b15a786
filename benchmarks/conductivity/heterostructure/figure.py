# SPDX-License-Identifier: BSD-3-Clause
"""Draws run/figure.png from what the runs left: κ of the sheets against the size of the cell, κ of the heterostructure
against that of its grains.

    python figure.py
"""

import json
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from mtp.figures import BLUE, GREY, ORANGE, RESOLUTION, STYLE

RUN = Path(__file__).with_name("run")


def result(name):
    return json.loads((RUN / name / "result.json").read_text())


with rc_context(STYLE):
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    cells, grains = figure.subplots(1, 2)
    for name, label, colour in (("graphene", "graphene", BLUE), ("bc3", r"BC$_3$", ORANGE)):
        found = [result(f"{name}_{atoms}") for atoms in (240, 960)]
        edges = [(f["volume_A3"] / f["thickness_A"]) ** 0.5 / 10 for f in found]
        values, errors = ([f["kappa_W_mK"][key] for f in found] for key in ("value", "error"))
        cells.errorbar(edges, values, errors, fmt="o", ms=4, capsize=3, color=colour, label=label)
        grains.axhline(values[-1], color=colour, lw=0.8, ls="--")
    cells.set(xlabel="edge of the cell (nm)", ylabel=r"$\kappa$ (W m$^{-1}$ K$^{-1}$)", xlim=(0, 6))
    cells.set_ylim(bottom=0)
    cells.legend()
    for name, label, colour, per_grain in (("grains", "Voronoi", BLUE, 1), ("checkerboard", "checkerboard", GREY, 2)):
        found = result(name)
        errors = [row["uncertainty_W_mK"]["total"] for row in found["results"]]
        sizes = [size / per_grain for size in found["sizes_nm"]]
        values = [row["mean_W_mK"] for row in found["results"]]
        grains.errorbar(sizes, values, errors, fmt="o-", ms=4, lw=1, capsize=3, color=colour, label=label)
    grains.set(
        xscale="log", yscale="log", xlabel="size of grains (nm)", ylabel=r"effective $\kappa$ (W m$^{-1}$ K$^{-1}$)"
    )
    grains.legend()
    figure.savefig(RUN / "figure.png", dpi=RESOLUTION)
