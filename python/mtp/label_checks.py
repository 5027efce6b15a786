# SPDX-License-Identifier: BSD-3-Clause
"""Which labels are nonsense: what no sane calculation gives, however strange the configuration.

Three questions: are the numbers there and finite; do the forces sum to nearly zero; is the energy where the other
energies say that it must be? The last is asked of three witnesses. A robust linear fit, an energy for each element,
stands for all labels so far, and holds for any configuration within some eV an atom. The current potential is closer
where its extrapolation grade and the error of its forces are small, so that what it allows grows with them. Labels of
the same atoms near by are the closest: mtp.label_work asks them. None is asked before it has seen enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mtp.configurations import Labels, labels
from mtp.errors import LabellingError
from mtp.potential import Potential
from mtp.regression import least_absolute

LARGEST_FORCE = 1e3  # eV/Å; no reference worth learning from gives more
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
SPREADS = 10  # a deviation that many times the others' typical one is none of theirs
FEWEST_OF_ELEMENT = 3  # other configurations with an element before its energy is judged: two cannot outvote each other
FEWEST_FOR_POTENTIAL = 3  # configurations before a potential's errors are known
REACH = 1.0  # Å: over it an error of forces becomes one of energy; atoms that went further are in another place


def check_numbers(found: Labels, n_atoms: int) -> None:
    """Check that labels are there, of the right shape, finite, and without a force above LARGEST_FORCE.

    Raises:
        LabellingError: "nonsense".
    """

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise LabellingError(message, "nonsense")

    shapes = {"energy": (), "forces": (n_atoms, 3), "stress": (6,)}
    for name, shape in shapes.items():
        value = getattr(found, name)
        if value is None and name == "stress":
            continue
        require(value is not None and np.shape(value) == shape, f"{name}: expected numbers of shape {shape}")
        require(bool(np.isfinite(value).all()), f"{name}: not finite")
    largest = np.linalg.norm(found.forces, axis=1).max()
    require(bool(largest <= LARGEST_FORCE), f"a force of {largest:.3g} eV/Å")


def doubt_forces(forces: np.ndarray, bound: float) -> str | None:
    """Say why forces (N, 3) are nonsense: their sum is above `bound` (eV/Å) times N, and a tenth of all together."""
    net = np.linalg.norm(forces.sum(axis=0))
    if net <= bound * len(forces) or net <= 0.1 * np.linalg.norm(forces, axis=1).sum():
        return None
    return f"the forces sum to {net:.3g} eV/Å, {net / len(forces):.2g} per atom, not to zero"


def doubt_energies(configurations: Sequence[Atoms], bound: float) -> dict[int, str]:
    """Say which labelled configurations, by index, have energies that the others' contradict, and why.

    The energies are fitted, as sums over the atoms of one energy per element, with the least sum of absolute
    deviations per atom, which a minority of outliers does not move. Outside are deviations above `bound` (eV per
    atom) and SPREADS times the typical deviation. Judged is what has FEWEST_OF_ELEMENT others for each element.
    """
    if not configurations:
        return {}
    elements = sorted({number for atoms in configurations for number in atoms.numbers})
    counts = np.array([[(atoms.numbers == number).sum() for number in elements] for atoms in configurations])
    sizes = counts.sum(axis=1)
    energies = np.array([labels(atoms).energy for atoms in configurations]) / sizes
    shares = counts / sizes[:, None]
    deviations = energies - shares @ least_absolute(shares, energies)
    limit = max(bound, SPREADS * _spread(deviations))
    enough = ((counts > 0).sum(axis=0) > FEWEST_OF_ELEMENT) | (counts == 0)
    return {
        int(k): f"the energy lies {deviations[k]:+.3g} eV per atom from what its elements have in the other "
        f"{len(energies) - 1} configurations; at most {limit:.3g} is credible"
        for k in np.flatnonzero((np.abs(deviations) > limit) & enough.all(axis=1))
    }


class Prediction:
    """What a potential says about energies that are not known yet.

    Args:
        potential: the current one; without an active set it has no say.
        known: the labelled configurations so far, from which its errors are taken.
    """

    def __init__(self, potential: Potential, known: Sequence[Atoms]):
        self.potential = potential
        self.silent = potential.facts.active_set is None or len(known) < FEWEST_FOR_POTENTIAL
        if not self.silent:
            results = potential.evaluate(list(known))
            errors = [
                (labels(atoms).energy - result.energy) / len(atoms)
                for atoms, result in zip(known, results, strict=True)
            ]
            self._centre, self._spread = float(np.median(errors)), _spread(np.array(errors))

    def doubt(self, labelled: Atoms, bound: float) -> str | None:
        """Say why an energy is nonsense: further from the prediction than `bound` (eV per atom), or SPREADS typical
        errors, times the grade, in its mean over the atoms where the active set has one for each; plus the mean error
        of the forces over REACH, because a potential that is wrong about the one is about the other."""
        if self.silent:
            return None
        found, result, grades = labels(labelled), self.potential.evaluate(labelled), self.potential.grade(labelled)
        deviation = (found.energy - result.energy) / len(labelled) - self._centre
        each = [grades.maximum] if grades.per_atom is None else grades.per_atom
        grade = float(np.maximum(each, 1.0).mean())
        unknown = float(np.linalg.norm(found.forces - result.forces, axis=1).mean())
        limit = max(bound, SPREADS * self._spread) * grade + REACH * unknown
        if abs(deviation) <= limit:
            return None
        return (
            f"the energy lies {deviation:+.3g} eV per atom from the current potential's prediction; at its grade "
            f"of {grade:.3g}, and a mean error of {unknown:.2g} eV/Å in the forces, at most {limit:.3g} is credible"
        )


def _spread(deviations: np.ndarray) -> float:
    return MAD_TO_DEVIATION * float(np.median(np.abs(deviations - np.median(deviations))))
