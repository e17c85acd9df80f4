"""Schedules by their definitions, their pinned ends, and tables that stay in float64."""

import math

import pytest
import torch
from gaussian_oracle import gaussian_denoiser
from torch import nn

from cdm4mi.diffusion import (
    CLEAN,
    PARAMETERIZATIONS,
    DDPMPath,
    Latent,
    SeededNoise,
    make_betas,
    make_solver,
    rescale_zero_terminal_snr,
    sample,
    time_list,
)
from cdm4mi.diffusion.schedules import NAMES
from cdm4mi.errors import UserError
from cdm4mi.models import ConditionalProcess

BUILT_IN = [name for name in NAMES if name != "custom"]


@pytest.mark.parametrize(
    ("name", "root_of_abar_T"),
    [("linear", 0.0064), ("sqrt_linear", 0.027), ("cosine", 5e-5), ("sqrt", 1.8e-22), ("log_sigma", 1 / math.sqrt(10))],
)
def test_the_end_of_each_schedule_at_a_thousand_times(name, root_of_abar_T):
    path = DDPMPath(make_betas(name, 1000))
    assert float(path.at(999).a) == pytest.approx(root_of_abar_T, rel=0.02)
    assert float(path.alphas_cumprod[-1].sqrt()) == pytest.approx(root_of_abar_T, rel=0.02)


def test_names_say_what_the_formulas_are():
    first, last, n = 1e-4, 2e-2, 1000
    u = torch.arange(n, dtype=torch.float64) / (n - 1)
    line = first + (last - first) * u
    assert torch.allclose(make_betas("linear", n), line, rtol=1e-12)
    root = (math.sqrt(first) + (math.sqrt(last) - math.sqrt(first)) * u) ** 2
    assert torch.allclose(make_betas("sqrt_linear", n), root, rtol=1e-12)
    assert torch.equal(make_betas("quadratic", n), make_betas("sqrt_linear", n))
    assert torch.allclose(make_betas("sqrt", n), line.sqrt(), rtol=1e-12)
    sigmoid = make_betas("sigmoid", n)
    assert torch.allclose(sigmoid, first + (last - first) / (1 + torch.exp(6 - 12 * u)), rtol=1e-12)


def test_linear_ends_may_be_chosen():
    betas = make_betas("linear", 50, linear_start=2e-3, linear_end=0.3)
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((2e-3, 0.3))


def test_cosine_is_the_squared_cosine_up_to_its_cap():
    path = DDPMPath(make_betas("cosine", 1000, cosine_s=0.008))

    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 1, 400, 998):  # the time t of the table is the paper's t + 1
        assert float(path.alphas_cumprod[t]) == pytest.approx(f(t + 1) / f(0), rel=1e-9)
    assert float(path.betas[-1]) == 0.999  # uncapped it would be 1


def test_log_sigma_is_a_geometric_series_of_noise():
    path = DDPMPath(make_betas("log_sigma", 100, sigma_min=0.02, sigma_max=5))
    sigma = torch.cat([path.at(t).c / path.at(t).a for t in range(100)])
    assert float(sigma[0]) == pytest.approx(0.02) and float(sigma[-1]) == pytest.approx(5)
    ratio = sigma[1:] / sigma[:-1]
    assert torch.allclose(ratio, ratio[:1].expand(99), rtol=1e-9)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("timesteps", [2, 10, 1000])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_every_schedule_is_a_variance_preserving_path_of_falling_signal(name, timesteps, zero_terminal_snr):
    path = DDPMPath(make_betas(name, timesteps, zero_terminal_snr=zero_terminal_snr))
    assert path.betas.dtype == torch.float64 and path.betas.shape == (timesteps,) and path.timesteps == timesteps
    a, b, c = path.at(torch.arange(timesteps))
    assert torch.allclose(a**2 + c**2, torch.ones_like(a), rtol=1e-12)
    assert torch.equal(b, torch.zeros_like(b))
    assert bool((a[1:] < a[:-1]).all()) and bool((c > 0).all())
    assert [float(v) for v in path.at(CLEAN)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_rescaling_ends_in_exactly_no_signal_and_keeps_the_first_step(name):
    betas = make_betas(name, 1000)
    path = DDPMPath(rescale_zero_terminal_snr(betas))
    assert float(path.at(999).a) == 0.0 and float(path.at(999).c) == 1.0 and float(path.snr(999)) == 0.0
    assert float(path.betas[0]) == pytest.approx(float(betas[0]), rel=1e-9)
    # algorithm 1 of the paper shifts and scales the root of abar
    old, new = torch.cumprod(1 - betas, 0).sqrt(), path.alphas_cumprod.sqrt()
    assert torch.allclose(new, (old - old[-1]) * old[0] / (old[0] - old[-1]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", BUILT_IN)
def test_eps_is_refused_at_zero_terminal_snr_and_only_there(name):
    rescaled = DDPMPath(make_betas(name, 1000, zero_terminal_snr=True))
    with pytest.raises(UserError, match="found eps with zero terminal SNR, expected x0 or v"):
        PARAMETERIZATIONS["eps"].check(rescaled)
    PARAMETERIZATIONS["eps"].check(DDPMPath(make_betas(name, 1000)))
    for other in ("x0", "v", "precond"):
        PARAMETERIZATIONS[other].check(rescaled)


@pytest.mark.parametrize(("clip", "silent"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("solver", [make_solver("ddpm"), make_solver("ddim", 0.0)], ids=["ddpm", "ddim"])
def test_sqrt_samples_with_eps_without_inf_or_nan(solver, clip, silent):
    """At a_T = 2e-22 eps says nothing about x0, but numbers stay finite, and clipping makes it an image again."""
    path = DDPMPath(make_betas("sqrt", 1000))
    eps, noise = PARAMETERIZATIONS["eps"], SeededNoise(0, [0, 1], (1, 8, 8))
    exact = gaussian_denoiser(path, 0.0, 0.3)

    def denoise(x, t):
        # the output of an untrained network (0), or of a perfect one, in float32
        out = torch.zeros_like(x) if silent else path.eps(x, exact(x, t), t)
        return eps.x0(out, Latent(path, x, t))

    for steps in (1, 7, 1000):
        times = time_list("trailing", 1000, steps)
        out = sample(denoise, path, times, solver, path.start(noise.draw(0)), noise=noise.draw, clip=clip)
        assert bool(out.isfinite().all())
        assert not clip or float(out.abs().max()) <= 1


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_custom_takes_the_users_betas_and_refuses_any_outside_0_to_1(bad):
    good = [0.1, 0.2, 0.4]
    assert make_betas("custom", 3, betas=good).tolist() == good
    with pytest.raises(UserError, match=rf"betas: found {bad} at step 1, expected every beta inside \(0, 1\)"):
        make_betas("custom", 3, betas=[0.1, bad, 0.4])


def test_custom_without_betas_is_refused():
    with pytest.raises(UserError, match="betas: found none"):
        make_betas("custom", 3)


def test_ends_that_leave_0_to_1_are_refused_for_named_schedules_too():
    with pytest.raises(UserError, match=r"found 1.00003\d* at step 6, expected every beta inside \(0, 1\)"):
        make_betas("linear", 10, linear_end=1.5)
    with pytest.raises(UserError, match="expected every beta inside"):
        make_betas("log_sigma", 10, sigma_min=3.0, sigma_max=0.01)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="beta_schedule: found 'squaredcos', expected one of linear, sqrt_linear"):
        make_betas("squaredcos", 10)


class Model(nn.Module):
    """As a user's module holds a process beside its layers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.process = ConditionalProcess(DDPMPath(make_betas("linear", 1000)), PARAMETERIZATIONS["eps"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_stay_float64_when_the_model_is_cast(dtype):
    model = Model().to(dtype)
    assert model.layer.weight.dtype == dtype
    path = model.process.path
    assert path.alphas_cumprod.dtype == torch.float64
    # what a cast table would hold: no noise at all at the first times
    assert float(1 - path.alphas_cumprod[0].to(dtype)) == 0 and float(1 - path.alphas_cumprod[1].to(dtype)) == 0
    assert float(path.at(0).c ** 2) == pytest.approx(1e-4, rel=1e-9)
    x0, noise = torch.zeros(2, 1, 4, 4, dtype=dtype), torch.ones(2, 1, 4, 4, dtype=dtype)
    x_t = path.q_sample(x0, torch.tensor([0, 999]), noise)
    assert x_t.dtype == dtype  # images keep their own
    assert float(x_t[0].float().mean()) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("t", [1000, -2])
def test_a_time_outside_the_path_is_an_error_and_not_the_clean_image(t):
    path = DDPMPath(make_betas("linear", 1000))
    with pytest.raises(IndexError, match=f"{t}"):
        path.at(t)
    with pytest.raises(IndexError):
        path.q_sample(torch.zeros(2, 1, 1, 1), torch.tensor([0, t]), torch.zeros(2, 1, 1, 1))


def test_q_sample_follows_each_sample_of_the_batch():
    path = DDPMPath(make_betas("cosine", 1000))
    x0, noise = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 500, CLEAN])
    x_t = path.q_sample(x0, t, noise)
    for i in range(2):
        abar = float(path.alphas_cumprod[t[i]])
        assert torch.allclose(x_t[i], math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * noise[i], rtol=1e-9)
    assert torch.equal(x_t[2], x0[2])
