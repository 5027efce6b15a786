# SPDX-License-Identifier: BSD-3-Clause
"""Make data.silicon: a triclinic crystal of 64 silicon atoms of two types, displaced, at 600 K.

python tests/force_styles/make_data.py
"""

from pathlib import Path

import numpy as np
from ase.build import bulk

rng = np.random.default_rng(5)
atoms = bulk("Si", a=5.43, cubic=True).repeat(2)
atoms.set_cell([[10.9, 0, 0], [0.4, 10.8, 0], [-0.3, 0.5, 10.95]], scale_atoms=True)
atoms.positions += rng.normal(0, 0.12, (64, 3))
atoms.wrap()
velocities = rng.normal(0, 4.2, (64, 3))  # Å/ps
velocities -= velocities.mean(axis=0)
rows = [f"{i} {1 + i % 2} " + " ".join(f"{x:.12f}" for x in r) for i, r in enumerate(atoms.positions, 1)]
speeds = [f"{i} " + " ".join(f"{x:.12f}" for x in v) for i, v in enumerate(velocities, 1)]
head = """displaced silicon crystal, made by make_data.py

64 atoms
2 atom types
0 10.9 xlo xhi
0 10.8 ylo yhi
0 10.95 zlo zhi
0.4 -0.3 0.5 xy xz yz

Masses

1 28.0855
2 28.0855

Atoms # atomic
"""
text = "\n".join([head, *rows, "", "Velocities", "", *speeds, ""])
(Path(__file__).parent / "data.silicon").write_text(text)
