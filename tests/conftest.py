"""Files that a user has, made small."""

import h5py
import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def hdf5_folder(tmp_path):
    """Makes a folder of HDF5 patches, three a person, each person of one grey value: integers, dataset ``data``."""

    def make(people, size=24):
        folder = tmp_path / "patches"
        folder.mkdir()
        for person in range(people):
            for patch in range(3):
                with h5py.File(folder / f"sub-{person:02d}_patch_{patch}.h5", "w") as file:
                    file["data"] = np.full((size, size), 40 + 30 * person, np.uint8)
        return folder

    return make


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the entry point: ``command("denoise", a, b)`` gives (exit code, stdout, stderr)."""
    from cdm4mi.cli.main import run

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["cdm4mi", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def save_nifti():
    """Writes (slices, rows, columns), or with time in front, as NIfTI: ``save_nifti(path, array, affine=...)``."""

    def save(path, array, affine=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([0.8, 0.7, 2.5, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(np.asarray(array, np.float32).T, affine), path)
        return path

    return save


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a real, short training run on CT phantoms: a small preconditioned model that denoises."""
    from cdm4mi.config import parse_config
    from cdm4mi.data.phantoms import phantom
    from cdm4mi.training.run import train

    folder = tmp_path_factory.mktemp("trained")
    scans = []
    for person in range(3):
        slices = np.stack([phantom("CT", 3 * person + k, 64) for k in range(3)])
        path = folder / f"sub-{person:02d}.nii.gz"
        nib.save(nib.Nifti1Image(slices.T, np.diag([0.8, 0.7, 2.5, 1.0])), path)
        scans.append(str(path))
    unet = {"in_channel": 3, "channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": []}
    model = {
        "image_size": 32,
        "timesteps": 100,
        "beta_schedule": "log_sigma",
        "parameterization": "precond",
        "level_channel": True,
        "unet_rosinality_config": {**unet, "use_affine_time": True, "dropout": 0.0, "fold": 2},
    }
    training = {"max_tsteps": 60, "batch_size": 8, "learning_rate": 3e-3, "lr_decay": "cosine", "warmup": 10}
    training |= {
        "start_fraction": 0.5,
        "ema_decay_factor": 0.95,
        "val_every": 60,
        "checkpoint_every": 60,
        "picture_every": 0,
    }
    data = {"paths": scans, "noise": {"variance": [0.0064, 0.09]}, "val_patches": 8}
    sampling = {"estimate": "mean", "steps": 10, "eta": 1.0, "spacing": "linspace", "clip": False}
    config = {"name": "tiny", "model": model, "data": data, "training": training, "sampling": sampling}
    train(parse_config(config), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def tiny(trained_run):
    """The model of ``trained_run``, read anew."""
    from cdm4mi.models.checkpoint import load_model

    return load_model(trained_run)
