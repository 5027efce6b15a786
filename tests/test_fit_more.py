# SPDX-License-Identifier: BSD-3-Clause
"""What fits offer besides: growth, fixed parts, regularisation, validation, interruption, ranks, memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mtp.configurations import Labels, with_labels, write
from mtp.errors import DataError, Error
from mtp.fit import FitSettings, fit, split
from mtp.loss import Loss
from mtp.optimiser import Roughness, solve
from mtp.potential import Potential
from mtp.starting_point import in_form_of, roughness_of_basis
from mtp.weights import Weights

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def truth(random_potential):
    return random_potential(("O", "Cu"), level=6, n_chebyshev=4, cutoff=4.0, seed=1)


@pytest.fixture(scope="module")
def data(truth, random_atoms):
    made = [random_atoms(("O", "Cu"), seed=k, spacing=2.1 + 0.03 * k) for k in range(12)]
    rng = np.random.default_rng(5)
    for k, atoms in enumerate(made):
        result = truth.evaluate(atoms)
        noise = 0.01 * rng.standard_normal(result.forces.shape)
        made[k] = with_labels(atoms, Labels(result.energy, result.forces + noise, result.stress))
        made[k].info["config_type"] = "even" if k % 2 == 0 else "odd"
    return made


def settings(**changes):
    values = {"level": 6, "cutoff": 4.0, "radial_basis_size": 4, "min_distance": 1.2, "tolerance": 1e-12}
    return FitSettings(**{**values, "iterations": 4, "threads": 1, **changes})


def losses(configurations, chosen, **keywords):
    steps = []
    return fit(configurations, chosen, progress=steps.append, **keywords), [step.loss for step in steps]


# ---- from one potential to another form


def test_a_form_that_is_kept_keeps_its_radial_functions(truth):
    same = in_form_of(truth, Potential.new(6, ["O", "Cu"], 4.0, 1.2, 4), seed=3)
    r = np.linspace(1.0, 4.2, 50)
    np.testing.assert_allclose(same.radial_functions(r), truth.radial_functions(r), atol=1e-9)


def test_a_larger_form_reproduces_the_radial_functions_of_the_smaller(truth):
    grown = in_form_of(truth, Potential.new(12, ["Cu", "O", "H"], 4.0, 1.1, 12), seed=3)
    r = np.linspace(1.2, 3.9, 50)
    old, new = truth.radial_functions(r), grown.radial_functions(r)
    # polynomials of a lower degree on another interval: exact but for rounding
    np.testing.assert_allclose(new[:2, :2, :2], old[::-1, ::-1], atol=1e-7 * np.abs(old).max())
    assert np.abs(new[2, 2]).max() > 0
    assert not grown.parameters[-grown.facts.n_scalar :].any()


def test_raising_the_level_goes_on_from_what_is_known(data):
    small, _ = losses(data, settings(iterations=8))
    _, warm = losses(data, settings(level=8, iterations=0), initial=small)
    _, cold = losses(data, settings(level=8, iterations=0))
    assert warm[0] < cold[0]


def test_an_element_is_added_to_an_initial_potential(truth, data, random_atoms):
    new = random_atoms(("H", "Cu"), seed=40)
    new = with_labels(new, Labels(0.0, np.zeros((len(new), 3)), None))
    grown = fit([*data, new], settings(iterations=0), initial=truth)
    assert grown.species == ["O", "Cu", "H"]
    with pytest.raises(Error, match="give the level as well"):
        fit([*data, new], FitSettings(iterations=0), initial=truth)


# ---- parts that stay


def test_fixed_radial_functions_stay_and_the_linear_part_is_solved(truth, data):
    other = truth.copy()
    theta = other.parameters
    theta[-truth.facts.n_scalar :] = 0
    other.parameters = theta
    fitted, history = losses(data, settings(radial="fixed"), initial=other)
    n_linear = truth.facts.n_scalar + truth.facts.n_species
    np.testing.assert_array_equal(fitted.parameters[:-n_linear], truth.parameters[:-n_linear])
    assert len(history) == 1
    # noise of 0.01 eV/Å on some 300 forces, nothing else
    n = truth.facts.n_scalar  # of the species' energies the data, all of one composition, know the mean
    np.testing.assert_allclose(fitted.parameters[-n:], truth.parameters[-n:], rtol=0.1)
    means = [potential.parameters[-n_linear:-n].mean() for potential in (fitted, truth)]
    assert means[0] == pytest.approx(means[1], rel=1e-2)
    with pytest.raises(Error, match="wants an initial potential"):
        fit(data, settings(radial="fixed"))


def test_isolated_atoms_have_the_energies_that_are_given(data):
    fitted = fit(data, settings(species_energies={"O": -1.25, "Cu": 0.5}))
    for name, energy in {"O": -1.25, "Cu": 0.5}.items():
        assert fitted.evaluate(Atoms(name)).energy == pytest.approx(energy, abs=1e-12)
    part = fit(data, settings(species_energies={"O": -1.25}))
    assert part.evaluate(Atoms("O")).energy == pytest.approx(-1.25, abs=1e-12)
    with pytest.raises(Error, match="no element Si"):
        fit(data, settings(species_energies={"Si": 1.0}))


# ---- regularisation


def test_l2_regularisation_shrinks_the_linear_coefficients(data):
    n = fit(data, settings(iterations=0)).facts.n_scalar
    sizes = [np.linalg.norm(fit(data, settings(iterations=0, l2=l2)).parameters[-n:]) for l2 in (0, 1e-4, 1e-1)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_smoothness_lowers_the_roughness_of_the_radial_functions(data):
    roughness = []
    for smoothness in (0.0, 1e-4, 1e-2):
        fitted = fit(data, settings(iterations=6, smoothness=smoothness))
        facts = fitted.facts
        n_radial = facts.n_parameters - facts.n_species - facts.n_scalar
        roughness.append(Roughness(1.0, *roughness_of_basis(facts)).value(fitted.parameters[:n_radial]))
    assert roughness[0] > roughness[1] > roughness[2]


def test_the_roughness_is_that_of_the_functions(truth):
    facts = truth.facts
    r = np.linspace(facts.min_distance, facts.cutoff, 4001)
    f = truth.radial_functions(r).reshape(-1, len(r))
    xi = np.linspace(-1, 1, len(r))
    curvature = np.gradient(np.gradient(f, xi, axis=1), xi, axis=1)[:, 2:-2]
    expected = (np.trapezoid(curvature**2, xi[2:-2]) / np.trapezoid(f**2, xi)).sum()
    n_radial = facts.n_parameters - facts.n_species - facts.n_scalar
    found = Roughness(1.0, *roughness_of_basis(facts))
    radial = truth.parameters[:n_radial]
    assert found.value(radial) == pytest.approx(expected, rel=1e-2)  # second differences on a grid, ends left out
    direction = np.random.default_rng(0).standard_normal(n_radial)
    h = 1e-5
    slope = (found.value(radial + h * direction) - found.value(radial - h * direction)) / (2 * h)
    assert found.slope(radial) @ direction == pytest.approx(slope, rel=1e-6)


# ---- validation


def test_the_split_takes_its_share_of_each_group(data):
    train, held_out = split(data, 0.34, seed=1)
    assert len(train) + len(held_out) == len(data)
    for group in ("even", "odd"):
        assert sum(atoms.info["config_type"] == group for atoms in held_out) == 2
    assert [id(a) for a in split(data, 0.34, seed=1)[1]] == [id(a) for a in held_out]


def test_early_stopping_keeps_the_best_on_the_validation_data(data):
    steps = []
    chosen = settings(level=10, radial_basis_size=8, iterations=12, early_stop=2, validation_share=0.34)
    fitted = fit(data, chosen, progress=steps.append)
    watched = [step.validation_loss for step in steps]
    best = int(np.argmin(watched))
    assert len(steps) - 1 <= best + 2
    held_out = split(data, 0.34, chosen.seed)[1]
    reached = Loss(fitted, held_out, chosen.weights, threads=1).errors(fitted.parameters).loss
    assert reached == pytest.approx(min(watched), rel=1e-9)


def test_a_fit_ends_where_its_next_step_promises_little(data):
    """The promise is what is left to the minimum, up to a small factor (0.5 to 3 in docs/fitting.md)."""
    _, whole = losses(data, settings(iterations=60))
    for tolerance in (1e-1, 1e-2, 1e-3):
        _, ended = losses(data, settings(iterations=60, tolerance=tolerance))
        assert ended == whole[: len(ended)]
        assert 3 < len(ended) < len(whole)
        assert ended[-1] < (1 + 10 * tolerance) * min(whole)


# ---- interruption


def test_a_fit_that_is_resumed_ends_like_one_that_was_not_interrupted(data, tmp_path):
    class Killed(Exception):
        pass

    def kill(step):
        if step.iteration == 2:
            raise Killed

    file = tmp_path / "fit.checkpoint"
    whole, history = losses(data, settings(iterations=5), checkpoint=tmp_path / "other")
    with pytest.raises(Killed):
        fit(data, settings(iterations=5), progress=kill, checkpoint=file)
    resumed, rest = losses(data, settings(iterations=5), checkpoint=file, resume=True)
    np.testing.assert_array_equal(resumed.parameters, whole.parameters)
    assert rest == history[3:]
    assert list(tmp_path.iterdir()) == []  # checkpoints go when the fit is done


@pytest.mark.parametrize(("level", "iteration"), [(4, 2), (4, "last"), (None, 0), (None, 2)])
def test_a_fit_that_begins_at_a_lower_level_is_shown_and_resumed_there(data, tmp_path, monkeypatch, level, iteration):
    class Killed(Exception):
        pass

    def kill(step):
        before.append(step)
        if (step.level, step.iteration) == killed_at:
            raise Killed

    monkeypatch.setattr("mtp.fit.CLIMB_FROM", 4)
    chosen = settings(iterations=4)
    whole, before, after = [], [], []
    uninterrupted = fit(data, chosen, progress=whole.append)
    n_lower = sum(step.level == 4 for step in whole)  # the lower fit may end before its 20 iterations
    killed_at = level, n_lower - 1 if iteration == "last" else iteration
    with pytest.raises(Killed):
        fit(data, chosen, progress=kill, checkpoint=tmp_path / "fit.checkpoint")
    resumed = fit(data, chosen, progress=after.append, checkpoint=tmp_path / "fit.checkpoint", resume=True)
    np.testing.assert_array_equal(resumed.parameters, uninterrupted.parameters)
    shown = [(step.level, step.iteration, step.loss) for step in whole]
    assert [step[:2] for step in shown] == [(4, k) for k in range(n_lower)] + [(None, k) for k in range(5)]
    assert n_lower > 3
    assert [(step.level, step.iteration, step.loss) for step in [*before, *after]] == shown
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_refused(data, tmp_path):
    file = tmp_path / "fit.checkpoint"
    with pytest.raises(Error, match=r"no checkpoint to resume from"):
        fit(data, settings(), checkpoint=file, resume=True)

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, settings(), progress=stop, checkpoint=file)
    with pytest.raises(Error, match=r"of a fit with other settings;"):
        fit(data, settings(seed=7), checkpoint=file, resume=True)
    with pytest.raises(Error, match=r"of a fit with other data;"):
        fit(data[1:], settings(), checkpoint=file, resume=True)
    fit(data, settings(iterations=3), checkpoint=file, resume=True)  # how long may change
    file.write_bytes(b"PK\x03\x04rubbish")
    with pytest.raises(Error, match=r"the checkpoint is damaged"):
        fit(data, settings(), checkpoint=file, resume=True)


# ---- ranks, threads, memory


def test_the_memory_for_neighbour_lists_changes_nothing_but_speed(data):
    potential = fit(data, settings(iterations=0))
    theta = potential.parameters
    kept, found_anew = (Loss(potential, data, Weights(), 1, memory) for memory in (2.0, 1e-12))
    np.testing.assert_array_equal(kept.gauss_newton(theta).matrix, found_anew.gauss_newton(theta).matrix)
    assert kept.errors(theta).loss == found_anew.errors(theta).loss


def test_starts_are_compared_and_the_best_goes_on(data):
    single = [losses(data, settings(iterations=0, seed=seed))[1][0] for seed in (1, 2, 3)]
    assert len(set(single)) == 3
    _, several = losses(data, settings(iterations=1, starts=3))
    assert several[0] < min(single)


def test_polishing_never_raises_the_loss(data):
    _, plain = losses(data, settings(iterations=2))
    _, polished = losses(data, settings(iterations=2, polish=3))
    assert polished[:3] == plain
    assert len(polished) == 6
    assert (np.diff(polished[2:]) <= 0).all()
    assert polished[-1] < plain[-1]  # two iterations leave something to be found


SCRIPT = """
import sys
import mpi4py.MPI as MPI
import numpy as np
from mtp.configurations import read
from mtp.fit import FitSettings, fit
from mtp.summation import Ranks

ranks = Ranks(MPI.COMM_WORLD)
with ranks.lead() as leading:
    if leading:
        data = read("data.extxyz")
        chosen = FitSettings(level=6, cutoff=4.0, radial_basis_size=4, min_distance=1.2, iterations=4, threads=1)
        if len(sys.argv) > 2:
            from ase.calculators.singlepoint import SinglePointCalculator
            import mtp.fit
            results = data[7].calc.results
            data[7].positions[1] = data[7].positions[0] + 1e-8
            data[7].calc = SinglePointCalculator(data[7], **results)
            mtp.fit.check_distances = lambda atoms: None
        np.save(sys.argv[1], fit(data, chosen, ranks=ranks).parameters)
"""


@pytest.fixture
def script(data, tmp_path):
    write(tmp_path / "data.extxyz", data)
    (tmp_path / "ranks.py").write_text(SCRIPT)

    def run(n, *arguments):
        command = [BIN / "mpiexec", "-n", str(n), sys.executable, "ranks.py", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run


def test_any_number_of_ranks_finds_the_same_parameters(script, tmp_path):
    found = []
    for n in (1, 2, 3, 4):
        done = script(n, f"{n}.npy")
        assert done.returncode == 0, done.stderr
        found.append(np.load(tmp_path / f"{n}.npy"))
    for other in found[1:]:  # sums over bins in their order: the same bits
        np.testing.assert_array_equal(other, found[0])


def test_what_fails_on_another_rank_ends_the_fit_with_its_message(script):
    done = script(2, "x.npy", "bad")
    assert done.returncode != 0
    assert "data.extxyz#8" in done.stderr
    assert "same place" in done.stderr


def test_a_terminated_fit_leaves_a_checkpoint_to_resume_from(data, tmp_path):
    write(tmp_path / "data.extxyz", data)
    options = "--level 12 --cutoff 4 --min-dist 1.2 --threads 1 --no-report -o a.mtp"
    command = [BIN / "mtp", "fit", "data.extxyz", *options.split()]
    running = subprocess.Popen([*command, "--iterations", "500"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "a.checkpoint.npz"
    end = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert "mtp fit" in said
    assert "--resume" in said
    assert checkpoint.exists()
    assert not (tmp_path / "a.mtp").exists()
    done = subprocess.run([*command, "--iterations", "3", "--resume"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.mtp").exists()
    assert not checkpoint.exists()
    assert os.listdir(tmp_path).count("a.mtp") == 1


def test_data_without_energies_or_without_forces_are_fitted(data, truth):
    bare = []
    for k, atoms in enumerate(data):
        known = atoms.calc.results
        parts = (known["energy"], None, None) if k % 3 == 0 else (None, known["forces"], None)
        bare.append(with_labels(atoms, Labels(*parts)))
    _, history = losses(bare, settings(iterations=6))
    assert history[-1] < history[0]
    only_forces = [atoms for k, atoms in enumerate(bare) if k % 3]
    steps = []
    fit(only_forces, settings(), progress=steps.append)
    assert steps[-1].energy_rmse is None
    assert steps[-1].force_rmse is not None
    with pytest.raises(DataError, match="there are no configurations"):
        fit([], settings())


def test_a_step_is_found_where_elimination_has_left_rounding_errors():
    """Few data and many parameters: of the columns' squares (here 1) almost nothing is left, and that is indefinite."""
    left = 1e-13 * np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(Error, match="singular"):
        solve(left, np.array([1.0, 2.0]))
    damped = left + 1e-3 * np.eye(2)
    assert np.allclose(solve(damped, np.array([1.0, 2.0]), np.ones(2)), [1e3, 2e3], rtol=1e-9)
    assert np.all(np.isfinite(solve(left, np.array([1.0, 2.0]), np.ones(2))))
    worse = np.array([[1e-5, 3e-4], [3e-4, 1e-5]])  # as a linear block of 11 orders of magnitude leaves it
    with pytest.raises(Error, match="singular"):
        solve(worse, np.array([1.0, 2.0]))
    step = solve(worse, np.array([1.0, 2.0]), np.ones(2))
    assert step @ [1.0, 2.0] > 0  # downhill
