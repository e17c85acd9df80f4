"""The README's Python runs as it is printed."""

import re
import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[block.split("\n")[0] for block in BLOCKS])
def test_the_block_runs(code, tmp_path, monkeypatch):
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "scan.dcm")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})


def test_there_is_code_to_run():
    assert len(BLOCKS) == 2
