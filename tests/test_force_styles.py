# SPDX-License-Identifier: BSD-3-Clause
"""The reference files in force_styles/, laid out as LAMMPS' own, run as LAMMPS' test program runs them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from test_lammps import execute

HERE = Path(__file__).parent / "force_styles"
FILES = sorted(HERE.glob("*.yaml"))
HEAD = ["lammps_version", "tags", "date_generated", "epsilon", "skip_tests", "prerequisites", "pre_commands"]
MIDDLE = ["post_commands", "input_file", "pair_style", "pair_coeff", "extract", "natoms"]
QUANTITIES = [f"{stage}_{quantity}" for stage in ("init", "run") for quantity in ("vdwl", "coul", "stress", "forces")]


def run(file: Path, *arguments):
    return execute(HERE, [sys.executable, HERE / "run_reference.py", file, *arguments])


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_lammps_reproduces_the_reference(file, newton):
    """Newton's third law is switched on by the file itself, as for all many-body styles of LAMMPS."""
    done = run(file, "--newton", newton)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 20  # five stages of four quantities


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_reference_file_has_lammps_keys_in_lammps_order(file):
    assert re.findall(r"^(\w+):", file.read_text(), re.MULTILINE) == HEAD + MIDDLE + QUANTITIES


def test_newton_off_is_refused_where_a_file_does_not_switch_it_on(tmp_path):
    text = re.sub(r"^  variable newton_pair .*\n", "", FILES[0].read_text(), flags=re.MULTILINE)
    (tmp_path / "off.yaml").write_text(text)
    done = run(tmp_path / "off.yaml", "--newton", "off")
    assert done.returncode != 0
    assert "requires newton pair on" in done.stdout + done.stderr


def test_another_force_is_noticed(tmp_path):
    text = FILES[0].read_text()
    first = re.search(r"^run_forces.*\n +1 +(\S+)", text, re.MULTILINE)
    other = f"{float(first[1]) * (1 + 1e-7):.16e}"
    (tmp_path / "other.yaml").write_text(text[: first.start(1)] + other + text[first.end(1) :])
    done = run(tmp_path / "other.yaml")
    assert done.returncode == 1
    assert re.findall(r"(\w+) +(\w+) .*FAILED", done.stdout) == [("run", "forces")]
