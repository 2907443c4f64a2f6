"""Plateau: whether accuracies measured epoch after epoch have stopped to rise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

WINDOW = 10
"""Epochs looked at."""
LEAST_RISE = 0.01
"""Over the window, as a fraction of the images: a rise of less is none."""
_CONFIDENCE = 0.95


def are_flat(accuracies: Sequence[Sequence[float]]) -> bool:
    """Whether every one of these curves, a row of `WINDOW` accuracies each, has stopped to rise.

    Flat is a curve of which a rise by `LEAST_RISE` over the window can be excluded: the upper end of the
    one-sided 95 % interval of its slope, by least squares, is below. An accuracy moves from epoch to epoch by
    more than its images explain, and the same images serve each time: so the scatter is read off the curve,
    and where it is large nothing is excluded and nothing is called flat.
    """
    rows = np.asarray(accuracies, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != WINDOW:
        raise ValueError(f"curves of shape {rows.shape} are not rows of {WINDOW} accuracies")
    epochs = np.arange(WINDOW) - (WINDOW - 1) / 2
    spread = float(epochs @ epochs)
    slopes = rows @ epochs / spread
    residuals = rows - rows.mean(axis=1, keepdims=True) - slopes[:, None] * epochs
    errors = np.sqrt((residuals**2).sum(axis=1) / (WINDOW - 2) / spread)
    upper = slopes + float(stdtrit(WINDOW - 2, _CONFIDENCE)) * errors
    return bool((upper * (WINDOW - 1) < LEAST_RISE).all())
