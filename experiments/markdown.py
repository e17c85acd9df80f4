"""Print the tables of a finished study in Markdown: python experiments/markdown.py STUDY [REGION ...]"""

from __future__ import annotations

import sys
from pathlib import Path

from cdm4mi.evaluation.report.record import Record
from cdm4mi.evaluation.report.tables import stamp

DIGITS = {"psnr": ".2f", "mae": ".4f", "spectrum": ".2f"}
SHOWN = {"psnr": "PSNR (dB)", "ssim_gaussian": "SSIM (Gaussian 11 x 11)", "mae": "MAE"}
SHOWN |= {"spectrum": "spectrum distance (dB)"}


def table(record: Record, protocol: dict, region: str) -> None:
    """Methods by levels, means over the patients, and the spectrum's distance at the levels."""
    metrics = [*protocol["main_metrics"], "spectrum"]
    print(f"\n### {region}\n\n{' / '.join(SHOWN.get(m, m) for m in metrics)}. {stamp(record, protocol)}\n")
    heads = ["method", *(level["short"] for level in record.levels), "network calls", "s a slice"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for method in record.methods:
        cells = []
        for level in range(len(record.levels)):
            means = [record.mean(level, protocol["label"], method, region, m).value for m in metrics]
            cells.append(" / ".join(format(v, DIGITS.get(m, ".3f")) for v, m in zip(means, metrics, strict=True)))
        seconds = [level["seconds"][method] for level in record.levels]
        calls = record.levels[0]["calls"][method] or "-"
        print(f"| {method} | {' | '.join(cells)} | {calls} | {sum(seconds) / len(seconds):.2f} |")


def main() -> None:
    record = Record(Path(sys.argv[1]))
    for protocol in record.protocols:
        for region in sys.argv[2:] or protocol["regions"]:
            table(record, protocol, region)


if __name__ == "__main__":
    main()
