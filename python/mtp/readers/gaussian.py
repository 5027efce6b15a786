# SPDX-License-Identifier: BSD-3-Clause
"""Logs of Gaussian: every geometry with its energy and forces, hartree and bohr converted.

Gaussian computes in the standard orientation and restores forces to the axes of the input before it prints them
[gaussian.com/force]. Positions are therefore those of the input orientation (the Z-matrix orientation is the same
frame); the standard orientation serves only where there are no forces, or where NoSymm made the two the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree

from mtp.readers.text import CUT_OFF, UNCONVERGED, Lines, Skip, finite

# the last that a geometry prints is of the method asked for, and its derivative are the forces: SCF comes before
# perturbation theory, double hybrids, coupled clusters, excited states and layers
ENERGIES = re.compile(
    r"(?:SCF Done:\s+E\([^)]*\)\s*|\bEUMP2\s*|\bE\((?:B2PLYP\w*|mPW2PLYP\w*|PBE0DH|PBEQIDH|DSD\w*)\)\s*|\bEUMP3\s*"
    r"|\bUMP4\(SD(?:T?Q)\)\s*|\bE\(C[oO][rR][rR]\)\s*|CCSD\(T\)\s*|Total Energy, E\((?:TD-HF/TD-DFT|CIS[^)]*)\)\s*"
    r"|ONIOM: extrapolated energy\s*)=\s*(\S+)"
)
ORIENTATIONS = ("Input orientation:", "Z-Matrix orientation:", "Standard orientation:")
TRANSLATION = -2  # Gaussian's atomic number of a lattice vector
MISORIENTED = Skip(
    "forces are in the input orientation, but the log has positions in the standard orientation only "
    "(run with NoSymm or geom=PrintInputOrient)"
)


class _Geometry:
    """One geometry, as far as it was read: positions by orientation, energy (hartree), forces (hartree/bohr)."""

    def __init__(self) -> None:
        self.tables: dict[str, np.ndarray] = {}
        self.energy: float | None = None
        self.forces: np.ndarray | None = None
        self.converged = True

    def atoms(self, without_symmetry: bool) -> Atoms | Skip:
        if not self.converged:
            return UNCONVERGED
        table = self.tables.get("Input", self.tables.get("Z-Matrix"))
        if table is None:
            if self.forces is not None and not without_symmetry:
                return MISORIENTED
            table = self.tables["Standard"]
        numbers = table[:, 1].astype(int)
        if (numbers == 0).any():
            return Skip("it has ghost atoms")
        lattice = table[numbers == TRANSLATION, -3:]
        real = table[numbers > 0]
        cell = np.zeros((3, 3))
        cell[: len(lattice)] = lattice
        atoms = Atoms(real[:, 1].astype(int), real[:, -3:], cell=cell, pbc=np.arange(3) < len(lattice))
        forces = None
        if self.forces is not None:
            forces = self.forces[self.forces[:, 1] > 0, -3:] * Hartree / Bohr
            if len(forces) != len(atoms):
                return Skip(f"it has forces on {len(forces)} of {len(atoms)} atoms")
        energy = self.energy * Hartree
        atoms.calc = SinglePointCalculator(atoms, energy=energy, free_energy=energy, forces=forces)
        return atoms


def gaussian_log(path: str | os.PathLike) -> Iterator[Atoms | Skip]:
    """Read the geometries of a log one by one. A geometry that is printed again with the same labels counts once.

    Raises FormatError where a table of positions or forces is damaged.
    """
    lines = Lines(path)
    geometry: _Geometry | None = None
    last: Atoms | Skip | None = None
    finished = without_symmetry = failing = ended = False

    def done() -> Iterator[Atoms | Skip]:
        nonlocal last
        if geometry is None:
            return
        if geometry.energy is None:
            if ended and not finished:
                yield UNCONVERGED if failing or not geometry.converged else CUT_OFF
            return
        found = geometry.atoms(without_symmetry)
        if not (isinstance(found, Atoms) and isinstance(last, Atoms) and _same(found, last)):
            yield found
        last = found

    for line in lines:
        text = line.strip()
        if text in ORIENTATIONS:
            kind = text.split()[0]
            if geometry is None or geometry.energy is not None or kind in geometry.tables:
                yield from done()
                geometry = _Geometry()
            geometry.tables[kind] = _table(lines, 4, (5, 6))
            finished = failing = False
        elif text.startswith("Entering Gaussian System"):
            ended = True
            yield from done()
            geometry = None
            ended = without_symmetry = False
        elif geometry is None or text.startswith("#"):
            without_symmetry = without_symmetry or "nosymm" in text.lower()
        elif "Convergence criterion not met" in text:
            failing = True
        elif text.startswith("Convergence failure"):
            geometry.converged = False
        elif text.startswith("Normal termination"):
            finished = True
        elif "=" in text and (found := ENERGIES.search(text)):
            value = finite([found[1]])
            if value is None:
                raise lines.error(f"{found[1]!r} is not an energy")
            geometry.energy = float(value[0])
            if text.startswith("SCF Done"):  # a quadratically convergent cycle may follow one that failed
                geometry.converged, failing = not failing, False
        elif text.startswith("Center") and "Forces (Hartrees/Bohr)" in text:
            geometry.forces = _table(lines, 2, (5,))
    ended = True
    yield from done()


def _table(lines: Lines, n_above: int, widths: tuple[int, ...]) -> np.ndarray:
    """The numbers of a table whose first row comes after `n_above` lines and whose end is a rule of dashes."""
    for _ in range(n_above):
        next(lines, "")
    rows = []
    for line in lines:
        words = re.sub(r"(?<=\d)-(?=\d)", " -", line).split()
        if len(words) == 1 and set(words[0]) == {"-"}:
            break
        if len(words) == 4 and words[0].startswith("-"):  # forces on lattice vectors have no centre
            words.insert(0, "0")
        row = finite(words)
        if row is None or len(row) not in widths:
            raise lines.error(f"{line.strip()!r} is no row of a table of atoms")
        rows.append(row)
    if not rows or len({len(row) for row in rows}) > 1:
        raise lines.error("the table of atoms is damaged")
    return np.array(rows)


def _same(one: Atoms, other: Atoms) -> bool:
    if one != other or abs(one.calc.results["energy"] - other.calc.results["energy"]) > 1e-6:
        return False
    forces = [atoms.calc.results.get("forces") for atoms in (one, other)]
    return forces[0] is None or (forces[1] is not None and np.abs(forces[0] - forces[1]).max() < 1e-4)
