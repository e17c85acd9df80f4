"""Distributions whose exact denoiser is known in closed form, and the exact mean and spread of what a sampler makes."""

import math
from itertools import pairwise

import torch

from cdm4mi.diffusion import CLEAN, DDPMPath, make_betas, sample
from cdm4mi.diffusion.paths import broadcast

# For T = 100 the usual ends of T = 1000 are raised, so that the path ends in noise as it does there.
ENDS_OF_100 = {"linear_start": 1e-3, "linear_end": 0.2}
SCHEDULES = {
    "linear": {},
    "sqrt_linear": {},
    "sigmoid": {},
    "sqrt": {},
    "cosine": {},
    "log_sigma": {},
    "linear, zero terminal SNR": {"zero_terminal_snr": True},
    "cosine, zero terminal SNR": {"zero_terminal_snr": True},
}


def make_path(schedule, timesteps=100, **options):
    """The path of one of SCHEDULES."""
    name = schedule.split(",")[0]
    ends = ENDS_OF_100 if timesteps == 100 and name != "sqrt" else {}  # sqrt reaches noise soon enough
    return DDPMPath(make_betas(name, timesteps, **{**ends, **SCHEDULES[schedule], **options}))


def numbers(path, t):
    """(a, c) of the path at one time, as floats."""
    a, _, c = path.at(t)
    return float(a), float(c)


def gaussian_denoiser(path, m, s):
    """E[x0 | x_t] for x0 ~ N(m, s^2): by Bayes, m + a s^2 / (a^2 s^2 + c^2) (x_t - a m)."""

    def denoise(x, t):
        a, _, c = (broadcast(coefficient, x) for coefficient in path.at(t))
        return m + a * s**2 / (a**2 * s**2 + c**2) * (x - a * m)

    return denoise


def mixture_denoiser(path, weights, means, s):
    """E[x0 | x_t] for a mixture of Gaussians of one spread s: each one's own answer, weighted by its probability."""

    def denoise(x, t):
        a, _, c = (broadcast(coefficient, x) for coefficient in path.at(t))
        answers = torch.stack([gaussian_denoiser(path, m, s)(x, t) for m in means])
        spread = a**2 * s**2 + c**2
        log = torch.stack([math.log(w) - (x - a * m) ** 2 / (2 * spread) for w, m in zip(weights, means, strict=True)])
        return (log.softmax(0) * answers).sum(0)

    return denoise


def mixture_cdf(path, t, x, weights, means, s):
    """The distribution function of x_t for that mixture."""
    a, c = numbers(path, t)
    spread = math.hypot(a * s, c)
    return sum(w * torch.special.ndtr((x - a * m) / spread) for w, m in zip(weights, means, strict=True))


def exact_moments(path, times, solver, m, s, run=sample):
    """Mean and standard deviation of the samples for x0 ~ N(m, s^2), without drawing any.

    The exact denoiser and the solvers are affine, so a sample is its mean plus a sum of coefficient times draw. Pixel
    0 gets no noise and shows the mean; pixel 1 gets a one for the start's draw, pixel 2 + i a one for the draw of step
    i, and each shows its coefficient. The start is the true marginal at times[0].
    """
    a, c = numbers(path, times[0])
    x = torch.full((1, 1, 1, len(times) + 2), a * m, dtype=torch.float64)
    x[..., 1] += math.sqrt(a**2 * s**2 + c**2)

    def unit(n):
        impulse = torch.zeros_like(x)
        impulse[..., 1 + n] = 1.0
        return impulse

    out = run(gaussian_denoiser(path, m, s), path, times, solver, x, noise=unit).flatten()
    return float(out[0]), float((out[1:] - out[0]).norm())


def ddim_std(path, times, s):
    """The spread of deterministic DDIM's samples, exactly: s times the product of cosines of its turns.

    At time t a standardised pixel is the unit vector (cos u, sin u) = (a s, c) / sqrt(a^2 s^2 + c^2) in the plane of
    (image, noise). The true flow turns it; a DDIM step projects it on the next direction and so loses the cosine.
    """
    angles = [math.atan2(c, a * s) for a, c in (numbers(path, t) for t in [*times, CLEAN])]
    return s * math.prod(math.cos(u - v) for u, v in pairwise(angles))


def ddpm_std(path, times, s):
    """The spread of DDPM's samples with the small posterior variance, exactly.

    Each step leaves out what x0_hat does not know, A^2 Var(x0 | x_t), where A is the weight of x0 in the posterior of
    x_next. Later steps shrink that loss as the true backward chain shrinks any deviation: by (a_next s^2 / V_next)^2.
    """
    lost = 0.0
    for t, t_next in zip(times, [*times[1:], CLEAN], strict=True):
        (a, c), (a_next, c_next) = numbers(path, t), numbers(path, t_next)
        weight = a_next * (1 - (a / a_next) ** 2) / c**2
        unknown = s**2 * c**2 / (a**2 * s**2 + c**2)
        lost += weight**2 * unknown * (a_next * s**2 / (a_next**2 * s**2 + c_next**2)) ** 2
    return math.sqrt(max(0.0, s**2 - lost))
