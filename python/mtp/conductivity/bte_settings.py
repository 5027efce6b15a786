# SPDX-License-Identifier: BSD-3-Clause
"""What a calculation with the Boltzmann transport equation of phonons is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mtp.settings import Crystal, Elements, Labelling, Section

Count = Annotated[int, Field(ge=1)]
Counts = tuple[Count, Count, Count]
Mesh = Count | Counts


class Relaxation(Section):
    """What is relaxed before atoms are displaced, and how much may be left: force in eV/Å, stress in GPa (asked of
    `cell` and `nothing` alone, since a chosen lattice constant has a stress)."""

    what: Literal["cell", "atoms", "nothing"] = "cell"
    force: float = Field(1e-3, gt=0)
    stress: float = Field(0.05, gt=0)


class ForceConstants(Section):
    """Finite displacements (Å). supercell: repeats of the unit cell for third order, and for second order where
    `harmonic_supercell` names none. pair_cutoff: farthest pair of displaced atoms, Å."""

    supercell: Counts = (2, 2, 2)
    harmonic_supercell: Counts | None = None
    displacement: float = Field(0.03, gt=0)
    pair_cutoff: float | None = Field(None, gt=0)


class Transport(Section):
    """The solution of the transport equation.

    temperatures: K. meshes: points of q along the reciprocal vectors of the `grid`'s cell, growing: of the primitive
    cell, or of the unit cell, whose mesh n holds the waves of an MD cell of n repeats. solution: relaxation times, or
    direct (which gives both). isotopes: scattering by natural isotopes. boundary: length of scattering at surfaces, Å.
    occupation: of Bose and Einstein, or classical as in MD. broadening: width of a Gaussian, THz, in place of
    tetrahedra.
    """

    temperatures: list[Annotated[float, Field(gt=0)]] = Field([300.0], min_length=1)
    meshes: list[Mesh] = Field([11, 15, 19], min_length=1)
    grid: Literal["primitive", "unit"] = "primitive"
    solution: Literal["relaxation time", "direct"] = "relaxation time"
    isotopes: bool = False
    boundary: float | None = Field(None, gt=0)
    occupation: Literal["quantum", "classical"] = "quantum"
    broadening: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _what_goes_together(self) -> Transport:
        if self.occupation == "classical" and (self.isotopes or self.boundary):
            raise ValueError("classical occupations are for comparison with MD: without `isotopes` and `boundary`")
        sizes = [n**3 if isinstance(n, int) else n[0] * n[1] * n[2] for n in self.meshes]
        if sorted(set(sizes)) != sizes:
            raise ValueError(f"`meshes` must grow, found {self.meshes}")
        return self


class Parts(Section):
    """Parts of the uncertainty that cost more calculations, all on the smallest mesh, or on `mesh`.

    supercell: a larger one, for the part of the cell. displacement: another one, Å. posterior: of `mtp uncertainty`,
    from which `samples` potentials are drawn; potentials: others of the same quality (refits), instead.
    """

    mesh: Mesh | None = None
    supercell: Counts | None = None
    displacement: float | None = Field(None, gt=0)
    posterior: Path | None = None
    samples: int = Field(10, ge=2)
    potentials: list[Path] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_source(self) -> Parts:
        if self.posterior and self.potentials:
            raise ValueError("give either a `posterior` or other `potentials`")
        if len(self.potentials) == 1:
            raise ValueError("one other potential has no standard deviation: give two or more")
        return self


class BteSettings(Section):
    """Lattice conductivity of a crystal. Paths are relative to the settings file.

    The crystal or a `file` of one unit cell; forces from a `potential` or from a `reference` (of the types that label
    data). species: elements of a potential that names none. thickness: Å, of a sheet in the xy plane with vacuum above:
    conductivities and stresses are those of its area times this; its meshes have one point across, and n stands for
    n × n × 1. born: file of phonopy with Born charges and the dielectric tensor. imaginary: most negative frequency
    that is let pass, THz. export: files for other programs.
    """

    folder: Path = Path("bte")
    potential: Path | None = None
    reference: Labelling | None = None
    species: Elements | None = None
    crystal: Crystal | None = None
    file: Path | None = None
    thickness: float | None = Field(None, gt=0)
    relax: Relaxation = Field(default_factory=Relaxation)
    force_constants: ForceConstants = Field(default_factory=ForceConstants)
    born: Path | None = None
    imaginary: float = Field(-0.05, le=0)
    transport: Transport = Field(default_factory=Transport)
    uncertainty: Parts = Field(default_factory=Parts)
    export: list[Literal["phono3py", "shengbte"]] = Field(default_factory=lambda: ["phono3py"])

    @model_validator(mode="after")
    def _one_of_each(self) -> BteSettings:
        if (self.crystal is None) == (self.file is None):
            raise ValueError("give either a `crystal` or a `file`")
        if (self.potential is None) == (self.reference is None):
            raise ValueError("give either a `potential` or a `reference`")
        if self.reference and (self.uncertainty.posterior or self.uncertainty.potentials):
            raise ValueError("`posterior` and `potentials` go with a `potential`, not with a `reference`")
        return self

    @model_validator(mode="after")
    def _sheet(self) -> BteSettings:
        if self.thickness is None:
            return self
        constants, transport, parts = self.force_constants, self.transport, self.uncertainty
        for name, cell in (
            ("force_constants.supercell", constants.supercell),
            ("force_constants.harmonic_supercell", constants.harmonic_supercell),
            ("uncertainty.supercell", parts.supercell),
        ):
            if cell is not None and cell[2] > 1:
                raise ValueError(f"`{name}`: a sheet with a `thickness` is not repeated along z, found {list(cell)}")
        transport.meshes = [_flat(mesh) for mesh in transport.meshes]
        parts.mesh = None if parts.mesh is None else _flat(parts.mesh)
        return self

    def resolve(self, base: Path) -> BteSettings:
        """The same with all paths taken from `base`."""
        update: dict[str, Any] = {
            name: base / path for name in ("folder", "potential", "file", "born") if (path := getattr(self, name))
        }
        parts = self.uncertainty
        update["uncertainty"] = parts.model_copy(
            update={
                "posterior": parts.posterior and base / parts.posterior,
                "potentials": [base / file for file in parts.potentials],
            }
        )
        return self.model_copy(update=update)


def _flat(mesh: Mesh) -> Mesh:
    """A mesh of a sheet."""
    numbers = (mesh, mesh, 1) if isinstance(mesh, int) else mesh
    if numbers[2] > 1:
        raise ValueError(f"meshes of a sheet with a `thickness` have one point along z, found {list(numbers)}")
    return numbers
