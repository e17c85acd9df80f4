"""Options of a command over the settings of a model, checked as a configuration is."""

from __future__ import annotations

from pydantic import ValidationError

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError


def changed(sampling: SamplingConfig, **options: object) -> SamplingConfig:
    """The sampling settings with the options that are not None in their place. Raises UserError for a bad value."""
    given = {name: value for name, value in options.items() if value is not None}
    if "steps" in given or "solver" in given:
        given.setdefault("estimate", "sample" if sampling.estimate == "mean" else sampling.estimate)
    if "samples" in given:
        given.setdefault("estimate", "mean-of-k")
    try:
        return SamplingConfig(**(sampling.model_dump() | given))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        raise UserError(f"--{name}: found {first['input']!r}, expected {first['msg'].lower()}") from None
