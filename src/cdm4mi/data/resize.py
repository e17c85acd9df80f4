"""Slices resized for training: to a square without stretching, or to given rows and columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cdm4mi.data.patient import Patient, Plane
from cdm4mi.degradation.base import Frame

Resize = int | list[int]
"""A side in pixels, or [rows, columns]."""


def resized_patient(patient: Patient, resize: Resize) -> Patient:
    """The patient with all slices, foregrounds and real noisy slices resized, and the new spacings.

    resize: a side S pads the slice to a square with the background (-1), as much on either side, and makes that S x S:
    nothing is stretched. [rows, columns] is the size that the slice is stretched to. Cubic
    interpolation (a = -0.5), widened where the slice shrinks so that nothing aliases, clipped to [-1, 1]; noisy slices
    are not clipped. A pixel is foreground where at least half of it is. Arrays are resized now, slices of a store
    when they are read.
    """
    shapes = [plane.shape for plane in patient.slices]
    frames = [patient.frame(k) for k in range(len(shapes))]
    frames = [_resized_frame(frame, shape, resize) for frame, shape in zip(frames, shapes, strict=True)]
    return replace(
        patient,
        slices=[_resized(plane, resize, "image") for plane in patient.slices],
        foregrounds=[_resized(plane, resize, "mask") for plane in patient.foregrounds],
        conditions=None if patient.conditions is None else [_resized(p, resize, "noisy") for p in patient.conditions],
        spacing=(patient.spacing[0], *_spacing(patient.spacing[1:], shapes[0], resize)) if shapes else patient.spacing,
        frames=frames,
    )


@dataclass(frozen=True)
class ResizedPlane:
    """A slice that is read and resized as a whole whenever a part is requested. what: image, noisy or mask."""

    plane: Plane
    resize: Resize
    what: str

    @property
    def shape(self) -> tuple[int, ...]:
        return target_shape(self.resize)

    def __getitem__(self, crop: Any, /) -> NDArray[Any]:
        part: NDArray[Any] = _array(np.asarray(self.plane[:, :]), self.resize, self.what)[crop]
        return part


def target_shape(resize: Resize) -> tuple[int, int]:
    """(rows, columns) of a resized slice."""
    return (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])


def _resized(plane: Plane, resize: Resize, what: str) -> Plane:
    if not isinstance(plane, np.ndarray):
        return ResizedPlane(plane, resize, what)
    return _array(plane, resize, what)


def _array(plane: NDArray[Any], resize: Resize, what: str) -> NDArray[Any]:
    mask = what == "mask"
    if isinstance(resize, int):
        margins = [((side := max(plane.shape) - n) // 2, side - side // 2) for n in plane.shape]
        plane = np.pad(plane, margins, constant_values=0 if mask else -1)
    image = torch.from_numpy(plane.astype(np.float32))[None, None]
    mode = "bilinear" if mask else "bicubic"
    out = F.interpolate(image, size=target_shape(resize), mode=mode, antialias=True)[0, 0].numpy()
    if mask:
        return out >= 0.5
    return (out.clip(-1, 1) if what == "image" else out).astype(plane.dtype)


def _resized_frame(frame: Frame, shape: tuple[int, ...], resize: Resize) -> Frame:
    return replace(frame, spacing=_spacing(frame.spacing, shape, resize))


def _spacing(spacing: tuple[float, float], shape: tuple[int, ...], resize: Resize) -> tuple[float, float]:
    """Millimetres between neighbours of the resized slice: its extent stays."""
    before = (max(shape), max(shape)) if isinstance(resize, int) else shape
    rows, columns = target_shape(resize)
    return spacing[0] * before[0] / rows, spacing[1] * before[1] / columns
