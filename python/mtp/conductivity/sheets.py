# SPDX-License-Identifier: BSD-3-Clause
"""Sheets in the xy plane with vacuum above, whose `thickness` (Å) convention names; None: the cell is filled."""

from __future__ import annotations

import numpy as np

from mtp.errors import Error
from mtp.structures import VACUUM, gaps


def check(cell: np.ndarray, thickness: float | None) -> None:
    """Raise Error where a cell (3, 3) in the structure's own axes holds no sheet in the xy plane of that thickness."""
    if thickness is None:
        return
    if np.abs(cell[2, :2]).max() + np.abs(cell[:2, 2]).max() > 1e-6:
        raise Error("thickness: a sheet must lie in the xy plane, with the third cell vector along z")
    if not thickness <= cell[2, 2]:
        raise Error(f"thickness: {thickness:g} Å are more than the height of the cell, {cell[2, 2]:g} Å")


def filling(cell: np.ndarray, thickness: float | None) -> float:
    """The part of a cell that is material."""
    return 1.0 if thickness is None else thickness / float(cell[2, 2])


def conducting(thickness: float | None) -> int:
    """The number of directions in which heat flows, the first of x, y and z."""
    return 3 if thickness is None else 2


def remarks(cell: np.ndarray, positions: np.ndarray, thickness: float | None) -> list[str]:
    """What a reader of a result should know: that vacuum counts as volume, or that there is none."""
    empty = gaps(cell, positions)
    if thickness is None and empty.max() > VACUUM:
        return [f"{empty.max():.0f} Å of the cell are vacuum, and count as volume: give a sheet its `thickness`"]
    if thickness is not None and empty[2] < thickness:
        return [
            f"no more than {empty[2]:.1f} Å of the height are without atoms, less than the `thickness`: add vacuum, "
            "or, where the cell is filled, leave `thickness` out"
        ]
    return []
