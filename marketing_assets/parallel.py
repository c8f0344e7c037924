"""Work that falls into independent parts, done by several threads at once.

What belongs here: the one function that maps work over parts. What does not: any work, and parts that need one another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_threads(work: Callable[[Part], Result], parts: Iterable[Part], threads: int) -> Iterator[Result]:
    """`work` of each part, in their order.

    Parts are taken by the caller's thread, one more than there are threads at most, so that what they hold fits in memory; an
    error of `work` is raised where its result was due. Only work that gives up Python's lock gains by it: large arrays and frames.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            waiting.append(pool.submit(work, part))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
