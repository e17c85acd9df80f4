"""``cdm4mi view SCAN [RESTORED ...]``: scans side by side in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.choices import ModalityName
from cdm4mi.cli.options import with_options
from cdm4mi.cli.terminal import echo

LARGE = 100_000_000
"""Bytes of a page from which a phone may not open it."""


def view(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="a scan: NIfTI, a DICOM file, a series' folder ...")],
    restored: Annotated[
        list[Path] | None, typer.Argument(metavar="RESTORED", help="scans of the same voxels, to compare with it")
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="a map of standard deviations, as denoise --uncertainty writes it")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write one HTML file that holds everything, and end")] = None,
    modality: Annotated[ModalityName | None, typer.Option(help="where the file does not say (NIfTI)")] = None,
    series: Annotated[int | None, typer.Option(help="which series, where SCAN holds several")] = None,
    show_names: Annotated[
        bool, typer.Option("--show-names", help="title the pictures by their file names, which may name a patient")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="print the address, open no browser")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of this machine (default: any that is free)")] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace a page that exists")] = False,
) -> None:
    """Show a scan, what was restored from it, their difference and its uncertainty in a browser.

    Without --out, a server that only this machine can reach shows them until Ctrl-C. Not for clinical use.
    """
    from cdm4mi.files import refuse_inputs
    from cdm4mi.intensity import guess_notice
    from cdm4mi.io import read, refuse_existing
    from cdm4mi.viewer import make_scene, serving, write_page

    paths = [scan, *(restored or []), *([] if uncertainty is None else [uncertainty])]
    names = [path.name or str(path) for path in paths]
    if out is not None:
        refuse_inputs(out, paths)
        if not force:
            refuse_existing(out)
    volumes = [read(path, series if path is scan else None) for path in paths]
    results = volumes[1 : len(volumes) - (uncertainty is not None)]
    scene = make_scene(
        volumes[0], results, None if uncertainty is None else volumes[-1], names=names, modality=modality
    )
    for name, volume in zip(names, volumes, strict=True):
        for warning in volume.warnings:
            echo(f"warning: {name}: {warning}", err=True)
    for notice in guess_notice(volumes[0]) if modality is None else ():
        echo(f"notice: {with_options(notice)}", err=True)
    if show_names:
        for picture, name in zip(scene.pictures, names, strict=True):
            picture.title = name
    del volumes, results
    if out is not None:
        write_page(scene, out)
        size = out.stat().st_size
        echo(f"page: {out} ({size / 1e6:.1f} MB{', more than a phone may open' if size > LARGE else ''})")
        return
    with serving(scene, port) as server:
        echo(f"{server.address} (Ctrl-C ends it)")
        sys.stdout.flush()
        if not no_browser and _has_display():
            webbrowser.open(server.address)
        server.serve_forever()


def _has_display() -> bool:
    """Whether a browser has a screen to open on: without one, Python would start one that takes over the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
