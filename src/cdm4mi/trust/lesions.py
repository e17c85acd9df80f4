"""What the lesion test of a model says of small faint lesions at the noise level of a scan."""

from __future__ import annotations

from cdm4mi.models.about import LesionCurve, LesionPoint
from cdm4mi.window import IntensityWindow


def lesions_kept(curve: LesionCurve | None, sigma: float, window: IntensityWindow, strength: float = 1.0) -> str | None:
    """One sentence on the smallest lesion of middle contrast and on the largest and strongest one; None without a test.

    sigma: noise level of the scan, in its units; window: its intensity window. What was measured at the noise level
    that is nearest in ratio is said, and which that is; and of a restoration with a ``strength`` below 1, for which the
    test was not made, that it keeps more. None too for a scan of another modality, and without noise.
    """
    if curve is None or curve.modality != window.modality or sigma <= 0:
        return None
    noise = sigma if not curve.in_percent else 100 * sigma / (window.high - window.low)
    points = curve.at(noise)
    small, large = min(p.size for p in points), max(p.size for p in points)
    of_small = sorted((p for p in points if p.size == small), key=lambda p: abs(p.contrast))
    first, last = of_small[len(of_small) // 2], max(points, key=lambda p: (p.size == large, abs(p.contrast)))
    kept = [_described(point, curve) for point in dict.fromkeys((first, last))]
    more = "" if strength >= 1 else f"; it was at full strength, and this scan, restored at {strength:g}, keeps more"
    return (
        f"in a test at a noise level of {first.sigma:.3g} {curve.unit} ({noise:.3g} here) the model kept "
        f"{' and '.join(kept)}{more}"
    )


def _described(point: LesionPoint, curve: LesionCurve) -> str:
    kept = round(100 * point.kept)
    return f"{kept}% of a {curve.shape} of {point.size:.3g} pixels and {point.contrast:.3g} {curve.unit}"
