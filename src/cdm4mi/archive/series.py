"""What an archive holds: its scans, each with the files that it is read from and the name of its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cdm4mi import io
from cdm4mi.archive.table import Row
from cdm4mi.errors import UserError
from cdm4mi.io.folders import Unlisted


@dataclass(frozen=True)
class Series:
    """One scan of an archive.

    source: the path by which the user knows it; target: of its output, below OUT; files: that it is read from; number:
    which of their scans, where they hold several; one_file: whether it is the scan of a file, not of a folder's files;
    dataset: the root of the BIDS dataset that it belongs to.
    """

    source: str
    target: str
    files: tuple[Path, ...]
    number: int | None = None
    one_file: bool = True
    dataset: Path | None = None

    def read(self) -> io.Volume:
        """The scan itself. Raises UserError."""
        listing = io.list_scans(self.files[0]) if self.one_file else io.sort_files(self.files)
        return listing.choose(Path(self.source).name, self.number).load()


def unlisted(folders: Iterable[Unlisted]) -> list[Row]:
    """A row for each folder that cannot be looked into."""
    return [Row(str(error.folder), "", "failed", error.why) for error in folders]


@dataclass
class Archive:
    """The scans of an archive in the order of their paths.

    problems: a row for each file that looks like a scan and is none, or is passed over; others: counts of files that
    are no scans, by kind; dataset: the root of a BIDS dataset.
    """

    series: list[Series] = field(default_factory=list)
    problems: list[Row] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    dataset: Path | None = None

    def shard(self, number: int, count: int) -> Archive:
        """Part ``number`` (from 1) of ``count`` disjoint parts, which together are the whole."""
        series, problems = self.series[number - 1 :: count], self.problems[number - 1 :: count]
        return replace(self, series=series, problems=problems)

    def refuse_place(self, root: Path, out: Path) -> None:
        """Raise UserError where outputs in ``out`` would lie among the scans below ``root``, or over them."""
        place, inputs = out.resolve(), root.resolve()
        within = inputs == place or inputs in place.parents
        if self.dataset is not None:
            within = within and inputs / "derivatives" not in place.parents
        if within or any(place in file.resolve().parents for one in self.series for file in one.files):
            also = ", or one in derivatives/ of the dataset" if self.dataset is not None else ""
            raise UserError(f"{out}: lies among the scans that are to be read, expected a folder apart from them{also}")
