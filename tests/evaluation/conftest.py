"""A small study: phantoms on disk, three test patients and a validation one, and its configuration."""

import numpy as np
import pytest

from cdm4mi.data.phantoms import phantom

PROTOCOL = """
name: small
version: 1
about: a test's
modality: CT
window: {type: fixed, low: -1000, high: 1000}
scale: [-1, 1]
metrics: [psnr, ssim_uniform, mae, spectrum]
"""


@pytest.fixture
def scans(tmp_path, save_nifti):
    """A folder of four CT phantoms that no model of the tests has seen: sub-20 to sub-23."""
    folder = tmp_path / "scans"
    for person in range(20, 24):
        slices = np.stack([phantom("CT", 50 * person + k, 64) for k in range(3)])
        save_nifti(folder / f"sub-{person}.nii.gz", slices)
    return folder


@pytest.fixture
def study(tmp_path, scans, trained_run):
    """The configuration of the study as a mapping."""
    protocol = tmp_path / "small.yaml"
    protocol.write_text(PROTOCOL)
    return {
        "name": "small",
        "protocols": [str(protocol)],
        "data": {"paths": [str(scans)], "val_patients": ["sub-23"]},
        "tuning": {"slices": 1, "crop": 48},
        "levels": [{"type": "gaussian", "variance": 0.02}, {"type": "gaussian", "variance": 0.2}],
        "methods": [
            {"type": "noisy"},
            {"type": "gaussian_filter"},
            {
                "type": "model",
                "name": "two steps",
                "checkpoint": str(trained_run),
                "sampling": {"estimate": "sample", "steps": 2},
            },
            {"type": "model", "name": "U-Net", "checkpoint": str(trained_run)},
        ],
    }
