"""DICOM series made for the tests: any orientation, stored type, rescale, transfer syntax; classic and enhanced."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.9396926, 0.1710101, -0.2961981, 0.0, 0.8660254, 0.5),
}
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "enhanced PT": "1.2.840.10008.5.1.4.1.1.130",
}
PATIENT = "Doe^Jane^SECRET"


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def noise(shape: Sequence[int], low: int, high: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, size=shape)


def common(modality: str, name: str, series: int = 1) -> Dataset:
    """What every image has: patient, study, series, equipment, frame of reference."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CLASSES[modality]
    ds.Modality = modality.split()[-1]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series", name, series)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame"), ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "101112", "7", "A1"
    ds.SeriesDate, ds.SeriesTime = "20200102", "101500"
    ds.AcquisitionDate, ds.AcquisitionTime = "20200102", "101500"
    ds.ContentDate, ds.ContentTime = "20200102", "101600"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT, "SECRET-ID", "19500607", "F"
    ds.ReferringPhysicianName, ds.InstitutionName = "Doctor^SECRET", "SECRET hospital"
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = "Maker", "Model", "9", "1"
    ds.SeriesNumber, ds.SeriesDescription = series, f"made {name}"
    ds.PatientPosition, ds.Laterality = "HFS", ""
    return ds


def slices(
    count: int = 5,
    plane: str = "axial",
    modality: str = "CT",
    rows: int = 14,
    columns: int = 18,
    signed: bool = True,
    bits: int = 16,
    slope: float | Sequence[float] | None = 1.0,
    intercept: float | None = -1024.0,
    positions: Sequence[float] | None = None,
    photometric: str = "MONOCHROME2",
    spacing: tuple[float, float] = (0.7, 0.9),
    gap: float = 2.5,
    series: int = 1,
    seed: int = 0,
    name: str = "",
) -> list[Dataset]:
    """``count`` classic slices in order of their position along the normal; InstanceNumber runs the other way."""
    orientation = np.array(PLANES[plane])
    normal = np.cross(orientation[:3], orientation[3:])
    places = np.arange(count) * gap if positions is None else np.asarray(positions)
    low, high = (-(1 << (bits - 2)), 1 << (bits - 2)) if signed else (0, 1 << (bits - 1))
    made = []
    for n, place in enumerate(places):
        ds = common(modality, f"{name}{plane}{bits}{signed}", series)
        ds.SOPInstanceUID = uid(ds.SeriesInstanceUID, seed, n)
        ds.InstanceNumber, ds.AcquisitionNumber = count - n, 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY"]
        ds.ImagePositionPatient = [float(f"{v:.6f}") for v in np.array([-20.0, 15.0, -40.0]) + place * normal]
        ds.ImageOrientationPatient = list(PLANES[plane])
        ds.PixelSpacing, ds.SliceThickness = list(spacing), gap
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
        ds.Rows, ds.Columns = rows, columns
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = (16 if bits > 8 else 8), bits, bits - 1
        ds.PixelRepresentation = int(signed)
        if slope is not None:
            ds.RescaleSlope = slope if isinstance(slope, (int, float)) else slope[n]
            ds.RescaleIntercept = intercept
        if modality == "CT":
            ds.KVP, ds.RescaleType = 120, "HU"
        if modality == "MR":
            ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
            ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = 10, 500, 1
        if modality == "PT":
            ds.Units, ds.SeriesType, ds.CountsSource, ds.DecayCorrection = (
                "BQML",
                ["STATIC", "IMAGE"],
                "EMISSION",
                "START",
            )
            ds.NumberOfSlices, ds.CorrectedImage, ds.CollimatorType = count, ["DECY", "ATTN"], "NONE"
            ds.FrameReferenceTime, ds.ActualFrameDuration, ds.ImageIndex = 0, 60000, n + 1
            ds.AcquisitionDate, ds.AcquisitionTime, ds.DecayFactor = "20200102", "101500", 1
            ds.RadiopharmaceuticalInformationSequence = [Dataset()]
            ds.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence = []
        set_pixels(ds, noise((rows, columns), low, high, seed * 1000 + n))
        made.append(ds)
    return made


def enhanced(modality: str, count: int = 4, times: int = 1, plane: str = "oblique", slope: float = 0.5) -> Dataset:
    """One enhanced multi-frame image, its frames neither in order of place nor of time."""
    ds = common(f"enhanced {modality}", f"enhanced{modality}{times}")
    ds.SOPInstanceUID = uid("enhanced", modality, count, times)
    ds.InstanceNumber, ds.NumberOfFrames = 1, count * times
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20200102101500", 10.0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 10, 12, 16, 16, 15, 0
    ds.PresentationLUTShape, ds.LossyImageCompression, ds.BurnedInAnnotation = "IDENTITY", "00", "NO"
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    orientation = np.array(PLANES[plane])
    normal = np.cross(orientation[:3], orientation[3:])

    def item(**values: object) -> Dataset:
        one = Dataset()
        for keyword, value in values.items():
            setattr(one, keyword, value)
        return one

    frame_type = item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    shared = Dataset()
    setattr(shared, {"CT": "CT", "MR": "MR", "PT": "PET"}[modality] + "ImageFrameTypeSequence", [frame_type]) if (
        modality != "PT"
    ) else setattr(shared, "PETFrameTypeSequence", [frame_type])
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.7, 0.9], SliceThickness=2.5)]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=list(PLANES[plane]))]
    shared.FrameAnatomySequence = [
        item(
            FrameLaterality="U",
            AnatomicRegionSequence=[item(CodeValue="69536005", CodingSchemeDesignator="SCT", CodeMeaning="Head")],
        )
    ]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for n in np.random.default_rng(1).permutation(count * times):
        place, time = divmod(int(n), times)
        group = Dataset()
        group.FrameContentSequence = [
            item(
                FrameAcquisitionNumber=1,
                FrameReferenceDateTime="20200102101500",
                FrameAcquisitionDateTime="20200102101500",
                FrameAcquisitionDuration=1.0,
                TemporalPositionIndex=time + 1,
                StackID="1",
                InStackPositionNumber=place + 1,
                DimensionIndexValues=[place + 1, time + 1],
            )
        ]
        position = [float(f"{v:.6f}") for v in np.array([-20.0, 15.0, -40.0]) + place * 2.5 * normal]
        group.PlanePositionSequence = [item(ImagePositionPatient=position)]
        transformation = item(RescaleSlope=slope, RescaleIntercept=-7.0, RescaleType="HU" if modality == "CT" else "US")
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    set_pixels(ds, noise((count * times, 10, 12), 0, 60000))
    return ds


def set_pixels(ds: Dataset, stored: np.ndarray) -> None:
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    data = stored.astype(kind).tobytes()
    ds.add_new("PixelData", "OW" if ds.BitsAllocated > 8 else "OB", data + b"\0" * (len(data) % 2))


def stored_values(ds: Dataset) -> np.ndarray:
    """Pixels as they were set (little endian, uncompressed)."""
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    count = int(ds.get("NumberOfFrames") or 1) * ds.Rows * ds.Columns
    return np.frombuffer(ds.PixelData, kind, count).reshape(-1, ds.Rows, ds.Columns)


def save(datasets: Sequence[Dataset], folder: Path, syntax: UID = ExplicitVRLittleEndian, seed: int = 3) -> Path:
    """Write data sets under names in random order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(1000)
    for n, ds in zip(names, datasets, strict=False):
        save_one(ds, folder / f"{n:04d}", syntax)
    return folder


def save_one(ds: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    ds = copy.deepcopy(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax.is_compressed and not syntax.is_deflated:
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        if not syntax.is_little_endian and ds.BitsAllocated > 8:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path
