# SPDX-License-Identifier: BSD-3-Clause
"""Labels for the candidates of a data set: those that a user has, and those that a labeller computes."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ase import Atoms

from mtp.configurations import check_distances, labels, read, types, with_labels
from mtp.database import GIVEN, Dataset
from mtp.errors import Error
from mtp.label_checks import Prediction, doubt_energies, doubt_forces
from mtp.label_executors import make_executor
from mtp.label_process import Job, OtherLabeller, Outcome, Owner, end_jobs, label_job
from mtp.label_work import doubt_work
from mtp.potential import Potential
from mtp.settings import Labelling

FOLDER = "labelling"  # of the engines' files, beside the data set


def add_files(dataset: Dataset, given: Iterable[Path], unlabelled: Iterable[Path], species: Sequence[str]) -> None:
    """Add files of configurations to round 0, unless they are there: given with labels, or to be labelled, where labels
    that they have are not taken. All are checked before one is added.

    Raises:
        DataError: a given configuration without energy or forces, or with ones that are not finite; any configuration
            with atoms on top of each other, or with an element that is not in species.
        Error: a file that cannot be read.
    """
    labelled = [(atoms, labels(atoms)) for atoms in _usable(given, species)]
    without = _usable(unlabelled, species)
    known = {_add(dataset, atoms, "given"): its_labels for atoms, its_labels in labelled}
    for id, _ in dataset.pending(0):
        if id in known:
            dataset.store_labels(id, known[id], GIVEN)
    for atoms in without:
        _add(dataset, atoms, "to label")


def label_pending(
    dataset: Dataset,
    settings: Labelling,
    species: Sequence[str],
    say: Callable[[str], None],
    potential: Potential | None = None,
) -> None:
    """Label all pending candidates, and store each label or failure as it comes; see LabelQueue.

    Args:
        potential: the current one, where there is one, see LabelQueue.expect.

    Raises:
        Error: as LabelQueue.
    """
    with LabelQueue(dataset, settings, species, say) as queue:
        if potential is not None:
            queue.expect(potential)
        queue.submit_pending()
        queue.wait()


def judge_together(dataset: Dataset, settings: Labelling, say: Callable[[str], None]) -> None:
    """Judge all again that the labeller gave, and set nonsense aside: what came first was not known as such. Those of
    the newest round alone are judged by the others near them, which have been judged before.

    A LabelQueue does so when the last of its candidates is stored; who goes on after a kill in between has to.
    """
    known = dataset.labelled()
    computed = {atoms.info["id"] for atoms in dataset.labelled(given=False)}
    newest = max((atoms.info["round"] for atoms in known), default=0)
    fresh = {k for k, atoms in enumerate(known) if atoms.info["round"] == newest and atoms.info["id"] in computed}
    doubts = doubt_work(known, fresh, settings.work_bound) | doubt_energies(known, settings.energy_bound)
    for k, message in sorted(doubts.items()):
        id = known[k].info["id"]
        if id in computed:
            dataset.set_aside(id, message)
            say(f"candidate {id} is set aside: nonsense: {message}")


@dataclass(frozen=True)
class _Try:
    id: int
    atoms: Atoms
    number: int
    executor: Executor | None = None  # to which it was submitted
    seconds: float = 0.0  # of earlier tries


class LabelQueue:
    """Labels the pending candidates of a data set while its owner does something else: a context manager.

    The calculations run in the executor that the settings describe; by default that is processes on this machine,
    which stay for the next candidates. Candidates enter with submit_pending; poll and wait store what is done, in the
    caller's thread, which alone uses the data set. Each candidate leaves as labelled or failed, once. What is not done
    when the queue is left, or when this process dies, stays pending.

    Args:
        dataset: for this process alone while the queue lives.
        settings: labeller, executor, and what to do about failures.
        species: the elements, in the order of the potential's species.
        say: is told of failures and of progress.

    Raises:
        Error: on entering and from submit_pending, poll and wait: the labeller or the executor cannot be made; the
            labeller is not the one whose labels the data set holds; the executor gives no outcome of any job; or the
            data set cannot be written. Jobs that were done stay to be stored by another poll.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: Labelling,
        species: Sequence[str],
        say: Callable[[str], None] = lambda text: None,
    ):
        self.dataset = dataset
        self.settings = settings
        self.say = say
        self._name = uuid.uuid4().hex
        self._owner = Owner.this()
        self._labeller = settings.labeller(list(species))
        self._folder = dataset.path.resolve().parent / FOLDER
        self._executor: Executor | None = None
        self._jobs: dict[Future, _Try] = {}
        self._left: dict[int, list[Path]] = {}  # folders of candidates, from loops that were killed
        self._known: list[Atoms] = []
        self._fingerprint: str | None = None
        self._potential: Potential | None = None
        self._prediction: Prediction | None = None
        self._n_submitted = self._n_done = 0
        self._executor_works = False

    def __enter__(self) -> LabelQueue:
        if self.settings.executor.type == "local":
            try:
                self.check()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        for future in self._jobs:
            with suppress(NotImplementedError):  # parsl's executor cannot cancel what waits
                future.cancel()
        end_jobs(self._name)
        if self._executor is not None:
            self._executor.shutdown(wait=self.settings.executor.type == "local")
        with suppress(OSError):  # there is none, or it holds files that are kept
            self._folder.rmdir()

    @property
    def n_waiting(self) -> int:
        """The number of candidates that were submitted and are not stored yet."""
        return len(self._jobs)

    def check(self) -> None:
        """Make the labeller where it will run, and wait for that. Entering does it where that is this machine."""
        self._fingerprint = self.dataset.fingerprint()
        try:
            self._outcome(self._start(Job(self._name, self._owner, self._labeller, os.getcwd(), self._fingerprint)))
        except (Error, KeyboardInterrupt):
            raise
        except Exception as error:
            raise Error(f"labelling.executor: no outcome of a job: {type(error).__name__}: {error}") from error

    def expect(self, potential: Potential) -> None:
        """Judge energies by this potential too; without an active set it has no say."""
        self._potential, self._prediction = potential, None

    def submit_pending(self) -> int:
        """Submit the pending candidates that are not submitted yet; their number."""
        self._known, self._prediction = self.dataset.labelled(), None
        self._fingerprint = self.dataset.fingerprint()
        submitted = {attempt.id for attempt in self._jobs.values()}
        new = [_Try(id, atoms, 1) for id, atoms in self.dataset.pending() if id not in submitted]
        if new:
            local, kind = _count(self.settings.workers, "worker"), self.settings.executor.type
            self.say(f"labelling {_count(len(new), 'configuration')} with {local if kind == 'local' else kind}")
        for attempt in new:
            self._left[attempt.id] = self._folders(attempt.id)
            self._submit(attempt)
        self._n_submitted += len(new)
        return len(new)

    def poll(self) -> int:
        """Store what is done, without waiting for more; the number of candidates that left."""
        done = [future for future in self._jobs if future.done()]
        n_left = sum(self._settle(future) for future in done)
        if n_left and not self._jobs:
            judge_together(self.dataset, self.settings, self.say)
            self._n_submitted = self._n_done = 0
        return n_left

    def wait(self) -> None:
        """Wait until all that was submitted is stored."""
        while self._jobs:
            wait(self._jobs, return_when=FIRST_COMPLETED)
            self.poll()

    def _folders(self, id: int) -> list[Path]:
        """What there is of the engine's files of a candidate."""
        name = f"candidate_{id}"
        return [*self._folder.glob(name), *self._folder.glob(f"{name}_try_*")]

    def _submit(self, attempt: _Try) -> None:
        job = Job(
            self._name,
            self._owner,
            self._labeller,
            os.getcwd(),
            self._fingerprint,
            attempt.atoms,
            self.settings.time_limit,
            str(self._folder / f"candidate_{attempt.id}"),
            self.settings.keep_files,
        )
        future = self._start(job)
        self._jobs[future] = replace(attempt, executor=self._executor)

    def _start(self, job: Job) -> Future:
        for last in (False, True):
            if self._executor is None:
                executor = self.settings.executor
                self._executor = make_executor(executor.type, executor.keywords, self.settings.workers)
            try:
                return self._executor.submit(label_job, job)
            except Exception as error:
                if last or not isinstance(error, BrokenExecutor):
                    raise Error(f"labelling.executor: takes no job: {type(error).__name__}: {error}") from error
                self._give_up_executor()  # a worker died while nobody looked

    def _give_up_executor(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def _outcome(self, future: Future) -> Outcome:
        try:
            outcome = future.result()
        except OtherLabeller as error:
            raise Error(f"{self.dataset.path}: {error}") from error
        self._executor_works = True
        return outcome

    def _settle(self, future: Future) -> bool:
        """Store what became of a job, or try again: whether the candidate left. Only then the job is forgotten."""
        attempt = self._jobs[future]
        try:
            outcome = self._outcome(future)
        except Error:
            raise
        except Exception as error:  # of the executor: a worker was lost, or it does not work at all
            # the other jobs of a broken executor end like this too: the one that replaced it stays
            if isinstance(error, BrokenExecutor) and attempt.executor is self._executor:
                self._give_up_executor()
            message = f"the executor lost it: {type(error).__name__}: {error}"
            if not self._executor_works and attempt.number > self.settings.retries:
                raise Error(f"labelling.executor: no outcome of any job: {message}") from error
            outcome = Outcome("", None, "crashed", message)
        outcome = self._judged(attempt, outcome)
        seconds = attempt.seconds + outcome.seconds
        again = outcome.reason in self.settings.retry and attempt.number <= self.settings.retries
        if again:
            self.say(f"candidate {attempt.id} is tried again: {outcome.reason}: {outcome.message}")
            self._submit(_Try(attempt.id, attempt.atoms, attempt.number + 1, seconds=seconds))
        elif outcome.reason is None:
            self.dataset.store_labels(attempt.id, outcome.labels, outcome.fingerprint, seconds)
            if self.settings.keep_files != "all":
                for folder in self._left.pop(attempt.id, []):
                    shutil.rmtree(folder, ignore_errors=True)
            self._known.append(with_labels(attempt.atoms, outcome.labels))
            self._fingerprint = outcome.fingerprint
        else:
            self.dataset.store_failure(attempt.id, outcome.reason, outcome.message, outcome.labels, seconds)
            self.say(f"candidate {attempt.id} is left out: {outcome.reason}: {outcome.message}")
        del self._jobs[future]
        if not again:
            self._n_done += 1
            if self._n_done == self._n_submitted or self._n_done % 10 == 0:
                self.say(f"labelled {self._n_done} of {self._n_submitted}")
        return not again

    def _judged(self, attempt: _Try, outcome: Outcome) -> Outcome:
        """The same outcome, or that its labels are nonsense."""
        if outcome.labels is None:
            return outcome
        message = doubt_forces(outcome.labels.forces, self.settings.net_force_bound)
        if message is None:
            message = self._doubt_energy(with_labels(attempt.atoms, outcome.labels))
        return outcome if message is None else replace(outcome, reason="nonsense", message=message)

    def _doubt_energy(self, labelled: Atoms) -> str | None:
        everything = [*self._known, labelled]
        message = doubt_energies(everything, self.settings.energy_bound).get(len(everything) - 1)
        if message is None and self._potential is not None:
            if self._prediction is None:
                self._prediction = Prediction(self._potential, self._known)
            message = self._prediction.doubt(labelled, self.settings.prediction_bound)
        return message


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


def _usable(files: Iterable[Path], species: Sequence[str]) -> list[Atoms]:
    found = [atoms for file in files for atoms in read(file, species)]
    for atoms in found:
        types(atoms, species)
        check_distances(atoms)
    return found


def _add(dataset: Dataset, atoms: Atoms, what: str) -> int:
    """Add a configuration of a file to round 0; its id."""
    # the name without its folder: the same wherever the loop is started or moved to
    return dataset.add_candidate(atoms, 0, f"{what}: {Path(atoms.info['source']).name}")
