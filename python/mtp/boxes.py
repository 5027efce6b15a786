# SPDX-License-Identifier: BSD-3-Clause
"""Periodic boxes around an atom of a large configuration, so chosen that what lies on opposite sides fits together.

A box is given by its lattice vectors. What goes into it is the Wigner-Seitz cell around the centre: every atom that is
nearer to the centre than to any of the centre's images. So the box is as round as its lattice allows, and the
environment of the centre, a sphere, fits into the smallest number of atoms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

from mtp.surroundings import Surroundings

COINCIDENCE = 0.25  # of the spacing of atoms: two atoms nearer than that, one shifted by a period, are the same site
N_PEAKS = 330  # translations that are looked at
N_BEST = 40  # of which lattices are made,
N_SECTORS, PER_SECTOR = 20, 3  # with the best of each direction
N_SIZES, PER_SIZE = 8, 5  # boxes that are tried
SEAM_COST = 0.05  # of a seam that fits, against 1 for one that does not: among fitting boxes, the roundest
_COMBINATIONS = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
COMBINATIONS = _COMBINATIONS[np.any(_COMBINATIONS != 0, axis=1)]
FACES = COMBINATIONS[
    np.abs(COMBINATIONS).max(axis=1) == 1
]  # those of a reduced lattice's Wigner-Seitz cell are among them


@dataclass(frozen=True)
class Box:
    """Reduced lattice vectors (rows, Å), and the share of the seam's atoms that meet no partner on the other side."""

    lattice: np.ndarray
    mismatch: float

    @property
    def images(self) -> np.ndarray:
        """(124, 3), the lattice points around the origin."""
        return COMBINATIONS @ self.lattice


def boxes(known: Surroundings, kept: np.ndarray, radius: float, max_volume: float) -> list[Box]:
    """Lattices up to a volume (Å³) that leave the kept atoms alone, the best of each of some sizes, the smallest first.

    Args:
        kept: (k, 3), vectors of the atoms within `radius` (Å) of the centre; no image of one may come within it.

    Returns:
        Boxes; none where no lattice is small enough.
    """
    longest = min(1.3 * known.reach, 2.2 * max_volume ** (1 / 3))
    translations, mismatch = _translations(known, radius, longest)
    alone = np.array([is_alone(kept, t[None], radius) for t in translations], dtype=bool)
    translations, mismatch = translations[alone], mismatch[alone]
    length = np.linalg.norm(translations, axis=1) / radius
    rank = np.argsort(mismatch.round(2) + 0.02 * length, kind="stable")
    # where periods lie in a plane or along a line only, the box needs vectors that lead out of it
    sector = np.argmax(np.abs(translations @ np.array(_directions(N_SECTORS)).T), axis=1) + N_SECTORS * (length > 2.4)
    best = [rank[sector[rank] == k][:PER_SECTOR] for k in range(2 * N_SECTORS)]
    chosen = np.unique(np.concatenate([rank[:N_BEST], *best]))
    return _lattices(translations[chosen], mismatch[chosen], kept, radius, max_volume)


def _translations(known: Surroundings, radius: float, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (one of ±) that carry atoms near the plane at -t/2 onto atoms, as far as there are any; and, so that
    there is always a box, some in all directions. With the share of atoms near the planes that meet no partner."""
    vectors, spacing = known.vectors, known.spacing
    shortest, near = 1.8 * radius, COINCIDENCE * spacing
    within = np.flatnonzero(known.distances <= 0.85 * longest)
    first, second = (within[k] for k in np.triu_indices(len(within), 1))
    difference = vectors[second] - vectors[first]
    length = np.linalg.norm(difference, axis=1)
    middle = 0.5 * (vectors[second] + vectors[first])
    good = (length >= shortest) & (length <= longest) & (known.kinds[first] == known.kinds[second])
    good &= np.abs((middle * difference).sum(axis=1)) <= spacing * length
    good &= (middle**2).sum(axis=1) <= (0.5 * length) ** 2
    difference = difference[good]
    difference *= np.where(_is_upper(difference), 1.0, -1.0)[:, None]
    lengths = np.geomspace(1.12 * shortest, max(min(longest, 1.7 * shortest), 1.12 * shortest), 3)
    found = [*_peaks(difference, near), *(length * unit for length in lengths for unit in _directions(40))]
    tree = cKDTree(vectors)
    unlike = np.array([_mismatch(known, tree, t, near) for t in found])
    return np.array(found), unlike


def _is_upper(vectors: np.ndarray) -> np.ndarray:
    """Whether the last component that is not about zero is positive: true for one of v and -v."""
    x, y, z = vectors.T
    flat = 1e-3
    return np.where(np.abs(z) > flat, z > 0, np.where(np.abs(y) > flat, y > 0, x > 0))


def _peaks(points: np.ndarray, width: float) -> list[np.ndarray]:
    """Where points crowd, densest first: means of those within `width` of each other."""
    if not len(points):
        return []
    _, where, counts = np.unique(np.round(points / width).astype(int), axis=0, return_inverse=True, return_counts=True)
    where = where.ravel()
    sums = np.stack([np.bincount(where, points[:, k]) for k in range(3)], axis=1)
    # larger shells have more pairs: what counts is the share of them
    density = counts / (sums**2).sum(axis=1) * counts**2
    centres = (sums / counts[:, None])[np.argsort(-density, kind="stable")[: 3 * N_PEAKS]]
    tree = cKDTree(points)
    for _ in range(2):
        members = tree.query_ball_point(centres, width)
        centres = np.array([points[m].mean(axis=0) if m else c for m, c in zip(members, centres, strict=True)])
    peaks = np.empty((0, 3))
    for centre in centres:
        if (((peaks - centre) ** 2).sum(axis=1) > width**2).all():
            peaks = np.append(peaks, centre[None], axis=0)
        if len(peaks) == N_PEAKS:
            break
    return list(peaks)


def _directions(n: int) -> list[np.ndarray]:
    """Unit vectors spread over a half sphere, along a golden spiral."""
    k = np.arange(n) + 0.5
    z, angle = k / n, np.pi * (1 + 5**0.5) * k
    return list(np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1))


def _mismatch(known: Surroundings, tree: cKDTree, t: np.ndarray, near: float) -> float:
    length = np.linalg.norm(t)
    along = known.vectors @ t / length
    across = np.sqrt(np.maximum((known.vectors**2).sum(axis=1) - along**2, 0.0))
    unlike, n = 0.0, 0
    for sign in (-1, 1):
        (at_seam,) = np.nonzero(
            (np.abs(along - sign * length / 2) <= 1.5 * near / COINCIDENCE) & (across <= 0.5 * length)
        )
        at_seam = at_seam[np.linalg.norm(known.vectors[at_seam] - sign * t, axis=1) <= known.reach]
        distance, partner = tree.query(known.vectors[at_seam] - sign * t)
        apart = np.minimum(distance / near, 1.0) ** 2
        apart[known.kinds[partner] != known.kinds[at_seam]] = 1.0
        unlike, n = unlike + apart.sum(), n + len(at_seam)
    return unlike / n if n else 0.0


def is_alone(kept: np.ndarray, images: np.ndarray, radius: float) -> bool:
    """Whether no kept atom, moved by any of the vectors or back, comes within the radius."""
    both = np.concatenate([images, -images])
    return bool((((kept[:, None] + both) ** 2).sum(axis=-1) > radius**2).all())


def _lattices(
    translations: np.ndarray, mismatch: np.ndarray, kept: np.ndarray, radius: float, max_volume: float
) -> list[Box]:
    gram = translations @ translations.T
    square = gram.diagonal()
    # in a reduced lattice the seams are those of its vectors, mostly
    reduced = np.abs(gram) <= 0.51 * np.minimum(square[:, None], square)
    a, b = np.nonzero(np.triu(reduced, 1))
    pair, c = np.nonzero(reduced[a] & reduced[b] & (np.arange(len(square)) > b[:, None]))
    triples = np.stack([a[pair], b[pair], c], axis=1)
    vectors = translations[triples]
    volume = np.abs(np.linalg.det(vectors)) if len(vectors) else np.zeros(0)
    good = (volume <= max_volume) & (volume > 0.5 * radius**3)
    triples, volume = triples[good], volume[good]
    lengths = np.sqrt(square)
    cost = ((mismatch + SEAM_COST) / lengths)[triples].sum(axis=1) * volume
    order = np.lexsort((volume, cost.round(6)))
    sizes = np.geomspace(volume.min(), max_volume * (1 + 1e-9), N_SIZES + 1) if len(volume) else []
    taken: list[Box] = []
    for low, high in itertools.pairwise(sizes):
        n_here = 0
        for k in order[(volume[order] >= low * (1 - 1e-9)) & (volume[order] < high)]:
            lattice = minkowski_reduce(translations[triples[k]])[0]
            lattice = lattice if np.linalg.det(lattice) > 0 else -lattice
            if is_alone(kept, COMBINATIONS @ lattice, radius):
                weight = 1 / lengths[triples[k]]
                taken.append(Box(lattice, float((mismatch[triples[k]] * weight).sum() / weight.sum())))
                n_here += 1
            if n_here == PER_SIZE:
                break
    return taken


def nearest_images(vectors: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """The images of vectors (n, 3) that are the nearest to the origin; the lattice is reduced."""
    wrapped = vectors - np.round(vectors @ np.linalg.inv(lattice)) @ lattice
    images = wrapped[:, None] + np.concatenate([np.zeros((1, 3)), COMBINATIONS @ lattice])
    return images[np.arange(len(images)), np.argmin((images**2).sum(axis=-1), axis=1)]
