"""Commands on a disk that takes no more: one line, exit code 2, no traceback, nothing half-written."""

import gzip
import json
import subprocess
import sys

import numpy as np

FULL = """
import json, resource, sys
from cdm4mi.cli.main import run
limit, *commands = json.loads(sys.stdin.read())
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for arguments in commands:
    sys.argv = ["cdm4mi", *arguments]
    try:
        run()
    except SystemExit as ended:
        print("code", ended.code, file=sys.stderr)
"""


def on_full_disk(limit, *commands):
    """(exit codes, lines on stderr) of commands in one process whose files cannot grow beyond so many bytes."""
    arguments = json.dumps([limit, *([str(word) for word in words] for words in commands)])
    done = subprocess.run([sys.executable, "-c", FULL], input=arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    codes = [int(line.split()[1]) for line in lines if line.startswith("code ")]
    return codes, [line for line in lines if not line.startswith("code ")]


def test_denoise_and_noise(save_nifti, trained_run, tmp_path):
    image = np.random.default_rng(0).normal(0, 300, (2, 64, 64))
    scan = save_nifti(tmp_path / "scan.nii", image)
    outs = [tmp_path / "out" / f"o.{ending}" for ending in ("nii.gz", "nii", "h5", "mha", "mhd", "tiff", "nrrd")]
    common = ("--model", trained_run, "--modality", "CT")
    codes, lines = on_full_disk(
        6000,
        *(("denoise", scan, out, *common) for out in outs),
        ("noise", scan, outs[0], "--modality", "CT", "--type", "gaussian", "--sigma-hu", "20"),
    )
    assert codes == [2] * 8
    failed = [line for line in lines if not line.startswith("warning")]
    assert len(failed) == 8
    for line, out in zip(failed, [*outs, outs[0]], strict=True):
        assert "cannot be written (" in line and "expected a disk with room for it" in line, line
        assert line.startswith(f"error: {out.parent}")
    assert not (tmp_path / "out").exists()


def test_a_packed_scan_that_the_disk_of_the_output_cannot_hold_is_not_called_damaged(save_nifti, tmp_path):
    array = np.random.default_rng(0).normal(0, 300, (2, 64, 64)).astype("<f4")
    save_nifti(tmp_path / "scan.nii.gz", array)
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 64 64 2\nencoding: gzip\nendian: little\n\n"
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + gzip.compress(array.tobytes()))
    (tmp_path / "out").mkdir()
    codes, lines = on_full_disk(
        6000, *(("denoise", tmp_path / name, tmp_path / "out/o.nii") for name in ("scan.nii.gz", "scan.nrrd"))
    )
    said = f"error: {tmp_path / 'out'}: cannot be written (File too large), expected a disk with room for it"
    assert (codes, lines) == ([2, 2], [said, said])
    assert list((tmp_path / "out").iterdir()) == []


def test_train(tmp_path):
    keys = ("max_tsteps=2", "checkpoint_every=1", "val_every=2", "picture_every=0", "image_size=32", "batch_size=1")
    arguments = ("train", "phantom-small", *keys, "val_patches=1", "--out", tmp_path / "run", "--no-progress")
    codes, lines = on_full_disk(100_000, arguments)
    assert (codes, len(lines)) == ([2], 1)
    assert "cannot be written (File too large), expected a disk with room for it" in lines[0]
    assert list((tmp_path / "run").rglob("*.ckpt")) == []
    assert list((tmp_path / "run").rglob(".cdm4mi-*")) == []
