# SPDX-License-Identifier: BSD-3-Clause
"""Structures that a learning loop begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.build import bulk

from mtp import configurations
from mtp.configurations import check_distances
from mtp.errors import Error
from mtp.settings import Crystal, Exploration, InitialData

if TYPE_CHECKING:
    from mtp.validation import Structure

CUBIC = ("sc", "fcc", "bcc", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite")


VACUUM = 10.0  # Å; a wider layer without atoms is no part of a solid or a fluid


def gaps(cell: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The widest layers without atoms across each pair of a cell's faces, (3,), Å."""
    places = np.sort(np.linalg.solve(cell.T, positions.T) % 1.0, axis=1)
    widest = np.diff(places, axis=1, append=places[:, :1] + 1).max(axis=1)
    return widest / np.linalg.norm(np.linalg.inv(cell), axis=0)


def crystal(settings: Crystal) -> Atoms:
    """The crystal that the settings describe. Raises Error where ASE knows no such crystal."""
    cubic = settings.structure.lower() in CUBIC if settings.cubic is None else settings.cubic
    keywords = {"a": settings.a, "cubic": cubic}
    if settings.c is not None:
        keywords |= {"c": settings.c}
    try:
        return bulk(settings.name, settings.structure, **keywords).repeat(settings.repeat)
    except Exception as error:  # ASE raises by the wrong key
        raise Error(
            f"no crystal of {settings.name!r} with the structure {settings.structure!r}: {error} "
            "(names as in ase.build.bulk: sc, fcc, bcc, hcp, diamond, zincblende, rocksalt, …)"
        ) from error


def explored(settings: Exploration | Structure, species: Sequence[str]) -> Atoms:
    """The structure of an exploration or validation. Raises Error where there is not exactly one, or not periodic."""
    if settings.crystal is not None:
        return crystal(settings.crystal)
    found = configurations.read(settings.file, species)
    if len(found) != 1:
        raise Error(f"{settings.file}: want one structure, found {len(found)}")
    (atoms,) = found
    if not all(atoms.pbc) or atoms.cell.rank < 3:
        raise Error(f"{settings.file}: the structure must be periodic in three directions; add vacuum to its cell")
    check_distances(atoms)
    return atoms


def first_candidates(settings: InitialData, seed: int) -> Iterator[tuple[str, Atoms]]:
    """Names and configurations made from the crystal: as it is, strained, sheared, rattled, with a vacancy."""
    perfect = crystal(settings.crystal)
    rng = np.random.default_rng(seed)

    def deformed(deformation: np.ndarray) -> Atoms:
        atoms = perfect.copy()
        atoms.set_cell(perfect.cell @ (np.eye(3) + deformation), scale_atoms=True)
        return atoms

    def rattled(atoms: Atoms, displacement: float) -> Atoms:
        atoms = atoms.copy()
        atoms.positions += displacement * rng.standard_normal(atoms.positions.shape)
        return atoms

    smallest = min(settings.rattles, default=0.0)
    yield "crystal", perfect
    for strain in settings.strains:
        yield f"strained by {strain:g}", rattled(deformed(strain * np.eye(3)), smallest)
        shear = np.zeros((3, 3))
        shear[0, 1] = strain
        yield f"sheared by {strain:g}", rattled(deformed(shear), smallest)
    for displacement in settings.rattles:
        yield f"rattled by {displacement:g} Å", rattled(perfect, displacement)
    if settings.vacancy and len(perfect) > 1:
        without = perfect.copy()
        del without[0]
        yield "vacancy", rattled(without, smallest)
