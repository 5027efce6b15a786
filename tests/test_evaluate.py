# SPDX-License-Identifier: BSD-3-Clause
"""Energies, forces and stresses: the laws that they obey, then what MLIP computed with the same potentials."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import read, write
from scipy.spatial.transform import Rotation

from mtp.configurations import read as read_configurations
from mtp.errors import DataError, Error, LibraryError
from mtp.neighbours import neighbourhoods
from mtp.potential import Potential

SPECIES = ("Cu", "O", "H")
PERIODIC = [True, False, (True, True, False), (False, False, True)]


@pytest.fixture(scope="module", params=[(1, 10), (3, 8)], ids=["one species", "three species"])
def potential(request, random_potential):
    n_species, level = request.param
    return random_potential(SPECIES[:n_species], level=level, seed=n_species)


@pytest.fixture(scope="module")
def case(potential, random_atoms):
    """A potential and a configuration in which no pair is so close to the cutoff that a difference would cross it."""

    def make(seed=0, **keywords):
        while True:
            atoms = random_atoms(SPECIES[: potential.facts.n_species], seed=seed, **keywords)
            types = np.zeros(len(atoms), int)
            distances = np.linalg.norm(neighbourhoods(atoms, types, 1.1 * potential.facts.cutoff).vectors, axis=1)
            if np.abs(distances - potential.facts.cutoff).min() > 0.01:
                return potential, atoms
            seed += 1000

    return make


def derivative(function, h):
    """Central difference of fourth order: error h⁴ f⁽⁵⁾/30, and rounding of about 1e-16 |f| / h."""
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


def same(result, expected, forces=None, tolerance=1e-11):
    """Equal but for rounding: sums of thousands of products of order one, in another order, keep about 12 digits."""
    scale = np.abs(expected.energies).max()
    np.testing.assert_allclose(result.energies, expected.energies, rtol=0, atol=tolerance * scale)
    forces = expected.forces if forces is None else forces
    np.testing.assert_allclose(result.forces, forces, rtol=0, atol=tolerance * np.abs(forces).max())


# ---- laws


@pytest.mark.parametrize("pbc", PERIODIC)
def test_forces_are_minus_the_gradient_of_the_energy(pbc, case):
    potential, atoms = case(seed=1, pbc=pbc)
    forces = potential.evaluate(atoms).forces
    for i, axis in ((0, 0), (3, 1), (5, 2), (7, 0)):

        def energy(step, i=i, axis=axis):
            moved = atoms.copy()
            moved.positions[i, axis] += step
            return potential.evaluate(moved).energy

        # The functions vary over 0.1 to 1 Å: h = 1e-3 gives h⁴ f⁽⁵⁾/30 < 1e-12·1e4/30 of the force; rounding 1e-12
        assert -derivative(energy, 1e-3) == pytest.approx(forces[i, axis], rel=1e-8, abs=1e-8)


def test_the_stress_is_the_strain_derivative_of_the_energy_per_volume(case):
    potential, atoms = case(seed=2)
    stress = potential.evaluate(atoms).stress
    for component, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):

        def energy(step, a=a, b=b):
            strain = np.eye(3)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            return potential.evaluate(strained).energy

        # a strain of 3e-4 moves a pair by 1.4e-3 Å at most: as for the forces
        slope = derivative(energy, 3e-4) / atoms.get_volume()
        assert slope == pytest.approx(stress[component], rel=1e-8, abs=1e-9)


def test_the_virial_is_volume_times_stress_and_symmetric(case):
    potential, atoms = case(seed=2)
    result = potential.evaluate(atoms)
    np.testing.assert_array_equal(result.virial, result.virial.T)
    voigt = result.virial.ravel()[[0, 4, 8, 5, 2, 1]]
    np.testing.assert_allclose(result.stress * atoms.get_volume(), voigt, rtol=1e-15)
    assert potential.evaluate(atoms.repeat((2, 1, 1))).stress == pytest.approx(result.stress, rel=1e-10)
    atoms.pbc = (True, True, False)
    assert potential.evaluate(atoms).stress is None


@pytest.mark.parametrize("reflection", [False, True])
@pytest.mark.parametrize("pbc", PERIODIC)
def test_a_rotation_turns_the_forces_and_leaves_the_energies(pbc, reflection, case, rotation):
    potential, atoms = case(seed=3, pbc=pbc)
    expected = potential.evaluate(atoms)
    turn = rotation(5, reflection)
    turned = atoms.copy()
    turned.set_cell(atoms.cell @ turn.T)  # a reflection makes the cell left-handed
    turned.positions = atoms.positions @ turn.T
    result = potential.evaluate(turned)
    same(result, expected, forces=expected.forces @ turn.T)
    atol = 1e-11 * np.abs(expected.virial).max()  # rounding, as in same()
    np.testing.assert_allclose(result.virial, turn @ expected.virial @ turn.T, rtol=0, atol=atol)


def test_a_translation_changes_nothing(case):
    potential, atoms = case(seed=4)
    expected = potential.evaluate(atoms)
    moved = atoms.copy()
    moved.positions += [17.3, -41.2, 0.7]  # out of the cell
    same(potential.evaluate(moved), expected)
    moved.wrap()
    same(potential.evaluate(moved), expected)
    moved.positions[2] += 3 * moved.cell[0] - 2 * moved.cell[2]  # one atom by lattice vectors
    same(potential.evaluate(moved), expected)


def test_the_order_of_the_atoms_does_not_matter(case):
    potential, atoms = case(seed=5)
    expected = potential.evaluate(atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    result = potential.evaluate(atoms[order])
    np.testing.assert_allclose(result.energies, expected.energies[order], rtol=0, atol=1e-11)  # see same()
    np.testing.assert_allclose(result.forces, expected.forces[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 1, 3), (2, 2, 2)])
def test_a_repeated_cell_repeats_energies_and_forces(repeat, case):
    potential, atoms = case(seed=6)
    expected, n = potential.evaluate(atoms), int(np.prod(repeat))
    result = potential.evaluate(atoms.repeat(repeat))
    assert result.energy == pytest.approx(n * expected.energy, rel=1e-11)  # rounding, as in same()
    for k in range(n):
        part = slice(k * len(atoms), (k + 1) * len(atoms))
        np.testing.assert_allclose(result.forces[part], expected.forces, rtol=0, atol=1e-10)


@pytest.mark.parametrize("lattice", ["fcc", "bcc", "sc", "skewed", "left-handed"])
def test_a_cell_smaller_than_the_cutoff_sees_its_own_images(lattice, random_potential):
    potential = random_potential(("Cu",), level=10)
    if lattice in ("fcc", "bcc", "sc"):
        atoms = bulk("Cu", lattice, a={"fcc": 3.6, "bcc": 2.9, "sc": 2.4}[lattice])
    else:
        cell = np.array([[2.4, 0, 0], [7.0, 2.5, 0], [-4.0, 3.2, 2.6]])  # as short vectors as a cube's, far from it
        atoms = Atoms("Cu", cell=cell[[1, 0, 2]] if lattice == "left-handed" else cell, pbc=True)
    single, many = potential.evaluate(atoms), potential.evaluate(atoms.repeat(3))
    np.testing.assert_allclose(many.energies, single.energy, rtol=1e-11)  # rounding, as in same()
    assert single.forces == pytest.approx(0, abs=1e-11)  # by inversion symmetry
    assert many.stress == pytest.approx(single.stress, rel=1e-9, abs=1e-12)


def test_the_choice_of_the_unit_cell_does_not_matter(case):
    potential, atoms = case(seed=7)
    expected = potential.evaluate(atoms)
    for change in ([[1, 2, 0], [0, 1, 0], [0, -3, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]], -np.eye(3)):
        other = atoms.copy()
        other.set_cell(np.array(change) @ atoms.cell)
        result = potential.evaluate(other)
        same(result, expected)
        assert result.stress == pytest.approx(expected.stress, rel=1e-9, abs=1e-12)  # a sign error would be 1e-2
    doubled = make_supercell(atoms, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    assert potential.evaluate(doubled).energy == pytest.approx(2 * expected.energy, rel=1e-11)


@pytest.mark.parametrize("pbc", PERIODIC)
def test_forces_add_up_to_zero(pbc, case):
    potential, atoms = case(seed=8, pbc=pbc)
    forces = potential.evaluate(atoms).forces
    assert np.abs(forces).max() > 0.1
    # every pair is booked twice with opposite signs: only the rounding of the sum is left
    assert np.abs(forces.sum(axis=0)).max() < 1e-13 * np.abs(forces).sum()


def test_a_free_cluster_feels_no_torque(case):
    potential, atoms = case(seed=9, pbc=False)
    forces = potential.evaluate(atoms).forces
    torque = np.cross(atoms.positions, forces).sum(axis=0)
    assert np.abs(torque).max() < 1e-11 * np.abs(forces).sum() * 5  # Å of lever arm; rounding, as in same()


def test_an_isolated_atom_has_the_energy_of_its_species(potential):
    n = potential.facts.n_species
    coefficients = potential.parameters[-potential.facts.n_scalar - n : -potential.facts.n_scalar]
    for symbol, coefficient in zip(SPECIES[:n], coefficients, strict=True):
        result = potential.evaluate(Atoms(symbol, [(1.0, 2.0, 3.0)]))
        assert result.energy == coefficient
        assert not result.forces.any()
        assert not result.virial.any()
    far = Atoms(SPECIES[:n][-1] * 2, [(0, 0, 0), (0, 0, potential.facts.cutoff)])
    assert potential.evaluate(far).energy == 2 * coefficients[-1]


def test_energy_and_force_vanish_smoothly_at_the_cutoff(random_potential):
    potential = random_potential(("Cu", "O"), level=12, seed=2)
    alone = potential.evaluate(Atoms("CuO", [(0, 0, 0), (0, 0, 20)])).energy

    def pair(gap):
        result = potential.evaluate(Atoms("CuO", [(0, 0, 0), (0.6 * (4.5 - gap), 0, 0.8 * (4.5 - gap))]))
        return result.energy - alone, result.forces[0] @ (0.6, 0, 0.8)

    gaps = np.array([1e-3, 1e-4, 1e-5])
    energies, forces = np.array([pair(gap) for gap in gaps]).T
    # V ~ (r - cutoff)² and F ~ (r - cutoff), each to a relative order of gap · (slope of the rest, some 50 / Å)
    np.testing.assert_allclose(energies[1:] / energies[:-1], 1e-2, rtol=0.1)
    np.testing.assert_allclose(forces[1:] / forces[:-1], 1e-1, rtol=0.1)
    assert pair(0.0) == (0, 0)
    assert pair(-1e-12) == (0, 0)


def test_a_site_depends_on_nothing_beyond_the_cutoff(potential):
    symbols = [SPECIES[k % potential.facts.n_species] for k in range(4)]
    positions = np.array([(0, 0, 0), (2.0, 0, 0), (0, 2.1, 0), (0, 0, potential.facts.cutoff + 0.01)])
    atoms = Atoms(symbols, positions)
    before = potential.evaluate(atoms)
    atoms.positions[3, 2] += 1.0
    assert potential.evaluate(atoms).energies[0] == before.energies[0]


def test_a_configuration_from_a_file_gives_what_the_one_in_memory_does(case, tmp_path):
    potential, atoms = case(seed=10)
    write(tmp_path / "a.extxyz", [atoms, atoms.repeat((1, 1, 2))])
    results = potential.evaluate(read(tmp_path / "a.extxyz", ":"))
    # extxyz has eight decimals: 5e-9 Å times forces of order one
    assert results[0].energy == pytest.approx(potential.evaluate(atoms).energy, abs=1e-6)
    assert results[1].energy == pytest.approx(2 * results[0].energy, abs=1e-6)


def test_a_scaling_multiplies_the_radial_functions(case):
    potential, atoms = case(seed=11)
    n_linear = potential.facts.n_species + potential.facts.n_scalar
    scaled = potential.copy()
    scaled.set_scaling(-3 * potential.facts.scaling)
    theta = scaled.parameters
    theta[:-n_linear] /= -3
    scaled.parameters = theta
    same(scaled.evaluate(atoms), potential.evaluate(atoms))


# ---- what cannot be evaluated


def test_nothing_has_no_energy(potential):
    for atoms in (Atoms(), Atoms(cell=(3, 3, 3), pbc=True)):
        result = potential.evaluate(atoms)
        assert result.energy == 0
        assert result.forces.shape == (0, 3)
        assert not result.virial.any()
    assert potential.evaluate([]) == []


@pytest.mark.parametrize("pbc", [False, True])
def test_coinciding_atoms_are_named(pbc, potential, random_atoms):
    atoms = random_atoms(SPECIES[:1], seed=1, pbc=pbc)
    atoms.positions[5] = atoms.positions[2] + (atoms.cell[0] if pbc else 0)  # the same but for rounding
    with pytest.raises(LibraryError, match=r"atom [25]: two atoms are at the same place"):
        potential.evaluate(atoms)
    atoms.info["source"] = "data.extxyz#7"
    fine = random_atoms(SPECIES[:1], seed=1, pbc=pbc)
    for given in (atoms, [atoms], [fine, atoms]):
        with pytest.raises(DataError, match=r"^data.extxyz#7: atom [25]: two atoms"):
            potential.evaluate(given)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_and_cells_that_are_not_finite_are_refused(value, potential, random_atoms):
    atoms = random_atoms(SPECIES[:1], seed=1)
    atoms.info["source"] = "data.extxyz#7"
    broken = atoms.copy()
    broken.positions[3, 1] = value
    with pytest.raises(DataError, match=r"^data.extxyz#7: .*NaN or infinity"):
        potential.evaluate(broken)
    broken = atoms.copy()
    broken.cell[2, 1] = value
    with pytest.raises(DataError, match=r"^data.extxyz#7: .*NaN or infinity"):
        potential.evaluate(broken)


def test_a_species_that_the_potential_does_not_know_is_named(potential):
    atoms = Atoms("CuXe", [(0, 0, 0), (0, 0, 2)], info={"source": "data.extxyz#7"})
    with pytest.raises(DataError, match=r"^data.extxyz#7: .*Xe"):
        potential.evaluate(atoms)


def test_types_are_taken_where_the_potential_names_no_elements(potential, random_atoms):
    atoms = random_atoms(SPECIES[: potential.facts.n_species], seed=1)
    nameless = potential.copy()
    nameless.species = None
    with pytest.raises(DataError, match="integer types"):
        nameless.evaluate(atoms)
    atoms.new_array("type", np.array([potential.species.index(s) for s in atoms.symbols]))
    assert nameless.evaluate(atoms).energy == potential.evaluate(atoms).energy
    for wrong in (-1, potential.facts.n_species):
        atoms.arrays["type"][4] = wrong
        with pytest.raises(Error, match=r"atom 4 has species|integer from 0"):
            nameless.evaluate(atoms)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([3.0, 3.0, 0.0]), [[3, 0, 0], [0, 3, 0], [3, 3, 0]]])
def test_a_periodic_cell_without_volume_is_refused(cell, potential):
    atoms = Atoms("Cu", cell=cell, pbc=True, info={"source": "data.extxyz#7"})
    with pytest.raises(DataError, match=r"^data.extxyz#7: .*cell"):
        potential.evaluate(atoms)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (False, False, False)])
def test_a_direction_that_is_not_periodic_is_one_with_much_vacuum(pbc, case):
    potential, atoms = case(seed=12, pbc=pbc)
    _, cell = case(seed=12)
    atoms.set_cell(cell.cell)
    periodic = atoms.copy()
    vacuum = np.where(pbc, 0.0, 30.0)[:, None] * np.linalg.inv(cell.cell).T
    periodic.set_cell(cell.cell + vacuum)  # along the normals of the other two vectors
    periodic.pbc = True
    same(potential.evaluate(atoms), potential.evaluate(periodic))


def test_a_slab_without_a_third_vector_is_evaluated(random_potential):
    potential = random_potential(("Cu",), level=8)
    slab = Atoms("Cu2", [(0, 0, 0), (1.2, 1.2, 1.7)], cell=np.diag([2.5, 2.5, 0.0]), pbc=(True, True, False))
    thick = slab.copy()
    thick.cell[2, 2] = 100.0
    same(potential.evaluate(slab), potential.evaluate(thick))
    assert potential.evaluate(slab).stress is None


def test_an_untrained_potential_is_not_evaluated(random_atoms):
    potential = Potential.new(8, ["Cu"], cutoff=5.0)
    for use in (potential.evaluate, potential.parameter_gradient, potential.jacobian, potential.grade):
        with pytest.raises(LibraryError, match=r"not trained|no active set"):
            use(random_atoms(("Cu",)))


# ---- references


@pytest.mark.parametrize("name", ["cubic_08", "cubic_12", "cubic_16", "cubic_20", "multi_10"])
def test_mlips_energies_forces_and_stresses_are_reproduced(name, shared_data):
    folder = shared_data / "reference"
    potential = Potential.load(folder / f"{name}.mtp")
    configurations = read_configurations(folder / f"{name}.cfg")
    assert len(configurations) == 26
    for atoms in configurations:
        result = potential.evaluate(atoms)
        # printed with 12 decimals, of positions that have 6: these are what MLIP read
        per_atom = abs(result.energy - atoms.calc.results["energy"]) / len(atoms)
        assert per_atom < 1e-10, atoms.info["source"]
        # half a unit of the sixth decimal, and one more where the last digit was rounded the other way
        assert np.abs(result.forces - atoms.calc.results["forces"]).max() < 1.0e-6
        plus_stress = -atoms.calc.results["stress"] * atoms.get_volume()
        assert np.abs(-result.stress * atoms.get_volume() - plus_stress).max() < 1.0e-5  # five decimals


def test_a_dimer_turned_by_a_quarter_gives_the_forces_of_pen_and_paper():
    """Level 2: V_i = ξ0 + ξ1 Σ_j f_0(r_ij), so that the force of a dimer is -2 ξ1 f_0'(r)."""
    potential = Potential.new(2, ["Cu"], cutoff=5.0, min_distance=1.0, n_chebyshev=3)
    potential.set_scaling(0.5)
    c, xi0, xi1 = np.array([0.3, -0.7, 1.1]), -1.5, 0.25
    potential.parameters = [*c, xi0, xi1]
    r = 2.2
    xi = (2 * r - 6.0) / 4.0
    f = 0.5 * (c @ (1, xi, 2 * xi**2 - 1)) * (r - 5) ** 2
    slope = 0.5 * ((c @ (0, 1, 4 * xi)) * 0.5 * (r - 5) ** 2 + 2 * (c @ (1, xi, 2 * xi**2 - 1)) * (r - 5))
    axis = Rotation.from_euler("z", 90, degrees=True).apply((1, 0, 0))
    result = potential.evaluate(Atoms("Cu2", [np.zeros(3), r * axis]))
    assert result.energy == pytest.approx(2 * (xi0 + xi1 * f), rel=1e-14)  # a dozen operations
    np.testing.assert_allclose(result.forces[1], -2 * xi1 * slope * axis, rtol=1e-13, atol=1e-15)
