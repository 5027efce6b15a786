# SPDX-License-Identifier: BSD-3-Clause
"""What a calculation of an effective conductivity shows: a table, the temperature, κ against the size of grains."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from rich.table import Table

from mtp.cfg import replaced_whole
from mtp.conductivity.mosaic import Mosaic
from mtp.figures import BLUE, GREY, RESOLUTION, STYLE

SLICE = 0.4321  # of the height of a box in three dimensions, where it is cut: no plane of a mesh lies there
COLOURS = "coolwarm"


def table(result: Mapping) -> Table:
    """κ at each size: mean of the diagonal with its error, the diagonal, and where entropy is made."""
    shown = Table(title="effective κ, W/mK")
    shares = list(result["results"][0]["shares"])
    axes = ("xx", "yy", "zz")[: result["geometry"]["dimension"]]
    for heading in ("size (nm)", "mean", "±", *axes, *(f"in {name} (%)" for name in shares)):
        shown.add_column(heading, justify="right")
    for size, found in zip(result["sizes_nm"], result["results"], strict=True):
        diagonal = np.diag(found["kappa_W_mK"])
        row = [
            f"{found['mean_W_mK']:.5g}",
            f"{found['uncertainty_W_mK']['total']:.2g}",
            *(f"{k:.5g}" for k in diagonal),
        ]
        row += [f"{100 * found['shares'][name]:.3g}" for name in shares]
        shown.add_row(f"{size:g}", *row)
    return shown


def draw(folder: Path, result: Mapping, cells: Mosaic, field: np.ndarray) -> list[Path]:
    """Write temperature.png, of one mesh with the gradient along x, and, for several sizes, sizes.png.

    field: φ for that gradient, (n_nodes,). Returns the paths.
    """
    written = [folder / "temperature.png"]
    temperature(written[0], cells, field)
    if len(result["sizes_nm"]) > 1:
        written.append(folder / "sizes.png")
        sizes(written[1], result)
    return written


def temperature(path: Path, cells: Mosaic, field: np.ndarray) -> None:
    """T = x + φ in the plane, or on a cut, with the boundaries of grains."""
    p, t = cells.mesh.p, cells.mesh.t
    values = p[0] + field
    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        if len(cells.box) == 2:
            shown = axes.tripcolor(p[0], p[1], t.T, values, shading="gouraud", cmap=COLOURS, rasterized=True)
        else:
            polygons, means = cut(cells, t, values)
            shown = PolyCollection(polygons, array=means, cmap=COLOURS, edgecolors="face", lw=0.2, rasterized=True)
            axes.add_collection(shown)
            axes.autoscale()
        boundary = cells.sides[0] != cells.sides[1]
        for nodes in cells.nodes:
            facets = nodes[:, boundary]
            lines = p[:, facets].T if len(cells.box) == 2 else cut(cells, facets, values)[0]
            axes.add_collection(LineCollection(lines, colors="black", lw=0.4))
        axes.set_aspect("equal")
        axes.set_xlabel("x (edge of the box)")
        axes.set_ylabel("y")
        figure.colorbar(shown, label="temperature, rising by 1 along x")
        with replaced_whole(path) as part:
            figure.savefig(part, dpi=RESOLUTION)


def cut(cells: Mosaic, simplices: np.ndarray, values: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Where the plane z = SLICE of the box and its periods cuts simplices (m, n) of nodes: tetrahedra in polygons,
    triangles in lines, (corners, 2) each; and the means of the nodes' values at their corners."""
    p = cells.mesh.p
    polygons, means = [], []
    for period in (-1, 0, 1):
        height = p[2] - (SLICE + period) * cells.box[2]
        above = height[simplices] > 0
        for nodes in simplices[:, above.any(axis=0) & ~above.all(axis=0)].T:
            first, second = np.array(
                [(i, j) for i, j in combinations(nodes, 2) if (height[i] > 0) != (height[j] > 0)]
            ).T
            share = height[first] / (height[first] - height[second])
            corners = ((1 - share) * p[:2, first] + share * p[:2, second]).T
            polygons.append(corners[np.argsort(np.arctan2(*(corners - corners.mean(axis=0)).T))])
            means.append(np.mean((1 - share) * values[first] + share * values[second]))
    return polygons, np.array(means)


def sizes(path: Path, result: Mapping) -> None:
    """κ against the size, with errors."""
    x = np.array(result["sizes_nm"])
    kappa = np.array([found["mean_W_mK"] for found in result["results"]])
    error = [found["uncertainty_W_mK"]["total"] for found in result["results"]]
    order = np.argsort(x)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.errorbar(x[order], kappa[order], np.array(error)[order], fmt="o-", ms=4, lw=1, capsize=3, color=BLUE)
        if "series" in result:
            axes.plot(x[order], np.array(result["series"])[order], "--", lw=1, color=GREY, label="grains in series")
            axes.legend()
        voronoi = result["geometry"]["type"] == "voronoi"
        axes.set(xscale="log", ylim=(0, None), ylabel="effective κ (W/mK)")
        axes.set_xlabel("mean size of grains (nm)" if voronoi else "edge of the box along x (nm)")
        with replaced_whole(path) as part:
            figure.savefig(part, dpi=RESOLUTION)
