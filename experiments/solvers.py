"""How fast does each solver converge, and does it give what diffusers gives? Printed as records/solvers.md.

Run from the checkout:  OMP_NUM_THREADS=1 python experiments/solvers.py --record records/solvers.md

Everything is measured on distributions whose exact denoiser is known, so what is left is the solver's own error.
The comparison with diffusers is left out where that package is not installed (it comes with the extra ``test``).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdm4mi.diffusion import (
    SOLVERS,
    DDPMPath,
    GaussianPath,
    SeededNoise,
    make_betas,
    make_solver,
    network_calls,
    sample,
    time_list,
)
from cdm4mi.diffusion.paths import broadcast
from cdm4mi.diffusion.sampling import Denoiser
from cdm4mi.diffusion.sdedit import FACTOR, start_from, start_time

WEIGHTS, MEANS, STD = (0.3, 0.7), (-0.3, 0.5), 0.3
RANDOM = ("ddpm", "euler_ancestral", "dpmpp_2m_sde")
HALVINGS = (5, 10, 20, 40, 80, 160)
SIDE, DRAWS = 64, 4


def mixture(path: GaussianPath, means: tuple[float, ...] = MEANS, std: float = STD) -> Denoiser:
    """E[x0 | x_t] for pixels from a mixture of Gaussians of one spread; with one mean, for a Gaussian."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        a, _, c = (broadcast(v, x) for v in path.at(t))
        spread = a**2 * std**2 + c**2
        answers = torch.stack([m + a * std**2 / spread * (x - a * m) for m in means])
        weights = WEIGHTS[: len(means)]
        log = torch.stack([math.log(w) - (x - a * m) ** 2 / (2 * spread) for w, m in zip(weights, means, strict=True)])
        return (log.softmax(0) * answers).sum(0)

    return denoise


def distribution(path: GaussianPath, t: int, x: Tensor) -> Tensor:
    """The distribution function of the mixture's x_t. The flow keeps it: F_0(x_0) = F_T(x_T)."""
    a, _, c = (float(v) for v in path.at(t))
    spread = math.hypot(a * STD, c)
    terms = [w * torch.special.ndtr((x - a * m) / spread) for w, m in zip(WEIGHTS, MEANS, strict=True)]
    return torch.stack(terms).sum(0)


def flow(path: GaussianPath, x: Tensor) -> Tensor:
    """Where the exact flow brings x from the noisy end to t = 0, by bisection."""
    wanted = distribution(path, path.timesteps - 1, x)
    low, high = torch.full_like(x, -4.0), torch.full_like(x, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = distribution(path, 0, middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def convergence() -> Iterator[str]:
    """Largest error at t = 0 over 64 starts, by number of steps, and the order that the last two show."""
    path = DDPMPath(make_betas("log_sigma", 3841, sigma_min=0.05, sigma_max=20.0))
    x = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    exact, denoise = flow(path, x), mixture(path)
    yield f"| solver | {' | '.join(f'{s} steps' for s in HALVINGS)} | order |"
    yield "|---" * (len(HALVINGS) + 2) + "|"
    for name in SOLVERS:
        if name in RANDOM:
            continue
        errors = []
        for steps in HALVINGS:
            states: list[Tensor] = []
            times = list(range(3840, -1, -3840 // steps))
            noise = {"noise": lambda n: x}
            sample(denoise, path, times, make_solver(name), x, **noise, hook=lambda s, to=states: to.append(s.x_t))
            errors.append(float((states[-1] - exact).abs().max()))
        order = math.log2(errors[-2] / errors[-1])
        yield f"| {name} | {' | '.join(f'{e:.1e}' for e in errors)} | {order:.2f} |"


def spread(spacings: tuple[str, ...], calls: int, schedule: str) -> Iterator[str]:
    """Standard deviation of samples of N(0.1, 0.5^2) over the true one, with the same number of network calls."""
    path = DDPMPath(make_betas(schedule, 1000))
    noise = SeededNoise(0, range(DRAWS), (1, SIDE, SIDE))
    yield f"| solver | {' | '.join(spacings)} |"
    yield "|---" * (len(spacings) + 1) + "|"
    for name in SOLVERS:
        steps = max(s for s in range(1, calls + 1) if network_calls(name, s) <= calls)
        ratios = []
        for spacing in spacings:
            times = time_list(spacing, path, steps)
            start = path.start(noise.draw(0), t=times[0])
            out = sample(mixture(path, (0.1,), 0.5), path, times, make_solver(name), start, noise=noise.draw)
            ratios.append(f"{float(out.std()) / 0.5:.3f}")
        yield f"| {name} | {' | '.join(ratios)} |"


def middle() -> Iterator[str]:
    """What a sample given y, and the mean of 8, lose against the posterior mean, from noise and from y (20 steps)."""
    prior, level, k = 0.3, 0.3, 8
    x0, n = torch.randn(2, 1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    x0 = prior * x0
    y = x0 + level * n
    mean, rho2 = y / 2, prior**2 / 2
    yield "| path | start | noise c / a there | one sample, dB | mean of 8, dB |"
    yield "|---|---|---|---|---|"
    for schedule in ("linear", "log_sigma"):
        path = DDPMPath(make_betas(schedule, 1000))

        def denoise(x: Tensor, t: Tensor, path: GaussianPath = path) -> Tensor:
            a, _, c = (broadcast(v, x) for v in path.at(t))
            return mean + a * rho2 / (a**2 * rho2 + c**2) * (x - a * mean)

        noise = SeededNoise(0, range(k), (1, 128, 128))
        for factor in (None, 1.0, 2.0, FACTOR, 6.0):
            t = 999 if factor is None else start_time(path, factor * level)
            many, levels = y.expand(k, -1, -1, -1), torch.full((k,), level)
            if factor is not None:
                start = start_from(path, many, levels, t, noise.draw(0))
            else:
                start = path.start(noise.draw(0), mean.expand(k, -1, -1, -1), torch.full((1, 1, 1, 1), rho2**0.5))
            times = time_list("trailing", path, 20, start=t)
            out = sample(denoise, path, times, make_solver("ddim"), start, noise=noise.draw)
            least = ((mean - x0) ** 2).mean()
            one, average = (10 * math.log10(((o - x0) ** 2).mean() / least) for o in (out, out.mean(0)))
            a, _, c = (float(v) for v in path.at(t))
            where = "noise" if factor is None else f"y, {factor:g} times its noise"
            yield f"| {schedule} | {where} | {c / a:.3g} | {one:.2f} | {average:.2f} |"
    yield f"| theory | | | {10 * math.log10(2):.2f} | {10 * math.log10(1 + 1 / k):.2f} |"


def peers() -> Iterator[str]:
    """Largest difference of a sample from that of diffusers: 20 steps on its own times, trailing."""
    try:
        import diffusers
    except ImportError:
        yield "diffusers is not installed: no comparison."
        return
    yield f"diffusers {diffusers.__version__}, 1000 times, 20 of them (trailing), samples of spread 0.5."
    yield ""
    yield "| solver | linear | cosine | log_sigma |"
    yield "|---|---|---|---|"
    common: dict[str, Any] = {"prediction_type": "sample", "timestep_spacing": "trailing"}
    dpm = {**common, "lower_order_final": False, "final_sigmas_type": "zero"}
    kinds = {
        "ddpm": ("DDPMScheduler", {**common, "clip_sample": False, "variance_type": "fixed_small"}),
        "ddim": ("DDIMScheduler", {**common, "clip_sample": False, "set_alpha_to_one": True}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {**dpm, "algorithm_type": "dpmsolver++"}),
        "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {**dpm, "algorithm_type": "sde-dpmsolver++"}),
        "dpmpp_3m": ("DPMSolverMultistepScheduler", {**dpm, "algorithm_type": "dpmsolver++", "solver_order": 3}),
        "unipc_2": ("UniPCMultistepScheduler", {**common, "solver_type": "bh2", "final_sigmas_type": "zero"}),
        "unipc_3": (
            "UniPCMultistepScheduler",
            {**common, "solver_type": "bh2", "final_sigmas_type": "zero", "solver_order": 3},
        ),
    }
    start = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for name, (kind, options) in kinds.items():
        differences = []
        for schedule in ("linear", "cosine", "log_sigma"):
            betas = make_betas(schedule, 1000)
            path = DDPMPath(betas)
            denoise = mixture(path, (0.1,), 0.5)
            scheduler = getattr(diffusers, kind)(trained_betas=betas.numpy(), **options)
            scheduler.set_timesteps(20)
            times = scheduler.timesteps.tolist()
            x, generator = start, torch.Generator().manual_seed(1)
            given = {} if name.startswith("unipc") else {"generator": generator}
            for t in times:
                x = scheduler.step(denoise(x, torch.tensor([t])), t, x, **given).prev_sample
            again = torch.Generator().manual_seed(1)
            draws = {n: torch.randn(start.shape, generator=again) for n in range(1, 21)}
            ours = sample(denoise, path, times, make_solver(name), start, noise=draws.__getitem__)
            differences.append(f"{float((ours - x).abs().max()):.1e}")
        yield f"| {name} | {' | '.join(differences)} |"


def report() -> Iterator[str]:
    """The whole record, in Markdown."""
    yield "# Solvers: how fast they converge, and against diffusers"
    yield ""
    yield f"Printed by `python experiments/solvers.py`, torch {torch.__version__}; the denoisers are exact."
    yield ""
    yield "## Order of convergence"
    yield ""
    yield "Pixels from a mixture of two Gaussians; the error is the distance at t = 0 from the exact flow; times even"
    yield "in ln(a / c) from sigma 20 to 0.05. Theory: euler = ddim 1, heun and dpmpp_2m 2, dpmpp_3m 3, unipc_p p + 1."
    yield "Heun makes two calls a step."
    yield ""
    yield from convergence()
    for schedule in ("linear", "cosine", "log_sigma"):
        yield ""
        yield f"## Spread of samples in 20 calls, schedule {schedule}"
        yield ""
        yield "Standard deviation over the true one (1 is right) for a Gaussian of 0.5; the standard error is 0.006."
        yield ""
        yield from spread(("linspace", "trailing", "quadratic", "logsnr", "karras"), 20, schedule)
    yield ""
    yield "## From noise, or from the noisy image"
    yield ""
    yield "x0 of spread 0.3 and y = x0 + noise of 0.3; 20 steps of ddim. A true sample loses 3.01 dB against the"
    yield "posterior mean; less means too little spread. The start from noise is given the exact marginal of its first"
    yield "time. Started from y, the mean of 8 keeps some of y's noise, the less the higher the start."
    yield ""
    yield from middle()
    yield ""
    yield "## Against diffusers"
    yield ""
    yield from peers()
    yield ""
    yield "Where they differ: its third-order DPM-Solver++ leaves out a factor 2 in the second derivative and converges"
    yield "at order 2; its third-order UniPC falls to second order one step earlier; its Heun is a line in sigma, which"
    yield "diverges on a cosine path; its DDIM takes t - T // S for the next time where S does not divide T. Each is"
    yield "shown on the oracle in `tests/diffusion/test_peers.py`."


def main() -> None:
    """Print the record, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", type=Path, help="write the tables here too")
    options = parser.parse_args()
    lines = []
    for line in report():
        print(line, flush=True)
        lines.append(line)
    if options.record:
        options.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
