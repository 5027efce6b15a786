# SPDX-License-Identifier: BSD-3-Clause
"""What the methods of molecular dynamics keep: arrays in HDF5, the result as JSON, a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from matplotlib import rc_context
from matplotlib.figure import Figure

from mtp import extras
from mtp.cfg import replaced_whole
from mtp.conductivity.spectral import cepstral
from mtp.errors import Error
from mtp.figures import RESOLUTION, STYLE

W_PER_MK = units._e * 1e22  # of eV / (Å ps K)
MW_PER_M2K = units._e * 1e26  # of eV / (Å² ps K)
KB = units.kB
NARROW = 2  # in one by the time of a run
LARGE_ERROR = 0.2  # relative; above it the reader is told that the runs are too short


def write_arrays(path: Path, arrays: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> None:
    """An HDF5 file of the arrays, by name (a slash makes a group), with facts as its attributes. It appears whole."""
    h5py = extras.h5py()
    with replaced_whole(path) as part, h5py.File(part, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(facts or {})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What write_arrays wrote without groups. Raises Error where the file is damaged."""
    h5py = extras.h5py()
    try:
        with h5py.File(path, "r") as file:
            return {name: file[name][()] for name in file}
    except (OSError, TypeError) as error:
        raise Error(f"{path}: damaged: {error}; remove the folder to run it again") from None


def joined(chunks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The chunks of one trajectory, one after another."""
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def value(number: float, error: float) -> dict[str, float]:
    """A number of a result, which has its standard error."""
    return {"value": float(number), "error": float(error)}


def mean(series: Sequence[np.ndarray], interval: float, short: bool) -> dict[str, float]:
    """The mean of several runs (n,) of one fluctuating quantity and its error: the larger of what the spectrum of the
    fluctuations at frequency zero and what the scatter of the runs' means say.

    The variance of a mean over the time t is S(0) / t, which is twice the Green-Kubo integral of the fluctuations. They
    are seen about their own mean: `short` runs (see `are_short`) show too little, and twice the error is added in
    squares.
    """
    total = interval * sum(map(len, series))
    average = float(np.concatenate(series).mean())
    fluctuations = cepstral([run[:, None] - average for run in series], interval, mean_is_zero=False)
    errors = [
        np.sqrt(2 * (fluctuations.value + fluctuations.error) / total),
        run_to_run([run.mean() for run in series]),
    ]
    return value(average, max(errors) * (np.sqrt(5) if short else 1.0))


def are_short(groups: Sequence[Sequence[np.ndarray]], interval: float) -> bool:
    """Whether runs are too short to show their fluctuations: whether these have a spectrum that falls to its half
    within NARROW by the time of a run.

    The fluctuations of all groups have one spectrum, up to its size. Judged together, long runs are taken for short
    ones less often than where each group is judged alone (test_spectral).
    """
    fluctuations = []
    for runs in groups:
        together = np.concatenate(runs)
        fluctuations += [((run - together.mean()) / together.std())[:, None] for run in runs]
    smooth = cepstral(fluctuations, interval, mean_is_zero=False).cut.smooth
    return bool((smooth[: NARROW + 1] < smooth[0] / 2).any())


def run_to_run(values: Sequence[float]) -> float:
    """Standard error of the mean of runs; 0 for fewer than three, whose scatter says little."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 2 else 0.0


def weighted(estimates: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], float]:
    """Mean by inverse variances, and χ² of the estimates about it per degree of freedom (0 for one)."""
    numbers, errors = (np.array([estimate[key] for estimate in estimates]) for key in ("value", "error"))
    weights = errors**-2 / np.sum(errors**-2)
    average = float(weights @ numbers)
    chi2 = float(np.sum(((numbers - average) / errors) ** 2) / max(1, len(numbers) - 1))
    return value(average, float(np.sum(errors**-2) ** -0.5)), chi2


def too_short(kappa: Mapping[str, float]) -> list[str]:
    """A remark where the error is large."""
    relative = kappa["error"] / abs(kappa["value"])
    if relative < LARGE_ERROR:
        return []
    return [f"the error is {100 * relative:.0f} % of the value: raise `time` or `runs`; what is there is kept"]


def finish(folder: Path, result: dict[str, Any], figure: Figure, size: float | None = None) -> dict[str, Any]:
    """Write result.json and the figure, result.png, into the folder; gives the result, with the parts of its error:
    None where a part was not computed."""
    for name in ("kappa_W_mK", "conductance_MW_m2K"):
        if name in result:
            error, unit = result[name]["error"], name.partition("_")[2]
            total = float(np.hypot(error, size or 0.0))
            result[name] = value(result[name]["value"], total)
            result[f"uncertainty_{unit}"] = {"statistics": error, "size": size, "potential": None, "total": total}
    with replaced_whole(folder / "result.png") as part:
        figure.savefig(part, dpi=RESOLUTION, format="png")
    return keep(folder, result)


def keep(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write result.json; gives the result."""
    with replaced_whole(folder / "result.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    return result


def styled(draw, *content: Any) -> Figure:
    """The figure that draw(*content) makes, in the style of all figures."""
    with rc_context(STYLE):
        return draw(*content)
