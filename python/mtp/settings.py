# SPDX-License-Identifier: BSD-3-Clause
"""Settings files (TOML), checked before anything runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtp.errors import Error
from mtp.fit import FitSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A table of a settings file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Crystal(Section):
    """A perfect crystal as `ase.build.bulk` makes it, repeated. a, c: lattice constants, Å."""

    name: str
    structure: str
    a: float = Field(gt=0)
    c: float | None = Field(None, gt=0)
    cubic: bool = True
    repeat: tuple[int, int, int] = (1, 1, 1)


class InitialData(Section):
    """The first data: files of labelled configurations, or configurations made from a crystal and labelled first.

    strains: of the cell, isotropic (0.02 is 2 % longer); one configuration each, and one sheared by each. rattles:
    standard deviations of random displacements, Å, one configuration each. vacancy: also a rattled one with an atom
    missing.
    """

    files: list[Path] = []
    crystal: Crystal | None = None
    strains: list[float] = [-0.03, 0.03]
    rattles: list[float] = [0.05, 0.15]
    vacancy: bool = True

    @model_validator(mode="after")
    def _some_data(self) -> InitialData:
        if not self.files and self.crystal is None:
            raise ValueError("either `files` or a `crystal` must be given")
        return self


class Exploration(Section):
    """Molecular dynamics of one structure at each of some temperatures (K), `steps` of `timestep` (ps).

    The structure is a crystal or a file. pressure_GPa: constant pressure where given, else constant volume.
    """

    crystal: Crystal | None = None
    file: Path | None = None
    temperatures: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    steps: int = Field(gt=0)
    timestep: float = Field(0.001, gt=0)
    pressure_GPa: float | None = None

    @model_validator(mode="after")
    def _one_structure(self) -> Exploration:
        if (self.crystal is None) == (self.file is None):
            raise ValueError("give either a `crystal` or a `file`")
        return self


class Selection(Section):
    """Extrapolation grades above which configurations are gathered (`select`) and the run stops (`break`).

    interval: steps between grades. per_round: configurations labelled at most in a round. capacity: gathered at most
    in one run.
    """

    mode: Literal["neighbourhood", "configuration"] = "neighbourhood"
    select: float = Field(2.0, gt=1)
    break_above: float = Field(10.0, gt=1, alias="break")
    interval: int = Field(10, ge=1)
    per_round: int = Field(20, ge=1)
    capacity: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Selection:
        if self.break_above < self.select:
            raise ValueError("`break` must not lie below `select`")
        return self


class Labelling(Section):
    """How labels are computed: `labeller` as in mtp.labellers.make_labeller; time_limit in seconds a configuration;
    workers: processes at once."""

    model_config = ConfigDict(extra="allow")

    type: Literal["lammps", "ase"]
    time_limit: float = Field(3600.0, gt=0)
    workers: int = Field(1, ge=1)

    def labeller(self, species: list[str]) -> dict[str, Any]:
        """What the labeller itself is told."""
        given = {"type": self.type, **(self.model_extra or {})}
        return {"species": species, **given} if self.type == "lammps" else given


class FitFile(Section):
    """A fit: files of training and validation data, the potential to write, and how to fit. Paths are relative to the
    settings file."""

    train: list[Path] = Field(min_length=1)
    validation: list[Path] = []
    output: Path = Path("potential.mtp")
    initial: Path | None = None
    species: list[str] | None = None
    fit: FitSettings = Field(default_factory=FitSettings)

    def resolve(self, base: Path) -> FitFile:
        """The same with all paths taken from `base`."""
        update = {
            "train": [base / file for file in self.train],
            "validation": [base / file for file in self.validation],
        }
        update |= {"output": base / self.output, "initial": self.initial and base / self.initial}
        return self.model_copy(update=update)


class LearnSettings(Section):
    """A learning loop. Paths are relative to the settings file."""

    folder: Path = Path("run")
    species: list[str] = Field(min_length=1)
    rounds: int = Field(20, ge=1)
    seed: int = 1
    fit: FitSettings = Field(default_factory=FitSettings)
    initial: InitialData
    labelling: Labelling
    selection: Selection = Field(default_factory=Selection)
    exploration: list[Exploration] = Field(min_length=1)

    def resolve(self, base: Path) -> LearnSettings:
        """The same with all paths taken from `base`."""
        settings = self.model_copy(deep=True)
        settings.folder = base / settings.folder
        settings.initial.files = [base / file for file in settings.initial.files]
        for exploration in settings.exploration:
            if exploration.file is not None:
                exploration.file = base / exploration.file
        return settings


def load(path: str | os.PathLike, model: type[Model]) -> Model:
    """Read a TOML file as the settings `model`. Raises Error with the file and the line or key, what was expected
    and what was found."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"{path}: cannot be read: {error}") from error
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Error(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise Error("\n".join(_explained(path, fault) for fault in error.errors())) from None


def _explained(path: str | os.PathLike, fault: dict[str, Any]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    if fault["type"] == "extra_forbidden":
        return f"{path}: {key}: this key is not known; is it spelled right, and in the right table?"
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if fault["type"] == "missing" else f", found {fault['input']!r}"
    return f"{path}: {key or 'file'}: {message}{found if len(found) < 200 else ''}"
