"""What lets a network that predicts eps tell the mean of the image? Short trainings, and the error of eps_hat by band.

Run from the checkout: OMP_NUM_THREADS=1 python -m experiments.mission.cures [NAME ...]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor, nn

from cdm4mi.diffusion import PARAMETERIZATIONS, DDPMPath, Latent, Parameterization, make_betas
from cdm4mi.diffusion.parameterizations import EpsWithMean
from cdm4mi.networks import UNet
from experiments.crops import TEST, TUNE, VARIANCE, images

SIDE, STEPS, BATCH = 32, 100, 16
TIMES = (999, 500, 250)
BANDS = {"DC": (0, 0), "low": (1, 4), "mid": (5, 16), "high": (17, 2 * SIDE)}
"""Least and most sum of the two indices of a DCT coefficient."""


@dataclass(frozen=True)
class Cure:
    """groups: of every norm; last_norm: whether there is one before the last convolution; weight: of the squared error
    of the mean in the loss; means: whether the means of x_t and y are two more input channels."""

    groups: int = 32
    last_norm: bool = True
    weight: float = 0.0
    means: bool = False
    parameterization: Parameterization = PARAMETERIZATIONS["eps"]


TWENTIETH = SIDE**2 / 20  # the mean has this share of the loss
CURES = {
    "32 groups": Cure(),
    "8 groups": Cure(8),
    "8 groups, mean weighted": Cure(8, weight=TWENTIETH),
    "8 groups, no last norm": Cure(8, last_norm=False),
    "8 groups, means as input": Cure(8, means=True),
    "32 groups, mean from the condition": Cure(parameterization=EpsWithMean()),
    "8 groups, mean from the condition": Cure(8, parameterization=EpsWithMean()),
}


def middles(names: list[str]) -> list[NDArray[Any]]:
    """The middle of 24 slices of each subject."""
    return [image for _, image in images(names, 24, 4 * SIDE)]


class Patches:
    """Patches of the brain with white noise, decided by the seed: (x0, y), (N, 1, SIDE, SIDE) each."""

    def __init__(self, slices: list[NDArray[Any]], seed: int) -> None:
        self.images = slices
        self.rng = np.random.default_rng(seed)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        chosen = [self.images[k] for k in self.rng.integers(len(self.images), size=n)]
        corners = self.rng.integers(3 * SIDE + 1, size=(n, 2))
        x0 = np.stack([im[r : r + SIDE, c : c + SIDE] for im, (r, c) in zip(chosen, corners, strict=True)])
        noise = self.rng.standard_normal(x0.shape)
        x0, y = (torch.from_numpy(a.astype(np.float32))[:, None] for a in (x0, x0 + VARIANCE**0.5 * noise))
        return x0, y


def train(cure: Cure, patches: Patches, path: DDPMPath) -> nn.Module:
    """A network of the mission's kind, half its width, trained for STEPS steps. Returns f(x_t, t, y)."""
    torch.manual_seed(0)
    unet = UNet(4 if cure.means else 2, 1, 32, (1, 2, 4), 1, (4,), dropout=0.0, norm_groups=cure.groups)
    if not cure.last_norm:
        unet.out[0] = nn.Identity()
    unet = unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 30) * (1 - i / STEPS))
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x0, y = patches.draw(BATCH)
        z, eps = point(path, x0, y, torch.randint(0, 1000, (BATCH,), generator=generator), generator)
        error = output(unet, cure, z) - cure.parameterization.target(x0, eps, z)
        loss = error.square().mean() + cure.weight * error.mean((1, 2, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return unet.eval()


def point(path: DDPMPath, x0: Tensor, y: Tensor, t: Tensor, generator: torch.Generator) -> tuple[Latent, Tensor]:
    """A point on the path and its eps."""
    eps = torch.randn(x0.shape, generator=generator)
    return Latent(path, path.q_sample(x0, t, eps), t, y, torch.full((len(y), 1, 1, 1), VARIANCE**0.5)), eps


def output(unet: nn.Module, cure: Cure, z: Latent) -> Tensor:
    assert z.y is not None
    x = torch.cat([z.x_t, z.y], 1)
    if cure.means:
        x = torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1)
    return unet(x, z.t)


def main() -> None:
    torch.set_num_threads(1)
    path = DDPMPath(make_betas("linear", 1000))
    tuning, held_out = middles(TUNE), middles(TEST)
    print(f"Mean square error of eps_hat per orthonormal DCT coefficient, {STEPS} steps of {BATCH} patches.\n")
    print("| network | t | DC | low | mid | high |\n|---|---|---|---|---|---|")
    for name in sys.argv[1:] or CURES:
        cure = CURES[name]
        unet = train(cure, Patches(tuning, 1), path)
        for t in TIMES:
            generator = torch.Generator().manual_seed(2)
            z, eps = point(path, *Patches(held_out, 3).draw(512), torch.full((512,), t), generator)
            with torch.no_grad():
                out = output(unet, cure, z)
            x0_hat = cure.parameterization.x0(out, z)
            error = (path.eps(z.x_t, x0_hat, z.t) - eps)[:, 0].double().numpy()
            power = (dctn(error, axes=(1, 2), norm="ortho") ** 2).mean(0)
            order = np.add.outer(np.arange(SIDE), np.arange(SIDE))
            row = [power[(order >= a) & (order <= b)].mean() for a, b in BANDS.values()]
            print(f"| {name} | {t} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
