# SPDX-License-Identifier: BSD-3-Clause
"""Filler around an environment that is kept: cut from the run, thinned at the seams, relaxed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.filters import Filter
from ase.geometry import minkowski_reduce
from ase.optimize import FIRE

from mtp.boxes import COMBINATIONS, FACES, Box, is_alone, nearest_images
from mtp.calculator import MTP
from mtp.errors import DataError, LibraryError
from mtp.neighbours import neighbourhoods
from mtp.potential import Potential
from mtp.surroundings import Surroundings

SAME_SITE = 0.5  # of the spacing: atoms nearer than that, from two sides of a seam, are one
OVER_THE_SEAM = 0.5  # of the spacing: so far beyond the seam atoms are looked for
SLACK = 1.1  # of grades in the run: neighbours beyond a seam move a little
MARGIN = 1e-6  # Å, by which the filler stays outside the kept sphere


@dataclass(frozen=True)
class Filled:
    """A cell with its centre at the origin: atoms[:n_kept], the centre first, are as they were in the run.

    limits: (n,) grades that atoms should not pass, see `allowed`. grades: (n,).
    """

    atoms: Atoms
    n_kept: int
    limits: np.ndarray
    grades: np.ndarray
    box: Box | None
    relaxed: bool = False

    @property
    def filler_grade(self) -> float:
        """The highest grade of an atom that was not kept."""
        return float(self.grades[self.n_kept :].max(initial=0.0))

    @property
    def excess(self) -> float:
        """The highest of grade / limit; the centre, for whose grade the cell is made, is not counted."""
        return float((self.grades / self.limits)[1:].max(initial=0.0))

    @property
    def badness(self) -> float:
        """The mean of log(grade / limit), where that is positive: 0 where no atom is above its limit."""
        return float(np.log(np.maximum((self.grades / self.limits)[1:], 1.0)).sum() / len(self.atoms))

    @property
    def rank(self) -> tuple[float, float]:
        """The lower, the better."""
        return max(self.excess, 1.0), self.badness


def allowed(run_grades: np.ndarray, bound: float) -> np.ndarray:
    """The bound, or what atoms had in the run (NaN where that is not known) and a little, where that is more."""
    return np.fmax(bound, SLACK * run_grades)


def fill(
    known: Surroundings, n_kept: int, box: Box, radius: float, offset: np.ndarray, closest: float, bound: float
) -> Filled | None:
    """Fill a box around the kept atoms with what the run holds there.

    Args:
        radius: Å, of the sphere around the centre into which no filler may come.
        offset: (3,), from the centre of the kept environment to that of the box, Å.
        closest: Å, between atoms.

    Returns:
        Not graded yet (grades NaN); None where a part of the box is not known, images of kept atoms meet, or there is
        no filler.
    """
    images = box.images
    lengths = np.linalg.norm(images, axis=1)
    unit = images / lengths[:, None]
    beyond = ((known.vectors - offset) @ unit.T - lengths / 2).max(axis=1)  # the seam, Å
    spacing = known.spacing
    if not _is_known(known, FACES @ box.lattice, offset, spacing):
        return None
    inside = np.flatnonzero(beyond <= OVER_THE_SEAM * spacing)
    filler = inside[inside >= n_kept]
    filler = filler[_are_outside(known.vectors[filler], box.lattice, radius)]
    filler = filler[np.argsort(beyond[filler], kind="stable")]
    index = np.concatenate([np.arange(n_kept), filler])
    limits = allowed(known.grades[index], bound)
    atoms = known.atoms[index]
    atoms.cell, atoms.pbc = box.lattice, True
    return _thinned(atoms, n_kept, limits, box, known.kinds[index], radius, spacing, closest)


def _are_outside(positions: np.ndarray, lattice: np.ndarray, radius: float) -> np.ndarray:
    return np.linalg.norm(nearest_images(positions, lattice), axis=1) > radius + MARGIN


def _is_known(known: Surroundings, faces: np.ndarray, offset: np.ndarray, spacing: float) -> bool:
    """Whether the corners of the Wigner-Seitz cell, which three faces share, lie within reach."""
    if np.isinf(known.reach):
        return True
    height = (faces**2).sum(axis=1) / 2
    triples = np.array(list(itertools.combinations(range(len(faces)), 3))).T
    (a, b, c), (la, lb, lc) = faces[triples], height[triples]
    volume = (a * np.cross(b, c)).sum(axis=1)
    met = np.abs(volume) > 1e-6 * np.abs(volume).max()
    points = la[:, None] * np.cross(b, c) + lb[:, None] * np.cross(c, a) + lc[:, None] * np.cross(a, b)
    points = points[met] / volume[met, None]
    corners = points[(points @ faces.T <= height * (1 + 1e-9)).all(axis=1)]
    return bool(np.linalg.norm(corners + offset, axis=1).max() <= known.reach + 0.5 * spacing)


def _thinned(
    atoms: Atoms,
    n_kept: int,
    limits: np.ndarray,
    box: Box,
    kinds: np.ndarray,
    radius: float,
    spacing: float,
    closest: float,
) -> Filled | None:
    """Unite atoms of both sides of the seam that are the same site, and drop those that come too near to others.

    Atoms come in the order of their distance from the middle: of two, the later goes.
    """
    n = len(atoms)
    pairs = _pairs(atoms, max(SAME_SITE * spacing, closest))
    gone = np.zeros(n, dtype=bool)
    for i, j, vector in pairs:
        if j < n_kept and np.linalg.norm(vector) < closest:
            if not np.allclose(vector, atoms.positions[j] - atoms.positions[i], rtol=0, atol=MARGIN):
                return None  # an image of what is kept comes too near to what is kept
            continue
        if gone[i] or gone[j] or j < n_kept:
            continue
        if i >= n_kept and kinds[i] == kinds[j] and np.linalg.norm(vector) < SAME_SITE * spacing:
            middle = atoms.positions[i] + vector / 2
            if _are_outside(middle[None], box.lattice, radius)[0]:
                atoms.positions[i] = middle
                limits[i] = max(limits[i], limits[j])
            gone[j] = True
    left = np.flatnonzero(~gone)
    atoms, limits = atoms[left], limits[left]
    while pairs := _pairs(atoms, closest):
        gone = np.zeros(len(atoms), dtype=bool)
        for i, j, _ in pairs:
            if not (gone[i] or gone[j]) and j >= n_kept:
                gone[j] = True
        if not gone.any():
            break  # the run itself has atoms that close
        atoms, limits = atoms[~gone], limits[~gone]
    return Filled(atoms, n_kept, limits, np.full(len(atoms), np.nan), box) if len(atoms) > n_kept else None


def _pairs(atoms: Atoms, distance: float) -> list[tuple[int, int, np.ndarray]]:
    """Pairs i < j closer than a distance, with the vector from i to j, the closest first."""
    near = neighbourhoods(atoms, np.zeros(len(atoms), dtype=np.int32), distance)
    once = near.centre < near.neighbour
    i, j, vectors = near.centre[once], near.neighbour[once], near.vectors[once]
    order = np.argsort((vectors**2).sum(axis=1).round(9), kind="stable")
    return [(int(i[k]), int(j[k]), vectors[k]) for k in order]


def _is_crowded(atoms: Atoms, n_kept: int, closest: float) -> bool:
    return any(j >= n_kept for _, j, _ in _pairs(atoms, closest))


def graded(filled: Filled, potential: Potential) -> Filled:
    """The same with its grades."""
    return replace(filled, grades=potential.grade(filled.atoms).per_atom)


def relaxed(filled: Filled, potential: Potential, radius: float, closest: float, steps: int, with_box: bool) -> Filled:
    """Relax the filler (and the box) with the potential, the kept atoms where they are, until no atom passes its limit.

    Returns:
        The step of the lowest rank, perhaps the one that was given.
    """
    best = filled
    for atoms, grades in _relaxation(filled, potential, radius, steps, with_box):
        if not np.isfinite(grades).all() or _is_crowded(atoms, filled.n_kept, closest):
            break  # the potential drives atoms into each other: what came before stands
        if with_box and not is_alone(atoms.positions[: filled.n_kept], COMBINATIONS @ atoms.cell.array, radius):
            break
        trial = replace(filled, atoms=atoms.copy(), grades=grades, relaxed=True)
        best = min(best, trial, key=lambda filled: filled.rank)
        if best.excess <= 1:
            break
    return best


def _relaxation(
    filled: Filled, potential: Potential, radius: float, steps: int, with_box: bool
) -> Iterator[tuple[Atoms, np.ndarray]]:
    atoms = filled.atoms.copy()
    atoms.calc = MTP(potential)
    held = HeldEnvironment(atoms, filled.n_kept, radius, with_box and filled.box is not None)
    optimiser = FIRE(held, logfile=None, maxstep=0.15)
    try:
        for _ in optimiser.irun(fmax=0.02, steps=steps):
            yield atoms, atoms.calc.results["grades"]
    except (DataError, LibraryError, np.linalg.LinAlgError):
        return  # as above


class HeldEnvironment(Filter):
    """For ASE's optimisers: the filler of a cell, and as three more rows its deformation; the kept atoms stay.

    The origin is the centre of the kept sphere, out of which filler is put back to its surface. Filler follows the
    deformation D, kept atoms do not, so that dE/dD = D⁻ᵀ (V σ + Σ_kept r_i ⊗ F_i).
    """

    def __init__(self, atoms: Atoms, n_kept: int, radius: float, with_box: bool) -> None:
        super().__init__(atoms, indices=np.arange(n_kept, len(atoms)))
        self._n_kept = n_kept
        self._radius = radius + MARGIN
        self._with_box = with_box
        self._first_cell = atoms.cell.array.copy()
        self._deformation = np.eye(3)
        self._weight = float(len(atoms))  # as in ASE's cell filters: Å of a row, for about equal curvatures

    def __len__(self) -> int:
        return self.n + 3 * self._with_box

    def get_positions(self) -> np.ndarray:
        positions = self.atoms.positions[self._n_kept :]
        if not self._with_box:
            return positions.copy()
        return np.concatenate([positions @ np.linalg.inv(self._deformation), self._weight * self._deformation])

    def set_positions(self, positions: np.ndarray, **_) -> None:
        if self._with_box:
            self._deformation = positions[-3:] / self._weight
            positions = positions[:-3] @ self._deformation
            self.atoms.cell = self._first_cell @ self._deformation
        self.atoms.positions[self._n_kept :] = self._outside(positions)

    def _outside(self, positions: np.ndarray) -> np.ndarray:
        vectors = positions
        if self.atoms.pbc.any():
            vectors = nearest_images(positions, minkowski_reduce(self.atoms.cell.array)[0])
        distance = np.linalg.norm(vectors, axis=1)
        outward = np.maximum(self._radius / distance - 1, 0.0)
        return positions + outward[:, None] * vectors

    def get_forces(self, **_) -> np.ndarray:
        forces = self.atoms.get_forces(apply_constraint=False)
        if not self._with_box:
            return forces[self._n_kept :]
        kept = slice(0, self._n_kept)
        virial = self.atoms.get_volume() * self.atoms.get_stress(voigt=False)
        strain = virial + self.atoms.positions[kept].T @ forces[kept]
        on_box = -np.linalg.inv(self._deformation).T @ strain / self._weight
        return np.concatenate([forces[self._n_kept :] @ self._deformation.T, on_box])

    def get_potential_energy(self, **_) -> float:
        return self.atoms.get_potential_energy()
