"""Programs of others that judge written DICOM: dciodvfy (dicom3tools), dcm2niix, Orthanc with storescu (dcmtk)."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import pytest

ORTHANC = shutil.which("Orthanc", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

needs_dciodvfy = pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
needs_dcm2niix = pytest.mark.skipif(not shutil.which("dcm2niix"), reason="dcm2niix is not installed")
needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or not shutil.which("storescu"), reason="Orthanc or storescu (dcmtk) is not installed"
)


def errors_of(path: Path) -> collections.Counter:
    """The errors that dciodvfy reports for one file, counted, without the values that they quote."""
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = [
        line for line in (run.stderr + run.stdout).splitlines() if line.startswith("Error") or " - Error - " in line
    ]
    return collections.Counter(re.sub(r"=?<[^>]*>", "<>", line) if "value" in line else line for line in lines)


def niftis_of(series: Path, out: Path) -> list[nib.Nifti1Image]:
    """What dcm2niix makes of a folder, in the order of its names."""
    out.mkdir(parents=True)
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "scan", "-o", str(out), str(series)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return [nib.load(path) for path in sorted(out.glob("*.nii"))]


class Orthanc:
    """A server on the loopback with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.http, self.dicom = _free_port(), _free_port()
        self.folder = folder

    def get(self, path: str, query: dict | None = None) -> bytes:
        data = None if query is None else json.dumps(query).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", data=data, timeout=20) as answer:
            return answer.read()

    def json(self, path: str, query: dict | None = None):
        return json.loads(self.get(path, query))

    def store(self, folder: Path) -> None:
        command = ["storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom), "+sd", "+r", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start a server, wait until it answers, and stop it."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(folder)
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": server.http,
        "DicomPort": server.dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            for _ in range(150):
                assert process.poll() is None, (folder / "log").read_text()[-500:]
                with contextlib.suppress(OSError):
                    server.get("/system")
                    break
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
