# SPDX-License-Identifier: BSD-3-Clause
"""Labels for the candidates of a data set: those that a user has, and those that a labeller computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from ase import Atoms

from mtp.configurations import Labels, check_distances, labels, read, types
from mtp.database import GIVEN, Dataset
from mtp.errors import Error, LabellingError
from mtp.label_process import LabelProcess
from mtp.settings import Labelling


def add_given(dataset: Dataset, files: Iterable[Path], species: Sequence[str]) -> None:
    """Add files of labelled configurations to round 0, unless they are there. All are checked before one is added.

    Raises:
        DataError: a configuration without energy or forces, with numbers that are not finite, with atoms on top of
            each other, or with an element that is not in species.
        Error: a file that cannot be read.
    """
    given = [(atoms, _usable(atoms, species)) for file in files for atoms in read(file, species)]
    known = {}
    for atoms, its_labels in given:
        # the name without its folder: the same wherever the loop is started or moved to
        id = dataset.add_candidate(atoms, 0, f"given: {Path(atoms.info['source']).name}")
        known[id] = its_labels
    for id, _ in dataset.pending(0):
        if id in known:
            dataset.store_labels(id, known[id], GIVEN)


def label_pending(dataset: Dataset, settings: Labelling, species: Sequence[str], say: Callable[[str], None]) -> None:
    """Label all pending candidates with `settings.workers` processes; store each label or failure as it comes.

    After an error, or an interruption from the keyboard, calculations in hand are killed.

    Raises:
        Error: the labeller cannot be made, or is not the one whose labels the data set holds.
    """
    pending = dataset.pending()
    if not pending:
        return
    workers = min(settings.workers, len(pending))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        idle: SimpleQueue[LabelProcess] = SimpleQueue()
        for _ in range(workers):  # left, and killed, before the pool waits for its threads
            process = stack.enter_context(LabelProcess(settings.labeller(list(species))))
            _check_fingerprint(dataset, process.fingerprint)
            idle.put(process)

        def work(atoms: Atoms) -> tuple[Labels, str]:
            process = idle.get()
            try:
                return process.label(atoms, settings.time_limit), process.fingerprint
            finally:
                idle.put(process)

        jobs = {pool.submit(work, atoms): id for id, atoms in pending}
        try:
            for finished, job in enumerate(as_completed(jobs), start=1):
                id = jobs[job]
                try:
                    dataset.store_labels(id, *job.result())
                except LabellingError as error:
                    dataset.store_failure(id, error.reason, str(error))
                    say(f"candidate {id} is left out: {error.reason}: {error}")
                if finished == len(pending) or finished % 10 == 0:
                    say(f"labelled {finished} of {len(pending)}")
        except BaseException:
            for job in jobs:
                job.cancel()
            raise


def _usable(atoms: Atoms, species: Sequence[str]) -> Labels:
    types(atoms, species)
    check_distances(atoms)
    return labels(atoms)


def _check_fingerprint(dataset: Dataset, fingerprint: str) -> None:
    known = dataset.fingerprint()
    if known not in (None, fingerprint):
        raise Error(
            f"{dataset.path}: holds labels of {known}, the settings now describe {fingerprint}, and a data set never "
            "mixes two labellers: name a new `folder`, or take the first labeller again"
        )
