# SPDX-License-Identifier: BSD-3-Clause
"""Objects in settings files: a table with the key "class" stands for what that class makes of the table's other keys.

    profile = {class = "ase.calculators.espresso.EspressoProfile", command = "pw.x", pseudo_dir = "pseudo"}

Such a table may stand anywhere in keywords that are passed on to a calculator or an executor, and may hold others.
"""

from __future__ import annotations

import importlib
from typing import Any

from mtp.errors import Error


def made(value: Any, where: str) -> Any:
    """Copy a value of a settings file with objects in the place of tables that have the key "class".

    Args:
        where: the value's key, for messages.

    Raises:
        Error: no such class, or a class that refuses its keywords.
    """
    if isinstance(value, list):
        return [made(entry, f"{where}[{k}]") for k, entry in enumerate(value)]
    if not isinstance(value, dict):
        return value
    content = {key: made(entry, f"{where}.{key}") for key, entry in value.items()}
    if "class" not in content:
        return content
    kind = named(content.pop("class"), f"{where}.class: nothing is called")
    try:
        return kind(**content)
    except Exception as error:
        raise Error(f"{where}: {kind.__name__}: {type(error).__name__}: {error}: correct the table's keys") from error


def named(path: str, failure: str) -> Any:
    """Import what a dotted path names. Raises Error, beginning with `failure` and the path, where there is none."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise Error(f"{failure} {path!r}: {error}: install its package, or correct the name") from error
