"""LPIPS equals its definition written out with layers of torch.nn, for whatever weights a user supplies."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.evaluation.resolve import resolve
from cdm4mi.evaluation.scores import score_stack
from cdm4mi.io import Volume
from cdm4mi.measure.lpips import Lpips, read_lpips

PROTOCOL = """
name: seen
version: 1
about: a test's
window: {{type: fixed, low: -1000, high: 1000}}
metrics: [psnr, lpips]
lpips: [{}, {}]
"""


@pytest.fixture(scope="module")
def alexnet():
    """AlexNet's features as torchvision lays them out, with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


@pytest.fixture(scope="module")
def linear():
    rng = torch.Generator().manual_seed(1)
    widths = (64, 192, 384, 256, 256)
    return {f"lin{k}.model.1.weight": torch.rand(1, n, 1, 1, generator=rng) for k, n in enumerate(widths)}


@pytest.fixture(scope="module")
def backbone(alexnet):
    return {f"features.{name}": value for name, value in alexnet.state_dict().items()} | {
        "classifier.1.bias": torch.ones(3)
    }


@pytest.fixture(scope="module")
def pair():
    ref = phantom("CT", 1, 96) / 1000
    return np.clip(ref + 0.1 * np.random.default_rng(0).standard_normal(ref.shape), -1, 1), np.clip(ref, -1, 1)


def test_it_is_the_definition(alexnet, backbone, linear, pair):
    metric = Lpips(backbone, linear)
    shift, scale = (torch.tensor(v)[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    x, ref = ((torch.from_numpy(a).float().repeat(1, 3, 1, 1) - shift) / scale for a in pair)
    expected, unnormalised = 0.0, 0.0
    with torch.no_grad():
        for number, layer in enumerate(alexnet):
            x, ref = layer(x), layer(ref)
            if isinstance(layer, nn.ReLU):
                weight = linear[f"lin{(1, 4, 7, 9, 11).index(number)}.model.1.weight"]
                a, b = (f / torch.linalg.vector_norm(f, dim=1, keepdim=True).clamp(min=1e-10) for f in (x, ref))
                expected += float(((a - b) ** 2 * weight).sum(1).mean())
                unnormalised += float(((x - ref) ** 2 * weight).sum(1).mean())
    assert metric(*pair) == pytest.approx(expected, rel=1e-4)
    assert metric(*pair) != pytest.approx(unnormalised, rel=0.05)  # wrong: features of any length
    assert metric(pair[1], pair[1]) == 0
    assert metric(*pair) == pytest.approx(metric(pair[1], pair[0]))


def test_a_protocol_takes_the_users_weights(backbone, linear, pair, tmp_path):
    files = tmp_path / "alexnet.pth", tmp_path / "alex.safetensors"
    torch.save(backbone, files[0])
    save_file(linear, files[1])
    assert read_lpips(*files)(*pair) == Lpips(backbone, linear)(*pair)
    path = tmp_path / "seen.yaml"
    path.write_text(PROTOCOL.format(*files))
    protocol = load_protocol(path)
    image, reference = (a * 1000 for a in pair)
    stack = reference[None]
    rows = score_stack("p", "s", {"m": image[None]}, stack, resolve(protocol, Volume(stack, np.eye(4), "CT")))
    scores = {row.region: row.scores["lpips"] for row in rows if row.slice is None}
    assert scores["image"] == pytest.approx(Lpips(backbone, linear)(*pair), rel=1e-4)
    assert np.isnan(scores["body"])  # a mask has no features
    assert str(tmp_path) not in protocol.model_dump_json()
    digest = protocol.digest
    save_file({name: 2 * value for name, value in linear.items()}, files[1])
    assert load_protocol(path).digest != digest


def test_mistakes_are_one_line(backbone, linear, pair, tmp_path):
    with pytest.raises(UserError, match=r"features.10.bias: found nothing, expected the shape \(256,\)"):
        Lpips({name: value for name, value in backbone.items() if name != "features.10.bias"}, linear)
    with pytest.raises(UserError, match="32 x 32"):
        Lpips(backbone, linear)(pair[0][:20], pair[1][:20])
    (tmp_path / "alexnet.pth").write_bytes(b"no weights")
    path = tmp_path / "seen.yaml"
    path.write_text(PROTOCOL.format(tmp_path / "alexnet.pth", tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"lpips.*none.pth") as error:
        load_protocol(path)
    assert "\n" not in str(error.value)
    path.write_text(PROTOCOL.format("a", "b").replace("lpips: [a, b]\n", ""))
    with pytest.raises(UserError, match="metrics has lpips"):
        load_protocol(path)
