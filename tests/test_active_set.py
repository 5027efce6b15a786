# SPDX-License-Identifier: BSD-3-Clause
"""Active sets and extrapolation grades: the laws of maximum volume, then the grades that MLIP-2 gave."""

import numpy as np
import pytest
from ase import Atoms

from mtp.configurations import read
from mtp.errors import Error, LibraryError
from mtp.library import NULL, call, doubles, int64s
from mtp.potential import MODES, SWAP_THRESHOLD, Potential

SPECIES = ("Cu", "O")


@pytest.fixture(scope="module")
def plain(random_potential):
    return random_potential(SPECIES, level=6, n_chebyshev=3, seed=1)  # 31 parameters


@pytest.fixture(scope="module")
def training(random_atoms):
    return [random_atoms(SPECIES, seed=k, spacing=2.2 + 0.02 * (k % 10)) for k in range(60)]


@pytest.fixture(scope="module", params=MODES)
def selected(request, plain, training):
    potential = plain.copy()
    chosen = potential.select(training, request.param)
    return potential, chosen


def log_volume(potential):
    return np.linalg.slogdet(potential.active_set)[1]


def offer(potential, rows, mode="neighbourhood", threshold=SWAP_THRESHOLD):
    """The C interface's select: the slots and the number of swaps."""
    rows = np.ascontiguousarray(rows)
    slots = np.empty(potential.facts.n_parameters, dtype=np.int64)
    count = np.zeros(1, dtype=np.int64)
    arguments = (len(rows), doubles(rows), threshold, int64s(slots), int64s(count))
    call("select", potential.handle, MODES.index(mode), *arguments)
    return slots, int(count[0])


def grades_by_the_definition(rows, active):
    return np.abs(np.linalg.solve(active.T, np.atleast_2d(rows).T)).max(axis=0)


# ---- laws


def test_a_grade_is_the_largest_coefficient_in_the_rows_of_the_active_set(selected, random_atoms):
    potential, _ = selected
    mode, active = potential.facts.active_set, potential.active_set
    for seed in (100, 101):
        atoms = random_atoms(SPECIES, seed=seed, spacing=2.0)
        grades = potential.grade(atoms)
        expected = grades_by_the_definition(potential.rows(atoms, mode), active)
        # rounding times the condition of A, whose rows are of very different length
        assert grades.maximum == pytest.approx(expected.max(), rel=1e-6)
        if mode == "configuration":
            assert grades.per_atom is None
        else:
            np.testing.assert_allclose(grades.per_atom, expected, rtol=1e-6)
            assert grades.maximum == grades.per_atom.max()


def test_rows_of_the_active_set_have_grade_one(selected, training):
    potential, chosen = selected
    mode, active = potential.facts.active_set, {row.tobytes() for row in potential.active_set}
    found = 0
    for k in chosen:
        grades = potential.grade(training[k])
        values = [grades.maximum] if grades.per_atom is None else grades.per_atom
        for row, grade in zip(potential.rows(training[k], mode), values, strict=True):
            if row.tobytes() in active:
                found += 1
                assert grade == pytest.approx(1, abs=1e-7)  # rounding times the condition of A
    # what no training row spans stays as it began: some parameters do the same (the sizes of c and ξ)
    blank = np.count_nonzero(potential.active_set, axis=1) == 1
    assert found == (~blank).sum() > 0.7 * potential.facts.n_parameters


def test_no_training_row_has_a_grade_above_the_threshold(selected, training):
    potential, _ = selected
    for atoms in training:
        assert potential.grade(atoms).maximum <= SWAP_THRESHOLD * (1 + 1e-7)  # rounding times the condition of A


def test_a_row_outside_the_training_set_exceeds_it(selected, random_atoms):
    potential, _ = selected
    assert potential.grade(random_atoms(SPECIES, seed=7, spacing=1.8)).maximum > 2


def test_swapping_in_a_row_multiplies_the_volume_by_its_grade(plain, training, random_atoms):
    potential = plain.copy()
    potential.select(training, "configuration")
    for seed in range(5):
        atoms = random_atoms(SPECIES, seed=200 + seed, spacing=2.1)
        grade, before = potential.grade(atoms).maximum, log_volume(potential)
        chosen = potential.select([atoms], "configuration")
        assert chosen == ([0] if grade > SWAP_THRESHOLD else [])
        growth = np.log(grade) if chosen else 0.0
        # rounding times the condition of A
        assert log_volume(potential) - before == pytest.approx(growth, abs=1e-6)
        assert potential.grade(atoms).maximum == pytest.approx(min(grade, 1.0), abs=1e-6)


def test_the_threshold_decides_what_is_swapped(plain, training, random_atoms):
    potential = plain.copy()
    potential.select(training, "configuration")
    atoms = random_atoms(SPECIES, seed=300, spacing=2.1)
    grade = potential.grade(atoms).maximum
    assert grade > 1.1
    assert potential.select([atoms], "configuration", threshold=1.01 * grade) == []
    assert potential.select([atoms], "configuration", threshold=0.99 * grade) == [0]


def test_more_candidates_never_lower_the_volume(plain, training):
    potential = plain.copy()
    volumes = []
    for k in range(0, len(training), 6):
        potential.select(training[k : k + 6])
        volumes.append(log_volume(potential))
    assert (np.diff(volumes) >= -1e-9).all()  # rounding
    assert volumes[-1] > volumes[0] + 1


def test_the_same_data_twice_change_nothing(selected, training):
    potential, chosen = selected
    again = potential.copy()
    assert chosen
    # the second pass sees grades that were within rounding of the threshold
    assert again.select(training, potential.facts.active_set, threshold=SWAP_THRESHOLD * (1 + 1e-6)) == []
    assert again.active_set.tobytes() == potential.active_set.tobytes()


def test_no_row_is_chosen_twice(plain, training):
    potential = plain.copy()
    assert potential.select([*training, *training])
    assert len({row.tobytes() for row in potential.active_set}) == potential.facts.n_parameters


def test_a_linear_change_of_the_basis_leaves_grades_and_choices(selected, random_atoms):
    potential, _ = selected
    mode, n = potential.facts.active_set, potential.facts.n_parameters
    rng = np.random.default_rng(5)
    orthogonal = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2)]
    change = orthogonal[0] @ np.diag(rng.uniform(0.2, 5, n)) @ orthogonal[1]
    candidates = [random_atoms(SPECIES, seed=400 + k, spacing=2.1) for k in range(20)]
    rows = np.concatenate([potential.rows(atoms, mode) for atoms in candidates])
    here, there = potential.copy(), potential.copy()
    there.set_active_set(potential.active_set @ change, mode)
    slots, n_swaps = offer(here, rows, mode)
    slots_there, n_swaps_there = offer(there, rows @ change, mode)
    assert n_swaps == n_swaps_there > 5
    np.testing.assert_array_equal(slots, slots_there)
    # each new row stands in the sets as it was offered
    np.testing.assert_array_equal(there.active_set[slots_there >= 0], (rows @ change)[slots_there[slots_there >= 0]])


def test_the_scaling_of_the_radial_functions_leaves_the_grades(selected, random_atoms):
    """Functions twice as large with coefficients half as large are the same: dV/dc alone grows, a change of basis."""
    potential, _ = selected
    facts = potential.facts
    n_radial = facts.n_parameters - facts.n_species - facts.n_scalar
    factor = np.where(np.arange(facts.n_parameters) < n_radial, 2.0, 1.0)
    other = potential.copy()
    other.set_scaling(2 * facts.scaling)
    other.parameters = potential.parameters / factor
    other.set_active_set(potential.active_set * factor, facts.active_set)
    atoms = random_atoms(SPECIES, seed=9, spacing=2.1)
    # powers of two are exact; the inverse is that of the updates here and computed anew there
    assert other.grade(atoms).maximum == pytest.approx(potential.grade(atoms).maximum, rel=1e-6)


def test_a_repeated_cell_has_the_same_grade(selected, random_atoms):
    potential, _ = selected
    atoms = random_atoms(SPECIES, seed=11)
    grade = potential.grade(atoms).maximum
    assert potential.grade(atoms.repeat((2, 1, 2))).maximum == pytest.approx(grade, rel=1e-7)  # as above


def test_rotation_leaves_the_grades(selected, random_atoms, rotation):
    potential, _ = selected
    atoms = random_atoms(SPECIES, seed=12)
    turned = atoms.copy()
    turned.set_cell(atoms.cell @ rotation(1).T, scale_atoms=True)
    assert potential.grade(turned).maximum == pytest.approx(potential.grade(atoms).maximum, rel=1e-6)


# ---- begin, replace, drop


def test_fewer_rows_than_parameters_leave_the_other_directions_open(plain, training, random_atoms):
    potential = plain.copy()
    assert potential.select(training[:1], "configuration") == [0]
    rows = potential.active_set
    blank = np.count_nonzero(rows, axis=1) == 1
    assert blank.sum() == potential.facts.n_parameters - 1
    assert potential.grade(training[0]).maximum == pytest.approx(1, rel=1e-7)
    assert potential.grade(random_atoms(SPECIES, seed=50)).maximum > 100  # no direction but one is known


def test_another_mode_begins_a_new_set(plain, training):
    potential = plain.copy()
    potential.select(training, "neighbourhood")
    potential.select(training[:2], "configuration")
    assert potential.facts.active_set == "configuration"
    assert (np.count_nonzero(potential.active_set, axis=1) == 1).sum() == potential.facts.n_parameters - 2


def test_nothing_offered_chooses_nothing(selected, plain):
    potential, _ = selected
    before = potential.active_set
    assert potential.select([], potential.facts.active_set) == []
    assert potential.select([Atoms()], potential.facts.active_set) == []
    np.testing.assert_array_equal(potential.active_set, before)


def test_an_isolated_atom_can_be_chosen(plain):
    potential = plain.copy()
    assert potential.select([Atoms("Cu"), Atoms("O"), Atoms("Cu")]) == [0, 1]
    assert potential.grade(Atoms("CuO", [(0, 0, 0), (0, 0, 9)])).maximum == 1


def test_degenerate_rows_are_taken_as_far_as_they_span(plain):
    potential = plain.copy()
    n = potential.facts.n_parameters
    direction = np.random.default_rng(0).standard_normal((2, n))
    rows = np.random.default_rng(1).standard_normal((200, 2)) @ direction
    slots, _ = offer(potential, rows)
    assert (slots >= 0).sum() == 2
    assert offer(potential, np.zeros((5, n)))[1] == 0
    assert grades_by_the_definition(rows, potential.active_set).max() < SWAP_THRESHOLD + 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 30])
def test_a_row_that_is_not_finite_is_refused_and_changes_nothing(value, place, selected):
    potential, _ = selected
    mode, before = potential.facts.active_set, potential.active_set
    rows = 1e3 * np.random.default_rng(3).standard_normal((4, potential.facts.n_parameters))
    rows[2, place] = value
    with pytest.raises(LibraryError, match=r"row 2 .* NaN or infinity"):
        offer(potential, rows, mode)
    np.testing.assert_array_equal(potential.active_set, before)
    wrong = before.copy()
    wrong[3, place] = value
    with pytest.raises(LibraryError, match=r"not finite|singular"):
        potential.set_active_set(wrong, mode)
    np.testing.assert_array_equal(potential.active_set, before)


def test_a_singular_set_is_refused_and_changes_nothing(selected):
    potential, _ = selected
    before = potential.active_set
    wrong = before.copy()
    wrong[4] = 2 * wrong[7]
    for rows in (wrong, np.zeros_like(before)):
        with pytest.raises(LibraryError, match=r"singular|zero"):
            potential.set_active_set(rows, potential.facts.active_set)
    np.testing.assert_array_equal(potential.active_set, before)


def test_a_set_that_is_put_in_grades_as_where_it_came_from(selected, plain, random_atoms):
    potential, _ = selected
    other = plain.copy()
    other.set_active_set(potential.active_set, potential.facts.active_set)
    np.testing.assert_array_equal(other.active_set, potential.active_set)
    atoms = random_atoms(SPECIES, seed=13, spacing=2.1)
    # the inverse is computed anew: rounding times the condition of A
    assert other.grade(atoms).maximum == pytest.approx(potential.grade(atoms).maximum, rel=1e-6)


@pytest.mark.parametrize("threshold", [1.0, 0.5, -1.0, np.nan])
def test_a_threshold_that_never_settles_is_refused(threshold, plain, training):
    with pytest.raises(LibraryError, match="threshold"):
        plain.copy().select(training[:1], threshold=threshold)


def test_wrong_modes_and_shapes_are_refused(plain, training):
    potential, n = plain.copy(), plain.facts.n_parameters
    with pytest.raises(Error, match="mode 'cell'"):
        potential.select(training[:1], "cell")
    with pytest.raises(Error, match="mode 'cell'"):
        potential.set_active_set(np.eye(n), "cell")
    with pytest.raises(Error, match=f"{n} x {n}"):
        potential.set_active_set(np.eye(n + 1), "neighbourhood")
    for mode in (-1, 2):
        rows = np.eye(n)
        with pytest.raises(LibraryError, match="mode must be"):
            call("select", potential.handle, mode, n, doubles(rows), 1.1, int64s(np.empty(n, np.int64)), NULL)
        with pytest.raises(LibraryError, match="mode must be"):
            call("active_set_set", potential.handle, mode, doubles(rows))
    assert potential.facts.active_set is None


def test_new_parameters_drop_the_active_set(selected, random_atoms):
    potential, _ = selected
    for change in ("parameters", "scaling"):
        changed = potential.copy()
        if change == "parameters":
            changed.parameters = potential.parameters
        else:
            changed.set_scaling(1.0)
        assert changed.facts.active_set is None
        for use in (lambda p=changed: p.grade(random_atoms(SPECIES)), lambda p=changed: p.active_set):
            with pytest.raises(LibraryError, match="no active set"):
                use()
    assert potential.facts.active_set is not None  # the copies were independent


# ---- references


@pytest.mark.parametrize(
    ("mode", "suffix"), [("neighbourhood", "als"), ("neighbourhood", "almtp"), ("configuration", "als")]
)
@pytest.mark.parametrize("kind", ["graded", "extrapolating"])
def test_mlips_grades_are_reproduced(kind, mode, suffix, shared_data):
    folder = shared_data / "reference"
    potential = Potential.load(folder / f"cubic_08_{mode}.{suffix}")
    assert potential.facts.active_set == mode
    configurations = read(folder / f"cubic_08_{kind}_{mode}.cfg")
    references = np.array([atoms.info["MV_grade"] for atoms in configurations])
    if kind == "extrapolating":
        assert references.max() > 1e6
        assert references.min() > 1
    rng = np.random.default_rng(1)
    for atoms, reference in zip(configurations, references, strict=True):
        grade = potential.grade(atoms).maximum
        # MLIP graded positions that are printed here with six decimals: what a change within them makes
        spread = 0.0
        for _ in range(8):
            moved = atoms.copy()
            moved.positions += rng.uniform(-5e-7, 5e-7, moved.positions.shape)
            moved.cell[:] += rng.uniform(-5e-7, 5e-7, (3, 3)) * (moved.cell[:] != 0)
            spread = max(spread, abs(potential.grade(moved).maximum - grade))
        # the grade has six decimals; eight draws underestimate the largest change by less than a factor of three
        assert abs(grade - reference) <= 3 * spread + 1e-6, atoms.info["source"]
        assert spread < 1e-2 * grade  # or the comparison would say nothing


def test_mlips_selected_rows_have_grade_one(shared_data):
    folder = shared_data / "reference"
    for mode in MODES:
        potential = Potential.load(folder / f"cubic_08_{mode}.als")
        rows = potential.active_set
        own = Potential.load(folder / "cubic_08.mtp")
        own.set_active_set(rows, mode)
        training = read(folder / "cubic_train_101.cfg")
        largest = max(own.grade(atoms).maximum for atoms in training)
        # the set was built from these, at a swap threshold of 1.0000001; six decimals and the condition of A
        assert largest == pytest.approx(1, abs=2e-3)
