# SPDX-License-Identifier: BSD-3-Clause
"""Properties of a crystal at 0 K from any ASE calculator: lattice, E(V), elasticity, vacancy and its hop, surfaces.

Each function takes a Solid and gives a Found; what cannot be computed is an Error that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import surface as build_slab
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.optimize import FIRE, LBFGS
from ase.optimize.optimize import Optimizer
from ase.stress import voigt_6_to_full_3x3_strain
from pydantic import BaseModel, ConfigDict, Field

from mtp.errors import Error

FITTED = 7  # volumes around the minimum: what is further off need not follow any equation of state
CELL_FMAX = 1e-6  # eV/Å, in cells of few atoms: stresses are divided by small strains
RATTLE = 0.02  # Å, out of symmetric arrangements, which may be saddles
HOLE = 0.05  # eV below the ends of a hop that no image of it should be
GAP = 10.0  # Å of vacuum on each side of a slab
SAME_CONSTANT = 0.01  # elastic constants that differ by less, of the largest, are equal by symmetry
J_PER_M2 = units.J / units.m**2
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


class NotApplicable(Error):
    """A property that this crystal or this installation does not admit."""


class Numerics(BaseModel):
    """How properties are computed. Lengths in Å.

    fmax: largest force left by relaxations of many atoms, eV/Å; neb_fmax: on the path of a hop. steps: of a
    relaxation, at most. volume_range, volumes: relative half width and number of points of E(V). strain: of central
    differences for elastic constants. defect_length: least distance between images of a defect. images: of a hop,
    without its ends. slab_thickness: least. phonon_length: least length of the supercell; phonon_displacement: of
    its atoms.
    """

    model_config = ConfigDict(extra="forbid")

    fmax: float = Field(1e-4, gt=0)
    neb_fmax: float = Field(1e-2, gt=0)
    steps: int = Field(1000, ge=1)
    volume_range: float = Field(0.1, gt=0, lt=0.5)
    volumes: int = Field(21, ge=FITTED)
    strain: float = Field(2e-3, gt=0, lt=0.1)
    defect_length: float = Field(15.0, gt=0)
    images: int = Field(5, ge=1)
    slab_thickness: float = Field(20.0, gt=0)
    phonon_length: float = Field(15.0, gt=0)
    phonon_displacement: float = Field(0.01, gt=0)


@dataclass
class Found:
    """Values by key (units as in mtp.validation.UNITS), details for JSON and figures, and remarks for the reader."""

    values: dict[str, float | list[float]]
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Solid:
    """A crystal, relaxed with its cell, and what makes calculators for it. strains: which of xx yy zz yz xz xy relax.

    Attributes:
        cell: the relaxed unit cell, without a calculator.
        energy: of an atom in it, eV.
        spacing: shortest distance between atoms, Å.
    """

    def __init__(
        self,
        crystal: Atoms,
        calculators: Callable[[], Calculator],
        numerics: Numerics,
        strains: Sequence[int] = (1, 1, 1, 1, 1, 1),
    ) -> None:
        self.calculators = calculators
        self.numerics = numerics
        self.spacing = spacing(crystal)
        atoms = self.calculated(crystal)
        self.relax(atoms, CELL_FMAX, FrechetCellFilter(atoms, mask=strains))
        self.energy = atoms.get_potential_energy() / len(atoms)
        self.cell = atoms.copy()
        self.spacing = spacing(self.cell)

    def calculated(self, atoms: Atoms) -> Atoms:
        """A copy with a calculator of its own."""
        atoms = atoms.copy()
        atoms.calc = self.calculators()
        return atoms

    def supercell(self, length: float) -> Atoms:
        """Repeated until opposite faces are at least `length` (Å) apart."""
        return self.cell.repeat(repeats(self.cell, length))

    def relax(self, atoms: Atoms, fmax: float | None = None, target: Any = None) -> None:
        """Relax the positions, or `target` (a filter around the atoms, an ASE object with forces), to fmax, eV/Å.

        Raises Error where atoms or cell run away by more than the distance of neighbours, or it does not converge.
        """
        optimiser = LBFGS(atoms if target is None else target, logfile=None)
        self.drive(optimiser, [atoms], fmax or self.numerics.fmax)

    def drive(self, optimiser: Optimizer, watched: Iterable[Atoms], fmax: float) -> None:
        """Run an optimiser that moves the watched atoms. Raises Error as `relax` does."""
        start = [(atoms, atoms.positions.copy(), atoms.cell.array.copy()) for atoms in watched]
        for done in optimiser.irun(fmax=fmax, steps=self.numerics.steps):
            converged = done
            for atoms, positions, cell in start:
                moved = np.linalg.norm(atoms.positions - positions, axis=1)
                stretched = np.linalg.norm(atoms.cell.array - cell, axis=1).max()
                # written so that NaN is caught as well
                if not stretched < 0.3 * np.ptp(cell):
                    raise Error(
                        f"the crystal is not stable: a cell vector changed by {stretched:.2f} Å in {optimiser.nsteps} "
                        "steps of the relaxation"
                    )
                if not moved.max() < self.spacing + stretched:
                    raise Error(
                        f"the structure is not stable: atom {int(moved.argmax())} moved {moved.max():.2f} Å in "
                        f"{optimiser.nsteps} steps of the relaxation"
                    )
        if not converged:
            raise Error(
                f"the relaxation did not reach {fmax:g} eV/Å in {self.numerics.steps} steps: raise `steps`, or see "
                "whether the potential is smooth there"
            )

    @cached_property
    def vacancy(self) -> tuple[Atoms, float, float]:
        """The supercell without its first atom, relaxed; and its energies before and after, less the crystal's."""
        if len(set(self.cell.numbers)) > 1:
            raise NotApplicable(
                "the energy of a vacancy in a compound depends on chemical potentials: only elements here"
            )
        perfect = self.supercell(self.numerics.defect_length)
        hole = self.calculated(without(perfect, 0))
        before = hole.get_potential_energy() - len(hole) * self.energy
        rattle(hole)
        self.relax(hole)
        return hole, before, hole.get_potential_energy() - len(hole) * self.energy


def lattice(solid: Solid) -> Found:
    """Conventional lattice constants, volume and energy of an atom."""
    bravais = solid.cell.cell.get_bravais_lattice()
    values = {name: float(value) for name, value in bravais.vars().items()}
    values |= {"volume": float(solid.cell.get_volume()) / len(solid.cell), "energy": solid.energy}
    details = {"bravais_lattice": bravais.name, "cell": solid.cell.cell.array.tolist()}
    details |= {"scaled_positions": solid.cell.get_scaled_positions().tolist(), "symbols": str(solid.cell.symbols)}
    return Found(values, details)


def energy_volume(solid: Solid) -> Found:
    """E(V) with shape and positions relaxed at each volume, and the bulk modulus of the Birch-Murnaghan equation fitted
    to the seven volumes nearest the equilibrium."""
    numerics = solid.numerics
    ratios = np.linspace(1 - numerics.volume_range, 1 + numerics.volume_range, numerics.volumes)
    volumes, energies = [], []
    for ratio in ratios:
        atoms = solid.cell.copy()
        atoms.set_cell(ratio ** (1 / 3) * atoms.cell, scale_atoms=True)
        atoms = solid.calculated(atoms)
        solid.relax(atoms, 10 * CELL_FMAX, FrechetCellFilter(atoms, constant_volume=True))
        volumes.append(atoms.get_volume() / len(atoms))
        energies.append(atoms.get_potential_energy() / len(atoms))
    middle = sorted(np.argsort(abs(ratios - 1))[:FITTED])
    equation = EquationOfState(*np.array([volumes, energies])[:, middle], eos="birchmurnaghan")
    try:
        _, _, modulus = equation.fit()
    except (RuntimeError, ValueError) as error:
        raise Error(f"no equation of state fits E(V): {error}") from error
    fitted = np.linspace(volumes[0], volumes[-1], 200)
    details = {"volumes": volumes, "energies": energies, "fitted_volumes": fitted.tolist()}
    details["fitted_energies"] = equation.func(fitted, *equation.eos_parameters).tolist()
    values = {"bulk_modulus": modulus / units.GPa, "bulk_modulus_derivative": equation.eos_parameters[2]}
    return Found({key: float(value) for key, value in values.items()}, details)


def elastic(solid: Solid) -> Found:
    """Elastic constants C_kl = ∂σ_k/∂ε_l (k, l = xx yy zz yz xz xy, shear strains γ = 2ε), positions relaxed.

    Constants that symmetry makes equal are averaged for cubic and hexagonal tensors; the details hold all as found.
    bulk_modulus_elastic is Reuss', which hydrostatic pressure feels: 1 / Σ S_kl over k, l ≤ 3.
    """
    step = solid.numerics.strain
    constants = np.empty((6, 6))
    for column, sixth in enumerate(step * np.eye(6)):
        stresses = []
        for strain in (sixth, -sixth):
            atoms = solid.cell.copy()
            atoms.set_cell(atoms.cell @ voigt_6_to_full_3x3_strain(strain), scale_atoms=True)  # identity included
            atoms = solid.calculated(atoms)
            solid.relax(atoms, CELL_FMAX)
            stresses.append(atoms.get_stress())
        constants[:, column] = (stresses[0] - stresses[1]) / (2 * step * units.GPa)
    symmetric = (constants + constants.T) / 2
    kind, values = independent(symmetric)
    softest = float(np.linalg.eigvalsh(symmetric)[0])
    values["bulk_modulus_elastic"] = float(1 / np.linalg.inv(symmetric)[:3, :3].sum())
    details = {"C_GPa": constants.tolist(), "order": VOIGT, "symmetry": kind}
    details |= {"asymmetry_GPa": float(abs(constants - constants.T).max()), "softest_GPa": softest}
    unstable = [f"the crystal is not stable: an eigenvalue of C is {softest:.2f} GPa"] if softest <= 0 else []
    return Found(values, details, unstable)


def independent(constants: np.ndarray) -> tuple[str, dict[str, float]]:
    """The kind of a symmetric (6, 6) tensor in the axes it is given in, and its independent constants."""
    c = {f"C{k + 1}{m + 1}": float(constants[k, m]) for k in range(6) for m in range(k, 6)}
    groups = {
        "cubic": {"C11": ("C11", "C22", "C33"), "C12": ("C12", "C13", "C23"), "C44": ("C44", "C55", "C66")},
        "hexagonal": {"C11": ("C11", "C22"), "C12": ("C12",), "C13": ("C13", "C23"), "C33": ("C33",)}
        | {"C44": ("C44", "C55")},
    }
    largest = max(map(abs, c.values()))
    rest = set(c) - {f"C{k}{m}" for k in range(1, 4) for m in range(k, 4)} - {"C44", "C55", "C66"}
    small = all(abs(c[key]) < SAME_CONSTANT * largest for key in rest)
    for kind, group in groups.items():
        spread = [np.ptp([c[key] for key in keys]) for keys in group.values()]
        if kind == "hexagonal":
            spread.append(abs(c["C66"] - (c["C11"] - c["C12"]) / 2))
        if small and max(spread) < SAME_CONSTANT * largest:
            return kind, {name: float(np.mean([c[key] for key in keys])) for name, keys in group.items()}
    return ("orthorhombic", {key: value for key, value in c.items() if key not in rest}) if small else ("general", c)


def vacancy(solid: Solid) -> Found:
    """Formation energy E(N - 1) - (N - 1) E(crystal)/N at the crystal's volume, before and after relaxing positions."""
    hole, before, after = solid.vacancy
    return Found({"vacancy_unrelaxed": before, "vacancy": after}, {"atoms": len(hole)})


def migration(solid: Solid) -> Found:
    """Barrier for a nearest neighbour to hop into the vacancy: climbing-image nudged elastic band from a straight path.

    Henkelman, Uberuaga & Jónsson, J. Chem. Phys. 113, 9901 (2000).
    """
    first, _, formed = solid.vacancy
    perfect = solid.supercell(solid.numerics.defect_length)
    distances = perfect.get_distances(0, range(len(perfect)), mic=True)
    distances[0] = np.inf
    jumper = int(distances.argmin()) - 1  # in the cell without atom 0
    last = without(perfect, 0)
    last.positions[jumper] = perfect.positions[0]
    last = solid.calculated(last)
    rattle(last)
    solid.relax(last)
    path = [solid.calculated(first) for _ in range(solid.numerics.images + 1)] + [last]
    band = NEB(path, method="improvedtangent")
    band.interpolate(mic=True)
    energies = energies_along(path)
    for climb, fmax in ((False, 10 * solid.numerics.neb_fmax), (True, solid.numerics.neb_fmax)):
        band.climb = climb
        solid.drive(FIRE(band, logfile=None), path[1:-1], fmax)
        energies = energies_along(path)
    notes = []
    if abs(energies[-1]) > 1e-3:
        notes.append(f"the two ends of the hop differ by {energies[-1]:.4f} eV: the vacancy has several arrangements")
    return Found({"migration": float(energies.max())}, {"path_eV": energies.tolist(), "formation_eV": formed}, notes)


def energies_along(path: Sequence[Atoms]) -> np.ndarray:
    """Of the images, less that of the first, eV. Raises Error where the path leads down a hole."""
    energies = np.array([atoms.get_potential_energy() for atoms in path])
    energies -= energies[0]
    if energies.min() < min(energies[-1], 0) - HOLE:
        raise Error(
            f"on the way into the vacancy the energy falls {-energies.min():.2f} eV below where it began: the vacancy "
            "is not stable, or the potential fails there"
        )
    return energies


def surface(solid: Solid, indices: Sequence[int]) -> Found:
    """Energy of the relaxed surface with these Miller indices of the unit cell, J/m², both faces of a slab averaged.

    Of the planes at which the crystal can be cut, the one of least energy before relaxation. The slab's period is the
    unit cell's: longer reconstructions are not looked for.
    """
    slabs = [solid.calculated(slab) for slab in terminations(solid.cell, indices, solid.numerics.slab_thickness)]
    counts = {symbol: count / len(solid.cell) for symbol, count in solid.cell.symbols.formula.count().items()}
    for slab in slabs:
        if any(slab.symbols.count(symbol) != part * len(slab) for symbol, part in counts.items()):
            raise NotApplicable(f"a slab {tuple(indices)} has not the crystal's composition")

    def energy(slab: Atoms) -> float:
        area = np.linalg.norm(np.cross(*slab.cell[:2]))
        return float((slab.get_potential_energy() - len(slab) * solid.energy) / (2 * area * J_PER_M2))

    best = min(slabs, key=energy)
    before = energy(best)
    rattle(best)
    solid.relax(best)
    name = "surface_" + "".join(map(str, indices))
    details = {"atoms": len(best), "terminations": len(slabs), "unrelaxed": before}
    return Found({name: energy(best)}, details)


def terminations(cell: Atoms, indices: Sequence[int], thickness: float) -> list[Atoms]:
    """Slabs of at least that thickness (Å), cut between each two neighbouring planes of the crystal; periodic, with
    vacuum along the third direction."""
    miller = np.array(indices)
    layers = int(np.ceil(thickness * np.linalg.norm(miller @ cell.cell.reciprocal())))
    heights = np.sort(cell.get_scaled_positions() @ miller % 1)  # of planes, in units of their period
    heights = np.append(heights, heights[0] + 1)
    slabs = []
    for low, high in pairwise(heights):
        if high - low < 1e-3:
            continue
        shifted = cell.copy()
        shifted.set_scaled_positions(shifted.get_scaled_positions() - (low + high) / 2 * miller / (miller @ miller))
        slab = build_slab(shifted, tuple(indices), layers)
        slab.center(vacuum=GAP, axis=2)
        slab.pbc = True
        slabs.append(slab)
    return slabs


def spacing(crystal: Atoms) -> float:
    """The shortest distance between two atoms of a crystal, Å."""
    distances = crystal.repeat(2).get_all_distances(mic=True)
    return float(distances[~np.eye(len(distances), dtype=bool)].min())


def repeats(cell: Atoms, length: float) -> tuple[int, int, int]:
    """How often a cell is repeated for faces at least `length` (Å) apart."""
    return tuple(int(n) for n in np.ceil(length * np.linalg.norm(cell.cell.reciprocal(), axis=1)))


def without(atoms: Atoms, index: int) -> Atoms:
    """A copy without one atom."""
    atoms = atoms.copy()
    del atoms[index]
    return atoms


def rattle(atoms: Atoms) -> None:
    """Displace all atoms at random, always alike."""
    atoms.positions += RATTLE * np.random.default_rng(1).standard_normal(atoms.positions.shape)
