"""The UNet: equal to an independent implementation, every option runs, and options that save memory change nothing."""

import json

import pytest
import torch
from awake_network import awake
from real_scans import needs_reference
from safetensors import safe_open

from cdm4mi.networks import UNet
from experiments.shared import REFERENCE

SMALL = {"in_channel": 2, "channel": 32, "channel_multiplier": (1, 2), "n_res_blocks": 1, "attn_strides": (2,)}


@needs_reference
@pytest.mark.parametrize("name", ["unet_plain", "unet_affine_fold2"])
def test_equal_to_an_independent_implementation(name):
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        unet = UNet(**json.loads(file.metadata()["config"])).eval()
    prefix = "weights."
    unet.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    with torch.no_grad():
        out = unet(tensors["x"], tensors["t"])
        last = unet.to(memory_format=torch.channels_last)(tensors["x"], tensors["t"])
    assert float(tensors["out"].abs().max()) > 0.1  # weights that were trained: a silent network would prove nothing
    assert torch.allclose(out, tensors["out"], atol=1e-5, rtol=1e-5)
    assert torch.allclose(last, tensors["out"], atol=1e-5, rtol=1e-5)  # the layout that training uses


OPTIONS = [
    {},
    {"in_channel": 3, "out_channel": 2},
    {"channel": 64},
    {"channel_multiplier": (1,), "attn_strides": (1,)},
    {"channel_multiplier": (1, 2, 4), "attn_strides": (1, 4)},
    {"channel_multiplier": (2, 1, 3), "attn_strides": ()},
    {"n_res_blocks": 3},
    {"attn_heads": 4},
    {"attn_heads": 2, "attn_scale": "channel"},
    {"use_affine_time": True},
    {"use_affine_time": True, "vector_dim": 5},
    {"vector_dim": 5},
    {"fold": 2},
    {"fold": 4, "use_affine_time": True, "attn_heads": 2},
    {"context_dim": 24},
    {"context_dim": 32, "attn_strides": (), "fold": 2, "attn_heads": 4},
    {"dropout": 0.5, "gradient_checkpointing": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_keeps_the_shape_and_gives_every_weight_a_gradient(options):
    options = {**SMALL, **options}
    unet = awake(UNet(**options))
    height, width = 2 * unet.size_multiple, 3 * unet.size_multiple  # not square
    x = torch.randn(2, options["in_channel"], height, width)
    context = torch.randn(2, 5, unet.context_dim) if unet.context_dim else None
    vector = torch.randn(2, unet.vector_dim) if unet.vector_dim else None
    out = unet(x, torch.tensor([0, 999]), context, vector)
    assert out.shape == (2, unet.out_channel, height, width)
    out.square().sum().backward()
    for name, parameter in unet.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_untrained_network_returns_nearly_nothing(options):
    torch.manual_seed(0)
    unet = UNet(**{**SMALL, **options}).eval()
    x = torch.randn(1, unet.in_channel, *[2 * unet.size_multiple] * 2)
    context = torch.randn(1, 5, unet.context_dim) if unet.context_dim else None
    vector = torch.randn(1, unet.vector_dim) if unet.vector_dim else None
    with torch.no_grad():
        assert float(unet(x, torch.tensor([500]), context, vector).abs().max()) < 1e-3  # weights of scale 1e-5


def test_layers_start_with_the_variance_of_their_fans():
    torch.manual_seed(0)
    unet = UNet(2, 1, 64, (1, 2))
    convolution = unet.down[0]  # 2 to 64 channels, 3 x 3: variance 2 / (9 * 2 + 9 * 64), uniform
    assert float(convolution.weight.detach().var()) == pytest.approx(2 / (9 * 66), rel=0.1)
    assert float(convolution.weight.detach().abs().max()) <= (6 / (9 * 66)) ** 0.5
    silent = unet.down[1].resblocks.conv2  # 64 to 64 channels
    assert float(silent.weight.detach().var()) == pytest.approx(1e-10 * 2 / (9 * 128), rel=0.1)
    assert not bool(convolution.bias.any())


def losses_and_gradients(checkpointing, options):
    torch.manual_seed(0)  # the biases that are not zero
    unet = awake(UNet(**{**SMALL, **options, "gradient_checkpointing": checkpointing}))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 2, 16, 16, generator=generator)
    context = torch.randn(2, 5, 32, generator=generator) if unet.context_dim else None
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(2)  # the dropout's stream
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = unet(x, torch.tensor([3, 700]), context).square().mean()
    at_forward = sum(kept)
    loss.backward()
    return loss.detach(), [p.grad for p in unet.parameters()], at_forward


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"use_affine_time": True, "context_dim": 32}], ids=str)
def test_gradient_checkpointing_gives_the_same_gradients_for_less_memory(options):
    loss, gradients, kept = losses_and_gradients(False, options)
    loss_less, gradients_less, kept_less = losses_and_gradients(True, options)
    assert torch.equal(loss, loss_less)
    for one, other in zip(gradients, gradients_less, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-8)  # the same operations, dropout's draws included
    assert kept_less < kept / 2


def test_dropout_acts_in_training_only():
    unet = awake(UNet(**SMALL, dropout=0.5))
    x, t = torch.randn(1, 2, 8, 8), torch.tensor([5])
    with torch.no_grad():
        assert not torch.allclose(unet(x, t), unet(x, t), atol=1e-3)
        unet.eval()
        assert torch.equal(unet(x, t), unet(x, t))


@pytest.mark.parametrize("use_affine_time", [False, True])
def test_the_output_depends_on_the_time_and_on_the_vector(use_affine_time):
    unet = awake(UNet(**SMALL, use_affine_time=use_affine_time, vector_dim=3)).eval()
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outs = [
            unet(x, torch.tensor([t]), vector=torch.tensor([v]))
            for t, v in ((10, [1.0, 0.0, 0.0]), (900, [1.0, 0.0, 0.0]), (10, [0.0, 1.0, 0.0]))
        ]
    assert float((outs[0] - outs[1]).abs().max()) > 1e-2
    assert float((outs[0] - outs[2]).abs().max()) > 1e-2


def test_samples_of_a_batch_do_not_see_each_other():
    unet = awake(UNet(**SMALL, attn_heads=2)).eval()
    x, t = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 50, 900])
    with torch.no_grad():
        together = unet(x, t)
        for i in range(3):
            assert torch.allclose(unet(x[i : i + 1], t[i : i + 1])[0], together[i], atol=1e-5)


@pytest.mark.parametrize(("fold", "multiple"), [(1, 2), (2, 4)])
def test_a_size_that_the_levels_do_not_divide_is_an_error_with_the_multiple(fold, multiple):
    unet = UNet(**SMALL, fold=fold)
    with pytest.raises(ValueError, match=f"image is 9 x 8, expected multiples of {multiple}"):
        unet(torch.zeros(1, 2, 9, 8), torch.tensor([0]))


def test_a_missing_vector_is_an_error():
    with pytest.raises(ValueError, match="vector_dim set and was called without a vector"):
        UNet(**SMALL, vector_dim=3)(torch.zeros(1, 2, 8, 8), torch.tensor([0]))
