"""``cdm4mi check`` finds each fault that is planted, and nothing in sound data."""

import itertools
import re
import shutil

import h5py
import matplotlib.image
import numpy as np
import pytest
import stores_to_plan as made
from real_scans import needs_scans
from scipy.ndimage import gaussian_filter

from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from experiments.shared import SCANS

NOISE = 100.0


def with_noise(clean, rng):
    return clean + NOISE * rng.standard_normal(clean.shape), clean


def one_other(person, halves, other):
    """``halves`` for every person but one."""
    count = itertools.count()
    return lambda clean, rng: (other if next(count) == person else halves)(clean, rng)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    found = {m: made.store_of(made.scans(root / f"{m}-scans", m), root / m) for m in ("CT", "MR")}
    found["pairs"] = made.pairs_store(root / "pairs", with_noise)
    return found


@pytest.mark.parametrize("kind", ["CT", "MR", "pairs"])
def test_nothing_is_wrong_with_a_sound_store(stores, kind):
    assert made.wrong(made.plan(stores[kind])) == {}


def test_nothing_is_wrong_with_phantoms(monkeypatch):
    monkeypatch.setattr("cdm4mi.data.sources.PHANTOM_PATIENTS", 8)
    assert made.wrong(parse_config({"data": {"kind": "phantoms", "noise": {"variance": [0.01, 0.1]}}})) == {}


@pytest.mark.parametrize("person", range(4))
def test_pairs_that_are_shifted(person, tmp_path):
    """One of four scans lies two rows lower; it is as wrong in the test set as in training."""
    halves = (with_noise, lambda clean, rng: (np.roll(with_noise(clean, rng)[0], 2, axis=1), clean))
    wrong = made.wrong(made.plan(made.pairs_store(tmp_path, one_other(person, *halves))))
    assert "1 of 4 patients out of line" in wrong["alignment"]
    rows = re.search(r"by 0 slices, (\S+) rows, 0.00 columns", wrong["alignment"])
    assert float(rows.group(1)) == pytest.approx(2, abs=0.1)
    assert set(wrong) == {"alignment"}


def test_pairs_that_are_swapped(tmp_path):
    wrong = made.wrong(made.plan(made.pairs_store(tmp_path, lambda clean, rng: with_noise(clean, rng)[::-1])))
    assert "less noisy than its target for 4 of 4 patients" in wrong["order"]
    assert "exchange `noisy` and `clean`" in wrong["order"]
    assert set(wrong) == {"order"}


@pytest.mark.parametrize("person", range(4))
def test_one_pair_that_is_swapped(person, tmp_path):
    halves = (with_noise, lambda clean, rng: with_noise(clean, rng)[::-1])
    wrong = made.wrong(made.plan(made.pairs_store(tmp_path, one_other(person, *halves))))
    assert "less noisy than its target for 1 of 4 patients" in wrong["order"]


def test_pairs_that_are_the_same_scan_twice(tmp_path):
    wrong = made.wrong(made.plan(made.pairs_store(tmp_path, lambda clean, rng: (clean, clean))))
    assert "condition and target are equal" in wrong["noise"]


def test_hu_without_intercept_taken_for_mr(tmp_path):
    """A NIfTI file of stored values: nothing in it says CT."""
    for number in range(3):
        made.nifti(tmp_path / "scans" / f"sub-{number}.nii.gz", made.person("CT", number, 10) + 1024)
    settings = made.plan(made.store_of(tmp_path / "scans", tmp_path / "store"))
    assert "a CT without its intercept, taken for MR" in made.wrong(settings)["HU"]


def test_hu_without_intercept_in_dicom(tmp_path):
    """The header says CT, and the intercept is 0."""
    import pydicom
    import scans_on_disk

    for number in range(2):
        for k in range(3):
            path = scans_on_disk.dicom_slice(tmp_path / "scans" / str(number) / f"{k}.dcm", k, sigma=5)
            ds = pydicom.dcmread(path)
            pixels = ds.pixel_array.astype(int)
            pixels[:20] = number  # the air that this crop has not
            ds.PixelData = pixels.astype(np.int16).tobytes()
            ds.RescaleIntercept, ds.PatientID = 0, f"person {number}"
            ds.save_as(path)
    settings = made.plan(made.store_of(tmp_path / "scans", tmp_path / "store"))
    wrong = made.wrong(settings)
    assert "HU, expected air near -1000" in wrong["HU"] and "intercept was lost" in wrong["HU"]


def hdf5(folder, patches):
    """A folder of patches by patient: {"sub-01": (n, rows, columns)}, integers."""
    for name, stack in patches.items():
        for k, patch in enumerate(stack):
            folder.mkdir(parents=True, exist_ok=True)
            with h5py.File(folder / f"{name}_patch_{k}.h5", "w") as file:
                file["data"] = patch
    return folder


def mr_patches(people=4, count=4, side=64):
    images = {f"sub-{p:02d}": [phantom("MR", 10 * p + k, side) / 5 for k in range(count)] for p in range(people)}
    return {name: np.clip(np.round(stack), 0, 255).astype(np.uint16) for name, stack in images.items()}


def hdf5_settings(folder, **data):
    return parse_config({"data": {"kind": "hdf5", "paths": [str(folder)], "noise": {"variance": 0.01}, **data}})


def test_nothing_is_wrong_with_sound_patches(tmp_path):
    assert made.wrong(hdf5_settings(hdf5(tmp_path / "patches", mr_patches()))) == {}


def test_a_range_that_is_too_wide(tmp_path):
    folder = hdf5(tmp_path / "patches", mr_patches())
    assert "expected most of [-1, 1]" in made.wrong(hdf5_settings(folder, dynamic_range=4095.0))["values"]


def test_a_range_that_is_too_narrow(tmp_path):
    folder = hdf5(tmp_path / "patches", mr_patches())
    wrong = made.wrong(hdf5_settings(folder, dynamic_range=127.0))
    assert "expected 0 to dynamic_range 127" in wrong["data"]


def test_values_that_are_cut(tmp_path):
    """Half the brain above the window."""
    patches = {name: np.minimum(4 * stack, 255) for name, stack in mr_patches().items()}
    wrong = made.wrong(hdf5_settings(hdf5(tmp_path / "patches", patches)))
    assert "of the foreground clipped" in wrong["values"] and "too narrow" in wrong["values"]


def test_patches_that_are_empty(tmp_path):
    patches = mr_patches()
    patches["sub-02"][1:] = 0
    wrong = made.wrong(hdf5_settings(hdf5(tmp_path / "patches", patches)))
    assert "3 of 16 images" in wrong["content"]
    assert set(wrong) == {"content"}


def test_patches_that_are_there_twice(tmp_path):
    """Turned and mirrored copies are copies."""
    patches = mr_patches()
    patches["sub-01"][2] = patches["sub-01"][0]
    patches["sub-01"][3] = patches["sub-01"][1].T
    settings = hdf5_settings(hdf5(tmp_path / "patches", patches), val_patients=["sub-00"])
    wrong = made.wrong(settings)
    assert "2 of 16 images are there before" in wrong["doubled"]
    assert set(wrong) == {"doubled"}


def test_a_person_with_two_names_in_training_and_validation(tmp_path):
    patches = mr_patches()
    patches["sub-09"] = patches["sub-01"][:2]
    settings = hdf5_settings(hdf5(tmp_path / "patches", patches), val_patients=["sub-09"])
    wrong = made.wrong(settings)
    assert "2 image(s) in two splits" in wrong["splits"]
    assert "sub-0" not in wrong["splits"]  # a name may be a person's


def test_a_person_with_two_names_in_training_and_the_test_set(tmp_path):
    for number in range(4):
        made.nifti(tmp_path / f"sub-{number:02d}.nii.gz", made.person("MR", number, 10))
    made.nifti(tmp_path / "sub-77.nii.gz", made.person("MR", 1, 10)[:, ::-1])
    data = {"paths": [str(tmp_path)], "val_patients": ["sub-00"], "noise": {"variance": 0.01}}
    settings = parse_config({"data": {**data, "exclude_patients": ["sub-77"]}})
    assert "image(s) in two splits" in made.wrong(settings)["splits"]
    shutil.move(tmp_path / "sub-77.nii.gz", tmp_path / "sub-78.nii.gz")
    made.nifti(tmp_path / "sub-78.nii.gz", made.person("MR", 7, 10))
    assert made.wrong(parse_config({"data": {**data, "exclude_patients": ["sub-78"]}})) == {}


def test_a_patient_in_two_splits_of_a_store(stores, tmp_path):
    store = shutil.copytree(stores["MR"], tmp_path / "store", ignore=shutil.ignore_patterns("plan.yaml"))

    def leak(manifest):
        in_test = next(scan for scan in manifest["scans"] if scan["split"] == "test")
        manifest["scans"].append({**in_test, "split": "train"})

    made.rewritten(store, leak)
    wrong = made.wrong(made.plan(store))
    assert "1 patient(s) in two splits" in wrong["splits"] and "5 image(s) in two splits" in wrong["splits"]


def test_noise_that_is_not_what_is_stated(stores):
    """What a degradation says of its noise is what the model is told."""
    from cdm4mi.degradation.noises.gaussian import GaussianNoise

    settings = made.plan(stores["MR"]).model_copy(deep=True)
    settings.data.noise = parse_config({"data": {"noise": {"variance": 0.01}}}).data.noise
    sound = GaussianNoise.add
    try:
        GaussianNoise.add = lambda self, x0, *rest: x0 + 2 * (sound(self, x0, *rest) - x0)
        assert "2.00 times the level that is stated" in made.wrong(settings)["noise"]
    finally:
        GaussianNoise.add = sound


def test_lost_resolution_is_no_noise_that_is_misstated(tmp_path):
    """Detail is lost where it is: in bright bars on black, more of it in what is bright than in the whole patch."""
    rng = np.random.default_rng(0)
    stacks = {}
    for person in range(4):
        bars = np.zeros((4, 64, 64), np.uint16)
        bars[:, :, 4::16] = bars[:, :, 5::16] = 200 + rng.integers(40, size=(4, 64, 4))
        stacks[f"sub-{person}"] = bars
    settings = hdf5_settings(hdf5(tmp_path / "patches", stacks), noise={"type": "downsampled", "factor": 2})
    assert "noise" not in made.wrong(settings)


def test_targets_noisier_than_the_noise_are_worth_a_word(tmp_path):
    from cdm4mi.planning.checks.run import check

    patches = mr_patches()
    rng = np.random.default_rng(0)
    noisy = {n: np.clip(s + 20.0 * rng.standard_normal(s.shape), 0, 255).astype(np.uint8) for n, s in patches.items()}
    settings = hdf5_settings(hdf5(tmp_path / "patches", noisy), noise={"variance": 0.0025})
    targets = {f.name: f for f in check(settings, machine=made.MACHINE, timed=made.timed)}["targets"]
    assert targets.grade == "note" and "added is 0.05" in targets.message


def test_memory_and_speed(stores):
    from cdm4mi.planning.checks.run import check
    from cdm4mi.planning.machine import GIB, Machine

    settings = made.plan(stores["MR"])
    small = {f.name: f for f in check(settings, machine=Machine(2, GIB // 2), timed=lambda *_: 1e-5)}
    assert small["memory"].grade == "wrong" and "halve batch_size" in small["memory"].advice
    assert small["speed"].grade == "wrong" and "it waits for data" in small["speed"].message
    large = {f.name: f for f in check(settings, machine=Machine(2, 64 * GIB), timed=lambda *_: 10.0)}
    assert (large["memory"].grade, large["speed"].grade) == ("ok", "ok")


def test_the_command_its_exit_codes_and_its_picture(command, stores, monkeypatch, tmp_path):
    from cdm4mi.planning.checks.run import check

    monkeypatch.setattr(check, "__kwdefaults__", {"machine": made.MACHINE, "timed": made.timed})
    made.plan(stores["pairs"])
    code, out, err = command("check", stores["pairs"], "--out", tmp_path / "sheet.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "nothing wrong"
    picture = matplotlib.image.imread(tmp_path / "sheet.png")
    assert picture.shape[1] > picture.shape[0] > 500
    assert len(np.unique(picture[..., 0])) > 100  # not one colour
    folder = hdf5(tmp_path / "patches", mr_patches())
    line = ["kind=hdf5", f"paths={folder}", "dynamic_range=4095"]
    code, out, err = command("check", "precond", *line, "--out", tmp_path / "wrong.png")
    assert (code, err) == (1, "")
    assert "wrong  values" in out and "1 wrong" in out
    assert command("check", "precond", *line, "--out", tmp_path / "sheet.jpg")[0] == 2
    assert command("check", tmp_path / "nowhere")[0] == 2


def test_a_ct_without_intercept_is_told_by_its_histogram_and_an_mr_is_not_one():
    from cdm4mi.planning.checks.values import looks_like_stored_ct

    found = [looks_like_stored_ct(phantom("CT", number, 128).ravel() + 1024) for number in range(12)]
    assert sum(found) >= 9  # single slices; a scan has many
    for number in range(12):
        for scale in (0.5, 1.0, 2.0):
            brain = gaussian_filter(scale * phantom("MR", number, 128), 0.5)
            assert not looks_like_stored_ct(brain.ravel()), (number, scale)


@needs_scans
def test_real_mr_scans_are_not_taken_for_a_ct():
    from cdm4mi import io
    from cdm4mi.planning.checks.values import looks_like_stored_ct

    names = ["ds002748_sub-01_T1w", "ds002748_sub-12_T1w", "pyradiomics_brain1", "pyradiomics_brain2"]
    for name in names:
        values = io.read(SCANS / "mr" / f"{name}.nii.gz").slices()
        assert not looks_like_stored_ct(values[len(values) // 3 : len(values) * 2 // 3 : 4].ravel()), name
    head = io.read(SCANS / "dicom" / "ge_head_ct_uneven").slices()[8:24:3]
    assert looks_like_stored_ct(np.maximum(head, -1024).ravel() + 1024)
