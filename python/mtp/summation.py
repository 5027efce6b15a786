# SPDX-License-Identifier: BSD-3-Clause
"""Sums over configurations, spread over threads and MPI ranks.

Configurations are dealt into bins whose number does not depend on threads or ranks; each bin is summed by itself, and
the bins in their order, so that any number of threads, and of ranks up to that of the bins, gives the same sums.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from ase import Atoms

from mtp.errors import Error, LibraryError
from mtp.guard import to_learn
from mtp.neighbours import Neighbourhoods, joined
from mtp.potential import Potential

BINS = 24  # the work of 1, 2, 3, 4, 6, 8, 12 or 24 ranks is even
BLOCK_ROWS = 2048  # of the Jacobian that are formed at a time, by each thread
JACOBIAN_BYTES = 2**25  # and their memory, at most but for a single large configuration

Bin = tuple[list[Atoms], list[np.ndarray], list[np.ndarray]]  # configurations, their values and weights


@dataclass
class _Block:
    """Configurations that are computed in one call; `near` where memory allows to keep their neighbours."""

    atoms: list[Atoms]
    values: np.ndarray
    learned: np.ndarray  # the values that the parameters are to explain: less the repulsion of a guard
    weights: np.ndarray
    full_weights: np.ndarray  # before residuals are weighed down
    kinds: np.ndarray  # of the values: 0 energy, 1 force, 2 virial; int8
    near: Neighbourhoods | None = None

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of energies', forces' and virials' entries, (3,)."""
        return np.bincount(self.kinds, weights=values, minlength=3)


class Share:
    """The bins of one rank: what it adds to the sums, computed by `threads` threads. memory: bytes that neighbour lists
    may take; those beyond are found anew in each pass."""

    def __init__(self, potential: Potential, bins: Sequence[Bin], threads: int, memory: float) -> None:
        self.potential, self.threads = potential.copy(), threads
        rows = max(1, min(BLOCK_ROWS, JACOBIAN_BYTES // (8 * potential.facts.n_parameters)))
        self.bins = [_blocks(potential, *content, rows) for content in bins]
        self._memory = memory

    def parts(self, what: str, theta: np.ndarray, *more: np.ndarray) -> Iterator[np.ndarray]:
        """The sum of each bin at θ, in their order.

        what: "linear" or "all" for normal equations (JᵀWJ, JᵀWy, yᵀWy, flat); "errors": weighted square errors by
        kind (3) and plain ones of energies per atom and forces (2); "gradient": weighted square errors (3) and the
        gradient of their sum; "sizes": of residuals, and their numbers, by kind (6); "robust": nothing, but weights
        of residuals beyond the limits `more[0]` (3,) are lowered.
        """
        self.potential.parameters = theta
        compute = {
            "linear": partial(self._equations, True),
            "all": partial(self._equations, False),
            "errors": self._errors,
            "gradient": self._gradient,
            "sizes": self._sizes,
            "robust": partial(self._weigh_down, *more),
        }[what]

        def of_block(block: _Block) -> np.ndarray:
            near = self._near(block)
            try:
                return compute(block, near)
            except LibraryError:
                for atoms in block.atoms:  # which of them?
                    self.potential.evaluate(atoms)
                raise

        return _ordered(lambda blocks: summed(of_block(block) for block in blocks), self.bins, self.threads)

    def _near(self, block: _Block) -> Neighbourhoods:
        if block.near is not None:
            return block.near
        near = joined([self.potential.neighbourhoods(atoms) for atoms in block.atoms])
        if near.bytes < self._memory:
            self._memory -= near.bytes
            block.near = near
        return near

    def _equations(self, linear_only: bool, block: _Block, near: Neighbourhoods) -> np.ndarray:
        rows = self.potential.jacobian_rows(near, linear_only)
        roots = np.sqrt(block.weights)
        rows *= roots[:, None]
        y = roots * block.learned
        return np.concatenate([(rows.T @ rows).ravel(), rows.T @ y, [y @ y]])

    def _errors(self, block: _Block, near: Neighbourhoods) -> np.ndarray:
        square = (self.potential.observables(near) - block.values) ** 2
        return np.concatenate([block.sums(block.weights * square), block.sums(_plain_weights(block) * square)[:2]])

    def _gradient(self, block: _Block, near: Neighbourhoods) -> np.ndarray:
        return np.concatenate(self.potential.square_errors(near, block.values, block.weights))

    def _sizes(self, block: _Block, near: Neighbourhoods) -> np.ndarray:
        """Sums of the sizes of residuals, and their numbers, by kind."""
        known = block.weights > 0
        size = np.abs(self.potential.observables(near) - block.values)
        return np.concatenate([block.sums(size * known), block.sums(known)])

    def _weigh_down(self, limits: np.ndarray, block: _Block, near: Neighbourhoods) -> np.ndarray:
        size = np.abs(self.potential.observables(near) - block.values)
        limit = limits[block.kinds]
        block.weights = block.full_weights * np.where(size > limit, limit / np.maximum(size, 1e-300), 1.0)
        return np.zeros(1)


class Ranks:
    """The ranks among which sums are shared: rank 0 leads, the others compute what it asks for.

    comm: mpi4py communicator; None for a single process.

        ranks = Ranks(MPI.COMM_WORLD)
        with ranks.lead() as leading:
            if leading:
                potential = fit(configurations, settings, ranks=ranks)
    """

    def __init__(self, comm=None) -> None:
        self.comm = comm if comm is not None and comm.size > 1 else None
        self.size = comm.size if self.comm else 1
        self._shares: dict[int, Share] = {}
        self._dealt = 0

    @contextmanager
    def lead(self) -> Iterator[bool]:
        """True on rank 0; False on the others, which have served until rank 0 left. After an error that is not the
        library's own all ranks are ended: some may be in the middle of a sum."""
        if self.comm and self.comm.rank > 0:
            self._serve()
            yield False
            return
        try:
            yield True
        except BaseException as error:
            if self.comm and not isinstance(error, Error):
                traceback.print_exc()
                self.comm.Abort(1)
            self._dismiss()
            raise
        self._dismiss()

    def deal(self, potential: Potential, bins: Sequence[Bin], threads: int, memory: float) -> int:
        """Rank 0: spread bins over the ranks; returns the name under which `total` knows them."""
        name = self._dealt = self._dealt + 1
        if self.comm:
            self.comm.bcast(("deal", name, potential, threads, memory))
        own = self._scatter([list(bins[rank :: self.size]) for rank in range(self.size)])
        self._shares[name] = Share(potential, own, threads, memory)
        return name

    def total(self, name: int, n_bins: int, *order: object) -> np.ndarray:
        """Rank 0: the sum over all bins, in their order. order: see `Share.parts`."""
        own = self._shares[name].parts(*order)
        if not self.comm:
            return summed(own)
        self.comm.bcast(("sum", name, *order))
        failed: list[Exception] = []

        def parts() -> Iterator[np.ndarray]:
            for k in range(n_bins):
                owner = k % self.size
                part = _caught(own) if owner == 0 else self.comm.recv(source=owner)
                if isinstance(part, Exception):
                    failed.append(part)  # but hear what the others have to say
                else:
                    yield part

        total = summed(parts())
        if failed:
            raise failed[0]
        return total

    def forget(self, name: int) -> None:
        """Rank 0: free the memory of bins that are not needed any more."""
        if self.comm:
            self.comm.bcast(("forget", name))
        del self._shares[name]

    def together(self, function: Callable, *arguments: object) -> None:
        """Rank 0: let the others call function(comm, *arguments), which rank 0 has to meet. A library error that it
        raises there is left to rank 0, which has to raise it as well."""
        if self.comm:
            self.comm.bcast(("together", function, *arguments))

    def _dismiss(self) -> None:
        if self.comm:
            self.comm.bcast(("dismiss",))

    def _serve(self) -> None:
        while (order := self.comm.bcast(None))[0] != "dismiss":
            what, name, *more = order
            if what == "deal":
                potential, threads, memory = more
                self._shares[name] = Share(potential, self._scatter(None), threads, memory)
            elif what == "forget":
                del self._shares[name]
            elif what == "together":
                with suppress(Error):
                    name(self.comm, *more)
            else:
                parts = self._shares[name].parts(*more)
                for _ in self._shares[name].bins:
                    self.comm.send(_caught(parts), dest=0)

    def _scatter(self, by_rank: list[list[Bin]] | None) -> list[Bin]:
        return self.comm.scatter(by_rank) if self.comm else by_rank[0]


def deal(configurations: Sequence[Atoms], n_bins: int) -> list[list[int]]:
    """The configurations' indices in at most n_bins bins of about as many atoms each."""
    ends = np.cumsum([len(atoms) for atoms in configurations])
    places = np.minimum((ends - 1) * n_bins // max(ends[-1], 1), n_bins - 1)
    return [np.flatnonzero(places == k).tolist() for k in range(n_bins) if (places == k).any()]


def _blocks(potential: Potential, atoms: list[Atoms], values: list, weights: list, rows: int) -> list[_Block]:
    blocks, start = [], 0
    while start < len(atoms):
        end, size = start, 0
        while end < len(atoms) and (end == start or size + len(values[end]) <= rows):
            size += len(values[end])
            end += 1
        sizes = [len(a) for a in atoms[start:end]]
        weight = np.concatenate(weights[start:end])
        kinds = np.concatenate([_kinds(n) for n in sizes])
        value = learned = np.concatenate(values[start:end])
        if potential.guard is not None:
            parts = zip(atoms[start:end], values[start:end], strict=True)
            learned = np.concatenate([to_learn(potential, *part) for part in parts])
        blocks.append(_Block(atoms[start:end], value, learned, weight, weight, kinds))
        start = end
    return blocks


def _kinds(n: int) -> np.ndarray:
    return np.repeat(np.array([0, 1, 2], dtype=np.int8), [1, 3 * n, 6])


def _plain_weights(block: _Block) -> np.ndarray:
    """Weights of the mean square errors, of energies per atom: of the labels that count."""
    plain = (block.weights > 0).astype(float)
    plain[block.kinds == 0] /= np.array([len(atoms) for atoms in block.atoms]) ** 2.0
    return plain


def summed(parts: Iterator[np.ndarray]) -> np.ndarray | None:
    """The sum of arrays in their order; the first is overwritten."""
    total = None
    for part in parts:
        total = part if total is None else np.add(total, part, out=total)
    return total


def _caught(parts: Iterator[np.ndarray]) -> np.ndarray | Exception:
    try:
        return next(parts)
    except Exception as error:  # told to rank 0, which raises it
        return error


def _ordered(work: Callable, bins: list, threads: int) -> Iterator[np.ndarray]:
    if threads == 1:
        yield from map(work, bins)
        return
    with ThreadPoolExecutor(threads) as pool:
        # few results in flight: each may be a large matrix
        pending = [pool.submit(work, item) for item in bins[: 2 * threads]]
        for following in bins[2 * threads :]:
            yield pending.pop(0).result()
            pending.append(pool.submit(work, following))
        while pending:
            yield pending.pop(0).result()
