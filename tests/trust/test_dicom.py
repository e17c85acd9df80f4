"""The trust report as DICOM: its references, what it says, and what others make of it."""

import io as streams
import json
from collections import Counter

import numpy as np
import pydicom
import pytest
from external import errors_of, needs_dciodvfy, needs_orthanc, orthanc
from scans_on_disk import SECRETS, dicom_series

from cdm4mi.io import read
from cdm4mi.trust import TrustReport
from cdm4mi.trust.dicom import PICTURE, REPORT
from cdm4mi.trust.record import Place
from cdm4mi.trust.summary import summary_picture


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "de-identified"])
def written(request, trained_run, tmp_path_factory):
    """(source folder, output folder, report's folder, whether it was de-identified)."""
    from cdm4mi.inference.denoise import denoise_file
    from cdm4mi.trust.during import ReportWhileRestoring

    folder = tmp_path_factory.mktemp("dicom")
    dicom_series(folder / "in", sigma=60)
    observer = ReportWhileRestoring(folder / "report")
    denoise_file(folder / "in", folder / "out", trained_run, deidentify=request.param, observer=observer)
    assert observer.paths[2:] == [folder / "report" / REPORT, folder / "report" / PICTURE]
    return folder / "in", folder / "out", folder / "report", request.param


def all_values(dataset):
    return [str(element.value) for element in dataset.iterall() if element.VR != "SQ"]


def test_both_are_new_series_of_the_study_and_say_what_they_are(written):
    source, out, report, deidentified = written
    derived = [pydicom.dcmread(path) for path in sorted(out.glob("*.dcm"))]
    sr, sc = pydicom.dcmread(report / REPORT), pydicom.dcmread(report / PICTURE)
    series = {ds.SeriesInstanceUID for ds in (sr, sc, derived[0])}
    assert len(series) == 3 and {ds.StudyInstanceUID for ds in (sr, sc)} == {derived[0].StudyInstanceUID}
    for ds in (sr, sc):
        assert (ds.PatientID, ds.PatientName) == (derived[0].PatientID, derived[0].PatientName)
        assert ds.SeriesDescription.endswith("NOT FOR CLINICAL USE")
    assert sr.Modality == "SR" and sr.VerificationFlag == "UNVERIFIED"
    texts = all_values(sr)
    said = json.loads((report / "trust.json").read_text("utf-8"))
    assert "NOT FOR CLINICAL USE" in texts and said["verdict"].upper() in texts
    assert all(f"{reason['colour']}: {reason['text']}" in texts for reason in said["reasons"])
    numbers = [item for item in sr.ContentSequence if item.ValueType == "NUM"]
    sigma = next(n for n in numbers if n.ConceptNameCodeSequence[0].CodeValue == "SIGMA").MeasuredValueSequence[0]
    assert float(sigma.NumericValue) == pytest.approx(said["noise"]["sigma"], rel=1e-5)
    assert sigma.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    if deidentified:
        assert sr.PatientIdentityRemoved == sc.PatientIdentityRemoved == "YES"
        joined = " ".join(all_values(sr) + all_values(sc))
        assert not any(secret in joined for secret in SECRETS)
        original = pydicom.dcmread(next(source.glob("*.dcm")))
        assert original.StudyInstanceUID not in joined and sr.ContentDate == "19000101"


def test_they_refer_to_every_image_of_the_scan_and_of_the_output(written):
    _, out, report, _ = written
    derived = [pydicom.dcmread(path) for path in sorted(out.glob("*.dcm"))]
    restored = {ds.SOPInstanceUID for ds in derived}
    sources = {ds.SourceImageSequence[0].ReferencedSOPInstanceUID for ds in derived}
    sr, sc = pydicom.dcmread(report / REPORT), pydicom.dcmread(report / PICTURE)
    evidence = [
        item.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert set(evidence) == restored | sources and len(evidence) == 6
    pair = [item.ReferencedSOPInstanceUID for item in sc.SourceImageSequence]
    assert pair[0] in sources and pair[1] in restored


@needs_dciodvfy
def test_dciodvfy_finds_no_error_that_the_source_has_not(written):
    source, _, report, _ = written
    allowed = errors_of(next(source.glob("*.dcm")))
    for name in (REPORT, PICTURE):
        assert errors_of(report / name) - allowed == Counter()


@needs_orthanc
def test_a_dicom_server_takes_both_into_the_study(written, tmp_path):
    source, out, report, deidentified = written
    with orthanc(tmp_path / "server") as server:
        for folder in (source, out, (report / REPORT).parent):
            server.store(folder)
        study = pydicom.dcmread(report / REPORT).StudyInstanceUID
        found = server.json("/tools/find", {"Level": "Series", "Query": {"StudyInstanceUID": study}, "Expand": True})
        modalities = Counter(series["MainDicomTags"]["Modality"] for series in found)
        assert modalities == Counter({"CT": 1 if deidentified else 2, "SR": 1, "OT": 1})
        instance = next(s for s in found if s["MainDicomTags"]["Modality"] == "SR")["Instances"][0]
        returned = pydicom.dcmread(streams.BytesIO(server.get(f"/instances/{instance}/file")))
        assert returned == pydicom.dcmread(report / REPORT)


def test_the_picture_shows_the_slice_of_the_most_striking_finding(written):
    source, out, report, _ = written
    scan, restored = read(source), read(out)
    made = TrustReport.model_validate(json.loads((report / "trust.json").read_text("utf-8")))
    pictures = []
    for k in (0, 2):
        place = Place(
            kind="structure", position=(k, 30, 30), position_mm=(0, 0, 0), score=9, change=50, change_in_sigma=1,
            change_scaled=0.05, size_mm=8,
        )  # fmt: skip
        pictures.append(summary_picture(made.model_copy(update={"findings": [place]}), scan, restored))
    assert pictures[0].shape == pictures[1].shape and not np.array_equal(*pictures)
    assert pictures[0].shape[2] == 3 and pictures[0].max() > 200
