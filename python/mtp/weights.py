# SPDX-License-Identifier: BSD-3-Clause
"""What a fit is to reproduce, and how much each value counts.

    loss = (1/K) Σ_k [w_E ΔE² / N + w_F Σ |ΔF|² + w_S ‖ΔS‖² / N],   S = volume times stress (eV)

the sum over K configurations of N atoms each, with MLIP's weights and scalings [Novikov et al., Mach. Learn.: Sci.
Technol. 2, 025002 (2021), eq. 11], and factors on top of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, Field

from mtp.configurations import labels
from mtp.errors import DataError

VOIGT_MULTIPLICITY = np.array([1, 1, 1, 2, 2, 2])  # components of a symmetric tensor in ‖S‖²


class GroupWeights(BaseModel):
    """Factors of the weights of one group's configurations."""

    model_config = ConfigDict(extra="forbid")

    energy: float = Field(1.0, ge=0)
    force: float = Field(1.0, ge=0)
    stress: float = Field(1.0, ge=0)


class Weights(BaseModel):
    """Weights of energy (1/eV²), force (Å²/eV²) and stress (1/eV²) residuals in the loss.

    scaling: "vibrations" is the formula above; "structures" divides all of it by N once more; "molecules" takes the N
    of energy and stress away. scale_by_force: with s > 0 (eV²/Å²) forces f count s / (|f|² + s).
    groups: factors for the configurations of a group (info["config_type"]). elements: factors for the forces on
    an element's atoms. energy_window: configurations whose energy per atom, less that of their elements, lies further
    above the lowest (eV) count (window / height)² as much. robust: residuals beyond this many typical ones of their
    kind count linearly (Huber's loss), as outliers do. A configuration's info["weight"] multiplies its share.
    """

    model_config = ConfigDict(extra="forbid")

    energy: float = Field(1.0, ge=0)
    force: float = Field(0.01, ge=0)
    stress: float = Field(0.001, ge=0)
    scaling: Literal["vibrations", "structures", "molecules"] = "vibrations"
    scale_by_force: float = Field(0.0, ge=0)
    groups: dict[str, GroupWeights] = {}
    elements: dict[str, float] = {}
    energy_window: float | None = Field(None, gt=0)
    robust: float | None = Field(None, gt=0)


@dataclass
class Observations:
    """The labels of configurations, in the order of `Potential.jacobian_rows`: energy (eV), forces (eV/Å), volume
    times stress (eV); (7 + 3 N,) for each. Where a label is missing its weight is zero."""

    values: list[np.ndarray]
    weights: list[np.ndarray]


def group_of(atoms: Atoms) -> str:
    """The group of a configuration: info["config_type"], or "" where there is none."""
    return str(atoms.info.get("config_type", ""))


def observe(configurations: Sequence[Atoms], weights: Weights) -> Observations:
    """The values to fit and their weights.

    Raises DataError for configurations without any label, and labels that are not finite.
    """
    seen = Observations([], [])
    for atoms in configurations:
        value, weight = _observe(atoms, weights)
        seen.values.append(value)
        seen.weights.append(weight)
    if weights.energy_window is not None:
        _close_window(configurations, seen, weights.energy_window)
    return seen


def species_energies(kinds: Sequence[np.ndarray], seen: Observations, n_species: int) -> np.ndarray:
    """Energies per atom (n_species,), eV, that explain most of the configurations' energies; kinds: the species of each
    configuration's atoms, from 0."""
    known = [k for k, weight in enumerate(seen.weights) if weight[0] > 0]
    if not known:
        return np.zeros(n_species)
    counts = np.array([np.bincount(kinds[k], minlength=n_species) for k in known], dtype=float)
    energies = np.array([seen.values[k][0] for k in known])
    size = counts.sum(axis=1)
    return np.linalg.lstsq(counts / size[:, None], energies / size, rcond=None)[0]


def _observe(atoms: Atoms, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    known = labels(atoms, need=())
    n = len(atoms)
    value, weight = np.zeros(3 * n + 7), np.zeros(3 * n + 7)
    factor = weights.groups.get(group_of(atoms), GroupWeights())
    share = float(atoms.info.get("weight", 1.0))
    per_atom = {"vibrations": 1 / n, "structures": 1 / n**2, "molecules": 1.0}[weights.scaling]
    if known.energy is not None:
        value[0] = known.energy
        weight[0] = share * weights.energy * factor.energy * per_atom
    if known.forces is not None:
        value[1:-6] = known.forces.ravel()
        of_atom = np.full(n, share * weights.force * factor.force / (n if weights.scaling == "structures" else 1))
        if weights.scale_by_force > 0:
            of_atom *= weights.scale_by_force / ((known.forces**2).sum(axis=1) + weights.scale_by_force)
        for element, of_element in weights.elements.items():
            of_atom[np.array(atoms.get_chemical_symbols()) == element] *= of_element
        weight[1:-6] = np.repeat(of_atom, 3)
    if known.stress is not None and atoms.cell.rank == 3:
        value[-6:] = known.stress * atoms.get_volume()
        weight[-6:] = share * weights.stress * factor.stress * per_atom * VOIGT_MULTIPLICITY
    if known.energy is None and known.forces is None and known.stress is None:
        source = atoms.info.get("source", "a configuration")
        raise DataError(
            f"{source}: no energy, no forces and no stress: take the configuration out, or store the results of its "
            "calculation with it (extended xyz and .cfg hold them)"
        )
    return value, weight


def _close_window(configurations: Sequence[Atoms], seen: Observations, window: float) -> None:
    kinds = [atoms.numbers for atoms in configurations]
    of_element = species_energies(kinds, seen, len(chemical_symbols))
    heights = np.full(len(configurations), -np.inf)
    for k, numbers in enumerate(kinds):
        if seen.weights[k][0] > 0:
            heights[k] = (seen.values[k][0] - of_element[numbers].sum()) / len(numbers)
    known = np.isfinite(heights)
    heights -= heights[known].min() if known.any() else 0.0
    for weight, height in zip(seen.weights, heights, strict=True):
        if height > window:
            weight *= (window / height) ** 2


def check_names(configurations: Sequence[Atoms], weights: Weights) -> None:
    """Raise DataError for groups or elements in `weights` that do not occur in the data."""
    groups = {group_of(atoms) for atoms in configurations}
    for name in sorted(set(weights.groups) - groups):
        known = ", ".join(sorted(groups - {""})) or "none has a config_type"
        raise DataError(f"weights.groups: no configuration is of the group '{name}'; the data's groups: {known}")
    elements = {chemical_symbols[z] for atoms in configurations for z in set(atoms.numbers.tolist())}
    for name in sorted(set(weights.elements) - elements):
        raise DataError(f"weights.elements: no atom is {name}; the data's elements: {', '.join(sorted(elements))}")
