# SPDX-License-Identifier: BSD-3-Clause
"""Nonsense is told from what is only strange: a minority of outliers is found, and data of every kind pass."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mtp.configurations import Labels, labels, read, with_labels
from mtp.errors import LabellingError
from mtp.label_checks import Prediction, check_numbers, doubt_energies, doubt_forces

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
    energy = labels(large).energy
    assert potential.grade(large).maximum < 5
    assert witness.doubt(large, energy, 0.2) is None
    assert "lies +1.56 eV per atom from the current potential's prediction" in witness.doubt(large, energy + 100, 0.2)
    # what extrapolates strongly may have any credible energy
    strange = computed(random_atoms(["Cu"], 30, (4, 4, 4)))
    grade = potential.grade(strange).maximum
    assert grade > 20
    assert witness.doubt(strange, labels(strange).energy + 0.15 * grade * len(strange), 0.2) is None
    # and a potential that has seen little, or does not know its grades, has no say
    assert Prediction(potential, known[:5]).doubt(large, 1e9, 0.2) is None
    assert Prediction(random_potential(species=["Cu"]), known).doubt(large, 1e9, 0.2) is None
