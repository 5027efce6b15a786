# SPDX-License-Identifier: BSD-3-Clause
"""Learning loops in folders, as users run them: their settings, toy calculators, and what must hold of the outcome."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from mtp.database import Dataset
from mtp.potential import Potential

BIN = Path(sys.executable).parent
FILES = {"dataset.db", "learning.png", "log_0.lammps", "potential.almtp", "potential.mtp"}
FILES |= {"rounds.json", "settings.json", "starts.json", "state.json", "structure_0.data"}
TERSOFF = """
type = "lammps"
commands = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
"""
SILICON = """
species = ["Si"]

[fit]
level = 4
cutoff = 3.2
radial_basis_size = 4

[initial]
crystal = {name = "Si", structure = "diamond", a = 5.432}
strains = [0.02]
rattles = [0.03]

[labelling]
%s

[selection]
interval = 5
per_round = 5

[[exploration]]
crystal = {name = "Si", structure = "diamond", a = 5.432}
temperatures = [600]
steps = 300
"""


CALCULATORS = """
import os, time
from pathlib import Path
from ase.calculators.calculator import SCFError
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    "Takes some tenths of a second, or as long as told."
    seconds = float(os.environ.get("SLOW", 0.05))

    def __init__(self):
        LennardJones.__init__(self, sigma=2.2, epsilon=0.5, rc=3.1, smooth=True)

    def calculate(self, atoms, *rest):
        time.sleep(self.seconds)
        LennardJones.calculate(self, atoms, *rest)

class Moody(Slow):
    "Likes neither vacancies nor sheared or stretched cells."
    seconds = 0

    def calculate(self, atoms, *rest):
        if len(atoms) == 7:
            raise ValueError("no [odd] numbers of atoms")
        if abs(atoms.cell[0, 1]) > 1e-9:
            raise SCFError("too many iterations")
        if atoms.get_volume() > 5.45**3:
            time.sleep(100)
        Slow.calculate(self, atoms, *rest)

class Refusing(Slow):
    def calculate(self, atoms, *rest):
        raise ValueError("never in the mood")

class Lying(Slow):
    "Is wrong in calculations whose numbers are in LIES, counted by files in COUNTED: as LIE says."
    seconds = 0

    def calculate(self, atoms, *rest):
        Slow.calculate(self, atoms, *rest)
        counted = Path(os.environ["COUNTED"])
        counted.mkdir(exist_ok=True)
        number = len(list(counted.iterdir()))
        (counted / str(number)).touch()
        if os.environ["LIES"] != "all" and str(number) not in os.environ["LIES"].split():
            return
        if os.environ["LIE"] == "100 eV":
            self.results["energy"] = self.results["free_energy"] = self.results["energy"] + 100
        else:
            self.results["forces"] = self.results["forces"] * float(os.environ["LIE"])
"""


def ase_labeller(name: str, time_limit: float = 60, workers: int = 1) -> str:
    return f'type = "ase"\ncalculator = "toy_calculators.{name}"\ntime_limit = {time_limit}\nworkers = {workers}'


def settings(folder: Path, text: str, *changes: tuple[str, str]) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "learn.toml").write_text(text)
    return folder / "learn.toml"


def learned(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess, *says: str) -> str:
    """One message, no traceback, status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    for text in says:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("mtp: ") == 1, done.stderr
    return done.stderr


def consistent(folder: Path) -> tuple[Dataset, list[dict]]:
    """The data set and the rounds of a complete loop, after checks of one against the other."""
    rounds = json.loads((folder / "rounds.json").read_text())
    dataset = Dataset(folder / "dataset.db")
    labelled, failures = dataset.labelled(), dataset.failures()
    assert dataset.pending() == []
    assert [r["round"] for r in rounds] == list(range(len(rounds)))
    assert [r["converged"] for r in rounds] == [False] * (len(rounds) - 1) + [True]
    everything = [*labelled, *(failure.atoms for failure in failures)]
    for number, record in enumerate(rounds):
        assert sum(a.info["round"] == number + 1 for a in everything) == record["selected"]
        assert sum(a.info["round"] <= number for a in labelled) == record["labelled"]
        assert (folder / f"round_{number:03d}.almtp").exists()
    assert len({(a.info["round"], a.info["origin"]) for a in everything}) == len(everything)
    assert len({a.positions.tobytes() for a in everything}) == len(everything)
    result = Potential.load(folder / "potential.almtp")
    # every labelled neighbourhood lies in what the active set spans: maxvol ends at grades below 1.001
    assert max(result.grade(atoms).maximum for atoms in labelled) < 1.0011
    np.testing.assert_array_equal(Potential.load(folder / "potential.mtp").parameters, result.parameters)
    return dataset, rounds


def count(folder: Path, status: str) -> int:
    path = folder / "run" / "dataset.db"
    return Dataset(path).counts()[status] if path.exists() else 0


def n_rounds(folder: Path) -> int:
    path = folder / "run" / "rounds.json"
    return len(json.loads(path.read_text())) if path.exists() else 0


MOMENTS = {
    "when the candidates are there": lambda folder: count(folder, "pending") > 0,
    "while labelling": lambda folder: count(folder, "labelled") > 1,
    "while fitting": lambda folder: count(folder, "labelled") > 0 and count(folder, "pending") == 0,
    "while exploring": lambda folder: (folder / "run" / "round_000.almtp").exists(),
    "while labelling again": lambda folder: n_rounds(folder) > 0 and count(folder, "labelled") > 6,
    "in the second exploration": lambda folder: (folder / "run" / "round_001.almtp").exists(),
}


def killed(folder: Path, moment, ranks: int = 1, rank: int = -1) -> str:
    """Start the loop, wait for the moment, and kill it, with several ranks that one; returns what was said. All end."""
    launcher = [BIN / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
    with (folder / "said").open("w+") as said:
        loop = subprocess.Popen([*launcher, BIN / "mtp", "learn", "learn.toml"], cwd=folder, stdout=said, stderr=said)
        while loop.poll() is None and not moment(folder):
            time.sleep(0.01)
        ranks_of_it = members(loop.pid)
        with suppress(ProcessLookupError, IndexError):
            os.kill(loop.pid if ranks == 1 else ranks_of_it[rank], signal.SIGKILL)
        loop.wait(60)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in ranks_of_it):
            assert time.monotonic() < deadline, "ranks that live on"
            time.sleep(0.05)
        return (folder / "said").read_text()


def members(launcher: int) -> list[int]:
    """The ranks that an mpiexec has started: those of its children's children that run mtp."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
            if launcher in (parent, grandparent) and b"learn.toml" in command and b"mpiexec" not in command:
                found.append(int(process.name))
    return sorted(found)


def transported(text: str, ranks: int = 1) -> str:
    command = f"mpiexec -n {ranks} '{BIN / 'lmp'}'" if ranks > 1 else f"'{BIN / 'lmp'}'"
    return text + f'\n[transport]\ntype = "files"\ncommand = """{command}"""\n'
