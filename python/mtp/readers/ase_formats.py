# SPDX-License-Identifier: BSD-3-Clause
"""What ASE reads: extended xyz, ASE's databases, and every other format that it knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import StringIO

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import read_xyz
from ase.stress import full_3x3_to_voigt_6_stress

from mtp.errors import Error, FormatError
from mtp.readers.text import Lines

# names that other codes give to labels in extended xyz; ASE's own (energy, forces, stress) come first
ENERGY = ("REF_energy", "dft_energy")
FORCES = ("REF_forces", "dft_forces", "dft_force")
STRESS = ("REF_stress", "dft_stress")
VIRIAL = ("virial", "virials", "REF_virial", "REF_virials", "dft_virial", "dft_virials")


def extended_xyz(path: str | os.PathLike) -> Iterator[Atoms]:
    """Read the frames of an extended xyz file one by one.

    Labels are ASE's energy, free_energy, forces and stress; where they are missing, those named REF_… or dft_…, and
    for the stress a virial (eV, the negative of volume times stress).

    Raises FormatError with line and number of the frame that is damaged.
    """
    lines = Lines(path)
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        frame = f"configuration {number}"
        n = lines.integer(line.strip(), f"the number of atoms of {frame}")
        begin = lines.number
        text = [next(lines, "") for _ in range(n + 1)]
        if not text[-1].strip() and n > 0:
            raise lines.error(f"the file ends within {frame}, which begins at line {begin}")
        try:
            (atoms,) = read_xyz(StringIO(f"{n}\n{''.join(text)}"), index=slice(None))
            _take_labels(atoms)
        except Exception as error:  # ASE's readers raise whatever their parsing runs into
            lines.number = begin + 1 + _damaged_row(text)
            raise lines.error(f"ASE cannot read {frame}: {type(error).__name__}: {error}") from error
        yield atoms


def _damaged_row(text: list[str]) -> int:
    """The first row, from 1, that ASE cannot read as the only atom of a frame; 0 (the comment) where there is none."""
    for row, line in enumerate(text[1:], start=1):
        try:
            list(read_xyz(StringIO(f"1\n{text[0]}{line}"), index=slice(None)))
        except Exception:  # as above
            return row
    return 0


def _take_labels(atoms: Atoms) -> None:
    results = {} if atoms.calc is None else dict(atoms.calc.results)

    def take(name: str, others: tuple[str, ...], store: dict) -> None:
        found = next((other for other in others if other in store), None)
        if name not in results and found is not None:
            results[name] = store.pop(found)

    if "free_energy" not in results:
        take("energy", ENERGY, atoms.info)
    take("forces", FORCES, atoms.arrays)
    take("stress", STRESS, atoms.info)
    take("virial", VIRIAL, atoms.info)
    virial = results.pop("virial", None)
    if virial is not None and "stress" not in results and atoms.cell.rank == 3:
        results["stress"] = full_3x3_to_voigt_6_stress(-np.reshape(virial, (3, 3)) / atoms.get_volume())
    elif np.size(results.get("stress")) == 9:
        results["stress"] = full_3x3_to_voigt_6_stress(np.reshape(results["stress"], (3, 3)))
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)


def database(path: str | os.PathLike) -> Iterator[Atoms]:
    """Read the rows of an ASE database (.db, .json) by their id; their key-value pairs go to info.

    Raises FormatError where ASE cannot read a row.
    """
    n_read = 0
    try:
        if not os.path.getsize(path):
            raise FormatError(f"{path}: the file holds no configuration")
        with ase.db.connect(os.fspath(path)) as rows:
            for row in rows.select():
                atoms = row.toatoms()
                atoms.info.update(row.key_value_pairs)
                yield atoms
                n_read += 1
    except Exception as error:  # as above
        raise _refusal(path, error, f"after configuration {n_read}") from error


def any_other(path: str | os.PathLike) -> Iterator[Atoms]:
    """Read what ASE reads, in the format that ASE finds. Raises FormatError where it cannot."""
    n_read = 0
    try:
        for atoms in ase.io.iread(path, index=":", parallel=False):
            yield atoms
            n_read += 1
    except Exception as error:  # as above
        raise _refusal(path, error, f"after configuration {n_read}" if n_read else "") from error


def _refusal(path: str | os.PathLike, error: Exception, where: str) -> Error:
    if isinstance(error, Error):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return Error(f"{path}: cannot be read: {error.strerror}")
    return FormatError(f"{path}: ASE cannot read it {where}".rstrip() + f": {type(error).__name__}: {error}")
