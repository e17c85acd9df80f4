"""Accumulation, and more processes, give the gradient of the whole batch: each pair has its own time and noise."""

import lightning as L
import pytest
import torch
import training_runs as runs
from torch.utils.data import DataLoader

from cdm4mi.data.pairs import OrderedFrom
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.distill import distill, student_config
from cdm4mi.training.modules import ConditionDDPM
from cdm4mi.training.run import PairData, train


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


class Gradients(L.Callback):
    """The gradient of each optimizer step, as one vector."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        parts = [p.grad.flatten() for p in module.model.parameters() if p.grad is not None]
        self.steps.append(torch.cat(parts).clone())


@pytest.fixture
def gradients(monkeypatch):
    """``gradients(run)``: those of the run that the function does."""
    make = L.Trainer

    def of(run):
        watch = Gradients()
        with monkeypatch.context() as patch:
            patch.setattr(L, "Trainer", lambda *a, callbacks, **k: make(*a, callbacks=[*callbacks, watch], **k))
            run()
        return watch.steps

    return of


def assert_same(found, expected):
    assert float((found - expected).norm()) < 1e-4 * float(expected.norm())


@pytest.mark.parametrize("start_fraction", [0.0, 0.5])
def test_micro_batches_have_the_gradient_of_their_batch(patches, tmp_path, gradients, start_fraction):
    def run(batch_size, accumulate):
        config = runs.tiny_config(
            patches,
            model={"unet": {"dropout": 0.0}},
            batch_size=batch_size,
            accumulate=accumulate,
            start_fraction=start_fraction,
            max_tsteps=2,
            gradient_clip=0.0,
        )
        return gradients(lambda: train(config, tmp_path / f"{batch_size}x{accumulate}", progress=False))

    whole, halves, singles = run(4, 1), run(2, 2), run(1, 4)
    for split in (halves, singles):
        assert_same(split[0], whole[0])
        assert float((split[1] - whole[1]).norm()) < 1e-2 * float(whole[1].norm())  # after an update, which Adam made
    assert float((whole[1] - whole[0]).norm()) > 0.1 * float(whole[0].norm())


def test_distillation_in_micro_batches_has_the_gradient_of_its_batch(trained_run, tmp_path, gradients):
    model = load_model(trained_run)

    def run(batch_size, accumulate):
        overrides = [f"batch_size={batch_size}", f"accumulate={accumulate}", "max_tsteps=1", "gradient_clip=0"]
        config, out = student_config(model, 1, 2, overrides), tmp_path / str(accumulate)
        return gradients(lambda: distill(model, out, config, teacher_steps=2, progress=False))

    assert_same(run(2, 4)[0], run(8, 1)[0])


def test_processes_that_share_the_pairs_draw_what_one_process_draws(patches):
    config = runs.tiny_config(patches, start_fraction=0.3)
    pairs = PairData(config).train_pairs
    module = ConditionDDPM(config=config)

    def drawn(rank, processes, batch_size, batches):
        loader = iter(DataLoader(pairs, batch_size, sampler=OrderedFrom(rank, processes)))
        for _ in range(batches):
            batch = next(loader)
            t, eps = module.draw(batch["x0"], batch["index"])
            yield from zip(batch["index"].tolist(), batch["x0"], t, eps, strict=True)

    alone = {i: rest for i, *rest in drawn(0, 1, 6, 2)}
    shared = {i: rest for rank in range(3) for i, *rest in drawn(rank, 3, 2, 2)}
    assert sorted(alone) == sorted(shared) == list(range(12))
    for i, values in alone.items():
        assert all(torch.equal(a, b) for a, b in zip(values, shared[i], strict=True)), i
    assert len({float(eps[0, 0, 0]) for _, _, eps in alone.values()}) == 12
