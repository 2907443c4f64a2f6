"""How long a batch from outside takes, from the request to its results: what an ask-and-tell loop waits for.

The service must run (`nas serve`). With NAS_KEEP_EVALUATORS_S=0 in its environment, no pool stays open.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from nas.architecture import Architecture
from nas.client import Client, Supernet
from search_spaces import SPACES

_SPACE = SPACES["micro_8"]


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """One batch; all times in seconds."""

    total_s: float
    """From before the request until the results are read."""
    queued_s: float
    """Until a worker took it up."""
    run_s: float
    """In the worker."""


def main(arguments: Sequence[str]) -> None:
    """Train a small supernet, send it batches one after the other, and print a line a size."""
    parser = argparse.ArgumentParser(prog="bench outside")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    networks = _distinct(1 + options.rounds * sum(options.sizes))
    with Client(options.url) as client:
        supernet = _trained(client)
        first = _send(supernet, [networks.pop()])
        print(f"the first batch, of 1: {_told([first])}")
        for size in options.sizes:
            new = [_send(supernet, [networks.pop() for _ in range(size)]) for _ in range(options.rounds)]
            print(f"batches of {size}: {_told(new)}")
        known = [_send(supernet, [_SPACE.canonical(_SPACE.smallest())]) for _ in range(options.rounds)]
        print(f"batches of 1 that is measured already: {_told(known[1:])}")


def _trained(client: Client) -> Supernet:
    images = client.datasets.create({"kind": "bundled", "name": "digits"})
    recipe = {"epochs": 1, "batch_size": 256}
    return client.supernets.create(images.id, _SPACE.name, recipe=recipe, num_probes=0).wait()


def _distinct(count: int) -> list[Architecture]:
    rng, found = np.random.default_rng(0), set[Architecture]()
    while len(found) < count:
        found.add(_SPACE.canonical(_SPACE.sample(rng)))
    return sorted(found, key=lambda architecture: architecture.key)


def _send(supernet: Supernet, networks: Sequence[Architecture]) -> RoundTrip:
    begin = time.perf_counter()
    batch = supernet.evaluate([network.to_json() for network in networks])
    results = batch.results()
    total_s = time.perf_counter() - begin
    assert all(network.is_measured for network in results)
    created, started, ended = (
        datetime.fromisoformat(batch.refresh()[f"{name}_at"]) for name in ("created", "started", "ended")
    )
    return RoundTrip(
        total_s=total_s,
        queued_s=(started - created).total_seconds(),
        run_s=(ended - started).total_seconds(),
    )


def _told(trips: Sequence[RoundTrip]) -> str:
    totals = sorted(trip.total_s for trip in trips)
    queued = statistics.median(trip.queued_s for trip in trips)
    run = statistics.median(trip.run_s for trip in trips)
    return (
        f"{statistics.median(totals):.2f} s (min {totals[0]:.2f}, max {totals[-1]:.2f}, n = {len(totals)}); "
        f"{queued:.2f} s until a worker took it up, {run:.2f} s in the worker"
    )
