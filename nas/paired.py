"""Two networks measured on the same images: how much more accurate the one is, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

_HALF = 0.5
_Z = 1.959963984540054
"""Of 95 %."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How two networks classify the same images. What one training or another would give is not in it."""

    num_images: int
    num_gained: int
    """Images that the first alone classifies rightly."""
    num_lost: int
    """Images that the second alone does."""

    @property
    def value(self) -> float:
        """Accuracy of the first less that of the second, -1 to 1."""
        return (self.num_gained - self.num_lost) / self.num_images

    @property
    def interval_95(self) -> tuple[float, float]:
        """Of the difference, as (low, high).

        Source: Agresti and Min, Statistics in Medicine 24 (2005) 729-740: Wald's interval for matched
        proportions after half an image is added to each of the four cells.
        """
        gained, lost, count = self.num_gained + _HALF, self.num_lost + _HALF, self.num_images + 4 * _HALF
        centre = (gained - lost) / count
        half = _Z * sqrt(gained + lost - (gained - lost) ** 2 / count) / count
        return max(-1.0, centre - half), min(1.0, centre + half)


def paired_difference(first: bytes, second: bytes, *, num_images: int) -> PairedDifference:
    """The first less the second, from their bitmaps of correct images (`Evaluation.correct_bitmap`)."""
    ones, others = (
        np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), count=num_images).astype(bool)
        for bitmap in (first, second)
    )
    return PairedDifference(
        num_images=num_images,
        num_gained=int((ones & ~others).sum()),
        num_lost=int((others & ~ones).sum()),
    )
