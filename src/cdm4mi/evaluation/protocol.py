"""Protocols: what a figure means. Each fixes window, range, metrics, regions and averaging under a name and version."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cdm4mi.config.errors import validated
from cdm4mi.config.yaml_text import read_file, shown
from cdm4mi.degradation import NoiseConfig
from cdm4mi.errors import UserError
from cdm4mi.evaluation.metrics import METRICS, names_of
from cdm4mi.section import Section

PROTOCOLS = Path(__file__).parent / "protocols"


def _existing_metric(name: str) -> str:
    names = names_of("pixels", "slice", "scan")
    if name not in names:
        raise PydanticCustomError("literal_error", "not a metric", {"expected": ", ".join(map(repr, names))})
    return name


MetricName = Annotated[str, AfterValidator(_existing_metric)]
Two = Annotated[list[float], Field(min_length=2, max_length=2)]


class FixedWindow(Section):
    """The same interval of physical values for every scan."""

    type: Literal["fixed"] = "fixed"
    low: float = Field(-1000.0, description="HU or scanner units")
    high: float = Field(1000.0, description="HU or scanner units")

    @field_validator("high")
    @classmethod
    def _above(cls, high: float, info: Any) -> float:
        if "low" in info.data and high <= info.data["low"]:
            raise ValueError(f"found {high:g}, expected more than low ({info.data['low']:g})")
        return high


class PercentileWindow(Section):
    """Percentiles of all values of the reference scan."""

    type: Literal["percentiles"] = "percentiles"
    low: float = Field(0.0, ge=0, lt=100)
    high: float = Field(99.5, gt=0, le=100)


class TrainingWindow(Section):
    """What training maps to [-1, 1]: 0 and a percentile of the reference's foreground; for CT -1000 to 1000 HU."""

    type: Literal["training"] = "training"
    percentile: float = Field(99.5, gt=0, le=100)


Window = Annotated[
    Annotated[FixedWindow, Tag("fixed")]
    | Annotated[PercentileWindow, Tag("percentiles")]
    | Annotated[TrainingWindow, Tag("training")],
    Discriminator(lambda v: v.get("type", "fixed") if isinstance(v, dict) else getattr(v, "type", None)),
]


class Protocol(Section):
    """How two scans are compared. A change that changes ``digest`` needs a new name or version."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="lower case, no spaces")
    version: int = Field(ge=1)
    about: str = Field(description="what it is for, and where it comes from")
    faults: list[str] = Field([], description="what a reader of its figures has to know, in a protocol kept as it is")
    modality: Literal["CT", "MR", "PT", "any"] = Field("any", description="refuse scans of another one")
    window: Window = Field(FixedWindow(), description="both images are clipped to it")
    scale: Two | None = Field(None, description="what the window's ends become for SSIM; none: 0 and its width")
    data_range: Literal["window", "reference-slice"] = Field(
        "window", description="of PSNR and SSIM: the window's, or max - min of each reference slice"
    )
    metrics: list[MetricName] = Field(min_length=1)
    error_limits: Literal["window"] | Two = Field(
        "window", description="physical values that MAE, RMSE, bias and VIF are clipped to"
    )
    error_unit: Literal["physical", "scale"] = Field("physical", description="of MAE, RMSE and bias")
    vif_levels: float = Field(
        255.0, gt=0, description="VIF: grey levels that the limits span; the visual noise has variance 2 of them"
    )
    lpips: Annotated[list[str], Field(min_length=2, max_length=2)] | None = Field(
        None, description="for the metric lpips: files of AlexNet's weights and of LPIPS's linear ones (version 0.1)"
    )
    regions: list[Literal["image", "body"]] = Field(["image", "body"], min_length=1)
    slices: Literal["body", "all", "inner"] = Field(
        "body", description="those that show a body in the reference, all, or all but the first and last"
    )
    aggregate: Literal["slices", "volume"] = Field(
        "slices", description="a scan's figure: mean over its slices, or computed from all of them as one image"
    )
    noise: list[NoiseConfig] = Field([], description="the conditions of a study in this protocol")

    @field_validator("scale", "error_limits")
    @classmethod
    def _rising(cls, ends: list[float] | str | None) -> list[float] | str | None:
        if isinstance(ends, list) and ends[0] >= ends[1]:
            raise ValueError(f"found {shown(ends)}, expected the lower number first")
        return ends

    @model_validator(mode="after")
    def _weights_of_lpips(self) -> Protocol:
        if ("lpips" in self.metrics) != (self.lpips is not None):
            found = "metrics has lpips without" if self.lpips is None else "metrics has no lpips but found"
            raise ValueError(f"{found} the key lpips, expected both: the weights are the user's")
        for file in self.lpips or []:
            if not Path(file).is_file():
                raise ValueError(f"lpips: {file}: no such file, expected weights")
        return self

    @field_serializer("lpips")
    def _names_alone(self, files: list[str] | None) -> list[str] | None:
        """Records tell no path."""
        return files and [Path(file).name for file in files]

    @property
    def digest(self) -> str:
        """Eight hex digits of all that decides a figure's value, so that two protocols of one name are told apart.

        Which metrics and regions are reported decides no figure that is.
        """
        content = self.model_dump(exclude={"about", "faults", "metrics", "regions", "noise", "lpips"})
        if self.lpips is not None:
            content["lpips"] = [_sha256(file, Path(file).stat().st_mtime_ns) for file in self.lpips]
        content["noise"] = [noise.model_dump(exclude_unset=True) for noise in self.noise]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """What stands beside every figure."""
        return f"{self.name} v{self.version} ({self.digest})"

    @property
    def main_metrics(self) -> list[str]:
        """PSNR, the first SSIM and MAE, as far as they are among the metrics: what is printed large, and tested."""
        ssim = [name for name in self.metrics if METRICS[name].title == "SSIM"][:1]
        return [name for name in ("psnr", *ssim, "mae") if name in self.metrics]

    def record(self) -> ProtocolRecord:
        """What a record keeps of it."""
        derived = {"label": self.label, "digest": self.digest, "described": self.described()}
        return ProtocolRecord(**self.model_dump(mode="json"), **derived, main_metrics=self.main_metrics)

    def described(self) -> str:
        """The window in words."""
        window = self.window
        if isinstance(window, FixedWindow):
            return f"{window.low:g} to {window.high:g}"
        if isinstance(window, PercentileWindow):
            return f"percentiles {window.low:g} and {window.high:g} of the reference"
        return f"0 to percentile {window.percentile:g} of the reference's foreground (CT: -1000 to 1000 HU)"


class ProtocolRecord(BaseModel):
    """A protocol as the record of a study keeps it, whatever today's protocols are. described: the window in words."""

    model_config = ConfigDict(extra="allow")
    name: str
    label: str
    about: str
    faults: list[str]
    scale: list[float] | None
    metrics: list[str]
    main_metrics: list[str] = []
    error_unit: str
    regions: list[str]
    slices: str
    described: str = ""

    @property
    def errors_on_scale(self) -> bool:
        return self.error_unit == "scale"


@lru_cache
def _sha256(file: str, changed: int) -> str:
    """Of the content of a file, read again where it has changed."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def protocol_names() -> list[str]:
    """Names of the protocols that ship with the package."""
    return sorted(file.stem for file in PROTOCOLS.glob("*.yaml"))


def load_protocol(name: str | os.PathLike[str]) -> Protocol:
    """A shipped protocol by its name, or the protocol in a YAML file.

    Raises:
        UserError: one line with file, field, what was found and what was expected. A file may not take a shipped
            protocol's name, since its figures would be taken for that protocol's.
    """
    text = os.fspath(name)
    shipped = text in protocol_names()
    file = PROTOCOLS / f"{text}.yaml" if shipped else Path(text)
    if not shipped and not file.exists():
        raise UserError(f"{text}: no such protocol, expected a YAML file or one of: {', '.join(protocol_names())}")
    where = f"protocol {text}" if shipped else text
    protocol = validated(read_file(file), where, Protocol)
    if not shipped and protocol.name in protocol_names() and protocol.digest != load_protocol(protocol.name).digest:
        raise UserError(f"{where}: name: found {protocol.name!r}, which ships with the package, expected another")
    return protocol
