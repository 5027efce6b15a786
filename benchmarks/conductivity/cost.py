# SPDX-License-Identifier: BSD-3-Clause
"""What the flux costs: CPU seconds of Green-Kubo's MD with and without sampling, in turn, for a settings file.

python benchmarks/conductivity/cost.py FILE.toml [steps]
"""

import sys
import tempfile
import time
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np

from mtp.conductivity.green_kubo import trajectory
from mtp.conductivity.md import Simulation, system
from mtp.conductivity.settings import GreenKubo
from mtp.settings import load

file = Path(sys.argv[1])
settings = load(file, GreenKubo).resolve(file.parent)
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
moving = system(settings)
run = trajectory(settings, moving, 0)


def seconds(simulation: Simulation) -> float:
    start = time.process_time()
    simulation.commands(f"run {steps}")
    return time.process_time() - start


with (
    tempfile.TemporaryDirectory() as folder,
    Simulation(moving, settings.timestep, Path(folder) / "log", MPI.COMM_SELF) as simulation,
):
    simulation.commands(f"velocity all create {2 * settings.temperature} 1\n{run.dynamics}")
    simulation.commands(f"run {steps}")
    bare, sampled = [], []
    for _ in range(5):
        bare.append(seconds(simulation))
        simulation.commands(run.sample.format(file=Path(folder) / "samples", start=0, end=0))
        sampled.append(seconds(simulation))
        simulation.commands(run.finish)
    share = np.array(sampled) / np.array(bare) - 1
    print(f"{len(moving.types)} atoms, a sample every {settings.steps(settings.interval)} steps")
    print(
        f"MD {1e6 * min(bare) / steps / len(moving.types):.2f} µs a step and atom; sampling adds "
        f"{100 * np.median(share):.0f} % ({100 * share.min():.0f} to {100 * share.max():.0f})"
    )
