# SPDX-License-Identifier: BSD-3-Clause
"""The report of a potential against labelled data: one page to read, and all its numbers as files.

report.html          one page that holds everything it shows
errors.json          the numbers of the page
configurations.csv   a line for each configuration, the worst first
forces.npz           reference and predicted forces of all atoms
*.png                the figures
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from ase import Atoms

from mtp import figures
from mtp.cfg import replaced_whole
from mtp.configurations import types
from mtp.errors import DataError, Error
from mtp.evaluation import Comparison, compare_one, errors, evaluate, force_errors_by_magnitude, group
from mtp.fit import Step
from mtp.page import page
from mtp.potential import Potential, Result

FIGURES = ("learning_curve.png", "parity.png", "force_errors.png", "error_distributions.png", "distances.png")
WORST = 20  # configurations shown on the page
INTERVALS = 100  # of the distances
PACKAGES = ("pair-mtp", "numpy", "scipy", "ase")


@dataclass(frozen=True)
class Compared:
    """A labelled configuration and what the potential makes of it. species: (N,) names of the atoms' species."""

    data: str
    id: str
    group: str
    species: np.ndarray
    result: Result
    comparison: Comparison


def write_report(
    folder: str | os.PathLike,
    potential: Potential,
    data: Mapping[str, Sequence[Atoms]],
    *,
    title: str = "Moment tensor potential",
    history: Sequence[Step] = (),
    settings: Mapping | None = None,
    findings: Sequence[str] = (),
    command: str | None = None,
    results: Mapping[str, Sequence[Result]] | None = None,
) -> Path:
    """Compare a potential with labelled data and write all that there is to say about it into a folder.

    Args:
        folder: made where it is missing; a report in it is replaced.
        potential: the potential.
        data: configurations by the name of their data set, as {"train": [...], "validation": [...]}. Any label may
            be missing. Groups are those of mtp.evaluation.group.
        title: heading of the page.
        history: the iterations of the fit, from which its learning curve is drawn.
        settings: nested names and values, shown as they are.
        findings: sentences that the reader should see first.
        command: with which the potential was made.
        results: of the potential for each configuration of `data`, where they are known already.

    Returns:
        The page, folder/report.html.

    Raises:
        DataError: no configuration has a label, or the potential gives values that are not finite.
        Error: the folder or a file in it cannot be written.
    """
    folder = Path(folder)
    data = {name: configurations for name, configurations in data.items() if configurations}
    compared = {
        name: _compared(name, potential, configurations, results[name] if results else None)
        for name, configurations in data.items()
    }
    joined = {name: Comparison.joined(one.comparison for one in each) for name, each in compared.items()}
    if not any(len(c.energy_per_atom[0]) + len(c.force[0]) + len(c.stress[0]) for c in joined.values()):
        raise DataError("the data are not labelled: there is nothing to report")
    rows = _rows(compared, Comparison.joined(joined.values()))
    histograms = {name: _Distances(potential, configurations) for name, configurations in data.items()}

    numbers = {
        "title": title,
        "findings": list(findings),
        "potential": {"species": _names(potential), **asdict(potential.facts)},
        "data": {
            name: {
                "files": _files(data[name]),
                **joined[name].summary(),
                "groups": {g: c.summary() for g, c in _by_group(compared[name]).items()},
                "species": _by_species(compared[name]),
                "force_by_magnitude": force_errors_by_magnitude(*_forces(joined[name])),
                "shortest_distances_A": histograms[name].shortest_by_pair(),
            }
            for name in data
        },
        "worst": rows[:WORST],
        "learning_curve": [asdict(step) for step in history],
        "settings": dict(settings or {}),
        "command": command,
        "versions": _versions(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Error(f"{folder}: cannot be made a folder for the report: {error.strerror}") from None
    _write_text(folder / "errors.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write_text(folder / "configurations.csv", _csv(rows))
    _write_forces(folder / "forces.npz", compared)
    _draw(folder, potential, numbers, compared, joined, histograms, history)
    drawn = {name: (folder / name).read_bytes() for name in FIGURES if (folder / name).exists()}
    _write_text(folder / "report.html", page(numbers, drawn))
    return folder / "report.html"


def _compared(
    data: str, potential: Potential, configurations: Sequence[Atoms], results: Sequence[Result] | None
) -> list[Compared]:
    if results is None:
        results = evaluate(potential, configurations)
    names = np.array(_names(potential))
    compared = []
    for number, (atoms, result) in enumerate(zip(configurations, results, strict=True), start=1):
        name = str(atoms.info.get("source", f"{data}#{number}"))
        if not (np.isfinite(result.energy) and np.isfinite(result.forces).all()):
            raise DataError(f"{name}: the potential's energy or forces are not finite: its coefficients are no use")
        species = names[types(atoms, potential.species)]
        compared.append(Compared(data, name, group(atoms), species, result, compare_one(atoms, result)))
    return compared


def _names(potential: Potential) -> list[str]:
    return potential.species or [f"type {k}" for k in range(potential.facts.n_species)]


def _forces(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    reference, predicted = comparison.force
    return reference.reshape(-1, 3), predicted.reshape(-1, 3)


def _by_group(compared: Iterable[Compared]) -> dict[str, Comparison]:
    members: dict[str, list[Comparison]] = {}
    for one in compared:
        members.setdefault(one.group, []).append(one.comparison)
    return {name: Comparison.joined(members[name]) for name in sorted(members)}


def _by_species(compared: Sequence[Compared]) -> dict[str, dict]:
    """Errors of the force components of the atoms of each species, and the root mean square of the reference's."""
    labelled = [one for one in compared if len(one.comparison.force[0])]
    if not labelled:
        return {}
    owner = np.concatenate([one.species for one in labelled])
    reference, predicted = _forces(Comparison.joined(one.comparison for one in labelled))
    table = {}
    for name in np.unique(owner):
        chosen = owner == name
        strength = float(np.sqrt((reference[chosen] ** 2).mean()))
        found = errors(reference[chosen].ravel(), predicted[chosen].ravel())
        table[str(name)] = {"atoms": int(chosen.sum()), "force_rms": strength, **found}
    return table


def _rows(compared: Mapping[str, Sequence[Compared]], everything: Comparison) -> list[dict]:
    """A line for each configuration, the worst first.

    `outlier` is the largest of a configuration's errors (of its energy per atom, and the RMSE of its forces and of its
    stress), each in units of the RMSE of all data.
    """
    summary = everything.summary()
    unit = {key: (summary[key] or {"rmse": 0.0})["rmse"] for key in summary if isinstance(summary[key], dict)}
    rows = []
    for one in (one for each in compared.values() for one in each):
        own = one.comparison.summary()
        found = {key: own[key]["rmse"] for key in unit if own[key]}
        energy = one.comparison.energy_per_atom
        atoms = one.comparison.atoms
        reference, predicted = _forces(one.comparison)
        sizes = np.linalg.norm(predicted - reference, axis=1)
        worst = int(np.argmax(sizes)) if len(sizes) else None
        rows.append(
            {
                "data": one.data,
                "id": one.id,
                "group": one.group,
                "atoms": atoms,
                "reference_energy_eV_per_atom": float(energy[0][0]) if len(energy[0]) else None,
                "predicted_energy_eV_per_atom": one.result.energy / atoms if atoms else None,
                "energy_error_meV_per_atom": 1e3 * float(energy[1][0] - energy[0][0]) if len(energy[0]) else None,
                "force_rmse_eV_per_A": found.get("force_eV_per_A"),
                "largest_force_error_eV_per_A": None if worst is None else float(sizes[worst]),
                "atom_of_largest_force_error": worst,
                "stress_rmse_GPa": found.get("stress_GPa"),
                "outlier": max((found[key] / unit[key] for key in found if unit[key] > 0), default=0.0),
            }
        )
    return sorted(rows, key=lambda row: -row["outlier"])


class _Distances:
    """Distances below the cutoff between the atoms of a data set.

    edges: (n + 1,), Å; neighbours: (S, S, n), of species j that an atom of species i has on average, per Å; shortest:
    (S, S), Å, infinite for species that do not meet.
    """

    def __init__(self, potential: Potential, configurations: Sequence[Atoms]) -> None:
        facts = potential.facts
        n = facts.n_species
        self.names = _names(potential)
        self.edges = np.linspace(0, facts.cutoff, INTERVALS + 1)
        self.shortest = np.full(n * n, np.inf)
        counts, atoms = np.zeros(n * n * INTERVALS), np.zeros(n)
        for configuration in configurations:
            near = potential.neighbourhoods(configuration)
            distance = np.sqrt((near.vectors**2).sum(axis=1))
            centre = np.repeat(near.species, np.diff(near.first))
            pair = centre * n + near.species[near.neighbour]
            place = np.minimum((distance / facts.cutoff * INTERVALS).astype(int), INTERVALS - 1)
            counts += np.bincount(pair * INTERVALS + place, minlength=len(counts))
            np.minimum.at(self.shortest, pair, distance)
            atoms += np.bincount(near.species, minlength=n)
        per_atom = counts.reshape(n, n, -1) / np.maximum(atoms, 1)[:, None, None]
        self.neighbours = per_atom / (self.edges[1] - self.edges[0])
        self.shortest = self.shortest.reshape(n, n)

    def shortest_by_pair(self) -> dict[str, float]:
        """Of each pair of species that meets, as "Si-O"."""
        return {
            f"{name}-{other}": float(self.shortest[i, j])
            for i, name in enumerate(self.names)
            for j, other in enumerate(self.names[i:], start=i)
            if np.isfinite(self.shortest[i, j])
        }


def _draw(
    folder: Path,
    potential: Potential,
    numbers: dict,
    compared: Mapping[str, Sequence[Compared]],
    joined: Mapping[str, Comparison],
    histograms: Mapping[str, _Distances],
    history: Sequence[Step],
) -> None:
    for name in FIGURES:  # of an earlier report
        (folder / name).unlink(missing_ok=True)
    if len(history) > 1:
        figures.learning_curve(folder / "learning_curve.png", history)
    figures.parity(folder / "parity.png", {name: _by_group(each) for name, each in compared.items()})
    figures.error_distributions(folder / "error_distributions.png", joined)
    bins = {name: each["force_by_magnitude"] for name, each in numbers["data"].items()}
    if any(bins.values()):
        figures.force_errors(folder / "force_errors.png", joined, bins)
    edges = next(iter(histograms.values())).edges
    figures.distances(
        folder / "distances.png",
        {name: found.neighbours for name, found in histograms.items()},
        edges,
        _names(potential),
        potential.radial_functions(edges),
        potential.facts.min_distance,
    )


def _files(configurations: Iterable[Atoms]) -> list[str]:
    sources = (str(atoms.info.get("source", "")).rpartition("#")[0] for atoms in configurations)
    return sorted({source for source in sources if source})


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return {**found, "python": platform.python_version(), "system": platform.platform(terse=True)}


def _csv(rows: Sequence[Mapping]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_forces(path: Path, compared: Mapping[str, Sequence[Compared]]) -> None:
    """Arrays: `ids` of the configurations with forces; for each atom `configuration` (index into ids), `atom` (index in
    it), `species`, `reference` and `predicted` (3 components, eV/Å)."""
    each = [one for some in compared.values() for one in some if len(one.comparison.force[0])]
    reference, predicted = _forces(Comparison.joined(one.comparison for one in each))
    sizes = [len(one.species) for one in each]
    with replaced_whole(path) as part:
        np.savez_compressed(
            part,
            ids=np.array([one.id for one in each], dtype=str),
            configuration=np.repeat(np.arange(len(each)), sizes),
            atom=np.concatenate([np.arange(0), *map(np.arange, sizes)]),
            species=np.concatenate([np.zeros(0, dtype="U1"), *(one.species for one in each)]),
            reference=reference,
            predicted=predicted,
        )


def _write_text(path: Path, text: str) -> None:
    with replaced_whole(path) as part:
        part.write_text(text, encoding="utf-8")
