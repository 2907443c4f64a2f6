"""How well a search predicted what it then measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from nas.pareto import Floats, Indices
from nas.search.rounds import Origin, SearchTrial

_NUM_BINS = 3


@dataclass(frozen=True, kw_only=True)
class ForecastReport:
    """What became of the predictions made for networks before they were measured."""

    num_selected: int
    """Networks that the proposer chose and whose accuracy it had predicted."""
    coverage: float
    """Fraction of those whose interval held what was measured: nine in ten, if the intervals are right."""
    within_bin_tau: float
    """Kendall's tau of predicted with measured accuracy among networks of like cost; NaN where none are."""


def forecast_report(trials: Iterable[SearchTrial[Any]], cost: str) -> ForecastReport | None:
    """Of the networks proposed, in bins of this cost; None where nothing was predicted with an interval.

    Within bins, because over a wide range of costs the cost alone ranks networks well.
    """
    rows = [
        (trial.prediction.accuracy, trial.measurement.accuracy, trial.costs[cost], trial.prediction)
        for trial in trials
        if trial.origin is Origin.PROPOSED and trial.prediction and np.isfinite(trial.prediction.high)
    ]
    if not rows:
        return None
    predicted, measured, costs = np.array([row[:3] for row in rows], dtype=np.float64).T
    return ForecastReport(
        num_selected=len(rows),
        coverage=float(np.mean([row[3].holds(row[1]) for row in rows])),
        within_bin_tau=within_bins(predicted, measured, equal_bins(costs, _NUM_BINS)),
    )


def equal_bins(costs: Floats, num_bins: int) -> Indices:
    """For each network the bin of its cost, shape (n,): bins of as equal numbers as can be."""
    ranks = np.argsort(np.argsort(costs, kind="stable"), kind="stable")
    return np.asarray(ranks * num_bins // max(1, len(costs)))


def within_bins(predicted: Floats, measured: Floats, bins: Indices) -> float:
    """Kendall's tau-b among the networks of a bin, the plain mean over bins; NaN where no bin has one."""
    taus = [_tau(predicted[bins == b], measured[bins == b]) for b in np.unique(bins)]
    known = [tau for tau in taus if np.isfinite(tau)]
    return float(np.mean(known)) if known else float("nan")


def _tau(predicted: Floats, measured: Floats) -> float:
    # A predictor that calls all equal ranks nothing; of measurements all equal there is nothing to rank.
    if len(measured) < 2 or np.ptp(measured) == 0:
        return float("nan")
    return float(kendalltau(predicted, measured).statistic) if np.ptp(predicted) > 0 else 0.0
