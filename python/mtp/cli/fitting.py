# SPDX-License-Identifier: BSD-3-Clause
"""Commands that make a potential: new, fit, guard; and uncertainty, of what was fitted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from mtp.cli.input import check_data, element_names, load_with_data, read_all
from mtp.cli.options import DataFiles, JsonOption, PotentialFile, SpeciesOption
from mtp.cli.output import (
    Bar,
    check_folder,
    check_output,
    command_line,
    console,
    guard_facts,
    print_coverage,
    print_errors,
    print_findings,
    print_guard,
    write_json,
)
from mtp.errors import Error


def new(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    species: Annotated[str, typer.Option(help="Elements, as Si,O.")],
    level: Annotated[int, typer.Option(help="Level of the basis, 2 to 40.")] = 16,
    cutoff: Annotated[float, typer.Option(help="Å.")] = 5.0,
    min_dist: Annotated[float, typer.Option(help="Shortest distance expected, Å.")] = 0.5,
    radial_basis_size: Annotated[int, typer.Option(help="Chebyshev polynomials per radial function.")] = 8,
) -> None:
    """Write an untrained potential."""
    from mtp.potential import Potential

    check_output(output, ".mtp")
    Potential.new(level, element_names(species), cutoff, min_dist, radial_basis_size).save(output)
    console.print(f"wrote {output}")


def fit(
    context: typer.Context,
    train: Annotated[
        list[Path], typer.Argument(help="Training data, or one settings file (.toml).", show_default=False)
    ],
    validation: Annotated[list[Path] | None, typer.Option(help="Data that the fit is only watched with.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Potential to write.")] = Path("potential.mtp"),
    species: SpeciesOption = None,
    level: Annotated[int, typer.Option(help="Level of the basis.")] = 16,
    cutoff: Annotated[float, typer.Option(help="Å.")] = 5.0,
    min_dist: Annotated[float | None, typer.Option(help="Å; default: the shortest distance in the data.")] = None,
    radial_basis_size: Annotated[int, typer.Option(help="Chebyshev polynomials per radial function.")] = 8,
    energy_weight: Annotated[float, typer.Option(help="1/eV²")] = 1.0,
    force_weight: Annotated[float, typer.Option(help="Å²/eV²")] = 0.01,
    stress_weight: Annotated[float, typer.Option(help="1/eV² (of volume times stress)")] = 0.001,
    initial: Annotated[
        Path | None, typer.Option(help="Potential to start from: in its form, or in that of the options given.")
    ] = None,
    fixed_radial: Annotated[bool, typer.Option("--fixed-radial", help="Fit the linear coefficients alone.")] = False,
    validation_share: Annotated[float, typer.Option(help="Of each group's training data, for validation.")] = 0.0,
    early_stop: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Iterations without a better validation loss after which the best so far is taken."),
    ] = None,
    with_guard: Annotated[
        bool, typer.Option("--guard", help="Blend in nuclear repulsion (ZBL) below the shortest distances of the data.")
    ] = False,
    zbl: Annotated[
        bool, typer.Option("--zbl", help="Repulsion out to the covalent radii; the MTP learns the difference.")
    ] = False,
    iterations: Annotated[
        int,
        typer.Option(
            help="At most. A fit ends earlier where its next step promises little: `tolerance` in a settings file."
        ),
    ] = 60,
    seed: Annotated[int, typer.Option(help="Of the initial radial coefficients.")] = 1,
    starts: Annotated[int, typer.Option(help="Seeds to try; the best after some steps goes on.")] = 1,
    threads: Annotated[Optional[int], typer.Option(help="Default: all cores.")] = None,  # noqa: UP045
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of a fit that was ended.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write a report beside the potential.")] = True,
    json_file: JsonOption = None,
) -> None:
    """Fit a potential to labelled configurations and compare it with them.

    Under mpiexec the ranks share the work. A settings file knows more: docs/fitting.md.
    """
    import mpi4py.MPI as MPI

    from mtp.settings import FitFile, checked, load
    from mtp.summation import Ranks

    def is_given(name: str) -> bool:
        return str(context.get_parameter_source(name)).endswith(".COMMANDLINE")

    ranks = Ranks(MPI.COMM_WORLD)
    with ranks.lead() as leading:
        if not leading:
            return
        if any(path.suffix == ".toml" for path in train):
            beside = {name for name in context.params if is_given(name)} - {"train", "report", "resume", "json_file"}
            if len(train) > 1 or beside:
                raise Error(f"{train[0]}: a settings file comes alone: put the other files and options into it")
            file = load(train[0], FitFile).resolve(train[0].parent)
        else:
            settings = {
                key: value
                for name, key, value in (
                    ("level", "level", level),
                    ("cutoff", "cutoff", cutoff),
                    ("radial_basis_size", "radial_basis_size", radial_basis_size),
                    ("min_dist", "min_distance", min_dist),
                    ("validation_share", "validation_share", validation_share),
                    ("early_stop", "early_stop", early_stop),
                    ("iterations", "iterations", iterations),
                    ("seed", "seed", seed),
                    ("starts", "starts", starts),
                    ("threads", "threads", threads),
                )
                if is_given(name)
            }
            settings["weights"] = {"energy": energy_weight, "force": force_weight, "stress": stress_weight}
            settings["radial"] = "fixed" if fixed_radial else "fitted"
            settings["guard"] = "zbl" if zbl else "blend" if with_guard else None
            options = {"train": train, "validation": validation or [], "output": output, "initial": initial}
            options["species"] = element_names(species) if species else None
            file = checked({**options, "fit": settings}, FitFile, "options")
        check_output(json_file)
        with _told_when_terminated(file.output):
            _fit(file, ranks, resume, report, json_file)


def _fit(file, ranks, resume: bool, report: bool, json_file: Path | None) -> None:
    from mtp.evaluation import compare
    from mtp.evaluation import evaluate as evaluate_all
    from mtp.fit import fit as fit_potential
    from mtp.fit import split, starting_potential
    from mtp.potential import Potential
    from mtp.quality import stress_findings
    from mtp.report import write_report

    check_output(file.output, ".mtp")
    folder = file.output.with_name(f"{file.output.stem}_report") if report else None
    check_folder(folder)
    first = Potential.load(file.initial) if file.initial else None
    names = first.species if first and not file.species else file.species
    train, validation = read_all(file.train, names), read_all(file.validation, names)
    if not validation and file.fit.validation_share > 0:
        train, validation = split(train, file.fit.validation_share, file.fit.seed)
    start = starting_potential(train, file.fit, file.species, first)
    facts = start.facts
    check_data(train, start.species, facts.min_distance, facts.n_parameters)
    check_data(validation, start.species, facts.min_distance)
    console.print(
        f"{len(train)} configurations, {sum(map(len, train))} atoms; "
        f"{facts.n_parameters} parameters, {facts.n_scalar} basis functions, "
        f"distances {facts.min_distance:g} to {facts.cutoff:g} Å"
    )
    with Bar("fitting", file.fit.iterations) as bar:
        fitted = fit_potential(
            train,
            file.fit,
            file.species,
            first,
            bar.show,
            validation,
            ranks,
            checkpoint=_checkpoint(file.output),
            resume=resume,
        )
    fitted.save(file.output)
    data = {"train": train, "validation": validation} if validation else {"train": train}
    print_guard(fitted)
    results = {name: evaluate_all(fitted, read) for name, read in data.items()}
    comparisons = {name: compare(fitted, read, results[name]) for name, read in data.items()}
    print_errors(comparisons)
    print_findings(stress_findings(comparisons["train"]))
    write_json(json_file, {name: comparison.summary() for name, comparison in comparisons.items()})
    console.print(f"wrote {file.output}")
    if folder:
        written = write_report(
            folder,
            fitted,
            data,
            title=f"Fit of {file.output.name}",
            history=bar.steps,
            settings=file.model_dump(mode="json"),
            command=command_line(),
            results=results,
        )
        console.print(f"wrote {written}")


def _checkpoint(output: Path) -> Path:
    return output.with_name(f"{output.stem}.checkpoint.npz")


@contextmanager
def _told_when_terminated(output: Path) -> Iterator[None]:
    """Batch systems send SIGTERM when a job's time is over: say how to go on, and end."""

    def end(*signal_and_frame: object) -> None:
        file = _checkpoint(output)
        kept = f"go on from {file} with `mtp fit --resume`" if file.exists() else "nothing was computed yet"
        print(f"mtp: terminated; {kept}", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guard(
    potential: PotentialFile,
    train: DataFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="The guarded potential (.mtp, or .almtp).")],
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Blend nuclear repulsion into a potential where atoms come closer than in its training data."""
    from mtp.guard import approaches, guarded

    check_output(output)
    check_output(json_file)
    loaded, read = load_with_data(potential, train, species)
    result = guarded(loaded, read)
    result.save(output)
    print_guard(result)
    found = approaches(result, read)
    attractive = {"-".join(a.species): a.attractive for a in found if a.attractive}
    for pair, (inner, outer) in attractive.items():
        console.print(
            f"{pair}: still attractive somewhere between {inner:.2f} and {outer:.2f} Å: train on closer atoms"
        )
    if not attractive:
        console.print("pushed together, the closest atoms of each pair of species repel each other down to 0.1 Å")
    write_json(json_file, {"guard": guard_facts(result), "attractive": attractive})
    console.print(f"wrote {output}")


def uncertainty(
    potential: PotentialFile,
    train: Annotated[list[Path], typer.Option(help="The data that the potential was fitted to.")],
    validation: Annotated[list[Path] | None, typer.Option(help="Data that it has not seen.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: beside the potential, NAME.posterior.npz.")
    ] = None,
    energy_weight: Annotated[float, typer.Option(help="Of the fit, 1/eV²")] = 1.0,
    force_weight: Annotated[float, typer.Option(help="Of the fit, Å²/eV²")] = 0.01,
    stress_weight: Annotated[float, typer.Option(help="Of the fit, 1/eV² (of volume times stress)")] = 0.001,
    species: SpeciesOption = None,
    threads: Annotated[Optional[int], typer.Option(help="Default: all cores.")] = None,  # noqa: UP045
    json_file: JsonOption = None,
) -> None:
    """Estimate the covariance of a potential's coefficients, and compare standard deviations with errors."""
    from mtp.settings import checked
    from mtp.uncertainty import Posterior, calibration
    from mtp.weights import Weights

    output = output or potential.with_suffix(".posterior.npz")
    check_output(output, ".npz")
    check_output(json_file)
    weights = checked({"energy": energy_weight, "force": force_weight, "stress": stress_weight}, Weights, "options")
    loaded, read = load_with_data(potential, train, species)
    data = {"train": read}
    if validation:
        data["validation"] = read_all(validation, loaded.species)
    posterior = Posterior.from_data(loaded, read, weights, threads)
    found = calibration(posterior, data, threads)
    print_coverage(found)
    noise = posterior.noise
    console.print(f"left to the labels: {1e3 * noise.energy:.3g} meV per √atom, {noise.force:.3g} eV/Å")
    write_json(json_file, {"noise": vars(noise), "calibration": [vars(coverage) for coverage in found]})
    posterior.save(output)
    console.print(f"wrote {output}")
