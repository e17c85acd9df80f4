"""``cdm4mi denoise IN OUT``: restore a scan, or every scan of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi import choices
from cdm4mi.choices import EstimateName, ModalityName, PrecisionName, SpacingName, StartName
from cdm4mi.cli.options import Deidentify, DeidentifyKey, KeepBurnedIn, deidentification, with_options
from cdm4mi.cli.terminal import echo
from cdm4mi.cli.trust import print_report
from cdm4mi.errors import counted

if TYPE_CHECKING:
    from cdm4mi.inference.record import DenoiseRecord
    from cdm4mi.trust.during import ReportWhileRestoring


def denoise(
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="a scan (NIfTI, a DICOM file, a series' folder ...), or many: a folder tree, a pattern in quotes, "
            "a CSV with a column path, a BIDS dataset",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="where the restored scan goes, of the same kind; of many scans, a folder"),
    ],
    model: Annotated[
        Path | None, typer.Option(help="a checkpoint or a run's folder (default: the model that ships with cdm4mi)")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="the experiment file of a checkpoint that does not hold its own")
    ] = None,
    estimate: Annotated[
        EstimateName | None,
        typer.Option(help="the mean (least error), one sample (true texture), or the mean of samples"),
    ] = None,
    solver: Annotated[choices.SolverName | None, typer.Option(help="for samples")] = None,
    steps: Annotated[int | None, typer.Option(help="steps of a sample, a network call each (heun: two)")] = None,
    spacing: Annotated[SpacingName | None, typer.Option(help="how the steps are spread over the path")] = None,
    start_from: Annotated[
        StartName | None, typer.Option(help="begin from noise, or in the middle of the path from the scan itself (y)")
    ] = None,
    start_level: Annotated[
        float | None,
        typer.Option(help="noise level at which it begins from y, on [-1, 1] (default: 3 times the scan's)"),
    ] = None,
    eta: Annotated[float | None, typer.Option(help="ddim: 0 deterministic to 1 as noisy as ddpm")] = None,
    clip: Annotated[
        bool | None,
        typer.Option("--clip/--no-clip", help="samples: bring every x0_hat into the window (default: model's)"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="K of mean-of-k")] = None,
    orientations: Annotated[
        int | None,
        typer.Option(help="1, 2 or 4 mirror images to average over: a little less error, as many times the time"),
    ] = None,
    planes: Annotated[
        str | None,
        typer.Option(
            metavar="auto|1|3",
            help="3: a volume's slices along rows and columns too, for the mean of the three: less error, three times "
            "the time (default: the model's; auto, the shipped one's: for the mean, where voxels are near cubes)",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="0 to 1: how much is taken away at the frequencies of small lesions (default: 1, all)"),
    ] = None,
    keep_low_frequencies: Annotated[
        str | None,
        typer.Option(metavar="CYCLES", help="cycles a pixel up to which slices keep the scan's own, or auto: 0.02"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="decides every sample")] = 0,
    noise: Annotated[
        float | None, typer.Option(help="standard deviation of the scan's noise in its units (default: measured)")
    ] = None,
    modality: Annotated[ModalityName | None, typer.Option(help="where the file does not say (NIfTI)")] = None,
    series: Annotated[int | None, typer.Option(help="which series, where the input holds several")] = None,
    like: Annotated[
        Path | None, typer.Option(help="a scan whose headers the output takes (a DICOM series for a NIfTI input)")
    ] = None,
    deidentify: Deidentify = False,
    deidentify_key: DeidentifyKey = None,
    keep_burned_in: KeepBurnedIn = False,
    uncertainty: Annotated[
        Path | None, typer.Option(help="write the standard deviation of every voxel here (estimate mean-of-k)")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="a folder for trust.json and the page trust.html: what was taken away (each of many under its path)"
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="write nothing and exit with code 3 where the model was not trained for the scan; exit with it after "
            "the work where the verdict is bad",
        ),
    ] = False,
    contrast: Annotated[
        list[Path] | None,
        typer.Option(help="another scan of the patient on the same grid, for a model trained with contrasts (repeat)"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an output that exists")] = False,
    phase: Annotated[
        bool, typer.Option("--phase", help="restore a phase or a field map too, of which the model knows nothing")
    ] = False,
    tile: Annotated[int | None, typer.Option(help="side of the sliding window, pixels")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="slices at a time (default: what is fastest)")] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="that the process may take, such as 2G (default: half of a GPU's, little on a CPU)"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    precision: Annotated[
        PrecisionName, typer.Option(help="number format of the network; auto: the fastest that the device has")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="processor cores to use (default: all)")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="many scans: processes on this machine, one a GPU where it has several")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="many scans: the address of a running Dask cluster")] = None,
    shard: Annotated[str | None, typer.Option(help="many scans: only the i-th of n parts, i/n, for job arrays")] = None,
) -> None:
    """Restore a scan: same format, same geometry, same units; a JSON record goes beside it. Not for clinical use.

    Of many scans each goes below OUT under its path below IN, with a table archive.csv; the same command goes on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.archive.restore import Job, model_of
    from cdm4mi.cli.archive import archive_at, denoise_archive, spread_of
    from cdm4mi.errors import Refused
    from cdm4mi.inference.denoise import denoise_file
    from cdm4mi.io import refuse_existing
    from cdm4mi.trust.during import ReportWhileRestoring

    changes = {
        # a map of the uncertainty needs samples
        "estimate": estimate or ("mean-of-k" if uncertainty else None),
        "solver": solver,
        "steps": steps,
        "spacing": spacing,
        "start_from": start_from,
        "start_level": start_level,
        "eta": eta,
        "clip": clip,
        "samples": samples,
        "orientations": orientations,
        "planes": int(planes) if planes and planes.isdecimal() else planes,
        "strength": strength,
        "keep_low_frequencies": keep_low_frequencies and _number(keep_low_frequencies),
        "tile": tile,
    }
    job = Job(
        out,
        model,
        config,
        tuple(changes.items()),
        seed=seed,
        noise=noise,
        modality=modality,
        deidentify=deidentification(deidentify, deidentify_key, keep_burned_in),
        phase=phase,
        force=force,
        device=device,
        precision=precision,
        batch=batch,
        memory=memory,
        threads=threads,
        reports=report,
        strict=strict,
    )
    spread = spread_of(workers, scheduler, shard)
    of_one_scan = {"series": series, "like": like, "uncertainty": uncertainty, "contrasts": contrast}
    if archive := archive_at(scan, out, of_one_scan, spread):
        denoise_archive(archive, job, spread)
        return
    for output in [] if force else [out, *([uncertainty] if uncertainty else [])]:
        if output.resolve() != scan.resolve():  # which no option makes possible
            refuse_existing(output)
    trained, sampling = model_of(job)
    columns = (TextColumn("restoring"), BarColumn(), TextColumn("{task.completed}/{task.total} slices"))
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), transient=True, console=console, disable=not console.is_terminal)
    observer = None if report is None and not strict else ReportWhileRestoring(report, strict=strict, force=force)
    with bar:
        task = bar.add_task("restoring", total=None)
        record = denoise_file(
            scan,
            out,
            trained,
            sampling,
            **job.arguments(),
            series=series,
            like=like,
            uncertainty=uncertainty,
            contrasts=contrast or [],
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            observer=observer,
        )
    _report(out, uncertainty, record, observer)
    if strict and observer is not None and observer.refused:
        raise typer.Exit(Refused.code)


def _number(text: str) -> float | str:
    """A number, where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


def _report(out: Path, deviation: Path | None, record: DenoiseRecord, report: ReportWhileRestoring | None) -> None:
    for warning in record.warnings:
        echo(f"warning: {with_options(warning)}", err=True)
    echo(
        f"{out}: {counted(record.slices, 'slice')}{' in three planes' if record.settings['planes'] == 3 else ''}, "
        f"{counted(record.network_calls, 'network call')} a slice "
        f"({record.settings['estimate']}), {record.seconds} s; noise {_noise_text(record)}"
    )
    if (kept := record.kept_frequencies) is not None:
        unit = record.input.units or record.normalisation.unit
        echo(
            f"kept of the scan: frequencies up to {kept.cycles_per_pixel:.3g} cycles a pixel, which changed "
            f"{kept.put_back:.3g} {unit} (root mean square)"
        )
    if deviation is not None and (found := record.uncertainty) is not None:
        if found.calibrated:
            echo(
                f"{deviation}: standard deviation, calibrated for {found.kind}: {found.interval:.0%} of voxels within "
                f"{found.half_width_in_standard_deviations:.3f} of it ({found.coverage:.0%} measured)"
            )
        else:
            echo(f"{deviation}: standard deviation of the samples, not calibrated: {found.why}")
    if report is not None and report.report is not None:
        print_report(report.report, report.paths)


def _noise_text(record: DenoiseRecord) -> str:
    noise, unit = record.noise_level, record.input.units or record.normalisation.unit
    if not noise.estimated or noise.correlations is None:
        return f"given: sigma {noise.value:.4g} {unit}"
    rows, columns = noise.correlations
    found = [f"sigma {noise.value:.4g} {unit}", f"correlation of neighbours {rows:.2f} (rows), {columns:.2f} (columns)"]
    if noise.least is not None and noise.most is not None:
        found[0] += f" ({noise.least:.4g} to {noise.most:.4g} {unit} by slice)"
    found += ["MR magnitude"] if noise.magnitude else []
    found += ["varying over the slice"] if noise.varying else []
    return f"measured: {', '.join(found)}"
