# SPDX-License-Identifier: BSD-3-Clause
"""What a learning loop sends through the space of configurations, and what it brings back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from mtp.potential import Potential

# Ends of the bins of a histogram, of which the last is open. Maxvol leaves what is known at 1.001.
GRADES = (1.001, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass
class Passage:
    """A piece of a walk under one potential.

    title: of the walk. begin, end: steps. highest_grade, histogram: over all graded steps; the histogram counts them by
    the highest grade of each, between the GRADES. break_step: where it was stopped; None where it was not. retraced:
    "step" and "grade" of the first step above `break`, found among all that lead there from the state kept, which were
    walked once more; None where all had been graded, or none was found. failure: what the engine said if it failed.
    n_dropped: above `select`, but beyond the capacity. flagged: what was kept, on the group's first rank:
    configurations with "step" and "grade" in their info, or neighbourhoods (see mtp.live.gather_flagged). finished:
    whether this was the walk's last piece. outcome: of a walk whose end gives a property (see mtp.learning.errand);
    spare: what such a walk met that did not pass `select`, as flagged.
    """

    title: str
    begin: int
    end: int
    highest_grade: float = 0.0
    histogram: list[int] = field(default_factory=lambda: [0] * (len(GRADES) + 1))
    break_step: int | None = None
    retraced: dict | None = None
    failure: str | None = None
    n_dropped: int = 0
    flagged: list[Atoms] = field(default_factory=list)
    finished: bool = False
    outcome: dict | None = None
    spare: list[Atoms] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing keeps the walk from going on."""
        return self.break_step is None and self.failure is None

    def retrace(self, step: int, grade: float, flagged: list[Atoms]) -> None:
        """Take the first step whose grade passes `break` for the last: what was met later lies far beyond what the
        potential knows. flagged: as far as it is of that step, in place of what was flagged from it on."""
        self.retraced = {"step": step, "grade": grade}
        self.flagged = [atoms for atoms in self.flagged if atoms.info["step"] < step]
        self.flagged += [atoms for atoms in flagged if atoms.info["step"] == step]

    def record(self) -> dict:
        """What rounds.json keeps of it."""
        told = {key: value for key, value in vars(self).items() if key not in ("outcome", "spare")}
        return told | {"highest_grade": float(self.highest_grade), "flagged": len(self.flagged)}


class Walk(ABC):
    """Something to explore, from a beginning to an end, in pieces between which the potential may be exchanged.

    All methods are collective over the ranks of the group that walks. A walk is begun again and again, and may be
    another one at each turn (other velocities); the same turn is the same walk.
    """

    title: str

    @abstractmethod
    def begin(self, potential: Potential, path: Path, turn: int) -> None:
        """Be at the beginning. path: a file of the potential, which every rank can read. Raises Error where the walk
        cannot be begun, on all ranks alike."""

    @abstractmethod
    def go_on(self, steps: int | None = None) -> Passage:
        """Walk on: to the end, at most so many steps, or until a grade passes `break` or the engine fails."""

    @abstractmethod
    def take(self, potential: Potential, path: Path) -> int | None:
        """Take another potential; after a break, go back to the last step that was trusted and give its number. After
        a failure be at the beginning (and give 0)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the engine. The walk can be begun again."""


def histogram(grades: Iterable[float]) -> list[int]:
    """How many grades lie between the GRADES."""
    places = np.searchsorted(GRADES, np.fromiter(grades, dtype=float), side="left")
    return np.bincount(places, minlength=len(GRADES) + 1).tolist()


def lammps_error(text: str) -> str | None:
    """The first line of a text in which LAMMPS itself tells of an error; None where there is none."""
    return next((line.strip() for line in text.splitlines() if "ERROR" in line), None)


def seed_of(*numbers: int) -> int:
    """A seed that LAMMPS takes, of some numbers."""
    return 1 + hash(numbers) % 900000000
