# SPDX-License-Identifier: BSD-3-Clause
"""Pair styles that live in this process: what they flagged, and new potentials for them, in memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from ase import Atoms

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
    histogram: list[int]


@dataclass(frozen=True)
class Flagged:
    """This rank's n atoms of a configuration, or of the neighbourhood of an atom, whose grade passed the threshold.

    centre: LAMMPS ID of the neighbourhood's centre, None for a configuration; grade: the centre's, or the highest of
    the configuration over all ranks; tags: (n,) LAMMPS IDs; species: (n,) indices, -1: of another style; positions:
    (n, 3) Å, in a neighbourhood from its centre; grades: (n,); cell: (3, 3) rows of the run's box, Å; origin: (3,);
    periodic: (3,) bool.
    """

    step: int
    centre: int | None
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
        values["break_step"] = None if raw.break_step < 0 else raw.break_step
        return LiveFacts(**{**values, "histogram": list(raw.histogram)})

    def watch(
        self, select: float, break_above: float = np.inf, capacity: int = 1000, radius: float | None = None
    ) -> None:
        """Keep what has a grade above `select`, at most `capacity`; end the run above `break_above`.

        Whole configurations are kept, or, where `radius` (Å) is given and the active set is of neighbourhood mode, all
        atoms and images within it of each atom that passes `select`, except of those closer than the cutoff to one
        that is kept already of the same step; see `mtp_live_watch` in mtp.h.
        """
        call("live_watch", self.handle, select, break_above, capacity, radius or 0.0)

    def flagged(self) -> list[Flagged]:
        """What was kept since the last `clear`, this rank's atoms of each."""
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
                    centre=None if raw.centre < 0 else raw.centre,
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
        """Forget what is kept, the highest grade and the break."""
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


def gather_flagged(style: LiveStyle, species: list[str], comm) -> list[Atoms]:
    """What a pair style kept, put together from all ranks of `comm`, on rank 0 (elsewhere empty). Collective.

    Configurations come with their atoms in the order of the LAMMPS IDs; info has "step" and "grade". Neighbourhoods
    have no cell, and their atoms are ordered by the distance from the centre, which is the first and stands at the
    origin; info has in addition "centre" (its index, 0), "tag" (its LAMMPS ID) and "run_cell" ((3, 3), the run's box).
    Arrays have "grade". Atoms of other pair styles are "X".
    """
    parts = comm.gather(style.flagged())
    if comm.rank != 0:
        return []
    return [_together(pieces, species) for pieces in zip(*parts, strict=True)]


def _together(pieces: tuple[Flagged, ...], species: list[str]) -> Atoms:
    first = pieces[0]
    tags, kinds, positions, grades = (
        np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("tags", "species", "positions", "grades")
    )
    info = {"step": first.step, "grade": first.grade}
    if first.centre is None:
        order = np.argsort(tags)
        box = {"cell": first.cell, "pbc": first.periodic}
        positions = positions - first.origin
    else:
        # distances that a symmetry makes equal differ by rounding: 1e-9 Å
        distances = np.round(np.linalg.norm(positions, axis=1), 9)
        order = np.lexsort((*np.round(positions, 9).T, tags, distances))
        box = {}
        info |= {"centre": 0, "tag": first.centre, "run_cell": first.cell}
    atoms = Atoms(
        [species[kind] if kind >= 0 else "X" for kind in kinds[order]], positions=positions[order], info=info, **box
    )
    atoms.wrap()
    atoms.arrays["grade"] = grades[order]
    return atoms
