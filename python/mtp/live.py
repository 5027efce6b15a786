# SPDX-License-Identifier: BSD-3-Clause
"""Pair styles that live in this process: what they flagged, and new potentials for them, in memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from mtp.library import NULL, call, doubles, ffi, int32s, int64s
from mtp.potential import Potential


@dataclass(frozen=True)
class LiveFacts:
    """State of a live pair style; see `mtp_live_facts` in mtp.h. `break_step` is None where no run was stopped."""

    lammps: int
    version: int
    n_flagged: int
    n_dropped: int
    break_step: int | None
    highest_grade: float


@dataclass(frozen=True)
class Flagged:
    """This rank's n atoms of a configuration whose highest grade (over all ranks) passed the threshold.

    tags: (n,) LAMMPS atom IDs; species: (n,) indices; positions: (n, 3) Å; grades: (n,); cell: (3, 3) rows, Å;
    origin: (3,); periodic: (3,) bool.
    """

    step: int
    grade: float
    cell: np.ndarray
    origin: np.ndarray
    periodic: np.ndarray
    tags: np.ndarray
    species: np.ndarray
    positions: np.ndarray
    grades: np.ndarray


class LiveStyle:
    """One `mtp` pair style of this process (MPI rank). Dead once its LAMMPS object is closed: LibraryError then."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @property
    def facts(self) -> LiveFacts:
        raw = ffi.new("mtp_live_facts *")
        call("live_get_facts", self.handle, raw)
        values = {name: getattr(raw, name) for name in LiveFacts.__dataclass_fields__}
        return LiveFacts(**{**values, "break_step": None if raw.break_step < 0 else raw.break_step})

    def watch(self, select: float, break_above: float = np.inf, capacity: int = 1000) -> None:
        """Keep configurations with a grade above `select`, at most `capacity`; end the run above `break_above`."""
        call("live_watch", self.handle, select, break_above, capacity)

    def flagged(self) -> list[Flagged]:
        """The configurations kept since the last `clear`, this rank's atoms of each."""
        kept = []
        for index in range(self.facts.n_flagged):
            raw = ffi.new("mtp_flagged *")
            call("live_get_flagged", self.handle, index, raw, NULL, NULL, NULL, NULL)
            n = raw.n_atoms
            tags, species = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int32)
            positions, grades = np.empty((n, 3)), np.empty(n)
            call(
                "live_get_flagged",
                self.handle,
                index,
                raw,
                int64s(tags),
                int32s(species),
                doubles(positions),
                doubles(grades),
            )
            kept.append(
                Flagged(
                    step=raw.step,
                    grade=raw.grade,
                    cell=np.array(list(raw.cell)).reshape(3, 3),
                    origin=np.array(list(raw.origin)),
                    periodic=np.array(list(raw.periodic), dtype=bool),
                    tags=tags,
                    species=species,
                    positions=positions,
                    grades=grades,
                )
            )
        return kept

    def clear(self) -> None:
        """Forget the kept configurations, the highest grade and the break."""
        call("live_clear", self.handle)

    def set_potential(self, potential: Potential) -> None:
        """Hand a copy of the potential to the running pair style; the next `run` computes with it.

        Raises LibraryError where basis, cutoff or species differ. Under MPI: call it on every rank alike.
        """
        call("live_set_potential", self.handle, potential.handle)


def styles(lammps=None) -> list[LiveStyle]:
    """The live pair styles of this process; of one `lammps.lammps` object where it is given."""
    n = ffi.new("int32_t *")
    call("live_list", 0, NULL, n)
    handles = np.empty(n[0], dtype=np.int64)
    call("live_list", n[0], int64s(handles), n)
    found = [LiveStyle(int(handle)) for handle in handles]
    if lammps is None:
        return found
    address = ctypes.cast(lammps.lmp, ctypes.c_void_p).value
    return [style for style in found if style.facts.lammps == address]
