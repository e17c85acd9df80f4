"""Outputs appear whole or not at all, with what belongs to them, and nothing of a killed run stays beside them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdm4mi.errors import UserError, amount
from cdm4mi.files import below, check_place, replacing_file, replacing_folder, replacing_together

KILLED = """
import os, signal, sys
from pathlib import Path
from cdm4mi.files import replacing_file, replacing_folder
what = replacing_folder if sys.argv[2] == "folder" else replacing_file
with what(Path(sys.argv[1])) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_the_next_run_removes_what_a_killed_one_left(what, tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out", what])
    (left,) = names(tmp_path)
    assert left.startswith(".cdm4mi-")
    with replacing_file(tmp_path / "other.txt") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["other.txt"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with replacing_file(tmp_path / "a.txt") as first:
        host = first.name.split("-")[1]
        first.write_text("a")
        foreign = [f".cdm4mi-{host}-{other.pid}-0", ".cdm4mi-otherhost-1-0", ".cdm4mi-mine"]
        for name in foreign:
            (tmp_path / name).touch()
        with replacing_file(tmp_path / "b.txt") as second:
            second.write_text("b")
    assert names(tmp_path) == sorted([*foreign, "a.txt", "b.txt"])
    other.communicate(b"\n")


FULL = [OSError(errno.ENOSPC, "No space left on device"), OSError("12 requested and 3 written")]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(error, tmp_path):
    (tmp_path / "a.txt").write_text("old")
    for what in (replacing_file, replacing_folder, lambda path: replacing_together(path, tmp_path / "z")):
        target = tmp_path / ("a.txt" if what is replacing_file else "new")
        with (
            pytest.raises(UserError, match=r"cannot be written \(.*\), expected a disk with room for it"),
            what(target),
        ):
            try:
                raise error
            except OSError:
                raise RuntimeError("enforce fail at inline_container.cc:672, unexpected pos") from None
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_outputs_that_belong_together_take_their_places_in_order(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(b.name), replace(a, b)))
    (tmp_path / "series").mkdir()
    with replacing_together(tmp_path / "map.nii", tmp_path / "series") as (first, second):
        first.write_text("map")
        (second / "1.dcm").write_text("slice")
        (second.parent / "series.json").write_text("record")
        assert names(tmp_path) != ["map.nii", "series", "series.json"]
        assert names(tmp_path / "series") == []
    assert moved == ["map.nii", "series.json", "series"]
    assert names(tmp_path) == ["map.nii", "series", "series.json"]


def test_nothing_moves_where_one_of_them_has_no_place(tmp_path):
    (tmp_path / "series").write_text("a file now")
    with (
        pytest.raises(UserError, match="series: exists and is not an empty folder"),
        replacing_together(tmp_path / "map.nii", tmp_path / "series") as (first, second),
    ):
        first.write_text("map")
        second.mkdir()
        (second.parent / "series.json").write_text("record")
    assert names(tmp_path) == ["series"]


@pytest.mark.parametrize("path", [".", "..", "/", ""])
def test_a_path_without_a_name_is_refused(path):
    with pytest.raises(UserError, match="names no file and no folder of its own"):
        check_place(Path(path))


def test_a_place_that_cannot_be_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        check_place(tmp_path / "file" / "out.nii")
    with pytest.raises(UserError, match=rf"the disk of {tmp_path} has \d.* free, expected at least 1073741824 GiB"):
        check_place(tmp_path / "new" / "out.nii", 2**60)
    check_place(tmp_path / "new" / "out.nii", 1)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "", ".", "a/../../b", "a\x1b[2J"])
def test_a_name_stays_inside_its_folder(name, tmp_path):
    with pytest.raises(UserError, match="name: found ") as error:
        below(tmp_path, name)
    assert str(error.value).isprintable()
    assert below(tmp_path, "brains/first") == tmp_path / "brains" / "first"


def test_numbers_of_bytes_keep_their_meaning():
    sizes = (0, 700, 1024, 9.96 * 2**20, 600 * 2**20, 1.5 * 2**30, 5000 * 2**30)
    assert [amount(size) for size in sizes] == [
        "0 bytes", "700 bytes", "1.0 KiB", "10.0 MiB", "600 MiB", "1.5 GiB", "5000 GiB"
    ]  # fmt: skip
