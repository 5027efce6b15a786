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
        tensors: of each (d, d), by which its conductivity counts in the tensor; d = 3, or 2 for a sheet.
    """

    groups: list[np.ndarray]
    tensors: list[np.ndarray]

    def tensor(self, values: Sequence[float]) -> np.ndarray:
        """(d, d), from the groups' conductivities."""
        return sum(value * tensor for value, tensor in zip(values, self.tensors, strict=True))

    def tensor_error(self, errors: Sequence[float]) -> np.ndarray:
        """(d, d), standard errors of its elements, if those of the groups are independent."""
        return np.sqrt(sum((error * tensor) ** 2 for error, tensor in zip(errors, self.tensors, strict=True)))

    def mean(self, values: Sequence[float]) -> float:
        """Of the tensor's diagonal."""
        return float(np.mean(self.tensor(values).diagonal()))

    def mean_error(self, errors: Sequence[float]) -> float:
        """Of that mean."""
        shares = [np.mean(tensor.diagonal()) for tensor in self.tensors]
        return float(np.linalg.norm(np.multiply(errors, shares)))


def directions(unit: Atoms, symmetry: str, sheet: bool = False) -> Directions:
    """Of a crystal with this unit cell ("crystal"), of an isotropic system, or without any symmetry ("none"); of a
    sheet in the xy plane, those in that plane alone."""
    if symmetry == "isotropic":
        d = 2 if sheet else 3
        return Directions([np.eye(3)[:d]], [np.eye(d)])
    rotations = point_group(unit) if symmetry == "crystal" else np.eye(3)[None]
    if not sheet:
        return _of_group(rotations)
    # in the plane nothing changes where above and below change places; then no tensor mixes z with x and y
    found = _of_group(np.concatenate([rotations, rotations @ np.diag([1.0, 1.0, -1.0])]))
    kept = [k for k, group in enumerate(found.groups) if np.abs(group[:, 2]).max() < TOLERANCE]
    return Directions([found.groups[k] for k in kept], [found.tensors[k][:2, :2] for k in kept])


def _of_group(rotations: np.ndarray) -> Directions:
    """Of a crystal with these rotations (n, 3, 3)."""
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
