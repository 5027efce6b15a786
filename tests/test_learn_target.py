# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn` with a target: a property that is to settle."""

import itertools

import pytest
from learning_loops import (
    SILICON,
    TERSOFF,
    consistent,
    learned,
    refused,
    settings,
)

pytestmark = pytest.mark.usefixtures("toy_calculators")


TARGET = """
import json, sys
from pathlib import Path
from mtp.potential import Potential
from ase.build import bulk

def energy(path):
    found = Potential.load(path).evaluate(bulk("Si", a=5.5)).energy
    return found, {error}

if __name__ == "__main__":
    print("a line of talk")
    value, error = energy(sys.argv[1])
    print(json.dumps({{"value": value, "error": error}}))
"""


@pytest.mark.parametrize("how", ['function = "aim.energy"', 'command = "python aim.py"'])
def test_the_loop_settles_a_target(mtp, tmp_path, how):
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=10.0))
    (tmp_path / "aim.py").write_text(TARGET.format(error=10.0))
    settings(tmp_path, SILICON % TERSOFF + f"\n[target]\n{how}\n")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    _, rounds = consistent(tmp_path / "run")
    assert rounds[0]["target"]["change"] is None
    for earlier, later in itertools.pairwise(rounds):
        assert later["target"]["change"] == abs(later["target"]["value"] - earlier["target"]["value"]) < 10


def test_a_target_that_does_not_settle_is_told_and_the_loop_goes_on_with_a_larger_error(mtp, tmp_path):
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=0.0))
    text = SILICON % TERSOFF + '\n[target]\nfunction = "aim.energy"\npasses = 1\n'
    settings(tmp_path, text, ("steps = 300", "steps = 100"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "nothing extrapolated in 2 passes", "changed the target by")
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=10.0))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ('function = "absent.energy"', "target: no function 'absent.energy'"),
        ('command = "false"', "target: false ended with status 1"),
        ('command = "echo nothing"', "the last line is not"),
        ('function = "platform.libc_ver"', "numbers are wanted"),
    ],
)
def test_a_target_that_fails_is_an_error(mtp, tmp_path, how, says):
    settings(tmp_path, SILICON % TERSOFF + f"\n[target]\n{how}\n")
    refused(mtp(tmp_path, "learn", "learn.toml"), says)
