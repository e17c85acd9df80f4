"""Judging: classical baselines, comparison of scans, the demo."""
