# SPDX-License-Identifier: BSD-3-Clause
"""The short-range guard: derivatives, smoothness and conservation where it acts, nothing at all where it does not, the
same in Python and in LAMMPS, carried by the file."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from learning_loops import SILICON, TERSOFF, learned, settings
from test_derivatives import observables, random_errors
from test_lammps import close, evaluated, lmp, succeeds

from mtp.configurations import Labels, labels, read, with_labels
from mtp.database import Dataset
from mtp.errors import DataError, Error, LibraryError
from mtp.fit import FitSettings, fit
from mtp.guard import approaches, guard_for, guarded, repulsion, shortest_distances
from mtp.learning.memory import MemoryWalk
from mtp.learning.scripts import scripts, write_data
from mtp.live import styles
from mtp.potential import Guard, Potential
from mtp.settings import Exploration, Selection

ROOT = Path(__file__).resolve().parents[1]
SPECIES = ("Cu", "O")
FADE = np.array([[(1.2, 2.4), (1.0, 2.2)], [(1.0, 2.2), (0.8, 2.0)]])
BLEND = Guard(FADE, FADE)
ZBL = Guard(np.array([[(0.9, 3.0), (1.1, 2.6)], [(1.1, 2.6), (0.7, 2.8)]]), FADE)


@pytest.fixture(scope="module", params=[BLEND, ZBL], ids=["blend", "zbl"])
def case(request, random_potential, random_atoms):
    """A potential, and atoms of which many are where its guard acts."""
    potential, atoms = random_potential(SPECIES, level=8, seed=8), random_atoms(SPECIES, seed=8, spacing=1.8)
    potential.guard = request.param
    distances = np.linalg.norm(potential.neighbourhoods(atoms).vectors, axis=1)
    assert ((distances > 1.4) & (distances < 2.0)).sum() > 10
    return potential, atoms


@pytest.fixture(scope="module")
def silicon():
    return read(ROOT / "tests" / "data" / "silicon_dft.extxyz")


@pytest.fixture(scope="module")
def fitted(silicon):
    return fit(silicon, FitSettings(level=8, iterations=6, threads=1))


@pytest.fixture(scope="module")
def copper(tmp_path_factory):
    """A pair potential, Morse's of copper [Girifalco & Weizer, Phys. Rev. 114, 687 (1959)] as nine Chebyshev
    polynomials can hold it between 2.2 and 5 Å: further in it falls into an abyss. Without and with a guard, which
    starts there."""
    start, cutoff, n = 2.2, 5.0, 9
    r = np.linspace(start, cutoff, 200)
    decay = np.exp(-1.3588 * (r - 2.866))
    xi = (2 * r - start - cutoff) / (cutoff - start)
    functions = np.polynomial.chebyshev.chebvander(xi, n - 1) * ((r - cutoff) ** 2)[:, None]
    radial = np.linalg.lstsq(functions, 0.3429 * (decay**2 - 2 * decay), rcond=None)[0]
    plain = Potential.new(2, ["Cu"], cutoff, start, n)
    plain.parameters = np.concatenate([radial, [0], [0.5]])
    window = np.array([[[0.7 * start, start]]])
    with_guard = plain.copy()
    with_guard.guard = Guard(window, window)
    folder = tmp_path_factory.mktemp("copper")
    plain.save(folder / "plain.mtp")
    with_guard.save(folder / "guarded.mtp")
    return folder


def pair_energy(potential: Potential, distances, species=("Cu", "O")) -> np.ndarray:
    return np.array([potential.evaluate(Atoms(species, [(0, 0, 0), (0, 0, r)])).energy for r in distances])


def pair_force(potential: Potential, distances, species=("Cu", "O")) -> np.ndarray:
    return np.array([potential.evaluate(Atoms(species, [(0, 0, 0), (0, 0, r)])).forces[1, 2] for r in distances])


# ---- derivatives


def slope(values, step):
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def test_forces_and_virial_are_derivatives_of_the_energy(case):
    potential, atoms = case
    result, rng, step = potential.evaluate(atoms), np.random.default_rng(1), 2e-5

    def energy(displacement, strain):
        moved = atoms.copy()
        moved.positions += displacement
        moved.set_cell(moved.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return potential.evaluate(moved).energy

    for _ in range(3):
        direction, strain = rng.standard_normal((len(atoms), 3)), rng.standard_normal((3, 3))
        along = slope([energy(n * step * direction, 0 * strain) for n in (-2, -1, 1, 2)], step)
        # a neighbour may pass the cutoff, where the energy has a step in its curvature; rounding, 1e-13 eV / step
        assert along == pytest.approx(-(result.forces * direction).sum(), abs=1e-8 * np.abs(result.forces).sum())
        along = slope([energy(0 * direction, n * step * strain) for n in (-2, -1, 1, 2)], step)
        assert along == pytest.approx((result.virial * strain).sum(), abs=1e-7 * np.abs(result.virial).sum())


def test_the_parameter_gradient_and_the_jacobian_are_derivatives_by_the_parameters(case):
    potential, atoms = case
    theta = potential.parameters
    jacobian, rows = potential.jacobian(atoms), potential.parameter_gradient(atoms)
    stacked = np.concatenate([jacobian.energy[None], jacobian.forces, jacobian.virial])
    for k in range(0, len(theta), 7):
        e = np.zeros_like(theta)
        e[k] = 0.125
        expected = slope([observables(potential, theta + n * e, atoms) for n in (-2, -1, 1, 2)], 0.125)
        # polynomials of degree four in the parameters: rounding only, as in test_derivatives.py
        np.testing.assert_allclose(stacked[:, k], expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max() + 1e-12)
        assert rows[:, k].sum() == pytest.approx(expected[0], rel=1e-7, abs=1e-9 * np.abs(expected).max() + 1e-12)


def test_the_gradient_of_the_square_errors_is_that_of_the_jacobian(case):
    """As in test_derivatives.py; the predicted values hold the repulsion."""
    potential, atoms = case
    reference, weights = random_errors(potential, atoms)
    errors, gradient = potential.square_errors(potential.neighbourhoods(atoms), reference, weights)
    difference = observables(potential, potential.parameters, atoms) - reference
    assert errors.sum() == pytest.approx((weights * difference**2).sum(), rel=1e-9)
    found = potential.jacobian(atoms)
    jacobian = np.concatenate([found.energy[None], found.forces, found.virial])
    size = 2 * np.abs(jacobian).T @ np.abs(weights * difference)  # rounding is relative to the sum of the sizes
    error = gradient - 2 * jacobian.T @ (weights * difference)
    assert (np.abs(error) < 1e-9 * (size + size.max() * 1e-3)).all()


def test_energy_force_and_its_derivative_are_continuous(case):
    potential, _ = case
    guard, h = potential.guard, 1e-4
    held = guard.fade[0, 1, 1] - 0.25 * np.ptp(
        guard.fade[0, 1]
    )  # the polynomials are taken at one distance from here on
    for r in (*guard.repulsion[0, 1], *guard.fade[0, 1], held):
        left, right = pair_force(potential, r - h * np.arange(4)), pair_force(potential, r + h * np.arange(4))
        # one-sided derivatives of third order, which see none of the other side
        weights = np.array([-11, 18, -9, 2]) / (6 * h)
        size = np.abs(pair_force(potential, np.linspace(0.9, 3.0, 22))).max()
        # h³ times a fourth derivative, of up to 1e3 size, and rounding, 1e-16 size / h
        assert -weights @ left == pytest.approx(weights @ right, abs=1e-5 * size)


def test_the_repulsion_is_that_of_lammps(tmp_path):
    potential = Potential.new(4, SPECIES, 5.0)
    potential.parameters = np.zeros(potential.facts.n_parameters)
    windows = np.full((2, 2, 2), (3.0, 4.0))
    potential.guard = Guard(windows, windows)
    atoms = Atoms("CuOCuO", [(0, 0, 0), (0, 0, 0.3), (1.2, 0, 0.1), (0, 1.7, 0)], cell=[12, 12, 12])
    atoms.center()
    result = potential.evaluate(atoms)
    expected = evaluated(tmp_path, atoms, "pair_style zbl 3.0 4.0\npair_coeff 1 1 8 8\npair_coeff 2 2 29 29\n")
    # LAMMPS shifts its energies by a constant; its e² / (4 π ε0) has eight digits
    close(result.forces, expected.forces, 1e-7)


# ---- where it does nothing


def test_beyond_its_distances_nothing_changes(random_potential, random_atoms):
    plain = random_potential(SPECIES, level=8, seed=3)
    data = [random_atoms(SPECIES, seed=k) for k in range(6)]
    plain.select(data)
    one = guarded(plain, data)
    assert one.guard.fade[..., 1].min() > 1
    assert not one.guard.acts_in_training_range
    for atoms in data:
        before, after = plain.evaluate(atoms), one.evaluate(atoms)
        for name in ("energies", "forces", "virial"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        np.testing.assert_array_equal(one.jacobian(atoms).forces, plain.jacobian(atoms).forces)
        np.testing.assert_array_equal(one.parameter_gradient(atoms), plain.parameter_gradient(atoms))
        # the inverse of the active set is computed anew
        np.testing.assert_allclose(one.grade(atoms).per_atom, plain.grade(atoms).per_atom, rtol=1e-6)
    np.testing.assert_array_equal(one.active_set, plain.active_set)


def test_atoms_that_are_evaluated_together_with_a_close_pair_do_not_feel_its_guard(random_potential, random_atoms):
    """All ten are lanes of the same groups of eight."""
    plain, far = random_potential(("Cu",), level=8, seed=3), random_atoms(("Cu",), seed=1, pbc=False)
    one = guarded(plain, [far])
    atoms = Atoms("Cu2", [(50, 0, 0), (50, 0, 0.5 * one.guard.fade[0, 0, 1])]) + far
    found, expected = one.evaluate(atoms), plain.evaluate(atoms)
    np.testing.assert_array_equal(found.energies[2:], expected.energies[2:])
    np.testing.assert_array_equal(found.forces[2:], expected.forces[2:])
    assert (found.energies[:2] != expected.energies[:2]).all()


def test_taking_the_guard_away_leaves_the_potential_as_it_was(case, random_potential):
    potential, atoms = case
    plain = potential.copy()
    plain.guard = None
    assert plain.guard is None
    expected = random_potential(SPECIES, level=8, seed=8).evaluate(atoms).forces
    np.testing.assert_array_equal(plain.evaluate(atoms).forces, expected)
    assert np.abs(potential.evaluate(atoms).forces - expected).max() > 0.1


# ---- at short distances


def test_below_both_windows_a_pair_is_the_bare_repulsion(case):
    potential, _ = case
    distances = np.linspace(0.1, 0.7, 13)
    isolated = potential.parameters[-potential.facts.n_scalar - 2 : -potential.facts.n_scalar].sum()
    pairs = [Atoms(SPECIES, [(0, 0, 0), (0, 0, r)]) for r in distances]
    expected = [repulsion(potential, atoms)[0] + isolated for atoms in pairs]
    np.testing.assert_allclose(pair_energy(potential, distances), expected, rtol=1e-14)


def test_a_pair_repels_down_to_a_tenth_of_an_angstrom(copper):
    distances = np.linspace(0.1, 2.2, 400)
    bare = pair_energy(Potential.load(copper / "plain.mtp"), distances, "Cu2")
    assert bare.min() < -1e3
    one = Potential.load(copper / "guarded.mtp")
    energies = pair_energy(one, distances, "Cu2")
    assert energies[-1] == bare[-1]
    assert (np.diff(energies) < 0).all()
    crystal = bulk("Cu", cubic=True).repeat(3)
    (pushed,) = approaches(one, [crystal])
    assert pushed.attractive is None
    assert pushed.energies[0] - pushed.energies[-1] > 1e4  # eV, ZBL at 0.1 Å


def test_fitted_potentials_repel(fitted, silicon):
    (pushed,) = approaches(guarded(fitted, silicon), silicon)
    assert pushed.attractive is None
    assert pushed.distances[0] == 0.1
    assert pushed.distances[-1] == pytest.approx(1.841, abs=1e-3)
    assert pushed.energies[-1] == approaches(fitted, silicon)[0].energies[-1]


def test_coinciding_atoms_stay_an_error(case):
    potential, _ = case
    with pytest.raises(LibraryError, match="same place"):
        potential.evaluate(Atoms(SPECIES, [(0, 0, 0), (0, 0, 1e-7)]))


# ---- LAMMPS


@pytest.mark.parametrize("units", ["metal", "real"])
def test_lammps_computes_the_same(units, case, tmp_path):
    potential, _ = case
    potential.save(tmp_path / "g.mtp")
    rng = np.random.default_rng(5)
    atoms = bulk("Cu", cubic=True, a=3.2).repeat(2)
    atoms.symbols[1::2] = "O"
    atoms.positions += rng.normal(0, 0.2, atoms.positions.shape)
    expected = Potential.load(tmp_path / "g.mtp").evaluate(atoms)
    pair = "pair_style mtp\npair_coeff * * g.mtp O Cu\n"
    found = evaluated(tmp_path, atoms, pair, units=units)
    unit = 1 if units == "metal" else 23.060549  # kcal/mol, as LAMMPS has it
    pressure = -expected.virial.ravel()[[0, 4, 8, 1, 2, 5]] * (1.6021765e6 if units == "metal" else 1)
    # 1e-12: two summations of the same terms
    close(found.energies, unit * expected.energies, 1e-12)
    close(found.forces, unit * expected.forces, 1e-12)
    if units == "metal":
        close(found.virial, pressure, 1e-12)


# an atom is knocked towards a neighbour, with 100 eV; in a step it moves by less than 0.004 Å
COLLISION = """
units metal
lattice fcc 3.61
region box block 0 4 0 4 0 4
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style mtp
pair_coeff * * {file} Cu
velocity all create 300 4928459
group knocked id 100
velocity knocked set 123 123 0 units box
timestep {timestep}
fix move all nve
thermo 1
thermo_style custom step pe etotal
thermo_modify format float %.17g
run 1000
"""


def test_a_hard_collision_conserves_the_energy(tmp_path, copper):
    ripples = []
    for timestep in (0.00002, 0.00001):
        output = succeeds(tmp_path, COLLISION.format(file=copper / "guarded.mtp", timestep=timestep))
        potential, total = np.array(re.findall(r"^ *\d+ +(-\S+) +(-\S+) *$", output, re.MULTILINE), dtype=float).T
        assert len(total) == 1001
        assert np.ptp(potential) > 40  # eV: the atoms come far into the guard
        assert abs(total[-1] - total[0]) < 5e-4  # eV
        ripples.append(np.ptp(total))
    assert ripples[0] < 1e-3
    assert ripples[1] < ripples[0] / 3  # the integrator's, of second order in the time step


def test_without_a_guard_the_same_collision_ends_in_an_abyss(tmp_path, copper):
    done = lmp(tmp_path, COLLISION.format(file=copper / "plain.mtp", timestep=0.00002))
    total = np.array(re.findall(r"^ *\d+ +(-\S+) +(\S+) *$", done.stdout, re.MULTILINE), dtype=float)
    assert np.ptp(total[:, 0]) > 1e4  # eV, of the 100 that it was knocked with
    assert np.ptp(total[:, 1]) > 100


def test_a_running_pair_style_takes_other_distances_but_no_guard_more_or_less(tmp_path, silicon, fitted):
    potential = guarded(fitted, silicon)
    potential.select(silicon)
    potential.save(tmp_path / "g.almtp")
    crystal = {"name": "Si", "structure": "diamond", "a": 5.43}
    write_data(tmp_path / "data", bulk("Si", cubic=True), ["Si"])
    (script,) = scripts(Exploration(crystal=crystal, temperatures=[300], steps=1), tmp_path / "data", ["Si"])
    walk = MemoryWalk(script, Selection(), tmp_path / "log", (1,), MPI.COMM_SELF)
    walk.begin(potential, tmp_path / "g.almtp", turn=0)
    try:
        (style,) = styles()
        wider = potential.copy()
        wider.guard = Guard(potential.guard.repulsion * 0.99, potential.guard.fade * 0.98)
        with pytest.raises(LibraryError, match="no active set"):
            style.set_potential(wider)
        wider.set_active_set(potential.active_set, "neighbourhood")
        style.set_potential(wider)
        bare = potential.copy()
        bare.guard = None
        bare.set_active_set(potential.active_set, "neighbourhood")
        with pytest.raises(LibraryError, match="only one of them has a guard"):
            style.set_potential(bare)
    finally:
        walk.close()


# ---- the file


@pytest.mark.parametrize("suffix", [".mtp", ".almtp"])
def test_it_reads_back_as_it_was(case, random_atoms, suffix, tmp_path):
    potential = case[0].copy()
    uneven = Guard(potential.guard.repulsion * (1 / 3), potential.guard.fade * np.pi / 4)
    potential.guard = uneven
    potential.select([random_atoms(SPECIES, seed=k) for k in range(3)])
    potential.save(tmp_path / f"a{suffix}")
    again = Potential.load(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.guard.repulsion, uneven.repulsion)
    np.testing.assert_array_equal(again.guard.fade, uneven.fade)
    assert again.species == potential.species
    again.save(tmp_path / f"b{suffix}")
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()


def test_it_travels_between_processes(case):
    again = pickle.loads(pickle.dumps(case[0]))
    np.testing.assert_array_equal(again.guard.repulsion, case[0].guard.repulsion)
    np.testing.assert_array_equal(again.evaluate(case[1]).forces, case[0].evaluate(case[1]).forces)


def test_it_may_reach_as_far_as_a_cutoff_of_more_digits_than_a_file_holds(tmp_path):
    for cutoff in (16 / 3, 0.1 + 5.2, np.nextafter(5, 6), np.nextafter(5, 4)):
        potential = Potential.new(4, ["Cu"], cutoff)
        potential.guard = Guard(np.array([[[1, cutoff]]]), np.array([[[1, cutoff]]]))
        potential.save(tmp_path / "g.mtp")
        assert Potential.load(tmp_path / "g.mtp").guard.fade[0, 0, 1] == cutoff


def test_only_a_file_that_others_would_misread_has_a_type_of_its_own(random_potential, tmp_path):
    """A blend is free text in the tag to other readers; with repulsion in the range of the data they must refuse."""
    potential = random_potential(SPECIES, level=4, seed=1)
    for guard, name in ((None, "RBChebyshev"), (BLEND, "RBChebyshev"), (ZBL, "RBChebyshevZBL")):
        potential.guard = guard
        potential.save(tmp_path / "g.mtp")
        assert re.search(r"radial_basis_type = (\S+)", (tmp_path / "g.mtp").read_text())[1] == name
        text = (tmp_path / "g.mtp").read_text()
        assert ("guard:" in text) == (guard is not None)
        assert text.count("\n") == 6 + 4 + 1 + 4 * (1 + potential.facts.n_radial) + 9  # no line more or less


DAMAGES = [
    ("guard:0-0", "guard:0-1", 6, "expected the pair 0-0, found 0-1"),
    ("guard:0-0", "guard:x", 6, "expected a number at 'x"),
    (r"guard:0-0:\S+", "guard:0-0:1.2,2.4,1.2,2.4", 6, "expected ';' and a number at ''"),
    (r"(guard:\S+)", r"\1;2-2:1,2,1,2", 6, "unexpected ';2-2:1,2,1,2' after the last pair"),
    (r"(guard:\S+)", r"\1 \1", 6, "given twice"),
    (":1.2,2.4", ":2.5,2.4", 6, "pair 0-0 are not finite and in order"),
    (":1.2,2.4", ":-1.2,2.4", 6, "not finite and in order"),
    (":1.2,2.4", ":nan,2.4", 6, "not finite and in order"),
    (":1.2,2.4", ":1.2,inf", 6, "not finite and in order"),
    (":1.2,2.4", ":1.2,1e999", 6, "expected ',' and a number"),
    ("elements:Cu,O ", "", 6, "names no elements"),
    ("elements:Cu,O ", "elements:Cu,Q ", 6, "'Q' is no element's symbol"),
    (":1.2,2.4", ":1.2,2.5", 7, "does not fit the guard in potential_tag, which makes it RBChebyshevZBL"),
    ("RBChebyshev", "RBChebyshevZBL", 7, "does not fit the guard in potential_tag, which makes it RBChebyshev:"),
    (r" guard:\S+", "", None, None),
    (":1.2,2.4,1.2,2.4", ":1.2,2.4,1.2,12", 9, "reaches beyond max_dist"),
]


@pytest.mark.parametrize(("pattern", "replacement", "line", "message"), DAMAGES)
def test_damage_is_named(pattern, replacement, line, message, random_potential, tmp_path):
    potential = random_potential(SPECIES, level=4, seed=1)
    potential.guard = BLEND
    path = tmp_path / "g.mtp"
    potential.save(path)
    text, n = re.subn(pattern, replacement, path.read_text(), count=1)
    assert n == 1
    path.write_text(text)
    if message is None:
        assert Potential.load(path).guard is None
        return
    with pytest.raises(LibraryError, match=f"{re.escape(str(path))}:{line}: .*{re.escape(message)}"):
        Potential.load(path)


def test_a_guarded_type_without_its_guard_is_refused(random_potential, tmp_path):
    potential = random_potential(SPECIES, level=4, seed=1)
    potential.guard = ZBL
    potential.save(tmp_path / "g.mtp")
    (tmp_path / "g.mtp").write_text(re.sub(r" guard:\S+", "", (tmp_path / "g.mtp").read_text()))
    with pytest.raises(LibraryError, match=r"g.mtp:7: .*the tag is damaged or lost"):
        Potential.load(tmp_path / "g.mtp")


# ---- refusals


def test_a_guard_that_cannot_be_is_refused(random_potential, random_atoms):
    potential = random_potential(SPECIES, level=4, seed=1)
    lopsided = FADE.copy()
    lopsided[0, 1] = (0.9, 2.2)
    for windows, message in (
        (FADE[..., ::-1], "not finite and in order"),
        (FADE * np.nan, "not finite and in order"),
        (lopsided, "the pairs 0-1 and 1-0 differ"),
        (FADE * 2, "beyond the cutoff"),
    ):
        with pytest.raises(LibraryError, match=message):
            potential.guard = Guard(windows, windows)
        assert potential.guard is None
    with pytest.raises(Error, match=r"windows \(S, S, 2\)"):
        potential.guard = Guard(FADE[:1, :1], FADE[:1, :1])
    potential.guard = BLEND
    for names in (None, ["Cu", "Xx"]):
        with pytest.raises(LibraryError, match="nuclear charge"):
            potential.species = names
    assert potential.species == list(SPECIES)


def test_a_potential_without_element_names_gets_no_guard(random_potential, random_atoms):
    potential = random_potential(("Cu",), level=4)
    potential.species = None
    with pytest.raises(LibraryError, match="names no elements"):
        potential.guard = Guard(FADE[:1, :1], FADE[:1, :1])
    with pytest.raises(Error, match="names no elements"):
        guard_for(potential, [random_atoms(("Cu",))])


def test_data_without_neighbours_give_no_guard(random_potential):
    with pytest.raises(DataError, match="no shortest distance"):
        guard_for(random_potential(("Cu",), level=4), [Atoms("Cu")])


# ---- choosing and fitting


def test_the_shortest_distances_are_those_of_the_data(random_potential, random_atoms):
    potential = random_potential(("Cu", "O", "H"), level=4)
    data = [random_atoms(SPECIES, seed=k) for k in range(4)]
    found = shortest_distances(potential, data)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        expected = np.inf
        for atoms in data:
            distances = atoms.repeat(3).get_all_distances()
            kinds = atoms.repeat(3).symbols
            mask = (np.array(kinds)[:, None] == SPECIES[i]) & (np.array(kinds) == SPECIES[j]) & (distances > 0)
            expected = min(expected, distances[mask].min())
        assert found[i, j] == found[j, i] == np.floor(100 * expected) / 100
    assert (found[2] == potential.facts.cutoff).all()  # no hydrogen in the data


def test_the_mtp_learns_the_difference(silicon):
    """A fit with repulsion in the range of the data is the plain fit to data without that repulsion."""
    settings = {"level": 6, "iterations": 4, "threads": 1}
    found = fit(silicon, FitSettings(**settings, guard="zbl", zbl_reach=1.2))
    assert found.guard.acts_in_training_range
    assert found.guard.repulsion[0, 0, 1] == pytest.approx(1.2 * 2 * 1.11)  # covalent radius of silicon, Å
    rest, size = [], 0.0
    for atoms in silicon:
        known, part = labels(atoms), repulsion(found, atoms)
        size = max(size, np.abs(part[1:-6]).max())
        stress = known.stress - part[-6:] / atoms.get_volume()
        rest.append(
            with_labels(atoms, Labels(known.energy - part[0], known.forces - part[1:-6].reshape(-1, 3), stress))
        )
    assert size > 0.5  # eV/Å: it matters
    plain = fit(rest, FitSettings(**settings))
    # rounding, enlarged by the condition of the normal equations; what parameters are ill determined matters little
    for atoms in silicon:
        whole, part = found.evaluate(atoms), plain.evaluate(atoms)
        assert whole.energy == pytest.approx(part.energy + repulsion(found, atoms)[0], abs=1e-6)
        np.testing.assert_allclose(whole.forces.ravel(), part.forces.ravel() + repulsion(found, atoms)[1:-6], atol=1e-5)


def test_a_fit_with_repulsion_predicts_the_data(fitted, silicon):
    found = fit(silicon, FitSettings(level=8, iterations=6, threads=1, guard="zbl", zbl_reach=1.2))

    def rmse(potential):
        return np.sqrt(np.mean([(potential.evaluate(atoms).forces - labels(atoms).forces) ** 2 for atoms in silicon]))

    assert rmse(found) < 1.3 * rmse(fitted)  # two local minima of about the same depth
    (approach,) = approaches(found, silicon)
    assert approach.attractive is None


def test_a_fit_with_a_blend_is_the_fit_without(fitted, silicon):
    found = fit(silicon, FitSettings(level=8, iterations=6, threads=1, guard="blend"))
    np.testing.assert_array_equal(found.parameters, fitted.parameters)
    assert not found.guard.acts_in_training_range


def test_a_fit_keeps_the_guard_of_its_initial_potential_unless_the_data_come_closer(fitted, silicon):
    initial = guarded(fitted, silicon)
    kept = fit(silicon, FitSettings(iterations=0, threads=1), initial=initial)
    np.testing.assert_array_equal(kept.guard.fade, initial.guard.fade)
    initial.guard = Guard(initial.guard.repulsion, initial.guard.fade + 0.1)
    with pytest.raises(DataError, match=r"the data hold Si and Si at 1\.84 Å.*choose a new guard"):
        fit(silicon, FitSettings(iterations=0, threads=1), initial=initial)
    with pytest.raises(Error, match="does not pass into the new form"):
        fit(silicon, FitSettings(level=4, iterations=0, threads=1), initial=initial)
    chosen = fit(silicon, FitSettings(iterations=0, threads=1, guard="blend"), initial=initial)
    assert chosen.guard.fade[0, 0, 1] == 1.84


def test_a_learning_loop_adapts_the_guard_to_its_data(mtp, tmp_path):
    path = settings(tmp_path, SILICON % TERSOFF, ("level = 4", 'level = 4\nguard = "blend"'), ("[600]", "[1200]"))
    learned(mtp(tmp_path, "learn", path))
    shortest = []
    for file in sorted((tmp_path / "run").glob("round_*.almtp")):
        potential = Potential.load(file)
        shortest.append(potential.guard.fade[0, 0, 1])
    assert len(shortest) > 1
    assert shortest == sorted(shortest, reverse=True)
    assert shortest[-1] < shortest[0]
    data = Dataset(tmp_path / "run" / "dataset.db").labelled()
    assert shortest[-1] == shortest_distances(potential, data)[0, 0]


# ---- the command


def test_the_command_guards_a_potential(mtp, fitted, silicon, tmp_path):
    data = ROOT / "tests" / "data" / "silicon_dft.extxyz"
    fitted.save(tmp_path / "si.mtp")
    done = mtp(tmp_path, "guard", "si.mtp", data, "-o", "guarded.mtp", "--json", "guard.json")
    assert done.returncode == 0, done.stderr
    assert "1.84 to 1.288" in done.stdout
    assert "repel each other down to 0.1 Å" in done.stdout
    np.testing.assert_array_equal(Potential.load(tmp_path / "guarded.mtp").guard.fade, [[[0.7 * 1.84, 1.84]]])
    shown = mtp(tmp_path, "info", "guarded.mtp")
    assert "'zbl': [1.288, 1.84]" in shown.stdout


def test_the_command_fits_with_a_guard(mtp, tmp_path):
    data = ROOT / "tests" / "data" / "silicon_dft.extxyz"
    options = ("--level", 4, "--iterations", 1, "--threads", 1)
    for option, inner, outer in (("--guard", 1.288, 1.84), ("--zbl", 1.288, 2.22)):
        done = mtp(tmp_path, "fit", data, *options, option, "-o", "z.mtp")
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(Potential.load(tmp_path / "z.mtp").guard.repulsion[0, 0], (inner, outer), rtol=1e-12)
