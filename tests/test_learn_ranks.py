# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn` on several ranks learns the same, and what goes wrong on one ends all."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from learning_loops import (
    BIN,
    SILICON,
    TERSOFF,
    ase_labeller,
    consistent,
    count,
    learned,
    refused,
    settings,
    transported,
)

from mtp.learning.scripts import write_data
from mtp.potential import Potential

pytestmark = pytest.mark.usefixtures("toy_calculators")


HOT = (("steps = 300", "steps = 100"), ("[600]", "[1200]"))


def same(one: Path, other: Path) -> None:
    """Two loops flagged and learned the same."""
    (data, rounds), (others, other_rounds) = consistent(one), consistent(other)
    keys = ("labelled", "flagged", "selected", "histogram", "rollbacks")
    for a, b in zip(rounds, other_rounds, strict=True):
        assert [a[key] for key in keys] == [b[key] for key in keys]
    potential, another = (Potential.load(folder / "potential.almtp") for folder in (one, other))
    for a, b in zip(data.labelled(), others.labelled(), strict=True):
        assert a.info["origin"] == b.info["origin"]
        # forces differ by the order of sums, 1e-15 of them, and 100 steps are too short for chaos to show
        np.testing.assert_allclose(a.get_scaled_positions(wrap=False), b.get_scaled_positions(wrap=False), atol=1e-9)
        found, expected = another.evaluate(a), potential.evaluate(a)
        assert found.energy == pytest.approx(expected.energy, abs=1e-8)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-8)


@pytest.fixture(scope="module")
def alone(mtp, tmp_path_factory):
    """The folder of a loop of one rank, which has gone on after breaks."""
    folder = tmp_path_factory.mktemp("alone")
    settings(folder, SILICON % TERSOFF, *HOT)
    learned(mtp(folder, "learn", "learn.toml"))
    rounds = json.loads((folder / "run" / "rounds.json").read_text())
    assert sum(len(record["rollbacks"]) for record in rounds) >= 2
    return folder / "run"


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_ranks_learns_the_same(mtp, tmp_path, alone, ranks):
    settings(tmp_path, SILICON % TERSOFF, *HOT)
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    same(tmp_path / "run", alone)


def test_some_breaks_were_found_late_and_their_first_step_is_learned(alone):
    data, rounds = consistent(alone)
    found = [p for record in rounds for p in record["passages"] if p["retraced"]]
    assert found
    assert all(10 < p["retraced"]["grade"] <= p["highest_grade"] for p in found)
    grades = {atoms.info["grade"] for atoms in data.labelled() if atoms.info["round"] > 0}
    assert grades & {p["retraced"]["grade"] for p in found}
    backs = [back for record in rounds for back in record["rollbacks"]]
    assert {p["retraced"]["step"] for p in found} == {back["first"] for back in backs} - {None}


KILLED = """
import os, signal
from mtp.learning.memory import MemoryWalk

def dies(self, interval, grade_every=MemoryWalk._grade_every):
    grade_every(self, interval)
    if interval == 1:
        os.kill(os.getpid(), signal.SIGKILL)

MemoryWalk._grade_every = dies
from mtp.cli import main
main()
"""


def test_a_loop_that_is_killed_between_a_break_and_its_first_step_learns_the_same(mtp, tmp_path, alone):
    settings(tmp_path, SILICON % TERSOFF, *HOT)
    command = [sys.executable, "-c", KILLED, "learn", "learn.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "run" / "state.json").read_text())["phase"] == "walking"
    learned(mtp(tmp_path, "learn", "learn.toml"))
    same(tmp_path / "run", alone)


def test_lammps_elsewhere_learns_the_same(mtp, tmp_path, alone):
    settings(tmp_path, transported(SILICON % TERSOFF), *HOT)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    same(tmp_path / "run", alone)
    pieces = sorted((tmp_path / "run").glob("walk_0/turn_*/piece_*"))
    assert all((piece / "in.lammps").exists() and (piece / "grades.txt").exists() for piece in pieces)


USERS_INPUT = """
units metal
read_data silicon.data
# mtp: potential
velocity all create 900 ${seed}
fix 1 all nvt temp 900 900 0.1
%s
# mtp: run 60
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_user_s_input_is_tried_before_the_first_label_and_learned_from(mtp, tmp_path, ranks):
    text = SILICON % TERSOFF
    settings(tmp_path, text[: text.index("[[exploration]]")] + '[[exploration]]\ninput = "hot.in"\n')
    (tmp_path / "hot.in").write_text(USERS_INPUT % "fix 2 all ave/time 1 1 1 c_thermo_pe")
    done = mtp(tmp_path, "learn", "learn.toml", ranks=ranks, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("hot.in: LAMMPS: ERROR: Cannot open file silicon.data") == 1
    write_data(tmp_path / "silicon.data", bulk("Si", a=5.432, cubic=True), ["Si"])
    done = mtp(tmp_path, "learn", "learn.toml", ranks=ranks, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("fix 2 of style ave/time cannot be rolled back") == 1
    assert count(tmp_path, "labelled") + count(tmp_path, "pending") == 0
    (tmp_path / "hot.in").write_text(USERS_INPUT % "")
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    _, rounds = consistent(tmp_path / "run")

    assert "learned already" in learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    (tmp_path / "hot.in").write_text(USERS_INPUT % "# edited")
    assert "learned already" not in learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    assert len(json.loads((tmp_path / "run" / "rounds.json").read_text())) > len(rounds)
    *_, before, last = json.loads((tmp_path / "run" / "starts.json").read_text())
    (kept,) = last["files"].values()
    assert (tmp_path / "run" / kept).read_text() == USERS_INPUT % "# edited"
    assert (tmp_path / "run" / next(iter(before["files"].values()))).read_text() == USERS_INPUT % ""


def test_groups_of_ranks_share_what_they_learn(mtp, tmp_path):
    walks = ("temperatures = [600]", "temperatures = [300, 900, 1200]\nramps = [[300, 1200]]")
    settings(tmp_path, "groups = 2\n" + SILICON % TERSOFF, walks)
    output = learned(mtp(tmp_path, "learn", "learn.toml", ranks=2))
    _, rounds = consistent(tmp_path / "run")
    whole = {p["title"] for p in rounds[-1]["passages"] if p["begin"] == 0 and p["finished"] and not p["flagged"]}
    assert whole == {"300 K", "900 K", "1200 K", "300 to 1200 K"}
    assert "to be labelled" in output


@pytest.mark.slow
def test_groups_walk_on_while_others_wait_for_labels(mtp, tmp_path):
    walks = (("[600]", "[100, 1200]"), ("steps = 300", "steps = 20000"))
    settings(tmp_path, "groups = 2\nrounds = 3\n" + SILICON % ase_labeller("Slow"), *walks)
    output = mtp(tmp_path, "learn", "learn.toml", ranks=2, SLOW="1").stdout
    waits = re.findall(r"to be labelled\n(.*?)labelled", output, re.DOTALL)
    assert any("100 K: steps" in wait for wait in waits)


def test_more_groups_than_ranks_are_refused(mtp, tmp_path):
    settings(tmp_path, "groups = 2\n" + SILICON % TERSOFF)
    refused(mtp(tmp_path, "learn", "learn.toml"), "groups = 2, but there are 1 ranks")


FAILING_RANK = """
import mpi4py.MPI as MPI
from mtp.learning.memory import MemoryWalk

go_on = MemoryWalk.go_on

def fails(self, steps=None):
    if MPI.COMM_WORLD.rank == 1:
        raise RuntimeError("rank 1 has had enough")
    return go_on(self, steps)

MemoryWalk.go_on = fails
from mtp.cli import main
main()
"""


def test_a_rank_that_fails_in_a_walk_ends_all_with_its_message(tmp_path):
    settings(tmp_path, SILICON % TERSOFF)
    command = [BIN / "mpiexec", "-n", "2", sys.executable, "-c", FAILING_RANK, "learn", "learn.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "rank 1 has had enough" in done.stderr


SCRIPT = """
from pathlib import Path
from mpi4py import MPI
from mtp.learn import learn
from mtp.settings import LearnSettings, load

settings = load("learn.toml", LearnSettings).resolve(Path())
lines = []
rounds = learn(settings, say=lines.append, comm=MPI.COMM_WORLD)
assert rounds[-1]["converged"]
assert bool(lines) == (MPI.COMM_WORLD.rank == 0)
"""


def test_a_script_of_several_ranks_can_run_the_loop(tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("steps = 300", "steps = 50"))
    command = [BIN / "mpiexec", "-n", "2", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SILICON % ase_labeller("Refusing"), "none of the 5 candidates of round 0 could be labelled"),
        (SILICON % TERSOFF + "steeps = 3\n", "learn.toml: exploration[0].steeps: this key is not known"),
    ],
    ids=["rank 0 fails", "settings"],
)
def test_an_error_ends_all_ranks_and_is_told_once(mtp, tmp_path, text, says):
    settings(tmp_path, text)
    told_once(mtp, tmp_path, says)


def test_all_ranks_end_alike_where_the_loop_has_not_converged(mtp, tmp_path, begun):
    told_once(mtp, tmp_path, "not converged after 1 rounds")


def told_once(mtp, tmp_path, says):
    done = mtp(tmp_path, "learn", "learn.toml", ranks=2, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count(says) == 1
    assert "Traceback" not in done.stderr
