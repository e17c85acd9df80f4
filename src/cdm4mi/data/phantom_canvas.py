"""A canvas for anatomy-like slices: smooth random fields, deformed shapes with partial-volume edges, vessel trees."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray


@functools.lru_cache(maxsize=64)
def _spline_basis(size: int, knots: int) -> NDArray[Any]:
    """Uniform cubic B-spline weights, (size, knots + 3): smooth interpolation of a coarse grid at any image size."""
    t = np.linspace(0.0, knots, size, endpoint=False)
    cell = t.astype(int)
    u = t - cell
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6
    basis = np.zeros((size, knots + 3), np.float32)
    for j in range(4):
        basis[np.arange(size), cell + j] = weights[:, j]
    return basis


class Canvas:
    """A (size, size) slice under construction.

    Body coordinates ``x`` (right) and ``y`` (down) are about [-1, 1] over the field of view; a random pose, zoom and
    smooth deformation are already in them, so every shape that is drawn is deformed together. A shape is a signed
    distance in pixels (positive inside); its coverage of a pixel is that distance clipped to one pixel's width.
    """

    def __init__(self, rng: np.random.Generator, size: int, background: float, fit: tuple[float, float]) -> None:
        self.rng, self.size = rng, size
        self.image = np.full((size, size), background, np.float32)
        zoom = 1.0 if rng.random() < 0.6 else rng.uniform(1.1, 2.2)
        self._zoom = zoom * rng.uniform(*fit)
        self._angle = rng.normal(0, 0.08)
        reach = 0.55 * (1 - 1 / zoom)
        self._centre = rng.uniform(-0.06, 0.06, 2) + rng.uniform(-reach, reach, 2)
        grid = (np.arange(size) + 0.5) * 2 / size - 1
        gx, gy = grid[None, :] / self._zoom, grid[:, None] / self._zoom
        cos, sin = np.cos(self._angle), np.sin(self._angle)
        self._warp_x, self._warp_y = 0.02 * self.field(3), 0.02 * self.field(3)
        self.x = (cos * gx - sin * gy + self._centre[0] + self._warp_x).astype(np.float32)
        self.y = (sin * gx + cos * gy + self._centre[1] + self._warp_y).astype(np.float32)
        self.px = size / 2 * self._zoom  # pixels a body unit

    def field(self, knots: float, octaves: int = 1, gain: float = 0.6) -> NDArray[Any]:
        """Smooth random field of about zero mean and unit variance with ``knots`` control points across the image."""
        total, power = np.zeros((self.size, self.size), np.float32), 0.0
        for octave in range(octaves):
            n = int(min(max(round(knots * 2**octave), 1), self.size))
            basis = _spline_basis(self.size, n)
            amplitude = gain**octave
            total += np.float32(amplitude) * (basis @ self.rng.standard_normal((n + 3, n + 3), np.float32) @ basis.T)
            power += amplitude**2
        return total / np.float32(
            0.48 * np.sqrt(power)
        )  # 0.48: the mean over a cell of the sum of squared spline weights

    def per_unit(self, knots: float) -> float:
        """Control points across the image that make ``knots`` across one field of view before zoom."""
        return max(knots / self._zoom, 1)

    @staticmethod
    def coverage(distance: NDArray[Any]) -> NDArray[Any]:
        """Share of each pixel inside the shape."""
        return np.minimum(np.maximum(distance + np.float32(0.5), 0), 1)

    def paint(self, distance: NDArray[Any], value: float | NDArray[Any]) -> None:
        """Lay ``value`` over the inside of the shape; pixels on the edge are mixed in proportion."""
        self.image += self.coverage(distance) * (value - self.image)

    def blob(
        self, cx: float, cy: float, a: float, b: float, tilt: float = 0.0, wobble: float = 0.06, squareness: float = 0.0
    ) -> NDArray[np.floating]:
        """Signed distance (pixels) of an ellipse whose outline is deformed by random Fourier terms of order 2 to 6."""
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        u, v = (cos * dx + sin * dy) / np.float32(a), (cos * dy - sin * dx) / np.float32(b)
        rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
        u, v = u / rho, v / rho  # cosine and sine of the angle on the ellipse
        orders = np.arange(2, 7)
        terms = wobble * self.rng.normal(size=5) / orders * np.exp(1j * self.rng.uniform(0, 2 * np.pi, 5))
        terms[2] -= 0.1 * squareness
        terms = terms.astype(np.complex64)
        z = u + 1j * v
        series = np.full_like(z, terms[-1])
        for term in terms[-2::-1]:  # Horner's rule for sum of terms z^order
            series *= z
            series += term
        outline = 1 + 0.1 * squareness + (series * z * z).real
        slope = np.sqrt((v / np.float32(b)) ** 2 + (u / np.float32(a)) ** 2)  # of rho along its gradient
        distance: NDArray[np.floating] = (outline - rho) / slope * np.float32(self.px)
        return distance

    def _pixel(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Row and column nearest to body coordinates: undo the pose, then correct once for the deformation there."""
        cos, sin = np.cos(self._angle), np.sin(self._angle)
        shift_x, shift_y = 0.0, 0.0
        for _ in range(2):
            cx, cy = x + shift_x - self._centre[0], y + shift_y - self._centre[1]
            column = ((cos * cx + sin * cy) * self._zoom + 1) / 2 * self.size - 0.5
            row = ((cos * cy - sin * cx) * self._zoom + 1) / 2 * self.size - 0.5
            at = tuple(np.clip(np.rint(p).astype(int), 0, self.size - 1) for p in (row, column))
            shift_x, shift_y = -self._warp_x[at], -self._warp_y[at]
        return np.rint(row).astype(int), np.rint(column).astype(int)

    def strokes(self, segments: NDArray[Any], value: float, inside: NDArray[Any] | None = None) -> None:
        """Paint tapered lines, all at once, optionally only inside a coverage map.

        ``segments`` is (n, 6): x0, y0, x1, y1 and the radius at both ends. A line thinner than a pixel fades instead of
        vanishing.
        """
        x0, y0, x1, y1, r0, r1 = (column[:, None, None] for column in segments.astype(np.float32).T)
        rows, columns = self._pixel((segments[:, 0] + segments[:, 2]) / 2, (segments[:, 1] + segments[:, 3]) / 2)
        length = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
        reach = int(np.ceil((length / 2 + segments[:, 4:].max(1)).max() * self.px)) + 2
        step = np.arange(-reach, reach + 1)
        rows = rows[:, None, None] + step[None, :, None]
        columns = columns[:, None, None] + step[None, None, :]
        valid = (rows >= 0) & (rows < self.size) & (columns >= 0) & (columns < self.size)
        index = np.clip(rows, 0, self.size - 1) * self.size + np.clip(columns, 0, self.size - 1)
        dx, dy = self.x.ravel()[index] - x0, self.y.ravel()[index] - y0
        ex, ey = x1 - x0, y1 - y0
        along = np.minimum(np.maximum((dx * ex + dy * ey) / (ex * ex + ey * ey + 1e-12), 0), 1)
        width = (r0 + (r1 - r0) * along) * self.px
        dx -= along * ex
        dy -= along * ey
        edge = np.maximum(width, 0.5) - np.sqrt(dx * dx + dy * dy) * self.px + 0.5
        alpha = np.minimum(np.maximum(edge, 0), 1) * np.minimum(2 * width, 1) * valid
        cover = np.zeros((self.size, self.size), np.float32)
        np.maximum.at(cover.ravel(), index.ravel(), alpha.ravel())
        if inside is not None:
            cover *= inside
        self.image += cover * (value - self.image)

    def disc(self, cx: float, cy: float, radius: float, value: float, inside: NDArray[Any] | None = None) -> None:
        """Paint a small round structure (a vessel seen end on)."""
        self.strokes(np.array([[cx, cy, cx, cy, radius, radius]]), value, inside)

    def line(self, x0: float, y0: float, x1: float, y1: float, r0: float, r1: float, value: float) -> None:
        """Paint one tapered line."""
        self.strokes(np.array([[x0, y0, x1, y1, r0, r1]]), value)

    def tree(
        self, x: float, y: float, angle: float, length: float, radius: float, value: float, inside: NDArray[Any],
        depth: int = 4, spread: float = 0.6,
    ) -> None:  # fmt: skip
        """Paint a branching vessel that starts at (x, y) and runs along ``angle``, only inside a coverage map."""
        rng = self.rng
        segments: list[NDArray[Any]] = []
        tips = np.array([[x, y, angle, length, radius]])
        for _ in range(depth + 1):
            for _ in range(2):  # two pieces with a bend
                x0, y0, angles, lengths, radii = tips.T
                ends = np.stack([x0 + lengths / 2 * np.cos(angles), y0 + lengths / 2 * np.sin(angles)])
                segments.append(np.stack([x0, y0, *ends, radii, 0.85 * radii], axis=1))
                angles = angles + rng.normal(0, 0.18, len(tips))
                tips = np.stack([*ends, angles, lengths, 0.85 * radii], axis=1)
            tips = np.repeat(tips, 2, axis=0)
            n = len(tips)
            tips[:, 2] += np.tile([-1.0, 1.0], n // 2) * spread * rng.uniform(0.3, 1.3, n)
            tips[:, 3] *= rng.uniform(0.6, 0.95, n)
            tips[:, 4] *= rng.uniform(0.55, 0.9, n)
        self.strokes(np.concatenate(segments), value, inside)

    def level_set(self, field: NDArray[Any], level: float = 0.0) -> NDArray[np.floating]:
        """Signed distance (pixels) of {field > level}, to first order: (field - level) / |gradient|."""
        gy, gx = np.gradient(field)
        distance: NDArray[np.floating] = (field - level) / (np.sqrt(gx * gx + gy * gy) + np.float32(1e-3))
        return distance
