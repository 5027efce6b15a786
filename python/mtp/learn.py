# SPDX-License-Identifier: BSD-3-Clause
"""Learn a potential: `learn` runs the loop of mtp.learning on all ranks of a communicator.

from mpi4py import MPI
from mtp.learn import learn
from mtp.settings import LearnSettings, load

settings = load("learn.toml", LearnSettings).resolve(Path())
rounds = learn(settings, say=print, comm=MPI.COMM_WORLD)
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

import mpi4py.MPI as MPI

from mtp.errors import Error
from mtp.learning.errand import Errand
from mtp.learning.loop import Loop
from mtp.learning.ranks import NotConverged, Stopped, end_all
from mtp.settings import LearnSettings

__all__ = ["NotConverged", "Stopped", "learn"]


def learn(
    settings: LearnSettings,
    say: Callable[[str], None] = lambda text: None,
    comm: MPI.Comm = MPI.COMM_WORLD,
    errand: Errand | None = None,
) -> list[dict]:
    """Run the loop to its end, or go on with it, and return its rounds (as in rounds.json) on every rank.

    Collective over `comm`. say: called on rank 0 with each line of progress. errand: see mtp.learning.errand.

    Raises NotConverged after the last round, and Error where the loop cannot go on: with several ranks Stopped, on all
    of them. What goes wrong on one rank alone, so that others may wait for it, ends all processes with its message.
    """
    loop = Loop(settings, say, comm, errand)
    try:
        loop.open()
        rounds = loop.run()
    except Stopped:
        raise
    except Exception as error:
        if comm.size == 1:
            raise
        if not isinstance(error, Error):
            traceback.print_exc()
        end_all(comm, str(error))
    finally:
        loop.close()
    return rounds
