# SPDX-License-Identifier: BSD-3-Clause
"""A walk of a learning loop through many structures, each of which relaxes, or is only graded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms
from ase.units import GPa

from mtp import configurations
from mtp.configurations import check_distances, types
from mtp.errors import Error
from mtp.learning.folder import relaxed_file
from mtp.learning.ranks import politely
from mtp.learning.walks import Passage, Walk, histogram
from mtp.potential import Potential
from mtp.relaxation import Descent, Goal, descents, go_down, result
from mtp.settings import Relaxation, Selection


@dataclass(frozen=True)
class Plan:
    """What is to be relaxed, how far, and the name of the file for what comes of it."""

    title: str
    structures: list[Atoms]
    goal: Goal
    output: str


def plan(relaxation: Relaxation, number: int, species: list[str]) -> Plan:
    """Read and check the structures of the settings' relaxation of that number."""
    structures = configurations.read(relaxation.file, species)
    for atoms in structures:
        types(atoms, species)
        check_distances(atoms)
    goal = Goal(
        relaxation.steps,
        relaxation.force,
        relaxation.stress_GPa * GPa,
        relaxation.pressure_GPa * GPa,
        relaxation.cell,
    )
    what = "relaxation" if relaxation.steps else "grades"
    return Plan(f"{what} of {relaxation.file.name}", structures, goal, relaxed_file(number))


class RelaxationWalk(Walk):
    """Structures, shared by the ranks of a group, that relax side by side and are graded at every step.

    A structure whose grade passes `break` stops; with another potential it goes on from the last place whose grade was
    not above `select`, or from where it began. Of each structure the most extrapolative configuration above `select`
    is kept. Steps are counted over all structures. At the end the first rank writes where all have got to.
    """

    def __init__(self, plan: Plan, selection: Selection, folder: Path, comm: MPI.Comm) -> None:
        self.title, self.plan, self.selection, self.folder, self.comm = plan.title, plan, selection, folder, comm
        self._own = range(comm.rank, len(plan.structures), comm.size)

    def begin(self, potential: Potential, path: Path, turn: int) -> None:
        self._potential = potential
        self._steps = 0
        self._descents = descents(potential, [self.plan.structures[k] for k in self._own], self.plan.goal)
        self._trusted = [descent.place for descent in self._descents]

    def go_on(self, steps: int | None = None) -> Passage:
        watch = _Watch(self.selection, dict(zip(map(id, self._descents), self._own, strict=True)), self.title)
        try:
            go_down(self._potential, self._descents, watch)
            found = watch.found(self._descents)
        except Exception as error:
            found = error
        politely(self.comm)
        everyone = self.comm.allgather(found)
        for of_rank in everyone:
            if isinstance(of_rank, Exception):
                raise Error(f"{self.title}: {of_rank}") from None
        for k, descent in enumerate(self._descents):
            self._trusted[k] = watch.trusted.get(id(descent), self._trusted[k])
        return self._passage(everyone)

    def take(self, potential: Potential, path: Path) -> int | None:
        self._potential = potential
        stopped = 0
        for descent, place in zip(self._descents, self._trusted, strict=True):
            if descent.halted:
                descent.go_on_from(place)
                stopped += 1
        return self._steps if self.comm.allreduce(stopped) else None

    def close(self) -> None:
        self._descents, self._trusted = [], []

    def _passage(self, everyone: list[_Found]) -> Passage:
        passage = Passage(self.title, self._steps, self._steps + sum(found.steps for found in everyone))
        self._steps = passage.end
        passage.highest_grade = max(found.highest_grade for found in everyone)
        passage.histogram = np.sum([found.histogram for found in everyone], axis=0).tolist()
        flagged = sorted((a for found in everyone for a in found.flagged), key=_first)[: self.selection.capacity]
        passage.flagged = flagged if self.comm.rank == 0 else []
        passage.n_dropped = sum(found.n_kept for found in everyone) - len(flagged)
        failures = [failure for found in everyone for failure in found.failures]
        if any(found.n_stopped for found in everyone):
            passage.break_step = passage.end
            passage.failure = failures[0] if failures and not flagged else None
        passage.finished = passage.complete
        if passage.finished:
            self._write()
        return passage

    def _write(self) -> None:
        own = [(k, result(descent)) for k, descent in zip(self._own, self._descents, strict=True)]
        parts = self.comm.gather(own)
        if self.comm.rank == 0:
            _, relaxed = zip(*sorted((pair for part in parts for pair in part), key=lambda pair: pair[0]), strict=True)
            configurations.write(self.folder / self.plan.output, relaxed)


@dataclass
class _Found:
    """What a rank has met."""

    steps: int
    highest_grade: float
    histogram: list[int]
    n_stopped: int
    n_kept: int
    flagged: list[Atoms]  # of those kept, the most extrapolative
    failures: list[str]


class _Watch:
    """Looks at each evaluated place, and tells whether its structure may go on. numbers: of structures, by id."""

    def __init__(self, selection: Selection, numbers: dict[int, int], title: str) -> None:
        self.selection, self.numbers, self.title = selection, numbers, title
        self.grades: list[float] = []
        self.kept: dict[int, Atoms] = {}
        self.trusted: dict[int, np.ndarray] = {}

    def __call__(self, descent: Descent) -> bool:
        grade, key = descent.grade, id(descent)
        self.grades.append(grade)
        if grade <= self.selection.select:
            self.trusted[key] = descent.place
        elif key not in self.kept or grade > self.kept[key].info["grade"]:
            atoms = descent.configuration()
            name = f"{descent.step} of structure {self.numbers[key] + 1}"
            atoms.info = {"grade": grade, "step": name, "given": descent.step == 0, "number": self.numbers[key]}
            self.kept[key] = atoms
        return grade <= self.selection.break_above

    def found(self, several: list[Descent]) -> _Found:
        flagged = sorted(self.kept.values(), key=_first)[: self.selection.capacity]
        failures = [descent.failure for descent in several if descent.failure is not None]
        stopped = sum(descent.halted for descent in several)
        highest = max(self.grades, default=0.0)
        grades = histogram(self.grades)
        return _Found(len(self.grades), highest, grades, stopped, len(self.kept), flagged, failures)


def _first(atoms: Atoms) -> tuple[float, int]:
    """Order of what is flagged, whatever rank met it."""
    return -atoms.info["grade"], atoms.info["number"]
