"""The multistep solvers: order of convergence on an oracle, moments, agreement with a peer."""

import math

import pytest
import torch

from cdm4mi.diffusion import DDPMPath, SeededNoise, make_betas, make_solver, sample, time_list
from cdm4mi.diffusion.schedules import log_sigma

MEAN, STD = 0.3, 0.2  # narrow against the noise of the first steps: those, of lower order, then add no error that shows
STEPS = 3840


def oracle(path):
    """The exact denoiser of x0 ~ N(MEAN, STD^2), in the dtype of x_t."""

    def denoise(x_t, t):
        a, _, c = (v.to(x_t.dtype) for v in path.at(t))
        return (MEAN * c**2 + STD**2 * a * x_t) / (c**2 + (a * STD) ** 2)

    return denoise


def error_at_low_noise(solver: str, steps: int) -> float:
    """Distance from the exact solution of the probability-flow equation at t = 0, times evenly spaced in lambda."""
    path = DDPMPath(log_sigma(STEPS + 1, 0.05, 20.0))
    times = list(range(STEPS, -1, -STEPS // steps))
    last = path.at(STEPS)
    x = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    seen = []
    sample(oracle(path), path, times, make_solver(solver), x, noise=lambda i: x * 0, hook=seen.append)
    # (x_t - a m) / sqrt(a^2 s^2 + c^2) stays what it is along the flow
    first = path.at(0)
    unit = (x - last.a * MEAN) / torch.sqrt((last.a * STD) ** 2 + last.c**2)
    exact = first.a * MEAN + torch.sqrt((first.a * STD) ** 2 + first.c**2) * unit
    return float((seen[-1].x_t - exact).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("dpmpp_3m", 3)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    coarse, middle, fine = (error_at_low_noise(solver, s) for s in (60, 120, 240))
    measured = [math.log2(coarse / middle), math.log2(middle / fine)]
    assert measured == pytest.approx([order, order], abs=0.35)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_moments_are_recovered_and_the_last_step_is_the_estimate(solver, steps):
    path = DDPMPath(log_sigma(1000, 0.02, 20.0))
    noise = SeededNoise(3, range(4), (1, 96, 96))
    seen = []
    times = time_list("linspace", 1000, steps)
    out = sample(
        oracle(path), path, times, make_solver(solver), path.start(noise.draw(0)), noise=noise.draw, hook=seen.append
    )
    assert len(seen) == steps
    assert torch.equal(out, seen[-1].x0_hat)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.02)
    if steps == 1:  # the posterior mean, which has hardly any spread at the noisy end
        assert float(out.std()) < 0.02
    if steps == 20:  # 36864 draws: the standard error of the spread is 0.4 %; the rest is discretisation
        assert float(out.std()) == pytest.approx(STD, rel=0.03)


def test_second_order_equals_diffusers_on_the_same_times():
    diffusers = pytest.importorskip("diffusers")
    betas = make_betas("linear", 1000)
    path = DDPMPath(betas)
    peer = diffusers.DPMSolverMultistepScheduler(
        trained_betas=betas.numpy(), prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2,
        lower_order_final=False, final_sigmas_type="zero", timestep_spacing="linspace",
    )  # fmt: skip
    peer.set_timesteps(20)
    times = [int(t) for t in peer.timesteps]
    noise = SeededNoise(0, [0], (1, 16, 16)).draw(0).double()
    x = noise.clone()
    denoise = oracle(path)
    for t in peer.timesteps:
        x = peer.step(denoise(x, torch.tensor([int(t)])), t, x).prev_sample
    ours = sample(denoise, path, times, make_solver("dpmpp_2m"), noise, noise=lambda i: noise)
    assert float((ours - x).abs().max()) < 1e-4
