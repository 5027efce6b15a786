# SPDX-License-Identifier: BSD-3-Clause
"""Walks of a LAMMPS elsewhere: inputs are written, a command runs or submits them, what they leave is read.

Of each piece of a walk there are, in the walk's folder,

    in.lammps          the input, with which the piece can be redone
    log.lammps         LAMMPS' log
    grades.txt         step and highest grade, wherever grades were computed
    flagged.STEP.dump  the last configurations above `select`, as many as FRAMES and ATOMS_ON_DISC allow, until read
    retraced.txt       after a break, the same of every step from the state kept to the first above `break`
    first.STEP.dump    the configuration of that step, until read
    restart            the state from which the next piece goes on: after a break, the last that could be trusted
    end.json           that LAMMPS has come to the end of the run, and how
    rest.done          that what the user's input wants after the run is done, too

Where a piece failed, its turn's folder is kept, as failed_* in place of turn_*: of each walk the last FAILURES.

LAMMPS needs the plugin and no Python, and may run on any machine that shares the folder.
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms

from mtp.cfg import replaced_whole
from mtp.cutting import pool_radius
from mtp.errors import Error
from mtp.learning.ranks import on_root
from mtp.learning.scripts import Script, going_on, pair_commands
from mtp.learning.walks import Passage, Walk, histogram, lammps_error, seed_of
from mtp.potential import Potential
from mtp.processes import plain_environment
from mtp.readers.lammps import dump
from mtp.settings import Selection

FRAMES = (2, 1000)  # on disc, at least (one may be cut off) and at most
ATOMS_ON_DISC = 2_000_000  # in all frames: some 150 MB
FAILURES = 5  # of which the files stay
CENTRES_PER_FRAME = 16  # as the pair style keeps in memory, see MTP_CENTRES_PER_STEP in mtp.h


class FileWalk(Walk):
    """A LAMMPS run in pieces, each of which is a job that goes on from the restart file of the one before.

    Frames are read one by one, of which the most extrapolative, or neighbourhoods in them, are kept.

    Args:
        folder: of the walk's files; those of its earlier turns that did not fail are removed when it is begun.
        command: to which the input's path is appended.
        seeds: give, with turn and piece, the variable `seed` of the script: random streams, which restart files do not
            hold, go on with other numbers.
        largest: of runs with more atoms, neighbourhoods of flagged atoms are kept instead of whole configurations.
    """

    def __init__(
        self,
        script: Script,
        selection: Selection,
        folder: Path,
        seeds: tuple[int, ...],
        comm: MPI.Comm,
        command: str,
        largest: int | None = None,
    ) -> None:
        self.script, self.selection, self.comm, self.largest = script, selection, comm, largest
        self.title = script.title
        self._folder, self._seeds, self._command = Path(folder).absolute(), seeds, command

    def begin(self, potential: Potential, path: Path, turn: int) -> None:
        self._turn, self._path, self._local = turn, path, potential.facts.active_set == "neighbourhood"
        self._cutoff = potential.facts.cutoff
        self._pieces, self._first, self._step = 0, None, 0
        self._broke = self._failed = False
        self._place = on_root(self.comm, self._fresh_folder)

    def go_on(self, steps: int | None = None) -> Passage:
        flagged: list[Atoms] = []
        passage = on_root(self.comm, lambda: self._piece(steps, flagged))
        passage.flagged = flagged
        self._broke, self._failed = passage.break_step is not None, passage.failure is not None
        return passage

    def take(self, potential: Potential, path: Path) -> int | None:
        if self._failed:
            self.begin(potential, path, self._turn)
            return 0
        self._path = path
        broke, self._broke = self._broke, False
        return self._step if broke else None

    def close(self) -> None:
        """Nothing runs between pieces."""

    # ---- on the group's first rank

    def _fresh_folder(self) -> Path:
        """A new one: a job that an interrupted loop has left behind may still write into the old one."""
        try:
            for old in self._folder.glob("turn_*"):
                shutil.rmtree(old, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"turn_{self._turn}_", dir=self._folder))
        except OSError as error:
            raise Error(f"{self._folder}: cannot be used: {error.strerror}") from error

    def _piece(self, steps: int | None, flagged: list[Atoms]) -> Passage:
        place = self._place_of(self._pieces)
        place.mkdir()
        for name, text in (("in.lammps", self._input(place, steps)), ("rest.lammps", self.script.rest)):
            with replaced_whole(place / name) as part:
                part.write_text(text)
        said = self._run(place)
        begin = self._step
        grades = _grades(place / "grades.txt")
        passage = Passage(self.title, begin, max([begin, *grades]), max(grades.values(), default=0.0))
        passage.histogram = histogram(grades.values())
        passage.flagged = self._read(place, grades, passage)
        self._retrace(place, passage)
        flagged += passage.flagged
        passage.flagged = []  # other ranks get the passage
        try:
            end = json.loads((place / "end.json").read_text())
        except (OSError, ValueError):
            passage.failure = _error_of(place / "log.lammps") or said
            self._keep()
            return passage
        if self._first is None:
            self._first = passage.begin = end["first"]
        passage.end, self._step = end["stopped"], end["step"]
        passage.break_step = end["broke"] if end["broke"] >= 0 else None
        passage.finished = bool(end["over"])
        if passage.finished and not (place / "rest.done").exists():
            message = _error_of(place / "log.lammps") or said
            raise Error(f"{self.title}: LAMMPS, after the run: {message} (see {self._keep() / place.name})")
        if self._pieces > 0:
            (self._place_of(self._pieces - 1) / "restart").unlink(missing_ok=True)
        self._pieces += 1
        return passage

    def _retrace(self, place: Path, passage: Passage) -> None:
        """Find the first step above `break` among those that were walked once more."""
        grades = _grades(place / "retraced.txt")
        flagged = [atoms for parts in self._frames(place, "first", grades) for atoms in parts]
        first = min((step for step, grade in grades.items() if grade > self.selection.break_above), default=None)
        if first is not None:  # random numbers may have led around it
            passage.retrace(first, grades[first], flagged)

    def _place_of(self, piece: int) -> Path:
        return self._place / f"piece_{piece:06d}"

    def _keep(self) -> Path:
        """Give the turn's folder a name that no later turn removes, and the inputs in it their paths of now; and remove
        the oldest such folders."""
        kept = self._place.with_name(self._place.name.replace("turn", "failed", 1))
        try:
            self._place.rename(kept)
            for path in kept.glob("piece_*/in.lammps"):
                path.write_text(path.read_text().replace(str(self._place), str(kept)))
            for old in sorted(self._folder.glob("failed_*"), key=lambda path: path.stat().st_mtime_ns)[:-FAILURES]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise Error(f"{kept}: cannot be written: {error.strerror}") from error
        return kept

    def _input(self, place: Path, steps: int | None) -> str:
        script, selection = self.script, self.selection
        before, after, first, step = script.before, script.after, "$(step)", "$(step)"
        if self._pieces > 0:
            restart = self._place_of(self._pieces - 1) / "restart"
            before, after = going_on(before, restart), going_on(after, None)
            first, step = str(self._first), str(self._step)
        seeds = (*self._seeds, self._turn, self._pieces) if self._pieces > 0 else (*self._seeds, self._turn)
        variables = {**script.variables, "seed": str(seed_of(*seeds))}
        piece = f"({step}+{steps})" if steps is not None else "1e15"
        column = " c_mtp_grade" if self._local else ""
        frame, form = f"id type x y z{column}", "sort id format float %.17g"
        least, most = FRAMES
        frames = (
            f"maxfiles $(ternary(v_mtp_frames<{least},{least},ternary(v_mtp_frames>{most},{most},v_mtp_frames)):%.0f)"
        )
        limit, grades = _number(selection.break_above), "$(step) $(c_mtp_grade:%.17g)"
        part = "upto start $(v_mtp_first:%.0f) stop $(v_mtp_last:%.0f)"
        return "\n".join(
            [
                *(f'variable {name} index "{value}"' for name, value in variables.items()),
                before,
                pair_commands(script, self._path),
                after,
                f"""
variable mtp_first equal {first}
variable mtp_last equal v_mtp_first+{script.steps}
variable mtp_end equal floor((v_mtp_last<{piece})*v_mtp_last+(v_mtp_last>={piece})*{piece})
compute mtp_grade all mtp/grade
variable mtp_known equal "c_mtp_grade <= {selection.select}"
variable mtp_frames equal floor({ATOMS_ON_DISC}/atoms)
dump mtp_flagged all custom {selection.interval} "{place}/flagged.*.dump" {frame}
dump_modify mtp_flagged skip v_mtp_known {form} {frames}
fix mtp_grades all print {selection.interval} "{grades}" file "{place}/grades.txt" screen no
timer timeout off
fix mtp_rollback all mtp/rollback {selection.interval} {selection.select} {limit}
run $(v_mtp_end:%.0f) {part}
variable mtp_stopped equal $(step)
variable mtp_broke equal $(f_mtp_rollback[1])
variable mtp_over equal $(f_mtp_rollback[1]<0&&(step>=v_mtp_last||step<v_mtp_end))
if "${{mtp_broke}} >= 0" then "fix_modify mtp_rollback restore"
if "{selection.interval} == 1 || $(v_mtp_broke-step) <= 1" then "jump SELF mtp_told"
undump mtp_flagged
variable mtp_near equal "c_mtp_grade <= {limit}"
dump mtp_first all custom 1 "{place}/first.*.dump" {frame}
dump_modify mtp_first skip v_mtp_near {form}
fix mtp_grades all print 1 "{grades}" file "{place}/retraced.txt" screen no
run $(v_mtp_broke:%.0f) {part}
fix_modify mtp_rollback restore
label mtp_told
write_restart "{place}/restart"
print """
                f"""'{{"first": $(v_mtp_first), "stopped": ${{mtp_stopped}}, """
                f""""broke": ${{mtp_broke}}, "step": $(step), "over": ${{mtp_over}}}}' """
                f"""file "{place}/end.json" screen no
if "${{mtp_over}} == 0" then quit
undump mtp_flagged
unfix mtp_rollback
unfix mtp_grades
variable mtp_known delete
variable mtp_frames delete
uncompute mtp_grade
include "{place}/rest.lammps"
print "" file "{place}/rest.done" screen no
""",
            ]
        )

    def _run(self, place: Path) -> str:
        """Run the command; returns the end of what it said."""
        command = [*shlex.split(self._command), "-in", str(place / "in.lammps"), "-log", str(place / "log.lammps")]
        try:
            done = subprocess.run(
                command,
                cwd=self.script.folder,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise Error(f"transport: {self._command}: {error.strerror or error}") from error
        text = done.stdout.decode(errors="replace").strip()
        return (text.splitlines() or [f"{self._command} ended with status {done.returncode}"])[-1]

    def _read(self, place: Path, grades: dict[int, float], passage: Passage) -> list[Atoms]:
        """The most extrapolative of what a piece has left, whose frames are removed."""
        kept: list[Atoms] = []
        n_steps = sum(grade > self.selection.select for grade in grades.values())
        for parts in self._frames(place, "flagged", grades):
            n_steps -= 1
            kept += parts
            excess = len(kept) - self.selection.capacity
            if excess > 0:
                kept.sort(key=lambda atoms: -atoms.info["grade"])
                del kept[-excess:]
                passage.n_dropped += excess
        passage.n_dropped += max(0, n_steps)
        return sorted(kept, key=lambda atoms: atoms.info["step"])

    def _frames(self, place: Path, name: str, grades: dict[int, float]) -> Iterator[list[Atoms]]:
        """What is kept of each frame of a dump, which is removed."""
        columns = {"c_mtp_grade": "grade"} if self._local else {}
        for path in sorted(place.glob(f"{name}.*.dump"), key=lambda path: int(path.name.split(".")[1])):
            for frame in dump(path, self.script.elements, "metal", columns):
                if isinstance(frame, Atoms):  # not one that was cut off when LAMMPS ended
                    yield self._parts(frame, grades)
            path.unlink()

    def _parts(self, frame: Atoms, grades: dict[int, float]) -> list[Atoms]:
        """What is kept of a frame: itself, or neighbourhoods in it."""
        if self._local and self.largest is not None and len(frame) > self.largest:
            radius = pool_radius(len(frame), frame.get_volume(), self.largest, self._cutoff)
            return neighbourhoods(frame, self.selection.select, self._cutoff, radius)
        grade = frame.arrays["grade"].max() if self._local else grades[frame.info["step"]]
        frame.info["grade"] = float(grade)
        del frame.arrays["type"]
        frame.wrap()
        return [frame]


def neighbourhoods(frame: Atoms, select: float, cutoff: float, radius: float) -> list[Atoms]:
    """All atoms and images within `radius` (Å) of each atom whose grade passes `select`, as mtp.live.gather_flagged
    gives them; the highest grades first, at most CENTRES_PER_FRAME, none closer than `cutoff` to an earlier one.

    Args:
        frame: with the arrays "id" and "grade", and "step" in info.
    """
    found: list[Atoms] = []
    grades, cell, periodic = frame.arrays["grade"], frame.cell.complete().array, frame.pbc
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = [max(0, math.ceil(radius / height - 0.5)) if p else 0 for height, p in zip(heights, periodic, strict=True)]
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))), dtype=float)
    free = grades > select
    while free.any() and len(found) < CENTRES_PER_FRAME:
        centre = int(np.argmax(np.where(free, grades, -np.inf)))
        steps = np.linalg.solve(cell.T, (frame.positions - frame.positions[centre]).T).T
        steps -= np.where(periodic, np.round(steps), 0.0)
        near, shown = [], []
        for image in images:
            vectors = (steps + image) @ cell
            inside = np.flatnonzero((vectors**2).sum(axis=1) <= radius**2)
            near.append(vectors[inside])
            shown.append(inside)
        vectors, index = np.concatenate(near), np.concatenate(shown)
        distances = np.linalg.norm(vectors, axis=1)
        free[index[distances < cutoff]] = False
        tags = frame.arrays["id"][index]
        order = np.lexsort((*np.round(vectors, 9).T, tags, np.round(distances, 9)))
        info = {"step": frame.info["step"], "grade": float(grades[centre]), "centre": 0}
        info |= {"tag": int(frame.arrays["id"][centre]), "run_cell": frame.cell.array.copy()}
        found.append(Atoms(frame.numbers[index][order], vectors[order], info=info))
        found[-1].arrays["grade"] = grades[index][order]
    return found


def _number(value: float) -> str:
    return "1e300" if math.isinf(value) else repr(value)


def _grades(path: Path) -> dict[int, float]:
    """Highest grades by step, as far as they were written."""
    if not path.exists():
        return {}
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return {int(row[0]): float(row[1]) for row in rows if len(row) == 2}


def _error_of(log: Path) -> str | None:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lammps_error("\n".join(reversed(lines)))
