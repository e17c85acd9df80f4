"""A network does better with the right condition than with another's (fast form of experiments/conditioning.py)."""

import importlib.util
import sys
from pathlib import Path

import pytest

from cdm4mi.data import sources

SCRIPT = Path(__file__).parents[2] / "experiments" / "conditioning.py"
STEPS = 100


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("conditioning", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["conditioning"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_right_condition_is_better_than_shuffled_and_concat_is_best(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_PATIENTS", 16)
    monkeypatch.setattr(sources, "PHANTOM_SLICES", 2)
    scores = {
        key: experiment.measure(experiment.configuration(key, STEPS, side=32, decay=0.9), tmp_path / key)
        for key in ("concat", "crossattn", "adm")
    }
    print(experiment.table(list(scores.values())))
    for key, score in scores.items():
        right, shuffled = score.mean
        assert right < shuffled, key
        assert score.right[-1] < score.shuffled[-1], key
    assert scores["concat"].mean[0] < min(scores["crossattn"].mean[0], scores["adm"].mean[0])
    assert scores["concat"].mean[0] < 0.5 * scores["concat"].mean[1]
