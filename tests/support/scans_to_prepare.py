"""A folder of scans as a user has it: small NIfTI files of several people, and a DICOM series of one with a name."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import scans_on_disk

from cdm4mi.data.phantoms import phantom

SIDE = 64


def slices(modality: str, person: int, count: int = 3, side: int = SIDE) -> np.ndarray:
    """Whole-number slices (count, side, side) of one person, all different."""
    return np.round(np.stack([phantom(modality, 100 * person + k, side) for k in range(count)]))


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None, dtype: type = np.int16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([0.8, 0.7, 2.5, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(np.asarray(array).astype(dtype).T, affine), path)
    return path


def folder(root: Path, people: int = 6) -> Path:
    """``people`` MR scans and one CT series of a patient with a name."""
    for person in range(people):
        nifti(root / "mr" / f"sub-{person:02d}_T1w.nii.gz", slices("MR", person))
    scans_on_disk.dicom_series(root / "dicom" / "series")
    return root


def manifest(store: Path) -> dict:
    return json.loads((store / "manifest.json").read_text())


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, by its place in it; not the plan, which is this machine's."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file()]
    return {str(p.relative_to(store)): p.read_bytes() for p in files if p.name not in ("plan.yaml", "fingerprint.json")}
