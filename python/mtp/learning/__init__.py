# SPDX-License-Identifier: BSD-3-Clause
"""The learning loop in parts: `loop` leads; `crew` sends `walks` of LAMMPS (in `memory` or by `files`, from `scripts`)
through the space of configurations; `teacher` labels, fits and chooses; `folder` keeps what lasts."""
