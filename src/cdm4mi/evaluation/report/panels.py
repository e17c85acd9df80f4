"""Pictures of a report: every method in one window, a zoomed region, differences to the reference; PNG in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cdm4mi.evaluation.benchmark.record import Panel, Record
from cdm4mi.measure.pictures import DIFFERENCE

MOST = 14_000_000
"""Characters of pictures in a page, which keeps it well under 20 MB."""
SHADES = 64
MARGIN = 4
BAR = "linear-gradient(90deg,{})".format(
    ",".join("rgb({:.0%} {:.0%} {:.0%})".format(*DIFFERENCE(at)[:3]) for at in np.linspace(0, 1, 5))
)
"""The colours of a difference from its least to its most, in CSS."""


@dataclass(frozen=True)
class PanelFigure:
    """One method in a panel. image, difference: PNG as data URIs; the reference has no difference."""

    title: str
    caption: str
    image: str
    difference: str = ""


@dataclass(frozen=True)
class PanelView:
    """A panel as the page shows it.

    level: its noise in short. most: end of the differences' scale, in the panel's unit. shape: (rows, columns) of the
    images; zoom: (row, column, side) of the square that is enlarged.
    """

    panel: Panel
    level: str
    figures: list[PanelFigure]
    most: float
    shape: tuple[int, int]
    zoom: tuple[int, int, int]


def panels(record: Record) -> Iterator[PanelView]:
    """Every panel, as far as there is room in a page."""
    used = 0
    for number, panel in enumerate(record.study.panels):
        view = _view(record, number, panel)
        used += sum(len(figure.image) + len(figure.difference) for figure in view.figures)
        if number and used > MOST:
            return
        yield view


def _view(record: Record, number: int, panel: Panel) -> PanelView:
    reference = record.images[f"{number}/reference"]
    box = _body(reference)
    reference = reference[box]
    images = {title: record.images[f"{number}/{k}"][box] for k, title in enumerate(record.methods)}
    # the noisy input, or a method that fails, would make every other difference invisible
    errors = sorted(float(np.percentile(np.abs(image - reference), 99)) for image in images.values())
    limit = errors[3 * (len(errors) - 1) // 4] or 1.0
    figures = [PanelFigure("reference", "", _grey(reference))]
    for title, image in images.items():
        psnr = panel.scores.get(title, np.nan)
        caption = "" if np.isnan(psnr) else f"{psnr:.2f} dB"
        figures.append(PanelFigure(title, caption, _grey(image), _coloured((image - reference) / limit)))
    low, high = panel.window
    return PanelView(
        panel,
        record.levels[panel.level].short,
        figures,
        limit * (high - low),
        (reference.shape[0], reference.shape[1]),
        _most_detailed(reference),
    )


def _body(reference: NDArray[np.float32]) -> tuple[slice, slice]:
    """The part of a slice that shows something, with a margin."""
    rows, columns = np.nonzero(ndimage.uniform_filter(reference, 3) > 0.05)
    if rows.size == 0:
        return np.s_[:, :]
    (top, bottom), (left, right) = (
        (max(0, int(where.min()) - MARGIN), int(where.max()) + MARGIN + 1) for where in (rows, columns)
    )
    return np.s_[top:bottom, left:right]


def _most_detailed(reference: NDArray[np.float32]) -> tuple[int, int, int]:
    """(row, column, side) of the square, a third of the shorter side, with the most edges."""
    side = min(max(8, min(reference.shape) // 3), *reference.shape)
    edges = np.minimum(ndimage.gaussian_gradient_magnitude(reference, 1.0), 0.05)
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(row), int(column), side


def _grey(image: NDArray[np.float32]) -> str:
    """0 black, 1 white."""
    return _png(Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)))


def _coloured(difference: NDArray[np.float32]) -> str:
    """-1 to 1 in the colours of a difference."""
    picture = Image.fromarray(np.round((np.clip(difference, -1, 1) + 1) / 2 * (SHADES - 1)).astype(np.uint8))
    picture.putpalette(np.round(DIFFERENCE(np.linspace(0, 1, SHADES))[:, :3] * 255).astype(np.uint8).tobytes())
    return _png(picture)


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
