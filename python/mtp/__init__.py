# SPDX-License-Identifier: BSD-3-Clause
"""Moment tensor potentials that learn while LAMMPS runs: fitting, extrapolation grades, active learning.

Units are eV, Å and eV/Å³ unless a name says otherwise.
"""


def __getattr__(name: str):
    # LAMMPS imports `mtp.plugin` at every start; what needs NumPy and the C library is loaded on first use.
    if name == "Potential":
        from mtp.potential import Potential

        return Potential
    if name == "MTP":
        from mtp.calculator import MTP

        return MTP
    if name == "__version__":
        from importlib.metadata import version

        return version("pair-mtp")
    raise AttributeError(f"module 'mtp' has no attribute '{name}'")
