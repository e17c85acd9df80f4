"""Measuring and showing images: metrics with a stated range, the noise level, pictures."""
