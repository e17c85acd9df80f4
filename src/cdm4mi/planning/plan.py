"""A first training, planned from a fingerprint and a machine: every choice with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdm4mi.config.load import parse_config
from cdm4mi.config.schema import Config
from cdm4mi.config.tree import put
from cdm4mi.errors import UserError
from cdm4mi.planning.cost import Footprint, footprint
from cdm4mi.planning.machine import GIB, Machine

MINUTES = 60.0
"""Minutes that a first training should take."""
FREE = 0.7
"""Share of the free memory that a training may take."""
BESIDE = 1.15
"""Ratio of the time of a run to that of its steps: validation, pictures, reading."""
FEWEST, MOST = 200, 200_000
MULTIPLE = 8
"""Patches are multiples of this, for fold 2 and two halvings in the network."""
LEAST_HU, LEAST_PERCENT, LEAST_LEVEL = 20.0, 1.0, 0.05
TIMES = 4.0
"""The strongest added noise is at least this factor times the noise of the scans, and at least MOST_HU and so on."""
MOST_HU, MOST_PERCENT, MOST_LEVEL = 450.0, 15.0, 0.5


@dataclass(frozen=True)
class Choice:
    """A dotted key of the configuration, its value, and the reason."""

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """Choices in the order of the file, and their expected cost."""

    choices: list[Choice]
    seconds_a_step: float
    steps: int
    memory: int
    fits: bool

    @property
    def minutes(self) -> float:
        """Expected time of the whole run."""
        return self.steps * self.seconds_a_step * BESIDE / 60

    def expected(self) -> str:
        """Time and memory in words."""
        return (
            f"{self.minutes:.0f} minutes ({self.steps} steps of {self.seconds_a_step:.2g} s, timed, with the machine "
            f"to itself), {self.memory / GIB:.1f} GiB of memory (estimated)"
        )

    @property
    def config(self) -> Config:
        """The choices as a configuration."""
        return _config(self.choices)


def make_plan(
    fingerprint: Mapping[str, Any],
    machine: Machine,
    timed: Callable[[Config, Machine], float],
    *,
    store: str,
    name: str,
    minutes: float = MINUTES,
) -> Plan:
    """Plan a training of about ``minutes`` on a store.

    timed: seconds of a step, by default ``cost.seconds_a_step``. Raises UserError where slices are smaller than the
    smallest patch, or there is no patient to train on.
    """
    if not fingerprint["slices"]["train"]:
        raise UserError(f"{store}: found no slice for training, expected a store with patients in train")
    side = _patch(fingerprint, 128 if machine.gpu else 64, store)
    smallest = min(fingerprint["rows"][0], fingerprint["columns"][0])
    choices = [
        Choice("name", name),
        Choice("seed", 0),
        Choice("model.image_size", side, f"side of a patch; the smallest slice is {smallest:g} pixels wide"),
        *_network(machine),
        *_data(fingerprint, store, machine),
        *_training(machine),
        *_sampling(),
    ]
    choices, memory, fits = _fitted(choices, machine)
    config = _config(choices)
    seconds = timed(config, machine)
    steps = _round(min(max(minutes * 60 / (seconds * BESIDE), FEWEST), MOST))
    choices += [
        Choice("training.max_tsteps", steps, f"{minutes:g} minutes at {seconds:.3g} s a step"),
        Choice("training.warmup", min(200, max(1, steps // 20))),
        Choice("training.ema_decay_factor", _decay(steps), "averages over about the last fiftieth of the steps"),
        Choice("training.val_every", max(1, min(500, steps // 10))),
        Choice("training.checkpoint_every", max(1, min(250, steps // 10))),
        Choice("training.picture_every", max(1, min(1000, steps // 5)), "the first after some minutes"),
        Choice("sampling.tile", 2 * config.model.image_size, "the window that a scan is restored in"),
    ]
    return Plan(choices, seconds, steps, memory, fits)


def _network(machine: Machine) -> list[Choice]:
    channel, blocks = (64, 2) if machine.gpu else (32, 1)
    unet = "model.unet_rosinality_config"
    return [
        Choice("model.path", "residual", "one call is a regression's mean, ten are a sample: few steps to train"),
        Choice("model.beta_schedule", "log_sigma"),
        Choice("model.parameterization", "precond"),
        Choice("model.conditioning_key", "concat"),
        Choice("model.level_channel", True, "one model for the whole range of noise: it is told the level"),
        Choice(f"{unet}.in_channel", 3, "x_t, the noisy image, its level"),
        Choice(f"{unet}.channel", channel, "for a GPU" if machine.gpu else "for a CPU; 64 where there is a GPU"),
        Choice(f"{unet}.channel_multiplier", [1, 2, 4]),
        Choice(f"{unet}.n_res_blocks", blocks),
        Choice(f"{unet}.attn_strides", [4]),
        Choice(f"{unet}.use_affine_time", True),
        Choice(f"{unet}.dropout", 0.0, "every patch has new noise, which is regularisation enough"),
        Choice(f"{unet}.fold", 2, "four pixels in one: a quarter of the time and memory"),
    ]


def _data(fingerprint: Mapping[str, Any], store: str, machine: Machine) -> list[Choice]:
    noise, why = _noise(fingerprint)
    workers = min(4, max(1, machine.cores - 1)) if machine.gpu else 0
    choices = [
        Choice("data.kind", "store"),
        Choice("data.paths", [store]),
        *_normalisation(fingerprint),
        Choice("data.noise", noise, why),
        Choice("data.val_patches", 64),
        Choice("data.workers", workers, "" if workers else "patches are made far faster than a CPU trains"),
    ]
    return choices


def _normalisation(fingerprint: Mapping[str, Any]) -> list[Choice]:
    """Choices of the values that map to -1 and +1, as the store has them."""
    choices = []
    if "CT" in fingerprint["modalities"]:
        choices.append(Choice("data.window", fingerprint["window_hu"], "CT: HU that map to -1 and +1"))
    if {"MR", "PT"} & set(fingerprint["modalities"]):
        why = (
            "MR, PET: percentiles of a scan's foreground that map to -1 and +1 (0: the value 0), as the store has them"
        )
        choices.append(Choice("data.percentiles", fingerprint["percentiles"], why))
    return choices


def _training(machine: Machine) -> list[Choice]:
    rate = 5e-4 if machine.gpu else 1e-3
    return [
        Choice("training.batch_size", 16 if machine.gpu else 8),
        Choice("training.precision", "bf16", "the machine computes in it: the wider the network, the more it gains")
        if machine.bf16
        else Choice("training.precision", "32"),
        Choice("training.learning_rate", rate, "with the warm-up and the fall to zero that a short run needs"),
        Choice("training.lr_decay", "cosine"),
        Choice("training.betas", [0.9, 0.99]),
        Choice("training.start_fraction", 0.5, "the noisy end decides what the mean and the first step give"),
        Choice("training.neighbour_std", 0.05, "every time and every noise level counts the same"),
    ]


def _sampling() -> list[Choice]:
    return [
        Choice("sampling.solver", "dpmpp_2m"),
        Choice("sampling.steps", 10),
        Choice("sampling.spacing", "logsnr"),
        Choice("sampling.estimate", "mean", "the least error; sample gives the texture of a real scan"),
        Choice("sampling.clip", False),
    ]


def _noise(fingerprint: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The noise section with its reason. Added noise is stronger than the noise that the scans already have."""
    if fingerprint["real_pairs"]:
        return {"type": "identity"}, "real pairs: the noise is that of the noisy scans"
    modalities = fingerprint["modalities"]
    scan_noise = fingerprint["noise"]
    level, sigma = scan_noise["on_unit_scale"][1], scan_noise["sigma"][1]
    correlation = scan_noise["correlation"][1]
    message = f"the scans' own noise: {sigma:.3g} {{unit}}, correlation of neighbours {correlation:.2f} (white: 0)"
    if modalities == ["CT"]:
        bounds = _range(sigma, LEAST_HU, MOST_HU)
        return {"type": "gaussian", "sigma_hu": bounds}, (
            f"{message.format(unit='HU')}. White noise is a start: for that of a low dose, which costs more time than "
            "it takes to train on a CPU, set {type: low_dose_ct, dose: [0.02, 0.5]}"
        )
    if modalities == ["MR"]:
        percent = 50 * level
        bounds = _range(percent, LEAST_PERCENT, MOST_PERCENT)
        return {"type": "rician", "percent": bounds}, (
            f"{message.format(unit='scanner units')}, that is {percent:.2g} percent of bright tissue. Magnitude images "
            "have Rician noise"
        )
    if modalities == ["PT"]:
        return {"type": "pet", "count_fraction": [0.05, 0.5]}, "fewer counts, approximate"
    low, high = _range(level, LEAST_LEVEL, MOST_LEVEL)
    return {"type": "gaussian", "variance": [_two(low**2), _two(high**2)]}, (
        f"several modalities: on [-1, 1], where the scans' own noise has the variance {level**2:.2g}"
    )


def _range(own: float, least: float, most: float) -> list[float]:
    low = max(least, own)
    return [_two(low), _two(max(most, TIMES * low))]


def _patch(fingerprint: Mapping[str, Any], wanted: int, store: str) -> int:
    smallest = int(min(fingerprint["rows"][0], fingerprint["columns"][0]))
    if smallest < MULTIPLE:
        raise UserError(f"{store}: found slices {smallest} pixels wide, expected at least {MULTIPLE}")
    return min(wanted, smallest // MULTIPLE * MULTIPLE)


def _fitted(choices: Sequence[Choice], machine: Machine) -> tuple[list[Choice], int, bool]:
    """(choices, estimated bytes, whether they fit), with batch and patch reduced until they fit into the memory."""
    limit = FREE * machine.memory
    why = f"more would not fit into {FREE:.0%} of the free {machine.memory / GIB:.1f} GiB"
    kept = list(choices)
    counted: Footprint | None = None
    while True:
        config = _config(kept)
        counted = counted or footprint(config)
        training, unet = config.training, config.model.unet_rosinality_config
        memory = counted.bytes(training.batch_size, training.precision, bool(machine.gpu))
        if memory <= limit:
            return kept, memory, True
        if training.batch_size > 1:
            kept = _changed(kept, "training.batch_size", training.batch_size // 2, why)
            kept = _changed(kept, "training.accumulate", training.accumulate * 2, "the same gradient as one batch")
            continue
        counted = None
        if not unet.gradient_checkpointing:
            kept = _changed(kept, "model.unet_rosinality_config.gradient_checkpointing", True, why)
        elif config.model.image_size > 4 * MULTIPLE:
            kept = _changed(kept, "model.image_size", config.model.image_size // 2 // MULTIPLE * MULTIPLE, why)
        else:
            return kept, memory, False


def _changed(choices: Sequence[Choice], key: str, value: Any, why: str) -> list[Choice]:
    """The choices with one of them changed, or added."""
    changed = Choice(key, value, why)
    if any(choice.key == key for choice in choices):
        return [changed if choice.key == key else choice for choice in choices]
    return [*choices, changed]


def _config(choices: Sequence[Choice]) -> Config:
    tree: dict[str, Any] = {}
    for choice in choices:
        put(tree, tuple(choice.key.split(".")), choice.value)
    return parse_config(tree, where="plan")


def _decay(steps: int) -> float:
    return float(f"{min(0.9999, max(0.9, 1 - 50 / steps)):.4g}")


def _round(steps: float) -> int:
    """A number of steps, rounded to two digits."""
    scale = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return int(steps // scale * scale)


def _two(value: float) -> float:
    return float(f"{value:.2g}")
