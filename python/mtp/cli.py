# SPDX-License-Identifier: BSD-3-Clause
"""The command `mtp`: parses, calls the library, prints. Every number that it prints can be had as JSON."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mtp.errors import Error

if TYPE_CHECKING:
    from mtp.fit import Step

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Moment tensor potentials that learn while LAMMPS runs. Units: eV, Å, GPa, K, ps.",
)
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # brackets in messages are no markup
if not console.is_terminal:
    console.width = 120  # of tables in a log file

PotentialFile = Annotated[Path, typer.Argument(help="Potential (.mtp, .almtp, MLIP-2's .als).", show_default=False)]
DataFiles = Annotated[
    list[Path],
    typer.Argument(help="Configurations: .cfg, extxyz, OUTCAR, … (docs/data.md).", show_default=False),
]
SpeciesOption = Annotated[
    Optional[str],  # noqa: UP045, typer reads it at run time
    typer.Option(
        "--species",
        help="Elements in the order of MLIP's types, as Si,O; default: those of the potential or data.",
    ),
]
JsonOption = Annotated[Optional[Path], typer.Option("--json", help="Also write the numbers to this file.")]  # noqa: UP045
UnitsOption = Annotated[str, typer.Option("--lammps-units", help="Of LAMMPS' dumps and data files.")]
UnconvergedOption = Annotated[
    str, typer.Option(help="Configurations whose electronic steps did not converge: skip, or refuse the file.")
]
ModeOption = Annotated[
    str, typer.Option(help="Of the active set: neighbourhood (a grade for every atom) or configuration.")
]


@app.command()
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

    _check_output(output, ".mtp")
    Potential.new(level, _elements(species), cutoff, min_dist, radial_basis_size).save(output)
    console.print(f"wrote {output}")


@app.command()
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
    iterations: Annotated[int, typer.Option(help="At most.")] = 60,
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
            options["species"] = _elements(species) if species else None
            file = checked({**options, "fit": settings}, FitFile, "options")
        _check_output(json_file)
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

    _check_output(file.output, ".mtp")
    folder = file.output.with_name(f"{file.output.stem}_report") if report else None
    _check_folder(folder)
    first = Potential.load(file.initial) if file.initial else None
    names = first.species if first and not file.species else file.species
    train, validation = _read(file.train, names), _read(file.validation, names)
    if not validation and file.fit.validation_share > 0:
        train, validation = split(train, file.fit.validation_share, file.fit.seed)
    start = starting_potential(train, file.fit, file.species, first)
    facts = start.facts
    _check_data(train, start.species, facts.min_distance, facts.n_parameters)
    _check_data(validation, start.species, facts.min_distance)
    console.print(
        f"{len(train)} configurations, {sum(map(len, train))} atoms; "
        f"{facts.n_parameters} parameters, {facts.n_scalar} basis functions, "
        f"distances {facts.min_distance:g} to {facts.cutoff:g} Å"
    )
    with _Bar("fitting", file.fit.iterations) as bar:
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
    _print_guard(fitted)
    results = {name: evaluate_all(fitted, read) for name, read in data.items()}
    comparisons = {name: compare(fitted, read, results[name]) for name, read in data.items()}
    _print_errors(comparisons)
    _print_findings(stress_findings(comparisons["train"]))
    _write_json(json_file, {name: comparison.summary() for name, comparison in comparisons.items()})
    console.print(f"wrote {file.output}")
    if folder:
        written = write_report(
            folder,
            fitted,
            data,
            title=f"Fit of {file.output.name}",
            history=bar.steps,
            settings=file.model_dump(mode="json"),
            command=_command(),
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


@app.command()
def guard(
    potential: PotentialFile,
    train: DataFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="The guarded potential (.mtp, or .almtp).")],
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Blend nuclear repulsion into a potential where atoms come closer than in its training data."""
    from mtp.guard import approaches, guarded

    _check_output(output)
    _check_output(json_file)
    loaded, read = _load(potential, train, species)
    result = guarded(loaded, read)
    result.save(output)
    _print_guard(result)
    found = approaches(result, read)
    attractive = {"-".join(a.species): a.attractive for a in found if a.attractive}
    for pair, (inner, outer) in attractive.items():
        console.print(
            f"{pair}: still attractive somewhere between {inner:.2f} and {outer:.2f} Å: train on closer atoms"
        )
    if not attractive:
        console.print("pushed together, the closest atoms of each pair of species repel each other down to 0.1 Å")
    _write_json(json_file, {"guard": _guard_facts(result), "attractive": attractive})
    console.print(f"wrote {output}")


@app.command()
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

    _check_output(output)
    _check_output(json_file)
    _check_folder(report)
    loaded, read = _load(potential, data, species)
    known = Posterior.load(posterior, loaded) if posterior else None
    results = evaluate_all(loaded, read)
    comparison = compare(loaded, read, results)
    _print_errors({"data": comparison})
    summary = comparison.summary()
    predicted = [with_labels(a, Labels(r.energy, r.forces, r.stress)) for a, r in zip(read, results, strict=True)]
    if known:
        summary |= _add_standard_deviations(known, read, predicted)
    _write_json(json_file, summary)
    if output:
        configurations.write(output, predicted, loaded.species)
        console.print(f"wrote {output}")
    if report:
        from mtp.report import write_report

        title, files = f"Errors of {potential.name}", {"data": read}
        written = write_report(report, loaded, files, title=title, command=_command(), results={"data": results})
        console.print(f"wrote {written}")


@app.command()
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
    _check_output(output, ".npz")
    _check_output(json_file)
    weights = checked({"energy": energy_weight, "force": force_weight, "stress": stress_weight}, Weights, "options")
    loaded, read = _load(potential, train, species)
    data = {"train": read}
    if validation:
        data["validation"] = _read(validation, loaded.species)
    posterior = Posterior.from_data(loaded, read, weights, threads)
    found = calibration(posterior, data, threads)
    _print_coverage(found)
    noise = posterior.noise
    console.print(f"left to the labels: {1e3 * noise.energy:.3g} meV per √atom, {noise.force:.3g} eV/Å")
    _write_json(json_file, {"noise": vars(noise), "calibration": [vars(coverage) for coverage in found]})
    posterior.save(output)
    console.print(f"wrote {output}")


@app.command()
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
    """Build the active set from training data; or choose, by maxvol, the candidates that extrapolate most."""
    from mtp import configurations

    _check_output(output, None if candidates else ".almtp")
    loaded, read = _load(potential, train, species)
    offered = _read(candidates, loaded.species) if candidates else []
    chosen = loaded.select(read, mode)
    console.print(
        f"active set ({mode}): {loaded.facts.n_parameters} rows from {len(chosen)} of {len(read)} configurations"
    )
    if not candidates:
        loaded.save(output)
        console.print(f"wrote {output}")
        return
    best = [offered[i] for i in loaded.select(offered, mode, threshold)]
    console.print(f"chose {len(best)} of {len(offered)} candidates with grades above {threshold:g}")
    if best:
        configurations.write(output, best, loaded.species)
    else:
        output.write_text("")  # none chosen, and none left over from an earlier call
    console.print(f"wrote {output}")


@app.command()
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

    _check_output(output)
    _check_output(json_file)
    loaded, read = _load(potential, data, species)
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
    _write_json(json_file, summary)
    if output:
        configurations.write(output, read, loaded.species)
        console.print(f"wrote {output}")


@app.command()
def convert(
    source: Path,
    target: Path,
    species: SpeciesOption = None,
    lammps_units: UnitsOption = "metal",
    unconverged: UnconvergedOption = "skip",
) -> None:
    """Convert configurations: .cfg, extxyz, VASP, Gaussian, LAMMPS and what ASE reads; see docs/data.md."""
    from mtp import configurations

    _check_output(target)
    names = _elements(species) if species else None
    read = configurations.read(source, names, lammps_units=lammps_units, unconverged=unconverged, report=_report)
    configurations.write(target, read, names)
    console.print(f"wrote {len(read)} configurations to {target}")


@app.command()
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

    _check_output(json_file)
    findings = []
    if file.suffix in (".mtp", ".almtp", ".als"):
        potential = Potential.load(file)
        facts = {"species": potential.species, **vars(potential.facts), "guard": _guard_facts(potential)}
    else:
        skipped: list = []
        names = _elements(species) if species else None
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
            _report(report)
    table = Table(show_header=False, title=str(file))
    for key, value in facts.items():
        if key != "findings":
            table.add_row(key, str(value))
    console.print(table)
    _print_findings(findings)
    _write_json(json_file, facts)


@app.command()
def learn(
    settings: Annotated[Path, typer.Argument(help="Settings (.toml).", show_default=False)],
    json_file: JsonOption = None,
) -> None:
    """Learn a potential: explore with LAMMPS, label what extrapolates, refit, until nothing does.

    The same command goes on after an interruption. Under mpiexec all ranks explore.
    """
    import time
    import traceback

    import mpi4py.MPI as MPI

    from mtp.learn import NotConverged, Stopped
    from mtp.learn import learn as run
    from mtp.settings import LearnSettings, load

    comm = MPI.COMM_WORLD
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:7.1f} s  {text}")

    try:
        try:
            _check_output(json_file)
            resolved = load(settings, LearnSettings).resolve(settings.parent)
        except Error as error:  # every rank reads the same file
            raise Stopped(str(error)) from None
        rounds = run(resolved, say, comm)
    except Stopped as error:
        if comm.rank != 0:
            raise typer.Exit(1) from None
        if isinstance(error, NotConverged):
            _print_rounds(error.rounds)
            _write_json(json_file, error.rounds)
        raise
    except Exception as error:
        if comm.size == 1:
            raise
        # the other ranks may wait for this one: end them all
        if not isinstance(error, Error):
            traceback.print_exc()
        print(f"mtp: rank {comm.rank}: {error}", file=sys.stderr, flush=True)
        comm.Abort(1)
    if comm.rank != 0:
        return
    _print_rounds(rounds)
    _write_json(json_file, rounds)
    folder = resolved.folder
    console.print(f"\nlearned in {len(rounds)} rounds; figure: {folder / 'learning.png'}\nIn a LAMMPS input:\n")
    console.print(f"    pair_style  mtp\n    pair_coeff  * * {folder / 'potential.mtp'} {' '.join(resolved.species)}")


@app.command()
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
    _check_output(json_file)
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
    _write_json(json_file, {"potential": str(potential), "structures": [report.as_json() for report in reports]})
    if failures := [failure for report in reports for failure in report.failures()]:
        raise Error("\n".join(failures))


# ---- shared by the commands


class _Bar:
    """A progress bar on a terminal; in a log file, one line for each step. Keeps the steps that it is shown."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.steps: list[Step] = []
        self.bar = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> _Bar:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, step: Step) -> None:
        self.steps.append(step)
        if self.bar:
            self.bar.update(self.task, completed=step.iteration, note=self._note(step))
        else:
            console.print(f"{self.title} {step.iteration}/{self.total}: {self._note(step)}")

    def _note(self, step: Step) -> str:
        parts = [f"loss {step.loss:.4e}"]
        if step.energy_rmse is not None:
            parts.append(f"E {1e3 * step.energy_rmse:.4g} meV/atom")
        if step.force_rmse is not None:
            parts.append(f"F {step.force_rmse:.4g} eV/Å")
        parts.append(_duration(step.seconds))
        first = self.steps[0]
        if step.iteration > first.iteration:  # the first one holds the preparation
            pace = (step.seconds - first.seconds) / (step.iteration - first.iteration)
            parts += [f"{pace:.2g} s/iteration", f"at most {_duration(pace * (self.total - step.iteration))} left"]
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"


def _command() -> str:
    return shlex.join(["mtp", *sys.argv[1:]])


def _elements(text: str) -> list[str]:
    from mtp.settings import elements

    try:
        return elements(text.replace(",", " ").split())
    except ValueError as error:
        raise Error(f"--species: {error}") from None


def _read(files: list[Path], species: list[str] | None) -> list:
    from mtp import configurations

    return [atoms for file in files for atoms in configurations.read(file, species, report=_report)]


def _report(skipped: Any) -> None:
    console.print(f"warning: {skipped}")


def _check_data(data: list, species: list[str] | None, min_distance: float, n_parameters: int | None = None) -> None:
    """Print what is doubtful about data, and stop before anything is computed where they are wrong."""
    from mtp.quality import check, refuse_errors

    findings = check(data, species, min_distance, n_parameters)
    _print_findings([finding for finding in findings if finding.severity == "warning"])
    refuse_errors(findings)


def _print_findings(findings: list) -> None:
    from mtp.quality import summarise

    for line in summarise(findings):
        console.print(line)


def _load(potential: Path, data: list[Path], species: str | None) -> tuple:
    """The potential and the configurations, read with the potential's element names or those given."""
    from mtp.potential import Potential

    loaded = Potential.load(potential)
    if species:
        loaded.species = _elements(species)
    return loaded, _read(data, loaded.species)


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
    _print_coverage(found)
    return summary | {"calibration": [vars(coverage) for coverage in found]}


def _check_output(path: Path | None, suffix: str | None = None) -> None:
    """Refuse, before any work, an output that could not be written after it."""
    if path is None:
        return
    if suffix is not None and path.suffix != suffix:
        raise Error(f"{path}: the output's name must end with {suffix}")
    if path.is_dir():
        raise Error(f"{path}: is a folder: name a file for the output")
    if not path.absolute().parent.is_dir():
        raise Error(f"{path}: the folder does not exist: make it first")


def _check_folder(path: Path | None) -> None:
    """As _check_output, for a folder that is made where it is missing."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise Error(f"{path}: is a file: remove it or name a folder for the report")
    if not path.absolute().parent.is_dir():
        raise Error(f"{path}: the folder above it does not exist: make it first")


def _write_json(path: Path | None, content: Any) -> None:
    from mtp.cfg import replaced_whole

    if path:
        with replaced_whole(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n")


def _guard_facts(potential: Any) -> dict[str, dict[str, list[float]]] | None:
    """The guard's distances by pair of elements."""
    found = potential.guard
    if found is None:
        return None
    names = potential.species
    return {
        f"{names[i]}-{names[j]}": {"zbl": found.repulsion[i, j].tolist(), "fade": found.fade[i, j].tolist()}
        for i in range(len(names))
        for j in range(i, len(names))
    }


def _print_guard(potential: Any) -> None:
    table = Table("pair", "MTP fades (Å)", "ZBL sets in (Å)")
    for pair, windows in (_guard_facts(potential) or {}).items():
        (fade_inner, fade_outer), (inner, outer) = windows["fade"], windows["zbl"]
        table.add_row(pair, f"{fade_outer:g} to {fade_inner:g}", f"{outer:g} to {inner:g}")
    if table.row_count:
        console.print(table)


def _print_errors(comparisons: dict) -> None:
    rows = (
        ("energy_per_atom_eV", "energy (meV/atom)", 1e3),
        ("force_eV_per_A", "force (eV/Å)", 1),
        ("stress_GPa", "stress (GPa)", 1),
    )
    table = Table("data", "configurations", "quantity", "RMSE", "MAE", "max")
    for name, comparison in comparisons.items():
        summary = comparison.summary()
        for key, label, factor in rows:
            if summary[key]:
                values = [f"{factor * summary[key][kind]:.4g}" for kind in ("rmse", "mae", "max")]
                table.add_row(name, str(summary["configurations"]), label, *values)
    if table.row_count:
        console.print(table)
    else:
        console.print("the data are not labelled: there is nothing to compare with")


def _print_coverage(found: list) -> None:
    """Shares of errors inside one and two standard deviations; RMS of errors and of standard deviations."""
    units = {"energy_per_atom": ("energy (meV/atom)", 1e3), "force": ("force (eV/Å)", 1)}
    table = Table("data", "group", "quantity", "values", "inside 1σ", "inside 2σ", "error", "σ", "correlation")
    for row in found:
        label, factor = units[row.quantity]
        sizes = [f"{factor * value:.3g}" for value in (row.rms_error, row.rms_std)]
        shares = [f"{100 * share:.0f} %" for share in row.within]
        correlation = "" if row.correlation is None else f"{row.correlation:.2f}"
        table.add_row(row.data, row.group, label, str(row.count), *shares, *sizes, correlation)
    if table.row_count:
        console.print(table)


def _print_rounds(rounds: list[dict]) -> None:
    table = Table("round", "labelled", "failed", "flagged", "selected", "highest\ngrade")
    for heading in ("E RMSE\nmeV/atom", "F RMSE\neV/Å", "F RMSE of the new\nbefore the fit"):
        table.add_column(heading)
    for r in rounds:
        new = r["new"] and f"{r['new']['force_eV_per_A']['rmse']:.4f}"
        errors = (
            f"{1e3 * r['train']['energy_per_atom_eV']['rmse']:.2f}",
            f"{r['train']['force_eV_per_A']['rmse']:.4f}",
        )
        counts = (str(r[key]) for key in ("round", "labelled", "failed", "flagged", "selected"))
        table.add_row(*counts, f"{r['highest_grade']:.2f}", *errors, new or "")
    console.print(table)


def main() -> None:
    """Entry point: errors that are meant for the user end with status 1 and a message, without a traceback."""
    try:
        app()
    except Error as error:
        print(f"mtp: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
