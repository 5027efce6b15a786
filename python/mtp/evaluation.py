# SPDX-License-Identifier: BSD-3-Clause
"""Errors of a potential against labelled configurations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.units import GPa

from mtp.configurations import labels
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
            "energy_per_atom_eV": _errors(*self.energy_per_atom),
            "force_eV_per_A": _errors(*self.force),
            "stress_GPa": _errors(*self.stress),
        }


def evaluate(potential: Potential, configurations: Sequence[Atoms]) -> list[Result]:
    """Evaluate configurations on all cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(potential.evaluate, configurations))


def compare(
    potential: Potential, configurations: Sequence[Atoms], results: Sequence[Result] | None = None
) -> Comparison:
    """Set the potential's values (`results`, where they are known already) beside the configurations' labels."""
    if results is None:
        results = evaluate(potential, configurations)
    energies, forces, stresses = ([], []), ([], []), ([], [])
    for atoms, result in zip(configurations, results, strict=True):
        known = labels(atoms, need=())
        if known.energy is not None:
            energies[0].append([known.energy / len(atoms)])
            energies[1].append([result.energy / len(atoms)])
        if known.forces is not None:
            forces[0].append(known.forces.ravel())
            forces[1].append(result.forces.ravel())
        if known.stress is not None and result.stress is not None:
            stresses[0].append(known.stress / GPa)
            stresses[1].append(result.stress / GPa)
    pairs = [tuple(np.concatenate([*side, np.zeros(0)]) for side in pair) for pair in (energies, forces, stresses)]
    return Comparison(len(results), sum(map(len, configurations)), *pairs)


def _errors(reference: np.ndarray, predicted: np.ndarray) -> dict[str, float] | None:
    if not len(reference):
        return None
    error = np.abs(predicted - reference)
    return {"rmse": float(np.sqrt((error**2).mean())), "mae": float(error.mean()), "max": float(error.max())}
