"""Batches made one ahead, in a thread of their own: a GPU trains on one while the next is prepared for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class MadeAhead:
    """What ``make`` makes of each of ``batches``, in their order; an error comes up where its batch would.

    While one is used the next is made. On a GPU both give their work to the device's one stream, in which it keeps the
    order in which it was given; most of the backward pass leaves Python's lock to the thread.
    """

    def __init__(self, batches: Iterable[Any], make: Callable[[Any], Any]) -> None:
        self.batches, self.make = batches, make

    def __iter__(self) -> Iterator[Any]:
        batches, end = iter(self.batches), object()

        def make_next() -> Any:
            batch = next(batches, end)
            return end if batch is end else self.make(batch)

        with ThreadPoolExecutor(1, thread_name_prefix="pairs") as thread:
            made = thread.submit(make_next)
            while (now := made.result()) is not end:
                made = thread.submit(make_next)
                yield now
