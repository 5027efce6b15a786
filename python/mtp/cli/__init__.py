# SPDX-License-Identifier: BSD-3-Clause
"""The command `mtp`: parses, calls the library, prints. Every number that it prints can be had as JSON."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from mtp.cli.conductivity import conductivity
from mtp.cli.data import convert, info
from mtp.cli.fitting import fit, guard, new, uncertainty
from mtp.cli.learning import learn
from mtp.cli.relaxing import relax
from mtp.cli.using import cut, evaluate, grade, select, validate
from mtp.errors import Error

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (new, fit, evaluate, uncertainty, validate, select, grade, relax, cut, guard, convert, info, learn):
    app.command()(command)
app.add_typer(conductivity, name="conductivity")


def _tell_version(asked: bool) -> None:
    if asked:
        try:
            print(version("pair-mtp"))
        except PackageNotFoundError:
            print("sources that are not installed")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Moment tensor potentials that learn while LAMMPS runs. Units: eV, Å, GPa, K, ps."""


def main() -> None:
    """Entry point: errors that are meant for the user end with status 1 and a message, without a traceback."""
    try:
        app()
    except Error as error:
        print(f"mtp: {error}", file=sys.stderr)
        sys.exit(1)
