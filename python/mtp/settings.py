# SPDX-License-Identifier: BSD-3-Clause
"""Settings files (TOML), checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtp.errors import Error, FailureReason
from mtp.fit import FitSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Model = TypeVar("Model", bound=BaseModel)


def elements(names: list[str]) -> list[str]:
    """The names, if each is an element's symbol and none comes twice; ValueError otherwise."""
    for name in names:
        if not atomic_numbers.get(name):
            raise ValueError(f"{name!r} is not an element's symbol")
    if len(set(names)) < len(names):
        raise ValueError("each element must be named once")
    return names


Elements = Annotated[list[str], Field(min_length=1), AfterValidator(elements)]


class Section(BaseModel):
    """A table of a settings file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


Repeat = Annotated[int, Field(ge=1)]


class Crystal(Section):
    """A perfect crystal as `ase.build.bulk` makes it, repeated. a, c: lattice constants, Å. cubic: the cubic cell
    instead of the primitive one; by default where there is a cubic one."""

    name: str
    structure: str
    a: float = Field(gt=0)
    c: float | None = Field(None, gt=0)
    cubic: bool | None = None
    repeat: tuple[Repeat, Repeat, Repeat] = (1, 1, 1)


class InitialData(Section):
    """The first data: files of labelled configurations; and configurations that are labelled first, from files
    (`structures`) or made from a crystal.

    strains: of the cell, isotropic (0.02 is 2 % longer); one configuration each, and one sheared by each. rattles:
    standard deviations of random displacements, Å, one configuration each. vacancy: also a rattled one with an atom
    missing, unless the crystal has just one.
    """

    files: list[Path] = []
    structures: list[Path] = []
    crystal: Crystal | None = None
    strains: list[Annotated[float, Field(gt=-1)]] = [-0.03, 0.03]
    rattles: list[Annotated[float, Field(ge=0)]] = [0.05, 0.15]
    vacancy: bool = True

    @model_validator(mode="after")
    def _some_data(self) -> InitialData:
        if not self.files and not self.structures and self.crystal is None:
            raise ValueError("`files`, `structures` or a `crystal` must be given")
        return self


Temperature = Annotated[float, Field(gt=0)]
AXES = ("x", "y", "z", "yz", "xz", "xy")


class Exploration(Section):
    """Molecular dynamics of one structure, a crystal or a file; or any LAMMPS input.

    temperatures: K, one run each. ramps: pairs of temperatures, one run each, heated or cooled from one to the other.
    steps, timestep: of each run; ps. pressure_GPa: constant pressure where given, else constant volume; of several,
    one run each. pressure_along: the directions whose lengths follow the pressure, each by itself; by default all three
    by one factor, but for those with a strain rate. strain_rate: 1/ps, of the cell's three lengths, or xx yy zz yz xz
    xy; directions without a rate keep the pressure where one is given. input: a LAMMPS input with two marks, see
    docs/learning.md; it brings all else.
    """

    crystal: Crystal | None = None
    file: Path | None = None
    input: Path | None = None
    temperatures: list[Temperature] = Field([], min_length=1)
    ramps: list[tuple[Temperature, Temperature]] = Field([], min_length=1)
    steps: int | None = Field(None, gt=0)
    timestep: float = Field(0.001, gt=0)
    pressure_GPa: float | list[float] | None = None
    pressure_along: list[Literal["x", "y", "z"]] | None = Field(None, min_length=1)
    strain_rate: float | tuple[float, float, float, float, float, float] | None = None

    @model_validator(mode="after")
    def _one_structure(self) -> Exploration:
        if sum(source is not None for source in (self.crystal, self.file, self.input)) != 1:
            raise ValueError("give either a `crystal` or a `file`, or an `input`")
        if self.input is not None:
            for key in sorted(self.model_fields_set - {"input"}):
                raise ValueError(f"`{key}` does not go with an `input`, which says it itself")
            return self
        if not self.temperatures and not self.ramps:
            raise ValueError("`temperatures` or `ramps` must be given")
        if self.steps is None:
            raise ValueError("`steps` must be given")
        if self.pressure_along is not None:
            if self.pressure_GPa is None:
                raise ValueError("`pressure_along` goes with a `pressure_GPa`")
            both = [axis for axis in self.pressure_along if axis in self.rates]
            if both or len(set(self.pressure_along)) < len(self.pressure_along):
                raise ValueError("`pressure_along` wants directions without a strain rate, each once")
        return self

    @property
    def rates(self) -> dict[str, float]:
        """Rates of strain that are not zero, by axis: x y z yz xz xy."""
        given = self.strain_rate
        if given is None:
            return {}
        values = (given, given, given, 0.0, 0.0, 0.0) if isinstance(given, float) else given
        return {axis: float(rate) for axis, rate in zip(AXES, values, strict=True) if rate != 0}

    @property
    def pressures(self) -> list[float | None]:
        """One for each run at a temperature; None stands for constant volume."""
        return self.pressure_GPa if isinstance(self.pressure_GPa, list) else [self.pressure_GPa]


class Relaxation(Section):
    """Structures of a file, each of which relaxes under the potential, while its grade is watched at every step.

    steps: at most for each; 0: structures are only graded. force, stress_GPa: what is left when a structure is relaxed,
    eV/Å and GPa. pressure_GPa: of the relaxed cells. cell: whether cells relax.
    """

    file: Path
    steps: int = Field(500, ge=0)
    force: float = Field(0.01, gt=0)
    stress_GPa: float = Field(0.1, gt=0)
    pressure_GPa: float = 0.0
    cell: bool = True


class Selection(Section):
    """Extrapolation grades above which configurations are gathered (`select`) and the run stops (`break`).

    interval: steps between grades. per_round: configurations labelled at most in a round. capacity: gathered at most
    before the next round. learn_after: steps after which what was gathered is learned; by default at a run's end.
    """

    mode: Literal["neighbourhood", "configuration"] = "neighbourhood"
    select: float = Field(2.0, gt=1)
    break_above: float = Field(10.0, gt=1, alias="break")
    interval: int = Field(10, ge=1)
    per_round: int = Field(20, ge=1)
    capacity: int = Field(200, ge=1)
    learn_after: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Selection:
        if self.break_above < self.select:
            raise ValueError("`break` must not lie below `select`")
        return self


class Transport(Section):
    """How LAMMPS and the loop meet: "memory", in one process on every rank, or "files", by a command that ends when
    LAMMPS has ended, and to which the name of the input is appended. It runs in the loop's folder, or in that of
    the exploration's `input`; words of it that name a file beside the settings file mean that file. options: of
    LAMMPS' command line, for LAMMPS in memory."""

    type: Literal["memory", "files"] = "memory"
    command: str | None = None
    options: str = ""

    @model_validator(mode="after")
    def _command_of_files(self) -> Transport:
        if (self.type == "files") != (self.command is not None):
            raise ValueError('`command` must be given for the type "files", and for it alone')
        if self.type == "files" and self.options:
            raise ValueError('`options` are for the type "memory"; for "files" they stand in `command`')
        return self


class Target(Section):
    """A property that the loop is to settle: the name of a Python function, or a command, to which the path of a
    potential (.almtp) is given.

    A function returns value and error; a command prints {"value": …, "error": …} as its last line. The loop ends when
    the last fit changed the value by less than its error. passes: at most, after the grades have settled.
    """

    function: str | None = None
    command: str | None = None
    time_limit: float = Field(3600.0, gt=0)
    passes: int = Field(5, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> Target:
        if (self.function is None) == (self.command is None):
            raise ValueError("give either a `function` or a `command`")
        return self


class Cutting(Section):
    """How small cells are cut out of large runs (mtp.cutting), around one atom each.

    method: "auto", or one of "crystal" (the box continues the crystal, nothing is moved), "relaxed" (the filler is
    relaxed with the potential), "cluster" (a molecule, or a ball of atoms, in vacuum), "whole". skin: Å beyond the
    cutoff that are kept too. bound: grade that filler should not pass. closest: of the median distance of nearest
    neighbours, nothing at a seam comes closer. vacuum: Å around clusters. candidates, steps: boxes that are relaxed at
    most, and steps of each. relax_box: their shape too.
    """

    method: Literal["auto", "crystal", "relaxed", "cluster", "whole"] = "auto"
    max_atoms: int = Field(200, ge=2)
    skin: float = Field(0.1, ge=0)
    bound: float = Field(2.0, gt=1)
    closest: float = Field(0.8, gt=0, le=1)
    vacuum: float = Field(6.0, gt=0)
    candidates: int = Field(24, ge=1)
    steps: int = Field(100, ge=1)
    relax_box: bool = False


class CutFile(Section):
    """Settings of `mtp cut`."""

    cutting: Cutting = Field(default_factory=Cutting)


class Executor(Section):
    """Where labels are computed, see mtp.label_executors.make_executor. keywords: passed on to the executor."""

    type: str = "local"
    keywords: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known_or_importable(self) -> Executor:
        if not re.fullmatch(r"local|executorlib|parsl|\w+(\.\w+)+", self.type):
            raise ValueError(f"`type` must be 'local', 'executorlib', 'parsl' or an import path, not {self.type!r}")
        return self


class Labelling(Section):
    """How labels are computed. time_limit: seconds for a configuration; workers: calculations at once.

    commands, units: of the type "lammps", see mtp.labellers.LammpsLabeller. calculator, keywords: of the type "ase",
    see mtp.labellers.AseLabeller. command, potcars, incar, kpoints, setups: of the type "vasp", command, keywords: of
    the type "gaussian", see mtp.file_labellers.

    retries: further tries where a try ended for one of the reasons in `retry`. keep_files: of which tries the engine's
    files stay. energy_bound, work_bound, prediction_bound: eV per atom, net_force_bound: eV/Å per atom; what is further
    off is nonsense, see mtp.label_checks.
    """

    type: Literal["lammps", "ase", "vasp", "gaussian"]
    commands: list[str] | None = None
    units: Literal["metal", "real"] | None = None
    calculator: str | None = None
    keywords: dict[str, Any] | None = None
    command: str | None = None
    potcars: str | None = None
    incar: dict[str, Any] | None = None
    kpoints: tuple[Repeat, Repeat, Repeat] | None = None
    setups: dict[str, str] | None = None
    time_limit: float = Field(3600.0, gt=0)
    workers: int = Field(1, ge=1)
    retries: int = Field(1, ge=0)
    retry: list[FailureReason] = ["crashed", "time limit"]
    keep_files: Literal["failed", "all", "none"] = "failed"
    energy_bound: float = Field(5.0, gt=0)
    work_bound: float = Field(0.02, gt=0)
    prediction_bound: float = Field(0.2, gt=0)
    net_force_bound: float = Field(0.1, gt=0)
    executor: Executor = Field(default_factory=Executor)

    _keys: ClassVar[dict[str, tuple[str, ...]]] = {  # of each type: the first ones that must be given, then the others
        "lammps": ("commands", "units"),
        "ase": ("calculator", "keywords"),
        "vasp": ("command", "potcars", "incar", "kpoints", "setups"),
        "gaussian": ("command", "keywords"),
    }
    _needed: ClassVar[dict[str, int]] = {"lammps": 1, "ase": 1, "vasp": 3, "gaussian": 2}

    @model_validator(mode="after")
    def _keys_of_the_type(self) -> Labelling:
        own = self._keys[self.type]
        for key in own[: self._needed[self.type]]:
            if not getattr(self, key):
                raise ValueError(f"`{key}` must be given for the type {self.type!r}")
        for key in dict.fromkeys(sum(self._keys.values(), ())):
            if key not in own and getattr(self, key) is not None:
                raise ValueError(f"`{key}` does not go with the type {self.type!r}")
        return self

    def labeller(self, species: list[str]) -> dict[str, Any]:
        """What the labeller itself is told, as in mtp.labellers.make_labeller."""
        told = self.model_dump(include={"type", *self._keys[self.type]}, exclude_none=True)
        if "kpoints" in told:
            told["kpoints"] = list(told["kpoints"])
        return {"species": species, **told} if self.type in ("lammps", "vasp") else told


class FitFile(Section):
    """A fit: files of training and validation data, the potential to write, and how to fit. Paths are relative to the
    settings file."""

    train: list[Path] = Field(min_length=1)
    validation: list[Path] = []
    output: Path = Path("potential.mtp")
    initial: Path | None = None
    species: Elements | None = None
    fit: FitSettings = Field(default_factory=FitSettings)

    def resolve(self, base: Path) -> FitFile:
        """The same with all paths taken from `base`."""
        update = {
            "train": [base / file for file in self.train],
            "validation": [base / file for file in self.validation],
        }
        update |= {"output": base / self.output, "initial": self.initial and base / self.initial}
        return self.model_copy(update=update)


def form_of(content: dict[str, Any]) -> dict[str, Any]:
    """What must stay as it is from the first round of a learning loop to the last, by key, of its settings as JSON."""
    form = {"species": content["species"], "seed": content["seed"], "selection.mode": content["selection"]["mode"]}
    for key in ("level", "cutoff", "radial_basis_size", "min_distance"):
        form[f"fit.{key}"] = content["fit"][key]
    names = {key: [Path(file).name for file in content["initial"][key]] for key in ("files", "structures")}
    initial = content["initial"] | names  # the same wherever the folder is moved to
    return form | {f"initial.{key}": value for key, value in initial.items()}


class LearnSettings(Section):
    """A learning loop. Paths are relative to the settings file.

    rounds: at most. passes: through all explorations, without anything to learn, that end the loop. groups: of ranks,
    each of which explores by itself.
    """

    folder: Path = Path("run")
    species: Elements
    rounds: int = Field(20, ge=1)
    passes: int = Field(1, ge=1)
    groups: int = Field(1, ge=1)
    seed: int = 1
    fit: FitSettings = Field(default_factory=FitSettings)
    initial: InitialData
    labelling: Labelling
    selection: Selection = Field(default_factory=Selection)
    cutting: Cutting = Field(default_factory=Cutting)
    transport: Transport = Field(default_factory=Transport)
    target: Target | None = None
    exploration: list[Exploration] = []
    relaxation: list[Relaxation] = []

    @model_validator(mode="after")
    def _something_to_explore(self) -> LearnSettings:
        if not self.exploration and not self.relaxation:
            raise ValueError("an `exploration` or a `relaxation` must be given")
        return self

    def form(self) -> dict[str, Any]:
        """What must stay as it is from the first round to the last, by key."""
        return form_of(self.model_dump(mode="json", by_alias=True))

    def named_files(self) -> list[Path]:
        """The files that say what is explored."""
        named = [file for exploration in self.exploration for file in (exploration.file, exploration.input)]
        return [file for file in (*named, *(relaxation.file for relaxation in self.relaxation)) if file is not None]

    def search(self) -> dict[str, Any]:
        """What a converged loop has looked through, and how closely. Raises Error where a file cannot be read."""
        keys = {"exploration", "relaxation", "selection", "passes", "target"}
        search = self.model_dump(mode="json", include=keys, by_alias=True)
        for relaxation in search["relaxation"]:
            relaxation["file"] = Path(relaxation["file"]).name
        for exploration in search["exploration"]:
            for key in ("file", "input"):
                if exploration[key] is not None:
                    exploration[key] = Path(exploration[key]).name
        search["sha256"] = [digest(file) for file in self.named_files()]
        return search

    def resolve(self, base: Path) -> LearnSettings:
        """The same with all paths taken from `base`."""
        settings = self.model_copy(deep=True)
        settings.folder = base / settings.folder
        settings.initial.files = [base / file for file in settings.initial.files]
        settings.initial.structures = [base / file for file in settings.initial.structures]
        for relaxation in settings.relaxation:
            relaxation.file = base / relaxation.file
        for exploration in settings.exploration:
            if exploration.file is not None:
                exploration.file = base / exploration.file
            if exploration.input is not None:
                exploration.input = base / exploration.input
        if settings.transport.command is not None:
            words = shlex.split(settings.transport.command)
            words = [str((base / word).absolute()) if (base / word).is_file() else word for word in words]
            settings.transport.command = shlex.join(words)
        return settings


def unreadable(path: str | os.PathLike, error: OSError | UnicodeDecodeError) -> Error:
    """What is wrong with a file that should be text."""
    return Error(f"{path}: cannot be read: {error.strerror if isinstance(error, OSError) else 'not text in UTF-8'}")


def digest(file: Path) -> str:
    """SHA-256 of a file's content. Raises Error where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise Error(f"{file}: cannot be read: {error.strerror}") from error


def load(path: str | os.PathLike, model: type[Model]) -> Model:
    """Read a TOML file as the settings `model`. Raises Error with the file and the line or key, what was expected
    and what was found."""
    return checked(content_of(path), model, path)


def content_of(path: str | os.PathLike) -> dict[str, Any]:
    """Of a TOML file. Raises Error with the file, and the line where there is one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Error(f"{path}: not valid TOML: {error}") from error


def checked(content: dict[str, Any], model: type[Model], source: str | os.PathLike) -> Model:
    """The settings `model` with that content. Raises Error with the source and the key of each mistake."""
    try:
        # by way of JSON, whose strict rules take a text for a path, but no text for a number
        return model.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        raise Error("\n".join(_explained(source, fault) for fault in error.errors())) from None


def _explained(path: str | os.PathLike, fault: dict[str, Any]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    if fault["type"] == "extra_forbidden":
        return f"{path}: {key}: this key is not known; is it spelled right, and in the right table?"
    if fault["type"] == "missing":
        return f"{path}: {key}: this key must be given"
    message = fault["msg"].removeprefix("Value error, ")
    found = "a table" if isinstance(fault["input"], dict) else repr(fault["input"])
    found = "" if fault["type"] == "value_error" and found == "a table" else f", found {found}"
    return f"{path}: {key and key + ': '}{message}{found if len(found) < 200 else ''}"
