# SPDX-License-Identifier: BSD-3-Clause
"""What commands print and write: progress, tables, JSON; and whether an output can be written."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from mtp.errors import Error

if TYPE_CHECKING:
    from mtp.fit import Step

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # brackets in messages are no markup
if not console.is_terminal:
    console.width = 120  # of tables in a log file


def check_output(path: Path | None, suffix: str | None = None) -> None:
    """Refuse, before any work, an output that could not be written after it."""
    if path is None:
        return
    if suffix is not None and path.suffix != suffix:
        raise Error(f"{path}: the output's name must end with {suffix}")
    if path.is_dir():
        raise Error(f"{path}: is a folder: name a file for the output")
    if not path.absolute().parent.is_dir():
        raise Error(f"{path}: the folder does not exist: make it first")


def check_folder(path: Path | None) -> None:
    """As check_output, for a folder that is made where it is missing."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise Error(f"{path}: is a file: remove it or name a folder for the report")
    if not path.absolute().parent.is_dir():
        raise Error(f"{path}: the folder above it does not exist: make it first")


def write_json(path: Path | None, content: Any) -> None:
    from mtp.cfg import replaced_whole

    if path:
        with replaced_whole(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n")


def command_line() -> str:
    """The command that was given, as a shell takes it."""
    return shlex.join(["mtp", *sys.argv[1:]])


class Bar:
    """A progress bar on a terminal; in a log file, one line for each step. Keeps the steps that it is shown, but for
    those of a fit that goes before."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.steps: list[Step] = []
        self.bar = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Bar:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, step: Step) -> None:
        if step.level is not None:
            done, title = 0, f"first at level {step.level}, {step.iteration}"
        else:
            self.steps.append(step)
            done, title = step.iteration, f"{step.iteration}/{self.total}"
        if self.bar:
            note = self._note(step) if step.level is None else f"{title}: {self._note(step)}"
            self.bar.update(self.task, completed=done, note=note)
        else:
            console.print(f"{self.title} {title}: {self._note(step)}")

    def _note(self, step: Step) -> str:
        parts = [f"loss {step.loss:.4e}"]
        if step.energy_rmse is not None:
            parts.append(f"E {1e3 * step.energy_rmse:.4g} meV/atom")
        if step.force_rmse is not None:
            parts.append(f"F {step.force_rmse:.4g} eV/Å")
        parts.append(_duration(step.seconds))
        first = self.steps[0] if step.level is None else step
        if step.iteration > first.iteration:  # the first one holds the preparation
            pace = (step.seconds - first.seconds) / (step.iteration - first.iteration)
            parts += [f"{pace:.2g} s/iteration", f"at most {_duration(pace * (self.total - step.iteration))} left"]
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"


def print_skipped(skipped: Any) -> None:
    console.print(f"warning: {skipped}")


def print_findings(findings: list) -> None:
    from mtp.quality import summarise

    for line in summarise(findings):
        console.print(line)


def print_errors(comparisons: dict) -> None:
    rows = (
        ("energy_per_atom_eV", "energy (meV/atom)", 1e3),
        ("force_eV_per_A", "force (eV/Å)", 1),
        ("stress_GPa", "stress (GPa)", 1),
    )
    table = Table("data", "configurations", "quantity", "RMSE", "MAE", "max")
    for name, comparison in comparisons.items():
        summary = comparison.summary()
        for key, label, factor in rows:
            if summary[key]:
                values = [f"{factor * summary[key][kind]:.4g}" for kind in ("rmse", "mae", "max")]
                table.add_row(name, str(summary["configurations"]), label, *values)
    if table.row_count:
        console.print(table)
    else:
        console.print("the data are not labelled: there is nothing to compare with")


def print_coverage(found: list) -> None:
    """Shares of errors inside one and two standard deviations; RMS of errors and of standard deviations."""
    units = {"energy_per_atom": ("energy (meV/atom)", 1e3), "force": ("force (eV/Å)", 1)}
    table = Table("data", "group", "quantity", "values", "inside 1σ", "inside 2σ", "error", "σ", "correlation")
    for row in found:
        label, factor = units[row.quantity]
        sizes = [f"{factor * value:.3g}" for value in (row.rms_error, row.rms_std)]
        shares = [f"{100 * share:.0f} %" for share in row.within]
        correlation = "" if row.correlation is None else f"{row.correlation:.2f}"
        table.add_row(row.data, row.group, label, str(row.count), *shares, *sizes, correlation)
    if table.row_count:
        console.print(table)


def print_guard(potential: Any) -> None:
    table = Table("pair", "MTP fades (Å)", "ZBL sets in (Å)")
    for pair, windows in (guard_facts(potential) or {}).items():
        (fade_inner, fade_outer), (inner, outer) = windows["fade"], windows["zbl"]
        table.add_row(pair, f"{fade_outer:g} to {fade_inner:g}", f"{outer:g} to {inner:g}")
    if table.row_count:
        console.print(table)


def guard_facts(potential: Any) -> dict[str, dict[str, list[float]]] | None:
    """The guard's distances by pair of elements."""
    found = potential.guard
    if found is None:
        return None
    names = potential.species
    return {
        f"{names[i]}-{names[j]}": {"zbl": found.repulsion[i, j].tolist(), "fade": found.fade[i, j].tolist()}
        for i in range(len(names))
        for j in range(i, len(names))
    }
