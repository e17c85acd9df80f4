"""Losses for each sample against torch's own, and weights over the times."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cdm4mi.diffusion import (
    PARAMETERIZATIONS,
    DDPMPath,
    Latent,
    loss_per_sample,
    make_betas,
    min_snr_weight,
    posterior_weight,
)
from cdm4mi.diffusion.bridges import SchroedingerBridge
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError

TORCH = {
    "l1": lambda out, target, delta: F.l1_loss(out, target),
    "l2": lambda out, target, delta: F.mse_loss(out, target),
    "huber": lambda out, target, delta: F.huber_loss(out, target, delta=delta),
}
NUMPY = {
    "l1": lambda d, delta: np.abs(d),
    "l2": lambda d, delta: d**2,
    "huber": lambda d, delta: np.where(np.abs(d) <= delta, d**2 / 2, delta * (np.abs(d) - delta / 2)),
}


@pytest.fixture
def pair():
    return torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("delta", [0.3, 1.0])
@pytest.mark.parametrize("loss_type", ["l1", "l2", "huber"])
def test_each_sample_has_its_own_mean_over_pixels(pair, loss_type, delta):
    out, target = pair
    loss = loss_per_sample(out, target, loss_type, huber_delta=delta)
    assert loss.shape == (3,) and loss.dtype == torch.float32
    # 1e-5: float32 sums of 128 pixels, in whatever order
    for i in range(3):
        assert float(loss[i]) == pytest.approx(float(TORCH[loss_type](out[i], target[i], delta)), rel=1e-5)
    assert float(loss.mean()) == pytest.approx(float(TORCH[loss_type](out, target, delta)), rel=1e-5)


@pytest.mark.parametrize("loss_type", ["l1", "l2", "huber"])
@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (3, 1, 8, 8), (1, 1, 8, 8), (3, 1, 1, 1)])
def test_pixel_weights_multiply_the_loss_of_each_pixel(pair, loss_type, shape):
    out, target = pair
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    loss = loss_per_sample(out, target, loss_type, huber_delta=0.5, pixel_weight=weight)
    pixels = NUMPY[loss_type]((out - target).double().numpy(), 0.5) * weight.double().numpy()
    assert np.allclose(loss.numpy(), pixels.mean((1, 2, 3)), rtol=1e-5)


def test_weight_zero_hides_a_pixel_from_the_gradient(pair):
    out, target = pair[0].clone().requires_grad_(), pair[1]
    weight = torch.ones(3, 1, 8, 8)
    weight[:, :, :4] = 0
    loss_per_sample(out, target, "l2", pixel_weight=weight).sum().backward()
    assert torch.equal(out.grad[:, :, :4], torch.zeros(3, 2, 4, 8))
    assert bool((out.grad[:, :, 4:] != 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32_whatever_the_network_returns(pair, dtype):
    out, target = (300 * pair).to(dtype)  # squares overflow half precision
    loss = loss_per_sample(out, target, "l2")
    assert loss.dtype == torch.float32 and bool(loss.isfinite().all())


def test_log_l2_weighs_relative_errors_alike(pair):
    """Its gradient is that of l2 over the sample's own mean squared error, once that is well above the floor."""
    out, target = 10 * pair[0], 10 * pair[1]
    loss = loss_per_sample(out, target, "log_l2")
    squares = (out - target).square().mean((1, 2, 3))
    assert torch.allclose(loss, torch.log(1 + squares / 0.01), rtol=1e-5)
    gradients = []
    for scale in (1.0, 4.0):
        asked = (target + scale * (out - target)).requires_grad_()
        loss_per_sample(asked, target, "log_l2").sum().backward()
        gradients.append(scale * asked.grad)
    assert torch.allclose(*gradients, rtol=1e-2, atol=1e-6)
    assert torch.equal(loss_per_sample(target, target, "log_l2"), torch.zeros(3))


def test_weights_of_log_l2_act_beside_the_logarithm(pair):
    """Weights w change the gradient of a pixel by the factor w, as the error of the whole sample is what divides it."""
    target = 10 * pair[1]
    weight = torch.ones(3, 1, 8, 8)
    weight[:, :, 2:4, 2:4] = 30
    gradients = []
    for w in (torch.ones(3, 1, 8, 8), weight):
        out = (10 * pair[0]).requires_grad_()
        loss_per_sample(out, target, "log_l2", pixel_weight=w).sum().backward()
        gradients.append(out.grad)
    assert torch.allclose(gradients[1], weight * gradients[0], rtol=1e-4)
    plain = loss_per_sample(10 * pair[0], target, "log_l2")
    assert torch.equal(loss_per_sample(10 * pair[0], target, "log_l2", pixel_weight=torch.ones(3, 1, 1, 1)), plain)


def test_an_unknown_loss_is_refused_with_the_known_ones(pair):
    with pytest.raises(UserError, match="loss_type: found 'mse', expected one of l1, l2, huber, log_l2"):
        loss_per_sample(*pair, "mse")


def points(path, t):
    t = torch.tensor(t)
    shape = (len(t), 1, 2, 2)
    return Latent(path, torch.zeros(shape), t, torch.zeros(shape), torch.full((len(t), 1, 1, 1), 0.3))


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_the_paper(gamma):
    path = DDPMPath(make_betas("cosine", 1000))
    z = points(path, [0, 100, 400, 500, 700, 999])
    snr = (path.alphas_cumprod / (1 - path.alphas_cumprod))[z.t]
    least = snr.clamp(max=gamma)
    for name, expected in {"eps": least / snr, "x0": least, "v": least / (snr + 1)}.items():
        weight = min_snr_weight(PARAMETERIZATIONS[name], z, gamma)
        assert weight.shape == (6,) and weight.dtype == torch.float32
        assert torch.allclose(weight.double(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["eps", "x0", "v", "precond"])
def test_min_snr_weights_are_finite_where_there_is_no_signal(name):
    path = DDPMPath(make_betas("linear", 1000, zero_terminal_snr=True))
    weight = min_snr_weight(PARAMETERIZATIONS[name], points(path, [0, 500, 999]), 5.0)
    assert bool(weight.isfinite().all()) and bool((weight[:2] > 0).all())
    assert float(weight[2]) == (1.0 if name == "eps" else 0.0)


@pytest.mark.parametrize("name", ["eps", "v", "precond"])
def test_min_snr_counts_an_error_of_the_image_the_same_for_every_output(name):
    """An x0_hat that is wrong by d costs min(SNR, gamma) d^2, whatever the network predicts."""
    path, gamma = DDPMPath(make_betas("linear", 1000)), 5.0
    x0, eps, d = torch.randn(3, 4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([1, 200, 500, 999])
    z = Latent(path, path.q_sample(x0, t, eps), t, x0 + 0.3 * eps, torch.full((4, 1, 1, 1), 0.3))

    def cost(parameterization):
        out = parameterization.target(x0 + d, path.eps(z.x_t, x0 + d, t), z)
        loss = ((out - parameterization.target(x0, eps, z)) ** 2).flatten(1).mean(1)
        return loss * min_snr_weight(parameterization, z, gamma)

    assert torch.allclose(cost(PARAMETERIZATIONS[name]), cost(PARAMETERIZATIONS["x0"]), rtol=1e-5)


@pytest.mark.parametrize("level", [0.03, 0.3])
@pytest.mark.parametrize("name", ["eps", "x0", "v", "precond"])
def test_posterior_weights_make_an_ideal_loss_one_at_every_time_and_level(name, level):
    """x0 differs by ``neighbour_std`` from its neighbours (0), y = x0 + level noise: the posterior mean costs 1."""
    neighbour_std, n = 0.06, 40000
    path = DDPMPath(make_betas("log_sigma", 1000))
    own, noise, eps = torch.randn(3, 4, 1, 1, n, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x0, t = neighbour_std * own, torch.tensor([0, 300, 700, 999])
    y = x0 + level * noise
    z = Latent(path, path.q_sample(x0, t, eps), t, y, torch.full((4, 1, 1, 1), level))
    a, snr = broadcast(path.at(t).a, x0), broadcast(path.snr(t), x0)
    best = (snr * z.x_t / a + y / level**2) / (snr + level**-2 + neighbour_std**-2)
    parameterization = PARAMETERIZATIONS[name]
    out = parameterization.target(best, path.eps(z.x_t, best, t), z)
    loss = ((out - parameterization.target(x0, eps, z)) ** 2).flatten(1).mean(1)
    ideal = loss * posterior_weight(parameterization, z, neighbour_std)
    assert torch.allclose(ideal, torch.ones(4, dtype=torch.float64), rtol=0.03)


@pytest.mark.parametrize("name", ["x0", "v", "precond"])
def test_posterior_weights_are_finite_where_there_is_no_signal(name):
    z = points(DDPMPath(make_betas("linear", 1000, zero_terminal_snr=True)), [0, 500, 999])
    weight = posterior_weight(PARAMETERIZATIONS[name], z, 0.05)
    assert bool(weight.isfinite().all()) and bool((weight > 0).all())
    bridge = points(SchroedingerBridge(100, 0.2), [0, 50, 99])
    assert bool(posterior_weight(PARAMETERIZATIONS["precond"], bridge, 0.05).isfinite().all())
