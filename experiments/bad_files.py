"""Files that go wrong: those that pydicom and nibabel ship, and damaged copies of good ones of every format.

For `bad_input.py`, and with fewer of them for the tests.
"""

from __future__ import annotations

import copy
import functools
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from cdm4mi import io
from cdm4mi.config.schema import Config
from cdm4mi.io.dicom.values import item_of
from cdm4mi.io.volume import Volume
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel

DICOM = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
]
"""Readable files of the transfer syntaxes, of those that pydicom ships small."""


def shipped_files() -> list[Path]:
    """Every file of pydicom's and nibabel's own test sets, many of them malformed."""
    sets = [Path(pydicom.__file__).parent / "data", Path(nibabel.__file__).parent]
    found = [p for p in sets[0].rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    found += [p for p in sets[1].rglob("tests/data/*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    return sorted(found)


def good_files(folder: Path) -> list[Path]:
    """One small good file of every kind that is read."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(-1000, 2000, (3, 14, 18)), np.diag([0.7, 0.8, 2.5, 1.0]))
    made = []
    for ending in (".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".tif"):
        path = folder / f"good{ending}"
        io.write(volume, path, dtype=np.int16)
        made.append(path)
    image = Volume(rng.integers(0, 255, (1, 14, 18)), np.eye(4))
    io.write(image, folder / "good.png")
    made.append(folder / "good.png")
    deflated = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(folder / "deflated.dcm")
    _save_enhanced(folder / "enhanced.dcm")
    made += [folder / "deflated.dcm", folder / "enhanced.dcm"]
    packed = folder / "packed.dcm.gz"
    packed.write_bytes(gzip.compress(Path(get_testdata_file("MR_small.dcm", download=False)).read_bytes(), mtime=0))
    made += [packed, *_save_kinds(folder), *_save_compressed(folder)]
    return made + [Path(get_testdata_file(name, download=False)) for name in DICOM]


def _save_enhanced(path: Path) -> None:
    """An enhanced MR image of two frames, made from the slice that pydicom ships: the same bytes every time."""
    first = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
    second = copy.deepcopy(first)
    second.SOPInstanceUID, second.InstanceNumber = generate_uid(entropy_srcs=["second"]), 2
    second.ImagePositionPatient[2] += float(first.SliceThickness)
    uids = [generate_uid(entropy_srcs=[part]) for part in ("series", "instance", "dimensions")]
    enhanced = LegacyConvertedEnhancedMRImage([first, second], uids[0], 1, uids[1], 1)
    for item in (*enhanced.DimensionOrganizationSequence, *enhanced.DimensionIndexSequence):
        item.DimensionOrganizationUID = uids[2]
    enhanced.InstanceCreationDate = enhanced.ContentDate = "20200102"
    enhanced.InstanceCreationTime = enhanced.ContentTime = "101112"
    del enhanced.ContributingEquipmentSequence
    enhanced.save_as(path)


def _save_kinds(folder: Path) -> list[Path]:
    """An enhanced MR image of two echoes, a UIH grid of four slices, and float pixels with NaN."""
    echoes = pydicom.dcmread(folder / "enhanced.dcm")
    for group, time in zip(echoes.PerFrameFunctionalGroupsSequence, (5.0, 10.0), strict=True):
        group.MREchoSequence = [item_of(EffectiveEchoTime=time)]
        group.PlanePositionSequence = [item_of(ImagePositionPatient=[0, 0, 0])]
    grid, floats = (pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)) for _ in range(2))
    grid.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "VFRAME"]
    block = grid.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "4")
    block.add_new(0x51, "SQ", [item_of(ImagePositionPatient=[0, 0, 5 * n]) for n in range(4)])
    values = floats.pixel_array.astype("<f4")
    values[:4] = np.nan
    floats.FloatPixelData, floats.BitsAllocated = values.tobytes(), 32
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(floats, keyword)
    made = {"echoes.dcm": echoes, "grid.dcm": grid, "floats.dcm": floats}
    for name, dataset in made.items():
        dataset.save_as(folder / name)
    return [folder / name for name in made]


def _save_compressed(folder: Path) -> list[Path]:
    """The MetaImage and the NRRD with their voxels compressed."""
    for ending, before, after, pack in (
        (".mha", b"CompressedData = False", b"CompressedData = True", zlib.compress),
        (".nrrd", b"encoding: raw", b"encoding: gzip", functools.partial(gzip.compress, mtime=0)),
    ):
        content = (folder / f"good{ending}").read_bytes()
        start = len(content) - 2 * 3 * 14 * 18
        packed = content[:start].replace(before, after) + pack(content[start:])
        (folder / f"packed{ending}").write_bytes(packed)
    return [folder / "packed.mha", folder / "packed.nrrd"]


def damaged(good: list[bytes], count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """``count`` damaged copies (index of the good file, content).

    They are cut short, or bytes are changed, or a number is blown up or is none (nan, inf, 0).
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        which = int(rng.integers(len(good)))
        data = bytearray(good[which])
        how = rng.integers(5)
        if how == 0:
            data = data[: rng.integers(len(data))]
        elif how == 1:  # bytes anywhere
            for at in rng.integers(len(data), size=rng.integers(1, 20)):
                data[at] = rng.integers(256)
        elif how == 2:  # bytes of the header
            for at in rng.integers(min(len(data), 2000), size=rng.integers(1, 6)):
                data[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        elif how == 3:  # what is no number, as floats of either length and order
            kind = str(rng.choice(["<f4", ">f4", "<f8", ">f8"]))
            number = np.array(rng.choice([np.nan, np.inf, -np.inf, 0.0, 3e38]), "f8").astype(kind).tobytes()
            at = int(rng.integers(min(len(data), 4000))) // 4 * 4
            data[at : at + len(number)] = number
        else:  # a run of the largest or of random numbers
            at = int(rng.integers(min(len(data), 4000)))
            length = int(rng.choice([2, 4, 8]))
            data[at : at + length] = b"\xff" * length if rng.random() < 0.5 else rng.bytes(length)
        yield which, bytes(data)


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
