"""The order of convergence of every solver, measured where the exact solution is known."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from gaussian_oracle import exact_moments, gaussian_denoiser, mixture_cdf, mixture_denoiser, numbers

from cdm4mi.choices import SolverEntry
from cdm4mi.diffusion import SOLVERS, DDPMPath, make_solver, sample
from cdm4mi.diffusion.schedules import log_sigma

ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "dpmpp_3m": 3, "unipc_2": 3, "unipc_3": 4}
"""UniPC-p is of order p + 1: a predictor of order p and a corrector (arXiv 2302.04867, theorem 3.1)."""
RANDOM = {"ddpm": 1, "euler_ancestral": 1, "dpmpp_2m_sde": 2}
MEAN, STD = 0.3, 0.2  # narrow against the noise of the first steps: those, of lower order, then add no error that shows
MIXTURE = {"weights": (0.3, 0.7), "means": (-0.3, 0.5), "s": 0.3}
STEPS = 3840
PATH = DDPMPath(log_sigma(STEPS + 1, 0.05, 20.0))


def even_times(steps):
    """Times evenly spaced in ln(a / c), exactly."""
    return list(range(STEPS, -1, -STEPS // steps))


def at_low_noise(solver, denoise, steps):
    """x at t = 0, before the last step (which returns x0_hat whatever the solver), for 64 starts."""
    x, seen = starts(), []
    sample(denoise, PATH, even_times(steps), make_solver(solver), x, noise=lambda i: x * 0, hook=seen.append)
    return seen[-1].x_t


def starts():
    return torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 1, 8, 8)


def gaussian_flow():
    """(x_t - a m) / sqrt(a^2 s^2 + c^2) stays what it is along the flow."""
    (a, c), (a_end, c_end) = numbers(PATH, STEPS), numbers(PATH, 0)
    unit = (starts() - a * MEAN) / math.hypot(a * STD, c)
    return a_end * MEAN + math.hypot(a_end * STD, c_end) * unit


def mixture_flow():
    """In one dimension the flow keeps each point's quantile: F_0(x_0) = F_T(x_T), solved by bisection."""
    wanted = mixture_cdf(PATH, STEPS, starts(), **MIXTURE)
    low, high = torch.full_like(wanted, -4.0), torch.full_like(wanted, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = mixture_cdf(PATH, 0, middle, **MIXTURE) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


ORACLES = {
    "gaussian": (gaussian_denoiser(PATH, MEAN, STD), gaussian_flow),
    "mixture": (mixture_denoiser(PATH, **MIXTURE), mixture_flow),
}


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("solver", ORDERS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, oracle):
    denoise, flow = ORACLES[oracle]
    exact = flow()
    errors = [float((at_low_noise(solver, denoise, steps) - exact).abs().max()) for steps in (60, 120, 240)]
    measured = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert measured == pytest.approx([ORDERS[solver]] * 2, abs=0.35)


@pytest.mark.parametrize("solver", RANDOM)
def test_the_spread_of_a_random_solvers_samples_converges_at_its_order(solver):
    """The spread is exact, without drawing (``exact_moments``); the mean is right at any number of steps.

    The last step returns x0_hat, whose spread from a perfect x at t = 0 is a s^2 / sqrt(a^2 s^2 + c^2).
    """
    a, c = numbers(PATH, 0)
    perfect = a * STD**2 / math.hypot(a * STD, c)
    errors = []
    for steps in (60, 120, 240):
        mean, std = exact_moments(PATH, even_times(steps), make_solver(solver), MEAN, STD)
        assert mean == pytest.approx(MEAN, abs=1e-9)
        errors.append(abs(std - perfect))
    measured = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert measured == pytest.approx([RANDOM[solver]] * 2, abs=0.35)


def test_the_solver_of_contributing_is_of_second_order(monkeypatch):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"## Add a solver.*?```python\n(.*?)```", page, flags=re.DOTALL)[1], names)
    monkeypatch.setitem(SOLVERS, "extrapolated", SolverEntry(names["extrapolated"], "Extrapolated DDIM"))
    monkeypatch.setitem(ORDERS, "extrapolated", 2)
    test_halving_the_step_divides_the_error_by_two_to_the_order("extrapolated", "mixture")


def test_every_solver_has_its_order_measured():
    assert set(ORDERS) | set(RANDOM) == set(SOLVERS)
