"""``cdm4mi train CONFIG``: train a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo
from cdm4mi.files import below


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="a store of prepare (its plan), a YAML file, ours or the original work's, a preset, or a model to "
            "fine-tune: shipped, a checkpoint or a run's folder"
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings over the file's, as max_tsteps=100")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/NAME)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that was stopped, or begin it")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="show a progress bar")] = True,
) -> None:
    """Train a conditional diffusion model; checkpoints, logs and pictures go to the run's folder."""
    from cdm4mi.planning.settings import settings_of

    settings = settings_of(config, overrides or [])
    folder = out or below(Path("runs"), settings.name)

    from cdm4mi.training.processes import is_first
    from cdm4mi.training.run import train as run_training

    last = run_training(settings, folder, resume=resume, progress=progress)
    if not is_first():
        return
    echo(f"trained: {last}")
    echo(f"best:    {last.with_name('best.ckpt')}")
    echo(f"logs:    {folder / 'logs'} (CSV), tensorboard --logdir {folder / 'tensorboard'}")
    echo(f"next:    cdm4mi denoise SCAN OUT --model {folder}")
