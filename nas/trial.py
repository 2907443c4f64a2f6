"""What was measured: an evaluation of one network, with its interval."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from nas.architecture import Architecture


class Split(StrEnum):
    """Which images an accuracy was measured on. The test split is touched once, for chosen networks."""

    VAL = "val"
    TEST = "test"


class Provenance(StrEnum):
    """What a figure is. None is shown as what it is not."""

    MEASURED = "measured"
    """Found by running the network on images; it has a split, their number and an interval."""
    COUNTED = "counted"
    """Read off the layers; exact."""
    PREDICTED = "predicted"
    """Said by a model that learned from others; it names the model, and its error where it is known."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One network measured with a supernet's weights and its own recalibrated statistics."""

    architecture: Architecture
    checkpoint: str
    """SHA-256 of the supernet's weights."""
    split: Split
    num_images: int
    calibration: str
    """Which training images gave the batch-norm statistics, and in what batches.

    Where a published network's figures are its own and not the search's, also which statistics.
    """
    num_correct: int
    per_class_correct: tuple[int, ...]
    per_class_images: tuple[int, ...]
    correct_bitmap: bytes
    """One bit an image in split order, most significant first: two networks are compared image by image."""
    duration_s: float

    @property
    def accuracy(self) -> float:
        """Fraction of images classified rightly, 0 to 1."""
        return self.num_correct / self.num_images


def wilson_interval(
    num_correct: int, num_images: int, *, z: float = 1.959963984540054
) -> tuple[float, float]:
    """The 95 % interval (by default) of a proportion, as (low, high) fractions.

    Source: Wilson, JASA 22 (1927) 209-212; the score interval without continuity correction.
    """
    if not 0 <= num_correct <= num_images or num_images == 0:
        raise ValueError(f"{num_correct} correct of {num_images} images is no proportion")
    share = num_correct / num_images
    shrink = 1 + z * z / num_images
    centre = (share + z * z / (2 * num_images)) / shrink
    half = z * sqrt(share * (1 - share) / num_images + z * z / (4 * num_images**2)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def least_rival(num_correct: int, num_images: int) -> int:
    """The fewest right images with which a network may be as good: the two 95 % intervals meet."""
    low, _ = wilson_interval(num_correct, num_images)
    return bisect_left(range(num_correct), low, key=lambda count: wilson_interval(count, num_images)[1])
