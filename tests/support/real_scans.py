"""Marks of tests that read the real scans or the reference vectors: skipped where they are missing."""

import pytest

from experiments.shared import REFERENCE, SCANS

WHERE = "beside this checkout or in CDM4MI_DATA"
needs_scans = pytest.mark.skipif(not SCANS.is_dir(), reason=f"no real scans {WHERE}")
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference vectors {WHERE}")
