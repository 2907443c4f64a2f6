"""The Pareto front of a million points, or of as many as wished: of real costs, and of points made up."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np

from bench.best import NUM_CLASSES, NUM_VAL, _codes, _num_correct
from nas.costs import COST_NAMES, batch_costs
from nas.pareto import pareto_front
from search_spaces import SPACES

OBJECTIVES = (
    ("accuracy", "macs"),
    ("accuracy", "macs", "params"),
    ("latency", "macs", "params", "accuracy"),
    ("accuracy", *COST_NAMES),
    ("accuracy", *COST_NAMES, "latency"),
)
SPREADS = (0.1, 0.01, 0.0)
"""How far sums of objectives differ, as a share of the least; with 0 every point is on the front."""


def main(arguments: Sequence[str]) -> None:
    """The front's size and processor seconds, median of five and the range."""
    parser = argparse.ArgumentParser(prog="bench pareto")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--space", default="micro", choices=SPACES)
    parser.add_argument(
        "--trade-offs",
        action="store_true",
        help="also points better in one objective only by another: minutes",
    )
    options = parser.parse_args(arguments)
    figures = _figures(options.space, options.points)
    for names in OBJECTIVES:
        _measure(", ".join(names), np.column_stack([figures[name] for name in names]))
    for num_objectives in (2, 3, 4, 5):
        _measure(
            f"{num_objectives} uniform", np.random.default_rng(5).random((options.points, num_objectives))
        )
    if options.trade_offs:
        for name, values in _trade_offs(options.points):
            _measure(name, values, repeats=1)


def _figures(space: str, num: int) -> dict[str, np.ndarray]:
    """Real costs of random networks; accuracy, turned to be minimised, and latency made up from them."""
    codes = _codes(SPACES[space], num)
    costs = batch_costs(SPACES[space], codes, num_classes=NUM_CLASSES, in_channels=3)
    noise = np.random.default_rng(2).normal(size=num)
    return {
        "accuracy": -_num_correct(costs) / NUM_VAL,
        "latency": 0.01 + 2e-7 * costs["macs"] * (1 + 0.05 * noise),
        **costs,
    }


def _trade_offs(num: int) -> Iterator[tuple[str, np.ndarray]]:
    """Points of almost the same sum; a tenth as many where a million would take minutes."""
    for num_objectives in (3, 4, 5):
        for spread in SPREADS:
            count = num if num_objectives == 3 or spread == max(SPREADS) else num // 10
            rng = np.random.default_rng(5)
            values = rng.random((count, num_objectives))
            values *= ((1 + spread * rng.random(count)) / values.sum(axis=1))[:, None]
            yield f"{num_objectives} whose sums differ by {spread:.0%}, {count:,} points", values


def _measure(name: str, values: np.ndarray, *, repeats: int = 5) -> None:
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        front = pareto_front(values)
        taken.append(time.process_time() - started)
    print(
        f"{name}: {statistics.median(taken):.3f} s of the processor "
        f"({min(taken):.3f} to {max(taken):.3f}), {len(front)} on the front",
        flush=True,
    )
