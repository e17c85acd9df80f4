"""The geometry of a CT scan: the slice's pixels, the views, and the rays of each view."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.errors import UserError


@dataclass(frozen=True)
class ScanGeometry:
    """One slice and the rays through it.

    A ray is the line x cos(theta) + y sin(theta) = s, in mm from the centre of the slice, x along columns and y along
    rows (down). A parallel beam has ``views`` angles theta = pi v / views. A fan beam has ``views`` positions
    beta = 2 pi v / views of a source that circles at ``source_distance`` mm; its ray at the fan angle gamma is the
    line theta = beta + gamma, s = source_distance sin(gamma). The detector's channels are as wide as the smaller side
    of a pixel, lie at equal steps of s for both beams, and cover the slice's diagonal.

    Errors: ValueError where a field is not a possible scan, UserError where a fan beam cannot scan the slice.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    views: int = 720
    beam: Literal["parallel", "fan"] = "parallel"
    source_distance: float = 570.0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.views) < 1 or min(self.spacing) <= 0:
            raise ValueError(f"scan of {self.rows} x {self.columns} pixels of {self.spacing} mm, {self.views} views")
        if self.beam == "fan":
            if self.views % 2:
                raise UserError(f"views: found {self.views}, expected an even number for the full turn of a fan beam")
            reach = (self.channels - 1) / 2 * self.pitch
            if reach >= self.source_distance:
                raise UserError(
                    f"geometry fan: found a slice that reaches {reach:.0f} mm from its centre, "
                    f"expected less than the source's {self.source_distance:.0f} mm"
                )

    @property
    def pitch(self) -> float:
        """Step between channels, mm at the centre of the slice."""
        return min(self.spacing)

    @property
    def channels(self) -> int:
        """Channels of the detector; even where the columns are, so that the first view hits the pixels' centres."""
        diagonal = math.hypot(self.rows * self.spacing[0], self.columns * self.spacing[1])
        count = math.ceil(diagonal / self.pitch) + 2
        return count + (count - self.columns) % 2

    def positions(self) -> Tensor:
        """(channels,) s of each channel, mm, float64."""
        return (torch.arange(self.channels, dtype=torch.float64) - (self.channels - 1) / 2) * self.pitch

    def angles(self) -> Tensor:
        """(views,) theta of a parallel beam, or beta of a fan beam, radians, float64."""
        turn = math.pi if self.beam == "parallel" else 2 * math.pi
        return torch.arange(self.views, dtype=torch.float64) * (turn / self.views)

    def parallel(self, views: int) -> ScanGeometry:
        """The parallel beam of as many ``views`` on the same slice and channels."""
        return replace(self, beam="parallel", views=views)
