# SPDX-License-Identifier: BSD-3-Clause
"""The neighbour search finds what ASE's finds, in any cell; a batch of configurations is nothing but its members."""

import ase.neighborlist
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mtp.errors import DataError, LibraryError
from mtp.neighbours import BATCH, Batch, batches, neighbourhoods


def ours(atoms, cutoff):
    near = neighbourhoods(atoms, np.zeros(len(atoms)), cutoff)
    return near.centre, near.neighbour, near.vectors


def same_pairs(atoms, cutoff):
    """The same number of pairs, i and j alike, and vectors that differ by the rounding of coordinates of some 100 Å."""
    found, expected = ours(atoms, cutoff), ase.neighborlist.neighbor_list("ijD", atoms, cutoff)
    assert len(found[0]) == len(expected[0])
    ordered = []
    for i, j, vectors in (found, expected):
        rounded = np.round(vectors, 7) + 0.0  # so that rounding does not decide the order of lattice vectors
        order = np.lexsort((*rounded.T, j, i))
        ordered.append((i[order], j[order], vectors[order]))
    for part, reference in zip(*ordered, strict=True):
        np.testing.assert_allclose(part, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "pbc", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0), (0, 0, 0)]
)
def test_random_cells_have_the_pairs_that_ase_finds(pbc):
    rng = np.random.default_rng(sum(2**k * p for k, p in enumerate(pbc)))
    for _ in range(25):
        n = int(rng.integers(1, 40))
        cell = rng.normal(0, 1, (3, 3)) * rng.uniform(2, 9, (3, 1))
        if abs(np.linalg.det(cell)) < 5:
            continue
        atoms = Atoms(numbers=[29] * n, cell=cell, pbc=pbc)
        atoms.positions = rng.normal(0, 8, (n, 3)) + rng.choice([0, 40], 3)  # many outside the cell
        same_pairs(atoms, float(rng.uniform(1, 7)))


def test_cells_of_every_size_have_the_pairs_that_ase_finds():
    copper = bulk("Cu", a=3.61)
    for repeat in (1, 2, 3, (1, 1, 8), (9, 2, 1)):
        same_pairs(copper.repeat(repeat), 5.0)
    same_pairs(copper, 12.0)  # six cells away


def test_a_left_handed_cell_has_the_same_pairs():
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    same_pairs(atoms, 5.0)


def test_far_groups_need_no_memory_for_the_space_between():
    pair = molecule("O2")
    far = pair.copy()
    far.positions += 1e7
    i, j, _ = ours(pair + far, 3.0)
    assert sorted(zip(i, j, strict=True)) == [(0, 1), (1, 0), (2, 3), (3, 2)]


def test_directions_that_are_not_periodic_may_have_any_vector():
    atoms = molecule("C6H6")
    expected = ours(atoms, 3.0)
    for row in ((0, 0, 0), (0, 0, 1e-9), (5, 5, 5)):
        atoms.set_cell([(40, 0, 0), (0, 40, 0), row])
        atoms.pbc = (True, True, False)
        found = ours(atoms, 3.0)
        assert len(found[0]) == len(expected[0])


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ((3, 0, 3), "no cell vector"),
        (((3, 0, 0), (0, 3, 0), (3, 3, 0)), "no volume"),
        ((1e-3, 1e-1, 1e-1), "periodic images"),
    ],
)
def test_cells_that_are_mistakes_are_refused(cell, problem):
    atoms = Atoms("Cu", cell=cell, pbc=True)
    with pytest.raises(LibraryError, match=problem):
        ours(atoms, 5.0)
    atoms.info["source"] = "data.extxyz#7"
    with pytest.raises(DataError, match=rf"^data.extxyz#7: .*{problem}"):
        ours(atoms, 5.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_a_cutoff_that_is_none_is_refused(cutoff):
    with pytest.raises(LibraryError, match="cutoff"):
        ours(bulk("Cu"), cutoff)


def test_the_configuration_that_is_not_finite_is_named():
    good, bad = bulk("Cu"), bulk("Cu")
    bad.positions[0, 0] = np.inf
    bad.info["source"] = "data.extxyz#2"
    with pytest.raises(DataError, match=r"^data.extxyz#2: .*NaN or infinity"):
        Batch.of([good, bad], [np.zeros(1), np.zeros(1)])


def test_batches_keep_the_order_and_are_full():
    sizes = [100] * 50 + [3 * BATCH] + [1] * 5
    cut = list(batches(Atoms(numbers=[29] * n) for n in sizes))
    assert [len(atoms) for batch in cut for atoms in batch] == sizes
    assert len(cut) == 5  # 20, 20, 10, the large one, the small ones
    assert list(batches([])) == []


def test_a_batch_gives_bit_by_bit_what_its_configurations_give(random_potential, random_atoms):
    potential = random_potential(("Cu", "O"), level=10)
    configurations = [random_atoms(("Cu", "O"), seed=k, pbc=k % 3 > 0) for k in range(12)]
    configurations[5:5] = [Atoms(), Atoms("O", cell=(40, 40, 40), pbc=True)]
    together = potential.evaluate(iter(configurations))
    assert len(together) == len(configurations)
    for atoms, result in zip(configurations, together, strict=True):
        alone = potential.evaluate(atoms)
        for name in ("energy", "energies", "forces", "virial"):
            assert np.array_equal(getattr(result, name), getattr(alone, name)), name
        assert (result.stress is None) == (alone.stress is None)
        if alone.stress is not None:
            np.testing.assert_allclose(result.stress, alone.stress, rtol=1e-14)  # determinants of stacked cells


def test_the_one_of_a_batch_that_cannot_be_evaluated_is_named(random_potential, random_atoms):
    potential = random_potential(("Cu",))
    configurations = [random_atoms(("Cu",), seed=k) for k in range(4)]
    for number, atoms in enumerate(configurations, start=1):
        atoms.info["source"] = f"data.extxyz#{number}"
    configurations[2].positions[5] = configurations[2].positions[1]
    with pytest.raises(DataError, match=r"^data.extxyz#3: atom [15]: two atoms"):
        potential.evaluate(configurations)
