"""A derived series says what it is: identity, sources, equipment, dependent attributes; outputs appear whole."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, noise, save, save_one, slices
from pydicom.uid import UID

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io import Derivation, Volume, write_map

HASH = "5e" * 32
DERIVATION = Derivation(model_hash=HASH, settings={"steps": 10, "seed": 3}, description="Restored by a test")


def written(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_each_instance_is_derived_from_its_source(tmp_path):
    made = slices()
    volume = io.read(save(made, tmp_path / "in"))
    io.write(volume, tmp_path / "out", derivation=DERIVATION)
    after = written(tmp_path / "out")
    assert len(after) == len(made)
    for old, new in zip(made, after, strict=True):
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "SOPClassUID"):
            assert new[keyword].value == old[keyword].value
        assert new.ImagePositionPatient == old.ImagePositionPatient
        assert new.SeriesInstanceUID != old.SeriesInstanceUID and new.SOPInstanceUID != old.SOPInstanceUID
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
        assert UID(new.SOPInstanceUID).is_valid and UID(new.SeriesInstanceUID).is_valid
        assert new.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        source = new.SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert "Restored by a test" in new.DerivationDescription and HASH in new.DerivationDescription
        assert new.SeriesDescription.endswith("restored NOT FOR CLINICAL USE") and len(new.SeriesDescription) <= 64
        assert new.SeriesNumber != old.SeriesNumber
        equipment = new.ContributingEquipmentSequence[0]
        assert equipment.Manufacturer == "cdm4mi" and HASH in equipment.SoftwareVersions
        assert (new.SmallestImagePixelValue, new.LargestImagePixelValue) == (
            new.pixel_array.min(),
            new.pixel_array.max(),
        )
    assert len({ds.SOPInstanceUID for ds in after}) == len(after)
    assert len({ds.SeriesInstanceUID for ds in after}) == 1


def test_uids_follow_from_input_model_and_settings(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    runs = {
        "a": DERIVATION,
        "b": Derivation(model_hash=HASH, settings={"seed": 3, "steps": 10}, description="Said in another way"),
        "seed": Derivation(model_hash=HASH, settings={"steps": 10, "seed": 4}),
        "model": Derivation(model_hash="00" * 32, settings={"steps": 10, "seed": 3}),
    }
    found = {}
    for name, derivation in runs.items():
        io.write(volume, tmp_path / name, derivation=derivation)
        found[name] = [ds.SOPInstanceUID for ds in written(tmp_path / name)]
    assert found["a"] == found["b"]
    assert not set(found["a"]) & set(found["seed"]) and not set(found["a"]) & set(found["model"])


def test_without_a_derivation_other_values_get_other_uids(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    io.write(volume, tmp_path / "a")
    io.write(volume.with_array(volume.array + 1), tmp_path / "b")
    assert written(tmp_path / "a")[0].SOPInstanceUID != written(tmp_path / "b")[0].SOPInstanceUID


def test_lossy_compression_stays_marked(tmp_path):
    ds = slices(count=1)[0]
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 12.5
    io.write(io.read(save_one(ds, tmp_path / "in.dcm")), tmp_path / "out.dcm")
    assert pydicom.dcmread(tmp_path / "out.dcm").LossyImageCompression == "01"


def test_what_described_the_old_pixels_is_dropped(tmp_path):
    ds = slices(count=1)[0]
    ds.IconImageSequence = [pydicom.Dataset()]
    ds.add_new("SmallestPixelValueInSeries", "SS", -5)
    ds.add_new((0x0009, 0x0010), "LO", "MAKER")
    ds.add_new((0x0009, 0x1001), "LO", "kept")
    io.write(io.read(save_one(ds, tmp_path / "in.dcm")), tmp_path / "out.dcm")
    after = pydicom.dcmread(tmp_path / "out.dcm")
    assert "IconImageSequence" not in after and "SmallestPixelValueInSeries" not in after
    assert after[0x0009, 0x1001].value == "kept"


def test_inputs_and_full_folders_are_never_written_over(tmp_path):
    folder = save(slices(), tmp_path / "in")
    volume = io.read(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="overwrite its input"):
        io.write(volume, folder)
    one = save_one(slices(count=1)[0], tmp_path / "one.dcm")
    with pytest.raises(UserError, match="overwrite its input"):
        io.write(io.read(one), one)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UserError, match="not an empty folder"):
        io.write(volume, tmp_path / "full")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_refused_write_leaves_nothing(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    bad = volume.array.copy()
    bad[0, 0, 0] = np.nan
    for target in ("out", "out.dcm", "out.png", "out.xyz"):
        with pytest.raises(UserError):
            io.write(volume.with_array(bad), tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_series_of_several_instances_needs_a_folder(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    with pytest.raises(UserError, match="folder"):
        io.write(volume, tmp_path / "out.dcm")


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_a_source_without_its_uids_is_refused_before_the_work(keyword, tmp_path):
    path = save_one(slices(count=1)[0], tmp_path / "in.dcm")
    ds = pydicom.dcmread(path)
    delattr(ds, keyword)
    ds.save_as(path)
    volume = io.read(path)
    for check, target in ((io.check_target, "out.dcm"), (io.check_target, "out"), (io.check_map_target, "map.dcm")):
        with pytest.raises(UserError, match=f"^in.dcm: {keyword} is missing, expected one"):
            check(volume, tmp_path / target)
    io.write(volume, tmp_path / "out.nii")


def test_a_map_of_turned_voxels_lies_where_its_template_does(tmp_path):
    volume = io.read(save(slices(plane="sagittal"), tmp_path / "in"))
    io.write(volume, tmp_path / "scan.nii", dtype="float32")
    nib.save(nib.as_closest_canonical(nib.load(tmp_path / "scan.nii")), tmp_path / "ras.nii")
    turned = io.read(tmp_path / "ras.nii")
    assert not np.allclose(turned.affine, volume.affine)
    write_map(turned, tmp_path / "map.dcm", "Standard deviation", like=volume)
    assert np.array_equal(io.read(tmp_path / "map.dcm").array, volume.array)


def test_what_a_volume_knows_of_its_derivation_is_written(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    restored = volume.with_array(volume.array + 1, derivation=DERIVATION)
    io.write(restored, tmp_path / "a")
    io.write(restored, tmp_path / "b", derivation=DERIVATION)
    first, second = written(tmp_path / "a")[0], written(tmp_path / "b")[0]
    assert first.SOPInstanceUID == second.SOPInstanceUID and HASH in first.DerivationDescription
    io.write(restored.with_array(restored.array + 1), tmp_path / "c")  # other values: nothing is known of them
    assert HASH not in written(tmp_path / "c")[0].DerivationDescription


def test_the_derivation_code_says_restored_of_restored_images_only(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    for name, derivation, code in (("a", DERIVATION, "RESTORED"), ("b", Derivation(label="noise added"), "PROCESSED")):
        io.write(volume, tmp_path / name, derivation=derivation)
        assert written(tmp_path / name)[0].DerivationCodeSequence[0].CodeValue == code


@pytest.mark.parametrize("source", ["series", "multi-frame"])
def test_uncertainty_is_a_parametric_map_of_its_source(source, tmp_path):
    path = save_one(enhanced("MR"), tmp_path / "in.dcm") if source == "multi-frame" else save(slices(), tmp_path / "in")
    volume = io.read(path)
    map_ = volume.with_array((noise(volume.shape, 0, 1000) / 37).astype(np.float32))
    write_map(map_, tmp_path / "map.dcm", "Standard deviation", derivation=DERIVATION)
    again = io.read(tmp_path / "map.dcm")
    assert np.array_equal(again.array, map_.array) and np.allclose(again.affine, volume.affine, atol=1e-6)
    ds = pydicom.dcmread(tmp_path / "map.dcm")
    assert ds.SOPClassUID.name == "Parametric Map Storage" and "FloatPixelData" in ds
    assert ds.StudyInstanceUID == volume.source.header.datasets[0].StudyInstanceUID
    assert "NOT FOR CLINICAL USE" in ds.SeriesDescription
    with pytest.raises(UserError, match="is the name of a DICOM series, which holds no map"):
        write_map(map_, tmp_path / "folder", "Standard deviation")
    with pytest.raises(UserError, match="no time points"):
        write_map(Volume(map_.array[None], map_.affine), tmp_path / "time.dcm", "Standard deviation", like=volume)
    write_map(map_, tmp_path / "map.nii.gz", "Standard deviation")
    assert np.array_equal(io.read(tmp_path / "map.nii.gz").array, map_.array)
