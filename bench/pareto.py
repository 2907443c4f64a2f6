"""The Pareto front of a million points."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from nas.pareto import pareto_front

NUM_POINTS = 1_000_000


def main(arguments: Sequence[str]) -> None:
    """Seconds for uniform points with two, three and four objectives; median of five, and the range."""
    del arguments
    for num_objectives in (2, 3, 4):
        values = np.random.default_rng(5).random((NUM_POINTS, num_objectives))
        taken = sorted(_seconds(values) for _ in range(5))
        front = len(pareto_front(values))
        print(
            f"{num_objectives} objectives: {statistics.median(taken):.3f} s "
            f"({taken[0]:.3f} to {taken[-1]:.3f}), {front} on the front"
        )


def _seconds(values: np.ndarray) -> float:
    started = time.perf_counter()
    pareto_front(values)
    return time.perf_counter() - started
