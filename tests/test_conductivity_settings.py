# SPDX-License-Identifier: BSD-3-Clause
"""What is refused before anything runs, and the inputs that a user starts from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import mpi4py.MPI as MPI
import numpy as np
import pytest
from conductivity_toys import ARGON, run, toy
from test_lammps import BIN

from mtp.conductivity.bte_settings import BteSettings
from mtp.conductivity.continuum_settings import ContinuumSettings
from mtp.conductivity.md import own_folder
from mtp.conductivity.settings import GreenKubo, Hnemd, Nemd
from mtp.errors import Error
from mtp.settings import LearnSettings, load

INPUTS = Path(__file__).parents[1] / "lammps_inputs" / "conductivity"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "conductivity"


# ---- what is refused


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (GreenKubo, {"pair": ["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"]}, "wrong"),
        (GreenKubo, {"pair": ["pair_style hybrid/overlay lj/cut 5 eam", "pair_coeff * * x"]}, "wrong"),
        (Hnemd, {"pair": ["pair_style sw", "pair_coeff * * Si.sw Si"]}, "nemd"),
        (GreenKubo, {"pair": ["units real", "pair_style lj/cut 5"]}, "only pair_style"),
        (GreenKubo, {"pair": ["pair_coeff * * 1 1"]}, "pair_style"),
        (GreenKubo, {"potential": "x.mtp"}, "either a `potential`"),
        (GreenKubo, {"intervall": 0.1}, "not known"),
        (GreenKubo, {"interval": 0.001}, "shorter than a step"),
        (Hnemd, {"interval": 0.001}, "shorter than a step"),
        (GreenKubo, {"timestep": 4.0}, "timestep"),
        (GreenKubo, {"chunk": 800.0}, "shorter than `chunk`"),
        (GreenKubo, {"temperature": -3}, "temperature"),
        (GreenKubo, {"other_repeat": [2, 2, 2]}, "must be smaller than"),
        (GreenKubo, {"other_repeat": [1, 1, 3]}, "longer in no direction"),
        (Hnemd, {"repeat": [4, 4, 1], "thickness": 3.4, "other_repeat": [2, 2, 2]}, "longer in no direction"),
        (Nemd, {"thickness": -3.4, "axis": "x"}, "thickness"),
        (Hnemd, {"fields": [0.01]}, "fields"),
        (Hnemd, {"fields": [0.02, 0.01]}, "must grow"),
        (Nemd, {"drive": "exchange"}, "power"),
        (Nemd, {"bins": 13}, "even"),
        (Nemd, {"interfaces": [0.1, 0.2]}, "at most one"),
        (Nemd, {"interfaces": [0.25]}, "do not repeat it along z"),
        (Nemd, {"interfaces": [0.25], "repeat": [2, 2, 1], "lengths": [1, 2]}, "leave out `lengths`"),
        (Nemd, {"thickness": 3.4}, "in the plane of a sheet"),
        (GreenKubo, {"thickness": 3.4}, "not repeated along z"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, model, changes, said):
    with pytest.raises(Error, match=said):
        toy(model, tmp_path, **changes)


def test_chunks_hold_the_whole_time(tmp_path):
    assert [toy(GreenKubo, tmp_path, time=time).n_chunks for time in (4.0, 5.6, 2.0, 0.81)] == [5, 7, 3, 2]


def test_files_of_pair_styles_are_beside_the_settings_and_compared_by_content(tmp_path):
    for name in ("one", "two words"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Ar.table").write_text("the same")
    (tmp_path / "one" / "Ar").write_text("a file that is called like an element")
    (tmp_path / "one" / "table").write_text("and one like a style")
    commands = ["pair_style table linear 1000", "pair_coeff * * Ar.table Ar 5.0"]
    one, two = (toy(Nemd, Path("run"), pair=commands).resolve(tmp_path / name) for name in ("one", "two words"))
    assert two.pair == [commands[0], f'pair_coeff * * "{tmp_path}/two words/Ar.table" Ar 5.0']
    assert one.form() == two.form()
    (tmp_path / "two words" / "Ar.table").write_text("another")
    assert one.form() != two.form()
    assert toy(Nemd, tmp_path).resolve(tmp_path).form()["pair"] == ARGON["pair"]


def test_any_pair_style_will_do_where_no_flux_is_read(tmp_path):
    settings = toy(Nemd, tmp_path, pair=["pair_style tersoff", "pair_coeff * * SiC.tersoff Si"])
    assert settings.pair[0] == "pair_style tersoff"


def test_lammps_own_words_are_passed_on(tmp_path):
    with pytest.raises(Error, match="LAMMPS refuses `pair_coeff"):
        run(toy(GreenKubo, tmp_path / "run", pair=["pair_style lj/cut 5.0", "pair_coeff * * too few"]))


def test_a_folder_where_nothing_has_run_takes_mended_settings(tmp_path):
    with pytest.raises(Error, match="too few"):
        run(toy(GreenKubo, tmp_path / "run", pair=["pair_style lj/cut 5.0", "pair_coeff * * too few"]))
    mended = toy(GreenKubo, tmp_path / "run")
    with own_folder(mended, MPI.COMM_SELF):
        assert json.loads((mended.folder / "settings.json").read_text()) == mended.form()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(Error, match=r"none\.mtp: cannot be read"):
        run(toy(GreenKubo, tmp_path / "run", pair=None, potential=str(tmp_path / "none.mtp")))


# ---- inputs that a user starts from


@pytest.mark.parametrize("name", ["01_green_kubo", "02_hnemd", "03_nemd"])
def test_plain_inputs_run(tmp_path, name):
    toy_size = {"potential": INPUTS.parent / "silicon" / "Si.mtp", "repeat": 2, "equilibration": 100, "steps": 200}
    toy_size |= {"samples": 10, "length": 6, "bins": 12}
    words = [str(word) for key, value in toy_size.items() for word in ("-var", key, value)]
    command = [BIN / "lmp", "-in", INPUTS / f"{name}.in", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    (printed,) = re.findall(r"^(?:kappa|flux) (-?[\d.e+-]+) ", done.stdout, re.MULTILINE)
    assert np.isfinite(float(printed))


@pytest.mark.parametrize("name", ["green_kubo", "green_kubo_gpu"])
def test_batch_scripts_name_what_there_is(name):
    text = (INPUTS / f"{name}.slurm").read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    commands = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    (plain,) = re.findall(r"-in \.\./(\S+)", commands)
    for variable in re.findall(r"-var (\w+)", commands):
        assert re.search(rf"^variable {variable} index", (INPUTS / plain).read_text(), re.MULTILINE)
    assert (INPUTS / "run_1" / re.search(r"-var potential (\S+)", commands)[1]).resolve().exists()


def test_the_batch_script_for_processors_runs(tmp_path):
    """Where SLURM would start it, with two ranks, less atoms and steps, and this environment."""
    folder = tmp_path / "conductivity"
    folder.mkdir()
    (tmp_path / "silicon").symlink_to(INPUTS.parent / "silicon")
    shutil.copy(INPUTS / "01_green_kubo.in", folder)
    text = (INPUTS / "green_kubo.slurm").read_text()
    text = re.sub(r"^source .*$", f'export PATH="{BIN}:$PATH"', text, flags=re.MULTILINE)
    text = text.replace("repeat 50", "repeat 2 -var equilibration 50 -var samples 10").replace("2000000", "100")
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "3", "SLURM_NTASKS": "2"}
    subprocess.run(["bash"], input=text, text=True, cwd=folder, env=environment, check=True, capture_output=True)
    assert np.isfinite(np.loadtxt(folder / "run_3" / "heat_flux.txt")).all()


@pytest.mark.parametrize(("name", "model"), [("green_kubo", GreenKubo), ("hnemd", Hnemd), ("nemd", Nemd)])
def test_settings_files_are_complete(name, model):
    settings = load(INPUTS / f"{name}.toml", model).resolve(INPUTS)
    assert settings.potential.exists()


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.toml")), ids=lambda file: file.stem)
def test_settings_of_benchmarks_are_understood(file):
    methods = {"hnemd": Hnemd, "nemd": Nemd, "interface": Nemd, "bte": BteSettings}
    load(file, methods.get(file.stem.rpartition("_")[2], GreenKubo)).resolve(BENCHMARKS)


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "heterostructure").glob("*.toml")), ids=lambda path: path.stem)
def test_settings_of_the_heterostructure_are_understood(path):
    models = {"graphene": Hnemd, "bc3": Hnemd, "interface": Nemd, "learn": LearnSettings, "phonons": BteSettings}
    load(path, models.get(path.stem.split("_")[0], ContinuumSettings)).resolve(path.parent)
