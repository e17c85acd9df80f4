"""Prepared from real scans: one acquisition under two names and in two formats is found by its pixels."""

import scans_to_prepare as made
from real_scans import needs_scans

from experiments.shared import SCANS

pytestmark = needs_scans


def test_a_dicom_excerpt_of_a_nifti_scan_is_kept_in_its_split(command, tmp_path):
    scans = [SCANS / "ct" / "rider_pilot_chest.nii.gz", SCANS / "dicom" / "rider_pilot_chest_ct"]
    code, _, err = command("prepare", *scans, tmp_path / "store", "--workers", 1)
    assert code == 0
    assert "share the pixel data of 24 slice(s), and so are in one split" in err
    found = made.manifest(tmp_path / "store")["scans"]
    assert {scan["split"] for scan in found} == {"train"}
    assert sum(scan["slices"] for scan in found) - sum(len(scan["doubled"]) for scan in found) == 95
    assert all(scan["stored"]["target"]["error"] == 0 for scan in found)
