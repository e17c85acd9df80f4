"""The library speaks of parameters, the command line of its options, and every parameter that is named is an option."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import typer

import cdm4mi
from cdm4mi import io
from cdm4mi.cli.main import app
from cdm4mi.cli.options import with_options
from cdm4mi.errors import UserError

PACKAGE = Path(cdm4mi.__file__).parent
OPTIONS = {
    option for command in typer.main.get_command(app).commands.values() for one in command.params for option in one.opts
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "cli" not in path.relative_to(PACKAGE).parts)


def texts(path):
    """The strings of a module that a user may read: all but docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def test_no_message_of_the_library_names_an_option():
    named = [(path.name, text) for path in MODULES for text in texts(path) if re.search(r"(^|[ (])--[a-z]", text)]
    assert named == []


def test_every_parameter_that_a_message_names_has_its_option():
    marked = {name for path in MODULES for text in texts(path) for name in re.findall(r"`([a-z_]+)`", text)}
    fields = {
        keyword.value.value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError"
        for keyword in node.keywords
        if keyword.arg == "field" and isinstance(keyword.value, ast.Constant)
    }
    assert {"contrasts", "uncertainty", "resume"} <= fields and {"series", "like", "out"} <= marked
    # read() in Python alone takes a format by name
    assert {with_options(f"`{name}`") for name in (marked | fields) - {"format"}} <= OPTIONS


def test_an_error_in_parts_is_one_line_in_the_words_of_each_interface():
    error = UserError(field="start_level", found=-1, expected="0 or more, or `start_from` y")
    assert (error.field, error.found) == ("start_level", -1)
    assert str(error) == "`start_level`: found -1, expected 0 or more, or `start_from` y"
    assert with_options(str(error)) == "--start-level: found -1, expected 0 or more, or --start-from y"
    assert str(UserError("scan.nii: is empty")) == "scan.nii: is empty"


def test_the_command_line_prints_its_options(command, tmp_path):
    for name in ("a.nii", "b.nii"):
        io.write(io.Volume(np.zeros((1, 8, 8)), np.eye(4)), tmp_path / name)
    code, _, err = command("noise", tmp_path, tmp_path / "out.nii")
    assert code == 2 and "holds 2 scans, expected the number of one (--series): 1: nifti a.nii" in err


@pytest.mark.parametrize("parameter, option", [("contrasts", "--contrast"), ("window", "--range"), ("seed", "--seed")])
def test_options_that_are_called_otherwise(parameter, option):
    assert with_options(f"give `{parameter}`") == f"give {option}"
