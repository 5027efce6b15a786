# SPDX-License-Identifier: BSD-3-Clause
"""Figures (PNG or any format that matplotlib knows by its extension)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mtp.cfg import replaced_whole
from mtp.evaluation import Comparison
from mtp.learning.walks import GRADES

QUANTITIES = (  # attribute of a comparison, axis label, name, unit of the errors, its factor, key of its summary
    ("energy_per_atom", "energy (eV/atom)", "energy", "meV/atom", 1e3, "energy_per_atom_eV"),
    ("force", "force component (eV/Å)", "force", "eV/Å", 1, "force_eV_per_A"),
    ("stress", "stress component (GPa)", "stress", "GPa", 1, "stress_GPa"),
)
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.55"  # also told apart by the colour-blind
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#7b3f00", "#000000")
MARKERS = "os^Dv<>P"
RESOLUTION = 200  # dots per inch
LONGEST_NAME = 24  # in a figure
POINTS = 20000  # drawn at most of one data set in one panel


def parity(path: str | os.PathLike, data: Mapping[str, Mapping[str, Comparison]]) -> None:
    """Predicted against reference values: a row for each data set, a column for each quantity that any of them has,
    a colour for each group.

    Of many values some are left out, never those of the largest errors. Raises Error where the file cannot be written.
    """
    whole = {name: Comparison.joined(groups.values()) for name, groups in data.items()}
    shown = [q for q in QUANTITIES if any(len(getattr(c, q[0])[0]) for c in whole.values())]
    styles = _styles(data)
    with rc_context(STYLE):
        size = (3.1 * len(shown), 3.1 * len(data) + 0.3 * (len(styles) > 1))
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08)
        panels = figure.subplots(len(data), len(shown), squeeze=False)
        for column, (attribute, label, _, unit, factor, key) in enumerate(shown):
            values = [side for c in whole.values() for side in getattr(c, attribute) if len(side)]
            low, high = min(v.min() for v in values), max(v.max() for v in values)
            margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
            for row, (name, groups) in enumerate(data.items()):
                axes = panels[row, column]
                errors = whole[name].summary()[key]
                if errors is None:
                    axes.set_axis_off()
                    continue
                _parity_panel(axes, {g: getattr(c, attribute) for g, c in groups.items()}, styles)
                limits = (low - margin, high + margin)
                axes.plot(limits, limits, color=GREY, lw=0.8, zorder=0)
                axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"reference {label}")
                axes.set_ylabel(f"predicted {label}")
                axes.set_title(f"{_plain(name)}: RMSE {factor * errors['rmse']:.3g} {unit}", loc="left", fontsize=9)
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(MaxNLocator(4))
                axes.ticklabel_format(useOffset=False)
        _group_legend(figure, styles)
        _save(figure, path)


def learning_curve(path: str | os.PathLike, steps: Sequence) -> None:
    """Loss and, where the steps (mtp.fit.Step) tell them, errors: against iterations on the left, seconds on the right.

    Raises Error where the file cannot be written.
    """
    curves = (
        ("loss", "loss", 1, BLUE),
        ("energy_rmse", "energy RMSE\n(meV/atom)", 1e3, ORANGE),
        ("force_rmse", "force RMSE\n(eV/Å)", 1, GREEN),
    )
    drawn = [curve for curve in curves if any(getattr(step, curve[0]) is not None for step in steps)]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 1.3 * len(drawn)), layout="constrained")
        panels = figure.subplots(len(drawn), 2, sharex="col", sharey="row", squeeze=False)
        for row, (attribute, label, factor, colour) in zip(panels, drawn, strict=True):
            known = [step for step in steps if getattr(step, attribute) is not None]
            values = [factor * getattr(step, attribute) for step in known]
            marker = "o-" if len(known) <= 60 else "-"
            for axes, x in zip(row, ("iteration", "seconds"), strict=True):
                axes.plot([getattr(step, x) for step in known], values, marker, ms=3, color=colour)
            _log_scale(row[0], values)
            row[0].set_ylabel(label)
        panels[-1, 0].set_xlabel("iteration")
        panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panels[-1, 1].set_xlabel("time (s)")
        figure.align_ylabels()
        _save(figure, path)


def error_distributions(path: str | os.PathLike, data: Mapping[str, Comparison]) -> None:
    """How many of the values have larger errors than x: a panel for each quantity, a line for each data set.

    Raises Error where the file cannot be written.
    """
    shown = [q for q in QUANTITIES if any(len(getattr(c, q[0])[0]) for c in data.values())]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(shown), 2.8), layout="constrained")
        for axes, (attribute, _, name, unit, factor, _) in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
        ):
            sizes = {d: np.sort(factor * np.abs(np.subtract(*getattr(c, attribute)))) for d, c in data.items()}
            rank = np.concatenate([[0.0], np.logspace(-5, 0, 500)])  # fractions of the data: enough for any line
            for (label, errors), colour in zip(sizes.items(), cycle(COLOURS)):
                if len(errors):
                    places = np.unique(np.round((1 - rank) * (len(errors) - 1)).astype(int))
                    larger = (len(errors) - places) / len(errors)
                    axes.plot(errors[places], 100 * larger, color=colour, label=_plain(label))
            largest = max(errors[-1] for errors in sizes.values() if len(errors))
            smallest = 1 / max(map(len, sizes.values()))
            if largest > 0:
                axes.set(xscale="log", xlim=(1e-3 * largest, 1.3 * largest))
            axes.set(yscale="log", ylim=(100 * min(smallest, 0.01), 130), xlabel=f"|{name} error| ({unit})")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("values with larger errors (%)")
            axes.legend(loc="lower left")
        _save(figure, path)


def force_errors(
    path: str | os.PathLike, data: Mapping[str, Comparison], bins: Mapping[str, Sequence[Mapping]]
) -> None:
    """Force errors against the magnitude of the reference force: of atoms and their root mean square, and relative.

    bins: of each data set, as mtp.evaluation.force_errors_by_magnitude gives them. Raises Error where the file cannot
    be written.
    """
    least = 1e-3 * max((rows[-1]["to"] for rows in bins.values() if rows), default=0.0) or 1.0
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        absolute, relative = figure.subplots(1, 2, sharex=True)
        heights, ratios = [], []
        for (name, comparison), colour, marker in zip(data.items(), cycle(COLOURS), cycle(MARKERS)):
            reference, predicted = (side.reshape(-1, 3) for side in comparison.force)
            magnitude = np.linalg.norm(reference, axis=1)
            error = np.linalg.norm(predicted - reference, axis=1)
            drawn = _thinned(error, POINTS)
            drawn = drawn[(magnitude[drawn] > 0) & (error[drawn] > 0)]
            dots = {"ms": 2, "mew": 0, "alpha": 0.5 if len(drawn) < 3000 else 0.25, "rasterized": True, "zorder": 1}
            if len(drawn):
                absolute.plot(magnitude[drawn], error[drawn], ".", color=colour, **dots)
                heights.append(error[drawn].max())
            line = {"color": colour, "label": _plain(name), "ms": 5, "mec": "white", "mew": 0.6}
            rows = [row for row in bins[name] if row["force"] > least and row["rmse"] > 0]
            force = [row["force"] for row in rows]
            if rows:
                absolute.plot(force, [row["rmse"] for row in rows], f"{marker}-", **line)
                relative.plot(force, [100 * row["relative"] for row in rows], f"{marker}-", **line)
                ratios += [100 * row["relative"] for row in rows]
                heights += [row["rmse"] for row in rows]
        for axes, label in ((absolute, "|ΔF| (eV/Å)"), (relative, "RMS |ΔF| / RMS |F| (%)")):
            axes.set(xlabel="|F| of the reference (eV/Å)", ylabel=label)
            if not axes.lines:
                continue
            axes.set(xscale="log", yscale="log", xlim=(0.9 * least, 1.5e3 * least))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
        if heights:
            absolute.set_ylim(0.05 * min(heights), 2 * max(heights))
        if ratios:
            _log_scale(relative, ratios)
            relative.legend()
        _save(figure, path)


def distances(
    path: str | os.PathLike,
    neighbours: Mapping[str, np.ndarray],
    edges: np.ndarray,
    species: Sequence[str],
    functions: np.ndarray,
    least: float,
) -> None:
    """Distances in the data and, below, the radial functions, for each pair of species.

    Args:
        neighbours: of each data set, (S, S, n): neighbours of species j that an atom of species i has, per Å.
        edges: (n + 1,), of the intervals, Å.
        species: S names.
        functions: (S, S, μ, n + 1), at the edges, as Potential.radial_functions gives them.
        least: the potential's shortest distance, Å.

    Raises Error where the file cannot be written.
    """
    pairs = [(i, j) for i in range(len(species)) for j in range(i, len(species))]
    columns = min(len(pairs), 3)
    lines = -(-len(pairs) // columns)
    colours = colormaps["viridis"](np.linspace(0, 0.88, functions.shape[2]))
    occupied = np.any([n.sum(axis=(0, 1)) > 0 for n in neighbours.values()], axis=0)
    start = edges[np.argmax(occupied)] if occupied.any() else edges[0]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(3.1 * columns, 5.2), 3.9 * lines), layout="constrained")
        grid = figure.subplots(2 * lines, columns, sharex=True, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for number, (i, j) in enumerate(pairs):
            row, column = divmod(number, columns)
            above, below = grid[2 * row, column], grid[2 * row + 1, column]
            for axes in (above, below):
                axes.set_axis_on()
                axes.axvline(least, color=GREY, lw=0.8, ls="--", zorder=0)
            for (name, found), colour in zip(neighbours.items(), cycle(COLOURS)):
                above.stairs(found[i, j], edges, color=colour, label=_plain(name))
            above.set_title(f"{species[i]}–{species[j]}", loc="left", fontsize=9)
            above.set_ylabel("neighbours / Å")
            above.set_ylim(bottom=0)
            inside = edges >= max(start, 1e-9)
            for mu, colour in enumerate(colours):
                below.plot(edges[inside], functions[i, j, mu, inside], color=colour, label=f"$\\mu$ = {mu}")
                if i != j:
                    below.plot(edges[inside], functions[j, i, mu, inside], color=colour, ls="--")
            below.axhline(0, color=GREY, lw=0.8, zorder=0)
            below.set(xlabel="distance (Å)", ylabel="radial function", xlim=(min(start, least) - 0.1, edges[-1]))
            below.tick_params(labelbottom=True)
            if number == 0:
                for axes in (above, below):
                    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, handlelength=1.2, ncols=6)
        figure.align_ylabels()
        _save(figure, path)


def learning(path: str | os.PathLike, rounds: Sequence[Mapping], select: float, break_above: float) -> None:
    """Rounds of a learning loop: force errors, highest grade, steps by their grade, and numbers of configurations.

    Bands tell in which walk the newest labels of a round were met, because errors grow where walks get harder.

    Raises Error where the file cannot be written.
    """
    number = [r["round"] for r in rounds]
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 8.0), layout="constrained")
        errors, grades, steps, counts = panels = figure.subplots(4, 1, sharex=True)

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

        _grade_panel(steps, rounds)

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
        _bands(panels, rounds)
        figure.align_ylabels()
        _save(figure, path)


def _bands(panels: Sequence[Axes], rounds: Sequence[Mapping]) -> None:
    """Every other one shaded, with its name above the first panel."""
    names = ["first data"]
    for record in rounds[:-1]:
        met = dict.fromkeys(p["title"] for p in record["passages"] if p["flagged"])
        names.append(" + ".join(met) or names[-1])
    begins = [k for k, name in enumerate(names) if k == 0 or name != names[k - 1]]
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(names)], strict=True)):
        first, last = rounds[begin]["round"], rounds[end - 1]["round"]
        for axes in panels if number % 2 else ():
            axes.axvspan(first - 0.5, last + 0.5, color="0.93", lw=0, zorder=-1)
        name = names[begin] if len(names[begin]) <= LONGEST_NAME else f"{names[begin][: LONGEST_NAME - 1]}…"
        place = {"xy": ((first + last) / 2, 1), "xytext": (0, 18), "textcoords": "offset points"}
        panels[0].annotate(
            _plain(name),
            **place,
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="center",
            va="bottom",
            color=GREY,
            fontsize=7,
        )


def _grade_panel(axes: Axes, rounds: Sequence[Mapping]) -> None:
    """Of each round the share of graded steps by their highest grade: the bins of mtp.learning.walks.GRADES."""
    counts = np.array([r["histogram"] for r in rounds], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = [k for k in range(len(GRADES) + 1) if counts[:, k].any()]
    colours = colormaps["viridis_r"](np.linspace(0, 1, len(GRADES) + 1))
    bottom = np.zeros(len(rounds))
    for k in drawn:
        label = f"to {GRADES[k]:.3g}" if k < len(GRADES) else "more"
        axes.bar([r["round"] for r in rounds], shares[:, k], 0.8, bottom, color=colours[k], label=label)
        bottom += shares[:, k]
    axes.set(ylabel="share of graded steps", ylim=(0, 1))
    axes.legend(title="grade", loc="center left", bbox_to_anchor=(1, 0.5), reverse=True, borderpad=0, handlelength=1)


def _parity_panel(axes: Axes, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], styles: Mapping) -> None:
    reference, predicted = (np.concatenate([pair[side] for pair in groups.values()]) for side in (0, 1))
    owner = np.repeat(np.arange(len(groups)), [len(pair[0]) for pair in groups.values()])
    drawn = _thinned(np.abs(predicted - reference), POINTS)
    many = len(drawn) > 3000
    points = {"ls": "", "ms": 2 if many else 3, "mew": 0, "alpha": 0.3 if many else 0.6, "rasterized": True}
    for number, name in sorted(enumerate(groups), key=lambda item: -len(groups[item[1]][0])):
        chosen = drawn[owner[drawn] == number]
        colour, marker = styles[name]
        axes.plot(reference[chosen], predicted[chosen], marker, color=colour, **points)


def _thinned(errors: np.ndarray, limit: int) -> np.ndarray:
    """Indices of at most `limit` values, evenly spread over the data, a tenth of them those of the largest errors."""
    if len(errors) <= limit:
        return np.arange(len(errors))
    largest = np.argpartition(errors, -limit // 10)[-limit // 10 :]
    spread = np.linspace(0, len(errors) - 1, limit - len(largest)).astype(int)
    return np.union1d(largest, spread)


def _styles(data: Mapping[str, Mapping[str, Comparison]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each group: the largest groups have their own, the others are grey."""
    atoms: dict[str, int] = {}
    for groups in data.values():
        for name, comparison in groups.items():
            atoms[name] = atoms.get(name, 0) + comparison.atoms
    largest = sorted(atoms, key=lambda name: -atoms[name])[: len(COLOURS)]
    own = dict(zip(sorted(largest), zip(COLOURS, MARKERS, strict=True), strict=False))
    return {name: own.get(name, (GREY, ".")) for name in sorted(atoms)}


def _group_legend(figure: Figure, styles: Mapping[str, tuple[str, str]]) -> None:
    if len(styles) < 2:
        return
    named = {name: style for name, style in styles.items() if style[0] != GREY}
    entries = [(_plain(name), *style) for name, style in named.items()]
    if len(named) < len(styles):
        entries.append((f"{len(styles) - len(named)} smaller groups", GREY, "."))
    handles = [
        Line2D([], [], ls="", marker=marker, color=colour, ms=5, mew=0, label=label)
        for label, colour, marker in entries
    ]
    widest = 0.5 + 0.07 * max(len(label) for label, _, _ in entries)  # inches, about
    columns = max(1, min(len(entries), int(figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handletextpad=0.2)


def _plain(name: str) -> str:
    """A name as a label: not too long, no mathematics, and not hidden as labels that begin with _ are."""
    short = name if len(name) <= 28 else f"{name[:13]}…{name[-14:]}"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


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
    with replaced_whole(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(part, dpi=RESOLUTION)
