"""A cost model to wear a search for networks out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nas.search.cost_model import Floor
from nas.space import SearchSpace


@dataclass(frozen=True)
class SlowCosts:
    """Every network costs 2, of what parts is not said, so that no bound below is ever decided.

    Each batch takes a tenth of a second in Python, beside which other threads run only when switched to.
    """

    space: SearchSpace
    names: tuple[str, ...] = ("macs",)

    def batch(self, codes, names):
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        return {name: np.full(len(codes), 2.0) for name in names}

    def parts(self, name):
        return Floor()
