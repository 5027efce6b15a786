# SPDX-License-Identifier: BSD-3-Clause
"""One rank acts, all know the outcome: an error on one is an error on all."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import mpi4py.MPI as MPI

from mtp.errors import Error, LibraryError
from mtp.summation import Ranks

Result = TypeVar("Result")


class Stopped(Error):
    """The loop cannot go on. Every rank raises it, with the message of the rank that found out."""


class NotConverged(Stopped):
    """The loop has used up its rounds or passes; `rounds` is what happened in them."""

    def __init__(self, message: str, rounds: list[dict]) -> None:
        super().__init__(message)
        self.rounds = rounds

    def __reduce__(self):
        return type(self), (str(self), self.rounds)


def on_root(comm: MPI.Comm, action: Callable[[], Result]) -> Result:
    """Do it on rank 0 and give the result, or the error, to all ranks."""
    if comm.size == 1:
        return action()
    return _shared(comm, _outcome(action) if comm.rank == 0 else None)


def led(comm: MPI.Comm, action: Callable[[Ranks], Result]) -> Result:
    """As `on_root`, with the other ranks at the service of rank 0 (see mtp.summation)."""
    ranks = Ranks(comm)
    outcome = None
    with ranks.lead() as leading:
        if leading:
            try:
                outcome = (True, action(ranks))
            except Error as error:
                outcome = (False, error)
    return _shared(comm, outcome)


def from_leaders(comm: MPI.Comm, leaders: list[int], action: Callable[[], Any]) -> list[Any]:
    """Do it on every rank; rank 0 gets the results of some of them, and all the first error.

    The action is to raise Error on all ranks of a group alike. Anything else is raised where it happens: others may
    wait in the middle of something, and the caller ends them.
    """
    try:
        outcome = (True, action())
    except LibraryError:
        raise
    except Error as error:
        outcome = (False, error)
    politely(comm)
    found = comm.gather(outcome if comm.rank in leaders or not outcome[0] else None)
    failure = None
    if comm.rank == 0:
        failure = next((outcome for outcome in found if outcome is not None and not outcome[0]), None)
    failure = comm.bcast(failure)
    if failure is not None:
        raise _stopped(failure[1])
    return [found[leader][1] for leader in leaders] if comm.rank == 0 else [None] * len(leaders)


def end_all(comm: MPI.Comm, message: str) -> NoReturn:
    """End all processes with the message of this rank, for which others may wait."""
    print(f"mtp: rank {comm.rank}: {message}", file=sys.stderr, flush=True)
    time.sleep(0.5)  # launchers may drop what they have not read when a rank ends the others
    comm.Abort(1)


def politely(comm: MPI.Comm) -> None:
    """Wait for all ranks without keeping the core busy, as MPI's own waiting does: others may compute on it."""
    if comm.size == 1:
        return
    request = comm.Ibarrier()
    pause = 1e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _outcome(action: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, action()
    except Exception as error:
        if not isinstance(error, Error):
            traceback.print_exc()
        return False, error


def _shared(comm: MPI.Comm, outcome: tuple[bool, Any] | None) -> Any:
    politely(comm)
    if outcome is not None and not outcome[0]:
        outcome = (False, _stopped(outcome[1]))
    good, content = comm.bcast(outcome)
    if not good:
        raise content
    return content


def _stopped(error: Exception) -> Stopped:
    return error if isinstance(error, Stopped) else Stopped(str(error) or type(error).__name__)
