"""Bridges lead from x0 to y, and conditional on y they are diffusions of the residual x0 - y."""

from __future__ import annotations

import pytest
import torch

from cdm4mi.config.schema import ModelConfig
from cdm4mi.diffusion import CLEAN, PARAMETERIZATIONS, GaussianPath, Latent
from cdm4mi.diffusion.bridges import FlowBridge, SchroedingerBridge
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.diffusion.sampling import sample
from cdm4mi.diffusion.solvers.make import make_solver
from cdm4mi.diffusion.times import time_list
from cdm4mi.errors import UserError
from cdm4mi.models.build import build_path

BRIDGES = {
    "flow": FlowBridge(100, 0.3),
    "flow without noise": FlowBridge(100, 0.0),
    "brownian": SchroedingerBridge(100, 0.2),
    "brownian, odd": SchroedingerBridge(101, 0.2),
}


@pytest.mark.parametrize("path", BRIDGES.values(), ids=list(BRIDGES))
def test_a_bridge_leads_from_the_clean_image_to_the_condition(path: GaussianPath) -> None:
    a, b, c = path.at(path.timesteps - 1)
    assert (float(a), float(b)) == (0.0, 1.0)
    assert float(c) == (path.sigma_s if isinstance(path, FlowBridge) else 0.0)
    assert [float(w) for w in path.at(CLEAN)] == [1.0, 0.0, 0.0]
    a, b, _ = path.at(torch.arange(path.timesteps))
    assert torch.allclose(a + b, torch.ones_like(a))
    assert bool((b.flatten().diff() > 0).all()) and float(b[0]) < 0.02


def test_the_brownian_bridge_is_noisiest_in_its_middle_and_symmetric() -> None:
    path = SchroedingerBridge(1000, 0.2)
    a, b, c = path.at(torch.arange(1000))
    assert torch.allclose(c**2, 0.2 * a * b)
    assert float(c.max()) == pytest.approx(0.2**0.5 / 2, rel=1e-3)
    assert torch.allclose(b.flatten()[:-1], 1 - b.flatten()[:-1].flip(0), atol=1e-12)


@pytest.mark.parametrize("path", BRIDGES.values(), ids=list(BRIDGES))
@pytest.mark.parametrize("name", ["x0", "v", "precond"])
def test_outputs_and_targets_are_inverse_at_every_time(path: GaussianPath, name: str) -> None:
    parameterization = PARAMETERIZATIONS[name]
    try:
        parameterization.check(path)
    except UserError:
        assert (name, type(path)) in {("v", SchroedingerBridge), ("precond", FlowBridge)}
        return
    n = path.timesteps
    x0, y, eps = (torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(k)) for k in range(3))
    t = torch.arange(n)
    z = Latent(path, path.q_sample(x0, t, eps, y), t, y, torch.full((n, 1, 1, 1), 0.3))
    target = parameterization.target(x0, eps, z)
    assert bool(torch.isfinite(target).all())
    assert torch.allclose(parameterization.x0(target, z), x0, atol=2e-5)


def posterior_mean(path: GaussianPath, x_t: torch.Tensor, t: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    """E[x0 | x_t, y] for x0 ~ N(y, r^2)."""
    a, b, c = (broadcast(w, x_t) for w in path.at(t))
    gain = a * r**2 / (c**2 + (a * r) ** 2).clamp(min=1e-12)
    return y + gain * (x_t - (a + b) * y)


# not ("brownian", 0): x starts at y without noise there, so only drawn noise makes samples differ
@pytest.mark.parametrize(("name", "eta"), [("flow", 0.0), ("flow", 1.0), ("brownian", 1.0)])
def test_sampling_a_bridge_draws_from_the_posterior_given_y(name: str, eta: float) -> None:
    path, r, n = BRIDGES[name], 0.25, 4000
    y = torch.full((n, 1, 1, 1), 0.4)
    gen = torch.Generator().manual_seed(0)
    drawn = [torch.randn(y.shape, generator=gen) for _ in range(101)]
    out = sample(
        lambda x_t, t: posterior_mean(path, x_t, t, y, r),
        path,
        time_list("linspace", path, path.timesteps),
        make_solver("ddim", eta, path),
        path.start(drawn[0], y),
        noise=lambda k: drawn[k],
        y=y,
    )
    assert float(out.mean()) == pytest.approx(0.4, abs=0.015)
    assert float(out.std()) == pytest.approx(r, rel=0.06)


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "unipc_2", "unipc_3", "heun"])
def test_solvers_for_pure_noise_draw_from_the_posterior_on_a_noisy_bridge(solver: str) -> None:
    path, r, n = BRIDGES["flow"], 0.25, 4000
    y = torch.full((n, 1, 1, 1), 0.4)
    gen = torch.Generator().manual_seed(0)
    drawn = [torch.randn(y.shape, generator=gen) for _ in range(60)]
    out = sample(
        lambda x_t, t: posterior_mean(path, x_t, t, y, r),
        path,
        time_list("linspace", path, 50),
        make_solver(solver, 0.0, path),
        path.start(drawn[0], y),
        noise=lambda k: drawn[k],
        y=y,
    )
    assert float(out.mean()) == pytest.approx(0.4, abs=0.015)
    assert float(out.std()) == pytest.approx(r, rel=0.08)


def test_one_line_of_the_configuration_chooses_the_path() -> None:
    assert isinstance(build_path(ModelConfig(path="bridge", bridge_noise=0.1)), FlowBridge)
    brownian = build_path(ModelConfig(path="i2sb", bridge_noise=0.4))
    assert isinstance(brownian, SchroedingerBridge) and brownian.variance == pytest.approx(0.16)
    assert ModelConfig(path="bridge").parameterization == "v"
    residual = ModelConfig(path="residual")
    assert (residual.parameterization, residual.beta_schedule) == ("precond", "log_sigma")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "residual", "parameterization": "eps"}, "path residual with parameterization eps, expected precond"),
        ({"path": "bridge", "parameterization": "eps"}, "path bridge with parameterization eps"),
        ({"path": "i2sb", "parameterization": "v"}, "path i2sb with parameterization v"),
        ({"path": "bridge", "bridge_noise": 0}, "conditioning_key concat, expected none"),
        ({"path": "i2sb", "bridge_noise": 0}, "bridge_noise is 0 with path i2sb"),
        ({"regression": "runs/mean"}, "regression is given but path is ddpm"),
    ],
)
def test_what_does_not_fit_a_path_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)
