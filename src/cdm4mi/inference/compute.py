"""Where a model runs and in which number format: the device and the precision of a restoration, by name."""

from __future__ import annotations

from typing import get_args

import torch

from cdm4mi.choices import PrecisionName
from cdm4mi.errors import UserError
from cdm4mi.networks.precision import fastest_dtype

PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def device_named(name: torch.device | str | None) -> torch.device:
    """A device by its name: cpu, cuda, cuda:1, mps; auto or None: a GPU where there is one. Raises UserError."""
    if isinstance(name, torch.device):
        return name
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["auto", "cpu"]
    if torch.backends.mps.is_available():
        known.append("mps")
    if torch.cuda.is_available():
        known += ["cuda", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if name not in known:
        raise UserError(f"`device`: found {name!r}, expected one of {', '.join(known)} on this machine")
    return torch.device(name)


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The number format of a network's layers on a device, by the name of a precision.

    auto: bf16 where the device computes in it (a CPU with AVX-512 BF16 or AMX, a GPU that has it), else fp16 on other
    GPUs and fp32 on the rest. Sums, the solver and what leaves the network are fp32 in any case. Raises UserError for
    fp16 on a CPU, which is slower there than fp32.
    """
    if name not in PRECISIONS:
        raise UserError(f"`precision`: found {name!r}, expected one of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise UserError("`precision`: found fp16 on the CPU, expected auto, fp32 or bf16")
    return fastest_dtype(device) if name == "auto" else _DTYPES[name]


def on_cpu(values: torch.Tensor) -> torch.Tensor:
    """Values in the CPU's memory; those of a GPU in pinned pages, which it fills many times as fast as others."""
    if values.device.type != "cuda":
        return values.cpu()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)


def release_device(device: torch.device) -> None:
    """Give memory back that torch keeps on a device for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
