"""How well a search predicted what it then measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from nas.pareto import Floats, Indices
from nas.search.rounds import ForecastReport, Origin, SearchTrial

_NUM_BINS = 3
_LEAST_JUDGED = 10
"""Of fewer networks than this nothing is said: nine in ten of them is no number."""


def is_forecast(trial: SearchTrial[Any]) -> bool:
    """Whether the proposer chose the network, and said within which interval its accuracy would lie."""
    prediction = trial.prediction
    return trial.origin is Origin.PROPOSED and prediction is not None and prediction.has_interval


def forecast_report(trials: Iterable[SearchTrial[Any]], cost: str) -> ForecastReport | None:
    """Of the networks proposed, in bins of this cost; None where nothing was predicted with an interval.

    Within bins, because over a wide range of costs the cost alone ranks networks well.
    """
    judged = [(trial, trial.prediction) for trial in trials if is_forecast(trial) and trial.prediction]
    if not judged:
        return None
    predicted, measured, costs = np.array(
        [(p.accuracy, t.measurement.accuracy, t.costs[cost]) for t, p in judged], dtype=np.float64
    ).T
    taus = _taus(predicted, measured, equal_bins(costs, _NUM_BINS))
    num_ranked = sum(count for _, count in taus)
    held = [prediction.holds(trial.measurement.accuracy) for trial, prediction in judged]
    return ForecastReport(
        num_selected=len(judged),
        coverage=float(np.mean(held)) if len(judged) >= _LEAST_JUDGED else None,
        num_ranked=num_ranked,
        within_bin_tau=_mean_tau(taus) if num_ranked >= _LEAST_JUDGED else None,
    )


def equal_bins(costs: Floats, num_bins: int) -> Indices:
    """For each network the bin of its cost, shape (n,): bins of as equal numbers as can be."""
    ranks = np.argsort(np.argsort(costs, kind="stable"), kind="stable")
    return np.asarray(ranks * num_bins // max(1, len(costs)))


def within_bins(predicted: Floats, measured: Floats, bins: Indices) -> float:
    """Kendall's tau-b among the networks of a bin, the plain mean over bins; NaN where no bin has one."""
    return _mean_tau(_taus(predicted, measured, bins))


def _taus(predicted: Floats, measured: Floats, bins: Indices) -> list[tuple[float, int]]:
    """Of each bin that has one, Kendall's tau-b and of how many networks it is."""
    found = [
        (_tau(predicted[bins == b], measured[bins == b]), int((bins == b).sum())) for b in np.unique(bins)
    ]
    return [(tau, count) for tau, count in found if np.isfinite(tau)]


def _mean_tau(taus: list[tuple[float, int]]) -> float:
    return float(np.mean([tau for tau, _ in taus])) if taus else float("nan")


def _tau(predicted: Floats, measured: Floats) -> float:
    # A predictor that calls all equal ranks nothing; of measurements all equal there is nothing to rank.
    if len(measured) < 2 or np.ptp(measured) == 0:
        return float("nan")
    return float(kendalltau(predicted, measured).statistic) if np.ptp(predicted) > 0 else 0.0
