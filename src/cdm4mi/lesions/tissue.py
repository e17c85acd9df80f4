"""Flat tissue of a scan, into which lesions are put."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.intensity import foreground, foreground_threshold, modality_of
from cdm4mi.io import Volume
from cdm4mi.lesions.shapes import Site, flat_sites

Array = NDArray[Any]
SIDE = 48
"""Pixels of the square that observers see, centred on a site."""
FLAT = 27
"""Pixels of the square around a site that has to be flat."""
MARGIN = 16
"""Pixels that methods see around the squares."""
MOST_SLICES = 32
"""Of a scan, evenly spread, among which the flattest is looked for."""
CT_TISSUE = (0.0, 80.0)
"""HU of the soft tissue that lesions are put into."""


@dataclass(frozen=True)
class Tissue:
    """A part of a scan with sites for lesions in its middle slice.

    number: of the middle slice in the scan. clean: whole slices (n, rows, columns), the middle one with its neighbours.
    crop: what methods are given of them; sites: in the crop, slice n // 2. unit: what contrasts and noise levels are
    stated in, 1 HU or a percent of the intensity window, in the scan's units.
    """

    scan: Volume
    number: int
    clean: Array
    crop: tuple[slice, slice]
    sites: list[Site]
    unit: float = 1.0

    @property
    def middle(self) -> int:
        return len(self.clean) // 2


def find_tissue(scan: Volume, count: int, widest: float, beside: int = 0, unit: float = 1.0) -> Tissue:
    """The slice of a scan with the flattest sites, apart enough for lesions of ``widest`` pixels, and ``beside`` more
    on either side of it (the first and last slice stand for those beyond). Raises UserError where there is none.
    """
    modality = modality_of(scan)
    if scan.channel_axis is not None or scan.times > 1:
        found = "colours" if scan.channel_axis is not None else f"{scan.times} time points"
        raise UserError(f"scan: found {found}, expected a grey scan of one time point")
    slices = scan.slices()
    looked = np.unique(np.linspace(0, len(slices) - 1, MOST_SLICES).astype(int))
    apart = int(np.ceil(SIDE / 2 + widest / 2 + 3))
    if modality == "CT":
        values = CT_TISSUE
    else:
        shown = slices[looked][foreground(slices[looked], modality)]
        least = foreground_threshold(slices[looked], modality)
        values = max(least, float(np.quantile(shown, 0.1))), float(np.quantile(shown, 0.95))
    sites, _ = flat_sites(slices[looked], values, count, apart, FLAT, SIDE // 2)
    if not sites:
        raise UserError(f"scan: found no square of {FLAT} pixels of soft tissue {SIDE // 2} pixels from the edge")
    k = int(looked[sites[0].slice])
    around = np.clip(np.arange(k - beside, k + beside + 1), 0, len(slices) - 1)
    half = SIDE // 2 + MARGIN
    rows, columns = (
        slice(max(0, min(at) - half), min(n, max(at) + half))
        for at, n in zip(np.transpose(sites)[1:].tolist(), slices.shape[1:], strict=True)
    )
    moved = [Site(beside, site.row - rows.start, site.column - columns.start) for site in sites]
    return Tissue(replace(scan, modality=modality), k, slices[around], (rows, columns), moved, unit)
