# SPDX-License-Identifier: BSD-3-Clause
"""Crew: which walks are next, which have passed, and what a new potential and an interruption change."""

from types import SimpleNamespace
from unittest.mock import Mock

import mpi4py.MPI as MPI
import pytest
from ase import Atoms

from mtp import figures
from mtp.errors import Error
from mtp.learning.crew import Crew
from mtp.learning.loop import STUCK, Loop, _advice, _summary
from mtp.learning.ranks import Stopped
from mtp.learning.status import Status
from mtp.learning.teacher import Teacher
from mtp.learning.walks import Passage, Walk, histogram
from mtp.optimiser import Singular
from mtp.settings import Selection

LENGTH = 30


class Toy(Walk):
    """Goes its steps; `met` tells at which turns and steps it breaks or flags something."""

    def __init__(self, number: int, met: dict) -> None:
        self.title, self.number, self.met = f"walk {number}", number, met

    def begin(self, potential, path, turn):
        self.step, self.turn = 0, turn

    def go_on(self, steps=None):
        end = LENGTH if steps is None else min(LENGTH, self.step + steps)
        passage = Passage(self.title, self.step, end)
        what, at = self.met.pop((self.number, self.turn), (None, LENGTH))
        if what == "error":
            raise Error("the walk cannot be begun")
        if what is not None:
            passage.flagged = [Atoms()]
        if what == "break":
            passage.end = passage.break_step = at
        self.step = passage.end
        passage.finished = passage.complete and self.step == LENGTH
        return passage

    def take(self, potential, path):
        return self.step

    def close(self):
        pass


def crew(met: dict, n_walks: int = 3, chunk: int | None = None) -> Crew:
    return Crew(lambda k, comm: Toy(k, met), n_walks, 1, chunk, MPI.COMM_SELF)


def legs(crew: Crew, needed: int = 1) -> list[str]:
    """Titles of the walks until there is something to learn, or all have passed."""
    titles = []
    while crew.passes() < needed and not crew.wants:
        crew.assign(needed)
        titles += [passage.title for passage in crew.leg(None, None)]
    return titles


@pytest.mark.parametrize("needed", [1, 2])
def test_all_walks_pass_in_turn(needed):
    quiet = crew({})
    assert legs(quiet, needed) == ["walk 0", "walk 1", "walk 2"] * needed
    assert quiet.turns == [needed] * 3
    assert not quiet.wants


def test_a_walk_that_broke_does_not_count_and_the_others_follow():
    learning = crew({(1, 0): ("break", 10)})
    assert legs(learning) == ["walk 0", "walk 1"]
    assert learning.wants
    assert learning.take(None, None) == [{"walk": "walk 1", "from": 10, "to": 10, "first": None}]
    assert learning.passed == [0, 0, 0]
    # walk 1 goes on to its end, but only a whole walk is a pass
    assert legs(learning) == ["walk 1", "walk 2", "walk 0", "walk 1"]
    assert learning.turns == [2, 2, 1]


def test_a_single_group_waits_for_labels():
    learning = crew({(0, 0): ("flag", 0)}, chunk=10)
    assert legs(learning) == ["walk 0"]
    assert not learning.posts[0].waits  # only labels are waited for: nothing broke
    assert not learning.running


def test_what_was_flagged_is_learned_when_the_walk_ends():
    learning = crew({(0, 0): ("flag", 0)})
    assert legs(learning) == ["walk 0"]
    assert learning.wants
    learning.take(None, None)
    assert legs(learning) == ["walk 1", "walk 2", "walk 0"]


def test_what_was_flagged_is_learned_after_so_many_steps_where_that_is_asked():
    eager = crew({(0, 0): ("flag", 0)}, chunk=10)
    eager.assign(1)
    (passage,) = eager.leg(None, None)
    assert (passage.end, eager.wants) == (10, True)


def test_an_interrupted_crew_goes_on_with_the_walk_that_it_was_on():
    before = crew({(1, 0): ("break", 10)})
    legs(before)
    after = crew({})
    after.restore(before.state())
    assert after.turns == [1, 0, 0]
    after.restore({**before.state(), "passed": [0, 0, 0]})
    assert legs(after) == ["walk 1", "walk 2", "walk 0"]
    other = crew({}, n_walks=2)
    other.restore(before.state())
    assert other.turns == [0, 0]  # these are not the same walks


def test_an_error_of_a_group_stops_all():
    with pytest.raises(Stopped, match="cannot be begun"):
        legs(crew({(0, 0): ("error", 0)}))


# ---- the loop's part


@pytest.fixture
def loop(monkeypatch) -> Loop:
    """One that has a folder and a teacher in name alone."""
    loop = Loop.__new__(Loop)
    loop.settings = SimpleNamespace(selection=Selection())
    loop.folder = Mock(**{"add_round.side_effect": lambda record: [record], "__str__": lambda self: "run"})
    loop.teacher = Mock(**{"choose.return_value": 1})
    loop.say, loop.record, loop.passages, loop.flagged, loop.spare, loop._stuck = print, {}, [], [], [], {}
    monkeypatch.setattr(loop, "_note", lambda phase, number: None)
    return loop


@pytest.mark.parametrize("title", ["300 K", "κ by nemd"])  # an errand's walk begins again, and breaks where it broke
def test_a_walk_that_breaks_at_one_step_whatever_is_learned_ends_the_loop(loop, title):
    def conclude(number: int, break_step: int | None) -> None:
        loop.passages = [Passage(title, 0, break_step or LENGTH, 50.0, break_step=break_step)]
        loop.flagged = [Atoms(info={"grade": 50.0})]
        loop._conclude(number, "learn", 0.0)

    for number in range(STUCK - 1):
        conclude(number, 5)
    conclude(STUCK - 1, 10)  # it has got further
    for number in range(STUCK, 2 * STUCK - 1):
        conclude(number, 5)
    with pytest.raises(Error, match=rf"run: {title} has broken {STUCK} times at step 5"):
        conclude(2 * STUCK - 1, 5)


@pytest.mark.parametrize(
    ("failure", "hint"),
    [
        ("ERROR: Lost atoms: original 64 current 63 (src/thermo.cpp:494)", True),
        ("ERROR on proc 0: Non-numeric atom coords - simulation unstable", True),
        ("sbatch: job 17 was cancelled", False),
        ("structure 3: the cell has collapsed", False),
    ],
)
def test_a_smaller_timestep_is_advised_where_lammps_itself_failed(loop, failure, hint):
    loop.passages = [Passage("300 K", 0, 5, failure=failure)]
    with pytest.raises(Error) as caught:
        loop._conclude(0, "learn", 0.0)
    assert f"300 K failed before any configuration was flagged: {failure}" in str(caught.value)
    assert ("timestep" in str(caught.value)) == hint


@pytest.mark.parametrize("n_chosen", [0, 1])
def test_a_loop_converges_only_if_what_was_flagged_before_is_known(loop, monkeypatch, n_chosen):
    loop.teacher.choose.return_value = n_chosen
    loop.passages = [Passage("walk", 0, 10, finished=True)]
    loop.flagged = [Atoms(info={"grade": 5.0, "stale": True})]
    noted = []
    monkeypatch.setattr(loop, "_note", lambda phase, number: noted.append(phase))
    (record,) = loop._conclude(3, "converged", 0.0)
    assert (record["selected"], record["converged"]) == (n_chosen, n_chosen == 0)
    assert noted == ["labelling" if n_chosen else "converged"]


def test_a_round_says_what_it_counts():
    record = {"histogram": histogram([0.5] * 3 + [1.2, 500.0]), "selected": 0, "flagged": 0, "converged": False}
    assert _summary(record, 2.0) == "graded steps by their highest grade: <=1 3, <=1.5 1, >100 1"


@pytest.mark.parametrize(
    ("select", "break_above", "grades", "warned"),
    [
        (2, 50, [15.0] * 20, True),
        (2, 50, [15.0] * 19 + [9.0] * 50, False),
        (2, 10, [15.0] * 20, False),  # it stops where it should
        (8, 80, [15.0] * 30, False),
        (8, 80, [25.0] * 30, True),
    ],
)
def test_a_walk_that_goes_far_beyond_what_is_known_is_warned_of(select, break_above, grades, warned):
    passage = Passage("300 K", 0, 1000, histogram=histogram(grades))
    advice = _advice(passage, Selection(**{"select": select, "break": break_above}))
    assert (advice is not None) == warned
    assert not warned or "`break`" in advice


def test_the_status_names_walks_and_steps():
    walk = {"walk": "300 K", "number": 1, "of": 3, "steps": 500, "turn": 0, "waits": False}
    state = {"labelled": 1, "pending": 0, "failed": 0, "passes": 0, "needed": 1, "round": 2, "phase": "walking"}
    told = Status({**state, "walks": [walk], "rollbacks": []}, [], 1.0, {"300 K": "Step 120, Temp 290"}).lines()
    assert told[1] == "  300 K (walk 1, of 3), turn 0: Step 120 of 500, Temp 290"
    backs = [{"walk": "300 K", "from": 50, "to": 30, "first": first} for first in (43, None)]
    told = Status({**state, "walks": [], "rollbacks": backs}, [], 1.0, {}).lines()
    assert told[1:] == [
        "  300 K: went back from step 50 to step 30; first above `break`: step 43",
        "  300 K: went back from step 50 to step 30",
    ]


def test_the_figure_names_the_walks_in_which_the_newest_labels_were_met(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("mtp.figures._save", lambda figure, path: drawn.append(figure))
    met = [{"300 K": 2, "600 K": 0}, {"300 K": 1}, {"600 K": 3}, {"300 K": 0, "600 K": 0}]
    fixed = {"train": {"force_eV_per_A": {"rmse": 0.1}}, "new": None, "highest_grade": 3.0, "histogram": [1] * 10}
    fixed |= {"labelled": 5, "failed": 0, "selected": 1}
    rounds = [
        fixed | {"round": k, "passages": [{"title": title, "flagged": n} for title, n in walks.items()]}
        for k, walks in enumerate(met)
    ]
    figures.learning(tmp_path / "learning.png", rounds, 2, 10)
    names = {text.get_text(): text.xy[0] for text in drawn[0].axes[0].texts}
    assert names == {"first data": 0, "300 K": 1.5, "600 K": 3}  # in the middle of their rounds


def test_a_fit_that_data_do_not_determine_says_how_to_go_on(monkeypatch, tmp_path):
    folder = Mock(**{"file.return_value": tmp_path / "none", "__str__": lambda self: "run"})
    folder.dataset = Mock(path="run/dataset.db", **{"labelled.return_value": [Atoms(info={"round": 0})]})
    folder.dataset.failures.return_value = []
    monkeypatch.setattr("mtp.learning.teacher.fit", Mock(side_effect=Singular("singular")))
    with pytest.raises(Error, match="run: round 0: singular. All labels are kept: .* run/dataset.db among `files`"):
        Teacher(Mock(), folder, print).fit(0, None)
