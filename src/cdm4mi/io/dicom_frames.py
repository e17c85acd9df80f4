"""One image plane each: pixel values in physical units, place in the patient, and what tells it from its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io.quantise import rescale

# What tells apart frames at the same place, tried in this order: (keyword, group sequence in an enhanced image).
DISTINGUISHING = [
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("TemporalPositionIdentifier", None),
    ("EchoNumbers", None),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("EchoTime", None),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("TriggerTime", None),
    ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("FrameReferenceTime", None),
    ("FrameReferenceDateTime", "FrameContentSequence"),
    ("AcquisitionNumber", None),
    ("FrameAcquisitionNumber", "FrameContentSequence"),
    ("FrameAcquisitionDateTime", "FrameContentSequence"),
    ("AcquisitionTime", None),
    ("ContentTime", None),
    ("InstanceNumber", None),
]


@dataclass
class Frame:
    """Frame ``index`` of instance ``instance`` of a scan; positions in LPS millimetres."""

    instance: int
    index: int
    position: np.ndarray | None
    orientation: np.ndarray | None
    pixel_spacing: tuple[float, float] | None
    slope: float
    intercept: float
    groups: tuple[Dataset, ...]

    def key(self, keyword: str, sequence: str | None) -> Any:
        for group in self.groups:
            holder = group
            if sequence is not None:
                items = group.get(sequence)
                if not items:
                    continue
                holder = items[0]
            value = holder.get(keyword)
            if value is not None and str(value) != "":
                return value if isinstance(value, (int, float, str)) else str(value)
        return None


def numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """``count`` finite numbers of an attribute, or None where they are absent or malformed."""
    try:
        value = dataset.get(keyword)
        if value is None:
            return None
        found = np.asarray(value, dtype=np.float64).reshape(-1)
    except Exception:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def frames_of(dataset: Dataset, instance: int) -> list[Frame]:
    """The frames of one instance, classic or enhanced."""
    count = frame_count(dataset)
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None and shared is None:
        return _classic(dataset, instance, count)
    if per_frame is not None and len(per_frame) != count:
        raise UserError(
            f"PerFrameFunctionalGroupsSequence has {len(per_frame)} items, expected {count} (NumberOfFrames)"
        )
    frames = []
    for index in range(count):
        groups = tuple(g for g in ((per_frame[index] if per_frame is not None else None), shared) if g is not None)
        frames.append(
            Frame(
                instance,
                index,
                _macro(groups, "PlanePositionSequence", "ImagePositionPatient", 3),
                _direction(_macro(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)),
                _spacing(_macro(groups, "PixelMeasuresSequence", "PixelSpacing", 2)),
                *_rescale_of(_macro_item(groups, "PixelValueTransformationSequence") or dataset),
                groups=(*groups, dataset),
            )
        )
    return frames


def frame_count(dataset: Dataset) -> int:
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        raise UserError("NumberOfFrames is not a number, expected a positive integer") from None


def _classic(dataset: Dataset, instance: int, count: int) -> list[Frame]:
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = _direction(numbers(dataset, "ImageOrientationPatient", 6))
    spacing = _spacing(numbers(dataset, "PixelSpacing", 2))
    slope, intercept = _rescale_of(dataset)
    # A classic multi-frame (NM, US, XA) has at most one position, that of its first frame.
    return [
        Frame(instance, n, position if count == 1 else None, orientation, spacing, slope, intercept, (dataset,))
        for n in range(count)
    ]


def _first(dataset: Dataset, keyword: str) -> Dataset | None:
    items = dataset.get(keyword)
    return items[0] if items else None


def _macro_item(groups: tuple[Dataset, ...], sequence: str) -> Dataset | None:
    for group in groups:
        item = _first(group, sequence)
        if item is not None:
            return item
    return None


def _macro(groups: tuple[Dataset, ...], sequence: str, keyword: str, count: int) -> np.ndarray | None:
    item = _macro_item(groups, sequence)
    return None if item is None else numbers(item, keyword, count)


def _direction(orientation: np.ndarray | None) -> np.ndarray | None:
    """Row and column direction as unit vectors, or None where they are not two perpendicular directions."""
    if orientation is None:
        return None
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(orientation[:3] @ orientation[3:]) > 0.01:
        return None
    return (orientation.reshape(2, 3) / lengths[:, None]).reshape(6)


def _spacing(spacing: np.ndarray | None) -> tuple[float, float] | None:
    return (float(spacing[0]), float(spacing[1])) if spacing is not None and (spacing > 0).all() else None


def _rescale_of(holder: Dataset) -> tuple[float, float]:
    slope, intercept = numbers(holder, "RescaleSlope", 1), numbers(holder, "RescaleIntercept", 1)
    return (
        float(slope[0]) if slope is not None and slope[0] != 0 else 1.0,
        float(intercept[0]) if intercept is not None else 0.0,
    )


def clean_bits(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored integers without the unused bits that a scanner may have filled (BitsStored, HighBit), sign extended."""
    allocated = stored.dtype.itemsize * 8
    bits = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") if dataset.get("HighBit") is not None else bits - 1)
    if stored.dtype.kind not in "iu" or bits >= allocated or bits < 1:
        return stored
    if not bits - 1 <= high < allocated:
        high = bits - 1
    up, down = allocated - 1 - high, allocated - bits
    # Shifting up drops what lies above the high bit; the arithmetic shift down of a signed type extends the sign.
    return np.right_shift(np.left_shift(stored, up), down)


def physical(stored: np.ndarray, dataset: Dataset, slope: float, intercept: float) -> np.ndarray:
    """float32 physical values of stored pixels: Modality LUT where there is one, else slope and intercept."""
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        try:
            return apply_modality_lut(stored, dataset).astype(np.float32)
        except Exception:
            raise UserError("ModalityLUTSequence is malformed, expected a table that maps the stored values") from None
    return rescale(stored, slope, intercept)


def padding_of(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Mask of pixels at PixelPaddingValue (or between it and PixelPaddingRangeLimit), or None where there are none."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int) or stored.dtype.kind == "f":
        return None
    value = as_stored(value, dataset)
    if isinstance(limit, int):
        low, high = sorted((value, as_stored(limit, dataset)))
        mask = (stored >= low) & (stored <= high)
    else:
        mask = stored == value
    return mask if mask.any() else None


def as_stored(value: int, dataset: Dataset) -> int:
    """A padding value as a stored number: some writers give the signed value as unsigned, or the other way round."""
    bits = int(dataset.get("BitsAllocated") or 16)
    if dataset.get("PixelRepresentation") == 1 and value >= 1 << (bits - 1):
        return value - (1 << bits)
    if not dataset.get("PixelRepresentation") and value < 0:
        return value + (1 << bits)
    return value
