# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of a fit: what a killed one goes on from. Written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ase import Atoms

from mtp.cfg import replaced_whole
from mtp.configurations import labels
from mtp.errors import Error
from mtp.optimiser import State


@dataclass
class Progress:
    """How far a fit has come. best: the parameters of least validation loss so far; turn: of reweighting; polished:
    disturbances so far; level: of the fit that goes before, None in the fit itself."""

    state: State
    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    best: np.ndarray | None = None
    best_loss: float = np.inf
    waited: int = 0
    turn: int = 0
    polished: int = 0
    seconds: float = 0.0
    level: int | None = None


def fingerprint(settings: dict, configurations: Sequence[Atoms]) -> dict[str, str]:
    """What must be the same when a fit goes on: hashes of its settings and its data."""
    data = hashlib.sha256()
    for atoms in configurations:
        known = labels(atoms, need=())
        for part in (atoms.numbers, atoms.positions, atoms.cell.array, known.energy, known.forces, known.stress):
            data.update(b"-" if part is None else np.asarray(part).tobytes())
    text = json.dumps(settings, sort_keys=True, default=str)
    return {"settings": hashlib.sha256(text.encode()).hexdigest(), "data": data.hexdigest()}


def save(path: Path, progress: Progress, made_from: dict[str, str]) -> None:
    """Write a checkpoint."""
    values = asdict(progress)
    state = values.pop("state")
    arrays = {"parameters": state.pop("parameters"), "penalty": state.pop("penalty"), "best": values.pop("best")}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with replaced_whole(path) as part, open(part, "wb") as stream:
        np.savez(stream, facts=json.dumps({**values, "state": state, "made_from": made_from}), **arrays)


def load(path: Path, made_from: dict[str, str]) -> Progress:
    """Read a checkpoint of a fit with these settings and data."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            parameters, penalty, best = file["parameters"], file.get("penalty"), file.get("best")
        known = facts.pop("made_from")
        state = State(parameters, penalty, **facts.pop("state"))
        progress = Progress(state, best=best, **facts)
    except FileNotFoundError:
        raise Error(f"{path}: there is no checkpoint to resume from; leave out --resume") from None
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise Error(f"{path}: the checkpoint is damaged ({error}); remove it and fit again") from error
    changed = [name for name in made_from if known.get(name) != made_from[name]]
    if changed:
        raise Error(
            f"{path}: the checkpoint is of a fit with other {' and other '.join(changed)}; remove it, or fit as before"
        )
    return progress
