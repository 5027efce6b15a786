# SPDX-License-Identifier: BSD-3-Clause
"""VASP and Gaussian by their files: the inputs say what was asked, and only an answer to that is taken.

The engines are not here: a script in their place checks that its input is there, and writes output that has the
structure of theirs (see test_readers), with labels of a pair potential.
"""

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read as ase_read

from mtp.errors import Error, LabellingError
from mtp.label_process import LabelProcess
from mtp.labellers import make_labeller

# argv: the engine, and what is wrong with it
ENGINE = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
import numpy as np
import test_readers
from ase.calculators.lj import LennardJones
from ase.io import read
from mtp.configurations import Labels, with_labels

engine, fault = sys.argv[1:3]
if fault == "crash":
    print("segmentation fault")
    sys.exit(139)
atoms = read("POSCAR" if engine == "vasp" else sys.argv[3])
if engine == "vasp":
    assert Path("POTCAR").read_text() == "POTCAR of Ni_pv\\nPOTCAR of O\\n"
    assert Path("INCAR").read_text().split() == "ENCUT = 400 ISMEAR = 0 LREAL = .FALSE.".split()
    assert Path("KPOINTS").read_text().split()[-6:] == "2 2 3 0 0 0".split()
else:
    text = Path(sys.argv[3]).read_text()
    assert "B3LYP/6-31G*" in text and "force" in text and "nosymm" in text and "0 1" in text
if fault == "other":
    atoms.positions[0] += 0.01
atoms.calc = LennardJones(sigma=1.8, epsilon=0.3, rc=5.0)
stress = atoms.get_stress() if atoms.pbc.all() else None
atoms = with_labels(atoms, Labels(atoms.get_potential_energy(), atoms.get_forces(), stress))
unconverged = (1,) if fault == "unconverged" else ()
if engine == "vasp" and fault == "outcar":
    Path("OUTCAR").write_text(test_readers.outcar([atoms]))
elif engine == "vasp":
    text = test_readers.vasprun([atoms], unconverged)
    Path("vasprun.xml").write_text(text[: len(text) // 2] if fault == "cut" else text)
else:
    lines = test_readers.gaussian([atoms], kinds=("Input",))
    if fault == "unconverged":
        place = next(k for k, line in enumerate(lines) if "SCF Done" in line)
        failure = " Convergence failure -- run terminated."
        lines[place:] = [" Convergence criterion not met.", lines[place], failure]
    Path(sys.argv[3]).with_suffix(".log").write_text("\\n".join(lines) + "\\n")
    sys.exit(fault == "unconverged")
"""


def oxide() -> Atoms:
    """Two elements whose atoms come mixed, in a triclinic cell, one outside of it."""
    cell = [[3.9, 0.1, 0.3], [-0.2, 4.1, 0.2], [0.5, -0.3, 6.3]]
    return Atoms("NiONi", [[0.1, 0.2, 0.1], [2.0, 2.1, 0.3], [2.1 - 3.9, 0.3, 2.2]], cell=cell, pbc=True)


def water() -> Atoms:
    return Atoms("HOH", [[0.8, 0.1, 0.5], [0, 0, 0], [-0.7, 0.2, 0.6]])


@pytest.fixture
def vasp(tmp_path):
    for setup in ("Ni_pv", "O"):
        (tmp_path / "potcars" / setup).mkdir(parents=True)
        (tmp_path / "potcars" / setup / "POTCAR").write_text(f"POTCAR of {setup}\n")
    return {
        "type": "vasp",
        "species": ["Ni", "O"],
        "potcars": str(tmp_path / "potcars"),
        "setups": {"Ni": "Ni_pv"},
        "incar": {"encut": 400, "ISMEAR": 0, "LREAL": ".FALSE."},
        "kpoints": [2, 2, 3],
    }


@pytest.fixture
def engine(tmp_path, request):
    """Makes the command that stands in the engine's place."""
    script = tmp_path / "engine.py"
    script.write_text(ENGINE.format(path=[str(request.path.parent), *sys.path]))
    return lambda name, fault="none": f"{sys.executable} {script} {name} {fault}"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def assert_labels(found, atoms, stress=True):
    atoms = atoms.copy()
    atoms.calc = LennardJones(sigma=1.8, epsilon=0.3, rc=5.0)
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)  # of the digits that are printed
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-5)
    if stress:
        np.testing.assert_allclose(found.stress, atoms.get_stress(), rtol=0, atol=1e-7)
    else:
        assert found.stress is None


@pytest.mark.parametrize("fault", ["none", "outcar"])
def test_vasp_s_labels_come_back_in_the_order_of_the_atoms(vasp, engine, folder, fault):
    labeller = make_labeller(vasp | {"command": engine("vasp", fault)})
    assert_labels(labeller.label(oxide(), str(folder)), oxide())
    assert ase_read(folder / "POSCAR").get_chemical_symbols() == ["Ni", "Ni", "O"]


def test_gaussian_s_labels_are_those_of_the_molecule(engine, folder):
    keywords = {"method": "B3LYP", "basis": "6-31G*", "mem": "1GB"}
    labeller = make_labeller({"type": "gaussian", "command": engine("gaussian"), "keywords": keywords})
    assert_labels(labeller.label(water(), str(folder)), water(), stress=False)


@pytest.mark.parametrize(
    ("name", "fault", "reason", "says"),
    [
        ("vasp", "crash", "crashed", "exit status 139.*segmentation fault"),
        ("vasp", "unconverged", "not converged", "vasprun.xml: electronic steps not converged"),
        ("vasp", "cut", "crashed", "vasprun.xml"),
        ("vasp", "other", "nonsense", "another configuration"),
        ("gaussian", "crash", "crashed", r"no candidate\.log: .*segmentation fault"),
        ("gaussian", "unconverged", "not converged", "candidate.log: electronic steps not converged"),
        ("gaussian", "other", "nonsense", "another configuration"),
    ],
)
def test_what_is_no_answer_is_refused_with_its_reason(vasp, engine, folder, name, fault, reason, says):
    settings = vasp if name == "vasp" else {"type": "gaussian", "keywords": {"method": "B3LYP", "basis": "6-31G*"}}
    labeller = make_labeller(settings | {"command": engine(name, fault)})
    with pytest.raises(LabellingError, match=says) as caught:
        labeller.label(oxide() if name == "vasp" else water(), str(folder))
    assert caught.value.reason == reason


def test_vasp_s_settings_are_checked_before_it_runs(vasp, tmp_path, folder):
    known = vasp | {"command": "vasp_std"}
    for change, says in [
        ({"setups": {}}, r"potcars/Ni/POTCAR: No such file.*`setups`"),
        ({"incar": {"NSW": 10}}, "NSW must be 0"),
        ({"kpoints": [2, 2]}, "three numbers"),
        ({"kpoints": [2, 2, "3"]}, "a list of whole numbers"),
        ({"potcars": str(tmp_path / "absent")}, "absent/Ni_pv/POTCAR: No such file"),
    ]:
        with pytest.raises(Error, match=says):
            make_labeller(known | change)
    fingerprint = make_labeller(known).fingerprint
    assert make_labeller(known | {"command": "mpirun -n 64 vasp_std"}).fingerprint == fingerprint
    assert make_labeller(known | {"kpoints": [1, 1, 1]}).fingerprint != fingerprint
    (tmp_path / "potcars" / "O" / "POTCAR").write_text("POTCAR of another edition\n")
    assert make_labeller(known).fingerprint != fingerprint
    for atoms, says in [(bulk("Si"), "no such species: Si"), (Atoms("O"), "periodic"), (oxide(), "No such file")]:
        with pytest.raises(LabellingError, match=says):
            make_labeller(known | {"command": "no_such_program"}).label(atoms, str(folder))


def test_a_process_ends_an_engine_that_takes_too_long(vasp, tmp_path, folder):
    mark = tmp_path / "began"
    slow = f"{sys.executable} -c 'import pathlib, time; pathlib.Path(\"{mark}\").touch(); time.sleep(100)'"
    with LabelProcess(vasp | {"command": slow}) as process:
        with pytest.raises(LabellingError, match="no answer within") as caught:
            process.label(oxide(), 3, str(folder))
        assert caught.value.reason == "time limit"
    assert mark.exists()
