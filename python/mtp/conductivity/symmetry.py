# SPDX-License-Identifier: BSD-3-Clause
"""Which directions of a crystal conduct alike, and the conductivity tensor from conductivities along directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mtp import extras

TOLERANCE = 1e-3  # Å, of positions; relative, of tensors


@dataclass
class Directions:
    """Groups of equivalent directions, and how the tensor follows from them.

    Attributes:
        groups: of each (k, 3) unit vectors, rows, along which currents have the same spectrum.
        tensors: of each (3, 3), by which its conductivity counts in the tensor.
    """

    groups: list[np.ndarray]
    tensors: list[np.ndarray]

    def tensor(self, values: Sequence[float]) -> np.ndarray:
        """(3, 3), from the groups' conductivities."""
        return sum(value * tensor for value, tensor in zip(values, self.tensors, strict=True))

    def tensor_error(self, errors: Sequence[float]) -> np.ndarray:
        """(3, 3), standard errors of its elements, if those of the groups are independent."""
        return np.sqrt(sum((error * tensor) ** 2 for error, tensor in zip(errors, self.tensors, strict=True)))

    def mean_error(self, errors: Sequence[float]) -> float:
        """Of a third of the trace."""
        return float(np.sqrt(sum((e * np.trace(t) / 3) ** 2 for e, t in zip(errors, self.tensors, strict=True))))


def directions(unit: Atoms, symmetry: str) -> Directions:
    """Of a crystal with this unit cell ("crystal"), of an isotropic system, or without any symmetry ("none")."""
    if symmetry == "isotropic":
        return Directions([np.eye(3)], [np.eye(3)])
    rotations = point_group(unit) if symmetry == "crystal" else np.eye(3)[None]
    # invariant symmetric tensors: the mean of the character of the symmetric square
    squares = [(np.trace(r) ** 2 + np.trace(r @ r)) / 2 for r in rotations]
    if round(float(np.mean(squares))) > 3:
        return _six(rotations)
    probe = np.array([[1.0, 0.2, 0.3], [0.2, 1.7, 0.5], [0.3, 0.5, 2.9]])  # of no symmetry
    values, vectors = np.linalg.eigh(np.mean([r @ probe @ r.T for r in rotations], axis=0))
    places = np.split(np.arange(3), np.flatnonzero(np.diff(values) > TOLERANCE) + 1)
    groups = [vectors[:, place].T for place in places]
    return Directions(groups, [group.T @ group for group in groups])


def _six(rotations: np.ndarray) -> Directions:
    """All six elements, the mixed ones from the directions between axes, and their mean over the group."""
    axes = np.eye(3)
    groups = [axes[k : k + 1] for k in range(3)]
    tensors = [np.outer(axis, axis) for axis in axes]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        mixed = np.outer(axes[a], axes[b]) + np.outer(axes[b], axes[a])
        groups.append((axes[a] + axes[b])[None] / np.sqrt(2))
        tensors.append(mixed)
        for k in (a, b):
            tensors[k] = tensors[k] - mixed / 2
    return Directions(groups, [np.mean([r @ t @ r.T for r in rotations], axis=0) for t in tensors])


def point_group(unit: Atoms) -> np.ndarray:
    """Rotations of the crystal, (n, 3, 3), in its Cartesian axes."""
    structure = extras.phonopy("the symmetry of a crystal needs", "conductivity").structure
    scaled = unit.get_scaled_positions()
    crystal = structure.atoms.PhonopyAtoms(symbols=list(unit.symbols), cell=unit.cell.array, scaled_positions=scaled)
    cell = unit.cell.array.T
    rotations = structure.symmetry.Symmetry(crystal, symprec=TOLERANCE).pointgroup_operations
    return np.array([cell @ rotation @ np.linalg.inv(cell) for rotation in rotations])
