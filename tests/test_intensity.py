"""Physical units to [-1, 1] and back: a fixed window for CT, percentiles for MR, and nothing lost on the way."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.intensity import guess_notice, is_foreign, modality_of, window_for
from cdm4mi.io import Volume
from cdm4mi.window import IntensityWindow


def volume(array, modality=None):
    return Volume(np.atleast_3d(array) if array.ndim == 3 else array[None], np.eye(4), modality)


@settings(deadline=None)
@given(st.floats(-5000, 5000), st.floats(1, 60000), st.integers(0, 1000))
def test_inverts_within_rounding_also_outside_the_window(low, width, seed):
    norm = IntensityWindow(low, low + width, "MR")
    array = np.random.default_rng(seed).uniform(low - width, low + 2 * width, 500).astype(np.float32)
    back = norm.physical(norm.normalised(array))
    assert back.dtype == np.float32
    # a few roundings of float32 at the largest number that occurs
    assert np.abs(back - array).max() <= 8 * np.finfo(np.float32).eps * (abs(low) + 2 * width)


def test_every_hounsfield_unit_comes_back_exactly():
    norm = window_for(volume(phantom("CT", 1)), (-1000, 1000))
    units = np.arange(-1024, 3072, dtype=np.float32)
    np.testing.assert_array_equal(np.round(norm.physical(norm.normalised(units))), units)


def test_ct_has_the_fixed_window_whatever_the_scan_holds():
    for seed in range(3):
        norm = window_for(volume(phantom("CT", seed), "CT"), (-1000, 1000), (5, 95))
        assert (norm.low, norm.high) == (-1000, 1000)
    np.testing.assert_allclose(norm.normalised(np.array([-1000.0, 0.0, 1000.0, 3000.0])), [-1, 0, 1, 3])


def test_mr_has_the_percentiles_of_its_foreground_so_the_scale_of_the_scanner_does_not_matter():
    head = phantom("MR", 2)
    norm = window_for(volume(head, "MR"), percentiles=(0, 99.5))
    smooth = uniform_filter(head, 3)
    inside = smooth[smooth > 0.5 * smooth.mean()]
    assert norm.low == 0
    assert norm.high == pytest.approx(np.percentile(inside, 99.5), rel=1e-5)
    tenfold = window_for(volume(10 * head, "MR"))
    np.testing.assert_allclose(tenfold.normalised(10 * head), norm.normalised(head), atol=1e-5)
    lower = window_for(volume(head, "MR"), percentiles=(1, 99.5))
    assert lower.low == pytest.approx(np.percentile(inside, 1), rel=1e-5)


def test_noise_hardly_moves_the_map_of_an_mr_so_a_noisy_scan_is_restored_in_the_scale_of_training():
    head = phantom("MR", 2)
    clean = window_for(volume(head, "MR"))
    noisy = head + 0.1 * clean.high / 2 * np.random.default_rng(0).standard_normal(head.shape)
    found = window_for(volume(noisy.astype(np.float32), "MR"))
    assert found.low == clean.low
    assert found.high == pytest.approx(clean.high, rel=0.05)


def test_the_record_is_enough_to_invert():
    norm = window_for(volume(phantom("MR", 3), "MR"))
    assert IntensityWindow(**asdict(norm)) == norm


@pytest.mark.parametrize(
    ("array", "said", "expected"),
    [
        (np.array([[-900.0, 40.0]]), None, "CT"),
        (np.array([[0.0, 900.0]]), None, "MR"),
        (np.array([[0.0, 900.0]]), "CT", "CT"),
        (np.array([[-900.0, 40.0]]), "PT", "PT"),
    ],
)
def test_modality_is_what_the_header_says_or_else_told_by_air(array, said, expected):
    assert modality_of(volume(array, said)) == expected


def test_a_crop_with_a_little_air_is_ct_and_a_noisy_magnitude_is_not():
    rng = np.random.default_rng(0)
    crop = np.where(rng.random((64, 64)) < 0.04, -1000.0, 40.0) + 10 * rng.standard_normal((64, 64))
    assert modality_of(volume(crop)) == "CT"
    assert modality_of(volume(600 + 300 * rng.standard_normal((64, 64)))) == "MR"
    assert modality_of(volume(rng.integers(-4096, 4095, (64, 64)).astype(float))) == "MR"  # a phase map


@pytest.mark.parametrize(
    ("array", "modality", "message"),
    [
        (np.full((8, 8), 3.0), "MR", "found the one value 3 everywhere"),
        (np.array([[0.0, np.nan]]), "MR", "not finite"),
        (np.array([[0.0, np.inf]]), "CT", "not finite"),
    ],
)
def test_a_scan_without_an_image_is_one_clear_line(array, modality, message):
    with pytest.raises(UserError, match=message):
        window_for(volume(array, modality))


def test_a_window_upside_down_is_one_clear_line():
    with pytest.raises(UserError, match="found 5 to 5, expected low below high"):
        IntensityWindow(5, 5, "CT")


def test_a_radiograph_is_no_ct_and_is_named():
    radiograph = volume(phantom("CT", 1), "CR")
    assert modality_of(radiograph) == "MR" and is_foreign(radiograph)
    assert guess_notice(radiograph) == [
        "the scan's modality is CR, expected CT, MR or PT: treated as MR (another: `modality`)"
    ]
    stated, unstated = volume(phantom("CT", 1), "CT"), volume(phantom("CT", 1))
    assert not is_foreign(stated) and guess_notice(stated) == []
    assert not is_foreign(unstated) and "does not state its modality: CT" in guess_notice(unstated)[0]
