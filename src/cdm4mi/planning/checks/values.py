"""Checks of values: clean images fill [-1, 1], are neither clipped nor empty, and HU are HU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.planning.checks.subject import Finding, Subject

SLACK = 1e-3
LEAST_SPAN = 0.25
"""Least share of [-1, 1] that the central 99 % of the values must span."""
MOST_CLIPPED = 0.1
"""Largest share of the foreground at an end of the scale; dense bone takes some of it in a head."""
FLAT = 1e-3
"""Standard deviation on [-1, 1] of an image that shows nothing."""
AIR_HU = -400.0
"""HU: in a CT the first percentile is air, far below this."""
STORED_AIR, STORED_TISSUE = (-60.0, 140.0), (840.0, 1150.0)
"""Values of air and of soft tissue in a CT without its intercept of -1000 or -1024."""


def check_values(subject: Subject) -> list[Finding]:
    """Range, clipped share and content of clean slices, by source."""
    found = []
    for source, (images, inside) in _by_source(subject).items():
        low, high = float(images.min()), float(images.max())
        name, message = "values", f"{source}: {low:.2f} to {high:.2f}"
        if not np.isfinite(images).all():
            found.append(Finding(name, "wrong", f"{source}: not all are finite", "repair or leave out that scan"))
            continue
        if low < -1 - SLACK or high > 1 + SLACK:
            advice = "normalise to [-1, 1]: window (CT), percentiles (MR), dynamic_range (hdf5)"
            found.append(Finding(name, "wrong", f"{message}, expected -1 to 1", advice))
            continue
        ends = np.percentile(images, (0.5, 99.5))
        if ends[1] - ends[0] < LEAST_SPAN:
            found.append(
                Finding(
                    name,
                    "wrong",
                    f"{source}: nearly all lie between {ends[0]:.3f} and {ends[1]:.3f}, expected most of [-1, 1]",
                    "the range is too wide for these data: check dynamic_range (hdf5) and the window (CT)",
                )
            )
            continue
        clipped = float((np.abs(inside) >= 1 - SLACK).mean()) if inside.size else 0.0
        message = f"{message}, {clipped:.1%} of the foreground clipped"
        if clipped > MOST_CLIPPED:
            advice = "the range is too narrow: widen the window (CT), the upper percentile (MR) or dynamic_range (hdf5)"
            found.append(Finding(name, "wrong", message, advice))
        else:
            found.append(Finding(name, "ok", message))
    return found


def check_content(subject: Subject) -> list[Finding]:
    """Images and training patches that show nothing."""
    images = [plane for patient in subject.every for plane in patient.slices]
    in_memory = all(isinstance(image, np.ndarray) for image in images)
    looked_at = images if in_memory else [patient.slices[k] for patient, k in subject.some_slices()]
    empty = sum(bool(np.asarray(image[:, :], np.float32).std() < FLAT) for image in looked_at)
    patches = sum(bool(pair["x0"].std() < FLAT) for pair in subject.pairs)
    message = f"{empty} of {len(looked_at)} images and {patches} of {len(subject.pairs)} training patches show nothing"
    if not empty and not patches:
        return [Finding("content", "ok", message)]
    advice = "leave empty patches out when the data are cut, or raise data.foreground"
    return [Finding("content", "wrong", message, advice)]


def check_hounsfield(subject: Subject) -> list[Finding]:
    """In CT, air must be near -1000 HU; other scans must not have the values of a CT without its intercept."""
    found = []
    for source, physical in _physical(subject).items():
        modality, values = physical
        if modality == "CT":
            air = float(np.percentile(values, 1))
            if air > AIR_HU:
                found.append(
                    Finding(
                        "HU",
                        "wrong",
                        f"{source}: the darkest hundredth is {air:.0f} HU, expected air near -1000",
                        "the rescale intercept was lost: HU = stored value * slope + intercept (mostly -1024)",
                    )
                )
            else:
                found.append(Finding("HU", "ok", f"{source}: air reads {air:.0f}"))
        elif looks_like_stored_ct(values):
            found.append(
                Finding(
                    "HU",
                    "wrong",
                    f"{source}: air near 0 and soft tissue near 1000: a CT without its intercept, taken for {modality}",
                    "write HU = stored value * slope + intercept (mostly -1024) into the files, or read the DICOM",
                )
            )
    return found


def looks_like_stored_ct(values: NDArray[Any]) -> bool:
    """Whether values look like those of a CT to which the rescale intercept was not added."""
    tissue = values[values > 500]
    if tissue.size < 0.05 * values.size:
        return False
    air = float(((values >= STORED_AIR[0]) & (values <= STORED_AIR[1])).mean())
    narrow = float(((tissue >= STORED_TISSUE[0]) & (tissue <= STORED_TISSUE[1])).mean())
    return air > 0.05 and narrow > 0.65


def _by_source(subject: Subject) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(values, values of the foreground) of some slices of each source."""
    values: dict[str, tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {}
    for patient, k in subject.some_slices():
        image = np.asarray(patient.slices[k][:, :], np.float32)
        whole, foreground = values.setdefault(patient.source, ([], []))
        whole.append(image.ravel())
        foreground.append(image[..., np.asarray(patient.foregrounds[k][:, :])].ravel())
    return {source: (np.concatenate(a), np.concatenate(b)) for source, (a, b) in values.items()}


def _physical(subject: Subject) -> dict[str, tuple[str | None, NDArray[Any]]]:
    """(modality, values in physical units) of some slices of each source whose units are known."""
    values: dict[str, tuple[str | None, list[NDArray[Any]]]] = {}
    for patient, k in subject.some_slices():
        frame = patient.frame(k)
        if patient.frames is None or frame.modality is None:
            continue
        image = np.asarray(patient.slices[k][:, :], np.float32)
        values.setdefault(patient.source, (frame.modality, []))[1].append(
            ((image + 1) / frame.scale + frame.low).ravel()
        )
    return {source: (modality, np.concatenate(images)) for source, (modality, images) in values.items()}
