# SPDX-License-Identifier: BSD-3-Clause
"""Selection from what all ranks hold: the same for any number of them, as good as from all rows at once."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtp import selection
from mtp.configurations import write
from mtp.potential import MODES, SWAP_THRESHOLD
from mtp.selection import _cut

BIN = Path(sys.executable).parent
SPECIES = ("Cu", "O")
SMALL = 24  # atoms in a block: many waves with little data

SCRIPT = """
import sys
import mpi4py.MPI as MPI
import numpy as np
from mtp import selection
from mtp.configurations import read
from mtp.errors import Error
from mtp.potential import Potential

selection.BLOCK = 24
comm = MPI.COMM_WORLD
data = read("data.extxyz")
fault = sys.argv[2] if len(sys.argv) > 2 else None
if fault == "element":
    data[-1].symbols[0] = "He"
if fault == "coinciding":
    data[-1].positions[1] = data[-1].positions[0] + 1e-9
if fault == "memory" and comm.rank == comm.size - 1:
    def fails(*arguments):
        raise MemoryError("no memory for rows")
    Potential.gradient_rows = fails
potential = Potential.load("a.mtp")
shares = {
    "rank 0": data if comm.rank == 0 else [],
    "parts": [data[k] for k in np.array_split(np.arange(len(data)), comm.size)[comm.rank]],
}
found = []
try:
    for mode in ("neighbourhood", "configuration"):
        for name, share in shares.items():
            chosen = potential.copy()
            found += [chosen.select(share, mode, comm=comm), chosen.active_set]
            found += [chosen.select(share[::-1][:4], mode, 1.0001, comm), chosen.active_set] if name == "rank 0" else []
except (Error, MemoryError) as error:
    sys.exit(f"rank {comm.rank}: {error}")
everyone = comm.gather(found)
if comm.rank == 0:
    for other in everyone:
        for a, b in zip(found, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.savez(sys.argv[1], *found)
"""


@pytest.fixture(scope="module")
def potential(random_potential):
    return random_potential(SPECIES, level=6, n_chebyshev=3, seed=1)  # 31 parameters


@pytest.fixture(scope="module")
def data(random_atoms):
    small = [random_atoms(SPECIES, seed=k, spacing=2.2 + 0.02 * (k % 10)) for k in range(30)]
    return [*small[:10], random_atoms(SPECIES, seed=40, repeat=(5, 4, 3)), *small[10:]]  # one that blocks cut


@pytest.fixture(scope="module")
def folder(potential, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selection")
    write(folder / "data.extxyz", data)
    potential.save(folder / "a.mtp")
    (folder / "ranks.py").write_text(SCRIPT)
    return folder


def run(folder, n, *arguments):
    command = [BIN / "mpiexec", "-n", str(n), sys.executable, "ranks.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_any_number_of_ranks_chooses_the_same_rows(folder):
    found = []
    for n in (1, 2, 3, 4):
        done = run(folder, n, f"{n}.npz")
        assert done.returncode == 0, done.stderr
        with np.load(folder / f"{n}.npz") as content:
            found.append([content[name] for name in content.files])
    for other in found:
        for a, b in zip(found[0], other, strict=True):  # blocks are the same, and offered in their order: the same bits
            np.testing.assert_array_equal(a, b)
    at_once, _, _, _, in_parts, rows_in_parts = found[0][:6]
    np.testing.assert_array_equal(at_once, in_parts)
    np.testing.assert_array_equal(found[0][1], rows_in_parts)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("element", "He"), ("coinciding", "data.extxyz#31: .*same place"), ("memory", "no memory for rows")],
)
def test_what_fails_on_one_rank_is_told_by_all(folder, fault, message):
    done = run(folder, 3, "x.npz", fault)
    assert done.returncode != 0
    for rank in range(3):
        assert f"rank {rank}: " in done.stderr, done.stderr
    assert re.search(message, done.stderr)


@pytest.mark.parametrize("mode", MODES)
def test_the_volume_is_that_of_all_rows_at_once(potential, data, mode, monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", SMALL)
    whole, parts = potential.copy(), potential.copy()
    whole.offer(np.concatenate([whole.rows(atoms, mode) for atoms in data]), mode)
    parts.select(data, mode)
    for chosen in (whole, parts):
        assert max(chosen.grade(atoms).maximum for atoms in data) <= SWAP_THRESHOLD * (1 + 1e-7)
    volumes = [np.linalg.slogdet(chosen.active_set)[1] for chosen in (whole, parts)]
    # two local maxima of the same function, which no single swap improves: of equal rank, not the same
    assert volumes[1] > volumes[0] - 0.05 * potential.facts.n_parameters


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_a_few_blocks_are_held_at_a_time(potential, data, mode, monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", SMALL)
    monkeypatch.setattr("mtp.potential.BATCH", SMALL)
    sizes = []

    def counted(near, compute=potential.gradient_rows):
        sizes.append(len(near))
        return compute(near)

    watched = potential.copy()
    monkeypatch.setattr(watched, "gradient_rows", counted)
    watched.select(data, mode)
    assert 0 < max(sizes) <= SMALL + len(SPECIES)  # and the atoms that stand for neighbours


@pytest.mark.parametrize("mode", MODES)
def test_blocks_hold_everything_once(mode):
    sizes = [3, 0, 600, 512, 1, 2000, 511, 2]
    blocks = list(_cut(sizes, mode))
    pieces = [piece for block in blocks for piece in block]
    for block in blocks:
        assert sum(end - start for _, start, end in block) <= selection.BLOCK or len(block) == 1
    if mode == "neighbourhood":
        covered = [(place, k) for place, start, end in pieces for k in range(start, end)]
        assert covered == [(place, k) for place, size in enumerate(sizes) for k in range(size)]
    else:
        assert pieces == [(place, 0, size) for place, size in enumerate(sizes)]


def test_rows_of_chosen_atoms_are_their_rows_in_the_configuration(potential, data):
    near = potential.neighbourhoods(data[10])
    chosen = np.array([7, 0, 31, 30])
    rows = potential.gradient_rows(near.of_centres(chosen))[: len(chosen)]
    # the same sums for atoms in other company
    np.testing.assert_allclose(rows, potential.gradient_rows(near)[chosen], rtol=1e-12, atol=1e-12)
