"""DiffusionWrapper: each key works from a conditioning image, and a key that does not fit its network is refused."""

import pytest
import torch
from awake_network import awake

from cdm4mi.config.schema import ModelConfig
from cdm4mi.errors import UserError
from cdm4mi.models import build_network
from cdm4mi.networks import DiffusionWrapper, NetworkCondition, UNet

KEYS = {
    "concat": {"in_channel": 2},
    "crossattn": {"in_channel": 1, "context_dim": 32},
    "adm": {"in_channel": 1, "vector_dim": 16, "use_affine_time": True},
    "hybrid": {"in_channel": 2, "context_dim": 32},
    "none": {"in_channel": 1},
}


def unet_of(**options):
    return UNet(**{"channel": 32, "channel_multiplier": (1, 2), "n_res_blocks": 1, "attn_strides": (2,), **options})


def inputs(n=2, size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, *size, generator=generator), torch.randn(n, 1, *size, generator=generator)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "none"])
def test_the_conditioning_image_reaches_the_output_and_the_encoder_learns(key):
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS[key]), key)).eval()
    x, image = inputs()
    t = torch.tensor([10, 700])
    out = wrapper(x, t, NetworkCondition(image))
    assert out.shape == x.shape
    assert float((out - wrapper(x, t, NetworkCondition(image.flip(0)))).detach().abs().max()) > 1e-3
    out.square().sum().backward()
    for name, parameter in wrapper.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("key", KEYS)
def test_a_plain_image_is_the_condition_of_that_image(key):
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS[key]), key)).eval()
    (x, image), t = inputs(), torch.tensor([10, 700])
    with torch.no_grad():
        assert torch.equal(wrapper(x, t, image), wrapper(x, t, NetworkCondition(image)))


def test_tokens_and_vectors_take_the_encoders_place():
    (x, image), t = inputs(), torch.tensor([10, 700])
    for key, encoder in (("crossattn", "token_encoder"), ("adm", "vector_encoder")):
        wrapper = awake(DiffusionWrapper(unet_of(**KEYS[key]), key)).eval()
        bare = DiffusionWrapper(unet_of(**KEYS[key]), key, condition_channel=None).eval()
        assert getattr(bare, encoder) is None
        bare.diffusion_model = wrapper.diffusion_model
        with torch.no_grad():
            encoded = getattr(wrapper, encoder)(image)
            for one in (wrapper, bare):
                assert torch.equal(one(x, t, encoded), wrapper(x, t, image)), key


def test_a_module_in_front_makes_the_condition_and_learns():
    """Labels as tokens: the wrapper has no encoder of its own, and the gradient reaches the embedding."""
    labels = torch.tensor([[1, 2], [3, 0]])
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS["crossattn"]), "crossattn", cond=torch.nn.Embedding(5, 32)))
    assert wrapper.token_encoder is None
    (x, _), t = inputs(), torch.tensor([10, 700])
    out = wrapper.eval()(x, t, labels)
    assert float((out - wrapper(x, t, labels.flip(0))).abs().max().detach()) > 1e-3
    out.square().sum().backward()
    assert bool((wrapper.cond.weight.grad[:4] != 0).all()) and bool((wrapper.cond.weight.grad[4] == 0).all())


@pytest.mark.parametrize(
    ("key", "cond", "expected"),
    [
        ("concat", torch.zeros(2, 3, 16, 24), "the conditioning image: found (2, 3, 16, 24), expected (2, 1, 16, 24)"),
        ("concat", torch.zeros(2, 1, 8, 8), "the conditioning image: found (2, 1, 8, 8), expected (2, 1, 16, 24)"),
        ("concat", torch.zeros(2, 4), "found vector, expected an image"),
        ("hybrid", torch.zeros(1, 1, 16, 24), "the conditioning image: found (1, 1, 16, 24), expected (2, 1, H, W)"),
        ("crossattn", torch.zeros(2, 7, 16), "the conditioning tokens: found (2, 7, 16), expected (2, L, 32)"),
        ("adm", torch.zeros(2, 3), "the conditioning vector: found (2, 3), expected (2, 16)"),
        ("adm", torch.zeros(2), "condition: found shape (2,), expected an image (N, C, H, W), tokens (N, L, D) or"),
        ("concat", [0.1], "condition: found a list, expected an image (N, C, H, W)"),
    ],
)
def test_a_condition_of_another_shape_is_one_line(key, cond, expected):
    wrapper = DiffusionWrapper(unet_of(**KEYS[key]), key)
    with pytest.raises(UserError) as error:
        wrapper(inputs()[0], torch.tensor([0, 0]), cond)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["concat", "crossattn", "adm", "hybrid"])
def test_each_sample_follows_its_own_condition(key):
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS[key]), key)).eval()
    x, image = inputs(3)
    t = torch.tensor([10, 10, 10])
    other = image.clone()
    other[1] = -image[1]
    with torch.no_grad():
        change = (
            (wrapper(x, t, NetworkCondition(image)) - wrapper(x, t, NetworkCondition(other))).abs().flatten(1).amax(1)
        )
    assert float(change[1]) > 1e-3 and float(change[[0, 2]].max()) < 1e-5


@pytest.mark.parametrize("key", ["crossattn", "adm", "hybrid"])
def test_where_in_the_image_a_structure_is_reaches_the_output(key):
    """A structure moved to another place is another condition: encoders that only average would not tell."""
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS[key]), key)).eval()
    x, _ = inputs(1, (32, 32))
    image = torch.zeros(1, 1, 32, 32)
    image[..., 8:16, 8:16] = 1
    with torch.no_grad():
        here, there = (wrapper(x, torch.tensor([10]), NetworkCondition(i)) for i in (image, image.roll((8, 8), (2, 3))))
    assert float((here - there).abs().max()) > 1e-3


def test_none_ignores_the_condition():
    wrapper = awake(DiffusionWrapper(unet_of(**KEYS["none"]), "none")).eval()
    x, image = inputs()
    t = torch.tensor([1, 2])
    with torch.no_grad():
        assert torch.equal(wrapper(x, t), wrapper(x, t, NetworkCondition(image)))


def test_adm_takes_a_vector_of_acquisition_numbers():
    unet = unet_of(in_channel=1, vector_dim=3, use_affine_time=True)
    wrapper = awake(DiffusionWrapper(unet, "adm", acquisition_size=3)).eval()
    x, image = inputs()
    t = torch.tensor([10, 700])
    low, high = torch.tensor([[80.0, 1.0, 0.5]]) / 100, torch.tensor([[120.0, 3.0, 0.5]]) / 100
    with torch.no_grad():
        out = wrapper(x, t, NetworkCondition(vector=low.expand(2, -1)))
        assert out.shape == x.shape
        assert float((out - wrapper(x, t, NetworkCondition(vector=high.expand(2, -1)))).abs().max()) > 1e-3
        assert torch.equal(out, wrapper(x, t, NetworkCondition(image, low.expand(2, -1))))  # the image plays no part
    assert wrapper.vector_encoder is None


def test_images_of_several_channels():
    wrapper = DiffusionWrapper(unet_of(in_channel=5, out_channel=2), "concat", image_channel=2, condition_channel=3)
    out = wrapper(torch.zeros(1, 2, 8, 8), torch.tensor([0]), NetworkCondition(torch.zeros(1, 3, 8, 8)))
    assert out.shape == (1, 2, 8, 8)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "none"])
def test_a_missing_condition_is_an_error_that_names_the_key(key):
    wrapper = DiffusionWrapper(unet_of(**KEYS[key]), key)
    x, _ = inputs()
    wanted = {"crossattn": "an image or tokens", "adm": "an image or a vector"}.get(key, "an image")
    with pytest.raises(UserError, match=f"conditioning_key {key}: found no condition, expected {wanted}"):
        wrapper(x, torch.tensor([0, 0]))


MISFITS = [
    ("concat", {"in_channel": 1}, "in_channel 1: expected 2 (1 of the image + 1 of the condition)"),
    ("concat", {"in_channel": 3}, "in_channel 3: expected 2"),
    ("concat", {"in_channel": 2, "context_dim": 32}, "context_dim 32: expected no context_dim"),
    ("concat", {"in_channel": 2, "vector_dim": 16}, "vector_dim 16: expected no vector_dim"),
    ("crossattn", {"in_channel": 2, "context_dim": 32}, "in_channel 2: expected 1 (1 of the image)"),
    ("crossattn", {"in_channel": 1}, "context_dim None: expected a context_dim"),
    ("crossattn", {"in_channel": 1, "context_dim": 32, "vector_dim": 16}, "vector_dim 16: expected no vector_dim"),
    ("adm", {"in_channel": 2, "vector_dim": 16, "use_affine_time": True}, "in_channel 2: expected 1"),
    ("adm", {"in_channel": 1, "use_affine_time": True}, "vector_dim None: expected a vector_dim"),
    ("adm", {"in_channel": 1, "vector_dim": 16}, "use_affine_time false: expected true"),
    (
        "adm",
        {"in_channel": 1, "vector_dim": 16, "use_affine_time": True, "context_dim": 32},
        "context_dim 32: expected no context_dim",
    ),
    ("hybrid", {"in_channel": 1, "context_dim": 32}, "in_channel 1: expected 2"),
    ("hybrid", {"in_channel": 2}, "context_dim None: expected a context_dim"),
    ("none", {"in_channel": 2}, "in_channel 2: expected 1 (1 of the image)"),
    ("none", {"in_channel": 1, "context_dim": 32}, "context_dim 32: expected no context_dim"),
    ("none", {"in_channel": 1, "vector_dim": 16}, "vector_dim 16: expected no vector_dim"),
]


@pytest.mark.parametrize(("key", "options", "found"), MISFITS, ids=str)
def test_a_key_that_does_not_fit_is_refused_with_both_sides_named(key, options, found):
    with pytest.raises(UserError) as error:
        DiffusionWrapper(unet_of(**options), key)
    message = str(error.value)
    assert f"conditioning_key {key} with a UNet of" in message and found in message and "\n" not in message
    # and the same where a user meets it, from a configuration
    config = ModelConfig(conditioning_key=key, unet_rosinality_config={"channel": 32, **options})
    with pytest.raises(UserError, match="conditioning_key"):
        build_network(config)


def test_keys_that_fit_are_built_from_a_configuration():
    for key, options in KEYS.items():
        network = build_network(ModelConfig(conditioning_key=key, unet_rosinality_config={"channel": 32, **options}))
        assert network.conditioning_key == key


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: DiffusionWrapper(unet_of(in_channel=2), "Concat"),
            "found 'Concat', expected one of concat, crossattn",
        ),
        (lambda: DiffusionWrapper(unet_of(in_channel=2, out_channel=2), "concat"), "out_channel 2: expected 1"),
        (
            lambda: DiffusionWrapper(unet_of(in_channel=1, context_dim=40), "crossattn"),
            "context_dim 40: expected a multiple of 32",
        ),
        (
            lambda: DiffusionWrapper(unet_of(**KEYS["adm"]), "adm", acquisition_size=3),
            "adm: found 3 acquisition numbers and a UNet with vector_dim 16, expected the same",
        ),
        (
            lambda: DiffusionWrapper(unet_of(in_channel=2), "concat", acquisition_size=3),
            "concat: found 3 acquisition numbers, expected conditioning_key adm",
        ),
        (
            lambda: build_network(ModelConfig(unet_rosinality_config={"channel": 32, "attn_heads": 3})),
            "attn_heads: found 3, expected a divisor of 32 channels",
        ),
    ],
)
def test_other_misfits_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
