# SPDX-License-Identifier: BSD-3-Clause
"""LAMMPS inputs of explorations: made from settings, or a user's with two marks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers

from mtp.cfg import replaced_whole
from mtp.configurations import types
from mtp.errors import Error
from mtp.settings import AXES, Exploration, unreadable
from mtp.structures import VACUUM, gaps

BAR_PER_GPA = 1e4
MARK = re.compile(r"^\s*#\s*mtp:\s*(.*?)\s*$")
# Commands that make a box, of which the first is replaced when a run goes on from a restart file, and those that change
# what the restart file holds, which are left out then.
BOXES = ("create_box", "read_data", "read_restart")
CHANGES = (*BOXES, "create_atoms", "delete_atoms", "displace_atoms", "set", "velocity", "change_box", "replicate")
CHANGES += ("read_dump", "minimize", "run", "rerun", "reset_timestep", "reset_atoms")
WORD = re.compile(r'"""[\s\S]*?"""|"[^"]*"|\'[^\']*\'|\S+')


@dataclass(frozen=True)
class Script:
    """A LAMMPS input in pieces, between which the potential and the run stand.

    before, after, rest: commands up to the potential, from there to the run, and from the run on. elements: of the
    atom types. steps: of the run. folder: where LAMMPS runs. variables: set for LAMMPS on its command line; the loop
    adds `seed`.
    """

    title: str
    before: str
    after: str
    rest: str
    elements: list[str]
    steps: int
    folder: Path
    is_users: bool = False
    variables: dict[str, str] = field(default_factory=dict)

    def titled(self, title: str) -> Script:
        return replace(self, title=title)


def scripts(exploration: Exploration, data: Path, species: Sequence[str]) -> list[Script]:
    """One script for each run that an exploration asks for. data: its structure, as `write_data` writes it."""
    if exploration.input is not None:
        return [marked(exploration.input, species)]
    runs = [(t, t) for t in exploration.temperatures] + [tuple(pair) for pair in exploration.ramps]
    return [
        _dynamics(exploration, data, species, first, last, pressure)
        for first, last in runs
        for pressure in exploration.pressures
    ]


def marked(path: Path, species: Sequence[str]) -> Script:
    """A user's input. In it stands, where pair_style and pair_coeff would, `# mtp: potential`, with the elements of the
    atom types where they are not `species`; and where the run would stand, `# mtp: run STEPS`.

    Raises Error where a mark is missing, comes twice, or makes no sense.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    marks = [(k, MARK.match(line)[1].split()) for k, line in enumerate(lines) if MARK.match(line)]
    if [words[0] if words else "" for _, words in marks] != ["potential", "run"]:
        raise Error(f"{path}: wants two marks, in this order: a line `# mtp: potential`, and a line `# mtp: run STEPS`")
    (first, (_, *elements)), (second, (_, *steps)) = marks
    if len(steps) != 1 or not steps[0].isdigit() or int(steps[0]) == 0:
        raise Error(f"{path}:{second + 1}: `# mtp: run` wants the number of steps")
    unknown = sorted(set(elements) - set(species))
    if unknown:
        raise Error(f"{path}:{first + 1}: {', '.join(unknown)} is not among the loop's species {', '.join(species)}")
    before, after, rest = lines[:first], lines[first + 1 : second], lines[second + 1 :]
    texts = ("\n".join([*part, ""]) for part in (before, after, rest))
    return Script(path.name, *texts, elements or list(species), int(steps[0]), path.absolute().parent, is_users=True)


def pair_commands(script: Script, potential: str | os.PathLike) -> str:
    """What stands at the mark of the potential."""
    file = Path(potential).absolute()
    return f'pair_style mtp/extrapolation\npair_coeff * * "{file}" {" ".join(script.elements)}\n'


def going_on(text: str, restart: Path | None) -> str:
    """Commands for a run that goes on from a restart file: it takes the place of the first command that makes a box
    (None: there is none to replace), commands that change atoms or box, or make groups, are left out, and files are
    appended to."""
    kept = []
    for command in _commands(text):
        spans = [match.span() for match in WORD.finditer(command)]
        words = [command[begin:end] for begin, end in spans]
        if restart is not None and words[:1] and words[0] in BOXES:
            kept.append(f'read_restart "{restart}"')
            restart = None
        elif not _changes(words):
            kept.append(command)
            if words[:1] == ["dump"] and len(words) > 5 and "*" not in words[5]:  # with *: a file of each step
                kept[-1] += f"\ndump_modify {words[1]} append yes"
            if words[:1] == ["fix"] and words[3:4] == ["print"] and "file" in words[6:]:
                begin, end = spans[words.index("file", 6)]
                kept[-1] = f"{command[:begin]}append{command[end:]}"
    if restart is not None:
        raise Error(
            f"no command makes a box ({', '.join(BOXES)}) in what a restart file is to take the place of:\n{text}"
        )
    return "\n".join([*kept, ""])


def _commands(text: str) -> list[str]:
    """Lines, each with those that it goes on in."""
    found, continued = [], False
    for line in text.splitlines():
        if continued:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
        continued = line.rstrip().endswith("&")
    return found


def _changes(words: list[str]) -> bool:
    """Whether a command changes what a restart file holds: groups too, but not that they are dynamic."""
    if words[:1] == ["group"]:
        return words[2:3] not in (["dynamic"], ["static"])
    return bool(words) and words[0] in CHANGES


def write_data(path: Path, atoms: Atoms, species: Sequence[str]) -> None:
    """A structure as a LAMMPS data file, every digit kept. Raises Error where it is not periodic."""
    if not all(atoms.pbc) or atoms.cell.rank < 3:
        raise Error("an exploration needs a structure that is periodic in three directions; add vacuum to the cell")
    prism = Prism(atoms.cell.array)
    x, y, z, xy, xz, yz = map(float, prism.get_lammps_prism())
    positions = prism.vector_to_lammps(atoms.positions, wrap=True)
    masses = [f"{k} {float(atomic_masses[atomic_numbers[name]])!r}" for k, name in enumerate(species, start=1)]
    rows = zip(types(atoms, species) + 1, positions.tolist(), strict=True)
    places = [f"{k} {type_} {x!r} {y!r} {z!r}" for k, (type_, (x, y, z)) in enumerate(rows, start=1)]
    head = [f"{len(atoms)} atoms", f"{len(species)} atom types", f"0 {x!r} xlo xhi", f"0 {y!r} ylo yhi"]
    head += [f"0 {z!r} zlo zhi", f"{xy!r} {xz!r} {yz!r} xy xz yz"]
    with replaced_whole(path) as part:
        text = [f"# {atoms.symbols}", "", *head, "", "Masses", "", *masses, "", "Atoms # atomic", "", *places, ""]
        part.write_text("\n".join(text))


def check_vacuum(exploration: Exploration, atoms: Atoms) -> None:
    """Raise Error where a pressure would squeeze vacuum, unless the settings name the direction themselves."""
    if exploration.pressure_GPa is None or exploration.pressure_along is not None:
        return
    for axis, gap in zip(AXES[:3], gaps(atoms.cell.array, atoms.positions), strict=True):
        if gap > VACUUM and axis in _under_pressure(exploration):
            raise Error(
                f"{gap:.0f} Å of the cell along {axis} are vacuum, which `pressure_GPa` would squeeze: name the "
                'directions of the material alone, as in `pressure_along = ["x", "y"]`, or leave the pressure out'
            )


def _dynamics(
    exploration: Exploration,
    data: Path,
    species: Sequence[str],
    first: float,
    last: float,
    pressure: float | None,
) -> Script:
    step = exploration.timestep
    title = f"{first:g} K" if first == last else f"{first:g} to {last:g} K"
    if len(exploration.pressures) > 1:
        title += f", {pressure:g} GPa"
    rates = exploration.rates
    if rates:
        title += ", " + " ".join(f"{axis} {rate:g}/ps" for axis, rate in rates.items())
    before = f"""
        units metal
        atom_style atomic
        atom_modify map array
        boundary p p p
        box tilt large
        read_data "{data}"
    """
    # half of the kinetic energy flows into the potential energy of the perfect structure
    after = f"""
        neighbor 1.0 bin
        neigh_modify every 1 delay 0 check yes
        thermo 100
        thermo_style custom step temp pe etotal press vol
        timestep {step}
        velocity all create {2 * first} ${{seed}} mom yes rot no dist gaussian
        {_ensemble(exploration, first, last, 100 * step, pressure)}
    """
    if rates:
        moves = " ".join(f"{axis} erate {rate!r}" for axis, rate in rates.items())
        after += f"fix strain all deform 1 {moves} remap x flip no\n"
    before, after = (re.sub(r"^ +", "", part.lstrip("\n"), flags=re.MULTILINE) for part in (before, after))
    return Script(title, before, after, "", list(species), exploration.steps, data.parent)


def _ensemble(exploration: Exploration, first: float, last: float, damping: float, pressure: float | None) -> str:
    temperatures = f"temp {first} {last} {damping}"
    axes = _under_pressure(exploration)
    if pressure is None or not axes:
        return f"fix ensemble all nvt {temperatures}"
    barostat = f"{pressure * BAR_PER_GPA} {pressure * BAR_PER_GPA} {10 * damping}"
    if exploration.pressure_along is None and not exploration.rates:
        axes = ["iso"]
    return f"fix ensemble all npt {temperatures} " + " ".join(f"{axis} {barostat}" for axis in axes)


def _under_pressure(exploration: Exploration) -> list[str]:
    """The directions whose lengths follow the pressure, where there is one."""
    return exploration.pressure_along or [axis for axis in AXES[:3] if axis not in exploration.rates]
