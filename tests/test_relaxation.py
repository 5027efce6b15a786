# SPDX-License-Identifier: BSD-3-Clause
"""Relaxation of many structures: where they end, that they do not see each other, and what learns on their way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa

from mtp.calculator import MTP
from mtp.configurations import Labels, read, with_labels, write
from mtp.database import Dataset
from mtp.errors import DataError, Error
from mtp.fit import FitSettings, fit
from mtp.learning.relaxations import Plan, RelaxationWalk
from mtp.relaxation import Goal, relax
from mtp.settings import LearnSettings, Selection, checked

BIN = Path(sys.executable).parent
GOAL = Goal(force=1e-4, stress=1e-3 * GPa)


def labelled(atoms: Atoms) -> Atoms:
    atoms.calc = LennardJones(sigma=2.3, epsilon=0.4, rc=4.6, smooth=True)
    return with_labels(atoms, Labels(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))


def deformed(structure: str, a: float, repeat: tuple[int, int, int], seed: int, size: float = 1.0) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", structure, a=a).repeat(repeat)
    atoms.set_cell(atoms.cell @ (np.eye(3) + size * rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
    atoms.positions += size * rng.normal(0, 0.05, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def data():
    cells = [deformed("fcc", a, (2, 2, 2), k) for k, a in enumerate(np.linspace(3.4, 3.9, 16))]
    return [labelled(atoms) for atoms in cells]


@pytest.fixture(scope="module")
def potential(data):
    fitted = fit(data, FitSettings(level=6, cutoff=4.6, radial_basis_size=6, iterations=25, threads=1))
    fitted.select(data)
    return fitted


@pytest.fixture(scope="module")
def structures():
    return [deformed("fcc", 3.6, repeat, 20 + k, 0.5) for k, repeat in enumerate([(1, 1, 1), (2, 1, 1), (2, 2, 2)])]


def test_relaxed_structures_have_no_forces_and_the_stress_that_is_wanted(potential, structures):
    for pressure in (0.0, 2 * GPa):
        goal = Goal(force=1e-4, stress=1e-3 * GPa, pressure=pressure)
        for atoms in relax(potential, structures, goal):
            found = potential.evaluate(atoms)
            assert atoms.info["relaxed"]
            assert np.linalg.norm(found.forces, axis=1).max() <= 1e-4
            # ASE's stress of a compressed cell is negative
            assert np.abs(found.stress + pressure * np.array([1, 1, 1, 0, 0, 0])).max() <= 1e-3 * GPa
            # the same numbers from other company in the lanes
            assert atoms.get_potential_energy() == pytest.approx(found.energy, abs=1e-10)
            np.testing.assert_allclose(atoms.get_forces(), found.forces, atol=1e-10)
            np.testing.assert_allclose(atoms.get_stress(), found.stress, atol=1e-10)
            assert atoms.info["grade"] == pytest.approx(potential.grade(atoms).maximum, rel=1e-6)


def test_the_minimum_is_that_of_ase(potential, structures):
    for atoms, relaxed in zip(structures, relax(potential, structures, GOAL), strict=True):
        other = atoms.copy()
        other.calc = MTP(potential)
        assert BFGS(FrechetCellFilter(other), logfile=None).run(fmax=1e-4, steps=300)
        # forces below 1e-4 eV/Å leave their square over the stiffness
        assert relaxed.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-6)
        assert relaxed.get_volume() == pytest.approx(other.get_volume(), rel=1e-3)


def test_structures_do_not_see_each_other(potential, structures):
    together = relax(potential, structures, GOAL)
    for atoms, beside in zip(structures, together, strict=True):
        (alone,) = relax(potential, [atoms], GOAL)
        assert alone.info["steps"] == beside.info["steps"]
        np.testing.assert_allclose(alone.positions, beside.positions, atol=1e-8)  # rounding, through all steps


def test_a_turned_structure_relaxes_to_the_same(potential, structures, rotation):
    atoms = structures[1].copy()
    atoms.set_cell(atoms.cell @ rotation(3).T, scale_atoms=True)
    there, here = relax(potential, [atoms, structures[1]], GOAL)
    assert there.get_potential_energy() == pytest.approx(here.get_potential_energy(), abs=1e-6)


def test_cells_stay_where_they_are_to_or_are_not_periodic(potential, structures):
    (fixed,) = relax(potential, structures[2:], Goal(force=1e-3, cell=False))
    np.testing.assert_array_equal(fixed.cell, structures[2].cell)
    assert fixed.info["relaxed"]
    cluster = Atoms("Cu4", structures[2].positions[:4])
    (relaxed,) = relax(potential, [cluster], Goal(force=1e-3))
    assert relaxed.cell.rank == 0
    assert relaxed.info["relaxed"]
    assert "stress" not in relaxed.calc.results


def test_no_steps_only_evaluate(potential, structures):
    for atoms, same in zip(structures, relax(potential, structures, Goal(steps=0)), strict=True):
        np.testing.assert_array_equal(atoms.positions, same.positions)
        assert same.get_potential_energy() == pytest.approx(potential.evaluate(atoms).energy)
        assert same.info["steps"] == 0


def test_what_cannot_be_evaluated_is_told_and_the_others_go_on(potential, structures):
    bad = structures[1].copy()
    bad.positions[1] = bad.positions[0]
    first, failed, last = relax(potential, [structures[0], bad, structures[2]], GOAL)
    assert first.info["relaxed"]
    assert last.info["relaxed"]
    assert "same place" in failed.info["failure"]
    assert failed.calc is None
    with pytest.raises(DataError, match="Au"):
        relax(potential, [Atoms("Au")], GOAL)


# ---- the command


def test_the_command_relaxes_and_writes(mtp, tmp_path, potential, structures):
    potential.save(tmp_path / "a.almtp")
    write(tmp_path / "start.extxyz", structures)
    options = ["-o", "end.extxyz", "--json", "end.json", "--force", "0.001", "--stress", "0.01"]
    done = mtp(tmp_path, "relax", "a.almtp", "start.extxyz", *options)
    assert done.returncode == 0, done.stderr
    assert "relaxed 3 of 3 structures" in done.stdout
    rows = json.loads((tmp_path / "end.json").read_text())["structures"]
    for atoms, row in zip(read(tmp_path / "end.extxyz"), rows, strict=True):
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 1e-3
        assert row["energy_eV"] == pytest.approx(atoms.get_potential_energy(), abs=1e-7)  # decimals of the file
    for wrong in (["a.almtp"], ["--learn", "x.toml", "a.almtp"], []):
        done = mtp(tmp_path, "relax", *wrong)
        assert done.returncode == 1
        assert done.stderr.startswith("mtp: ")


# ---- learning


LEARN = """
species = ["Si"]
rounds = 15

[fit]
level = 6
cutoff = 4.0
radial_basis_size = 6
iterations = 15
threads = 1

[initial]
crystal = {name = "Si", structure = "diamond", a = 5.432}

[labelling]
type = "lammps"
commands = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]

[selection]
select = 3

[[relaxation]]
file = "prototypes.extxyz"
force = 0.02
steps = 200
"""


def prototypes() -> list[Atoms]:
    rng = np.random.default_rng(3)
    made = []
    for structure, a in (("diamond", 5.6), ("diamond", 5.3), ("sc", 2.5), ("bct", 3.3), ("fcc", 4.1)):
        atoms = bulk("Si", structure, a=a, **({"c": 2.6} if structure == "bct" else {})).repeat((2, 1, 1))
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        made.append(atoms)
    return made


def begin(folder: Path, text: str = LEARN) -> Path:
    write(folder / "prototypes.extxyz", prototypes())
    (folder / "relax.toml").write_text(text)
    return folder


def labels(folder: Path) -> list[Atoms]:
    return Dataset(folder / "run" / "dataset.db").labelled()


@pytest.fixture(scope="module")
def finished(mtp, tmp_path_factory):
    folder = begin(tmp_path_factory.mktemp("learned"))
    done = mtp(folder, "relax", "--learn", "relax.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prototypes.extxyz: run/relaxed_0.extxyz" in done.stdout
    return folder


def test_learning_ends_when_all_relax_within_what_is_known(mtp, finished, tmp_path):
    relaxed = read(finished / "run" / "relaxed_0.extxyz")
    rounds = json.loads((finished / "run" / "rounds.json").read_text())
    assert len(relaxed) == len(prototypes())
    assert rounds[-1]["converged"]
    assert rounds[-1]["highest_grade"] <= 3
    assert max(record["highest_grade"] for record in rounds) > 10  # there was something to learn
    # the last pass is that of the final potential alone
    command = [
        finished / "run" / "potential.almtp",
        finished / "prototypes.extxyz",
        "--force",
        "0.02",
        "--steps",
        "200",
    ]
    assert mtp(tmp_path, "relax", *command, "-o", "again.extxyz").returncode == 0
    for atoms, again in zip(relaxed, read(tmp_path / "again.extxyz"), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-6)
        assert atoms.info["grade"] <= 3


def test_any_number_of_ranks_learns_the_same(mtp, finished, tmp_path):
    begin(tmp_path)
    done = mtp(tmp_path, "relax", "--learn", "relax.toml", ranks=3)
    assert done.returncode == 0, done.stdout + done.stderr
    for one, many in zip(labels(finished), labels(tmp_path), strict=True):
        np.testing.assert_allclose(one.positions, many.positions, atol=1e-8)
    pairs = zip(*(read(folder / "run" / "relaxed_0.extxyz") for folder in (finished, tmp_path)), strict=True)
    for one, many in pairs:
        assert one.get_potential_energy() == pytest.approx(many.get_potential_energy(), abs=1e-8)


def test_learning_that_is_killed_goes_on(mtp, finished, tmp_path):
    begin(tmp_path)
    command = [BIN / "mtp", "relax", "--learn", "relax.toml"]
    rounds = tmp_path / "run" / "rounds.json"
    for n_rounds in (1, 2):
        running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 100
        while not (rounds.exists() and len(json.loads(rounds.read_text())) >= n_rounds) and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    done = mtp(tmp_path, "relax", "--learn", "relax.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    for one, other in zip(labels(finished), labels(tmp_path), strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-8)


def test_a_list_is_graded_where_it_stands(mtp, tmp_path):
    begin(tmp_path, LEARN.replace("force = 0.02\nsteps = 200", "steps = 0"))
    done = mtp(tmp_path, "learn", "relax.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    graded = read(tmp_path / "run" / "relaxed_0.extxyz")
    for atoms, start in zip(graded, prototypes(), strict=True):
        np.testing.assert_allclose(atoms.positions, start.positions, atol=1e-7)  # decimals of the file
        assert atoms.info["grade"] <= 3


def walk(structures: list[Atoms], folder: Path, **limits) -> RelaxationWalk:
    plan = Plan("test", structures, Goal(steps=300), "relaxed_0.extxyz")
    return RelaxationWalk(plan, Selection.model_validate(limits), folder, MPI.COMM_SELF)


def test_a_structure_that_breaks_goes_on_from_where_it_could_be_trusted(potential, structures, tmp_path):
    far = structures[1].copy()
    far.set_cell(0.84 * far.cell, scale_atoms=True)
    started = potential.grade(far).maximum
    assert started > 2
    going = walk([structures[0], far], tmp_path, select=1.5, **{"break": 0.9 * started})
    going.begin(potential, Path("unused"), 0)
    passage = going.go_on()
    assert not passage.complete
    assert passage.break_step == passage.end > 1
    assert passage.highest_grade == pytest.approx(started)
    (flagged,) = passage.flagged
    assert flagged.info["step"] == "0 of structure 2"
    np.testing.assert_allclose(flagged.positions, far.positions)
    assert not (tmp_path / "relaxed_0.extxyz").exists()
    wiser = potential.copy()
    wiser.select([far])
    assert going.take(wiser, Path("unused")) == passage.end
    passage = going.go_on()
    assert passage.finished
    assert passage.break_step is None
    assert sum(passage.histogram) == passage.end - passage.begin  # every step was graded
    relaxed = read(tmp_path / "relaxed_0.extxyz")
    assert [atoms.info["relaxed"] for atoms in relaxed] == [True, True]


def test_of_each_structure_the_most_extrapolative_configuration_is_kept(potential, structures, tmp_path):
    far = structures[1].copy()
    far.set_cell(0.86 * far.cell, scale_atoms=True)
    going = walk([far, structures[0], far], tmp_path, select=1.01, capacity=1, **{"break": 1e6})
    going.begin(potential, Path("unused"), 0)
    passage = going.go_on()
    assert passage.finished
    assert len(passage.flagged) == 1
    assert passage.n_dropped == 2  # the other one, and what the middle one met
    assert passage.flagged[0].info["grade"] == passage.highest_grade
    assert passage.flagged[0].info["step"].endswith("structure 1")  # of two alike the first
    going.close()


def test_settings_that_make_no_sense_are_refused(mtp, tmp_path):
    begin(tmp_path, LEARN.replace("[[relaxation]]", "[[exploration]]"))
    done = mtp(tmp_path, "relax", "--learn", "relax.toml")
    assert done.returncode == 1
    content = {"species": ["Si"], "initial": {"files": ["a"]}, "labelling": {"type": "ase", "calculator": "lj"}}
    with pytest.raises(Error, match="an `exploration` or a `relaxation`"):
        checked(content, LearnSettings, "test")
    begin(tmp_path, LEARN.replace('species = ["Si"]', 'species = ["C"]').replace('name = "Si"', 'name = "C"'))
    done = mtp(tmp_path, "relax", "--learn", "relax.toml")
    assert done.returncode == 1
    assert "Si" in done.stderr
