# SPDX-License-Identifier: BSD-3-Clause
"""Fitting: from labelled configurations to a potential."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits

from mtp import checkpoint as checkpoints
from mtp.checkpoint import Progress
from mtp.configurations import check_distances, species_of
from mtp.errors import DataError, Error
from mtp.guard import Kind, guard_for, require_distance
from mtp.loss import Loss
from mtp.optimiser import RIDGE, Minimiser, Roughness, State
from mtp.potential import Potential
from mtp.starting_point import (
    in_form_of,
    n_radial_parameters,
    randomise,
    roughness_of_basis,
    untrained,
)
from mtp.summation import Ranks
from mtp.weights import Weights, check_names, group_of

WARM_UP_VALUES = 20  # reference values for each parameter in the share of the data that first steps are made with
WARM_UP_STEPS = 6
PATIENCE = 5  # iterations that together must lower the loss by a tenth of the tolerance, whatever is promised
ROBUST_TURNS = 3
CLIMB_FROM = 16  # level at which fits of higher ones begin
CLIMB_STEPS = 20
POLISH_STEPS = 10
DISTURBANCE = 0.2  # of the radial coefficients, relative


class FitSettings(BaseModel):
    """What is fitted, and how long. Distances in Å, energies in eV.

    level, cutoff, radial_basis_size: form of the potential. min_distance: of the radial interval; by default the
    shortest distance in the data. iterations: at most; the fit ends earlier when its next step, undamped, promises
    to lower the loss by less than `tolerance` (relative). seed: of the initial radial coefficients. starts: number of
    seeds, of which the one that gets furthest in its first steps goes on. polish: times that the end is disturbed at
    random and minimised again, and left where that leads lower. radial: "fixed" leaves the radial functions of the
    initial potential as they are and solves for the linear coefficients alone. l2: regularisation of the linear
    coefficients, relative to the diagonal of their normal equations. smoothness: weight of the radial functions'
    roughness, ∫ f''² / ∫ f² over their interval. species_energies: of the isolated atoms, by element; elements that are
    not named are fitted. validation_share: of the configurations of each group, kept out of the fit. early_stop:
    iterations without a better validation loss after which the fit ends, with the best so far. memory: GB for
    neighbour lists. guard, zbl_reach: the short-range guard that the potential gets, see `mtp.guard.guard_for`; by
    default that of the potential it starts from, if any.
    """

    model_config = ConfigDict(extra="forbid")

    level: int = Field(16, ge=2, le=40)
    cutoff: float = Field(5.0, gt=0)
    radial_basis_size: int = Field(8, ge=1)
    min_distance: float | None = Field(None, ge=0)
    weights: Weights = Field(default_factory=Weights)
    iterations: int = Field(60, ge=0)
    tolerance: float = Field(2e-4, gt=0)
    seed: int = 1
    starts: int = Field(1, ge=1)
    polish: int = Field(0, ge=0)
    radial: Literal["fitted", "fixed"] = "fitted"
    l2: float = Field(RIDGE, ge=0)
    smoothness: float = Field(0.0, ge=0)
    species_energies: dict[str, float] = {}
    validation_share: float = Field(0.0, ge=0, lt=1)
    early_stop: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    memory: float = Field(2.0, gt=0)
    guard: Kind | None = None
    zbl_reach: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class Step:
    """One iteration of a fit: its number, the loss, and seconds since the start; root mean square errors of the
    training data: energies per atom (eV) and force components (eV/Å), None without such labels; the validation data's
    loss, None without such data; the level of a fit that goes before, see `CLIMB_FROM`, None in the fit itself."""

    iteration: int
    loss: float
    seconds: float
    energy_rmse: float | None = None
    force_rmse: float | None = None
    validation_loss: float | None = None
    level: int | None = None


def fit(
    configurations: Sequence[Atoms],
    settings: FitSettings,
    species: Sequence[str] | None = None,
    initial: Potential | None = None,
    progress: Callable[[Step], None] = lambda step: None,
    validation: Sequence[Atoms] = (),
    ranks: Ranks | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Potential:
    """Fit a potential to labelled configurations.

    Args:
        configurations: the data.
        settings: how to fit.
        species: order of the elements in the potential; default: the initial potential's and then the data's others,
            by atomic number.
        initial: a potential to start from, see `starting_potential`.
        progress: called after each iteration.
        validation: data that the fit is watched with, see `FitSettings.early_stop`.
        ranks: MPI ranks that share the work, of which rank 0 calls this function, see `Ranks.lead`.
        checkpoint: file that is written after each iteration and removed at the end; with `resume` the fit goes on
            from it.

    Returns:
        The potential.

    Raises:
        DataError: data are missing, not finite, or unknown to the potential.
        Error: the checkpoint is damaged, or of another fit.
    """
    with threadpool_limits(1, "blas"):  # the work is shared among threads already
        fitting = _Fitting(settings, ranks or Ranks(), progress, checkpoint)
        return fitting.run(configurations, species, initial, validation, resume)


def starting_potential(
    configurations: Sequence[Atoms],
    settings: FitSettings,
    species: Sequence[str] | None = None,
    initial: Potential | None = None,
) -> Potential:
    """What a fit starts from: of the form that the settings ask for, with the radial functions of `initial`.

    Settings of the form (level, cutoff, radial_basis_size, min_distance) that were not given are the initial
    potential's; elements of the data that it does not know are added to it.
    """
    form = settings.model_dump(include={"level", "cutoff", "radial_basis_size", "min_distance"})
    if initial is None:
        return untrained(configurations, species=species, **form)
    facts, given = initial.facts, settings.model_fields_set
    if initial.species is not None:
        known = initial.species
        species = list(species or [*known, *(name for name in species_of(configurations) if name not in known)])
    same_species = initial.species is None or species == initial.species
    kept = {"cutoff": facts.cutoff, "radial_basis_size": facts.n_chebyshev, "min_distance": facts.min_distance}
    wanted = {key: form[key] if key in given and form[key] is not None else kept[key] for key in kept}
    names = species or facts.n_species
    target = Potential.new(settings.level, names, wanted["cutoff"], wanted["min_distance"], wanted["radial_basis_size"])
    same_level = "level" not in given or target.facts.n_scalar == facts.n_scalar
    if same_species and same_level and wanted == kept:
        return initial.copy()
    if "level" not in given:
        raise Error(
            "the initial potential's distances, radial basis or species are to be changed: give the level as well"
        )
    return in_form_of(initial, target, settings.seed) if facts.trained else target


def split(configurations: Sequence[Atoms], share: float, seed: int) -> tuple[list[Atoms], list[Atoms]]:
    """Training and validation data: `share` of each group's configurations, drawn at random, for validation."""
    rng = np.random.default_rng(seed)
    held_out: set[int] = set()
    groups: dict[str, list[int]] = {}
    for k, atoms in enumerate(configurations):
        groups.setdefault(group_of(atoms), []).append(k)
    for members in groups.values():
        held_out.update(rng.permutation(members)[: round(share * len(members))].tolist())
    train = [atoms for k, atoms in enumerate(configurations) if k not in held_out]
    return train, [configurations[k] for k in sorted(held_out)]


class _Fitting:
    """One fit, on rank 0."""

    def __init__(
        self, settings: FitSettings, ranks: Ranks, progress: Callable[[Step], None], checkpoint: Path | None
    ) -> None:
        self.settings, self.ranks, self.report, self.checkpoint = settings, ranks, progress, checkpoint
        self.start = time.perf_counter()
        self.level: int | None = None  # where the fit goes before another one
        self.made_from: dict[str, str] = {}

    def below(self, level: int) -> _Fitting:
        """The fit at a lower level that goes before this one, and shares its clock and its checkpoint."""
        settings = self.settings.model_copy(update={"level": level, "iterations": CLIMB_STEPS, "polish": 0})
        fitting = _Fitting(settings, self.ranks, self.report, self.checkpoint)
        fitting.start, fitting.level, fitting.made_from = self.start, level, self.made_from
        return fitting

    def run(self, configurations, species, initial, validation, resume: bool) -> Potential:
        settings = self.settings
        if not configurations:
            raise DataError("there are no configurations to fit to")
        for atoms in (*configurations, *validation):
            check_distances(atoms)
        check_names(configurations, settings.weights)
        if not validation and settings.validation_share > 0:
            configurations, validation = split(configurations, settings.validation_share, settings.seed)
        potential = starting_potential(configurations, settings, species, initial)
        self._set_guard(potential, configurations, initial)
        if settings.radial == "fixed" and not potential.facts.trained:
            raise Error("radial = 'fixed' wants an initial potential, whose radial functions are kept")
        for name in settings.species_energies:
            if name not in (potential.species or []):
                raise Error(f"species_energies: the potential has no element {name}; it has {potential.species}")
        self.made_from = checkpoints.fingerprint(
            settings.model_dump(exclude={"threads", "memory", "iterations"}), configurations
        )
        progress = None
        if resume:
            progress = checkpoints.load(self.checkpoint, self.made_from)
            if progress.level is None and not potential.facts.trained:
                randomise(potential, settings.seed)  # sets the scaling
            self.start -= progress.seconds
        potential.parameters = self.minimise(potential, configurations, validation, progress)
        if self.checkpoint:
            self.checkpoint.unlink(missing_ok=True)
        return potential

    def minimise(
        self,
        potential: Potential,
        configurations: Sequence[Atoms],
        validation: Sequence[Atoms] = (),
        progress: Progress | None = None,
    ) -> np.ndarray:
        """The parameters of least loss, from where the potential or an interrupted fit stands."""
        if progress is None or progress.level != self.level:
            progress = Progress(State(self._begin(potential, configurations, progress)), level=self.level)
        minimiser = self._minimiser(potential, configurations)
        watch = self._loss(potential, validation) if validation else None
        return self._minimise(minimiser, progress, watch)

    def _set_guard(self, potential: Potential, configurations: Sequence[Atoms], initial: Potential | None) -> None:
        if self.settings.guard is not None:
            potential.guard = guard_for(potential, configurations, self.settings.guard, self.settings.zbl_reach)
        elif potential.guard is not None:
            require_distance(potential, configurations)
        elif initial is not None and initial.guard is not None:
            raise Error(
                "the initial potential has a guard, which does not pass into the new form: have the fit choose one "
                "(--guard, --zbl, or `guard` in the table `fit`)"
            )

    def _loss(self, potential: Potential, configurations: Sequence[Atoms]) -> Loss:
        settings = self.settings
        resources = (settings.threads, settings.memory, self.ranks)
        return Loss(potential, configurations, settings.weights, *resources, settings.species_energies)

    def _minimiser(self, potential: Potential, configurations: Sequence[Atoms]) -> Minimiser:
        settings = self.settings
        roughness = None
        if settings.smoothness > 0:
            roughness = Roughness(settings.smoothness, *roughness_of_basis(potential.facts))
        fixed = [potential.species.index(name) for name in settings.species_energies]
        loss = self._loss(potential, configurations)
        return Minimiser(loss, n_radial_parameters(potential.facts), settings.l2, roughness, fixed)

    def _begin(
        self, potential: Potential, configurations: Sequence[Atoms], climbed: Progress | None = None
    ) -> np.ndarray:
        """First parameters: from a fit at a lower level, which may have been interrupted, or of several starts the best
        after some steps with a share of the data."""
        settings = self.settings
        warm = potential.facts.trained
        if not warm:
            randomise(potential, settings.seed)
        if settings.radial == "fixed" or settings.iterations == 0:
            return potential.parameters
        if settings.level > CLIMB_FROM and not warm:
            return self._climb(potential, configurations, climbed)
        n_values = sum(3 * len(atoms) for atoms in configurations)
        share = WARM_UP_VALUES * potential.facts.n_parameters / n_values
        starts = 1 if warm else settings.starts
        if starts == 1 and (warm or share > 1 / 3):
            return potential.parameters
        minimiser = self._minimiser(potential, _some(configurations, share, settings.seed))
        found = []
        for k in range(starts):
            randomise(potential, settings.seed + k)
            first = State(potential.parameters)
            *_, last = itertools.islice(minimiser.steps(first), WARM_UP_STEPS)
            found.append((minimiser.loss.errors(last.parameters).loss, k, last.parameters))
        minimiser.loss.close()
        return min(found)[2]

    def _climb(self, potential: Potential, configurations: Sequence[Atoms], climbed: Progress | None) -> np.ndarray:
        """The radial functions of a fit at a level at which a step costs a small part of what it costs here."""
        facts = potential.facts
        names = potential.species or facts.n_species
        lower = Potential.new(CLIMB_FROM, names, facts.cutoff, facts.min_distance, facts.n_chebyshev)
        lower.guard = potential.guard
        if climbed is not None:
            randomise(lower, self.settings.seed)  # sets the scaling
        lower.parameters = self.below(CLIMB_FROM).minimise(lower, configurations, progress=climbed)
        return in_form_of(lower, potential, self.settings.seed).parameters

    def _minimise(self, minimiser: Minimiser, progress: Progress, watch: Loss | None) -> np.ndarray:
        settings, loss = self.settings, minimiser.loss
        if not progress.losses:
            theta = minimiser.solve_linear(progress.state.parameters[: minimiser.n_radial])
            progress.state.parameters = theta
            self._tell(loss, progress, watch)
        turns = 1 if settings.weights.robust is None else 1 + ROBUST_TURNS
        while progress.turn < turns:
            if progress.turn > 0:
                loss.make_robust(progress.state.parameters, settings.weights.robust)
                theta = minimiser.solve_linear(progress.state.parameters[: minimiser.n_radial])
                progress.state = State(theta)
                progress.losses = [loss.errors(theta).loss]
            for state in minimiser.steps(progress.state) if self._goes_on(progress) else ():
                progress.state = state
                progress.iteration += 1
                self._tell(loss, progress, watch)
                if not self._goes_on(progress):
                    break
            progress.turn += 1
        while progress.polished < settings.polish and settings.radial == "fitted":
            progress.polished += 1
            self._polish(minimiser, progress, watch)
        loss.close()
        if watch:
            watch.close()
        return progress.state.parameters if progress.best is None else progress.best

    def _polish(self, minimiser: Minimiser, progress: Progress, watch: Loss | None) -> None:
        """Go on from radial coefficients that are disturbed at random, and stay where that leads if it is lower."""
        radial = progress.state.parameters[: minimiser.n_radial]
        rng = np.random.default_rng([self.settings.seed, progress.polished])
        disturbed = radial * (1 + DISTURBANCE * rng.standard_normal(len(radial)))
        *_, last = itertools.islice(minimiser.steps(State(disturbed)), POLISH_STEPS)
        if minimiser.loss.errors(last.parameters).loss < progress.losses[-1]:
            progress.state = last
        progress.iteration += 1
        self._tell(minimiser.loss, progress, watch)

    def _goes_on(self, progress: Progress) -> bool:
        settings, losses = self.settings, progress.losses
        tolerance = settings.tolerance
        slow = len(losses) > PATIENCE and losses[-1 - PATIENCE] - losses[-1] < 0.1 * tolerance * losses[-1]
        waited = settings.early_stop is not None and progress.waited >= settings.early_stop
        there = progress.state.finished or progress.state.promised < tolerance
        over = slow or waited or there or progress.iteration >= settings.iterations
        return settings.radial == "fitted" and not over

    def _tell(self, loss: Loss, progress: Progress, watch: Loss | None) -> None:
        """Report the iteration and write the checkpoint."""
        errors = loss.errors(progress.state.parameters)
        progress.losses.append(errors.loss)
        progress.seconds = time.perf_counter() - self.start
        validation = None
        if watch:
            validation = watch.errors(progress.state.parameters).loss
            if self.settings.early_stop is not None:
                if validation < progress.best_loss:
                    progress.best, progress.best_loss, progress.waited = progress.state.parameters, validation, 0
                else:
                    progress.waited += 1
        if self.checkpoint:
            checkpoints.save(self.checkpoint, progress, self.made_from)
        figures = (errors.energy_rmse, errors.force_rmse, validation)
        self.report(Step(progress.iteration, errors.loss, progress.seconds, *figures, self.level))


def _some(configurations: Sequence[Atoms], share: float, seed: int) -> list[Atoms]:
    """A share of the configurations, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(configurations))
    return [configurations[k] for k in sorted(order[: max(1, round(share * len(configurations)))])]
