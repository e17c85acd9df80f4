"""Distortion of an image against its reference, with a stated data range; the mask of the body."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

from cdm4mi.errors import UserError

SsimDefinition = Literal["gaussian", "uniform"]
SSIM_WINDOW: dict[str, int] = {"gaussian": 11, "uniform": 7}
BODY_HU = -500.0


def psnr(x: NDArray[Any], ref: NDArray[Any], data_range: float, mask: NDArray[Any] | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / MSE); infinite for equal images.

    ``x`` and ``ref`` are one image (any equal shape) in the same units; ``data_range`` is the width of the protocol's
    window in these units (2 for data on [-1, 1]), never max - min of an image; ``mask`` limits the mean to its pixels.
    """
    _check_range(data_range)
    x, ref, mask = checked(x, ref, mask)
    error = np.mean((inside(x, mask) - inside(ref, mask)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(
    x: NDArray[Any],
    ref: NDArray[Any],
    data_range: float,
    definition: SsimDefinition = "gaussian",
    mask: NDArray[Any] | None = None,
) -> float:
    """Structural similarity of one 2-D image (scikit-image's, K1 = 0.01, K2 = 0.03).

    ``gaussian``: 11 x 11 Gaussian window of sigma 1.5 and population covariance, as Wang et al. (2004); ``uniform``:
    7 x 7 mean and sample covariance, scikit-image's default. Without a mask the border of half a window is left out, as
    scikit-image does; with one the whole map is averaged over the mask. Its luminance term is made for values that
    start at 0: shift HU by the window's lower end first.
    """
    x, ref, mask = checked(x, ref, mask)
    return ssim_mean(ssim_map(x, ref, data_range, definition), definition, mask)


def ssim_map(
    x: NDArray[Any], ref: NDArray[Any], data_range: float, definition: SsimDefinition = "gaussian"
) -> NDArray[np.floating]:
    """Map of the structural similarity of a 2-D image, of the image's shape; definitions as in ``ssim``."""
    if definition not in SSIM_WINDOW:
        raise UserError(f"SSIM definition is {definition!r}, expected one of {', '.join(SSIM_WINDOW)}")
    _check_range(data_range)
    x, ref, _ = checked(x, ref, None)
    least = SSIM_WINDOW[definition]
    if x.ndim != 2 or min(x.shape) < least:
        raise UserError(f"SSIM ({definition}) of shape {x.shape}, expected a 2-D image of at least {least} x {least}")
    gaussian = definition == "gaussian"
    full: NDArray[np.floating]
    _, full = structural_similarity(
        ref,
        x,
        data_range=data_range,
        full=True,
        win_size=least,
        gaussian_weights=gaussian,
        sigma=1.5,
        use_sample_covariance=not gaussian,
    )
    return full


def ssim_mean(
    similarity: NDArray[Any], definition: SsimDefinition = "gaussian", mask: NDArray[Any] | None = None
) -> float:
    """Mean of a map of ``ssim_map`` over the mask, or over all but a border of half a window."""
    if mask is not None:
        return float(similarity[mask].mean())
    border = SSIM_WINDOW[definition] // 2
    return float(similarity[border:-border, border:-border].mean())


def mae(x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Mean absolute error, in the units of the images."""
    x, ref, mask = checked(x, ref, mask)
    return float(np.mean(np.abs(inside(x, mask) - inside(ref, mask))))


def rmse(x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Root mean squared error, in the units of the images."""
    x, ref, mask = checked(x, ref, mask)
    return float(np.sqrt(np.mean((inside(x, mask) - inside(ref, mask)) ** 2)))


def bias(x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Mean signed error, image minus reference, in the images' units; RMSE and MAE mix it with noise."""
    x, ref, mask = checked(x, ref, mask)
    return float(np.mean(inside(x, mask) - inside(ref, mask)))


def body_mask(x: NDArray[Any], modality: str | None) -> NDArray[Any]:
    """Mask of the patient's body, bool, of the shape of ``x`` (..., rows, columns), found slice by slice.

    x: physical units; modality: "CT" or another. CT: pixels above -500 HU, without thin objects (couch, blankets);
    others: above half of Otsu's threshold of the smoothed volume. Parts far smaller than the largest are dropped, and
    holes (lungs, bowel gas, skull) are filled. Make it from the reference, never from the image that is scored.
    """
    x = np.asarray(x, dtype=np.float32)
    if x.ndim < 2:
        raise UserError(f"body mask of shape {x.shape}, expected (..., rows, columns)")
    planes = x.reshape(-1, *x.shape[-2:])
    if modality == "CT":
        solid = planes > BODY_HU
    else:
        smooth = ndimage.gaussian_filter(planes, (0, 1, 1))
        flat = smooth.min() == smooth.max()
        solid = np.zeros(planes.shape, bool) if flat else smooth > 0.5 * threshold_otsu(smooth)
    radius = max(1.0, 4 * max(x.shape[-2:]) / 512)
    tidy = _opened if modality == "CT" else _closed
    return np.stack([_filled(tidy(plane, radius)) for plane in solid]).reshape(x.shape)


def _opened(solid: NDArray[Any], radius: float) -> NDArray[np.bool_]:
    """Binary opening by a disc: parts thinner than two radii are removed. Its cost is the same for any radius."""
    # a border that continues the image, so that a body cut by the edge is not eroded there
    core = ndimage.distance_transform_edt(np.pad(solid, 1, mode="edge"))[1:-1, 1:-1] > radius
    if not core.any():
        return np.zeros_like(solid)
    opened: NDArray[np.bool_] = (ndimage.distance_transform_edt(~core) <= radius) & solid
    return opened


def _closed(solid: NDArray[Any], radius: float) -> NDArray[np.bool_]:
    """Binary closing by a disc: gaps narrower than two radii (a dark skull open to the outside) are bridged."""
    if not solid.any():
        return solid
    width = int(np.ceil(radius)) + 1
    grown = ndimage.distance_transform_edt(~np.pad(solid, width)) <= radius
    closed: NDArray[np.bool_] = (ndimage.distance_transform_edt(grown) > radius)[width:-width, width:-width] | solid
    return closed


def _filled(solid: NDArray[Any]) -> NDArray[np.bool_]:
    """Parts of at least 5 % of the largest one's size, holes filled; a part cut by the image's edge is closed there."""
    labels, count = ndimage.label(solid)
    if not count:
        return solid
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    framed = np.pad((sizes >= max(1.0, 0.05 * sizes.max()))[labels], 1)
    for frame, edge in (
        (framed[0], framed[1]), (framed[-1], framed[-2]), (framed[:, 0], framed[:, 1]), (framed[:, -1], framed[:, -2]),
    ):  # fmt: skip
        at = np.flatnonzero(edge)
        if at.size:  # a body cut by the edge is closed there
            frame[at[0] : at[-1] + 1] = True
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(framed)[1:-1, 1:-1]
    return filled


def inside(x: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    """The pixels of the mask, (pixels,); without a mask, the image."""
    return x if mask is None else x[mask]


def _check_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise UserError(f"data range is {data_range}, expected the positive width of the protocol's window")


def checked(
    x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Image and reference as float64, and the mask, checked as every metric needs it.

    Raises UserError for shapes that differ, no pixels, values that are not finite, or a mask that is empty, of another
    shape or not bool.
    """
    x, ref = np.asarray(x, dtype=np.float64), np.asarray(ref, dtype=np.float64)
    if x.shape != ref.shape:
        raise UserError(f"image has shape {x.shape}, expected the reference's {ref.shape}")
    if x.size == 0:
        raise UserError(f"image has shape {x.shape}, expected at least one pixel")
    for name, image in (("image", x), ("reference", ref)):
        bad = image.size - np.count_nonzero(np.isfinite(image))
        if bad:
            raise UserError(f"{name} has {bad} pixels that are not finite, expected none")
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != x.shape or mask.dtype != bool:
            raise UserError(f"mask is {mask.dtype} of shape {mask.shape}, expected bool of shape {x.shape}")
        if not mask.any():
            raise UserError("mask is empty, expected at least one pixel")
    return x, ref, mask
