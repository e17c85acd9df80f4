"""DnCNN and RED-CNN: the papers' sizes, and regressions of the condition alone through the same training loop."""

import numpy as np
import pytest
import torch

from cdm4mi.config import load_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.models import build_network
from cdm4mi.networks import NetworkCondition
from cdm4mi.networks.dncnn import DnCNN
from cdm4mi.networks.red_cnn import REDCNN


def test_sizes_are_the_papers():
    def size(network):
        return sum(p.numel() for p in network.parameters())

    # DnCNN-S: 3 x 3 x 64 with bias, 15 layers of 64 x 64 x 3 x 3 and two numbers a channel of the norm, 64 x 3 x 3
    assert size(DnCNN()) == 640 + 15 * (64 * 64 * 9 + 128) + 577
    # RED-CNN: 25 x 96 + 96 and 25 x 96 + 1 at the ends, 8 layers of 96 x 96 x 25 + 96 between
    assert size(REDCNN()) == (25 * 96 + 96) + 8 * (96 * 96 * 25 + 96) + (25 * 96 + 1)


@pytest.mark.parametrize("preset", ["dncnn", "red_cnn"])
def test_the_output_is_the_conditions_alone(preset):
    config = load_config(preset)
    network = build_network(config.model).eval()
    y, t = torch.randn(2, 2, 40, 36), torch.tensor([3, 900])
    first, second = (network(torch.randn(2, 1, 40, 36), times, NetworkCondition(y)) for times in (t, t.flip(0)))
    assert first.shape == (2, 1, 40, 36)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_other_ways_are_refused():
    config = load_config("dncnn", ["parameterization=eps", "zero_terminal_snr=false"])
    with pytest.raises(UserError, match="network dncnn with parameterization eps"):
        build_network(config.model)


def test_it_trains_and_restores(tmp_path, save_nifti):
    from cdm4mi.inference.slices import SliceRestorer
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.training.run import train

    save_nifti(tmp_path / "sub-01.nii.gz", np.stack([phantom("MR", k, 64) for k in range(2)]))
    overrides = [f"paths={tmp_path}", "max_tsteps=3", "batch_size=2", "val_every=3", "val_patches=2", "image_size=32"]
    overrides += ["picture_every=0", "learning_rate=1e-3"]
    train(load_config("red_cnn", overrides), tmp_path / "run", progress=False)
    model = load_model(tmp_path / "run")
    y = torch.randn(1, 40, 40).numpy()
    out = SliceRestorer(model, device="cpu").restore(y, 0.2)
    assert out.shape == y.shape
    # one call, and the same whatever the seed
    assert (out == SliceRestorer(model, device="cpu").restore(y, 0.2, seed=5)).all()
