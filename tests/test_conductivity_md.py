# SPDX-License-Identifier: BSD-3-Clause
"""Whole methods at toy size: κ with its error, runs that survive a kill, any number of ranks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from conductivity_toys import ARGON, METHODS, TOYS, quiet, run, toy
from test_lammps import BIN, SPECIES, close, random_potential

from mtp.conductivity.green_kubo import analysed
from mtp.conductivity.md import settled_cell
from mtp.conductivity.md import system as build
from mtp.conductivity.nemd import trajectory
from mtp.conductivity.results import joined, read_arrays
from mtp.conductivity.settings import GreenKubo, Hnemd, Nemd
from mtp.errors import Error


@pytest.mark.parametrize("model", METHODS)
def test_each_method_gives_a_value_with_an_error_and_keeps_its_runs(tmp_path, model):
    settings = toy(model, tmp_path / "run")
    first = run(settings)
    kappa = first["kappa_W_mK"]
    assert np.isfinite(kappa["value"])
    assert kappa["error"] > 0
    assert any("raise `time` or `runs`" in note for note in first["notes"]) == (
        kappa["error"] > 0.2 * abs(kappa["value"])
    )
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == first
    assert (tmp_path / "run" / "result.png").stat().st_size > 10_000
    kept = sorted(path for path in (tmp_path / "run").glob("*/chunk_*.h5"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert run(settings) == first
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert not any("vacuum" in note for note in first["notes"])
    longer = run(toy(model, tmp_path / "run", time=5.6))  # more of the same: what is there is gone on with
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert longer["kappa_W_mK"] != kappa
    with pytest.raises(Error, match="was begun with temperature"):
        run(toy(model, tmp_path / "run", temperature=60.0))


@pytest.mark.parametrize("model", [GreenKubo, Hnemd])
def test_a_smaller_cell_tells_what_the_size_changes(tmp_path, model):
    alone = run(toy(model, tmp_path / "run", repeat=[2, 2, 2]))
    assert alone["uncertainty_W_mK"] == {
        **dict.fromkeys(("statistics", "total"), alone["kappa_W_mK"]["error"]),
        **dict.fromkeys(("size", "potential")),
    }
    both = run(toy(model, tmp_path / "run", repeat=[2, 2, 2], other_repeat=[1, 2, 2]))  # the first cell is kept
    other = json.loads((tmp_path / "run" / "cell_1x2x2" / "result.json").read_text())
    assert both["other_cell"] == {"atoms": 16, "kappa_W_mK": other["kappa_W_mK"]}
    assert both["kappa_W_mK"]["value"] == alone["kappa_W_mK"]["value"]
    assert both["uncertainty_W_mK"]["statistics"] == alone["kappa_W_mK"]["error"] < both["kappa_W_mK"]["error"]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == both


FLAT = {"crystal": None, "temperature": 10.0, "repeat": [6, 4, 1], "runs": 1, "time": 2.4, "chunk": 0.4}
FLAT_OF = {GreenKubo: {}, Hnemd: {"axis": "x"}, Nemd: {"axis": "x", "repeat": [24, 3, 1]}}


def sheet(model, folder: Path, height: float = 30.0, **changes):
    """Settings of a layer of argon in a rectangular cell of that height (Å)."""
    atoms = Atoms("Ar2", [[0, 0, 1], [1.91, 1.91 * 3**0.5, 1]], cell=[3.82, 3.82 * 3**0.5, height], pbc=True)
    folder.mkdir(parents=True, exist_ok=True)
    atoms.write(folder / "sheet.extxyz")
    content = {**FLAT, **FLAT_OF[model], "thickness": 3.5, "file": str(folder / "sheet.extxyz")}
    return toy(model, folder / "run", **content | changes)


@pytest.mark.parametrize("model", METHODS)
def test_a_sheet_conducts_by_its_thickness(tmp_path, model):
    """Twice as thick, half κ, from the same runs; and what is given to the vacuum does not matter."""
    thin, thick = (run(sheet(model, tmp_path, thickness=thickness)) for thickness in (3.5, 7.0))
    for key in ("value", "error"):
        assert thin["kappa_W_mK"][key] == pytest.approx(2 * thick["kappa_W_mK"][key])
    assert thin["thickness_A"] == 3.5
    filled = run(sheet(model, tmp_path, thickness=None))
    if model is GreenKubo:  # without a thickness the mean is over three directions
        assert np.trace(thin["tensor_W_mK"]) / 2 == pytest.approx(thin["kappa_W_mK"]["value"])
        in_plane = np.array(filled["tensor_W_mK"])[:2, :2]
        np.testing.assert_allclose(in_plane, np.multiply(thin["tensor_W_mK"], 3.5 / 30), atol=1e-12)
    else:
        assert filled["kappa_W_mK"]["value"] == pytest.approx(thin["kappa_W_mK"]["value"] * 3.5 / 30)
    said = [any("30 Å of the cell are vacuum" in note for note in found["notes"]) for found in (thin, filled)]
    assert said == [False, True]
    higher = run(sheet(model, tmp_path / "higher", height=60.0))
    # 1e-4: rounding, which 1000 steps of a solid near rest magnify
    assert higher["kappa_W_mK"]["value"] == pytest.approx(thin["kappa_W_mK"]["value"], rel=1e-4)
    if model is not Nemd:
        assert higher["pressure_GPa"] == pytest.approx(thin["pressure_GPa"], rel=1e-4)


def test_a_thickness_of_a_filled_cell_is_remarked(tmp_path):
    (remark,) = build(toy(GreenKubo, tmp_path, repeat=[2, 2, 1], thickness=5.0)).notes
    assert "2.7 Å of the height are without atoms" in remark
    assert build(sheet(GreenKubo, tmp_path)).notes == []


@pytest.mark.parametrize("box", ["iso", "aniso", "tri"])
def test_the_cell_of_a_sheet_is_found_in_its_plane(tmp_path, box):
    settings = sheet(Hnemd, tmp_path, pressure_GPa=0.3, box=box, equilibration=2.0, repeat=[4, 3, 1])
    free = build(settings)
    settings.folder.mkdir()
    found = settled_cell(free, settings, MPI.COMM_SELF, quiet)
    assert found.cell[2, 2] == pytest.approx(30.0)
    assert found.cell[0, 0] < free.cell[0, 0]
    assert (found.cell[1, 0] != 0) == (box == "tri")
    if box == "iso":
        np.testing.assert_allclose(found.cell[:2, :2] * free.cell[0, 0], free.cell[:2, :2] * found.cell[0, 0])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([[4, 0, 0], [0, 5, 0], [1, 0, 30]], "third cell vector along z"),
        ([[0, 0, 30], [4, 0, 0], [0, 5, 0]], "third cell vector along z"),
        ([[4, 0, 0], [0, 5, 0], [0, 0, 3]], "3.5 Å are more than the height of the cell, 3 Å"),
    ],
)
def test_what_is_no_sheet_in_the_xy_plane_is_refused(tmp_path, cell, said):
    settings = sheet(GreenKubo, tmp_path)
    Atoms("Ar", cell=cell, pbc=True).write(tmp_path / "sheet.extxyz")
    with pytest.raises(Error, match=said):
        build(settings)


SALT = {"crystal": {"name": "ArKr", "structure": "rocksalt", "a": 6.6}, "pair": [*ARGON["pair"]]}


@pytest.mark.parametrize("fluid", [False, True])
def test_the_energies_of_elements_at_rest_do_not_matter(tmp_path, fluid):
    """Another zero of an element's energy adds a multiple of its current to the flux; κ stays."""
    settings = toy(GreenKubo, tmp_path / "run", **SALT, species=["Ar", "Kr"], fluid=fluid)
    usual = run(settings)["kappa_W_mK"]
    moving = build(settings)
    samples = [joined([read_arrays(p) for p in sorted((tmp_path / "run").glob(f"run_{k:02d}/*.h5"))]) for k in (0, 1)]
    assert samples[0]["currents"].shape == (500, 2, 3)
    momentum = np.einsum("s,nsa->na", moving.masses, samples[0]["currents"])
    close(momentum, 0, 1e-8, np.abs(samples[0]["currents"]).max())
    shifted = [{**s, "flux": s["flux"] + 2.5 * s["currents"][:, 0]} for s in samples]
    found = analysed(settings, moving, shifted, tmp_path)["kappa_W_mK"]
    # 1e-6: the currents of both elements add up to no momentum but for rounding
    assert found == pytest.approx(usual, rel=1e-6)


def test_elements_that_are_not_there_are_left_out(tmp_path):
    potential = random_potential(SPECIES, strength=0.3)
    potential.save(tmp_path / "three.mtp")
    crystal = {"name": "Si", "structure": "diamond", "a": 5.43}
    settings = toy(GreenKubo, tmp_path, crystal=crystal, pair=None, potential=str(tmp_path / "three.mtp"))
    assert build(settings).pair[1].endswith(" Si")
    with pytest.raises(Error, match="Ar"):
        build(toy(GreenKubo, tmp_path, pair=None, potential=str(tmp_path / "three.mtp")))


def test_the_flux_is_in_the_axes_of_the_structure(tmp_path):
    """A turned structure has the turned flux."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    atoms = bulk("Ar", a=5.436).repeat(4)  # an oblique cell
    turned = Atoms(atoms.symbols, atoms.positions @ turn, cell=atoms.cell.array @ turn, pbc=True)
    fluxes = []
    for name, structure in (("as built", atoms), ("turned", turned)):
        structure.write(tmp_path / f"{name}.extxyz")
        changes = {
            "crystal": None,
            "repeat": [1, 1, 1],
            "file": str(tmp_path / f"{name}.extxyz"),
            "time": 0.8,
            "runs": 1,
        }
        run(toy(GreenKubo, tmp_path / name, **changes))
        fluxes.append(read_arrays(tmp_path / name / "run_00" / "chunk_0000.h5")["flux"])
    # the file holds eight decimals of each position, which the equilibration magnifies
    close(fluxes[1][:20], fluxes[0][:20] @ turn, 1e-3)


def test_there_are_as_many_layers_as_asked_for(tmp_path):
    """98: the inverse of the nearest number to 1/98 is below 98, and LAMMPS would add a layer."""
    settings = toy(Nemd, tmp_path, bins=98, repeat=[2, 2, 49], equilibration=0.4, time=0.4, chunk=0.4)
    moving = build(settings)
    layers = trajectory(settings, moving, 49, 0).run(MPI.COMM_SELF, quiet)[0]["atoms"][0]
    assert len(layers) == 98
    assert layers.sum() == pytest.approx(len(moving.types))
    assert layers.min() > 0


def test_heat_exchange_conducts(tmp_path):
    found = run(toy(Nemd, tmp_path / "run", drive="exchange", power=0.05))
    cell = found["cells"][0]
    area = 4 * 5.436**2
    assert cell["flux_GW_m2"]["value"] == pytest.approx(0.05 / (2 * area) * 1.602176634e4)


def test_the_cell_is_found_at_the_pressure(tmp_path):
    settings = toy(GreenKubo, tmp_path / "run", pressure_GPa=0.5, runs=1, equilibration=4.0)
    found = run(settings)
    cell = np.array(json.loads((tmp_path / "run" / "cell.json").read_text())["cell"])
    assert cell[0, 0] < 2 * 5.436
    assert found["volume_A3"] == pytest.approx(np.linalg.det(cell))
    assert found["pressure_GPa"] == pytest.approx(0.5, abs=0.1)


def test_a_length_that_is_added_is_strained_as_the_others(tmp_path):
    settings = toy(Nemd, tmp_path / "run", pressure_GPa=0.5, equilibration=0.4)
    settings.folder.mkdir()
    strains = []
    for length in (3, 2, 6):
        free = build(settings, (2, 2, length))
        strains.append(np.linalg.solve(free.cell, settled_cell(free, settings, MPI.COMM_SELF, quiet).cell))
    assert not np.allclose(strains[0], np.eye(3), atol=1e-4)
    np.testing.assert_allclose(strains, [strains[0]] * 3, atol=1e-12)


def test_a_cell_that_is_not_relaxed_is_told(tmp_path):
    squeezed = {"name": "Ar", "structure": "fcc", "a": 5.0}
    found = run(toy(GreenKubo, tmp_path / "run", crystal=squeezed, runs=1, timestep=0.002))
    assert any("not relaxed" in note for note in found["notes"])


START = "from mtp.cli import main; main()"


def command(folder: Path, *arguments, ranks: int = 1) -> list[str]:
    launcher = [str(BIN / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
    return [*launcher, sys.executable, "-c", START, "conductivity", *map(str, arguments)]


def toml(content: dict) -> str:
    def text(value) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(v)}" for key, v in value.items()) + "}"
        return json.dumps(value)

    return "\n".join(f"{key} = {text(value)}" for key, value in content.items())


def written(folder: Path, **changes) -> Path:
    folder.mkdir()
    path = folder / "settings.toml"
    path.write_text(toml({**ARGON, **TOYS[GreenKubo], "folder": "run", **changes}))
    return path


def test_a_killed_run_goes_on_and_any_number_of_ranks_gives_the_same(tmp_path):
    """kill -9 after the second chunk. What follows is what an unkilled run samples, until rounding has grown."""
    whole, killed, shared = (written(tmp_path / name, runs=1, time=2.4) for name in ("whole", "killed", "shared"))
    whole.write_text(whole.read_text() + "\nother_repeat = [1, 2, 2]\n")
    said = subprocess.run(
        command(tmp_path, "green-kubo", whole), check=True, capture_output=True, text=True, timeout=300
    ).stdout
    assert re.search("cell_1x2x2, run_00: chunk 3 of 3", said)
    assert re.search(r"^kappa = .* \(statistics .*, size .*\)$", said, re.MULTILINE)
    process = subprocess.Popen(command(tmp_path, "green-kubo", killed), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "chunk 2 of 3" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stdout.close()
    done = subprocess.run(
        command(tmp_path, "green-kubo", killed), check=True, capture_output=True, text=True, timeout=300
    )
    assert "run_00: kept" in done.stdout
    assert "kappa = " in done.stdout
    subprocess.run(command(tmp_path, "green-kubo", shared, ranks=2), check=True, capture_output=True, timeout=300)
    parts = [
        [read_arrays(p.parent / "run" / "run_00" / f"chunk_{k:04d}.h5") for k in range(3)]
        for p in (whole, killed, shared)
    ]
    for name in ("flux", "temperature", "potential_energy", "displacement"):
        one, again, two = (np.concatenate([chunk[name] for chunk in chunks]) for chunks in parts)
        assert len(one) == len(again) == len(two) == 300
        np.testing.assert_array_equal(one[:200], again[:200])
        # 1e-6: rounding grows by some 1e3 in a picosecond, from 1e-14
        close(again, one, 1e-6)
        close(two, one, 1e-6)
    # atoms are further from where they began the run, and not the chunk, than a step or two take them
    assert min(chunk["displacement"][0] for chunk in parts[0][1:]) > 20 * parts[0][0]["displacement"][0]


def test_a_folder_serves_one_process(tmp_path):
    path = written(tmp_path / "one", runs=1, time=80.0, chunk=40.0)
    process = subprocess.Popen(command(tmp_path, "green-kubo", path), stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        settings = toy(GreenKubo, path.parent / "run", runs=1, time=80.0, chunk=40.0)
        with pytest.raises(Error, match="another process"):
            run(settings)
    finally:
        process.kill()
        process.wait(timeout=60)
        process.stdout.close()
