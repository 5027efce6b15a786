# SPDX-License-Identifier: BSD-3-Clause
"""Processes that this one starts."""

from __future__ import annotations

import os

LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "HYDRA_", "HYDI_", "MPI_", "MPIR_", "MPIEXEC_", "OMPI_", "PRTE_")


def plain_environment() -> dict[str, str]:
    """The environment without what an MPI launcher has put there, for a process that may use MPI itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_PREFIXES)}
