# SPDX-License-Identifier: BSD-3-Clause
"""A property that the user wants settled: its value and error under a potential."""

from __future__ import annotations

import importlib
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

from mtp.errors import Error
from mtp.processes import plain_environment
from mtp.settings import Target


def evaluate(target: Target, potential: Path) -> tuple[float, float]:
    """Value and error of the property. potential: its file (.almtp).

    Raises Error where the function or command fails, takes too long, or gives no two finite numbers.
    """
    return _call(target.function, potential) if target.function is not None else _run(target, potential)


def _call(name: str, potential: Path) -> tuple[float, float]:
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise Error(f"target: no function {name!r}: {error} (as module.function, on PYTHONPATH)") from None
    try:
        value, error = found(str(potential))
    except Exception as failure:  # whatever the user's function runs into
        raise Error(f"target: {name} failed: {type(failure).__name__}: {failure}") from failure
    return _numbers(name, value, error)


def _run(target: Target, potential: Path) -> tuple[float, float]:
    command = [*shlex.split(target.command), str(potential)]
    if command[0] == "python":
        command[0] = sys.executable
    try:
        done = subprocess.run(
            command, env=plain_environment(), capture_output=True, text=True, timeout=target.time_limit, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Error(f"target: {target.command}: {error}") from None
    if done.returncode != 0:
        raise Error(f"target: {target.command} ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        found = json.loads(last)
        return _numbers(target.command, found["value"], found["error"])
    except (ValueError, KeyError, TypeError):
        raise Error(
            f'target: {target.command}: the last line is not {{"value": …, "error": …}}: {last[:200]!r}'
        ) from None


def _numbers(source: str, value: object, error: object) -> tuple[float, float]:
    try:
        numbers = float(value), float(error)
    except (TypeError, ValueError):
        raise Error(f"target: {source}: value {value!r} with error {error!r}: numbers are wanted") from None
    if not all(map(math.isfinite, numbers)) or numbers[1] < 0:
        raise Error(f"target: {source}: value {value!r} with error {error!r}")
    return numbers
