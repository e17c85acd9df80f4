"""``cdm4mi demo``: see real slices restored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo


def demo(
    out: Annotated[Path, typer.Option(help="folder for the DICOM files and pictures")] = Path("demo"),
    model: Annotated[Path | None, typer.Option(help="a checkpoint (default: the model that ships)")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="first train a small model on phantoms, some minutes, and use it")
    ] = False,
    variance: Annotated[float, typer.Option(min=0.0001, max=1.0, help="of the noise, on [-1, 1]")] = 0.05,
    seed: Annotated[int, typer.Option(help="decides the noise and every sample")] = 0,
) -> None:
    """Add noise to real CT and MR slices, restore them, and show the result beside non-local means."""
    import time

    from rich.console import Console
    from rich.table import Table

    from cdm4mi.errors import UserError
    from cdm4mi.models.checkpoint import load_model

    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    if train:
        if model is not None:
            raise UserError("--train and --model: found both, expected one (--train makes the model)")
        model = _train_small(out)
    trained = load_model(model)

    from cdm4mi.evaluation.demo import demo_slices

    with console.status("restoring") as status:
        scores = demo_slices(trained, out, variance, seed, lambda name: status.update(f"restoring {name}"))
    table = Table(title=f"Gaussian noise, variance {variance:g} on [-1, 1]; model {trained.name}")
    for column in ("slice", "method", "PSNR (dB)", "SSIM", "MAE (HU or scanner units)"):
        table.add_column(column, justify="left" if column in ("slice", "method") else "right")
    previous = None
    for s in scores:
        if previous not in (None, s.scan):
            table.add_section()
        previous = s.scan
        table.add_row(s.scan, s.method, f"{s.psnr:.2f}", f"{s.ssim:.3f}", f"{s.mae:.1f}")
    console.print(table)
    console.print("PSNR and SSIM over the window of each slice: CT -1000 to 1000 HU, MR 0 to its 99.5th percentile.")
    console.print(f"Pictures: {out}/*.png   DICOM: {out}/*-noisy.dcm, {out}/*-restored.dcm, records: *.json")
    console.print(f"Took {time.monotonic() - began:.0f} s. Not for clinical use.")


def _train_small(out: Path) -> Path:
    from cdm4mi.config import load_config
    from cdm4mi.training.run import train as run_training

    folder = out / "trained"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    echo(f"training the preset phantom-small into {folder}")
    return run_training(load_config("phantom-small"), folder, resume=checkpoint.exists())
