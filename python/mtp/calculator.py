# SPDX-License-Identifier: BSD-3-Clause
"""ASE calculator."""

from __future__ import annotations

from typing import ClassVar

from ase.calculators.calculator import Calculator, all_changes

from mtp.potential import Potential


class MTP(Calculator):
    """Moment tensor potential as an ASE calculator (eV, Å).

    Results: energy, free_energy (the same), energies (N,), forces (N, 3), stress (6,) where the cell is periodic,
    and, for a potential with an active set, `grade` (the configuration's) and, in neighbourhood mode, `grades` (N,).

    >>> atoms.calc = MTP("si.almtp")                # doctest: +SKIP
    >>> atoms.get_potential_energy(), atoms.calc.results["grade"]    # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "grade",
        "grades",
    ]

    def __init__(self, potential: Potential | str, **keywords) -> None:
        super().__init__(**keywords)
        self.potential = potential if isinstance(potential, Potential) else Potential.load(potential)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        result = self.potential.evaluate(self.atoms)
        self.results = {
            "energy": result.energy,
            "free_energy": result.energy,
            "energies": result.energies,
            "forces": result.forces,
        }
        if result.stress is not None:
            self.results["stress"] = result.stress
        if self.potential.facts.active_set is not None:
            grades = self.potential.grade(self.atoms)
            self.results["grade"] = grades.maximum
            if grades.per_atom is not None:
                self.results["grades"] = grades.per_atom
