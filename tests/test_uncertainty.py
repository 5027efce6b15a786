# SPDX-License-Identifier: BSD-3-Clause
"""Standard deviations: the laws of linear error propagation, coverage where the truth is known, silicon, files."""

import doctest
import json

import numpy as np
import pytest

import mtp.uncertainty
from mtp.configurations import Labels, labels, read, with_labels, write
from mtp.errors import DataError, Error, FormatError
from mtp.fit import FitSettings, fit
from mtp.loss import Loss
from mtp.potential import Guard, Potential
from mtp.uncertainty import Posterior, calibration
from mtp.weights import Weights

NORMAL = np.array([0.6827, 0.9545])  # shares inside one and two standard deviations


@pytest.fixture(scope="module")
def truth(random_potential):
    return random_potential(("O", "Cu"), level=6, n_chebyshev=4, cutoff=4.0, seed=1)


@pytest.fixture(scope="module")
def posterior(truth):
    """Coefficients of random covariance, about a tenth of their size."""
    linear = n_linear(truth)
    rng = np.random.default_rng(3)
    spread = 0.1 * np.abs(truth.parameters[-linear:, None]) * rng.standard_normal((linear, linear))
    return Posterior(truth, spread @ spread.T / linear)


@pytest.fixture(scope="module")
def some(random_atoms):
    """Two compositions, so that the species' energies can be told apart."""
    kinds = (("O", "Cu"), ("O", "Cu", "Cu"))
    return [random_atoms(kinds[k % 2], seed=k, spacing=2.1 + 0.03 * k) for k in range(16)]


def n_linear(potential):
    return potential.facts.n_species + potential.facts.n_scalar


def labelled(potential, atoms, weights=None, rng=None):
    """Labels of a potential, with the noise whose inverse variances are the weights."""
    result, energy, forces = potential.evaluate(atoms), 0.0, 0.0
    if rng is not None:
        energy = rng.standard_normal() * np.sqrt(len(atoms) / weights.energy)
        forces = rng.standard_normal((len(atoms), 3)) / np.sqrt(weights.force)
    return with_labels(atoms, Labels(result.energy + energy, result.forces + forces, result.stress))


def shifted(potential, change):
    moved = potential.copy()
    moved.parameters = potential.parameters + np.pad(change, (len(potential.parameters) - len(change), 0))
    return moved


# ---- laws


def test_a_difference_of_a_configuration_and_itself_is_certain(posterior, some):
    same = posterior.difference([(1, some[0]), (-1, some[0])])
    assert same.value == 0
    assert same.std == 0
    # and of twice the cell and two cells, whose sums differ by rounding
    repeated = posterior.difference([(1, some[0].repeat((2, 1, 1))), (-2, some[0])])
    assert repeated.std < 1e-12 * posterior.energy(some[0]).std


def test_sums_and_differences_keep_the_correlations(posterior, some):
    values, covariance = posterior.energies(some[:3])
    c = np.array([1.0, -0.5, 2.0])
    combined = posterior.difference(list(zip(c, some[:3], strict=True)))
    # a dozen terms of one size are summed in another order
    assert combined.value == pytest.approx(c @ values, rel=1e-12)
    assert combined.std == pytest.approx(np.sqrt(c @ covariance @ c), rel=1e-12)
    assert values == pytest.approx([posterior.potential.evaluate(atoms).energy for atoms in some[:3]], rel=1e-12)
    for atoms, variance in zip(some, np.diag(covariance), strict=False):
        energy = posterior.energy(atoms)
        assert energy.std == pytest.approx(np.sqrt(variance), rel=1e-12)
        assert posterior.predict(atoms).energy.std == pytest.approx(energy.std, rel=1e-10)
        per_atom = posterior.energy_per_atom(atoms)
        assert (per_atom.value * len(atoms), per_atom.std * len(atoms)) == pytest.approx((energy.value, energy.std))


def test_forces_and_stresses_are_as_uncertain_as_differences_of_energies(posterior, some):
    atoms, h = some[2], 1e-4
    forces = posterior.forces(atoms).std
    for i, axis in ((0, 0), (5, 2)):
        ends = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[i, axis] += sign * h
            ends.append((sign / (2 * h), moved))
        # second order in h: h² times a third derivative of some 1e3 per Å², of the force
        assert posterior.difference(ends).std == pytest.approx(forces[i, axis], rel=1e-4)
    ends = []
    for sign in (-1, 1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ np.diag([1, 1 + sign * h, 1]), scale_atoms=True)
        ends.append((sign / (2 * h * atoms.get_volume()), strained))
    assert posterior.difference(ends).std == pytest.approx(posterior.stress(atoms).std[1], rel=1e-4)


def test_rotations_and_the_order_of_atoms_change_nothing(posterior, some, rotation):
    atoms = some[4]
    expected = posterior.predict(atoms)
    turned = atoms.copy()
    turn = rotation(5)
    turned.set_cell(atoms.cell @ turn.T)
    turned.positions = atoms.positions @ turn.T
    order = np.random.default_rng(0).permutation(len(atoms))
    for other, of in ((turned, slice(None)), (atoms[order], order)):
        found = posterior.predict(other)
        assert found.energy.std == pytest.approx(expected.energy.std, rel=1e-10)  # rounding in sums of large terms
        variance = (found.forces.std**2).sum(axis=1)  # the trace of an atom's covariance
        assert variance == pytest.approx((expected.forces.std[of] ** 2).sum(axis=1), rel=1e-10)


def test_an_ensemble_spreads_as_the_standard_deviations_say(posterior, some):
    n = 2000
    drawn = posterior.sample(n, seed=1)
    linear = n_linear(posterior.potential)
    coefficients = np.array([potential.parameters for potential in drawn])
    assert (coefficients[:, :-linear] == posterior.potential.parameters[:-linear]).all()
    # an element of a covariance of n draws scatters by √2 of the variances over √n at most: five times that
    error = 5 * np.sqrt(2 / n)
    size = np.sqrt(np.diag(posterior.covariance))
    found = np.cov(coefficients[:, -linear:].T)
    np.testing.assert_array_less(np.abs(found - posterior.covariance), error * np.outer(size, size))
    expected = posterior.predict(some[0])
    results = [potential.evaluate(some[0]) for potential in drawn]
    for name, std in (
        ("energy", expected.energy.std),
        ("forces", expected.forces.std),
        ("stress", expected.stress.std),
    ):
        spread = np.std([getattr(result, name) for result in results], axis=0)
        np.testing.assert_allclose(spread, std, rtol=error)
    again = posterior.sample(3, seed=1)
    assert all((a.parameters == b.parameters).all() for a, b in zip(again, drawn, strict=False))


def test_no_stress_is_given_where_there_is_none(posterior, random_atoms):
    assert posterior.stress(random_atoms(("Cu", "O"), pbc=False)) is None


# ---- where the truth is known


def test_noise_of_known_size_is_covered_as_a_normal_distribution_says(truth, some):
    weights = Weights(energy=1e4, force=1e3, stress=0)
    train, unseen = some[:6], some[6:]
    posterior = Posterior.from_noise(truth, [labelled(truth, atoms) for atoms in train], weights)
    rows, stds = [], []
    for atoms in train:
        derivatives = truth.jacobian(atoms, linear_only=True)
        rows += [derivatives.energy[None], derivatives.forces]
        stds += [np.sqrt(len(atoms) / weights.energy), *np.full(3 * len(atoms), weights.force**-0.5)]
    draws, stds = 2000, np.array(stds)
    noise = np.random.default_rng(0).standard_normal((len(stds), draws))
    # of fits to labels with this noise
    changes = np.linalg.lstsq(np.concatenate(rows) / stds[:, None], noise, rcond=None)[0].T
    predicted = [posterior.predict(atoms) for atoms in unseen]
    inside = []
    for draw, change in enumerate(changes):
        # two numbers of each draw, for all of one draw depend on each other
        found, exact = shifted(truth, change).evaluate(unseen[draw % len(unseen)]), predicted[draw % len(unseen)]
        errors = [found.energy - exact.energy.value, (found.forces - exact.forces.value)[0, 0]]
        inside.append(np.abs(errors) < np.outer((1, 2), [exact.energy.std, exact.forces.std[0, 0]]))
    # the distances are χ² of n degrees of freedom, the shares binomial: four standard errors
    n = len(posterior.covariance)
    distances = np.einsum("ki,ij,kj->k", changes, np.linalg.inv(posterior.covariance), changes)
    assert distances.mean() == pytest.approx(n, abs=4 * np.sqrt(2 * n / draws))
    error = 4 * np.sqrt(NORMAL * (1 - NORMAL) / draws)
    for shares in np.mean(inside, axis=0).T:
        np.testing.assert_array_less(np.abs(shares - NORMAL), error)


def test_coefficients_that_vary_between_data_are_found(truth, posterior, random_atoms):
    """Every configuration is labelled with coefficients of its own, what `from_data` assumes."""
    rng = np.random.default_rng(7)
    drawn = [random_atoms(("O", "Cu"), seed=100 + k, spacing=2.1 + 0.006 * k) for k in range(200)]
    drawn = [labelled(p, atoms) for p, atoms in zip(posterior.sample(len(drawn), seed=5), drawn, strict=True)]
    rng.shuffle(drawn)
    train, unseen = drawn[:100], drawn[100:]
    weights = Weights(stress=0)
    fitted = fit(train, FitSettings(level=6, cutoff=4.0, weights=weights, iterations=0, threads=1), initial=truth)
    found = {c.quantity: c for c in calibration(Posterior.from_data(fitted, train, weights), {"unseen": unseen})}
    # binomial error of 100 configurations, whose forces depend on each other, twice: that of the estimate comes in
    error = 4 * np.sqrt(2 * NORMAL * (1 - NORMAL) / 100)
    for quantity in ("energy_per_atom", "force"):
        np.testing.assert_array_less(np.abs(found[quantity].within - NORMAL), error)
        assert found[quantity].rms_std == pytest.approx(found[quantity].rms_error, rel=0.35)  # squares have heavy tails


def test_a_form_that_cannot_follow_its_data_knows_about_its_errors(random_atoms, random_potential):
    truth = random_potential(("Cu",), level=12, seed=4)
    data = [labelled(truth, random_atoms(("Cu",), seed=k, spacing=2.1 + 0.01 * (k % 40))) for k in range(160)]
    train, unseen = data[:80], data[80:]
    weights = Weights(stress=0)
    settings = FitSettings(level=6, cutoff=4.5, min_distance=1.2, weights=weights, iterations=10, threads=1)
    fitted = fit(train, settings)
    naive = Posterior(fitted, np.zeros((n_linear(fitted),) * 2))
    for c in calibration(Posterior.from_data(fitted, train, weights), {"unseen": unseen}):
        # errors of a form are not normal: a loose band, which the scale of the errors must hit within 1.7 or so
        assert 0.5 < c.within[0] < 0.95
        assert c.within[1] > 0.85
        assert c.rms_std == pytest.approx(c.rms_error, rel=0.7)
    # the textbook's distribution, even with the scale of the errors as noise, is far too narrow
    rms = {c.quantity: c.rms_error for c in calibration(naive, {"train": train})}
    noise = Weights(energy=1 / (8 * rms["energy_per_atom"] ** 2), force=rms["force"] ** -2, stress=0)
    naive = Posterior.from_noise(fitted, train, noise)
    assert np.mean([naive.energy(atoms).std < 0.4 * rms["energy_per_atom"] * len(atoms) for atoms in unseen]) > 0.9


def test_the_cross_validation_minimises_the_loss_of_the_fit(truth, some):
    data = [labelled(truth, atoms) for atoms in some[:7]]
    data[3].info["weight"] = 2.5
    weights = Weights(energy=2.0, force=0.03, stress=0.01)
    training = mtp.uncertainty._Training(truth, data, weights, None)
    matrix = Loss(truth, data, weights).linear(truth.parameters).matrix
    np.testing.assert_allclose(training.matrices.sum(axis=0) / len(data), matrix, rtol=1e-10, atol=1e-10 * matrix.max())


def test_a_fit_without_errors_is_certain(truth, some):
    data = [labelled(truth, atoms) for atoms in some]
    posterior = Posterior.from_data(truth, data)
    assert posterior.energy(some[0]).std < 1e-8  # rounding of the labels, 1e-12, times a condition of some 1e3
    assert np.isfinite(posterior.covariance).all()


def test_what_the_data_do_not_determine_is_uncertain(random_potential, random_atoms):
    """In data of one composition the two species' energies cannot be told apart: their sum is known, no other is."""
    truth = random_potential(("O", "Cu"), level=4, n_chebyshev=4, cutoff=4.0, seed=1)
    data = [labelled(truth, random_atoms(("O", "Cu"), seed=k)) for k in range(20)]
    weights = Weights(energy=1e4, force=1e3, stress=0)
    posterior = Posterior.from_noise(truth, data, weights)
    assert posterior.energy_per_atom(data[0]).std < 0.01
    oxygen = data[0].copy()
    oxygen.symbols = ["O"] * len(oxygen)
    assert posterior.energy_per_atom(oxygen).std > 1.0


# ---- silicon


def test_errors_for_unseen_silicon_are_covered(shared_data):
    folder = shared_data / "mlearn"
    train, unseen = (read(folder / f"Si_{name}.extxyz") for name in ("train", "test"))
    weights = Weights(stress=0)
    fitted = fit(train, FitSettings(level=8, weights=weights, iterations=8))
    found = calibration(Posterior.from_data(fitted, train, weights), {"test": unseen})
    assert {c.group for c in found} == {"all", "AIMD-NVT", "Elastic", "Surface", "Vacancy"}
    for c in found:
        if c.group == "all":  # 72 and 100 %, 76 and 93 % were measured
            assert 0.6 < c.within[0] < 0.9
            assert c.within[1] > 0.9
            assert c.correlation > 0.2


# ---- files and refusals


def test_a_saved_posterior_is_read_with_its_potential(posterior, some, tmp_path):
    posterior.potential.save(tmp_path / "a.mtp")
    posterior.save(tmp_path / "a.posterior.npz")
    read_again = Posterior.load(tmp_path / "a.posterior.npz", Potential.load(tmp_path / "a.mtp"))
    assert (read_again.covariance == posterior.covariance).all()
    assert read_again.noise == posterior.noise
    # the potential's file keeps 16 digits, each parameter to 5e-16; the energy's terms add up to at most twice its size
    again, first = read_again.energy(some[0]), posterior.energy(some[0])
    assert again.value == pytest.approx(first.value, rel=1e-14)
    assert again.std == pytest.approx(first.std, rel=1e-14)


def test_a_posterior_of_another_potential_is_refused(posterior, tmp_path):
    posterior.save(tmp_path / "a.posterior.npz")
    linear = n_linear(posterior.potential)
    scaled = posterior.potential.copy()
    scaled.set_scaling(2 * posterior.potential.facts.scaling)
    other = posterior.potential.copy()
    other.species = ["Cu", "O"]
    windows = np.broadcast_to([0.8, 1.4], (2, 2, 2))
    guarded = posterior.potential.copy()
    guarded.guard = Guard(windows, windows)
    for wrong in (shifted(posterior.potential, np.full(linear, 1e-12)), scaled, other, guarded):
        with pytest.raises(Error, match=r"a\.posterior\.npz: belongs to another potential"):
            Posterior.load(tmp_path / "a.posterior.npz", wrong)


def test_a_posterior_belongs_to_the_potential_with_its_guard(posterior, tmp_path):
    guarded = posterior.potential.copy()
    windows = np.broadcast_to([0.8, 1.4 + 1 / 7], (2, 2, 2))
    guarded.guard = Guard(windows, windows)
    guarded.save(tmp_path / "a.mtp")
    Posterior(guarded, posterior.covariance).save(tmp_path / "a.posterior.npz")
    read_again = Posterior.load(tmp_path / "a.posterior.npz", Potential.load(tmp_path / "a.mtp"))
    assert (read_again.covariance == posterior.covariance).all()
    for wrong in (None, Guard(windows + 0.1, windows)):
        guarded.guard = wrong
        with pytest.raises(Error, match="belongs to another potential"):
            Posterior.load(tmp_path / "a.posterior.npz", guarded)


def test_damaged_files_and_wrong_arguments_are_refused(posterior, some, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 garbage")
    (tmp_path / "b.npz").write_text("garbage")
    np.savez(tmp_path / "c.npz", covariance=np.eye(3))
    for name in ("a", "b", "c"):
        with pytest.raises(FormatError, match=rf"{name}\.npz: is no posterior"):
            Posterior.load(tmp_path / f"{name}.npz", posterior.potential)
    with pytest.raises(Error, match="cannot be read: No such file"):
        Posterior.load(tmp_path / "d.npz", posterior.potential)
    with pytest.raises(Error, match=r"written as \.npz"):
        posterior.save(tmp_path / "a.txt")
    for wrong in (np.eye(2), np.full(posterior.covariance.shape, np.nan)):
        with pytest.raises(Error, match="finite"):
            Posterior(posterior.potential, wrong)
    data = [labelled(posterior.potential, atoms) for atoms in some[:2]]
    with pytest.raises(Error, match="two configurations"):
        Posterior.from_data(posterior.potential, data[:1])
    with pytest.raises(DataError, match="no energy, no forces and no stress"):
        Posterior.from_data(posterior.potential, some[:2])
    with pytest.raises(Error, match="give a positive one"):
        Posterior.from_data(posterior.potential, data, Weights(energy=0, force=0, stress=0))


def test_the_examples_of_the_documentation_run():
    assert doctest.testmod(mtp.uncertainty).failed == 0


# ---- the command


def test_the_command_prints_the_calibration_and_evaluate_adds_standard_deviations(
    mtp, tmp_path, random_atoms, random_potential, truth
):
    data = [labelled(truth, random_atoms(("O", "Cu"), seed=k, spacing=2.1 + 0.02 * k)) for k in range(16)]
    for k, atoms in enumerate(data):
        atoms.info["config_type"] = ("wide", "narrow")[k < 8]
    write(tmp_path / "train.extxyz", data[::2])
    write(tmp_path / "test.extxyz", data[1::2])
    settings = FitSettings(level=4, cutoff=4.0, min_distance=1.2, iterations=3, weights=Weights(stress=0))
    fit(data[::2], settings).save(tmp_path / "a.mtp")
    options = ["--train", "train.extxyz", "--validation", "test.extxyz", "--stress-weight", "0", "--json", "u.json"]
    done = mtp(tmp_path, "uncertainty", "a.mtp", *options)
    assert done.returncode == 0, done.stderr
    for word in ("inside 1σ", "validation", "narrow", "wide", "force (eV/Å)", "wrote a.posterior.npz"):
        assert word in done.stdout
    found = json.loads((tmp_path / "u.json").read_text())
    posterior = Posterior.load(tmp_path / "a.posterior.npz", Potential.load(tmp_path / "a.mtp"))
    test = read(tmp_path / "test.extxyz", ["O", "Cu"])
    row = next(c for c in calibration(posterior, {"validation": test}) if c.group == "wide")
    written = [c for c in found["calibration"] if (c["data"], c["group"]) == ("validation", "wide")]
    assert written[0]["within"] == list(row.within)
    assert written[0]["rms_std"] == pytest.approx(row.rms_std)

    options = ["--posterior", "a.posterior.npz", "-o", "predicted.extxyz", "--json", "e.json"]
    done = mtp(tmp_path, "evaluate", "a.mtp", "test.extxyz", *options)
    assert done.returncode == 0, done.stderr
    assert "inside 2σ" in done.stdout
    summary = json.loads((tmp_path / "e.json").read_text())
    for k, (atoms, predicted) in enumerate(zip(test, read(tmp_path / "predicted.extxyz"), strict=True)):
        estimate = posterior.predict(atoms)
        assert predicted.info["energy_std"] == pytest.approx(estimate.energy.std)
        assert summary["energy_std_eV"][k] == pytest.approx(estimate.energy.std)
        np.testing.assert_allclose(predicted.arrays["force_std"], estimate.forces.std, atol=1e-8)  # digits of extxyz
        assert labels(predicted).energy == pytest.approx(estimate.energy.value)

    random_potential(("O", "Cu"), level=4).save(tmp_path / "b.mtp")
    done = mtp(tmp_path, "evaluate", "b.mtp", "test.extxyz", "--posterior", "a.posterior.npz")
    assert done.returncode == 1
    assert "belongs to another potential" in done.stderr
