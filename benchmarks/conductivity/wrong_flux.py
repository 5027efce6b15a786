# SPDX-License-Identifier: BSD-3-Clause
"""Green-Kubo of gold.toml with the right heat flux and, of the same trajectories, with that of LAMMPS' ordinary virial.

    python benchmarks/conductivity/wrong_flux.py

prints both, leaves results and figures in run/gold and run/gold_wrong, and draws them together with that of
gold_hnemd.toml, where it is there, in run/gold.png.
"""

import json
from dataclasses import replace
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
from matplotlib.figure import Figure

from mtp.conductivity.green_kubo import analysed, trajectory
from mtp.conductivity.md import own_folder, system
from mtp.conductivity.results import KB, W_PER_MK, joined
from mtp.conductivity.settings import GreenKubo
from mtp.conductivity.spectral import running_integral
from mtp.figures import BLUE, GREEN, ORANGE
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
interval = settings.steps(settings.interval) * settings.timestep
figure = Figure(figsize=(4.8, 3.2), layout="constrained")
axes = figure.subplots()
for name, sampled, place, colour in (
    ("centroid virial", runs, folder, BLUE),
    ("ordinary virial, wrong", wrong, folder.with_name("gold_wrong"), ORANGE),
):
    place.mkdir(exist_ok=True)
    kappa = analysed(settings, moving, sampled, place)["kappa_W_mK"]
    print(f"{name}: {kappa['value']:.3f} ± {kappa['error']:.3f} W/mK")
    series = [np.sqrt(W_PER_MK / (moving.volume * KB)) / r["temperature"].mean() * r["flux"] for r in sampled]
    running = running_integral(series, interval, 100)
    axes.plot(running.times, running.values, color=colour, label=f"Green-Kubo, {name}")
    band = (running.values - running.errors, running.values + running.errors)
    axes.fill_between(running.times, *band, color=colour, alpha=0.2, lw=0)
    axes.errorbar([104], kappa["value"], kappa["error"], fmt="o", color=colour, ms=4, capsize=2, clip_on=False)
driven = folder.with_name("gold_hnemd") / "result.json"
if driven.exists():
    kappa = json.loads(driven.read_text())["kappa_W_mK"]
    axes.errorbar([110], kappa["value"], kappa["error"], fmt="s", color=GREEN, ms=4, capsize=2, label="HNEMD")
axes.set(xlabel="time (ps)", ylabel=r"$\kappa$ (W m$^{-1}$ K$^{-1}$)", xlim=(0, 114), ylim=(0, None))
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="lower right")
figure.savefig(folder.with_name("gold.png"), dpi=200)
