"""Two training threads under three ways for OpenMP to wait: alone, and beside one busy process.

A thread that waits by spinning is quick to go on, and keeps from work whoever shares its core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from bench.step import BATCH_SIZE, sandwich
from search_spaces import SPACES
from supernet.network import Supernet
from supernet.training import tune_malloc

WAYS = {"libgomp's default": None, "brief, as nas serve sets it": "5000", "none": "0"}
"""Values of GOMP_SPINCOUNT."""


def main(arguments: Sequence[str]) -> None:
    """Images a second (wall clock, `micro`), the ways in turn; the median of the rounds, and their range."""
    parser = argparse.ArgumentParser(prog="bench spinning")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--measure", action="store_true", help="print the speed of this process alone")
    options = parser.parse_args(arguments)
    if options.measure:
        print(_images_per_second(options.steps))
        return
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for way, spin_count in WAYS.items():
            speeds.setdefault((way, "alone"), []).append(_speed_of_child(spin_count, options.steps))
            with _busy_process():
                speeds.setdefault((way, "beside a busy process"), []).append(
                    _speed_of_child(spin_count, options.steps)
                )
    for (way, company), found in speeds.items():
        low, high = min(found), max(found)
        print(f"spinning {way}, {company}: {statistics.median(found):.0f} images/s ({low:.0f} to {high:.0f})")


def _speed_of_child(spin_count: str | None, steps: int) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if spin_count is not None:
        environment["GOMP_SPINCOUNT"] = spin_count
    command = [sys.executable, "-m", "bench", "spinning", "--measure", "--steps", str(steps)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _images_per_second(steps: int) -> float:
    tune_malloc()
    torch.set_num_threads(2)
    space = SPACES["micro"]
    rng = np.random.default_rng(0)
    networks = [space.largest(), space.sample(rng), space.sample(rng), space.smallest()]
    net = Supernet(space, num_classes=10).train()
    images = torch.randn(BATCH_SIZE, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH_SIZE,))
    for _ in range(3):
        sandwich(net, images, labels, networks)
    started = time.perf_counter()
    for _ in range(steps):
        sandwich(net, images, labels, networks)
    return steps * BATCH_SIZE / (time.perf_counter() - started)
