# SPDX-License-Identifier: BSD-3-Clause
"""How far from the machine an evaluation is: arithmetic counted, machine and evaluation measured in one run.

    python benchmarks/roofline.py --json roofline.json

needs a C++ compiler and CMake (`pip install cmake`). roofline/roofline.cpp runs the kernels with a lane type that
counts, then times them on the crystal of pair_speed.py (lists of 78 neighbours, 42 within the cutoff), next to loops
that do nothing but fused multiply-adds, loads or stores of the same packs of eight doubles. All times are CPU seconds
of one core. An evaluation has three parts:

- lists: neighbours within the cutoff picked from the lists, gradients added to the forces;
- sweeps: radial functions, moments, and gradients of the neighbours, forward and back;
- products: expansions and products of moments, and their adjoints.

"Bound" is the time that the busiest unit would need alone, at its measured peak and with all data in the first-level
cache: no evaluation that does these operations is faster. "Moved" are packs loaded and stored, and the plan's tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from pair_speed import machine
from rich.console import Console
from rich.table import Table

from mtp.potential import Potential

SOURCE = Path(__file__).parent / "roofline"
LANES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="*", default=[8, 12, 16, 20, 24])
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of one measurement")
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.levels, options.seconds)
    peaks = found["machine"]
    potentials = dict(zip(options.levels, found["potentials"], strict=True))
    rows = [row for level, one in potentials.items() for row in parts(level, one, peaks)]
    show(peaks, rows, potentials)
    if options.json:
        report = {"machine": machine(), "peaks": peaks, "rows": rows, "potentials": potentials}
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, levels: list[int], seconds: float) -> dict:
    """Build the program and run it on potentials with random coefficients, on which speed does not depend."""
    files = []
    for level in levels:
        potential = Potential.new(level, ["Cu"], cutoff=5.0, min_distance=2.0)
        potential.parameters = 0.1 * np.random.default_rng(level).normal(size=potential.facts.n_parameters)
        files.append(folder / f"{level:02d}.mtp")
        potential.save(files[-1])
    for command in (["cmake", "-S", SOURCE, "-B", folder / "build"], ["cmake", "--build", folder / "build"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run([folder / "build" / "roofline", str(seconds), *files], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def parts(level: int, one: dict, peaks: dict) -> list[dict]:
    """The rows of a level: its parts, and the whole."""
    time = one["seconds_per_atom"]
    sweeps = row("sweeps", time["all"] - time["lists"] - time["products"], one["sweeps"], 0, peaks)
    products = row("products", time["products"], one["products"], one["bytes"]["tables"] / LANES, peaks)
    whole = {"part": "all", "us": 1e6 * time["all"]}
    whole |= {name: sweeps[name] + products[name] for name in ("flop", "bytes", "bound_us")} | {"bound_by": ""}
    whole |= shares(whole, peaks)
    return [{"level": level, **row} for row in (whole, sweeps, products, {"part": "lists", "us": 1e6 * time["lists"]})]


def row(part: str, seconds: float, counted: dict, table_bytes: float, peaks: dict) -> dict:
    instructions = counted["add"] + counted["multiply"] + counted["fused"]
    bounds = {
        "arithmetic": instructions / peaks["fused_packs_per_s"] + counted["root"] / peaks["inverse_root_packs_per_s"],
        "loads": counted["loads"] / peaks["l1_loads_per_s"],
        "stores": counted["stores"] / peaks["l1_stores_per_s"],
    }
    by = max(bounds, key=bounds.get)
    found = {
        "part": part,
        "us": 1e6 * seconds,
        "flop": counted["flop"],
        "bytes": 8 * (counted["loads"] + counted["stores"]) + table_bytes,
        "bounds_us": {name: 1e6 * bound / LANES for name, bound in bounds.items()},
        "bound_us": 1e6 * bounds[by] / LANES,
        "bound_by": by,
    }
    return found | shares(found, peaks)


def shares(row: dict, peaks: dict) -> dict:
    rate = row["flop"] / row["us"] * 1e6
    return {"gflop_per_s": rate / 1e9, "share_of_peak": rate / (2 * LANES * peaks["fused_packs_per_s"])}


def show(peaks: dict, rows: list[dict], potentials: dict[int, dict]) -> None:
    console = Console(width=110, highlight=False)
    console.print(f"fused multiply-adds: {2 * LANES * peaks['fused_packs_per_s'] / 1e9:.0f} Gflop/s")
    for cache in ("l1", "l2"):
        rates = (f"{kind} {64 * peaks[f'{cache}_{kind}_per_s'] / 1e9:.0f} GB/s" for kind in ("loads", "stores"))
        console.print(f"{cache.upper()}: {', '.join(rates)}")
    columns = ("level", "part", "µs", "kflop", "kB moved", "flop/byte", "Gflop/s", "of peak", "bound, µs", "by")
    table = Table(*columns, title="an atom")
    for row in rows:
        if "flop" not in row:
            table.add_row(str(row["level"]), row["part"], f"{row['us']:.2f}", end_section=True)
            continue
        table.add_row(
            str(row["level"]),
            row["part"],
            f"{row['us']:.2f}",
            f"{row['flop'] / 1000:.1f}",
            f"{row['bytes'] / 1000:.1f}",
            f"{row['flop'] / row['bytes']:.2f}",
            f"{row['gflop_per_s']:.0f}",
            f"{100 * row['share_of_peak']:.0f} %",
            f"{row['bound_us']:.2f}",
            row["bound_by"],
        )
    console.print(table)
    names = {"neighbours": "neighbours", "moments_and_adjoints": "moments and adjoints", "tables": "tables"}
    table = Table("level", *names.values(), "product rows", title="working sets of eight atoms, kB")
    for level, one in potentials.items():
        sizes = (f"{one['bytes'][name] / 1024:.1f}" for name in names)
        table.add_row(str(level), *sizes, f"{one['inner_rows'] + one['outer_rows']:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
