"""Means with their 95 % intervals by Student's t, as results pages tell them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def mean_interval(values: Sequence[float], digits: int = 2) -> str:
    """The mean with its interval; of a single value no interval."""
    mean, reach = _mean_and_reach(np.asarray(values, dtype=float))
    return _told(mean, mean - reach, mean + reach, f"+.{digits}f")


def ratio_interval(ratios: Sequence[float]) -> str:
    """The geometric mean with its interval; of a single ratio no interval."""
    mean, reach = _mean_and_reach(np.log(ratios))
    return _told(np.exp(mean), np.exp(mean - reach), np.exp(mean + reach), ".2f")


def _mean_and_reach(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return float(values.mean()), np.nan
    reach = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(reach)


def _told(mean: float, low: float, high: float, form: str) -> str:
    if np.isnan(low):
        return f"{mean:{form}}"
    return f"{mean:{form}} (95 % {low:{form}} to {high:{form}})"
