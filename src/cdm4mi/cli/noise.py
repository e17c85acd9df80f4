"""``cdm4mi noise IN OUT``: add simulated noise to a scan."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args, get_origin

import typer

from cdm4mi.choices import ModalityName
from cdm4mi.cli.options import Deidentify, DeidentifyKey, KeepBurnedIn, deidentification, with_options
from cdm4mi.cli.terminal import echo
from cdm4mi.degradation.registry import SIMULATED
from cdm4mi.errors import counted


def _help_of_type() -> str:
    """The names of the noises, by the modalities that they are for."""
    groups: dict[str, list[str]] = {}
    for name, noise in SIMULATED.items():
        modalities = [m for m in noise(type=name).modalities if m]
        groups.setdefault("any scan" if "RGB" in modalities else ", ".join(modalities), []).append(name)
    names = "; ".join(f"{', '.join(names)} ({where})" for where, names in groups.items())
    return f"{names}; or several: 'rician percent=5 + speckle'"


def _help_of_keys() -> dict[str, str]:
    """For each key of the noises: which have it, and what it is."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, noise in SIMULATED.items():
        for key, field in noise.model_fields.items():
            if key != "type":
                ranged = any(get_origin(get_args(a)[0]) is list for a in get_args(field.annotation) if get_args(a))
                text = f"{field.description}; a number, or least,most to draw from" if ranged else field.description
                found.setdefault(key, {}).setdefault(text or "", []).append(name)
    return {
        key: ". ".join(f"{', '.join(names)}: {text}" for text, names in texts.items()) for key, texts in found.items()
    }


def _with_keys_of_noises(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each key of the noises in place of its ``**parameters``."""
    signature = inspect.signature(command, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    keys = [
        inspect.Parameter(key, fixed[-1].kind, default=None, annotation=Annotated[str | None, typer.Option(help=text)])
        for key, text in _help_of_keys().items()
    ]
    command.__signature__ = signature.replace(parameters=[*fixed, *keys])  # type: ignore[attr-defined]
    return command


@_with_keys_of_noises
def noise(
    scan: Annotated[Path, typer.Argument(metavar="IN", help="a scan: NIfTI, a DICOM file, a series' folder ...")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="where the noisy scan goes, of the same kind")],
    *,
    type: Annotated[str, typer.Option(help=_help_of_type())] = "gaussian",
    seed: Annotated[int, typer.Option(min=0, help="decides the noise")] = 0,
    modality: Annotated[ModalityName | None, typer.Option(help="where the file does not say (NIfTI)")] = None,
    series: Annotated[int | None, typer.Option(help="which series, where the input holds several")] = None,
    like: Annotated[Path | None, typer.Option(help="a scan whose headers the output takes")] = None,
    deidentify: Deidentify = False,
    deidentify_key: DeidentifyKey = None,
    keep_burned_in: KeepBurnedIn = False,
    force: Annotated[bool, typer.Option("--force", help="replace an output that exists")] = False,
    **parameters: str | None,
) -> None:
    """Add simulated noise to a scan: same format, same geometry, same units; a JSON record goes beside it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.config.noise_spec import noise_from_spec
    from cdm4mi.data.add_noise import noise_file

    removal = deidentification(deidentify, deidentify_key, keep_burned_in)
    section = noise_from_spec(type, parameters)
    columns = (TextColumn("adding noise"), BarColumn(), TextColumn("{task.completed}/{task.total} slices"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), transient=True, console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("adding noise", total=None)
        record = noise_file(
            scan,
            out,
            section,
            seed=seed,
            modality=modality,
            series=series,
            like=like,
            deidentify=removal,
            force=force,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for warning in record.warnings:
        echo(f"warning: {with_options(warning)}", err=True)
    unit = record.input.units or record.normalisation.unit
    message = f"{record.noise['type']} noise of level {record.noise_level:.4g} {unit}"
    echo(f"{out}: {counted(record.slices, 'slice')}, {message}")
