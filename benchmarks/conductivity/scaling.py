# SPDX-License-Identifier: BSD-3-Clause
"""Green-Kubo's molecular dynamics on growing numbers of MPI ranks, and what 10⁶ atoms for 10 ns would take.

    python benchmarks/conductivity/scaling.py [--ranks 1 2 4] [--repeat 16] [--steps 60] [--potential FILE]

runs lammps_inputs/conductivity/01_green_kubo.in and reads LAMMPS' own breakdown of the loop that samples. CPU seconds
are those of all ranks together; they hold the waiting for others, which LAMMPS counts as communication. Ghosts, the
atoms of others that a rank needs, tell what communication must grow with, whatever the machine does meanwhile.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUT = ROOT / "lammps_inputs" / "conductivity" / "01_green_kubo.in"
BIN = Path(sys.executable).parent
TIMESTEP = 1e-3  # ps, of the input
PARTS = ("Pair", "Neigh", "Comm", "Modify")
ATOMS, TIME = 1e6, 1e4  # of the projection; ps

parser = argparse.ArgumentParser()
parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
parser.add_argument("--repeat", type=int, default=16)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--potential", type=Path, default=ROOT / "lammps_inputs" / "silicon" / "Si.mtp")
asked = parser.parse_args()
variables = {"repeat": asked.repeat, "steps": asked.steps, "equilibration": 10, "samples": 2}
variables["potential"] = asked.potential.resolve()


def loop(ranks: int) -> dict[str, float]:
    """Of the last loop: atoms, wall and CPU seconds, shares of its parts, ghosts of a rank."""
    words = [str(word) for key, value in variables.items() for word in ("-var", key, value)]
    with tempfile.TemporaryDirectory() as folder:
        launcher = [BIN / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, BIN / "lmp", "-in", INPUT, "-screen", "none", *words]
        subprocess.run(command, cwd=folder, check=True)
        log = (Path(folder) / "log.lammps").read_text().split("Loop time of ")[-1]
    wall, atoms = re.match(r"(\S+) on \d+ procs for \d+ steps with (\d+) atoms", log).groups()
    (percent,) = re.findall(r"^(\S+)% CPU use", log, re.MULTILINE)
    found = {"atoms": int(atoms), "wall": float(wall), "cpu": ranks * float(wall) * float(percent) / 100}
    for part in PARTS:
        found[part] = float(re.search(rf"^{part} .*\|\s*(\S+)$", log, re.MULTILINE)[1])
    found["ghosts"] = float(re.search(r"^Nghost:\s+(\S+) ave", log, re.MULTILINE)[1])
    return found


columns = [
    "ranks",
    "atoms",
    "wall s",
    "CPU s",
    "µs/step/atom",
    *(f"{part} %" for part in PARTS),
    "ghosts/own",
    "core-h",
]
print(" | ".join(f"{name:>12s}" for name in columns))
for ranks in asked.ranks:
    found = loop(ranks)
    each = 1e6 * found["cpu"] / asked.steps / found["atoms"]
    hours = each * 1e-6 * ATOMS * TIME / TIMESTEP / 3600
    row = [ranks, found["atoms"], found["wall"], found["cpu"], each, *(found[part] for part in PARTS)]
    row += [found["ghosts"] * ranks / found["atoms"], hours]
    print(" | ".join(f"{number:12.4g}" for number in row), flush=True)
