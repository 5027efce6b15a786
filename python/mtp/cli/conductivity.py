# SPDX-License-Identifier: BSD-3-Clause
"""The commands `mtp conductivity`: thermal conductivity by one method each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mtp.cli.options import JsonOption
from mtp.cli.output import check_output, console, write_json
from mtp.errors import Error

conductivity = typer.Typer(no_args_is_help=True, help="Thermal conductivity, W/mK.")
Settings = Annotated[Path, typer.Argument(help="Settings (.toml).", show_default=False)]
LearnFile = Annotated[
    Optional[Path],  # noqa: UP045, typer reads it at run time
    typer.Argument(help="With --learn: the loop's settings, where they are not the table `learn`.", show_default=False),
]
LearnOption = Annotated[bool, typer.Option("--learn", help="Label and learn what extrapolates, until κ has converged.")]


@conductivity.command("green-kubo")
def green_kubo(
    settings: Settings, learn_file: LearnFile = None, learn: LearnOption = False, json_file: JsonOption = None
) -> None:
    """Fluctuations of the heat flux in equilibrium. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.green_kubo import green_kubo as run
    from mtp.conductivity.settings import GreenKubo

    _molecular_dynamics(settings, GreenKubo, run, json_file, learn, learn_file)


@conductivity.command()
def hnemd(
    settings: Settings, learn_file: LearnFile = None, learn: LearnOption = False, json_file: JsonOption = None
) -> None:
    """Mean heat flux under a small driving field. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.hnemd import hnemd as run
    from mtp.conductivity.settings import Hnemd

    _molecular_dynamics(settings, Hnemd, run, json_file, learn, learn_file)


@conductivity.command()
def nemd(
    settings: Settings, learn_file: LearnFile = None, learn: LearnOption = False, json_file: JsonOption = None
) -> None:
    """Imposed heat current, profile of temperature; interfaces, too. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.nemd import nemd as run
    from mtp.conductivity.settings import Nemd

    _molecular_dynamics(settings, Nemd, run, json_file, learn, learn_file)


@conductivity.command()
def bte(
    settings: Settings, learn_file: LearnFile = None, learn: LearnOption = False, json_file: JsonOption = None
) -> None:
    """Phonons and the Boltzmann transport equation. The same command goes on after an interruption."""
    from mtp.conductivity.bte import bte as run
    from mtp.conductivity.bte_output import draw, table
    from mtp.conductivity.bte_settings import BteSettings

    if _learning(learn, learn_file):
        found, folder = _learn(settings, learn_file, BteSettings, run, json_file)
        if found is not None:
            console.print(table(found))
            for figure in draw(found, folder):
                console.print(f"wrote {figure}")
        return
    check_output(json_file)
    resolved = _loaded(settings, BteSettings)
    found = run(resolved, console.print)
    console.print(table(found))
    for figure in draw(found, resolved.folder):
        console.print(f"wrote {figure}")
    console.print(f"wrote {resolved.folder / 'result.json'}")
    write_json(json_file, found)


@conductivity.command()
def continuum(settings: Settings, json_file: JsonOption = None) -> None:
    """Effective conductivity of polycrystals and heterostructures, by finite elements.

    The same command goes on after an interruption.
    """
    from mtp.conductivity.continuum import continuum as run
    from mtp.conductivity.continuum_output import table
    from mtp.conductivity.continuum_settings import ContinuumSettings
    from mtp.settings import load

    check_output(json_file)
    resolved = load(settings, ContinuumSettings).resolve(settings.parent)
    found = run(resolved, console.print)
    console.print(table(found))
    console.print(f"wrote {resolved.folder}")
    write_json(json_file, found)


def _molecular_dynamics(
    settings: Path,
    model: type,
    run: Callable[..., dict[str, Any]],
    json_file: Path | None,
    learn: bool,
    learn_file: Path | None,
) -> None:
    if _learning(learn, learn_file):
        _learn(settings, learn_file, model, run, json_file)
        return
    import traceback

    import mpi4py.MPI as MPI

    comm = MPI.COMM_WORLD
    progress = _Chunks(comm.rank == 0)
    try:
        check_output(json_file)
        resolved = _loaded(settings, model)
        found = run(resolved, comm, progress)
    except Exception as error:
        if comm.size == 1:
            raise
        # the other ranks may wait for this one: end them all
        if not isinstance(error, Error):
            traceback.print_exc()
        print(f"mtp: {error}", file=sys.stderr, flush=True)
        comm.Abort(1)
    finally:
        progress.close()
    if comm.rank:
        return
    for key, unit in (("kappa_W_mK", "W/mK"), ("conductance_MW_m2K", "MW/m²K")):
        if key in found:
            name = key.split("_")[0]
            parts = found[key.replace(name, "uncertainty")]
            told = "" if parts["size"] is None else f" (statistics {parts['statistics']:.2g}, size {parts['size']:.2g})"
            console.print(f"{name} = {found[key]['value']:.4g} ± {found[key]['error']:.2g} {unit}{told}")
    for note in found["notes"]:
        console.print(f"note: {note}")
    console.print(f"wrote {resolved.folder / 'result.json'} and result.png")
    write_json(json_file, found)


def _loaded(path: Path, model: type) -> Any:
    """Settings of a calculation, whose table `learn` is for --learn alone."""
    from mtp.settings import checked, content_of

    content = {key: value for key, value in content_of(path).items() if key != "learn"}
    return checked(content, model, path).resolve(path.parent)


def _learning(learn: bool, learn_file: Path | None) -> bool:
    if learn_file is not None and not learn:
        raise Error(f"{learn_file}: the settings of a loop come after --learn")
    return learn


def _learn(
    settings: Path, learn_file: Path | None, model: type, method: Callable[..., dict[str, Any]], json_file: Path | None
) -> tuple[dict[str, Any] | None, Path]:
    """Learn until κ has converged; the result, None but on rank 0, and the folder."""
    import mpi4py.MPI as MPI

    from mtp.conductivity.learning import conductivity as run
    from mtp.conductivity.learning import history, read
    from mtp.learn import NotConverged, Stopped

    comm = MPI.COMM_WORLD
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:7.1f} s  {text}")

    def tell(name: str, done: int, total: int, note: str) -> None:
        say(f"{name}: {note or f'chunk {done} of {total}'}")

    try:
        try:
            check_output(json_file)
            learning = read(settings, model, learn_file)
        except Error as error:  # every rank reads the same files
            raise Stopped(str(error)) from None
        found = run(learning, method, say, tell, comm)
    except Stopped as error:
        if comm.rank != 0:
            raise typer.Exit(1) from None
        if isinstance(error, NotConverged):
            _print_history(history(error.rounds))
        raise
    folder = learning.calculation.folder
    if comm.rank != 0:
        return None, folder
    _print_history(found["learning"])
    parts = found["uncertainty"]
    for k, (name, value) in enumerate(zip(parts["names"], found["learning"][-1]["values"], strict=True)):
        known = (f"{key} {part[k]:.2g}" for key, part in parts.items() if key not in ("names", "total") and part)
        console.print(f"{name}: {value:.4g} ± {parts['total'][k]:.2g} ({', '.join(known)})")
    console.print(f"wrote {folder / 'result.json'} and learning.png; the potential: {learning.loop.folder}")
    write_json(json_file, found)
    return found, folder


def _print_history(rounds: list[dict[str, Any]]) -> None:
    table = Table("round", "labelled", "highest\ngrade", "selected", "κ, W/mK", "changed by", "which may be")
    for r in rounds:
        kappas = (f"{v:.4g} ± {e:.2g}" for v, e in zip(r["values"] or (), r["errors"] or (), strict=True))
        changes = (" ".join(f"{x:.3g}" for x in r[key] or ()) for key in ("changes", "allowed"))
        numbers = (str(r["round"]), str(r["labels"]), f"{r['highest_grade']:.2f}", str(r["selected"]))
        table.add_row(*numbers, "\n".join(kappas), *changes)
    console.print(table)


class _Chunks:
    """Shows what runs: a bar for each trajectory on a terminal, a line for each chunk in a log; where `shown` is false,
    nothing."""

    def __init__(self, shown: bool) -> None:
        self.start = time.monotonic()
        self.shown = shown
        self.tasks: dict[str, Any] = {}
        self.bar = None
        if shown and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
            self.bar.start()

    def __call__(self, name: str, done: int, total: int, note: str) -> None:
        if self.bar:
            if name not in self.tasks:
                self.tasks[name] = self.bar.add_task(name, total=total, note=note)
            self.bar.update(self.tasks[name], completed=done, note=note)
        elif self.shown:
            console.print(f"{time.monotonic() - self.start:7.1f} s  {name}: {note or f'chunk {done} of {total}'}")

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
