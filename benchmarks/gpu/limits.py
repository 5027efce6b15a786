# SPDX-License-Identifier: BSD-3-Clause
"""What would limit pair_style mtp/kk on a GPU, counted from its loops; nothing is run there.

    python benchmarks/gpu/limits.py

A warp of 32 threads has one atom of the crystal of pair_speed.py (78 neighbours in the list, 42 within the cutoff).
Arithmetic is what roofline.py counts on the CPU, and what a device computes once more: distances, and the radial
functions in the backward sweep. Of the memory that a multiprocessor's threads share, each access of a warp to 32
doubles of its own takes two clocks and one to the same number a single clock; accesses to moments at random take twice
what they would in order. Rates are those of an H200.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from roofline import measure

LEVELS = (8, 12, 16, 20, 24)
LISTED, NEAR, CHEBYSHEV = 78, 42, 8
WARP = 32
MULTIPROCESSORS, CLOCK = 132, 1.755e9
TFLOPS = {8: 34.0, 4: 67.0}  # by the bytes of a number
SHARED = 228 * 1024  # bytes, of which each team takes 1 kB for itself
OF_KOKKOS = (WARP + 2) * 72  # what Kokkos' reductions take besides
# Warps of a multiprocessor for which there are registers, from `nvcc -Xptxas -v`: where tables are small enough for
# many, the compiler is told to do with 168 registers
MANY, FEW = 12, 8
AT_ONCE = 4  # neighbours in the loop of the sums


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        counted = dict(zip(LEVELS, measure(Path(folder), list(LEVELS), 0.01)["potentials"], strict=True))
    console = Console(width=150, highlight=False)
    for size, precision in ((8, "double"), (4, "mixed")):
        names = ("level", "kflop", "Matom/s by arithmetic", "clocks of shared memory", "Matom/s by these")
        table = Table(*names, "kB a warp", "warps of 64: by memory", "by registers", title=f"precision {precision}")
        for level, one in counted.items():
            degrees = [radial_functions(level, nu) for nu in range(level // 2 - 1)]
            flop = one["sweeps"]["flop"] + one["products"]["flop"] + recomputed(degrees)
            clocks = of_shared_memory(degrees, one, size)
            n_moments = one["bytes"]["moments_and_adjoints"] / 8 / 2 / 8
            scratch = bytes_of_team(degrees, n_moments, size)
            table.add_row(
                str(level),
                f"{flop / 1e3:.1f}",
                f"{TFLOPS[size] * 1e6 / flop:.0f}",
                f"{clocks:.0f}",
                f"{MULTIPROCESSORS * CLOCK / clocks / 1e6:.0f}",
                f"{scratch / 1024:.1f}",
                str(n_warps := int(SHARED // (scratch + 1024))),
                str(MANY if n_warps >= MANY else FEW),
            )
        console.print(table)


def radial_functions(level: int, nu: int) -> int:
    """Of the moments of degree nu, whose level is 2 + 4 mu + nu: those that a product of two within the level needs."""
    return 1 + ((level - 2 if nu == 0 else level - 4 - 2 * nu) // 4)


def n_monomials(degrees: list[int]) -> int:
    return sum(2 * nu + 1 for nu in range(len(degrees)))


def recomputed(degrees: list[int]) -> float:
    """Operations of an atom beyond those of the CPU: distances, four times; roots and radial functions once more."""
    distances = 2 * 9 * (LISTED + NEAR)
    return distances + NEAR * (28 + (4 * CHEBYSHEV + 5) * degrees[0])


def of_shared_memory(degrees: list[int], counted: dict, size: int) -> float:
    """Clocks in which a multiprocessor's shared memory serves an atom."""
    own, broadcast = size / 4, 1
    chunks = math.ceil(NEAR / WARP)
    padded = WARP * (chunks - 1) + math.ceil((NEAR - WARP * (chunks - 1)) / AT_ONCE) * AT_ONCE
    monomials = n_monomials(degrees)
    summed = sum((2 * nu + 1) * n_mu for nu, n_mu in enumerate(degrees))
    tabulated = 2 * degrees[0] + 2 * monomials
    of_monomial = [n_mu for nu, n_mu in enumerate(degrees) for _ in range(2 * nu + 1)]
    rounds = [of_monomial[k] for k in range(0, monomials, WARP)]
    forward = chunks * tabulated * own + padded * sum(own + n_mu * broadcast for n_mu in rounds)
    backward = chunks * ((tabulated + 3 * monomials) * own + summed * broadcast)
    rows = counted["inner_rows"], counted["inner_rows"] + counted["outer_rows"]
    products = (2 * rows[0] + 2 * (2 * rows[1])) / WARP * 2 * 2
    return forward + backward + products


def bytes_of_team(degrees: list[int], n_moments: float, size: int) -> float:
    """Moments and adjoints; the table of a chunk; the queue of neighbours."""
    rows = 3 * degrees[0] + n_monomials(degrees) + max(4 * (len(degrees) - 1), CHEBYSHEV)
    return 16 * n_moments + max(rows, 20) * (WARP + 1) * size + 4 * (4 * WARP + 2) + OF_KOKKOS


if __name__ == "__main__":
    main()
