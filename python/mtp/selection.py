# SPDX-License-Identifier: BSD-3-Clause
"""D-optimal selection from the configurations of all MPI ranks, by maxvol in sweeps.

Configurations are cut into blocks that do not depend on the number of ranks, dealt to the ranks in turn. A sweep goes
through all blocks in waves: the ranks grade a wave's blocks against the present set, rows whose grade exceeds the
threshold (in the first sweep, comes near it) travel to rank 0, which offers them to the set in their order, together
with the latest that it holds from before, and tells all ranks the new set.
Sweeps are repeated until one changes nothing: no row then exceeds the threshold, and the set is D-optimal up to that
[Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017)]. Any number of ranks chooses the same rows, bit by bit.

Rows are computed where they are graded and kept by nobody, so that memory is that of the configurations, of the
neighbours of one block (of one configuration, where it is larger), and of a few blocks' rows on rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
from ase import Atoms

from mtp.configurations import types
from mtp.errors import DataError, Error, LibraryError
from mtp.neighbours import Neighbourhoods, joined
from mtp.potential import SWAP_THRESHOLD, Potential
from mtp.summation import Ranks

BLOCK = 512  # atoms that are graded at a time
WAVE = 256  # blocks that are graded against the same set
OFFERED = 4096  # rows that rank 0 takes at a time
NEAR = 0.6  # share of the threshold above which a first sweep keeps rows: swaps raise them, and sweeps are saved
MOST_SWEEPS = 1000  # each swap enlarges the volume: far fewer are needed

Result = TypeVar("Result")


class _Piece(NamedTuple):
    """Atoms `start` to `end` of the configuration at `place` in the sequence of all ranks."""

    place: int
    start: int
    end: int


class _Candidates(NamedTuple):
    """Rows above the threshold, (m, n_parameters), and the places of their configurations (m,)."""

    rows: np.ndarray
    places: np.ndarray


class _Alone:
    """A single process, as a communicator."""

    rank, size = 0, 1

    def allgather(self, item: Result) -> list[Result]:
        return [item]

    def alltoall(self, items: list[Result]) -> list[Result]:
        return items

    def bcast(self, item: Result) -> Result:
        return item


def select(potential: Potential, configurations: Sequence[Atoms], mode: str, threshold: float, comm=None) -> list[int]:
    """See `Potential.select`."""
    return _Selection(potential, configurations, mode, threshold, comm or _Alone()).run()


def lead(
    ranks: Ranks, potential: Potential, configurations: Sequence[Atoms], mode: str, threshold: float = SWAP_THRESHOLD
) -> list[int]:
    """`Potential.select` with the help of all ranks, called by the one that leads (see `Ranks.lead`)."""
    known = (potential.facts.active_set, potential.active_set) if potential.facts.active_set else None
    ranks.together(_serve, potential, known, mode, threshold)
    return potential.select(configurations, mode, threshold, ranks.comm)


def _serve(comm, potential: Potential, known: tuple[str, np.ndarray] | None, mode: str, threshold: float) -> None:
    if known is not None:  # active sets do not travel with potentials
        potential.set_active_set(known[1], known[0])
    potential.select([], mode, threshold, comm)


class _Selection:
    """A selection in progress, on one of its ranks. `set` are the rows of the active set, alike on all ranks."""

    def __init__(self, potential: Potential, configurations: Sequence[Atoms], mode: str, threshold: float, comm):
        self.potential, self.mode, self.threshold, self.comm = potential, mode, threshold, comm
        self.n = potential.facts.n_parameters
        self.begun = potential.facts.active_set == mode
        sizes = self._everywhere(lambda: self._checked(configurations))
        first = sum(map(len, sizes[: comm.rank]))
        self.blocks = list(_cut([size for of_rank in sizes for size in of_rank], mode))
        self._held = self._dealt(configurations, first)
        self._near: tuple[int, Neighbourhoods | None] = (-1, None)  # of the configuration that was needed last

    def run(self) -> list[int]:
        """Sweep until nothing changes; then the potential has the active set."""
        if not self.blocks:
            return []
        self.grader = self.potential.copy()  # has the set of the last wave
        if self.begun:  # with an inverse that is the same on all ranks
            self._everywhere(lambda: self.grader.set_active_set(self.potential.active_set, self.mode))
        else:
            largest = np.max(self._everywhere(self._largest), axis=0)
            self.grader.offer(largest[None], self.mode, np.inf)
        self.chooser = self.grader.copy()  # rank 0: has the set as it becomes
        self.owners = np.full(self.n, -1, dtype=np.int64)  # rank 0: whence the rows of the set came
        self._pool = _Candidates(np.zeros((0, self.n)), np.zeros(0, dtype=np.int64))  # rank 0
        self._news: np.ndarray | None = None  # the set, where the grader does not have it yet
        for sweep in range(MOST_SWEEPS):
            self._worth_keeping = self.threshold * (1 if sweep else NEAR)
            if not self._sweep(first=sweep == 0):
                break
        else:
            raise Error(f"the active set does not settle in {MOST_SWEEPS} sweeps: candidates are degenerate")
        chosen, rows = self.comm.bcast((self.owners, self.chooser.active_set))
        if not self.begun or (chosen >= 0).any():
            self._everywhere(lambda: self.potential.set_active_set(rows, self.mode))
        return np.unique(chosen[chosen >= 0]).tolist()

    def _sweep(self, first: bool) -> bool:
        """Offer all blocks; whether the set has changed. The waves of a first sweep double what has been seen, because
        almost everything exceeds a set that knows little."""
        start, changed = 0, False
        while start < len(self.blocks):
            size = min(max(start, 1), WAVE) if first else WAVE
            end = min(start + size, len(self.blocks))
            changed |= self._wave(range(start, end))
            start = end
        return changed

    def _wave(self, numbers: range) -> bool:
        """Offer some blocks; whether the set has changed. What fails on one rank is raised on all."""
        outcome = None
        if self.comm.rank == 0:
            outcome = self._merged(numbers)
        else:
            for number in numbers:
                if self._is_own(number):
                    self.comm.send(_caught(lambda n=number: self._candidates(n)), dest=0)
        outcome = self.comm.bcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            self._news = outcome
        return outcome is not None

    def _merged(self, numbers: range) -> np.ndarray | Exception | None:
        """Rank 0: the set after a wave, None where it is what it was, or the first failure of any rank."""
        failures, waiting, changed = [], [], False
        for number in numbers:
            own = self._is_own(number)
            part = (
                _caught(lambda n=number: self._candidates(n)) if own else self.comm.recv(source=number % self.comm.size)
            )
            if isinstance(part, Exception):
                failures.append(part)  # but hear what the others have to say
            elif not failures:
                waiting.append(part)
                if number == numbers[-1] or sum(len(p.rows) for p in waiting) >= OFFERED:
                    found = _caught(lambda parts=waiting: self._offer(parts))
                    if isinstance(found, Exception):
                        failures.append(found)
                    else:
                        changed |= found
                    waiting = []
        if failures:
            return failures[0]
        return self.chooser.active_set if changed else None

    def _offer(self, parts: list[_Candidates]) -> bool:
        """Rank 0: maxvol among the set, some candidates and earlier ones, which may rise again; whether one entered."""
        if not any(len(part.rows) for part in parts):
            return False
        rows, places = map(np.concatenate, zip(self._pool, *parts, strict=True))
        slots = self.chooser.offer(rows, self.mode, self.threshold)
        entered = slots >= 0
        self.owners[entered] = places[slots[entered]]
        kept = max(OFFERED, 4 * self.n)
        self._pool = _Candidates(rows[-kept:], places[-kept:])
        return bool(entered.any())

    # ---- blocks

    def _candidates(self, number: int) -> _Candidates:
        """Of an own block."""
        if self._news is not None:
            self.grader.set_active_set(self._news, self.mode)
            self._news = None
        near, centres = self._neighbourhoods(number)
        places = self._places(number)
        with self._blamed(number):
            grades = self.grader.grades_of(near)[centres]
        if not np.isfinite(grades).all():
            atoms = self._held[places[np.argmin(np.isfinite(grades))]]
            raise DataError(f"{_source(atoms)}: derivatives by the parameters are not finite: atoms are too close")
        above = np.flatnonzero(grades > self._worth_keeping)
        return _Candidates(self._rows(number, near, centres, above), places[above])

    def _largest(self) -> np.ndarray:
        """The largest element of every column in the rows of the own blocks."""
        largest = np.zeros(self.n)
        for number in filter(self._is_own, range(len(self.blocks))):
            near, centres = self._neighbourhoods(number)
            with self._blamed(number):
                rows = self._rows(number, near, centres, np.arange(len(centres)))
            np.maximum(largest, np.abs(rows).max(axis=0, initial=0.0), out=largest)
        return largest

    def _rows(self, number: int, near: Neighbourhoods, centres: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Of chosen ones among the rows of a block: (len(chosen), n_parameters)."""
        if self.mode == "neighbourhood":
            return self.potential.gradient_rows(near.of_centres(centres[chosen]))[: len(chosen)]
        pieces = [self.blocks[number][k] for k in chosen]
        rows = [self.potential.rows(self._held[piece.place], self.mode) for piece in pieces]
        return np.concatenate([np.zeros((0, self.n)), *rows])

    def _neighbourhoods(self, number: int) -> tuple[Neighbourhoods, np.ndarray]:
        """Of a block, and where in them the grade of each row is found."""
        parts, centres, n_atoms = [], [], 0
        for place, start, end in self.blocks[number]:
            if self._near[0] != place:
                self._near = (place, self.potential.neighbourhoods(self._held[place]))
            near = self._near[1]
            parts.append(near if end - start == len(near) else near.of_centres(np.arange(start, end)))
            centres.append(n_atoms + np.arange(end - start))
            n_atoms += len(parts[-1])
        found = np.arange(len(parts)) if self.mode == "configuration" else np.concatenate(centres)
        return joined(parts), found

    @contextmanager
    def _blamed(self, number: int) -> Iterator[None]:
        """What the library says of a block is said of the configuration that is to blame."""
        try:
            yield
        except LibraryError:
            for piece in self.blocks[number]:
                self.potential.parameter_gradient(self._held[piece.place])
            raise

    def _places(self, number: int) -> np.ndarray:
        """The place of the configuration to which each row of a block belongs."""
        pieces = self.blocks[number]
        n_rows = [1 if self.mode == "configuration" else piece.end - piece.start for piece in pieces]
        return np.repeat([piece.place for piece in pieces], n_rows)

    def _is_own(self, number: int) -> bool:
        return number % self.comm.size == self.comm.rank

    # ---- ranks

    def _checked(self, configurations: Sequence[Atoms]) -> list[int]:
        """The sizes of this rank's configurations, when mode, threshold and elements are good."""
        self.potential.copy().offer(np.empty((0, self.n)), self.mode, self.threshold)
        for atoms in configurations:
            types(atoms, self.potential.species)
        return [len(atoms) for atoms in configurations]

    def _dealt(self, configurations: Sequence[Atoms], first: int) -> dict[int, Atoms]:
        """The configurations of which this rank has blocks, by their place; the rank's own begin at `first`."""
        outgoing: list[dict[int, Atoms]] = [{} for _ in range(self.comm.size)]
        for number, pieces in enumerate(self.blocks):
            for place in {piece.place for piece in pieces}:
                if 0 <= place - first < len(configurations):
                    atoms = configurations[place - first]
                    outgoing[number % self.comm.size][place] = atoms if self.comm.size == 1 else _bare(atoms)
        return {place: atoms for part in self.comm.alltoall(outgoing) for place, atoms in part.items()}

    def _everywhere(self, action: Callable[[], Result]) -> list[Result]:
        """Do it on every rank, and give all results, or the first failure, to all."""
        results = self.comm.allgather(_caught(action))
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results


def _cut(sizes: Sequence[int], mode: str) -> Iterator[list[_Piece]]:
    """Blocks of up to BLOCK atoms; configurations are cut where a row is an atom's, and whole where it is theirs."""
    block: list[_Piece] = []
    n_atoms = 0
    for place, size in enumerate(sizes):
        step = BLOCK if mode == "neighbourhood" else max(size, 1)
        for start in range(0, max(size, mode == "configuration"), step):
            piece = _Piece(place, start, min(start + step, size))
            if block and n_atoms + piece.end - start > BLOCK:
                yield block
                block, n_atoms = [], 0
            block.append(piece)
            n_atoms += piece.end - start
    if block:
        yield block


def _bare(atoms: Atoms) -> Atoms:
    """What rows need, for the way to another rank."""
    info = {key: atoms.info[key] for key in ("source",) if key in atoms.info}
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    if "type" in atoms.arrays:
        bare.set_array("type", atoms.arrays["type"])
    return bare


def _source(atoms: Atoms) -> str:
    return atoms.info.get("source", "configuration")


def _caught(action: Callable[[], Result]) -> Result | Exception:
    try:
        return action()
    except Exception as error:  # goes to the other ranks
        return error
