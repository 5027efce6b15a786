# SPDX-License-Identifier: BSD-3-Clause
"""The Boltzmann transport equation of phonons on meshes of q-points, solved by phono3py, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtp.conductivity.bte_settings import Mesh, Transport
from mtp.errors import Error

if TYPE_CHECKING:
    from phono3py import Phono3py

CLASSICAL = 1e5  # K; there Bose and Einstein's n + 1/2 is kT/ħω to (ħω/kT)²/12 < 1e-5 for phonons below 20 THz
LARGEST = 1e10  # W/mK
CHUNK = 32  # irreducible q-points that are lost at most when a run is killed
POINTS = 200  # of a cumulative curve
LAST = 3  # meshes that the extrapolation follows


@dataclass(frozen=True)
class Solution:
    """Of the transport equation on one mesh: n_ir irreducible q-points, n_b bands, n_T temperatures.

    Attributes:
        mesh: (3, 3), the mesh's vectors in units of the primitive cell's.
        kappa: (n_T, 6), W/mK, components xx yy zz yz xz xy.
        relaxation_time: (n_T, 6), the same in the relaxation-time approximation.
        modes: (n_T, n_ir, n_b, 6), what each mode adds to kappa, W/mK, equivalent q-points together.
        frequencies: (n_ir, n_b), THz.
        paths: (n_T, n_ir, n_b), mean free paths |v|τ, Å, with τ of the relaxation-time approximation.
    """

    mesh: np.ndarray
    kappa: np.ndarray
    relaxation_time: np.ndarray
    modes: np.ndarray
    frequencies: np.ndarray
    paths: np.ndarray

    @property
    def n_q(self) -> int:
        return round(abs(np.linalg.det(self.mesh)))

    def per_volume(self, part: float) -> Solution:
        """The same where that part of the cell is the material's volume."""
        kappas = {name: getattr(self, name) / part for name in ("kappa", "relaxation_time", "modes")}
        return replace(self, **kappas)

    def save(self, path: Path) -> None:
        from mtp.cfg import replaced_whole

        with replaced_whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Solution:
        with np.load(path, allow_pickle=False) as content:
            return cls(**content)


def mesh_matrix(crystal: Phono3py, mesh: Mesh, grid: str) -> np.ndarray:
    """(3, 3) integers: the lattice vectors that all waves of the mesh fit into, in units of the primitive cell's.

    Raises Error for a mesh of a unit cell that is no multiple of the primitive one.
    """
    numbers = np.diag([mesh] * 3 if isinstance(mesh, int) else mesh)
    if grid == "primitive":
        return numbers
    vectors = np.linalg.inv(crystal.primitive.cell.T) @ crystal.unitcell.cell.T @ numbers
    if not np.allclose(vectors, np.rint(vectors), atol=1e-3):
        raise Error("the unit cell is no multiple of the primitive cell: take the grid of the primitive cell")
    return np.rint(vectors).astype(int)


def solve(
    crystal: Phono3py,
    mesh: Mesh,
    settings: Transport,
    path: Path | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Solution:
    """Solve on one mesh: CHUNK irreducible q-points after the other, which are kept in files beside `path` until all
    are there; a direct solution in one piece.

    Classical occupations are those at the high temperature CLASSICAL, where linewidths are proportional to T:
    κ(T) = κ(CLASSICAL) · CLASSICAL / T exactly. Raises Error where the mesh breaks the crystal's symmetry, or modes do
    not scatter.
    """
    matrix = mesh_matrix(crystal, mesh, settings.grid)
    diagonal = not (matrix - np.diag(matrix.diagonal())).any()
    crystal.sigmas = settings.broadening
    try:
        crystal.mesh_numbers = matrix.diagonal() if diagonal else matrix
    except RuntimeError:
        raise Error(
            f"the mesh {mesh} breaks the symmetry of the crystal: give equal numbers to equal directions"
        ) from None
    crystal.init_phph_interaction()
    if settings.solution == "direct":
        return _solved(crystal, matrix, settings, None)
    points = _irreducible(crystal)
    parts = []
    files = []
    for first in range(0, len(points), CHUNK):
        file = path and path.with_name(f"{path.stem}.{first // CHUNK}.npz")
        if file is not None and file.exists():
            part = Solution.load(file)
        else:
            part = _solved(crystal, matrix, settings, points[first : first + CHUNK])
            if file is not None:
                part.save(file)
        parts.append(part)
        files.append(file)
        show(min(first + CHUNK, len(points)), len(points))
    whole = Solution(
        mesh=matrix,
        kappa=sum(part.kappa for part in parts),
        relaxation_time=sum(part.relaxation_time for part in parts),
        modes=np.concatenate([part.modes for part in parts], axis=1),
        frequencies=np.concatenate([part.frequencies for part in parts]),
        paths=np.concatenate([part.paths for part in parts], axis=1),
    )
    if path is not None:
        whole.save(path)
        for file in files:
            file.unlink()
    return whole


def _irreducible(crystal: Phono3py) -> np.ndarray:
    """phono3py's numbers of the mesh's irreducible q-points."""
    from phonopy.phonon.grid import get_ir_grid_points

    return crystal.grid.grg2bzg[get_ir_grid_points(crystal.grid)[0]]


def _solved(crystal: Phono3py, matrix: np.ndarray, settings: Transport, points: np.ndarray | None) -> Solution:
    """What some of the q-points (all: None) add."""
    classical = settings.occupation == "classical"
    asked = np.array(settings.temperatures)
    direct = settings.solution == "direct"
    with np.errstate(over="ignore"):
        crystal.run_thermal_conductivity(
            is_LBTE=direct,
            temperatures=np.array([CLASSICAL]) if classical else asked,
            grid_points=points,
            is_isotope=settings.isotopes,
            boundary_mfp=settings.boundary and settings.boundary * 1e-4,  # in µm
        )
    found = crystal.thermal_conductivity
    if not (np.abs(found.kappa) < LARGEST).all():
        raise Error("phonons of this mesh meet no others to scatter with: take a finer mesh, or `broadening`")
    n_q = round(abs(np.linalg.det(matrix)))
    factor = CLASSICAL / asked if classical else np.ones(len(asked))

    def at_all(values: np.ndarray) -> np.ndarray:
        """Of the first width, (n_T, …); from the classical limit to all temperatures."""
        return values[0] * factor.reshape(-1, *[1] * (values.ndim - 2))

    speeds = np.linalg.norm(found.group_velocities, axis=-1)
    widths = found.gamma[0] + (found.gamma_isotope if settings.isotopes else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        paths = np.where(widths > 0, speeds / (4 * np.pi * widths), 0.0)  # Γ is half of a width in frequency
        if settings.boundary:
            paths = np.where(paths > 0, 1 / (1 / paths + 1 / settings.boundary), 0.0)
    return Solution(
        mesh=matrix,
        kappa=at_all(found.kappa),
        relaxation_time=at_all(found.kappa_RTA if direct else found.kappa),
        modes=at_all(found.mode_kappa) / n_q,
        frequencies=found.frequencies,
        paths=at_all(paths[None]),
    )


def cumulative(values: np.ndarray, modes: np.ndarray, directions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """κ of all modes whose `values` (frequencies, mean free paths) are at most x, averaged over the first directions.

    Args:
        values: (n_ir, n_b); modes: (n_ir, n_b, 6), W/mK.

    Returns:
        x and κ(x), W/mK, POINTS of each at most.
    """
    mean = modes[..., :directions].mean(axis=-1).ravel()
    order = np.argsort(values.ravel(), kind="stable")
    x, kappa = values.ravel()[order], np.cumsum(mean[order])
    carrying = np.flatnonzero(x > 0)
    chosen = carrying[np.unique(np.linspace(0, len(carrying) - 1, POINTS).round().astype(int))]
    return x[chosen], kappa[chosen]


def extrapolated(solutions: Sequence[Solution], directions: int = 3) -> np.ndarray | None:
    """κ (n_T, 6) on an infinitely fine mesh; None for one mesh.

    Least squares through the last three (or two) meshes of κ(N) = κ(∞) + c/N, where N³ (in two directions N²) is the
    number of q-points: with relaxation times that grow as 1/q² every shell dq around Γ adds alike, and a mesh misses
    those of q < 1/N.
    """
    last = solutions[-LAST:]
    if len(last) < 2:
        return None
    inverse = np.array([solution.n_q ** (-1 / directions) for solution in last])
    kappa = np.array([solution.kappa for solution in last])
    design = np.column_stack([np.ones(len(last)), inverse])
    return np.linalg.lstsq(design, kappa.reshape(len(last), -1), rcond=None)[0][0].reshape(kappa.shape[1:])
