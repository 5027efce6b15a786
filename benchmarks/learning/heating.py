# SPDX-License-Identifier: BSD-3-Clause
"""A crystal heated until it melts in plain `lmp`, with each of the given potentials: how far does each come?

    python benchmarks/learning/heating.py run/round_000.almtp run/potential.almtp --folder DIR --json heating.json

Silicon at constant volume: 10 ps at each of 100, 300, 600, 900 and 1200 K, 20 ps of heating to 2800 K, 10 ps there, and
10 ps without a thermostat. A run has failed where LAMMPS ends with an error (lost atoms), where the temperature is
twice what the thermostat asks for, or where the potential energy falls below that of the crystal at rest. In a run's
folder, `frames.extxyz` holds a configuration of each temperature, every 400 K of the heating, and `rdf.txt` is of the
10 ps at 2800 K.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from matplotlib import rc_context
from matplotlib.figure import Figure

from mtp.figures import COLOURS, GREY, RESOLUTION, STYLE

STAGES = [(t, t, 10.0) for t in (100, 300, 600, 900, 1200)] + [(1200, 2800, 20.0), (2800, 2800, 10.0)]  # K, K, ps
FREE_LENGTH = 10.0  # ps
TIMESTEP = 0.002  # ps
EVERY = 100  # steps
DUMPED = 5.0  # ps
FRAMES = (10.0, 20.0, 30.0, 40.0, 50.0, 55.0, 60.0, 65.0, 70.0, 80.0)  # ps
INPUT = """
units        metal
lattice      diamond {a}
region       box block 0 {repeat} 0 {repeat} 0 {repeat}
create_box   1 box
create_atoms 1 box
mass         1 28.0855
pair_style   mtp/extrapolation
pair_coeff   * * {potential} Si
timestep     {timestep}
velocity     all create 200 {seed}
compute      grade all mtp/grade
compute      msd all msd com yes
thermo       {every}
thermo_style custom step temp pe etotal press c_grade c_msd[4]
dump         frames all custom {frames} frames.dump id type x y z
dump_modify  frames sort id
"""
STAGE = """
fix          heat all nvt temp {begin} {end} 0.1
run          {steps}
"""
FREE = """
unfix        rdf
unfix        heat
fix          free all nve
run          {steps}
"""
LIQUID = """
compute      rdf all rdf 200 cutoff 6.0
fix          rdf all ave/time 10 {n} {steps} c_rdf[*] mode vector file rdf.txt
comm_modify  cutoff 8.0
"""


def heated(potential: Path, repeat: int, a: float, seed: int, folder: Path) -> dict:
    """What became of a crystal of 8 repeat³ atoms: rows of LAMMPS' output, and where and how the run failed."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        INPUT.format(
            a=a,
            repeat=repeat,
            potential=potential.resolve(),
            timestep=TIMESTEP,
            seed=seed,
            every=EVERY,
            frames=round(DUMPED / TIMESTEP),
        )
    ]
    for k, (begin, end, length) in enumerate(STAGES):
        steps = round(length / TIMESTEP)
        if k == len(STAGES) - 1:
            lines.append(LIQUID.format(n=steps // 10, steps=steps))
        lines.append(STAGE.format(begin=begin, end=end, steps=steps))
    lines.append(FREE.format(steps=round(FREE_LENGTH / TIMESTEP)))
    (folder / "in.heating").write_text("".join(lines))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(["lmp", "-in", "in.heating", "-log", "log.lammps", "-screen", "none"], cwd=folder)
    log = (folder / "log.lammps").read_text().splitlines()
    rows = table(log)
    wanted = np.interp(rows[:, 0] * TIMESTEP, *targets())
    wild = rows[:, 1] > 2 * wanted + 200  # all energy of the start is kinetic
    collapsed = rows[:, 2] < rows[0, 2]
    gone = np.flatnonzero(wild | collapsed)
    failure, end = next((line for line in log if line.startswith("ERROR")), None), len(rows)
    if len(gone):
        failure, end = "collapsed" if collapsed[gone[0]] else "too hot", gone[0] + 1
    if failure is None:
        write(folder / "frames.extxyz", kept(folder))
    return {
        "potential": potential.name,
        "atoms": 8 * repeat**3,
        "failure": failure,
        "ps": float(rows[end - 1, 0] * TIMESTEP),
        "target_K": float(wanted[end - 1]),
        "highest_grade": float(rows[:end, 5].max()),
        "drift_meV_per_atom_per_ps": None if failure else 1e3 * drift(rows) / (8 * repeat**3),
        "cpu_seconds": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before,
        "rows": rows[:end].tolist(),
    }


def drift(rows: np.ndarray) -> float:
    """Slope of the total energy without a thermostat, eV/ps."""
    free = rows[rows[:, 0] * TIMESTEP > sum(length for *_, length in STAGES)]
    return float(np.polyfit(free[:, 0] * TIMESTEP, free[:, 3], 1)[0])


def kept(folder: Path) -> list[Atoms]:
    """Configurations at the times FRAMES; info has "ps" and "target_K"."""
    dumped, found = read(folder / "frames.dump", ":", format="lammps-dump-text"), []
    for time in FRAMES:
        atoms = dumped[round(time / DUMPED)]
        atoms = Atoms("Si" * len(atoms), atoms.positions, cell=atoms.cell, pbc=True)
        atoms.info |= {"ps": time, "target_K": float(np.interp(time, *targets()))}
        found.append(atoms)
    return found


def targets() -> tuple[list[float], list[float]]:
    """Times (ps) and temperatures (K) between which the thermostat's target is linear."""
    times, temperatures, now = [], [], 0.0
    for begin, end, length in STAGES:
        times += [now + 1e-9, now + length]
        temperatures += [begin, end]
        now += length
    return times, temperatures


def table(log: list[str]) -> np.ndarray:
    """Rows of thermodynamic output: step, K, eV, eV, bar, grade, Å². The first row of a run repeats the last's end."""
    rows, inside = {}, False
    for line in log:
        words = line.split()
        if words[:1] == ["Step"]:
            inside = True
        elif inside and len(words) == 7 and words[0].isdigit():
            rows[int(words[0])] = [float(word) for word in words]
        else:
            inside = False
    return np.array(list(rows.values()))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("potentials", type=Path, nargs="+")
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--repeat", type=int, nargs="+", default=[2, 4], help="of the cubic cell of 8 atoms")
    options.add_argument("--a", type=float, default=5.40, help="lattice constant, Å")
    options.add_argument("--seed", type=int, default=4711)
    options.add_argument("--json", type=Path)
    options.add_argument("--figure", type=Path)
    given = options.parse_args()

    found = []
    for potential in given.potentials:
        for repeat in given.repeat:
            folder = given.folder / f"{potential.stem}_{8 * repeat**3}"
            found.append(heated(potential, repeat, given.a, given.seed, folder))
            print(json.dumps({key: value for key, value in found[-1].items() if key != "rows"}), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found))
    if given.figure:
        draw(found, given.figure)


def draw(found: list[dict], path: Path) -> None:
    """Temperature, potential energy, displacement and grade against time; a cross where a run failed."""
    columns = {"temperature (K)": 1, "potential energy (eV/atom)": 2, "mean square displacement (Å²)": 6, "grade": 5}
    limits = {
        "temperature (K)": (0, 3500),
        "potential energy (eV/atom)": (-0.1, 1.1),
        "mean square displacement (Å²)": (1e-3, 1e3),
        "grade": (0.5, 1e4),
    }
    names, sizes = list(dict.fromkeys(run["potential"] for run in found)), sorted({run["atoms"] for run in found})
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        for axes, (name, column) in zip(figure.subplots(2, 2).flat, columns.items(), strict=True):
            for run in found:
                colour = COLOURS[names.index(run["potential"])]
                style = "-" if run["atoms"] == sizes[0] else ":"
                rows = np.array(run["rows"])
                values = (rows[:, 2] - rows[0, 2]) / run["atoms"] if column == 2 else rows[:, column]
                values = np.clip(values, *limits[name])
                label = f"{run['potential'].removesuffix('.almtp')}, {run['atoms']} atoms"
                axes.plot(rows[:, 0] * TIMESTEP, values, style, color=colour, lw=1, label=label)
                if run["failure"]:
                    axes.plot(
                        rows[-1, 0] * TIMESTEP, values[-1], "x", color=colour, ms=9, mew=2, clip_on=False, zorder=9
                    )
            axes.set_yscale("linear" if column in (1, 2) else "log")
            axes.set(xlabel="time (ps)", ylabel=name, ylim=limits[name])
            if column == 1:
                axes.plot(*targets(), color=GREY, lw=1, ls="--", zorder=0)
                axes.legend(fontsize=8)
        figure.savefig(path, dpi=RESOLUTION)


if __name__ == "__main__":
    main()
