# SPDX-License-Identifier: BSD-3-Clause
"""Computes the references of validate.toml: the same properties, by the same code, with LAMMPS and Tersoff's potential.

    python lammps_inputs/silicon/tersoff_properties.py

Prints the table [[structures.references]].
"""

from pathlib import Path

from ase.calculators.calculator import Calculator, all_changes

from mtp.labellers import LammpsLabeller
from mtp.settings import load
from mtp.validation import ValidationSettings, validate

TERSOFF = LammpsLabeller(["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"], ["Si"])


class Tersoff(Calculator):
    """A run of LAMMPS for each configuration."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        labels = TERSOFF.label(self.atoms)
        self.results = {"energy": labels.energy, "free_energy": labels.energy}
        self.results |= {"forces": labels.forces, "stress": labels.stress}


def main() -> None:
    """Compute and print."""
    settings = load(Path(__file__).with_name("validate.toml"), ValidationSettings)
    for report in validate(settings, Tersoff, ["Si"], lambda text: print("#", text, flush=True)):
        for remark in report.failures() + report.notes():
            print("#", remark)
        values = {row.key: row.value for row in report.rows if row.key != "phonon_min"}
        print('[[structures.references]]\nsource = "Tersoff, Phys. Rev. B 39, 5566 (1989), by tersoff_properties.py"')
        print("[structures.references.values]")
        for key, value in values.items():
            text = [round(x, 4) + 0.0 for x in value] if isinstance(value, list) else round(value, 5)
            print(f"{key} = {text}")


if __name__ == "__main__":
    main()
