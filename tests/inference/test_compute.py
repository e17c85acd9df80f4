"""Device and precision by name, and what a number format changes in a restoration."""

import numpy as np
import pytest
import torch

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.inference.compute import device_named, dtype_named
from cdm4mi.inference.restorer import Restorer
from cdm4mi.io import Volume

CPU = torch.device("cpu")


def test_what_this_machine_has_not_is_refused():
    assert device_named("cpu") == CPU
    assert device_named("auto") == device_named(None)
    with pytest.raises(UserError, match="`device`: found 'cuda:99', expected one of auto, cpu"):
        device_named("cuda:99")
    with pytest.raises(UserError, match="`precision`: found fp16 on the CPU, expected auto, fp32 or bf16"):
        dtype_named("fp16", CPU)
    with pytest.raises(UserError, match="`precision`: found 'half', expected one of auto, fp32, bf16, fp16"):
        dtype_named("half", CPU)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_auto_is_bf16_where_the_cpu_computes_in_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert dtype_named("auto", CPU) == dtype


def test_bf16_changes_less_than_a_tenth_of_the_noise(tiny):
    clean = np.stack([phantom("CT", 3, 64)] * 2)
    noisy = Volume(
        (clean + 120 * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32), np.eye(4), "CT"
    )
    exact, half = (Restorer(tiny, precision=name).restore(noisy, seed=4) for name in ("fp32", "bf16"))
    difference = half.volume.array - exact.volume.array
    assert 0 < np.sqrt(np.mean(difference**2)) < 12
    assert half.volume.array.dtype == exact.volume.array.dtype
    assert (half.record.precision, exact.record.precision) == ("bfloat16", "float32")


def test_another_number_format_is_another_image(tiny):
    noise = np.random.default_rng(0).normal(0, 150, (1, 64, 64)).astype(np.float32)
    scan = Volume(phantom("CT", 3, 64)[None] + noise, np.eye(4), "CT")

    def uid(precision):
        return Restorer(tiny, precision=precision).restore(scan, noise=150.0).volume.derivation.uid("a slice")

    assert uid("fp32") == uid("fp32") != uid("bf16")
