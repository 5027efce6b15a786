# SPDX-License-Identifier: BSD-3-Clause
"""The C interface keeps its contract: documented, exported, versioned, silent, safe under threads and wrong use."""

import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mtp import library
from mtp.errors import LibraryError
from mtp.library import call, doubles, ffi
from mtp.live import LiveStyle, styles
from mtp.potential import Potential

HEADER = library.folder() / "mtp.h"
FUNCTION = re.compile(r"^(?:[\w ]+[ *])(mtp_\w+)\(", re.MULTILINE)


def contract():
    return HEADER.read_text().split("/* MTP_CFFI begin */")[1].split("/* MTP_CFFI end */")[0]


def declared():
    return FUNCTION.findall(contract())


def symbols(*options):
    if shutil.which("nm") is None:
        pytest.skip("nm is not on this machine")
    command = ["nm", "-D", "--format=posix", *options, library.folder() / "libmtp.so"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split()[0].split("@")[0] for line in done.stdout.splitlines()}


def test_the_header_declares_functions():
    names = declared()
    assert len(names) == len(set(names)) > 20
    assert len(names) == contract().count(");")


def test_every_function_is_exported():
    assert set(declared()) <= symbols("--defined-only")
    for name in declared():
        assert getattr(library._library, name)


def test_every_function_is_documented():
    """By a comment above it in its group; an empty line separates groups."""
    for name in declared():
        before = contract()[: re.search(rf"\b{name}\(", contract()).start()]
        group = re.split(r"\n\s*\n", before)[-1]
        assert group.lstrip().startswith("/*"), f"{name}: no comment stands above its group"


def test_every_array_is_explained():
    """Each `double *` or `int*_t *` of a declaration is spoken of in the comment of its group."""
    text = contract()
    for match in re.finditer(r"^mtp_status (mtp_\w+)\((.*?)\);", text, re.MULTILINE | re.DOTALL):
        arrays = re.findall(r"(?:double|int64_t|int32_t) \*(\w+)", match[2])
        comment = text[: match.start()].rsplit("/*", 1)[1]
        for array in arrays:
            assert re.search(rf"\b{array}\b", comment), f"{match[1]}: {array} is not explained"


def test_the_abi_version_is_the_one_that_python_expects():
    assert library._library.mtp_abi_version() == library.ABI_VERSION


def test_python_knows_every_status():
    values = re.findall(r"(MTP_(?:SUCCESS|ERROR_\w+)) = (\d+)", contract())
    assert [int(value) for _, value in values] == list(range(len(values)))
    assert {name: getattr(library._library, name) for name, _ in values} == {n: int(v) for n, v in values}


def test_the_library_neither_prints_nor_ends_the_process():
    forbidden = {"printf", "puts", "fputs", "putchar", "fprintf", "vfprintf", "perror", "exit", "_exit", "quick_exit"}
    forbidden |= {"abort", "raise", "__assert_fail", "_ZSt4cout", "_ZSt4cerr", "_ZSt4clog", "_ZSt9terminatev"}
    assert not symbols("--undefined-only") & forbidden


def test_it_needs_no_host():
    foreign = [
        name for name in symbols("--undefined-only") if re.match(r"(MPI_|Py|_ZN9LAMMPS_NS|lammps_|omp_|GOMP_)", name)
    ]
    assert foreign == []


def test_a_success_says_nothing(random_potential, random_atoms, capfd):
    potential, atoms = random_potential(("Cu",)), random_atoms(("Cu",))
    potential.evaluate(atoms)
    potential.select([atoms])
    with pytest.raises(LibraryError):
        Potential.load("missing.mtp")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("handle", [0, -1, 1, 12345678, 2**63 - 1, -(2**63)])
def test_a_dead_handle_is_an_error(handle, random_potential):
    dead, none = LiveStyle(handle), styles()
    assert none == []
    flagged = ffi.new("mtp_flagged *")
    for use in (
        lambda: dead.facts,
        lambda: dead.watch(2.0, 10.0),
        dead.clear,
        dead.flagged,
        lambda: dead.set_potential(random_potential(("Cu",))),
        lambda: call("live_get_flagged", handle, 0, flagged, *[ffi.NULL] * 4),
    ):
        with pytest.raises(LibraryError, match=rf"handle {handle} is dead"):
            use()
    status = library._library.mtp_live_clear(handle)
    assert status == library._library.MTP_ERROR_DEAD_HANDLE


def test_a_status_tells_the_kind_of_error(random_potential, random_atoms, tmp_path):
    lib, handle = library._library, ffi.new("mtp_potential **")
    (tmp_path / "a.mtp").write_text("nonsense")
    assert lib.mtp_potential_load(str(tmp_path / "a.mtp").encode(), handle) == lib.MTP_ERROR_FORMAT
    assert lib.mtp_potential_load(str(tmp_path / "b.mtp").encode(), handle) == lib.MTP_ERROR_FILE
    form = ffi.new("mtp_form *", {"level": 8, "n_species": 0, "n_chebyshev": 8, "cutoff": 5.0})
    assert lib.mtp_potential_new(form, handle) == lib.MTP_ERROR_ARGUMENT
    assert handle[0] == ffi.NULL
    potential = random_potential(("Cu",))
    rows = np.zeros((potential.facts.n_parameters,) * 2)
    assert lib.mtp_active_set_set(potential.handle, 0, doubles(rows)) == lib.MTP_ERROR_NUMERICAL
    lib.mtp_potential_free(ffi.NULL)  # as free()


@pytest.mark.parametrize(
    "form",
    [
        {"n_species": 0},
        {"n_species": -1},
        {"n_chebyshev": 0},
        {"n_chebyshev": 2**31 - 1},
        {"n_species": 2**31 - 1},
        {"n_species": 2**31 - 1, "n_chebyshev": 2**31 - 1},
        {"cutoff": 0.5},
        {"cutoff": float("nan")},
        {"cutoff": float("inf")},
        {"min_distance": -0.1},
        {"min_distance": float("nan")},
        {"level": 1},
        {"level": -(2**31)},
    ],
)
def test_a_form_out_of_range_is_refused(form):
    whole = {"level": 8, "n_species": 1, "n_chebyshev": 8, "min_distance": 1.0, "cutoff": 5.0, **form}
    with pytest.raises(LibraryError):
        library.new_potential("potential_new", ffi.new("mtp_form *", whole))


def neighbourhoods_of(near, **changes):
    return type(near)(**{**{name: getattr(near, name) for name in near.__dataclass_fields__}, **changes})


def test_indices_out_of_range_are_refused(random_potential, random_atoms):
    potential, atoms = random_potential(("Cu",)), random_atoms(("Cu",))
    near, n = potential.neighbourhoods(atoms), len(atoms)
    outputs = [np.empty(n), np.empty((n, 3)), np.empty((3, 3))]
    for name, values in (("species", (-1, 1, 2**31 - 1)), ("neighbour", (-1, n, 2**31 - 1))):
        for value in values:
            wrong = getattr(near, name).copy()
            wrong[3] = value
            with pytest.raises(LibraryError, match=str(value)):
                call(
                    "evaluate",
                    potential.handle,
                    neighbourhoods_of(near, **{name: wrong}).as_c(),
                    *map(doubles, outputs),
                )


def test_vectors_that_are_no_numbers_are_refused_and_far_ones_ignored(random_potential, random_atoms):
    potential, atoms = random_potential(("Cu",)), random_atoms(("Cu",))
    near, n = potential.neighbourhoods(atoms), len(atoms)
    outputs = [np.empty(n), np.empty((n, 3)), np.empty((3, 3))]
    wrong = near.vectors.copy()
    wrong[5, 1] = np.nan
    with pytest.raises(LibraryError, match=r"atom 0: .* NaN"):
        call("evaluate", potential.handle, neighbourhoods_of(near, vectors=wrong).as_c(), *map(doubles, outputs))
    wrong[5, 1] = 1e300  # its square is infinite
    call("evaluate", potential.handle, neighbourhoods_of(near, vectors=wrong).as_c(), *map(doubles, outputs))
    assert all(np.isfinite(output).all() for output in outputs)


def test_what_python_lends_must_have_the_right_type():
    for array in (np.zeros(3, np.float32), np.zeros((4, 4))[:, ::2], np.zeros((4, 3)).T):
        with pytest.raises(TypeError, match="C-contiguous"):
            doubles(array)


def test_four_threads_get_the_results_of_one(random_potential, random_atoms):
    potential = random_potential(("Cu", "O"), level=12)
    potential.select([random_atoms(("Cu", "O"), seed=k) for k in range(4)])
    configurations = [random_atoms(("Cu", "O"), seed=k, repeat=(2, 2, 3)) for k in range(40)]

    def work(atoms):
        result, jacobian = potential.evaluate(atoms), potential.jacobian(atoms, linear_only=True)
        parts = (result.energies, result.forces, result.virial, jacobian.forces, potential.grade(atoms).per_atom)
        return b"".join(part.tobytes() for part in parts)

    alone = [work(atoms) for atoms in configurations]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, configurations)) == alone  # bit by bit


def test_every_thread_has_its_own_message():
    barrier = threading.Barrier(4)

    def work(name):
        raised = []
        for k in range(50):
            status = library._library.mtp_potential_load(f"{name}{k}.mtp".encode(), ffi.new("mtp_potential **"))
            barrier.wait()
            raised.append((status, ffi.string(library._library.mtp_last_error()).decode().split(":")[0]))
            barrier.wait()
        return raised

    with ThreadPoolExecutor(4) as pool:
        for name, raised in zip("abcd", pool.map(work, "abcd"), strict=True):
            assert raised == [(library._library.MTP_ERROR_FILE, f"{name}{k}.mtp") for k in range(50)]


def test_a_copy_is_independent_and_outlives_the_original(random_potential, random_atoms):
    original, atoms = random_potential(("Cu",)), random_atoms(("Cu",))
    energy = original.evaluate(atoms).energy
    copy = original.copy()
    original.parameters = 2 * original.parameters
    assert copy.evaluate(atoms).energy == energy != original.evaluate(atoms).energy
    del original
    assert copy.evaluate(atoms).energy == energy


def test_many_potentials_leave_no_memory_behind(random_potential):
    resource = pytest.importorskip("resource")
    potential = random_potential(("Cu", "O"), level=12)
    n = potential.facts.n_parameters
    potential.set_active_set(np.eye(n), "neighbourhood")  # two matrices
    copies = [potential.copy() for _ in range(20)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del copies
    for _ in range(3000):
        potential.copy()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 100 * 2 * 8 * n * n / 1024  # kB: less than 100 of the 3000 copies
