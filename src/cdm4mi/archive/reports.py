"""The trust reports of the scans of an archive: a folder for each, and its verdict for the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cdm4mi import io
from cdm4mi.errors import Refused, UserError
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.inference.restorer import Restoration
from cdm4mi.inference.scan import Scan
from cdm4mi.io import Deidentification
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.records import read_record_as
from cdm4mi.trust.during import ReportWhileRestoring
from cdm4mi.trust.record import TrustReport
from cdm4mi.trust.report import trust_report
from cdm4mi.trust.written import RECORD, write_report


class ScanReport:
    """An observer of ``inference.denoise.denoise_file``: a report where there can be one; the scan is restored anyhow.

    folder: of the report, None for nowhere; a report that is there is replaced. strict: a scan outside of the model's
    training is ``Refused``. verdict: once the output is written, empty without a report; missing: why there is none.
    """

    def __init__(self, folder: Path | None, strict: bool) -> None:
        self.folder = folder
        self.missing = ""
        self._report: ReportWhileRestoring | None = ReportWhileRestoring(folder, strict=strict, force=True)
        self._made: TrustReport | None = None

    @property
    def verdict(self) -> str:
        return "" if self._made is None else self._made.verdict

    def begin(self, scan: Scan, model: TrainedModel) -> None:
        assert self._report is not None
        try:
            self._report.begin(scan, model)
        except Refused:
            raise
        except UserError as error:  # several time points, colour, no noise
            self._none(error)

    def slab(self, first: int, y: NDArray[Any], restored: NDArray[Any], spread: NDArray[Any] | None) -> None:
        if self._report is not None:
            self._report.slab(first, y, restored, spread)

    def finish(self, restoration: Restoration, target: Path, deidentify: Deidentification | None) -> None:
        if self._report is not None:
            self._report.finish(restoration, target, deidentify)
            self._made = self._report.report

    def look_up(
        self, volume: io.Volume, output: Path, record: DenoiseRecord, model: TrainedModel, deidentify: bool
    ) -> None:
        """The report of a scan that an earlier run restored: as it is there, or made now."""
        if self.folder is not None and (found := _there(self.folder / RECORD)) and found.input == record.input:
            self._made = found
            return
        try:
            restored = io.read(output)
            report = trust_report(volume, restored, model=model, record=record)
        except UserError as error:
            self._none(error)
            return
        self._made = report.deidentified() if deidentify else report
        if self.folder is not None:
            write_report(self._made, self.folder, volume, restored)

    def _none(self, error: UserError) -> None:
        self.missing, self._report = f"no report: {error}", None


def _there(path: Path) -> TrustReport | None:
    """A report on disk; None where there is none that can be read."""
    try:
        return read_record_as(TrustReport, path.read_bytes(), str(path), "a trust report")
    except (OSError, UserError):
        return None
