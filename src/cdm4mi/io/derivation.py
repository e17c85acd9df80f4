"""``Derivation``: what was done to a scan, as derived DICOM images say it, and the UIDs that follow from it."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from cdm4mi import __version__


@dataclass(frozen=True)
class Derivation:
    """``settings`` (JSON values: solver, steps, seed ...) and ``model_hash`` decide, with the source, the new UIDs.

    ``description`` is one sentence for DerivationDescription. An empty ``model_hash`` means that no model was used.
    """

    software: str = "cdm4mi"
    version: str = __version__
    model_hash: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    description: str = "Written by cdm4mi"
    label: str = "restored"

    @property
    def code(self) -> tuple[str, str]:
        """Value and meaning of the derivation's code, of this project's own scheme (99CDM4MI).

        CID 7203 of DICOM, which is extensible, has no term for noise reduction by a network.
        """
        if self.model_hash:
            return "RESTORED", "Restored by a conditional diffusion model"
        return "PROCESSED", "Pixel values changed by software"

    def uid(self, *parts: str) -> str:
        """A UID (2.25 and a UUID, PS3.5 B.2) that is the same for the same parts, model and settings."""
        text = json.dumps(
            [self.software, self.version, self.model_hash, self.settings, self.label, *parts],
            sort_keys=True,
            default=str,
        )
        digest = hashlib.sha256(text.encode()).digest()[:16]
        return f"2.25.{uuid.UUID(bytes=digest, version=5).int}"
