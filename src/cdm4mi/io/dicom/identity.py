"""Who made a derived DICOM image from what: UIDs, image type, derivation, source images, equipment."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Iterable

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.values import item_of, text

NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE"
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_2",
}


def set_identity(
    dataset: Dataset,
    source: Dataset,
    derivation: Derivation,
    now: datetime.datetime | None,
    number: int | None = None,
    public: Callable[[str], str] = str,
) -> None:
    """Who made this instance from what: new UIDs, image type, derivation, source, equipment.

    ``now`` is None for a de-identified data set, which gets no times; ``public`` makes its UIDs of the source's.
    ``number`` tells images apart that share the source's UID; None where it has that alone.
    """
    source_uid, source_series = text(source, "SOPInstanceUID"), text(source, "SeriesInstanceUID")
    dataset.SOPInstanceUID = public(derivation.uid("instance", source_uid, *([] if number is None else [str(number)])))
    dataset.SeriesInstanceUID = public(derivation.uid("series", source_series))
    dataset.SeriesNumber = derived_series_number(source, dataset.SeriesInstanceUID)
    label = f"{derivation.label} {NOT_FOR_CLINICAL_USE}"
    dataset.SeriesDescription = f"{text(dataset, 'SeriesDescription')[: 63 - len(label)]} {label}".strip()
    if now is not None:
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    purpose = _code("121322", "DCM", "Source image for image processing operation")
    reference = item_of(
        ReferencedSOPClassUID=source.get("SOPClassUID"),
        ReferencedSOPInstanceUID=public(source_uid),
        PurposeOfReferenceCodeSequence=Sequence([purpose]),
    )
    enhanced = "SharedFunctionalGroupsSequence" in source
    _set_image_type(dataset, enhanced)
    if enhanced:
        _add_derivation_group(dataset, derivation, reference, public(source_series))
    else:
        dataset.update(_derivation_item(derivation, reference))
    _add_equipment(dataset, derivation, now)
    _keep_lossy(dataset, source)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = source.get("SOPClassUID")
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    implicit, little = source.original_encoding
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit and little else ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta = meta


def derived_series_number(source: Dataset, uid: str) -> int:
    """1000 times the source's number plus 1 to 999 from the new UID, so that two derivations of a series differ."""
    try:
        number = abs(int(source.get("SeriesNumber") or 0)) % 1_000_000
    except (TypeError, ValueError):
        number = 0
    return number * 1000 + 1 + int(uid.rsplit(".", 1)[1]) % 999


def _describe(derivation: Derivation) -> str:
    """DerivationDescription, which has 1024 characters."""
    weights = f", weights sha256 {derivation.model_hash}" if derivation.model_hash else ""
    by = f"{derivation.software} {derivation.version}{weights}"
    return f"{derivation.description} ({by}). {NOT_FOR_CLINICAL_USE}."[:1024]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return item_of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _derivation_item(derivation: Derivation, reference: Dataset) -> Dataset:
    """Item that says what was done, and to which image."""
    value, meaning = derivation.code
    return item_of(
        DerivationDescription=_describe(derivation),
        DerivationCodeSequence=Sequence([_code(value, "99CDM4MI", meaning)]),
        SourceImageSequence=Sequence([copy.deepcopy(reference)]),
    )


def _set_image_type(dataset: Dataset, enhanced: bool) -> None:
    """DERIVED, SECONDARY, then what was there; an enhanced image stays PRIMARY (PS3.3 C.8.16.1) and says FILTERED."""

    def derived(image_type: str | Iterable[object] | None) -> list[str]:
        values = [image_type] if isinstance(image_type, str) else [str(v) for v in image_type or []]
        if not enhanced:
            # Value 2 of a PET image is PRIMARY in any case (PS3.3 C.8.9.4.1.3).
            return ["DERIVED", "PRIMARY" if text(dataset, "Modality") == "PT" else "SECONDARY", *values[2:]]
        values = (values + ["PRIMARY", "VOLUME", "NONE"][max(0, len(values) - 1) :])[:4]
        return ["DERIVED", *values[1:3], "FILTERED" if values[3] == "NONE" else values[3]]

    dataset.ImageType = derived(dataset.get("ImageType"))
    if not enhanced:
        return
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(sequence) or []:
            for element in group:
                if element.VR == "SQ" and len(element.value) and "FrameType" in element.value[0]:
                    element.value[0].FrameType = derived(element.value[0].FrameType)


def _add_derivation_group(dataset: Dataset, derivation: Derivation, reference: Dataset, source_series: str) -> None:
    """The derivation of an enhanced image: in the per-frame groups where the source has some, else in the shared."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    described = [group for group in per_frame if "DerivationImageSequence" in group]
    for group in described or [dataset.SharedFunctionalGroupsSequence[0]]:
        group.DerivationImageSequence = Sequence([_derivation_item(derivation, reference)])
    instance = item_of(
        ReferencedSOPClassUID=reference.ReferencedSOPClassUID,
        ReferencedSOPInstanceUID=reference.ReferencedSOPInstanceUID,
    )
    series = item_of(SeriesInstanceUID=source_series, ReferencedSOPSequence=Sequence([instance]))
    study = item_of(StudyInstanceUID=dataset.get("StudyInstanceUID"), ReferencedSeriesSequence=Sequence([series]))
    dataset.SourceImageEvidenceSequence = Sequence([study])


def _add_equipment(dataset: Dataset, derivation: Derivation, now: datetime.datetime | None) -> None:
    item = item_of(
        Manufacturer=derivation.software,
        ManufacturerModelName=derivation.software,
        SoftwareVersions=[derivation.version] + ([derivation.model_hash[:64]] if derivation.model_hash else []),
        ContributionDescription=_describe(derivation),
        PurposeOfReferenceCodeSequence=Sequence([_code("109103", "DCM", "Modifying Equipment")]),
    )
    if now is not None:
        item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    dataset.ContributingEquipmentSequence = Sequence([*(dataset.get("ContributingEquipmentSequence") or []), item])


def _keep_lossy(dataset: Dataset, source: Dataset) -> None:
    """Mark the image as once compressed with loss, where the source was, by its header or its transfer syntax."""
    syntax = str(getattr(source, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
    if syntax in _LOSSY and text(source, "LossyImageCompression") != "01":
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = _LOSSY[syntax]
