"""Report: a finished study as one HTML file that needs no network, and its tables as CSV and LaTeX."""

from cdm4mi.evaluation.report.write import write_report

__all__ = ["write_report"]
