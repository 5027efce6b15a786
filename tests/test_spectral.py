# SPDX-License-Identifier: BSD-3-Clause
"""Green-Kubo integrals from spectra, and errors of means, cover what is known."""

from __future__ import annotations

import numpy as np
import pytest
from conductivity_toys import autoregressive, toy

from mtp.conductivity.green_kubo import _along
from mtp.conductivity.results import are_short, mean
from mtp.conductivity.settings import GreenKubo
from mtp.conductivity.spectral import cepstral, cross_spectra, running_integral
from mtp.errors import Error


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.97])
def test_the_error_of_the_spectrum_covers_what_is_known(phi):
    rng = np.random.default_rng(1)
    truth = 1 / (2 * (1 - phi) ** 2)
    found = [cepstral([autoregressive(rng, phi, 3000, 3) for _ in range(3)], 1.0) for _ in range(60)]
    deviations = np.array([(f.value - truth) / f.error for f in found])
    # of 60 normal ones 41 ± 4 lie within one and 57 ± 2 within two; the choice of the cut makes tails longer
    assert np.mean(np.abs(deviations) < 1) > 0.5
    assert np.mean(np.abs(deviations) < 2) > 0.8
    assert np.median([f.value for f in found]) == pytest.approx(truth, rel=0.08)
    assert np.median([f.error / f.value for f in found]) < 0.3


def test_a_narrow_peak_under_a_broad_background_is_found():
    rng = np.random.default_rng(2)
    truth = (25 / (1 - 0.7) ** 2 + 0.25 / (1 - 0.98) ** 2) / 2
    values = []
    for _ in range(30):
        runs = [5 * autoregressive(rng, 0.7, 8000, 3) + 0.5 * autoregressive(rng, 0.98, 8000, 3) for _ in range(3)]
        values.append(cepstral(runs, 1.0).value)
    assert np.median(values) == pytest.approx(truth, rel=0.1)


def test_longer_runs_have_smaller_errors():
    rng = np.random.default_rng(3)
    short, long = (np.median([relative(rng, n) for _ in range(20)]) for n in (500, 8000))
    assert long < short / 2


def relative(rng, n: int) -> float:
    found = cepstral([autoregressive(rng, 0.9, n, 3)], 1.0)
    return found.error / found.value


def test_a_known_cut_and_the_interval_are_heeded():
    series = [autoregressive(np.random.default_rng(4), 0.5, 4000, 3)]
    whole, half = cepstral(series, 0.01), cepstral(series, 0.01, cut=20.0)
    assert whole.frequencies[-1] == pytest.approx(50.0)
    assert half.cut.frequency == pytest.approx(20.0, abs=0.1)
    assert abs(whole.value - half.value) < 3 * (whole.error + half.error)
    assert cepstral(series, 1.0).value == pytest.approx(100 * whole.value)
    assert cepstral(series, 1.0, n_coefficients=7).cut.n_coefficients == 7


def test_runs_alone_scatter_about_the_whole():
    """With the same cut and number of coefficients, so that the scatter is that of the value and not of a choice."""
    rng = np.random.default_rng(10)
    series = [autoregressive(rng, 0.95, 3000, 3) for _ in range(8)]
    cut = cepstral(series, 1.0).cut
    alone = [cepstral([run], 1.0, cut.frequency, cut.n_coefficients).value for run in series]
    assert abs(np.mean(alone) - cut.value) < 2.5 * np.std(alone, ddof=1) / np.sqrt(8)


def test_a_current_of_particles_is_taken_out():
    """J + c V with an independent V: at vanishing V what is left is J, whatever c is."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(20):
        runs = []
        for _ in range(4):
            heat, particles = autoregressive(rng, 0.8, 3000, 3), autoregressive(rng, 0.9, 3000, 3)
            runs.append(np.stack([heat + 7 * particles, particles], axis=1))
        found.append(cepstral(runs, 1.0))
    truth = 1 / (2 * 0.2**2)
    assert np.median([f.value for f in found]) == pytest.approx(truth, rel=0.08)
    assert np.mean([abs(f.value - truth) < 2 * f.error for f in found]) >= 0.8


@pytest.mark.parametrize(("currents", "runs"), [(2, 1), (3, 2)])
def test_few_series_of_several_currents_are_not_biased(currents, runs):
    """Heat that is mixed with currents of particles, from three and six series."""
    rng = np.random.default_rng(11)
    logs = []
    for _ in range(150):
        series = []
        for _ in range(runs):
            heat, *others = (autoregressive(rng, 0.5, 1000, 3) for _ in range(currents))
            series.append(np.stack([heat + sum(others), *others], axis=1))
        logs.append(np.log(cepstral(series, 1.0, n_coefficients=8).cuts[-1].value * 2 * 0.5**2))
    # the mean of the logarithm has no bias; its error here is 0.01, and a degree of freedom counts 0.1 and more
    assert abs(np.mean(logs)) < 3 * np.std(logs, ddof=1) / np.sqrt(150)
    assert np.std(logs) / np.sqrt(150) < 0.02


def test_the_running_integral_reaches_what_is_known():
    rng = np.random.default_rng(6)
    running = running_integral([autoregressive(rng, 0.9, 20000, 3) for _ in range(8)], 1.0, 200)
    # the trapezoidal rule leaves half of ⟨J²⟩ at the start as it should be: the sum over all lags is S(0)
    assert abs(running.values[running.end] - 50) < 3 * running.errors[running.end]
    assert running.reached
    assert 20 < running.times[running.end] < 200


@pytest.mark.parametrize(("phi", "short"), [(0.5, False), (0.99, True)], ids=["long", "short"])
def test_a_run_too_short_for_its_correlations_has_a_wider_error(tmp_path, phi, short):
    """4000 samples are 2000 correlation times, and 40."""
    rng = np.random.default_rng(12)
    series = [autoregressive(rng, phi, 4000, 3)[:, None] for _ in range(4)]
    found = _along(toy(GreenKubo, tmp_path), series, 1.0)
    before = max(found["error_of_the_spectrum"], found["error_from_run_to_run"])
    if short:
        assert found["kappa"]["error"] > 1.05 * before
        assert found["running"].reached is False or 100 * found["running_integral"]["end_ps"] > 4000
    else:
        assert found["kappa"]["error"] == before
    assert bool(found["error_of_short_runs"]) == short


def test_the_periodogram_holds_the_variance():
    series = np.random.default_rng(7).standard_normal((1000, 1, 3))
    spectra, count = cross_spectra([series], 0.5)
    total = 2 * spectra[:, 0, 0].sum() - spectra[0, 0, 0] - spectra[-1, 0, 0]
    assert count == 3
    assert 2 * total / (1000 * 0.5) == pytest.approx(np.mean(series**2))


def test_too_few_samples_and_too_many_currents_are_refused():
    series = np.random.default_rng(8).standard_normal((20, 1, 3))
    with pytest.raises(Error, match="make them longer"):
        cepstral([series], 1.0)
    with pytest.raises(Error, match="raise `runs`"):
        cepstral([np.zeros((1000, 3, 3))], 1.0)


@pytest.mark.parametrize(("n", "runs"), [(3000, 2), (450, 1), (60, 1), (60, 2)])
def test_the_error_of_a_mean_covers_what_is_known(n, runs):
    """The correlation time is 20: from 150 times as long to three times as long."""
    rng = np.random.default_rng(9)
    sets = [[3 + run for run in autoregressive(rng, 0.95, n, runs).T] for _ in range(100)]
    found = [(mean(several, 0.1, short), short) for several in sets for short in [are_short([several], 0.1)]]
    deviations = np.array([abs(kappa["value"] - 3) / kappa["error"] for kappa, _ in found])
    # normal ones: 0.68 and 0.95, of 100 to 0.05 and 0.02; the spectra of short runs scatter, and so do errors
    assert np.mean(deviations < 1) > 0.58
    assert np.mean(deviations < 2) > (0.75 if n == 60 else 0.88)
    short = np.mean([short for _, short in found])
    assert short > 0.3 if n == 60 else short < 0.1


@pytest.mark.parametrize(("n", "least", "most"), [(3000, 0.0, 0.03), (60, 0.7, 1.0)])
def test_runs_in_several_fields_are_judged_together(n, least, most):
    """In two fields, three runs each: of 150 correlation times (one in a hundred was measured), and of three."""
    rng = np.random.default_rng(10)
    told = [are_short([list(size * autoregressive(rng, 0.95, n, 3).T) for size in (1, 5)], 0.1) for _ in range(100)]
    assert least <= np.mean(told) <= most


def test_the_error_of_a_mean_does_not_vanish_where_one_run_hides_it():
    """About its own mean, a run has no fluctuation at frequency zero at all."""
    series = autoregressive(np.random.default_rng(13), 0.9, 400, 1)[:, 0]
    short = are_short([[series]], 1.0)
    found = mean([series], 1.0, short)
    assert found["error"] > 0.5 * np.sqrt(2 * 50 / 400)  # of the Green-Kubo integral that is known
    assert not short
