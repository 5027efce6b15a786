# SPDX-License-Identifier: BSD-3-Clause
"""The learning loop: explore under extrapolation grades, select, label, fit, until nothing extrapolates any more.

A round: label what is pending; fit; build the active set; explore with the potential; choose by maxvol among the
configurations that were flagged; they are the next round's pending candidates. Everything lasting is in the folder:

    settings.json       the settings that must stay as they are from the first round to the last
    dataset.db          candidates and labels (ASE SQLite; see mtp.database)
    round_NNN.almtp     potential and active set of each round
    rounds.json         what happened in each round
    learning.png        errors, grades and numbers by round
    potential.mtp, potential.almtp    the result

A round's file appears when its step is complete, and rounds.json holds complete rounds only, so a killed loop goes on
where it was: it loses at most the calculations in hand. Under MPI all ranks explore; rank 0 does everything else.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms

from mtp import structures
from mtp.cfg import replaced_whole
from mtp.configurations import types
from mtp.database import Dataset
from mtp.errors import Error
from mtp.evaluation import compare
from mtp.exploration import Explorer, Passage
from mtp.fit import Step, fit
from mtp.labelling import add_given, label_pending
from mtp.potential import Potential
from mtp.settings import LearnSettings

FAR_BEYOND = 10  # times `break`: grades above are those of a run that has gone wrong already

Result = TypeVar("Result")
Say = Callable[[str], None]


class Stopped(Error):
    """The loop cannot go on. Every rank raises it, with the message of rank 0."""


class NotConverged(Stopped):
    """The loop has used up its rounds; `rounds` is what happened in them."""

    def __init__(self, message: str, rounds: list[dict]) -> None:
        super().__init__(message)
        self.rounds = rounds


def learn(settings: LearnSettings, say: Say = lambda text: None, comm: MPI.Comm = MPI.COMM_WORLD) -> list[dict]:
    """Run the loop to its end, or go on with it, and return its rounds (as in rounds.json) on every rank.

    Collective over `comm`. Raises NotConverged after the last round, Error where the loop cannot go on: Stopped on
    every rank where there are several, any other error on some ranks only.
    """
    loop = Loop(settings, say, comm)
    try:
        loop.open()
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

    def open(self) -> None:
        """Take the folder, and check everything that can be checked before the first calculation."""
        self._on_root(self._take_folder)
        self.structures = self._on_root(self._check)

    def close(self) -> None:
        """Let go of LAMMPS and of the folder."""
        for explorer in self.explorers:
            explorer.close()
        self.explorers = []
        if self._lock is not None:
            self._lock.close()

    def run(self) -> list[dict]:
        """Go on until a round converges, and write the result."""
        rounds = self._on_root(lambda: self.rounds)
        if self._converged(rounds):
            self.say(f"{self.folder}: learned already, in {len(rounds)} rounds: nothing to do")
        while not self._converged(rounds):
            number = len(rounds)
            if number >= self.settings.rounds:
                raise NotConverged(
                    f"{self.folder}: not converged after {number} rounds: the highest grade of the last was "
                    f"{rounds[-1]['highest_grade']:.3g}; its potential is {self._file(number - 1).name}. "
                    "Raise `rounds` and run the same command to go on",
                    rounds,
                )
            rounds = self._round(number)
        self._on_root(self._finish)
        return rounds

    def _converged(self, rounds: list[dict]) -> bool:
        """Whether the last round converged, and with the explorations that the settings ask for now."""
        return bool(rounds) and rounds[-1]["converged"] and rounds[-1]["search"] == self.settings.search()

    # ---- one round

    def _round(self, number: int) -> list[dict]:
        start = time.monotonic()
        record = self._on_root(lambda: self._prepare(number))
        passages = self._explore(number)
        return self._on_root(lambda: self._conclude(number, record, passages, start))

    def _prepare(self, number: int) -> dict:
        """Label, fit, build the active set: rank 0. Returns the beginning of the round's record."""
        previous = Potential.load(self._file(number - 1)) if number else None
        self._label(number)
        data = self.dataset.labelled()
        newest = [atoms for atoms in data if atoms.info["round"] == number]
        failures = [failure for failure in self.dataset.failures() if failure.atoms.info["round"] == number]
        if not data or (failures and not newest):
            raise Error(
                f"{self.folder}: none of the {len(failures)} candidates of round {number} could be labelled, so the "
                f"loop cannot go on. The last reason: {failures[-1].reason}: {failures[-1].message}\n"
                f"To try them again: ase db {self.dataset.path} status=failed -k status=pending"
            )
        path = self._file(number)
        if not path.exists():
            if previous is not None and not newest:
                potential = previous  # the search has been widened, and there is nothing new to learn yet
            else:
                self.say(f"round {number}: fitting to {len(data)} configurations")
                potential = fit(data, self.settings.fit, self.settings.species, previous, self._fit_progress())
                potential.select(data, self.settings.selection.mode)
            potential.save(path)
        counts = self.dataset.counts()
        return {
            "round": number,
            "labelled": counts["labelled"],
            "failed": counts["failed"],
            "new_labels": len(newest),
            "train": compare(Potential.load(path), data).summary(),
            "new": compare(previous, newest).summary() if previous is not None and newest else None,
            "search": self.settings.search(),
        }

    def _explore(self, number: int) -> list[Passage]:
        """Run all explorations with the round's potential: all ranks."""
        potential = self._shared_potential(number)
        passages: list[Passage] = []
        if not self.explorers:
            for k, atoms in enumerate(self.structures):
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
            near = self._near(flagged)
            indices = potential.select(near, self.settings.selection.mode)
            chosen = sorted((near[i] for i in indices), key=lambda atoms: -atoms.info["grade"])
            chosen = chosen[: self.settings.selection.per_round]
        elif not complete:
            raise Error(
                f"{self.folder}: LAMMPS failed before any configuration was flagged: {passages[-1].failure}. "
                "A smaller `timestep` or `interval` may help"
            )
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
        self._draw(rounds)
        return rounds

    def _near(self, flagged: list[Atoms]) -> list[Atoms]:
        """Leave out what a run met after it had gone wrong: grades far beyond `break`, unless there is nothing else.

        Such configurations are unphysical, and their large forces would spoil the fit.
        """
        limit = FAR_BEYOND * self.settings.selection.break_above
        near = [atoms for atoms in flagged if atoms.info["grade"] <= limit]
        return near or [min(flagged, key=lambda atoms: atoms.info["grade"])]

    def _draw(self, rounds: list[dict]) -> None:
        from mtp import figures  # here, because matplotlib takes long to load

        selection = self.settings.selection
        figures.learning(self.folder / "learning.png", rounds, selection.select, selection.break_above)

    def _label(self, number: int) -> None:
        """Add the first data, and label everything that is pending."""
        initial, species = self.settings.initial, self.settings.species
        if number == 0:
            add_given(self.dataset, initial.files, species)
            if initial.crystal is not None:
                for name, atoms in structures.first_candidates(initial, self.settings.seed):
                    self.dataset.add_candidate(atoms, 0, f"made: {name}")
        label_pending(self.dataset, self.settings.labelling, species, lambda text: self.say(f"round {number}: {text}"))

    # ---- folder and ranks

    def _take_folder(self) -> None:
        """Take the folder for this process alone: rank 0."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(
                f"{self.folder}: another learning loop works in this folder; wait for it or choose another folder"
            ) from None
        except OSError as error:
            raise Error(f"{self.folder}: cannot be used as the loop's folder: {error.strerror}") from error
        self.dataset = Dataset(self.folder / "dataset.db")

    def _check(self) -> list[Atoms]:
        """Check settings and folder against each other, and give the structures to explore: rank 0."""
        explored = [
            structures.explored(exploration, self.settings.species) for exploration in self.settings.exploration
        ]
        made = [structures.crystal(self.settings.initial.crystal)] if self.settings.initial.crystal else []
        for atoms in (*explored, *made):
            types(atoms, self.settings.species)
        path = self.folder / "settings.json"
        form = json.loads(json.dumps(self.settings.form()))
        if path.exists() and any(self.dataset.counts().values()):
            first = _read_json(path)
            for key, value in form.items():
                if first.get(key) != value:
                    raise Error(
                        f"{self.folder}: was begun with {key} = {json.dumps(first.get(key))}, which stays from the "
                        f"first round to the last, and the settings now have {json.dumps(value)}: set it back, or "
                        "name a new `folder`"
                    )
        else:
            with replaced_whole(path) as part:
                part.write_text(json.dumps(form, indent=1))
        self.dataset.forget_pending(after_round=len(self.rounds))
        return explored

    @property
    def rounds(self) -> list[dict]:
        """The rounds so far."""
        path = self.folder / "rounds.json"
        return _read_json(path) if path.exists() else []

    def _file(self, number: int) -> Path:
        return self.folder / f"round_{number:03d}.almtp"

    def _finish(self) -> None:
        """Write the result, unless it is there: rank 0."""
        last = self._file(len(self.rounds) - 1)
        result, graded = self.folder / "potential.mtp", self.folder / "potential.almtp"
        if not (result.exists() and graded.exists() and graded.read_bytes() == last.read_bytes()):
            Potential.load(last).save(result)
            with replaced_whole(graded) as path:
                shutil.copyfile(last, path)
        if not (self.folder / "learning.png").exists():
            self._draw(self.rounds)

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
        if self.comm.size == 1:
            return action()
        outcome: tuple[bool, Any] = (True, None)
        if self.comm.rank == 0:
            try:
                outcome = (True, action())
            except Exception as error:
                if not isinstance(error, Error):
                    traceback.print_exc()
                outcome = (False, str(error))
        good, content = self.comm.bcast(outcome)
        if not good:
            raise Stopped(content)
        return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Error(f"{path}: damaged: {error}. Move it away: the loop then makes it again from the data") from error


def _content(potential: Potential) -> tuple[str, np.ndarray, np.ndarray]:
    return potential.facts.active_set, potential.parameters, potential.active_set


def _described(passage: Passage, steps: int) -> str:
    text = f"{passage.temperature:g} K: {passage.steps} of {steps} steps, highest grade {passage.highest_grade:.3g}"
    text += f", {len(passage.flagged)} configurations flagged" if passage.flagged else ""
    text += f" ({passage.n_dropped} more dropped)" if passage.n_dropped else ""
    if passage.failure is not None:
        return f"{text}; LAMMPS failed: {passage.failure}"
    return text + ("; stopped" if passage.break_step is not None else "")
