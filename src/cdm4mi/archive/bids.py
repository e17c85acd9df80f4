"""BIDS: the images of a dataset that are restored, and the derivative dataset that their restorations are."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from cdm4mi import __version__
from cdm4mi.archive.series import Archive, Series, unlisted
from cdm4mi.archive.table import Row
from cdm4mi.errors import UserError
from cdm4mi.files import readable, replacing_file
from cdm4mi.io.folders import Unlisted, folders_under

DESCRIPTION = "dataset_description.json"
SUFFIXES = {
    "anat": ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "inplaneT1", "inplaneT2", "PDT2", "angio"),
    "dwi": ("dwi", "sbref"),
    "func": ("bold", "sbref", "cbv"),
}
"""What is restored: magnitude images, by the folder of their kind. Maps, masks and field maps are passed over."""
_NAME = re.compile(r"(?P<entities>sub-[^_]+(?:_[A-Za-z0-9]+-[^_]+)*)_(?P<suffix>[A-Za-z0-9]+)(?P<ending>\.nii(\.gz)?)")
_BESIDE = (".bval", ".bvec")
_RAW = "raw"
"""The name of the source dataset in BIDS URIs."""
_PHYSICS = {
    "EchoTime", "EffectiveEchoSpacing", "FlipAngle", "InversionTime", "MagneticFieldStrength", "PhaseEncodingDirection",
    "RepetitionTime", "SkullStripped", "SliceThickness", "SliceTiming", "TaskName", "TotalReadoutTime",
}  # fmt: skip
"""Fields of a sidecar that name nobody, the only ones that are kept beside a de-identified image."""


_IGNORED = ("*.cdm4mi.json", "archive*.csv", "*_dwi.bval", "*_dwi.bvec")
"""The records, the tables, and the gradients of derived diffusion images, which BIDS names in its text but for which
bids-validator has no rule."""
_README = """\
The images of another BIDS dataset, the noise of which was taken away by cdm4mi {version}, a diffusion model for medical
images. dataset_description.json names the dataset. Beside each image are its sidecar, whose Sources names the image
that it was made from, and a record (*.cdm4mi.json) of the model, its weights, the settings and the noise that was
measured; archive.csv is a table of all images. For research: not for clinical use.
"""


def is_dataset(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS dataset. Raises UserError where the description of one is damaged."""
    description = folder / DESCRIPTION
    if description.exists() and "BIDSVersion" not in _json(description):
        raise UserError(f"{description}: found no readable JSON object with a BIDSVersion, expected that of a dataset")
    return description.exists()


def find(root: Path) -> Archive:
    """The images below ``sub-*`` that are restored, and a row for each that is passed over, with the reason."""
    archive, closed = Archive(dataset=root), list[Unlisted]()
    for subject in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        for folder, files in folders_under(subject, unlisted=closed):
            for file in files:
                if file.name.endswith((".nii", ".nii.gz")):
                    _add(archive, root, folder.name, file)
    archive.problems += unlisted(closed)
    return archive


def _add(archive: Archive, root: Path, kind: str, file: Path) -> None:
    named, suffixes = _NAME.fullmatch(file.name), SUFFIXES.get(kind, ())
    reason = ""
    if named is None:
        reason = "has no name of BIDS, sub-..._suffix.nii.gz"
    elif named["suffix"] not in suffixes:
        reason = f"{kind}/: expected {', '.join(suffixes)}" if suffixes else f"{kind}/: expected {', '.join(SUFFIXES)}"
    elif part := re.search(r"_part-(phase|real|imag)(_|$)", named["entities"]):
        reason = f"part-{part[1]}: expected a magnitude"
    if named is None or reason:
        archive.problems.append(Row(str(file), "", "passed", reason))
        return
    target = file.relative_to(root).with_name(_derived(named["entities"]) + f"_{named['suffix']}{named['ending']}")
    archive.series.append(Series(str(file), target.as_posix(), (file,), dataset=root))


def _derived(entities: str) -> str:
    """The entities of an image's name with ``desc-denoised``, the last of them; another description is gone on with."""
    before, found, description = entities.partition("_desc-")
    return f"{before}_desc-{description}Denoised" if found else f"{entities}_desc-denoised"


def begin_derivative(root: Path, out: Path) -> None:
    """Write what makes ``out`` a derivative of the dataset ``root``: its description, and what validators pass over."""
    source = _json(root / DESCRIPTION)
    where = Path(os.path.relpath(root.resolve(), out.resolve())).as_posix()
    described = {
        "Name": f"{source.get('Name', 'BIDS dataset')}: denoised",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "cdm4mi", "Version": __version__, "Description": "Noise taken away by a diffusion model"}
        ],
        "SourceDatasets": [{"URL": source.get("DatasetDOI") or where}],
        "DatasetLinks": {_RAW: where},
    }
    if "License" in source:
        described["License"] = source["License"]
    _write(out / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    _write(out / ".bidsignore", "".join(f"{pattern}\n" for pattern in _IGNORED))
    _write(out / "README", _README.format(version=__version__))


def finish(root: Path, image: Path, output: Path, deidentified: bool) -> None:
    """Write the sidecar of a restored image, and copy the gradients of a diffusion series beside it."""
    fields: dict[str, Any] = {}
    if _json(root / DESCRIPTION).get("DatasetType", "raw") == "raw":
        fields["SkullStripped"] = False  # unless a sidecar says so; a derivative has to say it
    for sidecar in _inherited(root, image, ".json"):
        fields |= _json(sidecar)
    if deidentified:
        fields = {name: value for name, value in fields.items() if name in _PHYSICS}
    if isinstance(kinds := fields.get("ImageType"), list) and kinds:
        fields["ImageType"] = ["DERIVED", *kinds[1:]]
    fields |= {
        "Description": "Noise taken away by a diffusion model; the record beside it says which, and how",
        "Sources": [f"bids:{_RAW}:{image.relative_to(root).as_posix()}"],
    }
    _write(_beside(output, ".json"), json.dumps(fields, indent=2) + "\n")
    for end in _BESIDE:
        if found := _inherited(root, image, end):
            with replacing_file(_beside(output, end)) as temporary:
                shutil.copyfile(found[-1], temporary)


def _inherited(root: Path, image: Path, end: str) -> list[Path]:
    """The files of an ending that are about an image by BIDS's principle of inheritance, the nearest to it last."""
    suffix, entities = _parts(_beside(image, ""))
    found: list[Path] = []
    for folder in [folder for folder in reversed(image.parents) if folder == root or root in folder.parents]:
        fitting = []
        for file in folder.glob(f"*{suffix}{end}"):
            its_suffix, its_entities = _parts(file.with_suffix(""))
            if its_suffix == suffix and its_entities <= entities:
                fitting.append((len(its_entities), file))
        found += [file for _, file in sorted(fitting)]
    return found


def _parts(path: Path) -> tuple[str, set[str]]:
    """(suffix, entities) of a name without its ending."""
    *entities, suffix = path.name.split("_")
    return suffix, set(entities)


def _beside(image: Path, end: str) -> Path:
    """The file of another ending beside an image."""
    return image.with_name(re.sub(r"\.nii(\.gz)?$", end, image.name))


def _json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; nothing where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, text: str) -> None:
    """Write a text, if it is not there already."""
    if not file.is_file() or file.read_text(encoding="utf-8", errors="replace") != text:
        with replacing_file(file) as temporary:
            temporary.write_text(readable(text), encoding="utf-8")
