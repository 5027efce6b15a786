# SPDX-License-Identifier: BSD-3-Clause
"""What commands read: names of elements, potentials and configurations."""

from __future__ import annotations

from pathlib import Path

from mtp.cli.output import print_findings, print_skipped
from mtp.errors import Error


def element_names(text: str) -> list[str]:
    """Of the option --species. Raises Error for what is no element."""
    from mtp.settings import elements

    try:
        return elements(text.replace(",", " ").split())
    except ValueError as error:
        raise Error(f"--species: {error}") from None


def read_all(files: list[Path], species: list[str] | None) -> list:
    """The configurations of all files; prints what was skipped."""
    from mtp import configurations

    return [atoms for file in files for atoms in configurations.read(file, species, report=print_skipped)]


def load_with_data(potential: Path, data: list[Path], species: str | None) -> tuple:
    """The potential and the configurations, read with the potential's element names or those given."""
    from mtp.potential import Potential

    loaded = Potential.load(potential)
    if species:
        loaded.species = element_names(species)
    return loaded, read_all(data, loaded.species)


def check_data(data: list, species: list[str] | None, min_distance: float, n_parameters: int | None = None) -> None:
    """Print what is doubtful about data, and stop before anything is computed where they are wrong."""
    from mtp.quality import check, refuse_errors

    findings = check(data, species, min_distance, n_parameters)
    print_findings([finding for finding in findings if finding.severity == "warning"])
    refuse_errors(findings)
