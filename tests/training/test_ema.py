"""EMA: its closed form, one move an optimizer step, and which weights validation and the checkpoint have."""

import csv

import lightning as L
import pytest
import torch
import training_runs as runs
from torch import nn

from cdm4mi.models import build_network
from cdm4mi.training.callbacks import EMACallback
from cdm4mi.training.ema import EMA
from cdm4mi.training.modules import ConditionDDPM
from cdm4mi.training.run import PairData, train


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


@pytest.mark.parametrize("warmup", [False, True])
def test_closed_form(warmup):
    layer = nn.Linear(3, 2).double()
    weights = [torch.randn(2, 3, dtype=torch.float64) for _ in range(40)]
    with torch.no_grad():
        layer.weight.copy_(weights[0])
    ema = EMA(layer, decay=0.9, warmup=warmup)
    for w in weights[1:]:
        with torch.no_grad():
            layer.weight.copy_(w)
        ema.update()
    # the n-th weights count (1 - d_n) times every later d
    decays = [min(0.9, (1 + n) / (10 + n)) if warmup else 0.9 for n in range(1, 40)]
    rest = torch.tensor([1.0] + [1 - d for d in decays], dtype=torch.float64)
    later = torch.tensor([torch.tensor(decays[n:], dtype=torch.float64).prod() for n in range(40)])
    expected = sum(r * k * w for r, k, w in zip(rest, later, weights, strict=True))
    torch.testing.assert_close(ema.weights["weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_their_own_again_also_after_an_error():
    layer = nn.Linear(3, 2)
    ema = EMA(layer)
    own = layer.weight.detach().clone().fill_(5)
    with torch.no_grad():
        layer.weight.fill_(5)
    with pytest.raises(KeyError), ema.applied():
        torch.testing.assert_close(layer.weight, ema.weights["weight"])
        raise KeyError
    assert torch.equal(layer.weight, own)


class Watch(L.Callback):
    """The weights after each micro-batch, and those that each validation step has."""

    def __init__(self):
        self.steps, self.trained, self.validated, self.averages = [], [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.append(trainer.global_step)
        self.trained.append(self.copy(module))
        self.averages.append(module.ema.updates)

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append(self.copy(module))
        self.expected = {k: v.clone() for k, v in module.ema.weights.items()}

    @staticmethod
    def copy(module):
        return {k: v.detach().clone() for k, v in module.model.named_parameters()}


def fit(patches, out, monkeypatch, **training):
    """``train`` with a watcher beside its own callbacks."""
    watch, make = Watch(), L.Trainer

    def trainer(*args, callbacks, **kwargs):
        return make(*args, callbacks=[*callbacks, watch], **kwargs)

    monkeypatch.setattr(L, "Trainer", trainer)
    config = runs.tiny_config(patches, ema_decay_factor=0.9, **training)
    train(config, out, progress=False)
    return watch, config


def test_moves_once_an_optimizer_step_with_accumulation(patches, tmp_path, monkeypatch):
    watch, config = fit(patches, tmp_path, monkeypatch, accumulate=3, max_tsteps=4, val_every=4)
    assert watch.steps == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert watch.averages == watch.steps
    torch.manual_seed(config.seed)
    network = build_network(config.model)
    ema = EMA(network, 0.9)
    for n in (2, 5, 8, 11):
        network.load_state_dict(watch.trained[n], strict=False)
        ema.update()
    assert runs.same(runs.checkpoint(tmp_path)["ema"], ema.state_dict())


def test_validation_uses_it_and_gives_the_weights_back(patches, tmp_path, monkeypatch):
    watch, config = fit(patches, tmp_path, monkeypatch, max_tsteps=4, val_every=4)
    assert watch.validated
    assert all(runs.same(weights, watch.expected) for weights in watch.validated)
    state = runs.checkpoint(tmp_path)
    raw = {k.removeprefix("model."): v for k, v in state["state_dict"].items()}
    assert all(torch.equal(raw[k], v) for k, v in watch.trained[-1].items())
    rows = list(csv.DictReader(next((tmp_path / "logs").rglob("metrics.csv")).open()))
    logged = next(row for row in rows if row.get("val/loss"))
    for column, weights in (("val/loss", state["ema"]["weights"]), ("val/loss_raw", raw)):
        assert float(logged[column]) == pytest.approx(validation_loss(config, weights), rel=1e-4), column
    assert logged["val/loss"] != logged["val/loss_raw"]


def validation_loss(config, weights):
    """The mean over the validation pairs, computed without a trainer."""
    network = build_network(config.model)
    network.load_state_dict(weights, strict=False)
    module = ConditionDDPM(config=config, wrapper=network).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in PairData(config).val_dataloader():
            loss, _ = module.validation_losses(batch)
            total, count = total + float(loss.sum()), count + len(loss)
    return total / count


def test_an_error_in_validation_gives_the_weights_back(patches, tmp_path, monkeypatch):
    def fails(self, batch, batch_idx):
        raise ZeroDivisionError

    seen = {}
    restore = EMACallback.on_exception

    def on_exception(self, trainer, module, exception):
        seen["averaged"] = Watch.copy(module)
        restore(self, trainer, module, exception)
        seen["own"] = Watch.copy(module)
        seen["ema"] = {k: v.clone() for k, v in module.ema.weights.items()}

    monkeypatch.setattr(ConditionDDPM, "validation_step", fails)
    monkeypatch.setattr(EMACallback, "on_exception", on_exception)
    with pytest.raises(ZeroDivisionError):
        fit(patches, tmp_path, monkeypatch, max_tsteps=4, val_every=4)
    assert runs.same(seen["averaged"], seen["ema"])
    assert not runs.same(seen["own"], seen["ema"])
