"""Judging: metrics with a stated range, classical baselines, comparison of scans, pictures."""
