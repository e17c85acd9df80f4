"""Real pairs: matched by patient and place, their alignment measured, and a shift said or refused."""

import numpy as np
import pytest
import scans_on_disk
import scans_to_prepare as made
from scipy.ndimage import shift

from cdm4mi.data.real_pairs import match_positions, measured_alignment
from cdm4mi.io import Volume
from cdm4mi.window import IntensityWindow

WINDOW = IntensityWindow(0.0, 1000.0, "MR")


def noisy(array, seed=0, sigma=40):
    return np.round(array + sigma * np.random.default_rng(seed).standard_normal(array.shape))


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("planted", [(0, 0), (0.7, -0.4), (2, 0), (5, -3)])
@pytest.mark.parametrize("sigma", [20, 200])
def test_a_planted_shift_is_measured_to_a_tenth_of_a_voxel_in_any_noise(modality, planted, sigma):
    clean = made.slices(modality, 3, count=5, side=96)
    moved = np.stack([shift(image, planted, order=1, mode="nearest") for image in clean])
    window = IntensityWindow(-1000.0, 1000.0, "CT") if modality == "CT" else WINDOW
    found = measured_alignment(clean, noisy(moved, sigma=sigma), window)
    assert np.allclose(found.shift[1:], planted, atol=0.15)


def test_slices_that_are_one_off_are_measured():
    # neighbours as alike as those of a scan: a ball that grows
    y, x = np.mgrid[-48:48, -48:48]
    stack = np.stack([900 * np.exp(-((np.hypot(y, x) / (8 + 3 * k)) ** 2)) for k in range(10)])
    for noisy_slices, step in ((stack[:-2], 1), (stack[2:], -1), (stack[1:-1], 0)):
        found = measured_alignment(stack[1:-1], noisy(noisy_slices), WINDOW).shift
        assert np.allclose(found, (step, 0, 0), atol=0.15)


def volume(array, affine):
    return Volume(np.asarray(array, np.float32), affine)


def test_slices_are_matched_by_where_they_lie():
    array = made.slices("MR", 1, count=6)
    affine = np.array([[-0.8, 0, 0, 40], [0, 0.7, 0, -30], [0, 0, 2.5, 100], [0, 0, 0, 1.0]])
    clean = volume(array, affine)
    part = affine.copy()
    part[2, 3] += 2 * 2.5 + 0.4  # begins two slices higher, and 0.4 mm
    matched, found = match_positions(clean, volume(array[2:5] + 1, part))
    assert matched.tolist() == [2, 3, 4]
    assert np.array_equal(found, array[2:5] + 1)
    flipped = affine @ np.array([[-1, 0, 0, made.SIDE - 1], [0, 1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1.0]])
    matched, found = match_positions(clean, volume((array + 1)[::-1, :, ::-1], flipped))
    assert matched.tolist() == list(range(6))
    assert np.array_equal(found, array + 1)
    for moved in ((0, 5.0), (1, 0.7), (2, 500.0)):
        aside = affine.copy()
        aside[moved[0], 3] += moved[1]
        assert len(match_positions(clean, volume(array, aside))[0]) == 0
    assert len(match_positions(clean, volume(array[:, :32, :32], affine))[0]) == 0


def pair(root, name, person, planted=(0, 0), count=3):
    clean = made.slices("MR", person, count=count)
    moved = np.stack([shift(image, planted, order=1, mode="nearest") for image in clean])
    return made.nifti(root / "noisy" / f"{name}.nii.gz", noisy(moved, person)), made.nifti(
        root / "clean" / f"{name}.nii.gz", clean
    )


def folders(root):
    return "--noisy", root / "noisy", "--clean", root / "clean", "--workers", 1


def test_two_folders_give_condition_and_target(command, tmp_path):
    made_of = {f"sub-{person:02d}": pair(tmp_path, f"sub-{person:02d}", person) for person in range(4)}
    code, out, err = command("prepare", tmp_path / "store", *folders(tmp_path))
    assert (code, err) == (0, "")
    assert "4 of 4 scans" in out
    from cdm4mi.data.manifest import read_manifest
    from cdm4mi.data.names import pseudonym
    from cdm4mi.data.stored import scan_of
    from cdm4mi.io import read

    folder, manifest = read_manifest(tmp_path / "store")
    by_patient = {scan.patient: scan for scan in manifest.scans}
    for name, paths in made_of.items():
        record = by_patient[pseudonym(name)]
        assert max(map(abs, record.pair.shift)) <= 0.1
        assert record.pair.correlation > 0.9
        reader = scan_of(record, folder, [-1000.0, 1000.0])
        for dataset, path in zip(("condition", "target"), paths, strict=True):
            stored = np.stack([reader.read(dataset, k, np.s_[:, :]) for k in range(3)])
            assert np.array_equal(stored, read(path).array)


def test_a_planted_shift_is_reported_and_refused_when_strict(command, tmp_path):
    pair(tmp_path, "sub-00", 0)
    pair(tmp_path, "sub-01", 1, planted=(0, 1.5))
    pair(tmp_path, "sub-02", 2, planted=(0, 0.3))
    code, _, err = command("prepare", tmp_path / "store", *folders(tmp_path))
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("warning: ") and "sub-01.nii.gz: the noisy scan lies 0 slices, " in line
    assert "expected at most 0.5" in line
    shifts = [scan["pair"]["shift"] for scan in made.manifest(tmp_path / "store")["scans"]]
    assert sum(max(map(abs, s)) > 0.5 for s in shifts) == 1
    assert any(np.allclose(s, (0, 0, 1.5), atol=0.15) for s in shifts)
    before = made.content(tmp_path / "store")
    code, _, err = command("prepare", tmp_path / "store", *folders(tmp_path), "--strict")
    assert code == 1 and "sub-01.nii.gz" in err
    assert made.content(tmp_path / "store") == before


def test_a_csv_names_pairs_beside_it(command, tmp_path):
    noisy_path, _ = pair(tmp_path, "jane", 1)
    noisy_path.rename(tmp_path / "noisy" / "quarter_dose.nii.gz")
    for text in (
        "clean,noisy\nclean/jane.nii.gz,noisy/quarter_dose.nii.gz\n",
        "noisy/quarter_dose.nii.gz, clean/jane.nii.gz",
    ):
        (tmp_path / "pairs.csv").write_text(text)
        code, out, err = command("prepare", tmp_path / "store", "--pairs", tmp_path / "pairs.csv", "--workers", 1)
        assert (code, err) == (0, "")
        assert "1 of 1 scans" in out or "nothing to do" in out
    for text, message in (
        ("", "holds no pair"),
        ("a.nii,b.nii\n", "a.nii does not exist, expected a scan"),
        ("noisy/quarter_dose.nii.gz\n", "found a line of 1 cells, expected noisy,clean"),
    ):
        (tmp_path / "pairs.csv").write_text(text)
        code, _, err = command("prepare", tmp_path / "store", "--pairs", tmp_path / "pairs.csv")
        assert (code, err.count("\n")) == (2, 1) and message in err


def test_what_has_no_other_half_is_reported(command, tmp_path):
    pair(tmp_path, "sub-00", 0)
    made.nifti(tmp_path / "clean" / "sub-01.nii.gz", made.slices("MR", 1))
    made.nifti(tmp_path / "noisy" / "sub-02.nii.gz", made.slices("MR", 2))
    made.nifti(tmp_path / "clean" / "sub-03.nii.gz", made.slices("MR", 3))
    made.nifti(
        tmp_path / "noisy" / "sub-03.nii.gz", made.slices("MR", 3), np.diag([0.8, 0.7, 2.5, 1.0]) + 50 * np.eye(4, k=3)
    )
    code, _, err = command("prepare", tmp_path / "store", *folders(tmp_path))
    assert code == 0
    assert "sub-01.nii.gz: has no noisy scan of its patient" in err
    assert "sub-02.nii.gz: has no clean scan of its patient" in err
    assert "sub-03.nii.gz: no noisy slice lies where a clean one does" in err
    assert len(made.manifest(tmp_path / "store")["scans"]) == 1


def test_dicom_series_are_matched_by_the_patients_number_and_their_slices_by_place(command, tmp_path):
    scans_on_disk.dicom_series(tmp_path / "clean" / "full", count=4)
    for k in (1, 2):
        scans_on_disk.dicom_slice(tmp_path / "noisy" / "quarter" / f"{9 - k}.dcm", k, sigma=20.0)
    code, _, err = command("prepare", tmp_path / "store", *folders(tmp_path))
    assert (code, err) == (0, "")
    (scan,) = made.manifest(tmp_path / "store")["scans"]
    assert scan["index"] == [1, 2]
    assert scan["warnings"] == ["2 slice(s) without a noisy slice at their place were left out"]


def test_one_clean_scan_with_several_doses_is_no_double(command, tmp_path):
    clean = made.nifti(tmp_path / "jane.nii.gz", made.slices("MR", 1))
    doses = [made.nifti(tmp_path / f"dose{n}.nii.gz", noisy(made.slices("MR", 1), n)) for n in range(2)]
    (tmp_path / "pairs.csv").write_text("".join(f"{dose},{clean}\n" for dose in doses))
    code, out, err = command("prepare", tmp_path / "store", "--pairs", tmp_path / "pairs.csv", "--workers", 1)
    assert (code, err) == (0, "")
    assert [scan["doubled"] for scan in made.manifest(tmp_path / "store")["scans"]] == [[], []]
    assert "1 train, 0 val, 0 test" in out
