"""Everything of a diffusion takes volumes (N, C, D, H, W): what it makes of one is what it makes of its slices."""

import pytest
import torch
from gaussian_oracle import gaussian_denoiser, make_path

from cdm4mi.choices import SOLVERS
from cdm4mi.diffusion import PARAMETERIZATIONS, Latent, make_solver, min_snr_weight, posterior_weight, sample
from cdm4mi.diffusion.bridges import FlowBridge, SchroedingerBridge
from cdm4mi.diffusion.clipping import clip_x0
from cdm4mi.diffusion.consistency import with_mean_of
from cdm4mi.diffusion.losses import LOSS_TYPES, loss_per_sample
from cdm4mi.diffusion.parameterizations import EpsWithMean
from cdm4mi.diffusion.sdedit import start_from
from cdm4mi.errors import UserError

VOLUME, IMAGE = (3, 2, 4, 5, 6), (3, 2, 4, 30)
PATHS = {
    "ddpm": make_path("cosine"),
    "log_sigma": make_path("log_sigma"),
    "zero terminal SNR": make_path("linear, zero terminal SNR"),
    "flow": FlowBridge(100, 0.3),
    "brownian": SchroedingerBridge(100, 0.1),
}
OUTPUTS = {**PARAMETERIZATIONS, "eps with mean": EpsWithMean()}


def draws(count):
    """Volumes of unit noise, and for each sample a number of its own."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(VOLUME, dtype=torch.float64, generator=generator) for _ in range(count)]


def both(function, *volumes):
    """What a function makes of volumes, and of the same numbers laid out as images."""
    return function(*volumes), function(*(v.reshape(IMAGE) for v in volumes))


def same(of_volumes, of_images):
    assert torch.equal(of_volumes, of_images.reshape(of_volumes.shape))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", ["ddpm", "log_sigma", "flow"])
def test_every_solver_samples_volumes(path, solver):
    path = PATHS[path]
    (eps, y), times = draws(2), [99, 70, 40, 10, 2]

    def sampled(eps, y):
        def denoise(x, t):
            return gaussian_denoiser(path, 0.1, 0.5)(x, t) + 0.3 * y.tanh()

        start = path.start(eps, y if path.is_bridge else None)
        return sample(
            denoise,
            path,
            times,
            make_solver(solver, path=path),
            start,
            noise=lambda i: (eps * i).sin(),
            y=y if path.is_bridge else None,
            dynamic_threshold=0.9,
        )

    same(*both(sampled, eps, y))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("path", PATHS)
def test_every_parameterization_path_and_loss_takes_volumes(path, output):
    path, parameterization = PATHS[path], OUTPUTS[output]
    try:
        parameterization.check(path)
    except UserError:
        return  # not defined on this path
    t, sigma_r = torch.tensor([0, 50, 99]), torch.tensor([0.1, 0.2, 0.3])

    def seen(x0, eps, y):
        z = Latent(path, path.q_sample(x0, t, eps, y), t, y, sigma_r)
        out = parameterization.target(x0, eps, z)
        error = loss_per_sample(out, parameterization.network_input(z))
        parts = [z.x_t, out, parameterization.x0(out + 0.1 * eps, z), path.start(eps, y, sigma_r)]
        numbers = [error, posterior_weight(parameterization, z, 0.05), parameterization.x0_gain(z)]
        if not path.is_bridge:
            numbers.append(min_snr_weight(parameterization, z, 5.0))
        return parts, numbers

    (volumes, of_volumes), (images, of_images) = both(seen, *draws(3))
    for volume, image in zip(volumes, images, strict=True):
        same(volume, image)
    for volume, image in zip(of_volumes, of_images, strict=True):
        assert volume.shape == (3,) and torch.allclose(volume, image, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("kind", LOSS_TYPES)
def test_losses_of_a_volume_are_those_of_its_voxels(kind):
    out, target, weight = draws(3)
    same(*both(lambda *v: loss_per_sample(*v[:2], kind, pixel_weight=v[2]), out, target, weight))


def test_a_start_from_the_scan_clipping_and_the_mean_take_volumes():
    y, noise = draws(2)
    sigma = torch.tensor([0.1, 0.2, 0.3])
    same(*both(lambda y, noise: start_from(PATHS["ddpm"], y, sigma, 40, noise), y, noise))
    for options in ({"clip": True}, {"dynamic": 0.95}):
        same(*both(lambda y, options=options: clip_x0(y, **options), y))
    shifted = with_mean_of(y, noise)
    assert torch.allclose(shifted.mean((2, 3, 4)), noise.mean((2, 3, 4)))
    assert torch.allclose(shifted - y, (noise - y).mean((2, 3, 4), keepdim=True).expand_as(y))
