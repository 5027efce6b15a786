# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp/kk on a GPU: builds a LAMMPS for it, checks it against the CPU, measures.

    python benchmarks/gpu/gpu.py --lammps DIR --json gpu.json

DIR is a source tree of LAMMPS (4 Feb 2025 or newer); --kokkos names one of Kokkos where that has none of its own in
lib/kokkos. CUDA's nvcc, cmake, ninja and a C++ compiler must be on PATH. What is built stays in --work and is used
again. Without a GPU the script says so and ends with status 3; `--build` then builds all the same.

Copper on an fcc lattice of 3.61 Å, cutoff 5 Å, skin 1 Å, NVE at 300 K, one rank, random coefficients (speed depends on
the form of a potential alone); `snap/kk` with tungsten of 2Jmax 8 from LAMMPS' own potentials, and on request another
LAMMPS with another MTP style, in turn in the same call. Speeds are of whole steps, in millions of atom-steps a second
on the clock, best of --repeats. Beside them what a kernel needs of the device, as the compiler says, how many threads
of a multiprocessor that leaves, and the operations a second that the speed amounts to (counted as roofline.py does).
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from roofline import measure as count

from mtp.potential import Potential

PROJECT = Path(__file__).resolve().parents[2]
LEVELS = (8, 12, 16, 20)
SIZES = (8, 20, 50, 100)  # fcc cells along an edge: 2 k, 32 k, 500 k and 4 M atoms
PRECISIONS = ("double", "mixed")
VARIANTS = ("thread", "warp", "team")
KOKKOS_FLAGS = "-k on g 1 -sf kk -pk kokkos newton on neigh half"
PEAK_TFLOPS = {"double": 34.0, "mixed": 67.0}  # of an H200, without tensor cores
REGISTERS, WARPS = 65536, 64  # of a multiprocessor of it
KERNELS = ("AtomsOfTeams", "AtomsOfThreads", "LargestProducts")

# nvcc for what has to do with Kokkos; the rest is the host compiler's, which is ten times as fast
COMPILER = """#!/bin/bash
nvcc_wrapper={nvcc_wrapper}
source=
for word; do case $word in *.cpp|*.cxx|*.cc) source=$word;; esac; done
device() {{
  case " $* " in *" -arch="*) ;; *) set -- -arch=sm_{capability} "$@" ;; esac
  exec "$nvcc_wrapper" "$@"
}}
case " $* " in
*" -DMTP_KOKKOS "*) device "$@" ;;
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
SYSTEM = """
units metal
lattice fcc 3.61
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 63.546
"""
SNAP_SYSTEM = """
units metal
lattice bcc 3.1803
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 183.84
pair_style hybrid/overlay zbl 4.0 4.8 snap
pair_coeff 1 1 zbl 74 74
pair_coeff * * snap {potentials}/W_2940_2017_2.snapcoeff {potentials}/W_2940_2017_2.snapparam W
"""
RUN = """
neighbor 1.0 bin
neigh_modify every 20 delay 0 check no
velocity all create 300 4928459 loop geom
timestep 0.001
fix move all nve
thermo 1000
run {warm}
run {steps}
"""
CHECK = """
displace_atoms all random 0.15 0.15 0.15 77
compute each all pe/atom
compute six all stress/atom NULL virial
compute nine all centroid/stress/atom NULL virial
{grades}
dump out all custom 1 {out} id fx fy fz c_each c_six[*] c_nine[*] {grade}
dump_modify out sort id format float %.17g
thermo_style custom step pe press
run 0
"""


def main() -> int:
    options = arguments()
    gpu = name_of_gpu()
    if gpu is None:
        print("gpu.py: there is no GPU here (nvidia-smi finds none): nothing is measured", file=sys.stderr)
        if not options.build:
            return 3
    lmp, plugins = build(options)
    console = Console(width=150, highlight=False)
    needs = resources(plugins.with_suffix(".log"))
    show_resources(console, needs)
    if gpu is None:
        print(f"built: {lmp}, {plugins}")
        return 0
    environment = {**os.environ, "LAMMPS_PLUGIN_PATH": str(plugins)}
    place = options.work / "runs"
    place.mkdir(parents=True, exist_ok=True)
    potentials = {level: random_potential(level, place) for level in options.levels}
    check(lmp, environment, place, potentials)
    console.print("forces, energies, virials and grades agree with those of the CPU")
    counted = count(place, list(options.levels), 0.05)["potentials"]
    flop = {
        level: one["sweeps"]["flop"] + one["products"]["flop"]
        for level, one in zip(options.levels, counted, strict=True)
    }
    rows = measure(options, lmp, environment, place, flop)
    show(console, rows)
    if options.json:
        report = {"gpu": gpu, "rows": rows, "kernels": needs, "flop": flop}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lammps", type=Path, required=True, help="LAMMPS' sources")
    parser.add_argument("--kokkos", type=Path, help="Kokkos' sources; without, those that LAMMPS brings")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--work", type=Path, default=cache / "pair-mtp" / "gpu")
    parser.add_argument("--arch", default=None, help="compute capability, such as 90; without, that of the GPU, or 90")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", action="store_true", help="also where there is no GPU")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    parser.add_argument("--cells", type=int, nargs="+", default=SIZES, help="along an edge of the crystal")
    parser.add_argument("--variants", nargs="*", default=(), choices=VARIANTS, help="besides the automatic choice")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--peer-lmp", type=Path, help="a LAMMPS with another MTP style, built by hand")
    parser.add_argument("--peer-flags", default=KOKKOS_FLAGS, help="of its command line")
    parser.add_argument(
        "--peer-pair", action="append", default=[], help="its commands, in one word, {file} being the potential's"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work = options.work.absolute()
    options.kokkos = options.kokkos or options.lammps / "lib" / "kokkos"
    return options


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


# ---- build


def build(options: argparse.Namespace) -> tuple[Path, Path]:
    """lmp, and the folder of the plugins."""
    for program in ("nvcc", "cmake", "ninja"):
        if not shutil.which(program):
            sys.exit(f"gpu.py: {program} is not on PATH")
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    kokkos = adapted_kokkos(options.kokkos.absolute(), work / "kokkos-source")
    compiler = work / "compiler"
    capability = options.arch or (name_of_gpu() or "9.0").split(",")[-1].strip().replace(".", "")
    facts = {"nvcc_wrapper": kokkos / "bin" / "nvcc_wrapper", "host": os.environ.get("CXX", "g++")}
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
    stub = driver_stub(work)
    made(
        options,
        kokkos,
        work / "kokkos-build",
        common
        | stub
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
        | stub
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
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git"))
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.search(r"release (\d+)", nvcc)[1]) < 13 or version_of(copy) >= (5, 0):
        return copy
    path = copy / "core/src/Cuda/Kokkos_Cuda_Instance.hpp"
    text = path.read_text()
    location = "[&] { cudaMemLocation l{}; l.type = cudaMemLocationTypeDevice; l.id = %s; return l; }()"
    for old, new in (
        (r"(cudaGraphAddDependencies\(graph, from, to), ", r"\1, nullptr, "),
        (r"(cudaMemAdvise\(devPtr, count, advice), device\)", rf"\1, {location % 'device'})"),
        (r"(cudaMemPrefetchAsync\(devPtr, count), dstDevice,", rf"\1, {location % 'dstDevice'}, 0,"),
    ):
        text = re.sub(old, new, text)
    path.write_text(text)
    return copy


def pruned_lammps(source: Path, copy: Path) -> Path:
    """A copy without the styles of KOKKOS that MD of atoms does not need: nvcc is slow."""
    if copy.exists():
        return copy
    wanted = ("src", "cmake", "LICENSE", "potentials", "third_party")
    copy.mkdir()
    for name in wanted:
        if (source / name).is_dir():
            shutil.copytree(source / name, copy / name)
        elif (source / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, copy / name)
    tool = the_tool()
    kept = re.compile(rf"({tool.KEPT_OF_KOKKOS}|pair_snap_kokkos|pair_zbl_kokkos)(_impl)?\.")
    for path in (copy / "src" / "KOKKOS").iterdir():
        if re.match(rf"({tool.FAMILIES})_", path.name) and not kept.match(path.name):
            path.unlink()
    kept = re.compile(rf"pair_({tool.KEPT_OF_PAIRS})\.")
    for path in (copy / "src").glob("pair_*"):
        if not kept.match(path.name):
            path.unlink()
    return copy


def the_tool():
    """tools/kokkos_lammps, which knows what of LAMMPS is needed."""
    loader = importlib.machinery.SourceFileLoader("kokkos_lammps", str(PROJECT / "tools" / "kokkos_lammps"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kokkos_lammps", loader))
    loader.exec_module(module)
    return module


def driver_stub(work: Path) -> dict[str, object]:
    """Where there is no driver, something to link with in place of its library."""
    known = [Path(folder) for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64/stubs")]
    if any((folder / "libcuda.so").exists() for folder in known):
        return {}
    stub = work / "libcuda.so"
    subprocess.run(["gcc", "-shared", "-o", stub, "-x", "c", "/dev/null"], check=True)
    return {"CUDA_cuda_driver_LIBRARY": stub}


def architecture_of(capability: str) -> str:
    names = {
        "70": "VOLTA70",
        "80": "AMPERE80",
        "86": "AMPERE86",
        "89": "ADA89",
        "90": "HOPPER90",
        "100": "BLACKWELL100",
    }
    if capability not in names:
        sys.exit(f"gpu.py: compute capability {capability} is not among {', '.join(names)}")
    return names[capability]


# ---- check


def random_potential(level: int, place: Path) -> Path:
    potential = Potential.new(level, ["Cu"], cutoff=5.0, min_distance=1.8, n_chebyshev=8)
    potential.parameters = np.random.default_rng(level).normal(0, 1e-4, potential.facts.n_parameters)
    n = potential.facts.n_parameters
    potential.set_active_set(np.eye(n) + 0.1 * np.random.default_rng(1).normal(size=(n, n)), "neighbourhood")
    potential.save(place / f"{level}.almtp")
    return place / f"{level}.almtp"


def check(lmp: Path, environment: dict, place: Path, potentials: dict[int, Path]) -> None:
    """End where any of the variants differs from the plain style on the CPU."""
    for level, path in potentials.items():
        found = {}
        for how in ("plain", *VARIANTS, "automatic"):
            out = place / f"{how}.dump"
            variant = f" variant {how}" if how in VARIANTS else ""
            text = SYSTEM.format(cells=6) + f"pair_style mtp/extrapolation{variant}\npair_coeff * * {path} Cu\n"
            text += CHECK.format(out=out, grades="compute grade all mtp/grade", grade="c_grade")
            run(lmp, environment, place, text, KOKKOS_FLAGS if how != "plain" else "")
            lines = out.read_text().splitlines()[9:]
            found[how] = np.array([line.split() for line in lines], dtype=float)
        for how, one in found.items():
            scale = np.abs(found["plain"]).max(axis=0)
            worst = (np.abs(one - found["plain"]).max(axis=0) / scale).max()
            if not worst < 1e-9:
                sys.exit(f"gpu.py: level {level}, {how}: differs from the CPU by {worst:.1e}")


def run(lmp: Path, environment: dict, place: Path, text: str, flags: str) -> str:
    (place / "in.lmp").write_text(text)
    command = [lmp, *flags.split(), "-in", "in.lmp", "-log", "none"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gpu.py: {' '.join(map(str, command))} in {place} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


# ---- measure


def measure(
    options: argparse.Namespace, lmp: Path, environment: dict, place: Path, flop: dict[int, float]
) -> list[dict]:
    cases = []
    for level in options.levels:
        file = place / f"{level}.almtp"
        for precision in PRECISIONS:
            for variant in ("automatic", *options.variants):
                words = "" if variant == "automatic" else f" variant {variant}"
                pair = f"pair_style mtp{words} precision {precision}\npair_coeff * * {file} Cu\n"
                facts = {"style": "mtp/kk", "level": level, "precision": precision, "variant": variant}
                cases.append((facts, lmp, KOKKOS_FLAGS, SYSTEM + pair))
        Potential.load(file).save(place / f"{level}.mtp")
        for pair in options.peer_pair if options.peer_lmp else []:
            commands = pair.replace("{file}", str(place / f"{level}.mtp")).replace("\\n", "\n")
            facts = {"style": commands.splitlines()[0], "level": level, "precision": "double", "variant": "peer"}
            cases.append((facts, options.peer_lmp, options.peer_flags, SYSTEM + commands + "\n"))
    potentials = options.work / "lammps-source" / "potentials"
    if (potentials / "W_2940_2017_2.snapcoeff").exists():
        facts = {"style": "snap/kk", "level": "2Jmax 8", "precision": "double", "variant": "automatic"}
        cases.append((facts, lmp, KOKKOS_FLAGS, SNAP_SYSTEM.replace("{potentials}", str(potentials))))
    rows = []
    for cells in options.cells:
        for facts, program, flags, system in cases:
            atoms = cells**3 * (2 if "bcc" in system else 4)
            rate = speed(options, program, environment, place, system.format(cells=cells), flags, atoms)
            row = facts | {"atoms": atoms, "matom_steps_per_s": rate / 1e6}
            if facts["level"] in flop:
                row["tflops"] = rate * flop[facts["level"]] / 1e12
                row["of_peak"] = row["tflops"] / PEAK_TFLOPS[facts["precision"]]
            rows.append(row)
            print(f"{row}", file=sys.stderr, flush=True)
    return rows


def speed(
    options: argparse.Namespace, lmp: Path, environment: dict, place: Path, system: str, flags: str, atoms: int
) -> float:
    """Atom-steps a second, best of the repeats; the number of steps is such that they take the time asked for."""
    best, steps = 0.0, 20
    for _ in range(options.repeats + 1):
        output = run(lmp, environment, place, system + RUN.format(warm=20, steps=steps), flags)
        seconds = float(re.findall(r"^Loop time of (\S+)", output, re.MULTILINE)[-1])
        best = max(best, atoms * steps / seconds)
        steps = max(20, int(20 * round(options.seconds * best / atoms / 20)))
    return best


# ---- what kernels need


def resources(log: Path) -> list[dict]:
    """Registers, stack and spills of the kernels, from what ptxas said when the plugin was built."""
    kernel = re.compile(r"Compiling entry function '(\S+)'.*\n.*\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores")
    text = log.read_text(errors="replace")
    found = {}
    for part in text.split("ptxas info    : Compiling entry")[1:]:
        told = kernel.search(f"Compiling entry{part}")
        name = told and next((known for known in KERNELS if known in told[1]), None)
        if name is None:
            continue
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        found[told[1]] = {  # the latest of each
            "kernel": name,
            "precision": "mixed" if "6Single" in told[1] else "double",
            "graded": "Lb1E" in told[1],
            "registers": registers,
            "stack": int(told[2]),
            "spilled": int(told[3]),
            "warps": min(REGISTERS // (-(-registers // 8) * 8 * 32), WARPS),
        }
    return list(found.values())


def show_resources(console: Console, needs: list[dict]) -> None:
    columns = ("kernel", "precision", "with grades", "registers", "stack, bytes", "spilled, bytes")
    table = Table(*columns, f"warps of {WARPS} by registers")
    for one in needs:
        graded = "yes" if one["graded"] else ""
        numbers = (str(one[name]) for name in ("registers", "stack", "spilled", "warps"))
        table.add_row(one["kernel"], one["precision"], graded, *numbers)
    console.print(table)


def show(console: Console, rows: list[dict]) -> None:
    table = Table("style", "level", "precision", "variant", "atoms", "Matom-steps/s", "Tflop/s", "of peak")
    for row in rows:
        rate = f"{row['tflops']:.2f}" if "tflops" in row else ""
        share = f"{100 * row['of_peak']:.0f} %" if "of_peak" in row else ""
        words = (row["style"], str(row["level"]), row["precision"], row["variant"], str(row["atoms"]))
        table.add_row(*words, f"{row['matom_steps_per_s']:.2f}", rate, share)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
