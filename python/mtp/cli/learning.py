# SPDX-License-Identifier: BSD-3-Clause
"""The command that runs the active-learning loop: learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mtp.cli.options import JsonOption
from mtp.cli.output import check_output, console, write_json
from mtp.errors import Error


def learn(
    settings: Annotated[Path, typer.Argument(help="Settings (.toml); with --status a folder.", show_default=False)],
    json_file: JsonOption = None,
    status: Annotated[bool, typer.Option("--status", help="Tell what the loop in this folder is at.")] = False,
) -> None:
    """Learn a potential: explore with LAMMPS, label what extrapolates, refit, until nothing does.

    The same command goes on after an interruption. Under mpiexec all ranks explore.
    """
    if status:
        _print_status(settings, json_file)
        return
    import time

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
            check_output(json_file)
            resolved = load(settings, LearnSettings).resolve(settings.parent)
        except Error as error:  # every rank reads the same file
            raise Stopped(str(error)) from None
        rounds = run(resolved, say, comm)
    except Stopped as error:
        if comm.rank != 0:
            raise typer.Exit(1) from None
        if isinstance(error, NotConverged):
            _print_rounds(error.rounds)
            write_json(json_file, error.rounds)
        raise
    if comm.rank != 0:
        return
    _print_rounds(rounds)
    write_json(json_file, rounds)
    folder = resolved.folder
    console.print(f"\nlearned in {len(rounds)} rounds; figure: {folder / 'learning.png'}\nIn a LAMMPS input:\n")
    console.print(f"    pair_style  mtp\n    pair_coeff  * * {folder / 'potential.mtp'} {' '.join(resolved.species)}")


def _print_status(folder: Path, json_file: Path | None) -> None:
    from mtp.learning.status import status

    found = status(folder)
    if found.rounds:
        _print_rounds(found.rounds)
    for line in found.lines():
        console.print(line)
    write_json(json_file, {"state": found.state, "rounds": found.rounds})


def _print_rounds(rounds: list[dict]) -> None:
    table = Table("round", "labelled", "failed", "flagged", "selected", "highest\ngrade")
    for heading in ("E RMSE\nmeV/atom", "F RMSE\neV/Å", "F RMSE of the new\nbefore the fit", "broke"):
        table.add_column(heading)
    for r in rounds:
        new = r["new"] and f"{r['new']['force_eV_per_A']['rmse']:.4f}"
        errors = (
            f"{1e3 * r['train']['energy_per_atom_eV']['rmse']:.2f}",
            f"{r['train']['force_eV_per_A']['rmse']:.4f}",
        )
        counts = (str(r[key]) for key in ("round", "labelled", "failed", "flagged", "selected"))
        broke = sorted({p["title"] for p in r["passages"] if p["break_step"] is not None})
        table.add_row(*counts, f"{r['highest_grade']:.2f}", *errors, new or "", "\n".join(broke))
    console.print(table)
