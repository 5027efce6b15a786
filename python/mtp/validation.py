# SPDX-License-Identifier: BSD-3-Clause
"""Is a potential right in what it is for? Properties of crystals, beside given references."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from pydantic import Field, field_validator, model_validator

from mtp import properties
from mtp.errors import Error
from mtp.phonons import phonons
from mtp.potential import Potential
from mtp.properties import Found, NotApplicable, Numerics, Solid
from mtp.settings import Crystal, Elements, Section
from mtp.structures import explored

Property = Literal["lattice", "energy_volume", "elastic", "vacancy", "migration", "surfaces", "phonons"]
PROPERTIES: dict[str, Callable[[Solid], Found]] = {
    "lattice": properties.lattice,
    "energy_volume": properties.energy_volume,
    "elastic": properties.elastic,
    "vacancy": properties.vacancy,
    "migration": properties.migration,
    "surfaces": properties.surface,
    "phonons": phonons,
}
QUANTITIES = {  # key: name and unit
    **{key: (f"lattice constant {key}", "Å") for key in "abc"},
    **{key: (f"lattice angle {key}", "°") for key in ("alpha", "beta", "gamma")},
    "volume": ("volume of an atom", "Å³"),
    "energy": ("energy of an atom", "eV"),
    "bulk_modulus": ("bulk modulus, E(V)", "GPa"),
    "bulk_modulus_derivative": ("  pressure derivative", ""),
    "bulk_modulus_elastic": ("bulk modulus, C", "GPa"),
    "vacancy_unrelaxed": ("vacancy, unrelaxed", "eV"),
    "vacancy": ("vacancy", "eV"),
    "migration": ("vacancy migration", "eV"),
    "phonon_min": ("lowest phonon", "THz"),
    "phonon_max": ("highest phonon", "THz"),
}
FAMILIES = (
    (r"(C[1-6][1-6])", "{}", "GPa"),
    (r"surface_((?:-?\d){3})", "surface ({})", "J/m²"),
    (r"phonon_([A-Z]\w*)", "phonons at {}", "THz"),
)
Value = float | list[float]


def quantity(key: str) -> tuple[str, str]:
    """Name and unit of what a key stands for. Raises ValueError for a key that is not known."""
    if key in QUANTITIES:
        return QUANTITIES[key]
    for pattern, name, unit in FAMILIES:
        if found := re.fullmatch(pattern, key):
            return name.format("Γ" if found[1] == "G" else found[1]), unit
    raise ValueError(f"{key!r} is not known; known are {', '.join(QUANTITIES)}, C11 …, surface_100 …, phonon_X …")


class References(Section):
    """Values to compare with, by key (see QUANTITIES and FAMILIES, which fix the units), and where they come from.

    Of phonons at a point, all frequencies in ascending order.
    """

    source: str
    values: dict[str, Value] = Field(min_length=1)

    @field_validator("values")
    @classmethod
    def _known(cls, values: dict[str, Value]) -> dict[str, Value]:
        for key, value in values.items():
            several = quantity(key)[0].startswith("phonons at")
            if several != isinstance(value, list):
                raise ValueError(f"{key!r} wants {'a list of all frequencies there' if several else 'one number'}")
        return values


Miller = Annotated[list[int], Field(min_length=3, max_length=3)]


class Structure(Section):
    """A crystal, or a file of one structure; what to compute for it and what to compare with.

    properties: by default all that apply. surfaces: Miller indices of the unit cell; by default 100, 110 and 111 of
    cubic crystals, 001 and 100 of others.
    """

    name: str | None = Field(None, pattern=r"^[\w.-]+$")
    crystal: Crystal | None = None
    file: Path | None = None
    properties: list[Property] | None = None
    surfaces: list[Miller] | None = None
    references: list[References] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_unit_cell(self) -> Structure:
        if (self.crystal is None) == (self.file is None):
            raise ValueError("give either a `crystal` or a `file`")
        if self.crystal is not None and self.crystal.repeat != (1, 1, 1):
            raise ValueError("give the unit cell, without `repeat`: supercells are made from it")
        for indices in self.surfaces or []:
            if math.gcd(*indices) != 1:
                raise ValueError(f"Miller indices must have no common divisor, as (1, 1, 0), not {tuple(indices)}")
        return self

    @property
    def title(self) -> str:
        """The name, or one made from the crystal or the file."""
        return self.name or (f"{self.crystal.name}_{self.crystal.structure}" if self.crystal else self.file.stem)


class ValidationSettings(Section):
    """What to validate. Paths are relative to the settings file.

    species: elements of the potential where it names none. grade: above it, a value counts as extrapolated.
    """

    species: Elements | None = None
    structures: list[Structure] = Field(min_length=1)
    numerics: Numerics = Field(default_factory=Numerics)
    grade: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _names_differ(self) -> ValidationSettings:
        titles = [structure.title for structure in self.structures]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"several structures are called {title!r}: give each a `name`")
        return self

    def resolve(self, base: Path) -> ValidationSettings:
        """The same with all paths taken from `base`."""
        settings = self.model_copy(deep=True)
        for structure in settings.structures:
            structure.file = structure.file and base / structure.file
        return settings


@dataclass
class Row:
    """A value and, where there is one, its reference; all in `unit`. `difference` is value less reference; of lists,
    item by item, and `percent` (of the reference) of the largest."""

    key: str
    value: Value | None
    unit: str
    reference: Value | None = None
    difference: Value | None = None
    percent: float | None = None
    source: str | None = None
    grade: float | None = None


@dataclass
class Outcome:
    """What became of a property: its values, or an `error`; `left_out` where it did not apply and was not asked for.

    grade: the highest of all configurations on the way, of potentials with an active set.
    """

    found: Found | None = None
    error: str | None = None
    left_out: str | None = None
    grade: float | None = None
    cpu_seconds: float = 0.0


@dataclass
class Report:
    """The properties of a structure, by name, and its comparison with the references."""

    title: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def details(self, name: str) -> dict[str, Any]:
        """Of a property; empty where it failed or was not asked for."""
        outcome = self.outcomes.get(name)
        return outcome.found.details if outcome and outcome.found else {}

    def failures(self) -> list[str]:
        """What failed, and why."""
        return [f"{self.title}: {name}: {outcome.error}" for name, outcome in self.outcomes.items() if outcome.error]

    def notes(self) -> list[str]:
        """What the reader should know beside the numbers."""
        notes = []
        for name, outcome in self.outcomes.items():
            notes += [f"{name}: {note}" for note in (outcome.found.notes if outcome.found else [])]
            notes += [f"{name}: left out: {outcome.left_out}"] if outcome.left_out else []
        return notes

    def as_json(self) -> dict[str, Any]:
        """All numbers."""
        outcomes = {
            name: {**vars(outcome), "found": outcome.found and vars(outcome.found)}
            for name, outcome in self.outcomes.items()
        }
        return {"structure": self.title, "properties": outcomes, "table": [vars(row) for row in self.rows]}


def crystal_of(text: str) -> dict[str, Any]:
    """The settings of a crystal written as element:structure:a[:c], as Si:diamond:5.43. Raises Error otherwise."""
    name, _, rest = text.partition(":")
    structure, *lengths = rest.split(":")
    try:
        numbers = [float(length) for length in lengths]
    except ValueError:
        numbers = []
    if not (name and structure and 1 <= len(numbers) <= 2):
        raise Error(f"--crystal: want element:structure:a or element:structure:a:c, as Si:diamond:5.43, found {text!r}")
    return {"name": name, "structure": structure, **dict(zip("ac", numbers, strict=False))}


def name_species(potential: Potential, settings: ValidationSettings) -> None:
    """Give a potential that names no elements those of the settings, or of the only element of all structures.

    Raises Error where its species stay unknown.
    """
    if potential.species is not None:
        return
    names = settings.species
    if names is None:
        names = sorted({structure.crystal.name for structure in settings.structures if structure.crystal})
        if len(names) != 1 or potential.facts.n_species != 1:
            raise Error("the potential names no elements: give `species`, its elements in the order of its types")
    potential.species = names


def validate(
    settings: ValidationSettings,
    calculators: Callable[[], Calculator],
    species: Sequence[str],
    say: Callable[[str], None] = lambda text: None,
) -> list[Report]:
    """Compute the properties of each structure; one that cannot be computed does not stop the others.

    Args:
        settings: what to compute.
        calculators: makes an ASE calculator with energy, forces and stress; where its results have a `grade`, the
            highest is kept.
        species: elements, in the order of types in files that name none.
        say: is told what has been done.
    """
    reports = []
    for structure in settings.structures:
        crystal = explored(structure, species)
        report = Report(structure.title)
        report.outcomes = dict(_outcomes(structure, crystal, calculators, settings.numerics, say))
        report.rows = list(_rows(report, structure.references))
        reports.append(report)
    return reports


def _outcomes(
    structure: Structure,
    crystal: Atoms,
    calculators: Callable[[], Calculator],
    numerics: Numerics,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Outcome]]:
    grades: list[float] = []
    solid, start = None, time.process_time()
    try:
        solid = Solid(crystal, lambda: _Watched(calculators(), grades), numerics)
    except Error as error:
        yield "lattice", Outcome(error=str(error), cpu_seconds=time.process_time() - start)
        return
    for name, compute in _tasks(structure, solid):
        outcome = Outcome()
        try:
            outcome.found = compute(solid)
        except NotApplicable as reason:
            if structure.properties is None:
                outcome.left_out = str(reason)
            else:
                outcome.error = str(reason)
        except Error as error:
            outcome.error = str(error)
        outcome.cpu_seconds = time.process_time() - start
        outcome.grade = max(grades, default=None)
        say(f"{structure.title}: {name}: {outcome.cpu_seconds:.1f} CPU-s{', failed' if outcome.error else ''}")
        yield name, outcome
        grades.clear()
        start = time.process_time()


def _tasks(structure: Structure, solid: Solid) -> Iterator[tuple[str, Callable[[Solid], Found]]]:
    """Names and functions of what is asked for, each surface for itself."""
    cubic = solid.cell.cell.get_bravais_lattice().name == "CUB"  # the cell itself, to which the indices belong
    usual = [[1, 0, 0], [1, 1, 0], [1, 1, 1]] if cubic else [[0, 0, 1], [1, 0, 0]]
    for name, compute in PROPERTIES.items():
        if structure.properties is not None and name not in structure.properties:
            continue
        if name != "surfaces":
            yield name, compute
            continue
        for indices in usual if structure.surfaces is None else structure.surfaces:
            yield "surface_" + "".join(map(str, indices)), partial(compute, indices=indices)


def _rows(report: Report, references: Sequence[References]) -> Iterator[Row]:
    """A row for each value and reference; those without a value, and without a reference, are rows too."""
    values = {
        key: value
        for outcome in report.outcomes.values()
        if outcome.found
        for key, value in outcome.found.values.items()
    }
    grades = {
        key: outcome.grade for outcome in report.outcomes.values() if outcome.found for key in outcome.found.values
    }
    given = [(key, value, group.source) for group in references for key, value in group.values.items()]
    for key in [*values, *dict.fromkeys(key for key, *_ in given if key not in values)]:
        value, unit, grade = values.get(key), quantity(key)[1], grades.get(key)
        matching = [(reference, source) for other, reference, source in given if other == key]
        for reference, source in matching:
            yield Row(key, value, unit, reference, *_difference(value, reference), source, grade)
        if not matching:
            yield Row(key, value, unit, grade=grade)


def _difference(value: Value | None, reference: Value) -> tuple[Value | None, float | None]:
    several = isinstance(value, list), isinstance(reference, list)
    if value is None or several[0] != several[1] or (several[0] and len(value) != len(reference)):
        return None, None
    pairs = list(zip(value, reference, strict=True)) if several[0] else [(value, reference)]
    differences = [found - expected for found, expected in pairs]
    difference, base = max(
        ((d, r) for d, (_, r) in zip(differences, pairs, strict=True)), key=lambda pair: abs(pair[0])
    )
    return differences if several[0] else difference, 100 * difference / abs(base) if base else None


class _Watched(Calculator):
    """Another calculator, whose grades are gathered."""

    def __init__(self, inner: Calculator, grades: list[float]) -> None:
        super().__init__()
        self.inner, self.grades = inner, grades
        self.implemented_properties = inner.implemented_properties

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(self.atoms, properties, system_changes)
        self.results = self.inner.results
        if "grade" in self.results:
            self.grades.append(float(self.results["grade"]))
