# SPDX-License-Identifier: BSD-3-Clause
"""Effective conductivity of polycrystals and heterostructures by finite elements.

In a periodic box the temperature is T = g·x + φ with a given gradient g and periodic φ. Within grains the flux is
-k∇T, through boundaries of conductance h it is h times the jump of T [Kapitza], and the effective conductivity is
g·K·g = min over φ of (∫ k |g + ∇φ|² + ∫ h [φ]²) / volume. Linear elements give an upper bound of K. Crouzeix and
Raviart's give a lower one: their flux has no divergence and continuous normal components, so it is admitted in the
complementary principle [Marini, SIAM J. Numer. Anal. 22, 493 (1985)].
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import LinearOperator, cg, splu
from scipy.spatial.transform import Rotation

from mtp.cfg import replaced_whole
from mtp.conductivity.continuum_output import draw
from mtp.conductivity.continuum_settings import ContinuumSettings
from mtp.conductivity.mosaic import Mosaic, merged, mosaic
from mtp.conductivity.settings import read_bytes
from mtp.errors import Error

DIRECT = 100_000  # unknowns up to which matrices in two dimensions are factorised; in three a tenth
RESIDUAL = 1e-10  # relative, of iterations
Say = Callable[[str], None]


@dataclass(frozen=True)
class Bounds:
    """Of the effective conductivity on one mesh: upper, lower: (d, d), W/mK."""

    upper: np.ndarray
    lower: np.ndarray

    @property
    def kappa(self) -> np.ndarray:
        """The middle between the bounds."""
        return (self.upper + self.lower) / 2

    @property
    def gap(self) -> float:
        """Half the distance of the bounds, relative, of the worst direction."""
        return float(
            np.abs(np.linalg.eigvalsh(self.upper - self.lower)).max() / np.trace(self.kappa) * len(self.kappa) / 2
        )


@dataclass(frozen=True)
class Solution(Bounds):
    """With what the solution is.

    field: φ at the nodes for a unit gradient along each direction, (d, n), in units of the box's first edge. grains,
    pairs: parts of the upper bound's mean that grains and boundaries add, (n_grains,) and (n_pairs,), W/mK: since φ
    makes the sum least, each is its conductivity's or conductance's logarithmic derivative.
    """

    field: np.ndarray
    grains: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True)
class Point(Bounds):
    """What is kept of one size of one realisation.

    parts: of the mean, W/mK, that phases add, and then pairs of phases. refinements, elements: of the mesh.
    field: φ at its nodes for the gradient along x, (n,); as drawn, in single precision.
    """

    parts: np.ndarray
    refinements: int
    elements: int
    field: np.ndarray

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Point:
        """Raises Error where the file is damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                return cls(**{name: array if array.ndim else int(array) for name, array in content.items()})
        except (OSError, ValueError, TypeError, BadZipFile) as error:
            raise Error(f"{path}: damaged: {error}; remove it to compute it again") from None


def bounds(cells: Mosaic, kappa: np.ndarray, conductance: np.ndarray) -> Solution:
    """Bounds of the effective conductivity on one mesh.

    Args:
        kappa: (n_grains, d, d), W/mK.
        conductance: (n_pairs,), of each pair of facets, in W/mK over the box's first edge; inf where T is continuous.
    """
    upper, field, grains, pairs = _nodal(cells, kappa, conductance)
    return Solution(upper, _facet(cells, kappa, conductance)[0], field, grains, pairs)


def continuum(settings: ContinuumSettings, say: Say = lambda text: None) -> dict[str, Any]:
    """Compute the effective conductivity at every size; the result is also written as result.json in the folder.

    Each size of each realisation is kept there by all that it depends on, and not computed again.

    Keys of the result: for each of `sizes_nm`, in `results`: `kappa_W_mK` (d, d), the mean over realisations of the
    geometry; `mean_W_mK`, of the diagonal, `uncertainty_W_mK`, its parts (`bounds`: half their distance on the finest
    mesh; `realisations`: standard error of the mean, None for one; `phases` and `boundaries`: of what was given) and
    their `total`; `shares`, which part of the heat's entropy each phase and the boundaries make.
    """
    settings.check_sheets()
    geometry = settings.geometry
    n = geometry.realisations if geometry.type == "voronoi" else 1
    conductances, errors = settings.conductances()
    made: list[list[Point]] = [[] for _ in settings.sizes]
    facts = []
    for realisation in range(n):
        coarse = mosaic(geometry, realisation)
        for k, size in enumerate(settings.sizes):
            path = settings.folder / "points" / f"{_fingerprint(settings, realisation, size)}.npz"
            kept = path.exists()
            if kept:
                found = Point.load(path)
            else:
                found = _point(settings, coarse, realisation, size)
                found.save(path)
            made[k].append(found)
            facts.append({"realisation": realisation, "size_nm": size, "elements": found.elements, "gap": found.gap})
            say(
                f"realisation {realisation + 1}/{n}, {size:g} nm: {np.trace(found.kappa) / len(coarse.box):.5g} W/mK "
                f"± {100 * found.gap:.2g} % ({found.elements} elements{', kept' * kept})"
            )
    if worst := [fact for fact in facts if fact["gap"] > settings.tolerance]:
        gap = max(fact["gap"] for fact in worst)
        say(f"the bounds are up to ± {100 * gap:.2g} % apart: more `refinements` or `unknowns` bring them closer")
    result = {
        "method": "continuum",
        "geometry": geometry.model_dump(mode="json"),
        "phases": {phase.name: phase.known()[0].tolist() for phase in settings.phases},
        "conductances_MW_m2K": [[float(h) if np.isfinite(h) else None for h in row] for row in 1e-6 * conductances],
        "grains": coarse.n_grains,
        "sizes_nm": settings.sizes,
        "results": [_summary(settings, several, errors) for several in made],
        **_series(settings, materials(settings, coarse.n_grains, n - 1)[1]),
        "meshes": facts,
    }
    with replaced_whole(settings.folder / "result.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    drawn, cells = made[0][0], mosaic(geometry)
    for _ in range(drawn.refinements):
        cells = cells.refined()
    draw(settings.folder, result, cells, drawn.field, materials(settings, cells.n_grains)[0])
    return result


def _point(settings: ContinuumSettings, coarse: Mosaic, realisation: int, size: float) -> Point:
    """The mesh refined until the bounds are as close as the settings ask."""
    phase, kappa = materials(settings, coarse.n_grains, realisation)
    conductances, _ = settings.conductances()
    n = len(conductances)
    cells, edge = coarse, 1e-9 * box_edge(coarse, settings, size)
    for refinement in range(settings.refinements + 1):
        cells = cells.refined() if refinement else cells
        sides = phase[cells.sides]
        h = np.where(cells.sides[0] == cells.sides[1], np.inf, conductances[sides[0], sides[1]] * edge)
        found = bounds(cells, kappa, h)
        growth = 2 ** len(cells.box)
        if found.gap <= settings.tolerance or growth * cells.mesh.facets.shape[1] > settings.unknowns:
            break
    between = np.bincount(sides[0] * n + sides[1], found.pairs, minlength=n * n)
    parts = np.concatenate([np.bincount(phase, found.grains, minlength=n), between])
    field = found.field[0].astype(np.float32)
    return Point(found.upper, found.lower, parts, refinement, cells.mesh.nelements, field)


def _fingerprint(settings: ContinuumSettings, realisation: int, size: float) -> str:
    """Of all that a point depends on; errors of conductivities are not among it."""
    geometry = settings.geometry.model_dump(mode="json", exclude={"realisations", "file"})
    if settings.geometry.file is not None:
        geometry["file"] = hashlib.sha256(read_bytes(settings.geometry.file)).hexdigest()
    form = {
        "geometry": geometry,
        "phases": [[phase.known()[0].tolist(), phase.share, phase.orientation] for phase in settings.phases],
        "conductances": settings.conductances()[0].tolist(),
        **settings.model_dump(include={"tolerance", "refinements", "unknowns"}),
        "point": [realisation, size],
    }
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]


def materials(settings: ContinuumSettings, n_grains: int, realisation: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Phase of each grain, and its conductivity (n_grains, d, d), W/mK, with its crystal axes turned."""
    geometry = settings.geometry
    rng = np.random.default_rng([geometry.seed, realisation, 1])
    phases = np.arange(n_grains) % len(settings.phases)
    if geometry.type == "voronoi":
        shares = np.array([phase.share for phase in settings.phases])
        counts = np.floor(np.cumsum(shares) / shares.sum() * n_grains + 0.5).astype(int)
        phases = rng.permutation(np.searchsorted(counts, np.arange(n_grains), side="right"))
    tensors = np.array([phase.known()[0] for phase in settings.phases])[phases]
    turns = np.tile(np.eye(3), (n_grains, 1, 1))
    for k, phase in enumerate(settings.phases):
        own = np.flatnonzero(phases == k)
        if phase.orientation == "random" and len(own):
            turns[own] = Rotation.random(len(own), random_state=rng).as_matrix()
        elif phase.orientation == "plane" and len(own):
            turns[own] = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (len(own), 1))).as_matrix()
    d = geometry.dimension
    return phases, np.einsum("gij,gjk,glk->gil", turns, tensors, turns)[:, :d, :d]


def box_edge(cells: Mosaic, settings: ContinuumSettings, size: float) -> float:
    """The box's first edge for a size of the settings, in its unit."""
    if settings.geometry.type != "voronoi":
        return size
    return size * (cells.n_grains / cells.box.prod()) ** (1 / len(cells.box))


def _series(settings: ContinuumSettings, kappa: np.ndarray) -> dict[str, list[float]]:
    """For a Voronoi geometry, κ of grains d in a row with boundaries between them, 1/κ = 1/k + 1/(h d), as a simple
    estimate beside the result; k and h are the means of the reciprocal values."""
    if settings.geometry.type != "voronoi":
        return {}
    resistance = np.mean([len(k) / np.trace(k) for k in kappa])
    boundary = np.mean(1 / settings.conductances()[0])
    return {"series": [1 / (resistance + boundary / (1e-9 * size)) for size in settings.sizes]}


def _nodal(cells: Mosaic, kappa: np.ndarray, conductance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Upper bound, φ and the parts of grains and boundaries from linear elements with nodes at corners."""
    mesh, d = cells.mesh, len(cells.box)
    corners = mesh.p[:, mesh.t]  # (d, d + 1, n)
    gradients = _gradients(corners)
    first, second = cells.nodes
    # ∫ of the product of two linear functions over a facet: (1 + δ)/(d (d + 1)) of its area
    mass = (1 + np.eye(d)) / (d * (d + 1))
    return _solved(cells, kappa, conductance, gradients, mesh.t, mesh.nvertices, (first, second), mass)


def _facet(cells: Mosaic, kappa: np.ndarray, conductance: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same, a lower bound, from linear elements with nodes at the middles of facets; jumps count by their mean."""
    mesh = cells.mesh
    facets = mesh.t2f
    middles = mesh.p[:, mesh.facets[:, facets]].mean(axis=1)  # (d, d + 1, n): affine in the facet across each corner
    gradients = _gradients(middles)
    sides = tuple(cells.pairs[:, None])
    return _solved(cells, kappa, conductance, gradients, facets, mesh.facets.shape[1], sides, np.eye(1))


def _gradients(points: np.ndarray) -> np.ndarray:
    """(d, d + 1, n), of the affine functions that are one at one of the points (d, d + 1, n) and zero at the others."""
    edges = (points[:, 1:] - points[:, :1]).transpose(2, 0, 1)  # columns
    inner = np.linalg.inv(edges).transpose(2, 1, 0)  # (d, d, n): components, functions
    return np.concatenate([-inner.sum(axis=1, keepdims=True), inner], axis=1)


def _solved(
    cells: Mosaic,
    kappa: np.ndarray,
    conductance: np.ndarray,
    gradients: np.ndarray,
    unknowns: np.ndarray,
    n: int,
    sides: tuple[np.ndarray, np.ndarray],
    mass: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Effective conductivity (d, d), φ (d, n) at the n unknowns, and the parts of grains and pairs of facets.

    unknowns: (d + 1, n_elements), of each element; sides: (m, n_pairs), of the two facets of each pair; mass: (m, m).
    """
    volume = cells.volumes
    k = kappa[cells.grain].transpose(1, 2, 0) * volume  # (d, d, n_elements)
    flux = np.einsum("ije,jae->iae", k, gradients)
    local = np.einsum("iae,ibe->abe", gradients, flux)
    loads = np.stack([np.bincount(unknowns.ravel(), row.ravel(), minlength=n) for row in flux])
    open_ = np.isinf(conductance)
    joined, place = merged(n, np.stack([side[:, open_].ravel() for side in sides]))
    rows, columns, values = _scattered(place[unknowns], local)
    both = place[np.concatenate([side[:, ~open_] for side in sides])]
    jump = np.block([[mass, -mass], [-mass, mass]])[..., None] * (conductance * cells.areas)[~open_]
    more = _scattered(both, jump)
    entries = [np.concatenate(pair) for pair in zip((rows, columns, values), more, strict=True)]
    matrix = csr_array(coo_array((entries[2], (entries[0], entries[1])), shape=(joined, joined)))
    right = np.stack([np.bincount(place, load, minlength=joined) for load in loads])
    phi = -_inverse(matrix, right, len(cells.box))
    effective = (k.sum(axis=-1) + right @ phi.T) / cells.box.prod()

    phi = phi[:, place]
    slopes = np.eye(len(phi))[..., None] + np.einsum("iae,gae->gie", gradients, phi[:, unknowns])
    weight = cells.box.prod() * len(phi)
    grains = np.bincount(cells.grain, np.einsum("gie,ije,gje->e", slopes, k, slopes), len(kappa)) / weight
    jumps = phi[:, sides[0]] - phi[:, sides[1]]
    pairs = np.zeros(len(conductance))
    jumped = np.einsum("gan,ab,gbn->n", jumps[..., ~open_], mass, jumps[..., ~open_])
    pairs[~open_] = jumped * (conductance * cells.areas)[~open_] / weight
    return (effective + effective.T) / 2, phi, grains, pairs


def _scattered(unknowns: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of local matrices (m, m, n) at their unknowns (m, n)."""
    rows = np.broadcast_to(unknowns[:, None], local.shape)
    return rows.ravel(), rows.swapaxes(0, 1).ravel(), local.ravel()


def _inverse(matrix: csr_array, right: np.ndarray, d: int) -> np.ndarray:
    """Solutions for right sides (d, n) without the matrix's constant null space, whose mean is zero."""
    n = matrix.shape[0]
    found = np.zeros_like(right)
    if n < 2:
        return found
    if n <= (DIRECT if d == 2 else DIRECT // 10):
        found[:, 1:] = (
            splu(matrix[1:, 1:].tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            .solve(right[:, 1:].T)
            .T
        )
    else:
        diagonal = matrix.diagonal()
        scaled = LinearOperator((n, n), lambda x: x / diagonal)
        for k, side in enumerate(right):
            found[k], failed = cg(matrix, side, rtol=RESIDUAL, maxiter=20 * int(n**0.5) + 1000, M=scaled)
            if failed:
                raise Error(f"the iteration for {n} unknowns did not converge: allow fewer `unknowns`")
    return found - found.mean(axis=1, keepdims=True)


def _summary(settings: ContinuumSettings, several: Sequence[Point], errors: np.ndarray) -> dict[str, Any]:
    """errors: relative, of the conductances between phases."""
    parts = np.mean([found.parts for found in several], axis=0)
    kappa = np.array([found.kappa for found in several])
    d, n = kappa.shape[-1], len(errors)
    means = np.trace(kappa, axis1=1, axis2=2) / d
    own = np.array([phase.known()[1] for phase in settings.phases])
    between = parts[n:].reshape(n, n)
    uncertainty = {
        "bounds": float(np.mean([np.trace(found.upper - found.lower) / 2 / d for found in several])),
        "realisations": float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else None,
        "phases": float(np.linalg.norm(own * parts[:n])),
        "boundaries": float(np.linalg.norm(np.triu(errors * (between + between.T - np.diag(between.diagonal()))))),
    }
    uncertainty["total"] = float(np.linalg.norm([part for part in uncertainty.values() if part is not None]))
    shares = parts / parts.sum()
    return {
        "kappa_W_mK": kappa.mean(axis=0).tolist(),
        "mean_W_mK": float(means.mean()),
        "uncertainty_W_mK": uncertainty,
        "shares": {phase.name: float(share) for phase, share in zip(settings.phases, shares, strict=False)}
        | {"boundaries": float(shares[n:].sum())},
    }
