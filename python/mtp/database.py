# SPDX-License-Identifier: BSD-3-Clause
"""The data set of a learning loop: candidates, their labels, and why some have none.

One ASE SQLite database, one row per candidate. Its key "status" is "pending", "labelled" or "failed"; ASE's
own tools read it (`ase db file.db status=failed`). Every change is one transaction under SQLite's kernel
lock, so that a killed process leaves no half of it and no lock. Only one MPI rank may use a data set.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ase.db
import numpy as np
from ase import Atoms
from ase.db.core import Database
from ase.db.row import AtomsRow

from mtp.configurations import Labels, with_labels
from mtp.errors import Error, FailureReason

GIVEN = "given"  # the fingerprint of labels that came with the user's data
CONTENT = {"content": "configurations of an mtp learning loop", "version": 1}
STATUSES = ("pending", "labelled", "failed")


@dataclass
class Failure:
    """A candidate that the labeller gave no labels for, and why."""

    id: int
    atoms: Atoms
    reason: FailureReason
    message: str


class Dataset:
    """The data set in one file, which is created where it does not exist.

    Args:
        path: the file.

    Raises:
        Error: from every method: the file is damaged, no data set, or locked by another process (for 20 s), or the
            disk is full. The change was not made then, and may be tried again.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.exists():
            self._create()
        with self._transaction() as database:
            tables = {name for (name,) in database.connection.execute("SELECT name FROM sqlite_master")}
            if not {"systems", "information"} <= tables or database.metadata != CONTENT:
                raise Error(f"{self.path}: not a data set of this program: name another file, or move this one away")

    def add_candidate(self, atoms: Atoms, round: int, origin: str, grade: float | None = None) -> int:
        """Add a configuration to be labelled, unless it is there already with the same origin.

        Args:
            atoms: positions, cell and elements, and where present the array "type"; labels are not taken.
            round: of the loop, from 0.
            origin: where it comes from, such as a file and a number or a run and a step.
            grade: extrapolation grade.

        Returns:
            Its id: ids ascend with time.
        """
        candidate = atoms.copy()
        digest = _digest(candidate, origin)
        keys = {"status": "pending", "round": round, "digest": digest}
        if grade is not None:
            keys["grade"] = float(grade)
        data = {"origin": origin}
        if "type" in candidate.arrays:
            data["type"] = candidate.arrays["type"]
        with self._transaction() as database:
            for row in database.select(digest=digest):
                return row.id
            return database.write(candidate, keys, data)

    def pending(self, round: int | None = None) -> list[tuple[int, Atoms]]:
        """List the candidates that await their labels, of one round or of all, by id."""
        selection = {} if round is None else {"round": round}
        return [(row.id, _atoms(row)) for row in self._rows(status="pending", **selection)]

    def store_labels(self, id: int, labels: Labels, fingerprint: str, seconds: float = 0.0) -> None:
        """Give a pending candidate its labels.

        Args:
            id: the candidate's.
            labels: energy and forces at least.
            fingerprint: of the labeller, or GIVEN.
            seconds: that all tries took.

        Raises:
            Error: the candidate is not pending, or the data set holds labels of another labeller.
        """
        with self._transaction() as database:
            row = self._pending_row(database, id)
            if fingerprint != GIVEN:
                for labelled in database.select(f"status=labelled,fingerprint!={GIVEN}", limit=1):
                    if labelled.fingerprint != fingerprint:
                        raise Error(
                            f"{self.path}: holds labels of {labelled.fingerprint}, and a data set never "
                            f"mixes two labellers: take a new file for {fingerprint}, or the first settings"
                        )
            atoms = with_labels(row.toatoms(), labels)
            database.update(
                id, atoms=atoms, delete_keys=["reason"], status="labelled", fingerprint=fingerprint, seconds=seconds
            )

    def store_failure(
        self, id: int, reason: FailureReason, message: str, refused: Labels | None = None, seconds: float = 0.0
    ) -> None:
        """Note why a pending candidate gets no labels after how many seconds, and keep aside those that were refused.

        Raises:
            Error: the candidate is not pending.
        """
        with self._transaction() as database:
            row = self._pending_row(database, id)
            atoms = None if refused is None else with_labels(row.toatoms(), refused)
            database.update(id, atoms=atoms, data={"message": message}, status="failed", reason=reason, seconds=seconds)

    def set_aside(self, id: int, message: str) -> None:
        """Take the labels of a candidate for nonsense after all: it becomes failed, and keeps them aside.

        Raises:
            Error: the candidate is not labelled, or its labels were given.
        """
        with self._transaction() as database:
            for row in database.select(id=id, status="labelled"):
                if row.fingerprint != GIVEN:
                    database.update(id, data={"message": message}, status="failed", reason="nonsense")
                    return
        raise Error(f"{self.path}: candidate {id} has no labels of a labeller")

    def labelled(self, given: bool = True) -> list[Atoms]:
        """List the configurations with labels, by id; info has "id", "round", "origin" and any "grade".

        Args:
            given: also those whose labels came with the user's data.
        """
        rows = self._rows(status="labelled")
        return [_atoms(row) for row in rows if given or row.fingerprint != GIVEN]

    def forget_pending(self, after_round: int) -> None:
        """Take out the pending candidates of all rounds later than that: those of a round that was cut short."""
        with self._transaction() as database:
            database.delete([row.id for row in database.select(f"status=pending,round>{after_round}")])

    def last_round(self) -> int:
        """The latest round of a candidate that is labelled or failed; 0 where there is none."""
        return max((row.round for row in self._rows() if row.status != "pending"), default=0)

    def join_rounds(self, last: int) -> None:
        """Take all candidates of later rounds for ones of that."""
        with self._transaction() as database:
            for row in list(database.select(f"round>{last}")):
                database.update(row.id, round=last)

    def failures(self) -> list[Failure]:
        """List the candidates that could not be labelled, by id."""
        return [Failure(row.id, _atoms(row), row.reason, row.data["message"]) for row in self._rows(status="failed")]

    def counts(self) -> dict[str, int]:
        """Count the rows of each status."""
        return {status: len(self._rows(status=status)) for status in STATUSES}

    def seconds(self, round: int) -> float:
        """That the calculations of a round took, those that failed among them."""
        return float(sum(row.get("seconds", 0.0) for row in self._rows(round=round)))

    def fingerprint(self) -> str | None:
        """Tell which labeller the labels come from; None while there are none but given ones."""
        rows = self._rows(status="labelled")
        return next((row.fingerprint for row in rows if row.fingerprint != GIVEN), None)

    def _rows(self, **selection: object) -> list[AtomsRow]:
        with self._transaction() as database:
            return list(database.select(sort="id", **selection))

    def _pending_row(self, database: Database, id: int) -> AtomsRow:
        for row in database.select(id=id):
            if row.status == "pending":
                return row
            raise Error(f"{self.path}: candidate {id} is {row.status} already")
        raise Error(f"{self.path}: there is no candidate {id}")

    def _create(self) -> None:
        """Make an empty data set beside its place, then link it there: nobody sees half of one."""
        if not self.path.parent.is_dir():
            raise Error(f"{self.path}: the folder does not exist: make it first")
        with self._readable(), tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".") as folder:
            part = Path(folder, self.path.name)
            with _connect(part) as database:
                database.metadata = CONTENT
            with suppress(FileExistsError):  # another process was faster, with the same content
                os.link(part, self.path)

    @contextmanager
    def _transaction(self) -> Iterator[Database]:
        with self._readable(), _connect(self.path) as database:
            database.connection.execute("BEGIN IMMEDIATE")
            yield database

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Error(f"{self.path}: {error}: {_advice(str(error))}") from error
        except sqlite3.DatabaseError as error:
            raise Error(f"{self.path}: damaged or no data set: {error}: restore a copy or move it away") from error
        except OSError as error:
            raise Error(f"{self.path}: {error.strerror or error}: {_advice(str(error))}") from error


def _advice(message: str) -> str:
    if any(word in message for word in ("full", "space", "quota", "I/O", "too large")):
        return "make room on the disk, and run the same command again; what the data set held it still holds"
    if "locked" in message:
        return "another process has used it for 20 s without end: wait for that process, or end it"
    return "may this user read and write it and its folder?"


def _connect(path: Path) -> Database:
    """Open without ASE's lock file, which a killed process would leave behind, and without its MPI."""
    return ase.db.connect(path, type="db", use_lock_file=False, serial=True)


def _digest(atoms: Atoms, origin: str) -> str:
    parts = (atoms.numbers, atoms.arrays.get("type", ()), atoms.positions, atoms.cell.array, atoms.pbc)
    content = hashlib.sha256(origin.encode())
    for part in parts:
        content.update(np.ascontiguousarray(part, dtype=float).tobytes())
    return f"sha256:{content.hexdigest()}"


def _atoms(row: AtomsRow) -> Atoms:
    atoms = row.toatoms()
    if "type" in row.data:
        atoms.new_array("type", np.asarray(row.data["type"]))
    atoms.info.update(id=row.id, round=row.round, origin=row.data["origin"])
    if "grade" in row:
        atoms.info["grade"] = row.grade
    return atoms
