"""The number format in which a device computes a network fastest."""

from __future__ import annotations

import torch

from cdm4mi.networks.bf16_cpu import bf16_instructions


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it (a CPU with AVX-512 BF16 or AMX, a GPU that has it), else float16 on
    other GPUs and float32 on the rest."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu":
        return torch.float32
    return torch.bfloat16 if bf16_instructions() else torch.float32
