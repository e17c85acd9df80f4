"""Every check of a configuration and its data, one after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError
from cdm4mi.planning.checks.conditions import check_conditions
from cdm4mi.planning.checks.copies import check_doubled, check_splits
from cdm4mi.planning.checks.costs import check_memory, check_speed
from cdm4mi.planning.checks.sheet import contact_sheet
from cdm4mi.planning.checks.subject import Finding, load_subject
from cdm4mi.planning.checks.values import check_content, check_hounsfield, check_values
from cdm4mi.planning.cost import seconds_a_step
from cdm4mi.planning.machine import Machine, this_machine

READABLE = "mend what the line says; training would stop there too"


def check(
    config: Config,
    picture: str | Path | None = None,
    *,
    machine: Machine | None = None,
    timed: Callable[[Config, Machine], float] = seconds_a_step,
) -> list[Finding]:
    """The findings about a configuration and the data it names.

    picture: path of the contact sheet, if one is wanted; timed: seconds of a step, by default ``cost.seconds_a_step``.
    Data that cannot be read are a finding too.
    """
    machine = machine or this_machine()
    try:
        subject = load_subject(config)
    except UserError as error:
        return [Finding("data", "wrong", str(error), READABLE), check_memory(config, machine)]
    found = [
        *check_values(subject),
        *check_hounsfield(subject),
        *check_content(subject),
        *check_splits(subject),
        *check_doubled(subject),
        *check_conditions(subject),
        check_memory(config, machine),
        check_speed(subject, machine, timed),
    ]
    if picture is not None:
        contact_sheet(Path(picture), subject)
    return found
