# SPDX-License-Identifier: BSD-3-Clause
"""compute mtp/grade against Python's grades, and in what reads computes."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ase import Atoms
from test_lammps import (
    cluster,
    crystal,
    dumped,
    execute,
    files,  # noqa: F401 (a fixture)
    graded,
    lmp,
    printed,
    rattled,
    succeeds,
    system,
)

# 1e-8: derivatives that agree to 1e-13 pass through the inverse of an ill-conditioned matrix
SAME = 1e-8
OBSERVE = """
compute grade all mtp/grade
thermo_style custom step pe c_grade
dump out all custom 1 out.dump id c_grade
dump_modify out sort id format float %.17g
run 0
print "grade $(c_grade:%.17g)"
"""


def rows_of(output: str, n_columns: int) -> np.ndarray:
    """The lines of thermodynamic output."""
    lines = re.findall(rf"^ *\d+(?: +-?[\d.]\S*){{{n_columns - 1}}} *$", output, re.MULTILINE)
    return np.array([line.split() for line in lines], dtype=float)


def oxide() -> Atoms:
    """A crystal in which every fourth atom is oxygen, which no potential here knows."""
    atoms = crystal()
    atoms.symbols[::4] = "O"
    return atoms


def beside_zbl(files) -> str:  # noqa: F811
    return f"""
pair_style hybrid mtp/extrapolation zbl 3.0 4.0
pair_coeff * * mtp/extrapolation {files.folder / "neighbourhood.almtp"} Si NULL
pair_coeff 1 2 zbl 14 8
pair_coeff 2 2 zbl 8 8
"""


def under_zbl(files) -> str:  # noqa: F811
    return f"""
pair_style hybrid/overlay mtp/extrapolation zbl 3.0 4.0
pair_coeff * * mtp/extrapolation {files.folder / "neighbourhood.almtp"} Si
pair_coeff * * zbl 14 14
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_grades_are_python_s(tmp_path, files, ranks):  # noqa: F811
    atoms = rattled(crystal(), 77, 0.25)
    expected = files.potentials["neighbourhood"].grade(atoms)
    output = succeeds(tmp_path, system(tmp_path, atoms) + graded(files, "neighbourhood") + OBSERVE, ranks)
    (frame,) = dumped(tmp_path / "out.dump")
    np.testing.assert_allclose(frame[:, 1], expected.per_atom, rtol=0, atol=SAME * expected.maximum)
    assert printed(output, "grade")[0] == frame[:, 1].max()


def test_a_rank_may_have_no_atoms(tmp_path, files):  # noqa: F811
    atoms = cluster(rattled(crystal(1), 77, 0.25))
    expected = files.potentials["neighbourhood"].grade(atoms).maximum
    text = "processors 3 1 1\n" + system(tmp_path, atoms) + graded(files, "neighbourhood") + OBSERVE
    assert printed(succeeds(tmp_path, text, ranks=3), "grade")[0] == pytest.approx(expected, rel=SAME)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_grade_of_a_configuration_is_a_scalar(tmp_path, files, ranks):  # noqa: F811
    atoms = rattled(crystal(), 77, 0.25)
    expected = files.potentials["configuration"].grade(atoms).maximum
    observe = re.sub(r"^dump.*\n", "", OBSERVE, flags=re.MULTILINE)
    output = succeeds(tmp_path, system(tmp_path, atoms) + graded(files, "configuration") + observe, ranks)
    assert printed(output, "grade")[0] == pytest.approx(expected, rel=SAME)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("pair", [beside_zbl, under_zbl])
def test_a_hybrid_style_has_grades_of_its_own_atoms(tmp_path, files, pair, ranks):  # noqa: F811
    atoms = oxide() if pair is beside_zbl else crystal()
    own = atoms.symbols == "Si"
    expected = files.potentials["neighbourhood"].grade(atoms[own])
    output = succeeds(tmp_path, system(tmp_path, atoms) + pair(files) + OBSERVE, ranks)
    (frame,) = dumped(tmp_path / "out.dump")
    np.testing.assert_allclose(frame[own, 1], expected.per_atom, rtol=0, atol=SAME * expected.maximum)
    assert (frame[~own, 1] == 0).all()
    assert printed(output, "grade")[0] == pytest.approx(expected.maximum, rel=SAME)


def test_of_several_styles_each_has_its_number(tmp_path, files):  # noqa: F811
    atoms = oxide()
    pair = f"""
pair_style hybrid mtp/extrapolation mtp/extrapolation
pair_coeff * * mtp/extrapolation 1 {files.folder / "neighbourhood.almtp"} Si NULL
pair_coeff * * mtp/extrapolation 2 {files.folder / "configuration.almtp"} NULL 0
pair_coeff 1 2 none
compute first all mtp/grade 1
compute second all mtp/grade 2
thermo_style custom step c_first c_second
run 0
print "both $(c_first:%.17g) $(c_second:%.17g)"
"""
    found = printed(succeeds(tmp_path, system(tmp_path, atoms) + pair), "both")
    silicon, other = atoms[atoms.symbols == "Si"], atoms[atoms.symbols == "O"]
    other.symbols[:] = "Si"
    expected = [
        files.potentials["neighbourhood"].grade(silicon).maximum,
        files.potentials["configuration"].grade(other).maximum,
    ]
    np.testing.assert_allclose(found, expected, rtol=SAME)


def test_a_group_has_the_grades_of_its_atoms(tmp_path, files):  # noqa: F811
    atoms = rattled(crystal(), 77, 0.25)
    expected = files.potentials["neighbourhood"].grade(atoms).per_atom.copy()
    observe = "group few id 5 17 40\n" + OBSERVE.replace("grade all mtp", "grade few mtp")
    output = succeeds(tmp_path, system(tmp_path, atoms) + graded(files, "neighbourhood") + observe, ranks=2)
    (frame,) = dumped(tmp_path / "out.dump")
    few = np.isin(np.arange(1, len(atoms) + 1), [5, 17, 40])
    np.testing.assert_allclose(frame[:, 1], np.where(few, expected, 0), rtol=0, atol=SAME * expected.max())
    assert printed(output, "grade")[0] == pytest.approx(expected[few].max(), rel=SAME)


def test_other_steps_have_no_grades(tmp_path, files):  # noqa: F811
    """A watch that nothing escapes keeps a configuration on every step on which grades are computed."""
    (tmp_path / "in.lmp").write_text(
        system(tmp_path, rattled(crystal(), 5, 0.05))
        + graded(files, "neighbourhood")
        + """
compute grade all mtp/grade
fix average all ave/time 10 1 10 c_grade file average.txt format " %.17g"
fix move all nve
timestep 0.0001
thermo 1000
"""
    )
    program = """
from mpi4py import MPI
from lammps import lammps
from mtp import live
run = lammps(cmdargs=["-screen", "none", "-log", "none"])
run.file("in.lmp")
(style,) = live.styles(run)
style.watch(select=1e-9, capacity=100)
run.command("run 33")
print("steps", *(kept.step for kept in style.flagged()))
print("grades", *(kept.grade for kept in style.flagged()))
"""
    done = execute(tmp_path, [sys.executable, "-c", program])
    assert done.returncode == 0, done.stdout + done.stderr
    # the last step has thermodynamic output, for which LAMMPS asks all computes
    assert list(printed(done.stdout, "steps")) == [0, 10, 20, 30, 33]
    np.testing.assert_array_equal(printed(done.stdout, "grades")[:4], np.loadtxt(tmp_path / "average.txt")[:, 1])


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_a_grade_halts_a_run_and_chooses_frames(tmp_path, files, mode):  # noqa: F811
    atoms = rattled(crystal(), 5, 0.05)
    limit = 12 if mode == "neighbourhood" else 4
    text = system(tmp_path, atoms) + graded(files, mode)
    text += f"""
velocity all create 4000 6
timestep 0.0001
compute grade all mtp/grade
variable known equal c_grade<{limit / 4}
variable grade equal c_grade
dump out all custom 10 out.dump id x y z
dump_modify out skip v_known sort id format float %.17g
fix stop all halt 10 v_grade > {limit} error continue
fix move all nve
thermo_style custom step c_grade
thermo_modify format float %.17g
thermo 10
run 5000
"""
    rows = rows_of(succeeds(tmp_path, text), 2)
    assert rows[-1, 0] < 5000
    assert rows[-1, 1] > limit >= rows[:-1, 1].max()
    frames = dumped(tmp_path / "out.dump")
    assert len(frames) == (rows[:, 1] >= limit / 4).sum()
    last = atoms.copy()
    last.positions = frames[-1][:, 1:4]
    assert rows[-1, 1] == pytest.approx(files.potentials[mode].grade(last).maximum, rel=1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_minimiser_shows_grades(tmp_path, files, ranks):  # noqa: F811
    atoms = rattled(crystal(), 77, 0.25)
    text = system(tmp_path, atoms) + graded(files, "neighbourhood")
    text += """
compute grade all mtp/grade
fix same all pair 1 mtp/extrapolation gamma 1
thermo_style custom step pe c_grade
thermo_modify format float %.17g
thermo 3
dump out all custom 3 out.dump id c_grade x y z f_same
dump_modify out sort id format float %.17g
minimize 0 1e-6 20 100
"""
    rows = rows_of(succeeds(tmp_path, text, ranks), 3)
    frames = dumped(tmp_path / "out.dump")
    assert len(rows) >= len(frames) > 3
    for frame, grade in zip(frames, rows[:, 2], strict=False):
        moved = atoms.copy()
        moved.positions = frame[:, 2:5]
        expected = files.potentials["neighbourhood"].grade(moved)
        np.testing.assert_allclose(frame[:, 1], expected.per_atom, rtol=0, atol=SAME * expected.maximum)
        assert grade == pytest.approx(expected.maximum, rel=SAME)
        np.testing.assert_array_equal(frame[:, 5], frame[:, 1])


GRADE = "compute grade all mtp/grade\n"
PER_ATOM = "pair_style mtp/extrapolation\npair_coeff * * {neighbourhood}.almtp Si\n"
PER_CONFIGURATION = PER_ATOM.replace("neighbourhood", "configuration")
TWO = """
pair_style hybrid/overlay mtp/extrapolation mtp/extrapolation
pair_coeff * * mtp/extrapolation 1 {neighbourhood}.almtp Si
pair_coeff * * mtp/extrapolation 2 {neighbourhood}.almtp Si
"""
REFUSALS = {
    "no such pair style": (
        "pair_style mtp\npair_coeff * * {one}.mtp Si\n" + GRADE + "run 0\n",
        "no pair style mtp/extrapolation",
    ),
    "several in a hybrid": (TWO + GRADE + "run 0\n", "name one by its number"),
    "bad number": ("compute grade all mtp/grade 0\n", "counted from 1, not 0"),
    "too many arguments": ("compute grade all mtp/grade 1 2\n", "takes one argument"),
    "atoms in configuration mode": (
        PER_CONFIGURATION + GRADE + "dump o all custom 1 o.dump c_grade\nrun 0\n",
        "atoms have no grades",
    ),
    "a group in configuration mode": (
        PER_CONFIGURATION + "group few id 1\ncompute few few mtp/grade\nrun 0\n",
        "use group all",
    ),
    "a step of which nothing knew": (
        PER_ATOM + GRADE + "fix move all nve\nrun 3\nreset_timestep 100\nprint $(c_grade)\n",
        "grades were not computed on step 100",
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_answered_is_refused_with_its_reason(tmp_path, files, case, ranks):  # noqa: F811
    commands, reason = case
    commands = commands.format(**{name: files.folder / name for name in files.potentials})
    done = lmp(tmp_path, system(tmp_path, crystal()) + commands, ranks)
    assert done.returncode != 0
    assert reason in " ".join((done.stdout + done.stderr).split())
