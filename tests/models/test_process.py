"""ConditionalProcess on images whose posterior is known: it samples and does not only average, whatever it predicts."""

import math

import pytest
import torch

from cdm4mi.config.schema import ModelConfig
from cdm4mi.diffusion import PARAMETERIZATIONS, DDPMPath, SeededNoise, make_betas, make_solver, sample, time_list
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError
from cdm4mi.models import ConditionalProcess, build_process
from cdm4mi.models.condition import Condition
from cdm4mi.networks import NetworkCondition

# x0 ~ N(M, S^2) a pixel, y = x0 + R noise: x0 given y is N(mu, RHO^2)
M, S, R = 0.1, 0.5, 0.3
RHO = S * R / math.hypot(S, R)
GAMMA = RHO**2 / R**2
K, PIXELS, STEPS = 4, 128 * 128, 200


class ExactNetwork:
    """The perfect network: told y, it returns the output that stands for E[x0 | x_t, y], and counts its calls."""

    def __init__(self, process):
        self.process, self.calls = process, 0

    def exact(self, x_t, t, y):
        a, _, c = (broadcast(v, x_t) for v in self.process.path.at(t))
        mu = M + GAMMA * (y - M)
        return mu + a * RHO**2 / (a**2 * RHO**2 + c**2) * (x_t - a * mu)

    def bind(self, x_t):
        """A network for one x_t (which precond does not show to the network, only the fusion of it with y)."""

        def network(seen, t, cond):
            self.calls += 1
            y = cond.image[:, :1]
            z = self.process.latent(x_t, t, self.process.condition(y, torch.full((len(y),), R)))
            assert torch.equal(seen, self.process.parameterization.network_input(z))
            x0 = self.exact(x_t, t, y)
            return self.process.parameterization.target(x0, self.process.path.eps(x_t, x0, t), z)

        return network


@pytest.fixture(scope="module")
def scene():
    x0, n = torch.randn(2, 1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    x0 = M + S * x0
    return x0, x0 + R * n


def decibel(one, other):
    return 10 * math.log10(one / other)


CASES = [("eps", "cosine"), ("x0", "cosine"), ("v", "cosine"), ("precond", "log_sigma")]


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_a_sample_has_twice_the_least_error_and_the_mean_of_k_loses_what_theory_says(name, schedule, solver, scene):
    x0, y = scene
    process = ConditionalProcess(DDPMPath(make_betas(schedule, 1000)), PARAMETERIZATIONS[name])
    oracle, level = ExactNetwork(process), torch.full((K,), R)
    cond = process.condition(y.expand(K, -1, -1, -1), level)
    noise = SeededNoise(0, range(K), (1, 128, 128))
    out = sample(
        lambda x, t: process.denoiser(oracle.bind(x), cond)(x, t),
        process.path,
        time_list("trailing", 1000, STEPS),
        make_solver(solver),
        process.start(noise.draw(0), cond),
        noise=noise.draw,
    )
    assert oracle.calls == STEPS
    least = float(((M + GAMMA * (y - M) - x0) ** 2).mean())
    assert least == pytest.approx(RHO**2, rel=4 * math.sqrt(2 / PIXELS))  # the scene is what it should be
    one = [float(((out[k] - x0[0]) ** 2).mean()) for k in range(K)]
    mean = float(((out.mean(0) - x0[0]) ** 2).mean())
    # four standard errors of a mean of PIXELS squares are 0.19 dB; the spread that STEPS steps lose is below 0.1 dB
    assert decibel(sum(one) / K, least) == pytest.approx(10 * math.log10(2), abs=0.2)
    assert decibel(mean, least) == pytest.approx(10 * math.log10(1 + 1 / K), abs=0.15)
    for k in range(K):  # each one of them, not only their average
        assert decibel(one[k], least) == pytest.approx(3.01, abs=0.3)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_one_call_at_the_noisy_end_is_the_mean(name, schedule, scene):
    """A sampler of one step averages: the least error, none of the 3 dB (x_T itself helps by 0.03 dB)."""
    x0, y = scene
    process = ConditionalProcess(DDPMPath(make_betas(schedule, 1000)), PARAMETERIZATIONS[name])
    level, noise = torch.tensor([R]), SeededNoise(0, [0], (1, 128, 128))
    cond = process.condition(y, level)
    x_t = process.start(noise.draw(0), cond)
    out = process.denoiser(ExactNetwork(process).bind(x_t), cond)(x_t, torch.tensor([999]))
    least = float(((M + GAMMA * (y - M) - x0) ** 2).mean())
    assert decibel(float(((out - x0) ** 2).mean()), least) == pytest.approx(0, abs=0.1)


def process_of(name="precond", schedule="log_sigma", **options):
    return ConditionalProcess(DDPMPath(make_betas(schedule, 100)), PARAMETERIZATIONS[name], **options)


def test_the_level_is_one_more_constant_channel():
    y, level = torch.randn(2, 1, 4, 6), torch.tensor([0.1, 0.3])
    cond = process_of().condition(y, level)
    image = process_of(level_channel=True).network_condition(cond).image
    assert torch.equal(image[:, :1], y)
    assert torch.equal(image[:, 1], level[:, None, None].expand(2, 4, 6))
    assert torch.equal(process_of().network_condition(cond).image, y)


def test_the_vector_is_handed_on():
    vector = torch.tensor([[1.0, 2.0]])
    cond = process_of().condition(torch.zeros(1, 1, 2, 2), torch.zeros(1), vector)
    assert torch.equal(process_of().network_condition(cond).vector, vector)


def test_sigma_r_is_the_level_of_each_sample_unless_it_is_given():
    sigma = torch.tensor([0.1, 0.3])
    cond = Condition(sigma=sigma)
    assert process_of().residual_sigma(cond).tolist() == sigma.tolist()
    assert process_of(sigma_r=0.2).residual_sigma(cond).tolist() == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("options", "matters"),
    [
        ({"name": "precond"}, True),
        ({"name": "precond", "sigma_r": 0.2}, False),
        ({"name": "precond", "sigma_r": 0.2, "level_channel": True}, True),
        ({"name": "eps"}, False),
        ({"name": "eps", "level_channel": True}, True),
    ],
)
def test_it_says_truly_whether_the_level_changes_the_result(options, matters):
    process = process_of(**options)
    x, y = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def network(seen, t, cond: NetworkCondition):
        return 0.1 * seen + cond.image.sum(1, keepdim=True)

    low, high = (
        process.denoiser(network, process.condition(y, torch.tensor([sigma])))(x, torch.tensor([50]))
        for sigma in (0.05, 0.5)
    )
    assert process.conditioned_on_level is matters
    assert torch.allclose(low, high) is not matters


def test_sampling_starts_around_the_condition_only_where_the_prediction_rests_on_it():
    noise, y = torch.randn(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    cond = process_of().condition(y, torch.tensor([0.2]))
    a, _, c = (float(v) for v in process_of().path.at(99))
    around = process_of().start(noise, cond)
    assert torch.allclose(around, a * y + math.sqrt((a * 0.2) ** 2 + c**2) * noise, atol=1e-6)
    for name in ("eps", "x0", "v"):
        assert torch.allclose(process_of(name, "linear").start(noise, cond), noise, atol=1e-6)


def test_half_precision_outputs_are_read_in_float32():
    process, y = process_of("v", "linear"), torch.randn(1, 1, 4, 4)
    cond = process.condition(y, torch.tensor([0.1]))
    out = process.denoiser(lambda x, t, cond: x.bfloat16(), cond)(y, torch.tensor([3]))
    assert out.dtype == torch.float32


@pytest.mark.parametrize("key", ["crossattn", "adm", "none"])
def test_precond_is_refused_with_a_key_that_does_not_show_the_condition(key):
    with pytest.raises(UserError, match=f"precond with conditioning_key {key}: expected concat or hybrid"):
        build_process(ModelConfig(parameterization="precond", conditioning_key=key))


def test_the_schedule_of_a_checkpoint_takes_the_place_of_the_configured_one():
    betas = [0.1, 0.2, 0.3]
    process = build_process(ModelConfig(), betas)
    assert process.path.betas.tolist() == betas and process.path.timesteps == 3


def test_a_schedule_without_signal_at_its_end_is_refused_for_eps_from_a_checkpoint_too():
    with pytest.raises(UserError, match="found eps with zero terminal SNR"):
        build_process(ModelConfig(), [0.1, 0.2, 1.0])


def test_the_level_is_a_channel_that_varies_where_a_relative_level_is_known():
    y, relative = torch.randn(2, 1, 4, 6), torch.rand(2, 1, 4, 6)
    sigma = torch.tensor([0.1, 0.3])
    process = process_of(level_channel=True)
    even = process.network_condition(process.condition(y, sigma)).image[:, 1]
    assert torch.equal(even, sigma[:, None, None].expand(-1, 4, 6))
    cond = process.condition(y, sigma, relative_level=relative)
    varying = process.network_condition(cond).image[:, 1]
    torch.testing.assert_close(varying, sigma[:, None, None] * relative[:, 0])
    window = process.network_condition(cond.windows([(1, 1, 2)], 2, 3)).image[0, 1]
    assert torch.equal(window, varying[1, 1:3, 2:5])


def test_the_texture_is_three_more_constant_channels():
    y, texture = torch.randn(2, 1, 4, 6), torch.tensor([[0.5, -0.1, 1.0], [0.0, 0.2, 0.0]])
    cond = process_of().condition(y, torch.ones(2), texture=texture)
    image = process_of(level_channel=True, texture_channels=True).network_condition(cond).image
    assert image.shape == (2, 5, 4, 6)
    assert torch.equal(image[:, 2:], texture[:, :, None, None].expand(-1, -1, 4, 6))
    with pytest.raises(ValueError, match="without a texture"):
        process_of(texture_channels=True).network_condition(process_of().condition(y, torch.ones(2)))
