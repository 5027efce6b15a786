# SPDX-License-Identifier: BSD-3-Clause
"""The one module that touches cffi: libmtp's functions.

Status codes become exceptions, and handles are freed by themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import cffi
import numpy as np

from mtp.errors import Error, LibraryError

ABI_VERSION = 4


def folder() -> Path:
    """Folder of libmtp.so, mtpplugin.so and mtp.h: beside this module, or $MTP_LIBRARY_PATH (a build tree)."""
    return Path(os.environ.get("MTP_LIBRARY_PATH") or Path(__file__).parent / "lib")


def _open():
    place = folder()
    header = place / "mtp.h"
    if not header.is_file():
        raise Error(f"{header} is missing: the package is not installed completely; `pip install .` builds it")
    declarations = header.read_text().split("/* MTP_CFFI begin */")[1].split("/* MTP_CFFI end */")[0]
    ffi = cffi.FFI()
    ffi.cdef(declarations)
    library = ffi.dlopen(str(place / "libmtp.so"))
    if library.mtp_abi_version() != ABI_VERSION:
        raise Error(
            f"{place / 'libmtp.so'} has ABI version {library.mtp_abi_version()}, the Python package expects "
            f"{ABI_VERSION}; install both from one release"
        )
    return ffi, library


ffi, _library = _open()
NULL = ffi.NULL


def call(function: str, *arguments) -> None:
    """Call `mtp_<function>`; raise LibraryError with the library's own message where it fails. Releases the GIL."""
    status = getattr(_library, "mtp_" + function)(*arguments)
    if status != _library.MTP_SUCCESS:
        raise LibraryError(ffi.string(_library.mtp_last_error()).decode(errors="replace"))


def new_potential(function: str, *arguments):
    """Call a function whose last argument returns a potential; the potential is freed with the object."""
    handle = ffi.new("mtp_potential **")
    call(function, *arguments, handle)
    return ffi.gc(handle[0], _library.mtp_potential_free)


def doubles(array: np.ndarray):
    """Borrow a C-contiguous float64 array."""
    return _borrow("double *", array, np.float64)


def int32s(array: np.ndarray):
    """Borrow a C-contiguous int32 array."""
    return _borrow("int32_t *", array, np.int32)


def int64s(array: np.ndarray):
    """Borrow a C-contiguous int64 array."""
    return _borrow("int64_t *", array, np.int64)


def _borrow(kind: str, array: np.ndarray, dtype: type):
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"want a C-contiguous array of {np.dtype(dtype)}, got {array.dtype}")
    return ffi.cast(kind, array.ctypes.data)
