"""The command line itself: help is instant, and a wrong line is one line."""

import subprocess
import sys

import pytest

from cdm4mi.cli.main import app

COMMANDS = tuple(command.callback.__name__.replace("_", "-") for command in app.registered_commands)
HEAVY = ("torch", "lightning", "pydicom", "nibabel", "matplotlib", "highdicom", "SimpleITK", "scipy", "skimage", "h5py")


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_command_loads_nothing_heavy():
    out = python(
        f"""
import sys
from cdm4mi.cli.main import run
for command in [[], *([c] for c in {COMMANDS!r})]:
    sys.argv = ["cdm4mi", *command, "--help"]
    try:
        run()
    except SystemExit as ended:
        assert not ended.code, command
print("loaded:", [m for m in {HEAVY!r} if m in sys.modules])
"""
    )
    assert "loaded: []" in out
    for command in COMMANDS:
        assert f"cdm4mi {command} [OPTIONS]" in out
    assert "Not for clinical use" in out


def test_importing_the_package_loads_nothing():
    out = python(f"import sys, cdm4mi; print([m for m in {('numpy', 'pydantic', *HEAVY)!r} if m in sys.modules])")
    assert out.strip() == "[]"


def test_python_m_is_the_command():
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "cdm4mi", *arguments], capture_output=True, text=True, timeout=100)

    version, wrong = run("--version"), run("restore", "a", "b")
    assert (version.returncode, version.stdout, version.stderr) == (
        0,
        python("import cdm4mi; print('cdm4mi', cdm4mi.__version__)"),
        "",
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: No such command 'restore'") and wrong.stderr.count("\n") == 1


def test_without_arguments_it_shows_its_help(command):
    code, out, err = command()
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)


def test_version(command):
    import cdm4mi

    assert command("--version") == (0, f"cdm4mi {cdm4mi.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["denoise"], "Missing argument 'IN'"),
        (["denoise", "a.nii"], "Missing argument 'OUT'"),
        (["restore", "a", "b"], "No such command 'restore'"),
        (["denoise", "a", "b", "--stepz", "3"], "No such option: --stepz"),
        (["denoise", "a", "b", "--steps", "many"], "--steps"),
        (["denoise", "a", "b", "--estimate", "best"], "'mean', 'sample', 'mean-of-k'"),
        (["denoise", "a", "b", "--solver", "milstein"], "'--solver': 'milstein' is not one of 'ddpm', 'ddim'"),
        (["denoise", "a", "b", "--modality", "US"], "'CT', 'MR', 'PT'"),
        (["denoise", "a", "b", "--batch", "0"], "--batch"),
        (["denoise", "a", "b", "--seed", "-1"], "--seed"),
        (["demo", "--variance", "0"], "--variance"),
    ],
)
def test_a_wrong_line_is_one_line(command, arguments, said):
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_model_is_loaded_without_the_compiler_of_torch():
    """Which takes longer to import than the model to load."""
    code = "import sys; from cdm4mi.models.checkpoint import load_model; load_model(None); print(*sys.modules)"
    assert "torch._dynamo" not in python(code).split()
