# SPDX-License-Identifier: BSD-3-Clause
"""Harmonic phonons of a crystal by finite displacements, with phonopy [Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)]."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.cell import Cell
from ase.dft.kpoints import BandPath, parse_path_string

from mtp import extras
from mtp.properties import Found, Solid, repeats

if TYPE_CHECKING:
    from phonopy import Phonopy

MESH = 100.0  # length that sets phonopy's mesh of q-points for the density of states, Å
PATH_DENSITY = 60.0  # points per Å⁻¹ along the bands
IMAGINARY = -0.05  # THz; frequencies below are imaginary, those above may be rounding at Γ


def phonons(solid: Solid) -> Found:
    """Frequencies (THz, imaginary ones negative) at the special points of the Brillouin zone, along ASE's path through
    them, and their density of states.

    No splitting of longitudinal and transverse optical modes by charges. `acoustic_THz` in the details is what is
    left of the acoustic modes at Γ before the sum rule is imposed.
    """
    phonopy = extras.phonopy()
    cell, numerics = solid.cell, solid.numerics
    unit = phonopy.structure.atoms.PhonopyAtoms(cell.get_chemical_symbols(), cell=cell.cell, positions=cell.positions)
    matrix = np.diag(repeats(cell, numerics.phonon_length))
    primitive = phonopy.structure.cells.guess_primitive_matrix(unit)
    crystal = phonopy.Phonopy(unit, supercell_matrix=matrix, primitive_matrix=primitive)
    crystal.generate_displacements(distance=numerics.phonon_displacement)
    forces = []
    for displaced in crystal.supercells_with_displacements:
        atoms = cell.repeat(matrix.diagonal())  # for periodicity and cell; phonopy orders the atoms otherwise
        atoms.numbers, atoms.positions = displaced.numbers, displaced.positions
        forces.append(solid.calculated(atoms).get_forces())
    crystal.forces = np.array(forces)
    crystal.produce_force_constants()
    acoustic = frequencies(crystal, [[0, 0, 0]])[0]
    acoustic = acoustic[np.argsort(abs(acoustic))[:3]]
    crystal.symmetrize_force_constants()
    details = dispersion(crystal)
    points = special(band_path(crystal))
    values = {f"phonon_{name}": sorted(map(float, frequencies(crystal, [q])[0])) for name, q in points}
    values |= {"phonon_min": details.pop("min_THz"), "phonon_max": details.pop("max_THz")}
    details |= {"acoustic_THz": acoustic.tolist(), "atoms": len(crystal.supercell), "displacements": len(forces)}
    notes = [not_stable(details)] if details["imaginary"] else []
    return Found(values, details, notes)


def dispersion(crystal: Phonopy, imaginary: float = IMAGINARY) -> dict[str, Any]:
    """Frequencies of phonopy's crystal along ASE's path through the special points, and their density of states.

    Frequencies below `imaginary` (THz) are listed in `imaginary`, the lowest first, of the `n_q` q-points looked at.
    """
    path = band_path(crystal)
    distance, places, labels = path.get_linear_kpoint_axis()
    bands = frequencies(crystal, path.kpts)
    with warnings.catch_warnings():
        # of body-centred tetragonal crystals, for which phonopy takes a mesh of the same density with their symmetry
        warnings.filterwarnings("ignore", message="Mesh .* is incompatible with the primitive-cell point group")
        crystal.run_mesh(MESH)
    crystal.run_total_dos()
    q_points = np.concatenate([path.kpts, crystal.mesh.qpoints])
    everywhere = np.concatenate([bands, crystal.mesh.frequencies])
    lowest = everywhere.min(axis=1)
    return {
        "path": path.path,
        "distance": distance.tolist(),
        "places": places.tolist(),
        "labels": labels,
        "q": path.kpts.tolist(),
        "bands_THz": bands.tolist(),
        "dos_THz": crystal.total_dos.frequency_points.tolist(),
        "dos": crystal.total_dos.dos.tolist(),
        "imaginary": [
            {"q": q_points[k].tolist(), "THz": float(lowest[k])} for k in np.argsort(lowest) if lowest[k] < imaginary
        ],
        "n_q": len(q_points),
        "min_THz": float(everywhere.min()),
        "max_THz": float(everywhere.max()),
    }


def not_stable(details: dict[str, Any]) -> str:
    """What a dispersion with imaginary frequencies says of the crystal."""
    worst = details["imaginary"][0]
    softest = ", ".join(f"{x:.3f}" for x in worst["q"])
    return (
        f"imaginary modes at {len(details['imaginary'])} of {details['n_q']} q-points, {worst['THz']:.2f} THz "
        f"at q = ({softest}): the crystal is not stable"
    )


def band_path(crystal: Phonopy) -> BandPath:
    """ASE's path for the primitive cell."""
    return Cell(crystal.primitive.cell).bandpath(density=PATH_DENSITY)


def special(path: BandPath) -> list[tuple[str, np.ndarray]]:
    """Names and coordinates of the special points that a path visits, Γ first."""
    visited = {name for piece in parse_path_string(path.path) for name in piece}
    return [(name, path.special_points[name]) for name in sorted(visited, key=lambda name: (name != "G", name))]


def frequencies(crystal, q_points) -> np.ndarray:
    """(n, branches), THz, at n q-points in reduced coordinates of the primitive cell."""
    crystal.run_qpoints(q_points)
    return np.array(crystal.qpoints.frequencies)
