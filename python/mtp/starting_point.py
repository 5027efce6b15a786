# SPDX-License-Identifier: BSD-3-Clause
"""Where a fit starts: an untrained potential with random radial functions, or another potential in a new form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.polynomial import chebyshev

from mtp.configurations import species_of
from mtp.errors import Error
from mtp.neighbours import neighbourhoods
from mtp.potential import Facts, Potential, radial_basis


def untrained(
    configurations: Sequence[Atoms],
    level: int,
    cutoff: float,
    radial_basis_size: int,
    min_distance: float | None = None,
    species: Sequence[str] | None = None,
) -> Potential:
    """A potential of that form. By default for the data's elements, by atomic number, and with the shortest distance
    in the data as min_distance (Å)."""
    if species is None:
        species = species_of(configurations)
    if min_distance is None:
        min_distance = shortest_distance(configurations, cutoff)
    if min_distance >= cutoff:
        raise Error(f"no two atoms of the data are closer than the cutoff of {cutoff} Å; choose a larger one")
    return Potential.new(level, list(species), cutoff, min_distance, radial_basis_size)


def shortest_distance(configurations: Sequence[Atoms], cutoff: float) -> float:
    """The shortest distance between two atoms in the data (Å), rounded down to 0.01; `cutoff` if none is closer."""
    shortest = cutoff
    for atoms in configurations:
        vectors = neighbourhoods(atoms, np.zeros(len(atoms), dtype=np.int32), cutoff).vectors
        if len(vectors):
            shortest = min(shortest, float(np.sqrt((vectors**2).sum(axis=1).min())))
    return np.floor(shortest * 100) / 100


def randomise(potential: Potential, seed: int) -> None:
    """Give a potential radial coefficients: f_μ is mostly the μ-th basis function, with a random admixture, and zero
    linear coefficients. The scaling makes the radial basis functions of order one."""
    facts = potential.facts
    potential.set_scaling(_scaling(facts))
    rng = np.random.default_rng(seed)
    radial = 0.3 * rng.standard_normal(_shape(facts)) / (1 + np.arange(facts.n_chebyshev))
    for mu in range(facts.n_radial):
        radial[:, :, mu, mu % facts.n_chebyshev] += 1
    _set_radial(potential, radial)


def in_form_of(potential: Potential, other: Potential, seed: int) -> Potential:
    """A copy of `potential` in the form of `other` (level, distances, radial basis, species), with zero linear
    coefficients.

    Radial functions are carried over by least squares on the new interval, those of new species pairs are the mean of
    the known ones with a random admixture, and those of higher μ are random.
    """
    made = other.copy()
    randomise(made, seed)
    old, new = potential.facts, made.facts
    radial = _radial(made)
    known = {name: k for k, name in enumerate(potential.species or range(old.n_species))}
    places = [known.get(name) for name in made.species or range(new.n_species)]
    r = new.cutoff - (new.cutoff - new.min_distance) * np.linspace(1e-3, 1, 200) ** 0.8
    functions = potential.radial_functions(r)  # zero beyond the old cutoff
    basis = radial_basis(new, r)
    n_mu = min(old.n_radial, new.n_radial)
    carried = np.linalg.lstsq(basis, functions[:, :, :n_mu].reshape(-1, len(r)).T, rcond=None)[0].T
    carried = carried.reshape(old.n_species, old.n_species, n_mu, new.n_chebyshev)
    mean = carried.mean(axis=(0, 1))
    for i, of_i in enumerate(places):
        for j, of_j in enumerate(places):
            if of_i is not None and of_j is not None:
                radial[i, j, :n_mu] = carried[of_i, of_j]
            else:
                radial[i, j, :n_mu] = mean + 0.1 * (radial[i, j, :n_mu] - np.eye(n_mu, new.n_chebyshev))
    _set_radial(made, radial)
    return made


def roughness_of_basis(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """∫ φ_α'' φ_β'' dξ and ∫ φ_α φ_β dξ over the radial interval -1 ≤ ξ ≤ 1, (n_chebyshev, n_chebyshev) each."""
    nodes, weights = np.polynomial.legendre.leggauss(2 * facts.n_chebyshev + 6)
    envelope = chebyshev.poly2cheb([1, -2, 1])  # (ξ - 1)²
    values, curvatures = [], []
    for beta in range(facts.n_chebyshev):
        phi = chebyshev.chebmul(np.eye(facts.n_chebyshev)[beta], envelope)
        values.append(chebyshev.chebval(nodes, phi))
        curvatures.append(chebyshev.chebval(nodes, chebyshev.chebder(phi, 2)))
    values, curvatures = np.array(values), np.array(curvatures)
    return curvatures * weights @ curvatures.T, values * weights @ values.T


def n_radial_parameters(facts: Facts) -> int:
    """Number of radial coefficients, the first of θ."""
    return int(np.prod(_shape(facts)))


def _shape(facts: Facts) -> tuple[int, int, int, int]:
    return (facts.n_species, facts.n_species, facts.n_radial, facts.n_chebyshev)


def _scaling(facts: Facts) -> float:
    return 1 / (facts.cutoff - facts.min_distance) ** 2


def _radial(potential: Potential) -> np.ndarray:
    shape = _shape(potential.facts)
    return potential.parameters[: np.prod(shape)].reshape(shape)


def _set_radial(potential: Potential, radial: np.ndarray) -> None:
    theta = np.zeros(potential.facts.n_parameters)
    theta[: radial.size] = radial.ravel()
    potential.parameters = theta
