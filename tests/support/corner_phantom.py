"""A phantom whose corners tell where left, back and head are, as a volume, as NIfTI along any axes, and as DICOM."""

import nibabel as nib
import numpy as np
from dicom_series import common, uid
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from cdm4mi.io import Volume

SPACING = (0.5, 1.0, 3.0)
"""Millimetres along x, y and z."""


def corner_phantom(shape=(6, 20, 24)):
    """Values (z, y, x), x to the left, y to the back, z to the head: 40 HU, 200 in the corner L P S, 100 in R P S."""
    array = np.full(shape, 40.0, np.float32)
    array[-2:, -5:, -8:] = 200.0
    array[-2:, -5:, :8] = 100.0
    return array


def lps_volume(array, modality="CT"):
    """A new volume on the patient's axes, first voxel at L 10, P 20, S 30 mm."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = [-10.0, -20.0, 30.0]
    return Volume(array, affine, modality)


def as_nifti(path, axes):
    """The phantom as a NIfTI file whose voxels run along other axes: "RAS", "PSL" ..."""
    volume = lps_volume(corner_phantom())
    image = nib.Nifti1Image(volume.array.T, volume.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(turn), path)
    return path


def as_dicom(folder):
    """The phantom as coronal DICOM slices, which are stored from the back to the front."""
    array = corner_phantom()
    folder.mkdir()
    for y in range(array.shape[1]):
        ds = common("CT", "corners")
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("corners", y)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        pixels = (array[::-1, y] + 1024).astype("<u2")  # rows from the head to the feet
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *pixels.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.PixelSpacing, ds.SliceThickness = [SPACING[2], SPACING[0]], SPACING[1]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        ds.ImagePositionPatient = [10.0, 20.0 + y * SPACING[1], 30.0 + (array.shape[0] - 1) * SPACING[2]]
        ds.InstanceNumber = 100 - y
        ds.PixelData = pixels.tobytes()
        ds.save_as(folder / f"{(7 * y) % 20:03d}.dcm", enforce_file_format=True)
    return folder
