# SPDX-License-Identifier: BSD-3-Clause
"""What is wrong with data is told with the configuration, the number and what to do; sound data raise no word."""

import sys
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.units import Bohr, GPa, Hartree, kcal, mol

from mtp.cli import main
from mtp.configurations import Labels, labels, read, with_labels, write
from mtp.errors import DataError
from mtp.evaluation import compare
from mtp.fit import FitSettings, fit
from mtp.loss import Weights
from mtp.potential import Potential
from mtp.quality import check, refuse_errors, stress_findings, summarise


def copper(seed: int, strain: float = 0.0, rattle: float = 0.08) -> Atoms:
    """Four atoms of copper in the effective-medium theory, strained and rattled."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell((1 + strain) * atoms.cell, scale_atoms=True)
    atoms.rattle(rattle, seed=seed)
    atoms.calc = EMT()
    found = Labels(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
    return with_labels(atoms, found, source=f"cu.extxyz#{seed + 1}")


@pytest.fixture
def data() -> list[Atoms]:
    return [copper(k, strain) for k, strain in enumerate(np.linspace(-0.04, 0.06, 16))]


def relabelled(atoms: Atoms, **changed) -> Atoms:
    return with_labels(atoms, Labels(**{**vars(labels(atoms)), **changed}))


def kinds(findings) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.kind, finding.source) for finding in findings]


def test_sound_data_of_every_sort_raise_no_word(data):
    water = molecule("H2O")
    molecules = [with_labels(water, Labels(-14.0, np.zeros((3, 3)), None), source="w")]
    surface = bulk("Cu", cubic=True)
    surface.center(5.0, axis=2)
    surface.pbc = (True, True, False)
    structures = [Atoms("Cu"), surface, bulk("Cu")]
    assert check([*data, *molecules, *structures], ["Cu", "H", "O"], 0.9, 100) == []


def test_published_data_raise_no_word(shared_data):
    for name in ("Si_train", "Mo_train"):
        assert check(read(shared_data / "mlearn" / f"{name}.extxyz"), ["Si", "Mo"], 1.0, 500) == []


@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (1 / Hartree, "as if in hartree"),
        (mol / kcal, "as if in kcal/mol"),
        (1000.0, "as if in meV"),
        (1 / 4, "as if per atom"),
        (-3.0, "check its unit, reference and settings"),
    ],
)
def test_an_energy_off_by_orders_of_magnitude_is_found_and_its_unit_guessed(data, factor, hint):
    total = [relabelled(atoms, energy=labels(atoms).energy - 4 * 1000.0) for atoms in data]
    total[5] = relabelled(total[5], energy=labels(total[5]).energy * factor)
    (finding,) = check(total)
    assert (finding.kind, finding.source) == ("energy", "cu.extxyz#6")
    assert hint in finding.message


def test_several_energies_in_another_unit_do_not_hide_each_other(data):
    total = [relabelled(atoms, energy=labels(atoms).energy - 4 * 1000.0) for atoms in data]
    for k in (1, 4, 7, 9, 12):
        total[k] = relabelled(total[k], energy=labels(total[k]).energy / Hartree)
    assert [finding.source for finding in check(total)] == [f"cu.extxyz#{k + 1}" for k in (1, 4, 7, 9, 12)]


def test_energies_of_several_species_are_explained_before_they_are_judged():
    rng = np.random.default_rng(0)
    data = []
    for k in range(20):
        atoms = Atoms("Cu" * (1 + k % 5) + "Au" * (1 + k % 3), rng.uniform(0, 30, (2 + k % 5 + k % 3, 3)))
        energy = -5000.0 * atoms.symbols.count("Cu") - 900.0 * atoms.symbols.count("Au") + 0.1 * rng.standard_normal()
        data.append(with_labels(atoms, Labels(energy, None, None), source=f"#{k}"))
    assert [f for f in check(data) if f.kind == "energy"] == []
    data[3] = with_labels(data[3], Labels(labels(data[3], ["energy"]).energy + 40.0, None, None))
    assert [f.source for f in check(data) if f.kind == "energy"] == ["#3"]


def test_forces_that_do_not_sum_to_zero_are_told_with_the_held_atoms(data):
    forces = labels(data[2]).forces.copy()
    forces[0] = 0
    data[2] = relabelled(data[2], forces=forces)
    (finding,) = check(data)
    assert (finding.kind, finding.source) == ("net force", "cu.extxyz#3")
    assert "1 atoms have none, as if held fixed" in finding.message
    assert f"sum to {np.linalg.norm(forces.sum(axis=0)):.3g} eV/Å" in finding.message


def test_a_single_atom_with_a_force_is_told():
    atom = with_labels(Atoms("H"), Labels(-13.6, np.array([[0, 0, 0.5]]), None), source="h")
    assert kinds(check([atom])) == [("warning", "net force", "h")]


def test_huge_forces_are_told_with_the_atom(data):
    forces = labels(data[2]).forces.copy()
    forces[1] += 300
    forces[3] -= 300
    data[2] = relabelled(data[2], forces=forces)
    (finding,) = check(data)
    assert finding.kind == "force"
    assert "eV/Å on atom 3" in finding.message


def test_duplicates_and_contradictions_are_told_apart(data):
    again = data[3].copy()
    again.calc = data[3].calc
    again.info["source"] = "more#1"
    shifted = with_labels(data[4], labels(data[4]), source="more#2")
    shifted.positions += 4e-7
    shifted = with_labels(shifted, labels(data[4]))
    other = with_labels(data[5], Labels(labels(data[5]).energy + 0.4, labels(data[5]).forces, None), source="more#3")
    almost = data[6].copy()
    almost.positions[0, 0] += 1e-4
    almost = with_labels(almost, labels(data[6]), source="more#4")
    findings = check([*data, again, shifted, other, almost])
    assert kinds(findings) == [
        ("warning", "duplicate", "more#1"),
        ("warning", "duplicate", "more#2"),
        ("warning", "contradiction", "more#3"),
    ]
    assert "the same as cu.extxyz#4" in findings[0].message
    assert "energies 0.1 eV/atom apart" in findings[2].message


def test_atoms_too_close_are_errors_or_warnings_by_their_distance(data):
    findings = check(data, min_distance=2.4)
    assert findings
    assert {f.kind for f in findings} == {"distance"}
    assert all("less than the potential's min_dist of 2.4 Å" in f.message for f in findings)
    collapsed = Atoms("Cu2", [[0, 0, 0], [0, 0, 0.05]], info={"source": "c"})
    assert kinds(check([collapsed])) == [("error", "distance", "c")]
    bohr = bulk("Cu", a=3.6 * 0.3)
    (finding,) = check([bohr])
    assert "half the sum of covalent radii" in finding.message


def test_errors_name_every_configuration_that_cannot_be_used(data):
    flat = bulk("Cu")
    flat.cell[2] = flat.cell[0]
    bad = [with_labels(atoms, labels(data[0]), source=f"bad#{k}") for k, atoms in enumerate(data[:2])]
    bad[0].calc.results["free_energy"] = np.nan
    bad[1].positions[0] = np.inf
    gold = Atoms("Au", info={"source": "bad#2"})
    flat.info["source"] = "bad#3"
    findings = check([*data, *bad, gold, flat], ["Cu", "O"])
    assert [f.severity for f in findings] == 4 * ["error"]
    assert [str(f).split(":")[0] for f in findings] == [f"bad#{k}" for k in range(4)]
    assert "no such species: Au; known are Cu, O: take such configurations out" in str(findings[2])
    with pytest.raises(DataError, match=r"^bad#0: free_energy is not finite.* \(and 3 more errors\)$"):
        refuse_errors(findings)
    refuse_errors(check(data))


def test_more_parameters_than_data_are_told(data):
    n_values = 16 * (1 + 12 + 6)
    assert check(data, n_parameters=n_values) == []
    (finding,) = check(data, n_parameters=n_values + 1)
    assert f"{n_values + 1} parameters but only {n_values} values" in finding.message


def test_stress_without_a_volume_or_in_another_unit_is_told(data):
    stress = labels(data[15]).stress
    water = molecule("H2O", vacuum=10.0)
    water.pbc = True
    odd = [
        with_labels(water, Labels(-1.0, np.zeros((3, 3)), np.zeros(6)), source="vacuum"),
        with_labels(molecule("H2O"), Labels(-1.0, np.zeros((3, 3)), np.zeros(6)), source="molecule"),
        with_labels(data[15], Labels(None, None, stress / GPa), source="GPa"),
    ]
    assert [f.source for f in check(odd)] == ["vacuum", "molecule", "GPa"]


def trajectory() -> list[Atoms]:
    first = copper(0, rattle=0.1)
    velocity = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    frames = []
    for k in range(12):
        atoms = first.copy()
        atoms.positions += 0.15 * np.sin(0.5 * k) * velocity
        atoms.calc = EMT()
        frames.append(with_labels(atoms, Labels(atoms.get_potential_energy(), atoms.get_forces(), None)))
    return frames


@pytest.mark.parametrize(
    ("energy", "force", "hint"),
    [
        (1, 1, None),
        (1 / Hartree, 1, "energies were in hartree"),
        (1, Bohr, "forces were per bohr"),
        (1, Bohr / Hartree, "forces were in hartree/bohr"),
        (1, -1, "gradients were given for forces"),
        (1 / Hartree, Bohr / Hartree, "forces were per bohr"),
    ],
)
def test_units_of_energies_and_forces_are_compared_along_trajectories(energy, force, hint):
    frames = [
        with_labels(atoms, Labels(energy * labels(atoms).energy, force * labels(atoms).forces, None))
        for atoms in trajectory()
    ]
    findings = [finding for finding in check(frames) if finding.kind == "work"]
    if hint is None:
        assert findings == []
    else:  # where all is in atomic units only the length, bohr, is told
        assert hint in findings[0].message


def test_findings_are_listed_shortly_and_errors_come_first(data):
    many = [relabelled(atoms, forces=labels(atoms).forces + 1) for atoms in data]
    lines = summarise(check([*many, Atoms("Au", info={"source": "au"})], ["Cu"]))
    assert lines[0].startswith("error: au: no such species: Au")
    assert len(lines) == 12
    assert lines[-1] == "warning: … and 6 more of this kind (net force)"


def test_checks_of_thousands_of_configurations_take_seconds():
    rng = np.random.default_rng(0)
    base = bulk("Si", cubic=True).repeat(2)
    data = []
    for _ in range(1000):
        atoms = base.copy()
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        forces = rng.standard_normal(atoms.positions.shape)
        data.append(with_labels(atoms, Labels(-300.0, forces - forces.mean(axis=0), np.zeros(6))))
    start = time.process_time()
    assert check(data, ["Si"], 1.0, 100) == []
    assert time.process_time() - start < 10  # 0.8 s on two cores of Zen 4; 10 allow for slower and busy machines


# ---- stress against the fit


@pytest.fixture(scope="module")
def fitted() -> tuple[Potential, list[Atoms]]:
    data = [copper(k, strain) for k, strain in enumerate(np.linspace(-0.05, 0.06, 24))]
    settings = FitSettings(level=8, cutoff=5.0, iterations=10, weights=Weights(stress=0))
    return fit(data, settings), data


@pytest.mark.parametrize("offset", [-3.0, 2.0])
def test_a_constant_pressure_between_stress_and_energy_is_told_in_gpa(fitted, offset):
    potential, data = fitted
    assert stress_findings(compare(potential, data)) == []
    shift = np.array([1, 1, 1, 0, 0, 0]) * offset * GPa
    shifted = [relabelled(atoms, stress=labels(atoms).stress - shift) for atoms in data]
    (finding,) = stress_findings(compare(potential, shifted))
    assert finding.kind == "Pulay"
    told = float(finding.message.split("reference pressure is ")[1].split()[0])
    assert told == pytest.approx(offset, abs=0.1)  # the fit's own pressures are right to some 0.01 GPa
    assert "set the stress weight to 0, or recompute with a larger plane-wave cutoff" in finding.message


@pytest.mark.parametrize(
    ("factor", "hint"),
    [(-1.0, "the sign of a pressure"), (1 / GPa, "in GPa;"), (-10 / GPa, "in kbar with the sign of a pressure")],
)
def test_stresses_of_other_sign_or_unit_are_told(fitted, factor, hint):
    potential, data = fitted
    wrong = [relabelled(atoms, stress=factor * labels(atoms).stress) for atoms in data]
    (finding,) = stress_findings(compare(potential, wrong))
    assert finding.kind == "stress"
    assert hint in finding.message


def test_nothing_is_said_of_few_stresses_or_none(fitted):
    potential, data = fitted
    assert stress_findings(compare(potential, data[:4])) == []
    assert stress_findings(compare(potential, [relabelled(atoms, stress=None) for atoms in data])) == []


def test_published_molybdenum_stresses_are_offset_against_the_published_fit(shared_data):
    """The fit had no stress; plane-wave stresses at a fixed basis give too low a pressure."""
    data = read(shared_data / "mlearn" / "Mo_train.extxyz")
    potential = Potential.load(shared_data / "potentials" / "Mo.mtp")
    potential.species = ["Mo"]
    (finding,) = stress_findings(compare(potential, data))
    assert finding.kind == "Pulay"
    assert "reference pressure is -0.7" in finding.message


# ---- in the command


def test_the_fit_prints_warnings_and_stops_at_errors_with_nothing_written(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(files: str) -> tuple[int, str, str]:
        command = f"mtp fit {files} --level 4 --cutoff 4 --iterations 1 -o a.mtp --species Cu"
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    write("sound.extxyz", data)
    write("twice.extxyz", [*data, data[0]])
    collapsed = Atoms("Cu2", [[0, 0, 0], [0, 0, 0.05]])
    write("bad.extxyz", [data[0], with_labels(collapsed, Labels(-1.0, np.zeros((2, 3)), None))])
    code, said, errors = run("bad.extxyz")
    assert (code, errors.count("\n")) == (1, 1)
    assert "bad.extxyz#2: atoms 0 and 1 are 0.05 Å apart" in errors
    code, said, errors = run("sound.extxyz --validation bad.extxyz")
    assert code == 1
    assert not list(tmp_path.glob("a*"))
    code, said, errors = run("twice.extxyz")
    assert (code, errors) == (0, "")
    assert "warning: twice.extxyz#17: the same as twice.extxyz#1: it counts twice" in said
    code, said, errors = run("sound.extxyz")
    assert "warning" not in said
