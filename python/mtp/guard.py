# SPDX-License-Identifier: BSD-3-Clause
"""The short-range guard of a potential: which distances, from which data.

Two kinds. "blend": below the shortest distance that a pair of species has in the data, the MTP fades and the nuclear
repulsion (ZBL) takes over; nothing changes for the data. "zbl": the repulsion reaches out to the sum of the covalent
radii, and the MTP learns the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from mtp.errors import DataError, Error
from mtp.potential import Guard, Potential

Kind = Literal["blend", "zbl"]
INNER = 0.7  # of the distance where the fade begins: there the MTP is gone and the repulsion stands alone


def guard_for(potential: Potential, configurations: Sequence[Atoms], kind: Kind = "blend", reach: float = 1.0) -> Guard:
    """The guard of a kind for a potential with these training data.

    reach: of the repulsion of kind "zbl", in sums of the covalent radii of a pair. Raises Error where the potential
    names no elements, DataError where the data hold no two atoms within the cutoff.
    """
    if potential.species is None:
        raise Error("a guard needs nuclear charges, but the potential names no elements; give --species")
    shortest = shortest_distances(potential, configurations)
    if shortest.min() >= potential.facts.cutoff:
        raise DataError("no two atoms of the data are closer than the cutoff: there is no shortest distance to guard")
    fade = np.stack([INNER * shortest, shortest], axis=-1)
    if kind == "blend":
        return Guard(fade, fade)
    radii = np.array([covalent_radii[atomic_numbers[name]] for name in potential.species])
    outer = np.clip(reach * (radii[:, None] + radii), shortest, potential.facts.cutoff)
    return Guard(np.stack([fade[..., 0], outer], axis=-1), fade)


def guarded(potential: Potential, configurations: Sequence[Atoms]) -> Potential:
    """A copy with a blend below the shortest distances of the training data. An active set built from them stays."""
    copy = potential.copy()
    mode = potential.facts.active_set
    copy.guard = guard_for(potential, configurations)
    if mode is not None:
        copy.set_active_set(potential.active_set, mode)
    return copy


def shortest_distances(potential: Potential, configurations: Sequence[Atoms]) -> np.ndarray:
    """(S, S): the shortest distance of each pair of species (Å), rounded down to 0.01; the cutoff if none is closer."""
    facts = potential.facts
    shortest = np.full((facts.n_species, facts.n_species), facts.cutoff)
    for atoms in configurations:
        near = potential.neighbourhoods(atoms)
        centre = np.repeat(near.species, np.diff(near.first))
        np.minimum.at(shortest, (centre, near.species[near.neighbour]), np.linalg.norm(near.vectors, axis=1))
    shortest = np.minimum(shortest, shortest.T)
    return np.where(shortest < facts.cutoff, np.floor(100 * shortest) / 100, shortest)


def require_distance(potential: Potential, configurations: Sequence[Atoms]) -> None:
    """Raise DataError where the data come closer than the distance at which the potential's guard begins to fade."""
    shortest, fade = shortest_distances(potential, configurations), potential.guard.fade[..., 1]
    for i, j in np.argwhere(shortest < fade):
        raise DataError(
            f"the data hold {potential.species[i]} and {potential.species[j]} at {shortest[i, j]:g} Å, where the guard "
            f"of the initial potential has replaced part of the MTP (from {fade[i, j]:g} Å on): have the fit choose a "
            "new guard (--guard, --zbl, or `guard` in the table `fit`)"
        )


def to_learn(potential: Potential, atoms: Atoms, values: np.ndarray) -> np.ndarray:
    """A configuration's values (7 + 3 N,), in the order of `Potential.jacobian_rows`, less the repulsion of the
    potential's guard, if it has one: what its parameters are to explain."""
    return values if potential.guard is None else values - repulsion(potential, atoms)


def repulsion(potential: Potential, atoms: Atoms) -> np.ndarray:
    """What the guard's repulsion adds to a configuration's observables, (1 + 3 N + 6,): energy (eV), forces (eV/Å),
    volume times stress (eV, xx yy zz yz xz xy)."""
    guard = potential.guard
    alone = Potential.new(2, potential.species, guard.repulsion.max(), 0.0, 1)
    alone.parameters = np.zeros(alone.facts.n_parameters)
    alone.guard = Guard(guard.repulsion, np.minimum(guard.fade, guard.repulsion))
    result = alone.evaluate(atoms)
    return np.concatenate([[result.energy], result.forces.ravel(), result.virial.ravel()[[0, 4, 8, 5, 2, 1]]])


@dataclass(frozen=True)
class Approach:
    """Two atoms of the data pushed together: their species, distances (Å, ascending) and the configuration's energy
    (eV) at each."""

    species: tuple[str, str]
    distances: np.ndarray
    energies: np.ndarray

    @property
    def attractive(self) -> tuple[float, float] | None:
        """The range of distances in which the two attract each other; None where there is none."""
        places = np.flatnonzero(np.diff(self.energies) > 0)
        return (float(self.distances[places[0]]), float(self.distances[places[-1] + 1])) if len(places) else None


def approaches(potential: Potential, configurations: Sequence[Atoms], until: float = 0.1) -> list[Approach]:
    """For each pair of species, push together the two atoms that are closest in the data, both by the same amount,
    from the distance that they have until `until` (Å)."""
    closest: dict[tuple[int, int], tuple[float, Atoms, int, int, np.ndarray]] = {}
    for atoms in configurations:
        near = potential.neighbourhoods(atoms)
        centre = np.repeat(np.arange(len(near)), np.diff(near.first))
        distances = np.linalg.norm(near.vectors, axis=1)
        distances[centre == near.neighbour] = np.inf  # an atom and its own image move together: they cannot be pushed
        kinds = np.sort([near.species[centre], near.species[near.neighbour]], axis=0)
        for i, j in np.unique(kinds, axis=1).T.tolist():
            k = np.where((kinds[0] == i) & (kinds[1] == j), distances, np.inf).argmin()
            if distances[k] < closest.get((i, j), (np.inf,))[0]:
                closest[i, j] = (distances[k], atoms, centre[k], near.neighbour[k], near.vectors[k] / distances[k])
    found = []
    for pair, (start, atoms, i, j, direction) in sorted(closest.items()):
        path, energies = np.linspace(until, start, 200), []
        for distance in path:
            moved = atoms.copy()
            moved.positions[i] += direction * (start - distance) / 2
            moved.positions[j] -= direction * (start - distance) / 2
            energies.append(potential.evaluate(moved).energy)
        names = (potential.species[pair[0]], potential.species[pair[1]])
        found.append(Approach(names, path, np.array(energies)))
    return found
