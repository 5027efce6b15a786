# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp and mtp/extrapolation, run by this environment's `lmp`, against laws and against Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mtp.potential import Potential

BIN = Path(sys.executable).parent
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "reference"
CASES = Path(__file__).parent / "lammps_cases"
BAR = 1.6021765e6  # eV/Å³ in LAMMPS' `units metal`, with LAMMPS' own digits
SPECIES = ["Si", "O", "C"]
MASS = {"Si": 28.085, "O": 15.999, "C": 12.011, "Cu": 63.546}


# ---- running LAMMPS


def execute(folder: Path, program: list, ranks: int = 1) -> subprocess.CompletedProcess:
    launcher = [BIN / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run([*launcher, *program], cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def lmp(folder: Path, text: str, ranks: int = 1) -> subprocess.CompletedProcess:
    (folder / "in.lmp").write_text(text)
    return execute(folder, [BIN / "lmp", "-in", "in.lmp"], ranks)


def succeeds(folder: Path, text: str, ranks: int = 1) -> str:
    done = lmp(folder, text, ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def kinds_of(atoms: Atoms) -> list[str]:
    """Elements in the order of the atom types."""
    return [kind for kind in MASS if kind in atoms.symbols]


def system(folder: Path, atoms: Atoms, units: str = "metal") -> str:
    """LAMMPS commands that make the atoms; their cell must be LAMMPS' (a along x, b in the xy plane)."""
    (xx, xy0, xz0), (xy, yy, yz0), (xz, yz, zz) = atoms.cell
    assert xy0 == xz0 == yz0 == 0
    kinds = kinds_of(atoms)
    masses = [f"{i} {MASS[kind]}" for i, kind in enumerate(kinds, 1)]
    positions = atoms.get_positions(wrap=True)
    rows = [
        f"{i + 1} {kinds.index(atoms.symbols[i]) + 1} {x:.17g} {y:.17g} {z:.17g}"
        for i, (x, y, z) in enumerate(positions)
    ]
    tilt = f"{xy:.17g} {xz:.17g} {yz:.17g} xy xz yz" if (xy or xz or yz) else ""
    head = (
        f"\n\n{len(atoms)} atoms\n{len(kinds)} atom types\n"
        f"0 {xx:.17g} xlo xhi\n0 {yy:.17g} ylo yhi\n0 {zz:.17g} zlo zhi\n{tilt}\n"
    )
    (folder / "data").write_text("\n".join([head, "Masses\n", *masses, "\nAtoms\n", *rows]))
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    return f"units {units}\nboundary {boundary}\nread_data data\n"


def dumped(path: Path) -> list[np.ndarray]:
    """The frames of a text dump."""
    frames = path.read_text().split("ITEM: TIMESTEP\n")[1:]
    return [np.array([line.split() for line in frame.splitlines()[8:]], dtype=float) for frame in frames]


def printed(output: str, name: str) -> np.ndarray:
    return np.array(re.search(rf"^{name} (.*)$", output, re.MULTILINE)[1].split(), dtype=float)


OBSERVE = """
compute energies all pe/atom
compute virial all pressure NULL virial
compute symmetric all stress/atom NULL virial
compute centroid all centroid/stress/atom NULL virial
thermo_style custom step pe c_virial[*]
dump out all custom 1 out.dump id c_energies fx fy fz c_symmetric[*] c_centroid[*] x y z
dump_modify out sort id format float %.17g
run 0
print "energy $(pe:%.17g)"
print "virial $(c_virial[1]*vol:%.17g) $(c_virial[2]*vol:%.17g) $(c_virial[3]*vol:%.17g) &
 $(c_virial[4]*vol:%.17g) $(c_virial[5]*vol:%.17g) $(c_virial[6]*vol:%.17g)"
"""


def evaluated(
    folder: Path, atoms: Atoms, pair: str, ranks: int = 1, units: str = "metal", before: str = ""
) -> SimpleNamespace:
    """Energy and forces in LAMMPS' units; virials as volume times pressure, xx yy zz xy xz yz (yx zx zy)."""
    output = succeeds(folder, before + system(folder, atoms, units) + pair + OBSERVE, ranks)
    (frame,) = dumped(folder / "out.dump")
    return SimpleNamespace(
        energy=printed(output, "energy")[0],
        virial=printed(output, "virial"),
        energies=frame[:, 1],
        forces=frame[:, 2:5],
        symmetric=-frame[:, 5:11],
        centroid=-frame[:, 11:20],
        positions=frame[:, 20:23],
    )


def close(found, expected, relative: float, scale: float | None = None) -> None:
    """Assert that no element differs by more than `relative` times the largest (or a given) magnitude."""
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * scale)


# ---- systems and potentials


def rattled(atoms: Atoms, seed: int, step: float = 0.1) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, step, (len(atoms), 3))
    return atoms


def crystal(repeat: int = 2) -> Atoms:
    return rattled(bulk("Si", cubic=True).repeat(repeat), seed=1)


def mixture(repeat: int = 2, seed: int = 2) -> Atoms:
    atoms = rattled(bulk("Si", cubic=True).repeat(repeat), seed)
    atoms.symbols = np.random.default_rng(seed).choice(SPECIES, len(atoms))
    return atoms


def tilted(atoms: Atoms) -> Atoms:
    a = atoms.cell[0, 0]
    atoms = atoms.copy()
    atoms.set_cell([[a, 0, 0], [0.3 * a, a, 0], [-0.2 * a, 0.25 * a, 1.1 * a]], scale_atoms=True)
    return atoms


def cluster(atoms: Atoms, room: float = 12.0) -> Atoms:
    atoms = atoms.copy()
    atoms.center(vacuum=room)
    atoms.pbc = False
    return atoms


def primitive() -> Atoms:
    cell = [[3.8, 0, 0], [1.9, 3.3, 0], [1.9, 1.1, 3.1]]
    return Atoms("Si2", [[0.1, 0, 0], [1.9, 1.1, 1.3]], cell=cell, pbc=True)


def slab() -> Atoms:
    atoms = crystal()
    atoms.center(vacuum=6.0, axis=2)
    atoms.pbc = [True, True, False]
    return atoms


STRUCTURES = {
    "orthogonal": crystal(),
    "triclinic": tilted(crystal()),
    "one cubic cell, cutoff nearly its edge": crystal(1),
    "two atoms, cutoff beyond the edge": primitive(),
    "slab": slab(),
    "cluster": cluster(crystal(1)),
    "three species": mixture(),
    "three species, triclinic": tilted(mixture()),
    "three species, cluster": cluster(mixture(1)),
}


def random_potential(species: list[str], strength: float) -> Potential:
    potential = Potential.new(level=8, species=species, cutoff=5.0, min_distance=1.5, n_chebyshev=8)
    potential.parameters = strength * np.random.default_rng(3).normal(0, 0.3, potential.facts.n_parameters)
    return potential


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> SimpleNamespace:
    """Potentials with random coefficients: site energies of about 1 eV, and of 1 meV for those with an active
    set, which hardly disturb the flight of the atoms, so that any MD is stable."""
    folder = tmp_path_factory.mktemp("potentials")
    found = {"one": random_potential(["Si"], strength=0.1), "three": random_potential(SPECIES, strength=0.3)}
    for mode in ("neighbourhood", "configuration"):
        graded = random_potential(["Si"], strength=1e-2)
        graded.select([rattled(crystal(), seed, 0.15) for seed in range(40)], mode=mode)
        found[mode] = graded
    for name, potential in found.items():
        potential.save(folder / (name + (".almtp" if potential.facts.active_set else ".mtp")))
    return SimpleNamespace(folder=folder, potentials=found)


def coeff(files, atoms: Atoms) -> str:
    kinds = kinds_of(atoms)
    file = files.folder / ("one.mtp" if kinds == ["Si"] else "three.mtp")
    return f"pair_style mtp\npair_coeff * * {file} {' '.join(kinds)}\n"


# ---- agreement with Python


@pytest.mark.parametrize("atoms", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_lammps_and_python_agree(tmp_path, files, atoms):
    potential = files.potentials["three" if len(set(atoms.symbols)) == 3 else "one"]
    expected = potential.evaluate(atoms)
    found = evaluated(tmp_path, atoms, coeff(files, atoms))
    # 1e-12: the same formula; images are placed by adding cell vectors in another order (1e-16 of the box),
    # which the radial functions and sums of cancelling terms magnify
    close(found.energy, expected.energy, 1e-12, np.abs(expected.energies).sum())
    close(found.energies, expected.energies, 1e-12)
    close(found.forces, expected.forces, 1e-12)
    virial = -BAR * expected.virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    close(found.virial, virial, 1e-12)
    # both kinds of atomic virial add up to the total
    close(found.symmetric.sum(axis=0), virial, 1e-12)
    close(found.centroid.sum(axis=0), virial[[0, 1, 2, 3, 4, 5, 3, 4, 5]], 1e-12)


def test_the_virial_is_the_same_without_f_dot_r(tmp_path, files):
    """The sum over neighbours, which LAMMPS asks for beside styles that cannot use f dot r."""
    atoms = STRUCTURES["three species, triclinic"]
    usual = evaluated(tmp_path, atoms, coeff(files, atoms))
    explicit = evaluated(tmp_path, atoms, coeff(files, atoms) + "pair_modify nofdotr\n")
    close(explicit.virial, usual.virial, 1e-12)  # another order of the same terms


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ["triclinic", "two atoms, cutoff beyond the edge", "three species, cluster"])
def test_any_number_of_ranks_gives_the_same(tmp_path, files, name, ranks):
    """The cluster fills the middle of a wide box, cut along x: with four ranks the outer two have no atom."""
    atoms = STRUCTURES[name]
    cut = f"processors {ranks} 1 1\n"
    one = evaluated(tmp_path, atoms, coeff(files, atoms))
    many = evaluated(tmp_path, atoms, coeff(files, atoms), ranks, before=cut)
    # 1e-12 of the sum of magnitudes: only the order of the sums differs
    close(many.energy, one.energy, 1e-12, np.abs(one.energies).sum())
    for quantity in ("energies", "forces", "virial", "symmetric", "centroid"):
        close(getattr(many, quantity), getattr(one, quantity), 1e-11)


def test_species_may_be_integers_and_the_legacy_form_is_warned_of(tmp_path, files):
    atoms = STRUCTURES["three species"]
    file = files.folder / "three.mtp"
    named = evaluated(tmp_path, atoms, coeff(files, atoms))
    numbered = evaluated(tmp_path, atoms, f"pair_style mtp\npair_coeff * * {file} 0 1 2\n")
    assert numbered.energy == named.energy
    legacy = f"pair_style mtp {file}\npair_coeff * *\n"
    output = succeeds(tmp_path, system(tmp_path, atoms) + legacy + OBSERVE)
    assert printed(output, "energy")[0] == named.energy
    assert "the file belongs into pair_coeff" in output


def test_units_real_are_converted(tmp_path, files):
    atoms = STRUCTURES["orthogonal"]
    metal = evaluated(tmp_path, atoms, coeff(files, atoms))
    real = evaluated(tmp_path, atoms, coeff(files, atoms), units="real")
    factor = 23.060549  # kcal/mol per eV, LAMMPS' digits
    assert real.energy == pytest.approx(factor * metal.energy, rel=1e-12)
    close(real.forces, factor * metal.forces, 1e-12)
    # atm instead of bar; 1e-6: LAMMPS' constants for the two unit systems have eight digits
    close(real.virial, metal.virial / 1.01325, 1e-6)


# ---- laws


def test_heat_flux_is_the_drift_of_the_energy(tmp_path, files):
    """J V = d/dt sum_i r_i E_i of a free cluster: with the centroid virial, not with the symmetric one."""
    atoms = STRUCTURES["three species, cluster"]
    step = 1e-5  # ps: the central difference and the integrator err by some (step * frequency)² ~ 1e-6
    text = system(tmp_path, atoms) + coeff(files, atoms) + f"timestep {step}\n"
    text += """
velocity all create 600 4
compute pe all pe/atom
compute ke all ke/atom
compute good all centroid/stress/atom NULL virial
compute bad all stress/atom NULL virial
compute many_body all heat/flux ke pe good
compute pairwise all heat/flux ke pe bad
thermo_style custom step c_many_body[1] c_many_body[2] c_many_body[3] &
  c_pairwise[1] c_pairwise[2] c_pairwise[3]
thermo_modify format float %.17g
thermo 1
dump out all custom 1 out.dump id x y z c_pe c_ke
dump_modify out sort id format float %.17g
fix move all nve
run 10
"""
    output = succeeds(tmp_path, text)
    body = output.split("c_pairwise[3]")[-1].split("Loop time")[0].split("\n")[1:]
    thermo = np.array([line.split() for line in body if line.strip()], dtype=float)
    # the centre as origin: the integrator's error of the total energy has a lever arm, too
    centre = np.diag(atoms.cell) / 2
    moment = [(f[:, 4] + f[:, 5]) @ (f[:, 1:4] - centre) for f in dumped(tmp_path / "out.dump")]
    expected = (moment[6] - moment[4]) / (2 * step)
    many_body, pairwise = thermo[5, 1:4], thermo[5, 4:7]
    size = np.linalg.norm(expected)
    assert np.linalg.norm(many_body - expected) < 1e-4 * size
    assert np.linalg.norm(pairwise - expected) > 1e-2 * size


def energy_drift(folder: Path, steps: int) -> float:
    """eV per atom over the run, from a straight line through the total energy of fcc copper at 300 K."""
    potential = SHARED / "cubic_08.mtp"
    if not potential.is_file():
        pytest.skip(f"a fitted potential is needed for a stable crystal, and {potential} is not here")
    text = f"""
units metal
lattice fcc 3.61
region box block 0 5 0 5 0 5
create_box 1 box
create_atoms 1 box
mass 1 63.546
velocity all create 600 5
pair_style mtp
pair_coeff * * {potential} 0
neighbor 1.0 bin
fix move all nve
thermo_style custom step etotal temp
thermo_modify format float %.17g
thermo 10
run {steps}
"""
    output = succeeds(folder, text)
    body = re.search(r"Step +TotEng +Temp *\n(.*?)Loop time", output, re.DOTALL)[1]
    step, energy, _ = np.array([line.split() for line in body.splitlines()], dtype=float)[20:].T
    return np.polyfit(step, energy, 1)[0] * steps / 500


# 1e-6 eV/atom: velocity Verlet at 1 fs keeps a shadow energy; a force that is not the gradient, or a jump at
# the cutoff, drifts by far more
def test_energy_is_conserved_over_2_ps(tmp_path):
    assert abs(energy_drift(tmp_path, 2000)) < 1e-6


@pytest.mark.slow
def test_energy_is_conserved_over_20_ps(tmp_path):
    assert abs(energy_drift(tmp_path, 20000)) < 1e-6


def test_a_restart_goes_on_where_it_stopped(tmp_path, files):
    atoms = STRUCTURES["orthogonal"]
    again = coeff(files, atoms)
    before = evaluated(tmp_path, atoms, again + "write_restart r.restart\n")
    output = succeeds(tmp_path, "read_restart r.restart\n" + again + OBSERVE)
    assert printed(output, "energy")[0] == pytest.approx(before.energy, rel=1e-14)
    refused = lmp(tmp_path, "read_restart r.restart\n" + OBSERVE)
    assert refused.returncode != 0


# ---- with other styles

ZBL = "zbl 3.0 4.0"


def test_overlay_adds_another_style(tmp_path, files):
    atoms = STRUCTURES["orthogonal"]
    file = files.folder / "one.mtp"
    alone = evaluated(tmp_path, atoms, coeff(files, atoms))
    zbl = evaluated(tmp_path, atoms, f"pair_style {ZBL}\npair_coeff * * 14 14\n")
    overlay = f"pair_style hybrid/overlay mtp {ZBL}\npair_coeff * * mtp {file} Si\npair_coeff * * zbl 14 14\n"
    both = evaluated(tmp_path, atoms, overlay)
    for quantity in ("energy", "energies", "forces", "virial", "symmetric", "centroid"):
        # 1e-11: a sum of two sums in another order
        close(getattr(both, quantity), getattr(alone, quantity) + getattr(zbl, quantity), 1e-11)


def test_null_leaves_types_to_another_style(tmp_path, files):
    """The potential sees its own atoms alone; Lennard-Jones acts among the others and across."""
    atoms = STRUCTURES["orthogonal"].copy()
    atoms.symbols[::3] = "O"
    pair = f"""
pair_style hybrid mtp lj/cut 4.0
pair_coeff * * mtp {files.folder / "one.mtp"} Si NULL
pair_coeff 2 2 lj/cut 0.01 2.0
pair_coeff 1 2 lj/cut 0.01 2.0
compute only all pair mtp
thermo_style custom step c_only
"""
    own = atoms[atoms.symbols == "Si"]
    expected = files.potentials["one"].evaluate(own)
    report = '\nthermo_style custom step pe c_only\nrun 0\nprint "only $(c_only:%.17g)"\n'
    output = succeeds(tmp_path, system(tmp_path, atoms) + pair + report)
    assert printed(output, "only")[0] == pytest.approx(expected.energy, rel=1e-10)
    hybrid = evaluated(tmp_path, atoms, pair)
    pairwise = "pair_style lj/cut 4.0\npair_coeff 1 1 0.0 2.0\npair_coeff * 2 0.01 2.0\n"
    forces = evaluated(tmp_path, atoms, pairwise).forces
    forces[atoms.symbols == "Si"] += expected.forces
    close(hybrid.forces, forces, 1e-10)


# ---- grades


def graded(files, mode: str) -> str:
    return f"pair_style mtp/extrapolation\npair_coeff * * {files.folder / mode}.almtp Si\n"


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_are_python_s(tmp_path, files, mode, ranks):
    atoms = rattled(crystal(), 77, 0.25)
    expected = files.potentials[mode].grade(atoms)
    text = system(tmp_path, atoms) + graded(files, mode)
    text += """
fix grade all pair 5 mtp/extrapolation gamma 1
compute highest all pair mtp/extrapolation
thermo_style custom step pe c_highest[1]
dump out all custom 1 out.dump id f_grade
dump_modify out sort id format float %.17g
run 0
print "highest $(c_highest[1]:%.17g)"
"""
    output = succeeds(tmp_path, text, ranks)
    (frame,) = dumped(tmp_path / "out.dump")
    per_atom = expected.per_atom if mode == "neighbourhood" else np.full(len(atoms), expected.maximum)
    # 1e-8: derivatives that agree to 1e-13 pass through the inverse of an ill-conditioned matrix
    close(frame[:, 1], per_atom, 1e-8)
    assert printed(output, "highest")[0] == pytest.approx(expected.maximum, rel=1e-8)


def test_grades_steer_a_run_as_users_of_ml_pace_write_it(tmp_path, files):
    """Grades every 10 steps; dump frames only above 3; halt above 12; the energies are those of plain mtp."""
    atoms = rattled(crystal(), 5, 0.05)
    text = system(tmp_path, atoms) + graded(files, "neighbourhood")
    text += """
velocity all create 4000 6
timestep 0.0001
fix grade all pair 10 mtp/extrapolation gamma 1
compute most all reduce max f_grade
compute highest all pair mtp/extrapolation
variable low equal c_most<3
variable highest equal c_highest[1]
dump out all custom 10 out.dump id f_grade
dump_modify out skip v_low
dump many all custom 10 many.dump id f_grade
dump_modify many thresh f_grade > 3
fix stop all halt 10 v_highest > 12 error continue
fix move all nve
thermo_style custom step pe c_most c_highest[1]
thermo_modify format float %.17g
thermo 10
run 5000
run 0 post no
print "stopped $(step)"
"""
    output = succeeds(tmp_path, text)
    lines = re.findall(r"^ *\d+ +\S+ +\S+ +\S+ *$", output, re.MULTILINE)
    thermo = np.array([line.split() for line in lines], dtype=float)
    stopped = printed(output, "stopped")[0]
    assert 0 < stopped < 5000
    np.testing.assert_array_equal(thermo[:, 2], thermo[:, 3])
    frames = [frame[:, 1].max() for frame in dumped(tmp_path / "out.dump")]
    assert frames
    assert min(frames) >= 3
    assert frames[-1] == pytest.approx(thermo[-1, 3], rel=1e-5)  # the dump writes six digits
    assert thermo[-1, 3] > 12
    assert all((frame[:, 1] > 3).all() for frame in dumped(tmp_path / "many.dump") if len(frame))
    plain = text.replace("mtp/extrapolation", "mtp", 1)
    plain = re.sub(r"^(fix grade|fix stop|compute|dump|variable).*\n", "", plain, flags=re.MULTILINE)
    plain = plain.replace(" c_most c_highest[1]", "").replace("run 5000", f"run {stopped:.0f}")
    energies = dict(re.findall(r"^ *(\d+) +(-?\d\S+) *$", succeeds(tmp_path, plain), re.MULTILINE))
    # 1e-12: rounding alone
    close([float(energies[f"{step:.0f}"]) for step in thermo[:, 0]], thermo[:, 1], 1e-12)


def test_grades_of_atoms_of_another_style_are_zero(tmp_path, files):
    atoms = crystal()
    atoms.symbols[::4] = "O"
    expected = files.potentials["neighbourhood"].grade(atoms[atoms.symbols == "Si"])
    pair = f"""
pair_style hybrid mtp/extrapolation zbl 3.0 4.0
pair_coeff * * mtp/extrapolation {files.folder / "neighbourhood.almtp"} Si NULL
pair_coeff 1 2 zbl 14 8
pair_coeff 2 2 zbl 8 8
fix grade all pair 1 mtp/extrapolation gamma 1
dump out all custom 1 out.dump id f_grade
dump_modify out sort id format float %.17g
run 0
"""
    succeeds(tmp_path, system(tmp_path, atoms) + pair, ranks=2)
    (frame,) = dumped(tmp_path / "out.dump")
    assert (frame[atoms.symbols == "O", 1] == 0).all()
    close(frame[atoms.symbols == "Si", 1], expected.per_atom, 1e-8)


def test_a_driver_watches_takes_and_exchanges_in_memory(tmp_path, files):
    (tmp_path / "setup.lmp").write_text(system(tmp_path, rattled(crystal(), 5, 0.05)))
    done = execute(tmp_path, [sys.executable, CASES / "exchange_in_memory.py", files.folder], ranks=2)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("exchanged") == 2


# ---- refusals

MTP = "pair_style mtp\npair_coeff * * "
GOOD = MTP + "{three} Si O C\n"
REFUSALS = {
    "unknown element": (MTP + "{three} Si X C\n", "does not know 'X'; it knows Si O C"),
    "species out of range": (MTP + "{three} 0 1 3\n", "does not know '3'"),
    "too few elements": (MTP + "{three} Si O\n", "names 2 elements; the system has 3 atom types"),
    "no elements": (MTP + "{three}\n", "names 0 elements"),
    "no file": (MTP + "\n", "wants: pair_coeff * * file"),
    "not all types": ("pair_style mtp\npair_coeff 1 1 {three} Si O C\n", "pair_coeff"),
    "only NULL": (MTP + "{three} NULL NULL NULL\n", "every atom type to NULL"),
    "NULL without hybrid": (MTP + "{three} Si O NULL\n", "coeffs are not set"),
    "missing file": (MTP + "nowhere.mtp Si O C\n", "nowhere.mtp"),
    "not a potential": (MTP + "data Si O C\n", "not a moment tensor potential"),
    "untrained": (MTP + "untrained.mtp Si O C\n", "no coefficients"),
    "no pair_coeff": ("pair_style mtp\n", "coeffs are not set"),
    "too many arguments": ("pair_style mtp 5.0 6.0\n", "takes no arguments"),
    "no active set": (GOOD.replace("mtp", "mtp/extrapolation", 1), "no active set"),
    "newton off": ("newton off\n" + GOOD, "newton pair on"),
    "rRESPA": (GOOD + "run_style respa 2 2 inner 1 3.0 4.0 outer 2\n", "does not support"),
    "pair_write": (GOOD + "pair_write 1 1 10 r 1 5 table.txt x\n", "does not support"),
    "coinciding atoms": (GOOD + "set atom 1*2 x 1 y 1 z 1\n", "at the same place"),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_bad_input_is_refused_with_its_reason(tmp_path, files, case, ranks):
    commands, reason = case
    Potential.new(level=4, species=SPECIES, cutoff=5.0, min_distance=1.5).save(tmp_path / "untrained.mtp")
    setup = system(tmp_path, STRUCTURES["three species"])
    commands = commands.format(three=files.folder / "three.mtp")
    if commands.startswith("newton"):
        setup, commands = "newton off\n" + setup, commands.split("\n", 1)[1]
    done = lmp(tmp_path, setup + commands + "run 0\n", ranks)
    assert done.returncode != 0
    assert reason in " ".join((done.stdout + done.stderr).split())


def test_other_units_are_refused(tmp_path):
    done = lmp(tmp_path, "units lj\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\npair_style mtp\n")
    assert done.returncode != 0
    assert "units metal or real, not lj" in done.stdout + done.stderr
