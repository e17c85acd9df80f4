"""Checks of cost: whether training fits into memory, and whether it waits for its data."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from cdm4mi.config.schema import Config
from cdm4mi.planning.checks.subject import Finding, Subject
from cdm4mi.planning.cost import memory_estimate, seconds_a_step
from cdm4mi.planning.machine import GIB, Machine
from cdm4mi.planning.plan import FREE

TIMED = 48
"""Patches that are timed: those of three noisy slices where the noise needs whole slices."""
AMPLE = 5.0
"""Least ratio of the speed of making patches to that of using them; below it there is a warning."""


def check_memory(config: Config, machine: Machine) -> Finding:
    """Estimated memory of a training against the free memory."""
    needed = memory_estimate(config, bool(machine.gpu))
    message = f"about {needed / GIB:.1f} GiB of {machine.memory / GIB:.1f} GiB free (estimate)"
    advice = "halve batch_size and double accumulate (the same gradient); set gradient_checkpointing: true"
    if needed > machine.memory:
        return Finding("memory", "wrong", message, advice)
    return (
        Finding("memory", "note", message, advice)
        if needed > FREE * machine.memory
        else Finding("memory", "ok", message)
    )


def check_speed(
    subject: Subject, machine: Machine, timed: Callable[[Config, Machine], float] = seconds_a_step
) -> Finding:
    """Patches a second that can be made against those that training uses."""
    config = subject.config
    made = patches_a_second(subject) * max(1, config.data.workers)
    used = config.training.batch_size * config.training.accumulate / timed(config, machine)
    message = f"{made:.0f} patches a second can be made, training uses {used:.0f}"
    advice = "raise data.workers or data.patches_per_slice, or choose noise that is cheaper to make"
    if made < used:
        return Finding("speed", "wrong", f"{message}: it waits for data", advice)
    return Finding("speed", "note", message, advice) if made < AMPLE * used else Finding("speed", "ok", message)


def patches_a_second(subject: Subject) -> float:
    """Training patches that one process makes a second, in processor time of one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        began = time.process_time()
        subject.dataset.batch(range(len(subject.pairs), len(subject.pairs) + TIMED))
        return TIMED / max(time.process_time() - began, 1e-6)
    finally:
        torch.set_num_threads(threads)
