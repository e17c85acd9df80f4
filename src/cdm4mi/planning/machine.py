"""The machine that a training runs on: cores, memory, GPU."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from cdm4mi.networks.precision import fastest_dtype

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """A machine to train on.

    cores: those that torch computes on; memory: bytes free for a training, on the GPU where there is one; gpu: its
    name, or None; bf16: whether it, or the CPU where there is none, computes in bf16."""

    cores: int
    memory: int
    gpu: str | None = None
    bf16: bool = False

    @property
    def device(self) -> torch.device:
        """The device on which Lightning's accelerator "auto" trains."""
        return torch.device("cuda" if self.gpu else "cpu")

    def described(self) -> str:
        """The machine in words, for the plan."""
        memory = f"{self.memory / GIB:.1f} GiB free"
        return f"GPU {self.gpu}, {memory}" if self.gpu else f"{self.cores} core(s), no GPU, {memory}"


def this_machine() -> Machine:
    """The machine that this process runs on, with the memory that is free now."""
    cores = torch.get_num_threads()
    bf16 = fastest_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu")) == torch.bfloat16
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine(cores, int(free), torch.cuda.get_device_name(), bf16)
    return Machine(cores, int(psutil.virtual_memory().available), bf16=bf16)
