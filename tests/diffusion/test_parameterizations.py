"""eps, x0, v and precond: round trips at both ends of the path, and what precond promises."""

import math

import pytest
import torch
from gaussian_oracle import SCHEDULES, make_path, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.diffusion import CLEAN, PARAMETERIZATIONS, DDPMPath, GaussianPath, Latent, make_betas
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError

NAMES = sorted(PARAMETERIZATIONS)


def batch(seed=0, n=2, sigma_r=0.3):
    """x0, eps and a condition y = x0 + sigma_r noise: float64 images."""
    draws = torch.randn(3, n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x0 = draws[0].clamp(-1, 1)
    return x0, draws[1], x0 + sigma_r * draws[2], torch.full((n, 1, 1, 1), sigma_r)


def latent(path, t, x0, eps, y, sigma_r):
    return Latent(path, path.q_sample(x0, t, eps, y), t, y, sigma_r)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.sampled_from(NAMES),
    st.one_of(st.sampled_from([0, 1, 98, 99]), st.integers(0, 99)),
    st.floats(0.01, 2.0),
)
def test_the_target_gives_back_x0_and_eps_at_every_time(schedule, name, t, sigma_r):
    path = make_path(schedule)
    a, c = numbers(path, t)
    if a == 0 and name == "eps":
        return  # refused when the model is built
    x0, eps, y, r = batch(sigma_r=sigma_r)
    z = latent(path, torch.tensor([t, t]), x0, eps, y, r)
    parameterization = PARAMETERIZATIONS[name]
    target = parameterization.target(x0, eps, z)
    assert bool(target.isfinite().all())
    x0_hat = parameterization.x0(target, z)
    # eps divides by a, eps from x0 by c: float64 rounding, times what that division makes of it
    assert torch.allclose(x0_hat, x0, atol=1e-13 + 1e-15 * (c / a if name == "eps" else 1))
    assert torch.allclose(path.eps(z.x_t, x0, z.t), eps, atol=1e-13 + 1e-14 / c)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.sampled_from([0, 1, 40, 98, 99]), st.sampled_from(NAMES))
def test_every_output_says_the_same_of_the_same_image(schedule, t, name):
    """Any x0_hat, wrong ones too, written as one output and read back, is what it was: conversions lose nothing."""
    path = make_path(schedule)
    a, c = numbers(path, t)
    if a == 0 and name == "eps":
        return
    x0, eps, y, r = batch()
    z = latent(path, torch.tensor([t, t]), x0, eps, y, r)
    wrong = 0.3 * x0 + 0.1
    out = PARAMETERIZATIONS[name].target(wrong, path.eps(z.x_t, wrong, z.t), z)
    assert torch.allclose(
        PARAMETERIZATIONS[name].x0(out, z), wrong, atol=1e-12 + 1e-14 * (c / a if name == "eps" else 1)
    )


def test_v_and_eps_are_the_formulas_of_their_papers():
    path = DDPMPath(make_betas("cosine", 1000))
    x0, eps, y, r = batch()
    z = latent(path, torch.tensor([10, 900]), x0, eps, y, r)
    alpha = path.alphas_cumprod[z.t].reshape(-1, 1, 1, 1)
    v = alpha.sqrt() * eps - (1 - alpha).sqrt() * x0
    assert torch.allclose(PARAMETERIZATIONS["v"].target(x0, eps, z), v)
    assert torch.allclose(PARAMETERIZATIONS["v"].x0(v, z), alpha.sqrt() * z.x_t - (1 - alpha).sqrt() * v)
    assert torch.equal(PARAMETERIZATIONS["eps"].target(x0, eps, z), eps)
    out = torch.randn_like(x0)
    expected = z.x_t / alpha.sqrt() - (1 / alpha - 1).sqrt() * out
    assert torch.allclose(PARAMETERIZATIONS["eps"].x0(out, z), expected)
    assert torch.equal(PARAMETERIZATIONS["x0"].x0(out, z), out)


@pytest.mark.parametrize("name", NAMES)
def test_x0_gain_is_how_an_error_of_the_output_shows_in_the_image(name):
    path = DDPMPath(make_betas("linear", 1000))
    x0, eps, y, r = batch(n=3)
    z = latent(path, torch.tensor([0, 300, 999]), x0, eps, y, r)
    parameterization = PARAMETERIZATIONS[name]
    target = parameterization.target(x0, eps, z)
    moved = (parameterization.x0(target + 1.0, z) - parameterization.x0(target, z)).abs()
    assert torch.allclose(moved, broadcast(parameterization.x0_gain(z), moved).expand_as(moved), rtol=1e-9)


@pytest.mark.parametrize("name", ["eps", "x0", "precond"])
def test_round_trips_on_a_bridge_that_holds_the_condition(name):
    """x_t = (1 - u) x0 + u y + 0.1 u eps: the same conversions, with b other than 0."""
    u = (torch.arange(10, dtype=torch.float64) + 1) / 11
    path = GaussianPath(1 - u, u, 0.1 * u)
    x0, eps, y, r = batch(n=3)
    z = latent(path, torch.tensor([0, 5, 9]), x0, eps, y, r)
    parameterization = PARAMETERIZATIONS[name]
    target = parameterization.target(x0, eps, z)
    assert torch.allclose(parameterization.x0(target, z), x0, atol=1e-12)
    assert torch.allclose(path.eps(z.x_t, x0, z.t, y), eps, atol=1e-10)


def test_v_is_refused_on_a_bridge():
    u = torch.tensor([0.2, 0.8])
    with pytest.raises(UserError, match="found v on a GaussianPath, expected x0 or precond"):
        PARAMETERIZATIONS["v"].check(GaussianPath(1 - u, u, u))


def test_precond_is_the_formula_of_the_design():
    """x0_hat = y + w (x_t / a - y) + s F, written with sigma = c / a as the paper does."""
    path = DDPMPath(make_betas("log_sigma", 100))
    x0, eps, y, r = batch(n=3, sigma_r=0.2)
    z = latent(path, torch.tensor([0, 50, 99]), x0, eps, y, r)
    a, _, c = (broadcast(v, z.x_t.double()) for v in path.at(z.t))
    sigma, r = c / a, 0.2
    w = r**2 / (sigma**2 + r**2)
    s = sigma * r / (sigma**2 + r**2).sqrt()
    out = torch.randn_like(x0)
    precond = PARAMETERIZATIONS["precond"]
    assert torch.allclose(precond.x0(out, z), y + w * (z.x_t / a - y) + s * out, atol=1e-7)
    assert torch.allclose(precond.network_input(z), y + w * (z.x_t / a - y), atol=1e-7)
    # training with weight 1 / s^2 is the plain loss on F
    assert torch.allclose(precond.x0_gain(z), s.flatten(), atol=1e-8)


def test_precond_is_a_residual_regression_where_x_t_is_all_noise():
    path = DDPMPath(make_betas("linear", 100, zero_terminal_snr=True))
    x0, eps, y, r = batch()
    z = latent(path, torch.tensor([99, 99]), x0, eps, y, r)
    precond = PARAMETERIZATIONS["precond"]
    assert torch.allclose(precond.network_input(z), y, atol=1e-12)
    assert torch.allclose(precond.target(x0, eps, z), (x0 - y) / r, atol=1e-6)
    out = torch.randn_like(x0)
    assert torch.allclose(precond.x0(out, z), y + r * out, atol=1e-6)


def test_precond_is_x_t_where_there_is_no_noise():
    path = DDPMPath(make_betas("log_sigma", 100, sigma_min=1e-6))
    x0, eps, y, r = batch()
    z = latent(path, torch.tensor([0, 0]), x0, eps, y, r)
    out = torch.randn_like(x0)
    # the correction has the weight s = 1e-6
    assert torch.allclose(PARAMETERIZATIONS["precond"].x0(out, z), z.x_t / path.at(0).a, atol=1e-5)


@pytest.mark.parametrize("sigma_r", [0.1, 0.5])
@pytest.mark.parametrize("schedule", ["log_sigma", "linear", "linear, zero terminal SNR"])
def test_precond_target_has_unit_variance_and_its_input_is_the_best_linear_guess(schedule, sigma_r):
    """For x0 ~ N(y, sigma_r^2) at every time: F has mean 0, variance 1 and nothing left to gain from the input."""
    path, precond = make_path(schedule), PARAMETERIZATIONS["precond"]
    y, residual, eps = torch.randn(3, 1, 1, 200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x0 = y + sigma_r * residual
    error = 4 / math.sqrt(y.numel())  # four standard errors of a mean of unit numbers
    for t in (0, 30, 70, 99):
        z = latent(path, torch.tensor([t]), x0, eps, y, torch.full((1, 1, 1, 1), sigma_r))
        target, fused = precond.target(x0, eps, z), precond.network_input(z)
        assert float(target.mean()) == pytest.approx(0, abs=error)
        assert float(target.var()) == pytest.approx(1, abs=math.sqrt(2) * error)
        moved = (fused - y) / sigma_r
        assert float((target * moved).mean()) == pytest.approx(0, abs=error)  # uncorrelated: the fusion is the best
        # unit scale for the network: the input strays from y by no more than x0 does, at any noise
        assert float(moved.std()) <= 1 + error
        a, c = numbers(path, t)
        best = sigma_r * c / math.hypot(c, a * sigma_r)  # two views of x0: precisions add
        assert float((x0 - fused).std()) == pytest.approx(best, rel=error)


def test_precond_without_a_condition_is_refused():
    path = DDPMPath(make_betas("linear", 10))
    z = Latent(path, torch.zeros(1, 1, 2, 2), torch.tensor([3]))
    with pytest.raises(UserError, match="found precond without a condition image, expected conditioning_key concat"):
        PARAMETERIZATIONS["precond"].x0(torch.zeros(1, 1, 2, 2), z)


@pytest.mark.parametrize(
    ("schedule", "options"),
    # a path that stops at sigma = 0.5 starts far from pure noise, where the spread of x0 shows most
    [*((schedule, {}) for schedule in SCHEDULES), ("log_sigma", {"sigma_max": 0.5})],
)
def test_the_start_has_the_marginal_of_the_path_for_images_around_the_condition(schedule, options):
    path, sigma_r = make_path(schedule, **options), 0.4
    y, residual, eps, noise = torch.randn(
        4, 1, 1, 200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    true = path.q_sample(y + sigma_r * residual, path.timesteps - 1, eps)
    start = path.start(noise, y, torch.full((1, 1, 1, 1), sigma_r, dtype=torch.float64))
    a = float(path.at(path.timesteps - 1).a)
    error = 4 / math.sqrt(y.numel())
    for x in (true, start):  # given y both are a y plus noise of the same spread
        assert float((x - a * y).mean()) == pytest.approx(0, abs=error)
        assert float(((x - a * y) * y).mean()) == pytest.approx(0, abs=error)
    assert float((start - a * y).std()) == pytest.approx(float((true - a * y).std()), rel=1.5 * error)
    # without a condition: the marginal of a standardised image, which on these paths is the noise itself
    assert torch.allclose(path.start(noise), noise, atol=1e-12)


def test_the_clean_end_of_the_path_is_the_image_itself():
    path = DDPMPath(make_betas("linear", 10))
    x0, eps, *_ = batch()
    assert torch.equal(path.q_sample(x0, CLEAN, eps), x0)
