# SPDX-License-Identifier: BSD-3-Clause
"""Small cells out of large runs: the environment of the centre is the run's, whatever is around it."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mtp.calculator import MTP
from mtp.cutting import centres, cut
from mtp.errors import Error
from mtp.filling import HeldEnvironment
from mtp.potential import Potential
from mtp.settings import Cutting

ROUNDING = 1e-10  # of a grade: positions of a run are rounded to 1e-14 Å, some images apart; the law
SILICON = Path(__file__).parents[1] / "lammps_inputs" / "silicon" / "Si.almtp"


@pytest.fixture(scope="module")
def silicon():
    return Potential.load(SILICON)


def _crystal(repeat=(6, 6, 6), rattle=0.08, seed=0):
    atoms = bulk("Si", cubic=True, a=5.43).repeat(repeat)
    atoms.positions += rattle * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    atoms.wrap()
    return atoms


def _vacancy():
    """A crystal of 1727 atoms and one missing; the centre is a neighbour of the vacancy, in a corner of the cell."""
    atoms = _crystal()
    near = np.argsort(atoms.get_distances(0, np.arange(len(atoms)), mic=True))
    del atoms[near[1]]
    return atoms, 0


def _surface():
    atoms = _crystal((6, 6, 3))
    atoms.pbc = (True, True, False)
    return atoms, int(np.argmax(atoms.positions[:, 2]))


def _dislocated():
    """A crystal with a displacement field that no crystal has: a step of half a period across a half plane."""
    atoms = _crystal((6, 6, 4), rattle=0.03)
    x, y = (atoms.positions - atoms.cell.array.sum(axis=0) / 2)[:, :2].T
    atoms.positions[:, 2] += 5.43 / 2 * np.arctan2(y, x) / (2 * np.pi)
    atoms.pbc = (False, False, True)
    return atoms, int(np.argmin(np.hypot(x, y)))


RUNS = {"vacancy": _vacancy, "surface": _surface, "dislocation": _dislocated}


def _neighbours(potential, atoms, centre):
    """The vectors from an atom to its neighbours inside the cutoff, the nearest first."""
    near = potential.neighbourhoods(atoms)
    vectors = near.vectors[near.first[centre] : near.first[centre + 1]]
    return vectors[np.lexsort((*vectors.T.round(6), np.linalg.norm(vectors, axis=1).round(6)))]


def _assert_kept(potential, run, centre, cell):
    expected = potential.grade(run).per_atom[centre]
    assert potential.grade(cell).per_atom[0] == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    assert cell.info["cut_run_grade"] == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    np.testing.assert_allclose(_neighbours(potential, cell, 0), _neighbours(potential, run, centre), rtol=0, atol=1e-12)
    distances = cell.get_distances(0, np.arange(len(cell)), mic=True)
    assert (distances[~cell.arrays["kept"]] > potential.facts.cutoff).all()


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("method", ["auto", "relaxed", "cluster"])
def test_the_environment_of_the_centre_is_the_runs(silicon, kind, method):
    run, centre = RUNS[kind]()
    cell = cut(run, centre, silicon, Cutting(method=method, max_atoms=80, candidates=3, steps=10))
    assert len(cell) <= 80
    assert cell.pbc.all() == (method != "cluster")
    _assert_kept(silicon, run, centre, cell)
    grades = silicon.grade(cell).per_atom
    np.testing.assert_allclose(cell.arrays["grade"], grades, rtol=1e-9)
    kept = cell.arrays["kept"]
    assert cell.info["cut_filler_grade"] == pytest.approx(grades[~kept].max(), rel=1e-9)
    assert cell.info["cut_kept_grade"] == pytest.approx(grades[kept][1:].max(), rel=1e-9)


def test_the_environment_is_kept_for_several_species_and_long_cutoffs(random_atoms, random_potential):
    potential = random_potential(("O", "Cu"), level=4)
    potential.select([random_atoms(("O", "Cu"), seed=k) for k in range(3)])
    run = random_atoms(("O", "Cu"), seed=7, repeat=(9, 8, 8))
    cell = cut(run, 100, potential, Cutting(candidates=2, steps=5))
    _assert_kept(potential, run, 100, cell)
    assert cell.numbers[0] == run.numbers[100]


def test_a_run_smaller_than_the_box_is_repeated(silicon):
    run = _crystal((2, 2, 2), rattle=0.1)
    cell = cut(run, 3, silicon, Cutting(max_atoms=40))
    assert len(run) == 64
    assert len(cell) <= 40
    _assert_kept(silicon, run, 3, cell)


def test_a_neighbourhood_serves_as_well_as_the_run(silicon):
    run, centre = _vacancy()
    vectors = run.get_distances(centre, np.arange(len(run)), mic=True, vector=True)
    near = np.linalg.norm(vectors, axis=1) < 11.0
    sphere = Atoms(
        run.numbers[near], vectors[near] + 3.0, info={"radius": 11.0, "step": 700, "run": "npt", "n_atoms": 1727}
    )
    sphere.info["centre"] = int(np.count_nonzero(near[:centre]))
    sphere.arrays["id"] = np.flatnonzero(near) + 1
    cell = cut(sphere, sphere.info["centre"], silicon)
    _assert_kept(silicon, run, centre, cell)
    info = cell.info
    assert (info["run"], info["step"], info["cut_tag"], info["cut_atoms_in_run"]) == ("npt", 700, centre + 1, 1727)
    with pytest.raises(Error, match="reaches 2.50 Å from its centre, less than the potential's cutoff of 3.2 Å"):
        cut(Atoms("Si2", [[0, 0, 0], [2.5, 0, 0]], info={"centre": 0}), 0, silicon)


def test_a_vacancy_is_cut_from_the_crystal_without_moving_anything(silicon):
    run, centre = _vacancy()
    cell = cut(run, centre, silicon, Cutting(method="crystal", bound=10.0))
    assert cell.info["cut_method"] == "crystal"
    sites = cell.get_volume() / (5.43**3 / 8)
    assert sites == pytest.approx(round(sites), abs=0.3)  # the lattice was found in displaced atoms
    assert round(sites) - len(cell) == 1
    there = run.get_distances(centre, np.arange(len(run)), mic=True, vector=True)
    here = cell.get_distances(0, np.arange(len(cell)), mic=True, vector=True)
    apart = np.linalg.norm(here[:, None] - there, axis=-1).min(axis=1)
    assert np.count_nonzero(apart < 1e-10) >= len(cell) / 2
    assert apart.max() < 0.5  # atoms on the seam lie between their places on both sides


def test_cutting_is_deterministic(silicon):
    run, centre = _dislocated()
    settings = Cutting(max_atoms=60, candidates=2, steps=5)
    first, second = (cut(run, centre, silicon, settings) for _ in range(2))
    assert (first.positions == second.positions).all()
    assert (first.cell.array == second.cell.array).all()


def test_relaxing_brings_the_filler_down(silicon):
    run, centre = _dislocated()
    settings = {"max_atoms": 100, "candidates": 3, "bound": 1.1}
    as_cut, relaxed = (cut(run, centre, silicon, Cutting(**settings, steps=n)) for n in (1, 60))
    assert relaxed.info["cut_excess"] < 0.8 * as_cut.info["cut_excess"]


def test_relaxing_the_box_keeps_the_environment_too(silicon):
    run, centre = _dislocated()
    cell = cut(run, centre, silicon, Cutting(max_atoms=60, candidates=4, steps=30, bound=1.1, relax_box=True))
    assert cell.info["cut_method"] == "relaxed"
    _assert_kept(silicon, run, centre, cell)


def test_what_is_small_is_returned_whole(silicon):
    run = _crystal((2, 2, 2))
    cell = cut(run, 5, silicon)
    assert (len(cell), cell.info["cut_method"]) == (64, "whole")
    _assert_kept(silicon, run, 5, cell)
    with pytest.raises(Error, match="has 64 atoms, more than max_atoms"):
        cut(run, 5, silicon, Cutting(method="whole", max_atoms=60))


def test_a_molecule_comes_whole_in_vacuum(random_potential):
    potential = random_potential(("H", "O"), level=4, cutoff=3.0, min_distance=0.8)
    water = molecule("H2O")
    potential.select([water])
    rng = np.random.default_rng(0)
    gas = Atoms(cell=[40, 40, 40], pbc=True)
    for place in np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3):
        one = water.copy()
        one.rattle(0.05, rng=rng)
        one.translate(10 * place)
        gas += one
    gas.wrap()
    cell = cut(gas, 30, potential, Cutting(max_atoms=20, vacuum=5.0))
    assert (len(cell), cell.info["cut_method"], cell.pbc.any()) == (3, "cluster", False)
    assert (cell.cell.lengths() > 10).all()
    _assert_kept(potential, gas, 30, cell)


def test_a_molecule_alone_in_its_cell_and_one_without_a_cell_are_clusters(random_potential):
    potential = random_potential(("H", "O"), level=4, cutoff=3.0, min_distance=0.8)
    water = molecule("H2O", vacuum=10.0, pbc=True)
    potential.select([water])
    free = Atoms(water.numbers, water.positions)
    for run in (water, free):
        cell = cut(run, 1, potential, Cutting(method="cluster"))
        assert (len(cell), cell.pbc.any()) == (3, False)
        _assert_kept(potential, run, 1, cell)


def test_a_particle_that_is_no_neighbourhood_is_known_to_its_end(silicon):
    run = _crystal((5, 5, 5))
    run.pbc, run.cell = False, None
    corner = int(np.argmin(run.positions.sum(axis=1)))
    cell = cut(run, corner, silicon, Cutting(max_atoms=60, candidates=2, steps=5))
    assert cell.info["cut_method"] in ("cut", "relaxed")
    _assert_kept(silicon, run, corner, cell)


def test_a_cutoff_that_is_too_long_is_told_with_the_least_number(silicon):
    run, centre = _vacancy()
    with pytest.raises(Error, match="cell of at least [0-9]+ atoms") as refused:
        cut(run, centre, silicon, Cutting(max_atoms=5))
    least = int(str(refused.value).split("at least ")[1].split()[0])
    assert 5 < least < 15  # spheres of 3.3 Å, densely packed, take 2**2.5 * 3.3**3 Å³, ten atoms
    cell = cut(run, centre, silicon, Cutting(max_atoms=least, steps=1))
    _assert_kept(silicon, run, centre, cell)


def test_centres_are_the_highest_and_outside_each_others_environments(silicon):
    run = _crystal((4, 4, 4), rattle=0.15)
    grades = silicon.grade(run).per_atom
    chosen = centres(run, silicon, 1.0)
    assert chosen[0] == np.argmax(grades)
    assert (np.diff(grades[chosen]) <= 0).all()
    distances = run.get_all_distances(mic=True)
    between = distances[np.ix_(chosen, chosen)]
    assert len(chosen) > 1
    assert between[np.triu_indices(len(chosen), 1)].min() > silicon.facts.cutoff
    covered = distances[np.ix_(np.flatnonzero(grades > 1.0), chosen)].min(axis=1)
    assert (covered <= silicon.facts.cutoff).all()
    assert centres(run, silicon, np.inf) == []


@pytest.mark.parametrize("with_box", [False, True])
def test_forces_on_the_filler_are_derivatives(silicon, with_box):
    run, centre = _vacancy()
    cell = cut(run, centre, silicon)
    cell.positions -= cell.positions[0].copy()
    cell.calc = MTP(silicon)
    held = HeldEnvironment(cell, int(cell.arrays["kept"].sum()), silicon.facts.cutoff, with_box)
    start, forces, step = held.get_positions(), held.get_forces(), 1e-4
    assert len(start) == len(held) == len(forces)
    for k in (0, len(start) // 2, len(start) - 1):
        for axis in range(3):
            energies = []
            for sign in (-1, 1):
                moved = start.copy()
                moved[k, axis] += sign * step
                held.set_positions(moved)
                energies.append(held.get_potential_energy())
            # fourth differences of energies of some eV/Å⁴ times step² / 6
            assert forces[k, axis] == pytest.approx(-(energies[1] - energies[0]) / (2 * step), abs=1e-5)


def test_filler_cannot_enter_the_kept_sphere(silicon):
    run, centre = _vacancy()
    cell = cut(run, centre, silicon)
    cell.positions -= cell.positions[0].copy()
    n_kept = int(cell.arrays["kept"].sum())
    kept = cell.positions[:n_kept].copy()
    held = HeldEnvironment(cell, n_kept, 3.3, False)
    held.set_positions(0.3 * held.get_positions())
    assert (cell.positions[:n_kept] == kept).all()
    assert cell.get_distances(0, np.arange(n_kept, len(cell)), mic=True).min() > 3.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"centre": 5000}, r"there is no atom 5000: the configuration has 1727"),
        ({"potential": "mtp"}, r"active set in neighbourhood mode"),
        ({"settings": Cutting(method="crystal"), "run": "dislocation"}, r'take the method "relaxed" or "auto"'),
    ],
)
def test_what_cannot_be_cut_is_told(silicon, change, says):
    run, centre = RUNS[change.get("run", "vacancy")]()
    potential = Potential.load(SILICON.with_suffix(".mtp")) if "potential" in change else silicon
    with pytest.raises(Error, match=says):
        cut(run, change.get("centre", centre), potential, change.get("settings"))


def test_the_command_cuts_given_centres_and_all_above_a_grade(mtp, silicon, tmp_path):
    run, centre = _vacancy()
    ase.io.write(tmp_path / "run.extxyz", run)
    (tmp_path / "cut.toml").write_text("[cutting]\nmax_atoms = 60\nsteps = 5\n")
    common = [
        "cut",
        "run.extxyz",
        "-p",
        SILICON,
        "-o",
        "cells.extxyz",
        "--settings",
        "cut.toml",
        "--json",
        "cells.json",
    ]
    done = mtp(tmp_path, *common, "--centres", f"{centre},500")
    assert done.returncode == 0, done.stderr
    cells = ase.io.read(tmp_path / "cells.extxyz", ":")
    assert [cell.info["cut_centre"] for cell in cells] == [centre, 500]
    assert cells[0].info["run"] == "run.extxyz#1"
    for cell in cells:
        assert len(cell) <= 60
        # eight decimals are written
        assert silicon.grade(cell).per_atom[0] == pytest.approx(cell.info["cut_run_grade"], rel=1e-6)
    told = json.loads((tmp_path / "cells.json").read_text())["cells"]
    assert [cell["atoms"] for cell in told] == [len(cell) for cell in cells]
    highest = silicon.grade(ase.io.read(tmp_path / "run.extxyz")).maximum
    done = mtp(tmp_path, *common, "--above", str(0.999 * highest))
    assert done.returncode == 0, done.stderr
    assert "wrote 1 cells" in done.stdout
    done = mtp(tmp_path, *common, "--centres", "17", "--max-atoms", "8")
    assert done.returncode == 1
    assert "at least" in done.stderr
