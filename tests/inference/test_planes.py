"""Three planes: slices along rows and columns are the same voxels, and the result is the mean of all three."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cdm4mi import io
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.inference.denoise import denoise, denoise_file
from cdm4mi.inference.planes import ALONG, Plane, levels_along, near_cubes, planes_of, shape_along, turned
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slabs import state_folder
from cdm4mi.io import Volume
from cdm4mi.io.volume import Source

CUBES = np.diag([0.9, 0.9, 1.1, 1.0])
SHAPE = (18, 24, 30)


def voxel(affine, array, value):
    """Millimetres of the voxel that has a value, which no other has."""
    slice_, row, column = np.argwhere(array == value)[0][-3:]
    return affine[:3] @ (column, row, slice_, 1)


def noisy(shape=SHAPE, sigma=100.0, **keys):
    """Smooth soft tissue of 0 HU on average, with noise."""
    rng = np.random.default_rng(0)
    clean = 3000 * gaussian_filter(rng.standard_normal(shape), (0, *[4] * 3)[-len(shape) :])
    return clean, Volume((clean + sigma * rng.standard_normal(shape)).astype(np.float32), CUBES, "CT", **keys)


def restored(model, volume, **changes):
    noise = changes.pop("noise", 100.0)
    sampling = changed(model.config.sampling, **{"estimate": "mean", "planes": 3, **changes})
    return Restorer(model, sampling, "cpu", "fp32").restore(volume, noise=noise)


@pytest.mark.parametrize("along", ALONG)
@pytest.mark.parametrize("times", [None, 2])
def test_every_voxel_keeps_its_place_in_the_patient(along, times):
    rng = np.random.default_rng(1)
    shape = SHAPE if times is None else (times, *SHAPE)
    affine = np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]])
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    volume = Volume(values, affine, padding=values % 7 == 0)
    across = turned(volume, along)
    assert across.images().shape == shape_along(volume, along)
    assert across.shape[-3] == volume.shape[-2 if along == "rows" else -1]
    assert np.array_equal(across.padding, across.array % 7 == 0)
    for value in rng.choice(values.size, 20):
        np.testing.assert_allclose(voxel(across.affine, across.array, value), voxel(affine, values, value))
    back = Plane(volume, along, across.images(), -across.images())
    assert np.array_equal(back.mean, volume.images())
    assert np.array_equal(back.spread, -volume.images())


@pytest.mark.parametrize(
    "affine, kind, near",
    [
        (np.diag([0.9, -0.9, 1.3, 1]), None, True),
        (np.diag([0.9, 0.9, 1.4, 1]), None, False),
        (np.diag([1.4, 0.9, 0.9, 1]), None, False),
        (np.eye(4), None, False),  # says nothing
        (np.diag([-1.0, -1.0, 1.0, 1]), "mha", False),
        (np.diag([2.0, 2.0, 2.0, 1]), "nifti", True),
        (np.diag([2.0, 2.0, 2.0, 1]), "tiff", False),  # has no place for it
        (np.diag([2.0, 2.0, 0.0, 1]), None, False),
        (CUBES @ [[1, 0, 0, 5], [0, 1, 0.05, 0], [0, 0, 1, 0], [0, 0, 0, 1]], None, True),
        (CUBES @ [[1, 0, 0, 5], [0, 1, 0.15, 0], [0, 0, 1, 0], [0, 0, 0, 1]], None, False),  # a tilted gantry
    ],
)
def test_which_voxels_are_near_cubes(affine, kind, near):
    assert near_cubes(Volume(np.zeros((2, 2, 2)), affine, source=kind and Source(kind))) == near


def test_uneven_slices_are_none():
    origins = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 3]])
    assert near_cubes(Volume(np.zeros((3, 2, 2)), CUBES))
    assert not near_cubes(Volume(np.zeros((3, 2, 2)), CUBES, slice_origins=origins))


@pytest.mark.parametrize(
    "shape, settings, planes",
    [
        (SHAPE, {"estimate": "mean"}, 3),
        (SHAPE, {"estimate": "mean", "planes": 1}, 1),
        ((15, 24, 30), {"estimate": "mean"}, 1),
        (SHAPE, {"estimate": "mean-of-k"}, 1),
        (SHAPE, {"estimate": "mean-of-k", "planes": 3}, 3),
        (SHAPE, {"estimate": "sample"}, 1),
        ((2, *SHAPE), {"estimate": "mean"}, 3),
    ],
)
def test_in_how_many_planes(tiny, shape, settings, planes):
    sampling = changed(tiny.config.sampling, **settings)
    assert planes_of(sampling, Volume(np.zeros(shape), CUBES), 8, 0, told=True) == planes


def test_a_model_that_is_not_told_the_texture_has_one_plane_unless_asked(tiny):
    scan = Volume(np.zeros(SHAPE), CUBES)
    assert planes_of(changed(tiny.config.sampling, estimate="mean"), scan, 8, 0, told=False) == 1
    assert planes_of(changed(tiny.config.sampling, estimate="mean", planes=3), scan, 8, 0, told=False) == 3


@pytest.mark.parametrize(
    "shape, settings, contrasts, message",
    [
        ((3, 24, 30), {}, 0, r"`planes`: found 3 for a scan of 3 slice\(s\), expected at least 16"),
        (SHAPE, {"estimate": "sample"}, 0, "`planes`: found 3 for the estimate sample, expected mean or mean-of-k"),
        (SHAPE, {}, 2, r"`planes`: found 3 for a model of 2 further contrast\(s\), expected a model of one scan"),
    ],
)
def test_three_planes_are_refused(tiny, shape, settings, contrasts, message):
    sampling = changed(tiny.config.sampling, **{"estimate": "mean", "planes": 3} | settings)
    with pytest.raises(UserError, match=message):
        planes_of(sampling, Volume(np.zeros(shape), CUBES), 8, contrasts, told=True)


def test_colour_has_one_plane(tiny):
    colour = Volume(np.zeros((20, 24, 30, 3)), CUBES, channel_axis=-1)
    asked = changed(tiny.config.sampling, estimate="mean")
    assert planes_of(asked, colour, 8, 0, told=True) == 1
    with pytest.raises(UserError, match="found 3 for a colour image, expected a grey one"):
        planes_of(changed(asked, planes=3), colour, 8, 0, told=True)


def test_another_number_is_refused(tiny):
    with pytest.raises(UserError, match="`planes`: found 2, expected 'auto', 1 or 3"):
        changed(tiny.config.sampling, planes=2)


@pytest.mark.parametrize("times", [None, 2])
def test_the_result_is_the_mean_of_three_restorations(tiny, times):
    _, scan = noisy(SHAPE if times is None else (times, *SHAPE))
    each = [restored(tiny, scan, planes=1).volume.array]
    for along, axes in ALONG.items():
        across = restored(tiny, turned(scan, along), planes=1).volume.array
        back = np.moveaxis(across, [axis - 3 for axis in range(3)], [axis - 3 for axis in axes])
        each.append(back)
    together = restored(tiny, scan)
    np.testing.assert_allclose(together.volume.array, np.mean(each, 0), atol=0.02)
    assert np.abs(each[0] - each[1]).max() > 1
    assert np.abs(each[1] - each[2]).max() > 1
    assert together.record.settings["planes"] == 3
    assert together.record.network_calls == 3
    assert together.record.slices == len(scan.images())
    assert np.array_equal(together.volume.affine, scan.affine)


def test_three_planes_err_less_than_one(tiny):
    clean = np.stack([phantom("CT", 3, 48)] * 24).astype(np.float32)  # the same in every slice
    scan = Volume(clean + 100 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32), CUBES, "CT")
    one, three = (restored(tiny, scan, planes=count).volume.array for count in (1, 3))
    assert np.std(three - clean) < 0.9 * np.std(one - clean)


def test_padding_stays_as_it_is(tiny):
    _, scan = noisy()
    padding = np.zeros(SHAPE, bool)
    padding[:, :3] = True
    scan.array[padding] = -2000
    scan.padding = padding
    out = restored(tiny, scan).volume.array
    assert np.array_equal(out[padding], scan.array[padding])
    assert not np.isclose(out[~padding], scan.array[~padding]).all()


def test_low_frequencies_are_those_of_the_scan(tiny):
    _, scan = noisy()
    kept, other = (restored(tiny, scan, keep_low_frequencies=cutoff).volume.array for cutoff in (0.05, None))
    means = scan.array.mean((1, 2))
    np.testing.assert_allclose(kept.mean((1, 2)), means, atol=0.05)
    assert np.abs(other.mean((1, 2)) - means).max() > 0.5


def test_spreads_are_the_mean_of_the_planes_and_not_calibrated(tiny):
    _, scan = noisy()
    keys = {"estimate": "mean-of-k", "samples": 2, "steps": 2}
    each = [restored(tiny, scan, planes=1, **keys).spread.array]
    for along, axes in ALONG.items():
        across = restored(tiny, turned(scan, along), planes=1, **keys).spread.array
        each.append(np.moveaxis(across, [0, 1, 2], axes))
    together = restored(tiny, scan, planes=3, **keys)
    np.testing.assert_allclose(together.spread.array, np.mean(each, 0), rtol=1e-3, atol=0.01)
    assert together.record.uncertainty.calibrated is False


@pytest.mark.parametrize("along", ALONG)
def test_a_level_that_is_a_product_is_the_same_at_every_voxel(along):
    rng = np.random.default_rng(2)
    slices, rows, columns = (1 + rng.random(n) for n in (6, 4, 5))
    volume = Volume(np.zeros((6, 4, 5)), CUBES)
    field = np.einsum("z,y,x->zyx", slices, rows, columns)
    levels, relative = levels_along(slices[None], np.outer(rows, columns).astype(np.float32), volume, along)
    np.testing.assert_allclose(levels[:, None, None] * relative, field.transpose(ALONG[along]), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(relative))), 1, rtol=1e-6)


def test_an_even_level_stays_even():
    volume = Volume(np.zeros((2, 6, 4, 5)), CUBES)
    levels, relative = levels_along(np.repeat([[0.1], [0.3]], 6, 1), None, volume, "columns")
    np.testing.assert_allclose(levels, [0.1] * 5 + [0.3] * 5)
    assert relative is None


def saved(path, save_nifti):
    _, scan = noisy()
    return save_nifti(path, scan.array, affine=CUBES)


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [5, SHAPE[1] + 5, SHAPE[1] + SHAPE[2] + 5])
def test_what_was_killed_in_any_plane_goes_on_to_the_same_file(after, tiny, tmp_path, save_nifti):
    source = saved(tmp_path / "scan.nii", save_nifti)
    keys = {
        "sampling": {"estimate": "mean", "planes": 3},
        "modality": "CT",
        "batch": 1,
        "device": "cpu",
        "precision": "fp32",
    }

    def stop(done, total):
        assert total == sum(SHAPE)
        if done >= after:
            raise Stop

    target = tmp_path / "out.nii"
    with pytest.raises(Stop):
        denoise_file(source, target, tiny, progress=stop, **keys)
    assert state_folder(target).is_dir() and not target.exists()
    first = []
    denoise_file(source, target, tiny, progress=lambda done, _: first.append(done), **keys)
    assert first[0] > after
    assert first[-1] == sum(SHAPE)
    assert not state_folder(target).exists()
    record = denoise_file(source, tmp_path / "whole.nii", tiny, **keys)
    assert target.read_bytes() == (tmp_path / "whole.nii").read_bytes()
    assert record.settings["planes"] == 3


def test_an_output_of_one_plane_is_not_that_of_three(tiny, tmp_path, save_nifti):
    source, target = saved(tmp_path / "scan.nii", save_nifti), tmp_path / "out.nii"
    denoise_file(source, target, tiny, {"estimate": "mean", "planes": 1}, modality="CT")
    assert denoise_file(source, target, tiny, {"estimate": "mean", "planes": 1}, modality="CT", resume=True)
    with pytest.raises(UserError, match="exists"):
        denoise_file(source, target, tiny, {"estimate": "mean", "planes": 3}, modality="CT", resume=True)


def test_the_shipped_model_takes_three_planes_of_a_volume_and_one_of_a_slice():
    _, scan = noisy((16, 48, 48))
    assert denoise(scan).record.settings["planes"] == 3
    assert denoise(scan, planes=1).record.settings["planes"] == 1
    assert denoise(Volume(scan.array[:1], CUBES, "CT")).record.settings["planes"] == 1


def test_nothing_differs_in_a_file(tiny, tmp_path, monkeypatch, save_nifti):
    monkeypatch.setattr("cdm4mi.io.arrays.SMALL", 0)  # every array lies in a file
    source = saved(tmp_path / "scan.nii", save_nifti)
    denoise_file(source, tmp_path / "out.nii", tiny, {"estimate": "mean", "planes": 3}, modality="CT", device="cpu")
    out = denoise(replace(io.read(source), modality="CT"), tiny, estimate="mean", planes=3, device="cpu")
    np.testing.assert_array_equal(io.read(tmp_path / "out.nii").array, out.volume.array)
