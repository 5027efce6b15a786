# SPDX-License-Identifier: BSD-3-Clause
"""Configurations and their labels, whatever file they come from.

A configuration is an ase.Atoms in eV and Å. Its labels are the results of a calculator that already ran: the
energy (the force-consistent one, whose derivative the forces are), the forces, and the stress in ASE's sign
and order xx yy zz yz xz xy.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io.formats import filetype
from ase.stress import full_3x3_to_voigt_6_stress

from mtp.cfg import atom_types, replaced_whole, write_cfg
from mtp.errors import DataError, Error
from mtp.neighbours import neighbourhoods
from mtp.readers import Skipped, read_all


class SkippedWarning(UserWarning):
    """Configurations of a file were skipped: how many, which and why."""


def read(
    path: str | os.PathLike,
    species: Sequence[str] | None = None,
    *,
    lammps_units: str = "metal",
    unconverged: str = "skip",
    report: Callable[[Skipped], None] | None = None,
) -> list[Atoms]:
    """Read every configuration of a file, in the format that its name and its first lines tell.

    Args:
        path: .cfg (MLIP's), extended xyz, VASP's OUTCAR or vasprun.xml, a Gaussian log, a LAMMPS dump or data file,
            an ASE database, or anything else that ASE reads; text may be packed (.gz, .bz2, .xz).
        species: element symbols in the order of the types of .cfg and LAMMPS; other formats name their elements.
        lammps_units: of LAMMPS' files.
        unconverged: "skip" configurations whose electronic steps did not converge, or "refuse" the file.
        report: is told once what was skipped; by default that is a SkippedWarning.

    Returns:
        One Atoms per configuration, without constraints; info["source"] is "path#n", n from 1.

    Raises:
        FormatError: the file is damaged, empty, or of a format that ASE does not know.
        DataError: no configuration is usable, or one is refused.
        Error: the file cannot be opened.
    """
    configurations, skipped = read_all(path, species, lammps_units, unconverged)
    if skipped is not None:
        if report is None:
            warnings.warn(str(skipped), SkippedWarning, stacklevel=2)
        else:
            report(skipped)
    return configurations


def write(path: str | os.PathLike, configurations: Iterable[Atoms], species: Sequence[str] | None = None) -> None:
    """Write configurations in the format that the file's name tells, the whole file or nothing.

    Args:
        path: .cfg (MLIP's), .extxyz, .xyz (extended as well), or anything that ASE writes.
        configurations: with or without labels.
        species: element symbols in the order of the types to write to .cfg; None takes the array "type".

    Raises:
        DataError: a configuration that .cfg cannot hold.
        Error: the format is unknown or cannot hold these configurations, or the file cannot be written.
    """
    if Path(path).suffix == ".cfg":
        write_cfg(path, configurations, species)
        return
    with replaced_whole(path) as part:
        try:
            # ASE would take OUTCAR.extxyz for an OUTCAR
            form = "extxyz" if Path(path).suffix in (".extxyz", ".xyz") else filetype(str(path), read=False)
            ase.io.write(part, list(configurations), format=form, parallel=False)  # this rank alone
        except OSError:
            raise
        except Exception as error:  # as for reading
            raise Error(f"{path}: ASE cannot write it: {type(error).__name__}: {error}") from error


@dataclass
class Labels:
    """What a reference calculation says about a configuration of N atoms; None where it says nothing.

    Attributes:
        energy: total, force-consistent, eV.
        forces: (N, 3), eV/Å.
        stress: (6,), eV/Å³, ASE's sign and order xx yy zz yz xz xy.
    """

    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None


def labels(atoms: Atoms, need: Sequence[str] = ("energy", "forces")) -> Labels:
    """Take the labels of a configuration and check them; nothing is calculated.

    Args:
        atoms: with a calculator that holds results for exactly these positions, cell and elements.
        need: which of "energy", "forces" and "stress" must be there.

    Raises:
        DataError: a needed label is missing, or any label is not finite or has the wrong shape.
    """
    found = {
        "energy": _result(atoms, "free_energy", ()),
        "forces": _result(atoms, "forces", (len(atoms), 3)),
        "stress": _result(atoms, "stress", (6,)),
    }
    if found["energy"] is None:
        found["energy"] = _result(atoms, "energy", ())
    missing = [name for name in need if found[name] is None]
    if missing:
        raise DataError(
            f"{_name(atoms)}: no {' and no '.join(missing)}: take the configuration out, "
            "or store the results of its calculation with it (extended xyz and .cfg hold them)"
        )
    energy = None if found["energy"] is None else float(found["energy"])
    return Labels(energy, found["forces"], found["stress"])


def with_labels(atoms: Atoms, labels: Labels, **info: object) -> Atoms:
    """Copy a configuration, attach labels (energy and free_energy alike), and add entries to its info."""
    labelled = atoms.copy()
    labelled.info.update(info)
    labelled.calc = SinglePointCalculator(
        labelled, energy=labels.energy, free_energy=labels.energy, forces=labels.forces, stress=labels.stress
    )
    return labelled


def species_of(configurations: Iterable[Atoms]) -> list[str]:
    """List the elements that occur, by atomic number.

    Raises:
        DataError: a configuration whose atoms have types but no elements.
    """
    numbers: set[int] = set()
    for atoms in configurations:
        if not atoms.numbers.all():
            raise DataError(
                f"{_name(atoms)}: the atoms have types but no elements: give --species, the elements in "
                "the order of the types"
            )
        numbers.update(atoms.numbers.tolist())
    return [chemical_symbols[number] for number in sorted(numbers)]


def types(atoms: Atoms, species: Sequence[str] | None) -> np.ndarray:
    """Give each atom's type in a potential, int32 (N,): the index of its element in species.

    Args:
        atoms: the configuration.
        species: the potential's element symbols, in its order; None for a potential that names no elements,
            which takes the array "type" as it is.

    Raises:
        DataError: an element that the potential does not know, or no array "type".
    """
    return atom_types(atoms, species, _name(atoms))


def check_distances(atoms: Atoms, smallest: float = 0.1) -> None:
    """Refuse a configuration with two atoms, periodic images included, closer than `smallest` (Å).

    Raises:
        DataError: such a pair, named by the atoms' indices (from 0), or positions that are not finite.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(f"{_name(atoms)}: positions or lattice vectors are not finite")
    near = neighbourhoods(atoms, np.zeros(len(atoms), dtype=np.int32), smallest)
    if len(near.neighbour):
        distance = np.linalg.norm(near.vectors, axis=1)
        pair = np.argmin(distance)
        raise DataError(
            f"{_name(atoms)}: atoms {near.centre[pair]} and {near.neighbour[pair]} are {distance[pair]:.3g} Å apart, "
            f"less than {smallest:g} Å: remove a duplicate, or check the cell and the unit of the positions"
        )


def _result(atoms: Atoms, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    value = None if atoms.calc is None else atoms.calc.get_property(name, atoms, allow_calculation=False)
    if value is None:
        return None
    value = np.asarray(value, dtype=float)
    if name == "stress" and value.shape == (3, 3):
        value = full_3x3_to_voigt_6_stress(value)
    if value.shape != shape:
        raise DataError(f"{_name(atoms)}: {name} has shape {value.shape}, expected {shape}; correct the file")
    if not np.isfinite(value).all():
        raise DataError(f"{_name(atoms)}: {name} is not finite: take the configuration out or recompute it")
    return value


def _name(atoms: Atoms) -> str:
    return str(atoms.info.get("source", "a configuration"))
