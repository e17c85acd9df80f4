"""Every degradation trains: two steps of the smallest network on scans that it is for, and the model restores."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import training_runs as runs

from cdm4mi import io
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation import Frame
from cdm4mi.inference.restorer import Restorer
from cdm4mi.models.checkpoint import load_model
from cdm4mi.models.facts import facts_of
from cdm4mi.training import run as training

NOISES = {
    "gaussian in HU": ("CT", {"sigma_hu": [20, 80]}),
    "gaussian in percent": ("MR", {"percent": [2, 8]}),
    "salt and pepper": ("CT", {"type": "salt_and_pepper", "fraction": [0.01, 0.05]}),
    "salt": ("CT", {"type": "salt_and_pepper", "extremes": "salt"}),
    "downsampled": ("CT", {"type": "downsampled", "factor": [1.5, 3]}),
    "downsampled in k-space": ("MR", {"type": "downsampled", "method": "kspace"}),
    "speckle": ("MR", {"type": "speckle"}),
    "rician": ("MR", {"type": "rician", "percent": [2, 9], "variation": 0.2}),
    "noncentral chi": ("MR", {"type": "noncentral_chi", "coils": 4}),
    "undersampled": ("MR", {"type": "undersampled", "acceleration": [2, 4]}),
    "low dose": ("CT", {"type": "low_dose_ct", "dose": [0.1, 0.5], "views": 32}),
    "target noise": ("CT", {"type": "low_dose_ct", "target_hu": [20, 60], "views": 32}),
    "pet": ("MR", {"type": "pet"}),
    "composition": ("MR", {"type": "composition", "parts": [{"type": "rician"}, {"type": "speckle"}]}),
}


def configured(scans, modality, noise):
    data = {"kind": "volumes", "paths": [str(scans / modality)], "noise": noise, "val_patches": 2}
    model = {"level_channel": True, "unet": {"in_channel": 3, "dropout": 0.0}}
    return runs.tiny_config(scans, model, data, max_tsteps=2, warmup=0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for modality in ("CT", "MR"):
        (folder / modality).mkdir()
        for person in range(2):
            array = np.stack([phantom(modality, 2 * person + k, 40) for k in range(2)]).astype(np.float32)
            nib.save(nib.Nifti1Image(array.T, np.eye(4)), folder / modality / f"sub-{person}.nii.gz")
    return folder


@pytest.mark.parametrize(("modality", "noise"), NOISES.values(), ids=list(NOISES))
def test_it_trains_and_the_model_says_what_it_was_trained_on(modality, noise, scans, tmp_path):
    config = configured(scans, modality, noise)
    last = training.train(config, tmp_path / "run", progress=False)
    model = load_model(last)
    assert model.config.data.noise == config.data.noise
    said = dict(facts_of(model))["noise in training"]
    assert all(part.get("type", "gaussian") in said for part in noise.get("parts", [noise]))
    volume = io.read(scans / modality / "sub-0.nii.gz")
    model.config.sampling.steps = 2
    high = Restorer(model).restore(volume, noise=1e3).record
    limits = model.config.data.noise.sigma_range(Frame(high.normalisation.low, high.normalisation.high))
    if limits is None:
        assert high.noise_level.used == pytest.approx(1e3)
        assert not any("training range" in warning for warning in high.warnings)
    else:
        scale = 2 / (high.normalisation.high - high.normalisation.low)
        assert high.noise_level.used == pytest.approx(limits[1] / scale)
        assert any("training range" in warning for warning in high.warnings)


def test_real_pairs_train(scans, tmp_path, monkeypatch):
    load = training.load_patients

    def with_noisy_scans(*arguments):
        patients = load(*arguments)
        rng = np.random.default_rng(0)
        for patient in patients:
            patient.conditions = [s[:, :] + rng.normal(0, 0.1, s.shape).astype(np.float16) for s in patient.slices]
        return patients

    monkeypatch.setattr(training, "load_patients", with_noisy_scans)
    config = configured(scans, "MR", {"type": "identity"})
    assert training.train(config, tmp_path / "run", progress=False).exists()
    pair = training.PairData(config).train_pairs[0]
    assert float(pair["sigma"]) == pytest.approx(0.1, rel=0.15)
