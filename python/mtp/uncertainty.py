# SPDX-License-Identifier: BSD-3-Clause
"""Standard deviations of what a potential predicts, from a distribution of its linear coefficients.

Energies, forces and stresses are linear in the species and moment coefficients ξ: y = J ξ. Coefficients with covariance
Σ give every prediction the variance J Σ Jᵀ, with all correlations, so that differences and sums of energies are as good
as energies. The radial coefficients are kept. Two distributions are offered:

- `Posterior.from_noise`, for a potential whose form is right and labels with independent noise of known variance:
  Σ = (Jᵀ W J)⁻¹, the textbook's posterior.
- `Posterior.from_data`, for what is met in practice: labels without noise and a form that cannot follow them. There the
  textbook's Σ falls as 1/data while the errors stay [Swinburne & Perez, Mach. Learn.: Sci. Technol. (2025), doi
  10.1088/2632-2153/ad9fce]. Instead each datum sees coefficients of its own, ξ + δ with δ ~ N(0, Σ), and Σ is the one
  of most likely errors (random coefficients: Hildreth & Houck, J. Am. Stat. Assoc. 63, 584 (1968)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ase import Atoms
from scipy.stats import rankdata

from mtp.cfg import replaced_whole
from mtp.configurations import labels
from mtp.errors import Error, FormatError
from mtp.evaluation import group
from mtp.guard import to_learn
from mtp.loss import Loss
from mtp.potential import Potential
from mtp.weights import Weights, observe

FLOOR = 1e-11  # of eigenvalues in units of the diagonal: what no data determine (as the ridge of a fit)
FOLDS = 10  # of the cross-validation
STEPS = 30  # of expectation and maximisation; later ones change little and follow single data
NOISE = 0.1  # part of the RMS error that is left to the labels: else forces that symmetry makes tiny rule Σ
ROWS = 30_000  # of the Jacobian kept for the maximisation: force components beyond it are a random choice
ENERGY, FORCE, STRESS = range(3)  # kinds of rows


@dataclass(frozen=True)
class Estimate:
    """A predicted value and its standard deviation, of the same shape and unit."""

    value: float | np.ndarray
    std: float | np.ndarray


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the labels' own errors: energy in eV, times √N for N atoms; force components in eV/Å."""

    energy: float = 0.0
    force: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """Estimates for a configuration of N atoms: energy (eV), forces (N, 3) (eV/Å), stress (6,) in ASE's sign and order
    (eV/Å³), None without three periodic directions."""

    energy: Estimate
    forces: Estimate
    stress: Estimate | None


class Posterior:
    """A potential and the covariance of its linear coefficients.

    Args:
        potential: the mean of the distribution.
        covariance: Σ, (n, n), of the species and moment coefficients in the order of the parameters' tail.
        noise: of the labels, counted only where predictions are compared with labels (`calibration`).

    Raises Error where the covariance has another shape, or is not finite.

    >>> import numpy as np
    >>> from ase import Atoms
    >>> potential = Potential.new(level=2, species=["Cu"], cutoff=5.0, n_chebyshev=2)
    >>> potential.parameters = [1.0, 0.0, -3.5, 0.2]  # radial, species, moment coefficients
    >>> posterior = Posterior(potential, np.diag([0.01**2, 0.0]))  # 10 meV in the energy of an atom
    >>> atom = Atoms("Cu")
    >>> float(posterior.energy(atom).std)
    0.01
    >>> dimer = Atoms("Cu2", [(0, 0, 0), (0, 0, 2.2)])
    >>> float(posterior.difference([(1, dimer), (-2, atom)]).std)  # the energies of the atoms cancel
    0.0
    """

    def __init__(self, potential: Potential, covariance: np.ndarray, noise: Noise = Noise()) -> None:
        facts = potential.facts
        n = facts.n_species + facts.n_scalar
        covariance = np.asarray(covariance, dtype=float)
        if covariance.shape != (n, n) or not np.isfinite(covariance).all():
            raise Error(
                f"the covariance of this potential's linear coefficients is a finite {n} x {n} matrix, "
                f"got one of shape {covariance.shape}"
            )
        self.potential = potential
        self.covariance = covariance
        self.noise = noise
        self._root = _root(covariance)

    @classmethod
    def from_noise(
        cls, potential: Potential, configurations: Sequence[Atoms], weights: Weights, threads: int | None = None
    ) -> Posterior:
        """The distribution for a potential whose form is right, fitted with these weights.

        weights: the inverse variances of the labels' independent errors, as in the loss: the variance of an energy is
        N / weights.energy, of a force component 1 / weights.force.
        """
        loss = Loss(potential, configurations, weights, threads)
        equations = loss.linear(potential.parameters)
        loss.close()
        root = _inverse_root(len(configurations) * equations.matrix)
        noise = Noise(*(w**-0.5 if w > 0 else 0.0 for w in (weights.energy, weights.force)))
        return cls(potential, root @ root.T, noise)

    @classmethod
    def from_data(
        cls,
        potential: Potential,
        configurations: Sequence[Atoms],
        weights: Weights | None = None,
        threads: int | None = None,
    ) -> Posterior:
        """The distribution that explains the potential's errors for its training data.

        The errors are those of cross-validation: each tenth of the configurations is predicted with linear
        coefficients fitted to the others. Every configuration counts as one energy, the mean over its force components
        and, where the weights and the data have stress, the mean over its components. Σ begins as that of as many
        data as there are coefficients, Σ₀ = (data/n) A⁻¹ with A of rows divided by RMS errors, so that the mean
        variance equals the mean squared error [Frederiksen et al., Phys. Rev. Lett. 93, 165501 (2004)], and goes up
        in likelihood by expectation and maximisation, with Σ₀ as a prior worth n data.

        weights: those of the fit, by default a fit's defaults. Raises DataError for labels that are missing, Error
        for fewer than two configurations.
        """
        if len(configurations) < 2:
            raise Error("the errors of a potential are estimated from two configurations or more")
        training = _Training(potential, configurations, weights or Weights(), threads)
        jacobian, errors, quantity, share = training.out_of_fold()
        rms = np.zeros(3)
        for q in np.unique(quantity):
            of = quantity == q
            rms[q] = np.sqrt(np.average(errors[of] ** 2, weights=share[of]))
        tiny = 1e-12 * (1 + np.abs(training.size))  # of a fit without errors: what rounding leaves
        rms = np.maximum(rms, tiny)
        covariance = _most_likely(jacobian, errors, share, rms[quantity])
        return cls(potential, covariance, Noise(*map(float, NOISE * rms[:2])))

    def energy(self, atoms: Atoms) -> Estimate:
        """The energy of a configuration, eV."""
        return self.difference([(1.0, atoms)])

    def energy_per_atom(self, atoms: Atoms) -> Estimate:
        """The energy per atom of a configuration, eV."""
        return self.difference([(1.0 / len(atoms), atoms)])

    def forces(self, atoms: Atoms) -> Estimate:
        """The forces, (N, 3), eV/Å; their derivatives take 24 N n bytes."""
        return self.predict(atoms).forces

    def stress(self, atoms: Atoms) -> Estimate | None:
        """The stress, (6,), eV/Å³, ASE's sign and order; None without three periodic directions."""
        return self.predict(atoms).stress

    def difference(self, terms: Sequence[tuple[float, Atoms]]) -> Estimate:
        """A combination of energies Σ c E(atoms), eV, with what their errors have in common.

        A barrier is [(1, saddle), (-1, minimum)]; the energy of a vacancy is [(1, vacancy), (-(N - 1) / N, perfect)].
        """
        coefficients = np.array([c for c, _ in terms], dtype=float)
        values, rows = self._energies([atoms for _, atoms in terms])
        return Estimate(float(coefficients @ values), float(np.linalg.norm(coefficients @ rows @ self._root)))

    def energies(self, configurations: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        """The energies of K configurations, (K,), eV, and their covariance, (K, K), eV²."""
        values, rows = self._energies(configurations)
        rows = rows @ self._root
        return values, rows @ rows.T

    def predict(self, atoms: Atoms) -> Prediction:
        """Energy, forces and stress."""
        result, derivatives = self.potential.evaluate(atoms), self.potential.jacobian(atoms, linear_only=True)
        stress = None
        if result.stress is not None:
            stress = Estimate(result.stress, self._std(derivatives.virial) / atoms.get_volume())
        forces = self._std(derivatives.forces).reshape(-1, 3)
        energy = float(self._std(derivatives.energy[None])[0])
        return Prediction(Estimate(result.energy, energy), Estimate(result.forces, forces), stress)

    def sample(self, n: int, seed: int = 0) -> list[Potential]:
        """Draw n potentials, to propagate through any property; without active sets, which belong to coefficients."""
        drawn = np.random.default_rng(seed).standard_normal((n, len(self._root))) @ self._root.T
        mean = self.potential.parameters
        potentials = []
        for change in drawn:
            potential = self.potential.copy()
            potential.parameters = mean + np.pad(change, (len(mean) - len(change), 0))
            potentials.append(potential)
        return potentials

    def save(self, path: str | os.PathLike) -> None:
        """Write the distribution; by custom beside its potential, potential.posterior.npz for potential.mtp."""
        path = Path(path)
        if path.suffix != ".npz":
            raise Error(f"{path}: a posterior is written as .npz")
        with replaced_whole(path) as part, part.open("wb") as file:
            form, numbers = _identity(self.potential)
            noise = [self.noise.energy, self.noise.force]
            np.savez_compressed(file, covariance=self.covariance, noise=noise, form=form, numbers=numbers)

    @classmethod
    def load(cls, path: str | os.PathLike, potential: Potential) -> Posterior:
        """Read the distribution of this potential. Raises Error where the file belongs to another."""
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
                covariance, noise = content["covariance"], content["noise"]
                form, numbers = str(content["form"]), content["numbers"]
        except OSError as error:
            raise Error(f"{path}: cannot be read: {error.strerror or error}") from None
        except (BadZipFile, KeyError, ValueError, EOFError) as error:
            raise FormatError(f"{path}: is no posterior of `mtp uncertainty`: {error}") from None
        own_form, own_numbers = _identity(potential)
        # files of potentials keep 16 digits
        if form != own_form or not np.allclose(numbers, own_numbers, rtol=1e-14, atol=0):
            raise Error(
                f"{path}: belongs to another potential (elements, form, scaling, guard or parameters differ): make it "
                "anew with `mtp uncertainty`"
            )
        return cls(potential, covariance, Noise(*map(float, noise)))

    def _energies(self, configurations: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        """Energies (K,) and their derivatives (K, n). The forces' are not needed: the sites' are summed."""
        n = len(self._root)
        gradients = [self.potential.parameter_gradient(atoms)[:, -n:].sum(axis=0) for atoms in configurations]
        rows = np.array(gradients).reshape(-1, n)
        return rows @ self.potential.parameters[-n:], rows

    def _std(self, rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows @ self._root, axis=1)


@dataclass(frozen=True)
class Coverage:
    """How errors and standard deviations agree for one quantity of a group of configurations.

    count: of energies or force components; within: shares of errors inside 1σ and 2σ (0.683 and 0.954 of a normal
    distribution); rms_error and rms_std: eV/atom or eV/Å; correlation: of the ranks (Spearman) of |error| and σ, None
    where one of them does not vary.
    """

    data: str
    group: str
    quantity: str
    count: int
    within: tuple[float, float]
    rms_error: float
    rms_std: float
    correlation: float | None


def calibration(
    posterior: Posterior, data: Mapping[str, Sequence[Atoms]], threads: int | None = None
) -> list[Coverage]:
    """Compare errors with standard deviations, for each data set as a whole ("all") and for its groups, if several.

    The labels' noise is added to the variance of the coefficients. What a configuration's labels lack is left out.
    """
    found = []
    for name, configurations in data.items():
        owners = [group(atoms) for atoms in configurations]
        compared = list(_parallel(lambda atoms: _compared(posterior, atoms), configurations, threads))
        groups = sorted(set(owners)) if len(set(owners)) > 1 else []
        for chosen in (None, *groups):
            members = [both for owner, both in zip(owners, compared, strict=True) if chosen in (None, owner)]
            for place, quantity in enumerate(("energy_per_atom", "force")):
                errors, stds = np.concatenate([both[place] for both in members], axis=1)
                if len(errors):
                    found.append(_coverage(name, chosen or "all", quantity, errors, stds))
    return found


class _Training:
    """Errors and Jacobians of the training data, and the fit's normal equations by fold."""

    def __init__(
        self, potential: Potential, configurations: Sequence[Atoms], weights: Weights, threads: int | None
    ) -> None:
        facts = potential.facts
        n = facts.n_species + facts.n_scalar
        self.folds = min(FOLDS, len(configurations))
        self.matrices = np.zeros((self.folds, n, n))
        self.gradients = np.zeros((self.folds, n))
        self.kept = []
        self.size = np.zeros(3)
        most = max(30, ROWS // len(configurations))
        seen, linear = observe(configurations, weights), potential.parameters[-n:]

        def work(number: int):
            n_atoms = len(configurations[number])
            derivatives = potential.jacobian(configurations[number], linear_only=True)
            known = seen.weights[number] > 0
            jacobian = np.concatenate([derivatives.energy[None], derivatives.forces, derivatives.virial])[known]
            values = to_learn(potential, configurations[number], seen.values[number])[known]
            errors = values - jacobian @ linear
            quantity = np.repeat([ENERGY, FORCE, STRESS], [1, 3 * n_atoms, 6])[known]
            weighted = jacobian * seen.weights[number][known, None]
            # one energy and six components of stress, and as many components of the forces as there is room for
            components = np.flatnonzero(quantity == FORCE)
            if len(components) > most:
                components = np.random.default_rng(number).choice(components, most, replace=False)
            chosen = np.sort(np.concatenate([np.flatnonzero(quantity != FORCE), components]))
            size = [np.abs(values[quantity == q]).max(initial=0.0) for q in range(3)]
            kept = (jacobian[chosen], errors[chosen], quantity[chosen], n_atoms)
            return weighted.T @ jacobian, weighted.T @ errors, kept, size

        found = _parallel(work, range(len(configurations)), threads)
        for number, (matrix, gradient, kept, size) in enumerate(found):
            fold = number % self.folds
            self.matrices[fold] += matrix
            self.gradients[fold] += gradient
            self.kept.append(kept)
            self.size = np.maximum(self.size, size)

    def out_of_fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the Jacobian, errors without the own fold, quantities, and shares in a configuration's count.

        The fit is taken to be at its minimum; leaving a fold out moves ξ by -(H - H_f)⁻¹ g_f. Rows of energies are
        divided by √N, those of stress (times volume) as well: the loss takes their variances to grow with N.
        """
        total = self.matrices.sum(axis=0)
        changes = []
        for matrix, gradient in zip(self.matrices, self.gradients, strict=True):
            root = _inverse_root(total - matrix)
            changes.append(-root @ (root.T @ gradient))
        rows, errors, quantities, shares = [], [], [], []
        if not any(len(error) for _, error, *_ in self.kept):
            raise Error("no energy, force or stress of the data has a weight: give a positive one")
        for number, (jacobian, error, quantity, n_atoms) in enumerate(self.kept):
            scale = np.where(quantity == FORCE, 1.0, n_atoms**-0.5)
            rows.append(jacobian * scale[:, None])
            errors.append((error - jacobian @ changes[number % self.folds]) * scale)
            quantities.append(quantity)
            shares.append(1 / np.bincount(quantity, minlength=3)[quantity])
        self.kept.clear()
        return tuple(map(np.concatenate, (rows, errors, quantities, shares)))


def _most_likely(jacobian: np.ndarray, errors: np.ndarray, share: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """Σ (n, n) of the largest likelihood, see `Posterior.from_data`; all arguments have a row for each error."""
    n = jacobian.shape[1]
    count = share.sum()
    weighted = jacobian * (share / rms**2)[:, None]
    root = np.sqrt(count / n) * _inverse_root(weighted.T @ jacobian)
    first = covariance = root @ root.T
    for _ in range(STEPS):
        spread = jacobian @ covariance
        variance = np.einsum("ij,ij->i", spread, jacobian) + (NOISE * rms) ** 2
        # the mean over data of what each says about the covariance of its δ
        says = share / count * ((errors / variance) ** 2 - 1 / variance)
        mean = covariance + spread.T @ (says[:, None] * spread)
        covariance = (n * first + count * mean) / (n + count)
    return (covariance + covariance.T) / 2


def _identity(potential: Potential) -> tuple[str, np.ndarray]:
    """What tells potentials apart, with or without active sets: elements and sizes, and all numbers."""
    facts, guard = potential.facts, potential.guard
    sizes = (facts.n_species, facts.n_radial, facts.n_chebyshev, facts.n_scalar)
    form, numbers = f"{potential.species} {sizes}", [facts.min_distance, facts.cutoff, facts.scaling]
    if guard is not None:
        form += " with a guard"
        numbers += [*guard.repulsion.ravel(), *guard.fade.ravel()]
    return form, np.array([*numbers, *potential.parameters])


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """R with R Rᵀ the inverse of a symmetric matrix, whose eigenvalues in units of the diagonal are FLOOR at least."""
    diagonal = np.diag(matrix)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    values, vectors = np.linalg.eigh(matrix * scale[:, None] * scale)
    return scale[:, None] * vectors / np.sqrt(np.maximum(values, FLOOR))


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R Rᵀ = Σ, in units of the diagonal: coefficients differ by orders of magnitude."""
    scale = np.sqrt(np.diag(covariance))
    units = np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(covariance / units[:, None] / units)
    return scale[:, None] * vectors * np.sqrt(np.maximum(values, 0))


def _compared(posterior: Posterior, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Errors and standard deviations, (2, 1 or 0) of the energy per atom and (2, 3 N or 0) of the force components."""
    known, predicted = labels(atoms, need=()), posterior.predict(atoms)
    energy = force = np.zeros((2, 0))
    n = len(atoms)
    if known.energy is not None and n:
        std = np.hypot(predicted.energy.std, posterior.noise.energy * np.sqrt(n))
        energy = np.array([[(predicted.energy.value - known.energy) / n], [std / n]])
    if known.forces is not None:
        std = np.hypot(predicted.forces.std, posterior.noise.force)
        force = np.array([(predicted.forces.value - known.forces).ravel(), std.ravel()])
    return energy, force


def _coverage(data: str, group: str, quantity: str, errors: np.ndarray, stds: np.ndarray) -> Coverage:
    size = np.abs(errors)
    within = tuple(float((size <= width * stds).mean()) for width in (1, 2))
    ranks = np.array([rankdata(size), rankdata(stds)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1).prod()
    correlation = float(ranks[0] @ ranks[1] / lengths) if lengths > 0 else None
    rms = [float(np.sqrt((values**2).mean())) for values in (errors, stds)]
    return Coverage(data, group, quantity, len(errors), within, *rms, correlation)


def _parallel(work, items: Sequence, threads: int | None) -> Iterator:
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(work, items)
