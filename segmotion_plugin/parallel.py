"""Work on frames side by side, with results in order and few of them waiting."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 2
"""Frames that are worked on at a time."""

_SWITCH = 0.0005  # seconds after which a thread that is busy with Python lets another go on, if one waits; 0.005 by default


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
    """Within, torch, OpenCV and linear algebra compute each operation with one thread.

    Frames side by side are faster than threads within a frame, and sums are the same on every machine.
    """
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    before, opencv, interval = torch.get_num_threads(), cv2.getNumThreads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # What comes back from a long operation should not wait for a thread that is busy with Python.
    sys.setswitchinterval(_SWITCH)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        sys.setswitchinterval(interval)
        cv2.setNumThreads(opencv)
        torch.set_num_threads(before)
