"""Pictures of a report: every method in one window, a zoomed region, differences to the reference; PNG in the page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cdm4mi.evaluation.report.record import Record, known
from cdm4mi.evaluation.report.tables import stamp
from cdm4mi.measure.pictures import DIFFERENCE

MOST = 14_000_000
"""Characters of pictures in a page, which keeps it well under 20 MB."""
SHADES = 64
MARGIN = 4


def panels(record: Record) -> Iterator[str]:
    """The HTML of every panel, as far as there is room; a line says how many are left out."""
    used, shown = 0, 0
    for number, panel in enumerate(record.said["panels"]):
        text = _panel(record, number, panel)
        if shown and used + len(text) > MOST:
            yield f"<p>{len(record.said['panels']) - shown} more left out, so that the page stays small.</p>"
            return
        used, shown = used + len(text), shown + 1
        yield text


def _panel(record: Record, number: int, panel: dict[str, Any]) -> str:
    reference = record.images[f"{number}/reference"]
    box = _body(reference)
    reference = reference[box]
    columns = [(title, record.images[f"{number}/{k}"][box]) for k, title in enumerate(record.methods)]
    low, high = panel["window"]
    # the noisy input, or a method that fails, would make every other difference invisible
    errors = sorted(float(np.percentile(np.abs(image - reference), 99)) for _, image in columns)
    limit = errors[3 * (len(errors) - 1) // 4] or 1.0
    zoom = _detail(reference)
    level = record.levels[panel["level"]]
    figures = [_figure(number, "r", "reference", reference, None, "", zoom, limit)]
    for k, (title, image) in enumerate(columns):
        value = panel["scores"].get(title, float("nan"))
        caption = f"{value:.2f} dB" if known(value) else ""
        figures.append(_figure(number, str(k), title, image, image - reference, caption, zoom, limit))
    unit = panel["unit"]
    heading = f"{level['short']}, {panel['why']} of {record.main}"
    where = (
        f"{panel['patient']}, slice {panel['slice']}. One window for all: {low:.4g} to {high:.4g} {unit}. "
        f"PSNR of the slice: {stamp(record, record.protocols[0])}."
    )
    most = f"{limit * (high - low):.3g}"
    return (
        f'<section class="panel"><h3>{html.escape(heading)}</h3><div class="row">{"".join(figures)}</div>'
        f'<div class="bar">difference &minus;{most}<i style="background:{_gradient()}"></i>+{most} '
        f'{html.escape(unit)}</div><p class="note">{html.escape(where)}</p></section>'
    )


def _figure(
    panel: int,
    column: str,
    title: str,
    image: NDArray[Any],
    difference: NDArray[Any] | None,
    caption: str,
    zoom: tuple[int, int, int],
    limit: float,
) -> str:
    """One method: image with the zoomed square marked, the square, the difference. The image is in the page once."""
    rows, width = image.shape
    row, left, side = zoom
    name = f"p{panel}-{column}"
    style = f".{name}{{background-image:url({_png(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))})}}"
    mark = (
        f"left:{100 * left / width:.2f}%;top:{100 * row / rows:.2f}%;"
        f"width:{100 * side / width:.2f}%;height:{100 * side / rows:.2f}%"
    )
    place = f"{100 * left / max(1, width - side):.3f}% {100 * row / max(1, rows - side):.3f}%"
    size = f"{100 * width / side:.3f}% {100 * rows / side:.3f}%"
    alt = html.escape(title, quote=True)
    parts = [
        f"<style>{style}</style>",
        f'<div class="im {name}" role="img" aria-label="{alt}" style="aspect-ratio:{width}/{rows}">'
        f'<i style="{mark}"></i></div>',
        f'<div class="im {name}" role="img" aria-label="{alt}, a part of it" '
        f'style="aspect-ratio:1;background-size:{size};background-position:{place}"></div>',
    ]
    if difference is not None:
        parts.append(f'<img alt="{alt} minus the reference" src="{_difference(difference, limit)}">')
    return f"<figure><figcaption><b>{html.escape(title)}</b> {caption}</figcaption>{''.join(parts)}</figure>"


def _body(reference: NDArray[Any]) -> tuple[slice, slice]:
    """The part of a slice that shows something, with a margin."""
    rows, columns = np.nonzero(ndimage.uniform_filter(reference, 3) > 0.05)
    if rows.size == 0:
        return np.s_[:, :]
    (top, bottom), (left, right) = (
        (max(0, int(where.min()) - MARGIN), int(where.max()) + MARGIN + 1) for where in (rows, columns)
    )
    return np.s_[top:bottom, left:right]


def _detail(reference: NDArray[Any]) -> tuple[int, int, int]:
    """(row, column, side) of the square, a third of the shorter side, with the most detail."""
    side = max(8, min(reference.shape) // 3)
    side = min(side, *reference.shape)
    edges = np.minimum(ndimage.gaussian_gradient_magnitude(reference, 1.0), 0.05)
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(row), int(column), side


def _difference(difference: NDArray[Any], limit: float) -> str:
    shade = np.round((np.clip(difference / limit, -1, 1) + 1) / 2 * (SHADES - 1)).astype(np.uint8)
    palette = np.round(DIFFERENCE(np.linspace(0, 1, SHADES))[:, :3] * 255).astype(np.uint8)
    return _png(shade, palette)


def _gradient() -> str:
    """The colours of a difference from its least to its most."""
    stops = (DIFFERENCE(at)[:3] for at in np.linspace(0, 1, 5))
    return f"linear-gradient(90deg,{','.join(f'rgb({r:.0%} {g:.0%} {b:.0%})' for r, g, b in stops)})"


def _png(values: NDArray[Any], palette: NDArray[Any] | None = None) -> str:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
