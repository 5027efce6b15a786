# SPDX-License-Identifier: BSD-3-Clause
"""What tests of conductivities share: solid argon at toy size, and series whose Green-Kubo integral is known."""

from __future__ import annotations

from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
from scipy.signal import lfilter

from mtp.conductivity.green_kubo import green_kubo
from mtp.conductivity.hnemd import hnemd
from mtp.conductivity.nemd import nemd
from mtp.conductivity.settings import GreenKubo, Hnemd, Nemd
from mtp.settings import checked

ARGON = {"crystal": {"name": "Ar", "structure": "fcc", "a": 5.436}, "repeat": [2, 2, 2]}
ARGON |= {"pair": ["pair_style lj/cut 5.0", "pair_coeff * * 0.0104233 3.40"], "temperature": 50.0, "timestep": 0.004}
ARGON |= {"equilibration": 0.8, "time": 4.0, "chunk": 0.8}
TOYS = {
    GreenKubo: {"interval": 0.008, "runs": 2},
    Hnemd: {"interval": 0.008, "runs": 2, "transient": 0.4, "fields": [0.01, 0.02]},
    Nemd: {"repeat": [2, 2, 6], "bins": 12, "transient": 0.4, "swap_interval": 10},
}
METHODS = {GreenKubo: green_kubo, Hnemd: hnemd, Nemd: nemd}


def toy(model, folder: Path, **changes):
    return checked({**ARGON, "folder": str(folder), **TOYS[model], **changes}, model, "toy")


def quiet(*progress) -> None:
    pass


def run(settings):
    return METHODS[type(settings)](settings, MPI.COMM_SELF, quiet)


def autoregressive(rng, phi: float, n: int, components: int) -> np.ndarray:
    """x_t = phi x_(t-1) + noise, whose Green-Kubo integral is 1 / (2 (1 - phi)²)."""
    noise = rng.standard_normal((n + 2000, components))
    return lfilter([1], [1, -phi], noise, axis=0)[2000:]
