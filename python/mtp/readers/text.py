# SPDX-License-Identifier: BSD-3-Clause
"""Text files read line by line, and what a reader says of a configuration that cannot be used."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mtp.errors import Error, FormatError

PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGED = (OSError, lzma.LZMAError, zlib.error)  # what unpacking raises; OSError is what a file system raises as well


@dataclass(frozen=True)
class Skip:
    """A configuration of a file that holds no usable labels, and why.

    unconverged: its electronic steps did not converge; the reason then needs no further words.
    """

    reason: str
    unconverged: bool = False


UNCONVERGED = Skip("electronic steps not converged", unconverged=True)
CUT_OFF = Skip("the file ends within it")


def opened(path: str | os.PathLike) -> IO[bytes]:
    """Open a file, plain or packed by gzip, bzip2 or xz as its name tells. Raises Error where it cannot be."""
    try:
        return PACKED.get(Path(path).suffix, open)(path, "rb")
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror or error}") from None


class Lines(Iterator[str]):
    """The lines of a text file, counted for messages. A packed file that was cut off ends where it was cut."""

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.number = 0
        self.lines = self._read()

    def _read(self) -> Iterator[str]:
        with opened(self.path) as file:
            try:
                for line in file:
                    self.number += 1
                    yield line.decode("utf-8")
            except EOFError:  # of gzip and its kin: the stream lacks its end
                return
            except UnicodeDecodeError:
                raise self.error("not text") from None
            except DAMAGED as error:
                raise Error(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def __next__(self) -> str:
        return next(self.lines)

    def error(self, message: str) -> FormatError:
        """An error at the line taken last."""
        return FormatError(f"{self.path}:{max(1, self.number)}: {message}")

    def integer(self, word: str, what: str) -> int:
        try:
            return int(word)
        except ValueError:
            raise self.error(f"{what}: {word!r} is not an integer") from None


def finite(words: Sequence[str]) -> np.ndarray | None:
    """The words as numbers, Fortran's D exponents included; None where one is no finite number."""
    try:
        values = np.array([float(word.replace("D", "E")) for word in words])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
