"""A protocol applied to one reference scan: its window in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import FixedWindow, PercentileWindow, Protocol
from cdm4mi.evaluation.units import Units
from cdm4mi.intensity import modality_of, window_for
from cdm4mi.io import Volume


@dataclass(frozen=True)
class ResolvedProtocol(Units):
    """A protocol with the numbers that it has for one reference scan."""

    protocol: Protocol


def resolve(protocol: Protocol, reference: Volume, name: str = "reference") -> ResolvedProtocol:
    """The protocol in the numbers of one reference scan.

    Raises:
        UserError: the scan is of another modality than the protocol's, or constant where its values make the window.
    """
    modality = "CT" if modality_of(reference) == "CT" else reference.modality
    if protocol.modality != "any" and modality not in (protocol.modality, None):
        raise UserError(f"{name}: is {modality}, expected {protocol.modality} for the protocol {protocol.name}")
    if protocol.modality == "CT" and modality is None:
        raise UserError(f"{name}: holds no HU (no air near -1000), expected CT for the protocol {protocol.name}")
    colour = reference.channel_axis is not None
    low, high = _window(protocol, replace(reference, modality=modality), name)
    limits = protocol.error_limits
    return ResolvedProtocol(
        low=low,
        high=high,
        modality=modality,
        unit=reference.units or ("HU" if modality == "CT" else "stored values" if colour else "scanner units"),
        scale=(0.0, high - low) if protocol.scale is None else (protocol.scale[0], protocol.scale[1]),
        limits=(low, high) if isinstance(limits, str) else (limits[0], limits[1]),
        errors_on_scale=protocol.error_unit == "scale",
        grey_count=protocol.vif_levels,
        slice_range=protocol.data_range == "reference-slice",
        colour=colour,
        lpips=None if protocol.lpips is None else (protocol.lpips[0], protocol.lpips[1]),
        protocol=protocol,
    )


def _window(protocol: Protocol, reference: Volume, name: str) -> tuple[float, float]:
    """The window's ends in physical units."""
    window = protocol.window
    if isinstance(window, FixedWindow):
        return window.low, window.high
    finite = reference.array[np.isfinite(reference.array)]
    if finite.size == 0 or finite.min() == finite.max():
        raise UserError(f"{name}: is constant, expected an image; or give a range (`window`)")
    if isinstance(window, PercentileWindow):
        low, high = (float(v) for v in np.percentile(finite, (window.low, window.high)))
        return low, high if high > low else float(finite.max())
    modality = reference.modality or "MR"
    norm = window_for(replace(reference, modality=modality), percentiles=(0.0, window.percentile))
    return norm.low, norm.high
