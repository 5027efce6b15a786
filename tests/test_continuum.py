# SPDX-License-Identifier: BSD-3-Clause
"""Effective conductivities lie between their bounds, and are exact where theory is."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skfem", reason='needs scikit-fem: pip install "pair-mtp[conductivity]"')

from mtp.conductivity.bte_settings import BteSettings
from mtp.conductivity.continuum import _point, bounds, continuum, materials
from mtp.conductivity.continuum_settings import Boundary, ContinuumSettings, Geometry, Phase
from mtp.conductivity.mosaic import blocks, mosaic
from mtp.errors import Error
from mtp.settings import checked, load, tomllib


def settings(folder, **content) -> ContinuumSettings:
    return checked(
        {"folder": str(folder), "phases": [{"name": "a", "kappa": 1.0}]} | content, ContinuumSettings, "test"
    )


def between_grains(cells, h):
    """The conductance h between grains, and none within one that meets itself across the box."""
    return np.where(cells.sides[0] == cells.sides[1], np.inf, h)


def isotropic(*kappa, dimension=2):
    return np.array([k * np.eye(dimension) for k in kappa])


# ---- laws


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("h", [np.inf, 2.0])
def test_a_laminate_conducts_in_series_across_and_in_parallel_along(dimension, h):
    cells = mosaic(Geometry(type="laminate", dimension=dimension, thicknesses=[1, 3]))
    found = bounds(cells, isotropic(1.0, 4.0, dimension=dimension), between_grains(cells, h))
    # the field is linear in every layer, so that both bounds are exact
    exact = np.diag([1 / (0.25 / 1 + 0.75 / 4 + 2 / h), *[0.25 * 1 + 0.75 * 4] * (dimension - 1)])
    assert found.upper == pytest.approx(exact, abs=1e-10)
    assert found.lower == pytest.approx(exact, abs=1e-10)


def test_layers_of_crystals_on_edge_conduct_as_their_tensors_tell():
    """Across layers the flux is uniform, along them the gradient: K = <k> less what the transverse fluxes cost."""
    tensors = np.array([[[2.0, 0.5], [0.5, 1.0]], [[4.0, -1.0], [-1.0, 3.0]]])
    cells = mosaic(Geometry(type="laminate"))
    found = bounds(cells, tensors, between_grains(cells, np.inf))
    xx = 1 / np.mean(1 / tensors[:, 0, 0])
    xy = xx * np.mean(tensors[:, 0, 1] / tensors[:, 0, 0])
    yy = np.mean(tensors[:, 1, 1] - tensors[:, 0, 1] ** 2 / tensors[:, 0, 0]) + xy**2 / xx
    for bound in (found.upper, found.lower):
        assert bound == pytest.approx(np.array([[xx, xy], [xy, yy]]), abs=1e-10)


def test_the_bounds_of_a_checkerboard_close_in_on_the_geometric_mean():
    cells, kappa, gaps = mosaic(Geometry(type="checkerboard")), isotropic(1.0, 10.0), []
    for _ in range(4):
        cells = cells.refined()
        found = bounds(cells, kappa, np.full(cells.pairs.shape[1], np.inf))
        assert found.lower[0, 0] < math.sqrt(10) < found.upper[0, 0]
        # turned by a right angle, fluxes are gradients [Keller, J. Math. Phys. 5, 548 (1964)], also on a mesh
        assert found.lower[0, 0] * found.upper[0, 0] == pytest.approx(10.0)
        gaps.append(found.gap)
    assert gaps[-1] < 0.5 * gaps[-3] < 0.25 * gaps[0] * 2


@pytest.mark.parametrize("dimension", [2, 3])
def test_grains_fill_the_box_and_meet_face_to_face(dimension):
    cells = mosaic(Geometry(dimension=dimension, grains=8, box=[1.0, 2.0, 1.5][:dimension]))
    sizes = np.bincount(cells.grain, cells.volumes)
    for finer in (cells, cells.refined()):
        assert finer.volumes.sum() == pytest.approx(finer.box.prod())
        assert np.bincount(finer.grain, finer.volumes) == pytest.approx(sizes)
        assert finer.areas.sum() == pytest.approx(cells.areas.sum())
        nodes = finer.nodes
        period = (finer.mesh.p[:, nodes[0]] - finer.mesh.p[:, nodes[1]]) / finer.box[:, None, None]
        assert np.abs(period - np.rint(period)).max() < 1e-6


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_polycrystal_of_one_isotropic_material_is_that_material(dimension):
    cells = mosaic(Geometry(dimension=dimension, grains=6))
    kappa = isotropic(*[3.0] * 6, dimension=dimension)
    open_ = bounds(cells, kappa, np.full(cells.pairs.shape[1], np.inf))
    for bound in (open_.upper, open_.lower):
        assert bound == pytest.approx(3.0 * np.eye(dimension), abs=1e-8)
    previous = 3.0
    for h in (1e6, 10.0, 1.0):
        found = bounds(cells, kappa, between_grains(cells, h))
        assert np.linalg.eigvalsh(found.upper - found.lower)[0] > -1e-8
        mean = np.trace(found.kappa) / dimension
        assert mean < previous
        previous = mean
    # without conduction of boundaries nothing conducts, in proportion to their conductance
    poor = [np.trace(bounds(cells, kappa, between_grains(cells, h)).kappa) for h in (1e-4, 1e-5)]
    assert poor[0] / poor[1] == pytest.approx(10.0, rel=1e-3)


def test_a_polycrystal_of_turned_crystals_in_the_plane_conducts_as_the_geometric_mean(tmp_path):
    """Dykhne's law, det K = k1 k2 [Sov. Phys. JETP 32, 63 (1971)], for the mean of many; here for one, within bounds
    of Voigt's and Reuss's averages."""
    made = checked(
        {
            "phases": [{"name": "a", "kappa": [1.0, 3.0, 1.0, 0.0, 0.0, 0.0], "orientation": "plane"}],
            "geometry": {"grains": 60},
        },
        ContinuumSettings,
        "test",
    )
    cells = mosaic(made.geometry).refined()
    _, kappa = materials(made, cells.n_grains)
    assert np.linalg.eigvalsh(kappa) == pytest.approx(np.tile([1.0, 3.0], (60, 1)))
    found = bounds(cells, kappa, np.full(cells.pairs.shape[1], np.inf))
    weights = np.bincount(cells.grain, cells.volumes)
    voigt = np.einsum("g,gij", weights, kappa)
    reuss = np.linalg.inv(np.einsum("g,gij", weights, np.linalg.inv(kappa)))
    assert np.linalg.eigvalsh(voigt - found.upper)[0] > 0
    assert np.linalg.eigvalsh(found.lower - reuss)[0] > 0
    # 60 grains: the turns' own mean is off by some 1/√60 of the anisotropy
    assert math.sqrt(np.linalg.det(found.kappa)) == pytest.approx(math.sqrt(3.0), rel=0.03)


def test_what_grains_conduct_does_not_depend_on_where_the_box_begins():
    labels = np.array([[0, 1, 1], [2, 1, 0], [2, 2, 0]])
    found = []
    for shift in (0, 1):
        edges = [np.linspace(0, 1, 4)] * 2
        cells = blocks(np.roll(labels, shift, axis=(0, 1)), edges, np.ones(2)).refined()
        found.append(bounds(cells, isotropic(1.0, 5.0, 2.0), between_grains(cells, 3.0)))
    assert found[0].upper == pytest.approx(found[1].upper, abs=1e-10)
    assert found[0].lower == pytest.approx(found[1].lower, abs=1e-10)


def test_parts_are_logarithmic_derivatives():
    cells = mosaic(Geometry(grains=5))
    kappa, h = isotropic(1.0, 2.0, 3.0, 4.0, 5.0), between_grains(cells, 4.0)
    found = bounds(cells, kappa, h)
    assert found.grains.sum() + found.pairs.sum() == pytest.approx(np.trace(found.upper) / 2)
    step = 1e-4
    for g in range(5):
        factor = np.where(np.arange(5) == g, 1 + step, 1.0)[:, None, None]
        upper = [bounds(cells, k, h).upper for k in (kappa * factor, kappa / factor)]
        assert found.grains[g] == pytest.approx(np.trace(upper[0] - upper[1]) / 4 / math.log1p(step), rel=1e-6)
    upper = [bounds(cells, kappa, h * factor).upper for factor in (1 + step, 1 / (1 + step))]
    assert found.pairs.sum() == pytest.approx(np.trace(upper[0] - upper[1]) / 4 / math.log1p(step), rel=1e-6)


# ---- sizes, files, errors, output


def test_small_grains_resist_more_and_large_ones_not_at_all(tmp_path):
    asked = settings(
        tmp_path / "sizes",
        phases=[{"name": "a", "kappa": 100.0}],
        boundaries=[{"between": ["a", "a"], "conductance": 100.0, "error": 10.0}],
        sizes=[1.0, 1e3, 1e7],
        geometry={"grains": 10, "realisations": 2},
    )
    found = continuum(asked)
    small, middle, large = (row["mean_W_mK"] for row in found["results"])
    # 100 MW/m²K times 1 nm: 0.1 W/mK, times a factor of the grains' shapes near one
    assert small == pytest.approx(0.1, rel=0.2)
    assert small < middle < large
    assert large == pytest.approx(100.0, rel=1e-3)
    # the conductance's error of a tenth is that of small grains, and no matter for large ones
    parts = [row["uncertainty_W_mK"]["boundaries"] / row["mean_W_mK"] for row in found["results"]]
    assert parts[0] == pytest.approx(0.1, rel=0.02)
    assert parts[2] < 1e-3
    assert found["results"][0]["shares"]["boundaries"] == pytest.approx(1, abs=1e-2)
    assert found["results"][2]["shares"]["a"] == pytest.approx(1, abs=1e-2)
    assert found["series"][0] == pytest.approx(1 / (1 / 100 + 1 / 0.1))
    assert json.loads((asked.folder / "result.json").read_text()) == json.loads(json.dumps(found))


def test_what_is_finished_is_kept(tmp_path, monkeypatch):
    """A killed run goes on, sizes and realisations are added, and what a point depends on makes another of it."""
    grains = {"grains": 6, "realisations": 2}
    asked = {"phases": [{"name": "a", "kappa": 2.0, "error": 0.1}], "conductance": 100.0, "refinements": 1}
    whole = continuum(settings(tmp_path / "whole", **asked, sizes=[10.0, 100.0], geometry=grains))
    begun = settings(tmp_path / "begun", **asked, sizes=[10.0, 100.0], geometry=grains)
    solved = 0

    def killed(*arguments):
        nonlocal solved
        if solved == 3:
            raise KeyboardInterrupt
        solved += 1
        return _point(*arguments)

    monkeypatch.setattr("mtp.conductivity.continuum._point", killed)
    with pytest.raises(KeyboardInterrupt):
        continuum(begun)
    monkeypatch.undo()

    def computed(asked: ContinuumSettings) -> int:
        said = []
        continuum(asked, said.append)
        return sum("elements)" in text for text in said)

    assert computed(begun) == 1
    assert json.loads((begun.folder / "result.json").read_text()) == json.loads(json.dumps(whole))
    for name in ("temperature.png", "sizes.png"):
        images = [(tmp_path / folder / name).read_bytes() for folder in ("whole", "begun")]
        assert images[0] == images[1]
    assert computed(begun) == 0
    more = {"sizes": [1.0, 10.0, 100.0], "geometry": {**grains, "realisations": 3}}
    assert computed(settings(begun.folder, **asked, **more)) == 5
    better = {**asked, "phases": [{"name": "a", "kappa": 2.0, "error": 0.01}]}
    assert computed(settings(begun.folder, **better, **more)) == 0
    assert computed(settings(begun.folder, **{**asked, "conductance": 50.0}, **more)) == 9
    for path in (begun.folder / "points").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(Error, match="damaged: .*; remove it"):
        continuum(begun)


def test_labels_that_change_are_computed_again(tmp_path):
    phases = [{"name": "a", "kappa": 1.0}, {"name": "b", "kappa": 4.0}]
    asked = settings(tmp_path / "run", phases=phases, geometry={"type": "labels", "file": str(tmp_path / "a.npy")})
    for axis in (0, 1):
        np.save(tmp_path / "a.npy", np.indices((2, 2))[axis])
        assert continuum(asked)["results"][0]["kappa_W_mK"][axis][axis] == pytest.approx(1.6)


def test_conductivities_come_from_other_results(tmp_path):
    result = {"temperatures_K": [200.0, 300.0], "kappa_W_mK": [[9] * 6, [3.0, 2.0, 1.0, 0.0, 0.0, 0.5]]}
    result["uncertainty_W_mK"] = {"total": [[1] * 6, [0.3, 0.2, 0.1, 0.0, 0.0, 0.0]]}
    (tmp_path / "bte.json").write_text(json.dumps(result))
    tensor, error = Phase(name="a", file=tmp_path / "bte.json").known()
    assert error == pytest.approx(0.1)
    assert tensor == pytest.approx(np.array([[3.0, 0.5, 0.0], [0.5, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    with pytest.raises(Error, match="holds no conductivity at 400 K, but at 200, 300 K"):
        Phase(name="a", file=tmp_path / "bte.json", temperature=400).known()
    both = {name: {"value": 5.0, "error": 1.0} for name in ("kappa_W_mK", "conductance_MW_m2K")}
    (tmp_path / "nemd.json").write_text(json.dumps(both))
    tensor, error = Phase(name="a", file=tmp_path / "nemd.json").known()
    assert tensor == pytest.approx(5 * np.eye(3))
    assert error == pytest.approx(0.2)
    assert Boundary(between=("a", "a"), file=tmp_path / "nemd.json").known() == (5.0, 0.2)
    full = np.array([[6.0, 0.5, 0.0], [0.5, 5.0, 0.2], [0.0, 0.2, 4.0]])
    (tmp_path / "gk.json").write_text(json.dumps({**both, "tensor_W_mK": full.tolist()}))
    tensor, error = Phase(name="a", file=tmp_path / "gk.json").known()
    assert tensor == pytest.approx(full)
    assert error == pytest.approx(0.2)
    sheet = {**both, "tensor_W_mK": [[6.0, 0.5], [0.5, 5.0]]}
    (tmp_path / "sheet.json").write_text(json.dumps(sheet))
    tensor, _ = Phase(name="a", file=tmp_path / "sheet.json", orientation="plane").known()
    assert tensor == pytest.approx(np.array([[6.0, 0.5, 0.0], [0.5, 5.0, 0.0], [0.0, 0.0, 5.5]]))
    with pytest.raises(Error, match="must be 'plane' or 'aligned'"):
        Phase(name="a", file=tmp_path / "sheet.json").known()
    flat = {"kappa_W_mK": [[9] * 6, [3.0, 2.0, 0.0, 0.0, 0.0, 0.5]], "thickness_A": 3.35}
    (tmp_path / "flat.json").write_text(json.dumps(result | flat))
    tensor, error = Phase(name="a", file=tmp_path / "flat.json", orientation="plane").known()
    assert tensor == pytest.approx(np.array([[3.0, 0.5, 0.0], [0.5, 2.0, 0.0], [0.0, 0.0, 2.5]]))
    assert error == pytest.approx(0.1)  # 0.25 of 2.5
    (tmp_path / "one.json").write_text(json.dumps({**result, "uncertainty_W_mK": {"total": None}}))
    with pytest.raises(Error, match="give the phase a an `error`"):
        Phase(name="a", file=tmp_path / "one.json").known()
    assert Phase(name="a", file=tmp_path / "one.json", error=0.4).known()[1] == pytest.approx(0.2)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(Error, match="is no result with kappa_W_mK"):
        Phase(name="a", file=tmp_path / "bad.json").known()


def test_results_of_sheets_go_together_alone_and_in_the_plane(tmp_path):
    for name, height in (("thin", 3.35), ("thick", 6.7), ("bulk", None)):
        told = {key: {"value": 5.0, "error": 1.0} for key in ("kappa_W_mK", "conductance_MW_m2K")}
        (tmp_path / f"{name}.json").write_text(json.dumps(told | {"thickness_A": height}))

    def asked(*names, between="thin", **content):
        phases = [{"name": name, "file": str(tmp_path / f"{name}.json")} for name in names]
        boundaries = [{"between": names[:2], "file": str(tmp_path / f"{between}.json")}] if len(names) > 1 else []
        geometry = {"type": "checkerboard"} | content
        return settings(tmp_path / "run", phases=phases, boundaries=boundaries, geometry=geometry, refinements=0)

    continuum(asked("thin"))
    for wrong in (asked("thin", "bulk"), asked("thin", "thick"), asked("bulk", "thick", between="bulk")):
        with pytest.raises(Error, match="sheets of one `thickness`.*: none|6.7 Å"):
            continuum(wrong)
    with pytest.raises(Error, match="nothing of the third dimension"):
        continuum(asked("thin", dimension=3))


def test_labels_come_from_files(tmp_path):
    labels = np.array([[0, 0], [7, 7]])
    np.save(tmp_path / "labels.npy", labels)
    np.savetxt(tmp_path / "labels.txt", labels, fmt="%d")
    phases = [{"name": "a", "kappa": 1.0}, {"name": "b", "kappa": 4.0}]
    for name in ("labels.npy", "labels.txt"):
        asked = settings(tmp_path / "run", phases=phases, geometry={"type": "labels", "file": str(tmp_path / name)})
        found = continuum(asked)
        assert np.diag(found["results"][0]["kappa_W_mK"]) == pytest.approx([1.6, 2.5])
    wrong = settings(tmp_path, geometry={"type": "labels", "dimension": 3, "file": str(tmp_path / "labels.npy")})
    with pytest.raises(Error, match="want whole numbers in 3 dimensions, found int64 in 2"):
        continuum(wrong)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"phases": []}, "phases"),
        ({"phases": [{"name": "a"}]}, "either `kappa` or the `file`"),
        ({"phases": [{"name": "a", "kappa": [1.0, 2.0]}]}, "six of a tensor"),
        ({"boundaries": [{"between": ["a", "b"], "conductance": 1.0}]}, "no phase is named b"),
        ({"geometry": {"type": "labels"}}, "must be given there"),
        ({"geometry": {"box": [1.0, 1.0, 1.0]}}, "`box` wants 2 edges, found 3"),
    ],
)
def test_settings_are_checked(tmp_path, content, message):
    with pytest.raises(Error, match=message):
        settings(tmp_path, **content)
    with pytest.raises(Error, match="is not positive"):
        Phase(name="a", kappa=[1.0, 1.0, -1.0, 0.0, 0.0, 0.0]).known()


def test_without_scikit_fem_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(Error, match=re.escape('pip install "pair-mtp[conductivity]"')):
        continuum(settings(tmp_path))


def test_boundaries_may_have_no_resistance(tmp_path):
    (tmp_path / "a.toml").write_text(
        'conductance = inf\nphases = [{name = "a", kappa = 1}, {name = "b", kappa = 2}]\n'
        'boundaries = [{between = ["a", "b"], conductance = 3.0}]\n'
    )
    conductances, _ = load(tmp_path / "a.toml", ContinuumSettings).conductances()
    assert conductances == pytest.approx(np.array([[np.inf, 3e6], [3e6, np.inf]]))


def test_examples_of_the_docs_are_settings():
    text = (Path(__file__).parents[1] / "docs" / "lattice_conductivity.md").read_text()
    phonons, parts, grains, files = re.findall("```toml\n(.*?)```", text, re.DOTALL)
    checked(tomllib.loads(phonons + parts), BteSettings, "docs")
    for block in (grains, files):
        checked(tomllib.loads(block), ContinuumSettings, "docs")


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_command_writes_numbers_and_figures(mtp, tmp_path, dimension):
    (tmp_path / "grains.toml").write_text(
        f"""
phases = [{{name = "a", kappa = 10.0}}, {{name = "b", kappa = 1.0}}]
boundaries = [{{between = ["a", "b"], conductance = 100.0}}]
sizes = [10, 100]
refinements = 0
[geometry]
dimension = {dimension}
grains = 8
realisations = 1
"""
    )
    done = mtp(tmp_path, "conductivity", "continuum", "grains.toml", "--json", "kappa.json")
    assert done.returncode == 0, done.stderr
    assert "effective κ" in done.stdout
    assert len(json.loads((tmp_path / "kappa.json").read_text())["results"]) == 2
    for name in ("temperature.png", "sizes.png"):
        with Image.open(tmp_path / "continuum" / name) as image:
            assert len(set(image.convert("L").tobytes())) > 10
