"""Paired timing: two ways in turn, so that a machine whose speed drifts slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from supernet.device import CPU


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Times of two ways, and their ratio pair by pair."""

    ours_s: list[float]
    reference_s: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times longer the reference takes, each pair."""
        return [r / o for o, r in zip(self.ours_s, self.reference_s, strict=True)]

    def line(self, what: str) -> str:
        """One line for a results page."""
        ratios = sorted(self.ratios)
        return (
            f"{what}: ours {1000 * statistics.median(self.ours_s):.1f} ms, reference "
            f"{1000 * statistics.median(self.reference_s):.1f} ms, ratio {statistics.median(ratios):.2f} "
            f"(min {ratios[0]:.2f}, max {ratios[-1]:.2f}, {len(ratios)} pairs)"
        )


def time_paired(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    pairs: int = 7,
    device: torch.device = CPU,
    clock: Callable[[], float] | None = None,
) -> Paired:
    """Both once to warm up, then in turn. By `clock`, or in CPU seconds, or until a CUDA device is done."""
    if clock is None:
        clock = _cuda_clock if device.type == "cuda" else time.process_time
    ours()
    reference()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for way, taken in zip((ours, reference), times, strict=True):
            started = clock()
            way()
            taken.append(clock() - started)
    return Paired(ours_s=times[0], reference_s=times[1])


def _cuda_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
