# SPDX-License-Identifier: BSD-3-Clause
"""Second- and third-order force constants of a crystal by finite displacements, with phono3py.

Togo, Chaput, Tadano & Tanaka, J. Phys.: Condens. Matter 35, 353001 (2023).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from mtp import extras
from mtp.conductivity import sheets
from mtp.conductivity.bte_settings import ForceConstants, Relaxation
from mtp.conductivity.forces import Engine, gather
from mtp.errors import Error
from mtp.properties import CELL_FMAX, Numerics, Solid

if TYPE_CHECKING:
    from phono3py import Phono3py
    from phonopy import Phonopy

Say = Callable[[str], None]
PAUSE = 10.0  # s
GRADE = 2.0
EXTRAPOLATING = "extrapolating.extxyz"
TURNS = 10  # of imposing translations and permutations on force constants; after three, sum rules still miss 1e-5
EXCESS = 0.1  # e for each atom; less is the reference's rounding and is shared among the atoms
EVERYWHERE, IN_PLANE = (1, 1, 1, 1, 1, 1), (1, 1, 0, 0, 0, 1)  # strains xx yy zz yz xz xy that relax
SYMMETRY = 1e-4  # Å; relaxed cells keep their symmetry to about CELL_FMAX over a bond's stiffness


def at_rest(crystal: Atoms, engine: Engine, settings: Relaxation, thickness: float | None = None) -> tuple[Atoms, dict]:
    """The crystal, relaxed as asked, and what is left: `force_eV_per_A`, `stress_GPa` (6,) in ASE's sign and order.

    thickness: Å, of a sheet, whose cell relaxes in its plane alone; stresses are those of this thickness.

    Raises Error where more is left than the settings allow, or the relaxation fails.
    """
    strains = EVERYWHERE if thickness is None else IN_PLANE
    atoms = crystal.copy()
    if settings.what == "cell":
        atoms = Solid(crystal, engine.calculator, Numerics(), strains).cell
    atoms.calc = engine.calculator()
    if settings.what == "atoms":
        from ase.optimize import LBFGS

        if not LBFGS(atoms, logfile=None).run(fmax=CELL_FMAX, steps=Numerics().steps):
            raise Error(f"the relaxation of the atoms did not reach {CELL_FMAX:g} eV/Å")
    force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    stress = full_3x3_to_voigt_6_stress(atoms.get_stress(voigt=False)) / units.GPa
    stress /= sheets.filling(atoms.cell.array, thickness)
    if not force <= settings.force:
        raise Error(
            f"the structure is not relaxed: a force of {force:.3g} eV/Å is left, above relax.force = "
            f'{settings.force:g}: let it be relaxed (relax.what = "cell" or "atoms"), or raise the bound'
        )
    largest = np.abs(stress[np.flatnonzero(strains)]).max()
    if settings.what != "atoms" and not largest <= settings.stress:
        raise Error(
            f"the cell is not relaxed: a stress of {largest:.3g} GPa is left, above relax.stress = "
            f'{settings.stress:g}: let it be relaxed (relax.what = "cell"), or, if the lattice constant is meant, '
            'relax the atoms alone (relax.what = "atoms") or raise the bound'
        )
    atoms.calc = None
    return atoms, {"force_eV_per_A": force, "stress_GPa": stress.tolist()}


def displaced(cell: Atoms, settings: ForceConstants, born: Path | None = None) -> Phono3py:
    """phono3py's crystal with its displaced supercells; no forces yet.

    Raises Error where a supercell breaks the symmetry, or the file of Born charges does not fit.
    """
    phono3py, phonopy = extras.phono3py(), extras.phonopy()

    unit = phonopy.structure.atoms.PhonopyAtoms(
        cell.get_chemical_symbols(), cell=cell.cell[:], positions=cell.positions
    )
    primitive = _third_last(phonopy.structure.cells.guess_primitive_matrix(unit, symprec=SYMMETRY))
    harmonic = settings.harmonic_supercell
    crystal = phono3py.Phono3py(
        unit,
        supercell_matrix=np.diag(settings.supercell),
        primitive_matrix=primitive,
        phonon_supercell_matrix=None if harmonic is None else np.diag(harmonic),
        symprec=SYMMETRY,
    )
    whole = len(crystal.primitive_symmetry.pointgroup_operations)
    for repeats, symmetry in (
        (settings.supercell, crystal.symmetry),
        (harmonic, crystal.phonon_supercell_symmetry),
    ):
        if repeats is not None and len(symmetry.pointgroup_operations) != whole:
            raise Error(f"the supercell {repeats} breaks the symmetry of the crystal: repeat equal directions equally")
    if born:
        try:
            charges = phonopy.file_IO.parse_BORN(crystal.primitive, symprec=SYMMETRY, filename=born)
        except Exception as error:  # phonopy raises by what the parser meets
            raise Error(f"{born}: cannot be used as Born charges of this crystal: {error}") from None
        excess = charges["born"].mean(axis=0)
        if np.abs(excess).max() > EXCESS:
            raise Error(f"{born}: the charges do not add up to zero, but to {np.abs(excess).max():.2g} e an atom")
        crystal.nac_params = {**charges, "born": charges["born"] - excess}
    crystal.generate_displacements(distance=settings.displacement, cutoff_pair_distance=settings.pair_cutoff)
    return crystal


def _third_last(primitive: np.ndarray) -> np.ndarray:
    """The primitive vectors (columns, in units of the unit cell's), in an order in which the one along the unit cell's
    third, if there is one, stays the third: numbers of meshes are by vectors, and a sheet's third is across it."""
    along = np.flatnonzero(~(np.abs(primitive[:2]) > 1e-6).any(axis=0))
    return np.roll(primitive, 2 - along[0], axis=1) if len(along) else primitive


def cells_of(supercells: list) -> list[Atoms]:
    """As ASE's objects; pairs beyond the cutoff, which are not displaced, are left out."""
    return [
        Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True)
        for cell in supercells
        if cell is not None
    ]


def produce(crystal: Phono3py, engine: Engine, folder: Path | None, say: Say) -> dict:
    """Forces, from the folder's files as far as they go, and symmetrised force constants, into `crystal`.

    Returns the number of displaced cells and, where the engine knows grades, their largest. Cells whose grade is above
    GRADE are written into the folder as EXTRAPOLATING.
    """
    file_io = extras.phono3py().file_IO
    sets = {"fc3": cells_of(crystal.supercells_with_displacements)}
    if crystal.phonon_supercell_matrix is not None:
        sets["fc2"] = cells_of(crystal.phonon_supercells_with_displacements)
    forces = {}
    for name, cells in sets.items():
        say(f"{name}: {len(cells)} displaced cells of {len(cells[0])} atoms")
        forces[name] = gather(
            engine, cells, folder and folder / f"forces_{name}.bin", now_and_then(say, f"{name}: forces")
        )
    facts = {f"displaced_{name}": len(cells) for name, cells in sets.items()}
    everything = [atoms for cells in sets.values() for atoms in cells]
    if (grades := engine.grades(everything)) is not None:
        facts["grade"] = max(grades)
        if folder and facts["grade"] > GRADE:
            for atoms, grade in zip(everything, grades, strict=True):
                atoms.info["grade"] = grade
            above = [atoms for atoms in everything if atoms.info["grade"] > GRADE]
            write(folder / EXTRAPOLATING, above, parallel=False)  # by rank 0 alone, in a learning loop

    included = [cell is not None for cell in crystal.supercells_with_displacements]
    everywhere = np.zeros((len(included), *forces["fc3"].shape[1:]))
    everywhere[included] = forces["fc3"]
    crystal.forces = everywhere
    if "fc2" in forces:
        crystal.phonon_forces = forces["fc2"]
    files = {name: folder / f"{name}.hdf5" for name in ("fc2", "fc3")} if folder else {}
    if files and all(file.exists() for file in files.values()):
        crystal.fc2 = file_io.read_fc2_from_hdf5(files["fc2"])
        crystal.fc3 = file_io.read_fc3_from_hdf5(files["fc3"])
        return facts
    crystal.produce_fc3()
    crystal.symmetrize_fc3(options=f"level={TURNS}")
    if "fc2" in forces:
        crystal.produce_fc2()
    crystal.symmetrize_fc2(options=f"level={TURNS}")
    if files:
        _write(crystal, files)
    return facts


def harmonic(crystal: Phono3py) -> Phonopy:
    """phonopy's crystal with the second-order force constants."""
    matrix = crystal.phonon_supercell_matrix
    solid = extras.phonopy().Phonopy(
        crystal.unitcell,
        supercell_matrix=crystal.supercell_matrix if matrix is None else matrix,
        primitive_matrix=crystal.primitive_matrix,
        symprec=SYMMETRY,
    )
    solid.force_constants = crystal.fc2
    solid.nac_params = crystal.nac_params
    return solid


def _write(crystal: Phono3py, files: dict[str, Path]) -> None:
    from mtp.cfg import replaced_whole

    file_io = extras.phono3py().file_IO
    maps = {
        "fc3": crystal.primitive.p2s_map,
        "fc2": crystal.phonon_primitive.p2s_map,
    }
    with replaced_whole(files["fc3"]) as part:
        file_io.write_fc3_to_hdf5(crystal.fc3, filename=str(part), p2s_map=maps["fc3"])
    with replaced_whole(files["fc2"]) as part:
        file_io.write_fc2_to_hdf5(crystal.fc2, filename=str(part), p2s_map=maps["fc2"])


def now_and_then(say: Say, what: str) -> Callable[[int, int], None]:
    """Says how far something is, every PAUSE seconds."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() > last + PAUSE:
            last = time.monotonic()
            say(f"{what} {done}/{total}")

    return show
