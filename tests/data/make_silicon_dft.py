# SPDX-License-Identifier: BSD-3-Clause
"""Make silicon_dft.extxyz: learn silicon from density-functional theory, then export all labelled configurations.

    pip install ".[gpaw]"
    python tests/data/make_silicon_dft.py

PBE, plane waves up to 300 eV, 2 x 2 x 2 k-points, 8 atoms; energies are free energies, of which the forces are the
derivatives. Takes some minutes on two cores. Another machine makes other configurations, because molecular dynamics
is chaotic.
"""

import subprocess
from pathlib import Path

from mtp.configurations import write
from mtp.database import Dataset

HERE = Path(__file__).parent
LOOP = HERE.parents[1] / "lammps_inputs" / "silicon_dft"

subprocess.run(["mtp", "learn", LOOP / "learn.toml"], check=True)
configurations = Dataset(LOOP / "run" / "dataset.db").labelled()
write(HERE / "silicon_dft.extxyz", configurations)
print(f"{len(configurations)} configurations")
