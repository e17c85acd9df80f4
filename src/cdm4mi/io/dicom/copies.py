"""Which DICOM files are copies of others: the same image at the same place, whatever their UIDs say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.instance import Instance
from cdm4mi.io.dicom.values import numbers, text


def without_copies(instances: list[Instance], warnings: list[str]) -> list[Instance]:
    """Drop files that repeat an image under its SOP Instance UID; keep different ones that share a UID, with a warning.

    Careless anonymisers give one UID to every slice, so that the UID alone makes no copy.
    """
    by_uid: dict[str, list[Instance]] = {}
    for instance in instances:
        by_uid.setdefault(text(instance.dataset, "SOPInstanceUID"), []).append(instance)
    kept, copies, shared = [], 0, 0
    for uid, same in by_uid.items():
        images = [same] if len(same) == 1 else alike(same) if uid else [[instance] for instance in same]
        kept += [image[0] for image in images]
        copies += len(same) - len(images)
        shared += len(images) if uid and len(images) > 1 else 0
    if copies:
        warnings.append(f"{copies} file(s) are copies of others (same SOP Instance UID and pixels) and were left out")
    if shared:
        warnings.append(f"{shared} different images share a SOP Instance UID, which should be unique: all were read")
    return kept


def alike(instances: Iterable[Instance]) -> list[list[Instance]]:
    """Instances by the image they hold: those of one list have the same position, orientation and pixel data."""
    images: dict[object, list[Instance]] = {}
    instances = list(instances)
    if len(instances) == 1:  # whose pixels need not be read
        return [instances]
    for instance in instances:
        images.setdefault(_image(instance), []).append(instance)
    return list(images.values())


def _image(instance: Instance) -> object:
    try:
        digest = hashlib.sha256(instance.pixel_data()[1]).digest()
    except UserError:
        return id(instance)  # what cannot be read is no copy of anything
    geometry = [
        numbers(instance.dataset, k, n) for k, n in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    ]
    return digest, *(None if found is None else tuple(found.tolist()) for found in geometry)
