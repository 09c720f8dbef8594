"""Frames are worked on side by side, and nobody can tell from the results."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from segmotion_plugin.parallel import THREADS, in_order, one_thread_each


def test_results_keep_the_order_of_the_items() -> None:
    def slow_when_even(item: int) -> int:
        time.sleep(0.003 * (item % 2 == 0))
        return item * item

    assert list(in_order(slow_when_even, range(12))) == [i * i for i in range(12)]
    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(slow_when_even, range(5), pool)) == [0, 1, 4, 9, 16]
        assert pool.submit(lambda: 7).result() == 7  # a pool that was given stays open
    assert list(in_order(slow_when_even, [])) == []


def test_few_items_are_taken_before_their_turn() -> None:
    taken: list[int] = []

    def items() -> object:
        for item in range(20):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items())
    assert next(results) == 0 and len(taken) <= THREADS + 1
    results.close()
    assert len(taken) <= THREADS + 1


def test_an_error_reaches_the_caller_and_threads_end() -> None:
    before = threading.active_count()

    def fails(item: int) -> int:
        if item == 3:
            raise ValueError("the third")
        return item

    with pytest.raises(ValueError, match="the third"):
        list(in_order(fails, range(10)))
    assert threading.active_count() == before


def test_torch_gets_its_threads_back_and_python_its_interval() -> None:
    before, interval = torch.get_num_threads(), sys.getswitchinterval()
    with one_thread_each():
        assert torch.get_num_threads() == 1
        assert sys.getswitchinterval() < interval
    assert torch.get_num_threads() == before
    assert sys.getswitchinterval() == interval
