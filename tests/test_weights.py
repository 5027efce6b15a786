# SPDX-License-Identifier: BSD-3-Clause
"""How much each label counts: MLIP's scalings, and factors by force, group, element and energy."""

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import ValidationError

from mtp.configurations import Labels, with_labels
from mtp.errors import DataError
from mtp.loss import Loss
from mtp.weights import VOIGT_MULTIPLICITY, Weights, check_names, observe


@pytest.fixture
def atoms(random_atoms):
    made = random_atoms(("O", "Cu"), seed=1)
    rng = np.random.default_rng(1)
    return with_labels(made, Labels(-3.0, rng.standard_normal((len(made), 3)), rng.standard_normal(6)))


def weights_of(atoms, **settings):
    return observe([atoms], Weights(**settings)).weights[0]


@pytest.mark.parametrize(
    ("scaling", "per_atom", "of_force"),
    [("vibrations", -1, 0), ("structures", -2, -1), ("molecules", 0, 0)],
)
def test_the_scalings_are_mlips(scaling, per_atom, of_force, atoms):
    found, n = weights_of(atoms, scaling=scaling, energy=3.0, force=0.5, stress=0.2), float(len(atoms))
    assert found[0] == pytest.approx(3.0 * n**per_atom)
    assert found[1:-6] == pytest.approx(0.5 * n**of_force)
    assert found[-6:] == pytest.approx(0.2 * n**per_atom * VOIGT_MULTIPLICITY)


def test_large_forces_count_less(atoms):
    found = weights_of(atoms, force=1.0, scale_by_force=0.3)[1:-6].reshape(-1, 3)
    squared = (atoms.get_forces() ** 2).sum(axis=1)
    np.testing.assert_allclose(found, np.repeat(0.3 / (squared + 0.3), 3).reshape(-1, 3))


def test_groups_elements_and_single_configurations_have_their_factors(atoms):
    plain = weights_of(atoms)
    atoms.info["weight"] = 2.0
    np.testing.assert_allclose(weights_of(atoms), 2 * plain)
    del atoms.info["weight"]
    atoms.info["config_type"] = "surface"
    factors = {"surface": {"energy": 4.0, "force": 5.0, "stress": 6.0}, "bulk": {"energy": 0.0}}
    found = weights_of(atoms, groups=factors) / plain
    np.testing.assert_allclose(found, [4.0, *[5.0] * (3 * len(atoms)), *[6.0] * 6])
    found = (weights_of(atoms, elements={"O": 7.0}) / plain)[1:-6].reshape(-1, 3)
    np.testing.assert_allclose(found, np.where(atoms.symbols == "O", 7.0, 1.0)[:, None] * np.ones(3))


def test_names_that_do_not_occur_are_refused(atoms):
    atoms.info["config_type"] = "surface"
    with pytest.raises(DataError, match=r"no configuration is of the group 'sruface'; the data's groups: surface"):
        check_names([atoms], Weights(groups={"sruface": {"energy": 2.0}}))
    with pytest.raises(DataError, match=r"no atom is Si; the data's elements: Cu, O"):
        check_names([atoms], Weights(elements={"Si": 2.0}))


@pytest.mark.parametrize(
    "wrong", [{"scaling": "none"}, {"energy": -1}, {"energy_window": 0}, {"groups": {"a": {"x": 1}}}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        Weights(**wrong)


def test_configurations_high_above_the_lowest_count_less(atoms, random_atoms):
    heights = [0.0, 0.1, 0.5, 2.0]
    several = []
    for k, height in enumerate(heights):
        copy = random_atoms(("O", "Cu"), seed=k)
        several.append(with_labels(copy, Labels(height * len(copy), np.zeros((len(copy), 3)), None)))
    # all of one composition: heights over the lowest are what was put in
    found = [w[0] * len(a) for w, a in zip(observe(several, Weights(energy_window=0.5)).weights, several, strict=True)]
    np.testing.assert_allclose(found, [1, 1, 1, (0.5 / 2) ** 2], rtol=1e-9)


def test_labels_that_are_missing_have_no_weight(atoms):
    forces = atoms.get_forces()
    for known in ({"energy": 1.0}, {"forces": forces}, {"stress": np.ones(6)}):
        atoms.calc = SinglePointCalculator(atoms, **known)
        found = weights_of(atoms) > 0
        np.testing.assert_array_equal([found[0], found[1:-6].all(), found[-6:].all()],
                                      [name in known for name in ("energy", "forces", "stress")])  # fmt: skip
    atoms.calc, atoms.info["source"] = None, "some.xyz#4"
    with pytest.raises(DataError, match=r"some\.xyz#4: no energy, no forces and no stress"):
        weights_of(atoms)


def test_molecules_have_no_stress(random_atoms):
    free = random_atoms(("O",), pbc=False)
    free = with_labels(free, Labels(1.0, np.zeros((len(free), 3)), np.ones(6)))
    assert not weights_of(free)[-6:].any()


def test_outliers_are_weighed_down_to_hubers_loss(random_potential, random_atoms):
    potential = random_potential(("O", "Cu"), level=4)
    data = []
    for k in range(6):
        made = random_atoms(("O", "Cu"), seed=k)
        result = potential.evaluate(made)
        rng = np.random.default_rng(k)
        forces = result.forces + 0.01 * rng.standard_normal(result.forces.shape)
        if k == 3:
            forces[2, 1] += 50.0
        data.append(with_labels(made, Labels(result.energy, forces, None)))
    theta = potential.parameters
    loss = Loss(potential, data, Weights(energy=0, stress=0, force=1.0), threads=1)
    residuals = np.concatenate([(a.get_forces() - potential.evaluate(a).forces).ravel() for a in data])
    limit = 2.0 * np.abs(residuals).mean()
    assert loss.errors(theta).loss == pytest.approx((residuals**2).sum() / len(data))
    loss.make_robust(theta, 2.0)
    factor = np.minimum(1, limit / np.abs(residuals))
    assert (factor < 1).sum() == 1
    assert loss.errors(theta).loss == pytest.approx((factor * residuals**2).sum() / len(data))
    loss.make_robust(theta, 1e6)  # weights are taken anew from the full ones
    assert loss.errors(theta).loss == pytest.approx((residuals**2).sum() / len(data))
