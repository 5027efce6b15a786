# SPDX-License-Identifier: BSD-3-Clause
"""The .cfg format: what is written reads back, and nothing malformed is taken for data."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mtp.cfg import read_cfg, write_cfg
from mtp.errors import DataError, Error, FormatError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared reference data are not on this machine")
CFG_FILES = sorted(SHARED.rglob("*.cfg"))

BLOCK = """BEGIN_CFG
 Size
    2
 Supercell
    4.0 0.0 0.0
    0.0 4.0 0.0
    0.0 0.0 4.0
 AtomData:  id type cartes_x cartes_y cartes_z fx fy fz
    1 0 0.0 0.0 0.0 0.1 0.2 0.3
    2 1 2.0 2.0 2.0 -0.1 -0.2 -0.3
 Energy
    -1.5
 PlusStress:  xx yy zz yz xz xy
    64.0 128.0 192.0 256.0 320.0 384.0
 Feature   EDITED_BY\tA. Person  of here
 Feature   note\tline 1
 Feature   note\tline 2
 Feature   MV_grade\t2.5
END_CFG
"""


def read_text(folder, text, species=None):
    path = folder / "a.cfg"
    path.write_text(text)
    return read_cfg(path, species)


def same(a: Atoms, b: Atoms, stress_tolerance: float = 0.0) -> None:
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)
    np.testing.assert_array_equal(a.cell.array, b.cell.array)
    np.testing.assert_array_equal(a.pbc, b.pbc)
    assert a.info == b.info
    assert a.calc.results.keys() == b.calc.results.keys()
    for name, value in a.calc.results.items():
        tolerance = stress_tolerance if name == "stress" else 0.0
        np.testing.assert_allclose(value, b.calc.results[name], rtol=tolerance, atol=0, err_msg=name)


def test_a_block_is_read_with_ase_signs_units_and_order(tmp_path):
    (atoms,) = read_text(tmp_path, BLOCK, ["Si", "O"])
    assert atoms.get_chemical_symbols() == ["Si", "O"]
    assert atoms.arrays["type"].tolist() == [0, 1]
    assert atoms.pbc.all()
    assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True) == -1.5
    np.testing.assert_array_equal(atoms.get_forces()[1], [-0.1, -0.2, -0.3])
    np.testing.assert_allclose(atoms.get_stress(), [-1, -2, -3, -4, -5, -6], rtol=1e-15)
    assert atoms.info == {"EDITED_BY": "A. Person  of here", "note": "line 1\nline 2", "MV_grade": 2.5}


def test_without_species_the_elements_stay_open(tmp_path):
    (atoms,) = read_text(tmp_path, BLOCK)
    assert atoms.numbers.tolist() == [0, 0]


def test_virial_is_plus_stress_per_volume(tmp_path):
    text = BLOCK.replace("PlusStress", "Virial").replace("64.0 128.0 192.0 256.0 320.0 384.0", "1 2 3 4 5 6")
    np.testing.assert_array_equal(read_text(tmp_path, text)[0].get_stress(), [-1, -2, -3, -4, -5, -6])


def test_columns_go_by_their_names_and_atoms_by_their_ids(tmp_path):
    text = BLOCK.replace("id type cartes_x cartes_y cartes_z fx fy fz", "type id direct_z direct_y direct_x charge")
    text = text.replace("1 0 0.0 0.0 0.0 0.1 0.2 0.3", "1 2 0.75 0.5 0.25 -1")
    text = text.replace("2 1 2.0 2.0 2.0 -0.1 -0.2 -0.3", "0 1 0.0 0.0 0.0 1")
    (atoms,) = read_text(tmp_path, text)
    np.testing.assert_array_equal(atoms.positions, [[0, 0, 0], [1, 2, 3]])
    assert atoms.arrays["type"].tolist() == [0, 1]
    assert atoms.get_initial_charges().tolist() == [1, -1]
    assert "forces" not in atoms.calc.results


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_fewer_lattice_vectors_mean_fewer_periodic_directions(tmp_path, rows):
    lines = BLOCK.split("\n")
    del lines[4 + rows : 7]
    text = "\n".join(lines) if rows else "\n".join(lines).replace(" Supercell\n", "")
    (atoms,) = read_text(tmp_path, text)
    assert atoms.pbc.tolist() == [k < rows for k in range(3)]
    assert "stress" not in atoms.calc.results


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("BEGIN_CFG", "BEGIN", 1, "BEGIN_CFG"),
        ("    2\n Super", "    two\n Super", 3, "'two'"),
        ("    2\n Super", "    2.5\n Super", 3, "integer"),
        ("    2\n Super", "    0\n Super", 3, "positive"),
        ("    2\n Super", "    3\n Super", 11, "expected 8 numbers"),
        ("    2\n Super", "    1\n Super", 10, "not a section"),
        ("4.0 0.0 0.0", "4.0 0.0", 5, "expected 3 numbers"),
        ("0.0 4.0 0.0", "8.0 0.0 0.0", 7, "linearly dependent"),
        ("fx fy fz", "fx fy", 8, "all or none"),
        ("fx fy fz", "fx fy magnetism", 8, "magnetism"),
        ("fx fy fz", "fx fy fy", 8, "twice"),
        ("id type", "id kind", 8, "kind"),
        ("2 1 2.0 2.0", "2 1 2.0", 10, "expected 8 numbers"),
        ("2 1 2.0 2.0", "2 1 nan 2.0", 10, "'nan'"),
        ("2 1 2.0 2.0", "2 1 1e999 2.0", 10, "'1e999'"),
        ("2 1 2.0 2.0", "2 1 1_0 2.0", 10, "'1_0'"),
        ("2 1 2.0 2.0", "2 -1 2.0 2.0", 10, "type"),
        ("2 1 2.0 2.0", "2 1.5 2.0 2.0", 10, "integer"),
        ("2 1 2.0 2.0", "3 1 2.0 2.0", 10, "ids"),
        ("2 1 2.0 2.0", "1 1 2.0 2.0", 10, "ids"),
        ("-1.5", "inf", 12, "'inf'"),
        ("-1.5", "", 12, "expected 1 numbers"),
        ("xx yy zz yz xz xy", "xx yy zz", 13, "components"),
        ("64.0 128.0", "64.0", 14, "expected 6 numbers"),
        (" Energy\n", " Enthalpy\n", 11, "Enthalpy"),
        (" Feature   MV", " Energy\n 1\n Feature   MV", 18, "second Energy"),
        ("MV_grade\t2.5", "MV_grade\thigh", 18, "'high'"),
        ("END_CFG\n", "", 19, "ends within"),
        ("END_CFG", "BEGIN_CFG", 19, "not a section"),
        ("END_CFG\n", "END_CFG\nmore\n", 20, "BEGIN_CFG"),
    ],
)
def test_malformed_text_is_refused_at_its_line(tmp_path, old, new, line, says):
    assert BLOCK.count(old) == 1
    with pytest.raises(FormatError, match=says) as caught:
        read_text(tmp_path, BLOCK.replace(old, new))
    assert str(caught.value).startswith(f"{tmp_path / 'a.cfg'}:{line}: ")


def test_every_truncation_is_refused(tmp_path):
    for end in range(len(BLOCK) - len("END_CFG\n") + 1):
        with pytest.raises(FormatError):
            read_text(tmp_path, BLOCK[:end])


def test_a_type_beyond_the_species_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r":10: type 1 .* 1 species are known: Si"):
        read_text(tmp_path, BLOCK, ["Si"])


def test_bytes_and_absent_files_are_refused(tmp_path):
    (tmp_path / "b.cfg").write_bytes(b"BEGIN_CFG\n\xff\xfe")
    with pytest.raises(FormatError, match=":2: not text"):
        read_cfg(tmp_path / "b.cfg")
    with pytest.raises(Error, match="No such file"):
        read_cfg(tmp_path / "absent.cfg")


def labelled_configurations() -> list[Atoms]:
    random = np.random.default_rng(1)
    configurations = [bulk("NaCl", "rocksalt", a=5.6), molecule("H2O"), bulk("Cu").repeat((1, 1, 3))]
    configurations[2].pbc = True, False, True
    for atoms in configurations:
        atoms.positions += random.normal(size=(len(atoms), 3))
        atoms.new_array("nbh_grades", random.random(len(atoms)))
        atoms.set_initial_charges(random.normal(size=len(atoms)))
        atoms.info = {"note": "two\nlines", "MV_grade": random.random() * 1e6, "EFS_by": "hand"}
        energy = random.normal() * 1e4
        results = {"energy": energy, "free_energy": energy, "forces": random.normal(size=(len(atoms), 3))}
        results |= {"energies": random.normal(size=len(atoms))}
        if atoms.pbc.all():
            results["stress"] = random.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, **results)
    return configurations


def test_lossless_writing_loses_nothing(tmp_path):
    species = ["Na", "Cl", "H", "O", "Cu"]
    path = tmp_path / "a.cfg"
    write_cfg(path, labelled_configurations(), species, lossless=True)
    once = read_cfg(path, species)
    write_cfg(path, once, lossless=True)
    for original, first, second in zip(labelled_configurations(), once, read_cfg(path, species), strict=True):
        original.new_array("type", np.array([species.index(symbol) for symbol in original.symbols]))
        if original.pbc.sum() == 2:  # the periodic directions come first in .cfg
            original.cell = [original.cell[0], original.cell[2], np.zeros(3)]
            original.pbc = True, True, False
        # σ is read as P/V and written as V·σ: two roundings
        same(original, first, stress_tolerance=4e-16)
        same(first, second, stress_tolerance=4e-16)


def test_writing_replaces_a_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.cfg"
    path.write_text(BLOCK)
    with pytest.raises(DataError, match=r"configuration 2.*no such species: Cu"):
        write_cfg(path, [bulk("Si"), bulk("Cu")], ["Si"])
    assert path.read_text() == BLOCK
    assert [p.name for p in tmp_path.iterdir()] == ["a.cfg"]


def test_atoms_without_types_are_not_written(tmp_path):
    with pytest.raises(DataError, match="--species"):
        write_cfg(tmp_path / "a.cfg", [bulk("Si")])


def test_periodicity_needs_a_lattice_vector(tmp_path):
    with pytest.raises(DataError, match="configuration 1: periodic along a lattice vector that is missing"):
        write_cfg(tmp_path / "a.cfg", [Atoms("Si", cell=[5, 5, 0], pbc=True)], ["Si"])


@needs_shared
@pytest.mark.parametrize("path", CFG_FILES, ids=lambda path: path.stem)
def test_files_of_mlip_survive_a_round_trip(tmp_path, path):
    configurations = read_cfg(path)
    assert len(configurations) == path.read_text().count("BEGIN_CFG")
    copy = tmp_path / "copy.cfg"
    write_cfg(copy, configurations, lossless=True)
    for original, read in zip(configurations, read_cfg(copy), strict=True):
        same(original, read, stress_tolerance=4e-16)
    write_cfg(copy, configurations)
    for original, read in zip(configurations, read_cfg(copy), strict=True):
        np.testing.assert_allclose(original.positions, read.positions, rtol=0, atol=5e-7)
