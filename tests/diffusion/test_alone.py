"""diffusion/ can be used alone in a notebook: it brings in torch and nothing of the rest of the toolkit."""

import subprocess
import sys

import pytest

HEAVY = ["lightning", "pydicom", "nibabel", "h5py", "pydantic", "omegaconf", "skimage", "matplotlib", "typer"]
NETWORKS_NEITHER = ["lightning", "pydicom", "nibabel", "h5py", "pydantic", "omegaconf"]


@pytest.mark.parametrize(("module", "absent"), [("diffusion", HEAVY), ("networks", NETWORKS_NEITHER)])
def test_importing_it_brings_in_torch_only(module, absent):
    code = (
        f"import sys, cdm4mi.{module}; assert 'torch' in sys.modules; "
        f"print([name for name in {absent!r} if name in sys.modules], "
        "sorted(name for name in sys.modules if name.startswith('cdm4mi.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, own = result.stdout.split("] [")
    assert found == "["
    rooms = {"diffusion": ("choices", "errors", "diffusion"), "networks": ("errors", "networks")}[module]
    for name in own.strip("[]\n ").replace("'", "").split(", "):
        assert name.split(".")[1] in rooms  # imports point downward only
