# SPDX-License-Identifier: BSD-3-Clause
"""The fitting loss, its gradient and its normal equations, as functions of a potential's parameters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mtp.configurations import types
from mtp.potential import Potential
from mtp.summation import BINS, Ranks, deal
from mtp.weights import Observations, Weights, observe, species_energies


@dataclass
class NormalEquations:
    """Sums over configurations: JᵀWJ (n, n), JᵀWy (n,) and yᵀWy, for y the reference less `Loss.offset`'s energies."""

    matrix: np.ndarray
    vector: np.ndarray
    square: float


@dataclass
class Errors:
    """The loss and its parts by energy, force and stress, and root mean square errors: energies per atom (eV), force
    components (eV/Å); None where no configuration has them."""

    loss: float
    parts: np.ndarray
    energy_rmse: float | None
    force_rmse: float | None


class Loss:
    """The loss of a set of configurations (mtp.weights) as a function of a potential's parameters.

    Total energies are large against what is fitted, and their squares lose digits: reference energies are taken from
    `offset` on, linear coefficients (n_species + n_scalar,) of which those of the species are not zero: the energies
    per atom that explain most of the data, or those given (eV, by element).

    threads: default all cores that the process may use. memory: GB that the neighbour lists of a rank may take; those
    beyond are found anew in each pass. ranks: that share the work; by default this process alone.
    """

    def __init__(
        self,
        potential: Potential,
        configurations: Sequence[Atoms],
        weights: Weights,
        threads: int | None = None,
        memory: float = 2.0,
        ranks: Ranks | None = None,
        energies: dict[str, float] | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        seen = observe(configurations, weights)
        self.offset = self._take_off_offset(potential, configurations, seen, energies or {})
        self.n_configurations = len(configurations)
        self.n_data = sum(np.count_nonzero(weight) for weight in seen.weights)
        self._n_energies = sum(weight[0] > 0 for weight in seen.weights)
        self._n_forces = sum(np.count_nonzero(weight[1:-6]) for weight in seen.weights)
        bins = [
            (
                [configurations[k] for k in members],
                [seen.values[k] for k in members],
                [seen.weights[k] for k in members],
            )
            for members in deal(configurations, max(BINS, self._ranks.size))
        ]
        self._n_bins = len(bins)
        threads = threads or len(os.sched_getaffinity(0))
        self._name = self._ranks.deal(potential, bins, threads, memory * 1e9)

    def linear(self, theta: np.ndarray) -> NormalEquations:
        """Normal equations of the linear coefficients, less `offset`, at the radial ones of θ."""
        return self._normal_equations(theta, "linear", len(self.offset))

    def gauss_newton(self, theta: np.ndarray) -> NormalEquations:
        """Normal equations of all parameters, J by the radial coefficients taken at θ: observables are J_lin ξ for
        the linear coefficients ξ (less `offset`), so that they hold for any ξ."""
        return self._normal_equations(theta, "all", len(theta))

    def errors(self, theta: np.ndarray) -> Errors:
        """Loss and errors at θ."""
        total = self._total("errors", theta)
        parts = total[:3] / self.n_configurations
        return Errors(
            float(parts.sum()),
            parts,
            float(np.sqrt(total[3] / self._n_energies)) if self._n_energies else None,
            float(np.sqrt(total[4] / self._n_forces)) if self._n_forces else None,
        )

    def gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient by all parameters at θ."""
        total = self._total("gradient", theta)
        return float(total[:3].sum()) / self.n_configurations, total[3:] / self.n_configurations

    def make_robust(self, theta: np.ndarray, threshold: float) -> None:
        """Weigh residuals at θ that are larger than `threshold` times the mean of their kind down to Huber's loss."""
        sums = self._total("sizes", theta)
        self._total("robust", theta, threshold * sums[:3] / np.maximum(sums[3:], 1))

    def close(self) -> None:
        """Free the memory, on all ranks."""
        self._ranks.forget(self._name)

    def _normal_equations(self, theta: np.ndarray, what: str, n: int) -> NormalEquations:
        total = self._total(what, theta) / self.n_configurations
        return NormalEquations(total[: n * n].reshape(n, n), total[n * n : -1], float(total[-1]))

    def _total(self, what: str, theta: np.ndarray, *more: np.ndarray) -> np.ndarray:
        theta = theta.copy()
        theta[-len(self.offset) :] -= self.offset
        return self._ranks.total(self._name, self._n_bins, what, theta, *more)

    @staticmethod
    def _take_off_offset(
        potential: Potential, configurations: Sequence[Atoms], seen: Observations, energies: dict[str, float]
    ) -> np.ndarray:
        facts, names = potential.facts, potential.species
        kinds = [types(atoms, names) for atoms in configurations]
        found = species_energies(kinds, seen, facts.n_species)
        for name, energy in energies.items():
            found[names.index(name)] = energy
        for value, weight, of_atom in zip(seen.values, seen.weights, kinds, strict=True):
            if weight[0] > 0:
                value[0] -= found[of_atom].sum()
        return np.concatenate([found, np.zeros(facts.n_scalar)])
