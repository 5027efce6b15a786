# SPDX-License-Identifier: BSD-3-Clause
"""Relaxation of many structures at once: each goes down by FIRE, all are evaluated together.

Coordinates of a structure of N atoms are those of its atoms in the undeformed cell, and N times the deformation F of
the cell [Tadmor, Smith, Bernstein & Kaxiras, Phys. Rev. B 59, 235 (1999)], so that forces on both are of one size.
FIRE: Bitzek, Koskinen, Gähler, Moseler & Gumbsch, Phys. Rev. Lett. 97, 170201 (2006).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from mtp.configurations import types
from mtp.errors import LibraryError
from mtp.neighbours import Batch, batches, found
from mtp.potential import VOIGT, Potential

FIRST_TIME, LONGEST_TIME = 0.1, 1.0  # steps of time, in units in which atoms weigh one
LONGEST_MOVE = 0.2  # Å, of all atoms of a structure together
STUBBORN = 5  # steps downhill before the time grows


@dataclass(frozen=True)
class Goal:
    """When a structure is relaxed: largest force on an atom (eV/Å) and, where the cell relaxes as well, largest
    deviation of the stress from `pressure` (both eV/Å³); at most so many steps."""

    steps: int = 500
    force: float = 0.01
    stress: float = 0.1 * GPa
    pressure: float = 0.0
    cell: bool = True


class Descent:
    """A structure on its way down. The cell relaxes where the goal wants it and all directions are periodic.

    Attributes: step, energy (eV), forces, virial, grade (NaN without an active set) of the last evaluation; relaxed:
    whether the goal is reached there; ended: whether it has gone as far as the goal allows; halted: whether someone has
    stopped it; failure: why it could not be evaluated.
    """

    def __init__(self, atoms: Atoms, species: np.ndarray, goal: Goal) -> None:
        self.atoms, self.species, self.goal = atoms, species, goal
        self.moves_cell = goal.cell and bool(all(atoms.pbc))
        self.step, self.relaxed, self.ended, self.halted, self.failure = 0, False, False, False, None
        self.energy = self.grade = np.nan
        self.place = np.concatenate([atoms.positions, len(atoms) * np.eye(3)])
        self._rest()

    def __len__(self) -> int:
        return len(self.species)

    @property
    def positions(self) -> np.ndarray:
        return self.place[:-3] @ self._deformation.T

    @property
    def cell(self) -> np.ndarray:
        return self.atoms.cell.array @ self._deformation.T

    @property
    def _deformation(self) -> np.ndarray:
        return self.place[-3:] / max(len(self), 1)

    def configuration(self) -> Atoms:
        """Where it is now, without labels."""
        return Atoms(self.atoms.numbers, self.positions, cell=self.cell, pbc=self.atoms.pbc)

    def go_on_from(self, place: np.ndarray) -> None:
        """Be there, at rest."""
        self.place, self.halted, self.failure = place.copy(), False, None
        self._rest()

    def evaluated(self, energy: float, forces: np.ndarray, virial: np.ndarray, grade: float) -> None:
        """What the potential gives where it is."""
        self.energy, self.forces, self.virial, self.grade = energy, forces, virial, grade
        self.relaxed = bool((np.linalg.norm(forces, axis=1) <= self.goal.force).all())
        if self.moves_cell:
            volume = abs(np.linalg.det(self.cell))
            excess = virial / volume + self.goal.pressure * np.eye(3)
            self.relaxed &= bool((np.abs(excess) <= self.goal.stress).all())

    def descend(self) -> None:
        """One step of FIRE."""
        forces = self._generalised_forces()
        if np.vdot(forces, self._velocity) > 0:
            turned = forces * np.linalg.norm(self._velocity) / np.linalg.norm(forces)
            self._velocity = (1 - self._mixing) * self._velocity + self._mixing * turned
            if self._downhill > STUBBORN:
                self._time = min(1.1 * self._time, LONGEST_TIME)
                self._mixing *= 0.99
            self._downhill += 1
        else:
            self._rest(0.5 * self._time)
        self._velocity = self._velocity + self._time * forces
        move = self._time * self._velocity
        self.place = self.place + move * min(1.0, LONGEST_MOVE / max(np.linalg.norm(move), 1e-300))
        self.step += 1

    def _rest(self, time: float = FIRST_TIME) -> None:
        self._velocity, self._time, self._mixing, self._downhill = np.zeros_like(self.place), time, 0.1, 0

    def _generalised_forces(self) -> np.ndarray:
        deformation = self._deformation
        forces = np.zeros_like(self.place)
        forces[:-3] = self.forces @ deformation
        if self.moves_cell:
            volume = abs(np.linalg.det(self.cell))
            pull = -self.virial - self.goal.pressure * volume * np.eye(3)
            forces[-3:] = np.linalg.solve(deformation, pull.T).T / len(self)
        return forces


def descents(potential: Potential, structures: Iterable[Atoms], goal: Goal) -> list[Descent]:
    """Raises DataError for elements that the potential does not know."""
    return [Descent(atoms, types(atoms, potential.species), goal) for atoms in structures]


def go_down(
    potential: Potential, several: Sequence[Descent], may_go_on: Callable[[Descent], bool] = lambda descent: True
) -> None:
    """Take all structures to their goals, or until they may not go on, which is asked wherever one is evaluated, or
    cannot be evaluated any more (`failure`). With an active set they are graded at every step."""
    active = [descent for descent in several if not descent.halted and not descent.ended]
    while active:
        for batch in batches(active):
            _evaluate(potential, batch)
        moving = []
        for descent in active:
            if descent.failure is not None or not may_go_on(descent):
                descent.halted = True
            elif descent.relaxed or descent.step >= descent.goal.steps:
                descent.ended = True
            else:
                descent.descend()
                moving.append(descent)
        active = moving


def relax(potential: Potential, structures: Sequence[Atoms], goal: Goal) -> list[Atoms]:
    """Relax structures (see `result`)."""
    several = descents(potential, structures, goal)
    go_down(potential, several)
    return [result(descent) for descent in several]


def result(descent: Descent) -> Atoms:
    """Where a structure has got to, with what the potential gives there; info has "steps", "relaxed", "grade" where
    there is an active set, "failure" where it could not be evaluated, and what the structure's had."""
    atoms = descent.configuration()
    atoms.info |= descent.atoms.info | {"steps": descent.step, "relaxed": descent.relaxed}
    if descent.failure is not None:
        atoms.info["failure"] = descent.failure
        return atoms
    if np.isfinite(descent.grade):
        atoms.info["grade"] = descent.grade
    labels = {"energy": descent.energy, "forces": descent.forces}
    if all(atoms.pbc):
        labels["stress"] = descent.virial.ravel()[VOIGT] / atoms.get_volume()
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def _evaluate(potential: Potential, several: Sequence[Descent]) -> None:
    configurations = [descent.configuration() for descent in several]
    try:
        near = found(Batch.of(configurations, [descent.species for descent in several]), potential.facts.cutoff)
        energies, forces, virials = potential.evaluate_near(near)
        mode = potential.facts.active_set
        grades = None if mode is None else potential.grades_of(near)
    except LibraryError as error:
        if len(several) == 1:
            several[0].failure = str(error)
            return
        for descent in several:  # the others can be evaluated
            _evaluate(potential, [descent])
        return
    for k, descent in enumerate(several):
        own = slice(near.first_atom[k], near.first_atom[k + 1])
        grade = np.nan
        if grades is not None:
            grade = float(grades[k] if mode == "configuration" else grades[own].max(initial=0.0))
        descent.evaluated(float(energies[own].sum()), forces[own], virials[k], grade)
