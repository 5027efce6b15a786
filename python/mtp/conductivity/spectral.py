# SPDX-License-Identifier: BSD-3-Clause
"""Green-Kubo integrals of sampled currents, with errors: cepstral analysis, and the running integral beside it.

The integral ∫_0^∞ ⟨J(t) J(0)⟩ dt is half the spectrum at frequency zero, S(0). The logarithm of a periodogram is that
of the spectrum plus noise of known mean and variance, alike at all frequencies. Of its Fourier coefficients, the
cepstrum, the first hold the spectrum and the others noise alone; leaving these out gives S(0) with its variance [1].

Two numbers must be chosen: up to which frequency the spectrum is used, and how many coefficients are. Akaike's
criterion (AIC) finds how many describe the logarithm of the whole spectrum best. At frequency zero, where what is left
out adds up with one sign, that is too few: with its number alone, S(0) of autoregressive processes came out up to half
too small. So twice as many are kept. Among the cuts of frequency, from the lowest on, those are taken whose intervals
of one standard error still share a point (Lepski's rule [3]): what a too high cut smears out would leave it. The result
is their weighted mean, and its error that at the highest of them, with their scatter.

1. Ercole, Marcolongo, Baroni, Sci. Rep. 7, 15835 (2017): one current.
2. Bertossa, Grasselli, Ercole, Baroni, Phys. Rev. Lett. 122, 255901 (2019): several currents.
3. Lepski, Theory Probab. Appl. 35, 454 (1991).
4. Chen, Zhang, Li, Phys. Lett. A 374, 2392 (2010): where to end the running integral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from mtp.errors import Error

LEAST_POINTS = 12  # frequencies below a cut


@dataclass
class Cut:
    """What the spectrum below one frequency gives.

    Attributes:
        frequency: in one by the unit of the interval between samples.
        value, error: of half the spectrum at frequency zero.
        n_coefficients: of the cepstrum.
        smooth: (K,), the spectrum of those coefficients, S(f) / 2.
    """

    frequency: float
    value: float
    error: float
    n_coefficients: int
    smooth: np.ndarray


@dataclass
class Cepstral:
    """A Green-Kubo integral from the cepstrum.

    Attributes:
        value, error: S(0) / 2 in the square of the current's unit times the interval's, and its standard error.
        frequencies, spectrum: the averaged periodogram, S(f) / 2.
        cuts: from the lowest to the highest.
        n_agreeing: how many of them, from the lowest on, the value comes from.
    """

    value: float
    error: float
    frequencies: np.ndarray
    spectrum: np.ndarray
    cuts: list[Cut]
    n_agreeing: int

    @property
    def cut(self) -> Cut:
        """The highest that agrees with those below."""
        return self.cuts[self.n_agreeing - 1]


def cross_spectra(series: Sequence[np.ndarray], interval: float) -> tuple[np.ndarray, int]:
    """The averaged periodograms, and of how many they are the average.

    Args:
        series: of each run (n, currents, components), all of the same length. Components are equivalent.
        interval: between samples.

    Returns:
        (n // 2 + 1, currents, currents), S(f) / 2 of each pair; and the number of runs and components.
    """
    total, count = 0, 0
    for run in series:
        transformed = np.fft.rfft(run, axis=0)
        total = total + np.einsum("fai,fbi->fab", transformed, transformed.conj()).real
        count += run.shape[2]
    return total * interval / (2 * len(series[0]) * count), count


def cepstral(
    series: Sequence[np.ndarray],
    interval: float,
    cut: float | None = None,
    n_coefficients: int | None = None,
    mean_is_zero: bool = True,
) -> Cepstral:
    """The Green-Kubo integral of the first current, where the others are held at zero.

    Args:
        series: of each run (n, currents, components), or (n, components) for one current; of differing lengths the
            first samples are used. Components are equivalent: their spectra are averaged.
        interval: between samples.
        cut: use the spectrum below this frequency alone.
        n_coefficients: of the cepstrum, in place of twice what AIC finds.
        mean_is_zero: known to be; else a run tells nothing at frequency zero, which takes its neighbour's place.

    Raises:
        Error: too few samples, or too few runs and components for the number of currents.
    """
    series = [run if run.ndim == 3 else run[:, None] for run in series]
    n = min(map(len, series))
    spectra, count = cross_spectra([run[:n] for run in series], interval)
    others = spectra.shape[1] - 1
    if others and count < others + 2:
        raise Error(
            f"{others + 1} currents need more runs times equivalent directions than that, and there are {count}: raise "
            "`runs`"
        )
    # what is left of the first current's spectrum when its correlation with the others is taken out [2]
    spectrum = 1 / np.linalg.inv(spectra)[:, 0, 0] if spectra.shape[1] > 1 else spectra[:, 0, 0]
    frequencies = np.arange(len(spectrum)) / (n * interval)
    highest = len(spectrum) - 1
    if cut is not None:
        highest = min(highest, int(np.searchsorted(frequencies, cut, side="right")) - 1)
    if highest < LEAST_POINTS:
        raise Error(
            f"runs of {n} samples have {highest} frequencies to analyse, and at least {LEAST_POINTS} are needed: make "
            "them longer" + ("" if cut is None else " or raise `cut_frequency`")
        )
    n_cuts = 1 if cut is not None else 1 + int(2 * np.log2(highest / LEAST_POINTS))
    places = sorted({int(highest / 2 ** (k / 2)) for k in range(n_cuts)})
    if not mean_is_zero:
        spectrum[0] = spectrum[1]
    real = [0] if mean_is_zero else []
    cuts = [_below(frequencies, spectrum, place, count, others, n, n_coefficients, real) for place in places]
    return _agreeing(cuts, frequencies, spectrum)


def _below(
    frequencies: np.ndarray,
    spectrum: np.ndarray,
    last: int,
    count: int,
    others: int,
    n: int,
    kept: int | None,
    real: list[int],
) -> Cut:
    """From the frequencies up to number `last`. Their noise is that of χ² over 2 `count`, of 2 `count` degrees less one
    for each of the `others`, the currents taken out: real and imaginary parts are summed before these are. Where the
    transform is real, at the numbers `real` and the highest, it is χ² over `count`, of `count` degrees less the
    `others`."""
    freedom = count - others / 2
    bias = np.full(last + 1, digamma(freedom) - np.log(count))
    bias[[*real, last] if 2 * last == n else real] = digamma((count - others) / 2) + np.log(2 / count)
    variance = float(polygamma(1, freedom))
    period = 2 * last
    cepstrum = np.fft.irfft(np.log(spectrum[: last + 1]) - bias, period)[: last + 1]

    tails = np.cumsum(cepstrum[::-1] ** 2)[::-1]
    criterion = period / variance * tails[1:] + 2 * np.arange(1, last + 1)
    kept = min(kept or 2 * (int(criterion.argmin()) + 1), last)
    cepstrum[kept:] = 0
    value = float(np.exp(cepstrum[0] + 2 * cepstrum[1:].sum()))
    error = value * float(np.sqrt(variance / period * (4 * kept - 2)))
    smooth = np.exp(np.fft.rfft(np.concatenate([cepstrum, cepstrum[-2:0:-1]])).real)
    return Cut(float(frequencies[last]), value, error, kept, smooth)


def _agreeing(cuts: list[Cut], frequencies: np.ndarray, spectrum: np.ndarray) -> Cepstral:
    logs = np.log([cut.value for cut in cuts])
    errors = np.array([cut.error / cut.value for cut in cuts])
    shared = np.maximum.accumulate(logs - errors) <= np.minimum.accumulate(logs + errors)
    n = len(cuts) if shared.all() else int(shared.argmin())
    weights = errors[:n] ** -2 / np.sum(errors[:n] ** -2)
    log = weights @ logs[:n]
    error = np.sqrt(errors[n - 1] ** 2 + weights @ (logs[:n] - log) ** 2)
    value = float(np.exp(log))
    return Cepstral(value, float(error * value), frequencies, spectrum, cuts, n)


@dataclass
class Running:
    """Integrals of the current's autocorrelation up to growing times.

    Attributes:
        times: (m,).
        values, errors: (m,), mean over runs and components, and its standard error.
        end: index of the time from which on the autocorrelation is noise; else the last.
        reached: whether it becomes noise; None for a single series, which does not tell.
    """

    times: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    end: int
    reached: bool | None


def running_integral(series: Sequence[np.ndarray], interval: float, longest: float) -> Running:
    """Of one current, up to the time `longest`. series: of each run (n, components), components being equivalent.

    The end is where, in time windows that each double the time, the autocorrelation is for the first time no larger
    than its standard error over runs and components, as in [4].
    """
    n_lags = max(2, min(round(longest / interval), min(map(len, series)) // 2))
    functions = np.concatenate([autocorrelation(run, n_lags) for run in series], axis=1)
    integrals = interval * (np.cumsum(functions, axis=0) - (functions + functions[0]) / 2)  # trapezoidal rule
    root = np.sqrt(functions.shape[1])
    end, start = n_lags - 1, 1
    reached = False if functions.shape[1] > 1 else None
    while reached is False and 2 * start <= n_lags:
        window = functions[start : 2 * start].mean(axis=0)
        if start >= 4 and window.mean() < window.std(ddof=1) / root:
            end, reached = start, True
        start *= 2
    errors = integrals.std(axis=1, ddof=1) / root if functions.shape[1] > 1 else np.full(n_lags, np.nan)
    return Running(interval * np.arange(n_lags), integrals.mean(axis=1), errors, end, reached)


def autocorrelation(series: np.ndarray, n_lags: int) -> np.ndarray:
    """⟨J(t) J(0)⟩ of each component, (n_lags, components), of a series (n, components)."""
    n = len(series)
    transformed = np.fft.rfft(series, 2 * n, axis=0)
    sums = np.fft.irfft(np.abs(transformed) ** 2, axis=0)[:n_lags]
    return sums / (n - np.arange(n_lags))[:, None]
