# SPDX-License-Identifier: BSD-3-Clause
"""Readers of configurations, one for each format, chosen by the file's name and its first lines.

Each is a generator of what the file holds in its order: an ase.Atoms, or a Skip for what cannot be used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from mtp.cfg import read_cfg
from mtp.errors import DataError, Error, FormatError
from mtp.readers import ase_formats, gaussian, lammps, vasp
from mtp.readers.text import DAMAGED, PACKED, Skip, opened

HEAD = 16384  # bytes of a file that tell its format


@dataclass(frozen=True)
class Skipped:
    """Configurations of a file that were left out: how many there are in all, and for each reason their numbers."""

    path: str
    n_all: int
    reasons: dict[str, list[int]]

    def __len__(self) -> int:
        return sum(map(len, self.reasons.values()))

    def __str__(self) -> str:
        listed = []
        for reason, numbers in self.reasons.items():
            more = f", … {numbers[-1]}" if len(numbers) > 10 else ""
            listed.append(f"{reason} ({', '.join(map(str, numbers[:10]))}{more})")
        return f"{len(self)} of {self.n_all} configurations of {self.path} skipped: {'; '.join(listed)}"


def read_all(
    path: str | os.PathLike, species: Sequence[str] | None, lammps_units: str, unconverged: str
) -> tuple[list[Atoms], Skipped | None]:
    """Read a file; info["source"] of each configuration is "path#n", n from 1, those that are skipped counted.

    Raises:
        DataError: all were skipped; or one is not converged, and `unconverged` is "refuse".
        FormatError: the file is damaged or empty; the message has its line where the format has lines.
    """
    if unconverged not in ("skip", "refuse"):
        raise Error(f"--unconverged: {unconverged!r} is not one of skip, refuse")
    configurations: list[Atoms] = []
    reasons: dict[str, list[int]] = {}
    number = 0
    for number, found in enumerate(_reader(path, species, lammps_units)(), start=1):
        if isinstance(found, Skip):
            if found.unconverged and unconverged == "refuse":
                raise DataError(f"{path}#{number}: {found.reason}: recompute it, or skip such configurations")
            reasons.setdefault(found.reason, []).append(number)
            continue
        found.set_constraint()  # labels are those of all atoms, also where a run held some of them fixed
        found.info["source"] = f"{path}#{number}"
        configurations.append(found)
    if not number:
        raise FormatError(f"{path}: the file holds no configuration")
    skipped = Skipped(str(path), number, reasons) if reasons else None
    if not configurations:
        raise DataError(f"{skipped}: nothing is left; recompute them")
    return configurations, skipped


def _reader(path: str | os.PathLike, species: Sequence[str] | None, units: str) -> Callable[[], Iterator[Atoms | Skip]]:
    name = Path(path).name
    if name.endswith(".cfg"):
        return lambda: iter(read_cfg(path, species))
    for packing in PACKED:
        name = name.removesuffix(packing)
    if name.endswith((".extxyz", ".xyz")):
        return lambda: ase_formats.extended_xyz(path)
    if name.endswith((".db", ".json")) and name == Path(path).name:
        return lambda: ase_formats.database(path)
    head = _head(path)
    if re.match(r"\s*ITEM: ", head) or re.search(r"\.(lammpstrj|dump|lammpsdump)$", name):
        return lambda: lammps.dump(path, species, units)
    if re.match(r"\s*vasp\.\d", head) or ("OUTCAR" in name and "\0" not in head):
        return lambda: vasp.outcar(path)
    if "<modeling>" in head or re.search(r"vasprun.*\.xml", name):
        return lambda: vasp.vasprun(path)
    if "Entering Gaussian System" in head or "Gaussian, Inc." in head:
        return lambda: gaussian.gaussian_log(path)
    if re.search(r"^\s*\d+\s+atom types\b", head, re.MULTILINE) and re.search(r"xlo\s+xhi|avec", head):
        return lambda: lammps.data(path, species, units)
    return lambda: ase_formats.any_other(path)


def _head(path: str | os.PathLike) -> str:
    """The first characters of a file; nothing of a folder or of a packed file that is damaged."""
    if Path(path).is_dir():
        return ""
    with opened(path) as file:
        try:
            return file.read(HEAD).decode("ascii", errors="replace")
        except (EOFError, *DAMAGED):
            return ""
