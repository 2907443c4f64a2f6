"""The Pareto front of a million points, or of as many as wished."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from nas.pareto import pareto_front


def main(arguments: Sequence[str]) -> None:
    """Seconds for uniform points with two, three and four objectives; median of five, and the range."""
    parser = argparse.ArgumentParser(prog="bench pareto")
    parser.add_argument("--points", type=int, default=1_000_000)
    num_points = parser.parse_args(arguments).points
    for num_objectives in (2, 3, 4):
        values = np.random.default_rng(5).random((num_points, num_objectives))
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
