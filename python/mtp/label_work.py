# SPDX-License-Identifier: BSD-3-Clause
"""Whether labels belong together: energies of the same atoms in two places differ by the work on the way between them.

Between two labelled configurations that are near each other the energy changes by the work against forces and stress,
for which the trapezoidal rule takes the mean of what both ends give. That is exact for a quadratic energy; otherwise it
errs by a part of half the difference of both ends, as long as the forces change steadily on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mtp.configurations import labels
from mtp.regression import least_absolute

NEAR = 0.5  # Å: where an atom is further away, the forces at both ends do not tell those on the way
LARGEST_STRAIN = 0.1  # and of the cell
NO_STRAIN = 1e-9
MOST_WITNESSES = 5  # of the configurations near one, the nearest
SLACK = (0.5, 0.1)  # credible errors: parts of half the difference of both ends, and of its terms made positive
BOND = (0.2, 2.0)  # Å, eV: where an atom went further, a bond may have broken, whose force rises and falls on the way
PULAY = 0.03  # eV/Å³, some 5 GPa: by which pressures of coarse plane waves contradict energies at one cutoff
LARGEST_FACTOR = 3.0  # between energies and work that is one of anharmonic atoms, not of units
FEWEST_FOR_FACTOR = 5  # configurations before such a factor is known, and twice as many pairs of them
FEW = 0.25  # of the configurations: fewer are rather wrong each by itself
LEFT = 4.0  # a factor that leaves more than a fourth of the excess explains nothing


@dataclass(frozen=True)
class Pair:
    """A configuration and one near it, by their indices; per atom (eV) by how much the energy of the first is higher,
    the work of getting there against forces and stress, and by how much the work may be wrong."""

    one: int
    other: int
    rise: float
    of_forces: float
    of_stress: float
    slack: float

    @property
    def excess(self) -> float:
        """Of the energy over the work."""
        return self.rise - self.of_forces - self.of_stress


def doubt_work(configurations: Sequence[Atoms], judged: Collection[int], bound: float) -> dict[int, str]:
    """Say which of the labelled configurations `judged`, by index, contradict those near them, and why.

    Nonsense are energies that contradict most of the MOST_WITNESSES nearest: the excess over the work is above `bound`
    (eV per atom) and what the work may be wrong by. Nonsense are all judged where energies change by a multiple of the
    work of the forces, as in other units: beyond LARGEST_FACTOR, and with at most 1 / LEFT of the typical excess left.
    That is asked only where no fewer than FEW of them contradict others.
    """
    found = [pair for group in _groups(configurations) for pair in _pairs(configurations, group, judged)]
    doubts = {}
    for k in judged:
        own = [pair for pair in found if pair.one == k]
        against = [pair for pair in own if abs(pair.excess) > bound + pair.slack]
        if 2 * len(against) > len(own):
            first = against[0]
            name = configurations[first.other].info.get("id", first.other)
            doubts[k] = (
                f"the energy lies {first.rise:+.3g} eV per atom from that of candidate {name}, which is near it, but "
                f"by forces and stress {first.rise - first.excess:+.3g}, give or take {bound + first.slack:.2g}; so "
                f"with {len(against)} of the {len(own)} nearest"
            )
    if len(doubts) < FEW * len({pair.one for pair in found}):
        return doubts
    factor = _factor(found, bound)
    if factor is None:
        return doubts
    message = f"energies change by {factor:.3g} times the work of the forces: are they in eV and eV/Å?"
    return dict.fromkeys(judged, message)


def _groups(configurations: Sequence[Atoms]) -> Iterator[list[int]]:
    """Configurations of the same atoms in the same order, periodic in all directions or in none."""
    groups: dict[tuple, list[int]] = {}
    for k, atoms in enumerate(configurations):
        if all(atoms.pbc) == any(atoms.pbc):
            groups.setdefault((atoms.numbers.tobytes(), all(atoms.pbc)), []).append(k)
    return (group for group in groups.values() if len(group) > 1)


def _pairs(configurations: Sequence[Atoms], group: list[int], judged: Collection[int]) -> Iterator[Pair]:
    """Those judged in a group with the nearest others."""
    members = [configurations[k] for k in group]
    found, periodic, n = [labels(atoms) for atoms in members], all(members[0].pbc), len(members[0])
    cells = np.array([atoms.cell.array if periodic else np.eye(3) for atoms in members])
    places = np.array([atoms.positions for atoms in members]) @ np.linalg.inv(cells)
    energies, forces = np.array([its.energy for its in found]), np.array([its.forces for its in found])
    unknown = np.full(6, np.nan)
    stresses = np.array([unknown if its.stress is None else its.stress for its in found])
    volumes = np.abs(np.linalg.det(cells))
    virials = volumes[:, None] * stresses[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]]
    for place, k in enumerate(group):
        if k not in judged:
            continue
        steps = places[place] - places
        if periodic:
            steps -= np.round(steps)
        middle = (cells[place] + cells) / 2
        moves = steps @ middle
        moves -= moves.mean(axis=1, keepdims=True)
        strains = np.linalg.solve(middle, cells[place] - cells).reshape(-1, 9)
        strained = np.abs(strains).max(axis=1)
        distances = np.linalg.norm(moves, axis=2).max(axis=1)
        known = (strained < NO_STRAIN) | np.isfinite(virials + virials[place]).all(axis=1)
        near = (distances < NEAR) & (strained < LARGEST_STRAIN) & known
        near[place] = False
        for other in np.argsort(np.where(near, distances, np.inf), kind="stable")[: min(MOST_WITNESSES, near.sum())]:
            ends = [-forces[end] * moves[other] for end in (other, place)]
            strain = strains[other]
            turns = [virials[end] * strain if strained[other] >= NO_STRAIN else np.zeros(9) for end in (other, place)]
            apart = np.append(ends[1] - ends[0], turns[1] - turns[0]) / 2
            slack = SLACK[0] * abs(apart.sum()) + SLACK[1] * np.abs(apart).sum()
            slack += BOND[1] * (distances[other] > BOND[0])
            if periodic:
                slack += PULAY * volumes[[other, place]].mean() * abs(strain[[0, 4, 8]].sum())
            work = (sum(map(np.sum, ends)) / 2, sum(map(np.sum, turns)) / 2)
            yield Pair(k, group[other], (energies[place] - energies[other]) / n, work[0] / n, work[1] / n, slack / n)


def _factor(pairs: Sequence[Pair], bound: float) -> float | None:
    """By which energies change more than the forces say; None where it is credible or not known."""
    different = {frozenset((pair.one, pair.other)) for pair in pairs}  # the fit goes through two of them in any case
    if len({pair.one for pair in pairs}) < FEWEST_FOR_FACTOR or len(different) < 2 * FEWEST_FOR_FACTOR:
        return None
    work = np.array([(pair.of_forces, pair.of_stress) for pair in pairs])
    rises, excess = np.array([pair.rise for pair in pairs]), np.array([pair.excess for pair in pairs])
    factor, _ = coefficients = least_absolute(work, rises)
    left = np.median(np.abs(rises - work @ coefficients))
    if 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR or np.median(np.abs(excess)) < max(bound / 4, LEFT * left):
        return None
    return float(factor)
