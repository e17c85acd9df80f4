"""Keeps the libraries' warnings of odd files off the terminal; what matters is in ``Volume.warnings`` or the error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block no library warns.

    ``warnings.catch_warnings`` is the process's, for as long as the block lasts: pydicom has no other switch that is
    not (its validation mode is the process's too), and its warnings quote the values of a header, which are patient
    data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
