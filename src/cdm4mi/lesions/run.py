"""A lesion test of one model on some scans, beside the input and classical denoisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cdm4mi import io
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.names import patient_hash, patient_name
from cdm4mi.data.store import slice_hash
from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.intensity import modality_of, window_for
from cdm4mi.io import Volume
from cdm4mi.lesions.measure import measure
from cdm4mi.lesions.methods import INPUT, classical, trained, untouched
from cdm4mi.lesions.record import LesionTest
from cdm4mi.lesions.shapes import pixel_size
from cdm4mi.lesions.tissue import find_tissue
from cdm4mi.models.checkpoint import TrainedModel, load_model

SIZES = (5.0, 7.0, 10.0)
"""Pixels."""
CONTRASTS_HU = (-20.0, -40.0, -60.0)
CONTRASTS_PERCENT = (-3.0, -6.0, -10.0)
"""Of the intensity window's width, for scans without a unit of their own."""
NOISES = {
    "CT": ("low_dose_ct dose=0.25", "low_dose_ct dose=0.1"),
    "MR": ("rician percent=5", "rician percent=9"),
    "PT": ("pet",),
}
"""By modality: what is added where nothing is asked for."""
AS_IT_IS = "none"
"""The noise that leaves a scan as it is."""
CLASSICAL = {"NLM": "nlm", "BM3D": "bm3d"}


def lesion_test(
    scans: Sequence[Volume | str | Path],
    model: TrainedModel | str | Path | None = None,
    *,
    sizes: Sequence[float] = SIZES,
    in_mm: bool = False,
    contrasts: Sequence[float] | None = None,
    in_percent: bool = False,
    noises: Sequence[str] = (),
    sphere: bool = False,
    sites: int = 12,
    repeats: int = 6,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    modality: str | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LesionTest:
    """Put lesions into flat tissue of scans, add noise, restore with and without them, and compare.

    Args:
        scans: clean grey scans of one modality, that the model was not trained on, or their paths.
        model: from ``load_model`` or a path; the shipped one when None.
        sizes: diameters in pixels, or in mm (``in_mm``).
        contrasts: in the scans' units, or percent of the width of a scan's intensity window (``in_percent``); by
            default of CT -20, -40 and -60 HU, of others -3, -6 and -10 %.
        noises: as ``cdm4mi noise --type`` takes them with their keys, "rician percent=5", or "none" for the scan as it
            is; by default those of ``NOISES``.
        sphere: balls over several slices in the place of discs in one.
        sites: most lesions in a scan, all in its flattest slice.
        repeats: draws of noise.
        sampling: how the model samples, its own way when None.
        seed: decides noise and samples.
        modality: where the files do not say.
        progress: called with (steps done, steps).

    Raises:
        UserError: for scans of several modalities, without flat tissue or of the model's training (as far as its file
            says whom it was trained on), and for noise that does not suit them.
    """
    chosen = model if isinstance(model, TrainedModel) else load_model(model)
    if not scans:
        raise UserError("scans: found none, expected at least one")
    if repeats < 2 or sites < 2 or repeats * sites < 8:
        raise UserError(f"found {repeats} `repeats` of {sites} `sites`, expected at least 2 of each, and 8 lesions")
    read = [scan if isinstance(scan, Volume) else io.read(scan) for scan in scans]
    read = [replace(scan, modality=modality_of(replace(scan, modality=modality or scan.modality))) for scan in read]
    for given, scan in zip(scans, read, strict=True):
        _refuse_trained(chosen, scan, None if isinstance(given, Volume) else Path(given))
    kinds = sorted({scan.modality or "" for scan in read})
    if len(kinds) > 1 or kinds[0] not in NOISES:
        raise UserError(f"scans: found {', '.join(kinds)}, expected scans of one of CT, MR and PT")
    specs = noises or NOISES[kinds[0]]
    sections = {spec: None if spec == AS_IT_IS else noise_from_spec(spec, {}) for spec in specs}
    if contrasts is None:
        in_percent = kinds[0] != "CT"
        contrasts = CONTRASTS_PERCENT if in_percent else CONTRASTS_HU
    if not sizes or min(sizes) <= 0:
        raise UserError(field="sizes", found=min(sizes, default="none"), expected="diameters above 0")
    if not contrasts or 0 in contrasts:
        raise UserError("contrasts: found 0, or none, expected numbers other than 0")
    methods = {INPUT: untouched()}
    methods |= {name: classical(type) for name, type in CLASSICAL.items() if BASELINES[type].installed}
    title = chosen.name.partition(":")[0] or "model"
    methods[title] = trained(chosen, sampling, seed, device)
    tissues = []
    for scan in read:
        window = window_for(scan)
        unit = (window.high - window.low) / 100 if in_percent else 1.0
        widest = max(sizes) / (pixel_size(scan.spacing) if in_mm else 1.0)
        tissues.append(find_tissue(scan, sites, widest, methods[title].beside, unit))
    draws = sum(1 if section is None else repeats for section in sections.values())
    done, total = 0, len(tissues) * len(methods) * draws

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    cells = [
        cell
        for spec, noise in sections.items()
        for cell in measure(
            tissues,
            methods,
            noise,
            spec,
            sizes,
            contrasts,
            in_mm=in_mm,
            sphere=sphere,
            repeats=repeats,
            seed=seed,
            progress=step,
        )
    ]
    return LesionTest(
        model=chosen.name,
        weight_hash=chosen.weight_hash,
        model_title=title,
        settings=(sampling or chosen.config.sampling).model_dump(mode="json"),
        modality=kinds[0],
        unit="% of the window" if in_percent else read[0].units or window_for(read[0]).unit,
        in_percent=in_percent,
        shape="sphere" if sphere else "disc",
        sites=sum(len(part.sites) for part in tissues),
        repeats=repeats,
        seed=seed,
        inputs=[io.input_record(scan) for scan in read],
        cells=cells,
    )


def _refuse_trained(model: TrainedModel, scan: Volume, path: Path | None) -> None:
    """Raise UserError for a scan, or the patient by its path, that the model was trained on or chosen by."""
    data = model.about.data
    by_name = path is not None and patient_hash(patient_name(path)) in {*data.patients_train, *data.patients_val}
    if by_name or {slice_hash(image)[:8].hex() for image in scan.slices()} & set(data.slice_hashes):
        raise UserError(f"scan: found one that {model.name} was trained on, expected one that it has not seen")
