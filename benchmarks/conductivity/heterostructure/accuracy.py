# SPDX-License-Identifier: BSD-3-Clause
"""Errors of bnc.mtp on configurations that it has not seen: molecular dynamics at 300 K of each small cell, repeated.

python accuracy.py
"""

from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.verlet import VelocityVerlet
from make_cells import CELLS, reference

from mtp.calculator import MTP
from mtp.configurations import with_labels
from mtp.evaluation import compare
from mtp.potential import Potential

potential, labeller = Potential.load(Path(__file__).with_name("bnc.mtp")), reference()
for name, repeat in (("graphene_32", (2, 2, 1)), ("bc3_32", (2, 2, 1)), ("joined_64", (1, 2, 1))):
    atoms = read(CELLS / f"{name}.extxyz").repeat(repeat)
    atoms.calc = MTP(potential)
    # twice the temperature: half of the kinetic energy flows into the potential energy
    widths = np.sqrt(atoms.get_masses() * units.kB * 600)
    atoms.set_momenta(widths[:, None] * np.random.default_rng(1).standard_normal((len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, units.fs)
    met = []
    for _ in range(20):
        dynamics.run(50)
        met.append(with_labels(atoms, labeller.label(atoms)))
    found = compare(potential, met).summary()
    size = np.std([atoms.get_forces() for atoms in met])
    force, energy = found["force_eV_per_A"]["rmse"], found["energy_per_atom_eV"]["rmse"]
    print(f"{name}: energies {1e3 * energy:.2f} meV/atom, forces {1e3 * force:.1f} meV/Å of {size:.2f} eV/Å")
