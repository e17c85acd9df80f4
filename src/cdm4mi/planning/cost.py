"""What a training step costs: memory by counting, seconds by timing some steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cdm4mi.config.schema import Config
from cdm4mi.models import build_network, build_process
from cdm4mi.planning.machine import Machine
from cdm4mi.training.modules import model_class

PROGRAM = 0.85 * 2**30
"""Bytes that Python, torch and Lightning take before anything is trained."""
COPIES = 5
"""float32 copies of the weights: the weights, their gradient, the two moments of AdamW, the EMA."""
WORKSPACE = 1.5
"""The step's peak over what is kept for the backward pass: intermediate results and their gradients."""
HALF = 0.6
"""Of the float32 activations, what mixed precision keeps."""
TIMED_STEPS = 3
CORES_GAIN, MOST_CORES = 0.8, 8
"""n cores train n^0.8 times as fast as one; a small network has no use for more than so many."""


@dataclass(frozen=True)
class Footprint:
    """Number of parameters of a network, and bytes that one image keeps for the backward pass."""

    parameters: int
    kept: int

    def bytes(self, batch_size: int, precision: str = "32", on_gpu: bool = False) -> int:
        """Memory that training takes, an estimate. On a GPU the program's own is elsewhere."""
        activations = batch_size * self.kept * WORKSPACE * (HALF if precision != "32" else 1.0)
        return int((0 if on_gpu else PROGRAM) + COPIES * 4 * self.parameters + activations)


def memory_estimate(config: Config, on_gpu: bool = False) -> int:
    """Bytes that training a configuration takes, an estimate."""
    return footprint(config).bytes(config.training.batch_size, config.training.precision, on_gpu)


def seconds_a_step(config: Config, machine: Machine, steps: int = TIMED_STEPS) -> float:
    """Seconds of one optimizer step of this configuration on made-up data: the least of some, after one to warm up.

    On a CPU the processor's time on one core over what all cores gain, so that other programs do not count.
    """
    if machine.gpu:
        return _least_seconds(config, machine.device, steps, time.perf_counter)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = _least_seconds(config, machine.device, steps, time.process_time)
    finally:
        torch.set_num_threads(threads)
    gain: float = min(machine.cores, MOST_CORES) ** CORES_GAIN
    return alone / gain


def _least_seconds(config: Config, device: torch.device, steps: int, clock: Callable[[], float]) -> float:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        module = model_class(config.model)(config=config)
        module.to(device).train()
        optimizer = torch.optim.AdamW(module.parameters(), config.training.learning_rate)
        batch = {key: value.to(device) for key, value in _made_up(config, config.training.batch_size).items()}
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.training.precision)
        taken = []
        for _ in range(1 + steps):
            began = clock()
            for _ in range(config.training.accumulate):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    loss = module.losses(batch, *module.draw(batch["x0"])).mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - began)
    return min(taken[1:])


def footprint(config: Config) -> Footprint:
    """Counted on a network without storage, so that nothing is computed."""
    held: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)  # else another storage could get its number
        held[storage._cdata] = storage.nbytes()
        return tensor

    process = build_process(config.model)
    with torch.device("meta"):
        network = build_network(config.model, further_channels=config.further_channels)
        parameters = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        batch = {key: value.to("meta") for key, value in _made_up(config, 1).items()}
        t = torch.zeros(1, dtype=torch.long, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            numbers = {"vector": batch.get("vector"), "texture": batch.get("texture")}
            cond = process.condition(batch["y"], batch["sigma"], **numbers)
            network(batch["x0"], t, process.network_condition(cond))
    kept = sum(size for storage, size in held.items() if storage not in parameters)
    return Footprint(sum(parameter.numel() for parameter in network.parameters()), kept)


def _made_up(config: Config, count: int) -> dict[str, Tensor]:
    """A batch of the shapes that the network takes."""
    model = config.model
    x0, y = (
        torch.rand(count, channels, model.image_size, model.image_size) * 2 - 1
        for channels in (model.channels, model.channels + config.further_channels)
    )
    batch = {"x0": x0, "y": y, "sigma": torch.full((count,), 0.2)}
    if model.texture_channels:
        batch["texture"] = torch.zeros(count, 3)
    if model.acquisition_vector:
        batch["vector"] = torch.zeros(count, len(model.acquisition_vector))
    return batch
