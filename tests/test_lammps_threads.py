# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp with OpenMP threads inside a rank."""

from __future__ import annotations

import numpy as np
import pytest
from test_lammps import (
    STRUCTURES,
    close,
    coeff,
    crystal,
    dumped,
    evaluated,
    files,  # noqa: F401 (a fixture)
    graded,
    lmp,
    printed,
    rattled,
    succeeds,
    system,
)

QUANTITIES = ("energies", "forces", "virial", "symmetric", "centroid")


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("name", ["triclinic", "two atoms, cutoff beyond the edge", "three species, cluster", "slab"])
def test_any_number_of_threads_gives_the_same(tmp_path, files, monkeypatch, name, threads):  # noqa: F811
    atoms = STRUCTURES[name]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = evaluated(tmp_path, atoms, coeff(files, atoms))
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    many, again = (evaluated(tmp_path, atoms, coeff(files, atoms)) for _ in range(2))
    # 1e-12 of the sum of magnitudes: only the order of the sums differs
    close(many.energy, one.energy, 1e-12, np.abs(one.energies).sum())
    for quantity in QUANTITIES:
        close(getattr(many, quantity), getattr(one, quantity), 1e-12)
        np.testing.assert_array_equal(getattr(again, quantity), getattr(many, quantity))  # to the last bit
    assert again.energy == many.energy


def test_threads_and_ranks_together_give_the_same(tmp_path, files, monkeypatch):  # noqa: F811
    """Also the virial summed over neighbours, and where each thread's atoms are all over the memory."""
    atoms = STRUCTURES["three species, triclinic"]
    pair = coeff(files, atoms) + "pair_modify nofdotr\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = evaluated(tmp_path, atoms, pair)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    many = evaluated(tmp_path, atoms, pair, ranks=2, before="processors 2 1 1\natom_modify sort 0 0\n")
    close(many.energy, one.energy, 1e-12, np.abs(one.energies).sum())
    for quantity in QUANTITIES:
        close(getattr(many, quantity), getattr(one, quantity), 1e-11)


def large(files, threads: int) -> str:  # noqa: F811
    """5832 atoms: more than one page of every thread's sums, in a run that moves atoms between pages."""
    return f"""
package omp {threads}
units metal
lattice diamond 5.431
region box block 0 9 0 9 0 9
create_box 1 box
create_atoms 1 box
mass 1 28.0855
pair_style mtp
pair_coeff * * {files.folder / "one.mtp"} Si
velocity all create 600 1
timestep 0.0002
fix move all nve
compute centroid all centroid/stress/atom NULL virial
compute sums all reduce sum c_centroid[*]
compute largest all reduce max fx fy fz
thermo_style custom step pe press c_sums[*] c_largest[*]
thermo_modify format float %.17g
thermo 20
run 40
"""


def test_a_large_crystal_moves_the_same_way(tmp_path, files):  # noqa: F811
    def rows(threads):
        body = succeeds(tmp_path, large(files, threads)).split("c_largest[3]")[-1].split("Loop time")[0]
        return np.array([line.split() for line in body.splitlines() if line.strip()], dtype=float)

    one, three = rows(1), rows(3)
    assert one.shape == three.shape == (3, 15)
    # 1e-9: rounding grows along the trajectory
    np.testing.assert_allclose(three, one, rtol=1e-9, atol=1e-9 * np.abs(one[:, 3:]).max())


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_grades_are_the_same(tmp_path, files, mode):  # noqa: F811
    atoms = rattled(crystal(), 77, 0.25)
    text = "package omp 3\n" + system(tmp_path, atoms) + graded(files, mode)
    text += """
fix grade all pair 5 mtp/extrapolation gamma 1
dump out all custom 1 out.dump id f_grade
dump_modify out sort id format float %.17g
run 0
"""
    succeeds(tmp_path, text)
    (frame,) = dumped(tmp_path / "out.dump")
    expected = files.potentials[mode].grade(atoms)
    per_atom = expected.per_atom if mode == "neighbourhood" else np.full(len(atoms), expected.maximum)
    close(frame[:, 1], per_atom, 1e-8)  # as in test_lammps


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_error_in_a_thread_is_an_error_of_lammps(tmp_path, files, monkeypatch, ranks):  # noqa: F811
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    atoms = STRUCTURES["three species"]
    text = system(tmp_path, atoms) + coeff(files, atoms) + "set atom 60*61 x 1 y 1 z 1\nrun 0\n"
    done = lmp(tmp_path, text, ranks)
    assert done.returncode != 0
    assert "at the same place" in " ".join((done.stdout + done.stderr).split())


def test_one_thread_is_the_default(tmp_path, files, monkeypatch):  # noqa: F811
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    atoms = STRUCTURES["orthogonal"]
    output = succeeds(tmp_path, system(tmp_path, atoms) + coeff(files, atoms) + 'run 0\nprint "energy $(pe:%.17g)"\n')
    assert "1 OpenMP thread(s) per MPI task" in output
    size = np.abs(files.potentials["one"].evaluate(atoms).energies).sum()
    close(printed(output, "energy")[0], files.potentials["one"].evaluate(atoms).energy, 1e-12, size)
