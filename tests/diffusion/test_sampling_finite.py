"""Sampling stays finite whatever the network returns, for everything that the configuration accepts."""

import itertools

import pytest
import torch

from cdm4mi.choices import SOLVERS, ParameterizationName, ScheduleName, SpacingName
from cdm4mi.config import parse_config
from cdm4mi.config.schema import PathName
from cdm4mi.diffusion import PARAMETERIZATIONS, DDPMPath, Latent, SeededNoise, make_betas, make_solver, sample
from cdm4mi.errors import UserError
from cdm4mi.models import build_process

SCHEDULES = [name for name in ScheduleName.__args__ if name != "custom"]
KINDS = list(itertools.product(PathName.__args__, ParameterizationName.__args__, [False, True], [2, 1000]))


def arbitrary(x, t, condition):
    """Finite, and right about nothing."""
    return 3 * torch.tanh(7 * x.flip(-1) + t.reshape(-1, 1, 1, 1)) + 0.5


def sampled(process, spacing, solver, steps, clip):
    y, level = SeededNoise(1, [0, 1], (1, 4, 4)).draw(0), torch.tensor([0.05, 0.3])
    noise, cond = SeededNoise(0, [0, 1], (1, 4, 4)), process.condition(y, level)
    times = process.times(spacing, steps)
    return sample(
        process.denoiser(arbitrary, cond),
        process.path,
        times,
        solver,
        process.start(noise.draw(0), cond, times[0]),
        noise=noise.draw,
        y=y if process.path.is_bridge else None,
        clip=clip,
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_arbitrary_network_gives_finite_images(schedule):
    tried = 0
    for path, parameterization, zero_terminal_snr, timesteps in KINDS:
        if path in ("bridge", "i2sb") and schedule != "linear":  # they have no betas
            continue
        model = {"path": path, "parameterization": parameterization, "zero_terminal_snr": zero_terminal_snr}
        try:
            config = parse_config({"model": {**model, "beta_schedule": schedule, "timesteps": timesteps}})
            process = build_process(config.model)
        except UserError:
            continue
        for name, (spacing, steps, clip) in itertools.product(
            SOLVERS, zip(SpacingName.__args__, [1, 2, 4, 1, 2, 4], [True, False] * 3, strict=True)
        ):
            try:
                solver = make_solver(name, 0.5 if name == "ddim" else 0.0, process.path)
                out = sampled(process, spacing, solver, steps, clip)
            except UserError:  # a solver or spacing that this path refuses
                continue
            tried += 1
            told = (path, parameterization, zero_terminal_snr, timesteps, name, spacing, steps, clip)
            assert bool(out.isfinite().all()) and bool(out.square().isfinite().all()), told
            assert not clip or float(out.abs().max()) <= 1 + 1e-5, told
    assert tried >= 200


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_heun_steps_where_two_times_are_all_but_noise(schedule):
    """At sigma of 1e21 and 1e15 both angles atan(sigma) are pi / 2 to rounding."""
    process = build_process(parse_config({"model": {"beta_schedule": schedule, "parameterization": "x0"}}).model)
    assert bool(sampled(process, "linspace", make_solver("heun"), 10, True).isfinite().all())


def test_eps_leaves_out_the_times_that_float32_cannot_tell_from_noise():
    path = DDPMPath(make_betas("sqrt", 1000))
    eps = PARAMETERIZATIONS["eps"]
    last = eps.last_time(path)
    # at the last one, rounding an exact eps to float32 moves x0_hat by less than the width of the window; beyond it
    # the image is less than half a unit in the last place of x_t, whose start is then exactly the noise itself
    x0 = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    noise = SeededNoise(3, [0], (1, 8, 8)).draw(0).clamp(-1, 1)
    assert (
        float((eps.x0(noise, Latent(path, path.q_sample(x0, last, noise), torch.tensor([last]))) - x0).abs().max()) < 2
    )
    assert torch.equal(path.q_sample(torch.ones(1, 1, 1, 1), last + 1, torch.ones(1, 1, 1, 1)), torch.ones(1, 1, 1, 1))
    assert last < 900 and float(eps.x0(noise, Latent(path, 2 * noise, torch.tensor([999]))).abs().max()) == 0
    # every schedule whose noise stays in float32's reach is sampled from its end, as ever
    for name in ("linear", "sqrt_linear", "cosine", "sigmoid", "log_sigma"):
        assert eps.last_time(DDPMPath(make_betas(name, 1000))) == 999
    assert all(p.last_time(path) == 999 for n, p in PARAMETERIZATIONS.items() if n != "eps")


def test_a_schedule_whose_signal_is_gone_before_its_end_is_refused():
    with pytest.raises(UserError, match=r"found linear of 100000 timesteps, whose signal is 0 to rounding from time"):
        build_process(parse_config({"model": {"timesteps": 100_000, "parameterization": "x0"}}).model)
