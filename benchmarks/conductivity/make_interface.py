# SPDX-License-Identifier: BSD-3-Clause
"""Writes interface.extxyz: Lennard-Jones argon whose middle half is made of atoms four times as heavy (named Kr), for
interface.toml.

    python benchmarks/conductivity/make_interface.py
"""

from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import write

atoms = bulk("Ar", a=5.32, cubic=True).repeat((3, 3, 20))
height = atoms.get_scaled_positions()[:, 2]
atoms.numbers[(height > 0.2499) & (height < 0.7499)] = 36
assert np.count_nonzero(atoms.numbers == 36) == len(atoms) // 2
write(Path(__file__).with_name("interface.extxyz"), atoms, columns=["symbols", "positions"])
