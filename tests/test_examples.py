"""The examples run as they are, with less work, and their pages show the pictures that they make."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LESS = {
    "restore_scans": {"SIDE = 128": "SIDE = 64", "SAMPLES = 8": "SAMPLES = 2", "STEPS = 10": "STEPS = 2"},
    "train_own": {
        '"val_patches=8"': '"val_patches=4", "max_tsteps=100", "val_every=100", "picture_every=0", "image_size=32"'
    },
    "diffusion_steps": {"TRAINING_STEPS = 400": "TRAINING_STEPS = 60", "steps = (5, 10, 20, 40)": "steps = (5, 10)"},
}
"""Settings, and what a test makes of them."""


def run(name, folder, monkeypatch):
    """The names that an example leaves when it is run in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    for old, new in LESS[name].items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    names = {"__name__": "example"}
    exec(compile(code, name, "exec"), names)
    return names


def test_restored_scans_have_less_noise_and_a_map(tmp_path, monkeypatch):
    names = run("restore_scans", tmp_path, monkeypatch)
    noisy, clean, restored = names["noisy"], names["clean"], names["restored"]
    assert names["rms"](restored.array - clean.array) < 0.8 * names["rms"](noisy.array - clean.array)
    assert names["record"]["uncertainty"]["calibrated"] is False  # for other settings than these few
    assert names["sd"].min() > 0
    assert (tmp_path / "restore_scans" / "restored" / "head_ct").is_dir()


def test_a_trained_model_restores_somebody_new(tmp_path, monkeypatch):
    names = run("train_own", tmp_path, monkeypatch)
    assert names["report"].manifest.patients == {"train": 8, "val": 1, "test": 1}
    assert names["rms"](names["restored"]) < names["rms"](names["noisy"])
    assert names["result"].record.model == "best.ckpt"


def test_a_diffusion_by_hand_learns_and_samples(tmp_path, monkeypatch):
    names = run("diffusion_steps", tmp_path, monkeypatch)
    assert sum(names["losses"][-20:]) < 0.6 * sum(names["losses"][:20])
    assert [state.t for state in names["states"]][::19] == [999, 49]
    assert names["error"][-1] < names["error"][0]  # the mean of eight samples, and one


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pages_are_notebooks_with_pictures_that_the_example_makes(path):
    pytest.importorskip("mkdocs")
    from runpy import run_path

    script = path.read_text(encoding="utf-8")
    assert script.startswith("# %% [markdown]\n# # ")
    page = run_path(str(ROOT / "docs/plugins/pages.py"))["notebook"](script)
    assert page.startswith("# ") and "\n# %%" not in page
    assert page.count("```") == 2 * len(re.findall(r"^# %%$", script, re.M))
    shown = re.findall(r"!\[.+\]\(\.\./docs/examples/(\w+\.png)\)", page)
    assert set(shown) == set(re.findall(r'OUT / "(\w+\.png)"', script))
    assert all((ROOT / "docs/examples" / name).is_file() for name in shown)
