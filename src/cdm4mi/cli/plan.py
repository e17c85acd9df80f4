"""``cdm4mi plan STORE``: plan the training on a store again, for this machine or for another time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo


def plan(
    store: Annotated[Path, typer.Argument(help="a store that cdm4mi prepare made")],
    minutes: Annotated[float, typer.Option(min=1, help="what the training may take")] = 60.0,
) -> None:
    """Write the plan of a store anew, for this machine. One that was changed by hand is kept."""
    from cdm4mi.planning.plan_file import write_plan

    planned = write_plan(store, minutes=minutes, anew=True)
    if planned.warning:
        echo(f"warning: {planned.warning}", err=True)
    if planned.plan is not None:
        echo(f"expected: {planned.plan.expected()}")
    echo(f"plan:     {planned.path}")
    echo(f"next:     cdm4mi train {store}")
    if planned.plan is None:
        raise typer.Exit(1)
