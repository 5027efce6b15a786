# SPDX-License-Identifier: BSD-3-Clause
"""Which of the configurations that walks have flagged are worth a label, and in what cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from mtp.cutting import centres, cut
from mtp.errors import Error
from mtp.potential import Potential
from mtp.settings import Cutting, Selection

FAR_BEYOND = 10  # times `break`: grades above are those of a run that has gone wrong already


def choose(
    potential: Potential,
    flagged: Sequence[Atoms],
    selection: Selection,
    cutting: Cutting,
    say: Callable[[str], None] = lambda text: None,
) -> list[Atoms]:
    """By maxvol those that extend what is known, the most extrapolative first, at most `per_round`.

    Of neighbourhoods, and of configurations that are too large for a label, what is known of the centre counts alone,
    and small cells are cut around those that are chosen.

    Args:
        potential: with the active set of what is known, to which the chosen are added.
        flagged: info has "grade" and "origin"; "centre" in neighbourhoods (see mtp.live.gather_flagged); and "stale"
            where an earlier potential gave the grade: what does not pass `select` any more is left out.
        say: told of each for which no small cell can be cut.

    Raises:
        Error: for none of the chosen a cell can be cut.
    """
    known = potential.copy()
    around = [piece for atoms in flagged for piece in _centred(known, atoms, selection, cutting)]
    near = _near([_regraded(known, atoms) for atoms in around], selection)
    wholes = [atoms for atoms in near if "centre" not in atoms.info]
    parts = [atoms for atoms in near if "centre" in atoms.info]
    chosen = [wholes[k] for k in potential.select(wholes, selection.mode)] + _entering(potential, parts)
    chosen = sorted(chosen, key=lambda atoms: -atoms.info["grade"])[: selection.per_round]
    cells, failure = [], None
    for atoms in chosen:
        try:
            cells.append(_cell(known, atoms, cutting))
        except Error as error:
            failure = error
            say(f"no cell for {atoms.info['origin']}: {error}")
    if failure is not None and not cells:
        raise failure
    return cells


def _centred(potential: Potential, atoms: Atoms, selection: Selection, cutting: Cutting) -> list[Atoms]:
    """What is flagged as it is, or, where it is too large for a label, once for each centre."""
    fits = len(atoms) <= cutting.max_atoms or cutting.method == "whole" or selection.mode == "configuration"
    if "centre" in atoms.info or fits:
        return [atoms]
    grades, found = potential.grade(atoms).per_atom, []
    for k in centres(atoms, potential, selection.select):
        found.append(atoms.copy())
        tag = int(atoms.arrays["id"][k]) if "id" in atoms.arrays else k + 1
        found[-1].info |= {"centre": k, "tag": tag, "grade": float(grades[k])}
    return found


def _regraded(potential: Potential, atoms: Atoms) -> Atoms:
    if atoms.info.pop("stale", False):
        grades = potential.grade(atoms)
        centre = atoms.info.get("centre")
        atoms.info["grade"] = float(grades.maximum if centre is None else grades.per_atom[centre])
    return atoms


def _near(flagged: list[Atoms], selection: Selection) -> list[Atoms]:
    """Leave out what is known by now, and what a run met after it had gone wrong: grades far beyond `break`, unless
    there is nothing else, or it is what someone wants to know ("given"). Such configurations are unphysical, and their
    large forces would spoil the fit."""
    flagged = [atoms for atoms in flagged if atoms.info["grade"] > selection.select]
    limit = FAR_BEYOND * selection.break_above
    near = [atoms for atoms in flagged if atoms.info["grade"] <= limit or atoms.info.get("given")]
    return near or sorted(flagged, key=lambda atoms: atoms.info["grade"])[:1]


def _entering(potential: Potential, parts: list[Atoms]) -> list[Atoms]:
    """Those whose centre's row enters the active set and stays."""
    if not parts:
        return []
    rows = np.concatenate([potential.rows(atoms)[[atoms.info["centre"]]] for atoms in parts])
    slots = potential.offer(rows, "neighbourhood")
    return [parts[k] for k in np.unique(slots[slots >= 0])]


def _cell(potential: Potential, atoms: Atoms, cutting: Cutting) -> Atoms:
    """The cell to be labelled: the configuration itself, or one cut around the centre."""
    centre = atoms.info.get("centre")
    if centre is None:
        return atoms
    cell = cut(atoms, centre, potential, cutting)
    origin = f"{atoms.info['origin']}, around atom {atoms.info['tag']} ({cell.info['cut_method']})"
    return Atoms(
        cell.numbers,
        cell.positions,
        cell=cell.cell,
        pbc=cell.pbc,
        info={"origin": origin, "grade": atoms.info["grade"]},
    )
