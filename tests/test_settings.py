# SPDX-License-Identifier: BSD-3-Clause
"""Settings files: each mistake is named by file and key, with what was expected and what was found."""

import shlex
from pathlib import Path

import pytest

from mtp.errors import Error
from mtp.settings import Exploration, FitFile, LearnSettings, load
from mtp.structures import crystal, explored, first_candidates

GOOD = """
species = ["Si"]

[fit]
level = 8

[initial]
crystal = {name = "Si", structure = "diamond", a = 5.43}

[labelling]
type = "lammps"
commands = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]

[selection]
select = 2.0
break = 10.0

[[exploration]]
crystal = {name = "Si", structure = "diamond", a = 5.43}
temperatures = [300]
steps = 100
"""


@pytest.fixture
def settings(tmp_path):
    """Loads GOOD with a text of it replaced by another."""

    def make(old="", new=""):
        assert old in GOOD
        path = tmp_path / "learn.toml"
        path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return load(path, LearnSettings)

    return make


def test_good_settings_have_the_documented_defaults(settings):
    found = settings()
    assert (found.folder, found.rounds, found.seed) == (Path("run"), 20, 1)
    assert (found.fit.level, found.fit.cutoff, found.fit.radial_basis_size, found.fit.min_distance) == (8, 5, 8, None)
    assert (found.fit.weights.energy, found.fit.weights.force, found.fit.weights.stress) == (1, 0.01, 0.001)
    assert (found.fit.iterations, found.fit.tolerance) == (60, 2e-4)
    assert (found.labelling.time_limit, found.labelling.workers) == (3600, 1)
    assert (found.selection.select, found.selection.break_above) == (2, 10)
    assert (found.selection.mode, found.selection.interval) == ("neighbourhood", 10)
    assert (found.selection.per_round, found.selection.capacity) == (20, 200)
    assert found.exploration[0].pressure_GPa is None


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('species = ["Si"]', "", "species", "must be given"),
        ('species = ["Si"]', 'species = "Si"', "species", "array, found 'Si'"),
        ('species = ["Si"]', "species = []", "species", "at least 1 item"),
        ('species = ["Si"]', 'species = ["Sj"]', "species", "'Sj' is not an element's symbol"),
        ('species = ["Si"]', 'species = ["Si", "Si"]', "species", "named once"),
        ("[fit]", "rouns = 3\n[fit]", "rouns", "not known"),
        ("[fit]", "rounds = 0\n[fit]", "rounds", "greater than or equal to 1, found 0"),
        ("[fit]", "seed = true\n[fit]", "seed", "integer, found True"),
        ("level = 8", "level = 80", "fit.level", "less than or equal to 40, found 80"),
        ("level = 8", 'level = "8"', "fit.level", "integer, found '8'"),
        ("level = 8", "level = 8.5", "fit.level", "integer, found 8.5"),
        ("level = 8", "weights = {froce = 1}", "fit.weights.froce", "not known"),
        ("level = 8", "weights = {force = -1}", "fit.weights.force", "greater than or equal to 0, found -1"),
        (
            'crystal = {name = "Si", structure = "diamond", a = 5.43}\n\n[lab',
            "[lab",
            "initial",
            "`files`, `structures` or a `crystal`",
        ),
        ("a = 5.43", "a = -5.43", "initial.crystal.a", "greater than 0, found -5.43"),
        ("a = 5.43", "a = 5.43, repeat = [2, 2]", "initial.crystal.repeat[2]", "must be given"),
        ("a = 5.43", "a = 5.43, repeat = [2, 2, 0]", "initial.crystal.repeat[2]", "found 0"),
        ("[lab", "rattles = [-0.1]\n[lab", "initial.rattles[0]", "greater than or equal to 0, found -0.1"),
        ("[lab", 'vacancy = "no"\n[lab', "initial.vacancy", "boolean, found 'no'"),
        ('type = "lammps"', 'type = "abinit"', "labelling.type", "'vasp' or 'gaussian', found 'abinit'"),
        ('type = "lammps"', 'type = "vasp"', "labelling", "`command` must be given for the type 'vasp'"),
        ('type = "lammps"', 'type = "lammps"\ncommand = "a"', "labelling", "`command` does not go with the type"),
        ('type = "lammps"', 'type = "lammps"\nretry = ["luck"]', "labelling.retry[0]", "found 'luck'"),
        ('type = "lammps"', 'type = "lammps"\nexecutor = {type = "slurm"}', "labelling.executor", "an import path"),
        ('type = "lammps"', 'type = "ase"', "labelling", "`calculator` must be given for the type 'ase'"),
        ('type = "lammps"', 'type = "lammps"\nkeywords = {}', "labelling", "`keywords` does not go with"),
        ('type = "lammps"', 'type = "lammps"\ntime_limt = 3', "labelling.time_limt", "not known"),
        ('type = "lammps"', 'type = "lammps"\ntime_limit = 0', "labelling.time_limit", "greater than 0, found 0"),
        ('type = "lammps"', 'type = "lammps"\nworkers = "2"', "labelling.workers", "integer, found '2'"),
        ('commands = ["pair_style tersoff", ', "commands = [1, ", "labelling.commands[0]", "string, found 1"),
        ("break = 10.0", "break = 1.5", "selection", "`break` must not lie below `select`"),
        ("select = 2.0", "select = 0.5", "selection.select", "greater than 1, found 0.5"),
        ("select = 2.0", 'mode = "atom"', "selection.mode", "'neighbourhood' or 'configuration', found 'atom'"),
        ("temperatures = [300]", "temperatures = []", "exploration[0].temperatures", "at least 1 item"),
        ("temperatures = [300]", "temperatures = [0]", "exploration[0].temperatures[0]", "greater than 0, found 0"),
        ("temperatures = [300]", "temperatures = 300", "exploration[0].temperatures", "array, found 300"),
        ("steps = 100", "steps = 1e5", "exploration[0].steps", "integer, found 100000.0"),
        ("steps = 100", 'file = "a.cif"\nsteps = 100', "exploration[0]", "either a `crystal` or a `file`"),
        ("steps = 100", 'pressure_along = ["x"]\nsteps = 100', "exploration[0]", "goes with a `pressure_GPa`"),
        (
            "steps = 100",
            'pressure_GPa = 0\nstrain_rate = 0.1\npressure_along = ["x"]\nsteps = 100',
            "exploration[0]",
            "directions without a strain rate",
        ),
        ("[[exploration]]", "[exploration]", "exploration", "array, found a table"),
    ],
)
def test_a_mistake_is_named_by_file_and_key_with_what_was_found(settings, tmp_path, old, new, key, says):
    with pytest.raises(Error) as caught:
        settings(old, new)
    assert str(caught.value).startswith(f"{tmp_path / 'learn.toml'}: {key}: ")
    assert says in str(caught.value)
    assert str(caught.value).count("learn.toml") == 1


def test_several_mistakes_are_all_named(settings):
    with pytest.raises(Error) as caught:
        settings("level = 8", "level = 1\ncutof = 3\niterations = -1")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "fit.level",
        "fit.iterations",
        "fit.cutof",
    ]


def test_a_mistake_in_the_syntax_is_named_by_its_line(settings):
    with pytest.raises(Error, match=r"learn.toml: not valid TOML: .*line 5"):
        settings("level = 8", "level = = 8")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(Error, match=r"absent.toml: cannot be read: No such file or directory$"):
        load(tmp_path / "absent.toml", LearnSettings)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Error, match="bytes.toml: cannot be read: not text in UTF-8"):
        load(tmp_path / "bytes.toml", LearnSettings)
    with pytest.raises(Error, match="cannot be read"):
        load(tmp_path, LearnSettings)


def test_a_break_may_be_infinite(settings):
    assert settings("break = 10.0", "break = inf").selection.break_above == float("inf")


def test_paths_are_relative_to_the_settings_file(tmp_path):
    path = tmp_path / "learn.toml"
    path.write_text(
        GOOD.replace('crystal = {name = "Si", structure = "diamond", a = 5.43}', 'files = ["a.cfg"]', 1).replace(
            'crystal = {name = "Si", structure = "diamond", a = 5.43}', f'file = "{tmp_path / "b.cif"}"', 1
        )
    )
    found = load(path, LearnSettings).resolve(Path("somewhere"))
    assert found.folder == Path("somewhere/run")
    assert found.initial.files == [Path("somewhere/a.cfg")]
    assert found.exploration[0].file == tmp_path / "b.cif"  # an absolute path stays

    (tmp_path / "job.sh").touch()
    transport = '[transport]\ntype = "files"\ncommand = "sbatch --wait job.sh lmp"\n'
    path.write_text(GOOD + transport)
    command = load(path, LearnSettings).resolve(tmp_path).transport.command
    assert command == f"sbatch --wait {shlex.quote(str(tmp_path / 'job.sh'))} lmp"

    path.write_text('train = ["a.extxyz"]\nvalidation = ["b.extxyz"]\ninitial = "c.mtp"\n')
    fit = load(path, FitFile).resolve(Path("somewhere"))
    assert fit.train + fit.validation == [Path("somewhere/a.extxyz"), Path("somewhere/b.extxyz")]
    assert (fit.initial, fit.output) == (Path("somewhere/c.mtp"), Path("somewhere/potential.mtp"))


# ---- structures


@pytest.mark.parametrize(
    ("text", "n_atoms", "cubic"),
    [
        ('{name = "Si", structure = "diamond", a = 5.43}', 8, True),
        ('{name = "Si", structure = "diamond", a = 5.43, cubic = false}', 2, False),
        ('{name = "Ti", structure = "hcp", a = 2.95, c = 4.68}', 2, False),
        ('{name = "NaCl", structure = "rocksalt", a = 5.64, repeat = [1, 1, 2]}', 16, False),
    ],
)
def test_crystals_are_cubic_where_there_is_a_cubic_cell(settings, text, n_atoms, cubic):
    found = settings('{name = "Si", structure = "diamond", a = 5.43}', text)
    atoms = crystal(found.initial.crystal)
    assert len(atoms) == n_atoms
    assert (atoms.cell.cellpar() == [*[atoms.cell.cellpar()[0]] * 3, 90, 90, 90]).all() == cubic


@pytest.mark.parametrize("wrong", ["name = 'Xx', structure = 'fcc'", "name = 'Si', structure = 'glass'"])
def test_crystals_that_ase_does_not_know_are_refused(settings, wrong):
    found = settings('name = "Si", structure = "diamond"', wrong)
    with pytest.raises(Error, match="no crystal of '(Xx|Si)' with the structure '(fcc|glass)'"):
        crystal(found.initial.crystal)


def test_first_candidates_are_named_reproducible_and_never_empty(settings):
    def made(text):
        return list(first_candidates(settings("[lab", text + "\n[lab").initial, seed=3))

    candidates = made("")
    assert [name for name, _ in candidates] == [
        "crystal",
        *("strained by -0.03", "sheared by -0.03", "strained by 0.03", "sheared by 0.03"),
        *("rattled by 0.05 Å", "rattled by 0.15 Å", "vacancy"),
    ]
    assert [len(atoms) for _, atoms in candidates] == [8] * 7 + [7]
    assert all(a == b for (_, a), (_, b) in zip(candidates, made(""), strict=True))
    assert [name for name, _ in made("strains = []\nrattles = []\nvacancy = false")] == ["crystal"]
    single = settings('"Si", structure = "diamond", a = 5.43}', '"Cu", structure = "fcc", a = 3.6, cubic = false}')
    assert all(len(atoms) == 1 for _, atoms in first_candidates(single.initial, seed=3))  # no vacancy of nothing


def test_structures_to_explore_are_checked(tmp_path, random_atoms):
    def explore(*frames):
        for atoms in frames:
            atoms.write(tmp_path / "a.extxyz", append=True)
        return explored(Exploration(file=tmp_path / "a.extxyz", temperatures=[300], steps=1), ["Cu"])

    assert len(explore(random_atoms(("Cu",)))) == 8
    with pytest.raises(Error, match=r"a.extxyz: want one structure, found 2"):
        explore(random_atoms(("Cu",)))
    (tmp_path / "a.extxyz").unlink()
    with pytest.raises(Error, match=r"a.extxyz: .*periodic in three directions; add vacuum"):
        explore(random_atoms(("Cu",), pbc=False))
