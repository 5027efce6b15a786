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

from mtp.potential import Guard, Potential

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


@pytest.mark.parametrize(("threads", "ranks"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_are_python_s(place, potentials, mode, threads, ranks):
    atoms = rattled(crystal(), 77, 0.25)
    expected = potentials.potentials[mode].grade(atoms)
    pair = f"pair_style mtp/extrapolation\npair_coeff * * {potentials.folder / mode}.almtp Si\n"
    output = succeeds(place, system(place.here, atoms) + pair + GRADES, threads, ranks)
    assert "mtp/extrapolation/kk" in output
    (frame,) = dumped(place.here / "out.dump")
    per_atom = expected.per_atom if mode == "neighbourhood" else np.full(len(atoms), expected.maximum)
    # 1e-8: derivatives that agree to 1e-13 pass through the inverse of an ill-conditioned matrix
    close(frame[:, 1], per_atom, 1e-8)
    np.testing.assert_allclose(printed(output, "highest"), expected.maximum, rtol=1e-8)


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
    for change, commands, reason in (
        ("mtp variant block", "", "lanes, thread, warp or team"),
        ("mtp variant team", "set atom 1*2 x 1 y 1 z 1\n", "at the same place"),
        ("mtp", "set atom 1*2 x 1 y 1 z 1\n", "at the same place"),
    ):
        changed = pair.replace("pair_style mtp", f"pair_style {change}")
        done = lmp(place, start + changed + commands + "run 0\n", threads=2)
        assert done.returncode != 0
        assert reason in done.stdout + done.stderr


def test_a_driver_exchanges_coefficients_and_is_stopped_by_a_grade(place, potentials):
    """Through the C interface alone: this LAMMPS' Python has no numpy."""
    atoms = rattled(crystal(), 5, 0.05)
    (place.here / "setup.lmp").write_text(system(place.here, atoms))
    potential = potentials.potentials["neighbourhood"]
    other = potential.copy()
    other.parameters = 1.5 * potential.parameters
    other.set_active_set(2 * potential.active_set, "neighbourhood")
    other.save(place.here / "potentials" / "other.almtp")
    shutil.copy(CASES / "exchange_with_kokkos.py", place.here)
    done = execute(place, ["python3", "exchange_with_kokkos.py", place.inside / "potentials"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "exchanged" in done.stdout
