"""Signed error by tissue: a method without bias on average may still raise the lungs and lower the bone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError

CT_TISSUES: dict[str, tuple[float, float]] = {
    "air": (-np.inf, -950.0),
    "lung": (-950.0, -500.0),
    "fat": (-150.0, -30.0),
    "soft": (-20.0, 150.0),
    "bone": (200.0, np.inf),
}
"""Range of HU, lower end included. Values between two ranges are partial volume and in no class."""
LEAST = 20
"""Pixels that a class needs to be reported in a slice."""


def tissue_classes(ref: NDArray[Any], modality: str | None, body: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Masks of the tissues in one slice (rows, columns): in CT by HU, else background and foreground.

    ref: the reference, in physical units; body: mask of the patient, bool. Pixels are classified by the 3 x 3 mean of
    the reference. By single pixels, those that noise moved out of a class would be missing, and an image without that
    noise would seem biased.
    """
    ref = np.asarray(ref, dtype=np.float64)
    if ref.ndim != 2 or body.shape != ref.shape:
        raise UserError(f"tissues of shapes {ref.shape} and {body.shape}, expected two equal (rows, columns)")
    if modality != "CT":
        return {"background": ~body, "foreground": body}
    smooth = ndimage.uniform_filter(ref, 3)
    return {name: (smooth >= low) & (smooth < high) for name, (low, high) in CT_TISSUES.items()}


def tissue_bias(x: NDArray[Any], ref: NDArray[Any], classes: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Mean of x - ref in each class, in the images' units; nan for a class with less than 20 pixels."""
    error = np.asarray(x, np.float64) - np.asarray(ref, np.float64)
    return {name: float(error[at].mean()) if at.sum() >= LEAST else float("nan") for name, at in classes.items()}


def cnr(x: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> float:
    """Contrast to noise ratio |mean_1 - mean_2| / sqrt((var_1 + var_2) / 2) of two regions given as masks.

    Use the same masks, made from the reference, for every method. Structure inside a region counts as noise.
    """
    if not first.any() or not second.any():
        return float("nan")
    one, two = np.asarray(x, np.float64)[first], np.asarray(x, np.float64)[second]
    noise = np.sqrt((one.var() + two.var()) / 2)
    return float(abs(one.mean() - two.mean()) / noise) if noise > 0 else float("inf")
