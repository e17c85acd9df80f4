"""Restoring an archive: every scan that is not restored yet, with a table of what became of each."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cdm4mi.archive import bids
from cdm4mi.archive.restore import Job, model_of
from cdm4mi.archive.series import Archive, Series
from cdm4mi.archive.spread import STARTS_IN, cluster_at, in_turn, local_cluster, over_workers
from cdm4mi.archive.table import Row, Table, is_table
from cdm4mi.errors import UserError
from cdm4mi.io.dicom.deidentify import deidentification
from cdm4mi.io.formats import format_of_ending
from cdm4mi.locks import sole_writer
from cdm4mi.trust.written import check_report_place

OnRow = Callable[[Row], None]
Counts = Counter[str]
"""Rows by status."""


@dataclass(frozen=True)
class Spread:
    """How the scans are spread: worker processes on this machine, the address of a running Dask cluster's scheduler,
    and which of how many parts of the archive is restored now.

    Raises UserError for what cannot be.
    """

    workers: int = 1
    scheduler: str | None = None
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(field="workers", found=self.workers, expected="1 or more")
        if self.scheduler is not None and self.workers > 1:
            raise UserError(field="scheduler", found="given with `workers`", expected="one of them")
        if (self.workers > 1 or self.scheduler is not None) and importlib.util.find_spec("distributed") is None:
            raise UserError("several workers need the package distributed: pip install 'cdm4mi[archive]'")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            found = "{}/{}".format(*self.shard)
            raise UserError(field="shard", found=found, expected="i/n with i from 1 to n, such as 3/8")

    @property
    def given(self) -> str:
        """The field that asks for several processes."""
        return "shard" if self.shard is not None else "scheduler" if self.scheduler is not None else "workers"

    @property
    def table(self) -> str:
        """The name of the table, one for each part."""
        return "archive.csv" if self.shard is None else "archive-{}-of-{}.csv".format(*self.shard)


def restore_archive(archive: Archive, job: Job, spread: Spread | None = None, on_row: OnRow | None = None) -> Counts:
    """Restore the scans of an archive into the folder ``job.out``; what an earlier run restored is kept.

    on_row: called with the table's row of each scan as it ends. Returns the number of rows by status. A script that
    uses several workers keeps its lines under ``if __name__ == "__main__":``, since each of them imports it. Raises
    UserError for what the user can mend, as a model that cannot be read, a full disk or a folder of something else; a
    scan that cannot be restored is in the table, and the others go on.
    """
    spread = spread or Spread()
    _refuse_folder(job.out)
    if job.reports is not None:
        check_report_place(job.reports, force=True)
    if (how := deidentification(job.deidentify)) and how.random:
        expected = "a secret in `deidentify_key`, so that all runs and workers give a patient one ID"
        raise UserError(field="deidentify", found="random patient IDs for an archive", expected=expected)
    job = replace(job, out=job.out.absolute(), reports=_absolute(job.reports))
    job = replace(job, model=_absolute(job.model), config=_absolute(job.config))
    series = [replace(one, files=tuple(file.absolute() for file in one.files)) for one in archive.series]
    series = [replace(one, dataset=_absolute(one.dataset)) for one in series]
    counts = Counts()
    with sole_writer(job.out / spread.table, "denoise"):
        if spread.scheduler is None:
            model_of(job if spread.workers == 1 else replace(job, device="cpu", precision="auto"))
        table = Table(job.out / spread.table)
        if archive.dataset is not None:
            bids.begin_derivative(archive.dataset, job.out)
        with _rows(archive, series, job, spread) as rows:
            for row in rows:
                table.add(row)
                counts[row.status] += 1
                if on_row is not None:
                    on_row(row)
        table.tidy()
    return counts


@contextmanager
def _rows(archive: Archive, series: list[Series], job: Job, spread: Spread) -> Iterator[Iterator[Row]]:
    """The rows of an archive's part: of the scans, and then what is known of the rest."""

    def rows(restored: Iterator[Row]) -> Iterator[Row]:
        yield from archive.problems
        yield from restored

    if spread.scheduler is not None:
        with cluster_at(spread.scheduler) as client:
            yield rows(over_workers(client, job, series))
    elif spread.workers > 1 and len(series) > 1:
        with local_cluster(job, min(spread.workers, len(series))) as (client, shared):
            yield rows(over_workers(client, shared, series, STARTS_IN))
    else:
        yield rows(in_turn(job, series))


def _refuse_folder(out: Path) -> None:
    """Raise UserError for outputs in a folder that holds something else than restored scans."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder for the restored scans")
    if not out.exists() and format_of_ending(out) is not None:
        raise UserError(f"{out}: is named as one file, expected a folder for the restored scans")
    held = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else []
    if held and not any(is_table(path) for path in out.glob("archive*.csv")):
        raise UserError(
            f"{out}: holds {held[0]} and no table of restored scans, expected a new folder, or one to go on with"
        )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
