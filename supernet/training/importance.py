"""Importance sampling: probabilities made of gradient norms, and the weights that undo them.

An estimator g_i / (n p_i) of the mean of n gradients is unbiased whatever the probabilities p, and its
variance is least where p_i is proportional to the norm of g_i (Zhao and Zhang, ICML 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.recipe_choices import WeightingKind


def learned_part(epoch: int, num_epochs: int, limit: float) -> float:
    """λ of PA&DA at the end of an epoch: epoch / num_epochs, from 0 towards 1, and at most `limit`."""
    return min(epoch / num_epochs, limit)


def mixed_probabilities(scores_n: NDArray[np.float64], part: float) -> NDArray[np.float64]:
    """`part` × scores / their sum + (1 - `part`) / n, shape (n,); uniform where every score is 0.

    PA&DA's rule for operations and for images alike.
    """
    uniform = np.full(len(scores_n), 1 / len(scores_n))
    total = scores_n.sum()
    return part * scores_n / total + (1 - part) * uniform if total > 0 else uniform


@dataclass(frozen=True, kw_only=True)
class ImportanceWeights:
    """Factors on losses that make up for draws that were not uniform."""

    kind: WeightingKind
    limit: float
    """Of kind clipped."""

    def of(self, ratios_n: NDArray[np.float64]) -> NDArray[np.float64]:
        """One factor a draw, shape (n,), of its uniform probability over the one that it was drawn by."""
        match self.kind:
            case WeightingKind.NONE:
                return np.ones_like(ratios_n)
            case WeightingKind.EXACT:
                return ratios_n
            case WeightingKind.SELF_NORMALISED:
                return ratios_n / ratios_n.mean()
            case WeightingKind.CLIPPED:
                return np.minimum(ratios_n, self.limit)


@dataclass(frozen=True)
class WeightSums:
    """Sums over the weights of an epoch's draws so far."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def with_weights(self, weights_n: NDArray[np.float64]) -> WeightSums:
        """These and the weights of further draws."""
        return WeightSums(
            self.count + len(weights_n),
            self.total + float(weights_n.sum()),
            self.squares + float(np.square(weights_n).sum()),
        )

    @property
    def effective_part(self) -> float | None:
        """(Σw)² / (n Σw²): to how large a part of their number the draws would count if they weighed alike
        (Kish, Survey Sampling, 1965); None without draws."""
        return self.total**2 / (self.count * self.squares) if self.count else None

    def to_json(self) -> list[float]:
        """In the order of the fields."""
        return [self.count, self.total, self.squares]
