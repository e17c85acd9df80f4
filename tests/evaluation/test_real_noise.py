"""The study of models on real noise: its noises have the statistics that they state, its measures their oracles."""

import numpy as np
import pytest

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.io import Volume
from cdm4mi.lesions.methods import Method
from cdm4mi.lesions.tissue import find_tissue
from cdm4mi.window import IntensityWindow
from experiments.real_noise import lesions, noises, rows
from experiments.real_noise.scans import Scan

SHAPE = (4, 96, 96)


def flat(value: float, modality: str) -> Scan:
    window = IntensityWindow(-1000, 1000, "CT") if modality == "CT" else IntensityWindow(0, 1000, "MR")
    return Scan("flat", Volume(np.full(SHAPE, value), np.eye(4), modality), window, (16, 16), 64)


def test_a_magnitude_has_the_second_moment_of_rician_noise() -> None:
    """E[M^2] = A^2 + 2 s^2, in air and in tissue."""
    for clean in (0.0, 500.0):
        noisy = noises.magnitude(flat(clean, "MR"), 3, percent=9)
        assert noisy.sigma == pytest.approx(90)
        assert np.mean(noisy.y**2) == pytest.approx(clean**2 + 2 * 90**2, rel=0.03)


def test_zero_filled_noise_ends_at_the_box_and_keeps_its_level() -> None:
    noisy = noises.magnitude(flat(900.0, "MR"), 3, percent=1, zero_filled=1.5)  # so bright that M - A is the real part
    power = np.mean(np.abs(np.fft.fft2(noisy.y - noisy.reference)) ** 2, 0)
    outside = np.abs(np.fft.fftfreq(96)) > 1 / 3
    assert np.std(noisy.y - noisy.reference) == pytest.approx(noisy.sigma, rel=0.03)
    assert power[outside].mean() < 0.01 * power[~outside][:, ~outside].mean()


def test_varying_noise_has_its_level_in_the_judged_square_and_less_at_the_edge() -> None:
    scan = flat(900.0, "MR")
    noisy = noises.magnitude(scan, 3, percent=1, varying=True)
    error = noisy.y - noisy.reference
    rows_, columns = scan.square()
    assert np.std(error[:, rows_, columns]) == pytest.approx(noisy.sigma, rel=0.05)
    assert np.std(error[:, :8]) < 0.7 * noisy.sigma


def test_ramp_noise_has_no_power_at_zero_and_at_the_end_of_its_window() -> None:
    noisy = noises.ramp(flat(40.0, "CT"), 3, sigma_hu=40)
    power = np.mean(np.abs(np.fft.fft2(noisy.y - noisy.reference)) ** 2, 0)
    assert np.std(noisy.y - noisy.reference) == pytest.approx(40)
    assert power[0, 0] + power[48, 48] < 1e-6 * power.max()


def test_less_strength_keeps_more_of_a_lesion_and_a_blend_what_its_parts_keep(monkeypatch) -> None:
    """A method that keeps 60 % of everything, blended with the input by s, keeps 1 - 0.4 s."""
    monkeypatch.setattr(lesions, "trained", lambda model: Method(lambda images, sigma, scan: 0.6 * images[:, 0]))
    monkeypatch.setattr(lesions, "added", lambda key: noise_from_spec("gaussian sigma_hu=20", {}))
    monkeypatch.setattr(lesions, "REPEATS", 2)
    part = find_tissue(Volume(np.full((1, 130, 130), 40.0), np.eye(4), "CT"), 4, 10)
    for cell in lesions.weaker(part, None, "white", "ct-dose-25"):
        assert len(cell.scores) == 2 + len(lesions.STRENGTHS)
        kept = [cell.scores[f"s = {s:g}"].kept for s in lesions.STRENGTHS]
        assert kept == sorted(kept, reverse=True) and kept[-1] == pytest.approx(0.6, rel=1e-4)
        assert kept == pytest.approx([1 - 0.4 * s for s in lesions.STRENGTHS], abs=0.1)
        blended = cell.scores[f"blend, {lesions.BLENDED:g}"].kept
        assert blended == pytest.approx(1 - 0.4 * lesions.BLENDED, rel=1e-4)


def test_the_bias_of_a_denoised_magnitude_goes() -> None:
    noisy = noises.magnitude(flat(300.0, "MR"), 3, percent=9)
    mean = np.full(SHAPE, noisy.y.mean())
    assert abs(mean[0, 0, 0] - 300) > 10
    assert abs(rows.unbiased(mean, noisy.sigma)[0, 0, 0] - 300) < 3


def test_what_is_kept_is_made_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rows, "CACHE", tmp_path / "cache")
    made = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"y": np.arange(3.0), "sigma": 0.5, "n": 2}

    for _ in range(2):
        found = rows.kept(make, "noisy", {"percent": 9})
        assert found["y"].tolist() == [0, 1, 2] and (found["sigma"], found["n"]) == (0.5, 2)
    rows.kept(make, "noisy", {"percent": 15})
    assert len(made) == 2


def test_noises_of_the_project_come_with_their_level() -> None:
    noisy = noises.simulated(flat(40.0, "CT"), 3, type="gaussian", sigma_hu=30)
    assert noisy.sigma == pytest.approx(30)
    assert np.std(noisy.y - noisy.reference) == pytest.approx(30, rel=0.03)
