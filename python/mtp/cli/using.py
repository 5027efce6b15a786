# SPDX-License-Identifier: BSD-3-Clause
"""Commands that use a potential: evaluate, validate, select, grade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mtp.cli.input import load_with_data, read_all
from mtp.cli.options import DataFiles, JsonOption, ModeOption, PotentialFile, SpeciesOption
from mtp.cli.output import check_folder, check_output, command_line, console, print_coverage, print_errors, write_json
from mtp.errors import Error


def evaluate(
    potential: PotentialFile,
    data: DataFiles,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the predictions (format by extension).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report of the errors into this folder.")] = None,
    posterior: Annotated[
        Path | None, typer.Option(help="Of `mtp uncertainty`: adds standard deviations, energy_std and force_std.")
    ] = None,
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Evaluate configurations; where they are labelled, print the errors."""
    from mtp import configurations
    from mtp.configurations import Labels, with_labels
    from mtp.evaluation import compare
    from mtp.evaluation import evaluate as evaluate_all
    from mtp.uncertainty import Posterior

    check_output(output)
    check_output(json_file)
    check_folder(report)
    loaded, read = load_with_data(potential, data, species)
    known = Posterior.load(posterior, loaded) if posterior else None
    results = evaluate_all(loaded, read)
    comparison = compare(loaded, read, results)
    print_errors({"data": comparison})
    summary = comparison.summary()
    predicted = [with_labels(a, Labels(r.energy, r.forces, r.stress)) for a, r in zip(read, results, strict=True)]
    if known:
        summary |= _add_standard_deviations(known, read, predicted)
    write_json(json_file, summary)
    if output:
        configurations.write(output, predicted, loaded.species)
        console.print(f"wrote {output}")
    if report:
        from mtp.report import write_report

        title, files = f"Errors of {potential.name}", {"data": read}
        written = write_report(report, loaded, files, title=title, command=command_line(), results={"data": results})
        console.print(f"wrote {written}")


def _add_standard_deviations(posterior: Any, configurations: list, predicted: list) -> dict:
    """Print how errors compare with standard deviations, put these into the predictions, and sum them up."""
    from mtp.uncertainty import calibration

    summary = {"energy_std_eV": [], "force_std_eV_per_A": []}
    for atoms in predicted:
        estimate = posterior.predict(atoms)
        atoms.info["energy_std"] = estimate.energy.std
        atoms.set_array("force_std", estimate.forces.std)
        summary["energy_std_eV"].append(estimate.energy.std)
        summary["force_std_eV_per_A"].append(float((estimate.forces.std**2).mean() ** 0.5))
    found = calibration(posterior, {"data": configurations})
    print_coverage(found)
    return summary | {"calibration": [vars(coverage) for coverage in found]}


def validate(
    potential: PotentialFile,
    settings: Annotated[
        Path | None, typer.Argument(help="Crystals, properties and references (.toml).", show_default=False)
    ] = None,
    crystal: Annotated[
        str | None, typer.Option(help="Instead of settings: element:structure:a[:c], as Si:diamond:5.43.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for figures.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Compute lattice, elasticity, vacancy, surfaces and phonons of crystals, beside given references."""
    from mtp.calculator import MTP
    from mtp.potential import Potential
    from mtp.settings import checked, load
    from mtp.validation import ValidationSettings, crystal_of, name_species
    from mtp.validation import validate as validate_all
    from mtp.validation_output import draw, table

    if (settings is None) == (crystal is None):
        raise Error("give either a settings file or --crystal, as --crystal Si:diamond:5.43")
    check_output(json_file)
    if settings is not None:
        file = load(settings, ValidationSettings).resolve(settings.parent)
    else:
        file = checked({"structures": [{"crystal": crystal_of(crystal)}]}, ValidationSettings, "--crystal")
    loaded = Potential.load(potential)
    name_species(loaded, file)
    if output:
        output.mkdir(parents=True, exist_ok=True)
    reports = validate_all(file, lambda: MTP(loaded), loaded.species, console.print)
    for report, structure in zip(reports, file.structures, strict=True):
        console.print(table(report, file.grade))
        for note in report.notes():
            console.print(note)
        for figure in draw(report, structure, output) if output else []:
            console.print(f"wrote {figure}")
    write_json(json_file, {"potential": str(potential), "structures": [report.as_json() for report in reports]})
    if failures := [failure for report in reports for failure in report.failures()]:
        raise Error("\n".join(failures))


def select(
    potential: PotentialFile,
    train: DataFiles,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The potential with its active set (.almtp), or the chosen candidates."),
    ],
    candidates: Annotated[list[Path] | None, typer.Option(help="Choose from these what to label next.")] = None,
    mode: ModeOption = "neighbourhood",
    threshold: Annotated[float, typer.Option(help="Grade above which a candidate is considered.")] = 2.0,
    species: SpeciesOption = None,
) -> None:
    """Build the active set from training data; or choose, by maxvol, the candidates that extrapolate most.

    Under mpiexec the ranks share the work, and choose what one would.
    """
    import mpi4py.MPI as MPI

    from mtp import configurations, selection
    from mtp.summation import Ranks

    ranks = Ranks(MPI.COMM_WORLD)
    with ranks.lead() as leading:
        if not leading:
            return
        check_output(output, None if candidates else ".almtp")
        loaded, read = load_with_data(potential, train, species)
        offered = read_all(candidates, loaded.species) if candidates else []
        chosen = selection.lead(ranks, loaded, read, mode)
        console.print(
            f"active set ({mode}): {loaded.facts.n_parameters} rows from {len(chosen)} of {len(read)} configurations"
        )
        if not candidates:
            loaded.save(output)
            console.print(f"wrote {output}")
            return
        best = [offered[i] for i in selection.lead(ranks, loaded, offered, mode, threshold)]
        console.print(f"chose {len(best)} of {len(offered)} candidates with grades above {threshold:g}")
        if best:
            configurations.write(output, best, loaded.species)
        else:
            output.write_text("")  # none chosen, and none left over from an earlier call
        console.print(f"wrote {output}")


def grade(
    potential: PotentialFile,
    data: DataFiles,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the graded configurations.")] = None,
    select_above: Annotated[float, typer.Option("--select")] = 2.0,
    break_above: Annotated[float, typer.Option("--break")] = 10.0,
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Compute extrapolation grades."""
    from mtp import configurations

    check_output(output)
    check_output(json_file)
    loaded, read = load_with_data(potential, data, species)
    mode = loaded.facts.active_set
    grades = []
    for atoms in read:
        found = loaded.grade(atoms)
        grades.append(found.maximum)
        atoms.info["grade"] = found.maximum
        if found.per_atom is not None:
            atoms.arrays["grade"] = found.per_atom
        else:
            atoms.info["configuration_grade"] = found.maximum
    summary = {
        "grades": grades,
        "max": max(grades),
        "above_select": sum(g > select_above for g in grades),
        "above_break": sum(g > break_above for g in grades),
    }
    console.print(
        f"{len(grades)} configurations, grades ({mode}) {min(grades):.3g} to {max(grades):.3g}; "
        f"{summary['above_select']} above {select_above:g}, {summary['above_break']} above {break_above:g}"
    )
    write_json(json_file, summary)
    if output:
        configurations.write(output, read, loaded.species)
        console.print(f"wrote {output}")
