# SPDX-License-Identifier: BSD-3-Clause
"""The learning loop: walk under extrapolation grades, select, label, fit, walk on, until nothing extrapolates any more.

A round: label what is pending; fit; build the active set; hand the potential to the walks in hand, which go on from the
last step that could be trusted; walk until there is a reason to learn; choose by maxvol among the configurations that
were flagged; they are the next round's pending candidates. The loop ends when all walks have passed whole, as many
times as `passes` asks, under one potential and without a configuration above `select`.

A killed loop goes on where it was, from its folder (see mtp.learning.folder); it loses at most the calculations and
walks in hand. Under MPI all ranks walk and fit; rank 0 does everything else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms

from mtp import structures
from mtp.configurations import types
from mtp.errors import Error
from mtp.learning.crew import Crew
from mtp.learning.errand import Errand, weighed
from mtp.learning.files import FileWalk
from mtp.learning.folder import Folder
from mtp.learning.memory import MemoryWalk
from mtp.learning.ranks import NotConverged, Stopped, led, on_root
from mtp.learning.relaxations import Plan, RelaxationWalk, plan
from mtp.learning.scripts import Script, check_vacuum, scripts, write_data
from mtp.learning.teacher import Teacher
from mtp.learning.walks import GRADES, Passage, Walk, lammps_error
from mtp.potential import Potential
from mtp.settings import LearnSettings, Selection

STUCK = 20  # breaks of a walk at one step, one after the other: it does not get on
FAR = 10.0  # a grade, or twice `select`: a walk that goes on there goes through what its potential has made up
OFTEN = 20  # graded steps

Result = TypeVar("Result")
Say = Callable[[str], None]


class Loop:
    """A learning loop in its folder. Methods are collective; what they keep beside the potential is rank 0's.

    errand: one more walk, at whose end there is the property that is to be settled.
    """

    def __init__(self, settings: LearnSettings, say: Say, comm: MPI.Comm, errand: Errand | None = None) -> None:
        self.settings, self.comm, self.errand = settings, comm, errand
        self.say = say if comm.rank == 0 else lambda text: None
        self.folder = Folder(settings.folder)
        self.teacher = Teacher(settings, self.folder, self.say, errand and errand.given)
        self.search: dict = {}  # what the settings ask for, and what the files that they name hold
        self.crew: Crew | None = None
        self.potential: Potential | None = None  # that of the walks in hand
        self.record: dict = {}  # of the round in hand, as far as it is known
        self.passages: list[Passage] = []  # since the last round's end
        self.flagged: list[Atoms] = []  # in them
        self.spare: list[Atoms] = []  # of the errand, under the potential in hand
        self._structures: dict[Path, Atoms] = {}  # that are walked from, by the files that LAMMPS reads
        self._resumed: dict | None = None  # how the walks stood when the loop was interrupted
        self._counts: dict[str, int] = {}  # of the data set
        self._warned = False
        self._stuck: dict[str, tuple[int, int]] = {}  # of each walk, the step of the last break, and how often

    def open(self) -> None:
        """Take the folder, and check everything that can be checked before the first calculation."""
        self._on_root(self.folder.take)
        self.scripts, self.plans = self._on_root(self._check)
        self.search = self._on_root(self.settings.search)  # as its files are now, whoever edits them meanwhile
        self.titles = [walk.title for walk in (*self.scripts, *self.plans, *([self.errand] if self.errand else []))]
        chunk, n = self.settings.selection.learn_after, len(self.titles)
        self.crew = Crew(self._walk, n, self.settings.groups, chunk, self.comm)

    def close(self) -> None:
        """Let go of LAMMPS and of the folder."""
        self.teacher.close()
        if self.crew is not None:
            self.crew.close()
        self.folder.release()

    def run(self) -> list[dict]:
        """Go on until a round converges, and write the result. Returns all rounds."""
        rounds = self._on_root(lambda: self.folder.rounds)
        if self._converged(rounds):
            self.say(f"{self.folder}: learned already, in {len(rounds)} rounds: nothing to do")
        else:
            self._on_root(lambda: self._begin(len(rounds)))
            if not rounds:
                self._try_scripts()
        while not self._converged(rounds):
            number = len(rounds)
            if number >= self.settings.rounds:
                raise NotConverged(
                    f"{self.folder}: not converged after {number} rounds: the highest grade of the last was "
                    f"{rounds[-1]['highest_grade']:.3g}; its potential is {self.folder.file(number - 1).name}. "
                    "Raise `rounds` and run the same command to go on",
                    rounds,
                )
            rounds = self._round(number)
        self._on_root(self._finish)
        return rounds

    def _converged(self, rounds: list[dict]) -> bool:
        """Whether the last round converged, and with the explorations that the settings ask for now."""
        return bool(rounds) and rounds[-1]["converged"] and rounds[-1]["search"] == self.search

    # ---- one round

    def _round(self, number: int) -> list[dict]:
        start = time.monotonic()
        self._label(number)
        self._on_root(lambda: self._note("fitting", number))
        self._learn(number)
        self.record = self._on_root(lambda: self.teacher.report(number)) | {"search": self.search}
        self.potential = self._shared_potential(number)
        rollbacks = self.crew.take(self.potential, self.folder.file(number))
        self._on_root(lambda: self._taken(rollbacks))
        while (reason := self._on_root(self._reason)) is None:
            self._leg(number)
        return self._on_root(lambda: self._conclude(number, reason, start))

    def _label(self, number: int) -> None:
        """Label what is pending. Walks that need not wait for it go on meanwhile, with the potential that they have."""
        self._on_root(lambda: self._note("labelling", number))
        if number == 0:
            self._on_root(self.teacher.begin)
        self._on_root(lambda: self.teacher.begin_to_label(number))
        while self._on_root(lambda: self.crew.running and not self.teacher.labelled()):
            self._leg(number - 1)
        self._on_root(lambda: self.teacher.labelled(wait=True))

    def _learn(self, number: int) -> None:
        """The round's potential and active set, in the folder: all ranks fit and select."""
        fitted = led(self.comm, lambda ranks: self.teacher.fit(number, ranks))
        if fitted is None:
            return
        try:
            comm = self.comm if self.comm.size > 1 else None
            fitted.select(self.teacher.data, self.settings.selection.mode, comm=comm)
        except Error as error:  # on all ranks alike
            raise Stopped(str(error)) from error
        self._on_root(lambda: fitted.save(self.folder.file(number)))

    def _taken(self, rollbacks: list[dict]) -> None:
        """The walks have a new potential."""
        for back in rollbacks:
            self.say(f"{back['walk']}: goes on from step {back['to']}")
        self.record["rollbacks"] = rollbacks
        for atoms in self.flagged:
            atoms.info["stale"] = True
        self.spare = []
        if self._resumed is not None:
            self.crew.restore(self._resumed)
            self._resumed = None
            if self._settled and self.crew.passes() >= self._needed:
                # the target's error has been raised since: one more pass, because a round is written from its passages
                self.crew.passed = [self._needed - 1] * len(self.titles)

    def _leg(self, number: int) -> None:
        """Let all groups walk on that need not wait. number: of the round whose potential they have."""
        self._on_root(lambda: self._assign(number))
        for passage in self.crew.leg(self.potential, self.folder.file(number)):
            for atoms in (*passage.flagged, *passage.spare):
                atoms.info["origin"] = f"round {number}, {passage.title}, step {atoms.info['step']}"
            self.passages.append(passage)
            self.flagged += passage.flagged
            self.spare += passage.spare
            if passage.outcome is not None:
                self.record |= weighed(passage.outcome, self.folder.rounds, self.errand.tolerance)
            self.say(f"round {number}: {_described(passage)}")
            advice = None if self._warned else _advice(passage, self.settings.selection)
            if advice is not None:
                self.say(advice)
                self._warned = True

    def _assign(self, number: int) -> None:
        self.crew.assign(self._needed)
        self._note("walking", number)

    @property
    def _needed(self) -> int:
        """How often all walks are to pass before the loop ends, one way or the other."""
        target = self.settings.target
        return self.settings.passes + (0 if target is None or self._settled else target.passes)

    @property
    def _settled(self) -> bool:
        """Whether the last fit changed the target, where there is one, by less than its error. That of an errand is to
        have been seen to change, as long as there is anything left to learn."""
        found = self.record["target"]
        if found is None or found["change"] is None:
            return not self.spare
        return found["change"] < found["allowed"]

    def _reason(self) -> str | None:
        """Why the round is over; None where it is not."""
        if self.crew.wants:
            return "learn"
        if self.crew.passes() < self._needed:
            return None
        if not self._settled:
            if self.spare:
                return "settle"
            found = self.record["target"]
            raise NotConverged(
                f"{self.folder}: nothing extrapolated in {self._needed} passes, but the last fit changed the target by "
                f"{found['change']:.3g}, more than its error of {found['allowed']:.3g}: explore more, lower `select`, "
                "or find out whether the error is right",
                self.folder.rounds,
            )
        return "converged"

    def _conclude(self, number: int, reason: str, start: float) -> list[dict]:
        """Choose the next candidates and write the round down: rank 0."""
        passages, flagged, spare = self.passages, self.flagged, self.spare
        self.passages, self.flagged, self.spare = [], [], []
        failed = [passage for passage in passages if passage.failure is not None]
        if failed and not flagged and not spare:
            last = failed[-1]
            hint = ". A smaller `timestep` or `interval` may help" if lammps_error(last.failure) else ""
            raise Error(
                f"{self.folder}: {last.title} failed before any configuration was flagged: {last.failure}{hint}"
            )
        self._watch_progress(passages)
        if reason == "converged" or (not failed and reason != "settle"):
            spare = []
        # walks that went on while labels were computed may have left something that the present potential does not know
        n_chosen = self.teacher.choose(number, flagged, spare) if flagged or reason != "converged" else 0
        reason = "learn" if n_chosen else reason
        grades = np.sum([passage.histogram for passage in passages], axis=0)
        self.record |= {
            "flagged": len(flagged),
            "selected": n_chosen,
            "highest_grade": max(passage.highest_grade for passage in passages),
            "histogram": grades.tolist(),
            "passages": [passage.record() for passage in passages],
            "converged": reason == "converged",
            "seconds": time.monotonic() - start,
        }
        rounds = self.folder.add_round(self.record)
        self._note("converged" if reason == "converged" else "labelling", number)
        self.folder.draw(rounds, self.settings.selection.select, self.settings.selection.break_above)
        self.say(f"round {number}: {_summary(self.record, self.settings.selection.select)}")
        return rounds

    def _watch_progress(self, passages: list[Passage]) -> None:
        """Raise Error where a walk breaks at the same step again and again."""
        for passage in passages:
            if passage.break_step is None:
                self._stuck.pop(passage.title, None)
                continue
            step, times = self._stuck.get(passage.title, (None, 0))
            times = times + 1 if step == passage.break_step else 1
            self._stuck[passage.title] = (passage.break_step, times)
            if times >= STUCK:
                raise Error(
                    f"{self.folder}: {passage.title} has broken {times} times at step {step}, whatever was learned: "
                    "look at its last candidates (ase db), at the reference's numbers there, or raise `break`"
                )

    # ---- folder, walks and ranks

    def _check(self) -> tuple[list[Script], list[Plan]]:
        """Check settings and folder against each other, and give what walks are made of: rank 0."""
        settings, found = self.settings, []
        if settings.groups > self.comm.size:
            raise Error(f"groups = {settings.groups}, but there are {self.comm.size} ranks: start more (mpiexec -n)")
        made = [structures.crystal(settings.initial.crystal)] if settings.initial.crystal else []
        for atoms in made:
            types(atoms, settings.species)
        several = len(settings.exploration) > 1
        for number, exploration in enumerate(settings.exploration):
            data = self.folder.path / f"structure_{number}.data"
            if exploration.input is None:
                self._structures[data] = structures.explored(exploration, settings.species)
                check_vacuum(exploration, self._structures[data])
            prefix = f"{number}: " if several else ""
            found += [script.titled(prefix + script.title) for script in scripts(exploration, data, settings.species)]
        plans = [plan(what, number, settings.species) for number, what in enumerate(settings.relaxation)]
        twice = [title for title, n in Counter(walk.title for walk in (*found, *plans)).items() if n > 1]
        if twice:
            raise Error(f"{self.folder}: two walks are {twice[0]}: take one of them out")
        self._check_sizes(plans)
        self.folder.check(settings)
        self.folder.dataset.forget_pending(after_round=len(self.folder.rounds))
        caught_up = self.folder.catch_up()
        if caught_up is not None:
            self.say(caught_up)
        return found, plans

    def _check_sizes(self, plans: list[Plan]) -> None:
        """Nothing is cut from what is selected as a whole: refuse what is larger than any label is to be."""
        cutting = self.settings.cutting
        if self.settings.selection.mode != "configuration" or cutting.method == "whole":
            return
        explored = [*self._structures.values(), *(atoms for plan in plans for atoms in plan.structures)]
        largest = max(map(len, explored), default=0)
        if largest > cutting.max_atoms:
            raise Error(
                f'{self.folder}: selection.mode = "configuration" labels whole configurations, and one to explore has '
                f"{largest} atoms, more than cutting.max_atoms = {cutting.max_atoms}: take the mode "
                '"neighbourhood", raise cutting.max_atoms, or set cutting.method = "whole" to label it all the same'
            )

    def _walk(self, k: int, comm: MPI.Comm) -> Walk:
        transport, selection, seeds = self.settings.transport, self.settings.selection, (self.settings.seed, k)
        if k == len(self.scripts) + len(self.plans):
            return self.errand.walk(comm)
        if k >= len(self.scripts):
            return RelaxationWalk(self.plans[k - len(self.scripts)], selection, self.folder.path, comm)
        cutting, log = self.settings.cutting, self.folder.path / f"log_{k}.lammps"
        largest = None if cutting.method == "whole" else cutting.max_atoms
        if transport.type == "files":
            folder = self.folder.path / f"walk_{k}"
            return FileWalk(self.scripts[k], selection, folder, seeds, comm, transport.command, largest)
        return MemoryWalk(self.scripts[k], selection, log, seeds, comm, largest, transport.options)

    def _begin(self, number: int) -> None:
        """Write down what the walks begin with, and remember how they stood when the loop was interrupted: how often
        each has been walked, and which have passed under the potential of that round."""
        state = self.folder.state
        self.folder.note_start(self.settings, self.comm.size)
        for path, atoms in self._structures.items():
            write_data(path, atoms, self.settings.species)
        if "crew" in state and state.get("search") == self.search:
            walking = state["phase"] == "walking" and state["round"] == number
            self._resumed = state["crew"] | ({} if walking else {"passed": [0] * len(self.titles)})
            if self.errand is not None:
                self._resumed["passed"][-1:] = [0]  # its folder has what it found, and the loop does not

    def _try_scripts(self) -> None:
        """Find out before the first label, with a potential that is zero, whether LAMMPS takes users' inputs, and
        whether it can be run elsewhere."""
        inputs = [k for k, script in enumerate(self.scripts) if script.is_users]
        path = self.folder.path / "zero.almtp"
        zero = nothing(self.settings)
        elsewhere = self.scripts and self.settings.transport.type == "files"
        for k in inputs or ([0] if elsewhere else []):
            self._on_root(lambda: zero.save(path))
            walk = self._walk(k, self.comm)
            try:
                walk.begin(zero, path, turn=0)
                failure = walk.go_on(0).failure
                refusal = failure and f"{walk.title}: {failure}"
            except Error as error:  # on all ranks alike; others pass, because what follows is done by all together
                refusal = str(error)
            walk.close()
            self._on_root(lambda: path.unlink(missing_ok=True))
            if refusal is not None:
                raise Stopped(refusal)

    def _note(self, phase: str, number: int) -> None:
        """Write down what the loop is at."""
        posts = [post for post in self.crew.posts if post.walk is not None]
        state = {"phase": phase, "round": number, "passes": self.crew.passes(), "needed": self.settings.passes}
        state["walks"] = [
            {"walk": self.titles[post.walk], "number": post.walk, "turn": post.turn, "waits": post.waits}
            | {"of": len(self.titles), "steps": self._steps(post.walk)}
            for post in posts
        ]
        state["rollbacks"] = self.record.get("rollbacks", [])
        if phase != "walking" or not self._counts:
            self._counts = self.folder.dataset.counts()
        self.folder.set_state({**state, **self._counts, "crew": self.crew.state(), "search": self.search})

    def _steps(self, k: int) -> int | None:
        """Of a walk, where they count from 0."""
        return self.scripts[k].steps if k < len(self.scripts) and not self.scripts[k].is_users else None

    def _finish(self) -> None:
        selection = self.settings.selection
        self.folder.finish()
        self.folder.draw(self.folder.rounds, selection.select, selection.break_above, again=False)

    def _shared_potential(self, number: int) -> Potential:
        """The round's potential on every rank, through memory."""
        path = self.folder.file(number)
        if self.comm.size == 1:
            return Potential.load(path)

        def load() -> tuple[Potential, str, np.ndarray]:
            potential = Potential.load(path)
            return potential, potential.facts.active_set, potential.active_set

        potential, mode, rows = self._on_root(load)
        potential.set_active_set(rows, mode)
        return potential

    def _on_root(self, action: Callable[[], Result]) -> Result:
        return on_root(self.comm, action)


def nothing(settings: LearnSettings) -> Potential:
    """A potential of the form that the settings describe, without energy and forces, and with grades up to one."""
    form = settings.fit
    potential = Potential.new(
        form.level, settings.species, form.cutoff, form.min_distance or 0.5, form.radial_basis_size
    )
    potential.parameters = np.zeros(potential.facts.n_parameters)
    potential.set_active_set(np.eye(potential.facts.n_parameters), settings.selection.mode)
    return potential


def _described(passage: Passage) -> str:
    text = f"{passage.title}: steps {passage.begin} to {passage.end}, highest grade {passage.highest_grade:.3g}"
    text += f", {len(passage.flagged)} flagged" if passage.flagged else ""
    text += f" ({passage.n_dropped} more dropped)" if passage.n_dropped else ""
    if passage.failure is not None:
        return f"{text}; failed: {passage.failure}"
    if passage.retraced is not None:
        return "{}; stopped; first above `break`: {grade:.3g} at step {step}".format(text, **passage.retraced)
    return text + ("; stopped" if passage.break_step is not None else "; to its end" if passage.finished else "")


def _advice(passage: Passage, selection: Selection) -> str | None:
    """What to set otherwise where a walk has gone far beyond `select` for long; None where it has not."""
    far = max(FAR, 2 * selection.select)
    often = sum(n for end, n in zip((0, *GRADES), passage.histogram, strict=True) if end >= far)
    if selection.break_above <= far or often < OFTEN:
        return None
    return (
        f"warning: {passage.title}: {often} graded steps above {far:g}, far above `select` = {selection.select:g}, and "
        f"`break` = {selection.break_above:g} lets it go on through what its potential has made up, which is then "
        f"learned: a `break` of {far:g}, or a smaller `interval`, would stop it on the way"
    )


def _summary(record: dict, select: float) -> str:
    bins = [*(f"<={end:.3g}" for end in GRADES), f">{GRADES[-1]:.3g}"]
    counts = ", ".join(f"{name} {n}" for name, n in zip(bins, record["histogram"], strict=True) if n)
    text = f"graded steps by their highest grade: {counts or 'none'}"
    if record["selected"] and not record["flagged"]:
        return f"{text}; nothing above {select:g}; {record['selected']} configurations to be labelled, to see a change"
    if record["selected"]:
        return f"{text}; {record['selected']} of {record['flagged']} flagged configurations to be labelled"
    return f"{text}; nothing above {select:g}" if record["converged"] else text
