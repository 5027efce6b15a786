# SPDX-License-Identifier: BSD-3-Clause
"""Forces on displaced supercells, from a potential or from any engine that labels data, kept as they come."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mtp.calculator import MTP
from mtp.configurations import Labels
from mtp.errors import Error
from mtp.evaluation import evaluate
from mtp.label_process import LabelProcess
from mtp.potential import Potential
from mtp.settings import Labelling

TOGETHER = 100_000  # atoms of the displaced cells that a potential evaluates between two writes


class Engine(AbstractContextManager, Protocol):
    """Something that gives forces. fingerprint: tells it from all others."""

    fingerprint: str

    def calculator(self) -> Calculator:
        """For ASE, with energy, forces and stress."""
        ...

    def forces(self, cells: Sequence[Atoms]) -> Iterator[np.ndarray]:
        """(N, 3) of each cell, eV/Å, in their order."""
        ...

    def grades(self, cells: Sequence[Atoms]) -> list[float] | None:
        """Extrapolation grade of each cell; None where the engine knows none."""
        ...


class PotentialEngine:
    """Forces of a potential, many cells in one call, on all cores."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        guard = potential.guard
        told = [replace(potential.facts, active_set=None), potential.species, potential.parameters.tolist()]
        told += [guard.repulsion.tolist(), guard.fade.tolist()] if guard else []
        self.fingerprint = f"mtp-{hashlib.sha256(repr(told).encode()).hexdigest()[:12]}"

    def __enter__(self) -> PotentialEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def calculator(self) -> Calculator:
        return MTP(self.potential)

    def forces(self, cells: Sequence[Atoms]) -> Iterator[np.ndarray]:
        together = max(1, TOGETHER // max(map(len, cells), default=1))
        for first in range(0, len(cells), together):
            for result in evaluate(self.potential, cells[first : first + together]):
                yield result.forces

    def grades(self, cells: Sequence[Atoms]) -> list[float] | None:
        if self.potential.facts.active_set is None:
            return None
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return [grades.maximum for grades in pool.map(self.potential.grade, cells)]


class LabellerEngine:
    """Forces of a labeller, in `workers` processes that a time limit or a crash does not take along."""

    def __init__(self, settings: Labelling, species: Sequence[str]) -> None:
        self.settings = settings
        self.stack = ExitStack()
        self.idle: SimpleQueue[LabelProcess] = SimpleQueue()
        for _ in range(settings.workers):
            process = self.stack.enter_context(LabelProcess(settings.labeller(list(species))))
            self.fingerprint = process.fingerprint
            self.idle.put(process)

    def __enter__(self) -> LabellerEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def label(self, atoms: Atoms) -> Labels:
        process = self.idle.get()
        try:
            return process.label(atoms, self.settings.time_limit)
        finally:
            self.idle.put(process)

    def calculator(self) -> Calculator:
        return Labelled(self.label)

    def forces(self, cells: Sequence[Atoms]) -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(self.settings.workers) as pool:
            try:
                for labels in pool.map(self.label, cells):
                    yield labels.forces
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def grades(self, cells: Sequence[Atoms]) -> None:
        return None


class Labelled(Calculator):
    """A labeller as a calculator of ASE."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, label: Callable[[Atoms], Labels]) -> None:
        super().__init__()
        self.ask = label

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        found = self.ask(self.atoms)
        self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
        if found.stress is not None:
            self.results["stress"] = found.stress


class Records:
    """Arrays of one shape, appended to a file one by one: who is killed loses the one in hand."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.bytes = 8 * int(np.prod(shape))

    def read(self) -> np.ndarray:
        """All whole ones, (n, *shape)."""
        if not self.path.exists():
            return np.zeros((0, *self.shape))
        content = self.path.read_bytes()
        whole = len(content) // self.bytes
        if len(content) > whole * self.bytes:  # the last one was cut short
            os.truncate(self.path, whole * self.bytes)
        return np.frombuffer(content, count=whole * self.bytes // 8).reshape(whole, *self.shape).copy()

    def append(self, array: np.ndarray) -> None:
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(array, float).tobytes())


def gather(
    engine: Engine,
    cells: Sequence[Atoms],
    path: Path | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Forces on all cells, (n, N, 3), less their mean over the atoms of each; those that the file at `path` holds are
    not computed again."""
    known = Records(path, (len(cells[0]), 3)) if path else None
    forces = list(known.read()[: len(cells)]) if known else []
    for found in engine.forces(cells[len(forces) :]):
        if not np.isfinite(found).all():
            raise Error(f"displaced cell {len(forces) + 1} of {len(cells)}: forces are not finite numbers")
        if known:
            known.append(found)
        forces.append(found)
        show(len(forces), len(cells))
    array = np.array(forces)
    return array - array.mean(axis=1, keepdims=True)
