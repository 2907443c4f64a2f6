"""How far predicted latencies are from measured ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nas.devices.parts import Floats
from nas.errors import InvalidRequestError

HIT = 0.10
"""A prediction within this part of the measured time is a hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of a latency model, on networks that it was not fitted to."""

    num_networks: int
    mape: float
    """Mean of |predicted - measured| / measured, as a fraction."""
    hit_rate: float
    """Part of the networks whose prediction is within 10 % of the measured time."""
    spearman: float
    """Rank correlation of predicted and measured times; NaN where either is all the same."""

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)


def compare(predicted_ms: Floats, measured_ms: Floats) -> Accuracy:
    """The accuracy of predictions, both of shape (n,), n at least 2."""
    if len(predicted_ms) != len(measured_ms) or len(measured_ms) < 2:
        raise InvalidRequestError(
            f"{len(predicted_ms)} predictions and {len(measured_ms)} measurements cannot be compared; "
            "give one of each for two networks at least"
        )
    error = relative_error(predicted_ms, measured_ms)
    is_flat = np.ptp(predicted_ms) == 0 or np.ptp(measured_ms) == 0
    return Accuracy(
        num_networks=len(error),
        mape=float(error.mean()),
        hit_rate=float((error <= HIT).mean()),
        spearman=float("nan") if is_flat else float(spearmanr(predicted_ms, measured_ms).statistic),
    )


def relative_error(predicted_ms: Floats, measured_ms: Floats) -> Floats:
    """|predicted - measured| / measured, shape (n,)."""
    return np.asarray(np.abs(predicted_ms / measured_ms - 1.0))
