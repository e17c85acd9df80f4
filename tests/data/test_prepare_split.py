"""The split of a store: by patient, by source, by the seed or by the user, and never with one image on both sides."""

import numpy as np
import pytest
import scans_on_disk
import scans_to_prepare as made
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.data.names import SPLITS, pseudonym
from cdm4mi.data.split import draw_split, read_split
from cdm4mi.errors import UserError

PEOPLE = st.lists(st.sampled_from(["CT-a", "CT-b", "MR-a", "MR-b"]), min_size=1, max_size=60)
FRACTION = st.floats(0, 0.45)


def people(sources):
    return {f"p{n:02d}": source for n, source in enumerate(sources)}


@settings(deadline=None)
@given(PEOPLE, FRACTION, FRACTION, st.integers(0, 50), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59))))
def test_everyone_is_in_one_split_and_who_shares_pixels_stays_together(sources, val, test, seed, links):
    patients = people(sources)
    names = sorted(patients)
    links = [(names[a % len(names)], names[b % len(names)]) for a, b in links]
    split = draw_split(patients, links, val, test, seed)
    assert split.keys() == patients.keys()
    assert set(split.values()) <= set(SPLITS)
    assert "train" in split.values()
    assert all(split[a] == split[b] for a, b in links)
    assert split == draw_split(dict(reversed(patients.items())), links[::-1], val, test, seed)


def test_each_source_is_shared_out_in_proportion():
    patients = people(["CT-a"] * 40 + ["MR-a"] * 20 + ["MR-b"] * 3)
    split = draw_split(patients, [], 0.1, 0.2, 0)
    counted = {
        source: tuple(sum(split[p] == s for p in patients if patients[p] == source) for s in SPLITS)
        for source in set(patients.values())
    }
    assert counted == {"CT-a": (28, 4, 8), "MR-a": (14, 2, 4), "MR-b": (1, 1, 1)}
    assert draw_split(patients, [], 0.1, 0.2, 1) != split


def test_two_patients_in_all_are_one_to_train_on_and_one_for_validation():
    assert sorted(draw_split(people(["CT-a", "MR-a"]), [], 0.1, 0.1, 0).values()) == ["train", "val"]
    assert list(draw_split(people(["CT-a"]), [], 0.1, 0.1, 0).values()) == ["train"]


def test_one_patient_more_moves_few_of_the_others():
    patients = people(["CT-a"] * 50)
    before, after = (draw_split(p, [], 0.1, 0.1, 0) for p in (patients, {**patients, "new": "CT-a"}))
    assert sum(before[p] != after[p] for p in patients) <= 2


@pytest.fixture
def scans(tmp_path):
    return made.folder(tmp_path / "scans", people=4)


def splits_in(store):
    return {scan["patient"]: scan["split"] for scan in made.manifest(store)["scans"]}


NAMES = {"sub-00": "train", "sub-01": "val", "sub-02": "test", "sub-03": "train", "PID-40917": "test"}
AS_CSV = "patient,split\n" + "".join(f"{name},{split}\n" for name, split in NAMES.items())
AS_LISTS = "train: [sub-00, sub-03]\nval: [sub-01]\ntest: [sub-02, PID-40917]\n"
AS_MAPPING = "".join(f"{name}: {split}\n" for name, split in NAMES.items())


@pytest.mark.parametrize(
    ("name", "text"), [("s.csv", AS_CSV), ("s.csv", AS_CSV[14:]), ("s.yaml", AS_LISTS), ("s.yml", AS_MAPPING)]
)
def test_a_given_split_is_kept_by_the_names_that_the_user_knows(name, text, command, scans, tmp_path):
    (tmp_path / name).write_text(text)
    store = tmp_path / "store"
    code, _, err = command("prepare", scans, store, "--split", tmp_path / name, "--workers", 1)
    assert (code, err) == (0, "")
    assert splits_in(store) == {pseudonym(person): split for person, split in NAMES.items()}
    assert "PID-40917" not in (store / "manifest.json").read_text()
    by_pseudonym = "".join(f"{patient},{split}\n" for patient, split in splits_in(store).items())
    (tmp_path / "again.csv").write_text(by_pseudonym)
    again = command("prepare", scans, store, "--split", tmp_path / "again.csv", "--workers", 1)
    assert "nothing to do" in again[1]


def test_a_split_is_kept_where_scans_are_added(command, scans, tmp_path):
    (tmp_path / "s.csv").write_text(AS_CSV)
    store, more = tmp_path / "store", made.nifti(tmp_path / "sub-77.nii.gz", made.slices("MR", 77))
    command("prepare", scans, store, "--split", tmp_path / "s.csv", "--workers", 1)
    before = splits_in(store)
    code, _, err = command("prepare", more, store, "--workers", 1)
    assert (code, "its split was given, and names none for 1 new patient(s)" in err) == (2, True)
    (tmp_path / "more.csv").write_text("sub-77,val\n")
    assert command("prepare", more, store, "--split", tmp_path / "more.csv", "--workers", 1)[0] == 0
    assert splits_in(store) == before | {pseudonym("sub-77"): "val"}
    assert command("prepare", more, store, "--workers", 1)[0] == 0
    assert splits_in(store) == before | {pseudonym("sub-77"): "val"}


def test_the_fractions_of_a_store_hold_for_what_is_added(command, scans, tmp_path):
    store, more = tmp_path / "store", made.nifti(tmp_path / "sub-77.nii.gz", made.slices("MR", 77))
    command("prepare", scans, store, "--test-fraction", 0.4, "--seed", 3, "--workers", 1)
    command("prepare", more, store, "--workers", 1)
    command("prepare", scans, more, tmp_path / "at once", "--test-fraction", 0.4, "--seed", 3, "--workers", 1)
    assert made.content(store) == made.content(tmp_path / "at once")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AS_CSV + "sub-01,train\n", "patient 'sub-01' is in val and in train, expected one split"),
        (AS_CSV + f"{pseudonym('sub-01')},train\n", "is in val and in train, expected one split"),
        (AS_CSV.replace("sub-01,val\n", ""), "names no split for 1 patient(s), first " + pseudonym("sub-01")),
        (AS_CSV + "sub-99,train\n", "patient 'sub-99' has no scan here"),
        (AS_CSV.replace("val", "validation"), "found the split 'validation', expected train, val or test"),
        (AS_CSV + "sub-09\n", "found a line of 1 cells, expected two: patient,split"),
        ("", "the file is empty, expected lines patient,split"),
    ],
)
def test_a_split_that_cannot_be_is_one_line(text, message, command, scans, tmp_path):
    (tmp_path / "s.csv").write_text(text)
    code, _, err = command("prepare", scans, tmp_path / "store", "--split", tmp_path / "s.csv", "--workers", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_yaml_that_is_no_split_is_one_line(tmp_path):
    for text in ("- sub-01\n", "train: sub-01\n", "train: {a: b}\n"):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(UserError, match=r"s\.yaml: ") as error:
            read_split(tmp_path / "s.yaml")
        assert "\n" not in str(error.value)


def jane_under_another_name(root, turned):
    """Jane's scan twice: the second a part of it, under another name, and mirrored as another format keeps it."""
    jane = made.slices("MR", 1, count=4)
    made.nifti(root / "jane.nii.gz", jane)
    made.nifti(root / "anonymous7.nii.gz", jane[1:3, :, ::-1] if turned else jane[1:3])
    for person in range(2, 6):
        made.nifti(root / f"sub-{person:02d}.nii.gz", made.slices("MR", person))
    return root


@pytest.mark.parametrize("turned", [False, True])
def test_the_same_pixel_data_in_two_splits_is_refused(turned, command, tmp_path):
    root = jane_under_another_name(tmp_path / "scans", turned)
    rest = "sub-02,train\nsub-03,train\nsub-04,val\nsub-05,test\n"
    (tmp_path / "s.csv").write_text(f"jane,train\nanonymous7,test\n{rest}")
    code, _, err = command("prepare", root, tmp_path / "store", "--split", tmp_path / "s.csv", "--workers", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "share the pixel data of 2 slice(s), expected them in one split" in err
    assert pseudonym("jane") in err and pseudonym("anonymous7") in err
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_drawn_split_keeps_the_same_pixel_data_together_and_counts_them_once(command, tmp_path):
    root = jane_under_another_name(tmp_path / "scans", True)
    for seed in range(6):
        store = tmp_path / f"store{seed}"
        code, out, err = command("prepare", root, store, "--seed", seed, "--workers", 1)
        assert code == 0
        assert "share the pixel data of 2 slice(s), and so are in one split" in err
        assert "2, left out of training" in out
        split = splits_in(store)
        assert split[pseudonym("jane")] == split[pseudonym("anonymous7")]
        assert sorted(len(scan["doubled"]) for scan in made.manifest(store)["scans"]) == [0, 0, 0, 0, 0, 2]


def test_no_patient_is_in_two_splits_whatever_is_scanned(command, tmp_path):
    root = made.folder(tmp_path / "scans", people=8)
    for person in range(0, 8, 2):  # a second visit
        made.nifti(root / "later" / f"sub-{person:02d}_T1w.nii.gz", made.slices("MR", 50 + person))
    scans_on_disk.dicom_series(root / "again" / "deep" / "er", sigma=20.0)
    command("prepare", root, tmp_path / "store", "--val-fraction", 0.3, "--test-fraction", 0.3, "--workers", 1)
    scans = made.manifest(tmp_path / "store")["scans"]
    assert len(scans) == 14
    by_patient = {}
    for scan in scans:
        by_patient.setdefault(scan["patient"], set()).add(scan["split"])
    assert len(by_patient) == 9
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert {split for splits in by_patient.values() for split in splits} == set(SPLITS)
    hashes = [scan["sha256"] for scan in scans]
    assert len(set(hashes)) == len(np.unique(hashes)) == 14
