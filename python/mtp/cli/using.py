# SPDX-License-Identifier: BSD-3-Clause
"""Commands that use a potential: evaluate, validate, select, grade, cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

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
    select_above: Annotated[float, typer.Option("--select", help="Configurations above are counted.")] = 2.0,
    break_above: Annotated[float, typer.Option("--break", help="As are those above this.")] = 10.0,
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


def cut(
    large: Annotated[Path, typer.Argument(help="Large configurations (docs/data.md).", show_default=False)],
    potential: Annotated[Path, typer.Option("--potential", "-p", help="With an active set (.almtp).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The small cells.")],
    centres: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Indices of atoms, from 0, as 17,203; of one configuration."),
    ] = None,
    above: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Around all atoms with a grade above this, none inside another's environment."),
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="A .toml file with a table `cutting`.")] = None,
    method: Annotated[Optional[str], typer.Option(help="auto, crystal, relaxed, cluster or whole.")] = None,  # noqa: UP045
    max_atoms: Annotated[Optional[int], typer.Option(help="Of a cell; default 200.")] = None,  # noqa: UP045
    bound: Annotated[Optional[float], typer.Option(help="Grade that filler should not pass; default 2.")] = None,  # noqa: UP045
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Cut small periodic cells around atoms of large configurations, their environments kept exactly."""
    from mtp import configurations
    from mtp.cutting import centres as centres_above
    from mtp.cutting import cut as cut_one
    from mtp.settings import CutFile, checked, load

    if (centres is None) == (above is None):
        raise Error("give either --centres, as --centres 17,203, or --above, as --above 2")
    check_output(output)
    check_output(json_file)
    given = (load(settings, CutFile) if settings else CutFile()).cutting.model_dump()
    options = {"method": method, "max_atoms": max_atoms, "bound": bound}
    given |= {key: value for key, value in options.items() if value is not None}
    checked_settings = checked({"cutting": given}, CutFile, "options").cutting
    loaded, read = load_with_data(potential, [large], species)
    if centres is not None and len(read) > 1:
        raise Error(f"{large}: has {len(read)} configurations: give --above, or a file with one of them")
    cells, failures = [], []
    for atoms in read:
        for centre in centres_above(atoms, loaded, above) if centres is None else _indices(centres):
            try:
                cell = cut_one(atoms, centre, loaded, checked_settings)
            except Error as error:
                failures.append(f"{atoms.info['source']}: atom {centre}: {error}")
                continue
            cells.append(cell)
            found = cell.info
            console.print(
                f"atom {centre}: {len(cell)} of {len(atoms)} atoms, {found['cut_method']}; "
                f"grade {found['cut_grade']:.3g}, filler up to {found['cut_filler_grade']:.3g}"
                + (f", {found['cut_excess']:.2g} times what was asked for" if found["cut_excess"] > 1 else "")
            )
    write_json(json_file, {"cells": [{"atoms": len(cell), **cell.info} for cell in cells], "failures": failures})
    if cells:
        configurations.write(output, cells, loaded.species)
        console.print(f"wrote {len(cells)} cells to {output}")
    elif not failures:
        output.write_text("")  # none cut, and none left over from an earlier call
        console.print(f"no grade is above {above:g}; wrote {output}")
    if failures:
        raise Error("\n".join(failures))


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise Error(f"--centres: want indices, as 17,203, found {text!r}") from None
