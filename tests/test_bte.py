# SPDX-License-Identifier: BSD-3-Clause
"""Force constants, conductivities and files of the Boltzmann transport equation obey the laws that they must."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from PIL import Image

pytest.importorskip("phono3py", reason='needs phono3py: pip install "pair-mtp[conductivity]"')

from phonopy.phonon.grid import get_ir_grid_points

from mtp.conductivity import transport
from mtp.conductivity.bte import bte
from mtp.conductivity.bte_output import independent
from mtp.conductivity.bte_settings import BteSettings, ForceConstants, Relaxation, Transport
from mtp.conductivity.force_constants import at_rest, displaced, harmonic, produce
from mtp.conductivity.forces import LabellerEngine, PotentialEngine, Records, gather
from mtp.conductivity.shengbte import export, second_order, third_order
from mtp.conductivity.transport import Solution, cumulative, extrapolated, mesh_matrix, solve
from mtp.errors import Error
from mtp.phonons import dispersion, frequencies
from mtp.potential import Potential
from mtp.settings import Labelling, checked
from mtp.uncertainty import Posterior

SILICON = Path(__file__).parents[1] / "lammps_inputs" / "silicon" / "Si_liquid.mtp"
DIAMOND = {"name": "Si", "structure": "diamond", "a": 5.43}
TOY = {"transport": {"meshes": [3, 4]}, "force_constants": {"supercell": [1, 1, 1]}}  # 8 atoms


def quiet(text):
    pass


@pytest.fixture(scope="module")
def engine():
    return PotentialEngine(Potential.load(SILICON))


@pytest.fixture(scope="module")
def cell(engine):
    return at_rest(bulk("Si", a=5.43, cubic=True), engine, Relaxation())[0]


@pytest.fixture(scope="module")
def silicon(engine, cell):
    crystal = displaced(cell, ForceConstants())
    produce(crystal, engine, None, quiet)
    return crystal


@pytest.fixture(scope="module")
def direct(silicon):
    return solve(silicon, 4, Transport(temperatures=[300.0, 600.0], solution="direct"))


def settings(folder, **content) -> BteSettings:
    told = {"folder": str(folder), "potential": str(SILICON), "crystal": DIAMOND} | TOY | content
    return checked(told, BteSettings, "test")


# ---- laws


def test_force_constants_obey_sum_rules_and_permutations(silicon):
    fc2, fc3 = silicon.fc2, silicon.fc3
    assert np.abs(fc2.sum(axis=1)).max() < 1e-10 * np.abs(fc2).max()
    for axis in (1, 2):
        assert np.abs(fc3.sum(axis=axis)).max() < 1e-10 * np.abs(fc3).max()
    assert np.allclose(fc3, fc3.transpose(0, 2, 1, 3, 5, 4), rtol=0, atol=1e-10 * np.abs(fc3).max())


def test_the_conductivity_of_a_cubic_crystal_is_isotropic_and_the_sum_of_its_modes(direct):
    for tensor, modes in zip(direct.kappa, direct.modes, strict=True):
        assert tensor[:3] == pytest.approx(tensor[0], rel=1e-8)
        assert np.abs(tensor[3:]).max() < 1e-8 * tensor[0]
        assert modes.sum(axis=(0, 1)) == pytest.approx(tensor, rel=1e-8, abs=1e-8 * tensor[0])


def test_the_direct_solution_brings_the_relaxation_times_with_it(silicon, direct):
    alone = solve(silicon, 4, Transport(temperatures=[300.0, 600.0]))
    assert direct.relaxation_time == pytest.approx(alone.kappa, rel=1e-6, abs=1e-6)
    # normal processes do not resist: treating them as if they did makes κ smaller
    assert (direct.kappa[:, 0] > alone.kappa[:, 0]).all()


def test_quantum_occupations_become_classical_at_high_temperature(silicon):
    hot = [5000.0, 10000.0]
    quantum = solve(silicon, 3, Transport(temperatures=hot))
    classical = solve(silicon, 3, Transport(temperatures=hot, occupation="classical"))
    assert classical.kappa[0] == pytest.approx(2 * classical.kappa[1])
    assert classical.paths[0] == pytest.approx(2 * classical.paths[1])
    # (ħω/kT)²/12 of 15 THz: 1.7e-3 at 5000 K, a quarter of that at twice the temperature
    difference = np.abs(quantum.kappa / classical.kappa - 1)[:, 0]
    assert difference[0] < 3e-3
    assert difference[1] == pytest.approx(difference[0] / 4, rel=0.1)


def test_classical_modes_conduct_as_their_heat_capacity_velocity_and_path_say(silicon):
    """κ = Σ k v² τ / (3 V N): the heat capacity of a classical mode, and none of Bose and Einstein's."""
    found = solve(silicon, 3, Transport(temperatures=[300.0], occupation="classical", grid="unit"))
    weights = get_ir_grid_points(silicon.grid)[1]
    speeds = np.linalg.norm(silicon.thermal_conductivity.group_velocities, axis=-1)  # Å THz
    carried = (weights[:, None] * speeds * found.paths[0]).sum() / found.n_q  # Å² THz: v² τ
    volume = abs(np.linalg.det(silicon.primitive.cell))
    kappa = units._k * 1e22 * carried / (3 * volume)  # of J/(K s Å): 1e10, and of THz: 1e12
    assert found.relaxation_time[0, :3].mean() == pytest.approx(kappa, rel=1e-4)


def test_surfaces_and_isotopes_resist(silicon):
    plain = solve(silicon, 3, Transport())
    isotopes = solve(silicon, 3, Transport(isotopes=True))
    bounded = solve(silicon, 3, Transport(boundary=50.0))
    assert 0.5 * plain.kappa[0, 0] < isotopes.kappa[0, 0] < plain.kappa[0, 0]
    assert bounded.kappa[0, 0] < plain.kappa[0, 0]
    assert bounded.paths.max() <= 50.0 < plain.paths.max()


def test_a_mesh_on_which_nothing_scatters_is_refused(silicon):
    with pytest.raises(Error, match="take a finer mesh, or `broadening`"):
        solve(silicon, 1, Transport())


def test_cumulative_curves_rise_to_the_whole(direct):
    x, kappa = cumulative(direct.paths[0], direct.modes[0])
    assert (np.diff(x) >= 0).all()
    assert kappa[-1] == pytest.approx(direct.kappa[0, :3].mean())
    assert kappa[0] < 0.01 * kappa[-1]


def test_the_mesh_of_a_unit_cell_holds_the_waves_of_its_repeats(silicon, cell):
    matrix = mesh_matrix(silicon, 2, "unit")
    assert abs(np.linalg.det(matrix)) == pytest.approx(len(cell.repeat(2)) / len(silicon.primitive))
    found = (silicon.primitive.cell.T @ matrix).T
    assert found == pytest.approx(2 * cell.cell.array, abs=1e-6)
    found = solve(silicon, 2, Transport(grid="unit"))
    # the frequencies are among those of the supercell at Γ
    supercell = harmonic(silicon)
    repeated = frequencies(supercell, [np.linalg.solve(matrix.T, n) for n in itertools.product(range(4), repeat=3)])
    for frequency in found.frequencies.ravel():
        assert np.abs(repeated - frequency).min() < 1e-6


def test_the_extrapolation_is_exact_where_the_law_holds():
    def of(n):
        kappa = np.array([[100.0, 50, 20, 0, 0, 1]]) * (1 - 2 / n)
        return Solution(n * np.eye(3), kappa, kappa, *[np.zeros(0)] * 3)

    assert extrapolated([of(5), of(11), of(15)])[0] == pytest.approx([100, 50, 20, 0, 0, 1])
    assert extrapolated([of(11), of(15)])[0] == pytest.approx([100, 50, 20, 0, 0, 1])
    assert extrapolated([of(5)]) is None


def test_files_of_shengbte_hold_the_same_crystal(silicon, tmp_path):
    """Frequencies from FORCE_CONSTANTS_2ND, and the third derivative of the energy from FORCE_CONSTANTS_3RD."""
    repeats, fc2 = second_order(silicon)
    assert repeats == [4, 4, 4]
    primitive = silicon.primitive
    shifts = [np.array(s) for s in itertools.product((-1, 0, 1), repeat=3)]
    q = np.array([0.13, 0.21, -0.34])
    matrix = np.zeros((6, 6), complex)
    n_cells = 64
    for i, j in itertools.product(range(2), repeat=2):
        for c, (z, y, x) in enumerate(itertools.product(range(4), repeat=3)):  # the first vector runs fastest
            lattice = np.array([[x, y, z] + 4 * s for s in shifts])
            apart = lattice + primitive.scaled_positions[j] - primitive.scaled_positions[i]
            reach = np.linalg.norm(apart @ primitive.cell, axis=1)
            nearest = lattice[reach < reach.min() + 1e-4]
            phase = np.exp(2j * np.pi * nearest @ q).mean()
            matrix[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] += phase * fc2[i * n_cells, j * n_cells + c]
    squares = np.linalg.eigvalsh(matrix / primitive.masses[0])
    assert silicon.unit_conversion_factor * np.sqrt(squares) == pytest.approx(frequencies(harmonic(silicon), [q])[0])

    export(tmp_path, silicon, Transport())
    control = (tmp_path / "CONTROL").read_text()
    assert "scell(:)=4 4 4" in control
    assert "natoms=2, ngrid(:)=19 19 19" in control
    lines = (tmp_path / "FORCE_CONSTANTS_2ND").read_text().splitlines()
    assert [float(x) for x in lines[2].split()] == pytest.approx(fc2[0, 0, 0])
    blocks = (tmp_path / "FORCE_CONSTANTS_3RD").read_text().split("\n\n")
    assert int(blocks[0]) == len(blocks) - 1
    (atoms, vectors, values), block = next(third_order(silicon)), blocks[1].splitlines()
    assert [float(x) for x in " ".join(block[1:3]).split()] == pytest.approx(vectors.ravel(), abs=1e-9)
    assert block[3].split() == [str(atom + 1) for atom in atoms]
    assert [float(line.split()[3]) for line in block[4:]] == pytest.approx(values.ravel(), abs=1e-9)


def test_triplets_give_the_third_derivative_of_the_energy(cell, engine):
    """Along a wave that fits into the supercell, against differences of the forces."""
    silicon = displaced(cell, ForceConstants(displacement=0.003))
    produce(silicon, engine, None, quiet)
    supercell, primitive = silicon.supercell, silicon.primitive
    rng = np.random.default_rng(0)
    still, wave = rng.standard_normal((2, len(primitive), 3))
    q = np.linalg.inv(supercell.cell) @ [1, 0, 1]  # per Å

    def displacement(atoms, cells):
        return still[atoms] + wave[atoms] * np.cos(2 * np.pi * np.asarray(cells) @ q)[..., None]

    inside = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    cells = supercell.positions - primitive.positions[inside]
    origins = cells[inside == 0]
    third = 0.0
    for (i, j, k), (second, far), values in third_order(silicon):
        first = displacement(np.full(len(origins), i), origins)
        u, v = (displacement(np.full(len(origins), m), origins + x) for m, x in ((j, second), (k, far)))
        third += np.einsum("abc,na,nb,nc", values, first, u, v)

    step = 1e-3
    direction = displacement(inside, cells)
    places = [
        Atoms(supercell.symbols, supercell.positions + s * direction, cell=supercell.cell, pbc=True)
        for s in (-step, 0, step)
    ]
    along = [(forces * direction).sum() for forces in gather(engine, places)]
    # 0.3 % of this potential's fc3 are fifth derivatives over displacements of 0.003 Å
    assert third == pytest.approx(-(along[0] - 2 * along[1] + along[2]) / step**2, rel=1e-2)


def test_a_body_centred_tetragonal_crystal_has_a_dispersion(engine):
    """phonopy takes another mesh for its density of states, and needs not warn of it."""
    cell = bulk("Si", a=5.43, cubic=True)
    cell.set_cell(cell.cell * [1, 1, 1.02], scale_atoms=True)
    crystal = displaced(cell, ForceConstants(supercell=(1, 1, 1)))
    produce(crystal, engine, None, quiet)
    found = dispersion(harmonic(crystal), imaginary=-100.0)
    assert found["max_THz"] == pytest.approx(max(map(max, found["bands_THz"])), abs=0.5)


# ---- sheets


def test_a_sheet_conducts_by_its_thickness(tmp_path):
    """Of the same modes as the whole cell; the rest of the height is no material, and nothing is summed across it."""
    places = [[1 / 3, 2 / 3, z] for z in (1 / 16, 7 / 16)] + [[2 / 3, 1 / 3, z] for z in (9 / 16, 15 / 16)]
    lonsdaleite = Atoms("Si4", scaled_positions=places, cell=[3.84, 3.84, 6.27, 90, 90, 120], pbc=True)
    lonsdaleite.write(tmp_path / "cell.extxyz")
    told = {"crystal": None, "file": str(tmp_path / "cell.extxyz"), "relax": {"what": "atoms"}}
    whole = bte(settings(tmp_path / "a", **told, transport={"meshes": [[2, 2, 1], [3, 3, 1], [4, 4, 1]]}))
    told["transport"] = {"meshes": [2, 3, 4]}
    sheet = bte(settings(tmp_path / "b", **told, thickness=1.5))
    height = whole["structure"]["cell_A"][2][2]
    in_plane = [0, 1, 5]
    found, expected = (np.array(result["kappa_W_mK"])[0, in_plane] for result in (sheet, whole))
    assert found == pytest.approx(expected * height / 1.5, rel=1e-9, abs=1e-9)
    curve = sheet["cumulative"]["mean_free_path_A"][0]
    assert curve["kappa_W_mK"][-1] == pytest.approx(found[:2].mean())
    means = [np.mean(mesh["kappa_W_mK"][0][:2]) for mesh in sheet["meshes"]]
    limit = np.polyfit([1 / 2, 1 / 3, 1 / 4], means, 1)[1]  # on N × N points
    assert np.mean(sheet["extrapolated_W_mK"][0][:2]) == pytest.approx(limit)
    forces = (tmp_path / "b" / "forces_fc3.bin").stat().st_mtime_ns
    said = []
    thicker = bte(settings(tmp_path / "b", **told, thickness=3.0), said.append)
    assert any("less than the `thickness`: add vacuum" in line for line in said)
    assert np.array(thicker["kappa_W_mK"]) == pytest.approx(np.array(sheet["kappa_W_mK"]) / 2)
    assert (tmp_path / "b" / "forces_fc3.bin").stat().st_mtime_ns == forces
    with pytest.raises(Error, match="holds a calculation with other sheet"):
        bte(settings(tmp_path / "b", **told))


def test_a_sheet_relaxes_in_its_plane(engine):
    given = bulk("Si", a=5.5, cubic=True)
    relaxed, left = at_rest(given, engine, Relaxation(), thickness=2.0)
    assert relaxed.cell[2] == pytest.approx(given.cell[2], abs=1e-12)
    assert relaxed.cell[0, 0] < 5.49
    assert np.abs(np.array(left["stress_GPa"])[[0, 1, 5]]).max() < 0.05
    relaxed.calc = engine.calculator()
    pull = relaxed.get_stress()[2] / units.GPa * relaxed.cell[2, 2] / 2.0
    assert left["stress_GPa"][2] == pytest.approx(pull)


def test_the_direction_across_a_sheet_stays_the_third(engine):
    """Also where the standard setting of the space group permutes the axes, as that of phosphorene's (Pmna) does."""
    x, y, z = 0.0, 0.08, 1.05
    places = [(x, y * 4.6, z), (x, -y * 4.6, -z), (1.65, (0.5 - y) * 4.6, z), (1.65, (0.5 + y) * 4.6, -z)]
    sheets = [Atoms("Si4", places, cell=[3.3, 4.6, 20.0], pbc=True)]
    hexagonal = Atoms("Si2", [[0, 0, 0], [0, 2.2, 0]], cell=[[3.8, 0, 0], [-1.9, 3.29, 0], [0, 0, 20.0]], pbc=True)
    for atoms in [*sheets, hexagonal]:
        vectors = displaced(atoms, ForceConstants(supercell=(2, 2, 1))).primitive.cell
        assert np.abs(vectors[2, :2]).max() < 1e-6
        assert np.abs(vectors[:2, 2]).max() < 1e-6
        assert np.linalg.det(vectors) > 0


# ---- the folder, errors, output


def test_a_cut_record_is_computed_again(tmp_path, engine, silicon):
    cells = [bulk("Si", a=a, cubic=True) for a in (5.3, 5.4, 5.5)]
    for atoms in cells:
        atoms.rattle(0.05)
    path = tmp_path / "forces.bin"
    whole = gather(engine, cells, path)
    with path.open("r+b") as file:
        file.truncate(8 * 3 * 8 + 100)
    assert len(Records(path, (8, 3)).read()) == 1
    assert np.array_equal(gather(engine, cells, path), whole)
    assert len(Records(path, (8, 3)).read()) == 3
    assert np.abs(whole.sum(axis=1)).max() < 1e-12


def test_a_labeller_gives_the_forces_of_its_engine():
    told = Labelling(type="lammps", commands=["pair_style sw", "pair_coeff * * Si.sw Si"], workers=2)
    cells = [bulk("Si", a=5.43, cubic=True) for _ in range(3)]
    for k, atoms in enumerate(cells):
        atoms.rattle(0.05, seed=k)
    with LabellerEngine(told, ["Si"]) as engine:
        found = gather(engine, cells)
        for atoms, forces in zip(cells, found, strict=True):
            atoms.calc = engine.calculator()
            assert forces == pytest.approx(atoms.get_forces(), abs=1e-10)
        relaxed, left = at_rest(cells[0], engine, Relaxation())
        assert relaxed.cell.lengths() == pytest.approx([5.431] * 3, abs=2e-3)
        assert left["force_eV_per_A"] < 1e-5


def test_grades_of_displaced_cells_are_known_where_the_potential_has_an_active_set(engine):
    graded = PotentialEngine(Potential.load(SILICON.with_name("Si.almtp")))
    cells = [bulk("Si", a=a, cubic=True) for a in (5.43, 6.0)]
    assert graded.grades(cells) == [graded.potential.grade(atoms).maximum for atoms in cells]
    assert PotentialEngine(Potential.load(SILICON.with_name("Si.mtp"))).grades(cells) is None


def test_displaced_cells_that_extrapolate_are_told_and_written(tmp_path):
    said = []
    content = {"potential": str(SILICON.with_name("Si.almtp")), "relax": {"what": "atoms"}, "imaginary": -100.0}
    asked = settings(tmp_path / "bte", crystal={**DIAMOND, "a": 6.2}, **content)
    found = bte(asked, said.append)
    assert found["grade"] > 2
    assert any("warning: displaced cells extrapolate" in line for line in said)
    cells = read(asked.folder / "extrapolating.extxyz", ":")
    assert max(atoms.info["grade"] for atoms in cells) == pytest.approx(found["grade"])


def test_a_mesh_goes_on_from_the_q_points_that_are_there(silicon, tmp_path, monkeypatch):
    whole = solve(silicon, 4, Transport())
    monkeypatch.setattr(transport, "CHUNK", 3)
    said = []

    def kill(done, total):
        said.append((done, total))
        if done == 6:
            raise KeyboardInterrupt

    path = tmp_path / "mesh.npz"
    with pytest.raises(KeyboardInterrupt):
        solve(silicon, 4, Transport(), path, kill)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["mesh.0.npz", "mesh.1.npz"]
    monkeypatch.setattr(silicon, "run_thermal_conductivity", count := Counted(silicon.run_thermal_conductivity))
    again = solve(silicon, 4, Transport(), path)
    assert count.calls == -(-said[0][1] // 3) - 2
    assert again.kappa == pytest.approx(whole.kappa, rel=1e-9, abs=1e-9)
    assert again.paths == pytest.approx(whole.paths, rel=1e-9)
    assert list(tmp_path.iterdir()) == [path]
    assert Solution.load(path).kappa == pytest.approx(again.kappa)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments, **keywords):
        self.calls += 1
        return self.function(*arguments, **keywords)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    asked = settings(tmp_path / "whole", export=["phono3py", "shengbte"])
    whole = bte(asked)
    assert json.loads((asked.folder / "result.json").read_text()) == json.loads(json.dumps(whole))
    for file in ("phono3py_disp.yaml", "phono3py_params.yaml", "fc2.hdf5", "fc3.hdf5", "shengbte/CONTROL"):
        assert (asked.folder / file).exists()
    shutil.copytree(asked.folder, tmp_path / "killed")
    killed = settings(tmp_path / "killed")  # what is exported may change
    (killed.folder / "fc3.hdf5").unlink()
    next(killed.folder.glob("mesh_4*.npz")).unlink()
    forces = killed.folder / "forces_fc3.bin"
    forces.write_bytes(forces.read_bytes()[:1000])
    again = bte(killed)
    assert np.allclose(again["kappa_W_mK"], whole["kappa_W_mK"], rtol=1e-9, atol=1e-9)
    other = settings(tmp_path / "killed", force_constants={"displacement": 0.02})
    with pytest.raises(Error, match="holds a calculation with other force_constants: name a new `folder`"):
        bte(other)


def test_parts_of_the_uncertainty_are_listed(tmp_path):
    other = Potential.load(SILICON)
    parameters = other.parameters.copy()
    parameters[-other.facts.n_scalar :] *= 1.01
    other.parameters = parameters
    other.save(tmp_path / "other.mtp")
    files = [str(SILICON), str(tmp_path / "other.mtp")]
    said = []
    uncertainty = {"mesh": 3, "potentials": files, "supercell": [2, 2, 2], "displacement": 0.01}
    found = bte(settings(tmp_path / "bte", uncertainty=uncertainty), said.append)
    names = ("mesh", "cell", "displacement", "potential")
    parts = {name: np.array(found["uncertainty_W_mK"][name]) for name in (*names, "total")}
    kappa, limit = np.array(found["kappa_W_mK"]), np.array(found["extrapolated_W_mK"])
    assert parts["mesh"] == pytest.approx(np.abs(limit - kappa))
    assert parts["total"] ** 2 == pytest.approx(sum(parts[name] ** 2 for name in names))
    changes = [json.loads(line.partition(": ")[2].split()[0]) for line in said if line.startswith("potential ")]
    base = found["meshes"][0]["kappa_W_mK"][0]
    mean = np.mean(base[:3])
    assert parts["potential"][0, 0] / kappa[0, 0] == pytest.approx(np.std(np.array(changes) / mean, ddof=1), rel=0.2)
    for name in ("cell", "displacement"):
        assert (parts[name][0, :3] > 0).all()


def test_potentials_are_drawn_from_a_posterior(tmp_path):
    potential = Potential.load(SILICON)
    n = potential.facts.n_species + potential.facts.n_scalar
    Posterior(potential, np.zeros((n, n))).save(tmp_path / "a.posterior.npz")
    uncertainty = {"posterior": str(tmp_path / "a.posterior.npz"), "samples": 2}
    found = bte(settings(tmp_path / "bte", transport={"meshes": [2]}, uncertainty=uncertainty))
    assert np.abs(found["uncertainty_W_mK"]["potential"]).max() < 1e-6 * np.max(found["kappa_W_mK"])
    assert found["uncertainty_W_mK"]["mesh"] is None


def test_a_supercell_that_breaks_the_symmetry_is_refused(tmp_path):
    with pytest.raises(Error, match=r"the supercell \(1, 1, 2\) breaks the symmetry of the crystal"):
        bte(settings(tmp_path, force_constants={"supercell": [1, 1, 2]}))


def test_what_is_not_at_rest_is_refused(tmp_path):
    stretched = {**DIAMOND, "a": 5.6}
    with pytest.raises(Error, match=r"the cell is not relaxed: a stress of .* GPa is left, above relax.stress = 0.05"):
        bte(settings(tmp_path / "a", crystal=stretched, relax={"what": "nothing"}))
    chosen = bte(settings(tmp_path / "b", crystal=stretched, relax={"what": "atoms"}, transport={"meshes": [2]}))
    assert chosen["stress_GPa"][0] > 1
    moved = bulk("Si", a=5.43, cubic=True)
    moved.rattle(0.05)
    moved.write(tmp_path / "moved.extxyz")
    told = {"crystal": None, "file": str(tmp_path / "moved.extxyz"), "relax": {"what": "nothing"}}
    with pytest.raises(Error, match=r"the structure is not relaxed: a force of .* eV/Å is left"):
        bte(settings(tmp_path / "c", **told))


def test_a_crystal_that_is_not_stable_is_refused_with_the_soft_modes(tmp_path):
    expanded = {**DIAMOND, "a": 6.6}
    with pytest.raises(
        Error, match=r"Si8, cell \[6.6, 6.6, 6.6\] Å, .*imaginary modes at \d+ of \d+ q-points, .* THz at q = "
    ):
        bte(settings(tmp_path / "bte", crystal=expanded, relax={"what": "atoms"}))
    assert (tmp_path / "bte" / "structure.extxyz").exists()


def test_without_phono3py_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "phono3py", None)
    with pytest.raises(Error, match=re.escape('pip install "pair-mtp[conductivity]"')):
        bte(settings(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"file": "a.cif"}, "either a `crystal` or a `file`"),
        ({"potential": None}, "either a `potential` or a `reference`"),
        ({"transport": {"meshes": [5, 3]}}, "`meshes` must grow"),
        ({"transport": {"occupation": "classical", "isotopes": True}}, "for comparison with MD"),
        ({"uncertainty": {"potentials": ["a.mtp"]}}, "give two or more"),
        ({"relax": {"what": "all"}}, "relax.what"),
        ({"thickness": 3.0, "force_constants": {}}, "supercell`: a sheet with a `thickness` is not repeated along z"),
        ({"thickness": 3.0, "transport": {"meshes": [[5, 5, 2]]}}, "one point along z, found"),
    ],
)
def test_settings_are_checked(tmp_path, content, message):
    with pytest.raises(Error, match=message):
        settings(tmp_path, **content)


def test_born_charges_that_do_not_fit_are_refused(tmp_path, cell):
    (tmp_path / "BORN").write_text("14.4\n1 2 3\n")
    with pytest.raises(Error, match="BORN: cannot be used as Born charges"):
        displaced(cell, ForceConstants(), tmp_path / "BORN")


def test_born_charges_are_read_and_made_neutral(tmp_path):
    tensor, charge = "12 0 0 0 12 0 0 0 12", "{0} 0 0 0 {0} 0 0 0 {0}"
    (tmp_path / "BORN").write_text(f"14.4\n{tensor}\n{charge.format(2.1)}\n{charge.format(-2.0)}\n")
    crystal = displaced(bulk("GaAs", "zincblende", a=5.65, cubic=True), ForceConstants(), tmp_path / "BORN")
    assert crystal.nac_params["born"] == pytest.approx(2.05 * np.array([np.eye(3), -np.eye(3)]))
    assert crystal.nac_params["dielectric"] == pytest.approx(12 * np.eye(3))
    (tmp_path / "BORN").write_text(f"14.4\n{tensor}\n{charge.format(2)}\n{charge.format(2)}\n")
    with pytest.raises(Error, match="do not add up to zero, but to 2 e an atom"):
        displaced(bulk("GaAs", "zincblende", a=5.65, cubic=True), ForceConstants(), tmp_path / "BORN")


def test_cells_differ_by_order_and_pairs_by_distance(engine, cell):
    near = displaced(cell, ForceConstants(pair_cutoff=3.0, harmonic_supercell=(3, 3, 3)))
    facts = produce(near, engine, None, quiet)
    assert facts["displaced_fc2"] == 1
    assert 10 < facts["displaced_fc3"] < 111
    assert near.fc2.shape[1] == 216
    assert near.fc3.shape[1] == 64
    # second order is that of the larger cell, whose frequencies at Γ and X both cells know
    whole = displaced(cell, ForceConstants(supercell=(1, 1, 1), harmonic_supercell=(2, 2, 2)))
    produce(whole, engine, None, quiet)
    at = [[0, 0, 0]]
    assert frequencies(harmonic(near), at) == pytest.approx(frequencies(harmonic(whole), at), abs=0.02)


def test_components_that_symmetry_makes_equal_are_told_once():
    assert independent([3.0, 3.0, 5.0, 0.0, 0.0, 0.0]) == [("xx yy", 0), ("zz", 2)]
    assert independent([3.0, 3.0, 3.0, 0.0, 0.0, 1.0]) == [("xx yy zz", 0), ("xy", 5)]


def test_the_command_writes_numbers_and_figures(mtp, tmp_path):
    (tmp_path / "bte.toml").write_text(
        f"""
potential = "{SILICON}"
crystal = {{name = "Si", structure = "diamond", a = 5.43}}
force_constants = {{supercell = [1, 1, 1]}}
[transport]
temperatures = [200, 300, 600]
meshes = [2, 3]
"""
    )
    done = mtp(tmp_path, "conductivity", "bte", "bte.toml", "--json", "kappa.json")
    assert done.returncode == 0, done.stderr
    assert "xx yy zz" in done.stdout
    found = json.loads((tmp_path / "kappa.json").read_text())
    assert np.shape(found["kappa_W_mK"]) == (3, 6)
    for name in ("phonons.png", "conductivity.png"):
        with Image.open(tmp_path / "bte" / name) as image:
            assert len(set(image.convert("L").tobytes())) > 10
