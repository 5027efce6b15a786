# SPDX-License-Identifier: BSD-3-Clause
"""The commands `mtp conductivity`: lattice thermal conductivity by one method each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mtp.cli.options import JsonOption
from mtp.cli.output import check_output, console, write_json
from mtp.errors import Error

conductivity = typer.Typer(no_args_is_help=True, help="Lattice thermal conductivity, W/mK.")
Settings = Annotated[Path, typer.Argument(help="Settings (.toml).", show_default=False)]


@conductivity.command("green-kubo")
def green_kubo(settings: Settings, json_file: JsonOption = None) -> None:
    """Fluctuations of the heat flux in equilibrium. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.green_kubo import green_kubo as run
    from mtp.conductivity.settings import GreenKubo

    _molecular_dynamics(settings, GreenKubo, run, json_file)


@conductivity.command()
def hnemd(settings: Settings, json_file: JsonOption = None) -> None:
    """Mean heat flux under a small driving field. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.hnemd import hnemd as run
    from mtp.conductivity.settings import Hnemd

    _molecular_dynamics(settings, Hnemd, run, json_file)


@conductivity.command()
def nemd(settings: Settings, json_file: JsonOption = None) -> None:
    """Imposed heat current, profile of temperature; interfaces, too. The same command goes on after an interruption.

    Under mpiexec all ranks run LAMMPS.
    """
    from mtp.conductivity.nemd import nemd as run
    from mtp.conductivity.settings import Nemd

    _molecular_dynamics(settings, Nemd, run, json_file)


@conductivity.command()
def bte(settings: Settings, json_file: JsonOption = None) -> None:
    """Phonons and the Boltzmann transport equation. The same command goes on after an interruption."""
    from mtp.conductivity.bte import bte as run
    from mtp.conductivity.bte_output import draw, table
    from mtp.conductivity.bte_settings import BteSettings
    from mtp.settings import load

    check_output(json_file)
    resolved = load(settings, BteSettings).resolve(settings.parent)
    found = run(resolved, console.print)
    console.print(table(found))
    for figure in draw(found, resolved.folder):
        console.print(f"wrote {figure}")
    console.print(f"wrote {resolved.folder / 'result.json'}")
    write_json(json_file, found)


@conductivity.command()
def continuum(settings: Settings, json_file: JsonOption = None) -> None:
    """Effective conductivity of polycrystals and heterostructures, by finite elements."""
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
    settings: Path, model: type, run: Callable[..., dict[str, Any]], json_file: Path | None
) -> None:
    import traceback

    import mpi4py.MPI as MPI

    from mtp.settings import load

    comm = MPI.COMM_WORLD
    progress = _Chunks(comm.rank == 0)
    try:
        check_output(json_file)
        resolved = load(settings, model).resolve(settings.parent)
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
            console.print(f"{name} = {found[key]['value']:.4g} ± {found[key]['error']:.2g} {unit}")
    for note in found["notes"]:
        console.print(f"note: {note}")
    console.print(f"wrote {resolved.folder / 'result.json'} and result.png")
    write_json(json_file, found)


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
