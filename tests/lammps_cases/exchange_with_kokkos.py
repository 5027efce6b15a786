# SPDX-License-Identifier: BSD-3-Clause
"""One LAMMPS with mtp/extrapolation/kk: a watch stops a run, and other coefficients come in through the C interface.

    python3 exchange_with_kokkos.py FOLDER

setup.lmp is in the working folder, neighbourhood.almtp and other.almtp are in FOLDER.
"""

import ctypes
import os
import sys
from pathlib import Path

from lammps import lammps

file = Path(sys.argv[1]) / "neighbourhood.almtp"
mtp = ctypes.CDLL(str(Path(os.environ["LAMMPS_PLUGIN_PATH"]) / "libmtp.so"))
mtp.mtp_last_error.restype = ctypes.c_char_p


class Facts(ctypes.Structure):
    """mtp_live_facts in mtp.h."""

    _fields_ = [
        ("lammps", ctypes.c_uint64),
        *((name, ctypes.c_int64) for name in ("version", "n_flagged", "n_dropped", "break_step")),
        ("highest_grade", ctypes.c_double),
        ("histogram", ctypes.c_int64 * 10),
    ]


def call(name: str, *arguments) -> None:
    assert getattr(mtp, name)(*arguments) == 0, mtp.mtp_last_error()


def facts() -> Facts:
    found = Facts()
    call("mtp_live_get_facts", handle, ctypes.byref(found))
    return found


run = lammps(cmdargs=["-screen", "none", "-log", "none", "-k", "on", "t", "2", "-sf", "kk"])
run.file("setup.lmp")
run.commands_string(f"""
pair_style mtp/extrapolation
pair_coeff * * {file} Si
velocity all create 4000 6
timestep 0.0001
compute grade all mtp/grade
thermo_style custom step pe c_grade
thermo 10
fix move all nve
""")
handles, n = (ctypes.c_int64 * 4)(), ctypes.c_int32()
call("mtp_live_list", 4, handles, ctypes.byref(n))
assert n.value == 1
handle = ctypes.c_int64(handles[0])
version = facts().version

call("mtp_live_watch", handle, ctypes.c_double(3.0), ctypes.c_double(12.0), ctypes.c_int64(2), ctypes.c_double(0))
run.command("run 5000")
step = int(run.get_thermo("step"))
assert facts().break_step == step < 5000
assert facts().n_flagged == 2
assert facts().highest_grade > 12

# another potential of the same form, with its active set; the next run computes with it
energy = run.get_thermo("pe")
other = ctypes.c_void_p()
call("mtp_potential_load", str(file.with_name("other.almtp")).encode(), ctypes.byref(other))
call("mtp_live_clear", handle)
call("mtp_live_set_potential", handle, other)
assert facts().version == version + 1
run.command("run 0")
exchanged = run.get_thermo("pe")
assert abs(exchanged - energy) > 1e-3 * abs(energy)
run.command(f"pair_coeff * * {file.with_name('other.almtp')} Si")
run.command("run 0")
assert run.get_thermo("pe") == exchanged
run.close()
assert mtp.mtp_live_get_facts(handle, ctypes.byref(Facts())) != 0  # dead with its LAMMPS
print("exchanged")
