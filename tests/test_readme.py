"""The README's Python runs as it is printed."""

import re
import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


SHORT = [block for block in BLOCKS if "ConditionDDPM" not in block]


@pytest.mark.parametrize("code", SHORT, ids=[block.split("\n")[0] for block in SHORT])
def test_the_block_runs(code, tmp_path, monkeypatch):
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "scan.dcm")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})


def test_the_training_loop_learns_to_restore(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(next(block for block in BLOCKS if "ConditionDDPM" in block), str(README), "exec"), names)
    clean, noisy, restored = names["clean"], names["noisy"], names["restored"]
    assert restored.shape == clean.shape
    assert (restored - clean).square().mean() < 0.6 * (noisy.clip(-1, 1) - clean).square().mean()


def test_there_is_code_to_run():
    assert len(BLOCKS) == 3
