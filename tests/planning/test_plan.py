"""A folder of scans becomes a plan that a person can read and change, and that trains as it is."""

import json
import shutil

import numpy as np
import pytest
import stores_to_plan as made
import torch

from cdm4mi.config.load import load_config, load_preset
from cdm4mi.data.prepare import prepare
from cdm4mi.data.prepare_scan import Settings
from cdm4mi.data.tasks import all_scans
from cdm4mi.errors import UserError
from cdm4mi.planning.cost import footprint, memory_estimate, seconds_a_step
from cdm4mi.planning.machine import GIB, Machine, this_machine
from cdm4mi.planning.plan_file import write_plan
from cdm4mi.planning.settings import settings_of


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    return {
        modality: made.store_of(made.scans(root / f"{modality}-scans", modality), root / modality)
        for modality in ("CT", "MR")
    }


@pytest.fixture
def store(stores, tmp_path):
    """A store of its own for a test that changes it."""
    return shutil.copytree(stores["MR"], tmp_path / "brains", ignore=shutil.ignore_patterns("plan.yaml"))


def test_fingerprint_says_what_the_scans_are(stores):
    made.plan(stores["CT"])
    said = json.loads((stores["CT"] / "fingerprint.json").read_text())
    assert said["modalities"] == ["CT"]
    assert said["patients"] == {"train": 3, "val": 1, "test": 1}
    assert said["slices"] == {"train": 15, "val": 5, "test": 5}
    assert said["spacing_mm"] == [[2.5] * 3, [0.8] * 3, [0.8] * 3]
    assert said["rows"] == [96, 96, 96]
    assert said["noise"]["sigma"][1] == pytest.approx(40, rel=0.15)
    assert said["noise"]["correlation"][1] < 0.2
    assert said["foreground_percentiles"]["50"][1] == pytest.approx(0, abs=120)
    assert 0 < said["clipped_fraction"] < 0.1
    assert said["sources"]["CT-96x96"]["patients"] == said["patients"]


def test_the_test_set_is_not_looked_at(store):
    """Its voxels could be anything."""
    manifest = json.loads((store / "manifest.json").read_text())
    for scan in manifest["scans"]:
        if scan["split"] == "test":
            (store / scan["file"]).unlink()
    made.plan(store)


def test_a_plan_is_a_configuration_that_trains(store, tmp_path):
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.training.run import train

    settings = made.plan(store)
    assert load_config(store / "plan.yaml") == settings
    model, unet = settings.model, settings.model.unet_rosinality_config
    assert (model.path, model.parameterization, model.level_channel) == ("residual", "precond", True)
    assert (unet.channel, unet.channel_multiplier, unet.n_res_blocks, unet.fold) == (32, [1, 2, 4], 1, 2)
    assert settings.name == "brains"
    short = settings_of(str(store), ["max_tsteps=2", "val_every=2", "batch_size=2", "val_patches=2", "picture_every=2"])
    last = train(short, tmp_path / "run", progress=False)
    assert load_model(last).about.step == 2
    assert list((tmp_path / "run" / "pictures").iterdir())


def test_every_choice_that_is_not_plain_has_its_reason(store):
    made.plan(store)
    text = (store / "plan.yaml").read_text()
    for said in ("60 minutes", "GiB of memory (estimated)", "own noise", "Data: MR; 3 patient(s)", "Rician"):
        assert said in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_noise_suits_the_scans(stores):
    ct, mr = (made.plan(stores[modality]).data.noise for modality in ("CT", "MR"))
    assert (ct.type, mr.type) == ("gaussian", "rician")
    assert ct.sigma_hu[0] >= 30 and mr.percent[0] >= 1.0  # nothing below the noise that the scans have


def test_the_normalisation_is_the_store_s(stores, tmp_path):
    """Percentiles that were asked for when the store was made are those of the training, without a word more."""
    said = {
        modality: made.plan(stores[modality]) and (stores[modality] / "plan.yaml").read_text() for modality in stores
    }
    assert "window: [-1000.0, 1000.0]" in said["CT"] and "percentiles" not in said["CT"]
    assert (
        "percentiles: [0.0, 99.5]" in said["MR"] and "window" not in said["MR"].partition("data:")[2].split("model:")[0]
    )
    own = tmp_path / "own"
    prepare(all_scans([stores["MR"].parent / "MR-scans"], own), own, settings=Settings(percentiles=(1, 98)), workers=1)
    assert made.plan(own).data.percentiles == [1.0, 98.0]
    assert "data" not in made.wrong(made.plan(own))  # it can be read


def test_pictures_and_validation_come_within_minutes(store):
    """An hour of small steps shows something long before its end."""
    training = made.plan(store, timed=lambda *_: 0.05, anew=True).training
    assert training.max_tsteps > 50_000
    assert training.picture_every <= 1000 and training.val_every <= 500


def test_steps_fill_the_time_that_is_given(store):
    hour = made.plan(store).training
    short = made.plan(store, minutes=10, anew=True).training
    assert hour.max_tsteps * 0.25 == pytest.approx(3600, rel=0.2)
    assert short.max_tsteps * 6 == pytest.approx(hour.max_tsteps, rel=0.1)
    assert short.ema_decay_factor < hour.ema_decay_factor


@pytest.mark.parametrize("free, batch", [(8.0, 8), (1.4, 4), (1.32, 1)])
def test_little_memory_makes_small_batches_of_the_same_gradient(store, free, batch):
    settings = made.plan(store, machine=Machine(2, int(free * GIB)))
    assert settings.training.batch_size == batch
    assert settings.training.batch_size * settings.training.accumulate == 8
    assert memory_estimate(settings) <= 0.7 * free * GIB


def test_less_memory_than_any_network_takes_is_said(store):
    planned = write_plan(store, machine=Machine(2, GIB // 2), timed=made.timed)
    assert "may not fit" in planned.warning and "may not fit" in planned.path.read_text()
    settings = load_config(planned.path)
    assert settings.training.batch_size == 1
    assert settings.model.unet_rosinality_config.gradient_checkpointing
    assert settings.model.image_size == 32


def test_a_gpu_gets_a_wider_network(store):
    settings = made.plan(store, machine=Machine(16, 40 * GIB, "some GPU", bf16=True))
    assert settings.model.unet_rosinality_config.channel == 64
    assert settings.training.precision == "bf16"
    assert settings.model.image_size == 96  # no more than the scans have
    assert settings.data.workers > 0


def test_a_plan_that_was_changed_is_kept(store):
    made.plan(store)
    plan = store / "plan.yaml"
    plan.write_text(plan.read_text().replace("batch_size: 8", "batch_size: 6"))
    planned = write_plan(store, machine=made.MACHINE, timed=made.timed, anew=True)
    assert planned.plan is None and "changed by hand; it is kept" in planned.warning
    assert settings_of(str(store)).training.batch_size == 6
    made.rewritten(store, lambda manifest: manifest.update(licence="CC0"))
    assert "and the store has changed since" in write_plan(store, machine=made.MACHINE, timed=made.timed).warning


def test_a_plan_follows_its_store_and_is_else_left_alone(store):
    made.plan(store)
    plan = store / "plan.yaml"
    before = plan.read_text()
    assert write_plan(store, machine=Machine(2, 5 * GIB), timed=made.timed).plan is None
    assert plan.read_text() == before
    made.rewritten(store, lambda manifest: manifest.update(licence="CC0"))
    assert write_plan(store, machine=made.MACHINE, timed=made.timed).plan is not None
    assert plan.read_text() != before


def test_a_store_that_was_moved_is_read_where_it_lies(store, tmp_path):
    made.plan(store)
    shutil.move(store, tmp_path / "elsewhere")
    assert settings_of(str(tmp_path / "elsewhere")).data.paths == [str(tmp_path / "elsewhere")]


def test_a_store_without_patients_to_train_on_is_refused(store):
    def only_test(manifest):
        for scan in manifest["scans"]:
            scan["split"] = "test"

    made.rewritten(store, only_test)
    with pytest.raises(UserError, match="no slice for training"):
        made.plan(store)


def test_memory_is_counted_as_a_network_keeps_it():
    """Activations grow with the area of the image and the batch; the weights do not."""
    small, large = (footprint(load_preset("phantom-small", [f"image_size={side}"])) for side in (32, 64))
    assert small.parameters == large.parameters == 707908
    assert large.kept == pytest.approx(4 * small.kept, rel=0.1)
    checkpointed = footprint(load_preset("phantom-small", ["gradient_checkpointing=true"]))
    assert checkpointed.kept < 0.6 * large.kept
    assert large.bytes(16) > large.bytes(8) > large.bytes(8, "bf16")


def test_timing_a_step_changes_no_random_number_and_no_thread():
    settings = load_preset("phantom-small", ["image_size=16", "batch_size=1"])
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert seconds_a_step(settings, made.MACHINE, steps=1) > 0
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads


def test_prepare_then_train_with_nothing_said(command, monkeypatch, tmp_path):
    """The whole way, as a user who has only a folder of scans."""
    monkeypatch.setattr("cdm4mi.planning.plan_file.seconds_a_step", made.timed)
    monkeypatch.setattr(write_plan, "__kwdefaults__", {**write_plan.__kwdefaults__, "timed": made.timed})
    monkeypatch.setattr("cdm4mi.planning.plan.FEWEST", 2)
    monkeypatch.setattr("cdm4mi.planning.plan.MOST", 2)
    monkeypatch.chdir(tmp_path)
    made.scans(tmp_path / "scans", "MR", people=3)
    code, out, err = command("prepare", "scans", "store", "--workers", 1)
    assert (code, err) == (0, "")
    assert "planned: " in out and "next:  cdm4mi check store; cdm4mi train store" in out
    code, out, err = command("plan", "store", "--minutes", 10)
    assert (code, err) == (0, "") and "next:     cdm4mi train store" in out
    code, out, _ = command("train", "store", "--no-progress")
    assert code == 0
    assert (tmp_path / "runs" / "store" / "checkpoints" / "last.ckpt").is_file()


def test_a_fingerprint_of_real_pairs_measures_both_halves(tmp_path):
    def noisier(clean, rng):
        return clean + 120 * rng.standard_normal(clean.shape), clean

    store = made.pairs_store(tmp_path, noisier)
    assert made.plan(store).data.noise.type == "identity"
    said = json.loads((store / "fingerprint.json").read_text())
    assert said["real_pairs"] == 4
    assert said["condition_noise"]["sigma"][1] == pytest.approx(120, rel=0.15)
    assert said["noise"]["sigma"][1] < 0.5 * said["condition_noise"]["sigma"][1]
    assert np.isfinite(said["clipped_fraction"])


@pytest.mark.parametrize("instructions", [{"avx512_bf16"}, set()])
def test_a_cpu_trains_in_bf16_where_it_computes_in_it(monkeypatch, instructions):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("cdm4mi.networks.precision.bf16_instructions", lambda: instructions)
    assert this_machine().bf16 == bool(instructions)
