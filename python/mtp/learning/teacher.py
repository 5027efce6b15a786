# SPDX-License-Identifier: BSD-3-Clause
"""From configurations that were flagged to a potential that knows them: rank 0's part of a learning loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ase import Atoms

from mtp import structures
from mtp.errors import Error
from mtp.evaluation import compare
from mtp.fit import Step, fit
from mtp.labelling import LabelQueue, add_files, judge_together
from mtp.learning import target
from mtp.learning.choice import choose, nearest
from mtp.learning.folder import Folder
from mtp.optimiser import Singular
from mtp.potential import Potential
from mtp.settings import LearnSettings
from mtp.summation import Ranks


class Teacher:
    """Labels, fits and chooses, in a loop's folder. data: what was fitted last. given: a potential that was fitted to
    the first data, in place of the first fit."""

    def __init__(
        self, settings: LearnSettings, folder: Folder, say: Callable[[str], None], given: Path | None = None
    ) -> None:
        self.settings, self.folder, self.say, self.given = settings, folder, say, given
        self.data: list[Atoms] = []
        self._stack = ExitStack()
        self._queue: LabelQueue | None = None
        self._number = 0  # of the round that is being labelled

    def begin(self) -> None:
        """Add the first data to the data set, unless they are there."""
        initial, dataset = self.settings.initial, self.folder.dataset
        add_files(dataset, initial.files, initial.structures, self.settings.species)
        if initial.crystal is not None:
            for name, atoms in structures.first_candidates(initial, self.settings.seed):
                dataset.add_candidate(atoms, 0, f"made: {name}")

    def begin_to_label(self, number: int) -> None:
        """Submit everything that is pending; `labelled` stores what comes back."""
        self._number = number
        dataset = self.folder.dataset
        if dataset.pending():
            if self._queue is None:
                queue = LabelQueue(dataset, self.settings.labelling, self.settings.species, self._said)
                self._queue = self._stack.enter_context(queue)
            if number:
                self._queue.expect(self._previous(number))
            self._queue.submit_pending()
        elif dataset.last_round() == number and not self.folder.file(number).exists():
            judge_together(dataset, self.settings.labelling, self._said)  # a kill may have come before it

    def labelled(self, wait: bool = False) -> bool:
        """Whether all that was submitted is stored."""
        if self._queue is None:
            return True
        if wait:
            self._queue.wait()
        self._queue.poll()
        return self._queue.n_waiting == 0

    def close(self) -> None:
        """End calculations in hand; their candidates stay pending."""
        self._stack.close()
        self._queue = None

    def fit(self, number: int, ranks: Ranks) -> Potential | None:
        """The potential of a round; None where it is in the folder, complete."""
        dataset, path, data = self.folder.dataset, self.folder.file(number), self.folder.dataset.labelled()
        newest = [atoms for atoms in data if atoms.info["round"] == number]
        failures = [failure for failure in dataset.failures() if failure.atoms.info["round"] == number]
        if not data or (failures and not newest):
            raise Error(
                f"{self.folder}: none of the {len(failures)} candidates of round {number} could be labelled, so the "
                f"loop cannot go on. The last reason: {failures[-1].reason}: {failures[-1].message}\n"
                f"To try them again: ase db {dataset.path} status=failed -k status=pending"
            )
        if path.exists():
            return None
        previous = self._previous(number)
        if previous is not None and not newest:
            previous.save(path)  # the search has been widened, and there is nothing new to learn yet
            return None
        self.data = data
        if number == 0 and self.given is not None:
            self.say(f"round 0: {self.given}, as it is")
            potential = Potential.load(self.given)
            potential.species = potential.species or self.settings.species
            return potential
        self.say(f"round {number}: fitting to {len(data)} configurations")
        try:
            return fit(data, self.settings.fit, self.settings.species, previous, self._progress, ranks=ranks)
        except Singular as error:
            raise Error(
                f"{self.folder}: round {number}: {error}. All labels are kept: to go on, name a new `folder`, with "
                f"{dataset.path} among `files` of `initial`, and either a lower fit.level or fit.radial_basis_size, or "
                "more `rattles` or `strains`"
            ) from error

    def report(self, number: int) -> dict:
        """The beginning of a round's record: what its potential was made from, and how good it is."""
        previous, data, counts = self._previous(number), self.folder.dataset.labelled(), self.folder.dataset.counts()
        newest = [atoms for atoms in data if atoms.info["round"] == number]
        return {
            "round": number,
            "labelled": counts["labelled"],
            "failed": counts["failed"],
            "new_labels": len(newest),
            "label_seconds": self.folder.dataset.seconds(number),
            "train": compare(Potential.load(self.folder.file(number)), data).summary(),
            "new": compare(previous, newest).summary() if previous is not None and newest else None,
            "target": self._target(number),
        }

    def choose(self, number: int, flagged: list[Atoms], spare: list[Atoms]) -> int:
        """Make those that extend what is known candidates of the next round, or, where there are none, the nearest of
        what is spare; returns how many."""
        potential = Potential.load(self.folder.file(number))
        told = (self.settings.selection, self.settings.cutting, self.say)
        chosen = choose(potential, flagged, *told) or nearest(potential, spare, *told)
        for atoms in chosen:
            self.folder.dataset.add_candidate(atoms, number + 1, atoms.info["origin"], atoms.info["grade"])
        return len(chosen)

    def _previous(self, number: int) -> Potential | None:
        return Potential.load(self.folder.file(number - 1)) if number else None

    def _target(self, number: int) -> dict | None:
        """The property that is to be settled, and by how much the fit has changed it."""
        if self.settings.target is None:
            return None
        value, error = target.evaluate(self.settings.target, self.folder.file(number))
        earlier = [record["target"]["value"] for record in self.folder.rounds if record.get("target")]
        change = abs(value - earlier[-1]) if earlier else None
        changed = f", changed by {change:.2g}" if earlier else ""
        self.say(f"round {number}: target {value:.6g} ± {error:.2g}{changed}")
        return {"value": value, "error": error, "change": change, "allowed": error}

    def _said(self, text: str) -> None:
        self.say(f"round {self._number}: {text}")

    def _progress(self, step: Step) -> None:
        if step.iteration % 10 == 0:
            first = "" if step.level is None else f"first at level {step.level}, "
            self.say(f"  {first}iteration {step.iteration}: loss {step.loss:.4e}, {step.seconds:.1f} s")
