# SPDX-License-Identifier: BSD-3-Clause
"""Configurations from any file carry checked labels, types and a name for messages."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mtp.configurations import Labels, check_distances, labels, read, species_of, types, with_labels, write
from mtp.errors import DataError, Error, FormatError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared reference data are not on this machine")


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    stress = np.arange(6) * 0.01
    return with_labels(atoms, Labels(-1.25, np.arange(12).reshape(4, 3) * 0.1, stress), origin="made here")


@pytest.mark.parametrize("name", ["a.cfg", "a.extxyz", "a.xyz", "a.extxyz.gz", "a.traj", "a.json", "a.db"])
def test_what_is_written_reads_back(tmp_path, name):
    path = tmp_path / name
    write(path, [copper(), copper().repeat((2, 1, 1)), copper()][::2], ["Cu"])
    configurations = read(path, ["Cu"])
    assert [atoms.info["source"] for atoms in configurations] == [f"{path}#1", f"{path}#2"]
    for atoms in configurations:
        found, expected = labels(atoms, ("energy", "forces", "stress")), labels(copper())
        assert found.energy == pytest.approx(expected.energy, abs=1e-6)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-6)
        np.testing.assert_allclose(found.stress, expected.stress, atol=1e-6)
        np.testing.assert_allclose(atoms.positions, copper().positions, atol=1e-6)
        assert atoms.get_chemical_symbols() == ["Cu"] * 4
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_types_without_elements_survive_extended_xyz(tmp_path):
    atoms = Atoms("X2", positions=[[0, 0, 0], [0, 0, 2]])
    atoms.new_array("type", np.array([1, 0]))
    write(tmp_path / "a.extxyz", [atoms])
    (found,) = read(tmp_path / "a.extxyz")
    assert types(found, None).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.extxyz", ""),
        ("a.extxyz", "two\n\n"),
        ("a.extxyz", '2\nLattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'),
        ("a.extxyz", "1\nProperties=species:S:1:pos:R:3\nCu 0 zero 0\n"),
        ("a.cfg", ""),
        ("a.nonsense", "what is this"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:")


def test_an_absent_file_or_format_is_named(tmp_path):
    with pytest.raises(Error, match=r"absent\.extxyz: cannot be read"):
        read(tmp_path / "absent.extxyz")
    with pytest.raises(Error, match=r"a\.nonsense: ASE cannot write it"):
        write(tmp_path / "a.nonsense", [copper()])
    with pytest.raises(Error, match="cannot be written"):
        write(tmp_path / "absent" / "a.extxyz", [copper()])
    assert not list(tmp_path.iterdir())


def test_the_energy_is_the_force_consistent_one():
    atoms = copper()
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, free_energy=2.0, forces=np.zeros((4, 3)))
    assert labels(atoms).energy == 2.0
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((4, 3)))
    assert labels(atoms).energy == 1.0


def test_labels_that_cannot_be_used_are_refused_by_name():
    atoms = copper()
    atoms.info["source"] = "some.extxyz#7"
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    assert labels(atoms, need=["energy"]).forces is None
    with pytest.raises(DataError, match=r"some.extxyz#7: no forces and no stress"):
        labels(atoms, need=["energy", "forces", "stress"])
    atoms.calc = SinglePointCalculator(atoms, energy=np.nan, forces=np.zeros((4, 3)))
    with pytest.raises(DataError, match=r"some.extxyz#7: energy is not finite"):
        labels(atoms)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"forces has shape \(3, 3\), expected \(4, 3\)"):
        labels(atoms)


def test_labels_are_never_calculated_nor_taken_from_other_positions():
    atoms = bulk("Cu")
    atoms.calc = EMT()
    with pytest.raises(DataError, match="no energy and no forces"):
        labels(atoms)
    moved = copper()
    moved.positions[0, 0] += 0.1
    with pytest.raises(DataError, match="no energy and no forces"):
        labels(moved)


def test_species_are_listed_by_atomic_number():
    assert species_of([bulk("NaCl", "rocksalt", a=5.6), bulk("Si"), Atoms("H")]) == ["H", "Na", "Si", "Cl"]
    with pytest.raises(DataError, match="--species"):
        species_of([Atoms("X")])


def test_types_follow_the_potential():
    atoms = Atoms("OSiO")
    assert types(atoms, ["Si", "O"]).tolist() == [1, 0, 1]
    assert types(atoms, ["Si", "O"]).dtype == np.int32
    with pytest.raises(DataError, match="no such species: O; known are Si, C"):
        types(atoms, ["Si", "C"])
    with pytest.raises(DataError, match="names no elements"):
        types(atoms, None)
    atoms.new_array("type", np.array([2, 0, 1]))
    assert types(atoms, None).tolist() == [2, 0, 1]
    atoms.arrays["type"] = np.array([0.5, 0, 1])
    with pytest.raises(DataError, match="integer"):
        types(atoms, None)


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
def test_atoms_too_close_are_found_through_the_boundary(pbc):
    check_distances(bulk("Cu", cubic=True))
    atoms = Atoms("CuCuCu", [[0, 0, 0], [2, 2, 2], [3.95, 0, 0]], cell=[4, 4, 4], pbc=pbc)
    if atoms.pbc[0]:
        with pytest.raises(DataError, match=r"atoms \d and \d are 0.05 Å apart"):
            check_distances(atoms)
    else:
        check_distances(atoms)
    check_distances(Atoms("Cu2", [[0, 0, 0], [0, 0, 1]]))
    with pytest.raises(DataError, match=r"atoms 0 and 0 are 0.05 Å apart"):
        check_distances(Atoms("Cu", cell=[0.05, 4, 4], pbc=True))
    with pytest.raises(DataError, match="not finite"):
        check_distances(Atoms("Cu", [[0, 0, np.nan]]))


@needs_shared
def test_published_data_have_usable_labels():
    configurations = read(SHARED / "mlearn" / "Si_test.extxyz")
    assert len(configurations) == 25
    assert species_of(configurations) == ["Si"]
    for atoms in configurations:
        assert labels(atoms, ("energy", "forces", "stress")).forces.shape == (len(atoms), 3)
        check_distances(atoms, 1.5)
