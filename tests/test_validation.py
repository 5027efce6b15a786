# SPDX-License-Identifier: BSD-3-Clause
"""Properties of crystals obey the laws that tie them together, and are those of published potentials."""

import json
import re
import runpy
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from PIL import Image
from rich.console import Console

from mtp.calculator import MTP
from mtp.errors import Error
from mtp.phonons import phonons
from mtp.potential import Potential
from mtp.properties import (
    NotApplicable,
    Numerics,
    Solid,
    elastic,
    energy_volume,
    independent,
    lattice,
    migration,
    surface,
    terminations,
    vacancy,
)
from mtp.settings import checked, load
from mtp.validation import PROPERTIES, QUANTITIES, ValidationSettings, crystal_of, name_species, quantity, validate
from mtp.validation_output import draw, table

SILICON = Path(__file__).parents[1] / "lammps_inputs" / "silicon"
TOY = Numerics(defect_length=10, slab_thickness=10, phonon_length=10)  # 64 atoms


def calculators(file, species=None):
    potential = Potential.load(file)
    if species:
        potential.species = species
    return lambda: MTP(potential)


def solid(file, crystal, numerics=TOY, species=None) -> Solid:
    return Solid(crystal, calculators(file, species), numerics)


@pytest.fixture(scope="module")
def silicon():
    return solid(SILICON / "Si_liquid.mtp", bulk("Si", a=5.43, cubic=True))


@pytest.fixture(scope="module")
def copper():
    """Hexagonal, where positions relax under strain: from ASE's own effective-medium model."""
    return Solid(bulk("Cu", "hcp", a=2.55, c=4.16), EMT, TOY)


def voigt(bulk_modulus, c44):
    """An isotropic tensor, GPa."""
    c = np.diag([0.0] * 3 + [c44] * 3)
    c[:3, :3] = bulk_modulus - 2 / 3 * c44 + 2 * c44 * np.eye(3)
    return c


# ---- laws


def test_the_lattice_is_at_rest(silicon):
    atoms = silicon.calculated(silicon.cell)
    assert np.abs(atoms.get_stress()).max() / units.GPa < 1e-4  # what CELL_FMAX leaves
    primitive = Solid(bulk("Si", a=5.5), silicon.calculators, TOY)
    found, expected = lattice(primitive).values, lattice(silicon).values
    assert found == pytest.approx(expected, rel=1e-7)  # squares of what CELL_FMAX leaves; the constant is conventional


@pytest.mark.parametrize("crystal", ["silicon", "copper"])
def test_elastic_constants_are_symmetric_and_give_the_bulk_modulus_of_the_energy(crystal, request):
    crystal = request.getfixturevalue(crystal)
    found = elastic(crystal)
    # exact in the limit of small strain: third-order constants are some ten times larger, times strain squared
    assert found.details["asymmetry_GPa"] < 1e-2
    assert found.details["softest_GPa"] > 0
    # seven volumes within 3 %, where the energy need not follow the equation: 0.4 % for silicon, 0.3 % for copper
    assert energy_volume(crystal).values["bulk_modulus"] == pytest.approx(
        found.values["bulk_modulus_elastic"], rel=1e-2
    )


def test_elastic_constants_are_second_derivatives_of_the_energy(silicon):
    """C11 of diamond, where the strain does not move the atoms against each other."""
    energies, step = [], 2e-3
    for strain in (-step, 0, step):
        atoms = silicon.cell.copy()
        atoms.set_cell(atoms.cell @ np.diag([1 + strain, 1, 1]), scale_atoms=True)
        energies.append(silicon.calculated(atoms).get_potential_energy())
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / step**2 / silicon.cell.get_volume() / units.GPa
    assert curvature == pytest.approx(elastic(silicon).values["C11"], rel=1e-3)  # fourth order, times step squared


def test_hexagonal_and_cubic_tensors_are_recognised(copper):
    found = elastic(copper)
    assert found.details["symmetry"] == "hexagonal"
    assert set(found.values) == {"C11", "C12", "C13", "C33", "C44", "bulk_modulus_elastic"}
    assert independent(voigt(100, 40)) == ("cubic", pytest.approx({"C11": 460 / 3, "C12": 220 / 3, "C44": 40}))
    kind, constants = independent(voigt(100, 40) + np.diag([0, 0, 0, 10, 20, 0]))
    assert (kind, len(constants)) == ("orthorhombic", 9)
    tilted = voigt(100, 40)
    tilted[0, 4] = tilted[4, 0] = 10
    assert independent(tilted)[0] == "general"


def test_a_vacancy_costs_the_same_whichever_atom_is_missing(silicon):
    expected = vacancy(silicon).values
    other = silicon.cell[np.roll(np.arange(8), 3)]
    found = vacancy(Solid(other, silicon.calculators, TOY)).values
    assert found["vacancy_unrelaxed"] == pytest.approx(expected["vacancy_unrelaxed"], abs=1e-5)
    assert found["vacancy"] == pytest.approx(expected["vacancy"], abs=1e-4)  # fmax leaves fmax² N / stiffness
    assert 0 < expected["vacancy"] < expected["vacancy_unrelaxed"]


def test_the_hop_into_a_vacancy_is_symmetric():
    crystal = Solid(bulk("Cu", a=3.6, cubic=True), EMT, Numerics(defect_length=7, images=3, neb_fmax=0.03))
    found = migration(crystal)
    path = found.details["path_eV"]
    assert found.values["migration"] == max(path) == path[2] > 0.1
    assert path == pytest.approx(path[::-1], abs=0.02)  # images move along the path by what neb_fmax leaves


def test_surface_energies_converge_with_thickness(silicon):
    found = []
    for thickness in (15, 25, 35):
        silicon.numerics = TOY.model_copy(update={"slab_thickness": thickness})
        found.append(surface(silicon, (1, 1, 1)).values["surface_111"])
    silicon.numerics = TOY
    assert found[0] == pytest.approx(found[2], abs=2e-3)
    assert found[1] == pytest.approx(found[2], abs=5e-4)


def test_a_slab_is_cut_where_fewest_bonds_break(silicon):
    slabs = terminations(silicon.cell, (1, 1, 1), 10)
    assert len(slabs) == 2  # between the double layers, and within one
    broken = []
    for slab in slabs:
        distances = slab.get_all_distances(mic=True)
        broken.append(int(4 * len(slab) - (distances < 1.1 * silicon.spacing).sum() + len(slab)))
    assert sorted(set(broken)) == [8, 24]  # on four surface atoms a face, one bond or three each
    found = surface(silicon, (1, 1, 1))
    energies = [silicon.calculated(slab).get_potential_energy() for slab in slabs]
    area = np.linalg.norm(np.cross(*slabs[0].cell[:2]))
    lowest = (energies[broken.index(8)] - len(slabs[0]) * silicon.energy) / (2 * area) * units.m**2 / units.J
    assert found.details["unrelaxed"] == pytest.approx(lowest, rel=1e-6)


def test_phonons_are_acoustic_at_gamma_and_sound_has_the_speed_of_the_elastic_constants(silicon):
    pytest.importorskip("phonopy")
    found = phonons(silicon)
    assert np.abs(found.details["acoustic_THz"]).max() < 1e-2  # before the sum rule: rounding, under a square root
    assert np.abs(found.values["phonon_G"][:3]).max() < 1e-3
    assert found.details["imaginary"] == []
    assert found.details["labels"][0] == "G"
    # along Γ-X, q = 2π/a · x: ω = √(C/ρ) q, for small q
    constants, details = elastic(silicon).values, found.details
    density = silicon.cell.get_masses().sum() / silicon.cell.get_volume()
    first = np.argmin(np.abs(np.array(details["distance"]) - 0.05 * details["places"][1]))
    wave = details["distance"][first]  # Å⁻¹, with 2π
    for branch, constant in ((0, "C44"), (2, "C11")):
        speed = np.sqrt(constants[constant] * units.GPa / density)
        expected = speed * wave / (2 * np.pi) * (1e-12 * units.s)  # ASE's time to THz
        assert details["bands_THz"][first][branch] == pytest.approx(expected, rel=0.02)  # dispersion at 5 % of the way
    assert np.trapezoid(details["dos"], details["dos_THz"]) == pytest.approx(6, rel=0.01)  # the branches


def test_an_unstable_crystal_is_told():
    pytest.importorskip("phonopy")
    crystal = Solid(bulk("Cu", "bcc", a=2.86, cubic=True), EMT, TOY)
    found = phonons(crystal)
    assert found.values["phonon_min"] < -0.5
    assert "the crystal is not stable" in found.notes[0]
    assert len(found.details["imaginary"][0]["q"]) == 3
    assert "an eigenvalue of C" in elastic(crystal).notes[0]


# ---- published potentials


@pytest.mark.parametrize(
    ("element", "structure", "a", "expected"),
    [
        ("Si", "diamond", 5.43, {"a": 5.46368, "C11": 142.5, "C12": 72.0, "C44": 77.9}),
        ("Mo", "bcc", 3.16, {"a": 3.16893, "C11": 471.9, "C12": 154.5, "C44": 103.1}),
    ],
)
def test_published_potentials_give_what_was_published(shared_data, element, structure, a, expected):
    crystal = bulk(element, structure, a=a, cubic=True)
    file = shared_data / "potentials" / f"{element}.mtp"
    found = {}
    for length, key in ((10, "vacancy"), (12, "vacancy"), (9, "migration")):
        numerics = Numerics(defect_length=length)
        found[key, length] = {"vacancy": vacancy, "migration": migration}[key](
            solid(file, crystal, numerics, [element])
        ).values[key]
    here = solid(file, crystal, TOY, [element])
    values = lattice(here).values | elastic(here).values
    # half of the last digit that was printed
    assert values["a"] == pytest.approx(expected["a"], abs=0.6e-5)
    for key in ("C11", "C12", "C44"):
        assert values[key] == pytest.approx(expected[key], abs=0.06)
    if element == "Si":
        assert found["vacancy", 10] == pytest.approx(3.111, abs=1e-3)  # 64 atoms
    else:
        assert found["vacancy", 12] == pytest.approx(2.598, abs=1e-3)  # 128 atoms
        assert found["migration", 9] == pytest.approx(1.486, abs=1e-3)  # 54 atoms


def test_the_references_of_the_example_are_what_lammps_gives():
    """The quick ones; tersoff_properties.py computes all of them."""
    settings = load(SILICON / "validate.toml", ValidationSettings)
    settings.structures[0].properties = ["lattice", "elastic"]
    settings.structures[0].surfaces = []
    script = runpy.run_path(SILICON / "tersoff_properties.py")
    (report,) = validate(settings, script["Tersoff"], ["Si"])
    compared = [row for row in report.rows if row.value is not None]
    assert len(compared) == 7
    assert [row.value for row in compared] == pytest.approx([row.reference for row in compared], rel=1e-5)  # as printed


# ---- what goes wrong


def test_what_falls_apart_or_does_not_converge_is_an_error(silicon):
    with pytest.raises(Error, match=r"not stable: atom \d+ moved 2\.\d+ Å in \d+ steps"):
        surface(solid(SILICON / "Si.mtp", bulk("Si", a=5.43, cubic=True)), (1, 1, 1))
    impatient = Solid(bulk("Si", a=5.43, cubic=True), silicon.calculators, TOY)
    impatient.numerics = TOY.model_copy(update={"steps": 2})
    with pytest.raises(Error, match=r"did not reach 0.0001 eV/Å in 2 steps"):
        vacancy(impatient)
    with pytest.raises(Error, match="on the way into the vacancy the energy falls"):
        migration(solid(SILICON / "Si.mtp", bulk("Si", a=5.43, cubic=True)))
    with pytest.raises(NotApplicable, match="compound"):
        vacancy(Solid(bulk("CuAu", "cesiumchloride", a=3.0), EMT, TOY))


def test_a_failure_concerns_one_property_alone(tmp_path):
    content = {
        "structures": [{"crystal": crystal_of("Si:diamond:5.43"), "properties": ["lattice", "surfaces", "elastic"]}],
        "numerics": {"slab_thickness": 10},
    }
    content["structures"][0]["references"] = [
        {"source": "one", "values": {"a": 5.4, "surface_111": 1.2}},
        {"source": "two", "values": {"a": 5.0, "C11": 100.0}},
    ]
    settings = checked(content, ValidationSettings, "test")
    (report,) = validate(settings, calculators(SILICON / "Si.almtp"), ["Si"])
    failures = report.failures()  # slabs that fall apart, each for itself: which of them is a matter of rounding
    assert all(": surface_" in failure for failure in failures)
    assert any("surface_111: the structure is not stable" in failure for failure in failures)
    rows = {(row.key, row.source): row for row in report.rows}
    assert rows["surface_111", "one"].value is None
    two = rows["a", "two"]
    assert (two.difference, two.percent) == pytest.approx((two.value - 5, 100 * (two.value - 5) / 5))
    assert rows["C11", "two"].unit == "GPa"
    assert rows["C11", "two"].grade < 2
    console = Console(width=120, record=True, file=StringIO())
    console.print(table(report, settings.grade))
    text = console.export_text()
    assert "[1] one" in text
    stable = [row for row in report.rows if row.key.startswith("surface") and row.value is not None]
    for row in stable:
        line = next(line for line in text.splitlines() if f"surface ({row.key[-3:]})" in line)
        assert ("extrapolated" in line) == (row.grade > settings.grade)
    assert draw(report, settings.structures[0], tmp_path) == []


def test_without_phonopy_phonons_are_left_out_or_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    structure = {"crystal": crystal_of("Si:diamond:5.43"), "surfaces": []}
    small = {"defect_length": 5, "volumes": 7}
    settings = checked({"structures": [structure], "numerics": small}, ValidationSettings, "test")
    (report,) = validate(settings, calculators(SILICON / "Si_liquid.mtp"), ["Si"])
    assert not any("phonons" in failure for failure in report.failures())
    assert any('pip install "pair-mtp[phonons]"' in note for note in report.notes())
    structure["properties"] = ["phonons"]
    settings = checked({"structures": [structure]}, ValidationSettings, "test")
    (report,) = validate(settings, calculators(SILICON / "Si_liquid.mtp"), ["Si"])
    assert 'pip install "pair-mtp[phonons]"' in report.failures()[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "structures: this key must be given"),
        ("[[structures]]\n", "give either a `crystal` or a `file`"),
        (
            '[[structures]]\ncrystal = {name = "Si", structure = "diamond", a = 5, repeat = [2, 2, 2]}',
            "without `repeat`",
        ),
        ('[[structures]]\nfile = "a.cif"\nsurfaces = [[2, 0, 0]]', "no common divisor"),
        ('[[structures]]\nfile = "a.cif"\n[[structures]]\nfile = "a.cif"', "several structures are called 'a'"),
        (
            '[[structures]]\nfile = "a.cif"\nreferences = [{source = "x", values = {lattice = 3}}]',
            "'lattice' is not known; known are a, b",
        ),
        (
            '[[structures]]\nfile = "a.cif"\nreferences = [{source = "x", values = {phonon_X = 3}}]',
            "'phonon_X' wants a list",
        ),
    ],
)
def test_settings_are_checked(text, message, tmp_path):
    (tmp_path / "validate.toml").write_text(text)
    with pytest.raises(Error, match="validate.toml: ") as error:
        load(tmp_path / "validate.toml", ValidationSettings)
    assert message in str(error.value)


def test_a_crystal_is_read_from_the_command_line():
    assert crystal_of("Ti:hcp:2.95:4.68") == {"name": "Ti", "structure": "hcp", "a": 2.95, "c": 4.68}
    for wrong in ("Si", "Si:diamond", "Si:diamond:x", "Si:diamond:1:2:3", ":diamond:5"):
        with pytest.raises(Error, match="want element:structure:a"):
            crystal_of(wrong)


def test_species_of_a_potential_that_names_none(random_potential):
    one = checked({"structures": [{"crystal": crystal_of("Si:diamond:5.43")}]}, ValidationSettings, "test")
    potential = random_potential(("Cu",))
    potential.species = None
    name_species(potential, one)
    assert potential.species == ["Si"]
    potential = random_potential(("Cu", "O"))
    potential.species = None
    with pytest.raises(Error, match="give `species`"):
        name_species(potential, one)


def test_every_key_has_a_name_and_a_unit():
    assert quantity("C66") == ("C66", "GPa")
    assert quantity("surface_1-10") == ("surface (1-10)", "J/m²")
    assert quantity("phonon_G") == ("phonons at Γ", "THz")
    assert all(quantity(key) for key in QUANTITIES)
    with pytest.raises(ValueError, match="not known"):
        quantity("C71")


# ---- the command


def test_every_setting_and_every_key_is_in_the_docs():
    page = (SILICON.parents[1] / "docs" / "validation.md").read_text()
    schema = ValidationSettings.model_json_schema()
    settings = set(schema["properties"])
    for name in ("Structure", "References", "Numerics"):
        settings |= set(schema["$defs"][name]["properties"])
    for key in {*settings, *PROPERTIES, *QUANTITIES}:
        assert re.search(rf"`(\[+)?{key}(\]+)?`", page), key


def test_the_command_writes_table_json_and_figures(mtp, tmp_path):
    pytest.importorskip("phonopy")
    for name in ("Si_liquid.mtp", "validate.toml"):
        shutil.copy(SILICON / name, tmp_path)
    small = "\n[numerics]\nphonon_length = 10\ndefect_length = 10\nslab_thickness = 10\nvolumes = 9\n"
    text = (tmp_path / "validate.toml").read_text()
    (tmp_path / "validate.toml").write_text(text + small)
    done = mtp(tmp_path, "validate", "Si_liquid.mtp", "validate.toml", "-o", "figures", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("lattice constant a", "C44", "surface (111)", "phonons at Γ", "Tersoff"):
        assert word in done.stdout
    for name in ("energy_volume", "phonons"):
        with Image.open(tmp_path / "figures" / f"Si_diamond_{name}.png") as image:
            image.load()
    (written,) = json.loads((tmp_path / "out.json").read_text())["structures"]
    rows = {row["key"]: row for row in written["table"]}
    assert rows["vacancy"]["difference"] == pytest.approx(0, abs=0.1)  # eV: the liquid has taught it
    assert rows["surface_111"]["percent"] == pytest.approx(0, abs=2)
    assert np.shape(written["properties"]["elastic"]["found"]["details"]["C_GPa"]) == (6, 6)


def test_the_command_ends_with_status_1_where_something_failed(mtp, tmp_path):
    shutil.copy(SILICON / "Si.mtp", tmp_path)
    (tmp_path / "validate.toml").write_text(
        '[[structures]]\ncrystal = {name = "Si", structure = "diamond", a = 5.43}\n'
        'properties = ["surfaces", "lattice"]\nsurfaces = [[1, 1, 1]]\n'
    )
    done = mtp(tmp_path, "validate", "Si.mtp", "validate.toml", "--json", "out.json")
    assert done.returncode == 1
    assert "surface_111: the structure is not stable" in done.stderr
    assert "5.428" in done.stdout
    assert "not stable" in (tmp_path / "out.json").read_text()
    for arguments in ([], ["validate.toml", "--crystal", "Si:diamond:5.4"]):
        done = mtp(tmp_path, "validate", "Si.mtp", *arguments)
        assert done.returncode == 1
        assert "give either a settings file or --crystal" in done.stderr
