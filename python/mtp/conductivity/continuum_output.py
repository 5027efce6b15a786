# SPDX-License-Identifier: BSD-3-Clause
"""What a calculation of an effective conductivity shows: a table, the temperature, κ against the size of grains."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PolyCollection
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from rich.table import Table

from mtp.cfg import replaced_whole
from mtp.conductivity.mosaic import Mosaic
from mtp.figures import BLUE, COLOURS, GREY, RESOLUTION, STYLE

SLICE = 0.4321  # of the height of a box in three dimensions, where it is cut: no plane of a mesh lies there
TEMPERATURES = "coolwarm"
PALE = 0.4  # of the colours of phases, beside white, so that lines are seen on them


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


def draw(folder: Path, result: Mapping, cells: Mosaic, field: np.ndarray, phases: np.ndarray) -> list[Path]:
    """Write temperature.png, of one mesh with the gradient along x, and, for several sizes, sizes.png.

    field: φ for that gradient, (n_nodes,); phases: of the grains, (n_grains,), in the order of the result's. Returns
    the paths.
    """
    written = [folder / "temperature.png"]
    temperature(written[0], result, cells, field, phases)
    if len(result["sizes_nm"]) > 1:
        written.append(folder / "sizes.png")
        sizes(written[1], result)
    return written


def temperature(path: Path, result: Mapping, cells: Mosaic, field: np.ndarray, phases: np.ndarray) -> None:
    """T = x + φ in the plane, or on a cut, with the boundaries of grains; where there are several phases, these beside
    it."""
    names = list(result["phases"])
    resist = np.array([[h is not None for h in row] for row in result["conductances_MW_m2K"]])
    resisting = resist[tuple(phases[cells.sides])]
    boundary = cells.sides[0] != cells.sides[1]
    lines = {
        "boundary with resistance": (boundary & resisting, "black", 0.8),
        "without": (boundary & ~resisting, GREY, 0.4),
    }
    n_panels = 1 + (len(names) > 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.2 * n_panels, 3.6), layout="constrained")
        panels = figure.subplots(1, n_panels, squeeze=False)[0]
        shown = _fill(panels[0], cells, cells.mesh.p[0] + field, cmap=TEMPERATURES)
        figure.colorbar(shown, ax=panels[0], label="temperature, rising by 1 along x")
        if n_panels > 1:
            tints = [to_rgb(COLOURS[k % len(COLOURS)]) for k in range(len(names))]
            tints = [[1 - PALE * (1 - part) for part in colour] for colour in tints]
            of_nodes = np.empty(cells.mesh.nvertices)  # grains share none
            of_nodes[cells.mesh.t] = phases[cells.grain]
            _fill(panels[1], cells, of_nodes, cmap=ListedColormap(tints), clim=(-0.5, len(names) - 0.5))
            handles = [Patch(color=tint, label=name) for name, tint in zip(names, tints, strict=True)]
            for label, (chosen, colour, width) in lines.items():
                handles += [Line2D([], [], color=colour, lw=width, label=label)] * bool(chosen.any())
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
        for axes in panels:
            for chosen, colour, width in lines.values():
                _outline(axes, cells, chosen, colors=colour, lw=width)
            axes.set_aspect("equal")
            axes.set_xlabel("x (edge of the box)")
        panels[0].set_ylabel("y")
        with replaced_whole(path) as part:
            figure.savefig(part, dpi=RESOLUTION)


def _fill(axes: Axes, cells: Mosaic, values: np.ndarray, **style: Any) -> Collection:
    """Colours by values at the nodes."""
    p, t = cells.mesh.p, cells.mesh.t
    if len(cells.box) == 2:
        return axes.tripcolor(p[0], p[1], t.T, values, shading="gouraud", rasterized=True, **style)
    polygons, means = cut(cells, t, values)
    shown = PolyCollection(polygons, array=means, edgecolors="face", lw=0.2, rasterized=True, **style)
    axes.add_collection(shown)
    axes.autoscale()
    return shown


def _outline(axes: Axes, cells: Mosaic, chosen: np.ndarray, **style: Any) -> None:
    """Lines at the chosen pairs of facets."""
    p = cells.mesh.p
    for nodes in cells.nodes:
        facets = nodes[:, chosen]
        lines = p[:, facets].T if len(cells.box) == 2 else cut(cells, facets, p[0])[0]
        axes.add_collection(LineCollection(lines, **style))


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
