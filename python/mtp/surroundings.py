# SPDX-License-Identifier: BSD-3-Clause
"""What a run holds around one of its atoms: periodic images included, nearest first, in vectors from that atom."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from mtp.configurations import types
from mtp.errors import Error
from mtp.potential import Potential

AT_LEAST, FARTHEST = 2.2, 8  # cutoffs: so far from the centre a run is looked at
KEPT_ARRAYS = ("numbers", "positions", "type", "id")


@dataclass(frozen=True)
class Surroundings:
    """The n atoms around one, itself at 0 and at the origin.

    atoms: a cluster without a cell, nearest first; kinds: (n,) indices of species; reach: Å, all atoms nearer than
    that are here, inf where there are no others; grades: (n,) in the run, NaN where their neighbours are not all known.
    """

    atoms: Atoms
    kinds: np.ndarray
    reach: float
    grades: np.ndarray

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def vectors(self) -> np.ndarray:
        """(n, 3), Å, from the centre."""
        return self.atoms.positions

    @property
    def distances(self) -> np.ndarray:
        """(n,), Å, from the centre, ascending."""
        return np.linalg.norm(self.vectors, axis=1)

    @property
    def spacing(self) -> float:
        """The median distance of an atom's nearest neighbour, Å."""
        return float(np.median(cKDTree(self.vectors).query(self.vectors, k=2)[0][:, 1]))


def surroundings(atoms: Atoms, centre: int, potential: Potential, n_atoms: int) -> Surroundings:
    """Find some `n_atoms` atoms around one, between AT_LEAST and FARTHEST cutoffs away, and grade them.

    Args:
        atoms: a configuration; or without periodic directions and with info["centre"], a neighbourhood: all atoms
            within info["radius"] (Å; without it, the distance of the farthest atom) of that one, and no others.

    Raises:
        Error: the neighbourhood does not hold everything inside the cutoff.
    """
    cutoff = potential.facts.cutoff
    index, vectors, reach = _nearest(atoms, centre, n_atoms, AT_LEAST * cutoff, FARTHEST * cutoff, cutoff)
    distance = np.linalg.norm(vectors, axis=1)
    order = np.argsort(distance, kind="stable")
    index, vectors, distance = index[order], vectors[order], distance[order]
    if not atoms.pbc.any() and len(index) == len(atoms):
        reach = float(atoms.info.get("radius", distance[-1])) if "centre" in atoms.info else np.inf
    if reach < cutoff:
        raise Error(
            f"the neighbourhood reaches {reach:.2f} Å from its centre, less than the potential's cutoff of "
            f"{cutoff:g} Å: hand over a larger one"
        )
    cluster = atoms[index]
    for name in set(cluster.arrays) - set(KEPT_ARRAYS):
        del cluster.arrays[name]
    cluster.set_constraint()
    cluster.info, cluster.pbc = {}, False
    cluster.cell[:] = 0.0
    cluster.positions = vectors
    grades = potential.grade(cluster).per_atom
    grades[distance > reach - cutoff] = np.nan
    if len(index) > n_atoms and reach - cutoff > AT_LEAST * cutoff:  # the last cutoff was needed for grades alone
        near = distance <= reach - cutoff
        cluster, grades, reach = cluster[near], grades[near], reach - cutoff
    return Surroundings(cluster, types(cluster, potential.species), reach, grades)


def isolated(known: Surroundings, cutoff: float) -> np.ndarray:
    """The atoms (indices) that neighbours closer than the cutoff link to the centre, where these are finitely many and
    all known; else none."""
    pairs = cKDTree(known.vectors).query_pairs(cutoff, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(known), len(known)))
    label = connected_components(graph, directed=False)[1]
    linked = np.flatnonzero(label == label[0])
    return linked if known.distances[linked[-1]] + cutoff < known.reach else linked[:0]


def _nearest(
    atoms: Atoms, centre: int, n_atoms: int, at_least: float, at_most: float, beyond: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Indices and vectors of all atoms inside the sphere that holds n_atoms, widened by `beyond`; and its radius."""
    vectors = atoms.positions - atoms.positions[centre]
    cell = atoms.cell.complete().array if atoms.pbc.any() else np.eye(3)
    inverse = np.linalg.inv(cell)
    vectors -= np.where(atoms.pbc, np.round(vectors @ inverse), 0.0) @ cell
    if len(atoms) > n_atoms:
        radius = np.partition(np.linalg.norm(vectors, axis=1), n_atoms)[n_atoms]
    else:
        radius = (3 * n_atoms * abs(np.linalg.det(cell)) / (4 * np.pi * len(atoms))) ** (1 / 3)
        radius = radius if atoms.pbc.any() else np.inf
    radius = min(max(radius, at_least), at_most) + beyond
    heights = 1 / np.linalg.norm(inverse, axis=0)
    times = np.where(atoms.pbc, np.ceil(radius / heights - 0.5), 0).astype(int)
    index, found = [], []
    for image in itertools.product(*(range(-n, n + 1) for n in times)):
        shifted = vectors + image @ cell
        (near,) = np.nonzero((shifted**2).sum(axis=1) <= radius**2)
        index.append(near)
        found.append(shifted[near])
    return np.concatenate(index), np.concatenate(found), radius
