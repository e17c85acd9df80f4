"""What exists under a name is in the registries, in the choices of commands and keys, and in the tables of docs/.

The how-tos of CONTRIBUTING.md name files that exist, and the API reference tells parameters from prose.
"""

import re
from pathlib import Path
from typing import get_args

import pytest

from cdm4mi import choices
from cdm4mi.choices import SOLVERS
from cdm4mi.cli.main import app
from cdm4mi.degradation.registry import NOISES, SIMULATED
from cdm4mi.evaluation.metrics import METRICS
from cdm4mi.evaluation.protocol import protocol_names
from cdm4mi.io.formats import FORMATS

ROOT = Path(__file__).parents[1]
KEYS = {name: set(noise.model_fields) - {"type"} for name, noise in NOISES.items()}


def cells(page, head):
    """The cells, row by row, of the table whose heading begins with ``head``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert found, f"{page} has no table headed {head}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def coded(cell):
    """The names in `backticks`."""
    return re.findall(r"`([^`]+)`", cell)


def names(page, head):
    return [name for row in cells(page, head) for name in coded(row[0])]


def test_solvers():
    assert get_args(choices.SolverName) == tuple(SOLVERS)
    assert names("paths.md", "`solver`") == list(SOLVERS)


def test_calls_and_bridges_of_the_solvers():
    for row, calls, _, bridge, _ in cells("paths.md", "`solver`"):
        for entry in (SOLVERS[name] for name in coded(row)):
            assert calls.startswith(str(entry.calls)), row
            assert bridge == ("as it is" if entry.bridges else "on the residual"), row


def test_noises():
    documented = {coded(name)[0]: set(coded(keys)) for name, _, keys in cells("training.md", "`type`")}
    assert documented == KEYS


def test_every_key_of_a_noise_is_an_option_and_every_type_in_its_help():
    import typer

    command = typer.main.get_command(app).commands["noise"]
    options = {parameter.name: parameter for parameter in command.params}
    for name in SIMULATED:
        assert re.search(rf"\b{name}\b", options["type"].help)
        assert all(re.search(rf"\b{name}\b", options[key].help) for key in KEYS[name])


def test_metrics():
    foreign = {"ssim_gaussian_padded", "ssim_uniform_3d"}  # of the protocols kept as they are
    apart = {"lpips", "interval_level"}  # a paragraph of its own; what the others of an uncertainty are given at
    assert set(METRICS) - foreign - apart == set(names("evaluation.md", "name | what"))


def test_protocols():
    assert sorted(names("evaluation.md", "name | for")) == protocol_names()


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind, tmp_path):
    """Each has a reader and a writer that understand each other under every ending that asks for it."""
    import numpy as np

    from cdm4mi import io

    values = np.arange(42, dtype=np.float32).reshape(1, 6, 7)
    for ending in FORMATS[kind].endings:
        path = tmp_path / f"scan{ending}"
        io.write(io.Volume(values, np.eye(4), None, None), path, force=True)
        again = io.read(path)
        assert again.source.kind == kind
        assert np.array_equal(again.array.reshape(values.shape), values)


def test_the_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:src|tests|docs)/[\w/.]*)`", text)
    assert len(files) > 15
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_public_name_and_module_of_the_reference_can_be_imported():
    from importlib import import_module

    modules = [
        m for page in (ROOT / "docs/api").glob("*.md") for m in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    ]
    assert {"cdm4mi", "cdm4mi.diffusion", "cdm4mi.io"} <= set(modules)
    for module in map(import_module, modules):
        assert all(hasattr(module, name) for name in getattr(module, "__all__", ()))


def test_parameters_are_told_from_prose_in_the_reference():
    pytest.importorskip("griffe")
    from runpy import run_path

    set_apart = run_path(str(ROOT / "docs/plugins/parameters.py"))["set_apart"]
    text = "First line.\n\nscan: a path; steps:\nhow many. Note: as it is. Raises UserError: always."
    text += "\n\nArgs:\n    scan: again."
    assert set_apart(text, {"scan", "steps"}) == (
        "First line.\n\n- **scan**: a path; \n- **steps**: how many. Note: as it is. \n\nRaises UserError: always.\n\n"
        "Args:\n    scan: again."
    )
