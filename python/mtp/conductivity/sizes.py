# SPDX-License-Identifier: BSD-3-Clause
"""What the size of the cell changes: the same runs in a smaller one, and κ of an infinite one from both."""

from __future__ import annotations

from collections.abc import Callable
from math import hypot
from typing import Any

import mpi4py.MPI as MPI
import numpy as np

from mtp.conductivity.md import Tell
from mtp.conductivity.results import keep, value
from mtp.conductivity.settings import WithFlux
from mtp.learning.ranks import on_root

InCell = Callable[[WithFlux, Tell], dict[str, Any]]  # κ of the settings' `repeat`, in their folder


def with_size(settings: WithFlux, in_cell: InCell, comm: MPI.Comm, tell: Tell) -> dict[str, Any]:
    """The result of the settings' cell; where they name a smaller one, too, with what the size changes. Collective."""
    found = in_cell(settings, tell)
    if settings.other_repeat is None:
        return found
    name = "cell_" + "x".join(map(str, settings.other_repeat))
    update = {"folder": settings.folder / name, "repeat": settings.other_repeat, "other_repeat": None}
    other = in_cell(settings.model_copy(update=update), lambda run, *rest: tell(f"{name}, {run}", *rest))
    return on_root(comm, lambda: keep(settings.folder, compared(found, other)))


def compared(found: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A result with the part of the size in its error: the distance to κ(∞) of κ(L) = κ(∞) - c/L through both, L³ (of a
    sheet L²) being the number of atoms."""
    kappa, smaller = found["kappa_W_mK"], other["kappa_W_mK"]
    ratio = (other["atoms"] / found["atoms"]) ** (1 / (2 if found.get("thickness_A") else 3))
    factor = ratio / (1 - ratio)  # by which what lies beyond the larger cell exceeds what lies between both
    change, noise = kappa["value"] - smaller["value"], hypot(kappa["error"], smaller["error"])
    error = hypot((1 + factor) * kappa["error"], factor * smaller["error"])
    size = factor * abs(change)
    total = hypot(kappa["error"], size)
    notes = list(found["notes"]) + [f"{other['atoms']} atoms: {note}" for note in other["notes"]]
    if abs(change) < 2 * noise:
        notes.append(
            f"κ of {found['atoms']} and of {other['atoms']} atoms differ by {change:.3g} ± {noise:.2g} W/mK: the part "
            "of the size may be noise"
        )
    elif change < 0:
        notes.append(
            f"κ of {found['atoms']} atoms is {-change:.3g} W/mK below that of {other['atoms']}: κ(∞) - c/L does not "
            "tell what larger cells have; take them"
        )
    if "tensor_W_mK" in found:
        beyond = factor * np.subtract(found["tensor_W_mK"], other["tensor_W_mK"])
        found = found | {"tensor_error_W_mK": np.hypot(found["tensor_error_W_mK"], beyond).tolist()}
    return found | {
        "kappa_W_mK": value(kappa["value"], total),
        "uncertainty_W_mK": found["uncertainty_W_mK"] | {"size": size, "total": total},
        "other_cell": {"atoms": other["atoms"], "kappa_W_mK": smaller},
        "extrapolated_W_mK": value(kappa["value"] + factor * change, error),
        "notes": notes,
    }
