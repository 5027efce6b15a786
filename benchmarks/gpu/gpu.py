# SPDX-License-Identifier: BSD-3-Clause
"""pair_style mtp/kk on a GPU: builds a LAMMPS for it, checks it against the CPU, measures.

    python benchmarks/gpu/gpu.py --lammps DIR --smoke
    python benchmarks/gpu/gpu.py --lammps DIR

DIR is a source tree of LAMMPS (4 Feb 2025 or newer); --kokkos names one of Kokkos where that has none of its own in
lib/kokkos. CUDA's nvcc, cmake, ninja and a C++ compiler must be on PATH. Everything stays in --work: a call that was
broken off, also in the middle of the build, goes on where it was, and takes what it has checked and measured with the
same plugin on the same GPU from the report, --json. --smoke: one level, one size, no SNAP. A case that fails is told
and written down, and the others go on; the status is then 1.

Where time on a GPU is short, build elsewhere, without one, for the same CUDA, and carry what was built:

    python benchmarks/gpu/gpu.py --lammps DIR --work /opt/mtp-gpu --build --arch 90 --pack built.tar.gz
    tar -C / -xzf built.tar.gz && python benchmarks/gpu/gpu.py --work /opt/mtp-gpu --no-build --smoke

The second line needs neither LAMMPS' sources nor the package mtp, but Python with numpy and rich, and nvidia-smi.
Without a GPU the script says so and ends with status 3.

Copper on an fcc lattice of 3.61 Å, cutoff 5 Å, skin 1 Å, NVE at 300 K, one rank, random coefficients (speed depends on
the form of a potential alone); `snap/kk` with tungsten of 2Jmax 8 from LAMMPS' own potentials, and on request another
LAMMPS with another MTP style, in turn in the same call. Speeds are of whole steps, in millions of atom-steps a second
on the clock, best of --repeats. Beside them what a kernel needs of the device, as the compiler says, how many threads
of a multiprocessor that leaves, and the operations a second that the speed amounts to (counted as roofline.py does).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from building import build, built_before, name_of_gpu, pack
from rich.console import Console
from rich.table import Table

LEVELS = (8, 12, 16, 20)
SIZES = (8, 20, 50, 100)  # fcc cells along an edge: 2 k, 32 k, 500 k and 4 M atoms
PRECISIONS = ("double", "mixed")
VARIANTS = ("thread", "warp", "team")
KOKKOS_FLAGS = "-k on g 1 -sf kk -pk kokkos newton on neigh half"
PEAK_TFLOPS = {"double": 34.0, "mixed": 67.0}  # of an H100 or H200, without tensor cores
REGISTERS, WARPS = 65536, 64  # of a multiprocessor of it
# Largest difference from the CPU, in units of the largest number of its kind: sums in another order; single precision
TOLERANCES = {"double": 1e-9, "mixed": 1e-4}
KERNELS = {  # by what their mangled names hold
    r"AtomsOfThreads": "thread",
    r"AtomsOfTeams.*?Lb[01]ELi32E": "warp",
    r"AtomsOfTeams.*?Lb[01]ELi128E": "team",
    r"AtomsOfTeams.*?Lb[01]ELi0E": "warp or team, table in the device's memory",
    r"LargestProducts": "products of rows and the inverse",
}
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


class Failed(Exception):
    """A run of LAMMPS that gave nothing; the message says what it said."""


def main() -> int:
    options = arguments()
    gpu = name_of_gpu()
    if gpu is None:
        print("gpu.py: there is no GPU here (nvidia-smi finds none): nothing is measured", file=sys.stderr)
        if not options.build:
            return 3
    lmp, plugins = built_before(options) if options.no_build else build(options)
    console = Console(width=150, highlight=False)
    needs = resources(plugins.with_suffix(".log"))
    show_resources(console, needs)
    place = options.work / "runs"
    place.mkdir(parents=True, exist_ok=True)
    potentials = {level: random_potential(level, place) for level in options.levels}
    flop = operations(options.levels, place)
    if options.pack:
        pack(options)
    if gpu is None:
        print(f"built: {lmp}, {plugins}")
        return 0
    libraries = [lmp.parent, options.work / "kokkos" / "lib", plugins, os.environ.get("LD_LIBRARY_PATH")]
    environment = {
        **os.environ,
        "LAMMPS_PLUGIN_PATH": str(plugins),
        "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libraries if folder),
    }
    report = Report(options.json, gpu, plugins / "mtpkkplugin.so")
    report.content |= {"kernels": needs, "flop": flop}
    check(options, lmp, environment, place, potentials, report)
    measure(options, lmp, environment, place, potentials, flop, report)
    show_checks(console, report.content["checks"])
    show(console, report.content["rows"])
    failed = report.failures()
    for one in failed:
        print(f"gpu.py: failed: {one}", file=sys.stderr)
    return 1 if failed else 0


class Report:
    """What was found so far, on disc after every case; that of another GPU or another build is begun anew."""

    def __init__(self, path: Path, gpu: str, plugin: Path) -> None:
        self.path = path
        begun = {"gpu": gpu, "plugin": hashlib.sha256(plugin.read_bytes()).hexdigest()[:16]}
        found = json.loads(path.read_text()) if path.exists() else {}
        same = all(found.get(name) == value for name, value in begun.items())
        if found and not same:
            path.rename(path.with_suffix(".old.json"))
        self.content = found if same else {**begun, "checks": [], "rows": []}

    def has(self, kind: str, facts: dict) -> bool:
        """Whether this case was done; one that failed is done again."""
        return any("error" not in one and facts.items() <= one.items() for one in self.content[kind])

    def add(self, kind: str, facts: dict, found: dict) -> None:
        others = [one for one in self.content[kind] if not facts.items() <= one.items()]
        self.content[kind] = [*others, facts | found]
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n")
        part.replace(self.path)
        print(f"gpu.py: {facts | found}", file=sys.stderr, flush=True)

    def failures(self) -> list[dict]:
        return [one for kind in ("checks", "rows") for one in self.content[kind] if "error" in one]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lammps", type=Path, help="LAMMPS' sources")
    parser.add_argument("--kokkos", type=Path, help="Kokkos' sources; without, those that LAMMPS brings")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--work", type=Path, default=cache / "pair-mtp" / "gpu")
    parser.add_argument("--arch", default=None, help="compute capability, such as 90; without, that of the GPU, or 90")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", action="store_true", help="also where there is no GPU")
    parser.add_argument("--no-build", action="store_true", help="take what --work holds")
    parser.add_argument("--pack", type=Path, help="write what was built into this archive (.tar.gz)")
    parser.add_argument("--smoke", action="store_true", help="level 8 and 32 k atoms alone, quickly")
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
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds that one run of LAMMPS may take")
    parser.add_argument("--json", type=Path, help="the report; without, gpu.json in --work")
    options = parser.parse_args()
    if options.lammps is None and not options.no_build:
        parser.error("--lammps is missing: a source tree of LAMMPS (or --no-build, where --work holds what was built)")
    if options.smoke:
        options.levels, options.cells, options.seconds, options.repeats = (8,), (20,), 1.0, 1
    options.work = options.work.absolute()
    options.json = options.json or options.work / "gpu.json"
    if options.lammps:
        options.kokkos = options.kokkos or options.lammps / "lib" / "kokkos"
    return options


# ---- check


def random_potential(level: int, place: Path) -> Path:
    path = place / f"{level}.almtp"
    if not path.exists():
        from mtp.potential import Potential  # not where potentials were made before

        potential = Potential.new(level, ["Cu"], cutoff=5.0, min_distance=1.8, n_chebyshev=8)
        n = potential.facts.n_parameters
        potential.parameters = np.random.default_rng(level).normal(0, 1e-4, n)
        potential.save(place / f"{level}.mtp")
        active = np.eye(n) + 0.1 * np.random.default_rng(1).normal(size=(n, n))
        potential.set_active_set(active, "neighbourhood")
        potential.save(path)
    return path


def operations(levels: list[int], place: Path) -> dict[int, float]:
    """Of an evaluation, by level, as roofline.py counts them; none where that cannot be built."""
    file = place / "flop.json"
    known = {int(level): flop for level, flop in json.loads(file.read_text()).items()} if file.exists() else {}
    missing = [level for level in levels if level not in known]
    if missing:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        try:
            from roofline import measure as count  # not where they were counted before

            counted = count(place, missing, 0.05)["potentials"]
        except (ImportError, OSError, subprocess.CalledProcessError) as failure:
            print(f"gpu.py: operations are not counted: {failure}", file=sys.stderr)
            return known
        for level, one in zip(missing, counted, strict=True):
            known[level] = one["sweeps"]["flop"] + one["products"]["flop"]
        file.write_text(json.dumps(known) + "\n")
    return known


def check(
    options: argparse.Namespace,
    lmp: Path,
    environment: dict,
    place: Path,
    potentials: dict[int, Path],
    report: Report,
) -> None:
    """All kernels, those with grades too, beside the plain style on the CPU."""
    for level, path in potentials.items():
        cases = [("mtp/extrapolation", variant, "double") for variant in VARIANTS]
        cases += [("mtp", variant, precision) for precision in PRECISIONS for variant in VARIANTS]
        expected = None
        for style, variant, precision in cases:
            facts = {"level": level, "style": f"{style}/kk", "variant": variant, "precision": precision}
            if report.has("checks", facts):
                continue
            try:
                if expected is None:
                    expected = evaluated(options, lmp, environment, place, path, "mtp/extrapolation", "")
                pair = f"{style} variant {variant} precision {precision}"
                found = evaluated(options, lmp, environment, place, path, pair, KOKKOS_FLAGS)
            except Failed as failure:
                report.add("checks", facts, {"error": str(failure)})
                continue
            of_plain = expected[:, : found.shape[1]]  # without the grade, where there is none
            worst = float((np.abs(found - of_plain).max(axis=0) / np.abs(of_plain).max(axis=0)).max())
            wrong = {} if worst < TOLERANCES[precision] else {"error": f"differs from the CPU by {worst:.1e}"}
            report.add("checks", facts, {"difference": worst} | wrong)


def evaluated(
    options: argparse.Namespace, lmp: Path, environment: dict, place: Path, potential: Path, pair: str, flags: str
) -> np.ndarray:
    """One row an atom: what CHECK dumps, and the grade, where the style has grades."""
    out = place / "out.dump"
    out.unlink(missing_ok=True)
    graded = pair.startswith("mtp/extrapolation")
    text = SYSTEM.format(cells=6) + f"pair_style {pair}\npair_coeff * * {potential} Cu\n"
    words = {"grades": "compute grade all mtp/grade", "grade": "c_grade"} if graded else {"grades": "", "grade": ""}
    run(options, lmp, environment, place, text + CHECK.format(out=out, **words), flags)
    return np.array([line.split() for line in out.read_text().splitlines()[9:]], dtype=float)


def run(options: argparse.Namespace, lmp: Path, environment: dict, place: Path, text: str, flags: str) -> str:
    (place / "in.lmp").write_text(text)
    command = [lmp, *flags.split(), "-in", "in.lmp", "-log", "none"]
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=options.timeout
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"took longer than --timeout {options.timeout:g} s") from None
    if done.returncode:
        (place / "failed.lmp").write_text(text)
        raise Failed(f"{' '.join(map(str, command))}, status {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


# ---- measure


def measure(
    options: argparse.Namespace,
    lmp: Path,
    environment: dict,
    place: Path,
    potentials: dict[int, Path],
    flop: dict[int, float],
    report: Report,
) -> None:
    cases = []
    for level, file in potentials.items():
        for precision in PRECISIONS:
            for variant in ("automatic", *options.variants):
                words = "" if variant == "automatic" else f" variant {variant}"
                pair = f"pair_style mtp{words} precision {precision}\npair_coeff * * {file} Cu\n"
                facts = {"style": "mtp/kk", "level": level, "precision": precision, "variant": variant}
                cases.append((facts, lmp, KOKKOS_FLAGS, SYSTEM + pair))
        for pair in options.peer_pair if options.peer_lmp else []:
            commands = pair.replace("{file}", str(file.with_suffix(".mtp"))).replace("\\n", "\n")
            facts = {"style": commands.splitlines()[0], "level": level, "precision": "double", "variant": "peer"}
            cases.append((facts, options.peer_lmp, options.peer_flags, SYSTEM + commands + "\n"))
    tungsten = options.work / "lammps-source" / "potentials"
    if (tungsten / "W_2940_2017_2.snapcoeff").exists() and not options.smoke:
        facts = {"style": "snap/kk", "level": "2Jmax 8", "precision": "double", "variant": "automatic"}
        cases.append((facts, lmp, KOKKOS_FLAGS, SNAP_SYSTEM.replace("{potentials}", str(tungsten))))
    known_peak = re.search("H[12]00", report.content["gpu"])
    for cells in options.cells:
        for of_case, program, flags, system in cases:
            atoms = cells**3 * (2 if "bcc" in system else 4)
            facts = of_case | {"atoms": atoms}
            if report.has("rows", facts):
                continue
            try:
                rate = speed(options, program, environment, place, system.format(cells=cells), flags, atoms)
            except Failed as failure:
                report.add("rows", facts, {"error": str(failure)})
                continue
            found = {"matom_steps_per_s": rate / 1e6}
            if facts["level"] in flop:
                found["tflops"] = rate * flop[facts["level"]] / 1e12
                if known_peak:
                    found["of_peak"] = found["tflops"] / PEAK_TFLOPS[facts["precision"]]
            report.add("rows", facts, found)


def speed(
    options: argparse.Namespace, lmp: Path, environment: dict, place: Path, system: str, flags: str, atoms: int
) -> float:
    """Atom-steps a second, best of the repeats; the number of steps is such that they take the time asked for."""
    best, steps = 0.0, 20
    for _ in range(options.repeats + 1):
        output = run(options, lmp, environment, place, system + RUN.format(warm=20, steps=steps), flags)
        times = re.findall(r"^Loop time of (\S+)", output, re.MULTILINE)
        if not times:
            raise Failed(f"no time in what LAMMPS printed: {output[-500:]}")
        seconds = float(times[-1])
        best = max(best, atoms * steps / seconds)
        if seconds > 3 * options.seconds:  # no shorter run is possible
            break
        steps = max(20, int(20 * round(options.seconds * best / atoms / 20)))
    return best


# ---- what kernels need


def resources(log: Path) -> list[dict]:
    """Registers, stack and spills of the kernels, from what ptxas said when the plugin was built."""
    kernel = re.compile(r"Compiling entry function '(\S+)'.*\n.*\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores")
    text = log.read_text(errors="replace") if log.exists() else ""
    found = {}
    for part in text.split("ptxas info    : Compiling entry")[1:]:
        told = kernel.search(f"Compiling entry{part}")
        name = told and next((name for pattern, name in KERNELS.items() if re.search(pattern, told[1])), None)
        if name is None:
            continue
        used = re.search(r"Used (\d+) registers", part)
        if used is None:
            continue
        bounds = re.search(r"LaunchBoundsILj\d+ELj(\d+)E", told[1])
        if bounds and int(bounds[1]) > 1:
            name += f", {bounds[1]} at once"
        registers = int(used[1])
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


def show_checks(console: Console, checks: list[dict]) -> None:
    table = Table("level", "style", "variant", "precision", "largest difference from the CPU", title="check")
    for one in checks:
        words = (str(one["level"]), one["style"], one["variant"], one["precision"])
        table.add_row(*words, f"{one['difference']:.1e}" if "difference" in one else "failed")
    console.print(table)


def show(console: Console, rows: list[dict]) -> None:
    table = Table("style", "level", "precision", "variant", "atoms", "Matom-steps/s", "Tflop/s", "of peak")
    for row in (row for row in rows if "error" not in row):
        rate = f"{row['tflops']:.2f}" if "tflops" in row else ""
        share = f"{100 * row['of_peak']:.0f} %" if "of_peak" in row else ""
        words = (row["style"], str(row["level"]), row["precision"], row["variant"], str(row["atoms"]))
        table.add_row(*words, f"{row['matom_steps_per_s']:.2f}", rate, share)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
