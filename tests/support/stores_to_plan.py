"""Small stores, sound ones and ones with a planted fault, and a machine that is the same everywhere."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from cdm4mi.data.phantoms import phantom
from cdm4mi.data.prepare import SplitChoice, prepare
from cdm4mi.data.tasks import all_scans, named_pairs
from cdm4mi.planning.checks.run import check
from cdm4mi.planning.machine import GIB, Machine
from cdm4mi.planning.plan_file import write_plan
from cdm4mi.planning.settings import settings_of

SIDE, COUNT = 96, 5
MACHINE = Machine(2, 8 * GIB)


def timed(config, machine):
    """Seconds of a step, in place of timing one."""
    return 0.25


def nifti(path: Path, slices: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.round(slices).astype(np.int16).T, np.diag([0.8, 0.8, 2.5, 1.0])), path)
    return path


def person(modality: str, number: int, noise: float = 0.0) -> np.ndarray:
    """Slices of one person, with noise in the phantom's units."""
    clean = np.stack([phantom(modality, 50 * number + k, SIDE) for k in range(COUNT)])
    return clean + noise * np.random.default_rng(number).standard_normal(clean.shape)


def scans(root: Path, modality: str, people: int = 5) -> Path:
    for number in range(people):
        nifti(root / f"sub-{number:02d}.nii.gz", person(modality, number, 40))
    return root


def store_of(root: Path, out: Path) -> Path:
    prepare(all_scans([root], out), out, workers=1)
    return out


def pairs_store(root: Path, noisy, people: int = 4) -> Path:
    """A store of real pairs; ``noisy``: makes the noisy slices from the clean ones and a random generator."""
    pairs = []
    for number in range(people):
        clean = person("CT", number, 8)
        halves = noisy(clean, np.random.default_rng(100 + number))
        pairs.append(
            tuple(
                nifti(root / name / f"sub-{number:02d}.nii.gz", half)
                for name, half in zip(("noisy", "clean"), halves, strict=True)
            )
        )
    prepare(named_pairs(pairs, root / "store"), root / "store", SplitChoice(), workers=1)
    return root / "store"


def wrong(settings, picture=None) -> dict[str, str]:
    """What ``check`` calls wrong: message and advice by name."""
    found = check(settings, picture, machine=MACHINE, timed=timed)
    assert all(finding.advice for finding in found if finding.grade != "ok")
    said: dict[str, str] = {}
    for finding in found:
        if finding.grade == "wrong":
            said[finding.name] = f"{said.get(finding.name, '')}{finding.message} -> {finding.advice}\n"
    return said


def plan(store: Path, **options):
    """The settings of a store's plan for ``MACHINE``."""
    write_plan(store, machine=options.pop("machine", MACHINE), timed=options.pop("timed", timed), **options)
    return settings_of(str(store))


def rewritten(store: Path, change) -> None:
    """Change a manifest so that it is believed: as one that somebody else's program wrote."""
    file = store / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    said = {key: manifest[key] for key in manifest if key not in ("software", "version", "sha256")}
    manifest["sha256"] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(manifest))
