# SPDX-License-Identifier: BSD-3-Clause
"""Explorer: each run begins alike, what it flags is what LAMMPS had, and new potentials arrive in memory."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mtp.errors import Error
from mtp.exploration import Explorer
from mtp.potential import Potential
from mtp.settings import Selection

SI = {"diamond": bulk("Si", cubic=True), "two atoms, cutoff beyond the cell, not as LAMMPS wants it": bulk("Si")}
RUN = {"temperature": 300, "steps": 20, "timestep": 1e-3, "pressure_GPa": None, "seed": 4}


def rattled(atoms: Atoms, seed: int, step: float = 0.15) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, step, (len(atoms), 3))
    return atoms


def weak_potential(mode: str) -> Potential:
    """Forces of meV/Å hardly disturb the flight of the atoms, so any run is stable. The active set is a thousandth
    of the true one, so that every configuration is flagged."""
    potential = Potential.new(level=6, species=["C", "Si"], cutoff=4.5, min_distance=1.5, n_chebyshev=6)
    potential.parameters = 1e-2 * np.random.default_rng(3).normal(0, 0.3, potential.facts.n_parameters)
    configurations = [rattled(bulk("SiC", "zincblende", a=4.8, cubic=True), seed) for seed in range(30)]
    potential.select(configurations, mode)
    potential.set_active_set(1e-3 * potential.active_set, mode)
    return potential


@pytest.fixture(scope="module", params=["neighbourhood", "configuration"])
def potential(request):
    return weak_potential(request.param)


@pytest.fixture
def explorer(potential, tmp_path):
    """Makes explorers that flag every step, or as told."""
    made = []

    def make(atoms, **selection):
        path = tmp_path / "potential with a space.almtp"
        potential.save(path)
        chosen = Selection(**{"interval": 1, "break": 1e30, **selection})
        made.append(Explorer(atoms, potential, path, chosen, tmp_path / "log.lammps"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def cell_and_places(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """What a rotation leaves: edges and angles of the cell, and the fractional coordinates near the origin."""
    places = atoms.get_scaled_positions()
    return atoms.cell.cellpar(), places - np.round(places - 0.3)


@pytest.mark.parametrize("atoms", SI.values(), ids=SI.keys())
def test_every_run_begins_with_the_same_box_and_positions(explorer, atoms):
    atoms = rattled(atoms, 0, 0.05)
    exploring = explorer(atoms)
    first = exploring.run(**RUN).flagged[0]
    assert first.info["step"] == 0
    for found, expected in zip(cell_and_places(first), cell_and_places(atoms), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)  # degrees and fractions after a rotation
    squeezed = exploring.run(**{**RUN, "pressure_GPa": 20, "steps": 300})
    assert squeezed.flagged[-1].get_volume() < 0.99 * atoms.get_volume()
    again = exploring.run(**RUN).flagged[0]
    # the box of 5 Å and the positions are set, not integrated back: rounding alone, 1e-15 of them
    np.testing.assert_allclose(again.cell, first.cell, rtol=0, atol=1e-13)
    np.testing.assert_allclose(again.positions, first.positions, rtol=0, atol=1e-13)


@pytest.mark.parametrize("atoms", SI.values(), ids=SI.keys())
@pytest.mark.parametrize("pressure", [None, 5.0])
def test_flagged_configurations_are_whole_and_their_grades_are_python_s(explorer, potential, atoms, pressure):
    exploring = explorer(atoms, interval=5)
    passage = exploring.run(**{**RUN, "pressure_GPa": pressure})
    assert passage.complete
    assert passage.steps == 20
    assert [flagged.info["step"] for flagged in passage.flagged] == [0, 5, 10, 15, 20]
    assert passage.highest_grade == max(flagged.info["grade"] for flagged in passage.flagged)
    for flagged in passage.flagged:
        assert list(flagged.symbols) == list(atoms.symbols)
        assert flagged.pbc.all()
        if pressure is None:
            np.testing.assert_allclose(flagged.cell.cellpar(), atoms.cell.cellpar(), rtol=1e-12)
        grades = potential.grade(flagged)
        # both compute the same sums in another order; the inverse of the active set amplifies rounding
        assert flagged.info["grade"] == pytest.approx(grades.maximum, rel=1e-8)
        if grades.per_atom is not None:
            np.testing.assert_allclose(flagged.arrays["grade"], grades.per_atom, rtol=0, atol=1e-8 * grades.maximum)
    last = passage.flagged[-1]
    positions = np.reshape(exploring._lammps.gather_atoms("x", 1, 3), (-1, 3))
    moved = last.positions - positions  # LAMMPS' box begins elsewhere when the pressure has changed it
    shifts = np.linalg.solve(last.cell.T, (moved - moved[0]).T).T
    np.testing.assert_allclose(shifts, np.round(shifts), rtol=0, atol=1e-12)  # whole cells; rounding of 1e-16 of 5 Å
    energy = exploring._lammps.get_thermo("pe")
    assert energy == pytest.approx(potential.evaluate(last).energy, rel=1e-10)  # sums in another order


def test_a_new_potential_arrives_in_the_running_lammps(explorer, potential):
    exploring = explorer(SI["diamond"])
    exploring.run(**RUN)
    other = potential.copy()
    other.parameters = 1.7 * potential.parameters
    other.set_active_set(3 * potential.active_set, potential.facts.active_set)
    exploring.set_potential(other)
    passage = exploring.run(**RUN)
    last = passage.flagged[-1]
    energies = {name: p.evaluate(last).energy for name, p in (("old", potential), ("new", other))}
    assert abs(energies["old"] - energies["new"]) > 1e-3 * abs(energies["new"])
    assert exploring._lammps.get_thermo("pe") == pytest.approx(energies["new"], rel=1e-10)  # sums in another order
    assert last.info["grade"] == pytest.approx(other.grade(last).maximum, rel=1e-8)


def test_a_run_stops_at_the_break_be_it_the_start(explorer):
    exploring = explorer(SI["diamond"], interval=5, **{"break": 2.0})
    passage = exploring.run(**RUN)
    assert not passage.complete
    assert (passage.break_step, passage.steps, passage.failure) == (0, 0, None)
    assert [flagged.info["step"] for flagged in passage.flagged] == [0]
    again = exploring.run(**RUN)
    assert (again.break_step, again.highest_grade) == (0, passage.highest_grade)


def test_a_run_stops_at_the_first_grade_above_the_break(explorer):
    atoms = rattled(SI["diamond"], 1, 0.05)
    free = explorer(atoms, interval=5).run(**{**RUN, "steps": 100})
    threshold = 0.999 * free.highest_grade
    first = next(flagged.info["step"] for flagged in free.flagged if flagged.info["grade"] > threshold)
    stopped = explorer(atoms, interval=5, **{"break": threshold}).run(**{**RUN, "steps": 100})
    assert stopped.break_step == stopped.steps == stopped.flagged[-1].info["step"] == first


def test_at_most_the_capacity_is_kept_and_the_rest_counted(explorer):
    passage = explorer(SI["diamond"], capacity=3).run(**RUN)
    assert (len(passage.flagged), passage.n_dropped) == (3, 18)  # of the start and 20 steps


def test_a_failure_of_lammps_is_told_and_what_was_flagged_is_kept(explorer):
    exploring = explorer(rattled(SI["diamond"], 1), interval=1)
    passage = exploring.run(**{**RUN, "steps": 2000, "timestep": 50.0})
    assert passage.failure
    assert not passage.complete
    assert passage.break_step is None
    assert passage.steps < 2000
    for flagged in passage.flagged:
        assert len(flagged) == 8
    assert explorer(SI["diamond"]).run(**RUN).complete  # another LAMMPS is not concerned


def test_structures_that_are_not_periodic_or_have_other_elements_are_refused(explorer):
    slab = SI["diamond"].copy()
    slab.pbc = [True, True, False]
    with pytest.raises(Error, match="periodic in three directions; add vacuum"):
        explorer(slab)
    with pytest.raises(Error, match="periodic in three directions"):
        explorer(Atoms("Si", pbc=True))
    with pytest.raises(Error, match="Ge"):
        explorer(bulk("Ge", cubic=True))
