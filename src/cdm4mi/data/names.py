"""Which patient a file belongs to, told from its path; and what a store calls a patient."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from cdm4mi.files import readable

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""The parts that patients are given to."""


def pseudonym(name: str) -> str:
    """What a store calls a patient: a hash, by which one whose name is known can be found again."""
    return "patient-" + hashlib.sha256(name.encode()).hexdigest()[:10]


def patient_hash(name: str) -> str:
    """What a checkpoint holds of a patient: enough to find one again whose name is at hand, not to learn the name."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def patient_name(path: Path) -> str:
    """A name that tells patients apart: the last BIDS label (sub-01) in the path, else the file's or folder's own."""
    labels = re.findall(r"sub-[A-Za-z0-9]+", str(path))
    return labels[-1] if labels else re.sub(r"(\.(nii|mha|mhd|nrrd|h5|hdf5|dcm|gz))+$", "", readable(path.name).lower())


def patient_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path: in folders with a file name that repeats (john/t1.nii, jane/t1.nii), the folder's."""
    names = [patient_name(path) for path in paths]
    alone = Counter(name for name in names if not name.startswith("sub-"))
    repeated = {name for name, count in alone.items() if count > 1}
    folders = {path.parent for path, name in zip(paths, names, strict=True) if name in repeated}
    return [
        readable(path.parent.name) if path.parent in folders and not name.startswith("sub-") else name
        for path, name in zip(paths, names, strict=True)
    ]


def patch_patient(root: Path, file: Path) -> str:
    """The subfolder under the root, else the BIDS label or the name without its trailing numbers (jane1_17_patch3)."""
    relative = file.relative_to(root) if file != root else Path(file.name)
    if len(relative.parts) > 1:
        return readable(relative.parts[0])
    label = re.search(r"sub-[A-Za-z0-9]+", file.name)
    if label:
        return label.group(0)
    # a number without a separator before it belongs to the name: patient1 is not patient2
    name = re.sub(r"([-_. ]?(patch|slice|img|image)[-_. ]?\d+|[-_. ]\d+)+$", "", file.stem, flags=re.IGNORECASE)
    return readable(root.name if not name or file.stem.isdigit() else name)
