# SPDX-License-Identifier: BSD-3-Clause
"""Fitting: the laws of its loss and of variable projection, what it recovers and refuses, and MLIP-2's accuracy."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import ValidationError

from mtp.configurations import Labels, read, with_labels
from mtp.errors import DataError, Error
from mtp.fit import FitSettings, fit
from mtp.loss import Loss
from mtp.potential import Potential
from mtp.starting_point import randomise, untrained
from mtp.weights import Weights

MULTIPLICITY = np.array([1, 1, 1, 2, 2, 2])


@pytest.fixture(scope="module")
def truth(random_potential):
    return random_potential(("O", "Cu"), level=6, n_chebyshev=4, cutoff=4.0, seed=1)


@pytest.fixture(scope="module")
def data(truth, random_atoms):
    """Two species; cells and free clusters; labels of a known potential."""
    made = [random_atoms(("O", "Cu"), seed=k, spacing=2.1 + 0.03 * k) for k in range(12)]
    made += [random_atoms(("Cu", "O", "Cu"), seed=20 + k, pbc=False, repeat=(2, 2, 1)) for k in range(6)]
    return [labelled(truth, atoms) for atoms in made]


def settings(**changes):
    values = {"level": 6, "cutoff": 4.0, "radial_basis_size": 4, "min_distance": 1.2, "tolerance": 1e-12}
    return FitSettings(**{**values, "iterations": 5, "threads": 2, **changes})


def labelled(potential, atoms):
    result = potential.evaluate(atoms)
    return with_labels(atoms, Labels(result.energy, result.forces, result.stress))


def relabelled(atoms, **changes):
    """A copy with other results; None takes one away."""
    copy = atoms.copy()
    results = {"energy": atoms.calc.results["energy"], "forces": atoms.calc.results["forces"]}
    results["stress"] = atoms.calc.results.get("stress")
    results |= changes
    copy.calc = SinglePointCalculator(copy, **{k: v for k, v in results.items() if v is not None})
    return copy


def loss_by_the_definition(potential, configurations, weights):
    total = 0.0
    for atoms in configurations:
        result, known, n = potential.evaluate(atoms), atoms.calc.results, len(atoms)
        total += weights.energy * (result.energy - known["energy"]) ** 2 / n
        total += weights.force * ((result.forces - known["forces"]) ** 2).sum()
        if known.get("stress") is not None and weights.stress > 0:
            difference = (result.stress - known["stress"]) * atoms.get_volume()
            total += weights.stress * (MULTIPLICITY * difference**2).sum() / n
    return total / len(configurations)


def split(potential):
    """Number of radial and of linear parameters."""
    facts = potential.facts
    linear = facts.n_species + facts.n_scalar
    return facts.n_parameters - linear, linear


def history(configurations, chosen, **keywords):
    steps = []
    return fit(configurations, chosen, progress=steps.append, **keywords), [step.loss for step in steps]


# ---- the loss


@pytest.mark.parametrize("weights", [Weights(), Weights(energy=0), Weights(force=0), Weights(stress=1.0)])
def test_the_loss_that_is_reported_is_the_loss_as_defined(weights, data):
    potential, losses = history(data, settings(weights=weights, iterations=2))
    # rounding of the normal equations: 1e-16 of the sum of squares of the values, here of order 1
    expected = loss_by_the_definition(potential, data, weights)
    assert losses[-1] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_normal_equations_hold_the_gradient_of_the_loss(data, truth):
    weights, rng = Weights(), np.random.default_rng(1)
    potential = truth.copy()
    theta = potential.parameters * (1 + 0.05 * rng.standard_normal(truth.facts.n_parameters))
    potential.parameters = theta
    fitted = Loss(potential, data, weights)
    equations = fitted.gauss_newton(theta)
    n_linear = len(fitted.offset)
    linear = theta[-n_linear:] - fitted.offset
    gradient = -2 * (equations.vector - equations.matrix[:, -n_linear:] @ linear)
    value, by_sweeps = fitted.gradient(theta)
    assert value == pytest.approx(loss_by_the_definition(potential, data, weights), rel=1e-9)
    np.testing.assert_allclose(by_sweeps, gradient, rtol=1e-7, atol=1e-9 * np.abs(gradient).max())
    for _ in range(6):
        direction = theta * rng.standard_normal(len(theta))

        def loss(step, direction=direction):
            moved = potential.copy()
            moved.parameters = theta + step * direction
            return loss_by_the_definition(moved, data, weights)

        h = 1e-3  # error h⁴ = 1e-12 times derivatives that grow by ten each; rounding 1e-13
        slope = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
        assert gradient @ direction == pytest.approx(slope, rel=1e-6, abs=1e-8 * np.abs(gradient * direction).sum())


def test_the_loss_does_not_depend_on_the_number_of_threads(data):
    chosen = [history(data, settings(threads=threads)) for threads in (1, 2, 3)]
    for potential, losses in chosen[1:]:
        assert potential.parameters.tobytes() == chosen[0][0].parameters.tobytes()
        assert losses == chosen[0][1]


# ---- variable projection


@pytest.mark.parametrize("seed", [1, 2])
def test_the_loss_never_rises(seed, data):
    _, losses = history(data, settings(seed=seed, iterations=12))
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("iterations", [0, 4])
def test_the_linear_coefficients_are_the_best_at_the_radial_ones(iterations, data):
    potential, _ = history(data, settings(iterations=iterations))
    n_radial, n_linear = split(potential)
    loss = Loss(potential, data, Weights())
    theta = potential.parameters
    equations = loss.linear(theta)
    residual = equations.vector - equations.matrix @ (theta[n_radial:] - loss.offset)
    # the ridge of 1e-11 of the diagonal, and rounding, is what the solution may be off by
    scale = np.diag(equations.matrix) * np.abs(theta[n_radial:]) + np.abs(equations.vector)
    assert (np.abs(residual) <= 1e-9 * scale.max()).all()
    best = loss_by_the_definition(potential, data, Weights())
    rng = np.random.default_rng(3)
    for size in (1e-1, 1e-3):
        moved = potential.copy()
        change = size * rng.standard_normal(n_linear) * np.abs(theta[n_radial:])
        moved.parameters = np.concatenate([theta[:n_radial], theta[n_radial:] + change])
        assert loss_by_the_definition(moved, data, Weights()) > best


def test_known_radial_coefficients_give_the_linear_ones_at_once(data, truth):
    initial = truth.copy()
    n_radial, _ = split(truth)
    initial.parameters = np.where(np.arange(truth.facts.n_parameters) < n_radial, truth.parameters, 0)
    potential = fit(data, settings(iterations=0), initial=initial)
    # data without noise: the ridge of 1e-11 times the condition of the normal equations, 2e3, is left
    np.testing.assert_allclose(potential.parameters, truth.parameters, rtol=1e-6)


def disturbed(truth):
    n_radial, _ = split(truth)
    theta = truth.parameters
    theta[:n_radial] *= 1 + 0.05 * np.random.default_rng(2).standard_normal(n_radial)
    initial = truth.copy()
    initial.parameters = theta
    return initial


def test_a_disturbed_potential_finds_back(data, truth):
    potential, losses = history(data, settings(iterations=20), initial=disturbed(truth))
    assert losses[-1] < 1e-10 * losses[0]  # quadratic convergence on data without noise, as far as rounding goes
    for atoms in data:
        result = potential.evaluate(atoms)
        assert result.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-5 * len(atoms))
        np.testing.assert_allclose(result.forces, atoms.calc.results["forces"], rtol=0, atol=1e-4)


def test_a_fit_from_a_random_start_recovers_a_potential(random_potential, random_atoms):
    truth = random_potential(("Cu",), level=6, n_chebyshev=4, cutoff=4.0, seed=5)
    known = [labelled(truth, random_atoms(("Cu",), seed=k, spacing=2.1 + 0.03 * k)) for k in range(12)]
    unseen = [labelled(truth, random_atoms(("Cu",), seed=50 + k, spacing=2.3)) for k in range(4)]
    potential = fit(known, settings(iterations=40, seed=2))
    for atoms in unseen:
        result, forces = potential.evaluate(atoms), atoms.calc.results["forces"]
        # the data hold no noise and the form is the true one; a local minimum would leave a tenth of the forces
        assert np.abs(result.forces - forces).max() < 1e-2 * np.abs(forces).max()
        assert abs(result.energy - atoms.calc.results["energy"]) / len(atoms) < 1e-2


# ---- what the data may be


@pytest.mark.parametrize(
    "offsets",
    [
        {"O": -4.0, "Cu": -3.5},
        {"O": -430.0, "Cu": -1300.0},  # pseudopotentials
        {"O": -2040.0, "Cu": -45000.0},  # all electrons
    ],
)
def test_an_energy_per_atom_goes_into_the_species_coefficients(offsets, data, truth):
    moved = [relabelled(a, energy=a.calc.results["energy"] + sum(offsets[s] for s in a.symbols)) for a in data]
    potential, losses = history(moved, settings(iterations=20), initial=disturbed(truth))
    assert losses[-1] < 1e-7 * losses[0]  # without the offset: below 1e-10
    for atoms in moved:
        result = potential.evaluate(atoms)
        assert result.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-4 * len(atoms))
        np.testing.assert_allclose(result.forces, atoms.calc.results["forces"], rtol=0, atol=1e-3)


def test_stress_may_be_missing(data):
    without = [relabelled(atoms, stress=None) for atoms in data]
    potential, losses = history(without, settings())
    assert losses[-1] == pytest.approx(loss_by_the_definition(potential, without, Weights()), rel=1e-6)
    weightless = fit(data, settings(weights=Weights(stress=0)))
    np.testing.assert_array_equal(potential.parameters, weightless.parameters)


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_what_has_no_weight_may_be_missing(quantity, data):
    weights = Weights(energy=0) if quantity == "energy" else Weights(force=0)
    without = [relabelled(atoms, **{quantity: None}) for atoms in data]
    potential = fit(without, settings(weights=weights))
    with_ = fit(data, settings(weights=weights))
    np.testing.assert_array_equal(potential.parameters, with_.parameters)


def test_molecules_and_crystals_go_together(data):
    molecules, crystals = [a for a in data if not a.pbc.any()], [a for a in data if a.pbc.all()]
    assert molecules
    assert crystals
    for part in (molecules, crystals, [molecules[0], crystals[0]]):
        _, losses = history(part, settings(iterations=1))
        assert np.isfinite(losses).all()


def test_one_composition_leaves_a_null_direction_without_harm(data, truth):
    """With as many O as Cu everywhere only the sum of the two species coefficients is known."""
    crystals = [atoms for atoms in data if atoms.pbc.all()]
    assert {tuple(sorted(atoms.symbols)) for atoms in crystals} == {("Cu",) * 4 + ("O",) * 4}
    potential = fit(crystals, settings(iterations=0), initial=truth)
    for atoms in crystals:
        # as for known radial coefficients
        assert potential.evaluate(atoms).energy == pytest.approx(atoms.calc.results["energy"], abs=1e-6)
    assert np.abs(potential.parameters).max() < 1e3 * np.abs(truth.parameters).max()


def test_the_weight_of_a_configuration_counts_it_several_times(data):
    some = data[8:16]  # of two compositions, so that all coefficients are determined
    weighted = [relabelled(atoms) for atoms in some]
    weighted[0].info["weight"] = 3.0
    once, thrice = (fit(given, settings(iterations=0)) for given in (weighted, [some[0], some[0], *some]))
    # the same sums in another order: rounding, and the ridge of 1e-11, times the condition, 4e3
    np.testing.assert_allclose(once.parameters, thrice.parameters, rtol=1e-6, atol=1e-9)


def test_a_rotated_data_set_gives_the_same_potential(data, rotation):
    turn, turned = rotation(4), []
    for atoms in data:
        copy = atoms.copy()
        copy.set_cell(atoms.cell @ turn.T)
        copy.positions = atoms.positions @ turn.T
        stress = atoms.calc.results.get("stress")
        if stress is not None:
            matrix = turn @ stress[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]] @ turn.T
            stress = matrix.ravel()[[0, 4, 8, 5, 2, 1]]
        turned.append(relabelled_as(copy, atoms.calc.results["energy"], atoms.calc.results["forces"] @ turn.T, stress))
    chosen = settings(iterations=3)
    # rounding grows through three steps; a wrong multiplicity of shear stresses would give another potential
    (_, here), (_, there) = history(data, chosen), history(turned, chosen)
    np.testing.assert_allclose(there, here, rtol=1e-6)


def relabelled_as(atoms, energy, forces, stress):
    results = {"energy": energy, "forces": forces} | ({} if stress is None else {"stress": stress})
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


# ---- the form


def test_the_form_is_what_the_settings_ask_for(data):
    potential = fit(data, settings(iterations=0, level=8, radial_basis_size=5, cutoff=4.3))
    facts = potential.facts
    assert (facts.n_scalar, facts.n_chebyshev, facts.cutoff, facts.min_distance) == (9, 5, 4.3, 1.2)
    assert facts.trained
    assert potential.species == ["O", "Cu"]  # by atomic number
    assert fit(data, settings(iterations=0), species=["Cu", "O"]).species == ["Cu", "O"]


def test_the_shortest_distance_is_that_of_the_data(data):
    shortest = min(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() for atoms in data)
    found = untrained(data, level=6, cutoff=4.0, radial_basis_size=4).facts.min_distance
    assert shortest - 0.01 < found <= shortest


def test_the_initial_potential_is_kept_and_its_form_taken_where_no_other_is_asked_for(data, truth):
    before = truth.parameters
    potential = fit(data, FitSettings(iterations=1), initial=truth)
    np.testing.assert_array_equal(truth.parameters, before)
    assert potential.facts.n_scalar == truth.facts.n_scalar
    blank = Potential.new(6, ["O", "Cu"], 4.0, 1.2, 4)
    assert fit(data, settings(iterations=0), initial=blank).facts.trained
    assert not blank.facts.trained


def test_a_seed_decides_the_start(data):
    first, again, other = (fit(data, settings(iterations=0, seed=seed)).parameters for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for n_chebyshev in (1, 3, 8):
        potential = Potential.new(12, 2, 5.0, 1.0, n_chebyshev)
        randomise(potential, 1)
        assert np.isfinite(potential.parameters).all()


# ---- what is refused


def named(atoms, **changes):
    wrong = relabelled(atoms, **changes)
    wrong.info["source"] = "bad.extxyz#3"
    return wrong


def test_labels_that_are_missing_or_not_finite_are_named(data):
    forces = data[0].calc.results["forces"].copy()
    forces[2, 1] = np.nan
    for wrong, message in (
        (named(data[0], forces=forces), "forces is not finite"),
        (named(data[0], energy=np.inf), "energy is not finite"),
        (named(data[0], stress=np.full(6, np.nan)), "stress is not finite"),
        (named(data[0], energy=None, forces=None, stress=None), "no energy, no forces and no stress"),
    ):
        with pytest.raises(DataError, match=f"^bad.extxyz#3: {message}"):
            fit([*data, wrong], settings())


def test_atoms_at_one_place_are_named(data):
    wrong = named(data[0])
    wrong.positions[1] = wrong.positions[0] + wrong.cell[2]
    wrong = relabelled_as(wrong, 0.0, np.zeros((len(wrong), 3)), None)
    with pytest.raises(DataError, match=r"^bad.extxyz#3: atoms 0 and 1"):
        fit([*data, wrong], settings())


def test_an_unknown_species_is_named(data, truth):
    wrong = named(data[0])
    wrong.symbols[0] = "Xe"
    wrong = relabelled_as(wrong, 0.0, np.zeros((len(wrong), 3)), None)
    for keywords in ({"species": ["Cu", "O"]}, {"initial": truth, "species": truth.species}):
        with pytest.raises(DataError, match=r"^bad.extxyz#3: .*Xe"):
            fit([*data, wrong], settings(), **keywords)


def test_too_little_is_refused(data):
    with pytest.raises(DataError, match="no configurations"):
        fit([], settings())
    lonely = relabelled_as(Atoms("Cu"), -1.0, np.zeros((1, 3)), None)
    with pytest.raises(Error, match="closer than the cutoff"):
        fit([lonely], settings(min_distance=None))


@pytest.mark.parametrize(
    "wrong",
    [{"level": 1}, {"level": 41}, {"cutoff": 0}, {"iterations": -1}, {"tolerance": 0}, {"threads": 0}, {"cutof": 5}],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FitSettings(**wrong)
    with pytest.raises(ValidationError):
        Weights(energy=-1)


# ---- reference


def test_mlip2s_accuracy_is_reached_within_fifteen_iterations(shared_data):
    """101 cells of 32 Cu atoms, level 8. MLIP-2 reports 5.33e-5 eV/atom and 4.84e-3 eV/Å (root mean squares).

    The loss has several minima. Of the seeds 1 to 6, four reach that accuracy within 15 iterations, the one taken here
    (2) within 12; seed 4 reaches it within 25, seed 3 does not.
    """
    configurations = read(shared_data / "reference" / "cubic_train_101.cfg", ["Cu"])
    chosen = FitSettings(level=8, cutoff=5.0, min_distance=0.5, iterations=15, tolerance=1e-9, seed=2)
    potential = fit(configurations, chosen)
    energy, forces = [], []
    for atoms in configurations:
        result = potential.evaluate(atoms)
        energy.append((result.energy - atoms.calc.results["energy"]) / len(atoms))
        forces.append(result.forces - atoms.calc.results["forces"])
    assert np.sqrt(np.mean(np.square(energy))) <= 5.33e-5
    assert np.sqrt(np.mean(np.square(forces))) <= 4.84e-3
