"""Training from a store: its splits and conditions, two steps, and one clear line for settings that it decides."""

import logging

import numpy as np
import pytest
import scans_to_prepare as made
from torch.utils.data import DataLoader

from cdm4mi.config.schema import Config
from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.names import pseudonym
from cdm4mi.data.prepare import SplitChoice, prepare
from cdm4mi.data.sources import load_patients
from cdm4mi.data.tasks import all_scans, paired_folders
from cdm4mi.errors import UserError
from cdm4mi.training.run import PairData, train

SPLIT = "train: [sub-00, sub-01]\nval: [sub-02]\ntest: [sub-03, sub-04]\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("scans")
    for person in range(5):
        modality = "CT" if person == 1 else "MR"
        made.nifti(root / "scans" / f"sub-{person:02d}.nii.gz", made.slices(modality, person, count=4))
    (root / "split.yaml").write_text(SPLIT)
    prepare(all_scans([root / "scans"], root / "store"), root / "store", SplitChoice(file=root / "split.yaml"))
    return root / "store"


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for person in range(3):
        clean = made.slices("MR", person)
        made.nifti(root / "clean" / f"sub-{person:02d}.nii.gz", clean)
        made.nifti(root / "noisy" / f"sub-{person:02d}.nii.gz", clean + 60 * rng.standard_normal(clean.shape))
    prepare(paired_folders(root / "noisy", root / "clean", root / "store"), root / "store")
    return root / "store"


def config(path, noise=None, **data):
    unet = {"in_channel": 2, "channel": 32, "channel_multiplier": [1], "n_res_blocks": 1, "attn_strides": []}
    data = {"kind": "store", "paths": [str(path)], "val_patches": 4, "foreground": 0.0, **data}
    return Config.model_validate(
        {
            "model": {"image_size": 16, "timesteps": 20, "unet_rosinality_config": {**unet, "dropout": 0.0}},
            "data": {**data, "noise": noise or {"type": "gaussian", "variance": 0.01}},
            "training": {"max_tsteps": 2, "batch_size": 2, "val_every": 2, "log_every": 1},
        }
    )


def test_training_sees_the_train_split_validation_the_val_split_and_nobody_the_test_set(store, monkeypatch):
    data = PairData(config(store))
    assert data.train_names == sorted(map(pseudonym, ["sub-00", "sub-01"]))
    assert data.val_names == [pseudonym("sub-02")]
    opened = set()
    from cdm4mi.data import store as files

    original = files.h5py.File
    monkeypatch.setattr(files.h5py, "File", lambda path, *a, **k: opened.add(str(path)) or original(path, *a, **k))
    files._open_files.cache_clear()
    for pairs in (data.train_pairs, data.val_pairs):
        for i in range(40):
            pairs[i]
    folder, manifest = read_manifest(store)
    of = {split: {str(folder / s.file) for s in manifest.scans if s.split == split} for split in ("train", "val")}
    assert opened == of["train"] | of["val"]


def test_two_steps_from_a_store(store, tmp_path):
    last = train(config(store), tmp_path / "run", progress=False)
    assert last.exists()


def test_two_steps_from_real_pairs(paired, tmp_path):
    last = train(config(paired, {"type": "identity"}), tmp_path / "run", progress=False)
    assert last.exists()


def test_a_condition_is_the_noisy_slice_at_the_place_of_the_clean_one(paired):
    data = PairData(config(paired, {"type": "identity"}))
    for patient in load_patients(data.config.data, 16, 0):
        assert len(patient.conditions) == len(patient.slices) == 3
        for k, (clean, noisy) in enumerate(zip(patient.slices, patient.conditions, strict=True)):
            difference = noisy[:, :] - clean[:, :]
            sigma = 60 * patient.frame(k).scale
            inside = np.abs(clean[:, :]) < 1
            assert difference[inside].std() == pytest.approx(sigma, rel=0.05)
    levels = [float(data.train_pairs[i]["sigma"]) for i in range(20)]
    assert np.median(levels) == pytest.approx(sigma, rel=0.3)


def test_slices_and_units_are_those_of_the_scans_read_on_the_fly(store):
    scans = store.parent / "scans"
    direct = {pseudonym(p.name): p for p in load_patients(config(scans, kind="volumes").data, 16, 0)}
    for patient in load_patients(config(store).data, 16, 0):
        other = direct[patient.name]
        assert (patient.source, patient.spacing) == (other.source, other.spacing)
        assert patient.frames == other.frames
        for k in range(len(other.slices)):
            assert np.allclose(patient.slices[k][:, :], other.slices[k], atol=1e-3)
            assert np.array_equal(patient.foregrounds[k][:, :], other.foregrounds[k])
    narrow = load_patients(config(store, window=[-200.0, 300.0]).data, 16, 0)
    ct = next(p for p in narrow if p.source.startswith("CT"))
    assert (ct.frame(0).low, ct.frame(0).high) == (-200, 300)


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_do_not_depend_on_workers(workers, store):
    data = PairData(config(store))
    expected = [data.train_pairs[i] for i in range(8)]  # files are open before the workers begin
    for n, batch in enumerate(DataLoader(data.train_pairs, 4, sampler=range(8), num_workers=workers)):
        for j in range(4):
            assert all(np.array_equal(batch[key][j], expected[4 * n + j][key]) for key in batch)


def test_slice_steps_skip_slices(store):
    every, third = (load_patients(config(store, slice_step=step).data, 16, 0) for step in (1, 3))
    assert [len(p.slices) for p in every] == [4, 4, 4]
    assert [len(p.slices) for p in third] == [2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_patients": ["a"]}, "data.val_patients: found with data.kind store, whose manifest has the split"),
        ({"exclude_patients": ["a"]}, "data.exclude_patients: found with data.kind store"),
        ({"percentiles": [0.0, 98.0]}, r"data.percentiles: found \[0.0, 98.0\], the store was prepared with"),
        ({"paths": []}, "data.paths: found 0 paths, expected one store"),
        ({"paths": ["nowhere"]}, "nowhere: holds no manifest.json, expected a store that cdm4mi prepare has finished"),
    ],
)
def test_settings_that_the_store_decides_are_refused(settings, message, store):
    with pytest.raises(UserError, match=message) as error:
        load_patients(config(store, **settings).data, 16, 0)
    assert "\n" not in str(error.value)


def test_a_store_of_one_patient_validates_on_it_and_says_so(tmp_path, caplog):
    scan = made.nifti(tmp_path / "scan.nii.gz", made.slices("MR", 1))
    prepare(all_scans([scan], tmp_path / "store"), tmp_path / "store")
    with caplog.at_level(logging.WARNING, "cdm4mi.training"):
        data = PairData(config(tmp_path / "store"))
    assert "one patient only" in caplog.text
    assert data.train_names == data.val_names


def test_a_store_whose_file_is_gone_is_one_clear_line(store, tmp_path):
    import shutil

    shutil.copytree(store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "scans")
    with pytest.raises(UserError, match="missing or damaged, expected the store as cdm4mi prepare wrote it"):
        PairData(config(tmp_path / "store")).train_pairs[0]
