# SPDX-License-Identifier: BSD-3-Clause
"""Errors of a potential against labelled configurations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import GPa

from mtp.configurations import labels
from mtp.neighbours import batches
from mtp.potential import Potential, Result


@dataclass(frozen=True)
class Comparison:
    """Reference and predicted values of all configurations, flat: energies per atom (eV), force components (eV/Å),
    stress components (GPa, ASE's sign). Each a pair of equally long arrays (reference, predicted)."""

    configurations: int
    atoms: int
    energy_per_atom: tuple[np.ndarray, np.ndarray]
    force: tuple[np.ndarray, np.ndarray]
    stress: tuple[np.ndarray, np.ndarray]

    def summary(self) -> dict:
        """Errors as `mtp evaluate --json` writes them; None where the data have no such quantity."""
        return {
            "configurations": self.configurations,
            "atoms": self.atoms,
            "energy_per_atom_eV": errors(*self.energy_per_atom),
            "force_eV_per_A": errors(*self.force),
            "stress_GPa": errors(*self.stress),
        }

    @classmethod
    def joined(cls, parts: Iterable[Comparison]) -> Comparison:
        """All values of some comparisons, in their order."""
        parts = list(parts)
        pairs = [
            tuple(np.concatenate([np.zeros(0), *(getattr(part, name)[side] for part in parts)]) for side in (0, 1))
            for name in ("energy_per_atom", "force", "stress")
        ]
        return cls(sum(part.configurations for part in parts), sum(part.atoms for part in parts), *pairs)


def evaluate(potential: Potential, configurations: Sequence[Atoms]) -> list[Result]:
    """Evaluate configurations on all cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(chain.from_iterable(pool.map(potential.evaluate, batches(configurations))))


def compare(
    potential: Potential, configurations: Sequence[Atoms], results: Sequence[Result] | None = None
) -> Comparison:
    """Set the potential's values (`results`, where they are known already) beside the configurations' labels."""
    if results is None:
        results = evaluate(potential, configurations)
    return Comparison.joined(map(compare_one, configurations, results))


def compare_one(atoms: Atoms, result: Result) -> Comparison:
    """Set the potential's values for one configuration beside its labels."""
    known = labels(atoms, need=())
    energy = force = stress = (np.zeros(0), np.zeros(0))
    if known.energy is not None and len(atoms):
        energy = (np.array([known.energy / len(atoms)]), np.array([result.energy / len(atoms)]))
    if known.forces is not None:
        force = (known.forces.ravel(), result.forces.ravel())
    if known.stress is not None and result.stress is not None:
        stress = (known.stress / GPa, result.stress / GPa)
    return Comparison(1, len(atoms), energy, force, stress)


def group(atoms: Atoms) -> str:
    """The group that errors of a configuration are counted in: info["config_type"] or info["group"], else the name
    of the file that it came from."""
    source, _, _ = str(atoms.info.get("source", "")).rpartition("#")
    for name in (atoms.info.get("config_type", ""), atoms.info.get("group", ""), Path(source).name):
        if words := str(name).split():
            return " ".join(words)
    return "no group"


def force_errors_by_magnitude(reference: np.ndarray, predicted: np.ndarray, bins: int = 12) -> list[dict]:
    """Force errors of atoms, gathered by the magnitude |F| of their reference force.

    Args:
        reference, predicted: (N, 3), eV/Å.
        bins: intervals, equally wide in log |F|, over the highest three decades of |F|; the first one also takes
            everything below them, and those without atoms are left out.

    Returns:
        For each interval its ends `from` and `to` (eV/Å), the number of `atoms`, the root mean squares of |F| (`force`)
        and of |ΔF| (`rmse`), both in eV/Å, and their ratio (`relative`; None where all forces are zero).
    """
    magnitude = np.linalg.norm(reference, axis=1)
    error = np.linalg.norm(predicted - reference, axis=1)
    highest = magnitude.max(initial=0.0)
    if not len(magnitude):
        return []
    edges = highest * np.logspace(-3, 0, bins + 1) if highest > 0 else np.zeros(2)
    interval = np.clip(np.searchsorted(edges, magnitude, side="right") - 1, 0, len(edges) - 2)
    edges[0] = 0.0
    table = []
    for k in np.unique(interval):
        inside = interval == k
        force, rmse = (float(np.sqrt((values[inside] ** 2).mean())) for values in (magnitude, error))
        line = {"from": float(edges[k]), "to": float(edges[k + 1]), "atoms": int(inside.sum())}
        table.append({**line, "force": force, "rmse": rmse, "relative": rmse / force if force > 0 else None})
    return table


def errors(reference: np.ndarray, predicted: np.ndarray) -> dict[str, float] | None:
    """Root mean square, mean and largest of the absolute differences; None where there is nothing to compare."""
    if not len(reference):
        return None
    error = np.abs(predicted - reference)
    return {"rmse": float(np.sqrt((error**2).mean())), "mae": float(error.mean()), "max": float(error.max())}
