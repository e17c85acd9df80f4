"""cdm4mi: conditional diffusion models that restore medical images.

    import cdm4mi
    restored = cdm4mi.denoise("ct.nii.gz")
    cdm4mi.write(restored.volume, "restored.nii.gz")

The names below are loaded when they are first used, so that the import itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdm4mi.config import load_config
    from cdm4mi.data.add_noise import add_noise
    from cdm4mi.data.phantom_pairs import phantom_pairs
    from cdm4mi.data.phantoms import phantom
    from cdm4mi.data.prepare import prepare
    from cdm4mi.errors import UserError
    from cdm4mi.inference.denoise import denoise, denoise_file
    from cdm4mi.inference.restorer import Restoration, Restorer
    from cdm4mi.inference.slices import SliceRestorer
    from cdm4mi.io import Volume, read, write
    from cdm4mi.models.checkpoint import load_model, save_model
    from cdm4mi.networks import DiffusionWrapper, UNet
    from cdm4mi.planning.checks.run import check
    from cdm4mi.planning.plan_file import load_plan
    from cdm4mi.training.modules import DDPM, ConditionDDPM
    from cdm4mi.training.run import train
    from cdm4mi.trust.record import TrustReport
    from cdm4mi.trust.report import trust_report

__version__ = "0.1.0"

__all__ = [
    "DDPM",
    "ConditionDDPM",
    "DiffusionWrapper",
    "Restoration",
    "Restorer",
    "SliceRestorer",
    "TrustReport",
    "UNet",
    "UserError",
    "Volume",
    "__version__",
    "add_noise",
    "check",
    "denoise",
    "denoise_file",
    "load_config",
    "load_model",
    "load_plan",
    "phantom",
    "phantom_pairs",
    "prepare",
    "read",
    "save_model",
    "train",
    "trust_report",
    "write",
]

_HOMES = {
    "ConditionDDPM": "cdm4mi.training.modules",
    "DDPM": "cdm4mi.training.modules",
    "DiffusionWrapper": "cdm4mi.networks",
    "Restoration": "cdm4mi.inference.restorer",
    "Restorer": "cdm4mi.inference.restorer",
    "SliceRestorer": "cdm4mi.inference.slices",
    "TrustReport": "cdm4mi.trust.record",
    "UNet": "cdm4mi.networks",
    "UserError": "cdm4mi.errors",
    "Volume": "cdm4mi.io",
    "add_noise": "cdm4mi.data.add_noise",
    "check": "cdm4mi.planning.checks.run",
    "denoise": "cdm4mi.inference.denoise",
    "denoise_file": "cdm4mi.inference.denoise",
    "load_config": "cdm4mi.config",
    "load_model": "cdm4mi.models.checkpoint",
    "load_plan": "cdm4mi.planning.plan_file",
    "phantom": "cdm4mi.data.phantoms",
    "phantom_pairs": "cdm4mi.data.phantom_pairs",
    "prepare": "cdm4mi.data.prepare",
    "read": "cdm4mi.io",
    "save_model": "cdm4mi.models.checkpoint",
    "train": "cdm4mi.training.run",
    "trust_report": "cdm4mi.trust.report",
    "write": "cdm4mi.io",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cdm4mi' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
