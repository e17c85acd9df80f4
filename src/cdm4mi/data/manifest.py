"""The manifest of a store: which patient, source, split and file each scan has. It holds no patient data."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi import __version__
from cdm4mi.data.names import SPLITS
from cdm4mi.data.records import FORMAT, Manifest, ManifestContent, ManifestScan, ScanRecord, StoreSettings
from cdm4mi.errors import UserError, counted
from cdm4mi.files import replacing_file
from cdm4mi.records import read_record_as

NAME = "manifest.json"
SCANS = "scans"
"""Folder of the scans' files in a store."""
SIGNATURE = ("software", "version", "sha256")
"""Keys of the manifest that are not part of its hash; they come first."""
SCAN_FILE = re.compile(r"[0-9a-f]{24}\.h5|\.cdm4mi-.*")
"""The name of a scan's file, or of one that is being written."""


@dataclass
class PreparedScan:
    """One scan of the store: its record, the hashes of its slices and of its pairs, its patient's pseudonym."""

    record: ScanRecord
    hashes: list[bytes]
    pairs: list[bytes]
    patient: str
    label: str

    @property
    def file(self) -> str:
        return self.record.file


def distinct(scans: Iterable[PreparedScan]) -> list[PreparedScan]:
    """The scans in the manifest's order, without a patient's second copy of one scan."""
    found: dict[tuple[str, str], PreparedScan] = {}
    for scan in sorted(scans, key=lambda scan: (scan.patient, scan.file, scan.label)):
        found.setdefault((scan.patient, scan.file), scan)
    return list(found.values())


def shared_slices(scans: Sequence[PreparedScan]) -> dict[tuple[str, str], int]:
    """Number of slices that two patients (in order of name) have in common, for those who have any."""
    owners: dict[bytes, set[str]] = {}
    for scan in scans:
        for digest in scan.hashes:
            owners.setdefault(digest, set()).add(scan.patient)
    shared: Counter[tuple[str, str]] = Counter()
    for patients in owners.values():
        first, *others = sorted(patients)
        shared.update((first, other) for other in others)
    return dict(shared)


def make_manifest(
    scans: Sequence[PreparedScan], split: Mapping[str, str], settings: StoreSettings, licence: str
) -> Manifest:
    """The manifest of scans in their order (``distinct``). A slice that an earlier scan has is listed as doubled."""
    seen: set[bytes] = set()
    entries = []
    for scan in scans:
        doubled = []
        for k, digest in enumerate(scan.pairs):
            if digest in seen:
                doubled.append(k)
            seen.add(digest)
        more = {"patient": scan.patient, "split": split[scan.patient], "doubled": doubled}
        entries.append(ManifestScan.model_validate({**dict(scan.record), **more}))
    content = ManifestContent(
        settings=settings,
        licence=licence,
        patients={name: len({e.patient for e in entries if e.split == name}) for name in SPLITS},
        slices=sum(entry.slices for entry in entries),
        scans=entries,
    )
    return Manifest(**dict(content), software="cdm4mi", version=__version__, sha256=_digest(content.plain()))


def write_manifest(store: Path, manifest: Manifest) -> bool:
    """Write the manifest, whole or not at all. Returns False where the present one has the same content."""
    target = store / NAME
    if target.is_file():
        try:
            if json.loads(target.read_text(encoding="utf-8")).get("sha256") == manifest.sha256:
                return False
        except (OSError, ValueError, AttributeError, RecursionError):
            pass
    content = manifest.plain()
    content = {key: content[key] for key in SIGNATURE} | content
    with replacing_file(target) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return True


def is_store(path: Path) -> bool:
    """Whether a path is a store, or the manifest of one, of whatever version, damaged ones too."""
    folder = path.parent if path.name == NAME else path
    if not (folder / SCANS).is_dir():
        return False
    try:
        text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
        software: object = json.loads(text).get("software")
        return software == "cdm4mi"
    except (ValueError, RecursionError):  # cut, say
        return all(SCAN_FILE.fullmatch(file.name) for file in (folder / SCANS).iterdir())
    except (OSError, AttributeError):
        return False


def read_manifest(path: Path) -> tuple[Path, Manifest]:
    """(folder, manifest) of a store. Raises UserError for what is none, is of another version or changed by hand."""
    file = path / NAME if path.is_dir() else path
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: holds no {NAME}, expected a store that cdm4mi prepare has finished") from None
    except (ValueError, RecursionError):
        raise UserError(f"{file}: is damaged; cdm4mi prepare with the same scans writes it anew") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(
            f"{file}: is not a manifest of format {FORMAT}, expected a store of this version (prepare it anew)"
        )
    if _digest({key: value for key, value in manifest.items() if key not in SIGNATURE}) != manifest.get("sha256"):
        raise UserError(f"{file}: was changed, expected it as prepare wrote it (a split is given with `split`)")
    return file.parent, read_record_as(Manifest, manifest, str(file), "a store of this version (prepare it anew)")


def size_of(store: Path) -> int:
    """Bytes of a store on disk."""
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())


def facts_of(manifest: Manifest, size: int) -> list[tuple[str, str]]:
    """Facts of a store for a person, as (name, value); size: its bytes on disk."""
    scans = manifest.scans
    shares = [scan.foreground_fraction for scan in scans]
    worst = max((how.error, scan.modality) for scan in scans for how in scan.stored.values())
    doubled = sum(len(scan.doubled) for scan in scans)
    real = sum(scan.pair is not None for scan in scans)
    facts = [
        ("store", f"{counted(len(scans), 'scan')}, {counted(manifest.slices, 'slice')}, {size / 2**20:.1f} MiB"),
        ("patients", ", ".join(f"{manifest.patients[name]} {name}" for name in SPLITS)),
    ]
    for source in sorted({scan.source for scan in scans}):
        alike = [scan for scan in scans if scan.source == source]
        people = {name: len({s.patient for s in alike if s.split == name}) for name in SPLITS}
        spacings = np.array([scan.spacing_mm for scan in alike])
        finest, coarsest = spacings.min(0), spacings.max(0)
        mm = " x ".join(
            f"{a:.3g}" if np.isclose(a, b, rtol=0.01) else f"{a:.3g}-{b:.3g}"
            for a, b in zip(finest, coarsest, strict=True)
        )
        counts = ", ".join(f"{count} {name}" for name, count in people.items())
        facts.append((source, f"patients {counts}; {counted(sum(s.slices for s in alike), 'slice')}, {mm} mm"))
    facts += [
        ("foreground", f"{min(shares):.0%} to {max(shares):.0%} of a scan's slices"),
        ("stored as", ", ".join(sorted({how.dtype for scan in scans for how in scan.stored.values()}))),
        ("quantisation error", f"at most {worst[0]:.3g} ({worst[1]})" if worst[0] else "none"),
        ("doubled slices", f"{doubled}, left out of training" if doubled else "none"),
        ("real pairs", f"{real} of {len(scans)} scans" if real else "none (noise is simulated)"),
        ("licence", manifest.licence or "not stated"),
        ("manifest (SHA-256)", manifest.sha256),
    ]
    return facts


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
