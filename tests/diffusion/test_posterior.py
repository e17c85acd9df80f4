"""Does a solver sample or only average? Given a noisy image: twice the least error, and what the mean of K loses."""

import math

import pytest
import torch

from cdm4mi.diffusion import SOLVERS, DDPMPath, GaussianPath, SeededNoise, make_betas, make_solver, sample, time_list
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.diffusion.sdedit import FACTOR, start_from, start_time
from cdm4mi.errors import UserError

# x0 ~ N(M, S^2) a pixel, y = x0 + R noise: x0 given y is N(mu, RHO^2)
M, S, R = 0.1, 0.3, 0.3
RHO = S * R / math.hypot(S, R)
K, SIDE = 8, 128
PATHS = {"log_sigma": DDPMPath(make_betas("log_sigma", 1000)), "linear": DDPMPath(make_betas("linear", 1000))}


@pytest.fixture(scope="module")
def scene():
    x0, n = torch.randn(2, 1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x0 = M + S * x0
    return x0, x0 + R * n


def posterior_mean(y):
    return M + (RHO / R) ** 2 * (y - M)


def denoiser(path, y):
    """E[x0 | x_t, y], where the noise of x_t is not that of y."""
    mu = posterior_mean(y)

    def denoise(x, t):
        a, b, c = (broadcast(v, x) for v in path.at(t))
        return mu + a * RHO**2 / (a**2 * RHO**2 + c**2) * (x - a * mu - b * y)

    return denoise


def losses(out, scene):
    """dB that one sample, and the mean of K, lose against the posterior mean."""
    x0, y = scene
    least = ((posterior_mean(y) - x0) ** 2).mean()
    return [10 * math.log10(((estimate - x0) ** 2).mean() / least) for estimate in (out, out.mean(0))]


MEAN_OF_K = 10 * math.log10(1 + 1 / K)
# dB that too small a spread takes from one sample in so few steps; four standard errors of it over K images are 0.07
SHORT = {"ddpm": 0.7, "euler_ancestral": 0.7, "ddim": 0.35, "euler": 0.35}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_has_twice_the_least_error_and_the_mean_of_k_loses_what_theory_says(solver, scene):
    """Twenty calls from sigma = 3, starting from the marginal around y."""
    path, y = PATHS["log_sigma"], scene[1].expand(K, -1, -1, -1)
    steps = 10 if solver == "heun" else 20
    noise = SeededNoise(0, range(K), (1, SIDE, SIDE))
    start = path.start(noise.draw(0), posterior_mean(y), torch.full((1, 1, 1, 1), RHO))
    times = time_list("karras", path, steps)
    one, mean = losses(sample(denoiser(path, y), path, times, make_solver(solver), start, noise=noise.draw), scene)
    assert -SHORT.get(solver, 0.1) < one - 10 * math.log10(2) < 0.2
    assert mean == pytest.approx(MEAN_OF_K, abs=0.15)


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "heun", "unipc_2"])
@pytest.mark.parametrize("schedule", PATHS)
def test_a_start_from_the_noisy_image_samples_too(schedule, solver, scene):
    """Twenty steps from FACTOR times the noise of y: a sample still, and the mean of K within 0.3 dB of theory.

    y's own noise is a share of 1 / FACTOR^2 of the start's, and taken for new by the denoiser: so the mean of many is
    worse than the posterior mean by up to 10 log10(1 + 1 / FACTOR^2) = 0.46 dB.
    """
    path, y = PATHS[schedule], scene[1].expand(K, -1, -1, -1)
    t = start_time(path, FACTOR * R)
    noise = SeededNoise(0, range(K), (1, SIDE, SIDE))
    start = start_from(path, y, torch.full((K,), R), t, noise.draw(0))
    times = time_list("trailing", path, 20, start=t)
    one, mean = losses(sample(denoiser(path, y), path, times, make_solver(solver), start, noise=noise.draw), scene)
    assert 2.3 < one < 3.1
    assert MEAN_OF_K - 0.15 < mean < MEAN_OF_K + 0.3


def test_from_the_noisy_image_few_steps_sample_better_than_from_pure_noise(scene):
    """Why one would: on the linear path, from sigma = 157, twenty steps of ddim lose 1.2 dB of the spread's 3 dB."""
    path, y = PATHS["linear"], scene[1].expand(K, -1, -1, -1)
    noise = SeededNoise(0, range(K), (1, SIDE, SIDE))
    t = start_time(path, FACTOR * R)
    loss = {}
    for start, x in ((999, path.start(noise.draw(0))), (t, start_from(path, y, torch.full((K,), R), t, noise.draw(0)))):
        times = time_list("trailing", path, 20, start=start)
        out = sample(denoiser(path, y), path, times, make_solver("ddim"), x, noise=noise.draw)
        loss[start] = losses(out, scene)[0]
    assert loss[999] < 2.1 < 2.4 < loss[t] < 3.01


def test_the_start_holds_the_image_and_noise_of_the_paths_level():
    path = PATHS["log_sigma"]
    x0, n = torch.randn(2, 2, 1, 200, 200, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.1, 0.3])
    y = x0 + level[:, None, None, None] * n
    noise = SeededNoise(0, range(2), (1, 200, 200))
    for t in (900, 600):
        a, _, c = (float(v) for v in path.at(t))
        x = start_from(path, y, level, t, noise.draw(0))
        held = (x - a * x0).flatten(1).std(1)
        for k in range(2):  # where y alone is noisier than the path is, it holds y's noise and no more
            assert float(held[k]) == pytest.approx(max(c, a * float(level[k])), rel=0.02)


def test_the_start_time_is_the_first_with_enough_noise():
    path = PATHS["log_sigma"]
    a, _, c = path.at(torch.arange(1000))
    sigma = (c / a).flatten()
    for level in (0.011, 0.1, 0.9, 2.99):
        t = start_time(path, level)
        assert sigma[t] >= level > sigma[t - 1]
    assert start_time(path, 0.0) == 0
    assert start_time(path, 50.0) == 999  # noisier than the path: from its noisy end
    assert start_time(DDPMPath(make_betas("cosine", 100, zero_terminal_snr=True)), 1e9) == 99


def test_a_bridge_has_no_other_start():
    u = torch.linspace(0.1, 1, 10)
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(UserError, match=r"start_from: found y on GaussianPath, expected noise"):
        start_from(GaussianPath(1 - u, u, 0.1 * u), image, torch.tensor([0.1]), 5, image)
