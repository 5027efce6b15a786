# SPDX-License-Identifier: BSD-3-Clause
"""The ASE calculator gives what the potential gives, once for each geometry."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import mtp
from mtp.calculator import MTP
from mtp.errors import DataError, LibraryError


@pytest.fixture(scope="module")
def potential(random_potential):
    return random_potential(("Cu", "O"), level=8, seed=1)


@pytest.fixture
def atoms(random_atoms):
    return random_atoms(("Cu", "O"), seed=1)


def test_its_results_are_the_potentials(potential, atoms):
    expected = potential.evaluate(atoms)
    atoms.calc = MTP(potential)
    assert atoms.get_potential_energy() == expected.energy
    assert atoms.get_potential_energy(force_consistent=True) == expected.energy
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    np.testing.assert_array_equal(atoms.get_potential_energies(), expected.energies)
    np.testing.assert_array_equal(atoms.get_stress(), expected.stress)
    np.testing.assert_allclose(atoms.get_stress(voigt=False) * atoms.get_volume(), expected.virial, rtol=1e-14)


def test_it_reads_a_file(potential, atoms, tmp_path):
    potential.save(tmp_path / "a.mtp")
    atoms.calc = mtp.MTP(tmp_path / "a.mtp")
    # the file holds 16 digits
    assert atoms.get_potential_energy() == pytest.approx(potential.evaluate(atoms).energy, rel=1e-13)
    with pytest.raises(LibraryError, match="cannot be opened"):
        MTP(tmp_path / "missing.mtp")


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_a_potential_with_an_active_set_grades(mode, potential, atoms, random_atoms):
    graded = potential.copy()
    graded.select([random_atoms(("Cu", "O"), seed=k) for k in range(10, 20)], mode)
    atoms.calc = MTP(graded)
    atoms.get_potential_energy()
    expected = graded.grade(atoms)
    assert atoms.calc.results["grade"] == expected.maximum
    assert atoms.calc.get_property("grade", atoms) == expected.maximum
    if mode == "neighbourhood":
        np.testing.assert_array_equal(atoms.calc.results["grades"], expected.per_atom)
    else:
        assert "grades" not in atoms.calc.results


def test_a_potential_without_an_active_set_does_not_grade(potential, atoms):
    atoms.calc = MTP(potential)
    atoms.get_potential_energy()
    assert "grade" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("grade", atoms)


def test_a_cluster_has_no_stress(potential, random_atoms):
    atoms = random_atoms(("Cu", "O"), pbc=False)
    atoms.calc = MTP(potential)
    assert atoms.get_forces().shape == (len(atoms), 3)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_a_geometry_is_evaluated_once(potential, atoms, monkeypatch):
    calls = []
    evaluate = type(potential).evaluate
    monkeypatch.setattr(type(potential), "evaluate", lambda self, x: (calls.append(1), evaluate(self, x))[1])
    atoms.calc = MTP(potential)
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.1
    assert atoms.get_potential_energy() != energy
    assert len(calls) == 2
    atoms.set_cell(1.01 * atoms.cell[:])
    atoms.get_forces()
    assert len(calls) == 3
    atoms.symbols[[0, 1]] = atoms.symbols[[1, 0]]
    atoms.get_forces()
    assert len(calls) == 4


def test_a_failed_calculation_leaves_no_results(potential, atoms):
    atoms.calc = MTP(potential)
    atoms.get_potential_energy()
    atoms.positions[1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        atoms.get_potential_energy()
    with pytest.raises(DataError, match="NaN"):
        atoms.get_forces()  # not the old ones


def test_relaxation_lowers_the_energy(shared_data):
    copper = mtp.Potential.load(shared_data / "reference" / "cubic_12.mtp")
    copper.species = ["Cu"]
    rng = np.random.default_rng(1)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.positions += rng.normal(0, 0.08, (4, 3))
    atoms.calc = MTP(copper)
    before = atoms.get_potential_energy()
    assert BFGS(atoms, logfile=None).run(fmax=1e-4, steps=100)
    assert atoms.get_potential_energy() < before - 0.05
    assert np.abs(atoms.get_forces()).max() < 1e-4


def test_dynamics_conserve_the_energy(random_potential):
    """Velocity Verlet: the total energy oscillates with Δt², without drift."""
    potential = random_potential(("Cu",), level=6, seed=3)
    theta = potential.parameters
    theta[-potential.facts.n_scalar :] *= 0.1  # soft springs, gentle collisions
    potential.parameters = theta

    def deviation(dt):
        atoms = Atoms("Cu8", np.stack(np.meshgrid(*[[0.1, 2.4]] * 3), axis=-1).reshape(-1, 3))
        atoms.set_cell(4.6 * np.eye(3))
        atoms.pbc = True
        atoms.calc = MTP(potential)
        spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * 100)  # 100 K
        atoms.set_momenta(spread * np.random.default_rng(1).standard_normal((8, 3)))
        total, dynamics = [], VelocityVerlet(atoms, dt * units.fs)
        dynamics.attach(lambda: total.append(atoms.get_total_energy()))
        dynamics.run(round(60 / dt))
        return np.abs(np.array(total) - total[0]).max()

    coarse, fine = deviation(2.0), deviation(1.0)
    assert fine < 1e-3  # eV, of a kinetic energy of 0.1
    assert coarse / fine == pytest.approx(4, rel=0.3)  # Δt², with terms of order Δt⁴
