"""How networks that are measured twice in one sitting repeat: the yardstick of models."""

from __future__ import annotations

import numpy as np

from nas.devices.accuracy import HIT, Accuracy, compare, relative_error
from nas.devices.fitting import MeasuredNetworks
from nas.devices.parts import Floats


def accuracy_of_repeat(first: MeasuredNetworks, again: MeasuredNetworks) -> Accuracy | None:
    """How far the second times are from the first, on the networks that are in both.

    A model that is no further off is as good as measuring once more. None where fewer than two are in both.
    """
    first_ms, again_ms = _in_both(first, again)
    return compare(again_ms, first_ms) if len(first_ms) > 1 else None


def agreement(first: MeasuredNetworks, again: MeasuredNetworks) -> dict[str, float] | None:
    """The same as a probe tells it of all that it measures; None where nothing is in both."""
    first_ms, again_ms = _in_both(first, again)
    if not len(first_ms):
        return None
    apart = relative_error(again_ms, first_ms)
    return {
        "agreeing": float((apart <= HIT).mean()),
        "median_apart": float(np.median(apart)),
        "num_models": len(apart),
    }


def _in_both(first: MeasuredNetworks, again: MeasuredNetworks) -> tuple[Floats, Floats]:
    """Milliseconds of the same networks."""
    first_ms, again_ms = first.times_ms(), again.times_ms()
    both = [key for key in first_ms if key in again_ms]
    return np.array([first_ms[key] for key in both]), np.array([again_ms[key] for key in both])
