# SPDX-License-Identifier: BSD-3-Clause
"""Green-Kubo of gold.toml with the right heat flux and, of the same trajectories, with that of LAMMPS' ordinary virial.

    python benchmarks/conductivity/wrong_flux.py

prints both, and leaves results and figures in run/gold and run/gold_wrong.
"""

from dataclasses import replace
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np

from mtp.conductivity.green_kubo import analysed, trajectory
from mtp.conductivity.md import own_folder, system
from mtp.conductivity.results import joined
from mtp.conductivity.settings import GreenKubo
from mtp.settings import load

HERE = Path(__file__).parent
ORDINARY = """
compute ordinary_virial all stress/atom NULL virial
compute ordinary all heat/flux flux_kinetic flux_potential ordinary_virial
"""
COLUMNS = " c_ordinary[1] c_ordinary[2] c_ordinary[3] file"


def with_both(usual):
    """The trajectory with the ordinary flux in three more columns."""

    def read(file, start):
        rows = np.loadtxt(file, ndmin=2)
        found = {"ordinary": rows[rows[:, 0] > start, -3:] @ usual.system.rotation.T}
        np.savetxt(file, rows[:, :-3])
        return {**usual.read(file, start), **found}

    return replace(usual, dynamics=usual.dynamics + ORDINARY, sample=usual.sample.replace(" file", COLUMNS), read=read)


settings = load(HERE / "gold.toml", GreenKubo).resolve(HERE)
moving = system(settings)


def tell(*progress):
    print(*progress, flush=True)


with own_folder(settings, MPI.COMM_WORLD) as folder:
    runs = [joined(with_both(trajectory(settings, moving, k)).run(MPI.COMM_WORLD, tell)) for k in range(settings.runs)]
wrong = [{**run, "flux": run["ordinary"]} for run in runs]
for name, sampled, place in (("right flux", runs, folder), ("ordinary virial", wrong, folder.with_name("gold_wrong"))):
    place.mkdir(exist_ok=True)
    kappa = analysed(settings, moving, sampled, place)["kappa_W_mK"]
    print(f"{name}: {kappa['value']:.3f} ± {kappa['error']:.3f} W/mK")
