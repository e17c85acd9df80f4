"""Benchmark: every method over every noise level on the same test patients, in a run that can be stopped anywhere."""
