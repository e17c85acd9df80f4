"""A noise is added by one file: the one of CONTRIBUTING.md, in a copy of the package, is found wherever noises are."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cdm4mi

ROOT = Path(__file__).parents[2]
SCRIPT = """
import contextlib, io, json, sys
import numpy as np, pytest
from cdm4mi.cli.main import run

out = {"heavy": "torch" in sys.modules, "help": io.StringIO()}
with contextlib.redirect_stdout(out["help"]), contextlib.suppress(SystemExit):
    sys.argv = ["cdm4mi", "noise", "--help"]
    run()
out["help"] = out["help"].getvalue()

import cdm4mi
from cdm4mi.config import parse_config
from cdm4mi.evaluation.benchmark.config import parse_benchmark
from cdm4mi.evaluation.benchmark.run import run_benchmark
from cdm4mi.io import Volume, write

noise = parse_config({}, ["data.noise.type=uniform", "width=[0.1, 0.3]"]).data.noise
out["section"], out["sigma"] = noise.model_dump(), noise.sigma_range()
for wrong in ({"width": -1}, {"widht": 1}):
    with pytest.raises(cdm4mi.UserError) as raised:
        parse_config({"data": {"noise": {"type": "uniform", **wrong}}}, where="run.yaml")
    out.setdefault("errors", []).append(str(raised.value))

rows, columns = np.mgrid[:64, :64] - 31.5
clean = np.where(np.hypot(rows, columns) < 25, 40.0, -1000.0).astype(np.float32)[None]
noisy = cdm4mi.add_noise(Volume(clean, np.eye(4), modality="CT"), "uniform width=0.3", seed=1).array - clean
out["added"] = [float(noisy.min()), float(noisy.max()), float(noisy.std())]

write(Volume(clean, np.eye(4), modality="CT"), "scan.nii.gz")
study = {"protocols": ["ct-1000"], "data": {"paths": ["scan.nii.gz"]}, "methods": [{"type": "noisy"}],
         "levels": [{"type": "gaussian"}, {"type": "uniform", "width": 0.2}]}
import pathlib
found = run_benchmark(parse_benchmark(study), pathlib.Path("study"))
out["levels"] = [(level.noise.described(), level.sigma[0]) for level in found.levels]
print("RESULT", json.dumps(out))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a program says that runs on a copy of the package with the file of CONTRIBUTING.md in it."""
    folder = tmp_path_factory.mktemp("with_uniform_noise")
    package = folder / "cdm4mi"
    shutil.copytree(Path(cdm4mi.__file__).parent, package, copy_function=os.symlink)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"## Add a noise.*?```python\n(.*?)```", text, flags=re.DOTALL)[1]
    (package / "degradation/noises/uniform.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("RESULT ")[1])


def test_in_the_configuration_with_messages(found):
    assert found["section"] == {"type": "uniform", "width": [0.1, 0.3]}
    assert found["sigma"] == pytest.approx([0.1 / 3**0.5, 0.3 / 3**0.5])
    assert found["errors"] == [
        "run.yaml: data.noise.width: found -1, expected at least 0",
        "run.yaml: unknown key 'data.noise.widht' of type uniform; the nearest known key is 'width'",
    ]


def test_in_the_help_which_needs_no_torch(found):
    assert not found["heavy"]
    assert re.search(r"--type.*\buniform\b.*or several", re.sub(r"[│\s]+", " ", found["help"]))
    assert re.search(r"--width .*uniform: half the width .* a number, or least,most", found["help"])


def test_on_a_scan(found):
    least, most, deviation = found["added"]  # in HU: the window of CT is 2000 wide
    assert -300 <= least < -295 and 295 < most <= 300
    assert deviation == pytest.approx(300 / 3**0.5, rel=0.02)


def test_in_a_study(found):
    (_, _), (described, sigma) = found["levels"]
    assert described == "uniform, width 0.2"
    assert sigma == pytest.approx(0.2 / 3**0.5, rel=0.02)
