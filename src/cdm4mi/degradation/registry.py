"""The degradations by the ``type`` of a noise section: a new one is a class, its keys in config and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from cdm4mi.config.noise import NoiseSection
from cdm4mi.degradation.base import Degradation, Range
from cdm4mi.degradation.composition import Composition
from cdm4mi.degradation.downsampled import Downsampled
from cdm4mi.degradation.gaussian import GaussianNoise, Unit
from cdm4mi.degradation.identity import Identity
from cdm4mi.degradation.lowdose_ct import LowDoseCT
from cdm4mi.degradation.noncentral_chi import NoncentralChiNoise
from cdm4mi.degradation.pet import PetThinning
from cdm4mi.degradation.rician import RicianNoise
from cdm4mi.degradation.salt_and_pepper import SaltAndPepper
from cdm4mi.degradation.speckle import Speckle
from cdm4mi.degradation.undersampled import Undersampled


def _gaussian(**ways: Range | None) -> GaussianNoise:
    (unit, value), *_ = ((unit, value) for unit, value in ways.items() if value is not None)
    return GaussianNoise(value, cast(Unit, unit))


MAKERS: dict[str, Callable[..., Degradation[Any]]] = {
    "gaussian": _gaussian,
    "salt_and_pepper": SaltAndPepper,
    "speckle": Speckle,
    "rician": RicianNoise,
    "noncentral_chi": NoncentralChiNoise,
    "undersampled": Undersampled,
    "downsampled": Downsampled,
    "low_dose_ct": LowDoseCT,
    "pet": PetThinning,
    "identity": Identity,
}


def make_degradation(noise: NoiseSection) -> Degradation[Any]:
    """The degradation that a noise section describes."""
    parts = getattr(noise, "parts", None)
    if parts is not None:
        return Composition([make_degradation(part) for part in parts])
    keys: dict[str, Any] = noise.model_dump(exclude={"type"})
    return MAKERS[noise.type](**{key: tuple(v) if isinstance(v, list) else v for key, v in keys.items()})
