# SPDX-License-Identifier: BSD-3-Clause
"""Grades along the runs of LAMMPS that sample a conductivity, and what extrapolates in them.

Of each piece of a run there is a file watched_*.json beside its samples, written before the state from which the next
piece goes on: a killed run that goes on loses no configuration that it has met.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms
from ase.io.jsonio import decode, encode

from mtp import live
from mtp.cfg import replaced_whole
from mtp.conductivity import settings
from mtp.cutting import pool_radius
from mtp.errors import Error
from mtp.learning.choice import KNOWN

if TYPE_CHECKING:
    from lammps import lammps


class Unsound(Error):
    """The potential cannot be trusted with what was to be computed; a better one may."""


@dataclass(frozen=True)
class Watch:
    """What is watched. species: of the potential, whose cutoff (Å) bounds neighbourhoods from below."""

    settings: settings.Watch
    species: Sequence[str]
    cutoff: float

    @property
    def commands(self) -> str:
        """For LAMMPS, after the pair style."""
        return f"timer timeout off\nfix mtp_grades all pair {self.settings.interval} mtp/extrapolation gamma 1"

    def begin(self, engine: lammps) -> Watching:
        """Watch the pair style of a LAMMPS object; collective."""
        (style,) = live.styles(engine)
        told, n_atoms = self.settings, engine.get_natoms()
        radius = None
        if told.max_atoms is not None and n_atoms > told.max_atoms:
            radius = pool_radius(n_atoms, engine.get_thermo("vol"), told.max_atoms, self.cutoff)
        style.watch(KNOWN if told.nearly else told.select, told.break_above, told.capacity, radius)
        return Watching(style, told, list(self.species))


@dataclass(frozen=True)
class Watching:
    style: live.LiveStyle
    settings: settings.Watch
    species: list[str]

    @property
    def break_step(self) -> int | None:
        return self.style.facts.break_step

    def keep(self, path: Path, comm: MPI.Comm, failure: str | None = None) -> None:
        """Write down what was met since the last time; collective. failure: what LAMMPS said, if it failed."""
        facts = self.style.facts
        flagged = live.gather_flagged(self.style, self.species, comm)
        below = sorted((a for a in flagged if a.info["grade"] <= self.settings.select), key=lambda a: -a.info["grade"])
        flagged = [a for a in flagged if a.info["grade"] > self.settings.select] + below[: self.settings.nearly]
        self.style.clear()
        if comm.rank == 0:
            dropped = 0 if below else facts.n_dropped  # what is dropped extrapolates less than what is kept
            content = {"highest_grade": facts.highest_grade, "histogram": facts.histogram, "n_dropped": dropped}
            content |= {"break_step": facts.break_step, "failure": failure}
            with replaced_whole(path) as part:
                part.write_text(encode(content | {"flagged": [_told(atoms) for atoms in flagged]}))


@dataclass
class Met:
    """What a piece has met: see mtp.learning.walks.Passage. name: of the run and the piece."""

    name: str
    highest_grade: float
    histogram: list[int]
    n_dropped: int
    break_step: int | None
    failure: str | None
    flagged: list[Atoms]


def met(folder: Path) -> list[Met]:
    """What all pieces of the runs in a folder have met. Raises Error where a file is damaged."""
    found = []
    for path in sorted(folder.rglob("watched_*.json")):
        try:
            content = decode(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise Error(f"{path}: damaged: {error}; remove its folder to run it again") from None
        parts = [*path.relative_to(folder).parent.parts, path.stem.removeprefix("watched_")]
        content["histogram"] = np.asarray(content["histogram"]).tolist()
        content["flagged"] = [_atoms(told) for told in content["flagged"]]
        found.append(Met(", ".join(parts), **content))
    return found


def _told(atoms: Atoms) -> dict:
    return {"arrays": atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc, "info": atoms.info}


def _atoms(told: dict) -> Atoms:
    arrays = told["arrays"]
    atoms = Atoms(arrays["numbers"], arrays["positions"], cell=told["cell"], pbc=told["pbc"], info=told["info"])
    atoms.set_array("grade", np.asarray(arrays["grade"], float))
    return atoms
