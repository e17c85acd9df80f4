"""Kinds of DICOM series that people have and that read like another: copies, shared UIDs, parts of complex images."""

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save, save_one, set_pixels, slices, stored_values, uid
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from cdm4mi import io
from cdm4mi.archive.find import find_archive
from cdm4mi.errors import UserError


def values(datasets):
    return np.concatenate([stored_values(ds) for ds in datasets])


def mr(**settings):
    return slices(modality="MR", slope=None, **settings)


def item(**attributes):
    made = Dataset()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def test_different_slices_of_one_uid_are_all_read_and_written_under_their_own(tmp_path):
    made = mr()
    for ds in made:
        ds.SOPInstanceUID = uid("one for all")
    volume = io.read(save(made, tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, values(made))
    assert any("share a SOP Instance UID" in warning for warning in volume.warnings)
    io.write(volume, tmp_path / "out")
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "out").iterdir()}) == len(made)


def test_multi_frame_images_of_one_uid_are_scans_of_their_own(tmp_path):
    first, second = enhanced("MR"), enhanced("MR")
    set_pixels(second, stored_values(first)[::-1])
    assert len(io.list_scans(save([first, second], tmp_path / "in")).scans) == 2
    assert len(io.list_scans(save([first, first], tmp_path / "copies")).scans) == 1


@pytest.mark.parametrize("same_uid", [True, False])
def test_a_copy_has_the_same_place_and_pixels(same_uid, tmp_path):
    made = mr()
    again = pydicom.dataset.Dataset(made[2])
    again.SOPInstanceUID = made[2].SOPInstanceUID if same_uid else uid("again")
    volume = io.read(save([*made, again], tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, values(made))
    assert any("left out" in warning for warning in volume.warnings)


@pytest.mark.parametrize(
    ("image_type", "quantity"),
    [
        (["SW_P_FFE", "SW_P", "FFE"], "phase"),
        (["PHASE MAP", "P", "SE"], "phase"),
        (["B0 MAP", "B0", "UNSPECIFIED"], "field map"),
        (["VELOCITY MAP", "P", "PCA"], "velocity"),
        (["R_IR", "R", "IR"], "real part"),
        (["M_FFE", "M", "FFE"], ""),
        (["PHASE CONTRAST M", "M", "PCA"], ""),
    ],
)
def test_parts_of_a_series_are_scans_of_their_own(image_type, quantity, tmp_path):
    magnitude, other = mr(bits=12), mr(bits=12, seed=1)
    for ds in magnitude:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]
    for ds in other:
        ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", *image_type], ds.InstanceNumber + 100
    folder = save([*magnitude, *other], tmp_path / "in")
    if not quantity:
        assert io.read(folder).times == 2
        return
    scans = [volume for _, volume in io.read_all(folder)]
    assert [volume.quantity for volume in scans] == ["", quantity]
    for volume, made in zip(scans, (magnitude, other), strict=True):
        np.testing.assert_array_equal(volume.array, values(made))
    assert [quantity in info.description for info in io.list_scans(folder).scans] == [False, True]


def test_echoes_that_only_their_numbers_tell_apart(tmp_path):
    first, second = mr(bits=12), mr(bits=12, seed=1)
    for number, made in enumerate((first, second), 1):
        for ds in made:
            ds.EchoNumbers, ds.InstanceNumber = number, ds.InstanceNumber + 100 * number
    folder = save([*first, *second], tmp_path / "in")
    scans = list(io.read_all(folder))
    assert ["[echo 1]" in scans[0][0].description, "[echo 2]" in scans[1][0].description] == [True, True]
    for (_, volume), made in zip(scans, (first, second), strict=True):
        np.testing.assert_array_equal(volume.array, values(made))


def test_a_rescale_in_hertz_makes_a_field_map(tmp_path):
    made = slices(modality="MR")
    for ds in made:
        ds.RescaleType = "Hz"
    assert io.read(save(made, tmp_path / "in")).quantity == "field map"


def test_the_frames_of_each_part_of_an_enhanced_image(tmp_path):
    ds = enhanced("MR", times=2)
    for group in ds.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        component = "PHASE" if content.TemporalPositionIndex == 2 else "MAGNITUDE"
        group.MRImageFrameTypeSequence = [item(FrameType=ds.ImageType, ComplexImageComponent=component)]
    path = save_one(ds, tmp_path / "in.dcm")
    whole = io.read(save_one(enhanced("MR", times=2), tmp_path / "plain.dcm"))
    with pytest.raises(UserError, match="2 scans"):
        io.read(path)
    for number, quantity in ((1, ""), (2, "phase")):
        volume = io.read(path, number)
        assert volume.quantity == quantity
        np.testing.assert_array_equal(volume.array, whole.array[number - 1])
        io.write(volume.with_array(volume.array + 0.5), tmp_path / f"{number}.dcm")
        again = io.read(tmp_path / f"{number}.dcm")
        np.testing.assert_allclose(again.array, volume.array + 0.5, atol=1e-3)
        np.testing.assert_allclose(again.affine, volume.affine)


def test_frames_of_two_dimensions_come_in_the_order_of_their_indices(tmp_path):
    """Direction 1 to 2 at two b-values: no attribute alone tells the frames of a place apart."""
    ds = enhanced("MR", times=4)
    for group in ds.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        time = content.TemporalPositionIndex - 1
        content.DimensionIndexValues = [1, content.InStackPositionNumber, 2 - time // 2, 1 + time % 2]
        content.TemporalPositionIndex = 1
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    plain = io.read(save_one(enhanced("MR", times=4), tmp_path / "plain.dcm"))
    np.testing.assert_array_equal(volume.array, plain.array[[2, 3, 0, 1]])
    assert "told apart by DimensionIndexValues" in " ".join(volume.warnings)


def test_one_number_written_in_two_ways_is_one(tmp_path):
    made = mr(spacing=(0.976562, 0.9))
    for ds in made[::2]:
        ds.PixelSpacing = ["0.976563", "0.900"]
    np.testing.assert_array_equal(io.read(save(made, tmp_path / "in")).array, values(made))
    for ds in made[::2]:
        ds.PixelSpacing = ["0.98", "0.9"]
    assert len(io.list_scans(save(made, tmp_path / "other")).scans) == 2


def test_slices_without_positions_are_stacked_by_their_numbers(tmp_path):
    made = mr(gap=4.0)
    for n, ds in enumerate(made):
        ds.SliceLocation, ds.InstanceNumber, ds.SliceThickness = 4.0 * n, n + 2, 3
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
    volume = io.read(save(made, tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, values(made))
    assert volume.spacing == pytest.approx((4.0, 0.7, 0.9))
    assert "stacked in the order of InstanceNumber" in " ".join(volume.warnings)
    io.write(volume, tmp_path / "out")
    assert "ImagePositionPatient" not in pydicom.dcmread(next((tmp_path / "out").iterdir()))
    for ds in made:
        ds.InstanceNumber = 1
    assert len(io.list_scans(save(made, tmp_path / "unnumbered")).scans) == len(made)
    for n, ds in enumerate(made):
        ds.InstanceNumber, ds.Modality = n, "CR"  # projections are no stack
    assert len(io.list_scans(save(made, tmp_path / "projections")).scans) == len(made)


def test_what_an_incomplete_series_lacks(tmp_path):
    made = [ds for time in range(3) for ds in mr(count=5, seed=time)[: 5 if time < 2 else 3]]
    for n, ds in enumerate(made):
        ds.TemporalPositionIdentifier, ds.InstanceNumber = n // 5 + 1, n
    with pytest.raises(UserError, match=r"TemporalPositionIdentifier 3.* lacks 2 of 5 slices"):
        io.read(save(made, tmp_path / "in"))


def mosaic(tiles, spacing=3.0, **attributes):
    """A Siemens mosaic (3 x 3) of up to nine tiles as one image."""
    (ds,) = mr(count=1, rows=3 * tiles.shape[1], columns=3 * tiles.shape[2], **attributes)
    full = np.zeros((9, *tiles.shape[1:]), int)
    full[: len(tiles)] = tiles
    set_pixels(ds, full.reshape(3, 3, *tiles.shape[1:]).swapaxes(1, 2).reshape(ds.Rows, ds.Columns))
    ds.ImageType, ds.SpacingBetweenSlices = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], spacing
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", len(tiles))
    return ds


@pytest.mark.parametrize("plane", ["axial", "oblique"])
def test_a_mosaic_is_the_volume_of_its_tiles(plane, tmp_path):
    tiles = np.random.default_rng(0).integers(0, 900, (7, 10, 12))
    made = [mosaic(tiles + time, plane=plane, seed=time) for time in range(3)]
    for time, ds in enumerate(made):
        ds.AcquisitionNumber = time + 1
    listed = io.list_scans(save(made, tmp_path / "in")).scans
    assert [info.shape for info in listed] == [(21, 10, 12)]
    volume = io.read(tmp_path / "in")
    np.testing.assert_array_equal(volume.array, tiles + np.arange(3)[:, None, None, None])
    # the header's corner is that of a plane as large as the sheet around the slice's centre
    sheet = io.read(save(mr(count=1, rows=30, columns=36, plane=plane), tmp_path / "sheet"))
    np.testing.assert_allclose(volume.affine[:, 3], sheet.affine @ [12, 10, 0, 1], atol=1e-4)
    assert volume.spacing == pytest.approx((3.0, 0.7, 0.9))
    io.write(volume.with_array(volume.array + 1), tmp_path / "out")
    first = pydicom.dcmread(sorted((tmp_path / "out").iterdir())[0])
    assert (first.Rows, first.Columns) == (30, 36)
    np.testing.assert_array_equal(io.read(tmp_path / "out").array, volume.array + 1)
    with pytest.raises(UserError, match="mosaic"):
        io.write_map(io.read(save(made[:1], tmp_path / "one")), tmp_path / "map.dcm", "Standard deviation")


def test_what_only_says_mosaic_stays_a_plane(tmp_path):
    (ds,) = mr(count=1)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    volume = io.read(save([ds], tmp_path / "in"))
    assert volume.shape == (1, 14, 18)
    assert any("mosaic" in warning for warning in volume.warnings)
    xa = enhanced("MR")
    xa.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "MOSAIC"]
    volume = io.read(save_one(xa, tmp_path / "xa.dcm"))
    assert volume.shape == (4, 10, 12) and not volume.warnings


def test_the_scale_slope_in_philips_private_sequences(tmp_path):
    ds = enhanced("MR", slope=4.25)
    set_pixels(ds, stored_values(ds) // 16)
    for group in ds.PerFrameFunctionalGroupsSequence:
        inner = item(RescaleSlope=4.25, RescaleIntercept=-7.0)
        inner.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.0125)
        group.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [inner])
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    io.write(volume.with_array(volume.array + 0.4), tmp_path / "out.dcm")
    for group in pydicom.dcmread(tmp_path / "out.dcm").PerFrameFunctionalGroupsSequence:
        slope = float(group.PixelValueTransformationSequence[0].RescaleSlope)
        (inner,) = group.private_block(0x2005, "Philips MR Imaging DD 005")[0x0F].value
        scale = inner.private_block(0x2005, "Philips MR Imaging DD 001")[0x0E].value
        assert slope < 4.25 and slope * scale == pytest.approx(4.25 * 0.0125)
        assert float(inner.RescaleSlope) == slope


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("RescaleSlope", "0", "other than 0"),
        ("RescaleSlope", "inf", "finite number"),
        ("RescaleSlope", "1e30", r"RescaleSlope is 1e\+30, expected a finite number other than 0 and within 1e\+10"),
        ("RescaleSlope", "1e-40", "RescaleSlope is 1e-40, expected"),
        ("RescaleIntercept", "-1e30", r"RescaleIntercept is -1e\+30, expected"),
        ("RescaleIntercept", "nan", "finite number"),
        ("NumberOfFrames", "2147483647", "NumberOfFrames is 2147483647, the file has"),
        ("PixelSpacing", ["1e30", "1e30"], "expected at most 10000"),
        ("PixelSpacing", ["0", "0"], "PixelSpacing is 0 and 0, expected two positive numbers"),
        ("PixelSpacing", ["-0.5", "0.5"], "PixelSpacing is -0.5 and 0.5, expected"),
        ("PixelSpacing", "0.5", "PixelSpacing is malformed, expected"),
    ],
)
def test_a_number_beyond_reason_is_one_line(keyword, value, message, tmp_path):
    ds = slices()[0]
    ds.add_new(pydicom.datadict.tag_for_keyword(keyword), "LO", value)  # unchecked, as a faulty writer leaves it
    with pytest.raises(UserError, match=message) as caught:
        io.read(save_one(ds, tmp_path / "in.dcm"))
    assert str(caught.value).startswith("in.dcm: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["BitsAllocated", "PixelRepresentation"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_what_says_how_pixels_are_stored_is_not_guessed(keyword, syntax, tmp_path):
    path = save_one(slices()[0], tmp_path / "in.dcm", syntax)
    ds = pydicom.dcmread(path)
    delattr(ds, keyword)
    ds.save_as(path)
    with pytest.raises(UserError, match=f"^in.dcm: {keyword} is missing, expected .*(8|signed)"):
        io.read(path)


def test_a_ct_without_a_rescale_is_taken_as_hu_with_a_warning(tmp_path):
    made = slices(slope=None)
    for ds in made:
        del ds.RescaleType
    volume = io.read(save(made, tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, values(made))
    warning = "RescaleSlope and RescaleIntercept are missing: the stored numbers were taken as HU"
    assert volume.warnings == [warning] and volume.units is None
    for ds in made:
        ds.RescaleSlope = 1
    assert io.read(save(made, tmp_path / "slope")).warnings == ["RescaleIntercept is missing: 0 was assumed"]
    for ds in made[1:]:
        ds.RescaleIntercept = -1024
    with pytest.raises(UserError, match=r"^\d+: RescaleIntercept is missing, expected one \(4 of 5 images have it\)$"):
        io.read(save(made, tmp_path / "mixed"))
    assert not io.read(save(mr(), tmp_path / "mr")).warnings


def test_what_of_the_place_is_missing_is_said(tmp_path):
    made = mr()
    for ds in made:
        del ds.ImageOrientationPatient
    (warning,) = io.read(save(made, tmp_path / "in")).warnings
    assert "(ImageOrientationPatient is missing)" in warning
    for ds in made:
        ds.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    (warning,) = io.read(save(made, tmp_path / "malformed")).warnings
    assert "(ImageOrientationPatient cannot be used)" in warning


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_a_slice_that_lacks_its_place_is_named_and_no_scan_of_its_own(missing, tmp_path):
    made = mr()
    delattr(made[2], missing)
    folder = save(made, tmp_path / "in")
    (name,) = (path.name for path in folder.iterdir() if missing not in pydicom.dcmread(path))
    with pytest.raises(UserError, match=rf"^{name}: {missing} is missing, expected one \(4 of 5 images have it\)$"):
        io.read(folder)
    made[2].ImageType = ["DERIVED", "SECONDARY", "LOCALIZER"]  # beside the slices, not among them
    assert sorted(info.shape[0] for info in io.list_scans(save(made, tmp_path / "beside")).scans) == [1, 4]


@pytest.mark.parametrize(("keyword", "other"), [("PatientID", "ANOTHER-SECRET"), ("Modality", "CT")])
def test_a_series_of_several_patients_or_modalities_is_several_scans(keyword, other, tmp_path):
    made = mr()
    for ds in made[3:]:
        setattr(ds, keyword, other)
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    folder = save(made, tmp_path / "in")
    with pytest.raises(UserError, match="holds 2 scans") as caught:
        io.read(folder)
    assert "SECRET" not in str(caught.value)
    scans = [volume for _, volume in io.read_all(folder)]
    assert sorted(len(volume.array) for volume in scans) == [2, 3]
    warning = f"the files of its series differ in {keyword}: they were read as several"
    assert all(volume.warnings == [warning] for volume in scans)
    archive = find_archive(folder, tmp_path / "out")
    assert [series.read().warnings for series in archive.series] == [[warning]] * 2


def grid(tiles, gap=4.0, **attributes):
    """A UIH grid of seven tiles, three in a row, as one image."""
    across, down = 3, 3
    placed = mr(count=len(tiles), gap=gap, **attributes)
    (ds,) = mr(count=1, rows=down * tiles.shape[1], columns=across * tiles.shape[2], **attributes)
    full = np.zeros((down * across, *tiles.shape[1:]), int)
    full[: len(tiles)] = tiles
    set_pixels(ds, full.reshape(down, across, *tiles.shape[1:]).swapaxes(1, 2).reshape(ds.Rows, ds.Columns))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "VFRAME"]
    block = ds.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(len(tiles)))
    block.add_new(0x51, "SQ", [item(ImagePositionPatient=one.ImagePositionPatient) for one in placed])
    return ds, placed


@pytest.mark.parametrize("count", [5, 7])
def test_a_grid_is_the_volume_of_its_tiles(count, tmp_path):
    tiles = np.random.default_rng(0).integers(0, 900, (count, 10, 12))
    ds, placed = grid(tiles, plane="oblique")
    if count == 5:  # two rows of three
        ds.Rows = 20
        ds.PixelData = ds.PixelData[: len(ds.PixelData) * 2 // 3]
    slices_alone = io.read(save(placed, tmp_path / "slices"))
    volume = io.read(save([ds], tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, tiles)
    np.testing.assert_allclose(volume.affine, slices_alone.affine, atol=1e-6)
    io.write(volume.with_array(volume.array + 1), tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").array, tiles + 1)
    with pytest.raises(UserError, match=r"mosaic.*private elements"):
        io.write(volume, tmp_path / "nameless", deidentify=True)


@pytest.mark.parametrize(("missing", "message"), [(0x50, r"\(0065,1050\)"), (0x51, r"\(0065,1051\)")])
def test_a_grid_without_its_private_elements_is_refused_for_that(missing, message, tmp_path):
    ds, _ = grid(np.ones((7, 10, 12), int))
    del ds[0x0065, 0x1000 + missing]
    with pytest.raises(UserError, match=f"grid.*{message}"):
        io.read(save([ds], tmp_path / "in"))


def echoes(times, **settings):
    made = []
    for n, time in enumerate(times):
        part = mr(seed=n, **settings)
        for ds in part:
            ds.EchoTime, ds.EchoNumbers = time, n + 1
        made += part
    return made


@pytest.mark.parametrize("repeats", [1, 2])
def test_echoes_of_one_series_are_scans_of_their_own(repeats, tmp_path):
    made = []
    for repeat in range(repeats):
        part = echoes([0, 4.92, 9.84])
        for ds in part:
            ds.TemporalPositionIdentifier, ds.SOPInstanceUID = repeat + 1, uid(ds.SOPInstanceUID, repeat)
            set_pixels(ds, stored_values(ds)[0] + repeat)
        made += part
    scans = io.list_scans(save(made, tmp_path / "in")).scans
    assert [info.description.split("[")[1].split("]")[0] for info in scans] == [
        "echo at 0 ms",
        "echo at 4.92 ms",
        "echo at 9.84 ms",
    ]
    for n, info in enumerate(scans):
        volume = info.load()
        wanted = [values(made[15 * r + 5 * n : 15 * r + 5 * n + 5]) for r in range(repeats)]
        np.testing.assert_array_equal(volume.array, np.stack(wanted).reshape(volume.shape))
        io.write(volume, tmp_path / f"out{n}")
        np.testing.assert_array_equal(io.read(tmp_path / f"out{n}").array, volume.array)


def test_slices_that_differ_in_echo_time_but_not_in_place_are_one_scan(tmp_path):
    made = mr()
    for n, ds in enumerate(made):
        ds.EchoTime = 10 + n
    assert [info.shape for info in io.list_scans(save(made, tmp_path / "in")).scans] == [(5, 14, 18)]


def test_echoes_of_an_enhanced_image_are_scans_of_their_own(tmp_path):
    made = enhanced("MR", count=4, times=2)
    frames = made.PerFrameFunctionalGroupsSequence
    order = [group.FrameContentSequence[0].TemporalPositionIndex for group in frames]
    for group, time in zip(frames, order, strict=True):
        group.MREchoSequence = [item(EffectiveEchoTime=5.0 * time)]
    scans = io.list_scans(save_one(made, tmp_path / "in.dcm")).scans
    assert [info.shape for info in scans] == [(4, 10, 12)] * 2
    for echo, info in enumerate(scans, 1):
        volume = info.load()
        stored = stored_values(made)[[n for n, time in enumerate(order) if time == echo]]
        assert sorted(volume.array.sum((1, 2))) == pytest.approx(sorted((stored * 0.5 - 7).sum((1, 2))))
        io.write(volume, tmp_path / f"out{echo}.dcm")
        np.testing.assert_array_equal(io.read(tmp_path / f"out{echo}.dcm").array, volume.array)
