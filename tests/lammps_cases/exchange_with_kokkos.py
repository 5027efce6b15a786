# SPDX-License-Identifier: BSD-3-Clause
"""LAMMPS with mtp/extrapolation/kk: a watch keeps neighbourhoods and stops a run, the run goes back, other coefficients
come in through the C interface and the run goes on.

    python3 exchange_with_kokkos.py FOLDER VARIANT ...

setup.lmp is in the working folder, neighbourhood.almtp and other.almtp are in FOLDER. All variants must keep the same.
"""

import ctypes
import os
import sys
from pathlib import Path

from lammps import lammps

file = Path(sys.argv[1]) / "neighbourhood.almtp"
mtp = ctypes.CDLL(str(Path(os.environ["LAMMPS_PLUGIN_PATH"]) / "libmtp.so"))
mtp.mtp_last_error.restype = ctypes.c_char_p
KEPT = 10


class Facts(ctypes.Structure):
    """mtp_live_facts in mtp.h."""

    _fields_ = [
        ("lammps", ctypes.c_uint64),
        *((name, ctypes.c_int64) for name in ("version", "n_flagged", "n_dropped", "break_step")),
        ("highest_grade", ctypes.c_double),
        ("histogram", ctypes.c_int64 * 10),
    ]


class Flagged(ctypes.Structure):
    """mtp_flagged in mtp.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("step", "centre", "n_atoms")),
        ("grade", ctypes.c_double),
        ("cell", ctypes.c_double * 9),
        ("origin", ctypes.c_double * 3),
        ("periodic", ctypes.c_int32 * 3),
    ]


def call(name: str, *arguments) -> None:
    assert getattr(mtp, name)(*arguments) == 0, mtp.mtp_last_error()


def facts(handle) -> Facts:
    found = Facts()
    call("mtp_live_get_facts", handle, ctypes.byref(found))
    return found


def flagged(handle, index) -> tuple:
    """Step and centre, and of each atom tag, species, position and grade in the order of the distances."""
    kept, index = Flagged(), ctypes.c_int64(index)
    call("mtp_live_get_flagged", handle, index, ctypes.byref(kept), None, None, None, None)
    n = kept.n_atoms
    tags, species = (ctypes.c_int64 * n)(), (ctypes.c_int32 * n)()
    positions, grades = (ctypes.c_double * (3 * n))(), (ctypes.c_double * n)()
    call("mtp_live_get_flagged", handle, index, ctypes.byref(kept), tags, species, positions, grades)
    atoms = [(tags[k], species[k], *positions[3 * k : 3 * k + 3], grades[k]) for k in range(n)]
    atoms.sort(key=lambda atom: (round(sum(x * x for x in atom[2:5]), 6), atom[0]))
    return kept.step, kept.centre, atoms


def explored(variant: str, radius: float) -> tuple:
    """What a variant keeps; the step of the break; the energy after it with other coefficients."""
    run = lammps(cmdargs=["-screen", "none", "-log", "none", "-k", "on", "t", "2", "-sf", "kk"])
    run.file("setup.lmp")
    run.commands_string(f"""
    pair_style mtp/extrapolation variant {variant}
    pair_coeff * * {file} Si
    velocity all create 4000 6
    timestep 0.0001
    compute grade all mtp/grade
    thermo_style custom step pe c_grade
    thermo {KEPT}
    fix move all nve
    fix back all mtp/rollback {KEPT}
    """)
    handles, n = (ctypes.c_int64 * 4)(), ctypes.c_int32()
    call("mtp_live_list", 4, handles, ctypes.byref(n))
    assert n.value == 1
    handle = ctypes.c_int64(handles[0])
    version = facts(handle).version

    thresholds = ctypes.c_double(3.0), ctypes.c_double(12.0)
    call("mtp_live_watch", handle, *thresholds, ctypes.c_int64(2), ctypes.c_double(radius))
    run.command("run 5000")
    step = int(run.get_thermo("step"))
    assert facts(handle).break_step == step < 5000
    assert facts(handle).n_flagged == 2
    assert facts(handle).highest_grade > 12
    kept = [flagged(handle, index) for index in range(2)]

    # another potential of the same form, with its active set; the next run computes with it
    energy = run.get_thermo("pe")
    other = ctypes.c_void_p()
    call("mtp_potential_load", str(file.with_name("other.almtp")).encode(), ctypes.byref(other))
    call("mtp_live_clear", handle)
    call("mtp_live_set_potential", handle, other)
    assert facts(handle).version == version + 1
    run.command("run 0")
    exchanged = run.get_thermo("pe")
    assert abs(exchanged - energy) > 1e-3 * abs(energy)
    run.command(f"pair_coeff * * {file.with_name('other.almtp')} Si")
    run.command("run 0")
    assert abs(run.get_thermo("pe") - exchanged) < 1e-12 * abs(exchanged)  # threads of a device add in any order

    run.command("fix_modify back restore")
    trusted = int(run.get_thermo("step"))
    assert trusted < step
    call("mtp_live_watch", handle, ctypes.c_double(0), ctypes.c_double(0), ctypes.c_int64(0), ctypes.c_double(0))
    run.command("run 20")
    assert int(run.get_thermo("step")) == trusted + 20, (
        step,
        trusted,
        run.get_thermo("step"),
        facts(handle).break_step,
    )
    last = run.get_thermo("pe")
    run.close()
    assert mtp.mtp_live_get_facts(handle, ctypes.byref(Facts())) != 0  # dead with its LAMMPS
    return kept, step, trusted, last


def close(found, expected) -> bool:
    return all(abs(one - other) < 1e-7 * max(1, abs(other)) for one, other in zip(found, expected, strict=True))


for radius in (0.0, 7.5):  # whole configurations; neighbourhoods that reach over the box
    first, *others = [explored(variant, radius) for variant in sys.argv[2:]]
    for kept, *steps, last in others:
        assert steps == list(first[1:3])
        assert close([last], first[3:])
        for (step, centre, atoms), (expected_step, expected_centre, expected) in zip(kept, first[0], strict=True):
            assert (step, centre) == (expected_step, expected_centre)
            assert all(close(atom, other) for atom, other in zip(atoms, expected, strict=True))
print("exchanged")
