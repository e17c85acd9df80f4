"""Files that go wrong: those that pydicom and nibabel ship, and damaged copies of good ones of every format."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dicom_series
import nibabel
import numpy as np
import pydicom

from cdm4mi import io
from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError
from cdm4mi.inference.denoise import denoise_all, denoise_file
from cdm4mi.io.volume import Volume
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel


def shipped_files() -> list[Path]:
    """Every file of pydicom's and nibabel's own test sets, many of them malformed."""
    sets = [Path(pydicom.__file__).parent / "data", Path(nibabel.__file__).parent]
    found = [p for p in sets[0].rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    found += [p for p in sets[1].rglob("tests/data/*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    return sorted(found)


def good_files(folder: Path) -> list[Path]:
    """One small good file of every kind that is read."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = Volume(dicom_series.noise((3, 14, 18), -1000, 2000), np.diag([0.7, 0.8, 2.5, 1.0]))
    made = []
    for ending in (".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".tif"):
        path = folder / f"good{ending}"
        io.write(volume, path, dtype=np.int16)
        made.append(path)
    image = Volume(dicom_series.noise((1, 14, 18), 0, 255), np.eye(4))
    io.write(image, folder / "good.png")
    made.append(folder / "good.png")
    syntaxes = {
        "explicit": "1.2.840.10008.1.2.1",
        "implicit": "1.2.840.10008.1.2",
        "big": "1.2.840.10008.1.2.2",
        "deflated": "1.2.840.10008.1.2.1.99",
        "rle": "1.2.840.10008.1.2.5",
        "j2k": "1.2.840.10008.1.2.4.90",
    }
    one = dicom_series.slices(count=1, rows=32, columns=40, bits=12, signed=False)[0]
    for name, syntax in syntaxes.items():
        made.append(dicom_series.save_one(one, folder / f"{name}.dcm", pydicom.uid.UID(syntax)))
    made.append(dicom_series.save_one(dicom_series.enhanced("MR"), folder / "enhanced.dcm"))
    shipped = Path(pydicom.__file__).parent / "data" / "test_files"
    made += [shipped / name for name in ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LL.dcm", "CT_small.dcm")]
    return [path for path in made if path.is_file()]


def damaged(good: list[bytes], count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """``count`` damaged copies (index of the good file, content): cut short, bytes changed, a number blown up."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        which = int(rng.integers(len(good)))
        data = bytearray(good[which])
        how = rng.integers(4)
        if how == 0:
            data = data[: rng.integers(len(data))]
        elif how == 1:  # bytes anywhere
            for at in rng.integers(len(data), size=rng.integers(1, 20)):
                data[at] = rng.integers(256)
        elif how == 2:  # bytes of the header
            for at in rng.integers(min(len(data), 2000), size=rng.integers(1, 6)):
                data[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        else:  # a run of the largest or of random numbers
            at = int(rng.integers(min(len(data), 4000)))
            length = int(rng.choice([2, 4, 8]))
            data[at : at + length] = b"\xff" * length if rng.random() < 0.5 else rng.bytes(length)
        yield which, bytes(data)


def inspect_it(path: Path, out: Path) -> None:
    """What ``cdm4mi inspect`` does."""
    io.describe(path)


def read_and_write(path: Path, out: Path) -> None:
    """What every command that writes does around the network: all scans of the path, each written again unchanged."""
    for info, volume in io.read_all(path):
        ending = {"dicom": ".dcm", "nifti": ".nii", "mha": ".mha", "tiff": ".tif", "hdf5": ".h5"}
        target = out / f"{info.number}{ending.get(info.kind, '.' + info.kind)}"
        try:
            io.write(volume, target)
        except UserError:
            assert not any(out.iterdir()), "something was left behind by a refused write"
            raise
        target.unlink(missing_ok=True)


@functools.cache
def small_model() -> TrainedModel:
    """A model with a small, untrained network: what it makes of a file does not matter here."""
    unet = {"in_channel": 3, "channel": 32, "channel_multiplier": [1], "n_res_blocks": 1, "fold": 4, "attn_strides": []}
    config = Config.model_validate(
        {
            "model": {
                "beta_schedule": "log_sigma",
                "parameterization": "precond",
                "level_channel": True,
                "unet_rosinality_config": unet,
            },
            "sampling": {"estimate": "mean", "tile": 512},
        }
    )
    return TrainedModel(build_network(config.model).eval(), build_process(config.model), config)


def denoise_it(path: Path, out: Path) -> None:
    """What ``cdm4mi denoise --all-series`` does; whatever is written is whole, and is taken away again."""
    folder = out / "restored"
    try:
        for _, outcome in denoise_all(
            path, folder, lambda number, target: denoise_file(path, target, small_model(), series=number)
        ):
            if isinstance(outcome, UserError):
                assert "\n" not in str(outcome)
    finally:
        for record in folder.glob("*.cdm4mi.json"):
            assert [p for p in folder.glob(record.name.split(".")[0] + "*") if p != record], "a record without a scan"
        assert not list(folder.glob(".*")), "something half-written was left behind"
        shutil.rmtree(folder, ignore_errors=True)


# Each takes (input, empty output folder) and may raise UserError only. Commands that read scans are added here.
PATHS: dict[str, Callable[[Path, Path], None]] = {
    "inspect": inspect_it,
    "read and write": read_and_write,
    "denoise": denoise_it,
}
