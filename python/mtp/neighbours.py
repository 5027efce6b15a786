# SPDX-License-Identifier: BSD-3-Clause
"""Configurations as the library takes them, and the neighbourhoods of their atoms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mtp.errors import DataError, LibraryError
from mtp.library import call, doubles, ffi, int32s, int64s

BATCH = 2048  # atoms that are evaluated in one call: their pairs stay in the cache, few groups of lanes are not full


@dataclass(frozen=True)
class Batch:
    """Configurations side by side, N atoms in all.

    species: (N,) int32; first_atom: (C + 1,) int64, the atoms of configuration c are first_atom[c] ...
    first_atom[c + 1] - 1;
    positions: (N, 3), Å; cells: (C, 3, 3), rows are lattice vectors, Å; periodic: (C, 3) int32, 0 or 1.
    """

    species: np.ndarray
    first_atom: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    periodic: np.ndarray

    @classmethod
    def of(cls, configurations: Sequence[Atoms], species: Sequence[np.ndarray]) -> Batch:
        """Put configurations, at least one, side by side; `species` of each: (its atoms,) integers.

        Raises DataError where positions or cell are not finite.
        """
        first_atom = np.zeros(len(configurations) + 1, dtype=np.int64)
        np.cumsum([len(of_one) for of_one in species], out=first_atom[1:])
        positions = np.concatenate([atoms.positions for atoms in configurations]).astype(float, copy=False)
        cells = np.array([atoms.cell.array for atoms in configurations], dtype=float)
        if not (np.isfinite(positions).all() and np.isfinite(cells).all()):
            finite = (np.isfinite(a.positions).all() and np.isfinite(a.cell.array).all() for a in configurations)
            source = configurations[list(finite).index(False)].info.get("source", "configuration")
            raise DataError(f"{source}: positions or cell hold NaN or infinity")
        periodic = np.array([atoms.pbc for atoms in configurations], dtype=np.int32)
        return cls(np.concatenate(species).astype(np.int32, copy=False), first_atom, positions, cells, periodic)

    def as_c(self):
        """Borrowed `mtp_configurations *`; valid as long as this object lives."""
        return ffi.new(
            "mtp_configurations *",
            {
                "n_configurations": len(self.cells),
                "first_atom": int64s(self.first_atom),
                "species": int32s(self.species),
                "positions": doubles(self.positions),
                "cells": doubles(self.cells),
                "periodic": int32s(self.periodic),
            },
        )


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

    @property
    def centre(self) -> np.ndarray:
        """(P,), the atom i of every pair."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def of_centres(self, centres: np.ndarray) -> Neighbourhoods:
        """The neighbourhoods of some atoms, (m,) indices, and behind them one atom without neighbours of each species,
        which stands for all neighbours of that species: enough for what belongs to centres, not for forces."""
        counts = np.diff(self.first)[centres]
        ends = np.cumsum(counts)
        pairs = np.repeat(self.first[centres] - ends + counts, counts) + np.arange(counts.sum())
        kinds = np.arange(self.species.max() + 1, dtype=np.int32)
        n_atoms, n_pairs = len(centres) + len(kinds), len(pairs)
        return Neighbourhoods(
            np.array([0, n_atoms], dtype=np.int64),
            np.concatenate([self.species[centres], kinds]),
            np.concatenate([[0], ends, np.full(len(kinds), n_pairs)]),
            len(centres) + self.species[self.neighbour[pairs]],
            self.vectors[pairs],
        )

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

    Raises DataError where positions or cell are not finite; DataError, or LibraryError for a configuration without a
    source, where a periodic direction has no cell vector.
    """
    with named(atoms):
        return found(Batch.of([atoms], [species]), cutoff)


def found(batch: Batch, cutoff: float) -> Neighbourhoods:
    """Find all neighbours closer than `cutoff` (Å) in configurations side by side."""
    n_atoms = len(batch.species)
    first = np.zeros(n_atoms + 1, dtype=np.int64)
    capacity = 64 * n_atoms
    while True:
        neighbour, vectors = np.empty(capacity, dtype=np.int32), np.empty((capacity, 3))
        call("find_neighbours", batch.as_c(), cutoff, capacity, int64s(first), int32s(neighbour), doubles(vectors))
        n_pairs = int(first[-1])
        if n_pairs <= capacity:
            return Neighbourhoods(
                batch.first_atom, batch.species, first, neighbour[:n_pairs].copy(), vectors[:n_pairs].copy()
            )
        capacity = n_pairs


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


def batches(configurations: Iterable[Atoms]) -> Iterator[list[Atoms]]:
    """Cut a sequence into runs of up to BATCH atoms, or of one larger configuration."""
    batch: list[Atoms] = []
    n_atoms = 0
    for atoms in configurations:
        if batch and n_atoms + len(atoms) > BATCH:
            yield batch
            batch, n_atoms = [], 0
        batch.append(atoms)
        n_atoms += len(atoms)
    if batch:
        yield batch


@contextmanager
def named(atoms: Atoms) -> Iterator[None]:
    """Put the file and number of a configuration before what the library says is wrong with it."""
    try:
        yield
    except LibraryError as error:
        source = atoms.info.get("source")
        if source is None:
            raise
        raise DataError(f"{source}: {error}") from error
