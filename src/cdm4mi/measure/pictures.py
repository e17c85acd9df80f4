"""Pictures of results: methods side by side with their differences, and denoising steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.measure.metrics import psnr
from cdm4mi.measure.plots import save_png

# black where nothing differs, so that structure left in a difference stands out
DIFFERENCE = LinearSegmentedColormap.from_list("difference", ["#9fd8ff", "#1f6fd0", "black", "#d0601f", "#ffd69f"])
INK, FAINT, MARK = "white", "#9a9a9a", "#ffd23f"
Zoom = tuple[int, int, int]


def comparison_picture(
    path: str | Path,
    columns: Mapping[str, NDArray[Any]],
    window: tuple[float, float],
    zoom: Zoom | None = None,
    differences_to: str | None = None,
    unit: str = "",
    difference_limit: float | None = None,
) -> None:
    """Draw images side by side in one window, with their PSNR, an enlarged part and the differences from the reference.

    ``columns``: title -> (rows, columns) in physical units, in the order shown; ``window``: (black, white), also the
    data range of the PSNR, to which all are clipped; ``zoom``: (row, column, side) of a square shown enlarged;
    ``differences_to``: title of the reference: PSNR and differences (image - reference) are to it, the differences all
    on one scale up to ``difference_limit`` (default: the 99th percentile of the second-largest column).
    """
    images = _same_shape(columns)
    low, high = window
    if not low < high:
        raise UserError(f"window is {low:g} {high:g}, expected the lower value first")
    reference = None
    if differences_to is not None:
        if differences_to not in images:
            raise UserError(f"differences_to is {differences_to!r}, expected one of {', '.join(images)}")
        reference = images[differences_to]
    height, width = next(iter(images.values())).shape
    if zoom is not None and not (zoom[2] > 0 and 0 <= zoom[0] <= height - zoom[2] and 0 <= zoom[1] <= width - zoom[2]):
        raise UserError(f"zoom (row, column, side) is {zoom}, expected a square inside {height} x {width}")

    side = 3.0
    heights = [side * height / width]
    if zoom is not None:
        heights.append(side)
    if reference is not None:
        heights.append(side * height / width)
    grid = _Grid(heights, len(images), side)
    for column, (title, image) in enumerate(images.items()):
        axes = grid.panel(0, column)
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(title, color=INK, fontsize=12, pad=6)
        if reference is not None:
            _below(axes, _psnr_text(image, reference, window, title == differences_to))
        if zoom is not None:
            row, left, extent = zoom
            axes.add_patch(Rectangle((left - 0.5, row - 0.5), extent, extent, fill=False, edgecolor=MARK, linewidth=1))
            part = grid.panel(1, column)
            part.imshow(
                image[row : row + extent, left : left + extent],
                cmap="gray",
                vmin=low,
                vmax=high,
                interpolation="nearest",
            )
            _frame(part, MARK)
    if reference is not None:
        differences = {t: np.clip(i, low, high) - np.clip(reference, low, high) for t, i in images.items()}
        others = sorted(float(np.percentile(np.abs(d), 99)) for t, d in differences.items() if t != differences_to)
        limit = difference_limit or (others[-2] if len(others) > 1 else others[-1] if others else 0.0) or 1.0
        for column, (title, difference) in enumerate(differences.items()):
            axes = grid.panel(len(heights) - 1, column)
            if title == differences_to:
                _scale(axes, limit, unit)
                continue
            axes.imshow(difference, cmap=DIFFERENCE, vmin=-limit, vmax=limit, interpolation="nearest")
            _frame(axes, "#404040")
            _below(axes, f"{title} − {differences_to}")
    grid.note(f"one window for all: {low:g} to {high:g} {unit}".rstrip())
    grid.save(path)


def steps_picture(
    path: str | Path,
    steps: Sequence[tuple[int, NDArray[Any], NDArray[Any]]],
    window: tuple[float, float] = (-1.0, 1.0),
    condition: NDArray[Any] | None = None,
    target: NDArray[Any] | None = None,
) -> None:
    """Draw the steps of sampling in a strip: above the latent x_t, below the estimate x0_hat made from it.

    ``steps``: (t, x_t, x0_hat), images (rows, columns), of colour (rows, columns, 3), in the model's units, in the
    order of sampling; x_t, whose scale changes with t, is shown with its own contrast (1st to 99th percentile),
    everything else in ``window``.
    ``condition`` stands at the left, ``target`` at the right; with a target the PSNR of each x0_hat is written below.
    """
    if not steps:
        raise UserError("no denoising step to draw, expected at least one")
    states = {f"{kind} at t = {t}": image for t, x, x0 in steps for kind, image in (("x_t", x), ("x0_hat", x0))}
    _same_shape(states, colour=True)
    low, high = window
    height, width = steps[0][1].shape[:2]
    side = 1.9
    first = int(condition is not None)
    breaks = [1] * first + [first + len(steps)] * (target is not None)
    grid = _Grid([side * height / width] * 2, len(steps) + len(breaks), side, breaks)
    for column, (t, x, x0) in enumerate(steps, first):
        latent = grid.panel(0, column)
        lowest, highest = np.percentile(x, (1, 99))
        _show(latent, x, lowest, max(highest, lowest + 1e-6))
        latent.set_title(f"t = {t}", color=INK, fontsize=10, pad=4)
        estimate = grid.panel(1, column)
        _show(estimate, x0, low, high)
        if target is not None:
            _below(estimate, _psnr_text(x0, target, window))
        if column == first:
            latent.set_ylabel("$x_t$", color=INK, fontsize=13)
            estimate.set_ylabel("$\\hat{x}_0$", color=INK, fontsize=13)
    for column, title, image in ((0, "condition", condition), (grid.columns - 1, "target", target)):
        if image is not None:
            axes = grid.panel(1, column)
            _show(axes, image, low, high)
            axes.set_title(title, color=INK, fontsize=10, pad=4)
            if target is not None and title == "condition":
                _below(axes, _psnr_text(image, target, window))
    grid.save(path)


def _show(axes: Axes, image: NDArray[Any], low: float, high: float) -> None:
    """Draw an image (rows, columns), or in colour (rows, columns, 3), in the window from low to high."""
    if image.ndim == 3:
        axes.imshow(np.clip((image - low) / (high - low), 0, 1), interpolation="nearest")
    else:
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")


class _Grid:
    """Panels of equal width on black, in rows of given heights (inches) with a line of text below each."""

    GAP, BREAK, TEXT, TOP = 0.08, 0.4, 0.32, 0.36

    def __init__(self, heights: Sequence[float], columns: int, side: float, breaks: Sequence[int] = ()) -> None:
        """breaks: columns with a wider gap before them."""
        self.columns, self._side, self._heights, self._breaks = columns, side, heights, breaks
        self._left = 0.35
        self._width = self._left + columns * (side + self.GAP) + len(breaks) * self.BREAK + 0.15
        self._height = self.TOP + sum(heights) + len(heights) * self.TEXT + 0.1
        self.figure = Figure(figsize=(self._width, self._height), facecolor="black")

    def panel(self, row: int, column: int) -> Axes:
        top = self._height - self.TOP - sum(self._heights[:row]) - row * self.TEXT
        left = self._left + column * (self._side + self.GAP) + sum(column >= b for b in self._breaks) * self.BREAK
        bottom = top - self._heights[row]
        axes = self.figure.add_axes(
            (left / self._width, bottom / self._height, self._side / self._width, self._heights[row] / self._height)
        )
        axes.set_facecolor("black")
        axes.set_xticks([])
        axes.set_yticks([])
        _frame(axes, "black")
        return axes

    def note(self, text: str) -> None:
        self.figure.text(self._left / self._width, 0.06 / self._height, text, color=FAINT, fontsize=8, va="bottom")

    def save(self, path: str | Path) -> None:
        save_png(self.figure, Path(path), dpi=110)


def _frame(axes: Axes, color: str) -> None:
    for spine in axes.spines.values():
        spine.set_color(color)


def _below(axes: Axes, text: str) -> None:
    axes.text(0.5, -0.02, text, color=FAINT, fontsize=9, ha="center", va="top", transform=axes.transAxes)


def _scale(axes: Axes, limit: float, unit: str) -> None:
    """Draw the colour scale of the differences, in place of the reference's difference from itself."""
    bar = axes.inset_axes((0.1, 0.52, 0.8, 0.05))
    bar.imshow(np.linspace(-1, 1, 256)[None], cmap=DIFFERENCE, aspect="auto", extent=(-limit, limit, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([-limit, 0, limit], [f"−{limit:.3g}", "0", f"{limit:.3g}"], color=INK, fontsize=9)
    bar.tick_params(colors=FAINT)
    _frame(bar, "#404040")
    axes.text(0.5, 0.62, f"difference {unit}".rstrip(), color=INK, fontsize=10, ha="center", transform=axes.transAxes)


def _psnr_text(image: NDArray[Any], reference: NDArray[Any], window: tuple[float, float], itself: bool = False) -> str:
    if itself:
        return "PSNR to this"
    low, high = window
    return f"{psnr(np.clip(image, low, high), np.clip(reference, low, high), high - low):.2f} dB"


def _same_shape(images: Mapping[str, NDArray[Any]], colour: bool = False) -> dict[str, NDArray[Any]]:
    arrays = {title: np.asarray(image, dtype=np.float32) for title, image in images.items()}
    if not arrays:
        raise UserError("no image to draw, expected at least one")
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) not in ((2, 3) if colour else (2,)):
        found = ", ".join(f"{title} {array.shape}" for title, array in arrays.items())
        raise UserError(f"images have the shapes {found}, expected one (rows, columns) for all")
    return arrays
