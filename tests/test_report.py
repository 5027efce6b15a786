# SPDX-License-Identifier: BSD-3-Clause
"""Reports: their numbers are those of the data, whatever the data lack, and their page holds all that it shows."""

import csv
import itertools
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from ase import Atoms
from ase.units import GPa
from PIL import Image

from mtp import figures
from mtp.cli.output import Bar
from mtp.configurations import Labels, with_labels
from mtp.errors import DataError, Error
from mtp.evaluation import force_errors_by_magnitude, group
from mtp.fit import Step
from mtp.report import write_report

SUMMED_IN_ANOTHER_ORDER = 1e-12
STEPS = [Step(0, 3.0, 0.5, 0.1, 0.7), Step(1, 1.5, 1.0, 0.05, 0.4), Step(2, 1.0, 1.5, 0.02, 0.2)]
FIGURES = ["distances.png", "error_distributions.png", "force_errors.png", "learning_curve.png", "parity.png"]


@pytest.fixture(autouse=True)
def _small_figures(monkeypatch):
    monkeypatch.setattr(figures, "RESOLUTION", 40)


@pytest.fixture(scope="module")
def potential(random_potential):
    return random_potential(("Cu", "O"), level=6, n_chebyshev=5)


@pytest.fixture(scope="module")
def configurations(potential, random_atoms):
    """Makes configurations whose labels are the potential's values and noise; those of `without` are left out."""

    def make(count=6, seed=0, without=(), noise=1.0):
        rng = np.random.default_rng(seed)
        made = []
        for k in range(count):
            atoms = random_atoms(("Cu", "O"), seed=100 * seed + k)
            exact = potential.evaluate(atoms)
            known = {
                "energy": exact.energy + noise * 0.3 * rng.standard_normal(),
                "forces": exact.forces + noise * 0.1 * rng.standard_normal(exact.forces.shape),
                "stress": exact.stress + noise * 0.01 * rng.standard_normal(6),
            }
            atoms = with_labels(atoms, Labels(**{**known, **dict.fromkeys(without)}))
            atoms.info["source"] = f"data/file_{seed}.extxyz#{k + 1}"
            made.append(atoms)
        return made

    return make


def no_nan(token):
    raise AssertionError(f"{token} in JSON")


def contents(folder):
    """The numbers, the lines of the table, and the page."""
    numbers = json.loads((folder / "errors.json").read_text("utf-8"), parse_constant=no_nan)
    with (folder / "configurations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return numbers, rows, (folder / "report.html").read_text("utf-8")


class Page(HTMLParser):
    """What a page shows as text, which tags it uses, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.shown = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "style")]

    def handle_data(self, data):
        self.shown.append(data)


# ---- numbers


def test_numbers_are_those_of_an_independent_sum(potential, configurations, tmp_path):
    data = {"train": configurations(6, 1), "validation": configurations(3, 2)}
    page = write_report(tmp_path / "report", potential, data, history=STEPS)
    assert page == tmp_path / "report" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == sorted(
        [*FIGURES, "configurations.csv", "errors.json", "forces.npz", "report.html"]
    )
    numbers, rows, _ = contents(page.parent)
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == 9
    flat = {"force": [], "energy": [], "stress": []}
    for name, each in data.items():
        forces, species = [], []
        for atoms in each:
            result = potential.evaluate(atoms)
            known = atoms.calc.results
            row = by_id[atoms.info["source"]]
            energy = (result.energy - known["energy"]) / len(atoms)
            force, stress = result.forces - known["forces"], (result.stress - known["stress"]) / GPa
            lengths = np.sqrt((force**2).sum(axis=1))
            expected = {
                "reference_energy_eV_per_atom": known["energy"] / len(atoms),
                "predicted_energy_eV_per_atom": result.energy / len(atoms),
                "energy_error_meV_per_atom": 1e3 * energy,
                "force_rmse_eV_per_A": np.sqrt((force**2).mean()),
                "largest_force_error_eV_per_A": lengths.max(),
                "stress_rmse_GPa": np.sqrt((stress**2).mean()),
            }
            # energies are differences of larger numbers
            assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-9)
            assert (row["data"], int(row["atoms"])) == (name, 8)
            assert int(row["atom_of_largest_force_error"]) == lengths.argmax()
            forces.append(force)
            species += atoms.get_chemical_symbols()
            flat["force"].append(force.ravel())
            flat["energy"].append([energy])
            flat["stress"].append(stress)
        reported = numbers["data"][name]
        error = np.concatenate(forces)
        assert reported["force_eV_per_A"] == pytest.approx(
            {"rmse": np.sqrt((error**2).mean()), "mae": np.abs(error).mean(), "max": np.abs(error).max()},
            rel=SUMMED_IN_ANOTHER_ORDER,
        )
        for element in ("Cu", "O"):
            chosen = error[np.array(species) == element]
            assert reported["species"][element]["atoms"] == len(chosen)
            assert reported["species"][element]["rmse"] == pytest.approx(
                np.sqrt((chosen**2).mean()), rel=SUMMED_IN_ANOTHER_ORDER
            )
    unit = {name: np.sqrt((np.concatenate(parts) ** 2).mean()) for name, parts in flat.items()}
    for row in rows:
        ratios = (
            abs(float(row["energy_error_meV_per_atom"])) / 1e3 / unit["energy"],
            float(row["force_rmse_eV_per_A"]) / unit["force"],
            float(row["stress_rmse_GPa"]) / unit["stress"],
        )
        assert float(row["outlier"]) == pytest.approx(max(ratios), rel=1e-9)
    assert numbers["learning_curve"][1] == {
        "validation_loss": None,
        "iteration": 1,
        "loss": 1.5,
        "seconds": 1.0,
        "energy_rmse": 0.05,
        "force_rmse": 0.4,
        "level": None,
    }


def test_forces_of_all_atoms_are_kept(potential, configurations, tmp_path):
    data = [*configurations(3, 1), *configurations(2, 2, without=["forces"])]
    write_report(tmp_path, potential, {"data": data})
    with np.load(tmp_path / "forces.npz") as file:
        kept = dict(file)
    assert kept["ids"].tolist() == [atoms.info["source"] for atoms in data[:3]]
    assert kept["configuration"].tolist() == np.repeat(range(3), 8).tolist()
    assert kept["atom"].tolist() == 3 * list(range(8))
    assert kept["species"].tolist() == [symbol for atoms in data[:3] for symbol in atoms.get_chemical_symbols()]
    np.testing.assert_array_equal(kept["reference"], np.concatenate([a.calc.results["forces"] for a in data[:3]]))
    np.testing.assert_array_equal(kept["predicted"], np.concatenate([potential.evaluate(a).forces for a in data[:3]]))


def test_the_worst_come_first(potential, configurations, tmp_path):
    data = configurations(8, 3)
    bad = data[5]
    data[5] = with_labels(bad, Labels(bad.calc.results["energy"] + 50, bad.calc.results["forces"], None))
    write_report(tmp_path, potential, {"train": data})
    numbers, rows, page = contents(tmp_path)
    outliers = [float(row["outlier"]) for row in rows]
    assert outliers == sorted(outliers, reverse=True)
    assert rows[0]["id"] == "data/file_3.extxyz#6"
    assert [row["id"] for row in numbers["worst"]] == [row["id"] for row in rows]
    places = [page.index(f">{row['id']}<") for row in rows]
    assert places == sorted(places)


def test_groups_are_config_types_or_groups_or_files(potential, configurations, tmp_path):
    data = configurations(4, 5)
    data[0].info["config_type"] = "liquid"
    data[1].info["config_type"] = "liquid"
    data[1].info["group"] = "ignored"
    data[2].info["group"] = "two\n words"
    assert [group(atoms) for atoms in data] == ["liquid", "liquid", "two words", "file_5.extxyz"]
    assert group(Atoms("Cu")) == "no group"
    write_report(tmp_path, potential, {"train": data})
    numbers, rows, _ = contents(tmp_path)
    groups = numbers["data"]["train"]["groups"]
    assert {name: found["configurations"] for name, found in groups.items()} == {
        "liquid": 2,
        "two words": 1,
        "file_5.extxyz": 1,
    }
    squares = [float(row["force_rmse_eV_per_A"]) ** 2 for row in rows if row["group"] == "liquid"]
    assert groups["liquid"]["force_eV_per_A"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(squares)), rel=SUMMED_IN_ANOTHER_ORDER
    )


def test_force_errors_by_magnitude_hold_every_atom():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((500, 3)) * 10 ** rng.uniform(-5, 1, (500, 1))
    reference[:3] = 0
    predicted = reference + rng.standard_normal((500, 3))
    bins = force_errors_by_magnitude(reference, predicted)
    assert sum(line["atoms"] for line in bins) == 500
    assert all(lower["to"] <= upper["from"] for lower, upper in itertools.pairwise(bins))
    magnitude = np.linalg.norm(reference, axis=1)
    error = np.linalg.norm(predicted - reference, axis=1)
    for line in bins[1:-1]:
        inside = (magnitude >= line["from"]) & (magnitude < line["to"])
        rmse, force = np.sqrt((error[inside] ** 2).mean()), np.sqrt((magnitude[inside] ** 2).mean())
        assert (line["rmse"], line["relative"]) == pytest.approx((rmse, rmse / force), rel=SUMMED_IN_ANOTHER_ORDER)
    assert force_errors_by_magnitude(np.zeros((0, 3)), np.zeros((0, 3))) == []
    (only,) = force_errors_by_magnitude(np.zeros((2, 3)), np.ones((2, 3)))
    assert (only["atoms"], only["relative"]) == (2, None)


# ---- data of any kind


@pytest.mark.parametrize(
    ("count", "without"),
    [
        (1, ["stress"]),
        (1, ["forces"]),
        (4, ["energy"]),
        (4, ["forces", "stress"]),
        (1, ["energy", "stress"]),
        (1, ["energy", "forces"]),
    ],
)
def test_missing_labels_leave_gaps_and_no_nan(potential, configurations, tmp_path, without, count):
    data = {"train": configurations(count, 1, without), "validation": configurations(1, 2)}
    write_report(tmp_path, potential, data)
    numbers, rows, page = contents(tmp_path)
    columns = {"energy": "energy_error_meV_per_atom", "forces": "force_rmse_eV_per_A", "stress": "stress_rmse_GPa"}
    for row in rows:
        for quantity, column in columns.items():
            assert (row[column] == "") == (row["data"] == "train" and quantity in without)
    keys = {"energy": "energy_per_atom_eV", "forces": "force_eV_per_A", "stress": "stress_GPa"}
    assert all((numbers["data"]["train"][key] is None) == (name in without) for name, key in keys.items())
    assert not {"nan", "inf"} & {word.lower() for word in "".join(Page(page).shown).split()}
    for name in FIGURES[:2]:
        with Image.open(tmp_path / name) as image:
            image.load()


def test_a_perfect_potential_and_vanishing_forces_are_reported(random_potential, tmp_path):
    potential = random_potential(("Cu",), level=4)
    crystal = Atoms("Cu", cell=[2.5] * 3, pbc=True)
    exact = potential.evaluate(crystal)
    write_report(tmp_path, potential, {"data": [with_labels(crystal, Labels(exact.energy, np.zeros((1, 3)), None))]})
    numbers, rows, _ = contents(tmp_path)
    assert numbers["data"]["data"]["energy_per_atom_eV"]["max"] == 0
    assert (len(rows), rows[0]["id"]) == (1, "data#1")


def test_species_without_names_and_atoms_without_neighbours_are_reported(potential, tmp_path):
    unnamed = potential.copy()
    unnamed.species = None
    atoms = Atoms("X2", [[0, 0, 0], [9, 0, 0]])
    atoms.arrays["type"] = np.array([0, 1])
    write_report(tmp_path, unnamed, {"data": [with_labels(atoms, Labels(1.0, np.ones((2, 3)), None))]})
    numbers, _, _ = contents(tmp_path)
    assert list(numbers["data"]["data"]["species"]) == ["type 0", "type 1"]
    assert numbers["data"]["data"]["shortest_distances_A"] == {}


def test_data_without_labels_are_refused(potential, configurations, tmp_path):
    with pytest.raises(DataError, match="the data are not labelled"):
        write_report(tmp_path / "report", potential, {"data": configurations(2, 1, ["energy", "forces", "stress"])})
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_made_is_an_error(potential, configurations, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="file: cannot be made a folder"):
        write_report(tmp_path / "file", potential, {"data": configurations(1)})


def test_thinned_points_keep_the_largest_errors():
    errors = np.random.default_rng(0).random(10**5)
    drawn = figures._thinned(errors, 1000)
    assert len(drawn) <= 1000
    assert set(np.argsort(errors)[-100:]) <= set(drawn)
    assert (np.diff(drawn) > 0).all()


# ---- the page


def test_the_page_loads_nothing(potential, configurations, tmp_path):
    write_report(tmp_path, potential, {"train": configurations()}, history=STEPS)
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert sum(value.startswith("data:image/png;base64,") for value in page.loads) == len(page.loads) == len(FIGURES)
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    assert not any(word in text for word in ("url(", "@import", "http://", "https://"))


def test_names_are_shown_as_they_are(potential, configurations, tmp_path):
    data = configurations(12, 1)
    names = ["Oberfläche", "缺陷", "$x_1", "_hidden", "<b>bold</b> & more", "a" * 60]
    for k, atoms in enumerate(data):
        atoms.info["config_type"] = names[k % len(names)]
        atoms.info["source"] = f"süß/{k}.extxyz#1"
    folder = tmp_path / "Bericht über Kupfer"
    facts = {"title": "<i>title</i>", "findings": ["1 < 2"], "command": "mtp fit 'ä <b>'"}
    write_report(folder, potential, {"Prüfung $": data}, settings={"fit": {"seed": 7, "files": ["ä"]}}, **facts)
    numbers, rows, text = contents(folder)
    shown = Page(text).shown
    for name in [*names, "Prüfung $", "<i>title</i>", "1 < 2", "mtp fit 'ä <b>'", "fit.seed", "7", "süß/3.extxyz#1"]:
        assert name in shown
    assert {row["group"] for row in rows} == set(numbers["data"]["Prüfung $"]["groups"]) == set(names)


def test_a_report_is_replaced_by_the_next(potential, configurations, tmp_path):
    write_report(tmp_path, potential, {"train": configurations()}, history=STEPS)
    assert (tmp_path / "learning_curve.png").exists()
    write_report(tmp_path, potential, {"train": configurations(2, 1, without=["forces"])})
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["distances.png", "error_distributions.png", "parity.png"]


# ---- radial functions and progress


def test_radial_functions_are_those_of_the_energy(random_potential):
    """A level-2 energy is ξ0 + ξ Σ_j f_0(r_ij): between two atoms, the function itself."""
    potential = random_potential(("Cu", "O"), level=2, n_chebyshev=6)
    species, moment = potential.parameters[-3:-1], potential.parameters[-1]
    r = np.linspace(0.8, potential.facts.cutoff + 0.5, 40)
    functions = potential.radial_functions(r)
    assert functions.shape == (2, 2, 1, 40)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for k, distance in enumerate(r):
            atoms = Atoms([potential.species[i], potential.species[j]], [[0, 0, 0], [distance, 0, 0]])
            first = potential.evaluate(atoms).energies[0]
            # two sums of six terms of order one
            assert (first - species[i]) / moment == pytest.approx(functions[i, j, 0, k], rel=1e-11, abs=1e-12)
    assert (functions[..., r >= potential.facts.cutoff] == 0).all()


def test_progress_tells_errors_pace_and_time_left(capsys):
    bar = Bar("fitting", 400)
    for step in (Step(0, 2.0, 5.0), Step(1, 1.0, 7.0, 0.0123, 0.456), Step(2, 0.5, 9.0, 0.01, 0.4)):
        bar.show(step)
    assert capsys.readouterr().out.splitlines() == [
        "fitting 0/400: loss 2.0000e+00, 5.0 s",
        "fitting 1/400: loss 1.0000e+00, E 12.3 meV/atom, F 0.456 eV/Å, 7.0 s, 2 s/iteration, at most 13:18 min left",
        "fitting 2/400: loss 5.0000e-01, E 10 meV/atom, F 0.4 eV/Å, 9.0 s, 2 s/iteration, at most 13:16 min left",
    ]
