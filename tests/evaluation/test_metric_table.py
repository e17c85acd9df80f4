"""A metric is one entry, as in CONTRIBUTING.md: protocols, scores, tables and reports know it from there."""

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import pytest

from cdm4mi.errors import UserError
from cdm4mi.evaluation import metrics
from cdm4mi.evaluation.benchmark.config import parse_benchmark
from cdm4mi.evaluation.benchmark.run import run_benchmark
from cdm4mi.evaluation.metrics import ERROR, METRICS, Metric, metric_of, shown, title
from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.evaluation.report import write_report

CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FUNCTION, ENTRY, *_ = re.findall(r"```python\n(.*?)```", CONTRIBUTING.split("## Add a metric")[1], flags=re.DOTALL)
NAMES = {"Metric": Metric, "ERROR": ERROR}
exec(FUNCTION, NAMES)
TOY = replace(eval(ENTRY, NAMES), title="worst pixel", digits=1)
PROTOCOL = """
name: toy
version: 1
about: a test's
modality: CT
window: {type: fixed, low: -3000, high: 3000}
metrics: [psnr, greatest_error]
"""


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(PROTOCOL)
    return path


def test_one_entry_is_enough(protocol, command, tmp_path, scans, study, save_nifti, monkeypatch):
    with pytest.raises(UserError, match=r"metrics\[1\]: found 'greatest_error', expected 'psnr', 'ssim_gaussian'"):
        load_protocol(protocol)
    monkeypatch.setitem(METRICS, TOY.name, TOY)
    assert load_protocol(protocol).metrics == ["psnr", "greatest_error"]

    scan = scans / "sub-20.nii.gz"
    off = nib.load(scan).get_fdata().T
    off[:, 40, 40] += 777
    pred = save_nifti(tmp_path / "pred.nii.gz", off)
    code, out, errors = command("evaluate", pred, scan, "--protocol", protocol, "--csv", tmp_path / "scores.csv")
    assert code == 0, errors
    assert "worst pixel (HU)" in out and "777.0" in out
    assert "greatest_error" in (tmp_path / "scores.csv").read_text().splitlines()[0]

    study |= {"protocols": [str(protocol)], "methods": study["methods"][:2], "levels": study["levels"][:1]}
    run_benchmark(parse_benchmark(study), tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "worst pixel (HU)" in page
    # less of it is better: the blur, not the noise, is bold
    table = (tmp_path / "run/tables/toy-further.csv").read_text().splitlines()
    assert table[1].endswith("worst pixel (HU)")
    figures = {
        method: float(value)
        for _, region, method, value in (line.split(",") for line in table[2:])
        if region == "image"
    }
    assert figures["Gaussian filter"] < figures["noisy input"]
    assert f"<b>{figures['Gaussian filter']:.1f}</b>" in page and f"<b>{figures['noisy input']:.1f}</b>" not in page


def test_an_unknown_figure_of_a_record_has_a_heading_and_no_order():
    assert title("depth_of_field") == "depth of field"
    assert metric_of("depth_of_field").better == "neither"
    assert title("bias_lung", units={"error": "HU"}) == "bias lung (HU)"
    assert metric_of("bias_lung").better == "neither"


def test_headings_tell_definitions_and_units_apart():
    among = ["psnr", "ssim_uniform", "ssim_gaussian"]
    headings = [title(name, among) for name in among]
    assert headings == ["PSNR (dB)", "SSIM", "SSIM (gaussian)"]
    assert title("mae", units={"error": "on [-1, 1]"}) == "MAE on [-1, 1]"
    assert title("crps", units={"error": "on [-1, 1]", "physical": "HU"}) == "CRPS (HU)"


def test_digits():
    assert shown(0.87654, "ssim_gaussian") == "0.8765"
    assert shown(31.234, "psnr") == "31.23" and shown(float("inf"), "psnr") == "inf"
    assert [shown(v, "mae") for v in (0.12345, 12.345, 123.45)] == ["0.1235", "12.35", "123.5"]
    assert shown(float("nan"), "mae") == metrics.NOTHING
