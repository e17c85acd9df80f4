"""Nothing that a file, a header or a configuration holds moves the cursor of a terminal, or leads out of runs/."""

import re
from pathlib import Path

import numpy as np
import pytest

import cdm4mi.cli
from cdm4mi.cli.terminal import printable

CLEAR = "\x1b[2J\x07\u202e"


def test_control_characters_become_escapes_and_text_stays():
    assert printable(f"a{CLEAR}b\r\x9b") == r"a\x1b[2J\x07\u202eb\r\x9b"
    assert printable("µm, 2 × 3, naïve\tπ\n") == "µm, 2 × 3, naïve\tπ\n"
    assert printable("\udcff") == r"\udcff"


def test_commands_print_in_this_one_way():
    for file in Path(cdm4mi.cli.__file__).parent.glob("*.py"):
        printing = re.findall(r"typer\.echo\(|(?<![\w.])print\((?!printable)|secho", file.read_text(encoding="utf-8"))
        assert printing == (["typer.echo("] if file.name == "terminal.py" else []), file.name


def test_a_file_name_cannot_command_the_terminal(command, save_nifti, tmp_path):
    save_nifti(tmp_path / f"a{CLEAR}.nii", np.arange(128.0).reshape(2, 8, 8))
    bad = tmp_path / f"b{CLEAR}.nii"
    bad.write_text("none")
    for arguments in (("inspect", bad), ("prepare", tmp_path, tmp_path / "store"), ("train", f"c{CLEAR}.yaml")):
        _, out, err = command(*arguments)
        assert r"\x1b[2J" in out + err
        assert not re.search("[\x1b\x07\u202e]", out + err)


@pytest.mark.parametrize("name", ["../../x", "/x", ".."])
def test_a_run_stays_inside_runs(name, command, tmp_path, monkeypatch):
    (tmp_path / "here" / "now").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "now")
    code, _, err = command("train", "phantom-small", f"name={name}")
    assert (code, err) == (2, f"error: name: found {name!r}, expected one of a place inside runs\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
