# SPDX-License-Identifier: BSD-3-Clause
"""Moment tensor potentials: read, make, write, evaluate, differentiate, grade."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.polynomial.chebyshev import chebvander

from mtp.configurations import types
from mtp.errors import Error, LibraryError
from mtp.library import NULL, call, doubles, ffi, int64s, new_potential
from mtp.neighbours import BATCH, Batch, Neighbourhoods, batches, named, neighbourhoods

MODES = ("neighbourhood", "configuration")
VOIGT = [0, 4, 8, 5, 2, 1]  # of a flattened 3 x 3 matrix: xx yy zz yz xz xy
SWAP_THRESHOLD = 1.001  # of maxvol, MLIP-3's


@dataclass(frozen=True)
class Facts:
    """Sizes of a potential's tables; distances in Å. `active_set` is None, "neighbourhood" or "configuration"."""

    n_species: int
    n_radial: int
    n_chebyshev: int
    n_moments: int
    n_basic: int
    n_products: int
    n_scalar: int
    n_parameters: int
    trained: bool
    active_set: str | None
    min_distance: float
    cutoff: float
    scaling: float


@dataclass(frozen=True, eq=False)
class Guard:
    """The short-range guard of a potential of S species: what acts where atoms come too close for the MTP.

    repulsion, fade: (S, S, 2), symmetric in the species, inner and outer distance in Å. Between inner and outer the
    nuclear repulsion (ZBL) is switched off, and the MTP's radial functions are switched on.
    """

    repulsion: np.ndarray
    fade: np.ndarray

    @property
    def acts_in_training_range(self) -> bool:
        """Whether some repulsion reaches beyond its fade, so that the MTP must have learned the difference."""
        return bool((self.repulsion[..., 1] > self.fade[..., 1]).any())


@dataclass(frozen=True)
class Result:
    """What a potential gives for a configuration of N atoms.

    energy: eV; energies: (N,) site energies, eV; forces: (N, 3), eV/Å; virial: (3, 3), eV, volume times stress;
    stress: (6,) in ASE's sign and order xx yy zz yz xz xy, eV/Å³, None without three periodic directions.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray
    stress: np.ndarray | None


@dataclass(frozen=True)
class Grades:
    """Extrapolation grades: `maximum` of the configuration and, in neighbourhood mode, `per_atom` (N,)."""

    maximum: float
    per_atom: np.ndarray | None


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of a configuration's observables by the n parameters: energy (n,), forces (3 N, n) and
    virial (6, n) in the order xx yy zz yz xz xy (eV, volume times stress)."""

    energy: np.ndarray
    forces: np.ndarray
    virial: np.ndarray


class Potential:
    """A moment tensor potential, E = Σ_i V(n_i) [Shapeev, Multiscale Model. Simul. 14, 1153 (2016), eq. 1-8].

    Parameters θ are, in this order, radial coefficients c[z_i][z_j][μ][β], species coefficients, moment
    coefficients. Units are eV and Å.

    >>> potential = Potential.new(level=8, species=["Si"], cutoff=5.0)
    >>> potential.facts.n_scalar
    9
    """

    def __init__(self, handle) -> None:
        self._handle = handle

    @classmethod
    def load(cls, path: str | os.PathLike) -> Potential:
        """Read .mtp, MLIP-3's .almtp or MLIP-2's .als. Raises LibraryError with file and line where it is damaged."""
        return cls(new_potential("potential_load", os.fsencode(path)))

    @classmethod
    def new(
        cls,
        level: int,
        species: Sequence[str] | int,
        cutoff: float,
        min_distance: float = 0.5,
        n_chebyshev: int = 8,
    ) -> Potential:
        """An untrained potential of a level (2 to 40) for the named elements (or a number of unnamed species).

        `cutoff` and `min_distance` in Å; the shortest distance maps the radial interval, atoms may come closer.
        """
        n_species = species if isinstance(species, int) else len(species)
        form = ffi.new(
            "mtp_form *",
            {
                "level": level,
                "n_species": n_species,
                "n_chebyshev": n_chebyshev,
                "min_distance": min_distance,
                "cutoff": cutoff,
            },
        )
        potential = cls(new_potential("potential_new", form))
        if not isinstance(species, int):
            call("potential_set_elements", potential._handle, ",".join(species).encode())
        return potential

    def copy(self) -> Potential:
        """An independent copy."""
        return Potential(new_potential("potential_copy", self._handle))

    def save(self, path: str | os.PathLike) -> None:
        """Write the potential, whole or not at all: with its active set as .almtp, without as .mtp."""
        suffix = Path(path).suffix
        if suffix not in (".mtp", ".almtp"):
            raise Error(f"{path}: a potential is written as .mtp, or as .almtp with its active set")
        call("potential_save", self._handle, os.fsencode(path), suffix == ".almtp")

    def __reduce__(self):
        """Potentials go to other processes, without their active sets."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "potential.mtp"
            self.save(file)
            text = file.read_bytes()
        trained = self.facts.trained
        return _from_text, (text, self.facts.scaling, self.parameters if trained else None)

    @property
    def handle(self):
        """The `mtp_potential *` of the C interface."""
        return self._handle

    @property
    def facts(self) -> Facts:
        """Sizes and distances."""
        raw = ffi.new("mtp_facts *")
        call("potential_facts", self._handle, raw)
        values = {name: getattr(raw, name) for name in Facts.__dataclass_fields__ if name != "active_set"}
        values["trained"] = bool(raw.trained)
        mode = raw.active_set_mode
        return Facts(**values, active_set=None if mode < 0 else MODES[mode])

    @property
    def species(self) -> list[str] | None:
        """Element names in the order of the species; None where the file names none (MLIP's)."""
        raw = ffi.new("char **")
        call("potential_get_elements", self._handle, raw)
        names = ffi.string(raw[0]).decode()
        return names.split(",") if names else None

    @species.setter
    def species(self, names: Sequence[str] | None) -> None:
        call("potential_set_elements", self._handle, ",".join(names or []).encode())

    @property
    def parameters(self) -> np.ndarray:
        """θ, (n_parameters,). Setting drops the active set, which depends on them."""
        theta = np.empty(self.facts.n_parameters)
        call("potential_get_parameters", self._handle, doubles(theta))
        return theta

    @parameters.setter
    def parameters(self, theta: np.ndarray) -> None:
        theta = np.ascontiguousarray(theta, dtype=float)
        if theta.shape != (self.facts.n_parameters,):
            raise Error(f"the potential has {self.facts.n_parameters} parameters, got an array of shape {theta.shape}")
        call("potential_set_parameters", self._handle, doubles(theta))

    def radial_functions(self, distances: np.ndarray) -> np.ndarray:
        """f_μ(r) = Σ_β c_μβ φ_β(r), see `radial_basis`; without the fade of a guard.

        Args:
            distances: (n,), Å.

        Returns:
            (n_species, n_species, n_radial, n): of the centre's species, the neighbour's species, μ and r.
        """
        facts = self.facts
        shape = (facts.n_species, facts.n_species, facts.n_radial, facts.n_chebyshev)
        coefficients = self.parameters[: np.prod(shape)].reshape(shape)
        return coefficients @ radial_basis(facts, distances).T

    def set_scaling(self, scaling: float) -> None:
        """Set the factor in front of the radial functions. Drops the active set."""
        call("potential_set_scaling", self._handle, scaling)

    @property
    def guard(self) -> Guard | None:
        """The short-range guard; None without one. Setting drops the active set, which depends on the fade.

        Raises LibraryError for distances that are not finite and in order or that pass the cutoff, and where the
        potential does not name its elements, whose nuclear charges act.
        """
        present, n = ffi.new("int32_t *"), self.facts.n_species
        distances = np.empty((n, n, 4))
        call("potential_get_guard", self._handle, doubles(distances), present)
        return Guard(distances[..., :2], distances[..., 2:]) if present[0] else None

    @guard.setter
    def guard(self, guard: Guard | None) -> None:
        distances = NULL
        if guard is not None:
            n = self.facts.n_species
            given = np.concatenate([guard.repulsion, guard.fade], axis=-1, dtype=float)
            if given.shape != (n, n, 4):
                raise Error(f"the guard of {n} species has windows (S, S, 2) = ({n}, {n}, 2)")
            table = np.ascontiguousarray(given)
            distances = doubles(table)
        call("potential_set_guard", self._handle, distances)

    def neighbourhoods(self, atoms: Atoms) -> Neighbourhoods:
        """The neighbour lists that this potential needs. They stay valid as long as the atoms do not move."""
        return neighbourhoods(atoms, types(atoms, self.species), self.facts.cutoff)

    def evaluate(self, atoms: Atoms | Iterable[Atoms]) -> Result | list[Result]:
        """Energy, forces and stress of one configuration, or of each of many.

        Raises DataError for species that the potential does not know, coinciding atoms, or positions that are
        not finite.
        """
        if isinstance(atoms, Atoms):
            return self._evaluate([atoms])[0]
        return [result for batch in batches(atoms) for result in self._evaluate(batch)]

    def _evaluate(self, configurations: list[Atoms]) -> list[Result]:
        names = self.species
        batch = Batch.of(configurations, [types(atoms, names) for atoms in configurations])
        n, n_atoms = len(configurations), len(batch.species)
        energies, forces, virials = np.empty(n_atoms), np.empty((n_atoms, 3)), np.empty((n, 3, 3))
        try:
            call(
                "evaluate_configurations",
                self._handle,
                batch.as_c(),
                doubles(energies),
                doubles(forces),
                doubles(virials),
            )
        except LibraryError:
            if n == 1:
                with named(configurations[0]):
                    raise
            return [self.evaluate(atoms) for atoms in configurations]  # finds the one to blame
        bulk = batch.periodic.all(axis=1)
        volumes = np.where(bulk, np.abs(np.linalg.det(batch.cells)), 1.0)
        stresses = virials.reshape(n, 9)[:, VOIGT] / volumes[:, None]
        ends = batch.first_atom.tolist()
        return [
            Result(
                float(energies[start:end].sum()),
                energies[start:end],
                forces[start:end],
                virials[k],
                stresses[k] if bulk[k] else None,
            )
            for k, (start, end) in enumerate(itertools.pairwise(ends))
        ]

    def parameter_gradient(self, atoms: Atoms) -> np.ndarray:
        """∂V_i/∂θ, (N, n_parameters)."""
        with named(atoms):
            return self.gradient_rows(self.neighbourhoods(atoms))

    def gradient_rows(self, near: Neighbourhoods) -> np.ndarray:
        """∂V_i/∂θ of the atoms of several configurations, (N, n_parameters)."""
        rows = np.empty((len(near), self.facts.n_parameters))
        call("parameter_gradient", self._handle, near.as_c(), doubles(rows))
        return rows

    def jacobian(self, atoms: Atoms, near: Neighbourhoods | None = None, linear_only: bool = False) -> Jacobian:
        """Derivatives of energy, forces and virial by θ, or by its linear part (species, moment coefficients).

        `near` saves the neighbour search where it is known already.
        """
        near = near or self.neighbourhoods(atoms)
        rows = np.empty((3 * len(near) + 7, self._n_columns(linear_only)))
        self._of(atoms, "jacobian", near, int(linear_only), doubles(rows))
        return Jacobian(rows[0], rows[1:-6], rows[-6:])

    def observables(self, near: Neighbourhoods) -> np.ndarray:
        """Energy, forces and virial (xx yy zz yz xz xy) of several configurations in turn, (Σ (7 + 3 N),)."""
        energies, forces, virials = self.evaluate_near(near)
        virials = virials.reshape(-1, 9)[:, VOIGT]
        parts = []
        for c, (first, end) in enumerate(itertools.pairwise(near.first_atom)):
            parts += [energies[first:end].sum(keepdims=True), forces[first:end].ravel(), virials[c]]
        return np.concatenate(parts)

    def evaluate_near(self, near: Neighbourhoods) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Site energies (N,), forces (N, 3) and virials (C, 3, 3) of several configurations."""
        energies, forces = np.empty(len(near)), np.empty((len(near), 3))
        virials = np.empty((len(near.first_atom) - 1, 3, 3))
        call("evaluate", self._handle, near.as_c(), doubles(energies), doubles(forces), doubles(virials))
        return energies, forces, virials

    def jacobian_rows(self, near: Neighbourhoods, linear_only: bool = False) -> np.ndarray:
        """The Jacobian of several configurations, (Σ (7 + 3 N), n): energy, forces and virial of each in turn."""
        n_rows = 3 * len(near) + 7 * (len(near.first_atom) - 1)
        rows = np.empty((n_rows, self._n_columns(linear_only)))
        call("jacobian", self._handle, near.as_c(), int(linear_only), doubles(rows))
        return rows

    def square_errors(
        self, near: Neighbourhoods, reference: np.ndarray, weights: np.ndarray, with_gradient: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Weighted square errors of several configurations, and the gradient of their sum by θ (n_parameters,).

        reference, weights: (Σ (7 + 3 N),) in the order of `jacobian_rows`; the errors are summed over energies,
        forces and virials: (3,).
        """
        errors, gradient = np.empty(3), np.empty(self.facts.n_parameters) if with_gradient else None
        where = NULL if gradient is None else doubles(gradient)
        call(
            "square_errors",
            self._handle,
            near.as_c(),
            doubles(reference),
            doubles(weights),
            doubles(errors),
            where,
        )
        return errors, gradient

    def _n_columns(self, linear_only: bool) -> int:
        facts = self.facts
        return facts.n_species + facts.n_scalar if linear_only else facts.n_parameters

    def grade(self, atoms: Atoms) -> Grades:
        """Extrapolation grade γ = max_j |(b A⁻¹)_j| [Podryabinkin & Shapeev, Comput. Mater. Sci. 140, 171 (2017)].

        Per atom in neighbourhood mode; one number in configuration mode. Raises Error without an active set.
        """
        with named(atoms):
            grades = self.grades_of(self.neighbourhoods(atoms))
        local = self.facts.active_set == "neighbourhood"
        return Grades(float(grades.max(initial=0.0)), grades if local else None)

    def grades_of(self, near: Neighbourhoods) -> np.ndarray:
        """Extrapolation grades of several configurations: of their atoms in neighbourhood mode, else one of each."""
        local = self.facts.active_set == "neighbourhood"
        grades = np.zeros(len(near) if local else len(near.first_atom) - 1)
        call("grade", self._handle, near.as_c(), doubles(grades))
        return grades

    def rows(self, atoms: Atoms, mode: str = "neighbourhood") -> np.ndarray:
        """The rows a configuration offers to an active set: its atoms' in neighbourhood mode, else their mean."""
        if _mode_number(mode) == 0:
            return self.parameter_gradient(atoms)
        total = np.zeros((1, self.facts.n_parameters))
        with named(atoms):
            near = self.neighbourhoods(atoms)
            for start in range(0, len(near), BATCH):  # never the rows of all atoms
                centres = np.arange(start, min(start + BATCH, len(near)))
                total += self.gradient_rows(near.of_centres(centres))[: len(centres)].sum(axis=0)
        return total / max(len(atoms), 1)

    def select(
        self,
        configurations: Sequence[Atoms],
        mode: str = "neighbourhood",
        threshold: float = SWAP_THRESHOLD,
        comm=None,
    ) -> list[int]:
        """Offer configurations to the active set (begun anew where there is none of this mode) by maxvol.

        Returns the indices of those of which a row entered and stayed, ascending. Afterwards no configuration
        offered has a grade above `threshold`.

        With an mpi4py communicator the call is collective: the configurations of all ranks, in the order of the ranks,
        are offered (all may be on rank 0, or each may hold a part), and indices and active set are the same on every
        rank, and for any number of ranks. An error on one rank is raised on all.
        """
        from mtp.selection import select  # there, because it builds on potentials

        return select(self, configurations, mode, threshold, comm)

    def offer(self, rows: np.ndarray, mode: str, threshold: float = SWAP_THRESHOLD) -> np.ndarray:
        """Offer rows (m, n_parameters) to the active set, begun anew where there is none of this mode, by maxvol.

        Returns for each place of the set the row that now stands there, -1 where it did not change: (n_parameters,).
        """
        rows = np.ascontiguousarray(rows, dtype=float)
        slots = np.empty(self.facts.n_parameters, dtype=np.int64)
        call("select", self._handle, _mode_number(mode), len(rows), doubles(rows), threshold, int64s(slots), NULL)
        return slots

    @property
    def active_set(self) -> np.ndarray:
        """The rows A of the active set, (n_parameters, n_parameters)."""
        n = self.facts.n_parameters
        rows = np.empty((n, n))
        call("active_set_get", self._handle, doubles(rows))
        return rows

    def set_active_set(self, rows: np.ndarray, mode: str) -> None:
        """Replace the active set by the rows A, (n_parameters, n_parameters)."""
        rows = np.ascontiguousarray(rows, dtype=float)
        n = self.facts.n_parameters
        if rows.shape != (n, n):
            raise Error(f"an active set of this potential is {n} x {n}, got an array of shape {rows.shape}")
        call("active_set_set", self._handle, _mode_number(mode), doubles(rows))

    def _of(self, atoms: Atoms, function: str, near: Neighbourhoods, *outputs) -> None:
        with named(atoms):
            call(function, self._handle, near.as_c(), *outputs)


def radial_basis(facts: Facts, distances: np.ndarray) -> np.ndarray:
    """φ_β(r) = s T_β(ξ) (r - R)², zero from the cutoff R on, ξ = (2 r - R - r_min) / (R - r_min): (n, n_chebyshev).

    distances: (n,), Å.
    """
    r = np.asarray(distances, dtype=float)
    xi = (2 * r - facts.cutoff - facts.min_distance) / (facts.cutoff - facts.min_distance)
    window = facts.scaling * np.where(r < facts.cutoff, (r - facts.cutoff) ** 2, 0.0)
    return chebvander(xi, facts.n_chebyshev - 1) * window[:, None]


def _from_text(text: bytes, scaling: float, parameters: np.ndarray | None) -> Potential:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "potential.mtp"
        file.write_bytes(text)
        potential = Potential.load(file)
    if parameters is not None:  # all digits
        potential.set_scaling(scaling)
        potential.parameters = parameters
    return potential


def _mode_number(mode: str) -> int:
    if mode not in MODES:
        raise Error(f"mode '{mode}' is not known; choose from {', '.join(MODES)}")
    return MODES.index(mode)
