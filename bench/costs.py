"""How many encoded architectures `batch_costs` costs in a second."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from nas.costs import batch_costs
from search_spaces import SPACES

REPEATS = 5


def main(arguments: Sequence[str]) -> None:
    """Median architectures a second for macs and params together, and for all four costs."""
    parser = argparse.ArgumentParser(prog="bench costs")
    parser.add_argument("--architectures", type=int, default=1_000_000)
    num_architectures = parser.parse_args(arguments).architectures
    rng = np.random.default_rng(0)
    for name, space in SPACES.items():
        options = [len(decision.options) for decision in space.decisions]
        codes = np.stack([rng.integers(count, size=num_architectures) for count in options], axis=1)
        rates = [_rate(space, codes, names) for names in (("macs", "params"), None)]
        print(f"{name}: macs and params {rates[0] / 1e6:.1f} M/s, all costs {rates[1] / 1e6:.1f} M/s")


def _rate(space, codes, names) -> float:
    wanted = {} if names is None else {"names": names}
    batch_costs(space, codes[:1], **wanted)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        batch_costs(space, codes, **wanted)
        taken.append(time.perf_counter() - started)
    return len(codes) / statistics.median(taken)
