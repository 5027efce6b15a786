# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of fits runs, on a toy, and what it says of them does not depend on their speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fit_speed.py"


def test_the_benchmark_of_fits_measures_every_section(tmp_path):
    arguments = "--levels 4 --repeats 1 --peer-repeats 1 --fit-levels 4 8 --seeds 1 --iterations 20 --parallel-level 4"
    arguments += " --passes 2 --memory 300 --memory-level 4 --neighbour-memory 0.01 --json report.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments.split()],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    (gradient,) = report["gradient"]
    assert gradient["atoms"] == 101 * 32
    # where motep is installed it computes the same but for rounding in its sums over 10⁴ values
    assert gradient.get("loss_difference", 0) < 1e-11
    assert gradient.get("gradient_difference", 0) < 1e-9
    low, high = report["fit"]
    assert high["steps"][-1][2] < low["steps"][-1][2]
    assert high["reached_cpu_s"]["lower level"] <= high["cpu_s"]
    assert all(row["same_bits"] for row in report["parallel"])
    (memory,) = report["memory"]
    # some 1100 numbers in Atoms, its calculator's copy and the results; 1300 in the loss while it sorts its data
    assert memory["atoms_B"] < 20_000
    assert memory["loss_B"] < 20_000
