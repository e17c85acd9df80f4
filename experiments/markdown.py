"""Print the tables of a finished study in Markdown: python experiments/markdown.py STUDY [REGION ...]"""

from __future__ import annotations

import sys
from pathlib import Path

from cdm4mi.evaluation.benchmark.record import Record
from cdm4mi.evaluation.metrics import shown
from cdm4mi.evaluation.protocol import ProtocolRecord
from cdm4mi.evaluation.report.tables import stamp


def table(record: Record, protocol: ProtocolRecord, region: str) -> None:
    """Methods by levels, means over the patients, and the spectrum's distance at the levels."""
    metrics = [*protocol.main_metrics, "spectrum"]
    studies = [by[protocol.label] for by in record.scores]
    print(f"\n### {region}\n\n{' / '.join(map(studies[0].title, metrics))}. {stamp(record, protocol)}\n")
    heads = ["method", *(level.short for level in record.levels), "network calls", "s a slice"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for method in record.methods:
        cells = [" / ".join(shown(study.mean(method, region, m).value, m) for m in metrics) for study in studies]
        seconds = [level.seconds[method] for level in record.levels]
        calls = record.levels[0].calls[method] or "-"
        print(f"| {method} | {' | '.join(cells)} | {calls} | {sum(seconds) / len(seconds):.2f} |")


def main() -> None:
    record = Record(Path(sys.argv[1]))
    for protocol in record.study.protocols:
        for region in sys.argv[2:] or protocol.regions:
            table(record, protocol, region)


if __name__ == "__main__":
    main()
