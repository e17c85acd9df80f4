"""The picture of a trust report: one slice of the scan, of the restored scan and of their difference, and the verdict.

It says what it is in its pixels, as a picture in an archive is looked at without its header.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cdm4mi.intensity import foreground
from cdm4mi.io import Volume
from cdm4mi.trust.record import NOTICE, TrustReport
from cdm4mi.trust.verdict import described
from cdm4mi.viewer.windows import greatest, presets

SIDE, GAP, LINE = 448, 16, 24
"""Pixels: longest side of an image, what is left free, a line of text."""
MOST_LINES = 8
COLOURS = {"good": (96, 200, 120), "caution": (240, 190, 60), "bad": (240, 90, 80)}
INK, FAINT = (235, 235, 235), (150, 150, 150)
BELOW, ABOVE = np.array([80.0, 160.0, 255.0]), np.array([255.0, 150.0, 60.0])
"""Of a difference: where the restored scan is lower, and where it is higher; black where nothing differs."""


def summary_picture(report: TrustReport, scan: Volume, restored: Volume) -> NDArray[np.uint8]:
    """Draw the slice of the most striking finding, or the one that shows most of the patient: (rows, columns, 3)."""
    k = report.findings[0].position[0] if report.findings else _fullest(scan, report.modality)
    y, x = (volume.slices()[k].astype(np.float32) for volume in (scan, restored))
    window = presets(y, report.modality)[0]
    limit = greatest(x - y)
    images = [_grey(image, window.low, window.high) for image in (y, x)] + [_signed((x - y) / limit)]
    size = _size(y.shape, scan.spacing[1:])
    titles = ("scan", "restored", f"restored - scan, ±{limit:g} {report.unit}")
    lines = [(reason.colour, text) for reason in report.reasons for text in _wrapped(reason.text)][:MOST_LINES]
    width = 3 * size[0] + 4 * GAP
    height = 3 * GAP + (3 + len(lines)) * LINE + LINE + size[1]
    picture = Image.new("RGB", (width, height), (0, 0, 0))
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(15), ImageFont.load_default(19)
    draw.text((GAP, GAP), f"{NOTICE}: made by {report.software} {report.version}", COLOURS["bad"], large)
    draw.text((GAP, GAP + LINE), f"Verdict on the restored scan: {report.verdict}", COLOURS[report.verdict], large)
    top = GAP + 2 * LINE + 6
    for colour, text in lines:
        draw.text((GAP, top), text, COLOURS[colour], small)
        top += LINE - 4
    top += GAP
    for n, (title, image) in enumerate(zip(titles, images, strict=True)):
        left = GAP + n * (size[0] + GAP)
        draw.text((left, top), title, INK, small)
        picture.paste(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), (left, top + LINE))
        for place in report.findings:
            if place.position[0] == k:
                _mark(draw, place.position[1:], y.shape, size, (left, top + LINE))
    foot = f"slice {k + 1} of {len(scan.slices())}, window {window.low:g} to {window.high:g} {report.unit}"
    if report.findings:
        foot += f"; marked: {described(report.findings[0], report.unit)}"
        foot += f" and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
    draw.text((GAP, top + LINE + size[1] + 4), foot, FAINT, small)
    return np.asarray(picture)


def _fullest(scan: Volume, modality: str) -> int:
    """The slice that shows most of the patient, of some spread evenly."""
    slices = scan.slices()
    chosen = np.unique(np.linspace(0, len(slices) - 1, 16).astype(int))
    return int(max(chosen, key=lambda k: np.count_nonzero(foreground(slices[k], modality))))


def _grey(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    grey = np.clip((image - low) / (high - low), 0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, -1)


def _signed(share: NDArray[Any]) -> NDArray[np.uint8]:
    share = np.clip(share, -1, 1)[..., None]
    colours: NDArray[np.uint8] = np.where(share > 0, share * ABOVE, -share * BELOW).astype(np.uint8)
    return colours


def _size(shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[int, int]:
    """Width and height of a slice on the picture, by its millimetres."""
    height, width = (n * s for n, s in zip(shape, spacing, strict=True))
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 150)


def _mark(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, ...],
    shape: tuple[int, ...],
    size: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    """A ring about (row, column)."""
    x, y = corner[0] + (at[1] + 0.5) / shape[1] * size[0], corner[1] + (at[0] + 0.5) / shape[0] * size[1]
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), outline=COLOURS["caution"], width=2)
