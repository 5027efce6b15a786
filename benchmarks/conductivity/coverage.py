# SPDX-License-Identifier: BSD-3-Clause
"""How often the error bars of mtp.conductivity.spectral hold the truth: processes whose integral is known.

python benchmarks/conductivity/coverage.py [trials]
"""

import sys

import numpy as np
from scipy.signal import lfilter

from mtp.conductivity.spectral import cepstral

TRIALS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
rng = np.random.default_rng(0)


def filtered(n: int, *denominator: float) -> tuple[np.ndarray, float]:
    """White noise through a filter, three components, and its Green-Kubo integral."""
    noise = rng.standard_normal((n + 2000, 3))
    return lfilter([1], denominator, noise, axis=0)[2000:], 1 / (2 * sum(denominator) ** 2)


def total(*parts: tuple[float, tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
    return sum(f * x for f, (x, _) in parts), sum(f**2 * s for f, (_, s) in parts)


PROCESSES = {
    "one time, 10 steps": lambda n: filtered(n, 1, -0.9),
    "one time, 100 steps": lambda n: filtered(n, 1, -0.99),
    "33 steps and a resonance": lambda n: total((1, filtered(n, 1, -0.97)), (2, filtered(n, 1, -1.0266, 0.9025))),
    "3 steps, and 50 with a tenth of the amplitude": lambda n: total(
        (5, filtered(n, 1, -0.7)), (0.5, filtered(n, 1, -0.98))
    ),
}

print(
    "| process | samples | runs | mean / truth | error / value | inside 1σ | inside 2σ |\n|---|---|---|---|---|---|---|"
)
for name, process in PROCESSES.items():
    for n in (1000, 4000):
        for runs in (1, 3):
            found = []
            for _ in range(TRIALS):
                made = [process(n) for _ in range(runs)]
                result = cepstral([series for series, _ in made], 1.0)
                found.append((result.value / made[0][1], result.error / made[0][1]))
            value, error = np.array(found).T
            away = np.abs(value - 1) / error
            shares = " | ".join(f"{100 * np.mean(away < k):.0f} %" for k in (1, 2))
            print(f"| {name} | {n} | {runs} | {np.mean(value):.2f} | {np.median(error / value):.2f} | {shares} |")
