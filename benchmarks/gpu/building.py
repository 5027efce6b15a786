# SPDX-License-Identifier: BSD-3-Clause
"""Builds Kokkos, a LAMMPS and the plugins for CUDA, for gpu.py; also where there is no GPU."""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# nvcc for what has to do with Kokkos; the rest is the host compiler's, which is ten times as fast
COMPILER = """#!/bin/bash
nvcc_wrapper={nvcc_wrapper}
source=
for word; do case $word in *.cpp|*.cxx|*.cc) source=$word;; esac; done
device() {{
  case " $* " in *" -arch="*) ;; *) set -- -arch=sm_{capability} "$@" ;; esac
  exec "$nvcc_wrapper" "$@"
}}
case " $source $* " in
*" {kokkos}/"* | *" -DMTP_KOKKOS "*) device "$@" ;;
*" -c "*) ;;
*) device "$@" ;;
esac
if [ -z "$source" ] || grep -qiE '#include.*(kokkos|"style_|cuda)' "$source"; then device "$@"; fi
plain=()
while [ $# -gt 0 ]; do
  case $1 in
  -Xptxas=*|-arch=*|-extended-lambda|--extended-lambda|-Wext-lambda-captures-this) ;;
  --expt-*|--relocatable-device-code=*) ;;
  -Xcudafe) shift ;;
  *) plain+=("$1") ;;
  esac
  shift
done
exec {host} "${{plain[@]}}"
"""


def name_of_gpu() -> str | None:
    """Name and compute capability of the first; None where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def built_before(options: argparse.Namespace) -> tuple[Path, Path]:
    """lmp, and the folder of the plugins, that an earlier call built."""
    lmp, plugins = options.work / "lammps-build" / "lmp", options.work / "plugins"
    for needed in (lmp, plugins / "mtpplugin.so", plugins / "mtpkkplugin.so"):
        if not needed.exists():
            sys.exit(f"gpu.py: --no-build: there is no {needed}; build it first, and give the same --work")
    return lmp, plugins


def pack(options: argparse.Namespace) -> None:
    """What runs need, with the paths that it has from the root folder: programs find their libraries there."""
    names = ("lammps-build/lmp", "lammps-build/liblammps.so*", "kokkos/lib*/*.so*", "plugins/*.so")
    names += ("plugins.log", "runs/*mtp", "runs/flop.json", "lammps-source/potentials/W_2940_2017_2.*")
    with tarfile.open(options.pack, "w:gz") as archive:
        for path in (path for name in names for path in sorted(options.work.glob(name))):
            archive.add(path, arcname=str(path)[1:])
    print(f"gpu.py: packed into {options.pack}, {options.pack.stat().st_size / 2**20:.0f} MiB: tar -C / -xzf ...")


def build(options: argparse.Namespace) -> tuple[Path, Path]:
    """lmp, and the folder of the plugins."""
    for program in ("nvcc", "cmake", "ninja"):
        if not shutil.which(program):
            sys.exit(f"gpu.py: {program} is not on PATH")
    for option, folder in (("--lammps", options.lammps / "cmake"), ("--kokkos", options.kokkos)):
        if not (folder / "CMakeLists.txt").exists():
            sys.exit(f"gpu.py: {option} is to name a tree of sources, but there is no {folder / 'CMakeLists.txt'}")
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    kokkos = adapted_kokkos(options.kokkos.absolute(), work / "kokkos-source")
    compiler = work / "compiler"
    capability = options.arch or (name_of_gpu() or "9.0").split(",")[-1].strip().replace(".", "")
    facts = {"kokkos": kokkos, "nvcc_wrapper": kokkos / "bin" / "nvcc_wrapper", "host": os.environ.get("CXX", "g++")}
    compiler.write_text(COMPILER.format(capability=capability, **facts))
    compiler.chmod(0o755)
    lammps = pruned_lammps(options.lammps.absolute(), work / "lammps-source")
    standard = 20 if version_of(kokkos) >= (5, 0) else 17
    common = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_CXX_STANDARD": standard,
        "BUILD_SHARED_LIBS": "ON",
    }
    driver = stand_in_for_driver(work)
    made(
        options,
        kokkos,
        work / "kokkos-build",
        common
        | driver
        | {
            "Kokkos_ENABLE_CUDA": "ON",
            "Kokkos_ENABLE_SERIAL": "ON",
            f"Kokkos_ARCH_{architecture_of(capability)}": "ON",
            "CMAKE_INSTALL_PREFIX": work / "kokkos",
        },
        target="install",
    )
    made(
        options,
        lammps / "cmake",
        work / "lammps-build",
        common
        | driver
        | {
            "Kokkos_ROOT": work / "kokkos",
            "EXTERNAL_KOKKOS": "ON",
            "PKG_KOKKOS": "ON",
            "PKG_PLUGIN": "ON",
            "PKG_ML-SNAP": "ON",
            "FFT_KOKKOS": "KISS",
            "BUILD_MPI": "OFF",
            "BUILD_OMP": "OFF",
            "DOWNLOAD_POTENTIALS": "OFF",
            **{f"WITH_{library}": "OFF" for library in ("JPEG", "PNG", "FFMPEG", "CURL", "GZIP")},
        },
    )
    made(
        options,
        PROJECT,
        work / "plugins",
        common
        | {
            "LAMMPS_SOURCE_DIR": lammps / "src",
            "LAMMPS_BUILD_DIR": work / "lammps-build",
            "Kokkos_ROOT": work / "kokkos",
            "CMAKE_CXX_FLAGS": "-Xptxas=-v",
        },
    )
    return work / "lammps-build" / "lmp", work / "plugins"


def made(
    options: argparse.Namespace, source: Path, folder: Path, settings: dict[str, object], target: str = "all"
) -> None:
    """Configure and build what has changed; the log of all builds is beside the folder."""
    log = folder.with_suffix(".log")
    print(f"gpu.py: building {folder.name} ...", flush=True)
    words = [f"-D{name}={value}" for name, value in settings.items()]
    with log.open("a") as out:
        for command in (
            ["cmake", "-S", source, "-B", folder, "-G", "Ninja", *words],
            ["cmake", "--build", folder, "--target", target, f"-j{options.jobs}"],
        ):
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
                lines = log.read_text(errors="replace").splitlines()
                told = [line for line in lines if "error" in line.lower()][:10] or lines[-15:]
                sys.exit("\n".join([f"gpu.py: {folder.name} could not be built; see {log}:", *told]))


def version_of(kokkos: Path) -> tuple[int, ...]:
    found = dict(re.findall(r"set\(Kokkos_VERSION_(MAJOR|MINOR) (\d+)\)", (kokkos / "CMakeLists.txt").read_text()))
    return int(found["MAJOR"]), int(found["MINOR"])


def adapted_kokkos(source: Path, copy: Path) -> Path:
    """A copy that CUDA 13 compiles: three of its functions have new signatures, which Kokkos 5 knows."""
    if copy.exists():
        return copy
    part = begun(copy)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns(".git"))
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.search(r"release (\d+)", nvcc)[1]) < 13 or version_of(part) >= (5, 0):
        return part.rename(copy)
    path = part / "core/src/Cuda/Kokkos_Cuda_Instance.hpp"
    text = path.read_text()
    location = "[&] { cudaMemLocation l{}; l.type = cudaMemLocationTypeDevice; l.id = %s; return l; }()"
    for old, new in (
        (r"(cudaGraphAddDependencies\(graph, from, to), ", r"\1, nullptr, "),
        (r"(cudaMemAdvise\(devPtr, count, advice), device\)", rf"\1, {location % 'device'})"),
        (r"(cudaMemPrefetchAsync\(devPtr, count), dstDevice,", rf"\1, {location % 'dstDevice'}, 0,"),
    ):
        text = re.sub(old, new, text)
    path.write_text(text)
    return part.rename(copy)


def begun(copy: Path) -> Path:
    """Where to make it: one that was never finished is not taken for one."""
    part = copy.with_name(f"{copy.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    return part


def pruned_lammps(source: Path, copy: Path) -> Path:
    """A copy without the styles of KOKKOS that MD of atoms does not need: nvcc is slow."""
    if copy.exists():
        return copy
    part = begun(copy)
    wanted = ("src", "cmake", "LICENSE", "potentials", "third_party")
    part.mkdir()
    for name in wanted:
        if (source / name).is_dir():
            shutil.copytree(source / name, part / name)
        elif (source / name).exists():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, part / name)
    tool = the_tool()
    kept = re.compile(rf"({tool.KEPT_OF_KOKKOS}|pair_snap_kokkos|pair_zbl_kokkos)(_impl)?\.")
    for path in (part / "src" / "KOKKOS").iterdir():
        if re.match(rf"({tool.FAMILIES})_", path.name) and not kept.match(path.name):
            path.unlink()
    kept = re.compile(rf"pair_({tool.KEPT_OF_PAIRS})\.")
    for path in (part / "src").glob("pair_*"):
        if not kept.match(path.name):
            path.unlink()
    return part.rename(copy)


def the_tool():
    """tools/kokkos_lammps, which knows what of LAMMPS is needed."""
    loader = importlib.machinery.SourceFileLoader("kokkos_lammps", str(PROJECT / "tools" / "kokkos_lammps"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kokkos_lammps", loader))
    loader.exec_module(module)
    return module


def stand_in_for_driver(work: Path) -> dict[str, object]:
    """Where there is no driver, something to link with in place of its library: it has its name alone, and programs
    that were linked with it find the library itself where they run."""
    known = [Path(folder) for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64/stubs")]
    if any((folder / "libcuda.so").exists() for folder in known):
        return {}
    empty = work / "libcuda.so"
    subprocess.run(["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", empty, "-x", "c", "/dev/null"], check=True)
    flags = f"-Wl,--no-as-needed,{empty} -Wl,--unresolved-symbols=ignore-in-shared-libs"
    return {"CUDA_cuda_driver_LIBRARY": empty, "CMAKE_EXE_LINKER_FLAGS": flags}


def architecture_of(capability: str) -> str:
    names = {
        "70": "VOLTA70",
        "75": "TURING75",
        "80": "AMPERE80",
        "86": "AMPERE86",
        "89": "ADA89",
        "90": "HOPPER90",
        "100": "BLACKWELL100",
        "120": "BLACKWELL120",
    }
    if capability not in names:
        sys.exit(f"gpu.py: compute capability {capability} is not among {', '.join(names)}")
    return names[capability]
