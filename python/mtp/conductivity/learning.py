# SPDX-License-Identifier: BSD-3-Clause
"""Conductivity of a potential that learns what the calculation meets, until κ has converged.

The calculation is one more walk of a learning loop (mtp.learning): in each round it is made with the round's potential,
in a folder of the round; what extrapolates in it is labelled and learned; and the loop ends when nothing does and the
last fit has changed κ by less than its error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

import mpi4py.MPI as MPI
import numpy as np
from ase import Atoms
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field, PrivateAttr, model_validator

from mtp import structures
from mtp.cfg import replaced_whole
from mtp.conductivity import settings as md
from mtp.conductivity.bte import graded_cells
from mtp.conductivity.bte_settings import BteSettings
from mtp.conductivity.md import Tell
from mtp.conductivity.results import styled
from mtp.conductivity.sheets import conducting
from mtp.conductivity.watch import Unsound, met
from mtp.database import Dataset
from mtp.errors import Error
from mtp.figures import COLOURS, GREY, RESOLUTION
from mtp.learn import learn
from mtp.learning.errand import Errand
from mtp.learning.ranks import on_root
from mtp.learning.walks import Passage, Walk, histogram
from mtp.potential import Potential
from mtp.settings import Cutting, LearnSettings, Selection, checked, content_of
from mtp.uncertainty import Posterior

Calculation = md.MolecularDynamics | BteSettings
Method = Callable[..., dict[str, Any]]
Say = Callable[[str], None]
PARTS_OF_PHONONS = {"size": "cell", "mesh": "mesh", "displacement": "displacement"}


class LearnConductivity(LearnSettings):
    """A learning loop that may have no exploration but the calculation. tolerance: a relative change of κ that counts
    for nothing, however small its error. samples: potentials drawn from the posterior of the last fit, for the error of
    κ by `bte`; 0: none."""

    tolerance: float = Field(0.01, gt=0)
    samples: int = Field(0, ge=0)
    _asked: dict[str, Any] = PrivateAttr(default_factory=dict)  # of the calculation

    @model_validator(mode="after")
    def _something_to_explore(self) -> LearnConductivity:
        return self

    def search(self) -> dict[str, Any]:
        return super().search() | {"conductivity": self._asked}


@dataclass(frozen=True)
class Learning:
    """The loop, the calculation without a potential of its own, and the potential to begin with, if any."""

    loop: LearnConductivity
    calculation: Calculation
    given: Path | None


def read(path: Path, model: type[Calculation], learn_file: Path | None) -> Learning:
    """Settings of a calculation at `path` with those of the loop, in its table `learn` or in a file of their own.

    Raises Error where a key is wrong or they do not go together.
    """
    content = content_of(path)
    table = content.pop("learn", None)
    if (table is None) == (learn_file is None):
        where = "neither a table `learn` nor a file with the loop's settings" if table is None else "both"
        raise Error(f"{path}: --learn wants a table `learn` here, or the name of a file after it; there is {where}")
    if "pair" in content or "reference" in content:
        raise Error(f"{path}: --learn makes a potential: leave `pair` and `reference` out")
    given = content.pop("potential", None)
    with_potential = content | {"potential": "made by the loop"}
    calculation = checked(with_potential, model, path).resolve(path.parent)
    if learn_file is not None:
        loop = checked(content_of(learn_file), LearnConductivity, learn_file).resolve(learn_file.parent)
    else:
        if not isinstance(table, dict):
            raise Error(f"{path}: learn: must be a table")
        loop = checked(table, LearnConductivity, f"{path}, [learn]").resolve(path.parent)
        if "folder" not in table:
            loop = loop.model_copy(update={"folder": calculation.folder / "learn"})
    asked = calculation.model_dump(mode="json", exclude={"folder", "potential"})
    if calculation.file is not None:
        asked["file"] = hashlib.sha256(md.read_bytes(calculation.file)).hexdigest()
    loop._asked = json.loads(json.dumps(asked))
    _check(path, loop, calculation)
    first = None if given is None else path.parent / given
    if first is not None:
        _check_given(first, loop)
    return Learning(loop, calculation, first)


def _check(path: Path, loop: LearnConductivity, calculation: Calculation) -> None:
    if loop.target is not None:
        raise Error(f"{path}: with --learn κ is the target of the loop: leave `target` out")
    if calculation.species is not None and calculation.species != loop.species:
        raise Error(f"{path}: species {calculation.species} here, and {loop.species} in the loop: take one order")
    structures.explored(calculation, loop.species)  # refuses other elements
    asked = calculation.uncertainty if isinstance(calculation, BteSettings) else None
    if asked is not None and (asked.posterior or asked.potentials):
        raise Error(
            f"{path}: uncertainty: a `posterior` or other `potentials` are of one potential, and the loop makes many: "
            "ask it for `samples`"
        )
    if loop.samples == 1 or (loop.samples and asked is None):
        raise Error(f"{path}: `samples` of a posterior are for `bte`, and two at least")


def _check_given(path: Path, loop: LearnConductivity) -> None:
    potential = Potential.load(path)
    if potential.species is not None and potential.species != loop.species:
        raise Error(f"{path}: has the species {potential.species}, and the loop {loop.species}")
    if not loop.initial.files:
        grades = "" if potential.facts.active_set else "has no active set, so that nothing is known to extrapolate; "
        raise Error(
            f"{path}: {grades}learning on needs the data that it was fitted to: name them as `files` of `initial` "
            "(`mtp select POTENTIAL DATA -o POTENTIAL.almtp` builds an active set, and so does the loop), or leave "
            "`potential` out and let the loop fit one"
        )


def conductivity(learning: Learning, method: Method, say: Say, tell: Tell, comm: MPI.Comm) -> dict[str, Any]:
    """Learn until κ has converged, and give the result of the last round; all ranks call it, and all get it.

    Its `learning` tells κ by round, its `uncertainty` the parts of the error; it is written into the folder of the
    calculation, with the figure learning.png.

    Raises:
        NotConverged: the rounds are used up, or nothing is left to learn and κ still changes.
        Error: what the loop or the calculation cannot do.
    """
    loop, calculation = learning.loop, learning.calculation
    title = {BteSettings: "bte", md.GreenKubo: "green-kubo", md.Hnemd: "hnemd", md.Nemd: "nemd"}[type(calculation)]

    def walk(own: MPI.Comm) -> Walk:
        return ConductivityWalk(f"κ by {title}", calculation, method, loop, say, tell, own)

    errand = Errand(f"κ by {title}", walk, loop.tolerance, learning.given)
    rounds = learn(loop, say, comm, errand)
    return on_root(comm, lambda: _result(learning, method, say, rounds))


class ConductivityWalk(Walk):
    """A calculation of κ from its beginning to its end. κ is that of one potential: with another one it begins again.

    Runs stop where a grade passes `break`. Every configuration above `select` is kept, and of the others those that
    come closest, for the case that the loop wants to see how much κ changes.
    """

    def __init__(
        self,
        title: str,
        calculation: Calculation,
        method: Method,
        loop: LearnConductivity,
        say: Say,
        tell: Tell,
        comm: MPI.Comm,
    ) -> None:
        self.title, self.calculation, self.method, self.loop, self.comm = title, calculation, method, loop, comm
        self.say, self.tell = (say, tell) if comm.rank == 0 else (lambda text: None, lambda *progress: None)

    def begin(self, potential: Potential, path: Path, turn: int) -> None:
        self._path, self._stopped = path, False

    def go_on(self, steps: int | None = None) -> Passage:
        folder = self.calculation.folder / self._path.stem
        update: dict[str, Any] = {"folder": folder, "potential": self._path}
        if isinstance(self.calculation, BteSettings):
            told = self.calculation.model_copy(update=update)
            passage = on_root(self.comm, lambda: self._of_phonons(told))
        else:
            told = self.calculation.model_copy(
                update=update | {"watch": _watch(self.loop.selection, self.loop.cutting)}
            )
            passage = self._of_runs(told)
        self._stopped = not passage.finished
        return passage

    def take(self, potential: Potential, path: Path) -> int | None:
        self._path = path
        return 0 if self._stopped else None

    def close(self) -> None:
        """Nothing runs between two calculations."""

    def _of_phonons(self, told: BteSettings) -> Passage:
        result, failure = None, None
        try:
            result = self.method(told, self.say)
        except Unsound as error:
            failure = str(error)
        cells = graded_cells(told)
        for k, atoms in enumerate(cells, start=1):
            atoms.info |= {"step": f"{k} of the displaced cells", "given": True}
        grades = [atoms.info["grade"] for atoms in cells]
        passage = Passage(self.title, 0, len(cells), max(grades), histogram(grades), failure=failure)
        return self._dealt(passage, cells, result)

    def _of_runs(self, told: md.MolecularDynamics) -> Passage:
        result, stopped = None, False
        try:
            result = self.method(told, self.comm, self.tell)
        except Unsound:
            stopped = True

        def passage() -> Passage:
            pieces = met(told.folder)
            found = Passage(self.title, 0, 0, max((piece.highest_grade for piece in pieces), default=0.0))
            if pieces:
                found.histogram = np.sum([piece.histogram for piece in pieces], axis=0).tolist()
            found.end = self.loop.selection.interval * sum(found.histogram)  # of all runs together
            found.n_dropped = sum(piece.n_dropped for piece in pieces)
            if stopped:
                breaks = [piece.break_step for piece in pieces if piece.break_step is not None]
                found.break_step = breaks[-1] if breaks else None
                found.failure = next((piece.failure for piece in pieces if piece.failure), None)
            configurations = []
            for piece in pieces:
                for atoms in piece.flagged:
                    atoms.info["step"] = f"{atoms.info['step']} of {piece.name}"
                    configurations.append(atoms)
            return self._dealt(found, configurations, result)

        return on_root(self.comm, passage)

    def _dealt(self, passage: Passage, configurations: list[Atoms], result: dict[str, Any] | None) -> Passage:
        """With what was met above `select`, the rest, and the outcome."""
        selection = self.loop.selection
        order = sorted(configurations, key=lambda atoms: -atoms.info["grade"])
        flagged = [atoms for atoms in order if atoms.info["grade"] > selection.select]
        passage.flagged = flagged[: selection.capacity]
        passage.n_dropped += max(0, len(flagged) - selection.capacity)
        passage.spare = order[len(flagged) :][: selection.capacity]
        passage.finished = passage.complete
        if passage.finished:
            passage.outcome = outcome_of(result) | {"asked": self.loop._asked}
        return passage


def _watch(selection: Selection, cutting: Cutting) -> md.Watch:
    told = selection.model_dump(by_alias=True) | {"nearly": selection.per_round}
    told["max_atoms"] = None if cutting.method == "whole" else cutting.max_atoms
    return md.Watch.model_validate(told)


def outcome_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a result and their errors, with the `parts` of these: None where a part was not computed."""
    if result["method"] == "bte":
        names = [f"{t:g} K" for t in result["temperatures_K"]]
        told = result["uncertainty_W_mK"]
        directions = conducting(result.get("thickness_A"))
        parts = {name: _means(told[key], directions) for name, key in PARTS_OF_PHONONS.items()} | {"statistics": None}
        values = _means(result["kappa_W_mK"], directions)
    else:
        (unit,) = (unit for unit in ("W_mK", "MW_m2K") if f"uncertainty_{unit}" in result)
        (key,) = (key for key in (f"kappa_{unit}", f"conductance_{unit}") if key in result)
        names, values, told = [key], [result[key]["value"]], result[f"uncertainty_{unit}"]
        parts = {name: None if told[name] is None else [told[name]] for name in ("statistics", "size")}
    errors = _together(parts, len(values))
    return {"names": names, "values": values, "errors": errors, "random": parts["statistics"], "parts": parts}


def _means(tensors: list | None, directions: int) -> list[float] | None:
    """Averages over the first directions at each temperature."""
    return None if tensors is None else [float(np.mean(tensor[:directions])) for tensor in tensors]


def _together(parts: Mapping[str, list[float] | None], n: int) -> list[float]:
    known = [part for part in parts.values() if part is not None]
    return [hypot(*(part[k] for part in known)) for k in range(n)]


def history(rounds: list[dict]) -> list[dict[str, Any]]:
    """κ by round, as far as it was computed, with what the round had learned and met."""
    return [
        {
            "round": r["round"],
            "labels": r["labelled"],
            "selected": r["selected"],
            "highest_grade": r["highest_grade"],
            **{key: (r.get("outcome") or {}).get(key) for key in ("names", "values", "errors", "changes", "allowed")},
        }
        for r in rounds
    ]


def _result(learning: Learning, method: Method, say: Say, rounds: list[dict]) -> dict[str, Any]:
    """The last round's, with κ by round and the parts of its error, written into the calculation's folder.

    The part of the potential is the larger of what the last fit changed and of the posterior's standard deviation.
    """
    folder, outcome = learning.calculation.folder, rounds[-1]["outcome"]
    name = f"round_{rounds[-1]['round']:03d}"
    result = json.loads((folder / name / "result.json").read_text())
    estimates = [outcome["changes"]]
    if learning.loop.samples:
        result = method(_with_posterior(learning, name), say)
        estimates.append(_means(result["uncertainty_W_mK"]["potential"], conducting(result.get("thickness_A"))))
    known = [estimate for estimate in estimates if estimate is not None]
    parts = outcome["parts"] | {"potential": [max(of) for of in zip(*known, strict=True)] or None}
    uncertainty = {"names": outcome["names"], **parts, "total": _together(parts, len(outcome["values"]))}
    told = {"uncertainty": uncertainty, "learning": history(rounds)}
    result |= told
    figure = styled(drawn, told["learning"])
    with replaced_whole(folder / "learning.png") as part:
        figure.savefig(part, dpi=RESOLUTION, format="png")
    with replaced_whole(folder / "result.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _with_posterior(learning: Learning, name: str) -> BteSettings:
    """The calculation with the potential of a round, and with what its data leave open."""
    loop, calculation = learning.loop, learning.calculation
    potential, file = loop.folder / f"{name}.almtp", loop.folder / "potential.posterior.npz"
    data = Dataset(loop.folder / "dataset.db").labelled()
    Posterior.from_data(Potential.load(potential), data, loop.fit.weights).save(file)
    asked = calculation.uncertainty.model_copy(update={"posterior": file, "samples": loop.samples})
    return calculation.model_copy(
        update={"folder": calculation.folder / name, "potential": potential, "uncertainty": asked}
    )


def drawn(rounds: list[dict[str, Any]]) -> Figure:
    """κ with its errors, and the number of labels, by round; rounds without κ, which broke, have the labels alone."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")
    kappas = figure.subplots()
    last = rounds[-1]
    for k, (name, colour) in enumerate(zip(last["names"], COLOURS, strict=False)):
        known = [r for r in rounds if r["names"] == last["names"]]
        values, errors = ([r[key][k] for r in known] for key in ("values", "errors"))
        numbers = [r["round"] for r in known]
        kappas.errorbar(numbers, values, errors, fmt="o-", ms=4, capsize=3, color=colour, label=name)
    for r in rounds:
        kappas.annotate(
            str(r["labels"]), (r["round"], 0.02), xycoords=("data", "axes fraction"), ha="center", color=GREY
        )
    conductance = last["names"] == ["conductance_MW_m2K"]
    kappas.set(
        xlabel="round (above: configurations labelled)",
        ylabel=r"$h$ (MW m$^{-2}$ K$^{-1}$)" if conductance else r"$\kappa$ (W m$^{-1}$ K$^{-1}$)",
        xlim=(-0.5, last["round"] + 0.5),
    )
    kappas.set_ylim(bottom=0)
    kappas.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(last["names"]) > 1:
        kappas.legend()
    return figure
