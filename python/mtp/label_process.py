# SPDX-License-Identifier: BSD-3-Clause
"""A labeller in a process of its own, so that an engine that hangs, crashes or chatters harms nobody.

Requests and answers are pickled over a private socket; the engine's standard output and error go to a
temporary file, whose end explains a crash.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
from ase import Atoms

from mtp.configurations import Labels
from mtp.errors import Error, LabellingError
from mtp.labellers import make_labeller

LARGEST_FORCE = 1e3  # eV/Å; no reference worth learning from gives more
START_LIMIT = 300.0  # s, for importing an engine from a slow disk
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "HYDRA_", "HYDI_", "MPI_", "MPIR_", "MPIEXEC_", "OMPI_", "PRTE_")
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

    Attributes:
        fingerprint: the labeller's, see Labeller; known inside the context.

    Raises:
        Error: on entering, where the labeller cannot be made.
    """

    fingerprint: str

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = dict(settings)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> LabelProcess:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def label(self, atoms: Atoms, time_limit: float) -> Labels:
        """Compute the labels of one configuration and check that they are sane.

        Args:
            atoms: the configuration; a calculator, constraints and info are ignored.
            time_limit: seconds for this configuration; an engine's start is not counted.

        Raises:
            LabellingError: the engine failed or crashed, did not converge, ran out of time, or gave nonsense:
                missing or infinite numbers, or a force above LARGEST_FORCE.
        """
        if self._process is None:
            self._start()
        request = atoms.copy()
        request.info, request.constraints = {}, None
        self._log.seek(0)
        self._log.truncate()
        answer, content = self._ask(request, time_limit)
        if answer == "refusal":
            message, reason = content
            raise LabellingError(message, reason)
        return _sane(Labels(**content), len(atoms))

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by _stop
        self._connection, theirs = Pipe()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_PREFIXES)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(theirs.fileno()), json.dumps(sys.path)],
                env=environment,
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
            self._connection.send(request)
            answered = self._connection.poll(time_limit)
            answer = self._connection.recv() if answered else None
        except (EOFError, OSError):
            last_words = self._last_words()
            code = self._stop()
            ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise LabellingError(f"the engine's process ended ({ending}): {last_words}", "failed") from None
        except BaseException:
            self._stop()
            raise
        if answer is None:
            self._stop()
            raise LabellingError(f"no answer within {time_limit:g} s", "time limit")
        return answer

    def _stop(self) -> int:
        """Kill the process and what it started; give its exit status, negative for a signal."""
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


def _sane(labels: Labels, size: int) -> Labels:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise LabellingError(message, "nonsense")

    shapes = {"energy": (), "forces": (size, 3), "stress": (6,)}
    for name, shape in shapes.items():
        value = getattr(labels, name)
        if value is None and name == "stress":
            continue
        require(value is not None and np.shape(value) == shape, f"{name}: expected numbers of shape {shape}")
        require(bool(np.isfinite(value).all()), f"{name}: not finite")
    largest = np.linalg.norm(labels.forces, axis=1).max()
    require(bool(largest <= LARGEST_FORCE), f"a force of {largest:.3g} eV/Å")
    return labels


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
        try:
            connection.send(("labels", vars(labeller.label(requests.get()))))
        except LabellingError as error:
            connection.send(("refusal", (str(error), error.reason)))
