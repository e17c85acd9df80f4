"""A study gives the same tables however it was stopped, judges every method on the same images, and tells no names."""

import json

import nibabel as nib
import numpy as np
import pytest

from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines.nlm import NlmSettings
from cdm4mi.evaluation.benchmark import run as benchmark
from cdm4mi.evaluation.benchmark.config import parse_benchmark
from cdm4mi.evaluation.benchmark.methods import at_an_end
from cdm4mi.evaluation.benchmark.run import run_benchmark
from cdm4mi.evaluation.benchmark.scans import StudyScan, split_hash
from cdm4mi.measure.metrics import psnr
from cdm4mi.window import IntensityWindow


def scores_of(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / "scores").iterdir())}


def record_of(folder):
    return json.loads((folder / "study.json").read_text())


def test_a_study_killed_anywhere_goes_on_and_gives_the_same_tables(study, tmp_path, monkeypatch):
    config = parse_benchmark(study)
    run_benchmark(config, tmp_path / "whole")

    made = []
    whole = benchmark.make_cell
    monkeypatch.setattr(benchmark, "make_cell", lambda *a: made.append(1) or whole(*a))

    def stop(what, done, total):
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(config, tmp_path / "stopped", stop)
    assert len(made) == 9
    assert not (tmp_path / "stopped/study.json").exists()
    # a file that a kill left half written is made anew
    kept = sorted((tmp_path / "stopped/cache").glob("*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    run_benchmark(config, tmp_path / "stopped")
    assert len(made) == 24 + 1  # 2 levels, 4 methods, 3 scans, and the damaged one
    assert scores_of(tmp_path / "stopped") == scores_of(tmp_path / "whole")
    timeless = [record_of(tmp_path / name) for name in ("whole", "stopped")]
    for record in timeless:
        for level in record["levels"]:
            del level["seconds"]
    assert timeless[0] == timeless[1]

    made.clear()
    study["levels"].append({"type": "gaussian", "variance": 0.05})
    study["methods"][3]["name"] = "renamed"
    run_benchmark(parse_benchmark(study), tmp_path / "stopped")
    assert len(made) == 12  # the new level alone


@pytest.mark.parametrize("damage", ["", '{"width": 1', '{"width": "wide"}', "[" * 100_000])
def test_a_damaged_tuning_is_made_anew(damage, study, tmp_path, caplog):
    study["methods"] = study["methods"][:2]
    config = parse_benchmark(study)
    run_benchmark(config, tmp_path / "run")
    first = scores_of(tmp_path / "run")
    tuned = {file: file.read_bytes() for file in (tmp_path / "run/tuning").iterdir()}
    file = sorted(tuned)[0]
    file.write_text(damage)
    run_benchmark(config, tmp_path / "run")
    assert [record.getMessage() for record in caplog.records] == [f"{file}: damaged, so gaussian_filter is tuned anew"]
    assert {file: file.read_bytes() for file in tuned} == tuned
    assert scores_of(tmp_path / "run") == first


def test_figures_are_those_of_the_images(study, tmp_path, scans):
    study["methods"] = study["methods"][:2]
    found = run_benchmark(parse_benchmark(study), tmp_path / "run")
    assert [len(cells) for level in found.levels for cells in level.cells.values()] == [3] * 4
    clean = nib.load(scans / "sub-20.nii.gz").get_fdata().T
    scan = next(s for s in found.scans if np.array_equal(s.target, clean.astype(np.float32)))
    number = found.scans.index(scan)
    cell = found.levels[1].cells["noisy input"][number]
    noisy = scan.norm.physical(cell.images[1].astype(np.float32))
    assert np.std((noisy - scan.target[1]) / 1000) == pytest.approx(0.2**0.5, rel=0.05)
    row = next(
        r for rows in cell.rows.values() for r in rows if r.slice == scan.slice_numbers[1] and r.region == "image"
    )
    by_hand = psnr(noisy.clip(-1000, 1000), scan.target[1].clip(-1000, 1000), 2000)
    assert row.scores["psnr"] == pytest.approx(by_hand, abs=0.02)
    # the blur was tuned: wider where there is more noise
    widths = [settings["width"] for settings in found.methods[1].tuned.values()]
    assert widths[0] < widths[1]


def test_a_strength_at_an_end_of_its_grid_is_told():
    grid = [NlmSettings(factor) for factor in (0.4, 0.8, 1.6)]
    assert list(at_an_end({"factor": 0.8, "patch_size": 5}, grid)) == []
    for factor in (0.4, 1.6):
        assert list(at_an_end({"factor": factor, "patch_size": 5}, grid)) == [
            f"tuned factor {factor} is at an end of its grid, 0.4 to 1.6"
        ]


def test_noise_of_whole_slices_is_made_before_the_crop(study, tmp_path):
    """The projections of a crop would be those of a thin object, with a fraction of the noise."""
    study["methods"], study["levels"] = study["methods"][:1], [{"type": "low_dose_ct", "dose": 0.1, "views": 90}]
    whole = run_benchmark(parse_benchmark(study), tmp_path / "whole")
    study["data"]["crop"] = 24
    cropped = run_benchmark(parse_benchmark(study), tmp_path / "cropped")
    assert cropped.levels[0].sigma == whole.levels[0].sigma
    cells = [run.levels[0].cells["noisy input"] for run in (whole, cropped)]
    for scan, uncut, cut in zip(cropped.scans, *cells, strict=True):
        assert cut.images.shape[1:] == scan.target.shape[1:] == (24, 24)
        np.testing.assert_array_equal(cut.images, uncut.images[(slice(None), *scan.cut)])


def test_the_record_tells_no_name_and_no_path(study, tmp_path, scans):
    run_benchmark(parse_benchmark(study), tmp_path / "run", command="cdm4mi benchmark study.yaml")
    written = [f for f in (tmp_path / "run").rglob("*") if f.is_file() and f.suffix in (".json", ".csv")]
    text = "".join(f.read_text() for f in written)
    assert "sub-2" not in text
    assert str(tmp_path) not in text and "/" not in json.dumps(record_of(tmp_path / "run")["config"])
    record = record_of(tmp_path / "run")
    assert len(record["patients"]) == 3 and len(record["tuning_patients"]) == 1
    assert record["levels"][0]["calls"] == {"noisy input": 0, "Gaussian filter": 0, "two steps": 2, "U-Net": 1}
    assert record["levels"][1]["inside_training"]["U-Net"] is False  # trained up to 0.09
    assert record["levels"][0]["inside_training"]["U-Net"] is True
    assert record["leakage"]["U-Net"].startswith("patients")


def test_what_is_missing_is_trained_and_a_finished_run_is_used(study, tmp_path, trained_run, monkeypatch):
    from cdm4mi.training import run as training

    study["methods"] = [
        {"type": "noisy"},
        {
            "type": "model",
            "name": "trained",
            "config": "phantom-small",
            "overrides": [
                *("kind=volumes", f"paths={trained_run.parent}", "image_size=32"),
                *("max_tsteps=2", "batch_size=2", "val_patches=2", "picture_every=0"),
            ],
        },
    ]
    study["levels"] = study["levels"][:1]
    run_benchmark(parse_benchmark(study), tmp_path / "run")
    facts = record_of(tmp_path / "run")["methods"][1]
    assert facts["training_steps"] == 2 and facts["trained_by_this_study"]
    monkeypatch.setattr(training, "train", None)
    run_benchmark(parse_benchmark(study), tmp_path / "run")


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"checkpoint": "nowhere.ckpt"}, r"nowhere\.ckpt: no such file, expected a checkpoint"),
        ({"checkpoint": "RUN"}, r"last: found test patient patient-\w+ among its (training|validation) patients"),
        ({"config": "nowhere.yaml"}, r"nowhere\.yaml: no such file"),
    ],
)
def test_every_model_is_looked_at_before_one_is_trained(last, message, study, tmp_path, trained_run, monkeypatch):
    from cdm4mi.training import run as training

    monkeypatch.setattr(training, "PairData", None)
    study["data"] = {"paths": [str(trained_run.parent / "sub-00.nii.gz")]}
    last = {key: value.replace("RUN", str(trained_run)) for key, value in last.items()}
    study["methods"] = [
        {"type": "model", "name": "first", "config": "phantom-small"},
        {"type": "model", "name": "last", **last},
    ]
    with pytest.raises(UserError, match=message):
        run_benchmark(parse_benchmark(study), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [{"type": "gaussian", "variance": [0.1, 0.2]}]}, "expected one number"),
        ({"methods": [{"type": "nlm"}, {"type": "nlm"}]}, "'non-local means' twice"),
        ({"methods": [{"type": "median"}]}, "methods.*'median', expected"),
        ({"methods": [{"type": "model", "name": "a"}]}, "expected one of checkpoint and config"),
        (
            {"methods": [{"type": "model", "name": "a", "config": "phantom-small", "overrides": ["foo=3"]}]},
            "^method a: overrides: unknown key 'foo'",
        ),
        (
            {"methods": [{"type": "model", "name": "a", "checkpoint": "RUN", "sampling": {"planes": 3}}]},
            "^method a: sampling.planes: found 3, expected 1: the slices of a study need not be neighbours",
        ),
        ({"main": "best"}, "main: found 'best'"),
        ({"metods": []}, "unknown key 'metods'"),
        ({"protocols": ["psnr"]}, "no such protocol"),
        ({"data": {"paths": ["SCANS"], "test_patients": ["sub-77"]}}, "'sub-77', which has no scan"),
        ({"data": {"paths": ["SCANS"], "test_patients": ["sub-20"]}}, "gaussian_filter is tuned on validation"),
    ],
)
def test_mistakes_are_one_line(study, tmp_path, scans, trained_run, change, message):
    change = json.loads(json.dumps(change).replace("SCANS", str(scans)).replace("RUN", str(trained_run)))
    with pytest.raises(UserError, match=message) as error:
        run_benchmark(parse_benchmark(study | change), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_the_split_of_a_record_stays_what_it_is():
    """A hash of pixels and window, stated beside every figure that was published: it follows no class's name."""
    scan = StudyScan(
        name="a",
        patient="a",
        names=frozenset(),
        slice_numbers=[3, 5],
        target=np.arange(8, dtype=np.float32).reshape(2, 2, 2),
        norm=IntensityWindow(-1000.0, 1000.0, "CT"),
        spacing=(2.5, 0.7, 0.8),
        hashes=frozenset(),
        resolved={},
    )
    assert scan.digest[:16] == "79812fa50905901f"
    assert split_hash([scan], []) == "c18e66b4"
