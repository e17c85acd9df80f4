"""Checks of training data, one file for each kind of mistake; ``run`` makes all of them."""
