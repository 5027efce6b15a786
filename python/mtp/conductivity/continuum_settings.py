# SPDX-License-Identifier: BSD-3-Clause
"""What a calculation of an effective conductivity is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mtp.conductivity.sheets import conducting
from mtp.errors import Error
from mtp.settings import Section

Positive = Annotated[float, Field(gt=0)]
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Geometry(Section):
    """A periodic box, whose edges are `box` in units of the first.

    voronoi: cells of `grains` random points, moved to the cells' centres `regular` times; `realisations` of them, from
    `seed` on. laminate: layers across x, as thick as `thicknesses` tell. checkerboard: 2 × 2 (× 2). labels: from a
    `file` (.npy, or text in two dimensions) the grain of each voxel, first index along x; equal labels are one grain.
    Steps of voxels on slanted boundaries make these longer than they are: for conductances, take polygons (voronoi).
    """

    type: Literal["voronoi", "laminate", "checkerboard", "labels"] = "voronoi"
    dimension: Literal[2, 3] = 2
    box: list[Positive] | None = None
    grains: int = Field(30, ge=1)
    regular: int = Field(0, ge=0)
    realisations: int = Field(3, ge=1)
    seed: int = 1
    thicknesses: list[Positive] = Field(default_factory=lambda: [1.0, 1.0], min_length=1)
    file: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Geometry:
        if self.box is not None and len(self.box) != self.dimension:
            raise ValueError(f"`box` wants {self.dimension} edges, found {len(self.box)}")
        if (self.file is None) == (self.type == "labels"):
            raise ValueError("`file` goes with the type 'labels', and must be given there")
        return self


class Phase(Section):
    """A material.

    kappa, W/mK: a number, or xx yy zz yz xz xy of its crystal axes, and the standard `error` of its mean (0); or the
    `file` of a result, at one of its temperatures (K), where `error` takes the place of the file's, and must be given
    where it has none. share: of the grains of a Voronoi geometry; grains of other geometries
    take the phases in turn. orientation of the crystal axes: random, turned about z at random, or along the box.
    """

    name: str
    kappa: Positive | list[float] | None = None
    error: float | None = Field(None, ge=0)
    file: Path | None = None
    temperature: float = Field(300.0, gt=0)
    share: float = Field(1.0, gt=0)
    orientation: Literal["random", "plane", "aligned"] = "random"

    @model_validator(mode="after")
    def _one_source(self) -> Phase:
        if (self.kappa is None) == (self.file is None):
            raise ValueError("give either `kappa` or the `file` of a result")
        if isinstance(self.kappa, list) and len(self.kappa) != 6:
            raise ValueError("`kappa` wants a number, or six of a tensor: xx yy zz yz xz xy")
        return self

    def known(self) -> tuple[np.ndarray, float]:
        """The tensor (3, 3), W/mK, and the relative error of its mean.

        Raises Error where the file holds none at the temperature or no error, or it is not positive.
        """
        values, error = (self.kappa, 0.0) if self.file is None else _conductivity(self.file, self.temperature)
        if len(np.atleast_2d(values)) == 2:  # of a sheet; what is put for z conducts nowhere
            (xx, xy), (_, yy) = values
            if self.orientation == "random" and max(abs(xx - yy), abs(xy)) > 1e-6 * abs(xx):
                raise Error(f"{self.file}: is of a sheet: the orientation of {self.name} must be 'plane' or 'aligned'")
            values = [xx, yy, (xx + yy) / 2, 0.0, 0.0, xy]
        error = error if self.error is None else self.error
        if error is None:
            raise Error(f"{self.file}: has no error of its conductivity: give the phase {self.name} an `error`, W/mK")
        tensor = np.zeros((3, 3))
        for (i, j), value in zip(VOIGT, values if isinstance(values, list) else [values] * 3 + [0.0] * 3, strict=True):
            tensor[i, j] = tensor[j, i] = value
        if np.linalg.eigvalsh(tensor)[0] <= 0:
            raise Error(f"the conductivity of the phase {self.name} is not positive: {values}")
        return tensor, 3 * error / float(np.trace(tensor))


class Boundary(Section):
    """Boundaries between grains of two phases: their conductance, MW/m²K (inf: no resistance), with its standard
    `error`; or the `file` of a result with it."""

    between: tuple[str, str]
    conductance: float | None = Field(None, gt=0)
    error: float = Field(0.0, ge=0)
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Boundary:
        if (self.conductance is None) == (self.file is None):
            raise ValueError("give either a `conductance` or the `file` of a result")
        return self

    def known(self) -> tuple[float, float]:
        """The conductance, MW/m²K, and its relative error. Raises Error where the file holds none."""
        if self.file is None:
            return self.conductance, self.error / self.conductance
        found = _result(self.file, "conductance_MW_m2K")["conductance_MW_m2K"]
        return found["value"], found["error"] / found["value"]


class ContinuumSettings(Section):
    """Effective conductivity of what is made of grains. Paths are relative to the settings file.

    conductance: of boundaries that `boundaries` do not name, MW/m²K; inf (the default): no resistance. sizes, nm: of
    the mean grain (the box's volume for each grain, to the power 1/dimension) of voronoi, of the box along x of others.
    tolerance: relative distance of the bounds at which refinement ends; refinements: at most, unknowns: at most.
    """

    folder: Path = Path("continuum")
    geometry: Geometry = Field(default_factory=Geometry)
    phases: list[Phase] = Field(min_length=1)
    boundaries: list[Boundary] = Field(default_factory=list)
    conductance: float = Field(math.inf, gt=0)
    sizes: list[Positive] = Field(default_factory=lambda: [100.0], min_length=1)
    tolerance: float = Field(0.01, gt=0)
    refinements: int = Field(6, ge=0)
    unknowns: int = Field(300_000, ge=1)

    @model_validator(mode="after")
    def _names(self) -> ContinuumSettings:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError("each phase must have a name of its own")
        for boundary in self.boundaries:
            if unknown := set(boundary.between) - set(names):
                raise ValueError(f"no phase is named {', '.join(sorted(unknown))}: phases are {', '.join(names)}")
        return self

    def conductances(self) -> tuple[np.ndarray, np.ndarray]:
        """Between each two phases, (n, n), W/m²K, and their relative errors. Raises Error for a file without one."""
        place = {phase.name: k for k, phase in enumerate(self.phases)}
        found, errors = np.full((len(place), len(place)), self.conductance), np.zeros((len(place), len(place)))
        for boundary in self.boundaries:
            i, j = (place[name] for name in boundary.between)
            found[i, j], errors[i, j] = found[j, i], errors[j, i] = boundary.known()
        return 1e6 * found, errors

    def check_sheets(self) -> None:
        """Raises Error for results of sheets in three dimensions, or beside results with another thickness."""
        parts = [(phase.file, "kappa_W_mK") for phase in self.phases]
        parts += [(boundary.file, "conductance_MW_m2K") for boundary in self.boundaries]
        found = {file: _result(file, key).get("thickness_A") for file, key in parts if file is not None}
        told = ", ".join(f"{file}: {height:g} Å" if height else f"{file}: none" for file, height in found.items())
        if len(set(found.values())) > 1:
            raise Error(f"results must be of sheets of one `thickness`, or all of none; {told}")
        if any(found.values()) and self.geometry.dimension == 3:
            raise Error(f"results of sheets tell nothing of the third dimension: set `dimension = 2`; {told}")

    def resolve(self, base: Path) -> ContinuumSettings:
        """The same with all paths taken from `base`."""
        phases = [phase.model_copy(update={"file": phase.file and base / phase.file}) for phase in self.phases]
        boundaries = [part.model_copy(update={"file": part.file and base / part.file}) for part in self.boundaries]
        geometry = self.geometry.model_copy(update={"file": self.geometry.file and base / self.geometry.file})
        parts = {"phases": phases, "boundaries": boundaries, "geometry": geometry}
        return self.model_copy(update={"folder": base / self.folder, **parts})


def _result(path: Path, key: str) -> dict[str, Any]:
    """A result of `mtp conductivity` that holds the key."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        found[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Error(f"{path}: is no result with {key}: {error}") from None
    return found


def _conductivity(path: Path, temperature: float) -> tuple[Any, float | None]:
    """κ, a tensor where the result has one (2 × 2 of a sheet), and the error of its mean (None: not known)."""
    found = _result(path, "kappa_W_mK")
    kappa, known = found["kappa_W_mK"], found.get("temperatures_K")
    if known is None:
        tensor = found.get("tensor_W_mK")
        if tensor is None:
            return kappa["value"], kappa.get("error")
        if len(tensor) == 2:
            return tensor, kappa.get("error")
        return [tensor[i][j] for i, j in VOIGT], kappa.get("error")
    for k, at in enumerate(known):
        if abs(at - temperature) < 1e-6 * temperature:
            total, directions = found["uncertainty_W_mK"]["total"], conducting(found.get("thickness_A"))
            xx, yy, _, _, _, xy = kappa[k]
            tensor = kappa[k] if directions == 3 else [[xx, xy], [xy, yy]]
            return tensor, float(np.mean(total[k][:directions])) if total else None
    raise Error(f"{path}: holds no conductivity at {temperature:g} K, but at {', '.join(f'{t:g}' for t in known)} K")
