"""The original work's experiment file, from HDF5 patches to a trained model, samples and their scores."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cdm4mi.data.phantoms import phantom

EXPERIMENT = Path(__file__).parents[1] / "support" / "original_experiment.yaml"


def patch(seed):
    """(64, 64) integers 0 to 255, as the original work's patches are."""
    return phantom("MR", seed, 64).clip(0, 1000) / 1000 * 255


def write_patches(folder, images):
    folder.mkdir(parents=True)
    for name, image in images.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["data"] = np.round(image.clip(0, 255)).astype(np.uint8)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two steps, for the time's sake on two patches a step."""
    from cdm4mi.config import load_config
    from cdm4mi.training.run import train

    folder = tmp_path_factory.mktemp("experiment")
    people = {f"sub-{person}_patch_{k}": patch(10 * person + k) for person in range(2) for k in range(2)}
    patches = write_patches(folder / "patches", people)
    overrides = [f"image_dir={patches}", "max_tsteps=2", "batch_size=2", "val_patches=1", "val_every=2", "steps=3"]
    train(load_config(EXPERIMENT, overrides), folder / "run", progress=False)
    return folder / "run"


def test_it_trains_samples_and_evaluates(run, command, tmp_path):
    assert (run / "config.yaml").exists()
    assert (run / "pictures" / "step-0000002.png").exists()
    code, out, _ = command("inspect", run / "checkpoints" / "best.ckpt")
    assert code == 0
    assert "channel 64 x (1, 2, 4), 2 block(s) a level, attention at strides 4" in out
    assert "1 in training, 1 in validation" in out
    clean = patch(99)
    noisy = clean + 0.1 * 127.5 * np.random.default_rng(0).standard_normal(clean.shape)
    source = write_patches(tmp_path / "noisy", {"a": noisy})
    reference = write_patches(tmp_path / "clean", {"a": clean})
    code, out, err = command("denoise", source / "a.h5", tmp_path / "out" / "a.h5", "--model", run, "--steps", 2)
    assert code == 0, err
    assert "2 network calls a slice" in out
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        assert file["data"].shape == (64, 64)
        assert 0 <= file["data"][()].min() <= file["data"][()].max() <= 255
    code, out, err = command(
        "evaluate", tmp_path / "out" / "a.h5", reference / "a.h5", "--noisy", source / "a.h5", "--range", 0, 255
    )
    assert code == 0, err
    for row in ("prediction", "noisy input", "non-local means", "PSNR"):
        assert row in out


def test_the_command_says_how_to_go_on_and_refuses_to_train_over_a_run(run, command):
    code, _, err = command("train", EXPERIMENT, "max_tsteps=2", "--out", run)
    assert code == 2
    assert "--resume" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["image_dir=/nowhere"], "/nowhere"),
        (["timesteps=0"], "timesteps"),
        (["max_tstep=5"], "max_tsteps"),
        (["learning_rate=fast"], "learning_rate"),
        (["conditioning_key=concatenate"], "conditioning_key"),
        (["parameterization=precond", "conditioning_key=adm"], "conditioning_key adm"),
        (["precision=fp16"], "precision"),
    ],
)
def test_mistakes_are_found_before_a_run_begins(command, hdf5_folder, tmp_path, overrides, said):
    folder = hdf5_folder(2, size=64)
    code, out, err = command("train", EXPERIMENT, f"image_dir={folder}", *overrides, "--out", tmp_path / "run")
    assert code == 2
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
