# SPDX-License-Identifier: BSD-3-Clause
"""Lattice conductivity of a crystal from the Boltzmann transport equation of phonons: structure at rest, force
constants, stability, meshes, uncertainty. What was computed is kept in a folder, from which a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from mtp import extras, structures
from mtp.cfg import replaced_whole
from mtp.conductivity import sheets
from mtp.conductivity.bte_settings import BteSettings, ForceConstants, Mesh, Transport
from mtp.conductivity.force_constants import (
    EXTRAPOLATING,
    GRADE,
    at_rest,
    cells_of,
    displaced,
    harmonic,
    now_and_then,
    produce,
)
from mtp.conductivity.forces import Engine, LabellerEngine, PotentialEngine
from mtp.conductivity.transport import Solution, cumulative, extrapolated, solve
from mtp.conductivity.watch import Unsound
from mtp.configurations import read, species_of
from mtp.errors import Error
from mtp.phonons import dispersion, not_stable
from mtp.potential import Potential

Say = Callable[[str], None]
PARTS = ("mesh", "cell", "displacement", "potential")  # of the uncertainty
NOT_COUNTED = "four-phonon scattering, thermal expansion and the error of the reference"


def bte(settings: BteSettings, say: Say = lambda text: None) -> dict[str, Any]:
    """Compute what the settings ask for, in their folder; returns the result, also written there as result.json.

    Keys of the result: `kappa_W_mK`, for each of `temperatures_K` the tensor xx yy zz yz xz xy, on the finest mesh;
    `extrapolated_W_mK`, to infinitely fine ones (None for one mesh); `uncertainty_W_mK`, its PARTS (None where not
    computed) and their `total`; `meshes`, each with its κ; `cumulative` by mean free path and by frequency, on the
    finest mesh; `phonons`, the dispersion. Of a sheet κ is that of its `thickness_A`, and averages are over x and y.

    Raises Error for a structure that is not relaxed or not stable, a folder of another calculation, or what any step
    cannot do.
    """
    extras.phono3py()
    folder = settings.folder
    with engine_of(settings) as engine:
        folder.mkdir(parents=True, exist_ok=True)
        crystal = structures.explored(settings, elements_of(engine, settings))
        sheets.check(crystal.cell.array, settings.thickness)
        for remark in sheets.remarks(crystal.cell.array, crystal.positions, settings.thickness):
            say(f"warning: {remark}")
        _same_calculation(folder, settings, engine, crystal)
        cell, left = _cell_at_rest(crystal, engine, settings, say)
        lattice = displaced(cell, settings.force_constants, settings.born)
        facts = produce(lattice, engine, folder, say)
        if (grade := facts.get("grade", 0.0)) > GRADE:
            say(
                f"warning: displaced cells extrapolate, grades up to {grade:.2f}: those above {GRADE:g} are in "
                f"{folder / EXTRAPOLATING}, to be labelled and learned"
            )
        phonons = dispersion(harmonic(lattice), settings.imaginary)
        if phonons["imaginary"]:
            raise Unsound(
                f"{cell.get_chemical_formula()}, cell {np.round(cell.cell.lengths(), 4).tolist()} Å, in "
                f"{folder / 'structure.extxyz'}: {not_stable(phonons)}; see the potential, the supercell "
                "(force_constants), or lower `imaginary`"
            )
        transport = settings.transport
        solutions = []
        for mesh in transport.meshes:
            solution = kept(folder, lattice, mesh, transport, say)
            solutions.append(solution.per_volume(sheets.filling(cell.cell.array, settings.thickness)))
            say(f"mesh {mesh}: {_row(solutions[-1], settings)}")
        found = _result(settings, engine, cell, left | facts, phonons, solutions)
        found["uncertainty_W_mK"] = _uncertainty(settings, engine, cell, solutions, lattice, say)
        if "phono3py" in settings.export:
            lattice.save(folder / "phono3py_params.yaml")
            lattice.save(folder / "phono3py_disp.yaml", settings={"force_sets": False})
        if "shengbte" in settings.export:
            from mtp.conductivity.shengbte import export

            export(folder / "shengbte", lattice, transport)
    with replaced_whole(folder / "result.json") as part:
        part.write_text(json.dumps(found, indent=1) + "\n")
    return found


def engine_of(settings: BteSettings) -> Engine:
    """What gives forces."""
    if settings.potential is None:
        return LabellerEngine(settings.reference, _elements(settings))
    potential = Potential.load(settings.potential)
    potential.species = potential.species or _elements(settings)
    return PotentialEngine(potential)


def graded_cells(settings: BteSettings) -> list[Atoms]:
    """The displaced cells of a calculation, as far as it came, with the potential's "grade" in their info; those of the
    given structure where it could not be relaxed. Those of other supercells and displacements come last."""
    with engine_of(settings) as engine:
        file = settings.folder / "at_rest.json"
        known = json.loads(file.read_text()) if file.exists() else None
        crystal = structures.explored(settings, elements_of(engine, settings))
        cell = crystal if known is None else Atoms(known["symbols"], known["positions"], cell=known["cell"], pbc=True)
        asked, first = settings.uncertainty, settings.force_constants
        constants = [first]
        constants += [first.model_copy(update={"supercell": asked.supercell})] if asked.supercell else []
        constants += [first.model_copy(update={"displacement": asked.displacement})] if asked.displacement else []
        cells = []
        for told in constants:
            lattice = displaced(cell, told)
            cells += cells_of(lattice.supercells_with_displacements)
            if lattice.phonon_supercell_matrix is not None:
                cells += cells_of(lattice.phonon_supercells_with_displacements)
        for atoms, grade in zip(cells, engine.grades(cells), strict=True):
            atoms.info["grade"] = grade
        return cells


def elements_of(engine: Engine, settings: BteSettings) -> list[str]:
    """The elements of the engine, in the order of its types."""
    return engine.potential.species if isinstance(engine, PotentialEngine) else _elements(settings)


def kept(folder: Path, lattice: Any, mesh: Mesh, transport: Transport, say: Say) -> Solution:
    """The solution on a mesh, from its file in the folder, or computed and written there."""
    told = transport.model_dump(mode="json", exclude={"meshes"})
    name = "x".join(map(str, [mesh] * 3 if isinstance(mesh, int) else mesh))
    file = folder / f"mesh_{name}_{_digest(told)}.npz"
    if file.exists():
        return Solution.load(file)
    solution = solve(lattice, mesh, transport, file, now_and_then(say, f"mesh {name}: q-points"))
    if not file.exists():
        solution.save(file)
    return solution


def _elements(settings: BteSettings) -> list[str]:
    """Those of the settings, or of the structure, by atomic number."""
    if settings.species:
        return settings.species
    return species_of([structures.crystal(settings.crystal)] if settings.crystal else read(settings.file))


def _same_calculation(folder: Path, settings: BteSettings, engine: Engine, crystal: Atoms) -> None:
    """Raises Error where the folder holds another calculation."""
    form = settings.model_dump(mode="json", include={"relax", "force_constants"})
    form |= {"forces": engine.fingerprint, "born": settings.born and _digest(settings.born.read_text())}
    numbers = [crystal.numbers.tolist(), crystal.positions.round(6).tolist(), crystal.cell.array.round(6).tolist()]
    form["structure"] = _digest(numbers)
    form["sheet"] = settings.thickness is not None  # of any: nothing is computed anew for another thickness
    file = folder / "calculation.json"
    if file.exists():
        known = json.loads(file.read_text())
        if other := [key for key in form if known.get(key) != form[key]]:
            raise Error(
                f"{folder}: holds a calculation with other {', '.join(other)}: name a new `folder`, or remove this one"
            )
        return
    with replaced_whole(file) as part:
        part.write_text(json.dumps(form, indent=1) + "\n")


def _cell_at_rest(crystal: Atoms, engine: Engine, settings: BteSettings, say: Say) -> tuple[Atoms, dict]:
    """The relaxed cell, which must be the same to the last digit when a run goes on."""
    file = settings.folder / "at_rest.json"
    if file.exists():
        known = json.loads(file.read_text())
        return Atoms(known["symbols"], known["positions"], cell=known["cell"], pbc=True), known["left"]
    try:
        cell, left = at_rest(crystal, engine, settings.relax, settings.thickness)
    except Error as error:
        raise Unsound(str(error)) from error
    say(
        f"at rest: cell {np.round(cell.cell.lengths(), 5).tolist()} Å, forces up to {left['force_eV_per_A']:.1e} eV/Å, "
        f"stress up to {np.abs(left['stress_GPa']).max():.1e} GPa"
    )
    write(settings.folder / "structure.extxyz", cell, parallel=False)  # by rank 0 alone, in a learning loop
    state = {"symbols": cell.get_chemical_symbols(), "positions": cell.positions.tolist()}
    state |= {"cell": cell.cell.array.tolist(), "left": left}
    with replaced_whole(file) as part:
        part.write_text(json.dumps(state) + "\n")
    return cell, left


def _result(
    settings: BteSettings, engine: Engine, cell: Atoms, facts: dict, phonons: dict, solutions: Sequence[Solution]
) -> dict[str, Any]:
    transport, finest = settings.transport, solutions[-1]
    directions = sheets.conducting(settings.thickness)
    limit = extrapolated(solutions, directions)
    curves = {
        name: [
            dict(zip(("x", "kappa_W_mK"), (a.tolist() for a in cumulative(*pair, directions)), strict=True))
            for pair in zip(values, finest.modes, strict=True)
        ]
        for name, values in (
            ("mean_free_path_A", finest.paths),
            ("frequency_THz", np.broadcast_to(finest.frequencies, finest.paths.shape)),
        )
    }
    constants = settings.force_constants
    return {
        "method": "bte",
        "forces": engine.fingerprint,
        "thickness_A": settings.thickness,
        "structure": {
            "symbols": cell.get_chemical_symbols(),
            "cell_A": cell.cell.array.tolist(),
            "scaled_positions": cell.get_scaled_positions().tolist(),
        },
        **facts,
        **constants.model_dump(),
        **transport.model_dump(exclude={"temperatures", "meshes"}),
        "temperatures_K": transport.temperatures,
        "kappa_W_mK": finest.kappa.tolist(),
        "extrapolated_W_mK": None if limit is None else limit.tolist(),
        "meshes": [
            {
                "mesh": mesh,
                "q_points": solution.n_q,
                "kappa_W_mK": solution.kappa.tolist(),
                "relaxation_time_W_mK": solution.relaxation_time.tolist(),
            }
            for mesh, solution in zip(transport.meshes, solutions, strict=True)
        ],
        "cumulative": curves,
        "phonons": phonons,
    }


def _uncertainty(
    settings: BteSettings, engine: Engine, cell: Atoms, solutions: Sequence[Solution], lattice: Any, say: Say
) -> dict[str, Any]:
    """Standard deviations of κ, (n_T, 6), W/mK, by part; None for parts that were not computed.

    mesh: distance to the extrapolation. cell, displacement: what another supercell or displacement changes.
    potential: standard deviation over the sampled potentials, each with its own lattice constant. All but the first are
    relative changes on one mesh, times κ.
    """
    asked, transport = settings.uncertainty, settings.transport
    limit, kappa = extrapolated(solutions, sheets.conducting(settings.thickness)), solutions[-1].kappa
    mesh_part = None if limit is None else np.abs(limit - kappa)
    parts: dict[str, Any] = dict.fromkeys(PARTS) | {"mesh": mesh_part}
    others = {
        "cell": asked.supercell and {"supercell": asked.supercell},
        "displacement": asked.displacement and {"displacement": asked.displacement},
    }
    drawn = _other_potentials(settings, engine)
    if drawn or any(others.values()):
        mesh = asked.mesh or transport.meshes[0]
        base = kept(settings.folder, lattice, mesh, transport, say).kappa

        def relative(changed: Engine, constants: ForceConstants, name: str) -> np.ndarray | None:
            folder = settings.folder / f"other_{_digest([constants.model_dump(mode='json'), changed.fingerprint])}"
            folder.mkdir(exist_ok=True)
            there = cell if changed is engine else at_rest(cell, changed, settings.relax, settings.thickness)[0]
            other = displaced(there, constants, settings.born)
            produce(other, changed, folder, lambda text: None)
            phonons = dispersion(harmonic(other), settings.imaginary)
            if phonons["imaginary"]:
                say(f"{name} is left out: {not_stable(phonons)}")
                return None
            found = kept(folder, other, mesh, transport, say)
            part = sheets.filling(there.cell.array, settings.thickness)
            say(f"{name}: {_row(found.per_volume(part), settings)} on mesh {mesh}")
            return np.divide(found.kappa, base, out=np.ones_like(base), where=np.abs(base) > 1e-6 * np.abs(base).max())

        for part, update in others.items():
            if update:
                constants = settings.force_constants.model_copy(update=update)
                change = relative(engine, constants, f"other {part}")
                parts[part] = None if change is None else np.abs(change - 1) * np.abs(kappa)
        changes = [
            change
            for k, potential in enumerate(drawn, 1)
            if (change := relative(PotentialEngine(potential), settings.force_constants, f"potential {k}")) is not None
        ]
        if len(changes) > 1:
            parts["potential"] = np.std(changes, axis=0, ddof=1) * np.abs(kappa)
    known = [part for part in parts.values() if part is not None]
    total = np.sqrt(sum(part**2 for part in known)) if known else None
    told = {name: None if part is None else part.tolist() for name, part in {**parts, "total": total}.items()}
    return told | {"not_counted": NOT_COUNTED}


def _other_potentials(settings: BteSettings, engine: Engine) -> list[Potential]:
    asked = settings.uncertainty
    if asked.posterior:
        from mtp.uncertainty import Posterior

        return Posterior.load(asked.posterior, engine.potential).sample(asked.samples)
    loaded = [Potential.load(file) for file in asked.potentials]
    for potential in loaded:
        potential.species = potential.species or engine.potential.species
    return loaded


def _row(solution: Solution, settings: BteSettings) -> str:
    """κ averaged over directions at each temperature."""
    means = solution.kappa[:, : sheets.conducting(settings.thickness)].mean(axis=1)
    temperatures = settings.transport.temperatures
    return ", ".join(f"{kappa:.4g} W/mK at {t:g} K" for t, kappa in zip(temperatures, means, strict=True))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
