"""Lists of times, and the loop that walks them: which times, how many network calls, what comes last."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from gaussian_oracle import SCHEDULES, make_path
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.diffusion import (
    CLEAN,
    SOLVERS,
    DDPMPath,
    GaussianPath,
    Step,
    ddpm,
    make_betas,
    make_solver,
    network_calls,
    sample,
    time_list,
)
from cdm4mi.diffusion.clipping import clip_x0
from cdm4mi.diffusion.times import SPACINGS
from cdm4mi.errors import UserError


@st.composite
def t_and_s(draw):
    timesteps = draw(st.integers(1, 1500))
    return timesteps, draw(st.integers(1, timesteps))


@settings(max_examples=150, deadline=None)
@given(t_and_s(), st.sampled_from(SPACINGS))
def test_any_number_of_steps_gives_as_many_falling_times(t_s, spacing):
    timesteps, steps = t_s
    times = time_list(spacing, DDPMPath(make_betas("linear", timesteps)), steps)
    assert len(times) == steps
    assert all(isinstance(t, int) for t in times)
    assert all(t > after for t, after in pairwise(times))
    assert times[-1] >= 0
    assert times[0] == ((steps - 1) * (timesteps // steps) if spacing == "leading" else timesteps - 1)
    if steps == timesteps:
        assert times == list(range(timesteps))[::-1]


@settings(max_examples=100, deadline=None)
@given(t_and_s())
def test_times_follow_their_spacing_to_half_a_time(t_s):
    timesteps, steps = t_s
    half = 0.5 + 1e-6
    for i, t in enumerate(time_list("trailing", timesteps, steps)):
        assert abs(t - (timesteps * (1 - i / steps) - 1)) <= half
    for i, t in enumerate(time_list("leading", timesteps, steps)):
        assert t == (steps - 1 - i) * (timesteps // steps)
    if steps > 1:
        for i, t in enumerate(time_list("linspace", timesteps, steps)):
            assert abs(t - (timesteps - 1) * (1 - i / (steps - 1))) <= half


def test_quadratic_is_denser_where_noise_is_low():
    times = time_list("quadratic", 1000, 13)
    gaps = [a - b for a, b in pairwise(times)]
    assert times[0] == 999 and times[-1] == 0
    assert gaps == sorted(gaps, reverse=True)
    assert times[6] == pytest.approx(999 / 4, abs=0.5)  # half way in the root, a quarter in the time


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 5, 12])
def test_logsnr_and_karras_follow_the_noise_of_the_path_to_half_a_time(schedule, steps):
    """Evenly in ln(a / c), and in (c / a)^(1 / 7): each time is within half a time of where theory puts it."""
    path = make_path(schedule, 1000)
    a, _, c = path.at(torch.arange(1000))
    sigma = (c / a).numpy()
    if np.isinf(sigma[-1]):  # zero terminal SNR: no theory for the infinite; the rest lies below the path's other times
        times = [time_list(spacing, path, steps) for spacing in ("logsnr", "karras")]
        assert all(t[0] == 999 and t[-1] == 0 for t in times)
        return
    for spacing, scale in (("logsnr", np.log), ("karras", lambda s: s ** (1 / 7))):
        wanted = np.linspace(scale(sigma[-1]), scale(sigma[0]), steps)
        times = time_list(spacing, path, steps)
        assert (times[0], times[-1]) == (999, 0)
        for i, (t, value) in enumerate(zip(times, wanted, strict=True)):
            if t > times[-1] + steps and t < times[0] - steps:  # at the ends times are moved to be distinct
                around = scale(sigma[[t - 1, t + 1]])
                assert around[0] - 1e-9 <= value <= around[1] + 1e-9, (spacing, i)


def test_karras_is_the_published_series_where_the_path_has_the_room():
    """Karras et al. 2022, eq. 5, with sigma_min = 0.01 and sigma_max = 3, to a part in a thousand of 20000 times."""
    path = DDPMPath(make_betas("log_sigma", 20000))
    a, _, c = path.at(torch.tensor(time_list("karras", path, 10)))
    i = torch.arange(10, dtype=torch.float64)
    published = (3 ** (1 / 7) + i / 9 * (0.01 ** (1 / 7) - 3 ** (1 / 7))) ** 7
    assert torch.allclose((c / a), published, rtol=1e-3)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_list_from_the_middle_is_the_list_of_the_shorter_path(spacing):
    path = make_path("log_sigma", 400)
    times = time_list(spacing, path, 9, start=250)
    assert len(times) == 9 and all(t > after for t, after in pairwise(times))
    assert times[0] == (8 * (251 // 9) if spacing == "leading" else 250)
    assert time_list(spacing, path, 1, start=0) == [0]
    with pytest.raises(UserError, match="`steps`: found 9, expected 1 to 6"):
        time_list(spacing, path, 9, start=5)
    with pytest.raises(UserError, match="start: found 400, expected 0 to 399"):
        time_list(spacing, path, 9, start=400)


@pytest.mark.parametrize("spacing", ["logsnr", "karras"])
def test_spacings_by_noise_need_a_path_with_noise_that_rises(spacing):
    with pytest.raises(ValueError, match=f"spacing {spacing} needs the path"):
        time_list(spacing, 1000, 10)
    u = torch.linspace(0.1, 1, 10)
    with pytest.raises(UserError, match=f"spacing: found {spacing} on a path with times without noise"):
        time_list(spacing, GaussianPath(1 - u, u, 0 * u), 3)
    with pytest.raises(UserError, match=f"spacing: found {spacing} on a path whose noise does not rise"):
        time_list(spacing, GaussianPath(torch.ones(10), u, 1 - u / 2), 3)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(UserError, match=f"`steps`: found {steps}, expected 1 to 1000"):
        time_list("trailing", 1000, steps)


def test_an_unknown_spacing_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"spacing: found 'uniform', expected one of linspace, trailing"):
        time_list("uniform", 1000, 10)


@pytest.mark.parametrize(
    ("spacing", "steps"), [*product(SPACINGS, (1, 3, 7, 13, 300)), ("trailing", 1000), ("leading", 1000)]
)
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_a_sampler_calls_the_network_once_a_time_and_goes_where_the_list_says(spacing, steps, solver):
    path = DDPMPath(make_betas("linear", 1000))
    times = time_list(spacing, path, steps)
    called, stepped, seen = [], [], []

    def denoise(x, t):
        assert t.shape == (2,) and t.dtype == torch.int64 and bool((t == t[0]).all())
        called.append(int(t[0]))
        return 0.5 * x

    def recorded(step):
        stepped.append((step.t, step.t_next))
        return make_solver(solver)(step)

    out = sample(
        denoise,
        path,
        times,
        recorded,
        torch.ones(2, 1, 1, 1),
        noise=lambda n: torch.zeros(2, 1, 1, 1),
        hook=seen.append,
    )
    assert called == times
    assert stepped == list(zip(times, [*times[1:], CLEAN], strict=True))
    assert [(state.i, state.t) for state in seen] == list(enumerate(times))
    assert all(torch.equal(state.x0_hat, 0.5 * state.x_t) for state in seen)  # the hook sees every intermediate
    assert torch.equal(out, seen[-1].x0_hat)  # the last step returns x0_hat itself


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 13])
def test_every_solver_makes_the_calls_it_is_registered_with(solver, steps):
    """S calls, 2 S - 1 for heun, each at a time of the list, and x0_hat of the last is what comes back."""
    path = DDPMPath(make_betas("linear", 1000))
    times = time_list("trailing", 1000, steps)
    called, seen = [], []

    def denoise(x, t):
        assert t.shape == (2,) and t.dtype == torch.int64 and bool((t == t[0]).all())
        called.append(int(t[0]))
        return 0.5 * x

    start = torch.ones(2, 1, 1, 1)
    out = sample(denoise, path, times, make_solver(solver), start, noise=lambda n: 0 * start, hook=seen.append)
    assert len(called) == network_calls(solver, steps) == (2 * steps - 1 if solver == "heun" else steps)
    assert called == (sorted([*times, *times[1:]], reverse=True) if solver == "heun" else times)
    assert torch.equal(out, seen[-1].x0_hat)


def test_every_step_asks_for_its_own_draw_and_the_start_keeps_draw_zero():
    path = DDPMPath(make_betas("linear", 10))
    drawn = []

    def noise(n):
        drawn.append(n)
        return torch.zeros(1, 1, 1, 1)

    sample(lambda x, t: x, path, [9, 5, 2], ddpm, torch.ones(1, 1, 1, 1), noise=noise)
    assert len(set(drawn)) == len(drawn) and set(drawn) >= {1, 2} and 0 not in drawn


def test_times_that_do_not_fall_are_refused():
    path = DDPMPath(make_betas("linear", 10))
    with pytest.raises(ValueError, match="fall strictly, found 5 then 5"):
        sample(lambda x, t: x, path, [9, 5, 5], ddpm, torch.ones(1, 1, 1, 1), noise=lambda n: torch.zeros(1, 1, 1, 1))


def test_clipping_happens_before_the_solver_so_that_eps_is_derived_anew():
    path = DDPMPath(make_betas("linear", 1000))
    steps: list[Step] = []

    def recorded(step):
        steps.append(step)
        return make_solver("ddim")(step)

    x = torch.full((1, 1, 1, 2), 0.5)
    x_out = sample(lambda x, t: 7 * x, path, [600, 200], recorded, x, noise=torch.zeros, clip=True)
    a, _, c = (float(v) for v in path.at(600))
    a_next, _, c_next = (float(v) for v in path.at(200))
    eps = (0.5 - a * 1.0) / c  # from the clipped x0_hat = 1, not from 3.5
    assert torch.allclose(steps[1].x_t, torch.full_like(x, a_next * 1.0 + c_next * eps), atol=1e-6)
    assert torch.equal(x_out, torch.ones_like(x))


def test_dynamic_thresholding_is_that_of_imagen():
    x0 = (
        torch.randn(3, 1, 40, 50, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.1, 1, 3])[:, None, None, None]
    )
    out = clip_x0(x0, clip=True, dynamic=0.995)
    assert torch.equal(out[0], x0[0])  # its quantile is below 1: left as it is
    for k in (1, 2):
        q = np.quantile(np.abs(x0[k].numpy()), 0.995, method="closest_observation")
        assert q > 1
        assert torch.allclose(out[k], x0[k].clamp(-q, q) / q, rtol=0.01)
        assert float(out[k].abs().max()) == 1
    assert torch.equal(clip_x0(x0, dynamic=1.0)[2], x0[2] / x0[2].abs().max())
    with pytest.raises(UserError, match=r"dynamic_threshold: found 99\.5, expected 0 to 1"):
        clip_x0(x0, dynamic=99.5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_estimate_that_a_solver_sees_is_limited(solver):
    """A denoiser that overshoots: without a limit what comes back is 7, with one 1, in second calls too."""
    path = DDPMPath(make_betas("linear", 1000))
    x = torch.zeros(1, 1, 4, 4)
    run = {"path": path, "times": [999, 500, 100], "solver": make_solver(solver), "x_start": x, "noise": lambda n: x}
    estimates = []
    assert torch.equal(sample(lambda x, t: torch.full_like(x, 7.0), **run), x + 7)
    for limit in ({"clip": True}, {"dynamic_threshold": 0.9}):
        out = sample(
            lambda x, t: torch.full_like(x, 7.0), **run, **limit, hook=lambda s: estimates.append((s.x_t, s.x0_hat))
        )
        assert torch.equal(out, x + 1)
    assert all(float(x0_hat.max()) == 1 for _, x0_hat in estimates)
    a, _, c = (float(v) for v in path.at(100))
    assert max(float(x_t.max()) for x_t, _ in estimates) < a + 4 * c
