# SPDX-License-Identifier: BSD-3-Clause
"""The page of a report: HTML without scripts that holds its figures and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

QUANTITIES = (  # key of a comparison's summary, heading, factor
    ("energy_per_atom_eV", "energy (meV/atom)", 1e3),
    ("force_eV_per_A", "force component (eV/Å)", 1),
    ("stress_GPa", "stress component (GPa)", 1),
)
KINDS = (("rmse", "RMSE"), ("mae", "MAE"), ("max", "max"))
FACTS = (  # name, what it is, unit
    ("species", "species", ""),
    ("n_parameters", "parameters", ""),
    ("n_scalar", "basis functions", ""),
    ("n_moments", "moments", ""),
    ("n_radial", "radial functions for each pair", ""),
    ("n_chebyshev", "radial basis size", ""),
    ("min_distance", "shortest distance", "Å"),
    ("cutoff", "cutoff", "Å"),
    ("scaling", "scaling of the radial functions", ""),
    ("active_set", "active set", ""),
)
STYLE = """
:root { color: #222; background: #fff; font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
body { max-width: 68rem; margin: 2rem auto 4rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; font-weight: 600; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.6rem 0 .5rem; padding-bottom: .25rem; }
h2 { border-bottom: 1px solid #ddd; }
p { max-width: 48rem; margin: .4rem 0 .8rem; }
.lead, .note { color: #666; }
.note { font-size: .88rem; }
.findings { background: #fff6ec; border-left: 4px solid #d55e00; padding: .6rem 1rem; margin: 1.2rem 0; }
.findings ul { margin: 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { font-weight: 600; text-align: right; color: #444; }
thead tr:last-child th { border-bottom: 1.5px solid #888; }
th.span { text-align: center; border-bottom: 1px solid #ccc; }
td, th { padding: .22rem .6rem; }
td { white-space: nowrap; }
th { vertical-align: bottom; }
td { text-align: right; border-bottom: 1px solid #eee; }
td.text, th.text { text-align: left; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
tr.whole td { font-weight: 600; background: #f6f8fa; }
tr.part td.text:first-child { padding-left: 1.8rem; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
code, pre { font: .88rem/1.45 ui-monospace, "Liberation Mono", monospace; background: #f6f8fa; border-radius: 3px; }
code { padding: .05rem .3rem; }
pre { padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.columns { display: flex; flex-wrap: wrap; gap: 0 4rem; align-items: flex-start; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } img, tr { break-inside: avoid; } }
"""


def page(numbers: Mapping, figures: Mapping[str, bytes]) -> str:
    """The page, from the numbers that errors.json holds and the PNG figures that there are, by file name."""
    data = numbers["data"]
    counts = "; ".join(f"{name}: {d['configurations']} configurations, {d['atoms']} atoms" for name, d in data.items())
    facts = numbers["potential"]
    parts = [
        f"<h1>{escape(numbers['title'])}</h1>",
        f'<p class="lead">Moment tensor potential for {escape(", ".join(facts["species"]))}, '
        f"{facts['n_parameters']} parameters, cutoff {facts['cutoff']:g} Å. {escape(counts)}.</p>",
    ]
    if numbers["findings"]:
        items = "".join(f"<li>{escape(text)}</li>" for text in numbers["findings"])
        parts.append(f'<div class="findings"><ul>{items}</ul></div>')

    parts += [
        "<h2>Errors</h2>",
        _errors(data),
        '<p class="note">Energies are per atom; forces and stresses count each component. '
        "RMSE: root mean square; MAE: mean; max: largest absolute error.</p>",
        _species_errors(data),
    ]
    curve = numbers["learning_curve"]
    if "learning_curve.png" in figures:
        first, last = curve[0], curve[-1]
        parts += [
            "<h2>Learning curve</h2>",
            f"<p>{last['iteration']} iterations in {last['seconds']:.1f} s; loss {_number(first['loss'])} at the "
            f"beginning, {_number(last['loss'])} at the end.</p>",
            _image(figures, "learning_curve.png", "Loss and errors against iterations and time"),
        ]
    parts += ["<h2>Predicted and reference values</h2>", _image(figures, "parity.png", "Parity plots by group")]
    if "force_errors.png" in figures:
        parts += [
            "<h2>Force errors and the magnitude of the force</h2>",
            _image(figures, "force_errors.png", "Force errors against the magnitude of the force"),
            '<p class="note">Points: atoms. Lines: root mean squares over the atoms of an interval of |F|; the first '
            "interval holds all smaller forces.</p>",
            _magnitudes(data),
        ]
    parts += [
        "<h2>How errors are distributed</h2>",
        _image(figures, "error_distributions.png", "Fraction of values with errors larger than a given one"),
        "<h2>Worst configurations</h2>",
        _worst(numbers["worst"], groups=any(len(d["groups"]) > 1 for d in data.values())),
        '<p class="note">Outlier: the largest of three errors (energy per atom; RMSE of the forces; RMSE of the '
        "stress), each in units of the RMSE of all data. Atoms are counted from 0. "
        "All configurations are in <code>configurations.csv</code>, all forces in <code>forces.npz</code>.</p>",
        "<h2>Distances and radial functions</h2>",
        _image(figures, "distances.png", "Distances in the data and radial functions"),
        '<p class="note">Above: neighbours that an atom of the first species has of the second, per Å. Below: the '
        "radial functions, dashed for the second species as the centre. Vertical dashed line: the potential's shortest "
        "distance.</p>",
        _shortest(data),
        "<h2>Potential and settings</h2>",
        f'<div class="columns">{_facts(facts)}{_settings(numbers["settings"])}</div>',
        "<h2>To do it again</h2>",
    ]
    if numbers["command"]:
        parts.append(f"<pre>{escape(numbers['command'])}</pre>")
    files = [[name, ", ".join(d["files"]) or "in memory"] for name, d in data.items()]
    versions = ", ".join(f"{name} {value}" for name, value in numbers["versions"].items())
    parts += [
        _table([["data", "files"]], files, text=(0, 1), wrap=(1,)),
        f'<p class="note">{escape(versions)}. Written {escape(numbers["written"])}.</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(numbers['title'])}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _errors(data: Mapping) -> str:
    shown = [q for q in QUANTITIES if any(d[q[0]] for d in data.values())]
    spans = "".join(f'<th class="span" colspan="3">{label}</th>' for _, label, _ in shown)
    heads = "".join(f"<th>{label}</th>" for _ in shown for _, label in KINDS)
    body = []
    for name, d in data.items():
        lines = [("whole", name, d)]
        if len(d["groups"]) > 1:
            lines += [("part", group, summary) for group, summary in d["groups"].items()]
        for kind, label, summary in lines:
            values = [
                _number(factor * summary[key][k]) if summary[key] else "–" for key, _, factor in shown for k, _ in KINDS
            ]
            cells = "".join(f"<td>{v}</td>" for v in [summary["configurations"], summary["atoms"], *values])
            body.append(f'<tr class="{kind}"><td class="text wrap">{escape(label)}</td>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th colspan="3"></th>{spans}</tr>'
        f'<tr><th class="text">data</th><th>configurations</th><th>atoms</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _species_errors(data: Mapping) -> str:
    head = ["forces on", "data", "atoms", "RMSE (eV/Å)", "MAE (eV/Å)", "max (eV/Å)", "RMS of F (eV/Å)", "RMSE / RMS"]
    rows = [
        [
            species,
            name,
            line["atoms"],
            *(_number(line[kind]) for kind in ("rmse", "mae", "max", "force_rms")),
            f"{100 * line['rmse'] / line['force_rms']:.1f} %" if line["force_rms"] > 0 else "–",
        ]
        for name, d in data.items()
        for species, line in d["species"].items()
    ]
    return _table([head], sorted(rows, key=lambda row: row[0]), text=(0, 1)) if rows else ""


def _magnitudes(data: Mapping) -> str:
    head = ["data", "|F| (eV/Å)", "atoms", "RMS of |F|", "RMSE of |ΔF|", "relative"]
    rows = [
        [
            name,
            f"{_number(line['from'])} to {_number(line['to'])}",
            line["atoms"],
            _number(line["force"]),
            _number(line["rmse"]),
            "–" if line["relative"] is None else f"{100 * line['relative']:.3g} %",
        ]
        for name, d in data.items()
        for line in d["force_by_magnitude"]
    ]
    return f"<details><summary>The same in numbers</summary>{_table([head], rows, text=(0,))}</details>"


def _worst(rows: Sequence[Mapping], groups: bool) -> str:
    stress = any(row["stress_rmse_GPa"] is not None for row in rows)
    columns = [  # key, heading, whether words
        ("data", "data", True),
        ("id", "configuration", True),
        *([("group", "group", True)] if groups else []),
        ("atoms", "atoms", False),
        ("energy_error_meV_per_atom", "ΔE (meV/atom)", False),
        ("force_rmse_eV_per_A", "F RMSE (eV/Å)", False),
        ("largest_force_error_eV_per_A", "largest ΔF (eV/Å)", False),
        ("atom_of_largest_force_error", "of atom", False),
        *([("stress_rmse_GPa", "S RMSE (GPa)", False)] if stress else []),
        ("outlier", "outlier", False),
    ]
    body = [
        [_number(row[key]) if isinstance(row[key], (float, type(None))) else row[key] for key, _, _ in columns]
        for row in rows
    ]
    words = [number for number, (_, _, is_words) in enumerate(columns) if is_words]
    return _table([[heading for _, heading, _ in columns]], body, text=words, wrap=words[1:])


def _shortest(data: Mapping) -> str:
    pairs = sorted({pair for d in data.values() for pair in d["shortest_distances_A"]})
    rows = [[pair, *(_number(d["shortest_distances_A"].get(pair)) for d in data.values())] for pair in pairs]
    return _table([["shortest distance (Å)", *data]], rows, text=(0,)) if rows else ""


def _facts(facts: Mapping) -> str:
    rows = []
    for name, label, unit in FACTS:
        value = facts[name]
        if value is not None:
            text = ", ".join(value) if isinstance(value, list) else f"{value:.6g}" if name == "scaling" else f"{value}"
            rows.append([label, f"{text} {unit}".strip()])
    return _table([["potential", ""]], rows, text=(0, 1))


def _settings(settings: Mapping) -> str:
    rows = [[name, text] for name, text in _flat(settings)]
    return _table([["settings", ""]], rows, text=(0, 1), wrap=(1,)) if rows else ""


def _flat(values: Mapping, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "–"
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)


def _table(
    head: Sequence[Sequence], rows: Iterable[Sequence], text: Sequence[int] = (), wrap: Sequence[int] = ()
) -> str:
    """text, wrap: columns of words, and of long words that may be broken."""

    def kinds(column: int) -> str:
        names = [name for name, columns in (("text", text), ("wrap", wrap)) if column in columns]
        return f' class="{" ".join(names)}"' if names else ""

    def line(tag: str, cells: Sequence) -> str:
        return f"<tr>{''.join(f'<{tag}{kinds(c)}>{escape(str(x))}</{tag}>' for c, x in enumerate(cells))}</tr>"

    top, body = "".join(line("th", cells) for cells in head), "".join(line("td", cells) for cells in rows)
    return f'<div class="scroll"><table><thead>{top}</thead><tbody>{body}</tbody></table></div>'


def _image(figures: Mapping[str, bytes], name: str, words: str) -> str:
    content = base64.b64encode(figures[name])
    width = int.from_bytes(figures[name][16:20], "big") // 2  # of the PNG; two of its pixels for one on the page
    return f'<img src="data:image/png;base64,{content.decode()}" width="{width}" alt="{escape(words)}">'


def _number(value: float | None) -> str:
    """Four significant digits."""
    return "–" if value is None else f"{value:#.4g}".removesuffix(".")
