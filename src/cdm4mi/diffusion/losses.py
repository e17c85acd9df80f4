"""Training losses: L1, L2 and Huber for each sample, and weights over the times."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm4mi.choices import LossName
from cdm4mi.diffusion.parameterizations import Latent, Parameterization
from cdm4mi.diffusion.paths import per_sample
from cdm4mi.errors import UserError

LOSS_TYPES: tuple[str, ...] = get_args(LossName)
LOG_FLOOR = 0.01
"""Mean squared error below which ``log_l2`` hardly gains; the targets of eps, v and precond have about 1."""


def loss_per_sample(
    out: Tensor, target: Tensor, loss_type: str = "l2", *, huber_delta: float = 1.0, pixel_weight: Tensor | None = None
) -> Tensor:
    """Mean over the pixels of each sample: (N, C, ...) twice -> (N,), in float32.

    pixel_weight, shape broadcastable to the images, multiplies each pixel's loss (the mean is over all pixels).
    Huber is quadratic below huber_delta, linear above. log_l2: ln(1 + L2 / ``LOG_FLOOR``) of each sample, so that an
    error smaller by so many dB counts the same at every time and noise level (up to the floor, the PSNR loss of arXiv
    2105.06086), where with L2 the noisiest samples make most of the gradient. What weights add to its L2 is divided by
    L2 + ``LOG_FLOOR``, which counts as a constant, in place of going into the logarithm, which would take most of it
    away. Raises UserError for an unknown loss_type.
    """
    out, target = out.float(), target.float()
    if loss_type == "l1":
        loss = (out - target).abs()
    elif loss_type in ("l2", "log_l2"):
        loss = (out - target) ** 2
    elif loss_type == "huber":
        loss = F.huber_loss(out, target, reduction="none", delta=huber_delta)
    else:
        raise UserError(f"loss_type: found {loss_type!r}, expected one of {', '.join(LOSS_TYPES)}")
    mean = (loss if pixel_weight is None else loss * pixel_weight).flatten(1).mean(1)
    if loss_type != "log_l2":
        return mean
    if pixel_weight is None:
        return torch.log1p(mean / LOG_FLOOR)
    plain = loss.flatten(1).mean(1)
    return torch.log1p(plain / LOG_FLOOR) + (mean - plain) / (plain.detach() + LOG_FLOOR)


def min_snr_weight(parameterization: Parameterization, z: Latent, gamma: float) -> Tensor:
    """Weight of each sample, (N,) float32, that counts an error of x0_hat as min(SNR, gamma) (arXiv 2303.09556, eq. 7).

    In the space of the output: eps min(S, g) / S, x0 min(S, g), v min(S, g) / (S + 1). Finite at S = 0.
    """
    snr = z.path.snr(z.t)
    if parameterization.name == "eps":
        weight = torch.where(snr < gamma, torch.ones_like(snr), gamma / snr)  # its gain is 1 / SNR: divide first
    else:
        weight = snr.clamp(max=gamma) * parameterization.x0_gain(z) ** 2
    return weight.float().to(z.x_t.device)


def posterior_weight(parameterization: Parameterization, z: Latent, neighbour_std: float) -> Tensor:
    """Weight of each sample, (N,) float32, counting errors of x0_hat as SNR + sigma_r^-2 + neighbour_std^-2.

    That is the precision to which a pixel is given by x_t, by y, and by its neighbours, from which it differs by
    neighbour_std (standard deviation on [-1, 1]). No estimate has a lesser error than the inverse of the sum, so an
    ideal model's loss is 1 at every time and every noise level. Unweighted, precond's is a few percent where the
    mean is decided and 1 where x_t tells nearly all, and the gradient is mostly the noise of the latter. Without y and
    with neighbour_std 1, as a standardised image varies, it is SNR + 1 (Salimans and Ho 2022, arXiv 2202.00512,
    section 4).
    """
    assert z.sigma_r is not None
    a, _, c = z.path.at(z.t)
    gain = parameterization.x0_gain(z)
    by_latent = torch.where(a > 0, (a * gain / c) ** 2, 0.0)  # where a = 0 x_t holds no x0, whatever c is
    weight = by_latent + gain**2 * (per_sample(z.sigma_r, a) ** -2 + neighbour_std**-2)
    return weight.float().to(z.x_t.device)
