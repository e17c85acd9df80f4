"""The same oracle, times and noise in diffusers' schedulers give the same samples, where the definitions agree."""

import pytest
import torch
from gaussian_oracle import gaussian_denoiser

from cdm4mi.diffusion import DDPMPath, make_betas, make_solver, sample, time_list

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

T = 1000
BETAS = {"linear": "linear", "sqrt_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PEER = {"clip_sample": False, "prediction_type": "sample", "num_train_timesteps": T}


def run_peer(scheduler, times, denoise, x, **options):
    assert scheduler.timesteps.tolist() == times
    for t in times:
        x = scheduler.step(denoise(x, torch.tensor([t])), t, x, **options).prev_sample
    return x


def run_ours(path, times, solver, denoise, x, generator):
    return sample(denoise, path, times, solver, x, noise=lambda n: torch.randn(x.shape, generator=generator))


@pytest.fixture
def start():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ours", "theirs"), BETAS.items())
def test_betas(ours, theirs):
    scheduler = diffusers.DDPMScheduler(beta_schedule=theirs, beta_start=1e-4, beta_end=2e-2, num_train_timesteps=T)
    # their tables are float32
    assert torch.allclose(make_betas(ours, T).float(), scheduler.betas, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
@pytest.mark.parametrize("steps", [2, 7, 13, 50, 300])
def test_times(spacing, steps):
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert time_list(spacing, T, steps) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_where_the_stride_divides(schedule, spacing, eta, start):
    """Theirs takes the previous time as t - T // S: equal to ours only where that is the next of the list."""
    betas, steps = make_betas(schedule, T), 20
    path, times = DDPMPath(betas), time_list(spacing, T, steps)
    denoise = gaussian_denoiser(path, 0.2, 0.5)
    scheduler = diffusers.DDIMScheduler(
        trained_betas=betas.numpy(), timestep_spacing=spacing, set_alpha_to_one=True, **PEER
    )
    scheduler.set_timesteps(steps)
    theirs = run_peer(scheduler, times, denoise, start, eta=eta, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    ours = run_ours(path, times, make_solver("ddim", eta), denoise, start, generator)
    assert torch.allclose(ours, theirs, atol=1e-4)  # float32 tables there
    assert float(ours.std()) > 0.3  # an image's spread, not two collapsed samplers


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 13), ("linspace", 7), ("quadratic", 30)])
def test_ddpm_over_any_list_of_times(schedule, spacing, steps, start):
    betas = make_betas(schedule, T)
    path, times = DDPMPath(betas), time_list(spacing, T, steps)
    denoise = gaussian_denoiser(path, 0.2, 0.5)
    scheduler = diffusers.DDPMScheduler(trained_betas=betas.numpy(), variance_type="fixed_small", **PEER)
    scheduler.set_timesteps(timesteps=times)
    theirs = run_peer(scheduler, times, denoise, start, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    ours = run_ours(path, times, make_solver("ddpm"), denoise, start, generator)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_eps_and_v_mean_the_same(start):
    from cdm4mi.diffusion import PARAMETERIZATIONS, Latent

    betas = make_betas("linear", T)
    path = DDPMPath(betas)
    out = torch.randn(start.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in (("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")):
        scheduler = diffusers.DDIMScheduler(trained_betas=betas.numpy(), **{**PEER, "prediction_type": theirs})
        scheduler.set_timesteps(10)
        for t in (0, 300, 900):
            x0 = scheduler.step(out, t, start).pred_original_sample
            z = Latent(path, start, torch.tensor([t, t]))
            assert torch.allclose(PARAMETERIZATIONS[ours].x0(out, z), x0, rtol=1e-4, atol=1e-4)
