# SPDX-License-Identifier: BSD-3-Clause
"""A queue of candidates: each leaves as labelled or failed, once, wherever it is computed and whatever dies."""

import contextlib
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mtp.configurations import labels
from mtp.database import Dataset
from mtp.errors import Error
from mtp.labelling import LabelQueue, label_pending
from mtp.settings import Labelling, checked

CALCULATORS = """
import os, signal, time
from pathlib import Path
from ase.calculators.emt import EMT
from mtp.calculator import MTP

class Counting(EMT):
    "Leaves a file for each calculation and its process, and takes its time."

    def __init__(self, folder, seconds=0.0, directory="."):
        EMT.__init__(self, directory=directory)
        self.folder, self.seconds = Path(folder), seconds

    def calculate(self, atoms, *rest):
        name = f"{len(atoms)}_{time.monotonic_ns()}_{os.getpid()}"
        (self.folder / name).touch()
        Path(self.directory, "output").write_text("all is well")
        time.sleep(self.seconds)
        EMT.calculate(self, atoms, *rest)

class Weak(Counting):
    "Dies at its first try at two atoms and at every try at three; refuses four, and hangs at five."

    def calculate(self, atoms, *rest):
        first = not list(self.folder.glob(f"{len(atoms)}_*"))
        Counting.calculate(self, atoms, *rest)
        if len(atoms) == 3 or (len(atoms) == 2 and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if len(atoms) == 4:
            raise ValueError("not four")
        if len(atoms) == 5:
            time.sleep(100)

class LyingMTP(MTP):
    "Is off by 100 eV in 64 atoms that come from top to bottom."

    def calculate(self, atoms, *rest):
        MTP.calculate(self, atoms, *rest)
        if len(atoms) == 64 and atoms.positions[0, 2] > atoms.positions[-1, 2]:
            for key in ("energy", "free_energy"):
                self.results[key] += 100

class Lying(Counting):
    "Is off by 100 eV at the seed that it is told, as the position of the first atom tells."

    def calculate(self, atoms, *rest):
        Counting.calculate(self, atoms, *rest)
        if atoms.positions[0, 2] > 0.5:
            for key in ("energy", "free_energy"):
                self.results[key] = self.results[key] - 100
        if atoms.positions[0, 2] < -0.5:
            self.results["forces"] = self.results["forces"] + 1.0
"""


def copper(size: int, seed: int = 0) -> Atoms:
    atoms = bulk("Cu").repeat((1, 1, size))
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Makes settings for a toy calculator."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "toys.py").write_text(CALCULATORS)
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), *([path] if path else [])]))
    monkeypatch.syspath_prepend(modules)
    (tmp_path / "calculations").mkdir()

    def make(name="Counting", seconds=0.0, **others) -> Labelling:
        keywords = {"folder": str(tmp_path / "calculations"), "seconds": seconds}
        content = {"type": "ase", "calculator": f"toys.{name}", "keywords": keywords, "time_limit": 60.0, **others}
        return checked(content, Labelling, "test")

    return make


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return Dataset(tmp_path / "data.db")


def calculations(folder: Path, size: int | None = None) -> list[str]:
    return sorted(path.name for path in (folder / "calculations").glob("*" if size is None else f"{size}_*"))


def assert_emt_labels(dataset: Dataset) -> None:
    for atoms in dataset.labelled():
        bare = atoms.copy()
        bare.calc = EMT()
        np.testing.assert_allclose(labels(atoms).forces, bare.get_forces(), rtol=0, atol=1e-12)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_labelling_goes_on_while_its_owner_does_something_else(settings, dataset, tmp_path):
    for seed in range(3):
        dataset.add_candidate(copper(2, seed), 0, f"{seed}")
    with LabelQueue(dataset, settings(seconds=0.2, workers=2), ["Cu"]) as queue:
        assert queue.submit_pending() == 3
        assert queue.submit_pending() == 0
        start = time.monotonic()
        queue.poll()
        assert time.monotonic() - start < 0.2  # poll waits for nothing
        assert queue.n_waiting == 3
        later = dataset.add_candidate(copper(3), 1, "added while others are computed")
        wait_until(lambda: queue.poll() and dataset.counts()["labelled"] >= 1)
        assert queue.submit_pending() == 1
        queue.wait()
        assert queue.n_waiting == 0
        assert later in [atoms.info["id"] for atoms in dataset.labelled()]
    assert dataset.counts() == {"pending": 0, "labelled": 4, "failed": 0}
    assert len(calculations(tmp_path)) == 4
    assert_emt_labels(dataset)


def test_processes_stay_from_round_to_round(settings, dataset, tmp_path):
    with LabelQueue(dataset, settings(), ["Cu"]) as queue:
        for round in range(3):
            dataset.add_candidate(copper(2, round), round, "a")
            queue.submit_pending()
            queue.wait()
    pids = {int(name.split("_")[-1]) for name in calculations(tmp_path)}
    assert len(pids) == 1
    assert not alive(pids.pop())


def test_a_crash_and_a_time_limit_are_tried_again_and_a_refusal_is_not(settings, dataset, tmp_path):
    ids = {size: dataset.add_candidate(copper(size), 0, "a") for size in (1, 2, 3, 4, 5)}
    said = []
    label_pending(dataset, settings("Weak", time_limit=1.0, retries=2), ["Cu"], said.append)
    failures = {failure.id: failure for failure in dataset.failures()}
    assert {id: failure.reason for id, failure in failures.items()} == {
        ids[3]: "crashed",
        ids[4]: "failed",
        ids[5]: "time limit",
    }
    assert [len(calculations(tmp_path, size)) for size in (1, 2, 3, 4, 5)] == [1, 2, 3, 1, 3]
    assert {atoms.info["id"] for atoms in dataset.labelled()} == {ids[1], ids[2]}
    assert f"candidate {ids[2]} is tried again: crashed" in "\n".join(said)
    # the files of each try that failed are there, and the message names those of the last; those of others are not
    kept = {path.name for path in (tmp_path / "labelling").iterdir()}
    names = [f"candidate_{ids[size]}" for size in (2, 3, 4, 5)]
    assert kept == {*names, *(f"{names[k]}_try_{n}" for k in (1, 3) for n in (2, 3))}
    assert failures[ids[3]].message.endswith(f"(files: {tmp_path / 'labelling' / names[1]}_try_3)")
    assert (tmp_path / "labelling" / names[1] / "output").exists()


@pytest.mark.parametrize(("keep", "kept"), [("all", {"1", "4"}), ("none", set())])
def test_whose_files_are_kept_can_be_set(settings, dataset, tmp_path, keep, kept):
    for size in (1, 4):
        dataset.add_candidate(copper(size), 0, "a")
    label_pending(dataset, settings("Weak", keep_files=keep), ["Cu"], print)
    found = {len(failure.atoms): failure.id for failure in dataset.failures()}
    found |= {len(atoms): atoms.info["id"] for atoms in dataset.labelled()}
    folders = {path.name for path in tmp_path.glob("labelling/*")}
    assert folders == {f"candidate_{found[int(size)]}" for size in kept}
    assert (tmp_path / "labelling").exists() == bool(kept)


@pytest.mark.parametrize("sign", [1, -1])
def test_nonsense_is_kept_aside_with_what_was_found(settings, dataset, sign):
    """An energy off by 100 eV, even if it comes first, and forces that sum to anything but zero."""
    for seed in range(6):
        atoms = copper(8, seed)
        atoms.positions[:, 2] += sign * (seed == 0)
        dataset.add_candidate(atoms, 0, f"{seed}")
    label_pending(dataset, settings("Lying"), ["Cu"], print)
    (failure,) = dataset.failures()
    assert failure.reason == "nonsense"
    assert failure.atoms.info["origin"] == "0"
    assert ("energy lies -12.5 eV per atom" if sign > 0 else "forces sum to 13.9 eV/Å") in failure.message
    refused = labels(failure.atoms)
    assert refused.energy < -90 if sign > 0 else refused.forces.sum() == pytest.approx(24)
    assert dataset.counts() == {"pending": 0, "labelled": 5, "failed": 1}


def test_a_potential_that_is_told_to_the_queue_finds_100_eV_in_many_atoms(
    settings, dataset, tmp_path, random_potential, random_atoms
):
    potential = random_potential(species=["Cu"])
    potential.save(tmp_path / "Cu.mtp")
    labelling = settings("LyingMTP", keywords={"potential": str(tmp_path / "Cu.mtp")})
    for seed in range(12):
        dataset.add_candidate(random_atoms(["Cu"], seed), 0, f"{seed}")
    with LabelQueue(dataset, labelling, ["Cu"]) as queue:
        queue.submit_pending()
        queue.wait()
        potential.select(dataset.labelled(), "neighbourhood")
        queue.expect(potential)
        honest, lying = (random_atoms(["Cu"], seed).repeat(2) for seed in (3, 4))
        lying = lying[::-1]
        ids = [dataset.add_candidate(atoms, 1, "large") for atoms in (honest, lying)]
        queue.submit_pending()
        queue.wait()
    (failure,) = dataset.failures()
    assert (failure.id, failure.reason) == (ids[1], "nonsense")
    assert "lies +1.56 eV per atom from the current potential's prediction" in failure.message


def test_a_killed_worker_costs_one_try(settings, dataset, tmp_path):
    dataset.add_candidate(copper(2), 0, "a")
    with LabelQueue(dataset, settings(seconds=0.5), ["Cu"]) as queue:
        queue.submit_pending()
        wait_until(lambda: calculations(tmp_path))
        os.kill(int(calculations(tmp_path)[0].split("_")[-1]), signal.SIGKILL)
        queue.wait()
    assert dataset.counts() == {"pending": 0, "labelled": 1, "failed": 0}
    assert len(calculations(tmp_path)) == 2


PARENT = """
import sys; sys.path[:] = {path!r}
from mtp.database import Dataset
from mtp.labelling import label_pending
from mtp.settings import Labelling, checked
label_pending(Dataset({file!r}), checked({content!r}, Labelling, "test"), ["Cu"], print)
"""


def test_a_parent_that_is_killed_again_and_again_loses_only_what_was_in_hand(settings, dataset, tmp_path):
    n = 8
    for seed in range(n):
        dataset.add_candidate(copper(2, seed), 0, f"{seed}")
    content = settings("Counting", 0.05, workers=2).model_dump(exclude_none=True)
    content["executor"] = {"type": "local"}
    script = PARENT.format(path=sys.path, file=str(dataset.path), content=content)
    rng = np.random.default_rng(1)
    n_kills = 0
    while dataset.counts()["pending"]:
        before = dataset.counts()["labelled"]
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as parent:
            while parent.poll() is None and dataset.counts()["labelled"] < before + 2:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            n_kills += parent.poll() is None
            parent.send_signal(signal.SIGKILL)
        pids = {int(name.split("_")[-1]) for name in calculations(tmp_path)}
        wait_until(lambda pids=pids: not any(map(alive, pids)))
        assert sum(dataset.counts().values()) == n
    assert n_kills >= 2
    assert dataset.counts() == {"pending": 0, "labelled": n, "failed": 0}
    assert len(calculations(tmp_path)) <= n + 2 * n_kills  # two workers had one in hand each
    assert_emt_labels(dataset)


def test_what_a_kill_has_left_goes_when_the_candidate_is_labelled(settings, dataset, tmp_path):
    ids = [dataset.add_candidate(copper(size), 0, "a") for size in (1, 4)]  # the second fails
    for name in (f"candidate_{ids[0]}", f"candidate_{ids[0]}_try_2", f"candidate_{ids[0]}0", f"candidate_{ids[1]}"):
        (tmp_path / "labelling" / name).mkdir(parents=True)
        (tmp_path / "labelling" / name / "wavefunctions").touch()
    said = []
    label_pending(dataset, settings("Weak", 0.1, workers=2), ["Cu"], said.append)
    assert said[0] == "labelling 2 configurations with 2 workers"
    kept = {path.name for path in (tmp_path / "labelling").iterdir()}
    assert kept == {f"candidate_{ids[0]}0", f"candidate_{ids[1]}", f"candidate_{ids[1]}_try_2"}
    assert 0.2 < dataset.seconds(0) < 60  # both calculations sleep
    assert dataset.seconds(1) == 0


def test_labels_that_a_locked_data_set_does_not_take_are_stored_later(settings, dataset, tmp_path, monkeypatch):
    dataset.add_candidate(copper(2), 0, "a")
    with LabelQueue(dataset, settings(), ["Cu"]) as queue:
        queue.submit_pending()
        wait_until(lambda: all(future.done() for future in queue._jobs))
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.1))
        holder = connect(dataset.path)
        holder.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(Error, match=r"data.db: database is locked: another process has used it"):
                queue.poll()
        holder.close()
        assert queue.poll() == 1
    assert dataset.counts()["labelled"] == 1
    assert len(calculations(tmp_path)) == 1


FULL_DISK = """
import resource, sys
sys.path[:] = {path!r}
from mtp.database import Dataset
from mtp.errors import Error
from mtp.labelling import LabelQueue
from mtp.settings import Labelling, checked
dataset = Dataset({file!r})
with LabelQueue(dataset, checked({content!r}, Labelling, "test"), ["Cu"]) as queue:
    queue.submit_pending()
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    try:
        queue.wait()
    except Error as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    queue.wait()
"""


def test_a_full_disk_is_an_error_and_nothing_is_lost(settings, dataset, tmp_path):
    for seed in range(6):
        dataset.add_candidate(copper(40, seed), 0, f"{seed}")
    content = settings().model_dump(exclude_none=True) | {"executor": {"type": "local"}}
    limit = dataset.path.stat().st_size + 4096
    script = FULL_DISK.format(path=sys.path, file=str(dataset.path), content=content, limit=limit)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "data.db: " in done.stdout
    assert "make room on the disk" in done.stdout
    assert dataset.counts() == {"pending": 0, "labelled": 6, "failed": 0}
    assert len(calculations(tmp_path)) == 6


def test_an_unusable_labeller_and_another_one_are_errors_before_any_calculation(settings, dataset, tmp_path):
    dataset.add_candidate(copper(2), 0, "a")
    label_pending(dataset, settings(), ["Cu"], print)
    dataset.add_candidate(copper(2, 1), 0, "b")
    with pytest.raises(Error, match=r"data.db: holds labels of ase-.*describe ase-.*never mixes two"):
        label_pending(dataset, settings("Weak"), ["Cu"], print)
    with pytest.raises(Error, match=r"no calculator.*'toys.Absent'"):
        label_pending(dataset, settings("Absent"), ["Cu"], print)
    missing = ["pair_style tersoff", "pair_coeff * * Absent.tersoff Cu"]
    with pytest.raises(Error, match=r"Absent\.tersoff"):  # also where there is nothing to label yet
        label_pending(
            Dataset(tmp_path / "empty.db"),
            checked({"type": "lammps", "commands": missing}, Labelling, ""),
            ["Cu"],
            print,
        )
    assert dataset.counts()["pending"] == 1
    assert len(calculations(tmp_path)) == 1


# ---- other executors


def spawning(workers: int) -> ProcessPoolExecutor:
    """A pool of the standard library, whose workers import what they run."""
    return ProcessPoolExecutor(workers, get_context("spawn"))


def executor(name: str, folder: Path) -> dict:
    package = name.split()[0]
    if package != "spawning" and importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed: pip install ".[{package}]"')
    if name == "spawning":
        return {"type": "test_label_queue.spawning", "keywords": {"workers": 2}}
    if name == "executorlib":
        return {"type": "executorlib", "keywords": {"hostname_localhost": True}}
    if name == "executorlib blocks":
        keywords = {"hostname_localhost": True, "block_allocation": True, "restart_limit": 100}
        return {"type": "executorlib.SingleNodeExecutor", "keywords": keywords | {"max_workers": 2}}
    parsl = {"class": "parsl.executors.ThreadPoolExecutor", "max_threads": 2}
    if name == "parsl processes":
        parsl = {"class": "parsl.executors.HighThroughputExecutor", "max_workers_per_node": 2}
        parsl |= {"address": "127.0.0.1", "encrypted": False}
    return {"type": "parsl", "keywords": {"executors": [parsl], "run_dir": str(folder / "parsl")}}


TWO_ROUNDS = """
import sys; sys.path[:] = {path!r}
from test_label_queue import copper
from mtp.database import Dataset
from mtp.labelling import LabelQueue
from mtp.settings import Labelling, checked
dataset = Dataset({file!r})
with LabelQueue(dataset, checked({content!r}, Labelling, "test"), ["Cu"], print) as queue:
    for size in (1, 2, 3, 4, 6):
        dataset.add_candidate(copper(size), size // 6, "a")
        if size > 3:
            queue.submit_pending()
            queue.wait()
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("spawning", marks=pytest.mark.slow),
        "executorlib blocks",
        "parsl threads",
        pytest.param("executorlib", marks=pytest.mark.slow),
        pytest.param("parsl processes", marks=pytest.mark.slow),
    ],
)
def test_any_executor_gives_the_same_labels_and_failures(settings, dataset, tmp_path, name):
    # in a process of its own: these packages leave threads and open files behind
    content = settings("Weak", workers=2, executor=executor(name, tmp_path)).model_dump(exclude_none=True)
    path = [os.path.dirname(__file__), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ["PYTHONPATH"]])}
    script = TWO_ROUNDS.format(path=path, file=str(dataset.path), content=content)
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {len(failure.atoms): failure.reason for failure in dataset.failures()} == {3: "crashed", 4: "failed"}
    assert sorted(map(len, dataset.labelled())) == [1, 2, 6]
    assert_emt_labels(dataset)
    pids = {int(calculation.split("_")[-1]) for calculation in calculations(tmp_path)}
    wait_until(lambda: not any(map(alive, pids)))


def test_a_worker_of_an_executor_that_is_killed_costs_a_try(settings, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ["PYTHONPATH"]]))
    for seed in range(3):
        dataset.add_candidate(copper(2, seed), 0, f"{seed}")
    with LabelQueue(dataset, settings(seconds=0.5, executor=executor("spawning", tmp_path)), ["Cu"]) as queue:
        queue.submit_pending()
        wait_until(lambda: calculations(tmp_path))
        os.kill(next(iter(queue._executor._processes)), signal.SIGKILL)
        queue.wait()
    assert dataset.counts() == {"pending": 0, "labelled": 3, "failed": 0}


def test_a_broken_executor_is_replaced_once_however_many_jobs_it_had(settings, dataset, monkeypatch):
    for seed in range(4):
        dataset.add_candidate(copper(1, seed), 0, f"{seed}")
    made = []

    class Breaking(ThreadPoolExecutor):
        """The first of its kind breaks with all of its jobs."""

        def __init__(self):
            super().__init__(1)
            made.append(self)

        def submit(self, function, *arguments):
            if len(made) > 1:
                return super().submit(function, *arguments)
            future = Future()
            future.set_exception(BrokenExecutor("lost"))
            return future

    monkeypatch.setattr("mtp.labelling.make_executor", lambda *_: Breaking())
    told = settings(executor={"type": "test_label_queue.Useless"})
    with LabelQueue(dataset, told, ["Cu"]) as queue:
        queue.submit_pending()
        queue.wait()
    assert dataset.counts() == {"pending": 0, "labelled": 4, "failed": 0}
    assert len(made) == 2


def test_engines_end_with_their_owner_even_where_the_executor_s_workers_do_not(settings, dataset, tmp_path):
    content = settings(seconds=100.0, executor=executor("spawning", tmp_path)).model_dump(exclude_none=True)
    path = [os.path.dirname(__file__), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ["PYTHONPATH"]])}
    script = TWO_ROUNDS.format(path=path, file=str(dataset.path), content=content)
    with subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True) as owner:
        wait_until(lambda: len(calculations(tmp_path)) == 2)
        owner.kill()
    engines = {int(calculation.split("_")[-1]) for calculation in calculations(tmp_path)}
    wait_until(lambda: not any(map(alive, engines)))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(owner.pid, signal.SIGKILL)
    assert dataset.counts() == {"pending": 4, "labelled": 0, "failed": 0}


@pytest.mark.parametrize(
    ("executor", "says"),
    [
        ({"type": "no_such_package.Executor"}, "nothing is called 'no_such_package.Executor'.*install its package"),
        ({"type": "concurrent.futures.ThreadPoolExecutor", "keywords": {"workers": 2}}, "keyword.*correct its"),
        ({"type": "collections.OrderedDict"}, "makes OrderedDict, which has no `submit`"),
        ({"type": "test_label_queue.Useless"}, "no outcome of any job.*ZeroDivisionError"),
    ],
)
def test_an_executor_that_does_not_work_is_an_error_and_candidates_stay_pending(settings, dataset, executor, says):
    dataset.add_candidate(copper(2), 0, "a")
    with pytest.raises(Error, match=says):
        label_pending(dataset, settings(executor=executor), ["Cu"], print)
    assert dataset.counts() == {"pending": 1, "labelled": 0, "failed": 0}


class Useless(ProcessPoolExecutor):
    """Does nothing that it is told."""

    def submit(self, function, *arguments):
        return super().submit(divmod, 1, 0)
