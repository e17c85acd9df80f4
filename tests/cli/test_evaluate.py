"""``cdm4mi evaluate`` as a user meets it: files and folders in, a table with its range out, one line for a mistake."""

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cdm4mi import io
from cdm4mi.cli.evaluate import evaluate
from cdm4mi.cli.options import with_options
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation import compare as judge
from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.evaluation.resolve import resolve
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
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "250"})


def failure(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, UserError), result.output
    message = with_options(str(result.exception))
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
    """The cells of the first row that is the method's, in the table of the means."""
    line = next(line for line in output.splitlines() if re.match(rf"\W*{method}\s", line))
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", re.sub(r"non-local|\[.*?\]", "", line))]


def test_table_holds_each_method_and_the_range(scans):
    pred, ref, noisy = scans
    result = run(pred, ref, "--noisy", noisy)
    assert result.exit_code == 0, result.output
    x, y = (io.read(p).array.clip(-1000, 1000) + 1000 for p in (pred, ref))
    whole = numbers(result.output, "prediction")
    assert whole[0] == pytest.approx(np.mean([psnr(a, b, 2000) for a, b in zip(x, y, strict=True)]), abs=0.01)
    assert whole[1] == pytest.approx(np.mean([ssim(a, b, 2000) for a, b in zip(x, y, strict=True)]), abs=1e-4)
    assert whole[2] == pytest.approx(np.abs(x - y).mean(), rel=1e-3)
    assert len(whole) == 6
    assert numbers(result.output, "non-local means")[0] > numbers(result.output, "noisy input")[0] + 2
    assert "Range: -1000 to 1000 HU, 2000 wide" in result.output
    label = load_protocol("ct-1000").label
    assert f"Protocol: {label} (the default for CT, told from the values)." in result.output
    assert result.output.count(label) >= 3  # both tables and the caption


def test_range_shifts_psnr_as_it_must(scans):
    pred, ref, _ = scans
    default = numbers(run(pred, ref, "--no-mask").output, "prediction")
    wide = run(pred, ref, "--range", -3000, 3000, "--no-mask")
    assert "-3000 to 3000 HU, 6000 wide" in wide.output
    assert "Protocol: given-range v1" in wide.output
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
        every = list(csv.DictReader(file))
    rows = [row for row in every if row["level"] == "slice"]
    assert [row["scan"] for row in rows] == ["a"] * 5 + ["b"]
    assert [row["patient"] for row in every if row["level"] == "patient"] == ["a", "b"]
    assert float(rows[0]["range_low"]) == -3000
    assert rows[0]["protocol"].startswith("given-range v1 (")
    means = [np.mean([float(r["psnr"]) for r in rows if r["scan"] == s]) for s in "ab"]
    assert np.mean(means) == pytest.approx(numbers(result.output, "prediction")[0], abs=0.01)


def test_the_same_scan_stored_mirrored_is_the_same_scan(tmp_path, scans):
    _, ref, _ = scans
    volume = io.read(ref)
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] = AFFINE[:3, 0] * (volume.shape[-1] - 1)
    mirrored = save(tmp_path / "mirrored.nii.gz", volume.array[:, :, ::-1], flipped)
    rows = judge.compare("x", "x", io.read(mirrored), volume, resolve(load_protocol("ct-1000"), volume))
    assert rows
    assert all(row.scores["mae"] == 0 for row in rows)


def test_a_protocol_decides_the_figures(scans, tmp_path):
    pred, ref, _ = scans
    x, y = (io.read(p).array for p in (pred, ref))
    chest = run(pred, ref, "--protocol", "ldct-chest", "--no-mask")
    expected = [psnr(a.clip(-1350, 150), b.clip(-1350, 150), 1500) for a, b in zip(x, y, strict=True)]
    assert numbers(chest.output, "prediction")[0] == pytest.approx(np.mean(expected), abs=0.01)
    whole = run(pred, ref, "--no-mask", "--protocol", "ct-1000")
    assert numbers(whole.output, "prediction")[0] - np.mean(expected) > 1  # the same scan, 2000 against 1500 HU
    mine = tmp_path / "mine.yaml"
    mine.write_text("{name: mine, version: 3, about: x, window: {low: -160, high: 240}, metrics: [psnr, mae]}")
    result = run(pred, ref, "--protocol", mine, "--no-mask")
    assert "mine v3 (" in result.output
    expected = np.mean([psnr(a.clip(-160, 240), b.clip(-160, 240), 400) for a, b in zip(x, y, strict=True)])
    assert numbers(result.output, "prediction")[0] == pytest.approx(expected, abs=0.01)
    assert "SSIM" not in result.output


def test_patients_count_once_and_carry_an_interval_and_a_test(tmp_path):
    """Seven subjects, one of them scanned twice, told by their BIDS labels; the restored scan is always the better."""
    rng = np.random.default_rng(2)
    for subject in range(7):
        for scan in range(2 if subject == 0 else 1):
            clean = phantom("MR", subject, 64)[None]
            name = f"sub-{subject:02d}_run-{scan}.nii"
            noise = rng.standard_normal(clean.shape)
            save(tmp_path / "ref" / name, clean)
            save(tmp_path / "noisy" / name, clean + 40 * noise)
            save(tmp_path / "pred" / name, clean + (10 + subject) * noise)
    out = tmp_path / "scores.json"
    result = run(
        *(tmp_path / n for n in ("pred", "ref")), "--noisy", tmp_path / "noisy",
        "--protocol", "cdm4mi-mr-gaussian", "--json", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "over 8 scan(s) by patient, then over 7 patient(s)" in result.output
    assert re.search(r"sub-03, prediction\s", result.output)
    content = json.loads(out.read_text())
    assert content["protocol"]["label"] == load_protocol("cdm4mi-mr-gaussian").label
    assert content["ranges"]["sub-00_run-0"]["low"] == 0
    mean = next(
        m for m in content["means"] if (m["method"], m["region"], m["metric"]) == ("prediction", "image", "psnr")
    )
    figures = [
        p["scores"]["psnr"] for p in content["patients"] if (p["method"], p["region"]) == ("prediction", "image")
    ]
    assert mean["patients"] == len(figures) == 7
    assert mean["value"] == pytest.approx(np.mean(figures))
    assert mean["low"] < mean["value"] < mean["high"]
    test = next(
        t for t in content["tests"] if (t["other"], t["metric"], t["region"]) == ("noisy input", "psnr", "image")
    )
    assert test["p"] == pytest.approx(2 / 2**7)
    assert test["adjusted"] > test["p"]
    assert {row["slice"] for row in content["rows"]} == {0, None}


def test_a_stated_uncertainty_is_judged(scans, tmp_path):
    pred, ref, _ = scans
    clean = io.read(ref).array
    sd = save(tmp_path / "sd.nii", np.full_like(clean, 30))
    out = tmp_path / "scores.json"

    def scores():
        rows = json.loads(out.read_text())["rows"]
        return next(r["scores"] for r in rows if r["slice"] is None and r["region"] == "image")

    assert run(pred, ref, "--uncertainty", sd, "--json", out).exit_code == 0
    assert scores()["interval_level"] == 0.9
    assert scores()["coverage"] == pytest.approx(0.9, abs=0.01)  # the noise of ``pred`` is of 30 HU
    assert scores()["crps"] == pytest.approx(30 / np.sqrt(np.pi), rel=0.02)
    rng = np.random.default_rng(5)
    truth = clean + 20 * rng.standard_normal(clean.shape)
    draws = [save(tmp_path / f"s{k}.nii", clean + 20 * rng.standard_normal(clean.shape)) for k in range(4)]
    drawn = save(tmp_path / "truth.nii", truth)
    result = run(
        pred, drawn, *(a for d in draws for a in ("--sample", d)), "--json", out, "--protocol", "ct-1000", "--force"
    )
    assert result.exit_code == 0, result.output
    assert scores()["interval_level"] == pytest.approx(0.6)
    assert scores()["coverage"] == pytest.approx(0.6, abs=0.01)
    assert scores()["crps"] == pytest.approx(20 / np.sqrt(np.pi), rel=0.02)
    assert "expected one of them" in failure(pred, ref, "--uncertainty", sd, "--sample", sd)


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
    padded = save(tmp_path / "padded.nii.gz", broken)  # padding of both is not judged
    assert run(padded, padded, "--protocol", "ct-1000").exit_code == 0
    save(tmp_path / "p" / "a.nii.gz", clean)
    save(tmp_path / "r" / "b.nii.gz", clean)
    assert "no scan named a" in failure(tmp_path / "p", tmp_path / "r")
    assert "is one scan" in failure(tmp_path / "p", ref)
    (tmp_path / "empty").mkdir()
    assert "holds no scan" in failure(tmp_path / "empty", ref)
    assert "expected MR for the protocol cdm4mi-mr-gaussian" in failure(pred, ref, "--protocol", "cdm4mi-mr-gaussian")
    assert "no such protocol" in failure(pred, ref, "--protocol", "mine")
    assert "expected one of them" in failure(pred, ref, "--protocol", "ct-1000", "--range", 0, 1)
    head = save(tmp_path / "head.nii", phantom("MR", 0, 96)[None])
    assert "holds no HU" in failure(head, head, "--protocol", "ct-1000")
    for folder in ("p2", "r2"):
        save(tmp_path / folder / "a.nii", clean)
        save(tmp_path / folder / "b.nii", phantom("MR", 0, 96)[None])
    assert "b: would be judged by percentiles, the scans before it by ct-1000" in failure(
        tmp_path / "p2", tmp_path / "r2"
    )
    constant = save(tmp_path / "constant.nii.gz", np.zeros_like(clean))
    assert "--range" in failure(pred, constant)
