"""The trust report made while a scan is restored: that of ``trust``, also after a kill; what ``strict`` does."""

import json

import numpy as np
import pytest
from dicom_series import save, set_pixels, slices

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import Refused
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.io import Volume, read, write
from cdm4mi.trust import trust_report
from cdm4mi.trust.during import ReportWhileRestoring
from cdm4mi.trust.written import of_slices, slices_shown

SLICES = 3


@pytest.fixture
def scan(save_nifti, tmp_path):
    clean = np.stack([phantom("CT", k, 64) for k in range(SLICES)])
    return save_nifti(tmp_path / "scan.nii.gz", clean + np.random.default_rng(0).normal(0, 100, clean.shape))


def restored(scan, target, model, report, **options):
    denoise_file(scan, target, model, modality="CT", batch=1, observer=report, **options)
    return report.report


def test_it_is_the_report_that_the_command_makes_of_both_files(scan, tmp_path, tiny):
    report = restored(scan, tmp_path / "out.nii", tiny, ReportWhileRestoring(tmp_path / "report"))
    after = trust_report(scan, tmp_path / "out.nii", model=tiny, modality="CT")
    assert report.residual.level == pytest.approx(after.residual.level, rel=1e-3)
    assert report.residual.structure == pytest.approx(after.residual.structure, rel=1e-2)
    assert report.verdict == after.verdict and report.noise == after.noise and report.model == after.model
    assert report.origin == after.origin and report.origin.same_scan
    written = json.loads((tmp_path / "report/trust.json").read_text("utf-8"))
    assert written["verdict"] == report.verdict and (tmp_path / "report/trust.html").is_file()


def test_after_a_kill_the_slices_of_before_are_in_it(scan, tmp_path, tiny):
    class Killed(ReportWhileRestoring):
        def slab(self, first, y, restored, spread):
            if first >= 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restored(scan, tmp_path / "out.nii", tiny, Killed())
    report = restored(scan, tmp_path / "out.nii", tiny, ReportWhileRestoring())
    whole = restored(scan, tmp_path / "whole.nii", tiny, ReportWhileRestoring())
    assert report.residual.level == pytest.approx(whole.residual.level, rel=1e-6)
    assert report.reasons == whole.reasons and report.findings == whole.findings


def test_strict_writes_nothing_of_a_scan_that_the_model_was_not_trained_for(command, scan, tmp_path, trained_run):
    loud = tmp_path / "loud.nii.gz"
    y = read(scan)
    y.array[:] += np.random.default_rng(1).normal(0, 1500, y.shape)
    write(y, loud)
    options = ("--modality", "CT", "--model", trained_run, "--report", tmp_path / "report", "--strict")
    code, _, err = command("denoise", loud, tmp_path / "out.nii", *options)
    assert code == Refused.code == 3 and err.count("\n") == 1 and "outside the model's training" in err
    assert "--strict" in err and sorted(path.name for path in tmp_path.iterdir()) == ["loud.nii.gz", "scan.nii.gz"]
    assert command("denoise", loud, tmp_path / "out.nii", *options[:-1])[0] == 0


def test_strict_refuses_a_ct_whose_header_does_not_say_that_it_is_in_hu(tmp_path, tiny):
    made = slices(count=SLICES, rows=64, columns=64, slope=None)
    for k, ds in enumerate(made):
        set_pixels(ds, phantom("CT", k, 64) + np.random.default_rng(k).normal(0, 100, (64, 64)))
        del ds.RescaleType
    with pytest.raises(Refused, match="does not say that its values are HU"):
        restored(save(made, tmp_path / "raw"), tmp_path / "out", tiny, ReportWhileRestoring(strict=True))
    assert not (tmp_path / "out").exists()
    report = restored(tmp_path / "raw", tmp_path / "out", tiny, ReportWhileRestoring())
    assert report.refused and any("are HU" in reason.text for reason in report.reasons)
    for ds in made:
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    report = restored(save(made, tmp_path / "hu"), tmp_path / "hu out", tiny, ReportWhileRestoring(strict=True))
    assert report.model.units


def test_strict_leaves_the_output_and_the_report_of_a_bad_restoration(command, scan, tmp_path, trained_run):
    options = (
        "--modality",
        "CT",
        "--model",
        trained_run,
        "--noise",
        "280",
        "--report",
        tmp_path / "report",
    )  # nearly three times what it is
    code, out, _ = command("denoise", scan, tmp_path / "out.nii", *options, "--strict")
    assert code == 3 and "verdict: bad" in out and "bad: it was restored for noise of 280 HU" in out
    assert (tmp_path / "out.nii").is_file() and (tmp_path / "report/trust.html").is_file()
    code, _, err = command("denoise", scan, tmp_path / "other.nii", *options)
    assert code == 2 and "trust.json: exists" in err and not (tmp_path / "other.nii").exists()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(command, scan, tmp_path, trained_run):
    (tmp_path / "folder/trust.html").mkdir(parents=True)
    for place, said in (
        (scan, "scan.nii.gz/trust.json: cannot be written"),
        (tmp_path / "folder", "html: is a folder"),
    ):
        options = ("--modality", "CT", "--model", trained_run, "--report", place)
        code, _, err = command("denoise", scan, tmp_path / "out.nii", *options, "--force")
        assert code == 2 and said in err and err.count("\n") == 1, err
        assert command("trust", scan, scan, "--out", place, "--force")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "scan.nii.gz"]


def test_a_deidentified_report_holds_no_hash_of_the_scan(scan, tmp_path, tiny):
    restored(scan, tmp_path / "out.nii", tiny, ReportWhileRestoring(tmp_path / "report"), deidentify=True)
    written = json.loads((tmp_path / "report/trust.json").read_text("utf-8"))
    assert written["input"]["sha256"] is None


def test_the_slices_of_a_page_are_those_with_findings_and_others_between():
    assert slices_shown(5, 9, [3]) == [0, 1, 2, 3, 4]
    shown = slices_shown(1000, 10, [700, 3, 3])
    assert len(shown) == 10 and {3, 700, 0} <= set(shown) and max(np.diff(shown)) < 200
    assert slices_shown(1000, 2, [9, 7, 5]) == [7, 9]
    scan = Volume(np.arange(5)[:, None, None] * np.ones((5, 2, 3)), np.diag([1, 1, 2.5, 1]))
    some = of_slices(scan, [1, 4])
    for n, k in enumerate((1, 4)):
        assert np.array_equal(some.array[n], scan.array[k])
        assert np.allclose(some.slice_affine(n)[:3, 3], scan.slice_affine(k)[:3, 3])
