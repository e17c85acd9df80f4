"""Lists of times, and the loop that walks them: which times, how many network calls, what comes last."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.diffusion import CLEAN, DDPMPath, Step, ddpm, make_betas, make_solver, sample, time_list
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
    times = time_list(spacing, timesteps, steps)
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


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(UserError, match=f"steps: found {steps}, expected 1 to 1000"):
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
    times = time_list(spacing, 1000, steps)
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
