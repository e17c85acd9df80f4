"""The demo: noise on real DICOM slices, restored with a model, judged beside non-local means, drawn and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydicom.data import get_testdata_file

from cdm4mi import io
from cdm4mi.degradation import Frame, GaussianNoise
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import nlm
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.intensity import window_for
from cdm4mi.measure.metrics import mae, psnr, ssim
from cdm4mi.measure.pictures import comparison_picture
from cdm4mi.models.checkpoint import TrainedModel

SLICES = {
    "ct-spine": "CT_small.dcm",
    "mr-head": "MR_small.dcm",
    "ct-head": "J2K_pixelrep_mismatch.dcm",
    "mr-abdomen": "examples_overlay.dcm",
}
"""Real slices that pydicom ships (MIT licence), none seen in training: our name -> its file."""


@dataclass(frozen=True)
class Score:
    """One method on one slice: PSNR (dB) and SSIM on the slice's window, MAE in its physical units."""

    scan: str
    method: str
    psnr: float
    ssim: float
    mae: float


def demo_slices(
    model: TrainedModel, out: Path, variance: float = 0.05, seed: int = 0, progress: Callable[[str], None] | None = None
) -> list[Score]:
    """Restore every slice of ``SLICES``; write noisy and restored DICOM files and a picture of each to ``out``.

    variance: of the Gaussian noise, on [-1, 1]. The restoration is that of ``cdm4mi denoise`` with no option set: the
    noise level is measured from the noisy file, and non-local means is given the same level.
    """
    scores = []
    for number, (name, file) in enumerate(SLICES.items()):
        if progress is not None:
            progress(name)
        path = get_testdata_file(file, download=False)
        if path is None:
            raise UserError(f"{file}: not among pydicom's test files, expected them with the installed pydicom")
        reference = io.read(str(path))
        norm = window_for(reference, model.config.data.window, model.config.data.percentiles)
        x0 = torch.from_numpy(norm.normalised(reference.array))
        y, _ = GaussianNoise(variance=variance).degrade(x0, generator(seed, number), Frame.of(norm))
        noisy_path, restored_path = out / f"{name}-noisy.dcm", out / f"{name}-restored.dcm"
        for stale in (noisy_path, restored_path):
            stale.unlink(missing_ok=True)
        derivation = io.Derivation(
            settings={"noise": "gaussian", "variance": variance, "seed": seed},
            description="Gaussian noise added by cdm4mi",
            label="noise added",
        )
        io.write(reference.with_array(norm.physical(y.numpy())), noisy_path, derivation=derivation, force=True)
        record = denoise_file(noisy_path, restored_path, model, seed=seed, force=True)
        noisy, restored = io.read(noisy_path), io.read(restored_path)
        level = record.noise_level.value
        window = (norm.low, norm.high)
        columns = {
            "noisy": noisy.array[0],
            "non-local means": nlm(noisy.array[0], level),
            "restored": restored.array[0],
            "reference": reference.array[0],
        }
        columns = {title: np.clip(image, *window) for title, image in columns.items()}
        for title, image in columns.items():
            if title != "reference":
                span, truth = norm.high - norm.low, columns["reference"]
                scores.append(Score(name, title, psnr(image, truth, span), ssim(image, truth, span), mae(image, truth)))
        rows, wide = reference.array.shape[1:]
        side = min(rows, wide) // 4
        comparison_picture(
            out / f"{name}.png",
            columns,
            window,
            zoom=(rows // 2 - side // 2, wide // 2 - side // 2, side),
            differences_to="reference",
            unit="HU" if norm.modality == "CT" else "",
        )
    return scores
