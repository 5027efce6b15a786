# SPDX-License-Identifier: BSD-3-Clause
"""The command that relaxes structures, with a potential as it is or one that learns meanwhile: relax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mtp.cli.options import JsonOption, SpeciesOption
from mtp.cli.output import check_output, console, write_json
from mtp.errors import Error

UNUSED = "with --learn, the settings file says everything: leave out "


def relax(
    potential: Annotated[
        Optional[Path],  # noqa: UP045, typer reads it at run time
        typer.Argument(help="Potential (.mtp, .almtp, MLIP-2's .als).", show_default=False),
    ] = None,
    structures: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(help="Structures: .cfg, extxyz, OUTCAR, … (docs/data.md).", show_default=False),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="The relaxed structures (format by extension)."),
    ] = None,
    learn: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Settings (.toml) of a learning loop with tables `relaxation`: docs/relaxing.md."),
    ] = None,
    steps: Annotated[int, typer.Option(help="At most, for each structure.")] = 500,
    force: Annotated[float, typer.Option(help="Largest force that is left, eV/Å.")] = 0.01,
    stress: Annotated[float, typer.Option(help="Largest deviation of the stress that is left, GPa.")] = 0.1,
    pressure: Annotated[float, typer.Option(help="Of the relaxed cells, GPa.")] = 0.0,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Relax the atoms alone.")] = False,
    species: SpeciesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Relax structures, many at once; cells that are periodic in all directions relax as well.

    With --learn the potential learns what it meets on the way, and the relaxed structures are in the loop's folder.
    """
    check_output(output)
    check_output(json_file)
    if learn is not None:
        if potential is not None or output is not None:
            raise Error(UNUSED + "potential, structures and --output")
        _learn(learn, json_file)
        return
    if potential is None or not structures or output is None:
        raise Error("wants a potential, files of structures, and --output; or --learn with a settings file")
    from ase.units import GPa

    from mtp import configurations
    from mtp.cli.input import load_with_data
    from mtp.configurations import check_distances
    from mtp.relaxation import Goal
    from mtp.relaxation import relax as relax_all

    loaded, read = load_with_data(potential, structures, species)
    for atoms in read:
        check_distances(atoms)
    relaxed = relax_all(loaded, read, Goal(steps, force, stress * GPa, pressure * GPa, not fixed_cell))
    failed = [atoms for atoms in relaxed if "failure" in atoms.info]
    for atoms in failed:
        console.print(f"{atoms.info['source']}: stopped after {atoms.info['steps']} steps: {atoms.info['failure']}")
    summary = [
        {
            "energy_eV": None if atoms.calc is None else atoms.get_potential_energy(),
            "atoms": len(atoms),
            "volume_A3": atoms.get_volume() if atoms.cell.rank == 3 else None,
            **{key: atoms.info.get(key) for key in ("steps", "relaxed", "grade")},
        }
        for atoms in relaxed
    ]
    n_relaxed = sum(row["relaxed"] for row in summary)
    console.print(f"relaxed {n_relaxed} of {len(relaxed)} structures in {sum(r['steps'] for r in summary)} steps")
    if loaded.facts.active_set is not None:
        console.print(f"highest grade at an end: {max(row['grade'] or 0.0 for row in summary):.3g}")
    configurations.write(output, relaxed, loaded.species)
    console.print(f"wrote {output}")
    write_json(json_file, {"structures": summary})


def _learn(path: Path, json_file: Path | None) -> None:
    """As `mtp learn`, for settings that relax something."""
    import mpi4py.MPI as MPI

    from mtp.cli.learning import learn
    from mtp.learning.folder import relaxed_file
    from mtp.settings import LearnSettings, load

    settings = load(path, LearnSettings).resolve(path.parent)
    if not settings.relaxation:
        raise Error(f"{path}: has no [[relaxation]] table, which names the structures to relax: see docs/relaxing.md")
    learn(path, json_file)
    if MPI.COMM_WORLD.rank == 0:
        for number, relaxation in enumerate(settings.relaxation):
            console.print(f"{relaxation.file.name}: {settings.folder / relaxed_file(number)}")
