# SPDX-License-Identifier: BSD-3-Clause
"""Nonsense is told from what is only strange: a minority of outliers is found, and data of every kind pass."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from mtp.configurations import Labels, labels, read, with_labels
from mtp.errors import LabellingError
from mtp.label_checks import Prediction, check_numbers, doubt_energies, doubt_forces
from mtp.label_work import doubt_work

BOUND = 5.0  # eV per atom
DATA = Path(__file__).parent / "data" / "silicon_dft.extxyz"
ENERGIES = {"Mo": -10.9, "Si": -5.4}


def alloy(seed: int, off: float = 0.0) -> Atoms:
    """Up to 20 atoms of Mo and Si, whose energies scatter by 0.3 eV per atom; off: what the labeller adds, eV."""
    rng = np.random.default_rng(seed)
    symbols = rng.choice(["Mo", "Si"], size=rng.integers(2, 20)).tolist()
    energy = sum(ENERGIES[symbol] + rng.normal(0, 0.3) for symbol in symbols)
    return labelled(Atoms(symbols, rng.uniform(0, 9, (len(symbols), 3))), energy + off)


def labelled(atoms: Atoms, energy: float) -> Atoms:
    return with_labels(atoms, Labels(energy, np.zeros((len(atoms), 3)), None))


@pytest.mark.parametrize("place", [0, 7, 19])
def test_energies_off_by_100_eV_are_found_wherever_they_stand(place):
    data = [alloy(seed) for seed in range(20)]
    assert doubt_energies(data, BOUND) == {}
    data[place] = alloy(place, off=100.0)
    (found, message), *others = doubt_energies(data, BOUND).items()
    assert (found, others) == (place, [])
    off = 100 / len(data[place])
    assert float(message.split()[3]) == pytest.approx(off, abs=1)  # what the others scatter by, thrice
    # a third of all is still a minority
    many = [alloy(seed, off=-100.0 * (seed % 3 == 0)) for seed in range(21)]
    assert set(doubt_energies(many, BOUND)) == {seed for seed in range(21) if seed % 3 == 0}


def test_the_zero_of_each_element_s_energy_does_not_matter():
    data = [alloy(seed, off=100.0 * (seed == 3)) for seed in range(20)]
    shifted = [
        labelled(
            atoms, labels(atoms).energy + 1e4 * (atoms.symbols == "Mo").sum() - 300 * (atoms.symbols == "Si").sum()
        )
        for atoms in data
    ]
    assert set(doubt_energies(data, BOUND)) == set(doubt_energies(shifted, BOUND)) == {3}


def test_two_configurations_cannot_outvote_each_other():
    energies = (-5.0, 95.0, -5.1, -5.2)
    crystals = [labelled(bulk("Si"), 2 * energy) for energy in energies]
    for n in range(4):
        assert doubt_energies(crystals[:n], BOUND) == {}
    assert set(doubt_energies(crystals, BOUND)) == {1}
    # an element that just one configuration has is not judged by the others'
    assert (
        doubt_energies([*crystals[2:], *crystals[2:], labelled(bulk("SiC", "zincblende", a=4.36), 500.0)], BOUND) == {}
    )


def test_first_data_of_every_kind_pass():
    assert doubt_energies(read(DATA), BOUND) == {}
    rng = np.random.default_rng(2)
    crystals = [labelled(bulk("Si", cubic=True), 8 * (-5.4 + 0.05 * rng.normal())) for _ in range(6)]
    atom = labelled(Atoms("Si"), -0.8)  # free atoms lie 4.6 eV above the crystal
    surface = labelled(bulk("Si", cubic=True), 8 * -4.5)
    assert doubt_energies([*crystals, atom, surface], BOUND) == {}
    # where energies scatter widely, as in a dissociation, the bound gives way
    stretched = [labelled(Atoms("CH4", rng.normal(size=(5, 3))), -24 + 20 * k / 7) for k in range(8)]
    assert doubt_energies([*stretched, labelled(Atoms("CH4", rng.normal(size=(5, 3))), 15.0)], 1.0) == {}


def test_forces_must_sum_to_nearly_zero():
    rng = np.random.default_rng(1)
    forces = rng.normal(size=(50, 3))
    balanced = forces - forces.mean(axis=0)
    assert doubt_forces(balanced, 0.1) is None
    assert doubt_forces(balanced + 0.05, 0.1) is None  # a coarse grid
    assert "0.87 per atom" in doubt_forces(balanced + 0.5, 0.1)
    assert doubt_forces(balanced + 0.5, 1.0) is None
    assert doubt_forces(np.zeros((1, 3)), 0.1) is None
    assert doubt_forces(np.full((1, 3), 0.2), 0.1) is not None  # a single atom feels nothing


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Labels(None, np.zeros((2, 3)), None), "energy: expected numbers"),
        (Labels(np.nan, np.zeros((2, 3)), None), "energy: not finite"),
        (Labels(0.0, np.zeros((3, 3)), None), r"forces: expected numbers of shape \(2, 3\)"),
        (Labels(0.0, np.full((2, 3), np.inf), None), "forces: not finite"),
        (Labels(0.0, np.full((2, 3), 1e4), None), "a force of 1.73e"),
        (Labels(0.0, np.zeros((2, 3)), np.zeros((3, 3))), "stress: expected numbers"),
    ],
)
def test_missing_and_impossible_numbers_are_nonsense(found, says):
    with pytest.raises(LabellingError, match=says) as caught:
        check_numbers(found, 2)
    assert caught.value.reason == "nonsense"


BOHR, HARTREE = 0.529177, 27.2114  # Å, eV


def off(atoms: Atoms, energy: float = 0.0, forces: float = 1.0) -> Atoms:
    """The same with labels that are off: eV to be added, and a factor."""
    known = labels(atoms)
    return with_labels(atoms, Labels(known.energy + energy, known.forces * forces, known.stress))


@pytest.fixture
def walk(random_potential, random_atoms):
    """Makes n labelled configurations of 64 atoms, rattled and strained as in molecular dynamics."""
    potential = random_potential(species=["Cu"])

    def make(n: int, pbc: bool = True, stress: bool = True) -> list[Atoms]:
        found, rng = [], np.random.default_rng(4)
        first = random_atoms(["Cu"], 3, (4, 4, 4), pbc=pbc)
        for _ in range(n):
            atoms = first.copy()
            strain = rng.normal(0, 0.005, (3, 3)) if stress and pbc else np.zeros((3, 3))
            atoms.set_cell(first.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            atoms.positions += rng.normal(0, 0.04, (64, 3)) + rng.uniform(-3, 3, 3)
            result = potential.evaluate(atoms)
            atoms.wrap()
            found.append(with_labels(atoms, Labels(result.energy, result.forces, result.stress if stress else None)))
        return found

    return make


@pytest.mark.parametrize("pbc", [True, False], ids=["crystal", "cluster"])
def test_energies_differ_by_the_work_of_the_forces(walk, pbc):
    honest = walk(6, pbc=pbc)
    everyone = range(len(honest))
    assert doubt_work(honest, everyone, 0.02) == {}
    for k in everyone:
        lying = [off(atoms, 100.0 * (k == n)) for n, atoms in enumerate(honest)]
        (found, message), *others = doubt_work(lying, everyone, 0.02).items()
        assert (found, others) == (k, [])
        assert "so with 5 of the 5 nearest" in message
        assert float(message.split()[3]) == pytest.approx(100 / 64, abs=0.3)  # what these differ by
        assert doubt_work(lying, [], 0.02) == {}
        assert doubt_work(lying, everyone, 5.0) == {}


@pytest.mark.parametrize("factor", [BOHR / HARTREE, HARTREE / BOHR, -1.0], ids=["too small", "too large", "gradients"])
def test_forces_in_other_units_contradict_energies(walk, factor):
    honest = walk(8)
    everyone = range(len(honest))
    doubts = doubt_work([off(atoms, forces=factor) for atoms in honest], everyone, 0.02)
    assert set(doubts) == set(everyone)
    said = float(doubts[0].split()[3])
    assert said == pytest.approx(1 / factor, rel=0.2)  # the trapezoidal rule's error
    # one among others may hide where its energy is right, but misleads nobody about these
    one = [off(atoms, forces=factor if n == 2 else 1.0) for n, atoms in enumerate(honest)]
    assert set(doubt_work(one, everyone, 0.02)) <= {2}


@pytest.mark.parametrize("gigapascal", [-5.0, 0.0, 5.0])
def test_stresses_of_coarse_plane_waves_contradict_no_energy(gigapascal):
    """Pulay's stress, in crystals strained by up to 5 %."""
    data = []
    for strain in np.linspace(-0.05, 0.05, 6):
        atoms = bulk("Si")
        volume, modulus = atoms.get_volume(), 100 * units.GPa
        atoms.set_cell((1 + strain) * atoms.cell.array, scale_atoms=True)
        pull = 3 * modulus * strain / (1 + strain) ** 2 + gigapascal * units.GPa
        stress = np.array([pull, pull, pull, 0, 0, 0])
        data.append(with_labels(atoms, Labels(4.5 * modulus * volume * strain**2, np.zeros((2, 3)), stress)))
    assert doubt_work(data, range(6), 0.02) == {}
    data[2] = off(data[2], 1.0)
    assert set(doubt_work(data, range(6), 0.02)) == {2}


def test_a_bond_that_breaks_contradicts_nothing():
    """Hydrogen after Morse: between both ends the force rises and falls, of which they know nothing."""
    depth, width, length = 4.75, 1.94, 0.74  # eV, 1/Å, Å

    def molecule(bond: float) -> Atoms:
        fall = np.exp(-width * (bond - length))
        force = -2 * depth * width * fall * (1 - fall)
        atoms = Atoms("H2", [[0, 0, 0], [bond, 0, 0]])
        return with_labels(atoms, Labels(depth * (1 - fall) ** 2, np.array([[-force, 0, 0], [force, 0, 0]]), None))

    for bonds in ((0.74, 1.64), (0.6, 1.4), (0.7, 0.74, 0.8, 1.1, 1.5), np.linspace(0.6, 2, 8)):
        data = [molecule(bond) for bond in bonds]
        assert doubt_work(data, range(len(data)), 0.02) == {}
        data[0] = off(data[0], 100.0)
        assert 0 in doubt_work(data, range(len(data)), 0.02)


def test_few_pairs_say_nothing_about_units(walk):
    """Two coefficients go through any two pairs: of three, of which one contradicts, the others are not set aside."""
    lying = []
    for k, atoms in enumerate(walk(6)):
        other = atoms.copy()
        other.numbers[: k // 2] = 47  # three groups of two
        lying.append(off(with_labels(other, labels(atoms)), 100.0 * (k in (0, 2))))
    assert set(doubt_work(lying, range(6), 0.02)) == {0, 1, 2, 3}


def test_what_is_not_near_or_not_known_contradicts_nothing(walk):
    first, second, third = walk(3)
    far = second.copy()
    far.positions[7] += 0.6
    far = with_labels(far, labels(off(second, 100.0)))
    stretched = second.copy()
    stretched.set_cell(1.2 * second.cell.array, scale_atoms=True)
    stretched = with_labels(stretched, labels(off(second, 100.0)))
    unstressed = with_labels(second, Labels(labels(second).energy + 100, labels(second).forces, None))
    exchanged = off(second, 100.0)[::-1]
    exchanged = with_labels(exchanged, Labels(0.0, labels(second).forces[::-1], labels(second).stress))
    for other in (far, stretched, unstressed, exchanged, third[:-1]):
        if other.calc is None:
            other = with_labels(other, Labels(0.0, np.zeros((63, 3)), None))
        assert doubt_work([first, other], range(2), 0.02) == {}
    # in cells that are the same no stress is needed
    same = walk(2, stress=False)
    assert set(doubt_work([same[0], off(same[1], 100.0)], range(2), 0.02)) == {0, 1}


def test_no_label_of_a_real_engine_contradicts_those_near_it(shared_data):
    files = (DATA, *(shared_data / "mlearn" / f"{name}_train.extxyz" for name in ("Mo", "Si")))
    for data in map(read, files):  # at room temperature and above melting, strained, with vacancies
        assert doubt_work(data, range(len(data)), 0.002) == {}


def test_the_current_potential_doubts_100_eV_in_many_atoms_and_nothing_that_it_does_not_know(
    random_potential, random_atoms
):
    potential = random_potential(species=["Cu"])
    noise = np.random.default_rng(3)

    def computed(atoms: Atoms) -> Atoms:
        result = potential.evaluate(atoms)
        return with_labels(atoms, Labels(result.energy + 1e-3 * len(atoms) * noise.normal(), result.forces, None))

    known = [computed(random_atoms(["Cu"], seed)) for seed in range(20)]
    potential.select(known, "neighbourhood")
    witness = Prediction(potential, known)
    large = known[3].repeat(2)
    large.rattle(0.02, seed=1)
    large = computed(large)
    assert potential.grade(large).maximum < 5
    assert witness.doubt(large, 0.2) is None
    assert "lies +1.56 eV per atom from the current potential's prediction" in witness.doubt(off(large, 100.0), 0.2)
    # what extrapolates may have any credible energy, and what has unexpected forces as well
    strange = computed(random_atoms(["Cu"], 30, (4, 4, 4)))
    grades = potential.grade(strange).per_atom
    assert grades.max() > 20
    credible = 0.15 * np.maximum(grades, 1).sum()
    assert witness.doubt(off(strange, credible), 0.2) is None
    assert witness.doubt(off(strange, 2 * credible), 0.2) is not None
    assert witness.doubt(off(strange, 2 * credible, 3.0), 0.2) is None
    # and a potential that has seen little, or does not know its grades, has no say
    assert Prediction(potential, known[:2]).doubt(off(large, 1e9), 0.2) is None
    assert Prediction(random_potential(species=["Cu"]), known).doubt(off(large, 1e9), 0.2) is None
