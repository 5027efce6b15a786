# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp/kk and mtp/extrapolation/kk give what the plain styles give (in the LAMMPS of `tools/kokkos_lammps`).

One run of LAMMPS evaluates many cases, one after another (`clear`), because LAMMPS with KOKKOS starts slowly.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from test_lammps import (
    OBSERVE,
    STRUCTURES,
    close,
    coeff,
    crystal,
    dumped,
    files,  # noqa: F401 (a fixture)
    kinds_of,
    printed,
    rattled,
    system,
)
from test_walks import SI, SPECIES, learned_on_the_way, save, weak_potential

from mtp.configurations import read, write
from mtp.learning.files import FileWalk
from mtp.learning.scripts import scripts, write_data
from mtp.potential import Guard, Potential
from mtp.settings import Exploration, Selection
from mtp.structures import explored

pytestmark = pytest.mark.kokkos

TOOL = Path(__file__).resolve().parents[1] / "tools" / "kokkos_lammps"
CASES = Path(__file__).parent / "lammps_cases"
FORCE_STYLES = Path(__file__).parent / "force_styles"
QUANTITIES = ("energies", "forces", "virial", "symmetric", "centroid")


@pytest.fixture(scope="session")
def lammps_root() -> Path:
    """The system that has LAMMPS with KOKKOS, with this checkout's plugins."""
    where = subprocess.run([TOOL, "where"], capture_output=True, text=True, check=False)
    if where.returncode:
        pytest.skip(where.stderr.strip())
    if os.geteuid() != 0:
        pytest.skip(f"only root can enter {where.stdout.strip()}")
    built = subprocess.run([TOOL, "plugins"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return Path(where.stdout.strip())


@pytest.fixture
def place(lammps_root):
    """A folder in that system: `here` as it is seen from outside, `inside` as LAMMPS sees it."""
    here = Path(tempfile.mkdtemp(dir=lammps_root / "tmp", prefix="mtp-"))
    yield SimpleNamespace(here=here, inside=Path("/") / here.relative_to(lammps_root))
    shutil.rmtree(here)


@pytest.fixture
def potentials(place, files):  # noqa: F811
    """The potentials of test_lammps.py, where LAMMPS sees them."""
    shutil.copytree(files.folder, place.here / "potentials")
    return SimpleNamespace(folder=place.inside / "potentials", potentials=files.potentials)


def execute(place, program: list, ranks: int = 1) -> subprocess.CompletedProcess:
    launcher = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    # cores are shared with others: threads move among them, and do not burn them while they wait
    environment = {**os.environ, "OMP_PROC_BIND": "false", "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    command = [TOOL, "run", *launcher, *program]
    options = {"capture_output": True, "text": True, "timeout": 500, "check": False}
    return subprocess.run(command, cwd=place.here, env=environment, **options)


def lmp(place, text: str, threads: int = 0, ranks: int = 1) -> subprocess.CompletedProcess:
    """threads = 0: without KOKKOS."""
    (place.here / "in.lmp").write_text(text)
    kokkos = ["-k", "on", "t", str(threads), "-sf", "kk"] if threads else []
    return execute(place, ["lmp", *kokkos, "-in", "in.lmp"], ranks)


def succeeds(place, text: str, threads: int = 0, ranks: int = 1) -> str:
    done = lmp(place, text, threads, ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def evaluated(place, cases: dict[str, tuple[Atoms, str]], threads: int = 0, ranks: int = 1) -> dict:
    """What test_lammps.evaluated gives, of many systems: {name: (atoms, commands of the pair style)}."""
    text = ""
    for k, (atoms, pair) in enumerate(cases.values()):
        folder = place.here / str(k)
        folder.mkdir(exist_ok=True)
        data = system(folder, atoms).replace("read_data data", f"read_data {k}/data")
        observe = OBSERVE.replace("out.dump", f"{k}/out.dump").replace('print "', f'print "{k}-')
        text += f"clear\nprocessors {ranks} 1 1\n{data}{pair}{observe}"
    output = succeeds(place, text, threads, ranks)
    if threads:
        assert "/kk" in output
    found = {}
    for k, name in enumerate(cases):
        (frame,) = dumped(place.here / str(k) / "out.dump")
        found[name] = SimpleNamespace(
            energy=printed(output, f"{k}-energy")[0],
            virial=printed(output, f"{k}-virial"),
            energies=frame[:, 1],
            forces=frame[:, 2:5],
            symmetric=-frame[:, 5:11],
            centroid=-frame[:, 11:20],
        )
    return found


def agree(found, expected) -> None:
    """1e-11: the same formulas, in sums of another order, over neighbours that come in another order."""
    assert found.keys() == expected.keys()
    for name, one in found.items():
        other = expected[name]
        close(one.energy, other.energy, 1e-11, np.abs(other.energies).sum())
        for quantity in QUANTITIES:
            close(getattr(one, quantity), getattr(other, quantity), 1e-11)


def everything(potentials) -> dict[str, tuple[Atoms, str]]:
    """All structures, and those whose virial LAMMPS does not take from the forces, or that share LAMMPS with others."""
    cases = {name: (atoms, coeff(potentials, atoms)) for name, atoms in STRUCTURES.items()}
    three = STRUCTURES["three species, triclinic"]
    cases["no f dot r"] = (three, coeff(potentials, three) + "pair_modify nofdotr\n")
    one = potentials.folder / "one.mtp"
    overlay = f"pair_style hybrid/overlay mtp lj/cut 4.0\npair_coeff * * mtp {one} Si\npair_coeff * * lj/cut 0.01 2.0\n"
    cases["overlay"] = (crystal(), overlay)
    mixed = crystal()
    mixed.symbols[::4] = "O"
    hybrid = "pair_style hybrid mtp lj/cut 4.0\npair_coeff * * mtp {} Si NULL\npair_coeff * 2 lj/cut 0.01 2.0\n"
    cases["hybrid"] = (mixed, hybrid.format(one))
    alone = Atoms("Si", positions=[[10, 10, 10]], cell=[20, 20, 20], pbc=False)
    cases["one atom"] = (alone, coeff(potentials, alone))
    pair = Atoms("Si2", positions=[[10, 10, 10], [12.2, 10, 10]], cell=[20, 20, 20], pbc=False)
    cases["two atoms"] = (pair, coeff(potentials, pair))
    return cases


@pytest.fixture(scope="session")
def plain_results() -> dict:
    """Filled by the first test that needs the plain style's results."""
    return {}


def plain(place, potentials, results) -> dict:
    if not results:
        results.update(evaluated(place, everything(potentials)))
    return results


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_kokkos_and_plain_agree(place, potentials, plain_results, threads, ranks):
    """Of the clusters with two ranks, and of one atom, some thread or rank has nothing."""
    expected = plain(place, potentials, plain_results)
    agree(evaluated(place, everything(potentials), threads, ranks), expected)


@pytest.mark.parametrize("variant", ["thread", "warp", "team"])
@pytest.mark.parametrize(("threads", "ranks"), [(2, 1), (1, 2)])
def test_device_kernels_agree_on_the_host(place, potentials, plain_results, variant, threads, ranks):
    """What a GPU executes, by the threads of the host."""
    cases = {
        name: (atoms, re.sub(r"(pair_style|hybrid|hybrid/overlay) mtp\b", rf"\1 mtp variant {variant}", pair))
        for name, (atoms, pair) in everything(potentials).items()
    }
    agree(evaluated(place, cases, threads, ranks), plain(place, potentials, plain_results))


@pytest.mark.parametrize("level", [2, 12, 16])
def test_device_kernels_know_all_levels(place, level):
    """Moments of high degree, many radial functions; level 2 has a single moment."""
    rng = np.random.default_rng(level)
    potential = Potential.new(level, ["Si"], cutoff=5.0, min_distance=1.5, n_chebyshev=8)
    potential.parameters = rng.normal(0, 0.1, potential.facts.n_parameters)
    potential.save(place.here / "level.mtp")
    atoms, pair = crystal(1), f"pair_style mtp{{}}\npair_coeff * * {place.inside}/level.mtp Si\n"
    expected = evaluated(place, {"": (atoms, pair.format(""))})
    for variant, threads in itertools.product(("lanes", "thread", "warp", "team"), (1, 2)):
        found = evaluated(place, {"": (atoms, pair.format(f" variant {variant}"))}, threads)
        agree(found, expected)


def test_mixed_precision_errs_by_the_rounding_of_a_neighbour(place, potentials, plain_results):
    expected = plain(place, potentials, plain_results)
    for variant in ("thread", "warp", "team"):
        cases = {
            name: (atoms, re.sub(r"(pair_style|overlay) mtp\b", rf"\1 mtp variant {variant} precision mixed", pair))
            for name, (atoms, pair) in everything(potentials).items()
            if name != "hybrid"
        }
        found = evaluated(place, cases, threads=2)
        for name, one in found.items():
            other = expected[name]
            close(one.energy, other.energy, 1e-6, np.abs(other.energies).sum())
            for quantity in QUANTITIES:
                # some 1e-7 for each of the numbers that make a neighbour's share, and shares that cancel
                close(getattr(one, quantity), getattr(other, quantity), 1e-5)
        differences = [np.abs(one.forces - expected[name].forces).max() for name, one in found.items()]
        assert max(differences) > 0  # else the keyword has done nothing


def test_mixed_precision_errs_far_less_than_a_fit(place, shared_data):
    """Forces of a potential of level 16, beside the errors of its fit in configurations that it was fitted to."""
    shutil.copy(shared_data / "reference" / "cubic_16.mtp", place.here)
    configurations = read(shared_data / "reference" / "cubic_train_101.cfg", ["Cu"])[::10]
    pair = f"pair_style mtp variant warp precision {{}}\npair_coeff * * {place.inside}/cubic_16.mtp 0\n"
    forces = {}
    for precision in ("double", "mixed"):
        cases = {str(k): (atoms, pair.format(precision)) for k, atoms in enumerate(configurations)}
        found = evaluated(place, cases, threads=1)
        forces[precision] = np.concatenate([found[name].forces for name in cases])
    labels = np.concatenate([atoms.get_forces() for atoms in configurations])
    of_fit = np.sqrt(np.mean((forces["double"] - labels) ** 2))
    of_precision = np.sqrt(np.mean((forces["mixed"] - forces["double"]) ** 2))
    print(f"force errors: fit {1e3 * of_fit:.3g} meV/Å, precision {1e3 * of_precision:.3g} meV/Å")
    assert 0 < of_precision < 0.01 * of_fit


def test_mixed_precision_keeps_the_energy(place):
    """What a run of NVE gains or loses is the time step's doing, not that of the precision."""
    potential = Potential.new(12, ["Si"], cutoff=5.0, min_distance=1.5, n_chebyshev=8)
    potential.parameters = np.random.default_rng(12).normal(0, 0.01, potential.facts.n_parameters)
    potential.save(place.here / "level.mtp")
    atoms = crystal()
    text = ""
    for precision in ("double", "mixed"):
        text += f"clear\n{system(place.here, atoms)}pair_style mtp variant thread precision {precision}\n"
        text += f"pair_coeff * * {place.inside}/level.mtp Si\nvelocity all create 600 6\ntimestep 0.001\n"
        text += (
            "fix move all nve\nthermo 20\nthermo_style custom step etotal\nthermo_modify format float %.17g\nrun 400\n"
        )
    rows = re.findall(r"^ *(\d+) +(-?[\d.e+-]+) *$", succeeds(place, text, threads=2), re.MULTILINE)
    energies = np.array(rows, dtype=float)[:, 1].reshape(2, -1)
    drift = np.abs(energies - energies[:, :1]).max(axis=1)
    print(
        f"largest change of the energy of {len(atoms)} atoms: {drift[0]:.3g} eV in double precision, {drift[1]:.3g} eV"
    )
    # rounding errors of single forces are a walk without a direction: far below a tenth of a millielectronvolt an atom
    assert np.abs(energies[1] - energies[0]).max() < 0.1 * drift[0] + 1e-6 * len(atoms)


def test_a_guard_acts_on_the_device(place):
    windows = np.array([[(1.2, 2.6), (1.0, 2.4)], [(1.0, 2.4), (0.8, 2.2)]])
    potential = Potential.new(8, ["Si", "O"], cutoff=5.0, min_distance=1.5, n_chebyshev=8)
    potential.parameters = np.random.default_rng(1).normal(0, 0.1, potential.facts.n_parameters)
    potential.guard = Guard(windows + 0.3, windows)
    potential.save(place.here / "guarded.mtp")
    atoms = rattled(crystal(1), 4, 0.25)
    atoms.symbols[::3] = "O"
    pair = f"pair_style mtp{{}}\npair_coeff * * {place.inside}/guarded.mtp {' '.join(kinds_of(atoms))}\n"
    expected = evaluated(place, {"": (atoms, pair.format(""))})
    for variant in ("lanes", "thread", "team"):
        agree(evaluated(place, {"": (atoms, pair.format(f" variant {variant}"))}, 2), expected)


@pytest.mark.parametrize(("threads", "ranks"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("file", sorted(FORCE_STYLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_reference_files_hold(place, file, threads, ranks):
    """Forces at the start and after four steps of NVE."""
    blocks = dict(re.findall(r"^(\w+): ?(?:! \|2?\n)?((?:  .*\n)+|.*\n)", file.read_text(), re.MULTILINE))
    shutil.copytree(file.parent, place.here, dirs_exist_ok=True)
    show = "write_dump all custom {0}.dump id fx fy fz modify sort id format float %.17g\n"
    text = f"{blocks['pre_commands']}\ninclude {blocks['input_file']}\npair_style {blocks['pair_style']}\n"
    text += f"pair_coeff {blocks['pair_coeff']}\nrun 0\n{show.format('init')}fix 1 all nve\nrun 4\n{show.format('run')}"
    output = succeeds(place, text, threads, ranks)
    assert "mtp/kk" in output
    for stage in ("init", "run"):
        (frame,) = dumped(place.here / f"{stage}.dump")
        forces = np.array(blocks[f"{stage}_forces"].split(), dtype=float).reshape(-1, 4)
        # 1e-10: the reference's own machine, and four steps of rounding errors
        close(frame[:, 1:4], forces[:, 1:], 1e-10)


GRADES = """
compute grade all mtp/grade
compute highest all pair mtp/extrapolation
fix each all pair 1 mtp/extrapolation gamma 1
thermo_style custom step pe c_grade c_highest[1]
dump out all custom 1 out.dump id f_each
dump_modify out sort id format float %.17g
run 0
print "highest $(c_grade:%.17g) $(c_highest[1]:%.17g)"
"""


@pytest.mark.parametrize(
    ("variant", "threads", "ranks"),
    [("lanes", 1, 1), ("lanes", 2, 1), ("lanes", 2, 2), ("warp", 2, 1), ("thread", 1, 2)],
)
@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_are_python_s(place, potentials, mode, variant, threads, ranks):
    atoms = rattled(crystal(), 77, 0.25)
    expected = potentials.potentials[mode].grade(atoms)
    pair = f"pair_style mtp/extrapolation variant {variant}\n"
    pair += f"pair_coeff * * {potentials.folder / mode}.almtp Si\n"
    output = succeeds(place, system(place.here, atoms) + pair + GRADES, threads, ranks)
    assert "mtp/extrapolation/kk" in output
    (frame,) = dumped(place.here / "out.dump")
    per_atom = expected.per_atom if mode == "neighbourhood" else np.full(len(atoms), expected.maximum)
    # 1e-8: derivatives that agree to 1e-13 pass through the inverse of an ill-conditioned matrix
    close(frame[:, 1], per_atom, 1e-8)
    np.testing.assert_allclose(printed(output, "highest"), expected.maximum, rtol=1e-8)


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_of_the_device_are_the_plain_style_s(place, mode):
    """Of two species, beside atoms of another style; more atoms than a batch holds."""
    potential = Potential.new(8, ["Si", "O"], cutoff=5.0, min_distance=1.5, n_chebyshev=6)
    potential.parameters = np.random.default_rng(1).normal(0, 0.1, potential.facts.n_parameters)
    potential.select([mixed(crystal(1), seed, 2) for seed in range(60)], mode=mode)
    potential.save(place.here / "graded.almtp")
    atoms = mixed(crystal(), 77, 3)
    pair = (
        f"pair_style hybrid mtp/extrapolation{{}} lj/cut 4.0\n"
        f"pair_coeff * * mtp/extrapolation {place.inside}/graded.almtp Si O NULL\npair_coeff * 3 lj/cut 0.01 2.0\n"
    )
    text = ""
    for k, how in enumerate(("", " variant thread", " variant warp", " variant team")):
        folder = place.here / str(k)
        folder.mkdir()
        start = system(folder, atoms).replace("read_data data", f"read_data {k}/data")
        observe = GRADES.replace("out.dump", f"{k}/out.dump").replace("id f_each", "id f_each fx fy fz")
        text += f"clear\n{start}{pair.format(how)}{observe}"
    highest = re.findall(r"^highest (\S+)", succeeds(place, text, threads=2), re.MULTILINE)
    (expected,) = dumped(place.here / "0" / "out.dump")
    assert expected[:, 1].max() > 1
    for k in (1, 2, 3):
        (found,) = dumped(place.here / str(k) / "out.dump")
        close(found[:, 1], expected[:, 1], 1e-11)
        close(found[:, 2:], expected[:, 2:], 1e-11)
        assert float(highest[k]) == pytest.approx(float(highest[0]), rel=1e-11)


def mixed(atoms: Atoms, seed: int, n_kinds: int) -> Atoms:
    atoms = rattled(atoms, seed, 0.1)
    atoms.symbols = np.random.default_rng(seed).choice(["Si", "O", "C"][:n_kinds], len(atoms))
    return atoms


DYNAMICS = {
    "nve": "fix move all nve\nrun 20\n",
    "nvt": "fix move all nvt temp 600 600 0.05\nrun 20\n",
    "npt": "fix move all npt temp 600 600 0.05 iso 0 0 0.5\nrun 20\n",
    "minimize": "min_style cg\nminimize 0 0 5 100\n",
}


@pytest.mark.parametrize("kind", DYNAMICS)
def test_atoms_move_alike(place, potentials, kind):
    """Neighbour lists are made anew at every other step, atoms are sorted and cross the border of the ranks."""
    atoms = crystal()
    text = system(place.here, atoms) + coeff(potentials, atoms)
    text += "neigh_modify every 2 delay 0 check no\ntimestep 0.001\nvelocity all create 1200 6\nthermo 1\n"
    text += "thermo_style custom step pe press temp\nthermo_modify format float %.17g\n" + DYNAMICS[kind]
    rows = re.compile(r"^ *\d+ +\S+ +\S+ +\S+ *$", re.MULTILINE)

    def course(**how):
        return np.array([line.split() for line in rows.findall(succeeds(place, text, **how))], dtype=float)

    expected = course()
    assert len(expected) > 3
    for threads, ranks in ((1, 1), (2, 1), (2, 2)):
        found = course(threads=threads, ranks=ranks)
        # 1e-8: rounding errors of 1e-15 grow in 20 steps, and the pressure is a sum of cancelling terms
        for column in (1, 2, 3):
            close(found[:, column], expected[:, column], 1e-8)


ENSEMBLES = {
    "npt": "fix move all npt temp 600 300 0.05 iso 0 1000 0.5\n",
    "strained": "fix move all nvt temp 600 600 0.05\nfix box all deform 1 x erate 0.1 remap x\n",
    "shaken": "fix move all nve\nfix still all momentum 7 linear 1 1 1 rescale\nfix tie all spring/self 0.1\n",
}


@pytest.mark.parametrize(("variant", "threads", "ranks"), [("lanes", 2, 1), ("warp", 1, 2)])
def test_what_follows_a_rollback_is_what_a_restart_would_give(place, potentials, variant, threads, ranks):
    potential = potentials.potentials["neighbourhood"]
    other = potential.copy()
    other.parameters = 1.5 * potential.parameters
    other.set_active_set(potential.active_set, "neighbourhood")
    other.save(place.here / "other.almtp")
    pair = "pair_style mtp/extrapolation variant {}\npair_coeff * * {} Si\n"
    first = pair.format(variant, potentials.folder / "neighbourhood.almtp")
    follows = pair.format(variant, place.inside / "other.almtp")
    start = system(place.here, crystal()) + first + "velocity all create 4000 6\n"
    settings = "timestep 0.001\nneigh_modify every 2 delay 0 check no\n"
    end = "run 120 upto start 0 stop 120\nwrite_dump all custom {}.{}.dump id x y z vx vy vz "
    end += "modify sort id format float %.17g\n"
    text = ""
    for name, fixes in ENSEMBLES.items():
        run = settings + fixes
        text += f"clear\n{start}{run}run 50 start 0 stop 120\nwrite_restart {name}.restart\n"
        text += f"clear\nread_restart {name}.restart\n{follows}{run}{end.format(name, 'expected')}"
        text += f"clear\n{start}{run}fix back all mtp/rollback 50\nrun 79 upto start 0 stop 120\n"
        text += f"fix_modify back restore\npair_coeff * * other.almtp Si\n{end.format(name, 'found')}"
    output = succeeds(place, text, threads, ranks)
    assert output.count("Rolled back from step 79 to step 50") == len(ENSEMBLES)
    assert "nvt/kk" in output or "npt/kk" in output
    for name in ENSEMBLES:
        (found,), (expected,) = (dumped(place.here / f"{name}.{which}.dump") for which in ("found", "expected"))
        close(found[:, 1:4], expected[:, 1:4], 1e-10)
        close(found[:, 4:], expected[:, 4:], 1e-9)


def test_a_walk_elsewhere_learns_with_kokkos_as_without(place):
    """The transport `files`: jobs that end at a break, go back and go on from restart files."""
    potential = weak_potential("neighbourhood")
    write(place.here / "structure.extxyz", [SI["diamond"]])
    found = Exploration(file=place.here / "structure.extxyz", temperatures=[1500.0], steps=60)
    write_data(place.here / "structure.data", explored(found, SPECIES), SPECIES)
    (script,) = scripts(found, place.here / "structure.data", SPECIES)

    def walk(name, flags, **selection):
        command = f'env OMP_WAIT_POLICY=passive OMP_PROC_BIND=false "{TOOL}" run lmp {flags}'
        chosen = Selection(**{"interval": 5, "break": 1e30, **selection})
        walking = FileWalk(script, chosen, place.here / name, (4,), MPI.COMM_WORLD, command)
        (place.here / f"{name}.d").mkdir()
        walking.begin(potential, save(potential, place.here / f"{name}.d" / "0.almtp"), 0)
        return walking

    grades = [atoms.info["grade"] for atoms in walk("free", "-k on t 2 -sf kk").go_on().flagged]
    thresholds = {"select": np.quantile(grades, 0.5), "break": np.quantile(grades, 0.7)}
    learned = []
    for name, flags in (("plain", ""), ("kokkos", "-k on t 2 -sf kk")):
        learned.append(learned_on_the_way(walk(name, flags, **thresholds), potential, place.here / f"{name}.d"))
    (breaks, swaps, last), (breaks_with, swaps_with, last_with) = learned
    assert breaks_with == breaks
    assert len(breaks) >= 1
    assert [step for step, _ in swaps_with] == [step for step, _ in swaps]
    assert last_with.histogram == last.histogram
    for one, other in zip(last_with.flagged, last.flagged, strict=True):
        assert one.info["step"] == other.info["step"]
        assert one.info["grade"] == pytest.approx(other.info["grade"], rel=1e-7)
        shift = one.get_scaled_positions() - other.get_scaled_positions()
        np.testing.assert_allclose(shift, np.round(shift), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("package kokkos newton off neigh half\n", "requires newton pair on"),
        ("package kokkos newton off neigh full\n", "requires newton pair on"),
    ],
)
def test_settings_that_cannot_work_are_refused(place, potentials, package, reason):
    done = lmp(place, package + system(place.here, crystal()) + coeff(potentials, crystal()) + "run 0\n", threads=1)
    assert done.returncode != 0
    assert reason in done.stdout + done.stderr


def test_bad_variants_and_coinciding_atoms_are_errors(place, potentials):
    atoms = crystal()
    start, pair = system(place.here, atoms), coeff(potentials, atoms)
    together = "set atom 7*8 x 1 y 1 z 1\n"
    for change, commands, reason in (
        ("mtp variant block", "", "lanes, thread, warp or team"),
        ("mtp precision half", "", "double or mixed"),
        ("mtp precision mixed", "", "for the variants thread, warp and team"),
        ("mtp variant team", together, r"atom [78]: two atoms are at the same place"),
        ("mtp", together, r"atom [78]: two atoms are at the same place"),
    ):
        changed = pair.replace("pair_style mtp", f"pair_style {change}")
        done = lmp(place, start + changed + commands + "run 0\n", threads=2)
        assert done.returncode != 0
        assert re.search(reason, done.stdout + done.stderr)


def test_a_driver_keeps_what_is_flagged_and_exchanges_coefficients(place, potentials):
    """Through the C interface alone: this LAMMPS' Python has no numpy."""
    atoms = rattled(crystal(), 5, 0.05)
    (place.here / "setup.lmp").write_text(system(place.here, atoms))
    potential = potentials.potentials["neighbourhood"]
    other = potential.copy()
    other.parameters = 1.5 * potential.parameters
    other.set_active_set(2 * potential.active_set, "neighbourhood")
    other.save(place.here / "potentials" / "other.almtp")
    shutil.copy(CASES / "exchange_with_kokkos.py", place.here)
    variants = ("lanes", "warp", "thread")  # on the device, neighbourhoods are gathered there
    done = execute(place, ["python3", "exchange_with_kokkos.py", place.inside / "potentials", *variants])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "exchanged" in done.stdout
