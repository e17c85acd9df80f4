"""ConditionDDPM as people write it in a notebook: keywords, plain tensors, no trainer and no file."""

import pytest
import torch
import training_runs as runs
from torch import nn

from cdm4mi import DDPM, ConditionDDPM, UserError, phantom_pairs
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models import build_network
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.run import train

UNET = {
    "channel": 32,
    "channel_multiplier": (1, 2),
    "n_res_blocks": 1,
    "attn_strides": [],
    "fold": 2,
    "dropout": 0.0,
}


def make(**keys):
    return ConditionDDPM(**{"timesteps": 100, "unet_rosinality_config": UNET, "learning_rate": 3e-3, **keys})


@pytest.fixture(scope="module")
def pairs():
    return phantom_pairs(16, "MR", size=16, sigma=0.3)


def fit(model, x0, y, steps=3, **options):
    optimizer = model.make_optimizer()
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(x0, y, index=torch.arange(len(x0)) + step * len(x0), **options)
        loss.backward()
        optimizer.step()
        model.ema.update()
    return loss


@pytest.mark.parametrize("loss_type", ["l1", "l2", "huber"])
@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
def test_the_missions_words_are_the_keywords(pairs, parameterization, loss_type):
    model = ConditionDDPM(
        timesteps=1000,
        beta_schedule="linear",
        parameterization=parameterization,
        conditioning_key="concat",
        loss_type=loss_type,
        unet_rosinality_config=UNET,
        learning_rate=1e-4,
        use_ema=True,
        ema_decay_factor=0.99,
    )
    loss = fit(model, *pairs, steps=1)
    assert bool(loss.isfinite()) and model.ema.updates == 1
    assert model.config.model.timesteps == 1000 and model.config.training.learning_rate == 1e-4
    assert model.sample(pairs[1][:2], steps=2).shape == (2, 1, 16, 16)


def test_the_sample_is_the_averaged_weights_and_the_seeds(pairs):
    model, y = make(parameterization="v"), pairs[1][:3]
    fit(model, *pairs)
    own = {k: v.clone() for k, v in model.model.state_dict().items()}
    first = model.sample(y, steps=4, seed=3)
    assert model.model.training, "sampling left the network in its evaluation mode"
    assert torch.equal(first, model.sample(y, steps=4, seed=3))
    assert torch.equal(first[:2], model.sample(y[:2], steps=4, seed=3))
    assert not torch.equal(first, model.sample(y, steps=4, seed=4))
    assert runs.same(dict(model.model.state_dict()), own), "the weights in training were changed"
    with torch.no_grad():
        for p in model.model.parameters():
            p.mul_(2)
    assert torch.equal(first, model.sample(y, steps=4, seed=3))
    model.ema.restart()
    assert not torch.equal(first, model.sample(y, steps=4, seed=3))


def test_without_averages_it_samples_with_the_weights(pairs):
    model = make(use_ema=False, parameterization="v")
    before = model.sample(pairs[1][:1], steps=2)
    with torch.no_grad():
        model.model.diffusion_model.out[-1].bias.fill_(0.5)
    assert model.ema is None and not torch.equal(before, model.sample(pairs[1][:1], steps=2))


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(pairs):
    """With the pairs' numbers; else torch's global stream decides."""
    (x0, y), model, index = pairs, make(), torch.arange(16) + 100
    with torch.no_grad():
        model.model.diffusion_model.out[-1].bias.fill_(0.3)
        whole = model.loss(x0, cond=y, index=index)
        parts = [model(x0[k::2], y[k::2], index=index[k::2]) for k in range(2)]
        torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)
        torch.manual_seed(1)
        one, two = model(x0, y), model(x0, y)
        torch.manual_seed(1)
        assert torch.equal(one, model(x0, y)) and not torch.equal(one, two)


def test_it_is_what_a_run_trains_and_samples_as_the_restorer_does(pairs, tmp_path):
    """The first weights are the run's; the run's last checkpoint, loaded, draws what ``denoise`` draws."""
    config = runs.tiny_config(runs.patch_folder(tmp_path / "patches"), max_tsteps=2, use_ema=False)
    random = torch.get_rng_state()
    keys = config.model.model_dump() | {"training": config.training.model_dump(), "seed": config.seed}
    model = ConditionDDPM(**{k: v for k, v in keys.items() if v is not None})
    assert torch.equal(random, torch.get_rng_state()), "torch's global stream was touched"
    torch.manual_seed(config.seed)
    assert runs.same(dict(model.model.state_dict()), dict(build_network(config.model).state_dict()))
    last = train(config, tmp_path / "run", progress=False)
    model.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
    trained = load_model(last)
    settings = trained.config.sampling.model_copy(update={"steps": 4, "solver": "dpmpp_2m", "estimate": "sample"})
    y = pairs[1][:2]
    restored = SliceRestorer(trained, settings, "cpu").restore(y[:, 0].numpy(), 0.3, seed=5)
    found = model.sample(y, sigma=0.3, steps=4, solver="dpmpp_2m", seed=5)
    torch.testing.assert_close(found[:, 0], torch.from_numpy(restored), atol=1e-5, rtol=0)


def test_the_level_is_a_number_or_one_a_sample(pairs):
    (x0, y), index = pairs, torch.arange(16)
    model = make(path="residual")  # rests on the level of each sample
    one = model(x0, y, sigma=0.3, index=index)
    assert torch.equal(one, model(x0, y, sigma=torch.full((16,), 0.3), index=index))
    assert not torch.equal(one, model(x0, y, sigma=0.2, index=index))


def test_labels_are_a_condition_by_a_module_in_front(pairs):
    """Ten classes by an embedding as the vector of adm: it is trained, averaged and used in sampling."""
    unet = {**UNET, "in_channel": 1, "vector_dim": 16, "use_affine_time": True}
    model = make(cond=nn.Embedding(10, 16), conditioning_key="adm", unet_rosinality_config=unet, parameterization="v")
    before, labels = model.model.cond.weight.detach().clone(), torch.arange(16) % 10
    fit(model, pairs[0], labels)
    assert not torch.equal(before, model.model.cond.weight)
    assert not torch.equal(before, model.ema.weights["cond.weight"])
    images = model.sample(torch.tensor([1, 2]), steps=3, size=(16, 16))
    assert images.shape == (2, 1, 16, 16)
    assert not torch.equal(images, model.sample(torch.tensor([1, 3]), steps=3, size=(16, 16)))


def test_acquisition_numbers_and_tokens_are_plain_tensors_too(pairs):
    x0 = pairs[0][:2]
    numbers = {**UNET, "in_channel": 1, "vector_dim": 2, "use_affine_time": True}
    tokens = {**UNET, "in_channel": 1, "context_dim": 32}
    for key, unet, cond, extra in (
        ("adm", numbers, torch.zeros(2, 2), {"acquisition_vector": ["noise_level", "pixel_spacing"]}),
        ("crossattn", tokens, torch.zeros(2, 5, 32), {}),
    ):
        model = make(conditioning_key=key, unet_rosinality_config=unet, image_size=16, **extra)
        model(x0, cond).backward()
        assert model.sample(cond, steps=2).shape == x0.shape


def test_without_a_condition_it_is_ddpm(pairs):
    model = DDPM(timesteps=50, unet_rosinality_config=UNET, parameterization="v", image_size=16)
    model(pairs[0]).backward()
    assert model.sample(n=3, steps=2).shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"timestep": 10}, "ConditionDDPM: unknown key 'timestep'; the nearest known key is 'timesteps'"),
        ({"timesteps": "many"}, "ConditionDDPM: model.timesteps: found 'many', expected a whole number"),
        ({"learning_rate": -1.0}, "ConditionDDPM: training.learning_rate: found -1, expected more than 0"),
        (
            {"loss_type": "l3"},
            "ConditionDDPM: training.loss_type: found 'l3', expected 'l1', 'l2', 'huber' or 'log_l2'",
        ),
        ({"conditioning_key": "crossattn"}, "in_channel 2: expected 1"),
        ({"unet_rosinality_config": {"chanel": 32}}, "unknown key 'model.unet_rosinality_config.chanel'; the nearest"),
        ({"paths": ["scans"]}, "ConditionDDPM: unknown key 'paths'"),
        (
            {"learning_rate": torch.tensor(1.0)},
            "ConditionDDPM: training.learning_rate: found a Tensor, expected a number",
        ),
        ({"cond": "concat"}, "ConditionDDPM: cond: found 'concat', expected a torch module"),
        ({"cond": nn.Identity(), "level_channel": True}, "level_channel: found true with cond, expected false"),
        ({"config": runs.tiny_config(""), "timesteps": 5}, "ConditionDDPM: found config and timesteps, expected one"),
        ({"path": "residual", "regression": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
    ],
)
def test_a_wrong_keyword_is_one_line_that_names_it(keys, expected):
    with pytest.raises(UserError) as error:
        ConditionDDPM(**keys)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_ddpm_has_no_condition():
    with pytest.raises(UserError, match="DDPM: found conditioning_key concat, expected none"):
        DDPM(conditioning_key="concat", in_channel=2)


def test_a_wrong_batch_is_one_line(pairs):
    x0, y = pairs
    plain, residual = make(), make(path="residual")
    for call, expected in (
        (lambda: plain(x0), "conditioning_key concat: found no condition, expected an image"),
        (lambda: plain(x0[:, 0], y), "ConditionDDPM: x0: found shape (16, 16, 16), expected (N, 1, H, W)"),
        (lambda: plain(x0, y[:, :, :8]), "the conditioning image: found (16, 1, 8, 16), expected (16, 1, 16, 16)"),
        (lambda: plain(x0, y.numpy()), "condition: found a ndarray, expected an image (N, C, H, W)"),
        (lambda: residual(x0, y), "ConditionDDPM: sigma: found none, expected the standard deviation"),
        (lambda: residual(x0, y, sigma=torch.ones(3)), "sigma: found shape (3,), expected a number or (16,)"),
        (lambda: residual(x0, None, sigma=0.3), "ConditionDDPM: cond: found null, expected an image of shape"),
        (lambda: plain(x0.double(), y.double()), "ConditionDDPM: x0: found numbers of type float64, expected float32"),
        (lambda: plain(x0, (100 * y).int()), "ConditionDDPM: cond: found numbers of type int32, expected float32"),
        (lambda: plain(x0[..., :15, :15], y[..., :15, :15]), "x0: found 15 x 15 pixels, expected sides that are mult"),
        (lambda: plain(x0, y, sigma=-0.1), "ConditionDDPM: sigma: found -0.1, expected at least 0"),
        (lambda: residual(x0, y, sigma=torch.full((16,), float("nan"))), "sigma: found nan, expected at least 0"),
        (lambda: plain(x0, y, index=[0, 1]), "ConditionDDPM: index: found [0, 1], expected a tensor of 16 whole numb"),
        (lambda: plain(x0, y, index=torch.arange(3)), "index: found int64 of shape (3,), expected whole numbers (16,)"),
        (lambda: plain.sample(y, steps=2, seed=-1), "ConditionDDPM: seed: found -1, expected at least 0"),
        (lambda: plain.sample(y[..., :15, :16], steps=2), "found 15 x 16 pixels, expected sides that are multiples of"),
        (lambda: plain.sample(y, steps=101), "`steps`: found 101, expected 1 to 100"),
        (lambda: plain.sample(y, solver="magic"), "ConditionDDPM.sample: sampling.solver: found 'magic', expected"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert expected in str(error.value) and "\n" not in str(error.value)
