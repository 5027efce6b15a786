# SPDX-License-Identifier: BSD-3-Clause
"""MLIP's text format for configurations, .cfg.

Units are eV and Å on both sides. Two conventions differ from ASE's:

- Atoms carry a type, an integer from 0, and no element. It is kept as the integer array "type".
- PlusStress is -V σ in eV, where σ is ASE's stress (eV/Å³, positive when the cell is stretched) in ASE's
  order xx yy zz yz xz xy; Virial is PlusStress / V. Both need three lattice vectors: for a cell with fewer,
  where V has no meaning, the stress is checked and left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from mtp.errors import DataError, Error, FormatError

CARTESIAN = ("cartes_x", "cartes_y", "cartes_z")
DIRECT = ("direct_x", "direct_y", "direct_z")
FORCE = ("fx", "fy", "fz")
SCALARS = ("site_en", "charge", "nbh_grades")
COLUMNS = frozenset(("id", "type", *CARTESIAN, *DIRECT, *FORCE, *SCALARS))
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def read_cfg(path: str | os.PathLike, species: Sequence[str] | None = None) -> list[Atoms]:
    """Read every configuration of a .cfg file.

    Args:
        path: the file.
        species: element symbols in the order of the types. Without them all atomic numbers are 0 ("X").

    Returns:
        One Atoms per configuration. Labels are the results of a SinglePointCalculator: energy and free_energy
        (equal, eV), forces (N, 3) (eV/Å), stress (6,) (eV/Å³, ASE's sign and order), energies (N,) (from
        site_en, eV). Arrays: "type", "nbh_grades"; charges become initial charges. Each feature is the text
        info[key], its repeats joined by line breaks, except MV_grade, which is a float.

    Raises:
        FormatError: anything but complete configurations of finite numbers.
        Error: the file cannot be opened.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FormatError(f"{path}:{line}: not text (MLIP's binary form must be converted by MLIP)") from None
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from None
    lines = _Lines(str(path), text)
    configurations = []
    while lines.skip_blank():
        lines.require(lines.take().strip() == "BEGIN_CFG", "expected BEGIN_CFG")
        configurations.append(_Block(lines, species).read())
    lines.require(bool(configurations), "the file holds no configuration")
    return configurations


def write_cfg(
    path: str | os.PathLike,
    configurations: Iterable[Atoms],
    species: Sequence[str] | None = None,
    lossless: bool = False,
) -> None:
    """Write configurations to a .cfg file, whole or not at all.

    Args:
        path: the file; one that exists is replaced.
        configurations: with or without labels; what is present is written. Entries of info that are text or
            numbers become features where their key is a single word.
        species: element symbols in the order of the types to write. Without them the array "type" is written.
        lossless: 17 significant digits in place of 6 decimals. All numbers then read back unchanged, the
            stress to within the rounding of its product with V.

    Raises:
        DataError: a configuration without types, or one that is periodic along a missing lattice vector.
    """
    with replaced_whole(path) as part, part.open("w", encoding="utf-8") as file:
        for number, atoms in enumerate(configurations, start=1):
            name = f"{path}, configuration {number}"
            lattice = atoms.cell.array[atoms.pbc]
            if np.linalg.matrix_rank(lattice) < len(lattice):
                raise DataError(f"{name}: periodic along a lattice vector that is missing: set its cell or its pbc")
            _write_block(file, atoms, atom_types(atoms, species, name), lossless)


def atom_types(atoms: Atoms, species: Sequence[str] | None, name: str) -> np.ndarray:
    """Give each atom's type, an int32 array (N,).

    Args:
        atoms: the configuration.
        species: element symbols in the order of the types; None takes the array "type" as it is.
        name: what the configuration is called in messages.

    Raises:
        DataError: an element outside species, or no usable array "type".
    """
    if species is None:
        found = atoms.arrays.get("type")
        if found is None:
            raise DataError(
                f"{name}: the atoms have no integer types and no element names to derive them from were "
                "given (the potential names no elements): give --species, the elements in type order"
            )
        if found.shape != (len(atoms),) or found.dtype.kind not in "iu" or (found < 0).any():
            raise DataError(f'{name}: the array "type" must hold one integer from 0 per atom')
        return found.astype(np.int32)
    found = _types_of_numbers(tuple(species))[atoms.numbers]
    if (found < 0).any():
        unknown = sorted({chemical_symbols[number] for number in atoms.numbers[found < 0]})
        raise DataError(f"{name}: no such species: {', '.join(unknown)}; known are {', '.join(species)}")
    return found


@lru_cache(maxsize=16)
def _types_of_numbers(species: tuple[str, ...]) -> np.ndarray:
    """The type of every atomic number, -1 for those that are no species; a name that is no element has none."""
    found = np.full(len(chemical_symbols), -1, dtype=np.int32)
    for type_, symbol in enumerate(species):
        if symbol in atomic_numbers:
            found[atomic_numbers[symbol]] = type_
    return found


@contextmanager
def replaced_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Lend a path beside `path` to write to; it replaces `path` at the end, or vanishes after an error."""
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


class _Lines:
    """The lines of a file, taken one by one, and the errors that name the line taken last."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.lines = text.split("\n")
        self.taken = 0

    def skip_blank(self) -> bool:
        """Pass over blank lines; False at the end of the file."""
        while self.taken < len(self.lines) and not self.lines[self.taken].strip():
            self.taken += 1
        return self.taken < len(self.lines)

    def take(self) -> str:
        if self.taken == len(self.lines):
            raise self.error("the file ends within a configuration")
        self.taken += 1
        return self.lines[self.taken - 1]

    def take_numbers(self, count: int, what: str) -> list[float]:
        words = self.take().split()
        self.require(len(words) == count, f"expected {count} numbers ({what}), found {len(words)} words")
        return [self.number(word) for word in words]

    def number(self, word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        self.require(math.isfinite(value) and "_" not in word, f"{word!r} is not a finite number")
        return value

    def integer(self, value: float, what: str) -> int:
        self.require(value == int(value), f"{what} must be an integer, not {value}")
        return int(value)

    def error(self, message: str) -> FormatError:
        return FormatError(f"{self.path}:{max(1, min(self.taken, len(self.lines)))}: {message}")

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            raise self.error(message)


class _Block:
    """One configuration, from the line after BEGIN_CFG to END_CFG."""

    def __init__(self, lines: _Lines, species: Sequence[str] | None):
        self.lines = lines
        self.species = species
        self.size = 0
        self.lattice: list[list[float]] = []
        self.table: dict[str, np.ndarray] = {}
        self.energy: float | None = None
        self.plus_stress: np.ndarray | None = None
        self.virial: np.ndarray | None = None
        self.info: dict[str, str | float] = {}

    def read(self) -> Atoms:
        sections = {
            "Size": self.read_size,
            "Supercell": self.read_lattice,
            "AtomData": self.read_atoms,
            "Energy": self.read_energy,
            "PlusStress": self.read_plus_stress,
            "Virial": self.read_virial,
        }
        seen = set()
        while True:
            words = self.lines.take().split()
            if not words:
                continue
            key = words[0].rstrip(":")
            if key == "END_CFG":
                break
            if key == "Feature":
                self.read_feature()
                continue
            self.lines.require(key in sections, f"{words[0]!r} is not a section of a configuration")
            self.lines.require(key not in seen, f"a second {key} in one configuration")
            seen.add(key)
            sections[key](words[1:])
        self.lines.require(bool(self.table), "a configuration without AtomData")
        return self.atoms()

    def read_size(self, words: list[str]) -> None:
        (size,) = self.lines.take_numbers(1, "the number of atoms")
        self.size = self.lines.integer(size, "the number of atoms")
        self.lines.require(self.size > 0, "the number of atoms must be positive")

    def read_lattice(self, words: list[str]) -> None:
        def is_vector() -> bool:
            line = self.lines.lines[self.lines.taken : self.lines.taken + 1]
            return bool(line and line[0].strip()) and not line[0].lstrip()[0].isalpha()

        while len(self.lattice) < 3 and is_vector():
            self.lattice.append(self.lines.take_numbers(3, "a lattice vector"))
        self.lines.require(bool(self.lattice), "Supercell without a lattice vector")
        independent = np.linalg.matrix_rank(self.lattice) == len(self.lattice)
        self.lines.require(independent, "the lattice vectors are linearly dependent")

    def read_atoms(self, header: list[str]) -> None:
        self.lines.require(self.size > 0, "AtomData before Size")
        unknown = [name for name in header if name not in COLUMNS]
        self.lines.require(not unknown, f"AtomData has no column {', '.join(unknown)}")
        self.lines.require(len(set(header)) == len(header), "AtomData names a column twice")
        self.lines.require({"id", "type"} <= set(header), "AtomData needs the columns id and type")
        for group in (CARTESIAN, DIRECT, FORCE):
            complete = set(group) <= set(header) or not set(group) & set(header)
            self.lines.require(complete, f"AtomData needs all or none of {' '.join(group)}")
        placed = CARTESIAN[0] in header or DIRECT[0] in header
        self.lines.require(placed, "AtomData needs cartes_x cartes_y cartes_z or direct_x direct_y direct_z")
        rows = []
        for _ in range(self.size):
            rows.append(self.lines.take_numbers(len(header), " ".join(header)))
            self.check_row(dict(zip(header, rows[-1], strict=True)))
        table = np.array(rows)
        ids = table[:, header.index("id")]
        in_order = np.argsort(ids, kind="stable")
        expected = np.arange(1, self.size + 1)
        self.lines.require(np.array_equal(ids[in_order], expected), f"the ids are not 1 to {self.size}, each once")
        self.table = dict(zip(header, table[in_order].T, strict=True))

    def check_row(self, row: dict[str, float]) -> None:
        self.lines.integer(row["id"], "an id")
        type_ = self.lines.integer(row["type"], "a type")
        self.lines.require(0 <= type_ < 2**31, f"type {type_}: types count from 0")
        if self.species is not None:
            known = f"{len(self.species)} species are known: {', '.join(self.species)}"
            self.lines.require(type_ < len(self.species), f"type {type_} counts from 0, but {known}")

    def read_energy(self, words: list[str]) -> None:
        (self.energy,) = self.lines.take_numbers(1, "the energy")

    def read_plus_stress(self, header: list[str]) -> None:
        self.plus_stress = self.read_voigt(header)

    def read_virial(self, header: list[str]) -> None:
        self.virial = self.read_voigt(header)

    def read_voigt(self, header: list[str]) -> np.ndarray:
        self.lines.require(sorted(header) == sorted(VOIGT), f"expected the components {' '.join(VOIGT)}")
        values = self.lines.take_numbers(6, " ".join(header))
        return np.array([values[header.index(component)] for component in VOIGT])

    def read_feature(self) -> None:
        words = self.lines.lines[self.lines.taken - 1].strip().split(None, 2)
        self.lines.require(len(words) > 1, "Feature without a key")
        key, value = words[1], words[2] if len(words) > 2 else ""
        if key == "MV_grade":
            self.info[key] = self.lines.number(value)
        else:
            self.info[key] = f"{self.info[key]}\n{value}" if key in self.info else value

    def atoms(self) -> Atoms:
        types = self.table["type"].astype(int)
        numbers = np.zeros(self.size, int) if self.species is None else self.numbers()[types]
        cell = np.zeros((3, 3))
        cell[: len(self.lattice)] = np.reshape(self.lattice, (-1, 3))
        atoms = Atoms(numbers, cell=cell, pbc=np.arange(3) < len(self.lattice), info=self.info)
        atoms.new_array("type", types)
        if CARTESIAN[0] in self.table:
            atoms.positions[:] = self.columns(CARTESIAN)
        else:
            self.lines.require(len(self.lattice) == 3, "direct coordinates need three lattice vectors")
            atoms.positions[:] = self.columns(DIRECT) @ cell
        if "nbh_grades" in self.table:
            atoms.new_array("nbh_grades", self.table["nbh_grades"])
        if "charge" in self.table:
            atoms.set_initial_charges(self.table["charge"])
        results = self.results(atoms)
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    def results(self, atoms: Atoms) -> dict[str, float | np.ndarray]:
        results = {}
        if self.energy is not None:
            results["energy"] = results["free_energy"] = self.energy
        if FORCE[0] in self.table:
            results["forces"] = self.columns(FORCE)
        if "site_en" in self.table:
            results["energies"] = self.table["site_en"]
        if len(self.lattice) == 3:
            if self.plus_stress is not None:
                results["stress"] = -self.plus_stress / atoms.get_volume()
            elif self.virial is not None:
                results["stress"] = -self.virial
        return results

    def columns(self, names: Sequence[str]) -> np.ndarray:
        return np.column_stack([self.table[name] for name in names])

    def numbers(self) -> np.ndarray:
        unknown = [symbol for symbol in self.species if symbol not in atomic_numbers]
        if unknown:
            raise DataError(f"no such element: {', '.join(unknown)}; correct --species")
        return np.array([atomic_numbers[symbol] for symbol in self.species])


def _write_block(file: TextIO, atoms: Atoms, types: np.ndarray, lossless: bool) -> None:
    def row(values: Iterable[float], decimals: int = 6) -> str:
        return " ".join(f"{value:24.16e}" if lossless else f"{value:14.{decimals}f}" for value in values)

    def result(name: str) -> np.ndarray | float | None:
        return None if atoms.calc is None else atoms.calc.get_property(name, atoms, allow_calculation=False)

    lattice = atoms.cell.array[atoms.pbc]
    columns = dict(zip(CARTESIAN, atoms.positions.T, strict=True))
    if (site_energies := result("energies")) is not None:
        columns["site_en"] = site_energies
    if (forces := result("forces")) is not None:
        columns |= zip(FORCE, forces.T, strict=True)
    if atoms.has("initial_charges"):
        columns["charge"] = atoms.get_initial_charges()
    if atoms.has("nbh_grades"):
        columns["nbh_grades"] = atoms.arrays["nbh_grades"]

    file.write(f"BEGIN_CFG\n Size\n    {len(atoms)}\n")
    if len(lattice):
        file.write(" Supercell\n")
        file.writelines(f"    {row(vector)}\n" for vector in lattice)
    file.write(f" AtomData:  id type {' '.join(columns)}\n")
    rows = zip(types, np.column_stack([*columns.values()]), strict=True)
    file.writelines(f"    {n:10d} {type_:4d} {row(values)}\n" for n, (type_, values) in enumerate(rows, start=1))
    energies = [energy for name in ("free_energy", "energy") if (energy := result(name)) is not None]
    if energies:
        file.write(f" Energy\n    {row(energies[:1], decimals=12)}\n")
    stress = result("stress")
    if stress is not None and len(lattice) == 3:
        file.write(f" PlusStress:  {' '.join(VOIGT)}\n    {row(-atoms.get_volume() * stress)}\n")
    for key, value in atoms.info.items():
        if isinstance(value, (str, int, float, np.number)) and len(str(key).split()) == 1:
            value = value.item() if isinstance(value, np.generic) else value
            file.writelines(f" Feature   {key}\t{line}\n" for line in str(value).split("\n"))
    file.write("END_CFG\n\n")
