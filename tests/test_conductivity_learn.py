# SPDX-License-Identifier: BSD-3-Clause
"""`mtp conductivity … --learn`: what a calculation of κ meets is learned until κ has converged, and nothing that it met
is lost."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
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

pytest.importorskip("phono3py", reason='needs phono3py: pip install "pair-mtp[conductivity]"')

from mtp.conductivity.bte import bte
from mtp.conductivity.bte_settings import BteSettings
from mtp.conductivity.green_kubo import green_kubo
from mtp.conductivity.learning import outcome_of, read
from mtp.conductivity.settings import GreenKubo
from mtp.conductivity.watch import Unsound, met
from mtp.configurations import write
from mtp.database import Dataset
from mtp.errors import Error
from mtp.learning.choice import nearest
from mtp.learning.errand import weighed
from mtp.potential import Potential
from mtp.settings import Cutting, Selection, checked

INPUTS = Path(__file__).parents[1] / "lammps_inputs" / "conductivity"
TERSOFF = 'type = "lammps"\ncommands = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]'
PHONONS = """
crystal = {name = "Si", structure = "diamond", a = 5.43}
%s

[force_constants]
supercell = [1, 1, 1]

[transport]
meshes = [5]
"""
SILICON = f"""
[learn]
species = ["Si"]

[learn.fit]
level = 8
cutoff = 3.2

[learn.initial]
crystal = {{name = "Si", structure = "diamond", a = 5.432}}
strains = [0.02]
rattles = []
vacancy = false

[learn.labelling]
{TERSOFF}

[learn.selection]
per_round = 5
"""
ARGON = """
folder = "gk"
crystal = {name = "Ar", structure = "fcc", a = 5.4}
repeat = [2, 2, 2]
temperature = 50
timestep = 0.004
equilibration = 1.2
runs = 2
time = 8
chunk = 1.6
interval = 0.02

[learn]
species = ["Ar"]

[learn.fit]
level = 4
cutoff = 6
radial_basis_size = 6

[learn.initial]
crystal = {name = "Ar", structure = "fcc", a = 5.4, repeat = [2, 2, 2]}
strains = [0.02]
rattles = [0.03]
vacancy = false

[learn.labelling]
type = "lammps"
commands = ["pair_style lj/cut 6.0", "pair_coeff * * 0.0104233 3.40"]

[learn.selection]
per_round = 5
break = 5
"""


def quiet(*progress) -> None:
    pass


def from_files(potential: str) -> str:
    """Settings of phonons that begin with a potential and the data of si.cfg."""
    text = PHONONS % potential + SILICON
    start, end = text.index("crystal = {", text.index("[learn.initial]")), text.index("[learn.labelling]")
    return text[:start] + 'files = ["si.cfg"]\n\n' + text[end:]


def learns(mtp, folder: Path, method: str, text: str, **options) -> dict:
    (folder / "kappa.toml").write_text(text)
    done = mtp(folder, "conductivity", method, "kappa.toml", "--learn", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return result_of(folder)


def result_of(folder: Path) -> dict:
    (found,) = folder.glob("*/result.json")
    return json.loads(found.read_text())


@pytest.fixture(scope="module")
def phonons(mtp, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phonons")
    learns(mtp, folder, "bte", PHONONS % "" + SILICON)
    return folder


@pytest.fixture(scope="module")
def argon(mtp, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("argon")
    learns(mtp, folder, "green-kubo", ARGON)
    return folder


# ---- phonons


def test_kappa_of_phonons_converges_towards_that_of_the_reference(phonons, tmp_path):
    told = checked(
        {"folder": str(tmp_path), "crystal": {"name": "Si", "structure": "diamond", "a": 5.43}}
        | {"reference": {"type": "lammps", "commands": ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]}}
        | {"force_constants": {"supercell": [1, 1, 1]}, "transport": {"meshes": [5]}},
        BteSettings,
        "reference",
    )
    reference = bte(told)["kappa_W_mK"][0][0]
    result = result_of(phonons)
    kappas = [r["values"][0] for r in result["learning"] if r["values"] is not None]
    assert kappas[-1] == pytest.approx(result["kappa_W_mK"][0][0], rel=1e-6)
    assert abs(kappas[-1] - reference) < 0.5 * abs(kappas[0] - reference)
    assert abs(kappas[-1] / reference - 1) < 0.35  # of a form of level 8


def test_the_last_round_extrapolates_nowhere_and_changed_kappa_by_less_than_may_be(phonons):
    rounds = result_of(phonons)["learning"]
    assert len(rounds) > 2
    assert rounds[0]["highest_grade"] > 2  # what it began with was poor
    last = rounds[-1]
    assert last["highest_grade"] <= 2
    assert last["changes"][0] < last["allowed"][0] == pytest.approx(0.01 * last["values"][0])
    labels = [r["labels"] for r in rounds]
    assert labels == [3, *(n + r["selected"] for n, r in zip(labels, rounds[:-1], strict=False))]


def test_the_error_has_its_parts(phonons):
    result = result_of(phonons)
    parts = result["uncertainty"]
    assert set(parts) == {"names", "statistics", "size", "mesh", "displacement", "potential", "total"}
    assert parts["names"] == ["300 K"]
    assert parts["potential"] == parts["total"] == result["learning"][-1]["changes"]
    assert [parts[name] for name in ("statistics", "size", "mesh", "displacement")] == [None] * 4


def test_two_ranks_learn_the_same_conductivity_of_phonons(phonons, mtp, tmp_path):
    one, two = result_of(phonons), learns(mtp, tmp_path, "bte", PHONONS % "" + SILICON, ranks=2)
    assert len(one["learning"]) == len(two["learning"])
    for a, b in zip(one["learning"], two["learning"], strict=True):
        assert a["selected"] == b["selected"]
        assert a["values"] == pytest.approx(b["values"], rel=1e-6)


def test_a_finished_calculation_goes_on_where_it_is_asked_for_more(phonons, mtp, tmp_path):
    shutil.copytree(phonons, tmp_path, dirs_exist_ok=True)
    rounds = len(result_of(tmp_path)["learning"])
    again = learns(mtp, tmp_path, "bte", PHONONS % "" + SILICON)
    assert len(again["learning"]) == rounds
    text = (PHONONS % "" + SILICON).replace("[5]", "[5]\ntemperatures = [300, 600]")
    more = learns(mtp, tmp_path, "bte", text.replace("[learn]", "[learn]\nsamples = 2"))
    assert len(more["learning"]) > rounds
    parts = more["uncertainty"]
    assert parts["names"] == ["300 K", "600 K"]
    # of the posterior, which two samples hardly tell, or of the last round
    drawn = [np.mean(std[:3]) for std in more["uncertainty_W_mK"]["potential"]]
    expected = np.maximum(drawn, more["learning"][-1]["changes"])
    np.testing.assert_allclose(parts["potential"], expected)
    assert more["learning"][rounds]["values"][0] == pytest.approx(again["learning"][-1]["values"][0])


def test_a_potential_that_does_not_hold_the_crystal_learns_it(phonons, mtp, tmp_path, random_potential):
    random_potential(("Si",), level=8, cutoff=3.2).save(tmp_path / "si.mtp")
    write(tmp_path / "si.cfg", Dataset(phonons / "bte" / "learn" / "dataset.db").labelled()[:8], ["Si"])
    result = learns(mtp, tmp_path, "bte", from_files('potential = "si.mtp"'))
    begun = Potential.load(tmp_path / "bte" / "learn" / "round_000.almtp")
    np.testing.assert_array_equal(begun.parameters, Potential.load(tmp_path / "si.mtp").parameters)
    assert begun.facts.active_set == "neighbourhood"  # built from the data
    first = json.loads((tmp_path / "bte" / "learn" / "rounds.json").read_text())[0]
    assert re.search("imaginary|relax|stable", first["passages"][0]["failure"])
    assert result["learning"][0]["values"] is None
    assert result["learning"][0]["selected"] > 0
    assert result["learning"][-1]["changes"][0] < result["learning"][-1]["allowed"][0]


# ---- molecular dynamics


def test_molecular_dynamics_breaks_learns_and_begins_again(argon):
    result = result_of(argon)
    rounds = result["learning"]
    broken = [r for r in rounds if r["highest_grade"] > 5]
    assert broken
    assert all(r["values"] is None and r["selected"] > 0 for r in broken)
    last = rounds[-1]
    assert last["highest_grade"] <= 2
    assert last["changes"][0] < last["allowed"][0]
    assert result["kappa_W_mK"]["value"] == last["values"][0]
    assert result["uncertainty"]["statistics"] == last["errors"]
    assert result["uncertainty"]["size"] is None
    total = np.hypot(result["kappa_W_mK"]["error"], last["changes"][0])
    assert result["uncertainty"]["total"][0] == pytest.approx(total)


def test_all_samples_of_a_conductivity_come_from_one_potential(argon):
    for number in range(len(result_of(argon)["learning"])):
        folder = argon / "gk" / f"round_{number:03d}"
        others = {path.parent for path in (argon / "gk").rglob("state_*") if folder not in path.parents}
        assert not any(folder in path.parents for path in others)
        told = json.loads((folder / "settings.json").read_text())["potential"]
        made = argon / "gk" / "learn" / f"round_{number:03d}.almtp"
        assert told == hashlib.sha256(made.read_bytes()).hexdigest()


def test_every_configuration_above_select_is_kept_with_its_grade(argon):
    number = next(r["round"] for r in result_of(argon)["learning"] if r["highest_grade"] > 2)
    potential = Potential.load(argon / "gk" / "learn" / f"round_{number:03d}.almtp")
    pieces = met(argon / "gk" / f"round_{number:03d}")
    flagged = [atoms for piece in pieces for atoms in piece.flagged if atoms.info["grade"] > 2]
    above = sum(sum(piece.histogram[3:]) for piece in pieces)  # in bins above 2
    assert len(flagged) == above > 0
    for atoms in flagged:
        assert potential.grade(atoms).maximum == pytest.approx(atoms.info["grade"], rel=1e-6)


def test_what_a_run_met_is_there_when_it_goes_on(argon, tmp_path):
    settings = watched(tmp_path, argon, runs=1, time=3.2)
    green_kubo(settings, MPI.COMM_SELF, quiet)
    before = {piece.name: piece for piece in met(tmp_path / "gk")}
    assert any(piece.flagged for piece in before.values())
    # as if it had been killed in the second chunk
    green_kubo(watched(tmp_path, argon, runs=1, time=4.8), MPI.COMM_SELF, quiet)
    after = {piece.name: piece for piece in met(tmp_path / "gk")}
    assert set(after) == {*before, "run_00, 0002"}
    for name, piece in before.items():
        assert piece.histogram == after[name].histogram
        for a, b in zip(piece.flagged, after[name].flagged, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)


def watched(folder: Path, argon: Path, watch: dict | None = None, **changes) -> GreenKubo:
    """Argon with a potential that extrapolates a little."""
    potential = argon / "gk" / "learn" / f"round_{len(result_of(argon)['learning']) - 1:03d}.almtp"
    told = {"folder": str(folder / "gk"), "crystal": {"name": "Ar", "structure": "fcc", "a": 5.4}, "repeat": [2, 2, 2]}
    told |= {"potential": str(potential), "temperature": 80, "timestep": 0.004, "equilibration": 1.2, "chunk": 1.6}
    told |= {"interval": 0.02, "watch": watch or {"select": 1.001, "break": 1e9}}
    return checked(told | changes, GreenKubo, "test")


def test_without_learning_a_run_ends_where_a_grade_passes_break(argon, tmp_path):
    settings = watched(tmp_path, argon, {"select": 1.0001, "break": 1.001}, runs=1, time=3.2, temperature=300)
    with pytest.raises(Unsound, match="passed `break`: the potential cannot be trusted there.*--learn"):
        green_kubo(settings, MPI.COMM_SELF, quiet)
    (piece,) = [piece for piece in met(tmp_path / "gk") if piece.break_step is not None]
    assert piece.flagged[-1].info["step"] == piece.break_step


def test_two_ranks_break_where_one_does(argon, mtp, tmp_path):
    (tmp_path / "kappa.toml").write_text(ARGON.replace("[learn]", "[learn]\nrounds = 2"))
    done = mtp(tmp_path, "conductivity", "green-kubo", "kappa.toml", "--learn", ranks=2)
    assert done.returncode == 1
    assert "not converged after 2 rounds" in done.stderr
    one, two = (json.loads((f / "gk" / "learn" / "rounds.json").read_text()) for f in (argon, tmp_path))
    for a, b in zip(one[:2], two, strict=True):
        assert a["passages"][0]["break_step"] == b["passages"][0]["break_step"] is not None
        assert a["highest_grade"] == pytest.approx(b["highest_grade"], rel=1e-5)


DRIVEN = "fields = [0.01, 0.02]\ntransient = 0.4\ninterval = 0.02"
GRADIENT = "repeat = [2, 2, 6]\nbins = 12\ntransient = 0.4\nswap_interval = 10"
WALK = """
[[learn.exploration]]
crystal = {name = "Ar", structure = "fcc", a = 5.4, repeat = [2, 2, 2]}
temperatures = [50]
timestep = 0.004
steps = 200
"""


def learned(argon: Path, folder: Path, own: str, loop: str = "") -> str:
    """Settings of short runs with the potential that argon was left with, and its data."""
    rounds = len(result_of(argon)["learning"])
    shutil.copy(argon / "gk" / "learn" / f"round_{rounds - 1:03d}.almtp", folder / "argon.almtp")
    write(folder / "argon.cfg", Dataset(argon / "gk" / "learn" / "dataset.db").labelled(), ["Ar"])
    text = ARGON.replace("time = 8", "time = 3.2").replace("chunk = 1.6", "chunk = 0.4").replace('folder = "gk"\n', "")
    text = text.replace("interval = 0.02", own).replace("runs = 2", 'runs = 1\npotential = "argon.almtp"')
    text = text.replace("repeat = [2, 2, 2]\n", "", 1) if "repeat" in own else text
    # any change of κ counts for nothing: what is asked here is that the loop comes to its end
    text = text.replace("[learn]", f'[learn]\nfolder = "loop"\ntolerance = 100\n{loop}')
    start, end = text.index("crystal = {", text.index("[learn.initial]")), text.index("[learn.labelling]")
    return text[:start] + 'files = ["argon.cfg"]\n\n' + text[end:]


@pytest.mark.parametrize(("method", "own"), [("hnemd", DRIVEN), ("nemd", GRADIENT)], ids=["hnemd", "nemd"])
def test_driven_runs_learn_as_well(argon, mtp, tmp_path, method, own):
    result = learns(mtp, tmp_path, method, learned(argon, tmp_path, own))
    assert result["method"] == method
    rounds = result["learning"]
    assert rounds[-1]["changes"][0] < rounds[-1]["allowed"][0]
    assert result["kappa_W_mK"]["value"] == rounds[-1]["values"][0]
    assert result["uncertainty"]["statistics"] == [result["uncertainty_W_mK"]["statistics"]]
    pieces = met(tmp_path / method / f"round_{rounds[-1]['round']:03d}")
    assert sum(sum(piece.histogram) for piece in pieces) > 0  # grades were watched in the driven runs


def test_one_of_two_groups_of_ranks_computes_kappa_while_the_other_explores(argon, mtp, tmp_path):
    text = learned(argon, tmp_path, "interval = 0.02", "groups = 2") + WALK
    result = learns(mtp, tmp_path, "green-kubo", text, ranks=2)
    rounds = json.loads((tmp_path / "loop" / "rounds.json").read_text())
    assert {passage["title"] for passage in rounds[-1]["passages"]} == {"50 K", "κ by green-kubo"}
    assert rounds[-1]["target"]["change"] < rounds[-1]["target"]["allowed"]
    assert result["kappa_W_mK"]["value"] == result["learning"][-1]["values"][0]


@pytest.mark.slow
def test_two_ranks_learn_the_conductivity_of_molecular_dynamics(argon, mtp, tmp_path):
    one, two = result_of(argon), learns(mtp, tmp_path, "green-kubo", ARGON, ranks=2, timeout=600)
    difference = abs(one["kappa_W_mK"]["value"] - two["kappa_W_mK"]["value"])
    assert difference < 4 * np.hypot(one["kappa_W_mK"]["error"], two["kappa_W_mK"]["error"])


def test_a_killed_loop_goes_on(argon, mtp, tmp_path):
    (tmp_path / "kappa.toml").write_text(ARGON)
    command = [Path(sys.executable).parent / "mtp", "conductivity", "green-kubo", "kappa.toml", "--learn"]
    begun = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 200
    while not list(tmp_path.glob("gk/round_*/run_01/chunk_0001.h5")):  # in the midst of the second run of some round
        assert begun.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    kept = json.loads((tmp_path / "gk" / "learn" / "rounds.json").read_text())
    assert not (tmp_path / "gk" / "result.json").exists()
    result = learns(mtp, tmp_path, "green-kubo", ARGON)
    assert [r["highest_grade"] for r in result["learning"][: len(kept)]] == [r["highest_grade"] for r in kept]
    known = result_of(argon)
    difference = abs(known["kappa_W_mK"]["value"] - result["kappa_W_mK"]["value"])
    assert difference < 4 * np.hypot(known["kappa_W_mK"]["error"], result["kappa_W_mK"]["error"])


# ---- when κ has converged


def outcome(values, errors, random=None) -> dict:
    names = [str(k) for k in range(len(values))]
    return {"names": names, "values": values, "errors": errors, "random": random, "asked": {}}


def test_the_value_that_is_furthest_from_settled_is_the_target():
    rounds = [{"outcome": outcome([10.0, 20.0], [0.1, 0.1])}, {"outcome": None}]
    record = weighed(outcome([10.3, 20.1], [0.2, 0.2]), rounds, 0.01)
    assert record["target"] == pytest.approx({"value": 10.3, "error": 0.2, "change": 0.3, "allowed": 0.2})
    assert record["outcome"]["changes"] == pytest.approx([0.3, 0.1])


def test_statistics_of_both_rounds_allow_a_change_and_so_does_the_tolerance():
    noisy = weighed(outcome([1.0], [0.3], [0.3]), [{"outcome": outcome([1.2], [0.4], [0.4])}], 0.01)
    assert noisy["outcome"]["allowed"] == pytest.approx([0.5])
    exact = weighed(outcome([1.0], [0.0]), [{"outcome": outcome([1.2], [0.0])}], 0.05)
    assert exact["outcome"]["allowed"] == pytest.approx([0.05])


def test_outcomes_of_other_questions_are_not_compared():
    other = outcome([1.0], [0.1]) | {"asked": {"meshes": [3]}}
    assert weighed(outcome([2.0], [0.1]), [{"outcome": other}], 0.01)["target"]["change"] is None


def test_the_nearest_extend_what_is_known_or_else_have_the_highest_grades():
    atoms = bulk("Si", cubic=True)
    potential = Potential.new(4, ["Si"], 3.2, 2.0, 4)
    potential.parameters = np.ones(potential.facts.n_parameters)
    potential.set_active_set(1e3 * np.eye(potential.facts.n_parameters), "neighbourhood")  # knows everything
    several = []
    for k in range(4):
        several.append(moved(atoms, 0.05 * k))
        several[-1].info = {"grade": potential.grade(several[-1]).maximum, "origin": str(k)}
    grades = sorted((a.info["grade"] for a in several), reverse=True)
    assert grades[0] < 1
    chosen = nearest(potential, several, Selection(per_round=2), Cutting())
    assert [a.info["grade"] for a in chosen] == grades[:2]
    assert nearest(potential, several, Selection(per_round=2), Cutting(max_atoms=7)) == []


def moved(atoms: Atoms, by: float) -> Atoms:
    other = atoms.copy()
    other.positions[0, 0] += by
    return other


def test_parts_of_an_outcome_add_up():
    tensor = [[3.0, 6.0, 9.0, 0.0, 0.0, 0.0]]
    told = {"mesh": tensor, "cell": None, "displacement": [[8.0] * 6], "potential": None, "total": tensor}
    found = outcome_of({"method": "bte", "temperatures_K": [300.0], "kappa_W_mK": tensor, "uncertainty_W_mK": told})
    assert found["values"] == [6.0]
    assert found["errors"] == [10.0]
    assert found["random"] is None


# ---- what is refused, and what is not


@pytest.mark.parametrize(("name", "model"), [("bte_learn", BteSettings), ("green_kubo_learn", GreenKubo)])
def test_the_examples_are_understood(name, model):
    learning = read(INPUTS / f"{name}.toml", model, None)
    assert learning.given is None
    assert learning.loop.folder == learning.calculation.folder / "learn"


REFUSED = {
    "neither a table `learn` nor a file": (SILICON, ""),
    "leave `pair` and `reference` out": (
        'crystal = {name = "Si"',
        f'reference = {{{TERSOFF.replace(chr(10), ", ")}}}\ncrystal = {{name = "Si"',
    ),
    "leave `target` out": ("[learn.fit]", '[learn.target]\ncommand = "true"\n\n[learn.fit]'),
    "species ['Ge', 'Si'] here": ("[force", 'species = ["Ge", "Si"]\n\n[force'),
    "a `posterior` or other `potentials` are of one": ("[transport]", '[uncertainty]\nposterior = "p"\n\n[transport]'),
    "[learn]: levl: this key is not known": ("species = [", "levl = 3\nspecies = ["),
    "`samples` of a posterior are for `bte`, and two at least": ("[learn]", "[learn]\nsamples = 1"),
    "this key must be given": ('species = ["Si"]\n\n[learn.fit]', "[learn.fit]"),
}


@pytest.mark.parametrize("says", REFUSED)
def test_settings_that_do_not_go_together_are_refused(tmp_path, says):
    text, (old, new) = PHONONS % "" + SILICON, REFUSED[says]
    assert old in text
    (tmp_path / "kappa.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(Error) as caught:
        read(tmp_path / "kappa.toml", BteSettings, None)
    assert says in str(caught.value)


def test_a_potential_without_grades_and_data_is_refused_with_the_command_that_helps(tmp_path, random_potential):
    random_potential(("Si",)).save(tmp_path / "si.mtp")
    (tmp_path / "kappa.toml").write_text(PHONONS % 'potential = "si.mtp"' + SILICON)
    with pytest.raises(Error, match=r"has no active set.*mtp select POTENTIAL DATA -o POTENTIAL.almtp"):
        read(tmp_path / "kappa.toml", BteSettings, None)


def test_grades_of_a_potential_without_an_active_set_cannot_be_watched(tmp_path, random_potential):
    random_potential(("Ar",)).save(tmp_path / "ar.mtp")
    told = {"folder": str(tmp_path / "gk"), "crystal": {"name": "Ar", "structure": "fcc", "a": 5.4}}
    told |= {"potential": str(tmp_path / "ar.mtp"), "temperature": 50, "watch": {}}
    with pytest.raises(Error, match="has no active set.*mtp select"):
        green_kubo(checked(told, GreenKubo, "test"), MPI.COMM_SELF, quiet)


def test_settings_of_a_loop_without_the_wish_to_learn_are_refused(mtp, tmp_path):
    done = mtp(tmp_path, "conductivity", "bte", "kappa.toml", "learn.toml")
    assert done.returncode == 1
    assert "learn.toml: the settings of a loop come after --learn" in done.stderr


@pytest.mark.slow
def test_a_loop_of_its_own_file_explores_as_well(mtp, tmp_path):
    loop = SILICON.replace("[learn]\n", "").replace("[learn.", "[").replace("rattles = []", "rattles = [0.03, 0.1]")
    walk = (
        '[[exploration]]\ncrystal = {name = "Si", structure = "diamond", a = 5.432}\ntemperatures = [300]\nsteps = 50\n'
    )
    (tmp_path / "learn.toml").write_text(loop + walk)
    (tmp_path / "kappa.toml").write_text(PHONONS % "")
    done = mtp(tmp_path, "conductivity", "bte", "kappa.toml", "--learn", "learn.toml", "--json", "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert {passage["title"] for passage in rounds[-1]["passages"]} == {"300 K", "κ by bte"}
    assert json.loads((tmp_path / "found.json").read_text()) == result_of(tmp_path)
