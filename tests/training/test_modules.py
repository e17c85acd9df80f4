"""The training step's mathematics: losses, weights, accumulation, clipping, learning rate."""

import math

import lightning as L
import pytest
import torch
import training_runs as runs
from torch.utils.data import DataLoader

from cdm4mi.config.schema import TrainingConfig
from cdm4mi.training.modules import ConditionDDPM, learning_rate_factor


def make_module(**training):
    config = runs.tiny_config("", model={"unet": {"dropout": 0.0}}, **training)
    return ConditionDDPM(config=config)


def make_batch(n, weight=False):
    draw = torch.Generator().manual_seed(1)
    images = {k: torch.randn(n, 1, runs.SIDE, runs.SIDE, generator=draw) for k in ("x0", "y", "eps")}
    numbers = {"sigma": torch.full((n,), 0.2), "index": torch.arange(n)}
    numbers["t"] = torch.randint(0, 50, (n,), generator=draw)
    return images | numbers | ({"weight": torch.rand(images["x0"].shape, generator=draw)} if weight else {})


def trained(batch_size, accumulate, tmp_path, **training):
    module = make_module(accumulate=accumulate, **training)
    batch = make_batch(32)
    pairs = [{k: v[i] for k, v in batch.items()} for i in range(32)]
    trainer = L.Trainer(
        max_steps=2,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=module.config.training.gradient_clip,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(pairs, batch_size))
    assert trainer.global_step == 2
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_four_times_four_is_a_batch_of_sixteen(tmp_path):
    """Through clipping, AdamW and the schedule, to the rounding of float32."""
    before = torch.cat([p.detach().flatten() for p in make_module().parameters()])
    whole, split = trained(16, 1, tmp_path), trained(4, 4, tmp_path)
    moved = (whole - before).norm()
    assert moved > 0.01
    assert (whole - split).norm() < 1e-3 * moved
    assert (whole - trained(8, 1, tmp_path)).norm() > 0.1 * moved


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("l1", lambda d: d.abs()),
        ("l2", lambda d: d**2),
        ("huber", lambda d: torch.where(d.abs() < 0.5, d**2 / 2, 0.5 * (d.abs() - 0.25))),
    ],
)
def test_losses_are_per_sample_and_weighted_by_pixel(kind, of):
    module = make_module(loss_type=kind, huber_delta=0.5)
    with torch.no_grad():
        # the network starts at zero output
        network = module.model.diffusion_model.out[-1]
        network.bias.fill_(0.3)
    batch = make_batch(4, weight=True)
    found = module.losses(batch, batch["t"], batch["eps"])
    expected = (of(0.3 - batch["eps"]) * batch["weight"]).mean((1, 2, 3))
    assert found.shape == (4,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    plain = {k: v for k, v in batch.items() if k != "weight"}
    torch.testing.assert_close(
        module.losses(plain, batch["t"], batch["eps"]), of(0.3 - batch["eps"]).mean((1, 2, 3)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["l1", "l2", "huber"])
def test_each_loss_trains(kind):
    module = make_module(loss_type=kind)
    batch = make_batch(8, weight=True)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    seen = []
    for _ in range(25):
        loss = module.losses(batch, batch["t"], batch["eps"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.8 * seen[0]


def test_a_pixel_without_weight_teaches_nothing():
    module = make_module()
    batch = make_batch(2, weight=True)
    left = batch["weight"].clone()
    left[..., runs.SIDE // 2 :] = 0
    other = {**batch, "weight": left}
    changed = other["eps"].clone()
    changed[..., runs.SIDE // 2 :] += 10
    with torch.no_grad():
        module.model.diffusion_model.out[-1].weight.zero_()
        a = module.losses(other, batch["t"], batch["eps"])
        b = module.losses(other, batch["t"], changed)
    torch.testing.assert_close(a, b)


def test_a_compiled_network_is_for_the_gradient_alone(monkeypatch):
    """Validation, in batches of other sizes, would compile it again."""
    calls = []

    def compiled(function, **options):
        return lambda *given: calls.append(options) or function(*given)

    monkeypatch.setattr(torch, "compile", compiled)
    model, batch = make_module(compile=True), make_batch(2)
    plain = make_module()
    t, eps = batch["t"], batch["eps"]
    with torch.no_grad():
        expected = plain.losses(batch, t, eps)
        assert torch.equal(model.losses(batch, t, eps), expected)
    assert not calls
    assert torch.equal(model.losses(batch, t, eps), expected)
    assert calls == [{"dynamic": False}]
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_times_are_uniform_with_a_share_at_the_noisy_end():
    torch.manual_seed(0)
    images = torch.zeros(20000, 1, 1, 1)
    uniform = make_module().draw(images)[0]
    assert torch.bincount(uniform, minlength=50).float().std() < 3 * math.sqrt(400)
    assert int(uniform.min()) == 0
    for index in (None, torch.arange(20000)):
        share = (make_module(start_fraction=0.4).draw(images, index)[0] == 49).float().mean()
        assert float(share) == pytest.approx(0.4 + 0.6 / 50, abs=0.02)


def test_time_and_noise_of_a_pair_are_unrelated_to_its_neighbours_and_to_other_seeds():
    module, other = make_module(), make_module()
    other.config.seed = module.config.seed + 1
    images, index = torch.zeros(300, 1, 16, 16), torch.arange(300)
    t, eps = module.draw(images, index)
    t_other, eps_other = other.draw(images, index)
    assert torch.bincount(t, minlength=50).float().std() < 4 * math.sqrt(300 / 50)
    flat = torch.cat([eps, eps_other]).flatten(1)
    assert abs(float(flat.mean())) < 0.01 and float(flat.std()) == pytest.approx(1, abs=0.01)
    correlation = torch.corrcoef(flat) - torch.eye(600)
    assert float(correlation.abs().max()) < 6 / 16
    assert abs(float(torch.corrcoef(torch.stack([t, t_other]).double())[0, 1])) < 4 / math.sqrt(300)


@pytest.mark.parametrize(
    ("decay", "of"),
    [
        ("constant", lambda u: 1),
        ("linear", lambda u: 1 - u),
        ("cosine", lambda u: (1 + math.cos(math.pi * u)) / 2),
    ],
)
@pytest.mark.parametrize("warmup", [0, 10])
def test_learning_rate_is_its_closed_form(decay, of, warmup):
    factor = learning_rate_factor(TrainingConfig(max_tsteps=100, warmup=warmup, lr_decay=decay), lambda: 0.0)
    for step in range(101):
        expected = (step + 1) / (warmup + 1) if step < warmup else of((step - warmup) / (100 - warmup))
        assert factor(step) == pytest.approx(expected, abs=1e-12), step


def test_the_learning_rate_follows_the_time_where_it_is_further_than_the_steps():
    config = TrainingConfig(max_tsteps=100, warmup=0, lr_decay="linear")
    found = [learning_rate_factor(config, lambda share=share: share)(50) for share in (0.0, 0.1, 0.6, 1.0)]
    assert found == pytest.approx([0.5, 0.5, 0.4, 0.0])


def test_minimum_snr_weights_the_loss():
    plain, weighted = make_module(), make_module(min_snr_gamma=5.0)
    batch = make_batch(6)
    snr = plain.process.path.snr(batch["t"])
    with torch.no_grad():
        ratio = weighted.losses(batch, batch["t"], batch["eps"]) / plain.losses(batch, batch["t"], batch["eps"])
    torch.testing.assert_close(ratio.double(), (snr.clamp(max=5) / snr), rtol=1e-4, atol=0)


def test_the_detail_weights_the_loss():
    """The module's paths predict eps: an error of x0_hat is one of eps, sigma times."""
    plain, weighted = make_module(), make_module(neighbour_std=0.05)
    batch = make_batch(6)
    noise = 1 / plain.process.path.snr(batch["t"])
    with torch.no_grad():
        ratio = weighted.losses(batch, batch["t"], batch["eps"]) / plain.losses(batch, batch["t"], batch["eps"])
    torch.testing.assert_close(ratio.double(), 1 + noise * (0.05**-2 + 0.2**-2), rtol=1e-4, atol=0)
