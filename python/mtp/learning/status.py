# SPDX-License-Identifier: BSD-3-Clause
"""What a loop is at, from its folder alone: also while it runs, and from another machine that sees the folder."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from mtp.errors import Error
from mtp.learning.folder import damaged, read_json

KEYS = ("time", "phase", "round", "passes", "needed", "labelled", "pending", "failed", "walks", "rollbacks")


@dataclass
class Status:
    """state: of state.json; rounds: complete ones; age: seconds since the state was written; outputs: the last line of
    thermodynamic output of each walk in hand."""

    state: dict
    rounds: list[dict]
    age: float
    outputs: dict[str, str]

    def lines(self) -> list[str]:
        """For a person."""
        state = self.state
        counts = ", ".join(f"{state[key]} {key}" for key in ("labelled", "pending", "failed"))
        passes = f"{state['passes']} of {state['needed']} passes"
        found = [f"round {state['round']}: {state['phase']}; {counts}; {passes}; noted {_ago(self.age)} ago"]
        if state["phase"] == "walking":
            for walk in state["walks"]:
                what = "waits for a new potential" if walk["waits"] else self.outputs.get(walk["walk"], "begins")
                if walk.get("steps"):
                    what = re.sub(r"^Step (\d+)", rf"Step \1 of {walk['steps']}", what)
                place = f"walk {walk['number']}, of {walk.get('of', '?')}"
                found.append(f"  {walk['walk']} ({place}), turn {walk['turn']}: {what}")
        return found + [f"  {_rollback(back)}" for back in state["rollbacks"]]


def status(folder: Path) -> Status:
    """Read the state files of a loop. Raises Error where there are none, or damaged ones."""
    if not (folder / "state.json").exists():
        raise Error(f"{folder}: no learning loop has begun here (there is no state.json)")
    state = read_json(folder / "state.json", dict)
    rounds = read_json(folder / "rounds.json", list) if (folder / "rounds.json").exists() else []
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise damaged(folder / "state.json", f"holds no {missing[0]!r}")
    outputs = {walk["walk"]: last for walk in state["walks"] if (last := _last_output(folder, walk["number"]))}
    return Status(state, rounds, time.time() - state["time"], outputs)


def _last_output(folder: Path, number: int) -> str | None:
    """The last row of numbers in a walk's log, and the line that names its columns."""
    logs = [folder / f"log_{number}.lammps", *sorted(folder.glob(f"walk_{number}/turn_*/piece_*/log.lammps"))]
    for log in reversed([log for log in logs if log.exists()]):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20000))
            lines = file.read().decode(errors="replace").splitlines()
        rows = [k for k, line in enumerate(lines) if _is_row(line)]
        if rows:
            names = next((line for line in reversed(lines[: rows[-1]]) if line.split()[:1] == ["Step"]), "")
            values = lines[rows[-1]].split()
            pairs = zip(names.split(), values, strict=True) if len(names.split()) == len(values) else []
            return ", ".join(f"{name} {value}" for name, value in pairs) or f"Step {values[0]}"
    return None


def _is_row(line: str) -> bool:
    words = line.split()
    try:
        return len(words) > 1 and words[0].isdigit() and bool([float(word) for word in words])
    except ValueError:
        return False


def _rollback(back: dict) -> str:
    text = f"{back['walk']}: went back from step {back['from']} to step {back['to']}"
    return text if back.get("first") is None else f"{text}; first above `break`: step {back['first']}"


def _ago(seconds: float) -> str:
    hours, seconds = divmod(max(0, round(seconds)), 3600)
    minutes, seconds = divmod(seconds, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
