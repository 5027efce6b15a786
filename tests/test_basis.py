# SPDX-License-Identifier: BSD-3-Clause
"""The generated basis: invariant functions, as many as MLIP's, and of the same span."""

import numpy as np
import pytest
from ase import Atoms

from mtp.errors import LibraryError
from mtp.potential import Potential

# level: radial functions, basic moments, products (of MLIP's tables: an upper bound), scalars
COUNTS = {
    2: (1, 1, 0, 1),
    4: (1, 1, 1, 2),
    6: (2, 5, 5, 5),
    8: (2, 11, 14, 9),
    10: (3, 25, 42, 16),
    12: (3, 46, 117, 29),
    14: (4, 81, 348, 52),
    16: (4, 130, 969, 92),
    18: (5, 201, 2634, 163),
    20: (5, 295, 6349, 288),
    22: (6, 421, 15431, 500),
    24: (6, 581, 36170, 864),
}
WRITTEN_BY_MLIP = {
    "reference/cubic_08.mtp": 8,
    "reference/multi_10.mtp": 10,
    "reference/cubic_12.mtp": 12,
    "reference/cubic_16.mtp": 16,
    "reference/cubic_20.mtp": 20,
    "potentials/Mo.mtp": 20,
    "potentials/Si.mtp": 24,
}


def facts(level):
    return Potential.new(level, 1, cutoff=5.0).facts


@pytest.mark.parametrize("level", COUNTS)
def test_a_level_has_as_many_functions_as_mlips(level):
    n_radial, n_basic, n_products, n_scalar = COUNTS[level]
    found = facts(level)
    assert (found.n_radial, found.n_basic, found.n_scalar) == (n_radial, n_basic, n_scalar)
    assert found.n_products <= n_products
    assert found.n_parameters == n_radial * 8 + 1 + n_scalar


@pytest.mark.parametrize("level", [3, 5, 9, 15, 21])
def test_an_odd_level_is_the_even_one_below(level):
    # every contraction uses indices up in pairs, so that no scalar has an odd level
    odd, below = facts(level), facts(level - 1)
    assert (odd.n_radial, odd.n_basic, odd.n_products, odd.n_scalar) == (
        below.n_radial,
        below.n_basic,
        below.n_products,
        below.n_scalar,
    )


@pytest.mark.parametrize("level", [-1, 0, 1, 41, 2**31 - 1])
def test_a_level_out_of_range_is_refused(level):
    with pytest.raises(LibraryError, match="from 2 to 40"):
        facts(level)


def scalars(potential, configurations):
    """Values of the basis functions at every atom: the last columns of dV_i/dtheta."""
    n_scalar = potential.facts.n_scalar
    rows = [potential.parameter_gradient(atoms) for atoms in configurations]
    return np.concatenate([r[:, -n_scalar:] for r in rows])


def clusters(n_rows, n_species, reach, seed):
    """Clusters of five to nine atoms, close enough that most see each other."""
    rng = np.random.default_rng(seed)
    made, n = [], 0
    while n < n_rows:
        size = int(rng.integers(5, 10))
        positions = rng.uniform(-0.5, 0.5, (size, 3)) * reach
        gaps = np.linalg.norm(positions[:, None] - positions, axis=-1)[np.triu_indices(size, 1)]
        if gaps.min() < 0.25 * reach:
            continue
        atoms = Atoms("X" * size, positions)
        atoms.new_array("type", rng.integers(n_species, size=size))
        made.append(atoms)
        n += size
    return made


def unexplained(columns, by):
    """Largest part of a unit column that no combination of the other ones gives; and the rank of these."""
    u, s, _ = np.linalg.svd(by / np.linalg.norm(by, axis=0), full_matrices=False)
    # Directions below 1e-10 of the largest are rounding errors. Some are exactly null: in three dimensions the Gram
    # determinant of four vectors is 0.
    u = u[:, s > 1e-10 * s[0]]
    unit = columns / np.linalg.norm(columns, axis=0)
    return np.linalg.norm(unit - u @ (u.T @ unit), axis=0).max(), u.shape[1]


@pytest.mark.parametrize("name", WRITTEN_BY_MLIP)
def test_the_span_is_that_of_mlips_basis(name, shared_data):
    theirs = Potential.load(shared_data / name)
    facts = theirs.facts
    ours = Potential.new(WRITTEN_BY_MLIP[name], facts.n_species, facts.cutoff, facts.min_distance, facts.n_chebyshev)
    assert ours.facts.n_parameters == facts.n_parameters
    ours.set_scaling(facts.scaling)
    ours.parameters = theirs.parameters
    places = clusters(int(1.3 * facts.n_scalar) + 40, facts.n_species, facts.cutoff, seed=facts.n_scalar)
    a, b = scalars(ours, places), scalars(theirs, places)
    # a function outside the span leaves 1e-2 (the test below), rounding leaves 1e-15 (measured)
    residual_a, rank_b = unexplained(a, by=b)
    residual_b, rank_a = unexplained(b, by=a)
    assert residual_a < 1e-11
    assert residual_b < 1e-11
    assert rank_a == rank_b


@pytest.mark.parametrize("level", [8, 12])
def test_no_function_of_the_basis_can_be_spared(level, random_potential):
    potential = random_potential(level=level, cutoff=5.0)
    places = clusters(3 * potential.facts.n_scalar + 40, 1, 5.0, seed=level)
    for atoms in places:
        atoms.symbols[:] = "Cu"
    values = scalars(potential, places)
    for k in range(values.shape[1]):
        residual, _ = unexplained(values[:, [k]], by=np.delete(values, k, axis=1))
        assert residual > 1e-3, f"scalar {k}"


@pytest.mark.parametrize("level", [6, 10, 16])
def test_every_scalar_is_invariant(level, random_potential, random_atoms, rotation):
    potential = random_potential(("Cu", "O"), level=level, seed=level)
    atoms = random_atoms(("Cu", "O"), seed=level, pbc=False)
    rows = potential.parameter_gradient(atoms)
    # sums of about n_products rounded terms that partly cancel
    tolerance = {"rtol": 1e-9, "atol": 1e-11 * np.abs(rows).max()}
    for reflection in (False, True):
        turned = atoms.copy()
        turned.positions = atoms.positions @ rotation(level, reflection).T + [3.0, -1.0, 7.0]
        np.testing.assert_allclose(potential.parameter_gradient(turned), rows, **tolerance)
    order = np.random.default_rng(level).permutation(len(atoms))
    np.testing.assert_allclose(potential.parameter_gradient(atoms[order]), rows[order], **tolerance)
