"""Gaussian paths x_t = a(t) x0 + b(t) y + c(t) eps: the one process that everything else is written against."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CLEAN = -1
"""The time after the last network call: x0 itself (a = 1, b = c = 0)."""


class Coefficients(NamedTuple):
    """a, b, c of a path at some times: float64, (N,); ``broadcast`` makes one multiply images."""

    a: Tensor
    b: Tensor
    c: Tensor


class GaussianPath:
    """A path over the discrete times 0 (least noise) .. T - 1 (most), given as three tables.

    a, b, c: shape (T,), kept in float64 and never cast with a model: in half precision 1 - abar is 0 at the first
    times. Images may have any float dtype and device; results have theirs. Coefficients lie where the times do, so
    that a training does not wait for its GPU; on the CPU where a device has no float64 (MPS).
    """

    def __init__(self, a: Tensor, b: Tensor, c: Tensor) -> None:
        # one more entry, so that the index CLEAN = -1 reads the clean end of the path
        self._a = torch.cat([a.double(), torch.ones(1, dtype=torch.float64)])
        self._b = torch.cat([b.double(), torch.zeros(1, dtype=torch.float64)])
        self._c = torch.cat([c.double(), torch.zeros(1, dtype=torch.float64)])
        self._elsewhere: dict[torch.device, Coefficients] = {}

    @property
    def timesteps(self) -> int:
        """T, the number of times."""
        return len(self._a) - 1

    def at(self, t: Tensor | int) -> Coefficients:
        """Coefficients at the times t (int, or shape (N,), each CLEAN or in 0 .. T - 1; IndexError for others)."""
        if isinstance(t, Tensor) and torch.compiler.is_compiling():  # no value can be looked at
            return Coefficients(*(table[t.reshape(-1)] for table in (self._a, self._b, self._c)))
        if isinstance(t, Tensor) and t.device.type not in ("cpu", "mps"):
            if t.device not in self._elsewhere:
                tables = (table.to(t.device) for table in (self._a, self._b, self._c))
                self._elsewhere[t.device] = Coefficients(*tables)
            return Coefficients(*(table[t.reshape(-1)] for table in self._elsewhere[t.device]))  # it checks the index
        index = torch.as_tensor(t).reshape(-1).cpu()
        if bool(((index < CLEAN) | (index >= self.timesteps)).any()):  # else T would read the clean end
            raise IndexError(f"times {index.tolist()}: expected {CLEAN} or 0 to {self.timesteps - 1}")
        return Coefficients(self._a[index], self._b[index], self._c[index])

    def snr(self, t: Tensor | int) -> Tensor:
        """Signal-to-noise ratio a^2 / c^2, float64, (N,)."""
        a, _, c = self.at(t)
        return (a / c) ** 2

    def half_log_snr(self, t: Tensor | int) -> Tensor:
        """lambda = ln(a / c), the time of higher-order solvers, float64, (N,): -inf at a = 0, about 700 at c = 0."""
        a, _, c = self.at(t)
        return torch.log(a / c.clamp(min=torch.finfo(torch.float64).tiny))

    def q_sample(self, x0: Tensor, t: Tensor | int, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw x_t given x0 (N, C, ...), unit noise eps and, on a bridge, the condition y (Ho et al. 2020, eq. 4)."""
        a, b, c = self.at(t)
        return _mix((a, x0), (b, y), (c, eps))

    def eps(self, x_t: Tensor, x0: Tensor, t: Tensor | int, y: Tensor | None = None) -> Tensor:
        """The noise that x_t holds if x0 is the clean image."""
        a, b, c = self.at(t)
        return _mix((1 / c, x_t), (-a / c, x0), (-b / c, y))

    @property
    def is_bridge(self) -> bool:
        """Whether the condition y is part of x_t (b > 0 somewhere)."""
        return bool((self._b != 0).any())

    def start(
        self, noise: Tensor, y: Tensor | None = None, sigma_r: Tensor | None = None, t: int | None = None
    ) -> Tensor:
        """x at the time t (T - 1 if None), from which sampling starts.

        Without sigma_r the marginal of a standardised image: the noise itself, and on a bridge its share of y. With y
        and the root mean square sigma_r (N,) of x0 - y: the marginal for x0 ~ N(y, sigma_r^2), which
        is right also where the path does not end in pure noise.
        """
        a, b, c = self.at(self.timesteps - 1 if t is None else t)
        if y is None or sigma_r is None:
            return _mix((torch.sqrt(a**2 + c**2), noise), (b, y))
        spread = torch.sqrt((a * per_sample(sigma_r, a)) ** 2 + c**2)
        return _mix((a + b, y), (spread, noise))


class DDPMPath(GaussianPath):
    """The variance-preserving diffusion of betas: a = sqrt(abar), b = 0, c = sqrt(1 - abar) (Ho et al. 2020)."""

    def __init__(self, betas: Tensor) -> None:
        self.betas = betas.double()
        self.alphas_cumprod = torch.cumprod(1 - self.betas, 0)
        # 1 - abar without cancellation, for abar near 1
        c2 = -torch.expm1(torch.cumsum(torch.log1p(-self.betas), 0))
        super().__init__(self.alphas_cumprod.sqrt(), torch.zeros_like(self.betas), c2.sqrt())


def per_sample(numbers: Tensor, like: Tensor) -> Tensor:
    """A number of each sample, of any shape, as the coefficients ``like`` are: float64, (N,), on their device."""
    return numbers.to(like.device).to(like.dtype).flatten()


def broadcast(weight: Tensor, like: Tensor) -> Tensor:
    """A number or a bool of each sample, (N,) or (1,), in the shape that multiplies or masks images (N, C, ...).

    It goes to the images' device; a number takes their dtype too.
    """
    shaped = weight.reshape(-1, *(1 for _ in like.shape[1:]))
    return shaped.to(like.device, None if shaped.dtype == torch.bool else like.dtype)


def _mix(*terms: tuple[Tensor, Tensor | None]) -> Tensor:
    """Sum of coefficient times image, in the images' dtype; a term without an image is left out."""
    out: Tensor | None = None
    for weight, image in terms:
        if image is None:
            continue
        term = broadcast(weight, image) * image
        out = term if out is None else out + term
    assert out is not None
    return out
