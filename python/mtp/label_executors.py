# SPDX-License-Identifier: BSD-3-Clause
"""Where labels are computed: anything with the interface of concurrent.futures.Executor, made from settings."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mtp.errors import Error
from mtp.objects import made, named

KEY = "labelling.executor"


def make_executor(kind: str, keywords: Mapping[str, Any], workers: int) -> Executor:
    """Make the executor that settings describe.

    Args:
        kind: "local", threads of this process, each with a label process of its own; "executorlib", its
            SingleNodeExecutor; "parsl", a ParslPoolExecutor with the keywords of parsl's Config; or the import path
            of whatever makes an executor, as "executorlib.SlurmClusterExecutor".
        keywords: passed on; a table with the key "class" stands for an object, see mtp.objects.
        workers: calculations at once, for "local" and, unless keywords say it, for "executorlib".

    Raises:
        Error: an executor that is not installed, refuses its keywords, or is none.
    """
    keywords = made(dict(keywords), f"{KEY}.keywords")
    try:
        if kind == "local":
            return ThreadPoolExecutor(workers, "labels", **keywords)
        if kind == "parsl":
            return _parsl(keywords)
        if kind == "executorlib":
            kind, keywords = "executorlib.SingleNodeExecutor", {"max_workers": workers} | keywords
        executor = named(kind, f"{KEY}.type: nothing is called")(**keywords)
    except ImportError as error:
        raise Error(f"{KEY}: {error}: install it with: pip install {kind.split('.')[0]}") from error
    except Error:
        raise
    except Exception as error:
        raise Error(f"{KEY}: {kind}: {type(error).__name__}: {error}: correct its `keywords`") from error
    if not callable(getattr(executor, "submit", None)):
        raise Error(f"{KEY}: {kind}: makes {type(executor).__name__}, which has no `submit`: name an executor")
    return executor


def _parsl(keywords: dict[str, Any]) -> Executor:
    concurrent = importlib.import_module("parsl.concurrent")
    config = importlib.import_module("parsl.config")
    if shutil.which("interchange.py") is None:  # parsl's own program, which it looks for on the path
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return concurrent.ParslPoolExecutor(config.Config(**keywords))
