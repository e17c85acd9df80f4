"""The trust report of a scan, made while it is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cdm4mi.errors import Refused
from cdm4mi.inference.restorer import Restoration
from cdm4mi.inference.scan import Scan
from cdm4mi.io import Deidentification
from cdm4mi.io.formats import format_of_ending
from cdm4mi.models.about import About
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.trust.record import ModelRange, TrustReport
from cdm4mi.trust.report import Comparison, range_of
from cdm4mi.trust.verdict import outside_of_training
from cdm4mi.trust.written import check_report_place, write_report


class ReportWhileRestoring:
    """An observer of ``inference.denoise.denoise_file`` that compares each slab as it is finished.

    It takes the noise, the modality and the intensity window that the restoration uses. folder: where trust.json and
    trust.html go, None for nowhere; report: the report, once the output is written; paths: what was written. strict:
    a scan outside of the model's training is ``Refused`` before the work; force: replace a report that exists.
    """

    def __init__(self, folder: Path | None = None, *, strict: bool = False, force: bool = False) -> None:
        self.folder, self.strict, self.force = folder, strict, force
        self.report: TrustReport | None = None
        self.paths: list[Path] = []
        self._comparison: Comparison | None = None
        self._range: ModelRange | None = None
        self._known: About | None = None

    def begin(self, scan: Scan, model: TrainedModel) -> None:
        """Raises UserError for a scan of which there is no report, and Refused."""
        if self.folder is not None:
            check_report_place(self.folder, self.force)
        comparison = Comparison(scan.volume, scan.measured)
        self._comparison, self._known = comparison, model.about
        self._range = range_of(model, scan.volume, scan.norm, comparison.noise)
        why = list(outside_of_training(self._range, comparison.unit))
        if self.strict and why:
            raise Refused(f"nothing was restored, as `strict` asks: {'; '.join(why)}")

    @property
    def refused(self) -> bool:
        """Whether the restoration is bad, or of a scan that the model was not trained for."""
        return self.report is not None and self.report.refused

    def slab(self, first: int, y: NDArray[Any], restored: NDArray[Any], spread: NDArray[Any] | None) -> None:
        """Compare the slices of a slab."""
        assert self._comparison is not None
        self._comparison.add(first, y[:, 0], restored[:, 0])

    def finish(self, restoration: Restoration, target: Path, deidentify: Deidentification | None) -> None:
        """Decide on the verdict, and write the report."""
        assert self._comparison is not None
        record, restored, scan = restoration.record, restoration.volume, self._comparison.scan
        window = record.normalisation
        report = self._comparison.report(restored, window, self._range, record, record.input, self._known)
        self.report = report.deidentified() if deidentify else report
        if self.folder is not None:
            self.paths += write_report(self.report, self.folder, scan, restored, restoration.spread)
            if scan.kind == "dicom" and (target.is_dir() or format_of_ending(target) == "dicom"):
                from cdm4mi.trust.dicom import write_dicom_report  # which takes highdicom, slow to load

                self.paths += write_dicom_report(self.report, self.folder, scan, restored, target, deidentify)
