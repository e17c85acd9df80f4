"""Solvers that go by several names are one function: each name's own published formula, written out, gives the same."""

import math

import pytest
import torch
from gaussian_oracle import exact_moments, make_path, numbers

from cdm4mi.diffusion import CLEAN, SOLVERS, Step, make_solver, time_list
from cdm4mi.diffusion.bridges import FlowBridge, SchroedingerBridge
from cdm4mi.errors import UserError

SCHEDULES = ["linear", "cosine", "log_sigma"]
TIMES = [(99, 60), (60, 59), (40, 3), (1, 0)]


def images(n):
    return torch.randn(n, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def step_of(name, path, t, t_next, x_t, x0, noise=None, **options):
    return make_solver(name, path=path)(Step(path, x_t, x0, t, t_next, lambda: noise, **options))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "t_next"), TIMES)
def test_euler_is_eulers_step_in_sigma(schedule, t, t_next):
    """Karras et al. 2022, algorithm 1 without its correction: on x / a, d = (x - D) / sigma."""
    path = make_path(schedule)
    x_t, x0 = images(2)
    (a, c), (a_next, c_next) = numbers(path, t), numbers(path, t_next)
    d = (x_t / a - x0) / (c / a)
    euler = x_t / a + (c_next / a_next - c / a) * d
    assert torch.allclose(step_of("euler", path, t, t_next, x_t, x0), a_next * euler, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "t_next"), TIMES)
def test_euler_ancestral_steps_down_too_far_and_puts_noise_back(schedule, t, t_next):
    """The form in which it is known: down to sigma_down, then noise of sigma_up, which are squares of a sum."""
    path = make_path(schedule)
    x_t, x0, noise = images(3)
    (a, c), (a_next, c_next) = numbers(path, t), numbers(path, t_next)
    sigma, sigma_next = c / a, c_next / a_next
    up = math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2)
    down = math.sqrt(sigma_next**2 - up**2)
    expected = x_t / a + (x_t / a - x0) / sigma * (down - sigma) + up * noise
    assert torch.allclose(step_of("euler_ancestral", path, t, t_next, x_t, x0, noise), a_next * expected, rtol=1e-6)


@pytest.mark.parametrize(("t", "t_next"), TIMES)
def test_euler_ancestral_on_a_brownian_bridge_is_the_posterior_of_i2sb(t, t_next):
    """Liu et al. 2023, eq. 4: x_next given x_t and x0 is that of a Brownian path pinned at both, y is not in it.

    99 is the bridge's end, where x_t is y and holds no noise.
    """
    path = SchroedingerBridge(100, 0.3)
    x_t, x0, noise, y = images(4)
    if t == 99:
        x_t = y
    sigma2, sigma2_next = (0.3 * float(path.at(s).b) for s in (t, t_next))  # variance of the path so far
    alpha2 = sigma2 - sigma2_next
    mean = (alpha2 * x0 + sigma2_next * x_t) / sigma2
    expected = mean + math.sqrt(sigma2_next * alpha2 / sigma2) * noise
    assert torch.allclose(step_of("euler_ancestral", path, t, t_next, x_t, x0, noise, y=y), expected, rtol=1e-9)


@pytest.mark.parametrize("sigma_s", [0.0, 0.3])
@pytest.mark.parametrize(("t", "t_next"), TIMES)
def test_euler_on_a_flow_bridge_moves_along_its_velocity(sigma_s, t, t_next):
    """InDI's update (eq. 9) and flow matching's: x + (u_next - u) (x - x0_hat) / u. Neither needs y nor the noise."""
    path = FlowBridge(100, sigma_s)
    x_t, x0, y = images(3)
    u, u_next = ((s + 1) / 100 for s in (t, t_next))
    expected = x_t + (u_next - u) * (x_t - x0) / u
    assert torch.allclose(step_of("euler", path, t, t_next, x_t, x0, y=y), expected, rtol=1e-9)


@pytest.mark.parametrize("path", [FlowBridge(100, 0.3), SchroedingerBridge(100, 0.3)], ids=["flow", "brownian"])
@pytest.mark.parametrize("name", [name for name, entry in SOLVERS.items() if entry.bridges])
def test_on_a_bridge_a_step_keeps_a_true_latent_on_the_path(path, name):
    """From x_t = a x0 + b y + c eps with the true x0, x_next has the path's a and b, and noise of its c."""
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t, t_next in [*TIMES, (50, CLEAN)]:
        a, b, c = (float(v) for v in path.at(t))
        expected = [float(v) for v in path.at(t_next)]
        of_x0 = float(step_of(name, path, t, t_next, a * one, one, zero, y=zero))
        of_y = float(step_of(name, path, t, t_next, b * one, zero, zero, y=one))
        of_eps = float(step_of(name, path, t, t_next, c * one, zero, zero, y=zero))
        of_noise = float(step_of(name, path, t, t_next, zero, zero, one, y=zero))
        if name in ("ddim", "euler") and c == 0:
            expected[2] = 0.0  # an ODE makes no noise where there is none
        assert [of_x0, of_y, math.hypot(of_eps, of_noise)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", [name for name, entry in SOLVERS.items() if not entry.bridges])
def test_a_solver_for_pure_noise_refuses_a_bridge_without_noise(name):
    with pytest.raises(UserError, match=rf"found {name} on a bridge .*somewhere \(FlowBridge\), expected ddim"):
        make_solver(name, path=FlowBridge(10, 0.0))
    make_solver(name, path=FlowBridge(10, 0.1))
    make_solver(name, path=make_path("linear"))


def test_heun_is_exact_where_the_estimate_does_not_change_and_a_rotation_where_it_does():
    """The correction of a turn by delta: (1 - cos delta) / (delta sin phi_next) times the change of x0_hat."""
    path = make_path("cosine, zero terminal SNR")
    x_t, x0, change = images(3)
    for t, t_next in TIMES:
        plain = step_of("ddim", path, t, t_next, x_t, x0)
        still = step_of("heun", path, t, t_next, x_t, x0, denoise=lambda x, t: x0)
        assert torch.allclose(still, plain, rtol=1e-12)
        moved = step_of("heun", path, t, t_next, x_t, x0, denoise=lambda x, t: x0 + change)
        (a, c), (a_next, c_next) = numbers(path, t), numbers(path, t_next)
        fine = torch.linspace(math.atan2(c_next, a_next), math.atan2(c, a), 100_001, dtype=torch.float64)
        # integral of x0' d cos phi + eps' d sin phi over the turn, for changes that grow in a line from t to t_next
        share = (fine[-1] - fine) / (fine[-1] - fine[0])
        eps_change = -math.cos(fine[0]) / math.sin(fine[0])
        weight = -torch.trapezoid(share * (-torch.sin(fine) + eps_change * torch.cos(fine)), fine)
        assert torch.allclose(moved - plain, float(weight) * change, rtol=1e-6)


def test_a_heun_made_of_single_calls_fails_the_oracle():
    """That the second call matters: with the first estimate in its place heun is ddim, of first order."""
    path = make_path("log_sigma")
    times = time_list("linspace", path, 13)
    lazy = lambda step: make_solver("heun")(  # noqa: E731
        Step(path, step.x_t, step.x0, step.t, step.t_next, step.noise, denoise=lambda x, t: step.x0)
    )
    error = {name: abs(exact_moments(path, times, solver, 0.7, 0.5)[1] - 0.5) for name, solver in
             {"lazy": lazy, "ddim": make_solver("ddim"), "heun": make_solver("heun")}.items()}  # fmt: skip
    assert error["lazy"] == pytest.approx(error["ddim"])
    assert error["heun"] < 0.2 * error["ddim"]


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize(("t_before", "t", "t_next"), [(90, 60, 55), (62, 60, 20)])
def test_2m_takes_the_estimate_in_the_middle_of_the_step(name, t_before, t, t_next):
    """By the line in ln(a / c) through the last two estimates: their distance over the step's length, not its inverse.

    The order does not show it: with the ratio upside down the errors of neighbouring steps cancel but for the ends.
    """
    path = make_path("cosine")
    x_t, noise, offset, slope = images(4)

    def line(*times):
        a_c = [numbers(path, s) for s in times]
        return offset + slope * sum(math.log(a / c) for a, c in a_c) / len(times)

    history = [(t_before, line(t_before))]
    found = step_of(name, path, t, t_next, x_t, line(t), noise, history=history)
    assert torch.allclose(found, step_of(name, path, t, t_next, x_t, line(t, t_next), noise), rtol=1e-9)
