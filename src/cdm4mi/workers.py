"""Worker processes that end when the process that started them ends, killed or not.

This module imports nothing slow: a worker of a pool has that behind it before it imports what it works with.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Make this process, started by ``multiprocessing``, end at once when its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def end() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def start_worker() -> None:
    """Initialise a worker of a pool: it ignores Ctrl-C, which the parent handles, logs nothing, and ends with it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # of the libraries that read: what matters is in the outcome
