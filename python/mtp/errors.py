# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong, as the user sees it: a message says what is wrong, where, and what to do about it."""

from __future__ import annotations

from typing import Literal

FailureReason = Literal["failed", "crashed", "time limit", "not converged", "nonsense"]


class Error(Exception):
    """Base of every error that is meant for the user; anything else that escapes is a defect of mtp."""


class FormatError(Error):
    """A file that cannot be understood.

    The message begins with "path:line: "; "path: " alone where the reader of another library found no line.
    """


class DataError(Error):
    """A configuration that cannot be used; the message names it by its file and its number in that file."""


class LibraryError(Error):
    """A refusal by the compiled library, in that library's own words."""


class LabellingError(Error):
    """A labeller that gave nothing usable for one configuration; the other configurations are not concerned.

    Attributes:
        reason: "failed" (the engine refused), "crashed" (its process ended, or was lost), "time limit", "not
            converged" (its self-consistency cycle), or "nonsense" (numbers that no sane calculation gives).
    """

    def __init__(self, message: str, reason: FailureReason):
        super().__init__(message)
        self.reason: FailureReason = reason

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.reason)
