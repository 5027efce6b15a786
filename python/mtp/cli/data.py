# SPDX-License-Identifier: BSD-3-Clause
"""Commands for files: convert, info."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from mtp.cli.input import element_names
from mtp.cli.options import JsonOption, SpeciesOption, UnconvergedOption, UnitsOption
from mtp.cli.output import check_output, console, guard_facts, print_findings, print_skipped, write_json


def convert(
    source: Path,
    target: Path,
    species: SpeciesOption = None,
    lammps_units: UnitsOption = "metal",
    unconverged: UnconvergedOption = "skip",
) -> None:
    """Convert configurations: .cfg, extxyz, VASP, Gaussian, LAMMPS and what ASE reads; see docs/data.md."""
    from mtp import configurations

    check_output(target)
    names = element_names(species) if species else None
    read = configurations.read(source, names, lammps_units=lammps_units, unconverged=unconverged, report=print_skipped)
    configurations.write(target, read, names)
    console.print(f"wrote {len(read)} configurations to {target}")


def info(
    file: Path,
    species: SpeciesOption = None,
    lammps_units: UnitsOption = "metal",
    unconverged: UnconvergedOption = "skip",
    json_file: JsonOption = None,
) -> None:
    """Show the facts of a potential or of a data set on one screen, and what is doubtful about the data."""
    from mtp import configurations
    from mtp.potential import Potential
    from mtp.quality import check

    check_output(json_file)
    findings = []
    if file.suffix in (".mtp", ".almtp", ".als"):
        potential = Potential.load(file)
        facts = {"species": potential.species, **vars(potential.facts), "guard": guard_facts(potential)}
    else:
        skipped: list = []
        names = element_names(species) if species else None
        read = configurations.read(
            file, names, lammps_units=lammps_units, unconverged=unconverged, report=skipped.append
        )
        findings = check(read)
        known = [configurations.labels(atoms, need=()) for atoms in read]
        sizes = [len(atoms) for atoms in read]
        facts = {
            "configurations": len(read),
            "skipped": sum(map(len, skipped)),
            "atoms": sum(sizes),
            "atoms_per_configuration": [min(sizes), max(sizes)],
            "species": configurations.species_of(read),
            **{
                f"with_{name}": sum(getattr(labels, name) is not None for labels in known)
                for name in ("energy", "forces", "stress")
            },
            "findings": [f"{finding.severity}: {finding}" for finding in findings],
        }
        for report in skipped:
            print_skipped(report)
    table = Table(show_header=False, title=str(file))
    for key, value in facts.items():
        if key != "findings":
            table.add_row(key, str(value))
    console.print(table)
    print_findings(findings)
    write_json(json_file, facts)
