"""Randomness as a pure function of (seed, stream, step, index).

Nothing is drawn from a generator that lives on: ranks agree without talking, and a run resumed at any
step draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Keeps draws for different purposes apart. Data order, augmentation and held-out images use 0 to 2."""

    PATH = 16
    DROPOUT = 17
    PROBE = 18
    RESOLUTION = 20
    DATA_ORDER = 24
    BUDGET_TABLES = 25
    GENERATOR_WEIGHTS = 40
    BIN = 41
    GENERATOR_NOISE = 42
    PRACTICE = 43
    BIN_UPDATE = 44


def generator_for(seed: int, stream: Stream, step: int, index: int) -> np.random.Generator:
    """A fresh generator; `index` tells draws of one step apart, such as slots or ranks."""
    return np.random.default_rng([seed, stream, step, index])


@contextmanager
def torch_seeded(seed: int, stream: Stream, step: int, index: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators start from this draw's seed; outside they are left as they were."""
    state = np.random.SeedSequence([seed, stream, step, index]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(state[0]))
        yield
