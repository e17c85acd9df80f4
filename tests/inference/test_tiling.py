"""Sliding windows: they cover the image, leave no trace of themselves, and their order does not matter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.data.phantoms import phantom
from cdm4mi.inference import tiling
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.inference.tiling import tiled, window_starts
from cdm4mi.models.condition import Condition

sizes = st.integers(1, 70)
overlaps = st.floats(0, 0.95)


@given(length=st.integers(1, 400), window=st.integers(1, 80), overlap=overlaps)
def test_windows_cover_every_pixel(length, window, overlap):
    starts = window_starts(length, window, overlap)
    window = min(window, length)
    assert starts[0] == 0
    assert starts[-1] + window == length
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, int(window * (1 - overlap)))).all()


def images(n, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, 1, rows, columns, generator=generator)
    return x, torch.arange(n) * 7, Condition(y, torch.rand(n, generator=generator))


def convolution(cond):
    """Sees neighbours, and nothing beyond the window."""

    def denoise(x_t, t):
        return F.avg_pool2d(x_t + cond.y, 5, 1, 2) * cond.sigma.reshape(-1, 1, 1, 1) + t.reshape(-1, 1, 1, 1)

    return denoise


@pytest.mark.parametrize("tile", [40, 41, 100])
def test_window_as_large_as_the_image_is_no_window(tile):
    x, t, cond = images(2, 40, 33)
    assert torch.equal(tiled(convolution, cond, tile, 0.25)(x, t), convolution(cond)(x, t))


@settings(max_examples=40, deadline=None)
@given(rows=sizes, columns=sizes, tile=st.integers(1, 40), overlap=overlaps.filter(lambda o: o < 0.8))
def test_constant_stays_constant(rows, columns, tile, overlap):
    x, t, cond = images(1, rows, columns)
    out = tiled(lambda cond: lambda x_t, t: torch.full_like(x_t, -0.7), cond, tile, overlap)(x, t)
    torch.testing.assert_close(out, torch.full_like(x, -0.7), rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(rows=sizes, columns=sizes, tile=st.integers(3, 40), batch=st.integers(1, 20))
def test_each_window_has_the_time_condition_and_level_of_its_own_image(rows, columns, tile, batch):
    def pointwise(cond):
        return lambda x_t, t: x_t * cond.sigma.reshape(-1, 1, 1, 1) - cond.y + t.reshape(-1, 1, 1, 1)

    x, t, cond = images(3, rows, columns)
    out = tiled(pointwise, cond, tile, 0.3, batch)(x, t)
    torch.testing.assert_close(out, pointwise(cond)(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 8, 1000])
def test_batch_and_order_of_windows_do_not_matter(batch, monkeypatch):
    x, t, cond = images(3, 50, 71)
    out = tiled(convolution, cond, 16, 0.25)(x, t)
    torch.testing.assert_close(tiled(convolution, cond, 16, 0.25, batch)(x, t), out, rtol=0, atol=2e-6)
    alone = tiled(convolution, cond[2:], 16, 0.25, batch)(x[2:], t[2:])
    torch.testing.assert_close(alone, out[2:], rtol=0, atol=2e-6)
    monkeypatch.setattr(tiling, "window_starts", lambda *a: window_starts(*a)[::-1])
    torch.testing.assert_close(tiled(convolution, cond, 16, 0.25, batch)(x, t), out, rtol=0, atol=2e-6)


def test_no_seam_shows_at_window_borders(tiny, monkeypatch):
    side, tile, sigma = 104, 32, 0.2
    clean = phantom("CT", 40, side).clip(-1000, 1000) / 1000
    y = (clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)[None]

    def restored(tile, overlap):
        sampling = tiny.config.sampling.model_copy(update={"tile": tile, "overlap": overlap})
        return SliceRestorer(tiny, sampling).restore(y, sigma)[0]

    whole = restored(side, 0.25)

    def seam(image, starts):
        """Jump at the borders of windows over the jump elsewhere, of what tiling changed, in units of the noise."""
        jump = np.abs(np.diff(image - whole, axis=1)).mean(0) / sigma
        borders = [s - 1 for s in starts if s] + [s + tile - 1 for s in starts if s + tile < side]
        return jump[borders].mean() - np.delete(jump, borders).mean()

    assert seam(restored(tile, 0.25), window_starts(side, tile, 0.25)) < 0.01
    # the same figure does see seams: windows put side by side, each up to its border
    monkeypatch.setattr(tiling, "blend_weights", lambda height, width: torch.ones(height, width))
    assert seam(restored(tile, 0.0), window_starts(side, tile, 0.0)) > 0.03
