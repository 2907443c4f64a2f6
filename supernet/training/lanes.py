"""Lanes: networks of a step computed side by side, each by threads of its own.

The layers of small networks are too small to be shared out among threads, which wait for one another
after each of them. Whole networks have to wait only at the end of the step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


class Lanes:
    """Runs pieces of work on so many threads, among which torch's own are divided.

    A piece is always computed by the same number of torch's threads, whichever lane it falls to, so that it
    comes to the same bits each time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._num_threads = 0

    def run(self, work: Sequence[Callable[[], T]]) -> Iterator[T]:
        """The results, in order. Taken up in that order too, so the longest had better come first.

        What a piece raises is raised in its place, once none is running any more.
        """
        if self.count == 1 or len(work) == 1:
            yield from (piece() for piece in work)
            return
        pool = self._ready_pool()
        futures = [pool.submit(piece) for piece in work]
        try:
            for future in futures:
                yield future.result()
        finally:
            wait(futures)

    def _ready_pool(self) -> ThreadPoolExecutor:
        num_threads = torch.get_num_threads()
        if self._pool is None or num_threads != self._num_threads:
            self._pool = _pool(self.count, max(1, num_threads // self.count))
            self._num_threads = num_threads
            # The lanes have set torch's default for threads to come along with their own.
            torch.set_num_threads(num_threads)
        return self._pool


def _pool(count: int, threads_each: int) -> ThreadPoolExecutor:
    """A pool whose threads are all there and have set how many of torch's each one uses."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="lane")
    everyone = threading.Barrier(count)

    def prepare() -> None:
        torch.set_num_threads(threads_each)
        # A thread takes torch's default when it first asks: now, while that is what was just set.
        torch.get_num_threads()
        everyone.wait()

    wait([pool.submit(prepare) for _ in range(count)])
    return pool
