"""Hashes of what the program makes from a fixed set of inputs: equal before and after a change that alters nothing.

    python -m experiments.hashes [NAME ...]

Restored arrays and written files (demo slices, a NIfTI with every estimate, a DICOM series), samples of hand-made
models, the first steps of a training, and the scores of a small study. Inputs are what packages ship and phantoms; the
commands are run as a user runs them. Times, UIDs made at random and the program's version are left out of a hash.
One thread: the sums of a convolution depend on how they are shared out. About a minute and a half.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch
from pydicom.data import get_testdata_file

import cdm4mi

VOLATILE = {"SOPInstanceUID", "SeriesInstanceUID", "MediaStorageSOPInstanceUID", "InstanceCreationDate"}
VOLATILE |= {"InstanceCreationTime", "ContentDate", "ContentTime", "SoftwareVersions", "SeriesDate", "SeriesTime"}
VOLATILE |= {"ImplementationVersionName", "ImplementationClassUID", "DimensionOrganizationUID", "ContributionDateTime"}
Hashes = Iterator[tuple[str, str]]


def digest(*parts: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of arrays, bytes and texts, with each array's type and shape."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        total.update(part if isinstance(part, bytes) else str(part).encode())
    return total.hexdigest()[:16]


def dicom_digest(paths: list[Path]) -> str:
    """Of DICOM files: every element but UIDs made at random, times and versions; private macros of sequences too."""

    def elements(dataset: pydicom.Dataset) -> Iterator[str]:
        for element in dataset:
            if element.keyword in VOLATILE or element.keyword == "DerivationDescription":
                continue
            if element.VR == "SQ":
                for item in element.value:
                    yield from elements(item)
            else:
                value = element.value
                yield f"{element.tag}{element.VR}{digest(value) if isinstance(value, bytes) else value}"

    return digest(*(text for path in sorted(paths) for text in elements(pydicom.dcmread(path))))


def command(*arguments: object, folder: Path) -> None:
    """Run ``cdm4mi`` with these arguments in a folder; what it prints goes nowhere unless it fails."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cdm4mi.__file__).parents[1]), "COLUMNS": "100"}
    run = subprocess.run(
        [sys.executable, "-m", "cdm4mi", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    if run.returncode:
        raise SystemExit(f"cdm4mi {' '.join(map(str, arguments))}: {run.stdout}{run.stderr}")


def demo(folder: Path) -> Hashes:
    """The demo's slices: noisy and restored DICOM files."""
    command("demo", "--out", "demo", folder=folder)
    for path in sorted((folder / "demo").glob("*.dcm")):
        yield f"demo {path.stem}", dicom_digest([path])


def nifti(folder: Path) -> Hashes:
    """A NIfTI volume of a phantom, by every estimate, with windows and the uncertainty beside."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:3, :150, :96]
    head = (((y - 75) / 60) ** 2 + ((x - 48) / 40) ** 2 < 1) * 40.0 + (
        ((y - 60) / 9) ** 2 + ((x - 50) / 9) ** 2 < 1
    ) * 60
    volume = np.where(head > 0, head, -1000.0) + z + 30 * rng.standard_normal(head.shape)
    affine = np.diag([0.9, -0.9, 2.5, 1.0])
    nib.save(nib.Nifti1Image(volume.T.astype(np.float32), affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(np.abs(volume.T + 1000).astype(np.int16), affine), folder / "mr.nii")
    uncertainty = ["--uncertainty", "std.nii.gz"]
    runs: dict[str, list[Any]] = {
        "mean": ["ct.nii.gz", "mean.nii.gz"],
        "mean, sigma given": ["ct.nii.gz", "given.nii.gz", "--noise", 30],
        "sample": ["ct.nii.gz", "sample.nii.gz", "--estimate", "sample", "--steps", 4, "--seed", 3],
        "mean of 3": ["ct.nii.gz", "k.nii.gz", "--estimate", "mean-of-k", "--samples", 3, "--steps", 3, *uncertainty],
        "from the scan": ["ct.nii.gz", "y.nii.gz", "--estimate", "sample", "--steps", 4, "--start-from", "y"],
        "mr": ["mr.nii", "mr-out.nii"],
    }
    for name, arguments in runs.items():
        command("denoise", *arguments, folder=folder)
        image = nib.load(folder / str(arguments[1]))
        yield f"nifti {name}", digest(np.asanyarray(image.dataobj), image.header.binaryblock)
    image = nib.load(folder / "std.nii.gz")
    yield "nifti uncertainty", digest(np.asanyarray(image.dataobj), image.header.binaryblock)


def dicom(folder: Path) -> Hashes:
    """A series of four CT slices, and the same to NIfTI and MetaImage."""
    for k in range(4):
        ds = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        pixels = ds.pixel_array + 40 * np.random.default_rng(k).standard_normal(ds.pixel_array.shape)
        ds.PixelData = np.round(pixels).astype(np.int16).tobytes()
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], float(ds.ImagePositionPatient[2]) + 5 * k]
        ds.InstanceNumber = k + 1
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        (folder / "series").mkdir(exist_ok=True)
        ds.save_as(folder / "series" / f"{(7 * k) % 10}.dcm")
    command("denoise", "series", "restored", folder=folder)
    yield "dicom series", dicom_digest(list((folder / "restored").glob("*.dcm")))
    command("denoise", "series", "restored.nii.gz", folder=folder)
    yield "dicom to nifti", digest(np.asanyarray(nib.load(folder / "restored.nii.gz").dataobj))
    command("denoise", "series", "restored.mha", folder=folder)
    yield "dicom to mha", digest(cdm4mi.read(folder / "restored.mha").array)
    command("denoise", "series", "private", "--deidentify", folder=folder)
    yield "dicom pixels, deidentified", digest(cdm4mi.read(folder / "private").array)


UNET = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [2]}
MODELS: dict[str, dict[str, Any]] = {
    "ddpm": {"solver": "ddpm", "spacing": "linspace"},
    "ddim": {"solver": "ddim", "spacing": "trailing"},
    "ddim eta 0.5": {"solver": "ddim", "eta": 0.5, "parameterization": "x0"},
    "from y": {"solver": "ddim", "spacing": "trailing", "start_from": "y"},
    "2M": {"solver": "dpmpp_2m", "spacing": "logsnr", "parameterization": "v"},
    "UniPC": {"solver": "unipc_2", "spacing": "logsnr", "parameterization": "x0", "beta_schedule": "cosine"},
    "Heun": {"solver": "heun", "spacing": "logsnr", "parameterization": "v", "clip": True},
    "mean from the condition": {"solver": "ddim", "mean_from": "condition"},
    "precond": {"parameterization": "precond", "beta_schedule": "log_sigma", "zero_terminal_snr": True}
    | {"level_channel": True, "in_channel": 3, "solver": "dpmpp_2m", "spacing": "logsnr"},
    "bridge": {"parameterization": "x0", "path": "bridge", "bridge_noise": 0.2, "solver": "ddim"},
}


def samples(folder: Path) -> Hashes:
    """Samples of ten small models with drawn weights, and their losses."""
    y = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.4
    x0 = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2)) * 0.4
    for name, keys in MODELS.items():
        unet = UNET | {"in_channel": keys.get("in_channel", 2)}
        keys = {"timesteps": 50, "steps": 5, "image_size": 32, "seed": 4} | keys
        keys.pop("in_channel", None)
        model = cdm4mi.ConditionDDPM(conditioning_key="concat", unet_rosinality_config=unet, **keys)
        model.model.load_state_dict(drawn(model.model.state_dict()))
        if model.ema is not None:
            model.ema.restart()
        index = torch.tensor([0, 1])
        loss = model.eval().loss(x0, y, sigma=0.2, index=index)
        yield f"samples {name}", digest(model.sample(y, sigma=0.2, seed=5), loss)


def drawn(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights like these, drawn, so that no layer is zero as a fresh network's last ones are."""
    generator = torch.Generator().manual_seed(7)
    return {
        k: w + 0.05 * torch.randn(w.shape, generator=generator) if w.is_floating_point() else w
        for k, w in state.items()
    }


def training(folder: Path) -> Hashes:
    """Four steps of a small training with accumulation and EMA, and the weights it ends with."""
    small = ["max_tsteps=4", "batch_size=4", "accumulate=2", "model.unet_rosinality_config.channel=32"]
    command("train", "phantom-small", "--out", "run", *small, folder=folder)
    model = cdm4mi.load_model(folder / "run")
    yield "training weights", model.weight_hash
    with (folder / "run" / "logs" / "version_0" / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "loss" in k} for row in csv.DictReader(file)]
    yield "training losses", digest(json.dumps(rows))


STUDY = """
name: small
seed: 3
protocols: [cdm4mi-mr-gaussian]
levels: [{type: gaussian, variance: 0.02}, {type: rician, percent: 9}]
data: {paths: [scans], test_patients: [sub-0, sub-1], val_patients: [sub-2], slices: 1, crop: 64}
methods:
  - {type: noisy}
  - {type: nlm}
  - {type: gaussian_filter}
  - {type: model, name: mean, checkpoint: shipped, sampling: {estimate: mean}}
  - {type: model, name: sample, checkpoint: shipped, sampling: {estimate: sample, steps: 3}}
main: mean
"""


def study(folder: Path) -> Hashes:
    """The scores and images of a small study on phantoms; pseudonyms and the protocol's hash are left out."""
    names = ("patient", "scan", "protocol")
    (folder / "scans").mkdir()
    for k in range(3):
        rng = np.random.default_rng(k)
        y, x = np.mgrid[:96, :96]
        image = np.where(((y - 48) / 40) ** 2 + ((x - 48) / 35) ** 2 < 1, 400.0 + 10 * k, 0.0)
        image = np.abs(image + 5 * rng.standard_normal(image.shape) + 100 * (x % 16 > 8) * (image > 0))
        nib.save(
            nib.Nifti1Image(np.stack([image.T] * 2, -1).astype(np.float32), np.eye(4)),
            folder / f"scans/sub-{k}_T1w.nii.gz",
        )
    (folder / "study.yaml").write_text(STUDY)
    command("benchmark", "study.yaml", "--out", "study", folder=folder)
    for path in sorted((folder / "study" / "scores").glob("*.csv")):
        with path.open() as file:
            rows = [{k: v for k, v in row.items() if k not in names} for row in csv.DictReader(file)]
        yield f"study {path.name}", digest(json.dumps(rows))
    with np.load(folder / "study" / "images.npz") as images:
        yield "study images", digest(*(images[key] for key in sorted(images)))


SETS: dict[str, Callable[[Path], Hashes]] = {f.__name__: f for f in (demo, nifti, dicom, samples, training, study)}


def main() -> None:
    """Print name and hash, one a line; with names, of these sets alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *SETS], metavar="NAME", help=", ".join(SETS))
    names = parser.parse_args().names or list(SETS)
    torch.set_num_threads(1)
    for name in names:
        folder = Path(tempfile.mkdtemp())
        try:
            for what, value in SETS[name](folder):
                print(f"{value}  {what}", flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
