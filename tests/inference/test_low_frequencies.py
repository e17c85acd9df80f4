"""Low frequencies of the scan that a restoration keeps: exactly they, and no more noise than is said."""

import numpy as np
import pytest
from scipy import fft

from cdm4mi.data.phantoms import phantom
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.inference.low_frequencies import keep_low_frequencies, low_pass
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.io import read

SHAPE = (48, 65)
CUTOFF = 0.06


@pytest.fixture(scope="module")
def scan():
    return np.random.default_rng(0).normal(40, 30, (3, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def restored(scan):
    return (0.2 * scan + np.random.default_rng(1).normal(0, 5, scan.shape)).astype(np.float32)


def spectrum(images):
    return fft.dctn(images.astype(np.float64), axes=(-2, -1), norm="ortho")


def test_frequencies_up_to_the_cutoff_are_the_scans_and_high_ones_the_outputs(scan, restored):
    kept = keep_low_frequencies(restored, scan, CUTOFF)
    low, high = low_pass(SHAPE, CUTOFF) == 1, low_pass(SHAPE, CUTOFF) < 1e-6
    assert low.sum() > 10 and high.sum() > 1000
    np.testing.assert_allclose(spectrum(kept)[:, low], spectrum(scan)[:, low], atol=1e-2)
    np.testing.assert_allclose(spectrum(kept)[:, high], spectrum(restored)[:, high], atol=1e-2)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept.mean((1, 2)), scan.mean((1, 2)), atol=1e-3)


def test_a_second_time_changes_nothing_up_to_the_cutoff_and_little_at_the_edge(scan, restored):
    once = keep_low_frequencies(restored, scan, CUTOFF)
    twice = keep_low_frequencies(once, scan, CUTOFF)
    low = low_pass(SHAPE, CUTOFF) == 1
    np.testing.assert_allclose(spectrum(twice)[:, low], spectrum(once)[:, low], atol=1e-2)
    change = np.abs(spectrum(twice) - spectrum(once))
    assert (change <= 0.25 * np.abs(spectrum(scan) - spectrum(restored)) + 1e-2).all()  # h (1 - h) of the difference


def test_an_offset_vanishes_and_a_step_does_not_ring(scan):
    np.testing.assert_allclose(keep_low_frequencies(scan + 8, scan, CUTOFF), scan, atol=1e-3)
    step = np.zeros((64, 128), np.float32)
    step[:, 64:] = 1
    kept = keep_low_frequencies(np.zeros_like(step), step, 0.05)[32]
    assert kept.min() > -0.1 and kept.max() < 1.1
    assert np.abs(kept[:20]).max() < 0.03 and np.abs(kept[-20:] - 1).max() < 0.03


@pytest.mark.parametrize("cutoff", [0.02, 0.05])
def test_of_white_noise_as_much_comes_back_as_is_said(cutoff):
    noise = np.random.default_rng(2).normal(0, 1, (8, 256, 256))
    kept = keep_low_frequencies(np.zeros_like(noise), noise, cutoff)
    assert kept.std() == pytest.approx(2.6 * cutoff, rel=0.1)


@pytest.fixture
def source(save_nifti, tmp_path):
    clean = np.stack([phantom("CT", k, 48) for k in range(4)])
    return save_nifti(tmp_path / "ct.nii.gz", clean + np.random.default_rng(0).normal(0, 80, clean.shape))


def test_an_offset_of_a_sabotaged_model_vanishes_and_the_record_says_what_was_kept(source, tiny, tmp_path, monkeypatch):
    moments = SliceRestorer.moments

    def lifted(self, *arguments, **options):
        mean, deviation = moments(self, *arguments, **options)
        return mean + np.float32(0.05), deviation

    monkeypatch.setattr(SliceRestorer, "moments", lifted)
    y = read(source).array
    for cutoff, most in ((None, np.inf), (0.03, 0.5)):
        target = tmp_path / f"{cutoff}.nii"
        record = denoise_file(source, target, tiny, noise=80, sampling={"keep_low_frequencies": cutoff}, modality="CT")
        shift = float(np.abs(read(target).array.mean((1, 2)) - y.mean((1, 2))).max())
        assert shift < most and (cutoff is not None or shift > 20)
        assert ("keep_low_frequencies" in record.settings) == (cutoff is not None)
    assert record.kept_frequencies.cycles_per_pixel == 0.03 and record.kept_frequencies.put_back == pytest.approx(
        50, rel=0.3
    )


def test_slabs_change_no_bit(scan, restored):
    whole = keep_low_frequencies(restored, scan, CUTOFF)
    for k in range(len(scan)):
        assert np.array_equal(whole[k : k + 1], keep_low_frequencies(restored[k : k + 1], scan[k : k + 1], CUTOFF))


def test_magnitudes_are_refused_and_so_is_what_is_no_frequency(command, save_nifti, tmp_path):
    clean = np.zeros((4, 96, 96))
    clean[:, 24:72, 24:72] = 500
    first, second = np.random.default_rng(0).normal(0, 25, (2, *clean.shape))
    mr = save_nifti(tmp_path / "mr.nii.gz", np.hypot(clean + first, second))
    for value, words in (("auto", "Rician"), ("0.7", "above 0 and below 0.5"), ("much", "auto, or cycles a pixel")):
        code, _, err = command("denoise", mr, tmp_path / "out.nii", "--keep-low-frequencies", value, "--modality", "MR")
        assert code == 2 and err.count("\n") == 1 and words in err
        assert not (tmp_path / "out.nii").exists()
