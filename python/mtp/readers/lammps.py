# SPDX-License-Identifier: BSD-3-Clause
"""LAMMPS' text dumps, with forces where they hold any, and its data files.

A dump has no energy: its configurations have forces as their only label. Types become elements by the column
`element` or by --species; without either they are kept in the array "type", from 0 as everywhere in mtp.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO

import numpy as np
from ase import Atoms
from ase.calculators.lammps import convert
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io.lammpsdata import read_lammps_data

from mtp.errors import Error, FormatError
from mtp.readers.text import CUT_OFF, Lines, Skip, finite, opened

UNITS = ("metal", "real", "si", "cgs", "electron", "micro", "nano")
POSITIONS = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
SECTIONS = {"UNITS": 1, "TIMESTEP": 1, "TIME": 1, "NUMBER OF ATOMS": 1, "BOX BOUNDS": 3, "ATOMS": 0}  # and their lines
FORCE = ("fx", "fy", "fz")


def dump(
    path: str | os.PathLike, species: Sequence[str] | None, units: str, columns: Mapping[str, str] | None = None
) -> Iterator[Atoms | Skip]:
    """Read the frames of a text dump one by one; a frame that the file cuts short is a Skip.

    Atoms come in the order of the array "id", where there is one; info has "step".

    Args:
        path: the dump, its columns named: id, type or element, x y z (or xu, xs, xsu), fx fy fz.
        species: elements in the order of LAMMPS' types.
        units: LAMMPS' units; what the file itself says must agree.
        columns: names of arrays for further columns.

    Raises:
        FormatError: a frame that is no dump's, with its line.
    """
    lines = Lines(path)
    check_units(units)
    header: dict[str, list[str]] = {}
    for line in lines:
        if not line.strip():
            continue
        if not line.startswith("ITEM: "):
            raise lines.error(f"expected ITEM:, found {line.strip()[:40]!r} (binary dumps are not read)")
        name = next((name for name in SECTIONS if line.startswith(f"ITEM: {name}")), None)
        if name is None:
            raise lines.error(f"{line.strip()!r} is no section of a dump (grids and binary dumps are not read)")
        words = line.split()[1 + len(name.split()) :]
        if name == "ATOMS":
            if "NUMBER OF ATOMS" not in header or "BOX BOUNDS" not in header:
                raise lines.error("ATOMS before NUMBER OF ATOMS and BOX BOUNDS")
            if not words:
                raise lines.error(
                    "the columns have no names (dump custom writes them; dump atom of old versions did not)"
                )
            n = lines.integer(header["NUMBER OF ATOMS"][0].strip(), "the number of atoms")
            rows = [next(lines, "") for _ in range(n)]
            if rows and not rows[-1].endswith("\n") and len(rows[-1].split()) < len(words):
                yield CUT_OFF
                return
            split = [row.split() for row in rows]
            frame = _frame(lines, words, split, header["BOX BOUNDS"], species, units, columns or {})
            if "TIMESTEP" in header:
                frame.info["step"] = lines.integer(header["TIMESTEP"][0].strip(), "the time step")
            yield frame
            header = {}
        else:
            rows = [next(lines, "") for _ in range(SECTIONS[name])]
            if not rows[-1].endswith("\n"):
                yield CUT_OFF
                return
            header[name] = rows if name != "BOX BOUNDS" else [" ".join(words), *rows]
            if name == "UNITS" and rows[0].strip() != units:
                raise lines.error(f"the file says units {rows[0].strip()}, not {units}: give --lammps-units")
    if header:
        yield CUT_OFF


def check_units(units: str) -> None:
    if units not in UNITS:
        raise Error(f"--lammps-units: {units!r} is not one of {', '.join(UNITS)} (lj has no length and no energy)")


def _frame(
    lines: Lines,
    columns: list[str],
    rows: list[list[str]],
    box: list[str],
    species: Sequence[str] | None,
    units: str,
    more: Mapping[str, str],
) -> Atoms:
    wrong = next((k for k, row in enumerate(rows) if len(row) != len(columns)), None)
    if wrong is not None:
        lines.number -= len(rows) - 1 - wrong
        raise lines.error(f"{len(rows[wrong])} columns, not {len(columns)} ({' '.join(columns)})")

    def numbers(names: Sequence[str]) -> np.ndarray:
        places = [columns.index(name) for name in names]
        values = finite([row[place] for row in rows for place in places])
        if values is None:
            raise lines.error(f"the columns {' '.join(names)} of the frame that ends here are not all finite numbers")
        return values.reshape(len(rows), len(places))

    cell, origin, periodic = _box(lines, box)
    placed = next((names for names in POSITIONS if set(names) <= set(columns)), None)
    if placed is None:
        raise lines.error("a frame without positions: dump x y z (or xu yu zu, xs ys zs)")
    positions = numbers(placed)
    if "s" in placed[0]:
        positions = origin + positions @ cell
    types = numbers(["type"])[:, 0].astype(int) if "type" in columns else None
    symbols = [row[columns.index("element")] for row in rows] if "element" in columns else None
    symbols = symbols or _symbols(lines, types, species)
    unknown = sorted(set(symbols) - set(atomic_numbers))
    if unknown:
        raise lines.error(f"no such element: {', '.join(unknown)}: dump_modify element names them, or --species")
    atoms = Atoms(
        symbols,
        convert(positions - origin, "distance", units, "ASE"),
        cell=convert(cell, "distance", units, "ASE"),
        pbc=periodic,
    )
    if types is not None:
        atoms.new_array("type", types - 1)
    for column, name in more.items():
        atoms.new_array(name, numbers([column])[:, 0])
    forces = convert(numbers(FORCE), "force", units, "ASE") if set(FORCE) <= set(columns) else None
    if "id" in columns:
        ids = numbers(["id"])[:, 0].astype(np.int64)
        atoms.new_array("id", ids)
        order = np.argsort(ids, kind="stable")
        atoms, forces = atoms[order], None if forces is None else forces[order]
    if forces is not None:
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
    return atoms


def _symbols(lines: Lines, types: np.ndarray | None, species: Sequence[str] | None) -> list[str]:
    if types is None:
        raise lines.error("a frame without types and elements: dump type or element")
    if species is None:
        return ["X"] * len(types)
    if len(types) and not 1 <= types.min() <= types.max() <= len(species):
        raise lines.error(f"types {types.min()} to {types.max()}, but --species names {len(species)} elements")
    return [species[type_ - 1] for type_ in types]


def _box(lines: Lines, box: list[str]) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Cell, origin and periodicity. The bounds of a tilted box enclose it: its sides follow from them and the tilts
    [LAMMPS manual, Howto triclinic]."""
    words, values = box[0].split(), finite(" ".join(box[1:]).split())
    periodic = [word[0] == "p" for word in (words[-3:] if len(words) >= 3 else ["pp"] * 3)]
    if values is not None and "abc" in words and len(values) == 12:
        rows = values.reshape(3, 4)
        return rows[:, :3], rows[:, 3], periodic
    if values is None or len(values) not in (6, 9):
        raise lines.error("BOX BOUNDS are not three lines of two, three or four numbers")
    rows = values.reshape(3, -1)
    xy, xz, yz = rows[:, 2] if len(values) == 9 else (0.0, 0.0, 0.0)
    low = rows[:, 0] - [min(0, xy, xz, xy + xz), min(0, yz), 0]
    high = rows[:, 1] - [max(0, xy, xz, xy + xz), max(0, yz), 0]
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, low, periodic


def data(path: str | os.PathLike, species: Sequence[str] | None, units: str) -> Iterator[Atoms]:
    """Read the structure of a data file; it has no labels.

    Elements come from `species`, else from atom type labels, else from the masses; the atom style from the comment
    after Atoms, else from the number of columns (five or eight: atomic, six or nine: charge, seven or ten: full).
    """
    check_units(units)
    with opened(path) as file:
        text = file.read().decode("utf-8", errors="replace")
    numbers = None
    if species is not None:
        numbers = {type_: atomic_numbers.get(symbol, 0) for type_, symbol in enumerate(species, start=1)}
    elif "Masses" not in text and "Atom Type Labels" not in text:
        raise FormatError(f"{path}: neither masses nor labels tell the elements: give --species")
    try:
        atoms = read_lammps_data(StringIO(text), Z_of_type=numbers, units=units, atom_style=_style(text))
    except KeyError as error:
        raise FormatError(f"{path}: no element for type {error}: --species must name one for each type") from None
    except Exception as error:  # ASE's reader raises whatever its parsing runs into
        raise FormatError(f"{path}: cannot be read as a data file: {type(error).__name__}: {error}") from error
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    plain.new_array("type", atoms.arrays["type"] - 1)
    yield plain


def _style(text: str) -> str | None:
    """The atom style where ASE cannot tell it: no comment after Atoms, and rows of six or nine columns."""
    lines = [line.strip() for line in text.split("\n")]
    place = next((k for k, line in enumerate(lines) if line.split("#")[0].strip() == "Atoms"), None)
    if place is None or "#" in lines[place]:
        return None
    first = next((line for line in lines[place + 1 :] if line), "")
    return "charge" if len(first.split("#")[0].split()) in (6, 9) else None
