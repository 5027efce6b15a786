# SPDX-License-Identifier: BSD-3-Clause
"""The data set keeps what it was given, to the last bit, through kills and restarts."""

import os
import signal
import sqlite3
import subprocess
import sys

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mtp.configurations import Labels, labels
from mtp.database import GIVEN, Dataset
from mtp.errors import Error


def candidate(seed: int = 0) -> Atoms:
    atoms = bulk("Cu").repeat((1, 1, 2))
    atoms.rattle(0.1, seed=seed)
    atoms.set_cell(atoms.cell * (1 + 1e-15 * seed))
    atoms.new_array("type", np.array([1, 0]))
    return atoms


def some_labels(seed: int = 0, stress: bool = True) -> Labels:
    random = np.random.default_rng(seed)
    return Labels(random.normal() * 1e5, random.normal(size=(2, 3)), random.normal(size=6) if stress else None)


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path / "data.db")


def test_a_candidate_becomes_labelled_and_nothing_is_lost(dataset):
    first = dataset.add_candidate(candidate(1), 0, "md.lammpstrj, step 100", grade=3.25)
    second = dataset.add_candidate(candidate(2), 1, "12")
    assert [(i, a.info["origin"]) for i, a in dataset.pending()] == [
        (first, "md.lammpstrj, step 100"),
        (second, "12"),
    ]
    assert [i for i, _ in dataset.pending(round=1)] == [second]

    dataset.store_labels(first, some_labels(1), "emt-1")
    dataset.store_labels(second, some_labels(2, stress=False), "emt-1")
    assert not dataset.pending()
    assert dataset.counts() == {"pending": 0, "labelled": 2, "failed": 0}
    for seed, atoms in enumerate(Dataset(dataset.path).labelled(), start=1):
        found, expected = labels(atoms), some_labels(seed, stress=seed == 1)
        assert found.energy == expected.energy
        np.testing.assert_array_equal(found.forces, expected.forces)
        np.testing.assert_array_equal(found.stress, expected.stress)
        for name in ("numbers", "positions", "type"):
            np.testing.assert_array_equal(atoms.arrays[name], candidate(seed).arrays[name])
        np.testing.assert_array_equal(atoms.cell.array, candidate(seed).cell.array)
        assert atoms.pbc.all()
    assert dataset.labelled()[0].info == {
        "id": first,
        "round": 0,
        "origin": "md.lammpstrj, step 100",
        "grade": 3.25,
    }


def test_a_failure_keeps_its_reason(dataset):
    id_ = dataset.add_candidate(candidate(), 0, "a")
    dataset.store_failure(id_, "not converged", "333 iterations\nwere not enough")
    (failure,) = dataset.failures()
    assert (failure.id, failure.reason, failure.message) == (
        id_,
        "not converged",
        "333 iterations\nwere not enough",
    )
    assert failure.atoms == candidate()
    assert dataset.counts() == {"pending": 0, "labelled": 0, "failed": 1}


def test_refused_labels_are_kept_aside_and_given_ones_never_are(dataset):
    refused = dataset.add_candidate(candidate(1), 0, "a")
    dataset.store_failure(refused, "nonsense", "off", some_labels(1))
    later = dataset.add_candidate(candidate(2), 0, "a")
    dataset.store_labels(later, some_labels(2), "emt-1")
    given = dataset.add_candidate(candidate(3), 0, "a")
    dataset.store_labels(given, some_labels(3), GIVEN)
    assert [atoms.info["id"] for atoms in dataset.labelled(given=False)] == [later]
    dataset.set_aside(later, "off as well")
    for id_ in (refused, given, 77):
        with pytest.raises(Error, match=f"candidate {id_} has no labels of a labeller"):
            dataset.set_aside(id_, "")
    failures = dataset.failures()
    assert [(f.id, f.reason, f.message) for f in failures] == [
        (refused, "nonsense", "off"),
        (later, "nonsense", "off as well"),
    ]
    for seed, failure in enumerate(failures, start=1):
        np.testing.assert_array_equal(labels(failure.atoms).forces, some_labels(seed).forces)
        assert failure.atoms.info["origin"] == "a"
    assert dataset.counts() == {"pending": 0, "labelled": 1, "failed": 2}
    assert dataset.fingerprint() is None


def test_the_same_candidate_is_added_once(dataset):
    first = dataset.add_candidate(candidate(), 0, "a")
    assert dataset.add_candidate(candidate(), 1, "a", grade=2.0) == first
    dataset.store_labels(first, some_labels(), "emt-1")
    assert dataset.add_candidate(candidate(), 1, "a") == first
    assert dataset.add_candidate(candidate(), 1, "b") != first
    assert dataset.add_candidate(candidate(1), 1, "a") != first
    assert dataset.counts() == {"pending": 2, "labelled": 1, "failed": 0}


def test_a_candidate_leaves_pending_once(dataset):
    id_ = dataset.add_candidate(candidate(), 0, "a")
    dataset.store_labels(id_, some_labels(), "emt-1")
    with pytest.raises(Error, match=f"candidate {id_} is labelled already"):
        dataset.store_failure(id_, "failed", "")
    with pytest.raises(Error, match="there is no candidate 77"):
        dataset.store_labels(77, some_labels(), "emt-1")


def test_two_labellers_are_never_mixed_but_given_labels_are_welcome(dataset):
    ids = [dataset.add_candidate(candidate(seed), 0, "a") for seed in range(5)]
    dataset.store_labels(ids[0], some_labels(), GIVEN)
    assert dataset.fingerprint() is None
    dataset.store_labels(ids[1], some_labels(), "emt-1")
    dataset.store_labels(ids[2], some_labels(), GIVEN)
    dataset.store_labels(ids[3], some_labels(), "emt-1")
    with pytest.raises(Error, match=r"data.db: holds labels of emt-1.*never mixes two.*emt-2"):
        dataset.store_labels(ids[4], some_labels(), "emt-2")
    assert dataset.counts() == {"pending": 1, "labelled": 4, "failed": 0}
    assert dataset.fingerprint() == "emt-1"


def test_calculators_of_candidates_are_ignored(dataset):
    atoms = candidate()
    atoms.calc = EMT()
    atoms.get_potential_energy()
    dataset.add_candidate(atoms, 0, "a")
    assert dataset.pending()[0][1].calc is None


def test_foreign_and_damaged_files_are_named_and_left_alone(tmp_path):
    text, table, other, cut = (tmp_path / name for name in ("text.db", "table.db", "other.db", "cut.db"))
    text.write_text("not a database, " * 100)
    connection = sqlite3.connect(table)
    connection.execute("CREATE TABLE systems (a TEXT)")
    connection.close()
    with ase.db.connect(other) as database:
        database.write(candidate())
    dataset = Dataset(cut)
    for seed in range(30):
        dataset.add_candidate(candidate(seed), 0, "a")
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.db").write_bytes(b"")
    (tmp_path / "folder.db").mkdir()
    before = {path: path.read_bytes() for path in (text, table, other, cut)}
    for path in (*before, tmp_path / "empty.db", tmp_path / "folder.db", tmp_path / "absent" / "a.db"):
        with pytest.raises(Error, match=path.name):
            Dataset(path).labelled()
    assert before == {path: path.read_bytes() for path in before}


def test_a_locked_file_is_an_error(dataset, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.1))
    holder = connect(dataset.path)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Error, match=r"data.db: database is locked"):
        dataset.add_candidate(candidate(), 0, "a")
    holder.close()
    dataset.add_candidate(candidate(), 0, "a")


WRITER = f"""
import sys; sys.path[:] = {sys.path!r}
from pathlib import Path
from test_database import candidate, some_labels
from mtp.database import Dataset
dataset = Dataset(sys.argv[1])
for seed in range(10000):
    id_ = dataset.add_candidate(candidate(seed), seed, "run")
    if seed % 3 == 0:
        dataset.store_failure(id_, "failed", "x" * 1000)
    else:
        dataset.store_labels(id_, some_labels(seed), "emt-1")
    print(seed, flush=True)
"""


@pytest.mark.parametrize("after", [0, 1, 7, 12])
def test_a_killed_writer_leaves_a_consistent_file(tmp_path, after):
    path = tmp_path / "data.db"
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as writer:
        for _ in range(after + 1):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        done = after + 1 + len(writer.stdout.read().splitlines())
    dataset = Dataset(path)
    counts = dataset.counts()
    assert counts["labelled"] + counts["failed"] in (done, done + 1)
    assert counts["pending"] in (0, 1)
    for atoms in dataset.labelled():
        seed = atoms.info["round"]
        assert labels(atoms).energy == some_labels(seed).energy
        np.testing.assert_array_equal(atoms.positions, candidate(seed).positions)
    assert len(dataset.failures()) == counts["failed"]
    dataset.add_candidate(candidate(), 0, "after the kill")
