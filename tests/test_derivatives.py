# SPDX-License-Identifier: BSD-3-Clause
"""Derivatives of energies, forces and virials by the parameters.

Every basis function is a product of at most four moments, so that all observables are polynomials of degree four in the
radial coefficients and linear in the others. A central difference of fourth order is exact for them, whatever its step:
what remains is rounding, 1e-16 times the sum of the terms' sizes, divided by the step.
"""

import numpy as np
import pytest
from ase import Atoms

from mtp.neighbours import joined
from mtp.potential import Potential

SPECIES = ("Cu", "O", "H")
VOIGT = [0, 4, 8, 5, 2, 1]  # of a flattened 3 x 3 matrix
CASES = [(1, 8, 8), (3, 6, 8), (1, 10, 5), (2, 6, 9), (3, 8, 1), (1, 12, 17), (2, 2, 3)]  # species, level, Chebyshev


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def case(request, random_potential, random_atoms):
    n_species, level, n_chebyshev = request.param
    potential = random_potential(SPECIES[:n_species], level, n_chebyshev=n_chebyshev, seed=level)
    return potential, random_atoms(SPECIES[:n_species], seed=level)


def observables(potential, theta, atoms):
    """Energy, forces and virial at the parameters θ, one vector."""
    moved = potential.copy()
    moved.parameters = theta
    result = moved.evaluate(atoms)
    return np.concatenate([[result.energy], result.forces.ravel(), result.virial.ravel()[VOIGT]])


def stacked(jacobian):
    return np.concatenate([jacobian.energy[None], jacobian.forces, jacobian.virial])


def differences(potential, atoms, parameters, step=0.125):
    theta, columns = potential.parameters, []
    for k in parameters:
        e = np.zeros_like(theta)
        e[k] = step
        values = [observables(potential, theta + n * e, atoms) for n in (-2, -1, 1, 2)]
        columns.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step))
    return np.stack(columns, axis=1)


def some_parameters(potential, n=40):
    """All of a small potential, else a sample that holds some of each kind."""
    total, linear = potential.facts.n_parameters, potential.facts.n_species + potential.facts.n_scalar
    order = np.random.default_rng(total).permutation(total - linear)
    return sorted({*order[:n].tolist(), *range(total - linear, total, max(1, 4 * linear // n)), total - 1})


def test_the_jacobian_holds_the_derivatives_by_all_parameters(case):
    potential, atoms = case
    parameters = some_parameters(potential)
    found = stacked(potential.jacobian(atoms))[:, parameters]
    expected = differences(potential, atoms, parameters)
    # rounding only: 1e-16 · (terms of up to 1e3) / 0.125 against columns of order one to 1e2
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def test_the_rows_of_the_parameter_gradient_add_up_to_that_of_the_energy(case):
    potential, atoms = case
    rows = potential.parameter_gradient(atoms)
    assert rows.shape == (len(atoms), potential.facts.n_parameters)
    energy = potential.jacobian(atoms).energy
    np.testing.assert_allclose(rows.sum(axis=0), energy, rtol=1e-12, atol=1e-13 * np.abs(rows).sum(axis=0).max())
    parameters = some_parameters(potential)
    expected = differences(potential, atoms, parameters)[0]
    np.testing.assert_allclose(rows.sum(axis=0)[parameters], expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def test_a_row_is_the_gradient_of_its_atoms_energy(case):
    potential, atoms = case
    rows, theta = potential.parameter_gradient(atoms), potential.parameters
    linear = potential.facts.n_species + potential.facts.n_scalar
    for part in (slice(None, -linear), slice(-linear, None)):  # of degree four along either, of five along both
        direction = np.zeros_like(theta)
        direction[part] = 0.1 * theta[part] * np.random.default_rng(1).standard_normal(len(theta[part]))
        values = []
        for n in (-2, -1, 1, 2):
            moved = potential.copy()
            moved.parameters = theta + n * direction
            values.append(moved.evaluate(atoms).energies)
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12
        # rounding, as above
        np.testing.assert_allclose(slope, rows @ direction, rtol=0, atol=1e-11 * np.abs(values[0]).max())


def test_the_linear_part_is_the_end_of_the_whole(case):
    potential, atoms = case
    whole, part = stacked(potential.jacobian(atoms)), stacked(potential.jacobian(atoms, linear_only=True))
    assert part.shape[1] == potential.facts.n_species + potential.facts.n_scalar
    # the same sums; compilers may fuse multiply and add differently in the two ways
    np.testing.assert_allclose(part, whole[:, -part.shape[1] :], rtol=1e-12, atol=1e-14 * np.abs(part).max())


def test_the_observables_are_linear_in_the_linear_coefficients(case):
    potential, atoms = case
    theta = potential.parameters
    jacobian = stacked(potential.jacobian(atoms, linear_only=True))
    n = jacobian.shape[1]
    rng = np.random.default_rng(2)
    for scale in (1.0, 1e3):
        theta[-n:] = scale * rng.standard_normal(n) / (1 + np.abs(jacobian).max(axis=0))
        size = np.abs(jacobian) @ np.abs(theta[-n:])  # rounding is relative to the sum of the sizes
        error = jacobian @ theta[-n:] - observables(potential, theta, atoms)
        assert (np.abs(error) < 1e-12 * (size + size.mean())).all()


def test_the_radial_derivatives_of_a_homogeneous_function_obey_eulers_law(case):
    """A product of d moments is of degree d in the radial coefficients, so that Σ c ∂E/∂c lies between E and 4 E
    term by term: with the coefficient of one scalar alone it is d times that scalar."""
    potential, atoms = case
    facts, theta = potential.facts, potential.parameters
    n_radial = facts.n_parameters - facts.n_species - facts.n_scalar
    for scalar in range(0, facts.n_scalar, max(1, facts.n_scalar // 5)):
        single = potential.copy()
        only = theta.copy()
        only[n_radial:] = 0
        only[n_radial + facts.n_species + scalar] = 1
        single.parameters = only
        value = single.evaluate(atoms).energies
        ratio = (single.parameter_gradient(atoms)[:, :n_radial] @ theta[:n_radial]) / value
        degree = np.round(ratio[0])
        assert degree in (1, 2, 3, 4)
        np.testing.assert_allclose(ratio, degree, rtol=1e-9)  # where the value is far from zero; rounding


def test_known_neighbourhoods_give_the_same_jacobian(case):
    potential, atoms = case
    near = potential.neighbourhoods(atoms)
    for linear_only in (False, True):
        given = stacked(potential.jacobian(atoms, near, linear_only))
        np.testing.assert_array_equal(given, stacked(potential.jacobian(atoms, linear_only=linear_only)))


def test_the_jacobian_of_the_virial_is_that_of_volume_times_stress(case):
    potential, atoms = case
    part = potential.jacobian(atoms, linear_only=True)
    stress = potential.evaluate(atoms).stress
    virial = part.virial @ potential.parameters[-part.virial.shape[1] :]
    atol = 1e-11 * np.abs(virial).max()  # rounding of sums over all pairs
    np.testing.assert_allclose(virial, stress * atoms.get_volume(), rtol=0, atol=atol)


def test_atoms_without_neighbours_have_derivatives(random_potential):
    potential = random_potential(("Cu", "O"), 8)
    facts = potential.facts
    expected = np.zeros(facts.n_parameters)
    expected[facts.n_parameters - facts.n_scalar - 1] = 1  # by the energy of the free O atom
    for atoms, count in ((Atoms("O"), 1), (Atoms("O2", [(0, 0, 0), (0, 0, 9)]), 2), (Atoms(), 0)):
        jacobian = potential.jacobian(atoms)
        np.testing.assert_array_equal(jacobian.energy, count * expected)
        assert not jacobian.forces.any()
        assert not jacobian.virial.any()
        np.testing.assert_array_equal(potential.parameter_gradient(atoms), np.tile(expected, (count, 1)))


def test_the_number_of_chebyshev_functions_extends_the_basis(random_potential, random_atoms):
    """Appended functions with coefficient zero change nothing; derivatives by the others stay."""
    short, atoms = random_potential(("Cu", "O"), 8, n_chebyshev=5, seed=1), random_atoms(("Cu", "O"), seed=1)
    facts = short.facts
    long = Potential.new(8, ["Cu", "O"], facts.cutoff, facts.min_distance, 11)
    long.set_scaling(facts.scaling)
    linear = facts.n_species + facts.n_scalar
    radial = np.zeros((4 * facts.n_radial, 11))
    radial[:, :5] = short.parameters[:-linear].reshape(-1, 5)
    long.parameters = np.concatenate([radial.ravel(), short.parameters[-linear:]])
    assert long.evaluate(atoms).energy == pytest.approx(short.evaluate(atoms).energy, rel=1e-13)
    found = long.parameter_gradient(atoms)[:, :-linear].reshape(len(atoms), -1, 11)[:, :, :5]
    expected = short.parameter_gradient(atoms)[:, :-linear].reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


def random_errors(potential, atoms, seed=0):
    """Reference values near the observables, and weights, some of them zero."""
    rng = np.random.default_rng(seed)
    size = 7 + 3 * len(atoms)
    reference = observables(potential, potential.parameters, atoms) + rng.standard_normal(size)
    return reference, rng.uniform(0, 1, size) * (rng.uniform(size=size) > 0.2)


def test_the_gradient_of_the_square_errors_is_that_of_the_jacobian(case):
    potential, atoms = case
    reference, weights = random_errors(potential, atoms)
    errors, gradient = potential.square_errors(potential.neighbourhoods(atoms), reference, weights)
    difference = observables(potential, potential.parameters, atoms) - reference
    square = weights * difference**2
    parts = [square[:1].sum(), square[1:-6].sum(), square[-6:].sum()]
    np.testing.assert_allclose(errors, parts, rtol=1e-9)  # differences of order one of energies of up to 1e3
    jacobian = stacked(potential.jacobian(atoms))
    expected = 2 * jacobian.T @ (weights * difference)
    size = 2 * np.abs(jacobian).T @ np.abs(weights * difference)  # rounding is relative to the sum of the sizes
    assert (np.abs(gradient - expected) < 1e-9 * (size + size.max() * 1e-3)).all()


def test_several_configurations_in_one_call_are_what_each_is_alone(random_potential, random_atoms):
    potential = random_potential(("Cu", "O"), level=10)
    several = [random_atoms(("Cu", "O"), seed=k, repeat=(2, 2, 1 + k % 3)) for k in range(5)]
    near = joined([potential.neighbourhoods(atoms) for atoms in several])
    for linear_only in (False, True):
        alone = np.concatenate([stacked(potential.jacobian(atoms, linear_only=linear_only)) for atoms in several])
        found = potential.jacobian_rows(near, linear_only)
        np.testing.assert_allclose(found, alone, rtol=1e-11, atol=1e-12 * np.abs(alone).max())  # order of sums
    errors = [random_errors(potential, atoms, seed) for seed, atoms in enumerate(several)]
    alone = [
        potential.square_errors(potential.neighbourhoods(atoms), *error)
        for atoms, error in zip(several, errors, strict=True)
    ]
    together = potential.square_errors(near, *(np.concatenate(side) for side in zip(*errors, strict=True)))
    for side in (0, 1):
        expected = sum(one[side] for one in alone)
        np.testing.assert_allclose(together[side], expected, rtol=1e-10, atol=1e-11 * np.abs(expected).max())
    assert potential.square_errors(near, *(np.concatenate(s) for s in zip(*errors, strict=True)), False)[1] is None


def test_what_was_left_in_memory_does_not_matter(random_potential, random_atoms):
    potential, atoms = random_potential(("Cu", "O", "H"), level=8), random_atoms(("Cu", "O", "H"), repeat=(1, 2, 2))
    near = potential.neighbourhoods(atoms)
    reference, weights = random_errors(potential, atoms)
    potential.select([atoms])
    uses = [
        lambda: potential.square_errors(near, reference, weights)[1],
        lambda: potential.jacobian_rows(near),
        lambda: potential.jacobian_rows(near, linear_only=True),
        lambda: potential.observables(near),
        lambda: potential.parameter_gradient(atoms),
        lambda: potential.grade(atoms).per_atom,
    ]
    expected = [use() for use in uses]
    for n in np.geomspace(1e2, 1e6, 60).astype(int):  # freed memory full of NaN is what the next call may get
        for use, known in zip(uses, expected, strict=True):
            left = [np.full(n, np.nan) for _ in range(4)]
            del left
            np.testing.assert_array_equal(use(), known)
