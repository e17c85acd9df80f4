"""A user's choices over the sampling settings of a model, checked as a configuration is."""

from __future__ import annotations

from pydantic import ValidationError

from cdm4mi.choices import SOLVERS
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError


def changed(sampling: SamplingConfig, **options: object) -> SamplingConfig:
    """The sampling settings with the options that are not None in their place.

    Without an ``estimate``, samples asks for the mean of that many, and steps, solver and the like for a sample, where
    the model's own estimate is the mean, which has no use for them (clip too: a mean of one call is never clipped).
    Steps, spacing or a start take the place of the model's explicit times; clip, true or false, that of its dynamic
    threshold. Raises UserError for a bad value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "samples" in given:
        given.setdefault("estimate", "mean-of-k")
    if "start_level" in given:
        given.setdefault("start_from", "y")
    if sampling.estimate == "mean" and given.keys() & {"steps", "solver", "eta", "spacing", "start_from"}:
        given.setdefault("estimate", "sample")
    if sampling.estimate == "mean" and given.get("clip"):
        given.setdefault("estimate", "sample")
    if "clip" in given:
        given.setdefault("dynamic_threshold", None)
    if given.keys() & {"steps", "spacing", "start_from", "start_level"}:  # another choice of times
        given.setdefault("times", None)
    try:
        made = SamplingConfig(**(sampling.model_dump() | given))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        reason = first.get("ctx", {}).get("error")
        expected = str(reason) if reason else first["msg"].removeprefix("Input should be ").lower()
        if first["type"] == "extra_forbidden":
            expected = f"one of the settings {', '.join(SamplingConfig.model_fields)}"
            raise UserError(f"sampling: found {name}, expected {expected}") from None
        raise UserError(field=name, found=repr(first["input"]), expected=expected) from None
    if given.get("eta") and not SOLVERS[made.solver].takes_eta:
        takers = ", ".join(name for name, entry in SOLVERS.items() if entry.takes_eta)
        raise UserError(field="eta", found=f"{made.eta:g} for the solver {made.solver}", expected=f"solver {takers}")
    return made
