"""A trust report as DICOM: a structured report with its measurements, and its picture as a secondary capture.

Both are new series of the scan's study. The report is an Enhanced SR (PS3.3 A.35.2), the least that holds measurements
with units and refers to images; its concepts are this project's own (99CDM4MI), as no template of PS3.16 is about what
a restoration took away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import pydicom
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ImageContentItem,
    NumContentItem,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from cdm4mi import __version__
from cdm4mi.files import make_folder, replacing_file
from cdm4mi.io import Deidentification, Derivation, Volume
from cdm4mi.io.dicom.identity import NOT_FOR_CLINICAL_USE, derived_series_number
from cdm4mi.io.dicom.parametric_map import UNITS
from cdm4mi.io.dicom.values import item_of, text
from cdm4mi.io.dicom.write import save
from cdm4mi.io.quiet import quiet
from cdm4mi.trust.record import Place, TrustReport
from cdm4mi.trust.summary import summary_picture
from cdm4mi.trust.verdict import described

REPORT, PICTURE = "dicom/report.dcm", "dicom/picture.dcm"
"""In a folder of their own, which can be sent as it is."""
SCHEME = "99CDM4MI"
KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
COPIED = (
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "PatientIdentityRemoved",
    "LongitudinalTemporalInformationModified", "SpecificCharacterSet",
)  # fmt: skip
"""Of the restored images, for both objects; patient and study are copied too."""
TIMES = ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime")


@dataclass(frozen=True)
class Instances:
    """The images of a scan and those restored of them, one for one: the least that refers to each, without pixels.

    first: a restored image's whole header, from which patient and study are taken. slices: of each slice of the scan
    its image, and its frame from 1 there, None in an image of one frame.
    """

    sources: Sequence[Dataset]
    restored: Sequence[Dataset]
    first: Dataset
    slices: Sequence[tuple[int, int | None]]

    @classmethod
    def of(cls, scan: Volume, output: Path, deidentify: Deidentification | None) -> Instances:
        """scan: read from DICOM; output: what was written from it, a file or a folder."""
        assert scan.source is not None
        header, public = scan.source.header, deidentify.uid if deidentify else str
        files = sorted(output.glob("*.dcm")) if output.is_dir() else [output]
        restored = [pydicom.dcmread(file, specific_tags=list(KEYWORDS)) for file in files]
        first = pydicom.dcmread(files[0], stop_before_pixels=True)
        order = list(dict.fromkeys(frame.instance for frame in header.frames))
        sources = []
        for number in order:
            source = header.datasets[number]
            sources.append(item_of(**{keyword: public(text(source, keyword)) for keyword in KEYWORDS}))
        slices = []
        for frame in header.frames:
            frames = sorted(f.index for f in header.frames if f.instance == frame.instance) if len(order) == 1 else []
            slices.append((order.index(frame.instance), frames.index(frame.index) + 1 if len(frames) > 1 else None))
        return cls(sources, restored, first, slices)


def write_dicom_report(
    report: TrustReport, folder: Path, scan: Volume, restored: Volume, output: Path, deidentify: Deidentification | None
) -> list[Path]:
    """Write both objects into a folder; returns their paths.

    scan: read from DICOM; restored: of the same voxels; output: where it was written as DICOM, as ``deidentify`` asks,
    whose patient, study and identifiers the objects have.
    """
    images = Instances.of(scan, output, deidentify)
    paths = folder / REPORT, folder / PICTURE
    make_folder(paths[0].parent)
    with quiet():
        datasets = structured_report(report, images), secondary_capture(report, images, scan, restored)
    for dataset, path in zip(datasets, paths, strict=True):
        for keyword in COPIED:
            if images.first.get(keyword):  # some scans have an empty method of de-identification
                dataset[keyword] = images.first[keyword]
        if deidentify:
            for keyword in TIMES:
                if keyword in dataset:
                    setattr(dataset, keyword, "19000101" if keyword.endswith("Date") else "000000")
        with replacing_file(path) as temporary:
            save(dataset, temporary)
    return list(paths)


def structured_report(report: TrustReport, images: Instances) -> Dataset:
    """The measurements, reasons and findings as an Enhanced SR."""
    root = ContainerContentItem(_concept("TRUST", "Trust report of a restored scan"))
    root.ContentSequence = _items(report, images)
    dataset: Dataset = highdicom.sr.EnhancedSR(
        evidence=[*_whole(images.sources, images.first), *_whole(images.restored, images.first)],
        content=root,
        is_complete=True,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=report.software,
        software_versions=__version__,
        device_serial_number="none",
        **_identity(images, "SR"),
    )
    dataset.SeriesDescription = f"Trust report {NOT_FOR_CLINICAL_USE}"
    return dataset


def secondary_capture(report: TrustReport, images: Instances, scan: Volume, restored: Volume) -> Dataset:
    """The picture with the verdict as a secondary capture (PS3.3 A.8.1)."""
    first = images.first
    dataset: Dataset = highdicom.sc.SCImage(
        pixel_array=summary_picture(report, scan, restored),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=text(first, "StudyInstanceUID"),
        **_identity(images, "SC"),
    )
    for keyword in (*_PATIENT_AND_STUDY, "StudyDescription"):
        if keyword in first:
            dataset[keyword] = first[keyword]
        elif keyword != "StudyDescription" and keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.PatientOrientation = dataset.Laterality = None  # three images on one picture
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "NO"  # that identifies a patient
    dataset.SeriesDescription = f"Trust picture {NOT_FOR_CLINICAL_USE}"
    dataset.DerivationDescription = f"Trust report by {report.software} {report.version}. {NOT_FOR_CLINICAL_USE}."
    at = images.slices[report.findings[0].position[0]][0] if report.findings else len(images.sources) // 2
    dataset.SourceImageSequence = Items(
        [
            item_of(
                ReferencedSOPClassUID=image.SOPClassUID,
                ReferencedSOPInstanceUID=image.SOPInstanceUID,
                PurposeOfReferenceCodeSequence=Items(
                    [item_of(CodeValue="121322", CodingSchemeDesignator="DCM", CodeMeaning=_PURPOSE)]
                ),
            )
            for image in (images.sources[at], images.restored[at])
        ]
    )
    return dataset


_PURPOSE = "Source image for image processing operation"
_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def _identity(images: Instances, kind: str) -> dict[str, Any]:
    """New identifiers, which follow from those of the restored series."""
    derivation = Derivation(label="trust report")
    series = derivation.uid("series", text(images.first, "SeriesInstanceUID"), kind)
    return {
        "series_instance_uid": series,
        "series_number": derived_series_number(images.first, series) % 2**31,
        "sop_instance_uid": derivation.uid("instance", text(images.first, "SeriesInstanceUID"), kind),
        "instance_number": 1,
        "manufacturer": derivation.software,
    }


def _whole(references: Sequence[Dataset], first: Dataset) -> Iterator[Dataset]:
    """References with the patient and the study that highdicom takes from them."""
    for reference in references:
        whole = Dataset()
        whole.update({element.tag: element for element in reference})
        for keyword in _PATIENT_AND_STUDY:
            setattr(whole, keyword, first.get(keyword))
        yield whole


def _items(report: TrustReport, images: Instances) -> highdicom.sr.ContentSequence:
    """The tree below the root."""
    unit = CodedConcept("1", "UCUM", "no units")
    if report.unit in UNITS:
        value, meaning = UNITS[report.unit]
        unit = CodedConcept(value, "UCUM", meaning)
    one = CodedConcept("1", "UCUM", "no units")
    test, fidelity = report.residual, report.fidelity
    found: list[ContentItem] = [
        TextContentItem(_concept("NOTICE", "Notice"), NOT_FOR_CLINICAL_USE, "CONTAINS"),
        TextContentItem(_concept("SOFTWARE", "Software"), f"{report.software} {report.version}", "CONTAINS"),
        CodeContentItem(
            _concept("VERDICT", "Verdict"), _concept(report.verdict.upper(), report.verdict.capitalize()), "CONTAINS"
        ),
    ]
    found += [
        TextContentItem(_concept("REASON", "Reason"), f"{reason.colour}: {reason.text}", "CONTAINS")
        for reason in report.reasons
    ]
    measured = [
        ("SIGMA", "Noise level of the scan", report.noise.sigma, unit),
        ("NOISELEFT", "Noise level of the restored scan", fidelity.noise_left, unit),
        ("LEVEL", "Level of the residual over the noise level", test.level, one),
        ("BIAS", "Mean of the residual", test.bias, unit),
        ("CORRROW", "Correlation of the residual with the next row", test.correlations[0], one),
        ("CORRCOL", "Correlation of the residual with the next column", test.correlations[1], one),
        ("EDGES", "Correlation of the residual with edges", test.edges, one),
        ("STRUCTURE", "Greatest score of structure in the residual", test.structure, one),
        ("CONTRAST", "Greatest score of contrast in the residual", test.contrast, one),
        ("GAIN", "Slope of the scan over the restored scan", fidelity.gain, one),
        ("SHARPNESS", "Steepness of edges over that of the scan", fidelity.sharpness, one),
    ]
    measured += [
        (f"SHIFT{name[:11].upper()}", f"Shift of the mean of {name}", shift, unit)
        for name, shift in fidelity.shifts.items()
    ]
    found += [
        NumContentItem(_concept(code, meaning), _decimal(value), of, relationship_type="CONTAINS")
        for code, meaning, value, of in measured
        if value is not None
    ]
    found += [_finding(place, report, images, unit if place.kind == "structure" else one) for place in report.findings]
    return highdicom.sr.ContentSequence(found, is_root=False)


def _finding(place: Place, report: TrustReport, images: Instances, unit: CodedConcept) -> ContainerContentItem:
    """One finding: in words, as numbers, and the images that it lies on."""
    container = ContainerContentItem(_concept("FINDING", "Finding"), relationship_type="CONTAINS")
    right, anterior, superior = place.position_mm
    at, frame = images.slices[place.position[0]]
    millimetres = f"{-right:.1f}, {-anterior:.1f}, {superior:.1f}"
    items: list[ContentItem] = [
        TextContentItem(_concept("WORDS", "Description"), described(place, report.unit), "CONTAINS"),
        TextContentItem(_concept("POSITION", "Position, mm (L, P, S)"), millimetres, "CONTAINS"),
        NumContentItem(_concept("CHANGE", "Change"), _decimal(place.change), unit, relationship_type="CONTAINS"),
        NumContentItem(
            _concept("SCORE", "Standard score"),
            _decimal(place.score),
            CodedConcept("1", "UCUM", "no units"),
            relationship_type="CONTAINS",
        ),
    ]
    for name, meaning, image in (
        ("SCAN", "Image of the scan", images.sources[at]),
        ("RESTORED", "Restored image", images.restored[at]),
    ):
        items.append(
            ImageContentItem(
                _concept(name, meaning),
                image.SOPClassUID,
                image.SOPInstanceUID,
                referenced_frame_numbers=frame,
                relationship_type="CONTAINS",
            )
        )
    container.ContentSequence = highdicom.sr.ContentSequence(items, is_root=False)
    return container


def _concept(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)


def _decimal(value: float) -> float:
    """Six digits, which a decimal string of 16 bytes holds."""
    return float(f"{value:.6g}")
