# SPDX-License-Identifier: BSD-3-Clause
"""What the methods of molecular dynamics are told."""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from ase.data import atomic_numbers
from pydantic import Field, model_validator

from mtp.conductivity.flux import flux_problem, refused_commands
from mtp.errors import Error
from mtp.settings import Crystal, Elements, Repeat, Section, Selection

Self = TypeVar("Self", bound="MolecularDynamics")
Positive = Annotated[float, Field(gt=0)]
Axis = Literal["x", "y", "z"]

PLAIN = re.compile(r"[-+*\d.]*(e[-+]?\d+)?|NULL")  # numbers and ranges of types
GROWS = {"runs", "time"}  # may be raised in a folder that was begun


class Watch(Selection):
    """How grades are watched along runs: `select`, `break`, `interval` and `capacity` as in a learning loop. max_atoms:
    of larger runs, neighbourhoods of extrapolating atoms are kept; None: configurations always. nearly: so many of
    those that come closest to `select` are kept, too."""

    max_atoms: int | None = Field(200, ge=2)
    nearly: int = Field(0, ge=0)


class MolecularDynamics(Section):
    """A structure, its potential, and how it is prepared. Paths are relative to the settings file.

    folder: of all that is kept; the same command goes on there. crystal or file: one structure, periodic, repeated
    `repeat` times. potential: an MTP; or pair: LAMMPS' commands pair_style, pair_coeff and pair_modify, in units metal,
    for the atom types in the order of `species` (by default of first appearance); files that they name are relative to
    the settings file, or those that LAMMPS finds by itself. masses: by element, in place of the
    standard ones. temperature: K. timestep: ps. equilibration: ps at the temperature before anything is sampled.
    pressure_GPa: where given, the cell is found at this pressure first, as long as `equilibration` and in the ways that
    `box` names; otherwise it stays. stress_limit_GPa: a larger mean pressure is told. thickness: Å, of a sheet in the
    xy plane with vacuum above: volumes and cross-sections are those of its area times this, and pressures those in the
    plane, where alone the cell is found. runs: independent ones, from
    different velocities; each of `time` ps. chunk: ps after which what was sampled is kept. watch: grades along all of
    it; what passes `select` is kept, and a run in which one passes `break` ends with an error.
    """

    folder: Path
    crystal: Crystal | None = None
    file: Path | None = None
    repeat: tuple[Repeat, Repeat, Repeat] = (1, 1, 1)
    species: Elements | None = None
    potential: Path | None = None
    pair: list[str] | None = None
    masses: dict[str, Positive] = Field(default_factory=dict)
    temperature: Positive
    timestep: float = Field(0.001, gt=0, le=0.05)
    equilibration: Positive = 20.0
    pressure_GPa: float | None = None
    box: Literal["iso", "aniso", "tri"] = "iso"
    stress_limit_GPa: Positive = 0.5
    thickness: Positive | None = None
    runs: int = Field(4, ge=1)
    time: Positive = 200.0
    chunk: Positive = 20.0
    watch: Watch | None = None
    seed: int = Field(1, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _one_of_each(self: Self) -> Self:
        if (self.crystal is None) == (self.file is None):
            raise ValueError("give either a `crystal` or a `file`")
        if (self.potential is None) == (self.pair is None):
            raise ValueError("give either a `potential` or commands of a `pair` style")
        if self.pair is not None and (problem := refused_commands(self.pair)):
            raise ValueError(problem)
        if self.pair is not None and self.watch is not None:
            raise ValueError("`watch` goes with a `potential`: commands of a `pair` style have no grades")
        if self.thickness is not None and getattr(self, "axis", None) == "z":
            raise ValueError("`axis`: heat flows in the plane of a sheet, along x or y")
        if self.thickness is not None and self.repeat[2] > 1:
            raise ValueError("`repeat`: a sheet with a `thickness` is not repeated along z")
        if self.time < self.chunk:
            raise ValueError(f"`time` ({self.time:g} ps) must not be shorter than `chunk` ({self.chunk:g} ps)")
        for name in ("chunk", "equilibration"):
            if getattr(self, name) < 100 * self.timestep:
                raise ValueError(f"`{name}` must be 100 steps at least: times are in ps, as is `timestep`")
        return self

    def steps(self, time: float) -> int:
        """How many steps a time (ps) takes."""
        return max(1, round(time / self.timestep))

    @property
    def n_chunks(self) -> int:
        """As many as hold `time`: the last may be longer than what is left of it."""
        return math.ceil(self.time / self.chunk * (1 - 1e-12))

    def form(self) -> dict[str, Any]:
        """What must stay as it is in a folder: everything that changes trajectories and what is sampled of them."""
        form = self.model_dump(
            mode="json", exclude={"folder", "file", "potential", "stress_limit_GPa", *GROWS, *self.analysis()}
        )
        if self.pressure_GPa is None:
            form["thickness"] = None  # trajectories do not depend on it
        for name in ("file", "potential"):
            path = getattr(self, name)
            form[name] = path and hashlib.sha256(read_bytes(path)).hexdigest()
        form["pair"] = self.pair and [with_files(command, _content) for command in self.pair]
        return form

    @classmethod
    def analysis(cls) -> set[str]:
        """Keys that only the analysis reads."""
        return set()

    def resolve(self: Self, base: Path) -> Self:
        """The same with all paths taken from `base`."""
        paths = {name: getattr(self, name) for name in ("folder", "file", "potential")}
        pair = self.pair and [with_files(command, lambda path: f'"{path}"', base) for command in self.pair]
        return self.model_copy(update={name: path and base / path for name, path in paths.items()} | {"pair": pair})


class WithFlux(MolecularDynamics):
    """A method that reads the heat flux, which LAMMPS has right for some pair styles alone. interval: ps between
    samples. other_repeat: repeats of a smaller cell, in which the same runs tell what the size changes."""

    interval: Positive = 0.01
    other_repeat: tuple[Repeat, Repeat, Repeat] | None = None

    @classmethod
    def analysis(cls) -> set[str]:
        return {"other_repeat"}

    @model_validator(mode="after")
    def _smaller(self: Self) -> Self:
        other = self.other_repeat
        if other is not None and (other == self.repeat or any(map(operator.gt, other, self.repeat))):
            raise ValueError(
                f"`other_repeat` must be smaller than `repeat`, {list(self.repeat)}, and longer in no direction; "
                f"found {list(other)}"
            )
        return self

    @model_validator(mode="after")
    def _right_flux(self: Self) -> Self:
        if self.pair is not None and (problem := flux_problem(self.pair)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _sampling(self: Self) -> Self:
        if self.interval < 0.999 * self.timestep:
            raise ValueError(f"`interval` ({self.interval:g} ps) is shorter than a step ({self.timestep:g} ps)")
        return self


class GreenKubo(WithFlux):
    """Equilibrium: the spectrum of the heat flux at frequency zero.

    symmetry: of the conductivity: that of the crystal (before it is repeated), that of a fluid or glass, or none.
    fluid: atoms diffuse, so that in mixtures the conductivity is that without particle currents. cut_frequency: THz,
    see mtp.conductivity.spectral. longest: ps, of the running integral.
    """

    folder: Path = Path("green_kubo")
    symmetry: Literal["crystal", "isotropic", "none"] = "crystal"
    fluid: bool = False
    cut_frequency: Positive | None = None
    longest: Positive | None = None

    @classmethod
    def analysis(cls) -> set[str]:
        return super().analysis() | {"symmetry", "fluid", "cut_frequency", "longest"}


class Hnemd(WithFlux):
    """Homogeneous non-equilibrium: the mean heat flux under a small driving field.

    fields: 1/Å, two or more strengths along `axis`, each in `runs` runs of `time`; the first `transient` ps of each are
    left out.
    """

    folder: Path = Path("hnemd")
    axis: Axis = "x"
    fields: list[Positive] = Field(min_length=2)
    transient: Positive = 20.0

    @classmethod
    def analysis(cls) -> set[str]:
        return super().analysis() | {"fields", "transient"}

    @model_validator(mode="after")
    def _different_fields(self) -> Hnemd:
        if sorted(set(self.fields)) != self.fields:
            raise ValueError(f"`fields` must grow: the smallest is the one least in doubt, found {self.fields}")
        if self.transient > self.time / 2:
            raise ValueError("`transient` must not be longer than half of `time`")
        return self


class Nemd(MolecularDynamics):
    """A temperature gradient between two driven layers, half the cell apart.

    axis: of the gradient, "x" along the first cell vector, and so on; perpendicular to the other two. lengths: repeats
    along it, in place of that in `repeat`: one cell each, extrapolated to infinite length. drive: `swap` exchanges
    velocities every `swap_interval` steps (Müller-Plathe); `exchange` takes `power` (eV/ps) out of the cold and puts it
    into the hot layer (enhanced heat exchange). bins: of the profile, along the whole cell, even. transient: ps before
    anything is sampled. interfaces: places along the axis, as fractions of the cell, where the temperature jumps:
    between the driven layers at 0 and 1/2, and back.
    """

    folder: Path = Path("nemd")
    axis: Axis = "z"
    lengths: list[Repeat] | None = None
    drive: Literal["swap", "exchange"] = "swap"
    swap_interval: int = Field(100, ge=1)
    power: Positive | None = None
    bins: int = Field(40, ge=12)
    transient: Positive = 50.0
    interfaces: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)
    runs: int = Field(1, ge=1)

    @classmethod
    def analysis(cls) -> set[str]:
        return {"lengths", "interfaces"}

    @model_validator(mode="after")
    def _drive(self) -> Nemd:
        if self.drive == "exchange" and self.power is None:
            raise ValueError("`power` (eV/ps) must be given for the drive 'exchange'")
        if self.bins % 2:
            raise ValueError("`bins` must be even: the cold layer is half the cell from the hot one")
        if len(set(self.lengths or [1])) < len(self.lengths or [1]):
            raise ValueError("`lengths` must differ")
        halves = [place < 0.5 for place in self.interfaces]
        if self.interfaces and (len(halves) > 2 or halves.count(True) > 1 or halves.count(False) > 1):
            raise ValueError("`interfaces`: at most one below and one above 0.5")
        if self.interfaces and (self.lengths is not None or self.repeat["xyz".index(self.axis)] > 1):
            raise ValueError(
                f"`interfaces` are places in one cell: leave out `lengths`, do not repeat it along {self.axis}, and "
                "give a longer structure in place of that"
            )
        return self


def with_files(command: str, name: Callable[[Path], str], base: Path = Path()) -> str:
    """A command of a pair style, where words that are files, seen from `base`, become what `name` makes of their paths.

    The first two words, numbers and elements are never files. Others that are none stay: LAMMPS has a folder of
    potentials of its own.
    """

    def renamed(found: re.Match) -> str:
        word = found[0].strip("\"'")
        path = base / word
        return name(path) if not PLAIN.fullmatch(word) and word not in atomic_numbers and path.is_file() else found[0]

    begin = re.match(r"\s*(\S+\s*){0,2}", command).end()
    return command[:begin] + re.sub(r"""\"[^"]*\"|'[^']*'|\S+""", renamed, command[begin:])


def _content(path: Path) -> str:
    return f"{path.name}:{hashlib.sha256(read_bytes(path)).hexdigest()}"


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from error
