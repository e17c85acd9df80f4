"""DICOM files with a patient in them, made from the CT slice that pydicom ships."""

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

SECRETS = ("Kowalska", "Zofia", "PID-40917", "19480229", "1948-02-29", "20231117", "Sanatorium", "ACC-777", "Dr-Nowak")
"""What must appear in no record, message or file name."""


def dicom_slice(path, k=0, sigma=0.0):
    """Slice ``k`` of a CT series, 64 x 64 pixels, of a patient with a name, dates and numbers."""
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    pixels = ds.pixel_array[32:96, 32:96].astype(float)
    pixels += sigma * np.random.default_rng(k).standard_normal(pixels.shape)
    ds.PixelData = np.round(pixels).astype(np.int16).tobytes()
    ds.Rows = ds.Columns = 64
    x, y, z = (float(v) for v in ds.ImagePositionPatient)
    ds.ImagePositionPatient = [x, y, z + 5 * k]
    ds.SliceLocation, ds.SliceThickness, ds.InstanceNumber = z + 5 * k, 5, k + 1
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["slice", str(k)])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Kowalska^Zofia", "PID-40917", "19480229"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20231117"
    ds.InstitutionName, ds.AccessionNumber, ds.ReferringPhysicianName = "Sanatorium", "ACC-777", "Dr-Nowak"
    ds.SeriesDescription = ds.StudyDescription = "Kowalska follow-up"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path


def dicom_series(folder, count=3, sigma=0.0):
    """A folder of ``count`` slices whose file names say nothing of their order."""
    for k in range(count):
        dicom_slice(folder / f"{(7 * k) % 10}.dcm", k, sigma)
    return folder


def two_series(folder, *names):
    """Two series of one slice, the first file of the folder each, or in folders of these names."""
    for n, name in enumerate(names or ("0", "1")):
        path = dicom_slice(folder / name / f"{n}.dcm", k=n, sigma=40)
        ds = pydicom.dcmread(path)
        ds.SeriesInstanceUID, ds.SOPInstanceUID = (generate_uid(entropy_srcs=[what, str(n)]) for what in ("s", "i"))
        ds.SeriesNumber, ds.file_meta.MediaStorageSOPInstanceUID = n + 1, ds.SOPInstanceUID
        ds.save_as(path)
    return folder
