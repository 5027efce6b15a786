# SPDX-License-Identifier: BSD-3-Clause
"""Neighbourhoods of the atoms of configurations (search by the vesin package)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from vesin import NeighborList

from mtp.errors import DataError
from mtp.library import doubles, ffi, int32s, int64s


@dataclass(frozen=True)
class Neighbourhoods:
    """Full neighbour lists of N atoms with P pairs in all, over any number of periodic images.

    first_atom: (C + 1,) int64, the atoms of configuration c, of C, are first_atom[c] ... first_atom[c + 1] - 1;
    species: (N,) int32; first: (N + 1,) int64, the pairs of atom i are first[i] ... first[i + 1] - 1;
    neighbour: (P,) int32; vectors: (P, 3), r_j - r_i in Å.
    """

    first_atom: np.ndarray
    species: np.ndarray
    first: np.ndarray
    neighbour: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.species)

    @property
    def bytes(self) -> int:
        """Memory that the lists take."""
        return sum(getattr(self, name).nbytes for name in self.__dataclass_fields__)

    def as_c(self):
        """Borrowed `mtp_neighbourhoods *`; valid as long as this object lives."""
        return ffi.new(
            "mtp_neighbourhoods *",
            {
                "n_configurations": len(self.first_atom) - 1,
                "first_atom": int64s(self.first_atom),
                "n_atoms": len(self.species),
                "species": int32s(self.species),
                "first": int64s(self.first),
                "neighbour": int32s(self.neighbour),
                "vectors": doubles(self.vectors),
            },
        )


def neighbourhoods(atoms: Atoms, species: np.ndarray, cutoff: float) -> Neighbourhoods:
    """Find all neighbours closer than `cutoff` (Å); `species` is the (N,) index of each atom's species.

    Raises DataError where positions or cell are not finite, or where a periodic direction has no cell vector.
    """
    source = atoms.info.get("source", "configuration")
    positions = np.ascontiguousarray(atoms.positions, dtype=float)
    cell = np.array(atoms.cell[:], dtype=float)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise DataError(f"{source}: positions or cell hold NaN or infinity")
    periodic = np.array(atoms.pbc, dtype=bool)
    if any(periodic & (np.linalg.norm(cell, axis=1) == 0)):
        raise DataError(f"{source}: periodic along a direction that has no cell vector; give the cell or set pbc to F")
    if periodic.any():
        cell = np.array(atoms.cell.complete()[:], dtype=float)
        if abs(np.linalg.det(cell)) < 1e-6:
            raise DataError(f"{source}: the cell has no volume (its vectors are linearly dependent)")
    if len(atoms) == 0:
        i = j = np.zeros(0, dtype=np.int64)
        vectors = np.zeros((0, 3))
    else:
        search = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
        i, j, vectors = search.compute(positions, cell, periodic, "ijD", copy=True)
    first = np.zeros(len(atoms) + 1, dtype=np.int64)
    np.cumsum(np.bincount(i.astype(np.int64), minlength=len(atoms)), out=first[1:])
    return Neighbourhoods(
        np.array([0, len(atoms)], dtype=np.int64),
        np.ascontiguousarray(species, dtype=np.int32),
        first,
        np.ascontiguousarray(j, dtype=np.int32),
        np.ascontiguousarray(vectors, dtype=np.float64),
    )


def joined(parts: Sequence[Neighbourhoods]) -> Neighbourhoods:
    """Several configurations in one, for one call of the library."""
    atoms = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    pairs = np.cumsum([0, *(len(part.neighbour) for part in parts)], dtype=np.int64)
    return Neighbourhoods(
        np.concatenate([[0], *(part.first_atom[1:] + n for part, n in zip(parts, atoms, strict=False))]),
        np.concatenate([part.species for part in parts]),
        np.concatenate([[0], *(part.first[1:] + n for part, n in zip(parts, pairs, strict=False))]),
        np.concatenate([part.neighbour + np.int32(n) for part, n in zip(parts, atoms, strict=False)]),
        np.concatenate([part.vectors for part in parts]),
    )
