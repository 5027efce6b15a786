# SPDX-License-Identifier: BSD-3-Clause
"""What several tests share: the reference data, where they are present, and potentials and configurations at random."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: more threads wait for each other

import numpy as np
import pytest
from ase import Atoms
from learning_loops import CALCULATORS, SILICON, TERSOFF, learned, settings

from mtp.potential import Potential

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public reference data: potentials that MLIP wrote and what MLIP computed with them."""
    if not SHARED.is_dir():
        pytest.skip("the shared reference data are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def random_atoms():
    """Makes configurations: a distorted grid of atoms in a triclinic cell, no two closer than about 1.5 Å."""
    return _atoms


@pytest.fixture(scope="session")
def random_potential():
    """Makes potentials whose site energies and forces are of order one (eV, Å) for what random_atoms makes."""
    return _potential


def _atoms(species, seed=0, repeat=(2, 2, 2), spacing=2.3, pbc=True) -> Atoms:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in repeat), indexing="ij"), axis=-1).reshape(-1, 3)
    distortion = np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))
    positions = (grid * spacing + rng.uniform(-0.3, 0.3, grid.shape)) @ distortion
    symbols = [species[k] for k in rng.permutation(np.arange(len(grid)) % len(species))]
    cell = np.diag(repeat) * spacing @ distortion
    return Atoms(symbols, positions, cell=cell if np.any(pbc) else None, pbc=pbc)


def _potential(
    species=("Cu",), level=8, cutoff=4.5, min_distance=1.2, n_chebyshev=8, seed=0, scaling=None
) -> Potential:
    rng = np.random.default_rng(seed)
    potential = Potential.new(level, list(species), cutoff, min_distance, n_chebyshev)
    potential.set_scaling(scaling or 1 / (cutoff - min_distance) ** 2)
    facts = potential.facts
    shape = (facts.n_species**2 * facts.n_radial, facts.n_chebyshev)
    radial = (rng.standard_normal(shape) / (1 + np.arange(facts.n_chebyshev))).ravel()
    theta = np.concatenate([radial, rng.standard_normal(facts.n_species), np.ones(facts.n_scalar)])
    potential.parameters = theta
    # the functions grow by orders of magnitude with their number of factors: weight each by its size
    sample = np.concatenate([potential.parameter_gradient(_atoms(species, seed=k)) for k in range(3)])
    size = np.sqrt((sample[:, -facts.n_scalar :] ** 2).mean(axis=0))
    theta[-facts.n_scalar :] = rng.standard_normal(facts.n_scalar) / np.sqrt(facts.n_scalar) / size
    potential.parameters = theta
    return potential


@pytest.fixture(scope="session")
def rotation():
    """Makes orthogonal matrices: proper rotations, or with `reflection` improper ones."""

    def make(seed=0, reflection=False):
        q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
        q *= np.sign(np.diag(r))
        return q if (np.linalg.det(q) < 0) == reflection else -q

    return make


@pytest.fixture(scope="session")
def mtp():
    """Runs this environment's `mtp`, or with `ranks` several under mpiexec, in a folder, as a user does.

    The time limit is there for what hangs: on a busy machine a few seconds of work can take minutes.
    """

    def run(folder, *arguments, ranks=1, timeout=300, **environment) -> subprocess.CompletedProcess:
        here = Path(sys.executable).parent
        launcher = [here / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
        return subprocess.run(
            [*map(str, (*launcher, here / "mtp", *arguments))],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


# ---- learning loops


@pytest.fixture
def toy_calculators(tmp_path, monkeypatch):
    """The module of toy calculators, importable by the commands that a test starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "toy_calculators.py").write_text(CALCULATORS)
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([path] if path else [])]))


@pytest.fixture(scope="session")
def loops(mtp, tmp_path_factory):
    """Folders of a loop that has converged, with what it printed, and of one that has used up its first round."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("finished", "begun")}
    settings(folders["finished"], SILICON % TERSOFF)
    (folders["finished"] / "printed").write_text(learned(mtp(folders["finished"], "learn", "learn.toml")))
    settings(folders["begun"], "rounds = 1\n" + SILICON % TERSOFF)
    assert mtp(folders["begun"], "learn", "learn.toml").returncode == 1
    return folders


@pytest.fixture
def finished(loops, tmp_path):
    """A copy of the finished loop, in run/."""
    shutil.copytree(loops["finished"], tmp_path, dirs_exist_ok=True)


@pytest.fixture
def begun(loops, tmp_path):
    """A copy of the loop after its first round, in run/."""
    shutil.copytree(loops["begun"], tmp_path, dirs_exist_ok=True)
