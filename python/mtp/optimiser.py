# SPDX-License-Identifier: BSD-3-Clause
"""Variable projection with Levenberg-Marquardt steps.

Energies, forces and stresses are linear in the species and moment coefficients ξ and not in the radial coefficients
c. At each c the best ξ is solved for exactly; c is improved by Gauss-Newton steps on what remains, with the change of
ξ eliminated [Kaufman, BIT 15, 49 (1975); damping by Nielsen, IMM-REP-1999-05 (1999)].

One pass over the data serves a step: the normal equations at a trial c hold the best ξ there and, with the radial
columns taken at the ξ that the step predicts, the next Gauss-Newton step as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mtp.errors import Error
from mtp.loss import Loss, NormalEquations

RIDGE = 1e-11  # least L2 regularisation: keeps null directions (fixed composition) and rounding errors at bay
LEAST_DAMPING, MOST_DAMPING = 1e-8, 1e12  # the first leaves out directions that no data determine
REFRESH = 2.0  # the radial columns are formed again where the loss at the predicted ξ is this much above the best


@dataclass
class Point:
    """Radial coefficients c (n_radial,) with the linear ones ξ (n_linear,) that suit them best, less the species'
    reference energies; the regularised loss there, and the normal equations, by all parameters."""

    radial: np.ndarray
    linear: np.ndarray
    value: float
    system: NormalEquations


@dataclass
class State:
    """What an interrupted minimisation goes on from. penalty: (n_linear,), that of the squares of the linear
    coefficients; None before it is set by the first normal equations. promised: the relative fall of the loss that the
    next step would bring if it were not damped and predictions were linear in it."""

    parameters: np.ndarray
    penalty: np.ndarray | None = None
    damping: float = 1e-3
    raise_by: float = 2.0
    finished: bool = False
    promised: float = np.inf


class Minimiser:
    """Minimises a loss over all parameters, or the linear ones alone.

    ridge: L2 regularisation of the linear coefficients, relative to the diagonal of the normal equations where the
    minimisation begins; from there on it stays, as else its own change with the radial coefficients would have to be
    followed. roughness: of the radial functions, added to the loss. fixed: indices of linear coefficients that stay at
    their reference energies.
    """

    def __init__(
        self, loss: Loss, n_radial: int, ridge: float = RIDGE, roughness: Roughness | None = None, fixed=()
    ) -> None:
        self.loss, self.n_radial, self.ridge, self.roughness = loss, n_radial, max(ridge, RIDGE), roughness
        self.free = np.setdiff1d(np.arange(len(loss.offset)), fixed)
        self.penalty: np.ndarray | None = None

    def steps(self, state: State) -> Iterator[State]:
        """Improve the parameters step by step; each state is the start of the next step."""
        self.penalty = state.penalty
        point = self._begin(state.parameters[: self.n_radial])
        step = _GaussNewton(point, self)
        while True:
            damping, raise_by = state.damping, state.raise_by
            while damping <= MOST_DAMPING:
                change, predicted, linear = step.damped(damping)
                trial = self._at(point.radial + change, linear)
                gain = (point.value - trial.value) / max(predicted, np.finfo(float).tiny)
                if trial.value < point.value:
                    damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                    raise_by, point = 2.0, trial
                    break
                damping *= raise_by
                raise_by *= 2
            step = _GaussNewton(point, self)
            _, promised, _ = step.damped(LEAST_DAMPING)
            promised /= max(point.value, np.finfo(float).tiny)
            finished = damping > MOST_DAMPING
            state = State(self._parameters(point), self.penalty, damping, raise_by, finished, promised)
            yield state
            if state.finished:
                return

    def solve_linear(self, radial: np.ndarray) -> np.ndarray:
        """All parameters, the linear ones solved for at these radial ones."""
        theta = np.concatenate([radial, self.loss.offset])
        linear, _ = self._solve(self.loss.linear(theta))
        return np.concatenate([radial, linear + self.loss.offset])

    def _begin(self, radial: np.ndarray) -> Point:
        theta = self.solve_linear(radial)
        return self._at(radial, theta[self.n_radial :] - self.loss.offset)

    def _at(self, radial: np.ndarray, predicted: np.ndarray) -> Point:
        """The point at c, given about what ξ is best there."""
        for _ in range(2):
            system = self.loss.gauss_newton(np.concatenate([radial, predicted + self.loss.offset]))
            n = self.n_radial
            of_linear = NormalEquations(system.matrix[n:, n:], system.vector[n:], system.square)
            linear, value = self._solve(of_linear)
            at_predicted = system.square - 2 * predicted @ of_linear.vector + predicted @ of_linear.matrix @ predicted
            if at_predicted < REFRESH * value:
                break
            predicted = linear
        if self.roughness:
            value += self.roughness.value(radial)
        return Point(radial, linear, value, system)

    def _solve(self, equations: NormalEquations) -> tuple[np.ndarray, float]:
        """The linear coefficients of least regularised loss, and that loss."""
        free = self.free
        solution = np.zeros(len(equations.vector))
        if self.penalty is None:
            self.penalty = self.ridge * np.diag(equations.matrix)
        solution[free] = solve(self.penalised(equations.matrix), equations.vector[free])
        rest = equations.square - 2 * equations.vector @ solution + solution @ equations.matrix @ solution
        return solution, float(rest + self.penalty @ solution**2)

    def penalised(self, matrix: np.ndarray) -> np.ndarray:
        """The normal matrix (n_linear, n_linear) of the free linear coefficients, regularised."""
        return (matrix + np.diag(self.penalty))[np.ix_(self.free, self.free)]

    def _parameters(self, point: Point) -> np.ndarray:
        return np.concatenate([point.radial, point.linear + self.loss.offset])


class _GaussNewton:
    """The step from a point, with the change of ξ eliminated."""

    def __init__(self, point: Point, of: Minimiser) -> None:
        n, free, system = of.n_radial, of.free, point.system
        self.cc, cl = system.matrix[:n, :n], system.matrix[:n, n:]
        self.eliminated = np.zeros((len(point.linear), n))
        self.eliminated[free] = solve(of.penalised(system.matrix[n:, n:]), cl[:, free].T)
        self.reduced = self.cc - cl @ self.eliminated
        self.gradient = system.vector[:n] - cl @ point.linear
        if of.roughness:
            self.reduced = self.reduced + of.roughness.curvature(point.radial)
            self.gradient = self.gradient - of.roughness.slope(point.radial) / 2
        self.linear = point.linear

    def damped(self, damping: float) -> tuple[np.ndarray, float, np.ndarray]:
        """Change of c, the fall of the loss that it promises, and the ξ that it predicts."""
        # what is left of cc after the elimination is exact to rounding errors of cc, in whose units it is solved
        diagonal = np.diag(self.cc)
        change = solve(self.reduced + damping * np.diag(diagonal), self.gradient, diagonal)
        promised = change @ (2 * self.gradient - self.reduced @ change)
        return change, float(promised), self.linear - self.eliminated @ change


class Singular(Error):
    """The data do not determine the parameters."""


def solve(matrix: np.ndarray, right: np.ndarray, diagonal: np.ndarray | None = None) -> np.ndarray:
    """Solve the symmetric positive system, in units in which `diagonal` (its own) is one, for one or several right
    sides. Where rounding errors have made it indefinite, as little as needed is added to the diagonal; to that of a
    step, for which `diagonal` is given, up to 1: it is damped by that, as it would be by a larger damping."""
    attempts = 12 if diagonal is None else 17
    diagonal = np.diag(matrix) if diagonal is None else diagonal
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    unit = matrix * scale[:, None] * scale
    own = np.where(diagonal > 0, np.diag(unit), 1)
    more = 0.0
    for _ in range(attempts):
        np.fill_diagonal(unit, own + more)
        try:
            return (scale * cho_solve(cho_factor(unit), (right.T * scale).T).T).T
        except LinAlgError:
            more = max(10 * more, 1e-15)
    raise Singular(
        "the linear equations of the fit are singular; use fewer parameters (level, radial basis) or more data"
    )


class Roughness:
    """weight · Σ_f ∫ f''² dr / ∫ f² dr over the radial functions, in units of the radial interval.

    quadratic: the form of ∫ f''², size: that of ∫ f², (n_chebyshev, n_chebyshev) each.
    """

    def __init__(self, weight: float, quadratic: np.ndarray, size: np.ndarray) -> None:
        self.weight, self.quadratic, self.size = weight, quadratic, size

    def value(self, radial: np.ndarray) -> float:
        """At c (n_radial,)."""
        c = radial.reshape(-1, len(self.size))
        return float(self.weight * (_form(c, self.quadratic) / _form(c, self.size)).sum())

    def slope(self, radial: np.ndarray) -> np.ndarray:
        """Its gradient."""
        c = radial.reshape(-1, len(self.size))
        size = _form(c, self.size)[:, None]
        ratio = _form(c, self.quadratic)[:, None] / size
        return 2 * self.weight * ((c @ self.quadratic - ratio * (c @ self.size)) / size).ravel()

    def curvature(self, radial: np.ndarray) -> np.ndarray:
        """The positive part of half its second derivative."""
        c = radial.reshape(-1, len(self.size))
        n = len(self.size)
        matrix = np.zeros((radial.size, radial.size))
        for k, size in enumerate(_form(c, self.size)):
            matrix[k * n : (k + 1) * n, k * n : (k + 1) * n] = self.weight * self.quadratic / size
        return matrix


def _form(c: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.einsum("ka,ab,kb->k", c, matrix, c)
