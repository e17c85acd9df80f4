"""One step of DDPM and DDIM against independent formulas, the last step, and noise that is masked by sample."""

import math

import pytest
import torch
from gaussian_oracle import SCHEDULES, make_path, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.diffusion import CLEAN, DDPMPath, SeededNoise, Step, ddim, ddpm, make_betas, make_solver, sample, time_list
from cdm4mi.diffusion import SOLVERS as REGISTERED
from cdm4mi.errors import UserError
from cdm4mi.networks import UNet

LINEAR = DDPMPath(make_betas("linear", 1000))
SOLVERS = {name: make_solver(name) for name in REGISTERED} | {"ddim eta 1": make_solver("ddim", 1.0)}
NOISY = {"ddpm", "euler_ancestral", "dpmpp_2m_sde", "ddim eta 1"}


def weights_of(solver, path, t, t_next):
    """(weight of x_t, weight of x0_hat, std of the noise) of one step, read off a step on unit pixels."""
    x_t, x0, noise = torch.eye(3, dtype=torch.float64).reshape(3, 1, 1, 1, 3)
    step = Step(path, x_t, x0, t, t_next, lambda: noise, denoise=lambda x, t: x0)
    return [float(w) for w in solver(step).flatten()]


@pytest.mark.parametrize("t", [1, 2, 37, 500, 999])
def test_ddpm_at_stride_one_is_equation_7(t):
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)
    beta, now, before = float(betas[t]), float(abar[t]), float(abar[t - 1])
    of_x0 = math.sqrt(before) * beta / (1 - now)
    of_x_t = math.sqrt(1 - beta) * (1 - before) / (1 - now)
    std = math.sqrt((1 - before) / (1 - now) * beta)
    assert weights_of(ddpm, LINEAR, t, t - 1) == pytest.approx([of_x_t, of_x0, std], rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 99), st.data())
def test_ddpm_at_any_stride_is_the_product_of_the_two_gaussians(schedule, t, data):
    """q(x_n | x_t, x0) by Bayes: prior N(a_n x0, c_n^2) times N(x_t; r x_n, beta_eff), added as precisions."""
    t_next = data.draw(st.integers(0, t - 1))
    path = make_path(schedule)
    abar, abar_next = float(path.alphas_cumprod[t]), float(path.alphas_cumprod[t_next])
    beta_eff = 1 - abar / abar_next
    r = math.sqrt(abar / abar_next)
    variance = 1 / (1 / (1 - abar_next) + r**2 / beta_eff)
    expected = [variance * r / beta_eff, variance * math.sqrt(abar_next) / (1 - abar_next), math.sqrt(variance)]
    # 1e-6: this formula subtracts in 1 - abar, which the path does not
    assert weights_of(ddpm, path, t, t_next) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 99), st.data())
def test_ddim_with_eta_one_and_euler_ancestral_are_ddpm(schedule, t, data):
    t_next = data.draw(st.integers(CLEAN, t - 1))
    path = make_path(schedule)
    one = weights_of(SOLVERS["euler_ancestral"], path, t, t_next)
    assert one == pytest.approx(weights_of(ddpm, path, t, t_next), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_equations_12_and_16(eta):
    for t, t_next in ((999, 850), (400, 399), (77, 3), (1, 0)):
        abar, before = float(LINEAR.alphas_cumprod[t]), float(LINEAR.alphas_cumprod[t_next])
        sigma = eta * math.sqrt((1 - before) / (1 - abar)) * math.sqrt(1 - abar / before)
        direction = math.sqrt(1 - before - sigma**2)
        of_x_t = direction / math.sqrt(1 - abar)  # eps = (x_t - sqrt(abar) x0) / sqrt(1 - abar)
        of_x0 = math.sqrt(before) - of_x_t * math.sqrt(abar)
        expected = pytest.approx([of_x_t, of_x0, sigma], rel=1e-6, abs=1e-9)
        assert weights_of(lambda step: ddim(step, eta), LINEAR, t, t_next) == expected


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_keeps_a_true_latent_on_the_path(solver):
    """From x_t with the true x0, x_next has exactly the path's a x0 and noise of the path's c."""
    for t, t_next in ((999, 500), (500, 499), (3, 0)):
        (a, c), (a_next, c_next) = numbers(LINEAR, t), numbers(LINEAR, t_next)
        of_x_t, of_x0, std = weights_of(SOLVERS[solver], LINEAR, t, t_next)
        assert of_x0 + of_x_t * a == pytest.approx(a_next, rel=1e-9)
        assert math.hypot(of_x_t * c, std) == pytest.approx(c_next, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_step_returns_x0_hat_exactly(schedule, solver):
    path = make_path(schedule)
    x_t, x0, noise = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in (0, 1, 50, 99):
        assert torch.equal(SOLVERS[solver](Step(path, x_t, x0, t, CLEAN, lambda: noise)), x0)


def test_stopping_at_the_first_noise_level_would_cap_psnr_at_46_db():
    """Why the last step goes to CLEAN: x at t = 0 still holds the noise of abar_0 (variance 1e-4 on a range of 2)."""
    x0 = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = SeededNoise(0, [0], (1, 256, 256))
    for solver in SOLVERS.values():
        run = {"denoise": lambda x, t: x0, "path": LINEAR, "solver": solver, "noise": noise.draw}
        seen = []
        out = sample(times=[999, 500, 0], x_start=noise.draw(0), hook=seen.append, **run)
        assert torch.equal(out, x0)
        psnr = 10 * torch.log10(4 / ((seen[-1].x_t - x0) ** 2).mean())
        assert float(psnr) == pytest.approx(46.0, abs=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_noise_is_masked_for_each_sample_and_not_for_the_batch(solver):
    x_t, x0, noise = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    t, t_next = torch.tensor([900, 3, 0, 40]), torch.tensor([700, CLEAN, CLEAN, 0])
    step = SOLVERS[solver]
    options = {"denoise": lambda x, t: 0.9 * x}
    out = step(Step(LINEAR, x_t, x0, t, t_next, lambda: noise, **options))
    quiet = step(Step(LINEAR, x_t, x0, t, t_next, lambda: torch.zeros_like(noise), **options))
    assert torch.equal(out[1:3], x0[1:3])
    for i in (0, 3):
        assert torch.equal(out[i], quiet[i]) is (solver not in NOISY)
        one = slice(i, i + 1)
        alone = Step(LINEAR, x_t[one], x0[one], int(t[i]), int(t_next[i]), lambda i=i: noise[i : i + 1], **options)
        assert torch.equal(step(alone)[0], out[i])  # a sample's step does not see its neighbours


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_gives_the_same_image_at_batch_1_and_at_batch_8(solver):
    torch.manual_seed(0)
    unet = UNet(1, 1, 32, (1,), 1, (), dropout=0.0).eval()
    torch.nn.init.normal_(unet.out[2].weight, std=0.05)  # the untrained network's output is 0

    def run(images):
        noise = SeededNoise(5, images, (1, 8, 8))
        times = time_list("trailing", 1000, 4)
        return sample(unet, LINEAR, times, SOLVERS[solver], LINEAR.start(noise.draw(0)), noise=noise.draw)

    together = run(range(8))
    # 1e-5: a matrix product may sum in another order at another batch size; the draws themselves are equal
    for i in (0, 5):
        assert torch.allclose(run([i])[0], together[i], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.1)
    assert torch.allclose(run([6, 2]), together[[6, 2]], atol=1e-5)  # nor does the order matter


def test_seeded_noise_is_unit_noise_that_differs_by_seed_image_and_draw():
    noise = SeededNoise(3, [10, 11], (1, 64, 64))
    one = noise.draw(1)
    assert torch.equal(one, SeededNoise(3, [10, 11], (1, 64, 64)).draw(1))
    others = [
        one[1],
        noise.draw(2)[0],
        SeededNoise(4, [10], (1, 64, 64)).draw(1)[0],
        SeededNoise(1, [10], (1, 64, 64)).draw(3)[0],
    ]
    for other in others:  # four standard errors of a correlation over 4096 pixels
        assert abs(float((one[0] * other).mean())) < 4 / 64
    assert float(one.mean()) == pytest.approx(0, abs=4 / math.sqrt(one.numel()))
    assert float(one.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * one.numel()))


def test_seeded_noise_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    SeededNoise(0, [0], (1, 4, 4)).draw(0)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize(
    ("name", "eta", "message"),
    [
        ("milstein", 0.0, "solver: found 'milstein', expected .*ddpm.*ddim.*heun"),
        ("ddim", 1.5, "eta: found 1.5, expected 0 to 1"),
        ("ddim", -0.1, "eta: found -0.1"),
        ("ddim", math.nan, "eta: found nan"),
    ],
)
def test_an_unknown_solver_or_eta_is_refused(name, eta, message):
    with pytest.raises(UserError, match=message):
        make_solver(name, eta)
