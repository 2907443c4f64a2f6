"""What a network given by gates costs, differentiable by them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, from_numpy

from nas.costs.batch import additive_tables
from nas.space import SearchSpace
from supernet.gates import GateTable


class GatedMacs:
    """Multiply-accumulates of networks given by gates.

    Source: the cost term of ShiftNAS (ICCV 2023, equation 10). MACs are bilinear in neighbouring widths, so
    that a table for each single decision cannot hold them: here every part of the network has a table over
    all the decisions that it depends on, the one that `nas.costs.batch_costs` looks up. One-hot gates give
    exactly what `nas.costs` counts.
    """

    def __init__(self, space: SearchSpace, *, num_classes: int, in_channels: int) -> None:
        options = [len(decision.options) for decision in space.decisions]
        names = [decision.name for decision in space.decisions]
        self._tables = [
            GateTable(
                tuple(names[column] for column in table.columns),
                from_numpy(table.costs["macs"]).double().reshape(*(options[c] for c in table.columns), 1),
            )
            for table in additive_tables(space, num_classes, in_channels)
        ]

    def __call__(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Shape (…) for gates of shape (…, options), in float64, which holds every count exactly."""
        return reduce(torch.add, (table(gates) for table in self._tables)).squeeze(-1)
