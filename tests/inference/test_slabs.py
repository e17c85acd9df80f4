"""Slab by slab: a run that was killed goes on to the same result, and nothing is under the output's name before."""

import subprocess
import sys
import threading

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save_one

from cdm4mi import io
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.inference.memory import bytes_of, peak_bytes
from cdm4mi.inference.overlap import overlapped
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slabs import Slabs, kept_beside, state_folder

SIDE, SLICES = 40, 7


@pytest.fixture
def source(save_nifti, tmp_path):
    clean = np.stack([phantom("CT", k, SIDE) for k in range(SLICES)])
    noise = 150 * np.random.default_rng(0).standard_normal(clean.shape)
    return save_nifti(tmp_path / "scan.nii.gz", clean + noise)


KILLS = """
import os, signal, sys
from cdm4mi.inference.denoise import denoise_file
source, target, model, *options = sys.argv[1:]
sampling = {"estimate": "mean-of-k", "samples": 2, "steps": 2}
keys = dict(sampling=sampling, modality="CT", batch=2, uncertainty=options[0], device="cpu", precision="fp32")

def killed(start):
    def on_slab(first, y, restored, spread):
        if first >= start:
            os.kill(os.getpid(), signal.SIGKILL)
    return on_slab

for on_slab in (killed(0), killed(4), None):
    if (process := os.fork()) == 0:
        denoise_file(source, target, model, on_slab=on_slab, **keys)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), sorted(os.listdir(os.path.dirname(target))))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_two_kills_change_no_bit(source, trained_run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    sampling = {"estimate": "mean-of-k", "samples": 2, "steps": 2}
    denoise_file(
        source, whole / "out.nii.gz", trained_run, sampling,
        modality="CT", batch=2, uncertainty=whole / "sd.nii.gz", device="cpu", precision="fp32",
    )  # fmt: skip
    killed.mkdir()
    arguments = [source, killed / "out.nii.gz", trained_run, killed / "sd.nii.gz"]
    done = subprocess.run([sys.executable, "-c", KILLS, *arguments], capture_output=True, text=True, check=True)
    record = "out.nii.gz.cdm4mi.json"
    assert done.stdout.splitlines() == [
        "-9 ['.cdm4mi-partial-out.nii.gz', '.out.nii.gz.cdm4mi.lock']",
        "-9 ['.cdm4mi-partial-out.nii.gz', '.out.nii.gz.cdm4mi.lock']",
        f"0 {sorted(['out.nii.gz', 'sd.nii.gz', record])}",
    ], done.stderr
    for name in ("out.nii.gz", "sd.nii.gz"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def interrupted(source, target, model, after, **options):
    """Restore until that many slices are finished; the first slice of each slab that was restored."""
    starts = []

    def on_slab(first, y, restored, spread):
        starts.append(first)
        if first + len(y) >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise_file(source, target, model, modality="CT", batch=1, on_slab=on_slab, **options)
    return starts


@pytest.mark.parametrize("change, first", [({}, 3), ({"seed": 1}, 0), ({"noise": 99.0}, 0), ({"memory": "20G"}, 0)])
def test_the_same_command_goes_on_and_another_begins_anew(change, first, source, tiny, tmp_path):
    target = tmp_path / "out.nii"
    starts = interrupted(source, target, tiny, 3)
    assert starts[:3] == [0, 1, 2] and len(starts) < SLICES
    assert state_folder(target).is_dir() and not target.exists()
    begun = []
    # what was under way when it was interrupted may have been put away too
    denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k), **change)
    assert begun[0] == 0 if first == 0 else begun[0] >= first
    assert not state_folder(target).exists()
    denoise_file(source, tmp_path / "whole.nii", tiny, modality="CT", batch=1, **change)
    assert target.read_bytes() == (tmp_path / "whole.nii").read_bytes()


@pytest.mark.parametrize("form", ["tiff", "dcm"])
def test_other_formats_go_on_to_the_same_file(form, source, tiny, tmp_path):
    scan = tmp_path / f"scan.{form}"
    if form == "dcm":
        save_one(enhanced("CT", count=SLICES), scan)
    else:
        io.write(io.read(source), scan)
    target, begun = tmp_path / f"out.{form}", []
    interrupted(scan, target, tiny, 3)
    assert state_folder(target).is_dir() and not target.exists()
    denoise_file(scan, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k))
    assert begun[0] >= 3 and not state_folder(target).exists()
    denoise_file(scan, tmp_path / f"whole.{form}", tiny, modality="CT", batch=1)
    if form == "dcm":  # but for the time of its making
        assert pydicom.dcmread(target).PixelData == pydicom.dcmread(tmp_path / "whole.dcm").PixelData
    else:
        assert target.read_bytes() == (tmp_path / "whole.tiff").read_bytes()


def test_another_scan_under_the_same_name_begins_anew(source, tiny, tmp_path, save_nifti):
    target, begun = tmp_path / "out.nii", []
    interrupted(source, target, tiny, 3)
    save_nifti(source, io.read(source).array + 1)
    denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k))
    assert begun[0] == 0


def test_a_damaged_state_begins_anew(source, tiny, tmp_path):
    target, begun = tmp_path / "out.nii", []
    interrupted(source, target, tiny, 3)
    with (state_folder(target) / "journal").open("ab") as journal:
        journal.write(b"{")  # a line that was cut short
    assert len(begun) == 0
    (state_folder(target) / "restored").write_bytes(b"")
    denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k))
    assert begun == list(range(SLICES))


def test_a_slab_is_seen_as_it_is_finished_in_the_units_of_the_scan(source, tiny, tmp_path):
    seen = []
    options = {"estimate": "mean-of-k", "samples": 2, "steps": 2}
    target, sd = tmp_path / "out.nii.gz", tmp_path / "sd.nii.gz"
    denoise_file(source, target, tiny, options, batch=3, uncertainty=sd, on_slab=lambda *slab: seen.append(slab))
    assert [first for first, *_ in seen] == [0, 3, 6]
    y, restored, spread = (np.concatenate([slab[n] for slab in seen])[:, 0] for n in (1, 2, 3))
    np.testing.assert_array_equal(y, io.read(source).array)
    np.testing.assert_allclose(restored, io.read(target).array, atol=1e-3)
    np.testing.assert_allclose(spread, io.read(sd).array, atol=1e-3)


def test_half_as_many_slices_where_the_memory_does_not_suffice(source, tiny, monkeypatch):
    volume, asked = io.read(source), []
    expected = Restorer(tiny).restore(volume, batch=2).volume.array
    restorer = Restorer(tiny)
    restore = restorer.slices.moments

    def scarce(y, *arguments, **keys):
        asked.append(len(y))
        if len(y) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return restore(y, *arguments, **keys)

    monkeypatch.setattr(restorer.slices, "moments", scarce)
    found = restorer.restore(volume, batch=6).volume.array
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert asked[:2] == [6, 3] and max(asked[2:]) == 1

    monkeypatch.setattr(restorer.slices, "moments", lambda *a, **k: scarce(np.zeros(9)))
    with pytest.raises(UserError, match="does not suffice for one window"):
        restorer.restore(volume)


def test_samples_do_not_depend_on_the_slabs(source, tiny):
    sampling = changed(tiny.config.sampling, estimate="mean-of-k", samples=3, steps=2)
    one, many = (Restorer(tiny, sampling).restore(io.read(source), seed=5, batch=n) for n in (1, SLICES))
    np.testing.assert_allclose(one.volume.array, many.volume.array, atol=0.05)
    np.testing.assert_allclose(one.spread.array, many.spread.array, atol=0.05)


@pytest.mark.parametrize("error, kept", [(OSError(28, "No space left on device"), True), (UserError("bad"), False)])
def test_what_is_finished_outlives_a_full_disk_and_no_other_mistake(error, kept, source, tiny, tmp_path, monkeypatch):
    target, begun = tmp_path / "out.nii", []

    def fails(*arguments, **keys):
        raise error

    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(io, "write", fails)
        denoise_file(source, target, tiny, modality="CT", batch=1)
    assert state_folder(target).exists() == kept
    denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k))
    assert begun == ([] if kept else list(range(SLICES)))


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_appears_during_the_run_is_replaced_only_when_asked_for(force, source, tiny, tmp_path):
    target, begun = tmp_path / "out.nii", []

    def other_program(*_):
        target.write_bytes(b"precious")

    if force:
        denoise_file(source, target, tiny, modality="CT", on_slab=other_program, force=True)
        assert io.read(target).shape[0] == SLICES
        return
    with pytest.raises(UserError, match=r"out\.nii: appeared during the run and was not replaced"):
        denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=other_program)
    assert target.read_bytes() == b"precious" and not io.record_path(target).exists()
    denoise_file(source, target, tiny, modality="CT", batch=1, on_slab=lambda k, *_: begun.append(k), force=True)
    assert begun == [] and not state_folder(target).exists()


def test_one_process_at_a_time_works_on_an_output(source, tiny, tmp_path):
    target = tmp_path / "out.nii"
    script = "import sys; from pathlib import Path; from cdm4mi.locks import sole_writer\n"
    script += "with sole_writer(Path(sys.argv[1]), 'denoise'): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", script, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"out\.nii: in use by process"):
        denoise_file(source, target, tiny, modality="CT")
    assert set(tmp_path.iterdir()) == before
    holder.communicate()
    denoise_file(source, target, tiny, modality="CT")
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "out.nii", "out.nii.cdm4mi.json"}


def test_memory_is_given_in_units_and_has_to_suffice(source, tiny):
    assert [bytes_of(size) for size in ("2G", "1.5 GiB", "800M", 4096)] == [2**31, 3 * 2**29, 800 * 2**20, 4096]
    for wrong in ("much", "0", "-1G", "2 G of it"):
        with pytest.raises(UserError, match="`memory`: found"):
            bytes_of(wrong)
    with pytest.raises(UserError, match="`memory`: found 1 MiB, expected more than"):
        Restorer(tiny, memory="1M").restore(io.read(source))


def test_the_memory_of_tensors_is_the_most_that_live_at_a_time():
    import torch

    def call():
        a = torch.ones(1000)
        b = a.view(10, 100) + 1
        del a
        return b * 2 + b

    assert peak_bytes(call) == 12000


def test_slabs_come_in_order_one_ahead_and_errors_come_back():
    events, lock = [], threading.Lock()

    def step(name, fails=None):
        def call(item, *_):
            with lock:
                events.append((name, item))
            if item == fails:
                raise ValueError(name)
            return item

        return call

    overlapped(range(5), step("prepare"), step("work"), step("finish"))
    for name in ("prepare", "work", "finish"):
        assert [item for which, item in events if which == name] == list(range(5))
    at = {event: n for n, event in enumerate(events)}
    assert all(at["prepare", k + 2] > at["work", k - 1] for k in range(1, 3))
    for name in ("prepare", "work", "finish"):
        steps = [step(other, 2 if other == name else None) for other in ("prepare", "work", "finish")]
        with pytest.raises(ValueError, match=name):
            overlapped(range(5), *steps)


def test_in_memory_and_in_a_folder_hold_the_same(source, tiny, tmp_path):
    with kept_beside(tmp_path / "out") as slabs:
        found = Restorer(tiny).restore(io.read(source), slabs=slabs).volume.array.copy()
    np.testing.assert_array_equal(found, Restorer(tiny).restore(io.read(source), slabs=Slabs()).volume.array)
