# SPDX-License-Identifier: BSD-3-Clause
"""Which of the configurations that walks have flagged are worth a label."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from mtp.potential import Potential
from mtp.settings import Selection

FAR_BEYOND = 10  # times `break`: grades above are those of a run that has gone wrong already


def choose(potential: Potential, flagged: Sequence[Atoms], selection: Selection) -> list[Atoms]:
    """By maxvol those that extend what is known, the most extrapolative first, at most `per_round`.

    potential: with the active set of what is known, to which the chosen are added. flagged: info has "grade", and
    "stale" where an earlier potential gave it: what does not pass `select` any more is left out.
    """
    graded = [_regraded(potential, atoms) if atoms.info.pop("stale", False) else atoms for atoms in flagged]
    near = _near([atoms for atoms in graded if atoms.info["grade"] > selection.select], selection)
    chosen = sorted((near[k] for k in potential.select(near, selection.mode)), key=lambda atoms: -atoms.info["grade"])
    return chosen[: selection.per_round]


def _regraded(potential: Potential, atoms: Atoms) -> Atoms:
    atoms.info["grade"] = potential.grade(atoms).maximum
    return atoms


def _near(flagged: list[Atoms], selection: Selection) -> list[Atoms]:
    """Leave out what a run met after it had gone wrong: grades far beyond `break`, unless there is nothing else.

    Such configurations are unphysical, and their large forces would spoil the fit.
    """
    near = [atoms for atoms in flagged if atoms.info["grade"] <= FAR_BEYOND * selection.break_above]
    return near or sorted(flagged, key=lambda atoms: atoms.info["grade"])[:1]
