"""``cdm4mi noise IN OUT``: add simulated noise to a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.choices import ModalityName

Text = str | None
RANGE = "a number, or least,most to draw from"


def noise(
    scan: Annotated[Path, typer.Argument(metavar="IN", help="a scan: NIfTI, a DICOM file, a series' folder ...")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="where the noisy scan goes, of the same kind")],
    type: Annotated[
        str,
        typer.Option(
            help="gaussian, salt_and_pepper, speckle, downsampled (any scan); rician, noncentral_chi, undersampled "
            "(MR); low_dose_ct (CT); pet (approximate); or several: 'rician percent=5 + speckle'"
        ),
    ] = "gaussian",
    variance: Annotated[Text, typer.Option(help=f"gaussian: on [-1, 1] of the intensity window; {RANGE}")] = None,
    sigma_hu: Annotated[Text, typer.Option(help=f"gaussian, CT: standard deviation in HU; {RANGE}")] = None,
    percent: Annotated[
        Text,
        typer.Option(
            help="gaussian, rician, noncentral_chi: standard deviation in percent of bright tissue (the window's upper "
            f"end); {RANGE}"
        ),
    ] = None,
    variation: Annotated[Text, typer.Option(help="rician, noncentral_chi: how far the level varies, 0 to 1")] = None,
    coils: Annotated[Text, typer.Option(help="noncentral_chi: receiver coils")] = None,
    fraction: Annotated[Text, typer.Option(help=f"salt_and_pepper: share of the pixels; {RANGE}")] = None,
    extremes: Annotated[
        Text, typer.Option(help="salt_and_pepper: both, salt (lost to the upper end only) or pepper (the lower)")
    ] = None,
    relative: Annotated[
        Text, typer.Option(help=f"speckle: standard deviation as a share of the pixel's value; {RANGE}")
    ] = None,
    acceleration: Annotated[Text, typer.Option(help=f"undersampled: all lines over those kept; {RANGE}")] = None,
    centre: Annotated[Text, typer.Option(help="undersampled: share of the lines kept around k = 0")] = None,
    factor: Annotated[Text, typer.Option(help=f"downsampled: pixel size over the scan's, in-plane; {RANGE}")] = None,
    method: Annotated[
        Text, typer.Option(help="downsampled: average (means over blocks), or kspace (MR: outer k-space zeroed)")
    ] = None,
    dose: Annotated[Text, typer.Option(help=f"low_dose_ct: share of the scan's dose; {RANGE}")] = None,
    target_hu: Annotated[
        Text,
        typer.Option(
            help="low_dose_ct, instead of a dose: standard deviation in HU of what is added in the middle of the body "
            f"(over the whole scan, air and all, it is less); {RANGE}"
        ),
    ] = None,
    i0: Annotated[Text, typer.Option(help="low_dose_ct: photons a ray without the patient, at full dose")] = None,
    electronic: Annotated[Text, typer.Option(help="low_dose_ct: variance of the electronic noise, photons^2")] = None,
    views: Annotated[Text, typer.Option(help="low_dose_ct: projections")] = None,
    geometry: Annotated[Text, typer.Option(help="low_dose_ct: parallel or fan")] = None,
    filter: Annotated[Text, typer.Option(help="low_dose_ct: ram-lak or hann")] = None,
    thinning: Annotated[Text, typer.Option(help="low_dose_ct: true where the scan has the noise of i0 already")] = None,
    count_fraction: Annotated[Text, typer.Option(help=f"pet: share of the counts kept; {RANGE}")] = None,
    counts: Annotated[Text, typer.Option(help="pet: events in a voxel at the window's upper end, full count")] = None,
    fwhm_mm: Annotated[Text, typer.Option(help="pet: width of the point spread at half maximum")] = None,
    seed: Annotated[int, typer.Option(min=0, help="decides the noise")] = 0,
    modality: Annotated[ModalityName | None, typer.Option(help="where the file does not say (NIfTI)")] = None,
    series: Annotated[int | None, typer.Option(help="which series, where the input holds several")] = None,
    like: Annotated[Path | None, typer.Option(help="a scan whose headers the output takes")] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="apply the Basic Profile of DICOM PS3.15 to what is written")
    ] = False,
) -> None:
    """Add simulated noise to a scan: same format, same geometry, same units; a JSON record goes beside it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.config.noise_words import noise_from_words
    from cdm4mi.data.add_noise import noise_file

    parameters = {
        "variance": variance,
        "sigma_hu": sigma_hu,
        "percent": percent,
        "variation": variation,
        "coils": coils,
        "fraction": fraction,
        "extremes": extremes,
        "relative": relative,
        "acceleration": acceleration,
        "centre": centre,
        "factor": factor,
        "method": method,
        "dose": dose,
        "target_hu": target_hu,
        "i0": i0,
        "electronic": electronic,
        "views": views,
        "geometry": geometry,
        "filter": filter,
        "thinning": thinning,
        "count_fraction": count_fraction,
        "counts": counts,
        "fwhm_mm": fwhm_mm,
    }
    section = noise_from_words(type, parameters)
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
            deidentify=deidentify,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for warning in record["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    unit = record["input"]["units"] or ("HU" if record["normalisation"]["modality"] == "CT" else "scanner units")
    said = f"{record['noise']['type']} noise of level {record['noise_level']:.4g} {unit}"
    typer.echo(f"{out}: {record['slices']} slices, {said}")
