# SPDX-License-Identifier: BSD-3-Clause
"""Arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

PotentialFile = Annotated[Path, typer.Argument(help="Potential (.mtp, .almtp, MLIP-2's .als).", show_default=False)]
DataFiles = Annotated[
    list[Path],
    typer.Argument(help="Configurations: .cfg, extxyz, OUTCAR, … (docs/data.md).", show_default=False),
]
SpeciesOption = Annotated[
    Optional[str],  # noqa: UP045, typer reads it at run time
    typer.Option(
        "--species",
        help="Elements in the order of MLIP's types, as Si,O; default: those of the potential or data.",
    ),
]
JsonOption = Annotated[Optional[Path], typer.Option("--json", help="Also write the numbers to this file.")]  # noqa: UP045
UnitsOption = Annotated[str, typer.Option("--lammps-units", help="Of LAMMPS' dumps and data files.")]
UnconvergedOption = Annotated[
    str, typer.Option(help="Configurations whose electronic steps did not converge: skip, or refuse the file.")
]
ModeOption = Annotated[
    str, typer.Option(help="Of the active set: neighbourhood (a grade for every atom) or configuration.")
]
