# SPDX-License-Identifier: BSD-3-Clause
"""VASP's OUTCAR and vasprun.xml: every ionic step, with its labels where the electronic steps converged.

Energies are eV, forces eV/Å as ASE wants them. The free energy (TOTEN, e_fr_energy) is the one whose derivative the
forces are. Stresses are kilobar with the sign of a pressure: ASE's stress is -0.1 GPa times that; OUTCAR's order is
xx yy zz xy yz zx. Forces are those on all atoms, be they fixed in the run or not.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.units import GPa

from mtp.errors import Error, FormatError
from mtp.readers.text import CUT_OFF, DAMAGED, UNCONVERGED, Lines, Skip, finite, opened

KBAR = 0.1 * GPa
VOIGT_OF_OUTCAR = [0, 1, 2, 4, 5, 3]  # places of xx yy zz yz xz xy among xx yy zz xy yz zx
VOIGT_OF_MATRIX = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
ITERATION = re.compile(r"Iteration\s*(\d+)\(\s*(\d+)\)")
ENERGY_CHANGE = re.compile(r"total energy-change \(2\. order\)\s*:\s*(\S+)\s*\(\s*(\S+?)\s*\)")
DAMAGED_NUMBERS = Skip("its numbers are damaged")
NO_ELECTRONS = Skip("no electronic steps (machine-learned forces, or a method without them)")


@dataclass
class _Step:
    """What OUTCAR says about one ionic step, as far as it was read."""

    ionic: int
    electronic: int = 0
    said_converged: bool = False
    change: Sequence[str] = ()
    table: list[list[str]] = field(default_factory=list)
    stress: list[str] | None = None

    def converged(self, n_most: int | None, threshold: float | None) -> bool:
        """VASP 5 says "EDIFF is reached" after the last allowed step as well: there the changes themselves count."""
        if n_most is None or threshold is None or self.electronic < n_most:
            return self.said_converged
        change = finite(self.change)
        return change is not None and len(change) > 0 and bool((np.abs(change) < threshold).all())


def outcar(path: str | os.PathLike) -> Iterator[Atoms | Skip]:
    """Read the ionic steps of an OUTCAR one by one, a step that a killed run left behind as a Skip.

    Raises FormatError where elements or numbers of atoms are not those of an OUTCAR.
    """
    lines = Lines(path)
    titles: list[str] = []
    headings: list[str] = []
    counts: list[int] = []
    n_most = threshold = cell = step = None
    for line in lines:
        if "Iteration" in line and (found := ITERATION.search(line)):
            ionic, electronic = map(int, found.groups())
            if step is not None and step.ionic != ionic:
                yield Skip("it has no energy")
                step = None
            step = step or _Step(ionic)
            step.electronic = electronic
        elif step is None:
            if line.lstrip().startswith("vasp."):  # a run appended to another
                titles, headings, counts = [], [], []
            elif "TITEL" in line:
                titles.append(_element(lines, line.split("=")[1]))
            elif "POTCAR:" in line:
                headings.append(_element(lines, line.split(":")[1]))
            elif "ions per type" in line:
                counts = [lines.integer(word, "ions per type") for word in line.split("=")[1].split()]
            elif "NELM " in line and (found := re.search(r"NELM\s*=\s*(\d+)", line)):
                n_most = int(found[1])
            elif found := re.search(r"EDIFF\s*=\s*(\S+)\s+stopping-criterion", line):
                (threshold,) = (None,) if (value := finite([found[1]])) is None else value
        if "direct lattice vectors" in line:
            cell = finite([word for _ in range(3) for word in _apart(next(lines, ""))[:3]])
        if step is None:
            continue
        if "aborting loop because EDIFF is reached" in line:
            step.said_converged = True
        elif "total energy-change" in line and (found := ENERGY_CHANGE.search(line)):
            step.change = found.groups()
        elif line.lstrip().startswith("in kB "):
            step.stress = _apart(line)[2:]
        elif "POSITION " in line and "TOTAL-FORCE" in line:
            next(lines, "")
            step.table = [_apart(next(lines, ""))[:6] for _ in range(sum(counts))]
        elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
            rest = [next(lines, "") for _ in range(4)]
            if not rest[-1].endswith("\n"):
                break
            elements = titles or headings[: (len(headings) + 1) // 2]  # VASP writes each heading twice
            if len(elements) != len(counts):
                raise lines.error(f"{len(elements)} elements (TITEL) but {len(counts)} numbers of ions per type")
            symbols = [symbol for symbol, n in zip(elements, counts, strict=True) for _ in range(n)]
            if step.converged(n_most, threshold):
                yield _of_outcar(step, symbols, cell, rest)
            else:
                yield UNCONVERGED
            step = None
    if step is not None:
        yield CUT_OFF


def _element(lines: Lines, title: str) -> str:
    """The element of a potential's title, as "PAW_PBE Si_d_GW 05Jan2001" or "PAW_PBE H1.25 07Sep2000"."""
    for word in title.split():
        symbol = re.match("[A-Za-z]*", word)[0]
        if symbol in atomic_numbers:
            return symbol
    raise lines.error(f"no element in {title.strip()!r}")


def _apart(line: str) -> list[str]:
    """The words of a line whose fixed-width numbers may touch, as in 1.5-2.5."""
    return re.sub(r"(?<=\d)-(?=\d)", " -", line).split()


def _of_outcar(step: _Step, symbols: list[str], cell: np.ndarray | None, rest: list[str]) -> Atoms | Skip:
    found = [re.search(pattern, "".join(rest)) for pattern in (r"TOTEN\s*=\s*(\S+)", r"sigma->0\)\s*=\s*(\S+)")]
    energies = finite([match[1] for match in found if match])
    table = finite([word for row in step.table for word in row])
    if energies is None or len(energies) < 2 or cell is None or len(cell) != 9:
        return DAMAGED_NUMBERS
    if table is None or len(table) != 6 * len(symbols):
        return DAMAGED_NUMBERS
    table = table.reshape(-1, 6)
    stress = None
    if step.stress is not None:
        kilobar = finite(step.stress)
        if kilobar is None or len(kilobar) != 6:
            return DAMAGED_NUMBERS
        stress = -KBAR * kilobar[VOIGT_OF_OUTCAR]
    atoms = Atoms(symbols, table[:, :3], cell=cell.reshape(3, 3), pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, free_energy=energies[0], energy=energies[1], forces=table[:, 3:], stress=stress
    )
    return atoms


def vasprun(path: str | os.PathLike) -> Iterator[Atoms | Skip]:
    """Read the ionic steps of a vasprun.xml one by one, the one that a killed run left behind as a Skip.

    Raises FormatError where the file is no vasprun.xml, or is damaged before its first step.
    """
    symbols: list[str] = []
    settings = {"NELM": None, "EDIFF": None, "PSTRESS": 0.0}
    n_begun = n_read = 0
    with opened(path) as file:
        try:
            for event, element in ET.iterparse(file, events=("start", "end")):
                if event == "start":
                    n_begun += element.tag == "calculation"
                elif element.tag in ("incar", "parameters"):
                    for entry in element.iter("i"):
                        value = finite((entry.text or "").split())
                        if entry.get("name") in settings and value is not None and len(value) == 1:
                            settings[entry.get("name")] = float(value[0])
                elif element.tag == "atominfo":
                    rows = element.findall("array[@name='atoms']/set/rc")
                    symbols = [row.findtext("c", "").strip() for row in rows]
                    unknown = sorted(set(symbols) - set(atomic_numbers))
                    if unknown:
                        raise FormatError(f"{path}: no such element: {', '.join(unknown)}")
                elif element.tag == "calculation":
                    n_read += 1
                    yield _of_vasprun(element, symbols, settings)
                    element.clear()
        except (ET.ParseError, EOFError) as error:
            if not n_begun:
                line = getattr(error, "position", (1, 0))[0]
                raise FormatError(f"{path}:{line}: not a vasprun.xml with ionic steps: {error}") from None
        except DAMAGED as error:
            raise Error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if n_begun > n_read:
        yield CUT_OFF


def _of_vasprun(step: ET.Element, symbols: list[str], settings: dict[str, float | None]) -> Atoms | Skip:
    def matrix(path: str) -> np.ndarray | None:
        rows = step.findall(path)
        values = finite([word for row in rows for word in (row.text or "").split()])
        return None if values is None or len(values) != 3 * len(rows) else values.reshape(-1, 3)

    def energies(path: str) -> np.ndarray | None:
        return finite([(entry.text or "").strip() for entry in step.findall(path)])

    steps = step.findall("scstep")
    if not steps:
        return NO_ELECTRONS
    free = energies("scstep/energy/i[@name='e_fr_energy']")
    n_most, threshold = settings["NELM"], settings["EDIFF"]
    stopped = n_most is not None and threshold is not None and len(steps) >= n_most
    if stopped and (free is None or len(free) < 2 or abs(free[-1] - free[-2]) >= threshold):
        return UNCONVERGED
    cell = matrix("structure/crystal/varray[@name='basis']/v")
    scaled = matrix("structure/varray[@name='positions']/v")
    forces = matrix("varray[@name='forces']/v")
    stress = matrix("varray[@name='stress']/v")
    total = energies("energy/i[@name='e_fr_energy']")
    sizes = [None if found is None else len(found) for found in (cell, scaled, total, stress, forces)]
    if free is None or sizes[:3] != [3, len(symbols), 1] or sizes[3] not in (0, 3) or sizes[4] not in (0, len(symbols)):
        return DAMAGED_NUMBERS
    atoms = Atoms(symbols, scaled_positions=scaled, cell=cell, pbc=True)
    # with PSTRESS the energy of the step is an enthalpy; those of its electronic steps are not
    free_energy = total[0] - settings["PSTRESS"] * KBAR * atoms.get_volume()
    sigma_to_0 = energies("scstep/energy/i[@name='e_0_energy']")
    same = sigma_to_0 is None or not len(sigma_to_0)
    atoms.calc = SinglePointCalculator(
        atoms,
        free_energy=free_energy,
        energy=free_energy if same else free_energy + sigma_to_0[-1] - free[-1],
        forces=forces if len(forces) else None,
        stress=-KBAR * stress[VOIGT_OF_MATRIX] if len(stress) else None,
    )
    return atoms
