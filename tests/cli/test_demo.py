"""``cdm4mi demo``: the first thing a user sees, with the model that ships."""

import re
import time

import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from cdm4mi.config import load_config
from cdm4mi.evaluation.demo import SLICES, demo_slices


def test_shipped_model_restores_the_real_slices(command, tmp_path):
    began = time.process_time()
    code, out, err = command("demo", "--out", tmp_path / "demo")
    assert code == 0, err
    # on a machine that has nothing else to do: the time of the processor, not of the wall
    assert time.process_time() - began < 60
    rows = re.findall(r"│ *([\w-]+) *│ *([\w -]+?) *│ *([\d.]+) *│ *([\d.]+) *│ *([\d.]+) *│", out)
    psnr = {(scan, method): float(value) for scan, method, value, _, _ in rows}
    assert {scan for scan, _ in psnr} == set(SLICES)
    for scan in SLICES:
        assert psnr[scan, "restored"] >= psnr[scan, "noisy"] + 4.0, scan
        assert psnr[scan, "restored"] >= psnr[scan, "non-local means"], scan
        restored = pydicom.dcmread(tmp_path / "demo" / f"{scan}-restored.dcm")
        original = pydicom.dcmread(get_testdata_file(SLICES[scan], download=False))
        assert (restored.Rows, restored.Columns) == (original.Rows, original.Columns)
        assert restored.ImageType[0] == "DERIVED"
        with Image.open(tmp_path / "demo" / f"{scan}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("L").getcolors(1 << 20) or []) > 50
    assert "Not for clinical use" in out


def test_a_second_run_replaces_the_first_and_a_seed_is_a_result(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("cdm4mi.evaluation.demo.SLICES", {"ct-spine": "CT_small.dcm"})
    first = demo_slices(tiny, tmp_path, seed=1)
    assert demo_slices(tiny, tmp_path, seed=1) == first
    other = demo_slices(tiny, tmp_path, seed=2)
    assert other != first
    assert [s.psnr for s in other] == pytest.approx([s.psnr for s in first], abs=1.0)
    noisy, nlm, restored = first
    assert (noisy.method, nlm.method, restored.method) == ("noisy", "non-local means", "restored")
    assert restored.psnr > noisy.psnr + 2


def test_a_model_trained_on_phantoms_restores_and_is_kept(command, tmp_path, monkeypatch):
    """``--train``, with 60 of its 900 steps and 8 of its 64 patients: 2 dB already; asked again, it trains no more."""
    monkeypatch.setattr("cdm4mi.evaluation.demo.SLICES", {"ct-spine": "CT_small.dcm"})
    monkeypatch.setattr("cdm4mi.data.sources.PHANTOM_PATIENTS", 8)
    short = load_config("phantom-small", ["max_tsteps=60", "val_patches=4"])
    monkeypatch.setattr("cdm4mi.config.load_config", lambda name: {"phantom-small": short}[name])
    outs = []
    for _ in range(2):
        code, out, err = command("demo", "--train", "--out", tmp_path / "demo")
        assert code == 0, err
        outs.append(re.findall(r"(noisy|restored) *│ *([\d.]+)", out))
    psnr = {method: float(value) for method, value in outs[0]}
    assert psnr["restored"] > psnr["noisy"] + 2
    assert outs[1] == outs[0]
    assert (tmp_path / "demo" / "trained" / "pictures" / "step-0000060.png").exists()


def test_training_and_a_model_are_not_asked_for_together(command, trained_run, tmp_path):
    code, out, err = command("demo", "--train", "--model", trained_run, "--out", tmp_path / "demo")
    assert (code, out) == (2, "")
    assert "--train and --model" in err
    assert err.count("\n") == 1
