# SPDX-License-Identifier: BSD-3-Clause
"""The command `mtp`: every subcommand with good input, and one clear message with status 1 for bad input."""

import json
import re
import sys

import ase.io
import numpy as np
import pytest
import typer
from ase import Atoms
from ase.calculators.lj import LennardJones
from PIL import Image
from rich.text import Text

from mtp.cli import app, main
from mtp.configurations import Labels, labels, read, with_labels, write
from mtp.potential import Potential

SIX_DECIMALS = 5.1e-7  # the digits of a .cfg file, which MLIP's layout fixes
COMMANDS = [
    "new",
    "fit",
    "evaluate",
    "uncertainty",
    "validate",
    "select",
    "grade",
    "relax",
    "cut",
    "guard",
    "convert",
    "info",
    "learn",
    "conductivity",
]


def labelled(atoms: Atoms) -> Atoms:
    atoms.calc = LennardJones(sigma=2.1, epsilon=0.3, rc=4.0, smooth=True)
    return with_labels(atoms, Labels(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_atoms, random_potential):
    """Data, a potential without and one with an active set for two elements, and files of the wrong kind."""
    folder = tmp_path_factory.mktemp("cli")
    data = [labelled(random_atoms(("Cu", "O"), seed=k)) for k in range(8)]
    write(folder / "train.extxyz", data[:5])
    write(folder / "test.extxyz", data[5:])
    write(folder / "train.cfg", data[:5], ["O", "Cu"])
    bare = [atoms.copy() for atoms in data]
    write(folder / "bare.extxyz", bare)
    far = [atoms.copy() for atoms in bare[5:]]
    for atoms in far:
        atoms.set_cell(0.8 * atoms.cell, scale_atoms=True)
    write(folder / "far.extxyz", [*far, bare[0]])
    write(folder / "gold.extxyz", [random_atoms(("Cu", "Au"))])
    potential = random_potential(("O", "Cu"), level=4, n_chebyshev=4)
    potential.save(folder / "a.mtp")
    train = read(folder / "train.extxyz")
    potential.select(train)
    potential.save(folder / "a.almtp")
    potential.select(train, "configuration")
    potential.save(folder / "configuration.almtp")
    (folder / "garbage.extxyz").write_bytes(bytes(range(256)))
    (folder / "garbage.mtp").write_bytes(bytes(range(256)))
    (folder / "empty.extxyz").write_text("")
    (folder / "empty.cfg").write_text("")
    return folder


def succeeds(done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


# ---- good input


def test_help_is_everywhere(mtp, tmp_path, monkeypatch, capsys):
    output = succeeds(mtp(tmp_path, "--help"))
    assert all(command in output for command in COMMANDS)
    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["mtp", command, "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert f" {command} [OPTIONS]" in capsys.readouterr().out


def commands_below(command, name: str):
    """Of a group all commands with their names, else the command itself."""
    if not hasattr(command, "commands"):
        yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from commands_below(inner, f"{name} {key}")


def test_every_option_has_a_help_that_is_shown_as_it_stands():
    for name, command in commands_below(typer.main.get_command(app), "mtp"):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name}: {parameter.name}"
            text = getattr(parameter, "help", None) or ""
            assert Text.from_markup(text).plain == text, f"{name}: {parameter.name}"  # brackets would be markup


def test_the_version_is_told(mtp, tmp_path):
    assert succeeds(mtp(tmp_path, "--version")).strip()


def test_new_writes_an_untrained_potential(mtp, tmp_path):
    options = ["--species", "Si,O", "--level", "8", "--cutoff", "4.5", "--min-dist", "1.5", "--radial-basis-size", "7"]
    assert "wrote new.mtp" in succeeds(mtp(tmp_path, "new", "-o", "new.mtp", *options))
    potential = Potential.load(tmp_path / "new.mtp")
    facts = potential.facts
    assert potential.species == ["Si", "O"]
    assert (facts.n_scalar, facts.cutoff, facts.min_distance, facts.n_chebyshev) == (9, 4.5, 1.5, 7)
    assert not facts.trained


@pytest.mark.parametrize("train", ["train.extxyz", "train.cfg"])
def test_fit_writes_potential_errors_and_report(mtp, folder, tmp_path, train):
    data = ["fit", folder / train, "--species", "O,Cu", "--validation", folder / "test.extxyz"]
    form = ["--level", "4", "--cutoff", "4", "--radial-basis-size", "4", "--iterations", "5"]
    output = succeeds(mtp(tmp_path, *data, *form, "-o", "fitted.mtp", "--json", "errors.json"))
    assert "wrote fitted.mtp\nwrote fitted_report/report.html\n" in output
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert {name: errors[name]["configurations"] for name in errors} == {"train": 5, "validation": 3}
    assert f"{errors['train']['force_eV_per_A']['rmse']:.4g}" in output
    report = tmp_path / "fitted_report"
    with Image.open(report / "parity.png") as image:
        image.load()
    reported = json.loads((report / "errors.json").read_text())
    assert {name: {key: reported["data"][name][key] for key in errors[name]} for name in errors} == errors
    assert reported["settings"]["fit"]["level"] == 4
    assert reported["command"].startswith("mtp fit ")
    lines = re.findall(
        r"^fitting (\d)/5: loss \S+, (?:[^,\n]*, )*\S+ s(?:, \S+ s/iteration, at most .* left)?$", output, re.M
    )
    assert lines == [str(step["iteration"]) for step in reported["learning_curve"]]
    assert Potential.load(tmp_path / "fitted.mtp").facts.trained


def test_fit_takes_its_settings_from_a_file(mtp, folder, tmp_path):
    for name in ("train.extxyz", "test.extxyz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "fit.toml").write_text(
        'train = ["train.extxyz"]\nvalidation = ["test.extxyz"]\noutput = "a.mtp"\n'
        "[fit]\nlevel = 4\ncutoff = 4\nradial_basis_size = 4\niterations = 5\n"
    )
    succeeds(mtp(tmp_path.parent, "fit", tmp_path / "fit.toml"))
    options = ["--level", "4", "--cutoff", "4", "--radial-basis-size", "4", "--iterations", "5", "-o", "b.mtp"]
    succeeds(mtp(tmp_path, "fit", "train.extxyz", *options, "--no-report"))
    assert (tmp_path / "a_report" / "report.html").exists()
    assert not (tmp_path / "b_report").exists()
    assert (tmp_path / "a.mtp").read_bytes() == (tmp_path / "b.mtp").read_bytes()
    done = mtp(tmp_path, "fit", "fit.toml", "-o", "c.mtp")
    assert done.returncode == 1
    assert "fit.toml: a settings file comes alone" in done.stderr


@pytest.mark.parametrize("output", ["predicted.cfg", "predicted.extxyz"])
def test_evaluate_writes_predictions_that_read_back(mtp, folder, tmp_path, output):
    succeeds(mtp(tmp_path, "evaluate", folder / "a.mtp", folder / "test.extxyz", "-o", output, "--json", "errors.json"))
    potential = Potential.load(folder / "a.mtp")
    given, predicted = read(folder / "test.extxyz"), read(tmp_path / output, potential.species)
    differences = []
    for atoms, found in zip(given, predicted, strict=True):
        result, known = potential.evaluate(atoms), labels(found)
        for written, computed in (
            (found.positions, atoms.positions),
            (known.energy, result.energy),
            (known.forces, result.forces),
            (known.stress, result.stress),
        ):
            np.testing.assert_allclose(written, computed, rtol=0, atol=SIX_DECIMALS)
        differences.append(result.forces - labels(atoms).forces)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert list(errors) == ["configurations", "atoms", "energy_per_atom_eV", "force_eV_per_A", "stress_GPa"]
    assert (errors["configurations"], errors["atoms"]) == (3, 24)
    assert list(errors["force_eV_per_A"]) == ["rmse", "mae", "max"]
    components = np.abs(np.concatenate(differences))
    expected = {"rmse": np.sqrt((components**2).mean()), "mae": components.mean(), "max": components.max()}
    assert errors["force_eV_per_A"] == pytest.approx(expected, rel=1e-12)  # the same numbers, summed alike


def test_evaluate_writes_a_report_of_labelled_data(mtp, folder, tmp_path):
    output = succeeds(mtp(tmp_path, "evaluate", folder / "a.mtp", folder / "test.extxyz", "--report", "errors"))
    assert "wrote errors/report.html" in output
    reported = json.loads((tmp_path / "errors" / "errors.json").read_text())
    assert (list(reported["data"]), reported["data"]["data"]["configurations"]) == (["data"], 3)
    done = mtp(tmp_path, "evaluate", folder / "a.mtp", folder / "bare.extxyz", "--report", "none")
    assert (done.returncode, done.stderr) == (1, "mtp: the data are not labelled: there is nothing to report\n")
    assert not (tmp_path / "none").exists()


def test_evaluate_without_labels_says_so_and_predicts(mtp, folder, tmp_path):
    arguments = [folder / "a.mtp", folder / "bare.extxyz", "-o", "out.extxyz", "--json", "out.json"]
    assert "not labelled" in succeeds(mtp(tmp_path, "evaluate", *arguments))
    errors = json.loads((tmp_path / "out.json").read_text())
    assert [errors[key] for key in ("energy_per_atom_eV", "force_eV_per_A", "stress_GPa")] == [None] * 3
    assert len(read(tmp_path / "out.extxyz")) == 8


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_select_builds_the_active_set(mtp, folder, tmp_path, mode):
    output = succeeds(
        mtp(tmp_path, "select", folder / "a.mtp", folder / "train.extxyz", "--mode", mode, "-o", "b.almtp")
    )
    assert f"active set ({mode})" in output
    made = Potential.load(tmp_path / "b.almtp")
    expected = Potential.load(folder / ("a.almtp" if mode == "neighbourhood" else "configuration.almtp"))
    assert made.facts.active_set == mode
    # the parameters went through the decimals of a file
    np.testing.assert_allclose(made.active_set, expected.active_set, rtol=0, atol=1e-12 * np.abs(made.active_set).max())


@pytest.mark.parametrize("output", ["chosen.extxyz", "chosen.cfg"])
def test_select_chooses_candidates_be_it_none(mtp, folder, tmp_path, output):
    files = [folder / "a.almtp", folder / "train.extxyz", "--candidates", folder / "far.extxyz", "-o", output]
    said = succeeds(mtp(tmp_path, "select", *files))
    potential = Potential.load(folder / "a.almtp")
    chosen = read(tmp_path / output, potential.species)
    assert f"chose {len(chosen)} of 4 candidates" in said
    assert 0 < len(chosen) <= 3  # not the one that the training data hold
    assert min(potential.grade(atoms).maximum for atoms in chosen) > 2
    said = succeeds(mtp(tmp_path, "select", *files, "--threshold", "1e9"))
    assert f"chose 0 of 4 candidates with grades above 1e+09\nwrote {output}" in said
    assert (tmp_path / output).read_text() == ""


def test_grade_writes_grades_as_documented(mtp, folder, tmp_path):
    for file in ("a.almtp", "configuration.almtp"):
        arguments = [folder / file, folder / "far.extxyz", "-o", "graded.extxyz", "--json", "grades.json"]
        succeeds(mtp(tmp_path, "grade", *arguments, "--select", "1.5", "--break", "4"))
        potential = Potential.load(folder / file)
        expected = [potential.grade(atoms) for atoms in read(folder / "far.extxyz")]
        summary = json.loads((tmp_path / "grades.json").read_text())
        assert list(summary) == ["grades", "max", "above_select", "above_break"]
        assert summary["grades"] == pytest.approx([g.maximum for g in expected], rel=1e-12)
        assert summary["max"] == max(summary["grades"])
        assert summary["above_select"] == sum(g > 1.5 for g in summary["grades"])
        assert summary["above_break"] == sum(g > 4 for g in summary["grades"])
        for atoms, grades in zip(ase.io.read(tmp_path / "graded.extxyz", ":"), expected, strict=True):
            assert atoms.info["grade"] == pytest.approx(grades.maximum, rel=1e-7)  # eight digits are written
            if grades.per_atom is not None:
                np.testing.assert_allclose(atoms.arrays["grade"], grades.per_atom, rtol=0, atol=1e-7 * grades.maximum)
            else:
                assert atoms.info["configuration_grade"] == atoms.info["grade"]


def test_convert_keeps_labels_there_and_back(mtp, folder, tmp_path):
    for source, target in ((folder / "train.extxyz", "a.cfg"), ("a.cfg", "b.extxyz"), ("b.extxyz", "c.cfg")):
        assert "wrote 5 configurations" in succeeds(mtp(tmp_path, "convert", source, target, "--species", "O,Cu"))
    assert len((tmp_path / "a.cfg").read_text()) > 1000
    for atoms, expected in zip(read(tmp_path / "b.extxyz"), read(folder / "train.extxyz"), strict=True):
        assert (atoms.numbers == expected.numbers).all()
        found, known = labels(atoms), labels(expected)
        for written, given in (
            (atoms.positions, expected.positions),
            (found.energy, known.energy),
            (found.forces, known.forces),
            (found.stress, known.stress),
        ):
            np.testing.assert_allclose(written, given, rtol=0, atol=SIX_DECIMALS)


def test_info_shows_facts_of_potentials_and_data(mtp, folder, tmp_path):
    assert "neighbourhood" in succeeds(mtp(tmp_path, "info", folder / "a.almtp", "--json", "facts.json"))
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["species"], facts["active_set"], facts["cutoff"]) == (["O", "Cu"], "neighbourhood", 4.5)
    succeeds(mtp(tmp_path, "info", folder / "train.cfg", "--species", "O,Cu", "--json", "facts.json"))
    facts = json.loads((tmp_path / "facts.json").read_text())
    (finding,) = facts.pop("findings")  # random atoms come close
    assert re.match(r"warning: .*train\.cfg#4: a force of \d+\.\d eV/Å on atom \d", finding)
    assert facts == {
        "configurations": 5,
        "skipped": 0,
        "atoms": 40,
        "atoms_per_configuration": [8, 8],
        "species": ["O", "Cu"],
        "with_energy": 5,
        "with_forces": 5,
        "with_stress": 5,
    }


def test_brackets_in_names_are_printed_as_they_are(mtp, tmp_path):
    assert "wrote [red]a.mtp" in succeeds(mtp(tmp_path, "new", "--species", "Si", "--level", "2", "-o", "[red]a.mtp"))
    assert "absent[bold].extxyz" in mtp(tmp_path, "info", "absent[bold].extxyz").stderr


# ---- bad input

FIT = "fit --level 4 --cutoff 4 --iterations 1 %s"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("evaluate absent.mtp train.extxyz", r"absent\.mtp"),
        ("evaluate garbage.mtp train.extxyz", r"garbage\.mtp"),
        ("evaluate train.extxyz train.extxyz", r"train\.extxyz"),
        ("evaluate a.mtp absent.extxyz", r"absent\.extxyz: cannot be read: No such file"),
        ("evaluate a.mtp garbage.extxyz", r"garbage\.extxyz:1: .*is not an integer"),
        ("evaluate a.mtp empty.extxyz", r"empty\.extxyz: "),
        ("evaluate a.mtp empty.cfg", r"empty\.cfg:1: the file holds no"),
        ("evaluate a.mtp gold.extxyz", r"gold\.extxyz#1: .*Au"),
        ("evaluate a.mtp train.extxyz -o nowhere/out.cfg", r"nowhere/out\.cfg: the folder does not exist"),
        ("evaluate a.mtp train.extxyz --json nowhere/out.json", r"nowhere/out\.json: the folder does not exist"),
        ("evaluate a.mtp train.extxyz -o out.nonsense", r"out\.nonsense"),
        ("evaluate a.mtp train.extxyz --report train.cfg", r"train\.cfg: is a file"),
        ("evaluate a.mtp train.extxyz --report nowhere/report", r"nowhere/report: the folder above it does not exist"),
        (FIT % "bare.extxyz", r"bare\.extxyz#1: no energy, no forces"),
        (FIT % "train.extxyz -o out.txt", r"out\.txt: the output's name must end with \.mtp"),
        (FIT % "train.extxyz -o nowhere/out.mtp", r"nowhere/out\.mtp: the folder does not exist"),
        (FIT % "train.extxyz --json nowhere/out.json", r"nowhere/out\.json: the folder does not exist"),
        (FIT % "train.extxyz --level 1", r"options: fit\.level: .*greater than or equal to 2, found 1"),
        (FIT % "train.extxyz --cutoff -1", r"options: fit\.cutoff: .*greater than 0, found -1"),
        (FIT % "train.extxyz --cutoff 0.5", r"no two atoms .* closer than the cutoff"),
        (FIT % "train.extxyz --species Cu,Xx", r"--species: 'Xx' is not an element's symbol"),
        (FIT % "train.extxyz --species Cu", r"train\.extxyz#1: .*O"),
        (FIT % "train.cfg", r"train\.cfg#1: .*--species"),
        ("fit absent.toml", r"absent\.toml: cannot be read"),
        ("select a.mtp train.extxyz -o out.mtp", r"out\.mtp: the output's name must end with \.almtp"),
        ("select a.mtp train.extxyz -o nowhere/out.almtp", r"nowhere/out\.almtp: the folder does not exist"),
        ("select a.mtp train.extxyz -o out.almtp --mode atom", r"mode 'atom' is not known"),
        ("select a.mtp train.extxyz -o out.almtp --candidates absent.extxyz", r"absent\.extxyz: cannot be read"),
        ("grade a.mtp train.extxyz", r"active set"),
        ("grade a.almtp gold.extxyz", r"gold\.extxyz#1: .*Au"),
        ("grade a.almtp train.extxyz -o nowhere/out.extxyz", r"nowhere/out\.extxyz: the folder does not exist"),
        ("convert train.extxyz nowhere/out.cfg", r"nowhere/out\.cfg: the folder does not exist"),
        ("convert train.extxyz out.nonsense", r"out\.nonsense"),
        ("convert absent.cfg out.cfg", r"absent\.cfg"),
        ("convert gold.extxyz out.cfg --species Cu,Ag", r"Au"),
        ("info garbage.mtp", r"garbage\.mtp"),
        ("info absent.mtp", r"absent\.mtp"),
        ("new --species Si -o out.txt", r"out\.txt: the output's name must end with \.mtp"),
        ("new --species Si -o nowhere/out.mtp", r"nowhere/out\.mtp: the folder does not exist"),
        ("new --species Si --level 77 -o out.mtp", r"77"),
        ("new --species Si --cutoff -1 -o out.mtp", r"cutoff"),
        ("new --species ,, -o out.mtp", r"species"),
        ("new --species Si,Xx -o out.mtp", r"'Xx' is not an element's symbol"),
        ("evaluate a.mtp train.extxyz --species Cu", r"1 .*2|2 .*1"),
        ("cut train.extxyz -p a.almtp -o out.extxyz", r"give either --centres"),
        ("cut train.extxyz -p a.almtp -o out.extxyz --centres 0", r"train\.extxyz: has 5 configurations: give --above"),
        ("cut far.extxyz -p a.mtp -o out.extxyz --above 2", r"active set in neighbourhood mode"),
        ("cut far.extxyz -p a.almtp -o out.extxyz --above 2 --max-atoms 1", r"options: cutting\.max_atoms: .*found 1"),
        (
            "cut far.extxyz -p a.almtp -o nowhere/out.extxyz --above 2",
            r"nowhere/out\.extxyz: the folder does not exist",
        ),
        ("learn absent.toml", r"absent\.toml: cannot be read"),
        ("learn train.extxyz", r"train\.extxyz: not valid TOML: .*line 1"),
        ("learn absent.toml --json nowhere/out.json", r"nowhere/out\.json: the folder does not exist"),
    ],
)
def test_bad_input_ends_with_one_message_and_status_1(folder, monkeypatch, capsys, command, says):
    """Within this process, because Python takes longer to start than all of them together."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["mtp", *command.split()])
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert re.match(f"mtp: .*{says}", said), said
    assert len(said.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", ["fit absent.toml", "evaluate a.mtp gold.extxyz"])
def test_bad_input_ends_the_process_with_one_message_and_status_1(mtp, folder, command):
    done = mtp(folder, *command.split())
    assert done.returncode == 1
    assert re.fullmatch(r"mtp: (absent\.toml|gold\.extxyz#1): .*\n", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["", "nonsense", "fit", "evaluate a.mtp", "fit train.extxyz --levle 4"])
def test_wrong_usage_is_told_with_status_2(mtp, folder, command):
    done = mtp(folder, *command.split())
    assert done.returncode == 2
    assert "Usage: mtp" in done.stdout + done.stderr
