"""What the certificate asks of the networks under bounds, and how much of it may be concluded."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError

ROUNDING = 1e-12
"""Relative room for the rounding of sums of fractions: more than a thousand parts can make of it."""

Code = NDArray[np.int64]
"""One encoded network, shape (decisions,)."""
Codes = NDArray[np.int64]
"""Encoded networks, shape (n, decisions)."""


class UndecidedError(NasError):
    """The question was not answered; the message says why."""


class BoundedNetworks(Protocol):
    """The networks of a space under bounds. Answers are exact; UndecidedError where one cannot be had."""

    def rounding(self, name: str) -> float:
        """How far, relative, a cost may be off by the rounding of sums: 0 where it is whole numbers."""

    def proved_ratio(self) -> float:
        """No network's largest ratio of cost to bound is below it."""

    def nearest(self) -> Code:
        """The network whose largest ratio of cost to bound is least, or any that keeps all bounds."""

    def cheapest(self, name: str) -> Code | None:
        """The network with the least of a bounded cost among those that keep the other bounds, if any."""

    def met(self) -> Codes:
        """Networks that came up, one at least, shape (n, decisions): among them the nearest that is known."""
