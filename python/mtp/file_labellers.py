# SPDX-License-Identifier: BSD-3-Clause
"""Labellers that write an engine's input files, run a command, and read its output with the readers of mtp.readers.

The readers refuse electronic steps that did not converge. The output must be that of the configuration that was asked.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.vasp.create_input import format_kpoints
from ase.geometry import find_mic
from ase.io.gaussian import write_gaussian_in
from ase.io.vasp import write_vasp
from ase.io.vasp_parsers.incar_writer import write_incar

from mtp.configurations import Labels, types
from mtp.errors import DataError, Error, LabellingError
from mtp.labellers import digest
from mtp.readers.gaussian import gaussian_log
from mtp.readers.text import Skip
from mtp.readers.vasp import outcar, vasprun

SAME_POSITION = 1e-3  # Å; engines print fewer digits than they are given
PRINTED = "printed.txt"  # what the command wrote to its standard output and error


class VaspLabeller:
    """VASP by its files: POSCAR, KPOINTS, INCAR and POTCAR in, vasprun.xml or OUTCAR out.

    Args:
        command: runs VASP in the folder of the files, as "mpirun -n 16 vasp_std".
        species: the elements that configurations have.
        potcars: folder with a folder for each setup, holding its POTCAR: potcars/Si/POTCAR.
        incar: what INCAR holds, as {"ENCUT" = 400, "ISMEAR" = 0}: for one set of positions, without NSW above 0.
        kpoints: numbers of a mesh around Γ; without it VASP takes KSPACING of INCAR.
        setups: of elements whose setup has another name than the element: {"Mo" = "Mo_pv"}.

    Raises:
        Error: an element without POTCAR, a mesh that is none, or INCAR that moves the atoms.
    """

    def __init__(
        self,
        command: str,
        species: Sequence[str],
        potcars: str,
        incar: Mapping[str, Any],
        kpoints: Sequence[int] | None = None,
        setups: Mapping[str, str] | None = None,
    ):
        self.command = command
        self.incar = {key.upper(): value for key, value in incar.items()}
        if self.incar.get("NSW", 0):
            raise Error("VASP labeller: NSW must be 0: the labels are those of the configuration as it is")
        if kpoints is not None and (len(kpoints) != 3 or min(kpoints) < 1):
            raise Error(f"VASP labeller: kpoints must be three numbers of a mesh, not {list(kpoints)}")
        self.kpoints = kpoints
        self.potcars = {}
        for element in species:
            path = Path(potcars).expanduser() / (setups or {}).get(element, element) / "POTCAR"
            try:
                self.potcars[element] = path.read_bytes()
            except OSError as error:
                advice = f"name the setup of {element} in `setups`, and their folder in `potcars`"
                raise Error(f"VASP labeller: {path}: {error.strerror}: {advice}") from error
        contents = {element: hashlib.sha256(content).hexdigest() for element, content in self.potcars.items()}
        self.fingerprint = f"vasp-{digest([self.incar, kpoints, contents])}"

    def label(self, atoms: Atoms, folder: str | None = None) -> Labels:
        """See Labeller.label."""
        if not atoms.pbc.all():
            raise LabellingError("VASP needs a cell that is periodic in three directions: add vacuum", "failed")
        place = Path(folder or ".")
        try:
            kinds = types(atoms, list(self.potcars))
        except DataError as error:
            raise LabellingError(str(error), "failed") from None
        order = np.argsort(kinds, kind="stable")  # VASP wants the atoms of an element together
        ordered = atoms[order]
        present = dict.fromkeys(ordered.get_chemical_symbols())
        (place / "POTCAR").write_bytes(b"".join(self.potcars[element] for element in present))
        write_vasp(place / "POSCAR", ordered, direct=True)
        write_incar(place, self.incar)
        if self.kpoints is not None:
            (place / "KPOINTS").write_text(format_kpoints(list(self.kpoints), ordered, gamma=True))
        _run(shlex.split(self.command), place)
        found = _labels(place, {"vasprun.xml": vasprun, "OUTCAR": outcar}, ordered)
        forces = np.empty_like(found.forces)
        forces[order] = found.forces
        return Labels(found.energy, forces, found.stress)


class GaussianLabeller:
    """Gaussian by its files: candidate.com in, candidate.log out.

    Args:
        command: Gaussian's, to which the name of the input file is added: "g16".
        keywords: of ase.io.gaussian.write_gaussian_in: {"method" = "B3LYP", "basis" = "6-31G*", "charge" = 0, "mult" =
            1, "mem" = "4GB", "nprocshared" = 4}; further ones go into the route. `force` and `nosymm` are added.
    """

    def __init__(self, command: str, keywords: Mapping[str, Any]):
        self.command = command
        self.keywords = dict(keywords)
        resources = {"mem", "nprocshared", "cpu", "gpucpu", "lindaworkers"}  # they change no label
        self.fingerprint = f"gaussian-{digest({k: v for k, v in self.keywords.items() if k not in resources})}"

    def label(self, atoms: Atoms, folder: str | None = None) -> Labels:
        """See Labeller.label."""
        place = Path(folder or ".")
        keywords = {"charge": 0, "mult": 1, "nosymm": None} | self.keywords
        with (place / "candidate.com").open("w") as file:
            write_gaussian_in(file, atoms, properties=["energy", "forces"], **keywords)
        with suppress(_CommandFailed):  # also after a cycle that did not converge: the log tells
            _run([*shlex.split(self.command), "candidate.com"], place)
        return _labels(place, {"candidate.log": gaussian_log}, atoms)


class _CommandFailed(LabellingError):
    """A command that ended badly."""


def _run(command: list[str], place: Path) -> None:
    with (place / PRINTED).open("wb") as printed:
        try:
            done = subprocess.run(
                command, cwd=place, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, check=False
            )
        except OSError as error:
            raise LabellingError(f"{shlex.join(command)}: {error.strerror}", "failed") from error
    if done.returncode:
        raise _CommandFailed(
            f"{shlex.join(command)} ended with exit status {done.returncode}: {_end(place / PRINTED)}", "crashed"
        )


def _labels(place: Path, readers: Mapping[str, Callable[[Path], Iterator[Atoms | Skip]]], asked: Atoms) -> Labels:
    """Read the last step of the first output that is there."""
    name = next((name for name in readers if (place / name).is_file()), None)
    if name is None:
        raise LabellingError(f"no {' and no '.join(readers)}: {_end(place / PRINTED)}", "crashed")
    try:
        steps = list(readers[name](place / name))
    except Error as error:
        raise LabellingError(str(error), "crashed") from error
    last = steps[-1] if steps else Skip("it holds no configuration")
    if isinstance(last, Skip):
        raise LabellingError(f"{name}: {last.reason}", "not converged" if last.unconverged else "crashed")
    if not _same(last, asked):
        raise LabellingError(f"{name}: it is of another configuration than the one that was asked", "nonsense")
    results = last.calc.results
    if results.get("forces") is None:
        raise LabellingError(f"{name}: it has no forces", "failed")
    return Labels(float(results["free_energy"]), results["forces"], results.get("stress"))


def _same(found: Atoms, asked: Atoms) -> bool:
    if found.get_chemical_symbols() != asked.get_chemical_symbols():
        return False
    if asked.pbc.all() and np.abs(found.cell.array - asked.cell.array).max() > SAME_POSITION:
        return False
    shifts, _ = find_mic(found.positions - asked.positions, asked.cell, asked.pbc)
    return bool(np.abs(shifts).max() <= SAME_POSITION)


def _end(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:].strip().splitlines()[-10:])
