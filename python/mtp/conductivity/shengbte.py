# SPDX-License-Identifier: BSD-3-Clause
"""Input files of ShengBTE for the primitive cell: CONTROL, FORCE_CONSTANTS_2ND and FORCE_CONSTANTS_3RD.

Li, Carrete, Katcho & Mingo, Comput. Phys. Commun. 185, 1747 (2014).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtp.cfg import replaced_whole
from mtp.conductivity.bte_settings import Transport
from mtp.conductivity.force_constants import harmonic
from mtp.conductivity.transport import mesh_matrix

if TYPE_CHECKING:
    from phono3py import Phono3py

NOTHING = 1e-10  # eV/Å³; blocks below are left out
LARGEST = 20  # repeats of the primitive cell looked through


def export(folder: Path, crystal: Phono3py, settings: Transport) -> None:
    """Write the three files; q-points and the first temperature are those of the settings."""
    folder.mkdir(exist_ok=True)
    repeats, second = second_order(crystal)
    with replaced_whole(folder / "CONTROL") as part:
        part.write_text(_control(crystal, settings, repeats))
    with replaced_whole(folder / "FORCE_CONSTANTS_2ND") as part, part.open("w") as file:
        n = len(second)
        rows = "\n".join(["%22.15f%22.15f%22.15f"] * 3)
        file.write(f"{n}\n")
        for i, j in product(range(n), repeat=2):
            file.write(f"{i + 1} {j + 1}\n{rows % tuple(second[i, j].flat)}\n")
    components = "".join(f"{a} {b} {c} %.10e\n" for a, b, c in product((1, 2, 3), repeat=3))
    block = "\n%d\n" + 2 * "%.10e %.10e %.10e\n" + "%d %d %d\n" + components
    with replaced_whole(folder / "FORCE_CONSTANTS_3RD") as part, part.open("w") as file:
        blocks = list(third_order(crystal))
        file.write(f"{len(blocks)}\n")
        for number, (atoms, vectors, values) in enumerate(blocks, 1):
            heading = (number, *vectors.flat, *(atom + 1 for atom in atoms))
            file.write(block % (*heading, *values.flat))


def second_order(crystal: Phono3py) -> tuple[list[int], np.ndarray]:
    """Repeats n of the primitive cell, and its force constants (N, N, 3, 3), eV/Å², in that supercell, whose atoms are
    ordered by atom of the cell first, then by the third, second and first vector.

    The dynamical matrices are those of the supercell that was computed, so its lattice must hold that of the repeats.
    """
    import phonopy
    from phonopy.harmonic.dynmat_to_fc import DynmatToForceConstants

    solid = harmonic(crystal)
    solid.nac_params = None  # ShengBTE adds its own
    computed = np.linalg.inv(solid.supercell.cell.T) @ solid.primitive.cell.T
    repeats = [
        next(n for n in range(1, LARGEST + 1) if np.allclose(n * vector, np.rint(n * vector), atol=1e-3))
        for vector in computed.T
    ]
    target = phonopy.Phonopy(solid.primitive, supercell_matrix=np.diag(repeats), primitive_matrix="P")
    conversion = DynmatToForceConstants(target.primitive, target.supercell, is_full_fc=True)
    solid.run_qpoints(conversion.commensurate_points, with_dynamical_matrices=True)
    conversion.dynamical_matrices = solid.qpoints.dynamical_matrices
    conversion.run()
    order = _order(target.supercell.scaled_positions, target.unitcell.scaled_positions, repeats)
    return repeats, conversion.force_constants[np.ix_(order, order)]


def third_order(crystal: Phono3py) -> Iterator[tuple[tuple[int, int, int], np.ndarray, np.ndarray]]:
    """For each triplet of atoms with force constants: the atoms in the primitive cell, the lattice vectors (2, 3) of
    the second's and third's cells, Å, and the constants (3, 3, 3), eV/Å³.

    An atom whose images are equally far from the first one is shared among them.
    """
    primitive, fc3 = crystal.primitive, crystal.fc3
    vectors, counts = primitive.get_smallest_vectors()
    vectors = vectors @ primitive.cell
    inside = [primitive.p2p_map[s] for s in primitive.s2p_map]  # each atom of the supercell in the primitive cell
    if len(fc3) > len(primitive):
        fc3 = fc3[primitive.p2s_map]
    for i in range(len(primitive)):
        cells = []
        for atom, j in enumerate(inside):
            count, first = counts[atom, i]
            images = vectors[first : first + count] + primitive.positions[i] - primitive.positions[j]
            whole = np.rint(images @ np.linalg.inv(primitive.cell))
            cells.append(whole @ primitive.cell)
        for second, third in product(range(len(inside)), repeat=2):
            values = fc3[i, second, third] / (len(cells[second]) * len(cells[third]))
            if np.abs(values).max() > NOTHING:
                for pair in product(cells[second], cells[third]):
                    yield (i, inside[second], inside[third]), np.array(pair), values


def _order(places: np.ndarray, cell: np.ndarray, repeats: Sequence[int]) -> list[int]:
    """Where in the supercell (scaled positions) each atom is, the first lattice vector running fastest."""
    found = []
    for atom, z, y, x in product(cell, *(range(n) for n in reversed(repeats))):
        offsets = places - (atom + np.array([x, y, z])) / repeats
        found.append(int(np.abs(offsets - np.rint(offsets)).max(axis=1).argmin()))
    return found


def _control(crystal: Phono3py, settings: Transport, repeats: Sequence[int]) -> str:
    primitive, nac = crystal.primitive, crystal.nac_params
    elements = list(dict.fromkeys(primitive.symbols))
    mesh = mesh_matrix(crystal, settings.meshes[-1], settings.grid)
    ngrid = mesh.diagonal()
    if (mesh - np.diag(ngrid)).any():  # ShengBTE knows no such mesh: as many points
        ngrid = [round(abs(np.linalg.det(mesh)) ** (1 / 3))] * 3

    def row(numbers: Sequence[float]) -> str:
        return " ".join(f"{x:.12f}" for x in numbers)

    def flag(value: bool) -> str:
        return ".TRUE." if value else ".FALSE."

    lines = [
        "&allocations",
        f"  nelements={len(elements)}, natoms={len(primitive)}, ngrid(:)={' '.join(map(str, ngrid))}, norientations=0",
        "&end",
        "&crystal",
        "  lfactor=0.1,",
        *(f"  lattvec(:,{k})={row(vector)}," for k, vector in enumerate(primitive.cell, 1)),
        "  elements=" + " ".join(f'"{element}"' for element in elements) + ",",
        "  types=" + " ".join(str(elements.index(symbol) + 1) for symbol in primitive.symbols) + ",",
        *(f"  positions(:,{k})={row(place)}," for k, place in enumerate(primitive.scaled_positions, 1)),
    ]
    if nac:
        lines += [f"  epsilon(:,{k})={row(column)}," for k, column in enumerate(np.transpose(nac["dielectric"]), 1)]
        lines += [
            f"  born(:,{k},{atom})={row(column)},"
            for atom, charges in enumerate(nac["born"], 1)
            for k, column in enumerate(np.transpose(charges), 1)
        ]
    lines += [
        f"  scell(:)={' '.join(map(str, repeats))}",
        "&end",
        "&parameters",
        f"  T={settings.temperatures[0]:g}, scalebroad=1.0",
        "&end",
        "&flags",
        f"  nonanalytic={flag(bool(nac))}, isotopes={flag(settings.isotopes)}, nanowires=.FALSE.",
        "&end",
    ]
    return "\n".join(lines) + "\n"
