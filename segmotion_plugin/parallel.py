"""Work on frames side by side, with results in order and few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 2
"""Frames that are worked on at a time."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item], pool: ThreadPoolExecutor | None = None) -> Iterator[Result]:
    """Results of `work` for each item, in order; at most `THREADS` items are taken before their turn.

    Args:
        work: called in threads.
        items: taken one at a time.
        pool: threads to use; ones of its own when absent.
    """
    waiting: deque[Future[Result]] = deque()
    own = ThreadPoolExecutor(max_workers=THREADS) if pool is None else pool
    try:
        for item in items:
            waiting.append(own.submit(work, item))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    finally:
        if pool is None:
            own.shutdown(cancel_futures=True)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Within, torch and linear algebra compute each operation with one thread.

    Frames side by side are faster than threads within a frame, and sums are the same on every machine.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
