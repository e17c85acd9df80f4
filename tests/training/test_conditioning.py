"""A network does better with the right condition than with another's (fast form of experiments/conditioning.py)."""

from cdm4mi.data import sources
from experiments import conditioning

STEPS = 100


def test_right_condition_is_better_than_shuffled_and_concat_is_best(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_PATIENTS", 16)
    monkeypatch.setattr(sources, "PHANTOM_SLICES", 2)
    scores = {
        key: conditioning.measure(conditioning.configuration(key, STEPS, side=32, decay=0.9), tmp_path / key)
        for key in ("concat", "crossattn", "adm")
    }
    print(conditioning.table(list(scores.values())))
    for key, score in scores.items():
        right, shuffled = score.mean
        assert right < shuffled, key
        assert score.right[-1] < score.shuffled[-1], key
    assert scores["concat"].mean[0] < min(scores["crossattn"].mean[0], scores["adm"].mean[0])
    assert scores["concat"].mean[0] < 0.5 * scores["concat"].mean[1]
