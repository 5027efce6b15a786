# SPDX-License-Identifier: BSD-3-Clause
"""Walks: turns begin alike, what is flagged is what LAMMPS had, a walk goes on after a break as the run that it was,
and LAMMPS in this process and elsewhere meet the same."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mtp.configurations import write
from mtp.errors import Error
from mtp.learning.files import FileWalk
from mtp.learning.memory import MemoryWalk
from mtp.learning.scripts import check_vacuum, going_on, marked, scripts, write_data
from mtp.learning.walks import GRADES, histogram
from mtp.potential import Potential
from mtp.settings import Exploration, Selection, Transport
from mtp.structures import explored

SPECIES = ["C", "Si"]
SI = {"diamond": bulk("Si", cubic=True), "two atoms, cutoff beyond the cell, not as LAMMPS wants it": bulk("Si")}
LMP = f'"{Path(sys.executable).parent / "lmp"}"'


def rattled(atoms: Atoms, seed: int, step: float = 0.15) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, step, (len(atoms), 3))
    return atoms


def weak_potential(mode: str) -> Potential:
    """Forces of meV/Å hardly disturb the flight of the atoms, so any run is stable. The active set is a thousandth
    of the true one, so that every configuration is flagged."""
    potential = Potential.new(level=6, species=SPECIES, cutoff=4.5, min_distance=1.5, n_chebyshev=6)
    potential.parameters = 1e-2 * np.random.default_rng(3).normal(0, 0.3, potential.facts.n_parameters)
    configurations = [rattled(bulk("SiC", "zincblende", a=4.8, cubic=True), seed) for seed in range(30)]
    potential.select(configurations, mode)
    potential.set_active_set(1e-3 * potential.active_set, mode)
    return potential


def scaled(potential: Potential, parameters: float, active_set: float) -> Potential:
    other = potential.copy()
    other.parameters = parameters * potential.parameters
    other.set_active_set(active_set * potential.active_set, potential.facts.active_set)
    return other


@pytest.fixture(scope="module", params=["neighbourhood", "configuration"])
def potential(request):
    return weak_potential(request.param)


@pytest.fixture
def walk(potential, tmp_path):
    """Makes walks, begun with the potential (or another), that flag every step, or as told."""
    made = []

    def make(atoms, kind="memory", selection=None, seed=4, turn=0, begun_with=None, largest=None, **exploration):
        number = len(made)
        exploration = {"temperatures": [300.0], "steps": 20, **exploration}
        exploration = {key: value for key, value in exploration.items() if value is not None}
        write(tmp_path / "structure.extxyz", [atoms])
        found = Exploration(file=tmp_path / "structure.extxyz", **exploration)
        data = tmp_path / f"structure_{number}.data"
        write_data(data, explored(found, SPECIES), SPECIES)
        (script,) = scripts(found, data, SPECIES)
        return make.of_script(script, kind, selection, seed, turn, begun_with, largest)

    def of_script(script, kind="memory", selection=None, seed=4, turn=0, begun_with=None, largest=None):
        number = len(made)
        chosen = Selection(**{"interval": 1, "break": 1e30, **(selection or {})})
        if kind == "memory":
            log = tmp_path / f"log_{number}.lammps"
            made.append(MemoryWalk(script, chosen, log, (seed,), MPI.COMM_WORLD, largest))
        else:
            folder = tmp_path / f"walk_{number}"
            made.append(FileWalk(script, chosen, folder, (seed,), MPI.COMM_WORLD, LMP, largest))
        first = begun_with or potential
        made[-1].begin(first, save(first, tmp_path / f"potential with a space {number}.almtp"), turn)
        return made[-1]

    make.of_script = of_script
    yield make
    for each in made:
        each.close()


def save(potential: Potential, path: Path) -> Path:
    potential.save(path)
    return path


def cell_and_places(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """What a rotation leaves: edges and angles of the cell, and the fractional coordinates near the origin."""
    places = atoms.get_scaled_positions()
    return atoms.cell.cellpar(), places - np.round(places - 0.3)


def final_positions(walk: MemoryWalk) -> np.ndarray:
    return np.reshape(walk._lammps.gather_atoms("x", 1, 3), (-1, 3))


def moved(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Differences of the positions relative to the first atom, less the edges of a cell of 5.43 Å or a little more."""
    shift = (found - found[0]) - (expected - expected[0])
    return np.where(np.abs(shift) < 1, shift, np.abs(shift) - np.abs(shift).max())


# ---- one walk


@pytest.mark.parametrize("atoms", SI.values(), ids=SI.keys())
def test_the_same_turn_is_the_same_walk_and_another_begins_at_the_same_place(walk, atoms):
    atoms = rattled(atoms, 0, 0.05)
    first, again = walk(atoms).go_on(), walk(atoms).go_on()
    assert first.flagged[0].info["step"] == 0
    for found, expected in zip(cell_and_places(first.flagged[0]), cell_and_places(atoms), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)  # degrees and fractions; eight digits of extxyz
    np.testing.assert_array_equal(again.flagged[-1].positions, first.flagged[-1].positions)
    other = walk(atoms, turn=1).go_on()
    np.testing.assert_array_equal(other.flagged[0].positions, first.flagged[0].positions)
    assert np.abs(other.flagged[-1].positions - first.flagged[-1].positions).max() > 1e-3


@pytest.mark.parametrize("atoms", SI.values(), ids=SI.keys())
@pytest.mark.parametrize("pressure", [None, 5.0])
def test_flagged_configurations_are_whole_and_their_grades_are_python_s(walk, potential, atoms, pressure):
    walking = walk(atoms, selection={"interval": 5}, pressure_GPa=pressure)
    passage = walking.go_on()
    assert passage.finished
    assert (passage.begin, passage.end) == (0, 20)
    assert [flagged.info["step"] for flagged in passage.flagged] == [0, 5, 10, 15, 20]
    assert passage.highest_grade == max(flagged.info["grade"] for flagged in passage.flagged)
    assert passage.histogram == histogram(flagged.info["grade"] for flagged in passage.flagged)
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


def test_a_histogram_counts_every_grade_once():
    assert histogram([0.5, 1.001, 1.2, 10.0, 10.1, 1e9]) == [2, 1, 0, 0, 0, 1, 1, 0, 0, 1]
    assert len(histogram([])) == len(GRADES) + 1


def test_a_walk_stops_at_the_break_be_it_the_start(walk):
    walking = walk(SI["diamond"], selection={"interval": 5, "break": 2.0})
    passage = walking.go_on()
    assert not passage.finished
    assert (passage.break_step, passage.end, passage.failure) == (0, 0, None)
    assert [flagged.info["step"] for flagged in passage.flagged] == [0]
    again = walking.go_on()
    assert (again.break_step, again.highest_grade) == (0, passage.highest_grade)


def test_a_walk_stops_at_the_first_grade_above_the_break(walk):
    atoms = rattled(SI["diamond"], 1, 0.05)
    free = walk(atoms, selection={"interval": 5}, steps=100).go_on()
    threshold = 0.999 * free.highest_grade
    first = next(flagged.info["step"] for flagged in free.flagged if flagged.info["grade"] > threshold)
    stopped = walk(atoms, selection={"interval": 5, "break": threshold}, steps=100).go_on()
    assert stopped.break_step == stopped.end == stopped.flagged[-1].info["step"] == first


def test_at_most_the_capacity_is_kept_and_the_rest_counted(walk):
    passage = walk(SI["diamond"], selection={"capacity": 3}).go_on()
    assert (len(passage.flagged), passage.n_dropped) == (3, 18)  # of the start and 20 steps


def test_a_failure_is_told_what_was_flagged_is_kept_and_the_walk_begins_again(walk, potential, tmp_path):
    walking = walk(rattled(SI["diamond"], 1), steps=2000, timestep=50.0)
    passage = walking.go_on()
    assert "ERROR" in passage.failure
    assert not passage.finished
    assert passage.break_step is None
    assert passage.end < 2000
    for flagged in passage.flagged:
        assert len(flagged) == 8
    assert walking.take(potential, save(potential, tmp_path / "next.almtp")) == 0
    again = walking.go_on()
    assert (again.begin, again.end) == (0, passage.end)


def test_pieces_of_a_walk_make_the_whole(walk):
    whole, pieces = walk(SI["diamond"]), walk(SI["diamond"])
    whole.go_on()
    ends = []
    while not (passage := pieces.go_on(8)).finished:
        ends.append(passage.end)
    assert ends == [8, 16]
    # a new setup changes the order of neighbours, and with it sums in their last bit
    np.testing.assert_allclose(moved(final_positions(pieces), final_positions(whole)), 0, atol=1e-10)


def test_options_of_lammps_command_line_reach_it_in_memory(potential, tmp_path):
    (tmp_path / "user.in").write_text(INPUT.replace("mass 1 28.085", "mass 1 ${mass}"))
    script = marked(tmp_path / "user.in", SPECIES)
    options = "-var mass 28.085 -nocite"
    walking = MemoryWalk(script, Selection(), tmp_path / "log", (4,), MPI.COMM_WORLD, options=options)
    walking.begin(potential, save(potential, tmp_path / "first.almtp"), 0)
    walking.close()
    with pytest.raises(ValueError, match="stand in `command`"):
        Transport(type="files", command="lmp", options="-k on t 2 -sf kk")


# ---- learning on the way


def learned_on_the_way(walking, potential, folder):
    """A walk to its end, with another potential at each break; the breaks, each with the first step above it where that
    was looked for, and the potentials and when they came."""
    breaks, swaps = [], [(0, potential)]
    while not (passage := walking.go_on()).finished:
        assert passage.failure is None
        following = scaled(potential, 1 + 0.05 * len(swaps), 1.4 ** len(swaps))
        step = walking.take(following, save(following, folder / f"{len(swaps)}.almtp"))
        assert step <= passage.break_step
        breaks.append((passage.break_step, passage.retraced and passage.retraced["step"]))
        swaps.append((step, following))
    return breaks, swaps, passage


@pytest.fixture
def thresholds(walk):
    """A selection that a hot walk passes more than once."""
    grades = [a.info["grade"] for a in walk(SI["diamond"], temperatures=[1500.0], steps=100).go_on().flagged]
    return {"select": np.quantile(grades, 0.5), "break": np.quantile(grades, 0.7), "interval": 5}


@pytest.mark.parametrize("pressure", [None, 1.0])
def test_a_walk_that_has_learned_is_the_replay_with_the_same_potentials(
    walk, potential, tmp_path, thresholds, pressure
):
    hot = {"temperatures": [1500.0], "steps": 200, "pressure_GPa": pressure}
    walking = walk(SI["diamond"], selection=thresholds, **hot)
    breaks, swaps, _ = learned_on_the_way(walking, potential, tmp_path)
    assert len(breaks) >= 2
    assert walking._lammps.version() > 0  # the LAMMPS object of the beginning

    replay = walk(SI["diamond"], selection={**thresholds, "break": 1e30}, **hot)
    steps = [step for step, _ in swaps[1:]] + [200]
    for end, (begin, following) in zip(steps, swaps, strict=True):
        replay.take(following, save(following, tmp_path / "replayed.almtp"))
        if end > begin:
            assert replay.go_on(end - begin).end == end
    # the order of neighbours differs after a setup; in 200 steps of weak forces rounding grows little
    np.testing.assert_allclose(moved(final_positions(replay), final_positions(walking)), 0, atol=1e-9)


def test_lammps_elsewhere_meets_the_same(walk, potential, tmp_path, thresholds):
    hot = {"temperatures": [1500.0], "steps": 200, "pressure_GPa": 1.0, "selection": thresholds}
    found = []
    for kind in ("memory", "files"):
        folder = tmp_path / kind
        folder.mkdir()
        walking = walk(SI["diamond"], kind=kind, **hot)
        found.append(learned_on_the_way(walking, potential, folder))
    (breaks, swaps, last), (breaks_elsewhere, swaps_elsewhere, last_elsewhere) = found
    assert breaks_elsewhere == breaks
    assert [step for step, _ in swaps_elsewhere] == [step for step, _ in swaps]
    assert last_elsewhere.histogram == last.histogram
    assert len(last_elsewhere.flagged) == len(last.flagged)
    for elsewhere, here in zip(last_elsewhere.flagged, last.flagged, strict=True):
        assert elsewhere.info["step"] == here.info["step"]
        assert elsewhere.info["grade"] == pytest.approx(here.info["grade"], rel=1e-7)
        np.testing.assert_allclose(elsewhere.cell, here.cell, rtol=0, atol=1e-9)
        shift = elsewhere.get_scaled_positions() - here.get_scaled_positions()
        np.testing.assert_allclose(shift, np.round(shift), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_the_candidate_of_a_break_is_the_first_step_above_it_on_the_path(walk, kind):
    hot = {"temperatures": [1500.0], "steps": 100}
    path = walk(SI["diamond"], **hot).go_on()  # graded at each step
    grades = {atoms.info["step"]: atoms.info["grade"] for atoms in path.flagged}
    seen = {step: grade for step, grade in grades.items() if step % 25 == 0}
    assert seen[75] > 30 * seen[50]
    thresholds = {"select": np.sqrt(seen[25] * seen[50]), "break": seen[75] / 20}
    first = min(step for step, grade in grades.items() if grade > thresholds["break"])
    assert 50 < first < 75

    passage = walk(SI["diamond"], kind=kind, selection={"interval": 25, **thresholds}, **hot).go_on()
    assert (passage.break_step, passage.end) == (75, 75)
    assert passage.highest_grade == pytest.approx(seen[75], rel=1e-7)  # sums in another order, amplified
    assert passage.histogram == histogram(seen[step] for step in (0, 25, 50, 75))
    assert passage.retraced == {"step": first, "grade": pytest.approx(grades[first], rel=1e-7)}
    assert [atoms.info["step"] for atoms in passage.flagged] == [50, first]
    found, expected = passage.flagged[-1], next(atoms for atoms in path.flagged if atoms.info["step"] == first)
    assert found.info["grade"] == pytest.approx(grades[first], rel=1e-7)
    shift = found.get_scaled_positions() - expected.get_scaled_positions()
    np.testing.assert_allclose(shift, np.round(shift), rtol=0, atol=1e-9)


NOISE = """
units metal
atom_modify map array
boundary p p p
read_data silicon.data
# mtp: potential Si
velocity all create 1500 ${seed}
fix 1 all nve
fix 2 all langevin 1500 1500 0.02 ${seed}
# mtp: run 200
"""


@pytest.mark.parametrize("potential", ["neighbourhood"], indirect=True)
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_random_numbers_may_lead_around_a_break_and_the_walk_goes_on(walk, potential, tmp_path, kind):
    """The steps that are walked once more are others then: what is taken passed `break` all the same."""
    write_data(tmp_path / "silicon.data", SI["diamond"], ["Si"])
    (tmp_path / "noise.in").write_text(NOISE)
    script = marked(tmp_path / "noise.in", SPECIES)
    grades = [atoms.info["grade"] for atoms in walk.of_script(script).go_on().flagged]
    thresholds = {"select": np.quantile(grades, 0.3), "break": np.quantile(grades, 0.5)}
    walking = walk.of_script(script, kind, {**thresholds, "interval": 10})
    breaks = 0
    while not (passage := walking.go_on()).finished and breaks < 8:
        breaks += 1
        assert passage.failure is None
        last = passage.flagged[-1].info
        assert last["grade"] > thresholds["break"]
        if passage.retraced is not None:
            assert passage.retraced == {key: last[key] for key in ("step", "grade")}
            assert last["step"] <= passage.break_step
        else:
            assert last["step"] == passage.break_step
        back = walking.take(potential, save(potential, tmp_path / "same.almtp"))
        assert back <= passage.break_step  # that step itself, where the other way there can be trusted
    assert breaks


@pytest.mark.parametrize("potential", ["neighbourhood"], indirect=True)
@pytest.mark.parametrize("repeat", [(3, 3, 3), (3, 2, 2)], ids=["within the box", "images too"])
def test_of_large_runs_elsewhere_the_same_neighbourhoods_are_kept(walk, repeat):
    atoms = rattled(SI["diamond"].repeat(repeat), 1, 0.05)
    kept = []
    for kind in ("memory", "files"):
        passage = walk(atoms, kind=kind, largest=20, steps=4, selection={"capacity": 40}).go_on()
        kept.append(sorted(passage.flagged, key=lambda found: (found.info["step"], found.info["tag"])))
    for here, elsewhere in zip(*kept, strict=True):
        assert [elsewhere.info[key] for key in ("step", "tag")] == [here.info[key] for key in ("step", "tag")]
        assert elsewhere.info["grade"] == pytest.approx(here.info["grade"], rel=1e-7)
        np.testing.assert_array_equal(elsewhere.numbers, here.numbers)
        np.testing.assert_allclose(elsewhere.positions, here.positions, rtol=0, atol=1e-8)
        np.testing.assert_allclose(elsewhere.info["run_cell"], here.info["run_cell"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("potential", ["neighbourhood"], indirect=True)
def test_what_is_kept_elsewhere_is_bounded_however_many_atoms_are_flagged(walk, monkeypatch, tmp_path):
    """On disc by frames, of which the last stay, and in memory by neighbourhoods."""
    atoms = rattled(SI["diamond"].repeat(3), 1, 0.05)
    monkeypatch.setattr("mtp.learning.files.ATOMS_ON_DISC", 5 * len(atoms))
    on_disc, in_memory = [], []
    read, parts = FileWalk._read, FileWalk._parts

    def counted(self, place, *rest):
        on_disc.append(sum(path.read_text().count("\n") - 9 for path in place.glob("flagged.*.dump")))
        return read(self, place, *rest)

    def weighed(self, *rest):
        found = parts(self, *rest)
        in_memory.append(len(found))
        return found

    monkeypatch.setattr(FileWalk, "_read", counted)
    monkeypatch.setattr(FileWalk, "_parts", weighed)
    passage = walk(atoms, kind="files", largest=20, steps=20, selection={"capacity": 7}).go_on()
    assert on_disc == [5 * len(atoms)]  # of 21 frames, in all of which every atom is flagged
    assert len(in_memory) == 5
    assert max(in_memory) <= 16
    assert len(passage.flagged) == 7
    assert passage.n_dropped == sum(in_memory) - 7 + 16
    assert max(map(len, passage.flagged)) < len(atoms) * 3
    assert list(tmp_path.glob("**/flagged.*")) == []
    assert min(found.info["step"] for found in passage.flagged) >= 16


# ---- kinds of walks


def test_a_ramp_heats_and_a_strain_rate_strains(walk):
    ramp = walk(
        SI["diamond"].repeat(2), temperatures=None, ramps=[(100.0, 900.0)], steps=400, selection={"interval": 400}
    )
    ramp.go_on()
    assert 500 < ramp._lammps.get_thermo("temp") < 1500  # 64 atoms scatter by some 80 K
    strained = walk(SI["diamond"], strain_rate=(0.5, 0.0, 0.0, 0.0, 0.0, 0.2), steps=100, selection={"interval": 100})
    last = strained.go_on().flagged[-1].cell
    a = SI["diamond"].cell[0, 0]
    # the box of step 99: it is strained at the end of each step
    expected = [(1 + 0.5 * 0.099) * a, a, 0.2 * 0.099 * a]
    np.testing.assert_allclose([last[0, 0], last[1, 1], last[1, 0]], expected, rtol=0, atol=1e-6)


def test_temperatures_and_pressures_make_as_many_walks():
    crystal = {"name": "Si", "structure": "diamond", "a": 5.43}
    exploration = Exploration(
        crystal=crystal, temperatures=[300, 600], ramps=[(300, 900)], pressure_GPa=[0.0, 5.0], steps=10
    )
    titles = [script.title for script in scripts(exploration, Path("a.data"), ["Si"])]
    ramp = ["300 to 900 K, 0 GPa", "300 to 900 K, 5 GPa"]
    assert titles == ["300 K, 0 GPa", "300 K, 5 GPa", "600 K, 0 GPa", "600 K, 5 GPa", *ramp]


def slab(vacuum: float = 12.0) -> Atoms:
    atoms = SI["diamond"].copy()
    atoms.center(vacuum=vacuum / 2, axis=2)
    return atoms


def test_a_pressure_leaves_the_vacuum_of_a_slab_alone(walk):
    along = {"pressure_GPa": -20.0, "pressure_along": ["x", "y"], "steps": 50, "selection": {"interval": 50}}
    last = walk(slab(), **along).go_on().flagged[-1].cell.lengths()
    first = slab().cell.lengths()
    assert last[2] == pytest.approx(first[2], abs=1e-9)
    assert (last[:2] > 1.0001 * first[:2]).all()


def test_a_pressure_that_would_squeeze_vacuum_is_refused():
    def exploration(**more) -> Exploration:
        return Exploration(file="slab.cif", temperatures=[300.0], steps=10, **more)

    both = {"pressure_GPa": 0.0, "strain_rate": (0.0, 0.0, 0.1, 0.0, 0.0, 0.0)}
    for allowed in ({}, {"pressure_GPa": 0.0, "pressure_along": ["x", "y"]}, both):
        check_vacuum(exploration(**allowed), slab())
    check_vacuum(exploration(pressure_GPa=0.0), slab(5.0))
    for refused in ({"pressure_GPa": 0.0}, both | {"strain_rate": (0.1, 0.0, 0.0, 0.0, 0.0, 0.0)}):
        with pytest.raises(Error, match="1[234] Å of the cell along z are vacuum, which `pressure_GPa` would squeeze"):
            check_vacuum(exploration(**refused), slab())


# ---- inputs of users

INPUT = """
units metal
atom_style atomic
lattice diamond 5.43
region box block 0 1 0 1 0 1
create_box 1 box
create_atoms 1 &
    box
mass 1 28.085
variable repeated loop 3
label again
next repeated
jump SELF again
# mtp: potential Si
velocity all create 600 ${seed}
timestep 0.001
fix 1 all nve
fix 2 all langevin 600 600 0.1 ${seed}
dump 1 all custom 10 user.dump id x
# mtp: run 40
print "after the run" file after.txt
"""


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_user_s_input_runs_untouched(walk, tmp_path, kind):
    (tmp_path / "user.in").write_text(INPUT)
    script = marked(tmp_path / "user.in", SPECIES)
    assert (script.title, script.steps, script.elements) == ("user.in", 40, ["Si"])
    passage = walk.of_script(script, kind, {"interval": 10}).go_on()
    assert passage.finished
    assert [flagged.info["step"] for flagged in passage.flagged] == [0, 10, 20, 30, 40]
    assert str(passage.flagged[0].symbols) == "Si8"
    assert (tmp_path / "after.txt").read_text() == "after the run\n"
    assert (tmp_path / "user.dump").exists()


def test_a_run_that_the_input_halts_is_at_its_end(walk, tmp_path):
    halt = "variable late equal step>=15\nfix 3 all halt 5 v_late == 1 error continue message no\n# mtp: run 40"
    (tmp_path / "user.in").write_text(INPUT.replace("# mtp: run 40", halt))
    walking = walk.of_script(marked(tmp_path / "user.in", SPECIES))
    ends = [walking.go_on(10)]
    assert not ends[0].finished
    last = walking.go_on(10)
    assert (last.end, last.failure, last.finished) == (15, None, True)
    assert (tmp_path / "after.txt").exists()


def test_what_follows_the_run_is_neither_watched_nor_rolled_back(walk, tmp_path):
    rest = 'minimize 0 0 3 3\nrun 7\nprint "after $(step)"'
    (tmp_path / "user.in").write_text(INPUT.replace('print "after the run"', rest))
    walking = walk.of_script(marked(tmp_path / "user.in", SPECIES), selection={"capacity": 100})
    passage = walking.go_on()
    assert passage.finished
    assert passage.flagged[-1].info["step"] == 40
    assert int((tmp_path / "after.txt").read_text().split()[-1]) >= 47
    assert walking._style.facts.n_flagged == 41


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("# mtp: potential Si", ""), "wants two marks"),
        (("# mtp: run 40", "# mtp: run"), "wants the number of steps"),
        (("# mtp: potential Si", "# mtp: potential Ge"), "user.in:14: Ge is not among"),
        (("# mtp: run 40", "# mtp: run 40\n# mtp: run 40"), "wants two marks"),
    ],
)
def test_marks_that_make_no_sense_are_refused(tmp_path, change, says):
    (tmp_path / "user.in").write_text(INPUT.replace(*change))
    with pytest.raises(Error, match=says):
        marked(tmp_path / "user.in", SPECIES)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_fixes_that_cannot_be_rolled_back_are_refused_by_name(walk, tmp_path, kind):
    (tmp_path / "user.in").write_text(
        INPUT.replace("fix 1 all nve", "fix 1 all nve\nfix 3 all ave/time 1 1 10 c_thermo_pe")
    )
    passage = walk.of_script(marked(tmp_path / "user.in", SPECIES), kind).go_on()
    assert "fix 3 of style ave/time cannot be rolled back" in passage.failure


def test_commands_that_fail_are_told_with_lammps_own_words(walk, tmp_path):
    (tmp_path / "user.in").write_text(INPUT.replace("mass 1", "maass 1"))
    with pytest.raises(Error, match="user.in: LAMMPS: ERROR: Unknown command: maass"):
        walk.of_script(marked(tmp_path / "user.in", SPECIES))


FAILING_RANK = """
from pathlib import Path
import mpi4py.MPI as MPI
from mtp.learning.memory import MemoryWalk
from mtp.learning.scripts import marked
from mtp.potential import Potential
from mtp.settings import Selection

path = Path("zero.almtp").absolute()
potential = Potential.load(path)
script = marked(Path("user.in").absolute(), ["C", "Si"])
walk = MemoryWalk(script, Selection(), Path("log.lammps"), (1,), MPI.COMM_WORLD)
walk.begin(potential, path, 0)
walk.go_on()
"""


@pytest.mark.parametrize("where", ["before the run", "in the run"])
def test_an_error_of_lammps_on_one_rank_ends_all_with_its_message(tmp_path, potential, where):
    save(potential, tmp_path / "zero.almtp")
    early = "run 0\n" if where == "before the run" else ""
    force = f"variable f atom sqrt(12-x)\nfix 4 all addforce v_f 0 0\n{early}"
    text = INPUT.replace("box block 0 1 0", "box block 0 4 0").replace("# mtp: run", f"{force}\n# mtp: run")
    (tmp_path / "user.in").write_text("processors 2 1 1\n" + text)
    command = [Path(sys.executable).parent / "mpiexec", "-n", "2", sys.executable, "-c", FAILING_RANK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "mtp: rank 1: user.in: ERROR on proc 1" in done.stderr
    assert "Sqrt of negative value" in done.stderr


def test_a_run_goes_on_without_what_makes_or_changes_atoms():
    text = "units metal\nread_data a &\n  nocoeff\nmass 1 1\nvelocity all create 1 1\ncreate_box 1 x\n"
    assert going_on(text, Path("r")) == 'units metal\nread_restart "r"\nmass 1 1\n'
    assert going_on("velocity all zero\nfix 1 all nve\n", None) == "fix 1 all nve\n"
    with pytest.raises(Error, match="no command makes a box"):
        going_on("include all.in\n", Path("r"))


def test_a_run_that_goes_on_keeps_settings_and_appends_to_files():
    text = "dump 1 all custom 10 a.dump &\n  id\ndump 2 all cfg 10 a.*.cfg mass\nfix_modify 1 temp new\n"
    appended = text.replace("  id\n", "  id\ndump_modify 1 append yes\n")
    assert going_on(text, None) == appended
    assert going_on('fix p all print 5 "file file" screen no file out.txt\n', None) == (
        'fix p all print 5 "file file" screen no append out.txt\n'
    )
    groups = "group slab type 1\ngroup hot dynamic all var v\nread_dump a.dump 0 x y z\n"
    assert going_on(groups, None) == "group hot dynamic all var v\n"


def in_pieces(walking, steps: int) -> list[int]:
    ends = []
    while not (passage := walking.go_on(steps)).finished:
        assert passage.failure is None
        ends.append(passage.end)
    return [*ends, passage.end]


def test_a_user_s_files_and_groups_last_over_pieces_elsewhere(walk, tmp_path):
    more = "group one id 1\ndump 1 one custom 10"
    text = INPUT.replace("dump 1 all custom 10", more).replace(
        "# mtp: run", 'fix p all print 10 "$(step)" file steps.txt screen no\n# mtp: run'
    )
    (tmp_path / "user.in").write_text(text)
    walking = walk.of_script(marked(tmp_path / "user.in", SPECIES), "files", {"interval": 10})
    assert in_pieces(walking, 20) == [20, 40]
    lines = (tmp_path / "user.dump").read_text().splitlines()
    steps = [int(after) for line, after in pairwise(lines) if line == "ITEM: TIMESTEP"]
    assert sorted(set(steps)) == [0, 10, 20, 30, 40]
    atoms = [after for line, after in pairwise(lines) if line == "ITEM: NUMBER OF ATOMS"]
    assert set(atoms) == {"1"}
    printed = [line for line in (tmp_path / "steps.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(set(printed), key=int) == ["0", "10", "20", "30", "40"]


def test_each_piece_elsewhere_has_a_seed_of_its_own_and_the_same_again(walk, tmp_path):
    (tmp_path / "user.in").write_text(INPUT)
    found = []
    for _ in range(2):
        walking = walk.of_script(marked(tmp_path / "user.in", SPECIES), "files", {"interval": 10})
        in_pieces(walking, 20)
        inputs = sorted(walking._place.glob("piece_*/in.lammps"))
        assert [path.parent.name for path in inputs] == ["piece_000000", "piece_000001"]
        found.append([next(line for line in path.read_text().splitlines() if "seed" in line) for path in inputs])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_run_that_fix_halt_ends_is_over_elsewhere(walk, tmp_path):
    halt = "variable now equal step\nfix 3 all halt 10 v_now > 25 error soft message no\n# mtp: run"
    (tmp_path / "user.in").write_text(INPUT.replace("# mtp: run", halt))
    walking = walk.of_script(marked(tmp_path / "user.in", SPECIES), "files", {"interval": 10})
    assert in_pieces(walking, 20) == [20, 30]
    assert (tmp_path / "after.txt").exists()


def test_what_follows_the_run_elsewhere_is_free_of_the_loop_and_its_failure_is_an_error(walk, tmp_path):
    rest = "pair_style zero 4.0\npair_coeff * *\nfix 4 all ave/time 1 1 10 c_thermo_temp\nrun 3\nprint"
    (tmp_path / "user.in").write_text(INPUT.replace("print", rest))
    assert walk.of_script(marked(tmp_path / "user.in", SPECIES), "files").go_on().finished
    assert (tmp_path / "after.txt").exists()

    (tmp_path / "user.in").write_text(INPUT.replace("print", "prnt"))
    walking = walk.of_script(marked(tmp_path / "user.in", SPECIES), "files")
    with pytest.raises(Error, match=r"user.in: LAMMPS, after the run: ERROR: Unknown command: prnt .*failed_0_"):
        walking.go_on()


def test_files_of_a_piece_that_failed_elsewhere_stay(walk, potential, tmp_path):
    walking = walk(rattled(SI["diamond"], 1), kind="files", steps=2000, timestep=50.0, selection={"interval": 10})
    assert "ERROR" in walking.go_on().failure
    walking.take(potential, save(potential, tmp_path / "next.almtp"))
    (kept,) = walking._folder.glob("failed_0_*")
    piece = kept / "piece_000000"
    assert "ERROR" in (piece / "log.lammps").read_text()
    assert f"{piece}/restart" in (piece / "in.lammps").read_text()
    assert [path.name[:7] for path in walking._folder.glob("turn_*")] == ["turn_0_"]


def test_of_a_walk_that_fails_again_and_again_the_last_files_stay(walk, potential, tmp_path, monkeypatch):
    monkeypatch.setattr("mtp.learning.files.FAILURES", 2)
    walking = walk(rattled(SI["diamond"], 1), kind="files", steps=2000, timestep=50.0, selection={"interval": 10})
    kept = []
    for _ in range(3):
        assert "ERROR" in walking.go_on().failure
        kept.append(set(walking._folder.glob("failed_*")))
        walking.take(potential, save(potential, tmp_path / "next.almtp"))
    assert [len(folders) for folders in kept] == [1, 2, 2]
    assert not kept[0] & kept[2]


def test_structures_that_are_not_periodic_or_have_other_elements_are_refused(tmp_path):
    slab = SI["diamond"].copy()
    slab.pbc = [True, True, False]
    with pytest.raises(Error, match="periodic in three directions; add vacuum"):
        write_data(tmp_path / "data", slab, SPECIES)
    with pytest.raises(Error, match="periodic in three directions"):
        write_data(tmp_path / "data", Atoms("Si", pbc=True), SPECIES)
    with pytest.raises(Error, match="Ge"):
        write_data(tmp_path / "data", bulk("Ge", cubic=True), SPECIES)
