"""Pictures show what was measured: one window for all, the right PSNR, and a mistake in one line."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.measure import pictures
from cdm4mi.measure.pictures import comparison_picture, steps_picture


@pytest.fixture
def texts(monkeypatch):
    """Every text of the figures saved, for figures stay readable without a reader of pixels."""
    found = []
    save = pictures.save_png

    def spy(figure, path, **options):
        for axes in figure.axes:
            found.extend([axes.get_title(), *(t.get_text() for t in axes.texts)])
        found.extend(t.get_text() for t in figure.texts)
        save(figure, path, **options)

    monkeypatch.setattr(pictures, "save_png", spy)
    return found


def test_comparison_has_psnr_window_and_black_ground(tmp_path, texts):
    clean = phantom("CT", 1, 64)
    noisy = clean + 2000 * 10 ** (-20 / 20) * np.where(np.indices(clean.shape).sum(0) % 2, 1, -1)
    path = tmp_path / "picture.png"
    comparison_picture(
        path, {"noisy": noisy, "reference": clean}, (-3000, 3000), (8, 8, 16), differences_to="reference", unit="HU"
    )
    image = np.asarray(Image.open(path).convert("RGB"))
    assert (image[0, 0] == 0).all()
    assert f"{20 * np.log10(6000 / 200):.2f} dB" in texts
    assert "one window for all: -3000 to 3000 HU" in texts
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_one_window_and_one_scale_for_all(tmp_path):
    """A bright outlier in one column changes no grey value of the other, and equal images look equal."""
    clean = phantom("MR", 2, 64)
    outlier = clean.copy()
    outlier[30:34, 30:34] = 5000

    def picture(second):
        comparison_picture(tmp_path / "p.png", {"a": clean, "b": second}, (0, 1000))
        return np.asarray(Image.open(tmp_path / "p.png").convert("L")).astype(int)

    same, other = picture(clean), picture(outlier)
    half = same.shape[1] // 2
    np.testing.assert_array_equal(same[:, :half], other[:, :half])
    changed = (same != other).mean()
    assert 0 < changed < 0.02


def test_steps_show_each_time_and_the_distance_to_the_target(tmp_path, texts):
    x0 = phantom("MR", 3, 32) / 500 - 1
    noise = np.random.default_rng(0).standard_normal(x0.shape)
    steps = [(t, x0 + t / 100 * noise, x0 + 0.1) for t in (999, 500, 0)]
    steps_picture(tmp_path / "steps.png", steps, condition=x0 + 0.2 * noise, target=x0)
    assert {"t = 999", "t = 500", "t = 0", "condition", "target"} <= set(texts)
    steps_picture(tmp_path / "bare.png", steps)
    assert Image.open(tmp_path / "bare.png").width < Image.open(tmp_path / "steps.png").width


def test_no_global_figure_state():
    code = "import sys; import cdm4mi.measure.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mistakes_are_named(tmp_path):
    image = np.zeros((16, 16))
    path = tmp_path / "p.png"
    with pytest.raises(UserError, match=r"b \(15, 16\)"):
        comparison_picture(path, {"a": image, "b": image[1:]}, (0, 1))
    with pytest.raises(UserError, match="inside 16 x 16"):
        comparison_picture(path, {"a": image}, (0, 1), zoom=(10, 0, 8))
    with pytest.raises(UserError, match="'c', expected one of a"):
        comparison_picture(path, {"a": image}, (0, 1), differences_to="c")
    with pytest.raises(UserError, match="lower value first"):
        comparison_picture(path, {"a": image}, (1, 0))
    with pytest.raises(UserError, match="at least one"):
        steps_picture(path, [])
    assert not path.exists()
