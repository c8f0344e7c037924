"""Parts of work in several threads: their order, their number at once, their errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from marketing_assets.parallel import in_threads


def test_results_come_in_the_order_of_the_parts_whichever_is_ready_first() -> None:
    def work(part: int) -> int:
        time.sleep(0.02 if part % 3 == 0 else 0.0)
        return part * part

    assert list(in_threads(work, range(10), 3)) == [part * part for part in range(10)]
    assert list(in_threads(work, [], 2)) == []


def test_parts_are_taken_as_they_are_needed_by_the_caller_and_worked_at_together() -> None:
    """A year's panels at once would not fit in memory; the warehouse is read by one thread only."""
    caller, taken, done = threading.current_thread(), [], []
    both = threading.Barrier(2, timeout=10)

    def parts() -> Iterator[int]:
        for part in range(8):
            assert threading.current_thread() is caller
            assert part - len(done) <= 3
            taken.append(part)
            yield part

    def work(part: int) -> int:
        both.wait()  # two parts have to be under way, or this breaks
        return part

    for result in in_threads(work, parts(), 2):
        done.append(result)
    assert taken == done == list(range(8))


def test_an_error_is_raised_where_its_result_was_due() -> None:
    def work(part: int) -> int:
        if part == 2:
            raise ValueError("two")
        return part

    found = []
    with pytest.raises(ValueError, match="two"):
        for result in in_threads(work, range(5), 2):
            found.append(result)
    assert found == [0, 1]
