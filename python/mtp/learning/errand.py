# SPDX-License-Identifier: BSD-3-Clause
"""A walk of a learning loop that is made for what there is at its end: a property, which the loop is to settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import mpi4py.MPI as MPI

from mtp.learning.walks import Walk


@dataclass(frozen=True)
class Errand:
    """What is to be settled.

    title: of the walk. walk: makes it for a group of ranks; the outcome of its passage has the keys `names` of the
    property's values (temperatures, for example), `values`, their `errors`, and the `random` part of these (None where
    there is none), which is independent from round to round; and `asked`, by which one can tell that two outcomes are
    of the same property. tolerance: a relative change that counts for nothing, however small the errors. given: a
    potential to begin with, which was fitted to the first data.
    """

    title: str
    walk: Callable[[MPI.Comm], Walk]
    tolerance: float
    given: Path | None = None


def weighed(outcome: dict, rounds: Sequence[dict], tolerance: float) -> dict:
    """Part of a round's record: the outcome with the `changes` since the last one under another potential and the
    changes `allowed`, the error or both random parts combined; as `target` the value that is furthest from settled."""
    earlier = [record["outcome"] for record in rounds if record.get("outcome")]
    last = earlier[-1] if earlier and earlier[-1]["asked"] == outcome["asked"] else None
    values, errors = outcome["values"], outcome["errors"]
    found = outcome | {"changes": None, "allowed": None}
    worst = 0
    if last is not None:
        found["changes"] = [abs(new - old) for new, old in zip(values, last["values"], strict=True)]
        nothing = [0.0] * len(values)
        random = zip(outcome["random"] or nothing, last["random"] or nothing, strict=True)
        found["allowed"] = [
            max(hypot(*pair), error, tolerance * abs(value))
            for pair, error, value in zip(random, errors, values, strict=True)
        ]
        worst = max(range(len(values)), key=lambda k: found["changes"][k] / found["allowed"][k])
    target = {"value": values[worst], "error": errors[worst]}
    for key, name in (("change", "changes"), ("allowed", "allowed")):
        target[key] = found[name][worst] if found[name] else None
    return {"outcome": found, "target": target}
