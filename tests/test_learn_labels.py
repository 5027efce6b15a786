# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn` records, leaves out and reports what its labeller cannot do, and what LAMMPS cannot."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from learning_loops import (
    SILICON,
    TERSOFF,
    ase_labeller,
    consistent,
    count,
    learned,
    refused,
    settings,
)

from mtp.configurations import labels

pytestmark = pytest.mark.usefixtures("toy_calculators")


def test_what_the_labeller_cannot_do_is_recorded_skipped_and_reported(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Moody", time_limit=1, workers=2), ("[0.03]", "[0.05, 0.1, 0.15]"))
    output = learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, rounds = consistent(tmp_path / "run")
    failures = {failure.atoms.info["origin"]: failure for failure in dataset.failures()}
    expected = {
        "made: vacancy": ("failed", "ValueError: no [odd] numbers of atoms"),
        "made: sheared by 0.02": ("not converged", "SCFError: too many iterations"),
        "made: strained by 0.02": ("time limit", "no answer within 1 s"),
    }
    assert {origin: (f.reason, f.message) for origin, f in failures.items()} == expected
    for failure in failures.values():
        assert f"round 0: candidate {failure.id} is left out: {failure.reason}: {failure.message}" in output
    assert [record["failed"] for record in rounds] == [3] * len(rounds)


def test_a_loop_whose_candidates_all_fail_says_why_and_how_to_try_again(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Refusing"))
    for _ in range(2):  # the second time nothing is pending
        said = refused(
            mtp(tmp_path, "learn", "learn.toml"),
            "none of the 5 candidates of round 0 could be labelled",
            "failed: ValueError: never in the mood",
        )
    command = re.search(r"ase (db .*)$", said, re.MULTILINE)[1].split()
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    subprocess.run([sys.executable, "-m", "ase", *command], cwd=tmp_path, check=True, capture_output=True)
    learned(mtp(tmp_path, "learn", "learn.toml", SLOW="0"))
    dataset, _ = consistent(tmp_path / "run")
    assert dataset.failures() == []


def test_later_candidates_that_all_fail_end_the_loop_without_loss(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % TERSOFF, ('type = "lammps"', 'type = "lammps"\ntime_limit = 1e-9'))
    refused(mtp(tmp_path, "learn", "learn.toml"), "candidates of round 1 could be labelled", "no answer within 1e-09 s")
    assert count(tmp_path, "labelled") == 5


def test_labellers_are_never_mixed_and_the_other_one_computes_nothing(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    done = mtp(tmp_path, "learn", "learn.toml", SLOW="1000", timeout=30)
    refused(done, "run/dataset.db: holds labels of lammps-", "settings now describe ase-", "name a new `folder`")
    assert count(tmp_path, "labelled") == 5


def test_a_labeller_that_cannot_start_is_an_error(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Absent"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "no calculator 'toy_calculators.Absent'")


def test_a_failure_of_lammps_is_reported_and_the_loop_goes_on(mtp, tmp_path):
    settings(
        tmp_path,
        SILICON % TERSOFF,
        ("steps = 300", "steps = 300\ntimestep = 0.05"),
        ("interval = 5", "interval = 1\nbreak = inf"),
    )
    done = mtp(tmp_path, "learn", "learn.toml")
    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    failed = [passage for record in rounds for passage in record["passages"] if passage["failure"]]
    assert failed
    assert f"failed: {failed[0]['failure']}" in done.stdout
    assert len(rounds) > 1  # it went on
    assert count(tmp_path, "labelled") > 5


SIXTY_FOUR = (
    ("a = 5.432}\nstrains", "a = 5.432, repeat = [2, 2, 2], cubic = true}\nstrains"),
    ("a = 5.432}\ntemperatures", "a = 5.432, repeat = [2, 2, 2], cubic = true}\ntemperatures"),
    ("steps = 300", "steps = 40"),
)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_energies_that_are_off_by_100_eV_in_64_atoms_are_refused_in_every_round(mtp, tmp_path, ranks):
    settings(tmp_path, SILICON % ase_labeller("Lying"), *SIXTY_FOUR)
    lies = {"LIE": "100 eV", "LIES": "0 6", "COUNTED": str(tmp_path / "counted")}
    output = learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks, **lies))
    dataset, _ = consistent(tmp_path / "run")
    failures = dataset.failures()
    assert {failure.reason for failure in failures} == {"nonsense"}
    assert {failure.atoms.info["round"] for failure in failures} >= {0, 1}
    assert output.count("nonsense: the energy lies") == len(failures) == 2
    honest, lying = (
        np.array([off(atoms) for atoms in some]) for some in (dataset.labelled(), [f.atoms for f in failures])
    )
    np.testing.assert_allclose(honest, 0, atol=1e-9)
    np.testing.assert_allclose(lying, 100, atol=1e-9)


KILLED = """
import os, signal
import mtp.labelling
mtp.labelling.judge_together = lambda *told: os.kill(os.getpid(), signal.SIGKILL)
from mtp.cli import main
main()
"""


def test_labels_that_were_stored_before_a_kill_and_not_judged_are_judged_before_the_fit(mtp, tmp_path, monkeypatch):
    settings(tmp_path, "rounds = 1\n" + SILICON % ase_labeller("Lying"), *SIXTY_FOUR)
    lies = {"LIE": "100 eV", "LIES": "0", "COUNTED": str(tmp_path / "counted")}
    for name, value in lies.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", KILLED, "learn", "learn.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (count(tmp_path, "labelled"), count(tmp_path, "pending"), count(tmp_path, "failed")) == (5, 0, 0)
    output = mtp(tmp_path, "learn", "learn.toml", **lies).stdout
    assert "is set aside: nonsense: the energy lies" in output.partition("round 0: fitting to 4 configurations")[0]


def off(atoms: Atoms) -> float:
    """By how much (eV) the energy in the data set is not that of the toy calculators."""
    right = atoms.copy()
    right.calc = LennardJones(sigma=2.2, epsilon=0.5, rc=3.1, smooth=True)
    return labels(atoms).energy - right.get_potential_energy()


@pytest.mark.parametrize(("lie", "says"), [("0.01945", "times the work of the forces"), ("nan", "forces: not finite")])
def test_forces_in_other_units_and_no_numbers_end_the_loop_with_their_reason(mtp, tmp_path, lie, says):
    settings(tmp_path, SILICON % ase_labeller("Lying"), *SIXTY_FOUR, ("[0.03]", "[0.05, 0.1, 0.15]"))
    lies = {"LIE": lie, "LIES": "all", "COUNTED": str(tmp_path / "counted")}
    refused(mtp(tmp_path, "learn", "learn.toml", **lies), "could be labelled", "nonsense: ", says)
