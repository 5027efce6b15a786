# SPDX-License-Identifier: BSD-3-Clause
"""Checks of labelled configurations before a fit, and of their stresses after it: what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.units import Bohr, GPa, Hartree, Rydberg, kcal, kJ, mol

from mtp.configurations import Labels, labels, types
from mtp.errors import DataError
from mtp.evaluation import Comparison
from mtp.neighbours import neighbourhoods

COLLAPSED = 0.1  # Å: closer atoms are one atom twice; a fit refuses them
CLOSE = 0.5  # of the sum of two covalent radii: no chemistry, rather a wrong unit
LARGEST_FORCE = 100.0  # eV/Å
LARGEST_STRESS = 500.0  # GPa, hydrostatic
NET_FORCE = 0.01  # eV/Å per atom; drifts of plane-wave codes are smaller
SAME = 1e-6  # Å, of duplicates
SAME_ENERGY, SAME_FORCE = 1e-5, 1e-3  # eV/atom and eV/Å: the last digits of text formats, and of converged calculations
VACUUM = 1000.0  # Å^3 per atom
UNITS = {"hartree": 1 / Hartree, "rydberg": 1 / Rydberg, "kcal/mol": mol / kcal, "kJ/mol": mol / kJ, "meV": 1000.0}
RATIOS = {  # changes of the energy to those that the forces tell, by wrong units
    **{f"energies were in {unit}": factor for unit, factor in UNITS.items()},
    "forces were per bohr": 1 / Bohr,
    "forces were in hartree/bohr": Hartree / Bohr,
}
STRESSES = {  # slopes of pressures that were taken for stresses in eV/Å^3 but are not
    "it had the sign of a pressure": -1.0,
    "in GPa": 1 / GPa,
    "in kbar": 10 / GPa,
    "in GPa with the sign of a pressure": -1 / GPa,
    "in kbar with the sign of a pressure": -10 / GPa,
}
LISTED = 10  # findings of a kind that are shown


@dataclass(frozen=True)
class Finding:
    """Something that a user should know about data.

    severity: an "error" makes a fit impossible or worthless, a "warning" may be meant. kind: one word for findings
    alike. source: the configuration, "path#n"; "" for the data as a whole. message: numbers, and what to do.
    """

    severity: Literal["warning", "error"]
    kind: str
    source: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.message}" if self.source else self.message


def check(
    configurations: Sequence[Atoms],
    species: Sequence[str] | None = None,
    min_distance: float | None = None,
    n_parameters: int | None = None,
) -> list[Finding]:
    """Check configurations one by one and against each other; those without labels are checked as structures.

    Args:
        configurations: what a fit is to use, in the order of their files.
        species: elements that the potential knows; None: any.
        min_distance: where the potential's radial interval begins, Å.
        n_parameters: of the potential, to compare with the number of labels.
    """
    findings: list[Finding] = []
    sound: list[tuple[str, Atoms, Labels]] = []
    for number, atoms in enumerate(configurations, start=1):
        source = str(atoms.info.get("source", f"configuration {number}"))
        of_one = list(_of_geometry(source, atoms, species, min_distance))
        known = None
        try:
            known = labels(atoms, need=())
        except DataError as error:
            of_one.append(Finding("error", "label", "", str(error)))
        if known is not None and not any(finding.severity == "error" for finding in of_one):
            of_one.extend(_of_labels(source, atoms, known))
            sound.append((source, atoms, known))
        findings.extend(of_one)
    for of_all in (_energies(sound), _works(sound), _duplicates(sound), _amount(sound, n_parameters)):
        findings.extend(of_all)
    return findings


def summarise(findings: Sequence[Finding]) -> list[str]:
    """One line for each finding, errors first, at most ten of a kind."""
    lines = []
    for severity in ("error", "warning"):
        of_kind: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.severity == severity:
                of_kind.setdefault(finding.kind, []).append(finding)
        for kind, alike in of_kind.items():
            lines.extend(f"{severity}: {finding}" for finding in alike[:LISTED])
            if len(alike) > LISTED:
                lines.append(f"{severity}: … and {len(alike) - LISTED} more of this kind ({kind})")
    return lines


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raise DataError with the first error among the findings, and the number of the others."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")


def stress_findings(comparison: Comparison) -> list[Finding]:
    """Compare reference stresses with a fit to energies and forces, whose stress is the derivative of its energy.

    Plane-wave codes compute stress at a fixed number of plane waves, energies at a fixed cutoff: with a small cutoff
    the two differ by a nearly constant (Pulay) pressure [Francis and Payne, J. Phys.: Condens. Matter 2, 4395 (1990)].
    It shows where the stress has no or a small weight. Where pressures correlate, their slope tells another sign or
    unit; a difference that is constant against its scatter is the Pulay pressure, negative as a rule.

    Args:
        comparison: of the fitted potential with its data, at least five of them with stress.
    """
    reference, fitted = (-side.reshape(-1, 6)[:, :3].mean(axis=1) for side in comparison.stress)
    n = len(reference)
    if n < 5:
        return []
    spread = fitted.std()
    slope = np.cov(reference, fitted)[0, 1] / fitted.var(ddof=1) if spread > 0 else np.nan
    correlation = abs(np.corrcoef(reference, fitted)[0, 1]) if spread > 0 and reference.std() > 0 else 0.0
    for name, factor in STRESSES.items():
        if correlation > 0.9 and abs(slope / factor - 1) < 0.2:
            return [
                Finding(
                    "warning",
                    "stress",
                    "",
                    f"reference pressures change {slope:.3g} times as much as those of the fit (-dE/dV): the stress "
                    f"looks as if {name}; convert it to eV/Å^3, positive under tension",
                )
            ]
    difference = reference - fitted
    offset, scatter = difference.mean(), difference.std(ddof=1)
    if abs(offset) < max(0.1, 0.5 * scatter, 5 * scatter / np.sqrt(n)):  # smaller ones are the fit's own
        return []
    return [
        Finding(
            "warning",
            "Pulay",
            "",
            f"stress and energy are inconsistent (Pulay): the reference pressure is {offset:+.2f} GPa from the fit's "
            f"-dE/dV, with a scatter of {scatter:.2f} GPa over {n} configurations; set the stress weight to 0, or "
            "recompute with a larger plane-wave cutoff until the pressure stays",
        )
    ]


def _of_geometry(
    source: str, atoms: Atoms, species: Sequence[str] | None, min_distance: float | None
) -> Iterator[Finding]:
    if not len(atoms):
        yield Finding("error", "geometry", source, "no atoms: take the configuration out")
        return
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        yield Finding("error", "geometry", source, "positions or lattice vectors are not finite: take it out")
        return
    if species is not None:
        try:
            types(atoms, species)
        except DataError as error:
            advice = "take such configurations out, or fit a potential with that species (--species)"
            yield Finding("error", "species", "", f"{error}: {advice}")
    lattice = atoms.cell.array[atoms.pbc]
    if len(lattice) and np.linalg.matrix_rank(lattice, tol=1e-3) < len(lattice):
        yield Finding(
            "error",
            "cell",
            source,
            "periodic along a lattice vector that is missing or depends on the others: "
            "correct the cell, or set pbc to F",
        )
        return
    yield from _distances(source, atoms, min_distance)


def _distances(source: str, atoms: Atoms, min_distance: float | None) -> Iterator[Finding]:
    radii = covalent_radii[atoms.numbers] * CLOSE
    cutoff = max(2 * radii.max(), min_distance or 0.0, COLLAPSED)
    found = neighbourhoods(atoms, np.zeros(len(atoms)), cutoff)  # every pair twice, from i and from j
    i, j, distance = found.centre, found.neighbour, np.linalg.norm(found.vectors, axis=1)
    if not len(distance):
        return
    closest = int(np.argmin(distance))
    pair = f"atoms {i[closest]} and {j[closest]} are {distance[closest]:.3g} Å apart"
    below = int((distance < (min_distance or 0.0)).sum()) // 2
    if distance[closest] < COLLAPSED:
        advice = "remove a duplicate atom, or check the cell and the unit of the positions"
        yield Finding("error", "distance", source, f"{pair}: {advice}")
    elif below:
        yield Finding(
            "warning",
            "distance",
            source,
            f"{pair}, less than the potential's min_dist of {min_distance:g} Å ({below} "
            "such pairs), where its functions are extrapolated: lower --min-dist, or take it out",
        )
    elif ((near := distance < radii[i] + radii[j]) & (atoms.numbers[i] > 0) & (atoms.numbers[j] > 0)).any():
        advice = "check the unit of positions and cell (Å, not bohr, nm or fractions), or take it out"
        yield Finding(
            "warning",
            "distance",
            source,
            f"{pair}, less than half the sum of covalent radii in {near.sum() // 2} pairs: {advice}",
        )


def _of_labels(source: str, atoms: Atoms, known: Labels) -> Iterator[Finding]:
    if known.forces is not None:
        size = np.sqrt((known.forces**2).sum(axis=1))
        if size.max() > LARGEST_FORCE:
            yield Finding(
                "warning",
                "force",
                source,
                f"a force of {size.max():.4g} eV/Å on atom {size.argmax()}: check its unit (eV/Å), or take it out",
            )
        net = np.linalg.norm(known.forces.sum(axis=0))
        if net > len(atoms) * NET_FORCE and net > 0.01 * size.sum():
            held = int((size == 0).sum())
            why = f"; {held} atoms have none, as if held fixed: store the unconstrained forces" if held else ""
            yield Finding(
                "warning",
                "net force",
                source,
                f"the forces sum to {net:.3g} eV/Å ({net / len(atoms):.2g} per atom), not "
                f"to zero{why}: recompute it more tightly, without constraints and external fields, or take it out",
            )
    if known.stress is not None:
        pressure = abs(known.stress[:3].mean()) / GPa
        if pressure > LARGEST_STRESS:
            advice = "ASE's unit is eV/Å^3, not GPa or kbar: convert it, or take it out"
            yield Finding("warning", "stress", source, f"a pressure of {pressure:.4g} GPa: {advice}")
        if atoms.cell.rank < 3 or not atoms.pbc.all():
            yield Finding(
                "warning",
                "cell",
                source,
                "a stress, but the cell is not periodic in three directions: it says nothing there; leave it out",
            )
        elif atoms.get_volume() > VACUUM * len(atoms):
            volume = atoms.get_volume() / len(atoms)
            yield Finding(
                "warning", "cell", source, f"a stress, but the cell is vacuum ({volume:.0f} Å^3 per atom): leave it out"
            )


def _energies(data: Sequence[tuple[str, Atoms, Labels]]) -> Iterator[Finding]:
    """Energies far from what the species explain: the residuals of a linear fit, against their median.

    The fit is of least absolute deviations (by weighted least squares), which outliers do not bend.
    """
    data = [(source, atoms, known) for source, atoms, known in data if known.energy is not None]
    data = [entry for entry in data if len(entry[1]) > 1]  # single atoms lack the cohesion that all others share
    if len(data) < 4:
        return
    elements = np.unique(np.concatenate([np.unique(atoms.numbers) for _, atoms, _ in data]))
    share = np.array([[(atoms.numbers == z).mean() for z in elements] for _, atoms, _ in data])
    energy = np.array([known.energy / len(atoms) for _, atoms, known in data])
    weight = np.ones(len(data))
    for _ in range(30):
        root = np.sqrt(weight)
        per_species = np.linalg.lstsq(share * root[:, None], energy * root, rcond=None)[0]
        residual = energy - share @ per_species
        weight = 1 / np.maximum(np.abs(residual), 1e-4)
    deviation = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    for k in np.flatnonzero(np.abs(residual) > max(20 * deviation, 1.0)):
        source, atoms, _ = data[k]
        expected = energy[k] - residual[k]
        yield Finding(
            "warning",
            "energy",
            source,
            f"an energy of {energy[k]:.6g} eV/atom, where the other data make one expect "
            f"{expected:.6g} (their typical deviation: {deviation:.2g}): {_unit(energy[k] / expected, len(atoms))}",
        )


def _unit(ratio: float, n_atoms: int) -> str:
    for unit, factor in UNITS.items():
        if abs(ratio / factor - 1) < 0.05:
            return f"it looks as if in {unit}; convert it to eV"
    if abs(ratio * n_atoms - 1) < 0.05:
        return "it looks as if per atom; store the total"
    return "check its unit, reference and settings, or take it out"


def _works(data: Sequence[tuple[str, Atoms, Labels]]) -> Iterator[Finding]:
    """Energies that change along a trajectory otherwise than the forces say.

    Between successive frames of one cell ΔE = -½ (F + F′)·(r′ - r), up to third order in the displacement.
    """
    changes, works = [], []
    for (_, one, first), (_, other, second) in pairwise(data):
        if any(value is None for value in (first.energy, first.forces, second.energy, second.forces)):
            continue
        if not np.array_equal(one.numbers, other.numbers) or np.abs(one.cell.array - other.cell.array).max() > SAME:
            continue
        displacement = other.positions - one.positions
        if 0 < np.abs(displacement).max() < 0.2:
            changes.append(second.energy - first.energy)
            works.append(-0.5 * ((first.forces + second.forces) * displacement).sum())
    if len(changes) < 5 or np.std(works) == 0 or np.std(changes) == 0:
        return
    if abs(np.corrcoef(changes, works)[0, 1]) < 0.95:
        return
    slope = np.dot(changes, works) / np.dot(works, works)
    if 0.7 < slope < 1.4:
        return
    hint = next((f", as if {what}" for what, ratio in RATIOS.items() if abs(abs(slope) / ratio - 1) < 0.1), "")
    sign = ", with the wrong sign, as if gradients were given for forces" if slope < 0 else ""
    yield Finding(
        "warning",
        "work",
        "",
        f"along {len(changes)} steps of trajectories the energy changes {slope:.3g} times as much as "
        f"the forces say{sign}{hint}: convert energies to eV and forces to eV/Å",
    )


def _duplicates(data: Sequence[tuple[str, Atoms, Labels]]) -> Iterator[Finding]:
    """Configurations with the same cell and positions; each is compared with the first of its kind.

    Equal ones are neighbours in the order of any one projection, so that few pairs are compared.
    """
    alike: dict[tuple, list[int]] = {}
    for k, (_, atoms, _) in enumerate(data):
        alike.setdefault((atoms.numbers.tobytes(), atoms.pbc.tobytes()), []).append(k)
    rng = np.random.default_rng(1)
    for members in alike.values():
        if len(members) < 2:
            continue
        places = np.array([np.concatenate([data[k][1].cell.array, data[k][1].positions]).ravel() for k in members])
        direction = rng.standard_normal(places.shape[1])
        projection = places @ direction
        order = np.argsort(projection, kind="stable")
        reach = SAME * np.abs(direction).sum()
        first_of: dict[int, int] = {}
        for place, a in enumerate(order):
            if a in first_of:
                continue
            for b in order[place + 1 :]:
                if projection[b] - projection[a] > reach:
                    break
                if b not in first_of and np.abs(places[a] - places[b]).max() < SAME:
                    first_of[b] = a
        pairs = sorted(sorted((members[a], members[b])) for b, a in first_of.items())
        for first, second in pairs:
            yield _repeated(data[first], data[second])


def _repeated(first: tuple[str, Atoms, Labels], second: tuple[str, Atoms, Labels]) -> Finding:
    differences = []
    one, other = first[2], second[2]
    if one.energy is not None and other.energy is not None:
        difference = abs(one.energy - other.energy) / len(first[1])
        if difference > SAME_ENERGY:
            differences.append(f"energies {difference:.3g} eV/atom apart")
    if one.forces is not None and other.forces is not None:
        difference = np.abs(one.forces - other.forces).max()
        if difference > SAME_FORCE:
            differences.append(f"forces up to {difference:.3g} eV/Å apart")
    if differences:
        return Finding(
            "warning",
            "contradiction",
            second[0],
            f"the same structure as {first[0]}, but {' and '.join(differences)}: "
            "keep the one of the settings that all others have",
        )
    return Finding("warning", "duplicate", second[0], f"the same as {first[0]}: it counts twice; take one out")


def _amount(data: Sequence[tuple[str, Atoms, Labels]], n_parameters: int | None) -> Iterator[Finding]:
    if n_parameters is None:
        return
    n_values = sum(
        sum(np.size(value) for value in (known.energy, known.forces, known.stress) if value is not None)
        for _, _, known in data
    )
    if n_values < n_parameters:
        yield Finding(
            "warning",
            "amount",
            "",
            f"{n_parameters} parameters but only {n_values} values to fit them to: lower --level "
            "or --radial-basis-size, or add configurations",
        )
