# SPDX-License-Identifier: BSD-3-Clause
"""Fitting: variable projection with Levenberg-Marquardt.

Energies, forces and stresses are linear in the species and moment coefficients ξ and not in the radial coefficients
c. At each c the best ξ is solved for exactly; c is improved by Gauss-Newton steps on what remains, with the change of
ξ eliminated [Kaufman, BIT 15, 49 (1975); damping by Nielsen, IMM-REP-1999-05 (1999)].
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mtp.configurations import check_distances, species_of
from mtp.errors import DataError, Error
from mtp.loss import Loss, NormalEquations, Weights
from mtp.potential import Potential

RIDGE = 1e-11  # of the linear solve, relative to the diagonal: keeps null directions (fixed composition) at bay


class FitSettings(BaseModel):
    """What is fitted, and how long. Distances in Å.

    level, cutoff, radial_basis_size: form of the potential. min_distance: of the radial interval; by default the
    shortest distance in the data. iterations: at most; the fit ends earlier when the loss falls by less than
    `tolerance` (relative) in five of them. seed: of the initial radial coefficients.
    """

    model_config = ConfigDict(extra="forbid")

    level: int = Field(16, ge=2, le=40)
    cutoff: float = Field(5.0, gt=0)
    radial_basis_size: int = Field(8, ge=1)
    min_distance: float | None = Field(None, ge=0)
    weights: Weights = Field(default_factory=Weights)
    iterations: int = Field(60, ge=0)
    tolerance: float = Field(2e-3, gt=0)
    seed: int = 1
    threads: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Step:
    """One iteration of a fit: its number, the loss, and seconds since the start."""

    iteration: int
    loss: float
    seconds: float


def fit(
    configurations: Sequence[Atoms],
    settings: FitSettings,
    species: Sequence[str] | None = None,
    initial: Potential | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> Potential:
    """Fit a potential to labelled configurations.

    species: order of the elements in the potential, default: those of the data by atomic number. initial: a
    potential to start from (its form is kept and its radial coefficients are the first guess). Raises DataError where
    data are missing, not finite, or unknown to the potential.
    """
    if not configurations:
        raise DataError("there are no configurations to fit to")
    for atoms in configurations:
        check_distances(atoms)
    start = time.perf_counter()
    potential = initial.copy() if initial is not None else untrained(configurations, settings, species)
    if not potential.facts.trained:
        randomise(potential, settings.seed)
    loss = Loss(potential, configurations, settings.weights, settings.threads)
    _minimise(potential, loss, settings, lambda i, value: progress(Step(i, value, time.perf_counter() - start)))
    return potential


def untrained(
    configurations: Sequence[Atoms], settings: FitSettings, species: Sequence[str] | None = None
) -> Potential:
    """A potential of the form that the settings ask for, for the species of the data."""
    if species is None:
        species = species_of(configurations)
    min_distance = settings.min_distance
    if min_distance is None:
        min_distance = shortest_distance(configurations, settings.cutoff)
    if min_distance >= settings.cutoff:
        raise Error(f"no two atoms of the data are closer than the cutoff of {settings.cutoff} Å; choose a larger one")
    return Potential.new(settings.level, list(species), settings.cutoff, min_distance, settings.radial_basis_size)


def shortest_distance(configurations: Sequence[Atoms], cutoff: float) -> float:
    """The shortest distance between two atoms in the data (Å), rounded down to 0.01; `cutoff` if none is closer."""
    from mtp.neighbours import neighbourhoods

    shortest = cutoff
    for atoms in configurations:
        vectors = neighbourhoods(atoms, np.zeros(len(atoms), dtype=np.int32), cutoff).vectors
        if len(vectors):
            shortest = min(shortest, float(np.sqrt((vectors**2).sum(axis=1).min())))
    return np.floor(shortest * 100) / 100


def randomise(potential: Potential, seed: int) -> None:
    """Give an untrained potential radial coefficients: f_μ is mostly the μ-th basis function, with a random admixture.

    The scaling makes the radial basis functions of order one.
    """
    facts = potential.facts
    potential.set_scaling(1 / (facts.cutoff - facts.min_distance) ** 2)
    rng = np.random.default_rng(seed)
    shape = (facts.n_species, facts.n_species, facts.n_radial, facts.n_chebyshev)
    radial = 0.3 * rng.standard_normal(shape) / (1 + np.arange(facts.n_chebyshev))
    for mu in range(facts.n_radial):
        radial[:, :, mu, mu % facts.n_chebyshev] += 1
    theta = np.zeros(facts.n_parameters)
    theta[: radial.size] = radial.ravel()
    potential.parameters = theta


def solve_linear(equations: NormalEquations) -> tuple[np.ndarray, float]:
    """The linear coefficients of least loss, and that loss."""
    solution = _solve(equations.matrix, equations.vector, RIDGE)
    rest = equations.square - 2 * equations.vector @ solution + solution @ equations.matrix @ solution
    return solution, float(rest)


def _solve(matrix: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solve the symmetric positive system, in units in which its diagonal is one, for one or several right sides."""
    diagonal = np.diag(matrix)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    unit = matrix * scale[:, None] * scale
    for _ in range(12):
        np.fill_diagonal(unit, 1 + ridge)
        try:
            return (scale * cho_solve(cho_factor(unit), (right.T * scale).T).T).T
        except LinAlgError:
            ridge = max(10 * ridge, RIDGE)
    raise Error("the linear equations of the fit are singular; use fewer parameters (level, radial basis) or more data")


def _minimise(potential: Potential, loss: Loss, settings: FitSettings, progress: Callable[[int, float], None]) -> None:
    facts = potential.facts
    n_radial = facts.n_species**2 * facts.n_radial * facts.n_chebyshev

    def at(radial: np.ndarray) -> tuple[float, np.ndarray]:
        """Least loss over the linear coefficients at these radial ones, and all parameters."""
        theta = np.concatenate([radial, np.zeros(facts.n_parameters - n_radial)])
        potential.parameters = theta
        linear, value = solve_linear(loss.linear(potential))
        theta[n_radial:] = linear + loss.offset
        potential.parameters = theta
        return value, theta

    value, theta = at(potential.parameters[:n_radial])
    progress(0, value)
    history = [value]
    damping, raise_by = 1e-3, 2.0
    for iteration in range(1, settings.iterations + 1):
        potential.parameters = theta
        system = loss.gauss_newton(potential)
        cc, cl = system.matrix[:n_radial, :n_radial], system.matrix[:n_radial, n_radial:]
        ll = system.matrix[n_radial:, n_radial:]
        eliminated = _solve(ll, cl.T, RIDGE)
        reduced = cc - cl @ eliminated
        gradient = system.vector[:n_radial] - eliminated.T @ system.vector[n_radial:]
        while True:
            damped = reduced + damping * np.diag(np.diag(cc))
            change = _solve(damped, gradient, 0.0)
            predicted = change @ (2 * gradient - reduced @ change)
            trial_value, trial = at(theta[:n_radial] + change)
            gain = (value - trial_value) / max(predicted, np.finfo(float).tiny)
            if trial_value < value:
                damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                raise_by = 2.0
                value, theta = trial_value, trial
                break
            damping *= raise_by
            raise_by *= 2
            if damping > 1e12:
                break
        history.append(value)
        progress(iteration, value)
        if damping > 1e12 or (len(history) > 5 and history[-6] - value < settings.tolerance * value):
            break
    potential.parameters = theta
