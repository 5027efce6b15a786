# SPDX-License-Identifier: BSD-3-Clause
"""A labeller in a process of its own, so that an engine that hangs, crashes or chatters harms nobody.

Requests and answers are pickled over a private socket; the engine's standard output and error go to a
temporary file, whose end explains a crash. `label_job` is what an executor runs, here or on another machine.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from mtp.configurations import Labels
from mtp.errors import Error, FailureReason, LabellingError
from mtp.label_checks import check_numbers
from mtp.labellers import make_labeller
from mtp.processes import plain_environment

START_LIMIT = 300.0  # s, for importing an engine from a slow disk
WATCH_INTERVAL = 1.0  # s
# The modules come from where this process has them, and the engine's own processes see no changed PYTHONPATH.
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from mtp.label_process import serve
serve(int(sys.argv[1]))
"""


class LabelProcess:
    """A labeller in a process of its own that serves one configuration after the other: a context manager.

    The process is a new Python, never a fork, and knows nothing of the MPI launcher of this one. It gets
    killed, with all processes that its engine started, at a time limit or at the end, and is replaced when
    needed again. If this process dies, it ends by itself.

    Args:
        settings: see make_labeller.
        base: the folder from which the settings' relative paths start; by default the current one.

    Attributes:
        fingerprint: the labeller's, see Labeller; known inside the context.

    Raises:
        Error: on entering, where the labeller cannot be made.
    """

    fingerprint: str

    def __init__(self, settings: Mapping[str, Any], base: str | None = None):
        self.settings = dict(settings)
        self.base = base
        self._process: subprocess.Popen | None = None
        self._ending = threading.Lock()
        self._killed = False

    def __enter__(self) -> LabelProcess:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def label(self, atoms: Atoms, time_limit: float, folder: str | None = None) -> Labels:
        """Compute the labels of one configuration and check their numbers, see label_checks.check_numbers.

        Args:
            atoms: the configuration; a calculator, constraints and info are ignored.
            time_limit: seconds for this configuration; an engine's start is not counted.
            folder: an existing one for the engine's files.

        Raises:
            LabellingError: the engine failed or crashed, did not converge, ran out of time, or gave nonsense.
        """
        if self._process is None:
            self._start()
        request = atoms.copy()
        request.info, request.constraints = {}, None
        self._log.seek(0)
        self._log.truncate()
        answer, content = self._ask((request, folder), time_limit)
        if answer == "refusal":
            message, reason = content
            raise LabellingError(message, reason)
        labels = Labels(**content)
        check_numbers(labels, len(atoms))
        return labels

    def kill(self) -> None:
        """Kill the process for good, from another thread than the one that waits for its answer."""
        with self._ending:
            self._killed = True
            if self._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by _stop
        self._connection, theirs = Pipe()
        with theirs, self._ending:
            if self._killed:
                raise LabellingError("the labelling was ended", "crashed")
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(theirs.fileno()), json.dumps(sys.path)],
                cwd=self.base,
                env=plain_environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        try:
            answer, content = self._ask(self.settings, START_LIMIT)
        except LabellingError as error:
            raise Error(f"the labeller does not start: {error}") from None
        if answer == "refusal":
            self._stop()
            raise Error(content[0])
        self.fingerprint = content

    def _ask(self, request: object, time_limit: float) -> tuple[str, Any]:
        try:
            start = time.monotonic()
            self._connection.send(request)
            answered = self._connection.poll(time_limit) and time.monotonic() - start <= time_limit
            answer = self._connection.recv() if answered else None
        except (EOFError, OSError):
            last_words = self._last_words()
            code = self._stop()
            ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise LabellingError(f"the engine's process ended ({ending}): {last_words}", "crashed") from None
        except BaseException:
            self._stop()
            raise
        if answer is None:
            self._stop()
            raise LabellingError(f"no answer within {time_limit:g} s", "time limit")
        return answer

    def _stop(self) -> int:
        """Kill the process and what it started; give its exit status, negative for a signal."""
        with self._ending:
            if self._process is None:
                return 0
            with suppress(ProcessLookupError):  # before wait, which frees the number for other processes
                os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
            self._process = None
        self._connection.close()
        self._log.close()
        return code

    def _last_words(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")
        return "\n".join(tail.strip().splitlines()[-10:])


# ---- what an executor runs

Keep = Literal["failed", "all", "none"]


@dataclass(frozen=True)
class Owner:
    """A process, by its machine, its number, and the time when it began, in ticks since the machine did."""

    machine: str
    number: int
    began: str

    @classmethod
    def this(cls) -> Owner:
        """The process that asks."""
        return cls(platform.node(), os.getpid(), _began(os.getpid()))

    def has_died(self) -> bool:
        """Whether it is gone; of another machine's nobody knows."""
        return self.machine == platform.node() and _began(self.number) != self.began


def _began(number: int) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    return "never"


@dataclass(frozen=True)
class Job:
    """One try at one configuration, or, without atoms, at making the labeller.

    Attributes:
        queue: name of the queue that asks; its jobs in one process share label processes.
        settings: see make_labeller.
        base: folder from which the settings' relative paths start, where it exists.
        known: the fingerprint that the labeller must have; None for any.
        atoms, time_limit: see LabelProcess.label.
        folder: where the engine's files go; where it exists, as of an earlier try, one with a further number.
        keep: whose folders stay: of tries that failed, of all, of none. Empty ones never stay.
        owner: of the queue.
    """

    queue: str
    owner: Owner
    settings: dict[str, Any]
    base: str
    known: str | None
    atoms: Atoms | None = None
    time_limit: float = START_LIMIT
    folder: str | None = None
    keep: Keep = "failed"


class OtherLabeller(Error):
    """The labeller that settings describe is not the one whose labels a data set holds."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: labels, or a reason and a message, or just the labeller's fingerprint; seconds it took."""

    fingerprint: str
    labels: Labels | None = None
    reason: FailureReason | None = None
    message: str = ""
    seconds: float = 0.0


def label_job(job: Job) -> Outcome:
    """Do a job in a label process that this process keeps for the next one.

    Raises:
        Error: the labeller cannot be made here, or (OtherLabeller) is not the known one; nothing was computed.
    """
    with _pools_lock:
        if job.queue not in _pools:
            _pools[job.queue] = _Pool()
            threading.Thread(target=_outlive, args=(job.owner, _pools[job.queue]), daemon=True).start()
        pool = _pools[job.queue]
    process = pool.take(job)
    try:
        if job.known not in (None, process.fingerprint):
            raise OtherLabeller(
                f"holds labels of {job.known}, the settings now describe {process.fingerprint}, and a data set never "
                "mixes two labellers: name a new `folder`, or take the first labeller again"
            )
        if job.atoms is None:
            return Outcome(process.fingerprint)
        return _try(process, job)
    finally:
        pool.give(process)


def end_jobs(queue: str) -> None:
    """Kill the label processes that this process has for a queue; jobs in hand end as crashed."""
    with _pools_lock:
        pool = _pools.setdefault(queue, _Pool())  # it stays, closed, for a job that is about to begin
    pool.close()


def _try(process: LabelProcess, job: Job) -> Outcome:
    folder = None if job.folder is None else _new_folder(Path(job.folder))
    outcome = Outcome(process.fingerprint)
    start = time.monotonic()
    try:
        labels = process.label(job.atoms, job.time_limit, None if folder is None else str(folder))
        outcome = Outcome(process.fingerprint, labels, seconds=time.monotonic() - start)
    except LabellingError as error:
        outcome = Outcome(process.fingerprint, None, error.reason, str(error), time.monotonic() - start)
    finally:
        if folder is not None and (job.keep == "none" or (job.keep == "failed" and outcome.labels is not None)):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder is not None:
            with suppress(OSError):
                folder.rmdir()
    if outcome.reason is not None and folder is not None and folder.exists():
        return replace(outcome, message=f"{outcome.message} (files: {folder})")
    return outcome


def _new_folder(wanted: Path) -> Path:
    """Make a folder that nobody has: an engine of a loop that was killed may still write to the first."""
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_try_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise Error(f"{folder}: the engine's folder cannot be made: {error.strerror}") from error
        return folder


def _outlive(owner: Owner, pool: _Pool) -> None:
    """End a pool whose owner has died; executors' workers may stay for long after that, or for ever."""
    while not (pool.closed or owner.has_died()):
        time.sleep(WATCH_INTERVAL)
    pool.close()


class _Pool:
    """The label processes of one queue in this process: those that wait for work, and all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[LabelProcess] = []
        self._all: list[LabelProcess] = []
        self.closed = False

    def take(self, job: Job) -> LabelProcess:
        with self._lock:
            if self.closed:
                raise Error("the labelling was ended")
            if self._idle:
                return self._idle.pop()
            process = LabelProcess(job.settings, job.base if Path(job.base).is_dir() else None)
            self._all.append(process)
        return process.__enter__()

    def give(self, process: LabelProcess) -> None:
        with self._lock:
            if not self.closed:
                self._idle.append(process)
                return
        process.__exit__()

    def close(self) -> None:
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        for process in self._all:
            process.kill()
        for process in idle:
            process.__exit__()


_pools: dict[str, _Pool] = {}
_pools_lock = threading.Lock()


@atexit.register
def _end_all_jobs() -> None:
    for name in list(_pools):
        end_jobs(name)


# ---- the other end of the socket


def serve(channel: int) -> None:
    """Label what arrives on a socket, first the settings, until the other end closes.

    Each answer is ("fingerprint", text), ("labels", fields of Labels), or ("refusal", (message, reason)).
    A thread watches the socket, so that its end ends a running engine too, with the whole process group.
    """
    os.set_inheritable(channel, False)
    connection = Connection(channel)
    requests: queue.SimpleQueue = queue.SimpleQueue()

    def receive() -> None:
        try:
            while True:
                requests.put(connection.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=receive, daemon=True).start()
    try:
        labeller = make_labeller(requests.get())
    except Error as error:
        connection.send(("refusal", (str(error), "failed")))
        return
    connection.send(("fingerprint", labeller.fingerprint))
    while True:
        atoms, folder = requests.get()
        try:
            connection.send(("labels", vars(labeller.label(atoms, folder))))
        except LabellingError as error:
            connection.send(("refusal", (str(error), error.reason)))
