# SPDX-License-Identifier: BSD-3-Clause
"""From a large run to a cell that a quantum calculation can take: the environment of one atom, kept exactly, in a small
periodic cell whose other atoms, the filler, are cut from the run and relaxed.

After Hodapp & Shapeev, Mach. Learn.: Sci. Technol. 1, 045005 (2020) and Mismetti & Hodapp, arXiv:2311.01830, who build
such cells for dislocations; here the box is found from what lies around the atom, whatever that is.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mtp.boxes import boxes
from mtp.errors import Error
from mtp.filling import Filled, allowed, fill, graded, relaxed
from mtp.potential import Potential
from mtp.settings import Cutting
from mtp.surroundings import Surroundings, isolated, surroundings

POOL = 6  # times as many atoms as may be in the cell are looked at
COHERENT = 0.1  # mismatch of a seam up to which a cell counts as cut from a crystal


def cut(atoms: Atoms, centre: int, potential: Potential, settings: Cutting | None = None) -> Atoms:
    """Cut a small cell around one atom out of a large configuration.

    Args:
        atoms: a configuration; or a neighbourhood as a live pair style hands it over: no periodic directions,
            info["centre"], and all atoms within info["radius"] (Å) of that one.
        centre: index of the atom.
        potential: with an active set in neighbourhood mode.

    Returns:
        The cell. The atoms within the cutoff (and skin) of the centre are those of the run, at the same relative
        positions, and there are no others; they come first, the centre itself at index 0. arrays: "grade" and "kept";
        info: "cut_method", "cut_centre" (in the run), "cut_run_grade" and "cut_grade" (of the centre, there and here),
        "cut_filler_grade" (the highest of the others that were not kept), "cut_kept_grade" (of those that were),
        "cut_bound", "cut_excess" (the highest ratio of a grade to the bound, or to 1.1 times what that atom had in the
        run where that is more), "cut_atoms_in_run" and, where the run tells them, "run", "step", "run_cell" and
        "cut_tag" (the LAMMPS ID, of the array "id"). "cut_method" is "crystal", or "cut" where the seam is no
        crystal's, if nothing was moved; else "relaxed", "cluster" or "whole".

    Raises:
        Error: the cutoff asks for more than max_atoms atoms (with the least number), the method does not fit the
            configuration, or the potential grades whole configurations.
    """
    settings = settings or Cutting()
    _refuse_other_modes(potential)
    if not 0 <= centre < len(atoms):
        raise Error(f"there is no atom {centre}: the configuration has {len(atoms)}, the first is 0")
    is_neighbourhood = "centre" in atoms.info and not atoms.pbc.any()
    small = len(atoms) <= settings.max_atoms and not is_neighbourhood
    if settings.method == "whole" or (settings.method == "auto" and small and atoms.pbc.any()):
        return _whole(atoms, centre, potential, settings, small)
    known = surroundings(atoms, centre, potential, POOL * settings.max_atoms)
    radius = potential.facts.cutoff + settings.skin
    n_kept = int(np.searchsorted(known.distances, radius, side="right"))
    molecule = isolated(known, potential.facts.cutoff)
    if n_kept > settings.max_atoms:
        raise Error(_too_few(potential, settings, n_kept))
    if settings.method == "cluster" or (settings.method == "auto" and 0 < len(molecule) <= settings.max_atoms):
        filled = _cluster(known, n_kept, molecule, potential, settings)
        method = "cluster"
    else:
        filled = _periodic(known, n_kept, radius, potential, settings)
        method = "relaxed" if filled.relaxed else "cut" if filled.box.mismatch > COHERENT else "crystal"
    _check(filled, potential)
    return _result(atoms, centre, filled, method, known.grades[0], settings)


def pool_radius(n_atoms: int, volume: float, largest: int, cutoff: float) -> float:
    """Within it (Å), at the density of a run, are as many atoms as a cut of `largest` atoms looks at."""
    return max((3 * POOL * largest * volume / n_atoms / (4 * np.pi)) ** (1 / 3), 2 * cutoff)


def centres(atoms: Atoms, potential: Potential, above: float) -> list[int]:
    """The atoms with a grade above some value, the highest first, none inside the environment of an earlier one."""
    _refuse_other_modes(potential)
    grades = potential.grade(atoms).per_atom
    order = np.argsort(-grades, kind="stable")
    chosen: list[int] = []
    free = np.ones(len(atoms), dtype=bool)
    near = potential.neighbourhoods(atoms)
    for k in order[: np.count_nonzero(grades > above)]:
        if free[k]:
            chosen.append(int(k))
            free[near.neighbour[near.first[k] : near.first[k + 1]]] = False
    return chosen


def _refuse_other_modes(potential: Potential) -> None:
    if potential.facts.active_set != "neighbourhood":
        raise Error(
            "cutting needs a potential with an active set in neighbourhood mode: `mtp select POTENTIAL DATA -o X.almtp`"
        )


def _whole(atoms: Atoms, centre: int, potential: Potential, settings: Cutting, small: bool) -> Atoms:
    if not small:
        raise Error(
            f"the whole configuration has {len(atoms)} atoms, more than max_atoms ({settings.max_atoms}), "
            "or is a neighbourhood: choose another method"
        )
    grades = potential.grade(atoms).per_atom
    order = np.r_[centre, np.delete(np.arange(len(atoms)), centre)]
    whole = atoms[order]
    whole.calc = None
    filled = Filled(whole, len(atoms), allowed(grades[order], settings.bound), grades[order], None)
    return _result(atoms, centre, filled, "whole", float(grades[centre]), settings)


def _cluster(known: Surroundings, n_kept: int, molecule: np.ndarray, potential: Potential, settings: Cutting) -> Filled:
    """The molecule, or where there is none as many atoms as may be, without periodic directions, in vacuum."""
    index = molecule
    if not 0 < len(molecule) <= settings.max_atoms:
        index = np.arange(min(len(known), settings.max_atoms))
        if known.reach < np.inf:
            index = index[known.distances[index] <= known.reach]
    cluster = known.atoms[index]
    limits = allowed(known.grades[index], settings.bound)
    kept = int(np.count_nonzero(index < n_kept))
    filled = graded(Filled(cluster, kept, limits, np.full(len(index), np.nan), None), potential)
    if len(molecule) == len(index) or filled.excess <= 1:
        return filled
    return relaxed(
        filled, potential, potential.facts.cutoff + settings.skin, _closest(known, settings), settings.steps, False
    )


def _periodic(known: Surroundings, n_kept: int, radius: float, potential: Potential, settings: Cutting) -> Filled:
    closest = _closest(known, settings)
    volume = 4 / 3 * np.pi * float(known.distances[-1]) ** 3
    max_volume = settings.max_atoms * volume / len(known)
    kept = known.vectors[:n_kept]

    def filled_boxes(largest: float) -> list[Filled]:
        found = [
            fill(known, n_kept, box, radius, offset, closest, settings.bound)
            for box in boxes(known, kept, radius, largest)
            for offset in _offsets(known, box.images, radius)
        ]
        return sorted((filled for filled in found if filled is not None), key=lambda filled: len(filled.atoms))

    for largest in (max_volume, max(2 * max_volume, (3 * radius) ** 3)):
        found = filled_boxes(largest)
        trials = [filled for filled in found if len(filled.atoms) <= settings.max_atoms]
        if trials:
            break
    else:
        if found:
            raise Error(_too_few(potential, settings, len(found[0].atoms)))
        raise Error(
            f"no periodic cell around the atom fits into what is known of the run, {known.reach:.1f} Å: "
            f"hand over a neighbourhood of {3 * radius:.0f} Å"
        )
    if settings.method == "crystal":
        trials = [filled for filled in trials if filled.box.mismatch <= COHERENT]
        if not trials:
            raise Error('no cell continues the crystal around this atom: take the method "relaxed" or "auto"')
    trials = [graded(filled, potential) for filled in trials]
    clean = [filled for filled in trials if filled.excess <= 1]
    if clean and settings.method != "relaxed":
        return clean[0]
    trials.sort(key=lambda filled: (filled.badness, filled.excess))
    if settings.method == "crystal":
        return trials[0]
    best = trials[0]
    for filled in trials[: settings.candidates]:
        trial = relaxed(filled, potential, radius, closest, settings.steps, settings.relax_box)
        best = min(best, trial, key=lambda filled: filled.rank)
        if best.excess <= 1:
            break
    return best


def _offsets(known: Surroundings, images: np.ndarray, radius: float) -> list[np.ndarray]:
    """Where the middle of the box may lie: at the centre, and where one side is empty (a surface), as far towards the
    other as leaves the environment inside."""
    middle = known.vectors.mean(axis=0)
    size = float(np.linalg.norm(middle))
    offsets = [np.zeros(3)]
    if size > 0.1 * known.distances[-1]:
        towards = middle / size
        along = images @ -towards
        facing = along > 1e-9
        room = float(((images[facing] ** 2).sum(axis=1) / (2 * along[facing])).min()) - 1.05 * radius
        if room > 0:
            offsets.append(room * towards)
    return offsets


def _closest(known: Surroundings, settings: Cutting) -> float:
    return settings.closest * known.spacing


def _too_few(potential: Potential, settings: Cutting, least: int) -> str:
    return (
        f"max_atoms is {settings.max_atoms}, but with the potential's cutoff of {potential.facts.cutoff:g} Å the "
        f"environment of this atom needs a cell of at least {least} atoms to be free of its own images: "
        "raise max_atoms, or learn with a shorter cutoff"
    )


def _check(filled: Filled, potential: Potential) -> None:
    """Nothing but kept atoms, where they were, is inside the cutoff."""
    near = potential.neighbourhoods(filled.atoms)
    neighbours, vectors = near.neighbour[: near.first[1]], near.vectors[: near.first[1]]
    n_before = np.count_nonzero(
        np.linalg.norm(filled.atoms.positions[1 : filled.n_kept], axis=1) < potential.facts.cutoff
    )
    if (
        len(neighbours) != n_before
        or (neighbours >= filled.n_kept).any()
        or not np.allclose(vectors, filled.atoms.positions[neighbours], rtol=0, atol=1e-9)
    ):
        raise RuntimeError("the environment of the centre was not kept")


def _result(source: Atoms, centre: int, filled: Filled, method: str, run_grade: float, settings: Cutting) -> Atoms:
    atoms = filled.atoms.copy()
    if method != "whole":
        if atoms.pbc.any():
            atoms.positions += atoms.cell.array.sum(axis=0) / 2
            atoms.wrap()
        else:
            atoms.center(vacuum=settings.vacuum)
    atoms.arrays["grade"] = filled.grades
    atoms.arrays["kept"] = np.arange(len(atoms)) < filled.n_kept
    atoms.info = {name: source.info[name] for name in ("run", "step", "run_cell") if name in source.info}
    if "run" not in atoms.info and "source" in source.info:
        atoms.info["run"] = source.info["source"]
    if "id" in source.arrays:
        atoms.info["cut_tag"] = int(source.arrays["id"][centre])
    atoms.info |= {
        "cut_method": method,
        "cut_centre": centre,
        "cut_atoms_in_run": int(source.info.get("n_atoms", len(source))),
        "cut_run_grade": float(run_grade),
        "cut_grade": float(filled.grades[0]),
        "cut_kept_grade": float(filled.grades[1 : filled.n_kept].max(initial=0.0)),
        "cut_filler_grade": filled.filler_grade,
        "cut_bound": settings.bound,
        "cut_excess": filled.excess,
    }
    return atoms
