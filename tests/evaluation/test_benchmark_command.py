"""benchmark, report and sweep from the command line."""

import json
import os
import signal

import yaml

from cdm4mi.evaluation.benchmark import run as benchmark


def test_benchmark_then_report(command, study, tmp_path):
    study["methods"] = study["methods"][:2]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    code, out, errors = command("benchmark", file, "--out", tmp_path / "run")
    assert code == 0, errors
    assert "Gaussian filter has the best PSNR" in out and "protocol small v1" in out
    assert (tmp_path / "run/report.html").exists()
    code, out, errors = command("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert code == 0, errors
    assert "MB" in out and (tmp_path / "page.html").stat().st_size < 20_000_000
    code, _, errors = command("report", tmp_path)
    assert code == 2 and errors.count("\n") == 1


def test_a_study_that_a_scheduler_stops_does_not_pass_for_done(command, study, tmp_path, monkeypatch):
    study["methods"] = study["methods"][:2]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    save = benchmark.save_cell
    monkeypatch.setattr(benchmark, "save_cell", lambda *a: (save(*a), os.kill(os.getpid(), signal.SIGTERM)))
    code, _, errors = command("benchmark", file, "--out", tmp_path / "run")
    assert code == 143
    assert errors.endswith(
        f"what is done is kept in {tmp_path / 'run'}: the same command goes on with it\nstopped (SIGTERM)\n"
    )
    assert len(list((tmp_path / "run/cache").glob("*.npz"))) == 1
    assert not (tmp_path / "run/cdm4mi.lock").exists()


def test_sweep_marks_levels_outside_training(command, study, tmp_path, scans, trained_run):
    code, _, errors = command(
        *("sweep", trained_run, scans, "--protocol", study["protocols"][0], "--values", "0.01,0.3"),
        *("--slices", "1", "--out", tmp_path / "sweep"),
    )
    assert code == 0, errors
    record = json.loads((tmp_path / "sweep/study.json").read_text())
    assert [level["inside_training"]["run"] for level in record["levels"]] == [True, False]
    assert len(record["patients"]) == 4
    assert "†" in (tmp_path / "sweep/report.html").read_text()
    code, _, errors = command("sweep", scans)
    assert code == 2 and "models and then the data" in errors
    code, _, errors = command("sweep", trained_run, scans, "--values", "much")
    assert code == 2 and "'much'" in errors
