"""A trained model as an ONNX graph, for programs without PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdm4mi.config.portable import portable
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.models.checkpoint import TrainedModel

OPSET = 20
TOLERANCE = 1e-4
"""On [-1, 1]: how far ONNX Runtime's output may be from PyTorch's."""


class _Graph(nn.Module):
    """A model's estimate of x0 as a function of tensors alone: ``forward`` takes them in the order of ``names``."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.network, self.process, self.regression = model.network, model.process, model.regression
        self.mean = self.process.parameterization.name == "precond"
        self.conditioned = model.config.model.conditioning_key != "none"
        names = {
            "x_t": not self.mean,
            "t": not self.mean,
            "y": self.conditioned or self.process.anchored,
            "sigma": self.process.conditioned_on_level,
            "relative_level": model.config.data.level_map_share > 0,
            "texture": self.process.texture_channels,
            "vector": model.config.model.acquisition_vector is not None,
        }
        self.names = [name for name, needed in names.items() if needed]

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        x_t, t = given.pop("x_t", None), given.pop("t", None)
        y = given.pop("y", None)
        if y is None:
            assert x_t is not None
            y = x_t
        sigma = given.pop("sigma", torch.zeros(y.shape[0]))
        cond = self.process.condition(y, sigma, **given)
        if self.regression is not None:
            anchor = self.regression.process.mean(self.regression.network, cond)
            cond = self.process.condition(y, sigma, anchor=anchor, **given)
        if x_t is None or t is None:
            return self.process.mean(self.network, cond)
        return self.process.denoiser(self.network, cond)(x_t, t)


def export_onnx(model: TrainedModel, path: str | Path) -> dict[str, str]:
    """Write the model's estimate of x0 as an ONNX graph, float32. Returns its inputs and output: (name, meaning).

    A model of ``path`` residual, or of parameterization precond, is exported as its one-call mean x0(y, sigma, ...), a
    whole restoration. Any other as the estimate x0_hat(x_t, t, y, ...) of one step, which a sampler calls. The number
    of images, rows and columns is free; rows and columns are multiples of the network's (``size_multiple`` of the
    metadata, which also holds configuration, model hash and what each input is). What ONNX Runtime makes of it is
    compared with PyTorch, to 1e-4 on [-1, 1]. Raises UserError where a package of the extra ``onnx`` is missing, the
    network has no ONNX graph, or the two differ.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UserError(
            f"export: {error.name} is not installed, expected the extra onnx (pip install cdm4mi[onnx])"
        ) from None
    graph = _Graph(model).eval()
    multiple = getattr(model.network.diffusion_model, "size_multiple", 1)
    side = 8 * multiple if multiple < 8 else 2 * multiple
    inputs = _inputs(model, graph.names, 2, side, side + multiple)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=graph.names,
            output_names=["x0"],
            dynamic_shapes={"tensors": tuple(_free(name, multiple) for name in graph.names)},
        )
    assert program is not None
    described = _described(model, graph.names, multiple)
    program.model.metadata_props.update(
        {
            "format": "cdm4mi",
            "model": model.name,
            "weight_hash": model.weight_hash,
            "size_multiple": str(multiple),
            "inputs": json.dumps(described),
            "config": json.dumps(portable(model.config)),
            "use": "Research only. Not for clinical use.",
        }
    )
    with replacing_file(Path(path)) as temporary:
        program.save(str(temporary))
        session = onnxruntime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        other = _inputs(model, graph.names, 3, side + multiple, side)
        with torch.no_grad():
            expected = graph(*other.values()).numpy()
        found: NDArray[Any] = session.run(None, {name: value.numpy() for name, value in other.items()})[0]
        if not np.abs(found - expected).max() <= TOLERANCE:
            difference = np.abs(found - expected).max()
            raise UserError(f"export: ONNX Runtime differs from PyTorch by {difference:.2g}, expected {TOLERANCE:g}")
    return described


def _inputs(model: TrainedModel, names: list[str], n: int, rows: int, columns: int) -> dict[str, Tensor]:
    """Random inputs of the graph by name."""
    random = torch.Generator().manual_seed(n)
    channels, further = model.config.model.channels, model.config.further_channels
    image = torch.randn(n, channels, rows, columns, generator=random)
    made = {
        "x_t": image,
        "t": torch.arange(n),
        "y": torch.randn(n, channels + further, rows, columns, generator=random),
        "sigma": torch.linspace(0.05, 0.2, n),
        "relative_level": torch.rand(n, 1, rows, columns, generator=random) + 0.5,
        "texture": torch.tensor([[0.3, 0.2, 0.0]]).expand(n, -1).contiguous(),
        "vector": torch.rand(n, len(model.config.model.acquisition_vector or ()), generator=random),
    }
    return {name: made[name] for name in names}


def _free(name: str, multiple: int) -> dict[int, Any]:
    """The axes of an input that are of any length."""
    n = torch.export.Dim("n")
    if name not in ("x_t", "y", "relative_level"):
        return {0: n}
    return {0: n, 2: multiple * torch.export.Dim("rows"), 3: multiple * torch.export.Dim("columns")}


def _described(model: TrainedModel, names: list[str], multiple: int) -> dict[str, str]:
    channels, further = model.config.model.channels, model.config.further_channels
    axes = f"rows and columns multiples of {multiple}"
    beside = f", then {further} of neighbouring slices and other contrasts" if further else ""
    vector = ", ".join(model.config.model.acquisition_vector or ())
    meaning = {
        "x_t": f"(N, {channels}, rows, columns), the state of the sampler; {axes}",
        "t": f"(N,), its times, 0 to {model.process.path.timesteps - 1}",
        "y": f"(N, {channels + further}, rows, columns), noisy images on [-1, 1]{beside}; {axes}",
        "sigma": "(N,), standard deviation of their noise on [-1, 1]",
        "relative_level": "(N, 1, rows, columns), the noise level of each pixel over sigma; 1 where it does not vary",
        "texture": "(N, 3), correlation of the noise with the next row, the next column; 1 for an MR magnitude, else 0",
        "vector": f"(N, {len(model.config.model.acquisition_vector or ())}), {vector}",
    }
    return {**{name: meaning[name] for name in names}, "x0": f"(N, {channels}, rows, columns), the estimate on [-1, 1]"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own work."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
