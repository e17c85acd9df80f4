"""The patient of a file by its path, and the pseudonym of a patient in a store."""

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
"""The splits."""


def pseudonym(name: str) -> str:
    """The pseudonym of a patient in a store: a hash of the name, so that whoever has the name can find the patient."""
    return "patient-" + hashlib.sha256(name.encode()).hexdigest()[:10]


def patient_hash(name: str) -> str:
    """The hash of a patient in a checkpoint, by which whoever has the name can find the patient."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def patient_name(path: Path) -> str:
    """The name of a patient by a path: the last BIDS label (sub-01) in it, else the name of the file or folder."""
    labels = re.findall(r"sub-[A-Za-z0-9]+", str(path))
    return labels[-1] if labels else re.sub(r"(\.(nii|mha|mhd|nrrd|h5|hdf5|dcm|gz))+$", "", readable(path.name).lower())


def patient_names(paths: Sequence[Path]) -> list[str]:
    """The patient name of each path; where file names repeat (john/t1.nii, jane/t1.nii), that of the folder."""
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
