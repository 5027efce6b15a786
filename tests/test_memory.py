# SPDX-License-Identifier: BSD-3-Clause
"""The memory of the pair styles, as benchmarks/memory.py measures it."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


def test_the_styles_add_less_than_200_bytes_an_atom_to_lammps_lists(tmp_path):
    report = tmp_path / "memory.json"
    arguments = ["--atoms", "32000", "--level", "4", "--threads", "3", "--json", report]
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case["name"]: case for case in json.loads(report.read_text())["cases"]}
    assert cases["zero"]["neighbours"] == cases["mtp"]["neighbours"] > 42
    # some 50 bytes an atom are what a process of any size adds: code and scratch
    for name in ("mtp", "mtp, 3 threads", "mtp/extrapolation"):
        assert cases[name]["beyond_zero_B_per_atom"] < 200
