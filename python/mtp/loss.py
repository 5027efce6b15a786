# SPDX-License-Identifier: BSD-3-Clause
"""The fitting loss and its normal equations, streamed over configurations.

    loss = (1/K) Σ_k [w_E ΔE² / N + w_F Σ |ΔF|² + w_S ‖ΔS‖² / N],   S = volume times stress (eV)

the sum over K configurations of N atoms each; MLIP's weights and "vibrations" scaling [Novikov et al.,
Mach. Learn.: Sci. Technol. 2, 025002 (2021), eq. 11].
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field

from mtp.configurations import labels
from mtp.neighbours import Neighbourhoods
from mtp.potential import Potential

VOIGT_MULTIPLICITY = np.array([1, 1, 1, 2, 2, 2])  # components of a symmetric tensor in ‖S‖²
BLOCK = 8  # configurations summed at a time; fixed, so that sums do not depend on the number of threads


class Weights(BaseModel):
    """Weights of energy (1/eV²), force (Å²/eV²) and stress (1/eV²) residuals in the loss."""

    model_config = ConfigDict(extra="forbid")

    energy: float = Field(1.0, ge=0)
    force: float = Field(0.01, ge=0)
    stress: float = Field(0.001, ge=0)


@dataclass(frozen=True)
class Target:
    """One configuration to fit: its neighbour lists, reference values and the square roots of their weights.

    values and sqrt_weights: (1 + 3 N + 6,): energy (eV), forces (eV/Å), volume times stress (eV). A quantity that
    the data lack has weight zero.
    """

    atoms: Atoms
    near: Neighbourhoods
    values: np.ndarray
    sqrt_weights: np.ndarray


@dataclass
class NormalEquations:
    """Sums over configurations: matrix JᵀWJ (n, n), vector JᵀWy (n,) and square yᵀWy for y the values that J
    is to explain."""

    matrix: np.ndarray
    vector: np.ndarray
    square: float

    def __iadd__(self, other: NormalEquations) -> NormalEquations:
        self.matrix += other.matrix
        self.vector += other.vector
        self.square += other.square
        return self


def target(potential: Potential, atoms: Atoms, weights: Weights) -> Target:
    """Prepare a configuration. Raises DataError where a quantity with a weight is missing (stress may be) or NaN."""
    need = [name for name, weight in (("energy", weights.energy), ("forces", weights.force)) if weight > 0]
    known = labels(atoms, need=need)
    n = len(atoms)
    values, sqrt_weights = np.zeros(3 * n + 7), np.zeros(3 * n + 7)
    scale = float(atoms.info.get("weight", 1.0))
    if weights.energy > 0:
        values[0] = known.energy
        sqrt_weights[0] = np.sqrt(scale * weights.energy / n)
    if weights.force > 0:
        values[1:-6] = known.forces.ravel()
        sqrt_weights[1:-6] = np.sqrt(scale * weights.force)
    if weights.stress > 0 and known.stress is not None and atoms.cell.rank == 3:
        values[-6:] = known.stress * atoms.get_volume()
        sqrt_weights[-6:] = np.sqrt(scale * weights.stress / n * VOIGT_MULTIPLICITY)
    return Target(atoms, potential.neighbourhoods(atoms), values, sqrt_weights)


class Loss:
    """The loss of a set of configurations as a function of a potential's parameters.

    Total energies are large against what is fitted, and their squares lose digits: reference energies are taken from
    `offset` on, linear coefficients (n_species + n_scalar,) of which those of the species, the energies per atom that
    explain most of the data (eV), are not zero. Work is spread over `threads` threads (default: all cores that the
    process may use); sums are formed in a fixed order and do not depend on their number.
    """

    def __init__(
        self,
        potential: Potential,
        configurations: Sequence[Atoms],
        weights: Weights,
        threads: int | None = None,
    ) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self.targets = [target(potential, atoms, weights) for atoms in configurations]
        counts = np.array([np.bincount(t.near.species, minlength=potential.facts.n_species) for t in self.targets])
        energies = np.array([t.values[0] for t in self.targets])
        species_energies = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
        self.offset = np.concatenate([species_energies, np.zeros(potential.facts.n_scalar)])
        for t, energy in zip(self.targets, counts @ species_energies, strict=True):
            t.values[0] -= energy
        self.n_data = int(sum(np.count_nonzero(t.sqrt_weights) for t in self.targets))

    def linear(self, potential: Potential) -> NormalEquations:
        """Normal equations of the linear coefficients, less `offset`, at the potential's radial ones."""
        return self._sum(potential, linear_only=True)

    def gauss_newton(self, potential: Potential) -> NormalEquations:
        """Normal equations of all parameters' changes at the potential's parameters: JᵀWJ δ = JᵀW(y - f)."""
        return self._sum(potential, linear_only=False)

    def _sum(self, potential: Potential, linear_only: bool) -> NormalEquations:
        blocks = [self.targets[i : i + BLOCK] for i in range(0, len(self.targets), BLOCK)]

        def work(block: list[Target]) -> NormalEquations:
            return self._of_block(potential, block, linear_only)

        total: NormalEquations | None = None
        for part in _ordered(work, blocks, self.threads):
            if total is None:
                total = part
            else:
                total += part
        total.matrix /= len(self.targets)
        total.vector /= len(self.targets)
        total.square /= len(self.targets)
        return total

    def _of_block(self, potential: Potential, block: list[Target], linear_only: bool) -> NormalEquations:
        linear = potential.parameters[-len(self.offset) :] - self.offset
        jacobians, values = [], []
        for item in block:
            part = potential.jacobian(item.atoms, item.near, linear_only)
            jacobian = np.concatenate([part.energy[None], part.forces, part.virial])
            y = item.values
            if not linear_only:  # the model is linear in these: their columns give its values
                y = y - jacobian[:, -len(linear) :] @ linear
            jacobian *= item.sqrt_weights[:, None]
            jacobians.append(jacobian)
            values.append(y * item.sqrt_weights)
        weighted, y = np.concatenate(jacobians), np.concatenate(values)
        return NormalEquations(weighted.T @ weighted, weighted.T @ y, float(y @ y))


def _ordered(work, blocks: list, threads: int) -> Iterator[NormalEquations]:
    if threads == 1:
        yield from map(work, blocks)
        return
    with ThreadPoolExecutor(threads) as pool:
        # few results in flight: each may be a large matrix
        pending = [pool.submit(work, block) for block in blocks[: 2 * threads]]
        for following in blocks[2 * threads :]:
            yield pending.pop(0).result()
            pending.append(pool.submit(work, following))
        while pending:
            yield pending.pop(0).result()
