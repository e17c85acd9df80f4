"""The rules of the verdict: which measurements speak against a restoration, and how much."""

from __future__ import annotations

from collections.abc import Iterator

from cdm4mi.models.noise_range import OTHER_MODALITY
from cdm4mi.trust.record import Colour, Fidelity, FoundNoise, ModelRange, Origin, Place, Reason
from cdm4mi.trust.residual import MOST_LEVEL, ResidualTest

LEAST_LEVEL = 0.5
"""Residual over noise level, for the whole of the noise, under which three quarters of its power stay in the scan. An
estimate of least squared error E leaves sqrt(1 - E / sigma^2), which is 0.6 for little noise in fine anatomy."""
LEVELS_ALIKE = 1.5
"""Ratio of the level that was given for the restoration and the measured one: estimates err by up to a third in small
images full of edges."""
LEAST_CONTRAST = 0.25, 0.5
"""Noise levels of a finding's contrast from which it is faint, and from which it is clear: half of what a single pixel
varies by, over a blob of many pixels, is seen by eye; a quarter hardly."""
LEAST_SCALED = 0.01, 0.025
"""The same on [-1, 1], 10 and 25 HU of the usual window, the latter a lesion of 40 HU and 10 mm, whatever the noise."""
SMALL = 8.0
"""Millimetres of a blob under which ``LEAST_SMALL_CONTRAST`` and ``LEAST_SMALL_SCALED`` count in place of both: fine
anatomy loses up to a quarter of the noise level to every estimate of least squared error."""
LEAST_SMALL_CONTRAST = 0.3, 0.5
LEAST_SMALL_SCALED = 0.02, 0.05
LEAST_SHARE = 0.05, 0.2
"""The same for the share of a structure's contrast that is missing."""
MOST_GAIN = 0.05
"""Error of the scale of intensities from which they were rescaled; 5 % of 1000 HU is the contrast of a lesion."""
MOST_SHIFT = 0.25
"""Noise levels by which a tissue's mean may move: what is left of partial volume and of a magnitude's bias."""
MOST_ADDED = 0.75
"""Share of what differs that was added to the scan, not taken from it (``Fidelity.added``): 0.5 where twice the noise
was taken away."""
LEAST_SHARPNESS = 0.9
"""Steepness of the edges over that in the scan: a tenth less is a blur of about half a pixel."""
OUTSIDE = ("air", "background")
"""Classes of ``measure.tissue`` without tissue, whose mean noise and padding decide."""
ORDER: tuple[Colour, ...] = ("good", "caution", "bad")


def reasons(
    noise: FoundNoise,
    model: ModelRange | None,
    origin: Origin | None,
    residual: ResidualTest,
    places: list[Place],
    fidelity: Fidelity,
    unit: str,
) -> list[Reason]:
    """What speaks against a restoration, the worst first; one that is good where nothing does."""
    found = [
        *_of_origin(noise, origin, unit),
        *_of_residual(residual, 1.0 if origin is None else origin.strength),
        *_of_places(places, unit),
        *_of_fidelity(noise, fidelity, unit),
        *_of_model(model, unit),
    ]
    found.sort(key=lambda reason: -ORDER.index(reason.colour))
    return found or [
        Reason(
            colour="good",
            text=f"{'only traces are' if places else 'nothing is'} seen beside noise in what was taken away",
        )
    ]


def verdict_of(found: list[Reason]) -> Colour:
    """The worst colour of some reasons."""
    return max((reason.colour for reason in found), key=ORDER.index)


def _of_origin(noise: FoundNoise, origin: Origin | None, unit: str) -> Iterator[Reason]:
    if origin is None:
        return
    if origin.same_scan is False:
        yield Reason(colour="bad", text="the restored scan was made from another scan than this one")
    ratio = origin.sigma / noise.sigma
    if not 1 / LEVELS_ALIKE <= ratio <= LEVELS_ALIKE:
        text = f"it was restored for noise of {origin.sigma:.4g} {unit}, {ratio:.2f} times the {noise.sigma:.4g} found"
        yield Reason(colour="bad", text=text)


def _of_residual(test: ResidualTest, strength: float) -> Iterator[Reason]:
    if test.level > MOST_LEVEL:
        text = f"what was taken away has {test.level:.2f} times the noise level, expected at most {MOST_LEVEL:g}"
        yield Reason(colour="bad", text=text)
    elif test.level < LEAST_LEVEL * strength:
        text = f"what was taken away has {test.level:.2f} times the noise level: most of the noise was left"
        yield Reason(colour="caution", text=text)
    for text in test.unlike_noise():
        yield Reason(colour="caution", text=text)


def _of_places(places: list[Place], unit: str) -> Iterator[Reason]:
    """One reason for the clear findings, one for the faint ones, each with the most striking of them; none for traces.

    Traces are real, but every network leaves some: they are among the findings alone.
    """
    weights = [_weight(place) for place in places]
    kinds: tuple[tuple[int, Colour, str], ...] = ((2, "bad", "structure"), (1, "caution", "faint structure"))
    for weight, colour, what in kinds:
        these = [place for place, its in zip(places, weights, strict=True) if its == weight]
        if these:
            more = f" and {len(these) - 1} more" if len(these) > 1 else ""
            yield Reason(colour=colour, text=f"{what} was changed: {described(these[0], unit)}{more}")


def _weight(place: Place) -> int:
    """0 for a trace, 1 for a faint finding, 2 for a clear one: the most of what its contrast is in either measure."""
    if place.change_in_sigma is None or place.change_scaled is None:
        return sum(abs(place.change) >= least for least in LEAST_SHARE)
    small = place.size_mm < SMALL
    contrasts, scaled = (LEAST_SMALL_CONTRAST, LEAST_SMALL_SCALED) if small else (LEAST_CONTRAST, LEAST_SCALED)
    in_sigma = sum(abs(place.change_in_sigma) >= least for least in contrasts)
    return max(in_sigma, sum(abs(place.change_scaled) >= least for least in scaled))


def described(place: Place, unit: str) -> str:
    """A finding in words, with its position counted from 1 as the pages of scans do."""
    where = "slice {}, row {}, column {}".format(*(n + 1 for n in place.position))
    if place.kind == "contrast":
        return f"{abs(place.change):.0%} {'less' if place.change > 0 else 'more'} contrast at {where}"
    what = "removed" if place.change > 0 else "added"
    return f"{abs(place.change):.3g} {unit} {what} at {where}"


def _of_fidelity(noise: FoundNoise, fidelity: Fidelity, unit: str) -> Iterator[Reason]:
    if fidelity.gain is not None and abs(fidelity.gain - 1) > MOST_GAIN:
        yield Reason(
            colour="bad", text=f"intensities were rescaled: the scan has {fidelity.gain:.2f} times the restored"
        )
    if fidelity.added is not None and fidelity.added > MOST_ADDED:
        text = "noise or edges were added to the scan, not taken from it (or the two were given the wrong way round)"
        yield Reason(colour="bad", text=text)
    for tissue, shift in fidelity.shifts.items():
        limit = MOST_SHIFT * noise.sigma + fidelity.uncertain_shifts[tissue]
        if tissue not in OUTSIDE and abs(shift) > limit:
            yield Reason(colour="caution", text=f"the mean of {tissue} moved by {shift:+.3g} {unit}, limit {limit:.3g}")
    if fidelity.sharpness is not None and fidelity.sharpness < LEAST_SHARPNESS:
        text = f"edges have {fidelity.sharpness:.2f} times the steepness of the scan's, expected {LEAST_SHARPNESS:g}"
        yield Reason(colour="caution", text=text)


def _of_model(model: ModelRange | None, unit: str) -> Iterator[Reason]:
    if model is not None:
        yield from (Reason(colour="caution", text=text) for text in outside_of_training(model, unit))


def outside_of_training(model: ModelRange, unit: str) -> Iterator[str]:
    """What of a scan lies outside of its model's training, a sentence each."""
    if not model.modality:
        yield OTHER_MODALITY
    if not model.units:
        yield "the header of the scan does not say that its values are HU (no RescaleSlope or RescaleIntercept)"
    for what, part, of in (
        ("noise level", model.sigma, f" {unit}"),
        ("correlation of neighbours", model.correlation, ""),
    ):
        if part is not None and part.away:
            trained = f"{part.low:.3g} to {part.high:.3g}{of}"
            yield f"the {what} {part.found:.3g}{of} is outside the model's training ({trained}) by {part.away:.2g}{of}"
