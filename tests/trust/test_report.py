"""The trust report: a good restoration passes, and each way in which one is bad is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import cdm4mi
from cdm4mi.degradation.base import Frame
from cdm4mi.inference.record import DenoiseRecord, NoiseLevel
from cdm4mi.io import Volume, input_record, read, write, write_record
from cdm4mi.models.checkpoint import load_model
from cdm4mi.models.noise_range import NoiseRange
from cdm4mi.records import read_record_as
from cdm4mi.trust import TrustReport, trust_report
from cdm4mi.window import IntensityWindow

SPACING = (3.0, 0.7, 0.7)
SIGMA = 30.0
MIDDLE = (2, 56, 50)
AFFINE = np.diag([-0.7, -0.7, 3.0, 1.0])
WINDOW = IntensityWindow(-1000.0, 1000.0, "CT")


def volume(array):
    return Volume(array, AFFINE, "CT")


def body(shift=0):
    """Four slices of a disc of soft tissue with fat, a lung and a bone, in HU; their edges are a little soft."""
    rows, columns = np.indices((96, 96))
    image = np.full((96, 96), -1000.0)
    for row, column, radius, hu in ((48, 48, 44, -90), (48, 48, 40, 40), (30, 62, 9, -800), (34, 30, 5, 600)):
        image[np.hypot(rows - row - shift, columns - column) < radius] = hu
    return np.stack([gaussian_filter(image, 0.7)] * 4).astype(np.float32)


@pytest.fixture(scope="module")
def clean():
    return body()


@pytest.fixture(scope="module")
def noisy(clean):
    return volume(clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape))


@pytest.fixture(scope="module")
def shipped():
    return load_model()


def ball(shape, hu=60.0, diameter=10.0):
    """In HU above its surroundings."""
    square = sum(
        np.square((np.arange(n) - p) * s).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, p, s) in enumerate(zip(shape, MIDDLE, SPACING, strict=True))
    )
    return np.where(square <= (diameter / 2) ** 2, hu, 0).astype(np.float32)


def record_of(scan, model, sigma=SIGMA):
    """As ``denoise`` writes it."""
    return DenoiseRecord(
        model=model.name,
        weight_hash=model.weight_hash,
        settings={"strength": 1.0},
        network_calls=1,
        seed=0,
        normalisation=WINDOW,
        noise_level=NoiseLevel(value=sigma, estimated=False, used=sigma),
        above_window_fraction=0.0,
        left_as_found_fraction=0.0,
        slices=len(scan.slices()),
        seconds=1.0,
        device="cpu",
        precision="float32",
        warnings=[],
        input=input_record(scan),
    )


def said(report, colour):
    return [reason.text for reason in report.reasons if reason.colour == colour]


def test_a_good_restoration_passes_and_says_what_was_found(noisy, clean, shipped):
    report = trust_report(noisy, volume(clean), record=record_of(noisy, shipped), model=shipped)
    assert report.verdict == "good" and not report.refused and report.findings == []
    assert report.noise.sigma == pytest.approx(SIGMA, rel=0.1)
    assert report.residual.level == pytest.approx(1, abs=0.1)
    assert report.origin.same_scan and report.model.covers
    low, high = NoiseRange.of(shipped.config, WINDOW).sigma
    assert (report.model.sigma.low, report.model.sigma.high) == pytest.approx((1000 * low, 1000 * high))
    assert report.fidelity.gain == pytest.approx(1, abs=0.01)
    assert report.fidelity.sharpness == pytest.approx(1, abs=0.05)
    assert max(abs(report.fidelity.shifts[name]) for name in ("soft", "lung")) < 2


@pytest.mark.parametrize("sign, word", [(1, "removed"), (-1, "added")])
def test_an_erased_and_an_invented_lesion_are_bad_and_found_where_they_are(noisy, clean, sign, word):
    lesion = ball(clean.shape)
    scan, restored = (noisy.array + lesion, clean) if sign > 0 else (noisy.array, clean + lesion)
    report = trust_report(volume(scan), volume(restored))
    assert report.verdict == "bad" and report.refused
    assert word in said(report, "bad")[0] and "slice 3" in said(report, "bad")[0]
    first = report.findings[0]
    expected_mm = AFFINE @ [*first.position[::-1], 1]
    assert first.position_mm == pytest.approx(tuple(expected_mm[:3]))
    assert np.linalg.norm(np.subtract(first.position, MIDDLE) * SPACING) <= 4


def test_a_level_that_was_claimed_wrongly_is_bad(noisy, clean, shipped):
    report = trust_report(noisy, volume(clean), record=record_of(noisy, shipped, 2 * SIGMA), model=shipped)
    assert report.verdict == "bad" and "times the" in said(report, "bad")[0]


def test_noise_that_was_left_and_twice_the_noise_taken_away_are_named(noisy, clean):
    noise = noisy.array - clean
    left = trust_report(noisy, volume(clean + 0.5 * noise))
    assert left.verdict == "caution" and "most of the noise was left" in said(left, "caution")[0]
    twice = trust_report(noisy, volume(clean - noise))
    assert twice.verdict == "bad" and "taken away" in said(twice, "bad")[0] and twice.residual.level > 1.7


def test_noise_that_was_added_and_scans_the_wrong_way_round_are_bad(noisy, clean):
    added = noisy.array + np.random.default_rng(1).normal(0, 0.8 * SIGMA, clean.shape).astype(np.float32)
    quiet = volume(clean + 0.1 * (noisy.array - clean))  # 0.9 of the noise was added, and all of it is there
    for scan, restored, share in ((noisy, volume(added), 1), (quiet, noisy, 1 / 0.9)):
        report = trust_report(scan, restored)
        assert report.verdict == "bad" and any("added to the scan" in text for text in said(report, "bad"))
        assert report.fidelity.added == pytest.approx(share, abs=0.03)
    assert trust_report(noisy, volume(clean)).fidelity.added == pytest.approx(0, abs=0.1)


def test_a_scan_that_came_back_rounded_has_nothing_added(noisy):
    assert trust_report(noisy, volume(np.round(noisy.array))).fidelity.added is None


def test_rescaled_intensities_are_bad(noisy, clean):
    report = trust_report(noisy, volume(1.1 * clean))
    assert report.verdict == "bad" and any("rescaled" in text for text in said(report, "bad"))
    assert report.fidelity.gain == pytest.approx(1 / 1.1, abs=0.01)


def test_another_scans_output_is_bad(noisy, clean, shipped):
    other = noisy.with_array(noisy.array + 1)
    report = trust_report(noisy, volume(clean), record=record_of(other, shipped), model=shipped)
    assert report.verdict == "bad" and "another scan" in said(report, "bad")[0]
    another = trust_report(noisy, volume(body(shift=4)))
    assert another.verdict == "bad"


def test_blurred_edges_are_named(noisy, clean):
    report = trust_report(noisy, volume(gaussian_filter(clean, (0, 1.5, 1.5))))
    assert report.verdict != "good" and report.fidelity.sharpness < 0.8


def test_noise_outside_of_the_models_training_is_refused_though_nothing_was_removed(clean, shipped):
    low, _ = NoiseRange.of(shipped.config, WINDOW).sigma
    quiet = volume(clean + np.random.default_rng(1).normal(0, 300 * low, clean.shape))
    report = trust_report(quiet, volume(clean), model=shipped)
    assert report.model.sigma.away == pytest.approx(1000 * low - report.noise.sigma)
    assert not report.model.covers and report.refused and "outside the model's training" in said(report, "caution")[0]
    positron = trust_report(replace(quiet, modality="PT"), volume(clean), model=shipped)
    assert not positron.model.modality and positron.refused


def test_the_range_of_training_is_that_of_its_noise(shipped):
    trained = NoiseRange.of(shipped.config, WINDOW)
    assert trained.sigma == shipped.config.data.noise.sigma_range(Frame.of(WINDOW))
    assert list(trained.outside(np.array([1e-4, 0.1, 0.9]))) == [True, False, True]
    assert trained.has_correlation(0.5) and not trained.has_correlation(-0.5)


def test_axes_in_another_order_are_turned_back(noisy, clean):
    turned = Volume(clean[::-1, :, ::-1], AFFINE @ [[-1, 0, 0, 95], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]], "CT")
    assert trust_report(noisy, turned).residual == trust_report(noisy, volume(clean)).residual


@pytest.fixture
def on_disk(tmp_path, noisy, clean, shipped):
    """A scan, and what was restored from it with a lesion that is not there, with its record."""
    write(noisy, tmp_path / "sub-Kowalska.nii.gz")
    scan = read(tmp_path / "sub-Kowalska.nii.gz")
    write(scan.with_array(clean + ball(clean.shape)), tmp_path / "restored.nii.gz")
    write_record(tmp_path / "restored.nii.gz", record_of(scan, shipped))
    return tmp_path


def test_the_command_writes_a_record_and_a_page(command, on_disk):
    paths = (on_disk / "sub-Kowalska.nii.gz", on_disk / "restored.nii.gz")
    code, out, _ = command("trust", *paths, "--out", on_disk / "report", "--modality", "CT", "--strict")
    lines = out.splitlines()
    assert code == 3 and lines[0] == "verdict: bad (not for clinical use)" and lines[1].startswith("bad: structure")
    content = json.loads((on_disk / "report/trust.json").read_text("utf-8"))
    assert content["notice"] == "NOT FOR CLINICAL USE" and content["format"] == 1 and content["version"]
    report = read_record_as(TrustReport, content, "trust.json", "a trust report")
    assert report.verdict == "bad" and report.origin.same_scan and report.model.name == "shipped:base"
    page = (on_disk / "report/trust.html").read_text("utf-8")
    assert "NOT FOR CLINICAL USE" in page and "Kowalska" not in page and '"colour": "bad"' in page
    assert '"text": "' in page and "http" not in page.replace("http-equiv", "")
    assert cdm4mi.trust_report(*paths, modality="CT").reasons == report.reasons
    assert command("trust", *paths, "--modality", "CT")[0] == 0
    code, _, err = command("trust", *paths, "--out", on_disk / "report")
    assert code == 2 and err.count("\n") == 1


def test_mistakes_are_one_line(command, on_disk, save_nifti):
    scan = on_disk / "sub-Kowalska.nii.gz"
    other = save_nifti(on_disk / "other.nii.gz", np.zeros((4, 16, 20)))
    for arguments, words in (
        ((scan, other), "4 x 16 x 20 voxels"),
        ((scan, on_disk / "none.nii.gz"), "none.nii.gz"),
        ((scan, on_disk / "restored.nii.gz", "--model", on_disk / "none.ckpt"), "none.ckpt"),
        ((scan, on_disk / "restored.nii.gz", "--uncertainty", scan), "--out"),
    ):
        code, _, err = command("trust", *arguments)
        assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and words in err
