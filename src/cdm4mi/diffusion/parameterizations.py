"""What the network predicts (eps, x0, v, or the correction F to the condition) and how that becomes x0_hat and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cdm4mi.diffusion.bridges import FlowBridge
from cdm4mi.diffusion.consistency import image_mean
from cdm4mi.diffusion.paths import GaussianPath, broadcast, per_sample
from cdm4mi.errors import UserError


@dataclass(frozen=True)
class Latent:
    """A point x_t on the path, with the condition that estimates of x0 may rest on.

    x_t: (N, C, ...), images or volumes; t: (N,) times; y: the condition image, of the shape of x_t; sigma_r: root mean
    square of x0 - y, (N,). y and sigma_r are needed by bridges, and by what ``rests_on_condition``.
    """

    path: GaussianPath
    x_t: Tensor
    t: Tensor
    y: Tensor | None = None
    sigma_r: Tensor | None = None


class Parameterization:
    """Turns a network's output into x0_hat, and (x0, eps) into the network's target.

    rests_on_condition: whether it needs the condition image, and not the network alone.
    """

    name: str
    rests_on_condition = False

    def check(self, path: GaussianPath) -> None:
        """Raise UserError where the path has a time at which this output says nothing about x0."""

    def last_time(self, path: GaussianPath) -> int:
        """The noisiest time at which this output says something about x0 in float32: where sampling starts."""
        return path.timesteps - 1

    def network_input(self, z: Latent) -> Tensor:
        """The image that the network sees."""
        return z.x_t

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        """x0_hat (N, C, ...) from the network's output."""
        raise NotImplementedError

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        """What the network should have returned."""
        raise NotImplementedError

    def x0_gain(self, z: Latent) -> Tensor:
        """d x0_hat / d out, float64, (N,): how an error of the output shows in the image."""
        raise NotImplementedError


class Eps(Parameterization):
    """The noise (Ho et al. 2020, eq. 14): x0_hat = (x_t - b y - c eps) / a.

    Where a is below half a unit in the last place of float32 (the end of the schedule ``sqrt``: 2e-22), a x0 is lost in
    the rounding of x_t and the division would only blow up that rounding. x0_hat is 0 there, and x_t stays the noise
    that it is.
    """

    name = "eps"
    LEAST = 2.0**-24
    """Of a / c."""

    def check(self, path: GaussianPath) -> None:
        if float(path.at(path.timesteps - 1).a) == 0.0:
            what = "on a bridge" if path.is_bridge else "with zero terminal SNR"
            raise UserError(f"parameterization: found eps {what}, expected x0 or v (eps says nothing at its last time)")

    def last_time(self, path: GaussianPath) -> int:
        a, _, c = path.at(torch.arange(path.timesteps))
        telling = torch.nonzero(a >= self.LEAST * c)
        return int(telling[-1]) if len(telling) else 0

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        a, b, c = z.path.at(z.t)
        rest = z.x_t - broadcast(c, out) * out
        if z.y is not None:
            rest = rest - broadcast(b, out) * z.y
        telling = a >= self.LEAST * c
        return torch.where(broadcast(telling, out), rest / broadcast(torch.where(telling, a, 1.0), out), 0.0)

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        return eps

    def x0_gain(self, z: Latent) -> Tensor:
        return z.path.snr(z.t) ** -0.5


class EpsWithMean(Eps):
    """The noise, whose mean over the image rests on the condition as ``precond`` does; else it is ``eps``.

    The mean is one of H W coefficients in the loss, too few for a network to learn it, and an error of it is multiplied
    by sigma = c / a. With w = sigma_r^2 / (sigma^2 + sigma_r^2) and m = mean(y) + w (mean(x_t) / a - mean(y)), the best
    linear fusion of what condition and x_t say of the mean of x0, eps_hat has the mean

        (mean(x_t) - a m) / c + sigma_r / sqrt(sigma^2 + sigma_r^2) mean(F)

    for the network's output F, and F less its mean beside it. So F can tell a bias of y, and an error of F's mean
    counts sigma_r times in x0_hat at most.

    fold: of a network that folds blocks of fold x fold pixels into channels; each of its sub-grids has a mean then.
    """

    rests_on_condition = True

    def __init__(self, fold: int = 1) -> None:
        self.fold = fold

    def _fused_mean(self, z: Latent) -> tuple[Tensor, Tensor]:
        """The mean of eps by the fusion, (N, C, H, W), and the weight of the mean of F, which meets it."""
        if z.y is None or z.sigma_r is None:
            raise UserError("mean_from: found condition without a condition image, expected conditioning_key concat")
        a, _, c = z.path.at(z.t)
        spread = a * per_sample(z.sigma_r, a).clamp(min=1e-4)  # a condition without noise is no special case
        total = c**2 + spread**2
        fused = broadcast(c / total, z.x_t) * z.x_t - broadcast(a * c / total, z.x_t) * z.y
        return image_mean(fused, self.fold), broadcast(spread / total.sqrt(), z.x_t)

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        fused, weight = self._fused_mean(z)
        return super().x0(out + fused + (weight - 1) * image_mean(out, self.fold), z)

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        fused, weight = self._fused_mean(z)
        mean = image_mean(eps, self.fold)
        return eps - mean + (mean - fused) / weight


class X0(Parameterization):
    """The clean image."""

    name = "x0"

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        return out

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        return x0

    def x0_gain(self, z: Latent) -> Tensor:
        return torch.ones_like(z.path.at(z.t).a)


class V(Parameterization):
    """The velocity of the path.

    Where b = 0, v = a eps - c x0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D) and x0_hat = (a x_t - c v) /
    (a^2 + c^2). On a flow bridge, x_t = x0 + u (y + sigma_s eps - x0), it is d x_t / d u (Lipman et al. 2023, arXiv
    2210.02747, eq. 23) and x0_hat = x_t - u v.
    """

    name = "v"

    def check(self, path: GaussianPath) -> None:
        if path.is_bridge and not isinstance(path, FlowBridge):
            raise UserError(
                f"parameterization: found v on a {type(path).__name__}, expected x0 or precond "
                "(v is defined for paths of pure noise and for the flow bridge)"
            )

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        a, b, c = z.path.at(z.t)
        if z.path.is_bridge:
            return z.x_t - broadcast(b, out) * out
        norm = a**2 + c**2
        return broadcast(a / norm, out) * z.x_t - broadcast(c / norm, out) * out

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        a, b, c = z.path.at(z.t)
        if z.path.is_bridge:
            return (z.x_t - x0) / broadcast(b, x0)
        return broadcast(a, x0) * eps - broadcast(c, x0) * x0

    def x0_gain(self, z: Latent) -> Tensor:
        a, b, c = z.path.at(z.t)
        return b if z.path.is_bridge else c / (a**2 + c**2)


class Precond(Parameterization):
    """The correction F to the best linear fusion of x_t and the condition y.

    With sigma = c / a, w = sigma_r^2 / (sigma^2 + sigma_r^2) and s = sigma sigma_r / sqrt(sigma^2 + sigma_r^2):
    x0_hat = y + w (x_t / a - y) + s F. This is EDM's preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1)
    of the residual x0 - y. The network sees the fusion in place of x_t, so its input and target have unit scale at
    every noise level; where x_t is all noise, F is a residual regression.
    """

    name = "precond"
    rests_on_condition = True

    def check(self, path: GaussianPath) -> None:
        a, _, c = path.at(torch.arange(path.timesteps))
        if bool(((c == 0) & (a > 0)).any()):
            raise UserError(
                "parameterization: found precond on a bridge without noise, expected x0 or v (x_t and the condition "
                "give x0 away there)"
            )

    def _weights(self, z: Latent) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of y and x_t in the fusion, and s: written with a and c so that a = 0 is no special case.

        Where a = c = 0 (a bridge's end without noise) x_t is y and says no more: weights 1 and 0, and s = sigma_r.
        """
        if z.y is None or z.sigma_r is None:
            raise UserError(
                "parameterization: found precond without a condition image, expected conditioning_key concat"
            )
        a, b, c = z.path.at(z.t)
        r = per_sample(z.sigma_r, a)
        empty = (a == 0) & (c == 0)
        c = torch.where(empty, torch.ones_like(c), c)
        total = c**2 + (a * r) ** 2
        w_x = a * r**2 / total
        return c**2 / total - b * w_x, w_x, c * r / total.sqrt()

    def network_input(self, z: Latent) -> Tensor:
        w_y, w_x, _ = self._weights(z)
        assert z.y is not None
        return broadcast(w_y, z.x_t) * z.y + broadcast(w_x, z.x_t) * z.x_t

    def x0(self, out: Tensor, z: Latent) -> Tensor:
        return self.network_input(z) + broadcast(self._weights(z)[2], out) * out

    def target(self, x0: Tensor, eps: Tensor, z: Latent) -> Tensor:
        return (x0 - self.network_input(z)) / broadcast(self._weights(z)[2], x0)

    def x0_gain(self, z: Latent) -> Tensor:
        return self._weights(z)[2]


PARAMETERIZATIONS: dict[str, Parameterization] = {p.name: p for p in (Eps(), X0(), V(), Precond())}
