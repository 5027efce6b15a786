# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp/kk on CPU threads beside the plain style, in the LAMMPS that tools/kokkos_lammps makes.

    tools/kokkos_lammps build && tools/kokkos_lammps plugins
    python benchmarks/kokkos_host.py --json kokkos.json

Copper on an fcc lattice of 3.61 Å, 4000 atoms unless told, cutoff 5 Å, skin 1 Å, NVE at 300 K, one MPI rank, random
coefficients (speed depends on the form of a potential alone). Each repeat runs all cases in turn, so that a machine
that slows down slows all alike; the time is that of the pair style (`Pair` in LAMMPS' table), in CPU seconds of all
threads, the shortest of the repeats. With --clock it is that of the clock, for a machine whose cores are free: then
threads keep to a core each and wait for the next loop awake, where otherwise they sleep.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mtp.potential import Potential

TOOL = Path(__file__).resolve().parents[1] / "tools" / "kokkos_lammps"
INPUT = """
units metal
lattice fcc 3.61
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style mtp
pair_coeff * * level.mtp Cu
neighbor 1.0 bin
velocity all create 600 4928459
timestep 0.001
fix move all nve
timer full
run {steps}
"""
CASES = {  # threads, whether with KOKKOS
    "plain, 1 thread": (1, False),
    "kk, 1 thread": (1, True),
    "plain, 2 threads": (2, False),
    "kk, 2 threads": (2, True),
}


def pair_time(folder: Path, threads: int, kokkos: bool, clock: bool) -> float:
    command = ["lmp", "-in", "in.lmp", "-log", "none", *(f"-k on t {threads} -sf kk".split() if kokkos else [])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_PROC_BIND": "spread" if clock else "false",
        "OMP_WAIT_POLICY": "active" if clock else "passive",
    }
    done = subprocess.run(
        [TOOL, "run", *command], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    average, percent = re.search(r"^Pair +\| +\S+ +\| +(\S+) .*\| +(\S+) \|", done.stdout, re.MULTILINE).groups()
    return float(average) * (1 if clock else float(percent) / 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--cells", type=int, default=10, help="along an edge of the crystal")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", action="store_true", help="seconds of the clock, not of CPUs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = Path(subprocess.run([TOOL, "where"], capture_output=True, text=True, check=True).stdout.strip())
    folder = Path(tempfile.mkdtemp(dir=root / "tmp", prefix="mtp-"))
    found = {}
    table = Table(
        "level", *(f"{name}, katom-steps/s" for name in CASES), "kk / plain, 1 thread", "kk, 2 / 1 threads"
    )  # of speeds for a CPU second, or for one of the clock
    try:
        for level in options.levels:
            potential = Potential.new(level, ["Cu"], cutoff=5.0, min_distance=1.8, n_chebyshev=8)
            potential.parameters = np.random.default_rng(level).normal(0, 1e-4, potential.facts.n_parameters)
            potential.save(folder / "level.mtp")
            (folder / "in.lmp").write_text(INPUT.format(steps=options.steps, cells=options.cells))
            times = [
                [pair_time(folder, *case, options.clock) for case in CASES.values()] for _ in range(options.repeats)
            ]
            speeds = 4e-3 * options.cells**3 * options.steps / np.min(times, axis=0)
            found[level] = dict(zip(CASES, speeds.tolist(), strict=True))
            ratios = speeds[1] / speeds[0], speeds[3] / speeds[1]
            table.add_row(str(level), *(f"{speed:.0f}" for speed in speeds), *(f"{ratio:.2f}" for ratio in ratios))
    finally:
        shutil.rmtree(folder)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
