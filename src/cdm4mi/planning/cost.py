"""Cost of a training step: memory from the sizes of its tensors, seconds from timing some steps."""

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
"""Bytes that Python, torch and Lightning take before training."""
COPIES = 5
"""float32 copies of the weights: the weights, their gradient, the two moments of AdamW, the EMA."""
WORKSPACE = 1.5
"""Peak memory of a step over the activations kept for the backward pass: intermediate results and gradients."""
HALF = 0.6
"""Share of the float32 activations that mixed precision keeps."""
TIMED_STEPS = 3
CORES_GAIN, MOST_CORES = 0.8, 8
"""n cores train n^0.8 times as fast as one, up to this number of cores for a small network."""


@dataclass(frozen=True)
class Footprint:
    """Number of parameters of a network, and bytes of activations that one image keeps for the backward pass."""

    parameters: int
    kept: int

    def bytes(self, batch_size: int, precision: str = "32", on_gpu: bool = False) -> int:
        """Estimated bytes that training takes; on a GPU without the memory of the program itself."""
        activations = batch_size * self.kept * WORKSPACE * (HALF if precision != "32" else 1.0)
        return int((0 if on_gpu else PROGRAM) + COPIES * 4 * self.parameters + activations)


def memory_estimate(config: Config, on_gpu: bool = False) -> int:
    """Estimated bytes that training a configuration takes."""
    return footprint(config).bytes(config.training.batch_size, config.training.precision, on_gpu)


def seconds_a_step(config: Config, machine: Machine, steps: int = TIMED_STEPS) -> float:
    """Seconds of one optimizer step on random data: the shortest of ``steps``, after one to warm up.

    On a CPU it is the processor time divided by the gain of several cores, so that other programs do not count.
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
        batch = {key: value.to(device) for key, value in _random_batch(config, config.training.batch_size).items()}
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
    """The footprint of a configuration's network, which is built on the meta device: nothing is computed."""
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
        batch = {key: value.to("meta") for key, value in _random_batch(config, 1).items()}
        t = torch.zeros(1, dtype=torch.long, device="meta")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            cond = process.condition_of(batch)
            network(batch["x0"], t, process.network_condition(cond))
    kept = sum(size for storage, size in held.items() if storage not in parameters)
    return Footprint(sum(parameter.numel() for parameter in network.parameters()), kept)


def _random_batch(config: Config, count: int) -> dict[str, Tensor]:
    """A random batch of ``count`` images in the shapes that the network takes."""
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
