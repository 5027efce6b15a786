# SPDX-License-Identifier: BSD-3-Clause
"""CPU seconds of a selection by maxvol, on each MPI rank, without those of waiting for other ranks.

mpiexec -n N python benchmarks/selection_speed.py: rattled and strained cells of 32 atoms of two elements, a potential
with random coefficients. The time of a selection on idle cores is about that of the rank that works most.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms
from ase.build import bulk

from mtp.potential import Potential

SYMBOLS = ["Cu", "Ni"]


class Watched:
    """A communicator that takes the time of what is done inside it."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.rank, self.size, self.seconds = comm.rank, comm.size, 0.0
        for name in ("allgather", "alltoall", "bcast", "send", "recv"):
            setattr(self, name, self._timed(getattr(comm, name)))

    def _timed(self, function: Callable) -> Callable:
        def timed(*arguments, **keywords):
            start = time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.process_time() - start

        return timed


def cells(number: int) -> list[Atoms]:
    rng = np.random.default_rng(1)
    made = []
    for k in range(number):
        atoms = bulk("Cu", cubic=True, a=3.61 * rng.uniform(0.95, 1.05)).repeat(2)
        atoms.symbols = rng.choice(SYMBOLS, len(atoms))
        atoms.positions += rng.normal(0, 0.05 + 0.1 * (k % 3), atoms.positions.shape)
        made.append(atoms)
    return made


def potential_of(level: int) -> Potential:
    potential = Potential.new(level, SYMBOLS, 5.0, 1.5)
    rng = np.random.default_rng(2)
    potential.set_scaling(0.1)
    potential.parameters = 0.1 * rng.standard_normal(potential.facts.n_parameters)
    return potential


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    potential = potential_of(options.level)
    comm = Watched(MPI.COMM_WORLD)
    data = cells(options.cells) if comm.rank == 0 else []
    MPI.COMM_WORLD.Barrier()
    start = time.process_time()
    chosen = potential.select(data, comm=comm)
    seconds = MPI.COMM_WORLD.gather(time.process_time() - start - comm.seconds)
    if comm.rank:
        return
    volume = np.linalg.slogdet(potential.active_set)[1]
    result = {
        "level": options.level,
        "n_parameters": potential.facts.n_parameters,
        "atoms": sum(map(len, data)),
        "ranks": comm.size,
        "cpu_seconds": seconds,
        "chosen": len(chosen),
        "log_volume": volume,
    }
    print(json.dumps(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
