# SPDX-License-Identifier: BSD-3-Clause
"""Errors of a learned potential on configurations that the loop has not seen, by the engine that it learned from.

    python benchmarks/learning/reference_errors.py learn.toml run/potential.almtp frames.extxyz --folder DIR

Labels the configurations as `mtp learn learn.toml` would, in a data set of their own (the same command goes on after an
interruption), and compares. `target_K` in the configurations' comment lines is told with the errors of each.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

from mtp import Potential
from mtp.configurations import read
from mtp.database import Dataset
from mtp.evaluation import compare
from mtp.labelling import label_pending
from mtp.settings import LearnSettings, load


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("settings", type=Path)
    options.add_argument("potential", type=Path)
    options.add_argument("frames", type=Path)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--json", type=Path)
    given = options.parse_args()

    settings = load(given.settings, LearnSettings).resolve(given.settings.parent)
    frames, potential = read(given.frames), Potential.load(given.potential)
    given.folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(given.folder / "dataset.db")
    for k, atoms in enumerate(frames):
        dataset.add_candidate(atoms, 0, f"{k}")
    label_pending(dataset, settings.labelling, settings.species, print)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)

    labelled, found = dataset.labelled(), []
    for atoms in labelled:
        errors = compare(potential, [atoms]).summary()
        facts = {
            "target_K": frames[int(atoms.info["origin"])].info.get("target_K"),
            "grade": potential.grade(atoms).maximum,
            "energy_meV_per_atom": 1e3 * errors["energy_per_atom_eV"]["mae"],
            "force_eV_per_A": errors["force_eV_per_A"]["rmse"],
            "force_of_the_reference_eV_per_A": float((atoms.get_forces() ** 2).mean() ** 0.5),
        }
        found.append(facts)
        print(json.dumps(facts))
    result = {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "all": compare(potential, labelled).summary(),
        "each": found,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "each"}))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
