"""``cdm4mi evaluate`` as a user meets it: files and folders in, a table with its range out, one line for a mistake."""

import csv
import re

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cdm4mi import io
from cdm4mi.cli.evaluate import evaluate
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation import compare as judge
from cdm4mi.measure.metrics import psnr, ssim

app = typer.Typer()
app.command()(evaluate)
AFFINE = np.diag([0.8, 0.7, 2.5, 1.0])


def save(path, slices, affine=AFFINE):
    """(slices, rows, columns) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.transpose(slices, (2, 1, 0)).astype(np.float32), affine), path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


def failure(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, UserError), result.output
    message = str(result.exception)
    assert "\n" not in message
    return message


@pytest.fixture
def scans(tmp_path):
    clean = np.stack([phantom("CT", seed, 96) for seed in (0, 1, 6)])
    rng = np.random.default_rng(0)
    noisy = clean + 150 * rng.standard_normal(clean.shape)
    pred = clean + 30 * rng.standard_normal(clean.shape)
    return [save(tmp_path / f"{n}.nii.gz", x) for n, x in (("pred", pred), ("ref", clean), ("noisy", noisy))]


def numbers(output, method):
    line = next(line for line in output.splitlines() if method in line)
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", line.replace("non-local", ""))]


def test_table_holds_each_method_and_the_range(scans):
    pred, ref, noisy = scans
    result = run(pred, ref, "--noisy", noisy)
    assert result.exit_code == 0, result.output
    x, y = (io.read(p).array.clip(-1000, 1000) for p in (pred, ref))
    whole = numbers(result.output, "prediction")
    assert whole[0] == pytest.approx(np.mean([psnr(a, b, 2000) for a, b in zip(x, y, strict=True)]), abs=0.01)
    assert whole[1] == pytest.approx(np.mean([ssim(a, b, 2000) for a, b in zip(x, y, strict=True)]), abs=1e-4)
    assert whole[2] == pytest.approx(np.abs(x - y).mean(), rel=1e-3)
    assert len(whole) == 6
    assert numbers(result.output, "non-local means")[0] > numbers(result.output, "noisy input")[0] + 2
    assert "Range: -1000 to 1000 HU, 2000 wide (default for CT, told from the values)" in result.output


def test_range_shifts_psnr_as_it_must(scans):
    pred, ref, _ = scans
    default = numbers(run(pred, ref, "--no-mask").output, "prediction")
    wide = run(pred, ref, "--range", -3000, 3000, "--no-mask")
    assert "-3000 to 3000 HU, 6000 wide (given)" in wide.output
    assert len(default) == 3
    # what the narrower window clips differs a little
    assert numbers(wide.output, "prediction")[0] - default[0] == pytest.approx(20 * np.log10(3), abs=2.0)


def test_mr_gets_the_references_percentiles_and_says_so(tmp_path):
    clean = phantom("MR", 3)[None]
    ref, pred = save(tmp_path / "r.nii", clean), save(tmp_path / "p.nii", clean + 10)
    result = run(pred, ref)
    assert f"0 to {np.percentile(clean, 99.5):g} scanner units" in result.output
    assert "percentiles 0 and 99.5 of the reference" in result.output


def test_folders_match_by_name_and_count_each_scan_once(tmp_path):
    rng = np.random.default_rng(1)
    for name, depth, sigma in (("a", 5, 20.0), ("b", 1, 80.0)):
        clean = np.stack([phantom("CT", s, 64) for s in range(depth)])
        save(tmp_path / "ref" / f"{name}.nii.gz", clean)
        save(tmp_path / "pred" / f"{name}.nii", clean + sigma * rng.standard_normal(clean.shape))
    save(tmp_path / "ref" / "unused.nii.gz", clean)
    out = tmp_path / "scores.csv"
    result = run(tmp_path / "pred", tmp_path / "ref", "--range", -3000, 3000, "--no-mask", "--csv", out)
    expected = 20 * np.log10(6000 / np.array([20.0, 80.0])).mean()
    assert numbers(result.output, "prediction")[0] == pytest.approx(expected, abs=0.3)  # 47.5 over slices alike
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["a"] * 5 + ["b"]
    assert rows[0]["range_low"] == "-3000"
    means = [np.mean([float(r["psnr"]) for r in rows if r["scan"] == s]) for s in "ab"]
    assert np.mean(means) == pytest.approx(numbers(result.output, "prediction")[0], abs=0.01)


def test_the_same_scan_stored_mirrored_is_the_same_scan(tmp_path, scans):
    _, ref, _ = scans
    volume = io.read(ref)
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] = AFFINE[:3, 0] * (volume.shape[-1] - 1)
    mirrored = save(tmp_path / "mirrored.nii.gz", volume.array[:, :, ::-1], flipped)
    rows = judge.compare("x", io.read(mirrored), volume)
    assert all(row.scores["mae"] == 0 for row in rows)


def test_mistakes_are_one_line(tmp_path, scans):
    pred, ref, _ = scans
    clean = io.read(ref).array
    small = save(tmp_path / "small.nii.gz", clean[:2])
    assert re.search(r"2 x 96 x 96 voxels, expected the 3 x 96 x 96", failure(small, ref))
    shifted = AFFINE.copy()
    shifted[0, 3] = 40
    assert "lies elsewhere" in failure(save(tmp_path / "shifted.nii.gz", clean, shifted), ref)
    assert "does not exist" in failure(tmp_path / "none.nii.gz", ref)
    assert "lower one first" in failure(pred, ref, "--range", 100, -100)
    broken = clean.copy()
    broken[1, 5, 5] = np.nan
    assert re.search(
        r"broken, slice 1, prediction: .*not finite", failure(save(tmp_path / "broken.nii.gz", broken), ref)
    )
    save(tmp_path / "p" / "a.nii.gz", clean)
    save(tmp_path / "r" / "b.nii.gz", clean)
    assert "no scan named a" in failure(tmp_path / "p", tmp_path / "r")
    assert "is one scan" in failure(tmp_path / "p", ref)
    (tmp_path / "empty").mkdir()
    assert "holds no scan" in failure(tmp_path / "empty", ref)
    constant = save(tmp_path / "constant.nii.gz", np.zeros_like(clean))
    assert "--range" in failure(pred, constant)
