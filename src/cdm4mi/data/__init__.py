"""Scans become pairs of clean patch and degraded condition, split by patient."""
