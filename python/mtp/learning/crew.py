# SPDX-License-Identifier: BSD-3-Clause
"""Groups of ranks that walk at the same time, and which of the walks have passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpi4py.MPI as MPI

from mtp.learning.ranks import from_leaders
from mtp.learning.walks import Passage, Walk
from mtp.potential import Potential

CHUNK = 1000  # steps between two looks at what the other groups have met

Make = Callable[[int, MPI.Comm], Walk]


@dataclass
class Post:
    """What rank 0 knows of a group: the walk it is on (None: none), at which turn and step; the first step above
    `break`, where it was retraced; whether it has begun under the potential in hand, has met something to learn, and
    waits for another potential."""

    walk: int | None = None
    turn: int = 0
    title: str = ""
    step: int = 0
    first: int | None = None
    fresh: bool = False
    met: bool = False
    waits: bool = False


class Crew:
    """All ranks, in groups that each go through one walk at a time, in legs at whose ends they meet.

    `leg`, `take` and `close` are collective over `comm`; what they return is rank 0's.

    Args:
        make: makes walk k for the ranks of a group.
        n_walks: how many there are.
        n_groups: at most as many as ranks.
        chunk: steps after which what a walk has met is learned; None: when it ends.

    Attributes, on rank 0:
        wants: whether there is a reason to learn: a break, a failure, or the end of a walk that has met something.
        passed, turns: of each walk, how often it has passed whole under the potential in hand with nothing to learn,
            and how often in all.
    """

    def __init__(self, make: Make, n_walks: int, n_groups: int, chunk: int | None, comm: MPI.Comm) -> None:
        self.comm, self.n_walks = comm, n_walks
        self.group = comm.rank * n_groups // comm.size
        self._leaders = [-(-g * comm.size // n_groups) for g in range(n_groups)]  # the first ranks of the groups
        self._own = comm.Split(self.group, comm.rank)
        self._eager = chunk is not None
        self._chunk = chunk or (CHUNK if n_groups > 1 else None)
        self._make = make
        self._walk: Walk | None = None
        self.posts = [Post() for _ in range(n_groups)]
        self.wants = False
        self.passed, self.turns = [0] * n_walks, [0] * n_walks
        self._next = 0

    @property
    def running(self) -> bool:
        """Whether a group is on a walk and need not wait for labels. A single group always waits: how far it came would
        depend on the clock."""
        return len(self.posts) > 1 and any(post.walk is not None and not post.waits for post in self.posts)

    def state(self) -> dict:
        """What it takes to go on after an interruption: walks in hand begin again."""
        first = min((post.walk for post in self.posts if post.walk is not None), default=self._next)
        return {"passed": self.passed, "turns": self.turns, "next": first}

    def restore(self, state: dict) -> None:
        """Go on from there, if these are the same walks."""
        if len(state.get("turns", ())) == self.n_walks:
            self.passed, self.turns, self._next = list(state["passed"]), list(state["turns"]), state["next"]

    def passes(self) -> int:
        """How often every walk has passed under the potential in hand."""
        return min(self.passed)

    def assign(self, needed: int) -> None:
        """Give each idle group the next walk that has not passed so often, and that no other group is on, because both
        would write the same files. On rank 0."""
        for post in self.posts:
            if post.walk is not None:
                continue
            taken = [p.walk for p in self.posts]
            order = [(self._next + k) % self.n_walks for k in range(self.n_walks)]
            free = [k for k in order if self.passed[k] < needed and k not in taken]
            if free:
                k = min(free, key=lambda k: self.passed[k])
                post.walk, post.turn, post.fresh = k, self.turns[k], True
                self._next = (k + 1) % self.n_walks

    def leg(self, potential: Potential, path: Path) -> list[Passage]:
        """Walk on in all groups that need not wait; returns what each met, in their order. An error in one group is
        raised on all ranks."""
        self.posts = self.comm.bcast(self.posts)
        found = from_leaders(self.comm, self._leaders, lambda: self._go_on(potential, path))
        for post, passage in zip(self.posts, found, strict=True):
            if passage is not None:
                self._book(post, passage)
        return [passage for passage in found if passage is not None]

    def take(self, potential: Potential, path: Path) -> list[dict]:
        """Exchange the potential in all walks; those that broke go back to what could be trusted. Returns where from
        and where to, and the first step above `break` where it is known."""
        walk = self._walk
        backs = from_leaders(self.comm, self._leaders, lambda: walk and walk.take(potential, path))
        rollbacks = []
        for post, back in zip(self.posts, backs, strict=True):
            if back is not None:
                rollbacks.append({"walk": post.title, "from": post.step, "to": back, "first": post.first})
            post.waits = post.met = False
            post.fresh = back == 0
        self.passed = [0] * self.n_walks
        self.wants = False
        return rollbacks

    def close(self) -> None:
        """Let go of the walk in hand."""
        if self._walk is not None:
            self._walk.close()
        self._walk = None

    def _go_on(self, potential: Potential, path: Path) -> Passage | None:
        post = self.posts[self.group]
        if post.walk is None or post.waits:
            return None
        if self._walk is None:
            self._walk = self._make(post.walk, self._own)
            self._walk.begin(potential, path, post.turn)
        passage = self._walk.go_on(self._chunk)
        if passage.finished:
            self.close()
        return passage

    def _book(self, post: Post, passage: Passage) -> None:
        post.title, post.step = passage.title, passage.end
        post.first = passage.retraced and passage.retraced["step"]
        post.met = post.met or bool(passage.flagged)
        self.wants = self.wants or not passage.complete or (post.met and (passage.finished or self._eager))
        if passage.finished:
            self.turns[post.walk] += 1
            self.passed[post.walk] += post.fresh and not post.met
            post.walk, post.fresh, post.met = None, False, False
        else:
            post.waits = not passage.complete
