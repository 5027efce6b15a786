# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp beside other commands of LAMMPS: pair styles, boxes, fixes, minimisers, replicas."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from test_lammps import (
    BIN,
    OBSERVE,
    STRUCTURES,
    close,
    cluster,
    coeff,
    crystal,
    dumped,
    evaluated,
    execute,
    files,  # noqa: F401 (a fixture)
    graded,
    printed,
    random_potential,
    rattled,
    succeeds,
    system,
)

SILICON = Path(__file__).resolve().parents[1] / "lammps_inputs" / "silicon" / "Si.mtp"
SILICON_COEFF = f"pair_style mtp\npair_coeff * * {SILICON} Si\n"


def oxide(seed: int = 4) -> Atoms:
    """A silicon crystal in which every other atom is oxygen."""
    atoms = rattled(bulk("Si", cubic=True).repeat(2), seed)
    atoms.symbols[1::2] = "O"
    return atoms


def thermo(output: str, n_columns: int) -> np.ndarray:
    """The rows of thermodynamic output of the last run."""
    body = output.split("Loop time")[-2]
    lines = re.findall(rf"^ *\d+(?: +-?[\d.]\S*){{{n_columns - 1}}} *$", body, re.MULTILINE)
    return np.array([line.split() for line in lines], dtype=float)


# ---- derivatives, as LAMMPS computes them


@pytest.mark.parametrize("name", ["three species, triclinic", "two atoms, cutoff beyond the edge"])
def test_forces_and_stress_are_derivatives_of_the_energy(tmp_path, files, name):  # noqa: F811
    atoms = STRUCTURES[name]
    text = "atom_modify map yes\n" + system(tmp_path, atoms) + coeff(files, atoms)
    text += """
fix forces all numdiff 1 1e-4
fix stress all numdiff/virial 1 1e-5
compute virial all pressure NULL virial
thermo_style custom step pe f_stress[*] c_virial[*]
dump out all custom 1 out.dump id fx fy fz f_forces[*]
dump_modify out sort id format float %.17g
run 0
print "numerical $(f_stress[1]:%.12g) $(f_stress[2]:%.12g) $(f_stress[3]:%.12g) &
 $(f_stress[6]:%.12g) $(f_stress[5]:%.12g) $(f_stress[4]:%.12g)"
print "virial $(c_virial[1]:%.12g) $(c_virial[2]:%.12g) $(c_virial[3]:%.12g) &
 $(c_virial[4]:%.12g) $(c_virial[5]:%.12g) $(c_virial[6]:%.12g)"
"""
    output = succeeds(tmp_path, text)
    (frame,) = dumped(tmp_path / "out.dump")
    # central differences: step² / 6 times a third derivative, and 1e-16 of the energy over the step
    close(frame[:, 4:7], frame[:, 1:4], 1e-6)
    close(printed(output, "numerical"), printed(output, "virial"), 1e-6)


def test_heat_flux_in_a_periodic_box_is_the_sum_over_pairs(tmp_path, files):  # noqa: F811
    """J = sum_i e_i v_i + sum_ij r_ji (dV_i/dr_j . v_j), the last factor from moving each atom j along v_j alone."""
    atoms = crystal()
    potential = files.potentials["one"]
    text = system(tmp_path, atoms) + coeff(files, atoms)
    text += """
velocity all create 600 4
compute pe all pe/atom
compute ke all ke/atom
compute virial all centroid/stress/atom NULL virial
compute flux all heat/flux ke pe virial
thermo_style custom step c_flux[1] c_flux[2] c_flux[3]
dump out all custom 1 out.dump id vx vy vz c_ke c_pe
dump_modify out sort id format float %.17g
run 0
print "flux $(c_flux[1]:%.17g) $(c_flux[2]:%.17g) $(c_flux[3]:%.17g)"
"""
    output = succeeds(tmp_path, text)
    (frame,) = dumped(tmp_path / "out.dump")
    velocities, energies = frame[:, 1:4], frame[:, 4] + frame[:, 5]
    step = 1e-5  # ps; the atoms move by 1e-4 Å
    expected = energies @ velocities
    for j, velocity in enumerate(velocities):
        changed = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[j] += sign * step * velocity
            changed.append(potential.evaluate(moved).energies)
        power = (changed[0] - changed[1]) / (2 * step)
        expected = expected + power @ atoms.get_distances(j, range(len(atoms)), mic=True, vector=True)
    # 1e-6: central differences
    close(printed(output, "flux"), expected, 1e-6)


# ---- boxes


@pytest.mark.parametrize("name", ["orthogonal", "three species, triclinic", "two atoms, cutoff beyond the edge"])
def test_translation_through_the_boundary_changes_nothing(tmp_path, files, name):  # noqa: F811
    atoms = STRUCTURES[name]
    moved = atoms.copy()
    moved.positions += [1.234, -3.21, 0.777]
    before = evaluated(tmp_path, atoms, coeff(files, atoms))
    after = evaluated(tmp_path, moved, coeff(files, atoms))
    size = np.abs(before.energies).sum()
    close(after.energy, before.energy, 1e-12, size)
    # forces: sums of large terms that cancel
    close(after.forces, before.forces, 1e-11)


def strongly_tilted() -> Atoms:
    atoms = crystal()
    a = atoms.cell[0, 0]
    atoms.set_cell([[a, 0, 0], [1.7 * a, a, 0], [-1.2 * a, 0.9 * a, a]])
    return atoms


SMALL = {
    "tilted by more than the box": strongly_tilted(),
    "one atom, fcc": Atoms("Si", cell=[[2.7, 0, 0], [1.35, 2.34, 0], [1.35, 0.78, 2.2]], pbc=True),
    "one atom, simple cubic, four images within the cutoff": Atoms("Si", cell=[2.4, 2.4, 2.4], pbc=True),
    "one atom, free": Atoms("Si", positions=[[6, 6, 6]], cell=[12, 12, 12], pbc=False),
}


@pytest.mark.parametrize("atoms", SMALL.values(), ids=SMALL.keys())
def test_extreme_boxes_agree_with_python(tmp_path, files, atoms):  # noqa: F811
    expected = files.potentials["one"].evaluate(atoms)
    found = evaluated(tmp_path, atoms, coeff(files, atoms), before="box tilt large\n")
    size = np.abs(expected.energies).sum()
    # as in test_lammps: images are placed by sums in another order
    close(found.energy, expected.energy, 1e-12, size)
    close(found.forces, expected.forces, 1e-12, max(np.abs(expected.forces).max(), size))


@pytest.mark.parametrize("decomposition", ["processors 3 1 1\n", "comm_style tiled\n"])
def test_three_ranks_agree_with_one(tmp_path, files, decomposition):  # noqa: F811
    atoms = STRUCTURES["three species, triclinic"]
    balance = "balance 1.0 rcb\n" if "tiled" in decomposition else ""
    one = evaluated(tmp_path, atoms, coeff(files, atoms))
    three = evaluated(tmp_path, atoms, coeff(files, atoms) + balance, 3, before=decomposition)
    close(three.energy, one.energy, 1e-12, np.abs(one.energies).sum())
    for quantity in ("energies", "forces", "virial", "symmetric", "centroid"):
        close(getattr(three, quantity), getattr(one, quantity), 1e-11)


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_where_a_rank_has_no_atoms(tmp_path, files, mode):  # noqa: F811
    atoms = cluster(rattled(bulk("Si", cubic=True), 77, 0.25))
    expected = files.potentials[mode].grade(atoms)
    text = "processors 3 1 1\n" + system(tmp_path, atoms) + graded(files, mode)
    text += """
fix grade all pair 1 mtp/extrapolation gamma 1
compute highest all pair mtp/extrapolation
thermo_style custom step c_highest[1]
velocity all set 0 0 0
fix move all nve
timestep 1e-9
run 1
print "highest $(c_highest[1]:%.17g)"
"""
    # 1e-6: one step of 1e-9 ps moves nothing
    assert printed(succeeds(tmp_path, text, ranks=3), "highest")[0] == pytest.approx(expected.maximum, rel=1e-6)


# ---- beside other styles


def test_two_potentials_in_one_hybrid(tmp_path, files):  # noqa: F811
    atoms = oxide()
    other = random_potential(["O"], strength=0.2)
    other.save(tmp_path / "other.mtp")
    pair = f"""
pair_style hybrid mtp mtp
pair_coeff * * mtp 1 {files.folder / "one.mtp"} Si NULL
pair_coeff * * mtp 2 other.mtp NULL O
pair_coeff 1 2 none
"""
    found = evaluated(tmp_path, atoms, pair)
    for element, potential in (("Si", files.potentials["one"]), ("O", other)):
        own = atoms.symbols == element
        expected = potential.evaluate(atoms[own])
        close(found.energies[own], expected.energies, 1e-11)
        close(found.forces[own], expected.forces, 1e-11)


ELECTROSTATICS = {
    "coul/cut": ("coul/cut 6.0", ""),
    "coul/long": ("coul/long 6.0", "kspace_style ewald 1e-6\n"),
    "lj/cut/coul/long": ("lj/cut/coul/long 4.0 6.0", "kspace_style pppm 1e-6\n"),
}


@pytest.mark.parametrize("other", ELECTROSTATICS)
def test_charges_are_added(tmp_path, files, other):  # noqa: F811
    atoms = oxide()
    style, kspace = ELECTROSTATICS[other]
    lj = "lj" in other
    mtp = f"mtp {files.folder / 'three.mtp'} Si O"
    # long-range solvers have no centroid virial
    observe = re.sub(r"^compute centroid.*\n| c_centroid\S*", "", OBSERVE, flags=re.MULTILINE)
    commands = system(tmp_path, atoms).replace("read_data", "atom_style charge\nread_data")
    data = tmp_path / "data"
    head, rows = data.read_text().split("Atoms\n\n")
    rows = [row.split() for row in rows.splitlines() if row]
    with_charges = "\n".join(" ".join([*row[:2], "1.2" if row[1] == "1" else "-1.2", *row[2:]]) for row in rows)
    data.write_text(head + "Atoms\n\n" + with_charges + "\n")

    def observed(pair: str):
        output = succeeds(tmp_path, commands + pair + observe)
        (frame,) = dumped(tmp_path / "out.dump")
        return printed(output, "energy")[0], frame[:, 2:5], printed(output, "virial")

    more = "0.01 2.0" if lj else ""
    alone = observed(f"pair_style mtp\npair_coeff * * {mtp.removeprefix('mtp ')}\n")
    charges = observed(f"pair_style {style}\npair_coeff * * {more}\n{kspace}")
    name = style.split()[0]
    both = observed(
        f"pair_style hybrid/overlay mtp {style}\npair_coeff * * {mtp}\npair_coeff * * {name} {more}\n{kspace}"
    )
    for found, first, second in zip(both, alone, charges, strict=True):
        # 1e-11: a sum of two sums in another order
        close(found, first + second, 1e-11, np.abs(first).max() + np.abs(second).max())


def test_excluded_pairs_are_not_seen(tmp_path, files):  # noqa: F811
    """neigh_modify exclude takes neighbours away: each kind of atom then has its own kind alone."""
    atoms = oxide()
    potential = files.potentials["three"]
    pair = f"pair_style mtp\npair_coeff * * {files.folder / 'three.mtp'} Si O\nneigh_modify exclude type 1 2\n"
    found = evaluated(tmp_path, atoms, pair)
    for element in ("Si", "O"):
        own = atoms.symbols == element
        expected = potential.evaluate(atoms[own])
        close(found.energies[own], expected.energies, 1e-11)
        close(found.forces[own], expected.forces, 1e-11)


def test_one_input_may_begin_anew(tmp_path, files):  # noqa: F811
    atoms = STRUCTURES["orthogonal"]
    once = system(tmp_path, atoms) + coeff(files, atoms) + 'run 0\nprint "first $(pe:%.17g)"\n'
    again = "clear\n" + once.replace("first", "second")
    output = succeeds(tmp_path, once + again)
    assert printed(output, "second")[0] == printed(output, "first")[0]


def test_written_data_are_read_again(tmp_path, files):  # noqa: F811
    atoms = STRUCTURES["three species, triclinic"]
    pair = coeff(files, atoms)
    before = evaluated(tmp_path, atoms, pair + "run 0\nwrite_data again nocoeff\n")
    output = succeeds(tmp_path, "units metal\nread_data again\n" + pair + OBSERVE)
    assert printed(output, "energy")[0] == pytest.approx(before.energy, rel=1e-12)


# ---- dynamics and statics with a potential that holds silicon together


def silicon(repeat: int = 2) -> str:
    return f"""
units metal
atom_modify map yes
lattice diamond 5.431
region box block 0 {repeat} 0 {repeat} 0 {repeat}
create_box 1 box
create_atoms 1 box
mass 1 28.0855
{SILICON_COEFF}
thermo_modify format float %.15g
"""


def test_neighbour_lists_may_be_rebuilt_at_any_interval(tmp_path):
    """Rebuilding changes the order of sums alone, as long as lists hold all that comes within the cutoff."""
    energies = []
    for modify in ("every 1 delay 0 check no", "every 1 delay 0 check yes", "every 5 delay 10 check yes"):
        text = f"{silicon()}neigh_modify {modify}\nvelocity all create 600 1\nfix move all nve\nrun 100\n"
        energies.append(printed(succeeds(tmp_path, text + 'print "energy $(pe:%.15g)"\n'), "energy")[0])
    np.testing.assert_allclose(energies, energies[0], rtol=1e-11)  # 100 steps magnify rounding a little


ENSEMBLES = {
    "nvt": "fix move all nvt temp 300 300 0.1",
    "npt": "fix move all npt temp 300 300 0.1 iso 0 0 1.0",
    "npt, all components": "change_box all triclinic\nfix move all npt temp 300 300 0.1 tri 0 0 1.0",
}


@pytest.mark.parametrize("fix", ENSEMBLES.values(), ids=ENSEMBLES.keys())
def test_thermostats_conserve_their_energy(tmp_path, fix):
    """The extended energy is conserved only if forces and stress belong to the energy."""
    text = f"{silicon()}velocity all create 600 1\n{fix}\nthermo_style custom step econserve etotal press\nthermo 20\n"
    rows = thermo(succeeds(tmp_path, text + "thermo_modify format float %.15g\nrun 1000\n"), 4)
    conserved, energy = rows[10:, 1], rows[10:, 2]
    assert np.ptp(conserved) < 0.05 * np.ptp(energy)
    assert np.abs(rows[10:, 3]).max() < 3e4  # bar


def test_minimisers_find_the_crystal_and_its_volume(tmp_path):
    text = silicon() + "displace_atoms all random 0.1 0.1 0.1 1 units box\n"
    text += """
minimize 0 1e-8 1000 10000
print "displaced $(pe/atoms:%.15g) $(fmax:%.15g)"
change_box all x scale 1.02 y scale 0.99 remap
fix relax all box/relax aniso 0 vmax 0.001
min_modify line quadratic
minimize 0 1e-8 1000 10000
print "strained $(pe/atoms:%.15g) $(lx:%.15g) $(ly:%.15g) $(press:%.15g)"
unfix relax
min_style fire
displace_atoms all random 0.05 0.05 0.05 2 units box
minimize 0 1e-6 2000 10000
print "fire $(pe/atoms:%.15g)"
"""
    output = succeeds(tmp_path, text)
    energy, force = printed(output, "displaced")
    assert force < 1e-6
    relaxed, lx, ly, pressure = printed(output, "strained")
    assert relaxed < energy + 1e-9
    assert lx == pytest.approx(ly, rel=1e-4)
    assert abs(pressure) < 10  # bar
    assert printed(output, "fire")[0] == pytest.approx(relaxed, abs=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_swapped_atoms_have_the_energy_of_their_new_places(tmp_path, files, ranks):  # noqa: F811
    atoms = oxide()
    text = system(tmp_path, atoms) + f"pair_style mtp\npair_coeff * * {files.folder / 'three.mtp'} Si O\n"
    text += """
fix swap all atom/swap 1 5 11 3000 types 1 2 ke no
thermo_style custom step pe f_swap[1] f_swap[2]
run 20
print "energy $(pe:%.17g)"
print "swaps $(f_swap[2])"
write_dump all custom out.dump id type x y z modify sort id format float %.17g
"""
    output = succeeds(tmp_path, text, ranks)
    assert printed(output, "swaps")[0] > 0
    (frame,) = dumped(tmp_path / "out.dump")
    swapped = atoms.copy()
    swapped.symbols = [["Si", "O"][int(kind) - 1] for kind in frame[:, 1]]
    assert (swapped.numbers != atoms.numbers).any()
    expected = files.potentials["three"].evaluate(swapped)
    close(printed(output, "energy")[0], expected.energy, 1e-12, np.abs(expected.energies).sum())


def test_a_nudged_elastic_band_runs_in_partitions(tmp_path):
    """A vacancy hops to a neighbouring place: same energy before and after, a barrier between."""
    # the potential that has seen the liquid: the saddle is far from any crystal
    (tmp_path / "in.lmp").write_text(
        silicon().replace("Si.mtp", "Si_liquid.mtp")
        + """
variable u uloop 3
timestep 0.002
group hole id 1
variable x equal $(x[1])
variable y equal $(y[1])
variable z equal $(z[1])
delete_atoms group hole compress no
minimize 0 1e-4 500 5000
print "1" file end.$u
print "5 $x $y $z" append end.$u
fix band all neb 1.0
min_style quickmin
neb 0.0 0.01 100 50 50 final end.$u
"""
    )
    lmp = [BIN / "lmp", "-partition", "3x1", "-in", "in.lmp"]
    done = execute(tmp_path, lmp, ranks=3)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.split() for line in (tmp_path / "log.lammps").read_text().splitlines()]
    last = [row for row in rows if row and row[0].isdigit() and len(row) > 12][-1]
    forward, reverse = float(last[6]), float(last[7])
    assert 0 < forward < 10
    assert forward == pytest.approx(reverse, abs=0.1)
