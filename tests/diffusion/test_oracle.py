"""Samplers on distributions whose exact denoiser is known: they recover mean and spread, and a wrong one does not."""

import math

import pytest
import torch
from gaussian_oracle import (
    SCHEDULES,
    ddim_std,
    ddpm_std,
    exact_moments,
    gaussian_denoiser,
    make_path,
    mixture_denoiser,
    numbers,
)

from cdm4mi.diffusion import CLEAN, DDPMPath, SeededNoise, Step, make_betas, make_solver, sample, time_list
from cdm4mi.diffusion.times import SPACINGS

M, S = 0.7, 0.5
FIRST = {
    "ddpm": make_solver("ddpm"),
    "ddim eta 0": make_solver("ddim", 0.0),
    "ddim eta 0.5": make_solver("ddim", 0.5),
    "ddim eta 1": make_solver("ddim", 1.0),
}
HIGHER = {name: make_solver(name) for name in ("heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "unipc_2", "unipc_3")}
SOLVERS = FIRST | HIGHER
# Relative loss of spread times the number of steps, the largest over all cases below: DDIM and DDPM are of first order.
# Theory gives at most 5.3 (ddim) and 9.9 (ddpm) here; the schedule sqrt at T = 1000, most of whose times are nothing
# but noise, 66.1 (``ddim_std`` and ``ddpm_std``, with which single cases are compared exactly). Solvers of higher order
# may exceed the spread too, in steps that are too long for their order: by 6.3 / steps at most (dpmpp_3m, unipc_3).
FIRST_ORDER = 10.0
FIRST_ORDER_SQRT_1000 = 67.0


def check_recovers(mean, std, steps, bound=FIRST_ORDER, above=1e-9):
    """The mean is exact at any number of steps (rounding: 1e-9); the spread is short by bound / steps at most."""
    assert mean == pytest.approx(M, abs=1e-9)
    assert -above <= 1 - std / S <= bound / steps


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_solver_recovers_the_gaussian_at_every_number_of_steps(schedule, solver):
    path = make_path(schedule)
    for spacing in SPACINGS:
        # with as many steps as times every spacing is the whole list: once is enough
        for steps in (1, 3, 7, 13, *([50, path.timesteps] if spacing == "trailing" else [])):
            times = time_list(spacing, path, steps)
            mean, std = exact_moments(path, times, SOLVERS[solver], M, S)
            check_recovers(mean, std, steps, above=7 / steps if solver in HIGHER else 1e-9)
            if steps == path.timesteps and solver in HIGHER:
                # the whole list of 100: 2.3 % off at most, where first order is up to 10 % short
                assert abs(1 - std / S) < 0.025
            # not only within the bound: the discretisation error is the one that theory says
            if solver == "ddim eta 0":
                assert std == pytest.approx(ddim_std(path, times, S), abs=1e-9)
            elif solver in ("ddpm", "ddim eta 1"):
                # abs 1e-7: the square root of a rounding error of 1e-15, where one step leaves a spread of about 0
                assert std == pytest.approx(ddpm_std(path, times, S), abs=1e-7)


@pytest.mark.parametrize("solver", ["ddpm", "ddim eta 0"])
@pytest.mark.parametrize("schedule", ["linear", "sqrt"])
def test_a_thousand_times_and_numbers_of_steps_that_do_not_divide_them(schedule, solver):
    path = make_path(schedule, 1000)
    for spacing in ("trailing", "linspace"):
        for steps in (1, 3, 7, 13, 300, *([1000] if (solver, spacing) == ("ddpm", "trailing") else [])):
            mean, std = exact_moments(path, time_list(spacing, 1000, steps), SOLVERS[solver], M, S)
            check_recovers(mean, std, steps, FIRST_ORDER_SQRT_1000 if schedule == "sqrt" else FIRST_ORDER)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_is_the_posterior_mean_whose_spread_is_what_x_t_tells(solver):
    path = make_path("log_sigma")
    a, c = numbers(path, path.timesteps - 1)
    mean, std = exact_moments(path, [path.timesteps - 1], SOLVERS[solver], M, S)
    assert mean == pytest.approx(M)
    assert std == pytest.approx(a * S**2 / math.sqrt(a**2 * S**2 + c**2))  # nearly 0 where x_t is nearly noise
    assert exact_moments(make_path("cosine"), [99], SOLVERS[solver], M, S)[1] < 1e-3


def sample_by_stride(denoise, path, times, solver, x, *, noise):
    """A deliberately wrong sampler: takes the previous time as t - T // S, whatever the list of times says."""
    stride = path.timesteps // len(times)
    for i, t in enumerate(times):
        t_next = t - stride if t >= stride else CLEAN
        x0 = denoise(x, torch.full((len(x),), t))
        x = solver(Step(path, x, x0, t, t_next, lambda i=i: noise(i + 1)))
    return x


@pytest.mark.parametrize("solver", ["ddpm", "ddim eta 0", "ddim eta 0.5"])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("steps", [3, 7, 13, 300])
def test_the_check_refuses_a_sampler_that_takes_the_previous_time_by_the_stride(steps, spacing, solver):
    path = make_path("linear", 1000)
    times = time_list(spacing, 1000, steps)
    mean, std = exact_moments(path, times, SOLVERS[solver], M, S, run=sample_by_stride)
    with pytest.raises(AssertionError):
        check_recovers(mean, std, steps)
    assert abs(mean - M) > 1e-4  # no rounding: 1e5 times the tolerance
    check_recovers(*exact_moments(path, times, SOLVERS[solver], M, S), steps)


def test_the_wrong_sampler_passes_only_where_the_stride_divides():
    # so it is the previous time that the check above refuses, and nothing else of that sampler
    path = make_path("linear", 1000)
    for steps in (1, 50, 1000):
        moments = exact_moments(path, time_list("trailing", 1000, steps), SOLVERS["ddpm"], M, S, run=sample_by_stride)
        check_recovers(*moments, steps)


@pytest.mark.parametrize("solver", FIRST)
def test_drawn_images_have_the_mean_and_the_spread(solver):
    """As a user runs it: float32 images of independent pixels, seeded noise, the path's own start."""
    path = make_path("linear", 1000)
    steps, images = 100, 4
    noise = SeededNoise(0, range(images), (1, 64, 64))
    times = time_list("trailing", 1000, steps)
    out = sample(
        gaussian_denoiser(path, M, S), path, times, SOLVERS[solver], path.start(noise.draw(0)), noise=noise.draw
    )
    pixels = out.numel()
    assert out.dtype == torch.float32
    # four standard errors; the start's mean lacks a_T M = 0.004, of which a sample keeps less than half
    assert float(out.mean()) == pytest.approx(M, abs=4 * S / math.sqrt(pixels) + 0.002)
    expected = ddim_std(path, times, S) if solver == "ddim eta 0" else ddpm_std(path, times, S)
    if solver == "ddim eta 0.5":
        assert S * (1 - FIRST_ORDER / steps) < float(out.std()) < S * (1 + 4 / math.sqrt(2 * pixels))
    else:
        assert float(out.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * pixels))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_mixture_of_two_gaussians_keeps_its_weights_means_and_spreads(solver):
    """First-order solvers in 200 steps, the others in 50 calls (heun: 25 steps)."""
    path = DDPMPath(make_betas("cosine", 1000))
    weights, means, s = (0.3, 0.7), (-0.6, 0.5), 0.1
    steps = 200 if solver in FIRST else 25 if solver == "heun" else 50
    noise = SeededNoise(1, range(4), (1, 64, 64))
    out = sample(
        mixture_denoiser(path, weights, means, s),
        path,
        time_list("trailing" if solver in FIRST else "quadratic", path, steps),
        SOLVERS[solver],
        path.start(noise.draw(0)),
        noise=noise.draw,
    ).flatten()
    left = out < 0  # six and five spreads away from the means
    n = len(out)
    # four standard errors, plus 0.01 of weight and 0.005 of place for the steps' length
    assert float(left.float().mean()) == pytest.approx(weights[0], abs=4 * math.sqrt(0.21 / n) + 0.01)
    for part, m in zip((out[left], out[~left]), means, strict=True):
        assert float(part.mean()) == pytest.approx(m, abs=4 * s / math.sqrt(len(part)) + 0.005)
        assert 0.91 < float(part.std()) / s < 1.04
