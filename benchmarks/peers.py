"""The mission's UNet beside those of MONAI and diffusers: one network call, and one step of training.

    pip install monai einops diffusers
    python benchmarks/peers.py [--threads 2] [--rounds 5] [--device cuda]

UNets of 64, 128 and 256 channels, two residual blocks a level, one attention at a quarter of the resolution with one
head, as each library builds them; parameters and FLOPs are printed. The three run in turns, in fp32 and in bf16
autocast; of each the least time counts, and the ratio is ours over the faster of the peers, each in its best precision.
A step is noise, times, loss, backward pass and AdamW: ours by ``ConditionDDPM`` with its EMA, the peers' as their
tutorials have it (diffusers' with its EMA).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdm4mi.config.load import load_preset
from cdm4mi.training.modules import ConditionDDPM

CHANNELS = (64, 128, 256)
CALLS = ((16, 64), (1, 512))
"""Images, and pixels along a side, of the calls."""
BATCH, SIDE = 8, 64
PRECISIONS = ("fp32", "bf16")
Run = Callable[[], object]


def ours() -> ConditionDDPM:
    """The mission's preset: its network, loss, optimizer and EMA."""
    torch.manual_seed(0)
    return ConditionDDPM(config=load_preset("mission"))


def monai_unet() -> nn.Module:
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=CHANNELS,
        attention_levels=(False, False, True),
        num_res_blocks=2,
        num_head_channels=CHANNELS[-1],
    )


def diffusers_unet() -> nn.Module:
    from diffusers import UNet2DModel

    return UNet2DModel(
        in_channels=2,
        out_channels=1,
        block_out_channels=CHANNELS,
        layers_per_block=2,
        attention_head_dim=CHANNELS[-1],
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def call(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """A network's output for two channels, the noisy state and the condition."""
    out = network(x, t)
    return out if isinstance(out, Tensor) else out.sample


def monai_step(network: nn.Module, optimizer: torch.optim.Optimizer, x0: Tensor, y: Tensor) -> None:
    """As MONAI's tutorials train: their inferer adds the noise and concatenates the condition."""
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer.zero_grad(set_to_none=True)
    noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),), device=x0.device).long()
    predicted = DiffusionInferer(scheduler)(x0, network, noise, t, condition=y, mode="concat")
    F.mse_loss(predicted.float(), noise).backward()
    optimizer.step()


def diffusers_step(network: nn.Module, optimizer: torch.optim.Optimizer, ema: object, x0: Tensor, y: Tensor) -> None:
    """As diffusers' script for unconditional images trains, with a condition joined to the noisy image."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000)
    noise, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),), device=x0.device).long()
    predicted = network(torch.cat([scheduler.add_noise(x0, noise, t), y], 1), t).sample
    F.mse_loss(predicted.float(), noise).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    ema.step(network.parameters())  # type: ignore[attr-defined]


def our_step(module: ConditionDDPM, optimizer: torch.optim.Optimizer, x0: Tensor, y: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    module(x0, y, sigma=0.1).backward()
    optimizer.step()
    assert module.ema is not None
    module.ema.update()


def precise(precision: str, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def least_times(runs: dict[tuple[str, str], Run], rounds: int, device: torch.device) -> dict[tuple[str, str], float]:
    """Seconds of each (library, precision), the least of several rounds in which they take turns."""
    found: dict[tuple[str, str], float] = {}
    for number in range(rounds + 1):
        for key, run in runs.items():
            with precise(key[1], device):
                began = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
            if number:  # the first warms up
                found[key] = min(found.get(key, float("inf")), time.perf_counter() - began)
    return found


def report(title: str, times: dict[tuple[str, str], float]) -> None:
    names = list(dict.fromkeys(name for name, _ in times))
    best = {name: min(times[name, precision] for precision in PRECISIONS) for name in names}
    for name in names:
        seconds = ", ".join(f"{precision} {1000 * times[name, precision]:.0f} ms" for precision in PRECISIONS)
        print(f"{title}: {name:9s} {seconds}")
    peer = min(value for name, value in best.items() if name != names[0])
    print(f"{title}: ours over the faster peer, each in its best precision: {best[names[0]] / peer:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    try:
        peers = {"MONAI": monai_unet().to(device), "diffusers": diffusers_unet().to(device)}
    except ImportError as error:
        print(f"{error} (pip install monai einops diffusers)")
        return 2
    module = ours().to(device)
    networks = {"cdm4mi": module.model, **peers}
    print(f"torch {torch.__version__}, {device.type}, {options.threads} thread(s), least of {options.rounds} rounds")
    x, t = torch.randn(1, 2, SIDE, SIDE, device=device), torch.zeros(1, dtype=torch.long, device=device)
    for name, network in networks.items():
        network.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x[:, :1], t, x[:, 1:]) if name == "cdm4mi" else call(network, x, t)
        count = sum(p.numel() for p in network.parameters())
        print(f"{name:9s} {count / 1e6:.2f} M parameters, {counter.get_total_flops() / 1e9:.2f} GFLOP a 64 x 64 image")
    for images, side in CALLS:
        x = torch.randn(images, 2, side, side, device=device)
        t = torch.full((images,), 500, device=device)
        runs: dict[tuple[str, str], Run] = {}
        for precision in PRECISIONS:
            runs["cdm4mi", precision] = partial(module.model, x[:, :1], t, x[:, 1:])
            runs |= {(name, precision): partial(call, network, x, t) for name, network in peers.items()}
        with torch.inference_mode():
            report(f"call, {images} x {side} x {side}", least_times(runs, options.rounds, device))
    from diffusers.training_utils import EMAModel

    for network in networks.values():
        network.train()
    x0, y = torch.randn(2, BATCH, 1, SIDE, SIDE, device=device)
    optimizers = {name: torch.optim.AdamW(network.parameters(), 1e-4) for name, network in peers.items()}
    average = EMAModel(peers["diffusers"].parameters(), use_ema_warmup=True)
    own = module.make_optimizer()
    runs = {}
    for precision in PRECISIONS:
        runs["cdm4mi", precision] = partial(our_step, module, own, x0, y)
        runs["MONAI", precision] = partial(monai_step, peers["MONAI"], optimizers["MONAI"], x0, y)
        peer = peers["diffusers"]
        runs["diffusers", precision] = partial(diffusers_step, peer, optimizers["diffusers"], average, x0, y)
    title = f"training step, {BATCH} x {SIDE} x {SIDE}"
    times = least_times(runs, options.rounds, device)
    report(title, times)
    ratio = times["cdm4mi", "bf16"] / min(times[name, "fp32"] for name in peers)
    print(f"{title}: ours in bf16 over the faster peer's in fp32: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
