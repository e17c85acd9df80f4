"""Images and conditions of several channels: colour, neighbouring slices, other contrasts."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from awake_network import awake
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cdm4mi import io
from cdm4mi.config import parse_config
from cdm4mi.data.beside import neighbours_of
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.phantoms import phantom
from cdm4mi.data.sources import load_patients
from cdm4mi.errors import UserError
from cdm4mi.inference.restorer import Restorer
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.training.run import train

UNET = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [], "dropout": 0.0, "fold": 2}


def configured(in_channel, data=None, channels=1, **model):
    unet = {**UNET, "in_channel": in_channel, "out_channel": channels}
    model = {"image_size": 16, "timesteps": 100, "channels": channels, "unet_rosinality_config": unet, **model}
    training = {"max_tsteps": 2, "batch_size": 2, "val_every": 2, "picture_every": 2}
    data = {"val_patches": 2, "foreground": 0.0, "noise": {"variance": 0.04}, **(data or {})}
    return parse_config({"model": model, "data": data, "training": training, "sampling": {"steps": 3}})


PRECOND = {"parameterization": "precond", "beta_schedule": "log_sigma", "level_channel": True}


def untrained(config):
    network = awake(build_network(config.model, further_channels=config.further_channels)).eval()
    return TrainedModel(network, build_process(config.model), config, name="untrained")


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array, np.float32).T, np.eye(4) if affine is None else affine), path)
    return str(path)


def head(first, count=5, size=32):
    return np.stack([phantom("MR", first + k, size) for k in range(count)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three colour PNGs."""
    folder = tmp_path_factory.mktemp("colour")
    for n in range(3):
        planes = [phantom("MR", 3 * n + c, 32) / 4 for c in range(3)]
        Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8)).save(folder / f"p{n}.png")
    return folder


@pytest.mark.parametrize("model", [{}, PRECOND], ids=["eps", "precond"])
def test_colour_trains_restores_and_is_judged(model, pictures, command, tmp_path):
    config = configured(6 + bool(model), {"paths": [f"{pictures}/*.png"]}, channels=3, **model)
    train(config, tmp_path / "run", progress=False)
    assert list((tmp_path / "run" / "pictures").iterdir())
    clean, noisy, out = pictures / "p0.png", tmp_path / "noisy.png", tmp_path / "out.png"
    assert command("noise", clean, noisy, "--variance", 0.02)[0] == 0
    code, _, err = command("denoise", noisy, out, "--model", tmp_path / "run", "--steps", 3)
    assert code == 0, err
    restored, reference = np.asarray(Image.open(out)), np.asarray(Image.open(clean))
    assert restored.shape == (32, 32, 3) and restored.dtype == np.uint8
    code, printed, err = command("evaluate", out, clean, "--noisy", noisy, "--json", tmp_path / "s.json")
    assert code == 0 and "over all channels" in printed, err
    scores = next(r for r in json.loads((tmp_path / "s.json").read_text())["rows"] if r["method"] == "prediction")[
        "scores"
    ]
    expected = peak_signal_noise_ratio(reference, restored, data_range=255)
    assert scores["psnr"] == pytest.approx(expected, abs=1e-6)
    similar = structural_similarity(reference, restored, data_range=255, channel_axis=-1)
    assert scores["ssim_uniform"] == pytest.approx(similar, abs=1e-6)


def test_colours_are_a_batch_of_channels(pictures):
    """What a pair holds is what the picture holds: turned, cut, and in its own colours."""
    config = configured(7, {"paths": [f"{pictures}/*.png"]}, channels=3, **PRECOND)
    patients = load_patients(config.data, 16, 0)
    pair = PairDataset(patients, config.data.noise, 32, 0, channels=3)[5]
    assert pair["x0"].shape == pair["y"].shape == (3, 32, 32)
    whole = [np.asarray(Image.open(f)).astype(np.float32) / 127.5 - 1 for f in sorted(pictures.iterdir())]
    turned = [np.rot90(i, q)[:, ::s].transpose(2, 0, 1) for i in whole for q in range(4) for s in (1, -1)]
    assert min(float(np.abs(t - pair["x0"].numpy()).max()) for t in turned) < 1e-3  # stored as float16
    noise = pair["y"] - pair["x0"]
    assert float(noise.std()) == pytest.approx(0.2, rel=0.1)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.15


def test_channels_that_do_not_fit_are_one_line(pictures, command, tmp_path):
    scan = save(tmp_path / "t1.nii.gz", head(0))
    grey, colour = untrained(configured(2)), untrained(configured(6, channels=3))
    with pytest.raises(UserError, match=r"found images of 3 channel\(s\), expected the 1 of the model"):
        Restorer(grey).restore(io.read(pictures / "p0.png"))
    with pytest.raises(UserError, match=r"found images of 1 channel\(s\), expected the 3 of the model"):
        Restorer(colour).restore(io.read(scan))
    with pytest.raises(UserError, match=r"an image has 3 channels, expected model\.channels = 1"):
        train(configured(2, {"paths": [str(pictures / "p0.png")]}), tmp_path / "run", progress=False)
    with pytest.raises(UserError, match=r"an image has 1 channel, expected model\.channels = 3"):
        train(configured(6, {"paths": [scan]}, channels=3), tmp_path / "run", progress=False)
    code, _, err = command("prepare", pictures / "p0.png", tmp_path / "store")
    assert code != 0 and "colour image" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("in_channel", "data", "channels", "model", "said"),
    [
        (2, {"neighbours": 1}, 1, {}, "in_channel 2: expected 4 (1 of the image + 3 of the condition: 1 of the noisy"
         " image + 2 of neighbouring slices and other contrasts)"),
        (7, {"neighbours": 2, "contrasts": ["t2"]}, 1, PRECOND, "in_channel 7: expected 8 (1 of the image + 7 of the"
         " condition: 1 of the noisy image + 5 of neighbouring slices and other contrasts + 1 of its level)"),
        (6, {"neighbours": 1}, 3, {}, "in_channel 6: expected 12 (3 of the image + 9 of the condition: 3 of the noisy"),
        (2, {}, 3, {}, "in_channel 2: expected 6 (3 of the image + 3 of the condition)"),
    ],
)  # fmt: skip
def test_in_channel_must_be_the_sum(in_channel, data, channels, model, said):
    config = configured(in_channel, data, channels, **model)
    with pytest.raises(UserError) as error:
        build_network(config.model, further_channels=config.further_channels)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "model", "said"),
    [
        ({"neighbours": 1, "kind": "phantoms"}, {}, "neighbours is 1 with kind phantoms"),
        ({"contrasts": ["a"], "kind": "store"}, {}, "contrasts is given with kind store"),
        ({"neighbours": 1}, {"conditioning_key": "none"}, "data.neighbours is given with conditioning_key none"),
    ],
)
def test_what_has_no_meaning_is_refused(data, model, said):
    with pytest.raises(UserError, match=said):
        configured(2, data, **model)


def test_edge_slices_are_repeated():
    assert neighbours_of(0, 5, 2) == [0, 0, 1, 2]
    assert neighbours_of(4, 5, 2) == [2, 3, 4, 4]
    assert neighbours_of(0, 1, 1) == [0, 0]


@pytest.mark.parametrize("together", [None, 4])
def test_a_pair_holds_the_slices_beside_its_own(together, tmp_path):
    """Each slice is one grey value, so a channel tells which it is; the noise of each is its own."""
    values = np.array([300.0, 400, 500, 600, 700])
    array = np.broadcast_to(values[:, None, None], (5, 32, 32)).copy()
    config = configured(6, {"paths": [save(tmp_path / "a.nii.gz", array)], "neighbours": 1, "slice_step": 2})
    (patient,) = load_patients(config.data, 16, 0)
    assert len(patient.slices) == 3
    data = PairDataset([patient], config.data.noise, 31, 0, patches_per_slice=together)
    known = {
        float(np.median(np.asarray(plane, np.float32))): k for k, plane in zip((0, 2, 4), patient.slices, strict=True)
    }
    step = float(np.diff(sorted(known))[0]) / 2
    seen = set()
    for i in range(16):
        x0, y = data[i]["x0"], data[i]["y"]
        assert x0.shape == (1, 31, 31) and y.shape == (3, 31, 31)
        k = known[float(x0.median())]
        shown = [k + round(float(c.mean() - x0.median()) / step) for c in y]
        assert shown == [k, *neighbours_of(k, 5, 1)]
        seen.add(k)
        assert float((y[0] - x0[0]).std()) == pytest.approx(0.2, rel=0.1)
        noise = y - y.mean((1, 2), keepdim=True)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            related = float(torch.corrcoef(noise[[first, second]].flatten(1))[0, 1])
            assert related > 0.999 if shown[first] == shown[second] else abs(related) < 0.15
        again = data[i]
        assert torch.equal(again["y"], y) and torch.equal(again["x0"], x0)
    assert seen == {0, 2, 4}


def test_neighbours_leave_the_slices_own_pair_as_it_is(tmp_path):
    paths = [save(tmp_path / "a.nii.gz", head(0))]
    alone, beside = (
        PairDataset(load_patients(configured(2, {"paths": paths, "neighbours": n}).data, 16, 0),
                    configured(2).data.noise, 16, 3) for n in (0, 1)
    )  # fmt: skip
    for i in range(5):
        one, other = alone[i], beside[i]
        assert torch.equal(one["x0"], other["x0"]) and torch.equal(one["y"][0], other["y"][0])


@pytest.mark.parametrize("model", [{}, PRECOND], ids=["eps", "precond"])
def test_a_volume_is_restored_with_its_noisy_neighbours(model):
    """Slice k depends on k - 1, k and k + 1 alone; a slice with its neighbours given is the same as in the volume."""
    restorer = Restorer(untrained(configured(4 + bool(model), {"neighbours": 1}, **model)), device="cpu")
    scan = io.Volume(head(0) + 20 * np.random.default_rng(0).standard_normal((5, 32, 32)), np.eye(4), "MR")

    def restored(volume):
        from cdm4mi.window import IntensityWindow

        given = {"noise": 20.0, "seed": 3, "batch": 2, "normalisation": IntensityWindow(0, 1000, "MR")}
        return restorer.restore(volume, **given).volume.array

    before = restored(scan)
    other = scan.array.copy()
    other[3] = other[3, ::-1]
    after = restored(scan.with_array(other))
    assert np.array_equal(after[:2], before[:2])
    assert all(float(np.abs(after[k] - before[k]).max()) > 1 for k in (2, 3, 4))
    # two time points: the first of the second has no neighbour in the first
    series = io.Volume(np.stack([scan.array, other]), np.eye(4), "MR")
    twice = restored(series)
    assert np.allclose(twice[0], before, atol=1e-2)
    changed = series.array.copy()
    changed[0, 4] = changed[0, 4, ::-1]
    assert np.array_equal(restored(series.with_array(changed))[1], twice[1])


@pytest.mark.parametrize("model", [{}, PRECOND], ids=["eps", "precond"])
def test_neighbours_train_and_denoise(model, command, tmp_path):
    paths = [save(tmp_path / "in" / f"sub-0{n}.nii.gz", head(5 * n)) for n in range(2)]
    config = configured(4 + bool(model), {"paths": paths, "neighbours": 1}, **model)
    train(config, tmp_path / "run", progress=False)
    assert load_model(tmp_path / "run").config.data.neighbours == 1
    out = tmp_path / "out.nii.gz"
    code, _, err = command("denoise", paths[0], out, "--model", tmp_path / "run", "--steps", 2)
    assert code == 0 and io.read(out).shape == (5, 32, 32), err


def test_slices_of_a_store_have_their_neighbours(command, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"sub-0{n}.nii.gz", head(5 * n))
    assert command("prepare", tmp_path / "in", tmp_path / "store")[0] == 0
    data = {"kind": "store", "paths": [str(tmp_path / "store")], "neighbours": 1}
    for patient in load_patients(configured(4, data).data, 16, 0):
        for k, beside in enumerate(patient.neighbours):
            expected = [patient.slices[n][:, :] for n in neighbours_of(k, len(patient.slices), 1)]
            assert all(np.array_equal(a[:, :], b) for a, b in zip(beside, expected, strict=True))


def two_contrasts(folder, people=2):
    """T1 and T2 of the same heads; the second is the first upside down in its values, and mirrored on the disk."""
    for n in range(people):
        t1 = head(5 * n)
        save(folder / f"sub-0{n}" / "t1.nii.gz", t1)
        mirrored = np.diag([-1.0, 1, 1, 1])
        mirrored[0, 3] = 31
        save(folder / f"sub-0{n}" / "t2.nii.gz", (1200 - t1)[..., ::-1], mirrored)
    return {"paths": [f"{folder}/*/t1.nii.gz"], "contrasts": [f"{folder}/*/t2.nii.gz"]}


def test_a_second_contrast_is_the_same_place_in_its_own_window(tmp_path):
    config = configured(3, two_contrasts(tmp_path))
    patients = load_patients(config.data, 16, 0)
    data = PairDataset(patients, config.data.noise, 16, 0)
    for i in range(4):
        x0, y = data[i]["x0"], data[i]["y"]
        assert y.shape == (2, 16, 16)
        inside = (x0[0].abs() < 0.99) & (y[1].abs() < 0.99)
        if inside.sum() > 20:  # 1200 - value is a straight line in each window
            assert float(torch.corrcoef(torch.stack([x0[0][inside], y[1][inside]]))[0, 1]) < -0.999


def test_a_second_contrast_trains_and_denoises(command, tmp_path):
    data = two_contrasts(tmp_path / "in")
    train(configured(4, data, **PRECOND), tmp_path / "run", progress=False)
    t1, t2 = (tmp_path / "in" / "sub-00" / f"{name}.nii.gz" for name in ("t1", "t2"))
    save(tmp_path / "small.nii.gz", head(0, 4))
    save(tmp_path / "far.nii.gz", head(0), np.diag([1.0, 1, 2, 1]))

    def denoised(*contrasts):
        options = [word for contrast in contrasts for word in ("--contrast", contrast)]
        return command("denoise", t1, tmp_path / "out.nii.gz", "--model", tmp_path / "run", *options)

    assert "--contrast: found 0 scan(s), expected 1" in denoised()[2]
    assert "--contrast: found 2 scan(s), expected 1" in denoised(t2, t2)[2]
    assert "--contrast 1: has 4 x 32 x 32 voxels, expected the 5 x 32 x 32" in denoised(tmp_path / "small.nii.gz")[2]
    assert "--contrast 1: lies elsewhere in the patient" in denoised(tmp_path / "far.nii.gz")[2]
    assert not (tmp_path / "out.nii.gz").exists()
    code, _, err = denoised(t2)
    assert code == 0, err
    with_t2 = io.read(tmp_path / "out.nii.gz").array
    (tmp_path / "out.nii.gz").unlink()
    assert denoised(t1)[0] == 0
    assert not np.array_equal(io.read(tmp_path / "out.nii.gz").array, with_t2)


def test_contrasts_that_do_not_pair_are_one_line(tmp_path):
    data = two_contrasts(tmp_path)
    (tmp_path / "sub-01" / "t2.nii.gz").unlink()
    with pytest.raises(UserError, match=r"data.contrasts\[0\]: found 0 scans of patient sub-01, expected one"):
        load_patients(configured(3, data).data, 16, 0)
    with pytest.raises(UserError, match=r"data\.contrasts: nothing\.nii: found nothing"):
        load_patients(configured(3, {**data, "contrasts": ["nothing.nii"]}).data, 16, 0)
