"""Does a network use its condition? Right against shuffled conditions, for concat, crossattn and adm.

Run from the checkout:  OMP_NUM_THREADS=1 python experiments/conditioning.py --record records/conditioning.md

Each key trains the same small network for the same number of steps on phantoms. Held-out patients are then scored
twice, with the same times and noise: each pair with its own condition, and with that of another patient.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdm4mi.config.schema import Config
from cdm4mi.data.pairs import PairDataset
from cdm4mi.diffusion.noise import generator
from cdm4mi.models import build_network
from cdm4mi.training.modules import ConditionDDPM
from cdm4mi.training.run import PairData, train

EXTRA: dict[str, dict[str, Any]] = {
    "concat": {"in_channel": 2},
    "crossattn": {"in_channel": 1, "context_dim": 128},
    "adm": {"in_channel": 1, "vector_dim": 128},
}
VARIANCE = 0.05
SIDE = 48
BATCH = 8
QUARTERS = 4


def configuration(key: str, steps: int, side: int = SIDE, seed: int = 3, decay: float = 0.99) -> Config:
    """One short training on phantoms: channel 32, x0 at 1000 steps of the linear schedule."""
    unet = {
        "channel": 32,
        "channel_multiplier": [1, 2, 4],
        "n_res_blocks": 1,
        "attn_strides": [4],
        "use_affine_time": True,
        "dropout": 0.0,
        "fold": 2,
        **EXTRA[key],
    }
    return Config.model_validate(
        {
            "name": f"conditioning-{key}",
            "seed": seed,
            # x0: an error counts alike at every noise level, so that what only the condition knows is worth learning
            "model": {
                "image_size": side,
                "parameterization": "x0",
                "conditioning_key": key,
                "unet_rosinality_config": unet,
            },
            "data": {"kind": "phantoms", "noise": {"variance": VARIANCE}, "val_fraction": 0.25},
            "training": {
                "max_tsteps": steps,
                "batch_size": BATCH,
                "learning_rate": 1e-3,
                "lr_decay": "cosine",
                "warmup": min(50, steps // 5),
                "betas": [0.9, 0.99],
                "ema_decay_factor": decay,
                "val_every": steps,
                "checkpoint_every": steps,
            },
        }
    )


@dataclass(frozen=True)
class Scores:
    """Mean loss of held-out pairs, over all times and by quarter of the path, right and shuffled; seconds trained."""

    key: str
    right: list[float]
    shuffled: list[float]
    seconds: float

    @property
    def mean(self) -> tuple[float, float]:
        """(right, shuffled) over all times."""
        return sum(self.right) / QUARTERS, sum(self.shuffled) / QUARTERS


def measure(config: Config, folder: Path, pairs: int = 4) -> Scores:
    """Train into the folder and score the EMA weights on ``pairs`` pairs of every held-out patient."""
    begun = time.monotonic()
    last = train(config, folder, progress=False)
    seconds = time.monotonic() - begun
    state = torch.load(last, weights_only=True)
    network = build_network(config.model)
    network.load_state_dict(state["ema"]["weights"], strict=False)  # the averages hold parameters, buffers are fixed
    module = ConditionDDPM(config=config, wrapper=network.eval())
    held = held_out(config, pairs)
    right, shuffled = [], []
    for i, batch in enumerate(held):
        other = {**batch, "y": held[(i + 1) % len(held)]["y"]}
        right.append(losses(module, batch, i))
        shuffled.append(losses(module, other, i))
    return Scores(
        config.model.conditioning_key,
        torch.stack(right).mean(0).tolist(),
        torch.stack(shuffled).mean(0).tolist(),
        seconds,
    )


def held_out(config: Config, pairs: int) -> list[dict[str, Tensor]]:
    """A batch of some pairs for each patient that training did not see, those of one modality beside each other."""
    size, degradation = config.model.image_size, config.data.noise
    batches = []
    for patient in chain(*PairData(config).val_pairs.sources):
        dataset = PairDataset([patient], degradation, size, config.seed, validation=True)
        drawn = [dataset[i] for i in range(pairs)]
        batches.append({k: torch.stack([pair[k] for pair in drawn]) for k in drawn[0]})
    return batches


@torch.no_grad()
def losses(module: ConditionDDPM, batch: dict[str, Tensor], patient: int) -> Tensor:
    """Loss in each quarter of the path, (QUARTERS,), averaged over the pairs: every pair at a time in each quarter."""
    out = []
    for quarter in range(QUARTERS):
        draw = generator(module.config.seed, patient, quarter)
        n, width = len(batch["x0"]), module.process.path.timesteps // QUARTERS
        t = quarter * width + torch.randint(0, width, (n,), generator=draw)
        out.append(module.losses(batch, t, torch.randn(batch["x0"].shape, generator=draw)).mean())
    return torch.stack(out)


def table(scores: list[Scores]) -> str:
    """Markdown: the losses with right and shuffled conditions, over all times and where x_t is mostly noise."""
    lines = [
        "| key | right | shuffled | ratio | noisiest quarter: right | shuffled | ratio | training, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        cells = []
        for right, shuffled in (s.mean, (s.right[-1], s.shuffled[-1])):
            cells += [f"{right:.4f}", f"{shuffled:.4f}", f"{shuffled / right:.2f}"]
        lines.append(f"| {s.key} | {' | '.join(cells)} | {s.seconds:.0f} |")
    return "\n".join(lines)


def machine() -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    processor = names[0] if info.exists() and names else platform.processor()
    return f"{processor}, {torch.get_num_threads()} thread(s), {os.cpu_count()} cores, torch {torch.__version__}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--keys", nargs="+", default=list(EXTRA), choices=list(EXTRA))
    parser.add_argument("--record", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    scores = []
    for key in arguments.keys:
        with tempfile.TemporaryDirectory() as folder:
            scores.append(measure(configuration(key, arguments.steps), Path(folder)))
        print(table(scores[-1:]).splitlines()[-1], flush=True)
    print(table(scores))
    used = all(s.mean[0] < s.mean[1] for s in scores)
    best = min(scores, key=lambda s: s.mean[0]).key
    verdict = f"Right below shuffled for every key: {'yes' if used else 'NO'}. Best: {best}."
    print(verdict)
    if arguments.record:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(record(arguments.steps, scores, verdict), encoding="utf-8")
    return 0 if used and best == "concat" else 1


def record(steps: int, scores: list[Scores], verdict: str) -> str:
    """The record's text."""
    unet = configuration("concat", steps).model.unet_rosinality_config
    return f"""# Does the network use its condition?

Printed by `OMP_NUM_THREADS=1 python experiments/conditioning.py --steps {steps} --record records/conditioning.md` on
{machine()}, other work beside it.

Phantoms, 48 patients to train on and 16 held out; patches of {SIDE} x {SIDE}, condition with Gaussian noise of variance
{VARIANCE} on [-1, 1]; UNet of channel {unet.channel}, multipliers {unet.channel_multiplier}, fold {unet.fold};
`x0` on the linear schedule of 1000 steps, L2, {steps} steps of {BATCH}, EMA weights.

The loss is the mean squared error of x0_hat on [-1, 1]. Shuffled: the condition is that of the next held-out patient,
times and noise the same. In the noisiest quarter (t from 750) x_t shows next to nothing of the image.

{table(scores)}

{verdict}
"""


if __name__ == "__main__":
    sys.exit(main())
