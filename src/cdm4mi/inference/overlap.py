"""Three steps of a line of work at the same time: one item ahead is prepared while the last ones are put away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Made = TypeVar("Made")
BEHIND = 2
"""Items that wait at most to be put away."""


def overlapped(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    work: Callable[[Prepared], Made],
    finish: Callable[[Prepared, Made], None],
) -> None:
    """Call ``finish(p, work(p))`` for p = ``prepare(item)`` of each item in order.

    ``work`` runs in the calling thread, ``prepare`` in a thread of its own one item ahead of it, and ``finish`` in
    another behind it. What one of them raises is raised here.
    """
    following = iter(items)
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:

        def next_one() -> Future[Prepared] | None:
            for item in following:
                return ahead.submit(prepare, item)
            return None

        ready = next_one()
        while ready is not None:
            prepared, ready = ready.result(), next_one()
            made = work(prepared)
            if len(waiting) == BEHIND:
                waiting.popleft().result()
            waiting.append(behind.submit(finish, prepared, made))
        for future in waiting:
            future.result()
