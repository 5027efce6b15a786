# SPDX-License-Identifier: BSD-3-Clause
"""The learning loop: explore under extrapolation grades, select, label, fit, until nothing extrapolates any more.

A round: label what is pending; fit; build the active set; explore with the potential; choose by maxvol among the
configurations that were flagged; they are the next round's pending candidates. Everything lasting is in the folder:

    dataset.db          candidates and labels (ASE SQLite; see mtp.database)
    round_NNN.almtp     potential and active set of each round
    rounds.json         what happened in each round
    learning.png        errors, grades and numbers by round
    potential.mtp, potential.almtp    the result

A round's file appears when its step is complete, so a killed loop goes on where it was: it loses at most the
calculation in hand. Under MPI all ranks explore; rank 0 does everything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms

from mtp import configurations, figures, structures
from mtp.cfg import replaced_whole
from mtp.configurations import labels
from mtp.database import GIVEN, Dataset
from mtp.errors import Error, LabellingError
from mtp.evaluation import compare
from mtp.exploration import Explorer, Passage
from mtp.fit import Step, fit
from mtp.label_process import LabelProcess
from mtp.potential import Potential
from mtp.settings import LearnSettings

Result = TypeVar("Result")
Say = Callable[[str], None]


class NotConverged(Error):
    """The loop has used up its rounds."""


def learn(settings: LearnSettings, say: Say = lambda text: None, comm: MPI.Comm = MPI.COMM_WORLD) -> list[dict]:
    """Run the loop to its end, or go on with it, and return its rounds (as in rounds.json) on every rank.

    Collective over `comm`. Raises NotConverged after the last round, Error where the loop cannot go on.
    """
    loop = Loop(settings, say, comm)
    try:
        return loop.run()
    finally:
        loop.close()


class Loop:
    """State of a learning loop in its folder."""

    def __init__(self, settings: LearnSettings, say: Say, comm: MPI.Comm) -> None:
        self.settings = settings
        self.comm = comm
        self.say = say if comm.rank == 0 else lambda text: None
        self.folder = settings.folder
        self.explorers: list[Explorer] = []
        self._lock = None
        self._on_root(self._open)

    def close(self) -> None:
        """Let go of LAMMPS and of the folder."""
        for explorer in self.explorers:
            explorer.close()
        self.explorers = []
        if self._lock is not None:
            self._lock.close()

    def run(self) -> list[dict]:
        rounds = self._on_root(lambda: self.rounds)
        while not (rounds and rounds[-1]["converged"]):
            number = len(rounds)
            if number == self.settings.rounds:
                raise NotConverged(
                    f"{self.folder}: not converged after {number} rounds: the highest grade of the last was "
                    f"{rounds[-1]['highest_grade']:.3g}. Raise `rounds` and run the same command to go on"
                )
            rounds = self._round(number)
        self._on_root(self._finish)
        return rounds

    # ---- one round

    def _round(self, number: int) -> list[dict]:
        start = time.monotonic()
        record = self._on_root(lambda: self._prepare(number))
        passages = self._explore(number)
        return self._on_root(lambda: self._conclude(number, record, passages, start))

    def _prepare(self, number: int) -> dict:
        """Label, fit, build the active set: rank 0. Returns the beginning of the round's record."""
        previous = Potential.load(self._file(number - 1)) if number else None
        fresh = self._label(number)
        data = self.dataset.labelled()
        if not data:
            raise Error(
                f"{self.folder}: no configuration could be labelled, so there is nothing to fit to; see its dataset.db"
            )
        new = None
        if previous is not None:
            newest = [atoms for atoms in data if atoms.info["round"] == number]
            if not newest:
                raise Error(
                    f"{self.folder}: none of the candidates of round {number} could be labelled, so the "
                    f"loop cannot go on. The last reason: {self.dataset.failures()[-1].message}"
                )
            new = compare(previous, newest).summary()
        path = self._file(number)
        if not path.exists():
            self.say(f"round {number}: fitting to {len(data)} configurations")
            potential = fit(data, self.settings.fit, self.settings.species, previous, self._fit_progress())
            potential.select(data, self.settings.selection.mode)
            potential.save(path)
        counts = self.dataset.counts()
        return {
            "round": number,
            "labelled": counts["labelled"],
            "failed": counts["failed"],
            "new_labels": fresh,
            "train": compare(Potential.load(path), data).summary(),
            "new": new,
        }

    def _explore(self, number: int) -> list[Passage]:
        """Run all explorations with the round's potential: all ranks."""
        potential = self._shared_potential(number)
        passages: list[Passage] = []
        if not self.explorers:
            for k, exploration in enumerate(self.settings.exploration):
                atoms = self._on_root(lambda exploration=exploration: structures.explored(exploration))
                log = self.folder / f"log_{k}.lammps"
                self.explorers.append(
                    Explorer(atoms, potential, self._file(number), self.settings.selection, log, self.comm)
                )
        for k, (explorer, exploration) in enumerate(zip(self.explorers, self.settings.exploration, strict=True)):
            explorer.set_potential(potential)
            for temperature in exploration.temperatures:
                seed = 1 + (hash((self.settings.seed, number, k, round(temperature))) % 900000000)
                passage = explorer.run(
                    temperature, exploration.steps, exploration.timestep, exploration.pressure_GPa, seed
                )
                passages.append(passage)
                self.say(f"round {number}: {_described(passage, exploration.steps)}")
                if not passage.complete:
                    if passage.failure is not None:
                        self._discard_explorers()
                    return passages
        return passages

    def _conclude(self, number: int, record: dict, passages: list[Passage], start: float) -> list[dict]:
        """Choose the next candidates and write the round down: rank 0."""
        flagged = [atoms for passage in passages for atoms in passage.flagged]
        for passage in passages:
            for atoms in passage.flagged:
                atoms.info["origin"] = f"round {number}, {passage.temperature:g} K, step {atoms.info['step']}"
        complete = all(passage.complete for passage in passages)
        chosen: list[Atoms] = []
        if flagged:
            potential = Potential.load(self._file(number))
            indices = potential.select(flagged, self.settings.selection.mode)
            chosen = sorted((flagged[i] for i in indices), key=lambda atoms: -atoms.info["grade"])
            chosen = chosen[: self.settings.selection.per_round]
        elif not complete:
            raise Error(f"{self.folder}: LAMMPS failed before any configuration was flagged: {passages[-1].failure}")
        for atoms in chosen:
            self.dataset.add_candidate(atoms, number + 1, atoms.info["origin"], atoms.info["grade"])
        grades = [passage.highest_grade for passage in passages]
        record |= {
            "flagged": len(flagged),
            "selected": len(chosen),
            "highest_grade": max(grades),
            "passages": [
                {
                    "temperature": p.temperature,
                    "steps": p.steps,
                    "highest_grade": p.highest_grade,
                    "stopped_at": p.break_step,
                    "failure": p.failure,
                }
                for p in passages
            ],
            "converged": complete and not flagged,
            "seconds": time.monotonic() - start,
        }
        rounds = [*self.rounds, record]
        with replaced_whole(self.folder / "rounds.json") as path:
            path.write_text(json.dumps(rounds, indent=1))
        selection = self.settings.selection
        figures.learning(self.folder / "learning.png", rounds, selection.select, selection.break_above)
        return rounds

    # ---- labelling

    def _label(self, number: int) -> int:
        """Label everything that is pending; returns how many were labelled now."""
        if number == 0:
            self._add_first_data()
        pending = self.dataset.pending()
        if not pending:
            return 0
        settings = self.settings.labelling
        workers = min(settings.workers, len(pending))
        done = 0
        with contextlib.ExitStack() as stack:
            idle: SimpleQueue[LabelProcess] = SimpleQueue()
            for _ in range(workers):
                idle.put(stack.enter_context(LabelProcess(settings.labeller(self.settings.species))))

            def work(atoms: Atoms) -> tuple[Any, str]:
                process = idle.get()
                try:
                    return process.label(atoms, settings.time_limit), process.fingerprint
                finally:
                    idle.put(process)

            pool = stack.enter_context(ThreadPoolExecutor(workers))
            jobs = {pool.submit(work, atoms): id for id, atoms in pending}
            for finished, job in enumerate(as_completed(jobs), start=1):
                id = jobs[job]
                try:
                    self.dataset.store_labels(id, *job.result())
                    done += 1
                except LabellingError as error:
                    self.dataset.store_failure(id, error.reason, str(error))
                    self.say(f"round {number}: candidate {id} is left out: {error.reason}: {error}")
                except BaseException:
                    for other in jobs:
                        other.cancel()
                    raise
                if finished == len(pending) or finished % 10 == 0:
                    self.say(f"round {number}: labelled {finished} of {len(pending)}")
        return done

    def _add_first_data(self) -> None:
        initial = self.settings.initial
        for file in initial.files:
            for atoms in configurations.read(file, self.settings.species):
                id = self.dataset.add_candidate(atoms, 0, f"given: {atoms.info['source']}")
                if any(id == waiting for waiting, _ in self.dataset.pending()):
                    self.dataset.store_labels(id, labels(atoms), GIVEN)
        if initial.crystal is not None:
            for name, atoms in structures.first_candidates(initial, self.settings.seed):
                self.dataset.add_candidate(atoms, 0, f"made: {name}")

    # ---- folder and ranks

    def _open(self) -> None:
        """Take the folder for this process alone: rank 0."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(
                f"{self.folder}: another learning loop works in this folder; wait for it or choose another folder"
            ) from None
        except OSError as error:
            raise Error(f"{self.folder}: cannot be used as the loop's folder: {error.strerror}") from error
        self.dataset = Dataset(self.folder / "dataset.db")

    @property
    def rounds(self) -> list[dict]:
        """The rounds so far."""
        path = self.folder / "rounds.json"
        if not path.exists():
            return []
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise Error(
                f"{path}: damaged: {error}. Move it away: the loop then repeats the rounds from the data"
            ) from error

    def _file(self, number: int) -> Path:
        return self.folder / f"round_{number:03d}.almtp"

    def _finish(self) -> None:
        last = self._file(len(self.rounds) - 1)
        Potential.load(last).save(self.folder / "potential.mtp")
        with replaced_whole(self.folder / "potential.almtp") as path:
            shutil.copyfile(last, path)

    def _shared_potential(self, number: int) -> Potential:
        """The round's potential on every rank, through memory."""
        mode, theta, rows = self._on_root(lambda: _content(Potential.load(self._file(number))))
        potential = Potential.load(self._file(number))
        potential.parameters = theta
        potential.set_active_set(rows, mode)
        return potential

    def _discard_explorers(self) -> None:
        for explorer in self.explorers:
            explorer.close()
        self.explorers = []

    def _fit_progress(self) -> Callable[[Step], None]:
        def progress(step: Step) -> None:
            if step.iteration % 10 == 0:
                self.say(f"  iteration {step.iteration}: loss {step.loss:.4e}, {step.seconds:.1f} s")

        return progress

    def _on_root(self, action: Callable[[], Result]) -> Result:
        """Do it on rank 0 and give the result, or the error, to all ranks."""
        outcome: tuple[bool, Any] = (True, None)
        if self.comm.rank == 0:
            try:
                outcome = (True, action())
            except Exception as error:
                if self.comm.size == 1:
                    raise
                outcome = (False, error)
        good, content = self.comm.bcast(outcome)
        if not good:
            raise content
        return content


def _content(potential: Potential) -> tuple[str, np.ndarray, np.ndarray]:
    return potential.facts.active_set, potential.parameters, potential.active_set


def _described(passage: Passage, steps: int) -> str:
    text = f"{passage.temperature:g} K: {passage.steps} of {steps} steps, highest grade {passage.highest_grade:.3g}"
    text += f", {len(passage.flagged)} configurations flagged" if passage.flagged else ""
    text += f" ({passage.n_dropped} more dropped)" if passage.n_dropped else ""
    if passage.failure is not None:
        return f"{text}; LAMMPS failed: {passage.failure}"
    return text + ("; stopped" if passage.break_step is not None else "")
