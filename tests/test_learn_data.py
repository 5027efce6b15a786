# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn` begins with data that the user has, and refuses what does not go together."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from learning_loops import SILICON, TERSOFF, consistent, count, learned, refused, settings

from mtp.configurations import Labels, labels, with_labels, write
from mtp.database import Dataset

pytestmark = pytest.mark.usefixtures("toy_calculators")


LENNARD_JONES = {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.0, "smooth": True}
GIVEN = """
species = ["Ar"]

[fit]
level = 4
radial_basis_size = 4

[initial]
files = ["%s"]

[labelling]
type = "ase"
calculator = "lj"
keywords = {sigma = 3.4, epsilon = 0.0104, rc = 6.0, smooth = true}

[[exploration]]
crystal = {name = "Ar", structure = "fcc", a = 5.26}
temperatures = [20]
steps = 50
"""


def argon(n: int = 6) -> list[Atoms]:
    rng = np.random.default_rng(2)
    made = []
    for _ in range(n):
        atoms = bulk("Ar", a=rng.uniform(5.1, 5.4), cubic=True)
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        atoms.calc = LennardJones(**LENNARD_JONES)
        known = Labels(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
        made.append(with_labels(atoms, known))
    return made


@pytest.mark.parametrize("name", ["train.extxyz", "train.cfg"])
def test_a_loop_begins_with_given_data(mtp, tmp_path, name):
    write(tmp_path / name, argon(), ["Ar"])
    path = settings(tmp_path, GIVEN % name)
    learned(mtp(tmp_path.parent, "learn", path))
    dataset, rounds = consistent(tmp_path / "run")
    first = [atoms for atoms in dataset.labelled() if atoms.info["round"] == 0]
    assert [atoms.info["origin"] for atoms in first] == [f"given: {name}#{n}" for n in range(1, 7)]
    assert rounds[0]["labelled"] == 6
    assert "learned already" in learned(mtp(tmp_path, "learn", "learn.toml"))  # from another folder: the same files


def test_given_data_are_added_once_wherever_the_loop_is_started(mtp, tmp_path):
    write(tmp_path / "train.extxyz", argon())
    path = settings(tmp_path, GIVEN % "train.extxyz", ("calculator = ", 'calculator = "absent"\n# '))
    path.write_text("rounds = 1\n" + path.read_text())
    for place, argument in ((tmp_path.parent, path), (tmp_path, "learn.toml")):
        (tmp_path / "run" / "rounds.json").unlink(missing_ok=True)
        mtp(place, "learn", argument)
    assert count(tmp_path, "labelled") == 6


def damaged(kind: str) -> list[Atoms]:
    frames = argon()
    results = frames[2].calc.results
    if kind == "species":
        frames[2].symbols[0] = "Xe"
    elif kind == "nan":
        results["forces"] = results["forces"] * np.nan
    elif kind == "no labels":
        frames[2].calc = None
    else:
        frames[2].positions[1] = frames[2].positions[0]
    if frames[2].calc is not None:
        frames[2] = with_labels(frames[2], Labels(results["energy"], results["forces"], results["stress"]))
    return frames


def test_given_data_that_cannot_be_used_are_named_before_any_is_taken(mtp, tmp_path):
    settings(tmp_path, GIVEN % "train.extxyz")
    for kind, says in (
        ("species", "Xe"),
        ("nan", "forces is not finite"),
        ("no labels", "no energy and no forces"),
        ("overlap", "atoms 0 and 1 are"),
    ):
        write(tmp_path / "train.extxyz", damaged(kind))
        refused(mtp(tmp_path, "learn", "learn.toml"), "train.extxyz#3: ", says)
    write(tmp_path / "train.extxyz", argon())
    learned(mtp(tmp_path, "learn", "learn.toml"))
    assert len([a for a in consistent(tmp_path / "run")[0].labelled() if a.info["round"] == 0]) == 6


def test_structures_of_files_are_labelled_first_and_once(mtp, tmp_path):
    frames = argon(10)
    write(tmp_path / "train.extxyz", frames[:5])
    write(
        tmp_path / "cells.extxyz",
        [Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True) for atoms in frames[5:]],
    )
    text = GIVEN.replace('["%s"]', '["train.extxyz"]\nstructures = ["cells.extxyz"]')
    settings(tmp_path, "rounds = 1\n" + text)
    for _ in range(2):
        (tmp_path / "run" / "rounds.json").unlink(missing_ok=True)  # the round is begun again
        mtp(tmp_path, "learn", "learn.toml")
    dataset = Dataset(tmp_path / "run" / "dataset.db")
    first = {atoms.info["origin"]: atoms for atoms in dataset.labelled() if atoms.info["round"] == 0}
    assert list(first) == [f"given: train.extxyz#{n}" for n in range(1, 6)] + [
        f"to label: cells.extxyz#{n}" for n in range(1, 6)
    ]
    computed = [atoms.info["origin"] for atoms in dataset.labelled(given=False) if atoms.info["round"] == 0]
    assert computed == list(first)[5:]
    for n, atoms in enumerate(frames[5:], start=1):
        found = labels(first[f"to label: cells.extxyz#{n}"]).energy
        assert found == pytest.approx(labels(atoms).energy, rel=1e-7)  # the file has eight decimals


def test_structures_that_cannot_be_labelled_are_named_before_given_data_are_taken(mtp, tmp_path):
    write(tmp_path / "train.extxyz", argon())
    settings(tmp_path, GIVEN.replace('["%s"]', '["train.extxyz"]\nstructures = ["cells.extxyz"]'))
    for kind, says in (("species", "Xe"), ("overlap", "atoms 0 and 1 are")):
        write(tmp_path / "cells.extxyz", damaged(kind))
        refused(mtp(tmp_path, "learn", "learn.toml"), "cells.extxyz#3: ", says)
    assert count(tmp_path, "labelled") == count(tmp_path, "pending") == 0


def test_structures_are_checked_before_anything_is_computed(mtp, tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ('species = ["Si"]', 'species = ["C"]'))
    refused(mtp(tmp_path, "learn", "learn.toml"), "Si")
    crystal = 'crystal = {name = "Si", structure = "diamond", a = 5.432}\ntemp'
    settings(tmp_path, SILICON % TERSOFF, (crystal, 'file = "absent.cif"\ntemp'))
    refused(mtp(tmp_path, "learn", "learn.toml"), "absent.cif: cannot be read")
    assert count(tmp_path, "pending") == 0


def test_configurations_too_large_for_a_label_are_refused_unless_all_are_to_be_labelled(mtp, tmp_path):
    text = SILICON % TERSOFF + "\n[cutting]\nmax_atoms = 7\n"
    whole = ("interval = 5", 'interval = 5\nmode = "configuration"')
    cubic = ("a = 5.432}\ntemp", "a = 5.432, cubic = true}\ntemp")
    settings(tmp_path, text, whole, cubic)
    refused(
        mtp(tmp_path, "learn", "learn.toml"), "8 atoms, more than cutting.max_atoms = 7", 'cutting.method = "whole"'
    )
    settings(tmp_path, text + 'method = "whole"\n', whole, cubic, ("steps = 300", "steps = 20"))
    learned(mtp(tmp_path, "learn", "learn.toml"))


def test_what_holds_for_all_rounds_cannot_be_changed_between_them(mtp, tmp_path, begun):
    for old, new, says in (
        ("level = 4", "level = 6", "begun with fit.level = 4"),
        ("cutoff = 3.2", "cutoff = 4.0", "begun with fit.cutoff = 3.2"),
        ("interval = 5", 'interval = 5\nmode = "configuration"', 'begun with selection.mode = "neighbourhood"'),
        ("rattles = [0.03]", "rattles = [0.04]", "begun with initial.rattles = [0.03]"),
    ):
        settings(tmp_path, SILICON % TERSOFF, (old, new))
        refused(mtp(tmp_path, "learn", "learn.toml"), says, new.split(" = ")[-1], "name a new `folder`")
    settings(tmp_path, SILICON % TERSOFF, ("interval = 5", "interval = 4"), ("[600]", "[500]"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
