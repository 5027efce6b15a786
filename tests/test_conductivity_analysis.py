# SPDX-License-Identifier: BSD-3-Clause
"""What is made of samples: tensors, straight lines, jumps, and what is extrapolated to infinite size."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from conductivity_toys import autoregressive, toy

from mtp.conductivity.hnemd import _drift, _linear
from mtp.conductivity.nemd import _interfaces, _of_the_shortest, block_error, extrapolated, fitted
from mtp.conductivity.results import weighted
from mtp.conductivity.settings import Nemd
from mtp.conductivity.sizes import compared
from mtp.conductivity.symmetry import directions

# ---- symmetry


@pytest.mark.parametrize(
    ("unit", "groups"),
    [
        (bulk("Si"), 1),
        (bulk("Mg"), 2),
        (Atoms("SiO", [[0, 0, 0], [0.1, 0.2, 0.3]], cell=[3, 4, 5], pbc=True), 6),
        (Atoms("Si", cell=[3, 4, 5], pbc=True), 3),
        (Atoms("Si", cell=[[3, 0, 0], [0.5, 4, 0], [0, 0, 5]], pbc=True), 6),
    ],
    ids=["cubic", "hexagonal", "triclinic", "orthorhombic", "monoclinic"],
)
def test_the_tensor_follows_from_directions(unit, groups):
    """Any tensor of the crystal's symmetry comes back from its values along the groups' directions."""
    from mtp.conductivity.symmetry import point_group

    found = directions(unit, "crystal")
    assert len(found.groups) == groups
    rotations = point_group(unit)
    for seed in range(3):
        root = np.random.default_rng(seed).standard_normal((3, 3))
        tensor = np.mean([r @ root @ root.T @ r.T for r in rotations], axis=0)
        along = [np.einsum("ka,ab,kb->k", group, tensor, group) for group in found.groups]
        assert all(np.ptp(values) < 1e-10 for values in along)  # equivalent directions
        np.testing.assert_allclose(found.tensor([values[0] for values in along]), tensor, atol=1e-10)


SHEET = Atoms("Ar", cell=[[3.82, 0, 0], [1.91, 1.91 * 3**0.5, 0], [0, 0, 30]], pbc=True)


@pytest.mark.parametrize(
    ("symmetry", "tensor", "groups"),
    [
        ("isotropic", [[2.0, 0.0], [0.0, 2.0]], 1),
        ("crystal", [[2.0, 0.0], [0.0, 2.0]], 1),
        ("none", [[2.0, 0.5], [0.5, 1.0]], 3),
    ],
)
def test_the_tensor_of_a_sheet_has_no_part_out_of_its_plane(symmetry, tensor, groups):
    found = directions(SHEET, symmetry, sheet=True)
    assert len(found.groups) == groups
    assert all(np.abs(group[:, 2]).max() < 1e-10 for group in found.groups)
    values = [np.einsum("a,ab,b", group[0, :2], tensor, group[0, :2]) for group in found.groups]
    np.testing.assert_allclose(found.tensor(values), tensor, atol=1e-10)
    assert found.mean(values) == pytest.approx(np.trace(tensor) / 2)


# ---- lines and extrapolations


def profiles(slope: float, bins: int = 30, chunks: int = 40, curved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """With a kink at either end, as driven layers make it."""
    places = np.arange(bins) + 0.5
    ends = curved * (np.exp(-places) - np.exp(-(bins - places)))
    noise = np.random.default_rng(1).normal(0, 0.3, (chunks, bins))
    return places, 300 + slope * places + ends + noise


def test_the_straight_part_of_a_profile_is_chosen():
    places, straight = profiles(-2.0)
    assert len(fitted(straight, places, np.arange(30)).bins) == 30
    _, bent = profiles(-2.0, curved=40.0)
    line = fitted(bent, places, np.arange(30))
    assert 10 <= len(line.bins) < 28
    for found in (fitted(straight, places, np.arange(30)), line):
        assert abs(found.slope["value"] + 2.0) < 3 * found.slope["error"]
        assert found.slope["error"] < 0.05


def test_a_profile_without_a_straight_part_is_told_and_its_error_has_the_choice():
    places, straight = profiles(-2.0)
    bent = straight + 0.05 * (places - 5) ** 2
    line = fitted(bent, places, np.arange(30))
    assert fitted(straight, places, np.arange(30)).straight
    assert not line.straight
    # a parabola's slope about its middle is the same for all symmetric parts, but the line moves up and down
    assert line.spread(15.0) > 0.2
    assert line.spread(15.0) > 5 * fitted(straight, places, np.arange(30)).spread(15.0)


def test_the_error_of_a_jump_has_the_choice_of_the_layers(tmp_path):
    """Both parts are bent: what the lines leave at the interface depends on where they are fitted."""
    settings = toy(Nemd, tmp_path, bins=80, interfaces=[0.25], repeat=[2, 2, 1])
    places = (np.arange(80) + 0.5) / 80 * 400
    noise = np.random.default_rng(3).normal(0, 0.01, (40, 80))
    errors = []
    for bend in (0.0, 1e-3):
        one = 350 - 0.1 * places - np.where(places > 100, 10 + bend * (places - 100) ** 2, -bend * (places - 100) ** 2)
        cell, lines, _ = _interfaces(settings, one + noise, places, {"value": 2e-4, "error": 0.0}, 400)
        errors.append(cell["interfaces"][0]["jump_K"]["error"])
        assert all(line.straight for line in lines) == (bend == 0.0)
    assert errors[1] > 0.2 > 10 * errors[0]


def test_blocks_see_correlation():
    rng = np.random.default_rng(2)
    series = autoregressive(rng, 0.8, 4000, 1)[:, 0]
    truth = 1 / (1 - 0.8) / np.sqrt(4000)
    assert 0.7 * truth < block_error(series) < 2 * truth
    assert series.std() / np.sqrt(4000) < 0.5 * truth


def test_infinite_length_is_extrapolated():
    lengths = [50.0, 100.0, 200.0]
    kappas = [{"value": 1 / (1 / 5 * (1 + 80 / L)), "error": 0.02} for L in lengths]
    found = extrapolated(lengths, kappas)
    assert found["kappa_W_mK"]["value"] == pytest.approx(5.0)
    assert found["extrapolation"]["slope_A_mK_W"]["value"] == pytest.approx(16.0)
    assert found["kappa_W_mK"]["error"] > 0.02
    assert any("third" in note for note in extrapolated(lengths[:2], kappas[:2])["notes"])


def test_what_the_shortest_length_changes_is_a_part_of_the_error():
    def of(law):
        lengths = [50.0, 100.0, 200.0]
        kappas = [{"value": law(L), "error": 0.02} for L in lengths]
        return _of_the_shortest(lengths, kappas, extrapolated(lengths, kappas)["kappa_W_mK"]["value"])

    assert of(lambda L: 5 / (1 + 80 / L)) == pytest.approx(0, abs=1e-9)
    assert of(lambda L: 5 / (1 + 80 / L + (40 / L) ** 2)) > 0.1
    assert _of_the_shortest([50.0, 100.0], [{"value": 1.0, "error": 0.1}] * 2, 2.0) is None


@pytest.mark.parametrize("sign", [1, -1], ids=["hot first", "cold first"])
def test_the_jump_at_an_interface_gives_its_conductance(tmp_path, sign):
    """Two parts of different conductivity, and a jump of 10 K at a quarter and at three quarters."""
    settings = toy(Nemd, tmp_path, bins=80, interfaces=[0.25, 0.75], repeat=[2, 2, 1])
    places = (np.arange(80) + 0.5) / 80 * 400
    half = np.where(places < 200, places, 400 - places)
    one = 350 - 0.1 * half - np.where(half > 100, 10 + 0.05 * (half - 100), 0)
    noise = np.random.default_rng(3).normal(0, 0.3, (40, 80))
    cell, lines, _ = _interfaces(settings, sign * (one - 300) + 300 + noise, places, {"value": 2e-4, "error": 0.0}, 400)
    truth = 2e-4 / 10 * 1.602176634e7
    assert len(lines) == 4
    assert abs(cell["conductance_MW_m2K"]["value"] - truth) < 3 * cell["conductance_MW_m2K"]["error"]
    assert cell["conductance_MW_m2K"]["error"] < 0.05 * truth
    beside = [part["value"] for part in cell["interfaces"][0]["kappa_beside_W_mK"]]
    np.testing.assert_allclose(beside, np.array([2e-4 / 0.1, 2e-4 / 0.15]) * 1602.1766, rtol=0.1)


def test_interfaces_that_differ_widen_the_error_of_their_mean(tmp_path):
    settings = toy(Nemd, tmp_path, bins=80, interfaces=[0.25, 0.75], repeat=[2, 2, 1])
    places = (np.arange(80) + 0.5) / 80 * 400
    one = 350 - 0.1 * np.minimum(places, 400 - places) - 10 * (places > 100) - 10 * (places > 200) + 20 * (places > 300)
    noise = np.random.default_rng(3).normal(0, 0.01, (40, 80))
    cell, *_ = _interfaces(settings, one + noise, places, {"value": 2e-4, "error": 0.0}, 400)
    left, right = (part["conductance_MW_m2K"]["value"] for part in cell["interfaces"])
    assert left == pytest.approx(2 * right, rel=0.01)
    assert cell["conductance_MW_m2K"]["error"] == pytest.approx((left - right) / 2)  # standard error of a mean of two


def test_a_response_that_is_not_linear_is_left_out():
    fields = [
        {"field_per_A": f, "kappa": {"value": k, "error": 0.1}} for f, k in ((0.01, 2.0), (0.02, 2.1), (0.04, 3.0))
    ]
    kappa, used, notes = _linear(fields)
    assert used == 2
    assert kappa["value"] == pytest.approx(2.05)
    assert "not linear at 0.04" in notes[0]
    assert weighted([f["kappa"] for f in fields[:2]])[0]["error"] == pytest.approx(0.1 / np.sqrt(2))


def test_runs_that_drift_are_found():
    """Of runs that are white, one in twenty sets would drift by chance."""
    rng = np.random.default_rng(3)
    runs = rng.standard_normal((6, 4000))
    assert _drift(runs) is None
    assert _drift(runs[:2] + np.linspace(0, 1, 4000)) is None
    # noise of each half's mean: 1/√2000
    assert _drift(runs + np.linspace(0, 1, 4000)) == pytest.approx(0.5, abs=4 / np.sqrt(6 * 1000))
    assert _drift(runs - np.linspace(0, 1, 4000)) == pytest.approx(-0.5, abs=4 / np.sqrt(6 * 1000))


def test_a_smallest_field_that_proves_nothing_is_told():
    """Errors fall with the field: κ is then that of the largest field alone."""
    fields = [{"field_per_A": f, "kappa": {"value": 2.0, "error": 0.001 / f}} for f in (0.01, 0.02, 0.04)]
    assert "may hide" in _linear(fields)[2][0]
    assert _linear([{**f, "kappa": {"value": 2.0, "error": 0.1}} for f in fields])[2] == []


# ---- two sizes


def of_cell(atoms: int, kappa: float, error: float) -> dict:
    parts = {"statistics": error, "size": None, "potential": None, "total": error}
    told = {"value": kappa, "error": error}
    return {"atoms": atoms, "kappa_W_mK": told, "uncertainty_W_mK": parts, "notes": ["a remark"]}


def test_what_the_size_changes_is_a_part_of_the_error():
    found = compared(of_cell(1000, 10 - 6 / 10, 0.01), of_cell(125, 10 - 6 / 5, 0.01))
    assert found["kappa_W_mK"]["value"] == pytest.approx(9.4)
    assert found["uncertainty_W_mK"]["size"] == pytest.approx(0.6)  # what is missing to an infinite cell
    assert found["kappa_W_mK"]["error"] == found["uncertainty_W_mK"]["total"] == pytest.approx(np.hypot(0.6, 0.01))
    assert found["extrapolated_W_mK"] == pytest.approx({"value": 10.0, "error": np.hypot(0.02, 0.01)})
    assert found["notes"] == ["a remark", "125 atoms: a remark"]
    noisy = compared(of_cell(1000, 9.4, 1.0), of_cell(125, 8.8, 1.0))
    assert "may be noise" in noisy["notes"][-1]
    falling = compared(of_cell(1000, 8.8, 0.01), of_cell(125, 9.4, 0.01))
    assert falling["uncertainty_W_mK"]["size"] == pytest.approx(0.6)
    assert "0.6 W/mK below" in falling["notes"][-1]
    tensors = ({"tensor_W_mK": [[k, 0], [0, 9.0]], "tensor_error_W_mK": [[0.08, 0.0], [0.0, 0.1]]} for k in (9.4, 8.8))
    large, small = (
        of_cell(*told, 0.01) | tensor for told, tensor in zip(((1000, 9.4), (125, 8.8)), tensors, strict=True)
    )
    assert compared(large, small)["tensor_error_W_mK"] == [pytest.approx([np.hypot(0.6, 0.08), 0.0]), [0.0, 0.1]]
