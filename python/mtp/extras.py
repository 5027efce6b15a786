# SPDX-License-Identifier: BSD-3-Clause
"""Packages that come with the extras of this one. Each function gives the package, with the modules of it that are used
here, and raises NotApplicable with the command that installs it where it is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mtp.properties import NotApplicable


def phonopy(what: str = "phonons need", extra: str = "phonons") -> ModuleType:
    modules = ("phonopy.file_IO", "phonopy.structure.atoms", "phonopy.structure.cells", "phonopy.structure.symmetry")
    return _imported(what, extra, "phonopy", *modules)


def phono3py() -> ModuleType:
    return _imported("the Boltzmann transport equation needs", "conductivity", "phono3py", "phono3py.file_IO")


def skfem() -> ModuleType:
    return _imported("finite elements need", "conductivity", "skfem", package="scikit-fem")


def h5py() -> ModuleType:
    return _imported("files of samples need", "conductivity", "h5py")


def _imported(what: str, extra: str, name: str, *modules: str, package: str | None = None) -> ModuleType:
    try:
        found = import_module(name)
        for module in modules:
            import_module(module)
    except ImportError as error:
        raise NotApplicable(
            f'{what} the package {package or name} ({error}): pip install "pair-mtp[{extra}]"'
        ) from None
    return found
