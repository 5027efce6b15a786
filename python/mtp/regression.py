# SPDX-License-Identifier: BSD-3-Clause
"""Fits that a minority of outliers does not move."""

from __future__ import annotations

import numpy as np


def least_absolute(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients x of the fit of values (n,) by rows (n, m) @ x with the least sum of absolute deviations, by
    reweighted least squares."""
    weights = np.ones(len(values))
    found = np.zeros(rows.shape[1])
    for _ in range(50):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(rows * root[:, None], values * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(values - rows @ found), 1e-6)
    return found
