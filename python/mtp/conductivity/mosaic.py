# SPDX-License-Identifier: BSD-3-Clause
"""Meshes of periodic boxes filled with grains. Every grain has nodes of its own, so that temperature may jump between
grains; facets of boundaries come in pairs, one of each grain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Voronoi, cKDTree

from mtp import extras
from mtp.conductivity.continuum_settings import Geometry
from mtp.errors import Error

SAME = 1e-7  # of the box: points closer than this are one


@dataclass(frozen=True)
class Mosaic:
    """Triangles or tetrahedra of a periodic box.

    Attributes:
        mesh: of skfem; grains that meet share no nodes. Grains of a Voronoi geometry are whole, and so reach out of
            the box.
        grain: of each element.
        box: (d,) edges, in units of the first.
    """

    mesh: object
    grain: np.ndarray
    box: np.ndarray

    @property
    def n_grains(self) -> int:
        return int(self.grain.max()) + 1

    @cached_property
    def pairs(self) -> np.ndarray:
        """(2, n), facets that lie on each other, up to a period of the box."""
        facets = self.mesh.boundary_facets()
        middles = self.mesh.p[:, self.mesh.facets[:, facets]].mean(axis=1).T
        found = cKDTree(np.mod(middles, self.box) % self.box, boxsize=self.box).query_pairs(SAME, output_type="ndarray")
        if 2 * len(found) != len(facets) or len(np.unique(found)) != len(facets):
            raise Error(f"{len(facets)} facets of grains do not match in pairs: take another seed")
        return facets[found.T]

    @cached_property
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """(d, n) nodes of the two facets of each pair, in the same order."""
        d, p = len(self.box), self.mesh.p
        first, second = (self.mesh.facets[:, facets] for facets in self.pairs)
        period = p[:, first].mean(axis=1) - p[:, second].mean(axis=1)
        apart = p[:, first][:, :, None, :] - p[:, second][:, None, :, :] - period[:, None, None, :]
        partner = np.abs(apart).max(axis=0).argmin(axis=1)  # (d, n)
        if not np.array_equal(np.sort(partner, axis=0), np.arange(d)[:, None] + 0 * partner):
            raise Error("facets of grains do not match node by node: take another seed")
        return first, np.take_along_axis(second, partner, axis=0)

    @cached_property
    def sides(self) -> np.ndarray:
        """(2, n), the grains on both sides of each pair."""
        return self.grain[self.mesh.f2t[0, self.pairs]]

    @cached_property
    def areas(self) -> np.ndarray:
        """(n,), of the facets of each pair, the box's first edge being 1."""
        corners = self.mesh.p[:, self.nodes[0]]
        edges = corners[:, 1:] - corners[:, :1]  # (d, d - 1, n)
        gram = np.einsum("dif,djf->fij", edges, edges)
        return np.sqrt(np.linalg.det(gram)) / (1 if len(self.box) == 2 else 2)

    @cached_property
    def volumes(self) -> np.ndarray:
        """(n_elements,)."""
        corners = self.mesh.p[:, self.mesh.t]
        edges = corners[:, 1:] - corners[:, :1]
        return np.abs(np.linalg.det(edges.transpose(2, 0, 1))) / (2 if len(self.box) == 2 else 6)

    def refined(self) -> Mosaic:
        """With every triangle in four, every tetrahedron in eight."""
        mesh = self.mesh.refined()  # its nodes: the old ones, then the middles of edges
        edges = self.mesh.facets if len(self.box) == 2 else self.mesh.edges
        grain = np.empty(self.mesh.nvertices, dtype=int)  # of each node
        grain[self.mesh.t] = self.grain
        return Mosaic(mesh, np.concatenate([grain, grain[edges[0]]])[mesh.t[0]], self.box)


def mosaic(settings: Geometry, realisation: int = 0) -> Mosaic:
    """The geometry with the fewest elements. Raises Error where a file of labels does not fit."""
    box = np.array(settings.box or [1.0] * settings.dimension)
    box = box / box[0]
    if settings.type == "voronoi":
        rng = np.random.default_rng([settings.seed, realisation])
        return voronoi(rng.uniform(size=(settings.grains, len(box))) * box, box, settings.regular)
    if settings.type == "laminate":
        edges = np.concatenate([[0.0], np.cumsum(settings.thicknesses)]) / np.sum(settings.thicknesses)
        labels = np.arange(len(settings.thicknesses)).reshape(-1, *[1] * (len(box) - 1))
        return blocks(labels, [edges * box[0], *([0, length] for length in box[1:])], box)
    labels = np.indices([2] * len(box)).sum(axis=0) % 2 if settings.type == "checkerboard" else _labels(settings)
    return blocks(labels, [np.linspace(0, length, n + 1) for length, n in zip(box, labels.shape, strict=True)], box)


def blocks(labels: np.ndarray, edges: list[np.ndarray], box: np.ndarray) -> Mosaic:
    """Voxels between planes at `edges` along each direction; labels: (n_x, n_y[, n_z]), the grain of each."""
    skfem = extras.skfem()
    kind = skfem.MeshTri if len(box) == 2 else skfem.MeshTet
    mesh = kind.init_tensor(*map(np.asarray, edges))
    middles = mesh.p[:, mesh.t].mean(axis=1)
    voxel = tuple(np.searchsorted(edge, x) - 1 for edge, x in zip(edges, middles, strict=True))
    _, grain = np.unique(labels[voxel], return_inverse=True)
    return _parted(mesh.p, mesh.t, grain.ravel(), box)


def voronoi(points: np.ndarray, box: np.ndarray, regular: int = 0) -> Mosaic:
    """Cells of periodic points (n, d), each cut into simplices around its point: exact polygons or polyhedra."""
    for _ in range(regular):
        made = _cells(points, box)
        weight = np.bincount(made.grain, made.volumes)
        middles = made.mesh.p[:, made.mesh.t].mean(axis=1)
        points = np.array([np.bincount(made.grain, made.volumes * x) / weight for x in middles]).T
    return _cells(points, box)


def _cells(points: np.ndarray, box: np.ndarray) -> Mosaic:
    n, d = points.shape
    points = np.mod(points, box)
    shifts = sorted(product((-1, 0, 1), repeat=d), key=lambda shift: any(shift))  # the box itself first
    found = Voronoi(np.concatenate([points + np.array(shift) * box for shift in shifts]))
    corners, grain = [], []
    for ends, ridge in zip(found.ridge_points, found.ridge_vertices, strict=True):
        if -1 in ridge or min(ends) >= n:
            continue
        face = found.vertices[ridge]
        pieces = [face] if d == 2 else _fan(face)
        for centre in ends[ends < n]:
            corners += [np.vstack([points[centre], piece]) for piece in pieces]
            grain += [centre] * len(pieces)
    corners = np.concatenate(corners)
    made = _parted(corners.T, np.arange(len(corners)).reshape(-1, d + 1).T, np.array(grain), box)
    if not np.isclose(made.volumes.sum(), box.prod(), rtol=1e-6):
        raise Error(f"{n} grains do not fill the box: take more of them, or another seed")
    return made


def _fan(face: np.ndarray) -> list[np.ndarray]:
    """Triangles of a convex polygon (m, 3) around its middle, whatever its corner's order."""
    middle = face.mean(axis=0)
    _, _, axes = np.linalg.svd(face - middle)
    ring = face[np.argsort(np.arctan2(*((face - middle) @ axes[:2].T).T))]
    return [np.array([middle, a, b]) for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)]


def _parted(p: np.ndarray, t: np.ndarray, grain: np.ndarray, box: np.ndarray) -> Mosaic:
    """The mesh in which elements share nodes where facets of one grain lead from one to the other, and else do not.

    Elements without volume, of edges shorter than SAME, are left out.
    """
    skfem = extras.skfem()
    d = len(box)
    kind = skfem.MeshTri if d == 2 else skfem.MeshTet
    _, place = merged(p.shape[1], cKDTree(p.T).query_pairs(SAME, output_type="ndarray").T)
    _, one = np.unique(place, return_index=True)  # a point at each place
    t = place[t]
    whole = np.all([t[a] != t[b] for a in range(d + 1) for b in range(a)], axis=0)
    mesh, grain = kind(p[:, one].copy(), t[:, whole].copy()), grain[whole]
    facets = np.flatnonzero(mesh.f2t[1] >= 0)
    elements = mesh.f2t[:, facets]
    inner = grain[elements[0]] == grain[elements[1]]
    corners = mesh.facets[:, facets[inner]]  # (d, n)
    numbers = np.arange(mesh.t.size).reshape(mesh.t.shape)  # of each element's corners
    sides = [numbers[(mesh.t[:, None, own] == corners).argmax(axis=0), own] for own in elements[:, inner]]
    n, nodes = merged(mesh.t.size, np.stack([side.ravel() for side in sides]))
    points = np.empty((d, n))
    points[:, nodes] = mesh.p[:, mesh.t.ravel()]
    return Mosaic(kind(points, nodes.reshape(mesh.t.shape)), grain, box)


def merged(n: int, pairs: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of classes that pairs (2, m) of n things join, and the class of each thing."""
    graph = coo_array((np.ones(pairs.shape[1]), pairs), shape=(n, n))
    return connected_components(graph, directed=False)


def _labels(settings: Geometry) -> np.ndarray:
    try:
        labels = (
            np.load(settings.file) if settings.file.suffix == ".npy" else np.loadtxt(settings.file, dtype=int, ndmin=2)
        )
    except (OSError, ValueError) as error:
        raise Error(f"{settings.file}: cannot be read as labels of voxels: {error}") from None
    if labels.ndim != settings.dimension or not np.issubdtype(labels.dtype, np.integer):
        raise Error(
            f"{settings.file}: want whole numbers in {settings.dimension} dimensions, "
            f"found {labels.dtype} in {labels.ndim}"
        )
    return labels
