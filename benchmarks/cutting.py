# SPDX-License-Identifier: BSD-3-Clause
"""Cells cut around the most extrapolative atom of five large structures: numbers and figures of docs/cutting.md.

    python benchmarks/cutting.py Mo_all.mtp Mo.almtp Si_all.mtp Si.almtp --figures docs/figures

The structures (20 000 atoms and more) are built here, relaxed a little and heated to 300 K with the first potential of
their element, and cut with the second, which should not know them. Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE
from matplotlib import rc_context
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mtp import MTP, Potential
from mtp.cutting import cut
from mtp.figures import ORANGE, STYLE
from mtp.settings import Cutting


def screw_dislocation(symbol: str, a: float, radius: float = 60.0, repeat: int = 6) -> Atoms:
    """A cylinder of bcc crystal around a screw dislocation along [111] (z, periodic): u_z = b θ / 2π."""
    axes = np.array([[1, 1, -2], [-1, 1, 0], [1, 1, 1]])
    cell = make_supercell(bulk(symbol, "bcc", a, cubic=True), axes)
    rotated = cell.copy()
    rotated.set_cell(np.diag(np.linalg.norm(cell.cell.array, axis=1)), scale_atoms=True)
    rotated.wrap()
    burgers = rotated.cell[2, 2] / 2  # two layers of ½[111] in the cell
    n = [int(2 * radius / length) + 1 for length in rotated.cell.lengths()[:2]]
    atoms = rotated.repeat((*n, repeat))
    atoms.positions[:, :2] -= atoms.positions[:, :2].mean(axis=0) + np.array([0.31, 0.17]) * a
    x, y = atoms.positions[:, :2].T
    atoms = atoms[np.hypot(x, y) < radius]
    x, y = atoms.positions[:, :2].T
    atoms.positions[:, 2] += burgers * np.arctan2(y, x) / (2 * np.pi)
    atoms.pbc = (False, False, True)
    atoms.wrap()
    return atoms


def grain_boundary(symbol: str, a: float, layers: int = 8, repeat: tuple[int, int] = (6, 12)) -> Atoms:
    """Two Σ5 (310)[001] symmetric tilt boundaries of a bcc crystal, normal to x, periodic."""
    axes = np.array([[3, 1, 0], [-1, 3, 0], [0, 0, 1]])
    cell = make_supercell(bulk(symbol, "bcc", a, cubic=True), axes)
    grain = cell.copy()
    grain.set_cell(np.diag(np.linalg.norm(cell.cell.array, axis=1)), scale_atoms=True)
    grain.wrap()
    grain = grain.repeat((layers, *repeat))
    twin = grain.copy()
    twin.positions[:, 0] *= -1
    both = grain + twin
    both.cell[0, 0] *= 2
    both.wrap()
    # atoms of both grains meet in the mirror planes
    plane = np.minimum(both.positions[:, 0] % grain.cell[0, 0], -both.positions[:, 0] % grain.cell[0, 0]) < 0.1
    del both[np.flatnonzero(plane & (np.arange(len(both)) >= len(grain)))]
    return both


def vacancy(symbol: str, structure: str, a: float, repeat: int) -> Atoms:
    """A crystal with one atom missing."""
    atoms = bulk(symbol, structure, a, cubic=True).repeat(repeat)
    del atoms[len(atoms) // 2]
    return atoms


def surface(symbol: str, structure: str, a: float, repeat: tuple[int, int, int]) -> Atoms:
    """A (001) slab, free along z, with one atom on top of it."""
    atoms = bulk(symbol, structure, a, cubic=True).repeat(repeat)
    atoms.pbc = (True, True, False)
    top = atoms.positions[:, 2].max()
    (highest,) = np.nonzero(atoms.positions[:, 2] > top - 0.1)
    middle = highest[np.argmin(np.linalg.norm((atoms.positions - atoms.positions.mean(axis=0))[highest, :2], axis=1))]
    return atoms + Atoms(symbol, [atoms.positions[middle] + [a / 4, a / 4, a / 4 + 0.3]])


def crack(symbol: str, structure: str, a: float, repeat: tuple[int, int, int], opening: float) -> Atoms:
    """A crack in a (010) plane with its front along z: the field of mode I, u ∝ √r, ν = 0.25, opened so far (Å) at the
    end of the crack."""
    atoms = bulk(symbol, structure, a, cubic=True).repeat(repeat)
    atoms.positions[:, :2] -= atoms.positions[:, :2].mean(axis=0) + 0.13 * a
    x, y = atoms.positions[:, :2].T
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    kappa = 3 - 4 * 0.25
    size = opening / (2 * (kappa + 1)) * np.sqrt(r / r.max())
    atoms.positions[:, 0] += size * np.cos(angle / 2) * (kappa - np.cos(angle))
    atoms.positions[:, 1] += size * np.sin(angle / 2) * (kappa - np.cos(angle))
    atoms.pbc = (False, False, True)
    return atoms


def heated(atoms: Atoms, potential: Potential, steps: int) -> Atoms:
    """Relaxed for some steps, then run at 300 K for as many of 2 fs; free atoms at outer borders stay cold enough."""
    atoms = atoms.copy()
    plain = potential.copy()
    plain.parameters = plain.parameters  # drops the active set: no grades on the way
    atoms.calc = MTP(plain)
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=steps)
    rng = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    Langevin(atoms, 2 * units.fs, temperature_K=300, friction=0.01 / units.fs, rng=rng).run(steps)
    atoms.calc = None
    return atoms


CASES = {
    "screw dislocation, Mo": lambda: screw_dislocation("Mo", 3.165),
    "Σ5 (310) boundary, Mo": lambda: grain_boundary("Mo", 3.165),
    "vacancy, Mo": lambda: vacancy("Mo", "bcc", 3.165, 22),
    "surface, Si": lambda: surface("Si", "diamond", 5.46, (20, 20, 7)),
    "crack tip, Si": lambda: crack("Si", "diamond", 5.46, (26, 26, 4), 6.0),
}


def chosen(name: str, atoms: Atoms, grades: np.ndarray) -> int:
    """The atom with the highest grade: of those inside, on the upper surface, or within 6 Å of the foremost atom of the
    crack whose grade is above 2."""
    inside = np.ones(len(atoms), dtype=bool)
    x, y = atoms.positions[:, :2].T
    if name.startswith("screw"):
        inside = np.hypot(x, y) < 30
    if name.startswith("crack"):
        front = np.flatnonzero((np.hypot(x, y) < 50) & (grades > 2))
        tip = front[np.argmax(x[front])] if len(front) else np.argmin(np.hypot(x, y))
        inside = np.hypot(x - x[tip], y - y[tip]) < 6
    if name.startswith("surface"):
        inside = atoms.positions[:, 2] > np.median(atoms.positions[:, 2])
    return int(np.argmax(np.where(inside, grades, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("mo_run", "mo", "si_run", "si"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the structures, read again where they are there")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--max-atoms", type=int, default=200)
    options = parser.parse_args()
    cells = []
    for name, build in CASES.items():
        if options.only not in name:
            continue
        files = (options.mo_run, options.mo) if name.endswith("Mo") else (options.si_run, options.si)
        running, potential = map(Potential.load, files)
        file = options.keep / f"{name.replace(' ', '_').replace(',', '')}.traj" if options.keep else None
        if file and file.exists():
            atoms = ase.io.read(file)
        else:
            atoms = heated(build(), running, options.steps)
            if file:
                ase.io.write(file, atoms)
        grades = potential.grade(atoms).per_atom
        centre = chosen(name, atoms, grades)
        began = time.process_time()
        cell = cut(atoms, centre, potential, Cutting(max_atoms=options.max_atoms))
        seconds = time.process_time() - began
        info = cell.info
        print(
            f"| {name} | {len(atoms)} | {len(cell)} | {info['cut_method']} | {grades[centre]:.3g} | "
            f"{abs(info['cut_grade'] - grades[centre]):.0e} | {info['cut_kept_grade']:.3g} | "
            f"{info['cut_filler_grade']:.3g} | {info['cut_excess']:.2g} | {seconds:.1f} |",
            flush=True,
        )
        cells.append((name, atoms, centre, cell, grades))
    if options.figures:
        draw(options.figures / "cutting.png", cells)


def draw(path: Path, cells: list[tuple[str, Atoms, int, Atoms, np.ndarray]]) -> None:
    """A column for each case: the run around the centre, and the cell with its nearest images, along y for surfaces and
    else along z. Colour is the grade; a black edge marks what was kept."""
    with rc_context(STYLE):
        figure = Figure(figsize=(2.7 * len(cells), 5.6), layout="constrained")
        panels = figure.subplots(2, len(cells), squeeze=False)
        for column, (name, atoms, centre, cell, grades) in zip(panels.T, cells, strict=True):
            plane, depth = ([0, 2], 1) if name.startswith("surface") else ([0, 1], 2)
            run = atoms.get_distances(centre, np.arange(len(atoms)), mic=True, vector=True)
            kept = np.zeros(len(run), dtype=bool)
            images = cell.repeat(3)
            images.positions -= images.positions[len(cell) * 13]
            middle = np.arange(len(images)) // len(cell) == 13
            sides = (
                (f"{name}\n{len(atoms)} atoms", run, grades, kept),
                (f"{len(cell)} atoms", images.positions, images.arrays["grade"], images.arrays["kept"] & middle),
            )
            norm = LogNorm(1, max(10, grades[centre]))
            for axes, (title, vectors, colours, marked) in zip(column, sides, strict=True):
                slab = np.flatnonzero((np.abs(vectors[:, depth]) < 4) & (np.abs(vectors[:, plane]) < 17).all(axis=1))
                slab = slab[np.argsort(vectors[slab, depth])]
                edges = np.where(marked[slab], "black", "0.8")
                x, y = vectors[slab][:, plane].T
                shown = axes.scatter(x, y, s=26, c=colours[slab], norm=norm, cmap="viridis", edgecolors=edges, lw=0.8)
                axes.set(title=title, aspect="equal", xlim=(-16, 16), ylim=(-16, 16), xticks=[], yticks=[])
            origin = column[1]
            a, b, c = cell.cell.array - 0.0
            corners = [i * a + j * b + k * c for i, j, k in itertools.product((0, 1), repeat=3)]
            shift = cell.positions[0]
            for first, second in itertools.combinations(range(8), 2):
                if bin(first ^ second).count("1") == 1:
                    ends = np.array([corners[first], corners[second]]) - shift
                    origin.plot(*ends[:, plane].T, color=ORANGE, lw=0.8)
            figure.colorbar(shown, ax=list(column), shrink=0.5, label="grade", location="bottom")
        figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
