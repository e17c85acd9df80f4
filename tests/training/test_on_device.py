"""Pairs made in batches on a training's device: equal to those made one by one, and nothing waits for the device."""

import csv

import numpy as np
import pytest
import torch
import training_runs as runs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cdm4mi.config import parse_config
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.degradation.noises.speckle import Speckle
from cdm4mi.errors import UserError
from cdm4mi.training.modules import ConditionDDPM
from cdm4mi.training.run import train

AUGMENT = {"shrink": 0.3, "curve": 0.4, "leaves": 0.4, "lesions": 0.5, "contrast": 0.2, "sharpness": 0.3}
PARTS = [
    {"modality": "MR", "noise": {"type": "coloured", "spectrum": "white", "variation": [0.1, 0.8], "magnitude": 0.5}},
    {"modality": "MR", "noise": {"type": "coloured", "spectrum": "zero_filled", "magnitude": 0.5}},
    {"modality": "MR", "noise": {"type": "rician", "percent": [1, 9]}},
    {"modality": "CT", "noise": {"type": "gaussian", "sigma_hu": [10, 50]}},
    {"modality": "CT", "noise": {"type": "coloured", "spectrum": "ct_kernel", "variance": [0.001, 0.1]}},
    {"modality": "CT", "noise": {"type": "coloured", "spectrum": "streaks", "variation": 0.5}},
]
CONFIG = {
    "model": {
        "image_size": 24,
        "path": "residual",
        "conditioning_key": "concat",
        "level_channel": True,
        "texture_channels": True,
        "unet_rosinality_config": {"in_channel": 10, "channel": 32, "channel_multiplier": [1], "n_res_blocks": 1},
    },
    "data": {"kind": "volumes", "neighbours": 2, "noise": {"type": "mixture", "parts": PARTS}, "augment": AUGMENT},
    "training": {"neighbour_std": 0.1, "loss_type": "log_l2"},
}


def patients():
    random = np.random.default_rng(0)
    for source in ("CT-a", "MR-b"):
        slices = [random.uniform(-1, 1, (60, 52)).astype(np.float16) for _ in range(3)]
        beside = [[slices[k - 1], slices[k], slices[k - 1], slices[k - 2]] for k in range(3)]
        yield Patient(source, source, slices, [s > -2 for s in slices], neighbours=beside)


@pytest.fixture(scope="module")
def dataset():
    config = parse_config(CONFIG)
    noise, augment = config.data.noise, config.data.augment
    return PairDataset(
        list(patients()),
        noise,
        24,
        5,
        augment=augment,
        texture=True,
        level_jitter=0.1,
        level_map_share=0.5,
        texture_jitter=0.1,
        acquisition=["pixel_spacing", "noise_level"],
    )


def test_pairs_of_a_batch_are_those_made_one_by_one(dataset):
    numbers = [3, 40, 7, *range(100, 140)]
    together = dataset.batch(numbers)
    assert together["y"].shape == (43, 5, 24, 24)
    for n, i in enumerate(numbers):
        for name, value in dataset[i].items():
            torch.testing.assert_close(together[name][n], value, rtol=1e-4, atol=1e-5)


class Transfers(TorchDispatchMode):
    """Counts copies from one device to another."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            devices = {a.device for a in args if isinstance(a, torch.Tensor) and a.ndim} | {out.device}
            if len(devices) > 1:
                self.found.append((str(func), devices))
        return out


def test_nothing_waits_for_the_device(dataset):
    """On a device that is only imagined (``FakeTensorMode``), which refuses to show a value or to mix devices."""
    module = ConditionDDPM(config=parse_config(CONFIG))
    drawn = dataset.draw(range(16))
    with FakeTensorMode(allow_non_fake_inputs=True):
        module.to("meta")
        drawn = drawn.to(torch.device("meta"))
        with Transfers() as transfers:
            batch = dataset.make(drawn)
        t, eps = module.draw(batch["x0"], batch["index"])
        module.process.path.at(t)  # its tables are sent once
        with transfers:
            module.losses(batch, t, eps).mean().backward()
    assert transfers.found == []
    assert {name for name, value in batch.items() if value.device.type == "cpu"} == {"index"}


def test_a_training_is_the_same_wherever_its_pairs_are_made(tmp_path):
    patches = runs.patch_folder(tmp_path / "patches")

    def losses(on_device):
        config = runs.tiny_config(
            patches, data={"on_device": on_device, "workers": int(on_device)}, max_tsteps=4, log_every=1
        )
        out = tmp_path / str(on_device)
        train(config, out, progress=False)
        with (out / "logs" / "version_0" / "metrics.csv").open() as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]

    assert losses(True) == pytest.approx(losses(False), rel=1e-5)


def test_noise_made_image_by_image_stays_on_the_cpu(dataset):
    assert dataset.tied_to_cpu() is None
    assert PairDataset(list(patients()), Speckle(), 24, 0).tied_to_cpu() == "noise speckle is made image by image"


def test_what_cannot_be_made_there_is_refused_where_it_is_asked_for(tmp_path):
    patches = runs.patch_folder(tmp_path / "patches")
    config = runs.tiny_config(patches, data={"on_device": True, "patches_per_slice": 4})
    with pytest.raises(UserError, match=r"data\.on_device: found true, but whole slices .*, expected auto or false"):
        train(config, tmp_path / "run", progress=False)
