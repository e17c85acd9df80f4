"""A run that was killed at any moment and resumed is the run that was never killed, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import training_runs as runs

from cdm4mi.errors import UserError
from cdm4mi.training.last_checkpoint import newest_checkpoint
from cdm4mi.training.run import PairData, train

PARTS = ("state_dict", "ema", "optimizer_states", "lr_schedulers", "global_step")
ACCUMULATED = {"training": {"accumulate": 2}, "data": {"workers": 2}}


def make_config(patches, kind):
    extra = ACCUMULATED if kind == "accumulated" else {}
    return runs.tiny_config(patches, data=extra.get("data"), **extra.get("training", {}))


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def uninterrupted(patches, tmp_path_factory):
    """The run that nobody stopped, of each kind, made when first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            assert runs.in_process(make_config(patches, kind), made[kind]) == 0
        return made[kind]

    return get


def assert_equal_runs(out, reference, micro_batches):
    for name in ("last", "best"):
        found, expected = runs.checkpoint(out, name), runs.checkpoint(reference, name)
        for part in PARTS:
            assert runs.same(found[part], expected[part]), f"{name}.ckpt: {part} differs"
    seen = runs.batches(out)
    assert seen == runs.batches(reference), "another data order"
    assert sorted(seen) == [(step, micro) for step in range(9) for micro in range(micro_batches)]


STOPS = {
    "right-after-a-checkpoint": [("write", 1, "renamed")],
    "in-validation": [("validation", 4)],
    "in-the-write-of-a-checkpoint": [("write", 3, "torn")],
    "before-a-checkpoint-is-renamed": [("write", 3, "whole")],
    "as-last-becomes-previous": [("write", 4, "between")],
    "after-best-before-last": [("write", 2, "renamed")],
    "twice": [("batch", 3), ("batch", 7)],
}
STOPS_ACCUMULATED = {
    "again-in-the-first-step-after-resuming": [("batch", 4, 0), ("batch", 4, 1)],
}


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        *[pytest.param("plain", stops, id=name) for name, stops in STOPS.items()],
        *[pytest.param("accumulated", stops, id=f"accumulated-{name}") for name, stops in STOPS_ACCUMULATED.items()],
    ],
)
def test_killed_and_resumed_equals_uninterrupted(kind, stops, patches, uninterrupted, tmp_path):
    config = make_config(patches, kind)
    for i, stop in enumerate(stops):
        assert runs.in_process(config, tmp_path, resume=i > 0, stop=stop) == -signal.SIGKILL
    assert runs.in_process(config, tmp_path, resume=True) == 0
    assert_equal_runs(tmp_path, uninterrupted(kind), config.training.accumulate)
    assert [p.name for p in (tmp_path / "checkpoints").glob(".*")] == [], "half a checkpoint was left behind"


def test_workers_do_not_change_the_run(patches, uninterrupted, tmp_path):
    config = runs.tiny_config(patches, data={"workers": 2})
    assert runs.in_process(config, tmp_path) == 0
    assert_equal_runs(tmp_path, uninterrupted("plain"), 1)


def test_a_killed_trainer_leaves_no_worker(patches, tmp_path):
    config = runs.tiny_config(patches, data={"workers": 2}, max_tsteps=10**6)
    script = "import json, sys, training_runs; training_runs._train(*json.loads(sys.argv[1]), False, (), 0)"
    arguments = json.dumps([config.model_dump(mode="json"), str(tmp_path)])
    places = os.pathsep.join([str(Path(runs.__file__).parent), os.environ.get("PYTHONPATH", "")])
    trainer = subprocess.Popen([sys.executable, "-c", script, arguments], env=os.environ | {"PYTHONPATH": places})
    try:
        batches = tmp_path / "batches.txt"
        while trainer.poll() is None and not (batches.exists() and batches.read_bytes()):
            time.sleep(0.05)
        workers = psutil.Process(trainer.pid).children(recursive=True)
    finally:
        trainer.kill()
        trainer.wait()
    assert len(workers) >= 2
    _, left = psutil.wait_procs(workers, timeout=10)
    assert left == []


def test_a_finished_run_can_go_on_longer(patches, tmp_path):
    def of(steps):
        return runs.tiny_config(patches, lr_decay="constant", max_tsteps=steps, val_every=2)

    assert runs.in_process(of(8), tmp_path / "straight") == 0
    assert runs.in_process(of(4), tmp_path / "extended") == 0
    assert runs.in_process(of(8), tmp_path / "extended", resume=True) == 0
    straight, extended = runs.checkpoint(tmp_path / "straight"), runs.checkpoint(tmp_path / "extended")
    for part in PARTS:
        assert runs.same(straight[part], extended[part]), part


def test_a_resumed_run_has_the_optimizer_that_is_asked_for_now(patches, tmp_path):
    """At a rate next to nothing the weights stay where they were, and the moments are those of all eight steps."""
    keys = {"warmup": 0, "lr_decay": "constant", "val_every": 4}
    train(runs.tiny_config(patches, **keys, max_tsteps=4), tmp_path, progress=False)
    before = runs.checkpoint(tmp_path)
    asked = {"learning_rate": 1e-30, "betas": [0.5, 0.6], "weight_decay": 0.5}
    train(runs.tiny_config(patches, **keys, max_tsteps=8, **asked), tmp_path, resume=True, progress=False)
    now = runs.checkpoint(tmp_path)
    assert runs.same(now["state_dict"], before["state_dict"])
    (optimizer,), (schedule,) = now["optimizer_states"], now["lr_schedulers"]
    (group,) = optimizer["param_groups"]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-30, (0.5, 0.6), 0.5)
    assert schedule["base_lrs"] == [1e-30]
    assert {float(state["step"]) for state in optimizer["state"].values()} == {8}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"unet": {"channel": 64}}, r"^model\.unet_rosinality_config\.channel: found 64, but .*last\.ckpt was .* 32,"),
        ({"unet": {"n_res_blocks": 2}}, r"^model\.unet_rosinality_config\.n_res_blocks: found 2, but .* with 1,"),
        ({"network": "dncnn"}, r"model\.network: found 'dncnn', but .* with 'unet',"),
        ({"level_channel": True, "unet": {"in_channel": 3}}, r"model\.level_channel: found true, but .* with false,"),
        ({"parameterization": "v"}, r"model\.parameterization: found 'v', but .* with 'eps',"),
        ({"timesteps": 60}, r"model\.timesteps: found 60, but .* with 50,"),
        ({"beta_schedule": "cosine"}, r"model\.beta_schedule: found 'cosine', but .* with 'linear',"),
        ({"path": "i2sb"}, r"model\.path: found 'i2sb', but .* with 'ddpm',"),
    ],
)
def test_another_model_is_refused_before_anything_is_written(model, message, patches, uninterrupted, tmp_path):
    out = shutil.copytree(uninterrupted("plain"), tmp_path / "run")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=message) as error:
        train(runs.tiny_config(patches, model, max_tsteps=12), out, resume=True, progress=False)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_what_does_not_change_the_meaning_of_the_weights_may_change(patches, uninterrupted, tmp_path):
    out = shutil.copytree(uninterrupted("plain"), tmp_path / "run")
    model = {"image_size": 8, "unet": {"dropout": 0.0, "gradient_checkpointing": True}}
    config = runs.tiny_config(patches, model, {"noise": {"variance": 0.2}}, max_tsteps=10, loss_type="l1")
    train(config, out, resume=True, progress=False)
    assert runs.checkpoint(out)["global_step"] == 10


def test_a_patient_of_the_training_does_not_become_one_of_the_validation(patches, uninterrupted, tmp_path):
    out = shutil.copytree(uninterrupted("plain"), tmp_path / "run")
    (validated,) = PairData(runs.tiny_config(patches)).val_names
    trained = min({f"sub-{person:02d}" for person in range(runs.PEOPLE)} - {validated})
    config = runs.tiny_config(patches, data={"val_patients": [trained]}, max_tsteps=12)
    with pytest.raises(UserError, match=rf"^data: 1 validation patient, first {trained}, of whom .* was trained on, "):
        train(config, out, resume=True, progress=False)


@pytest.mark.parametrize(
    ("stop", "by"),
    [
        (("batch", 5, 1), signal.SIGINT),
        (("validation", 4), signal.SIGTERM),
    ],
)
def test_a_signal_keeps_every_finished_step(stop, by, patches, uninterrupted, tmp_path):
    config = make_config(patches, "accumulated")
    code = runs.in_process(config, tmp_path, stop=stop, by=by)
    assert code == {signal.SIGINT: 1, signal.SIGTERM: 143}[by]
    assert runs.checkpoint(tmp_path)["global_step"] == stop[1] + (stop[0] == "batch")
    assert runs.in_process(config, tmp_path, resume=True) == 0
    assert_equal_runs(tmp_path, uninterrupted("accumulated"), 2)


def test_ctrl_c_before_the_first_checkpoint_leaves_one(patches, tmp_path):
    config = runs.tiny_config(patches, checkpoint_every=100)
    runs.in_process(config, tmp_path, stop=("batch", 2), by=signal.SIGINT)
    assert runs.checkpoint(tmp_path)["global_step"] == 3


def test_resume_begins_where_nothing_is(patches, tmp_path, caplog):
    config = runs.tiny_config(patches, max_tsteps=1, val_every=1)
    train(config, tmp_path / "run", resume=True, progress=False)
    assert runs.checkpoint(tmp_path / "run")["global_step"] == 1
    assert "run: holds no checkpoint yet, so the run begins" in caplog.text


def cut(file):
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove(file):
    file.unlink()


@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_a_damaged_last_checkpoint_falls_back_on_the_one_before(damage, uninterrupted, tmp_path, caplog):
    folder = shutil.copytree(uninterrupted("plain") / "checkpoints", tmp_path / "checkpoints")
    before = runs.checkpoint(tmp_path, "previous")["global_step"]
    assert newest_checkpoint(folder) == folder / "last.ckpt"
    assert not caplog.records
    damage(folder / "last.ckpt")
    assert newest_checkpoint(folder) == folder / "last.ckpt"
    (record,) = caplog.records
    assert f"; going on from previous.ckpt, step {before}" in record.getMessage()
    assert "last.ckpt: " in record.getMessage()
    assert "\n" not in record.getMessage()
    assert runs.checkpoint(tmp_path)["global_step"] == before
    assert (folder / "damaged.ckpt").exists() == (damage is not remove)
    remove(folder / "last.ckpt")
    cut(folder / "previous.ckpt")
    assert newest_checkpoint(folder) == folder / "last.ckpt"
    assert "last.ckpt: is missing; going on from best.ckpt, step " in caplog.text
    for name in ("last", "previous", "best"):
        cut(folder / f"{name}.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: is cut or damaged, .*; no other of the run is whole") as error:
        newest_checkpoint(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("optimizer_states"), "optimizer_states: missing, expected a list"),
        (lambda c: c.pop("lr_schedulers"), "lr_schedulers: missing, expected a list"),
        (lambda c: c.pop("pytorch-lightning_version"), "pytorch-lightning_version: missing, expected a text"),
        (lambda c: c.pop("PairData"), "PairData: missing, expected a mapping"),
        (lambda c: c.update(loops={}), "loops.fit_loop: missing, expected a mapping"),
        (lambda c: c.update(optimizer_states=[{}]), r"optimizer_states\[0\].state: missing, expected a mapping"),
        (lambda c: c.update(optimizer_states=[]), "optimizer_states: found an empty list, expected one item or more"),
        (lambda c: c["lr_schedulers"][0].pop("lr_lambdas"), r"lr_schedulers\[0\].lr_lambdas: missing, expected a list"),
        (
            lambda c: next(iter(c["callbacks"].values())).pop("best_model_path"),
            "callbacks: ModelCheckpoint.best_mod",
        ),
        (lambda c: c.update(global_step="x"), "global_step: found a text, expected a whole number"),
        (lambda c: c.update(cdm4mi=[1]), "cdm4mi: found a list, expected a mapping"),
        (lambda c: c["ema"].pop("weights"), "ema.weights: missing, expected a mapping"),
    ],
)
def test_a_checkpoint_without_a_part_that_a_training_needs_is_one_line(change, words, uninterrupted, tmp_path, caplog):
    folder, checkpoint = tmp_path / "checkpoints", runs.checkpoint(uninterrupted("plain"))
    change(checkpoint)
    folder.mkdir()
    torch.save(checkpoint, folder / "last.ckpt")
    with pytest.raises(UserError, match=rf"checkpoints/last\.ckpt: {words}") as error:
        newest_checkpoint(folder)
    assert "\n" not in str(error.value)
    shutil.copy(uninterrupted("plain") / "checkpoints" / "previous.ckpt", folder)
    assert newest_checkpoint(folder) == folder / "last.ckpt"
    assert "(kept as damaged.ckpt); going on from previous.ckpt, step " in caplog.text


def test_a_second_run_into_the_same_folder_is_refused(patches, uninterrupted):
    out = uninterrupted("plain")
    before = (out / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(UserError, match="holds a run already; give `resume`"):
        train(runs.tiny_config(patches), out, progress=False)
    assert (out / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_run_ends_in_time_and_stays_ended(patches, tmp_path, monkeypatch):
    """Every step takes six seconds of a clock that the test turns."""
    clock = iter(range(0, 10**6, 6))
    monkeypatch.setattr("cdm4mi.training.callbacks.TimeLimit._passed", lambda self: self._before + next(clock))
    keys = {"max_tsteps": 1000, "max_minutes": 0.5, "lr_decay": "linear", "warmup": 0, "checkpoint_every": 1000}
    config = runs.tiny_config(patches, **keys)
    train(config, tmp_path / "run", progress=False)
    done = runs.checkpoint(tmp_path / "run")
    assert done["global_step"] == 5
    (schedule,) = done["lr_schedulers"]
    assert schedule["_last_lr"] == [0.0]
    train(config, tmp_path / "run", resume=True, progress=False)
    assert runs.checkpoint(tmp_path / "run")["global_step"] == 5
