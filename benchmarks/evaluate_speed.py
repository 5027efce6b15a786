# SPDX-License-Identifier: BSD-3-Clause
"""How fast `mtp evaluate` computes energies, forces and stresses of configurations, reading of files not counted.

    python benchmarks/evaluate_speed.py --json evaluate.json

Rattled fcc copper (3.61 Å ± 2 %, 0.08 Å) in cells of 32, 108 and 4000 atoms, cutoff 5 Å, potentials with random
coefficients: speed does not depend on them. Speeds are of one thread, in thousands of atoms for a CPU second, best of
the repeats; so are the shares of the neighbour search and of the kernels (with neighbours that are known), each timed
alone (Python has the rest). The last columns let `mtp.evaluation.evaluate` use a thread for every core: time on the
clock and CPU seconds as multiples of one thread's, medians of runs that take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from pair_speed import LATTICE, machine
from rich.console import Console
from rich.table import Table

from mtp.configurations import types
from mtp.evaluation import evaluate
from mtp.library import call, doubles, int32s, int64s
from mtp.neighbours import Batch, Neighbourhoods, batches
from mtp.potential import Potential

CUTOFF = 5.0  # Å
CASES = {"32 atoms": (2, 320), "108 atoms": (3, 96), "4000 atoms": (10, 3)}  # cells a side, configurations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="*", default=[8, 12, 16, 20])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = []
    for name, (side, number) in CASES.items():
        configurations = [rattled(side, rng) for _ in range(number)]
        for level in options.levels:
            rows.append({"configurations": name, "level": level} | measure(level, configurations, options.repeats))
    show(rows)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def rattled(side: int, rng: np.random.Generator) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=LATTICE * rng.uniform(0.98, 1.02)).repeat(side)
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    return atoms


def measure(level: int, configurations: list[Atoms], repeats: int) -> dict:
    potential = Potential.new(level, ["Cu"], CUTOFF, min_distance=2.0)
    potential.parameters = 0.1 * np.random.default_rng(level).normal(size=potential.facts.n_parameters)
    cut = list(batches(configurations))
    side_by_side = [Batch.of(batch, [types(atoms, ["Cu"]) for atoms in batch]) for batch in cut]
    near = [pairs(batch) for batch in side_by_side]
    results = [(np.empty(len(of)), np.empty((len(of), 3)), np.empty((len(of.first_atom) - 1, 3, 3))) for of in near]

    def search() -> None:
        for batch, found in zip(side_by_side, near, strict=True):
            arrays = int64s(found.first), int32s(found.neighbour), doubles(found.vectors)
            call("find_neighbours", batch.as_c(), CUTOFF, len(found.neighbour), *arrays)

    def kernels() -> None:
        for found, arrays in zip(near, results, strict=True):
            call("evaluate", potential.handle, found.as_c(), *map(doubles, arrays))

    uses = {
        "whole": lambda: potential.evaluate(configurations),
        "threads": lambda: evaluate(potential, configurations),
        "search": search,
        "kernels": kernels,
    }
    clock, cpu = ({name: [] for name in uses} for _ in range(2))
    for _ in range(repeats):
        for name, use in uses.items():
            started, used = time.perf_counter(), time.process_time()
            use()
            clock[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
    best = {name: min(found) for name, found in cpu.items()}
    thousands = sum(map(len, configurations)) / 1000
    return {
        "katoms_per_cpu_s": thousands / best["whole"],
        "kernels_katoms_per_cpu_s": thousands / best["kernels"],
        "search_katoms_per_cpu_s": thousands / best["search"],
        "share_of_kernels": best["kernels"] / best["whole"],
        "share_of_search": best["search"] / best["whole"],
        "threads_clock": statistics.median(t / w for t, w in zip(clock["threads"], clock["whole"], strict=True)),
        "threads_cpu": statistics.median(t / w for t, w in zip(cpu["threads"], cpu["whole"], strict=True)),
    }


def pairs(batch: Batch) -> Neighbourhoods:
    """The neighbourhoods of a batch, its atoms numbered through all configurations."""
    n = len(batch.species)
    first, capacity = np.zeros(n + 1, dtype=np.int64), 200 * n
    neighbour, vectors = np.empty(capacity, dtype=np.int32), np.empty((capacity, 3))
    call("find_neighbours", batch.as_c(), CUTOFF, capacity, int64s(first), int32s(neighbour), doubles(vectors))
    return Neighbourhoods(
        batch.first_atom, batch.species, first, neighbour[: first[-1]].copy(), vectors[: first[-1]].copy()
    )


def show(rows: list[dict]) -> None:
    table = Table("", "level", "katoms/s", "of kernels", "kernels", "search", "clock", "CPU")
    for row in rows:
        table.add_row(
            row["configurations"],
            str(row["level"]),
            f"{row['katoms_per_cpu_s']:.0f}",
            f"{row['kernels_katoms_per_cpu_s']:.0f}",
            f"{100 * row['share_of_kernels']:.0f} %",
            f"{100 * row['share_of_search']:.0f} %",
            f"× {row['threads_clock']:.2f}",
            f"× {row['threads_cpu']:.2f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
