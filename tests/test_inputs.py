# SPDX-License-Identifier: BSD-3-Clause
"""Every learning loop of lammps_inputs/ and every code block of README and docs runs, at toy size."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers

from mtp.configurations import with_labels, write
from mtp.labellers import LammpsLabeller
from mtp.potential import Potential
from mtp.settings import FitFile, LearnSettings, load
from mtp.uncertainty import Posterior

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOOPS = sorted((ROOT / "lammps_inputs").glob("*/learn*.toml"))
VALIDATION = {"validate.toml", "tersoff_properties.py"}  # run by tests/test_validation.py
CONDUCTIVITY = {"green_kubo.toml", "hnemd.toml", "nemd.toml"}  # read by tests/test_conductivity_settings.py
CONDUCTIVITY |= {"green_kubo.slurm", "green_kubo_gpu.slurm"}  # and these
CONDUCTIVITY |= {"bte_learn.toml", "green_kubo_learn.toml"}  # by tests/test_conductivity_learn.py
TERSOFF = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
TOY = [  # (pattern, replacement) in the settings of a learning loop
    (r"^level = .*$", "level = 4\nradial_basis_size = 4"),
    (r"^cutoff = .*$", "cutoff = 3.2"),
    (r"repeat = \[.*?\]", "repeat = [1, 1, 1]"),
    (r"^strains = .*$", "strains = [0.02]"),
    (r"^rattles = .*$", "rattles = [0.03]"),
    (r"^temperatures = .*$", "temperatures = [100]"),
    (r"^steps = .*$", "steps = 50"),
    (r"^pressure_GPa = .*$", "pressure_GPa = 0"),
    (r"(?s)^\[labelling\].*?(?=^\[selection\])", f'[labelling]\ntype = "lammps"\ncommands = {TERSOFF!r}\n\n'),
]


def toy_loop(path: Path) -> str:
    text = path.read_text()
    for pattern, replacement in TOY:
        text = re.sub(pattern, replacement.replace("\\", r"\\"), text, flags=re.MULTILINE)
    return text


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the code blocks; where it is not named, the text tells."""
    text = page.read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:(?<=\n\n)|\A)((?:    .*\n|\n(?=    ))+)", rest)
    kinds = {"python": r"^(from|import) ", "lammps": r"^pair_coeff .*\.a?l?mtp ", "sh": r"^mtp "}
    found = []
    for language, block in fenced + [("", textwrap.dedent(block)) for block in indented]:
        told = (kind for kind, pattern in kinds.items() if re.search(pattern, block, re.MULTILINE))
        found.append((next(told, "") if language in ("", "text") else language, block))
    return found


def all_blocks(*languages: str) -> list:
    found = []
    for page in PAGES:
        for number, (language, text) in enumerate(blocks(page)):
            if language in languages:
                found.append(pytest.param(text, id=f"{page.name}-{number}"))
    return found


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A folder with what the pages name: labelled and unlabelled data, and potentials."""
    folder = tmp_path_factory.mktemp("toys")
    labeller = LammpsLabeller(TERSOFF, ["Si"])
    rng = np.random.default_rng(1)
    data = []
    for _ in range(30):
        atoms = bulk("Si", a=5.43 * rng.uniform(0.98, 1.02), cubic=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        data.append(with_labels(atoms, labeller.label(atoms)))
    write(folder / "train.extxyz", data[:20])
    write(folder / "test.extxyz", data[20:25])
    write(folder / "md.extxyz", [atoms.copy() for atoms in data[25:]])
    write(folder / "start.extxyz", [atoms.copy() for atoms in data[25:28]])
    write(folder / "large.extxyz", [bulk("Si", cubic=True) * (4, 4, 4)])
    return folder


def toy_potential(species: list[str], path: Path) -> None:
    """A weak potential, with an active set for which nothing extrapolates much."""
    potential = Potential.new(level=4, species=species, cutoff=4.0, min_distance=1.5, n_chebyshev=4)
    potential.parameters = 1e-2 * np.random.default_rng(2).normal(0, 0.3, potential.facts.n_parameters)
    rng = np.random.default_rng(3)
    configurations = []
    for _ in range(40):
        atoms = bulk("Si", cubic=True)
        atoms.symbols = rng.choice(species, len(atoms))
        atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
        configurations.append(atoms)
    if path.suffix == ".almtp":
        potential.select(configurations)
        potential.set_active_set(10 * potential.active_set, "neighbourhood")
    potential.save(path)


def toy_posterior(path: Path) -> None:
    """Beside a potential, with coefficients that are independent of each other."""
    potential = Potential.load(path)
    linear = potential.facts.n_species + potential.facts.n_scalar
    Posterior(potential, 1e-6 * np.eye(linear)).save(path.with_suffix(".posterior.npz"))


def run(folder: Path, *command) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- lammps_inputs


@pytest.mark.parametrize("path", LOOPS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_learning_loop_runs(path, tmp_path):
    found = load(path, LearnSettings)
    if found.labelling.type == "ase":
        assert found.labelling.calculator in ("gpaw.GPAW", "espresso")  # run by tests/test_dft.py
    (tmp_path / path.name).write_text(toy_loop(path))
    toy = load(tmp_path / path.name, LearnSettings)
    assert (toy.fit.level, toy.exploration[0].steps, toy.labelling.type) == (4, 50, "lammps")
    assert "learned in" in run(tmp_path, BIN / "mtp", "learn", path.name)
    assert (tmp_path / toy.folder / "potential.mtp").exists()


def test_every_other_file_belongs_to_the_numbered_inputs():
    """Those are run by tests/test_story.py."""
    for folder, _, files in os.walk(ROOT / "lammps_inputs"):
        if "run" not in Path(folder).relative_to(ROOT).parts:
            for name in set(files) - VALIDATION - CONDUCTIVITY:
                assert re.fullmatch(r"(\d\d_\w+\.in|\w+\.mtp|\w+\.almtp|learn\w*\.toml|README\.md)", name), name


# ---- pages


@pytest.mark.parametrize("text", all_blocks("python"))
def test_python_blocks_run(text, toys, tmp_path):
    shutil.copytree(toys, tmp_path, dirs_exist_ok=True)
    for name in set(re.findall(r'"([\w.]+\.a?l?mtp)"', text)):
        toy_potential(["Si"], tmp_path / name)
    for name in set(re.findall(r'"(\w+)\.posterior\.npz"', text)):
        toy_posterior(tmp_path / f"{name}.mtp")
    run(tmp_path, sys.executable, "-W", "error", "-c", text)


@pytest.mark.parametrize("text", all_blocks("lammps"))
def test_lammps_blocks_run(text, tmp_path):
    ((file, elements),) = re.findall(r"^pair_coeff .*?(\w+\.a?l?mtp) (.*)$", text, re.MULTILINE)
    species = elements.split()
    toy_potential(sorted({name for name in species if name != "NULL"}), tmp_path / file)
    masses = [f"mass {k} {atomic_masses[atomic_numbers[name]]}" for k, name in enumerate(species, 1) if name != "NULL"]
    (tmp_path / "in.lmp").write_text(
        f"units metal\nlattice diamond 5.43\nregion box block 0 2 0 2 0 2\ncreate_box {len(species)} box\n"
        f"create_atoms 1 box\n{chr(10).join(masses)}\n{text}\nfix move all nve\nrun 10\n"
    )
    run(tmp_path, BIN / "lmp", "-in", "in.lmp", "-log", "none")


def commands(text: str) -> list[str]:
    return [line.partition("#")[0].strip() for line in text.splitlines() if line.strip().startswith("mtp ")]


def test_commands_run(toys, tmp_path):
    """Those of README's table, in its order; of other blocks, as far as the same files serve them."""
    readme = (ROOT / "README.md").read_text()
    table = re.findall(r"^\| `(mtp [^`]*)` \|", readme, re.MULTILINE)
    assert len(table) >= 6
    shutil.copytree(toys, tmp_path, dirs_exist_ok=True)
    (tmp_path / "learn.toml").write_text(toy_loop(ROOT / "lammps_inputs" / "silicon" / "learn.toml"))
    crystal = '{name = "Si", structure = "diamond", a = 5.43}'
    (tmp_path / "validate.toml").write_text(f'[[structures]]\ncrystal = {crystal}\nproperties = ["lattice"]\n')
    for command in table:
        words = command.replace("--level 12", "--level 4").split()
        output = run(tmp_path, BIN / "mtp", *words[1:], *(["--iterations", "3"] if words[1] == "fit" else []))
        if words[1] == "fit":
            assert "validation" in output
    for file in ("si.mtp", "si_report/report.html", "errors.json", "si.almtp", "chosen.extxyz", "graded.extxyz"):
        assert (tmp_path / file).exists(), file
    assert (tmp_path / "run" / "potential.mtp").exists()


def test_commands_in_blocks_exist():
    known = subprocess.run([BIN / "mtp", "--help"], capture_output=True, text=True, check=True).stdout
    for page in PAGES:
        for language, text in blocks(page):
            for command in commands(text) if language == "sh" else []:
                assert re.search(rf"\b{command.split()[1]}\b", known), f"{page.name}: {command}"


def test_links_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("page", "model", "tables"),
    [
        (
            "learning.md",
            LearnSettings,
            ("InitialData", "Labelling", "Executor", "Selection", "Transport", "Target", "Exploration"),
        ),
        ("fitting.md", FitFile, ("FitSettings", "Weights")),
    ],
)
def test_every_key_of_the_settings_is_in_the_docs(page, model, tables):
    text = (ROOT / "docs" / page).read_text()
    documented = set(re.findall(r"`([a-zA-Z0-9_]+)`", text.split("## Settings")[1].split("\n## ")[0]))
    schema = model.model_json_schema(by_alias=True)
    keys = set(schema["properties"])
    for name in tables:
        keys |= set(schema["$defs"][name]["properties"])
    assert keys - documented - {"fit", "weights", "initial", "labelling", "selection", "exploration"} == set()
