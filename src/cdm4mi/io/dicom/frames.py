"""The frames of a DICOM image: how stored pixels become physical values, position, and what distinguishes frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.mosaic import mosaic_of, says_grid, tile_positions
from cdm4mi.io.dicom.values import items, number, numbers, text, texts, whole
from cdm4mi.io.quantise import rescale

# What tells apart frames at the same place, tried in this order: (keyword, group sequence in an enhanced image).
DISTINGUISHING = [
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("TemporalPositionIdentifier", None),
    ("EchoNumbers", None),
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
# Their numbers mean something (HU, activity, signal), so MONOCHROME1 only says how to show them.
_PHYSICAL = {"CT", "MR", "PT", "NM"}
_MOST_SCALE = 1e10
"""What no rescale multiplies or shifts by; the sums of squares of 16-bit numbers scaled so still fit float32."""
_LEAST_SLOPE = float(np.finfo(np.float32).tiny)


@dataclass
class Frame:
    """Frame (or tile of a mosaic) ``index`` of instance ``instance`` of a scan; positions in LPS millimetres.

    Value = stored * slope + intercept. For a MONOCHROME1 image whose numbers are only brightness the slope is that of
    the header turned round, so that large values are bright; ``mirror`` is then a value plus its mirrored one.
    ``groups`` are the data sets that describe the frame, the most specific first.
    """

    instance: int
    index: int
    position: NDArray[Any] | None
    orientation: NDArray[Any] | None
    pixel_spacing: tuple[float, float] | None
    slope: float
    intercept: float
    mirror: float | None
    groups: tuple[Dataset, ...]

    def key(self, keyword: str, sequence: str | None) -> Any:
        """Value of an attribute that may tell this frame apart: a number where it is one, else a string, else None."""
        for group in self.groups:
            for holder in [group] if sequence is None else items(group, sequence)[:1]:
                found = number(holder, keyword)
                if found is not None:
                    return found
                if value := text(holder, keyword):
                    return value
        return None

    @property
    def dimension_index(self) -> tuple[int, ...]:
        """DimensionIndexValues of a frame of an enhanced image, () where there are none."""
        for group in self.groups:
            for content in items(group, "FrameContentSequence")[:1]:
                try:
                    return tuple(int(float(value)) for value in texts(content, "DimensionIndexValues"))
                except ValueError:
                    return ()
        return ()


def only_frames(dataset: Dataset, indices: list[int]) -> None:
    """Leave only these frames in the header of an enhanced image, in this order."""
    if frame_count(dataset) != len(indices) and dataset.get("PerFrameFunctionalGroupsSequence"):
        per_frame = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = Sequence([per_frame[index] for index in indices])
        dataset.NumberOfFrames = len(indices)


def frame_count(dataset: Dataset) -> int:
    return max(1, whole(dataset, "NumberOfFrames", 1))


def frames_of(dataset: Dataset, instance: int) -> list[Frame]:
    """The frames of one instance, classic or enhanced."""
    count = frame_count(dataset)
    shared, per_frame = (
        items(dataset, "SharedFunctionalGroupsSequence"),
        items(dataset, "PerFrameFunctionalGroupsSequence"),
    )
    if not shared and not per_frame:
        return _classic(dataset, instance, count)
    if per_frame and len(per_frame) != count:
        raise UserError(
            f"PerFrameFunctionalGroupsSequence has {len(per_frame)} items, expected {count} (NumberOfFrames)"
        )
    frames = []
    for index in range(count):
        groups = (*per_frame[index : index + 1], *shared[:1])
        transformation = _macro(groups, "PixelValueTransformationSequence")
        frames.append(
            Frame(
                instance,
                index,
                _numbers_in(groups, "PlanePositionSequence", "ImagePositionPatient", 3),
                _direction(_numbers_in(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)),
                _spacing(_macro(groups, "PixelMeasuresSequence")),
                *_values_of(dataset if transformation is None else transformation, dataset),
                groups=(*groups, dataset),
            )
        )
    return frames


def slice_thickness(frame: Frame) -> float | None:
    """Distance between slices (mm) in the header: SpacingBetweenSlices, else SliceThickness, else None."""
    for group in frame.groups:
        for holder in [*items(group, "PixelMeasuresSequence")[:1], group]:
            for keyword in ("SpacingBetweenSlices", "SliceThickness"):
                found = number(holder, keyword)
                if found is not None and found > 0:
                    return found
    return None


def _classic(dataset: Dataset, instance: int, count: int) -> list[Frame]:
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = _direction(numbers(dataset, "ImageOrientationPatient", 6))
    spacing = _spacing(dataset)
    values = _values_of(dataset, dataset)
    mosaic = mosaic_of(dataset)
    if says_grid(dataset) and mosaic is None:
        raise UserError("is a grid of slices (ImageType VFRAME), and (0065,1050) gives no number of them that fits it")
    if mosaic is not None:
        tiles = None
        if orientation is not None:
            tiles = tile_positions(dataset, mosaic, orientation, spacing or (1.0, 1.0))
        if says_grid(dataset) and tiles is None:
            raise UserError(f"is a grid of {mosaic.count} slices, and (0065,1051) does not give the position of each")
        return [
            Frame(instance, n, None if tiles is None else tiles[n], orientation, spacing, *values, groups=(dataset,))
            for n in range(mosaic.count)
        ]
    # A classic multi-frame (NM, US, XA) has at most one position, that of its first frame.
    return [
        Frame(instance, n, position if count == 1 else None, orientation, spacing, *values, groups=(dataset,))
        for n in range(count)
    ]


def _macro(groups: tuple[Dataset, ...], sequence: str) -> Dataset | None:
    return next((item for group in groups for item in items(group, sequence)[:1]), None)


def _numbers_in(groups: tuple[Dataset, ...], sequence: str, keyword: str, count: int) -> NDArray[Any] | None:
    item = _macro(groups, sequence)
    return None if item is None else numbers(item, keyword, count)


def _direction(orientation: NDArray[Any] | None) -> NDArray[Any] | None:
    """Row and column direction as unit vectors, or None where they are not two perpendicular directions."""
    if orientation is None:
        return None
    lengths = np.sqrt((orientation.reshape(2, 3) ** 2).sum(1))
    if np.abs(lengths - 1).max() > 0.01 or abs(orientation[:3] @ orientation[3:]) > 0.01:
        return None
    unit: NDArray[np.float64] = (orientation.reshape(2, 3) / lengths[:, None]).reshape(6)
    return unit


def _spacing(holder: Dataset | None) -> tuple[float, float] | None:
    """PixelSpacing (mm) of a data set, or None where it is missing."""
    if holder is None or not text(holder, "PixelSpacing"):
        return None
    found = numbers(holder, "PixelSpacing", 2)
    if found is None or (found <= 0).any():
        stated = "malformed" if found is None else f"{found[0]:g} and {found[1]:g}"
        raise UserError(f"PixelSpacing is {stated}, expected two positive numbers (mm)")
    return float(found[0]), float(found[1])


def _values_of(holder: Dataset, dataset: Dataset) -> tuple[float, float, float | None]:
    """(slope, intercept, mirror) of a frame whose rescale stands in ``holder``."""
    slope = _scale(holder, "RescaleSlope", 1.0, _LEAST_SLOPE)
    intercept = _scale(holder, "RescaleIntercept", 0.0)
    if text(dataset, "PhotometricInterpretation") != "MONOCHROME1" or text(dataset, "Modality") in _PHYSICAL:
        return slope, intercept, None
    if "ModalityLUTSequence" in dataset or whole(dataset, "PixelRepresentation"):
        return slope, intercept, None
    span = slope * ((1 << whole(dataset, "BitsStored", 8)) - 1)
    return -slope, intercept + span, 2 * intercept + span


def _scale(holder: Dataset, keyword: str, missing: float, least: float = 0.0) -> float:
    """A number of the rescale, ``missing`` where there is none; refused under ``least`` and over ``_MOST_SCALE``."""
    if not text(holder, keyword):
        return missing
    found = number(holder, keyword)
    if found is None or not least <= abs(found) <= _MOST_SCALE:
        stated = "malformed" if found is None else f"{found:g}"
        wanted = f"{'other than 0 and ' if least else ''}within {_MOST_SCALE:g} of 0"
        raise UserError(f"{keyword} is {stated}, expected a finite number {wanted}")
    return found


def clean_bits(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.integer]:
    """Stored integers without the unused bits that a scanner may have filled (BitsStored, HighBit), sign extended."""
    allocated = stored.dtype.itemsize * 8
    bits = whole(dataset, "BitsStored", allocated)
    if stored.dtype.kind not in "iu" or not 0 < bits < allocated:
        return stored
    high = whole(dataset, "HighBit", bits - 1)
    if not bits - 1 <= high < allocated:
        high = bits - 1
    # Shifting up drops what lies above the high bit; the arithmetic shift down of a signed type extends the sign.
    aligned: NDArray[np.integer] = np.right_shift(np.left_shift(stored, allocated - 1 - high), allocated - bits)
    return aligned


def physical(stored: NDArray[Any], dataset: Dataset, frame: Frame, out: NDArray[Any]) -> None:
    """Write float32 physical values of stored pixels to ``out``: Modality LUT where there is one, else the rescale."""
    if stored.dtype.kind == "f":
        out[...] = stored
    elif "ModalityLUTSequence" in dataset:
        from pydicom.pixels import apply_modality_lut

        try:
            out[...] = apply_modality_lut(stored, dataset)
        except Exception:
            raise UserError("ModalityLUTSequence is malformed, expected a table that maps the stored values") from None
    else:
        rescale(stored, frame.slope, frame.intercept, out)


def float_padding_range(dataset: Dataset) -> tuple[float, float] | None:
    """Lowest and highest stored number that means padding in Float or Double Float Pixel Data, or None."""
    for kind in ("Float", "DoubleFloat"):
        found = (number(dataset, f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
        ends = [value for value in found if value is not None]
        if f"{kind}PixelPaddingValue" in dataset and ends:
            return min(ends), max(ends)
    return None


def padding_range(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored integer that means padding, or None."""
    value, limit = number(dataset, "PixelPaddingValue"), number(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [as_stored(int(v), dataset) for v in (value, limit) if v is not None]
    return min(ends), max(ends)


def padding_of(stored: NDArray[Any], ends: tuple[float, float] | None) -> NDArray[Any] | None:
    """Mask of the pixels that are padding (``ends``: the range of it), or None where there are none."""
    if ends is None:
        return None
    mask = stored == ends[0] if ends[0] == ends[1] else (stored >= ends[0]) & (stored <= ends[1])
    return mask if mask.any() else None


def as_stored(value: int, dataset: Dataset) -> int:
    """A padding value as a stored number: some writers give the signed value as unsigned, or the other way round."""
    bits = whole(dataset, "BitsAllocated", 16)
    if whole(dataset, "PixelRepresentation"):
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if value < 0 else value
