"""Networks that a request gives to be measured: read, costed, and held against its constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from api.trained import TrainedSupernet
from nas.architecture import Architecture
from nas.costs import COST_NAMES, costs
from nas.devices.device import LATENCY
from nas.search.constraints import Bounds
from nas.search.cost_model import Costs
from nas.store.evaluation_batches import GivenNetwork

_FEW = 100
"""So many are costed one by one: the tables behind a whole batch take longer to build than that."""


def given_networks(
    supernet: TrainedSupernet, descriptions: Sequence[dict[str, Any] | str], bounds: Bounds
) -> list[GivenNetwork]:
    """The networks in their order; ProblemError names the first that is none of the space, by its place."""
    architectures = [
        supernet.parse_architecture(description, field=f"architectures.{number}")
        for number, description in enumerate(descriptions)
    ]
    columns = _costs(supernet, architectures)
    latencies: list[float | None] = [None] * len(architectures)
    if supernet.device is not None:
        predicted = supernet.device.predict_ms(supernet.costs.space.encode(architectures))
        latencies, columns = predicted.tolist(), {**columns, LATENCY: predicted}
    holds = np.broadcast_to(bounds.holds(columns), len(architectures))
    return [
        GivenNetwork(
            architecture=architecture,
            costs={name: int(columns[name][number]) for name in COST_NAMES},
            latency_ms=latencies[number],
            is_infeasible=not holds[number],
        )
        for number, architecture in enumerate(architectures)
    ]


def _costs(supernet: TrainedSupernet, architectures: Sequence[Architecture]) -> Costs:
    model = supernet.costs
    if len(architectures) > _FEW:
        return model.batch(model.space.encode(architectures), COST_NAMES)
    found = [
        costs(model.space, architecture, num_classes=model.num_classes, in_channels=model.in_channels)
        for architecture in architectures
    ]
    return {name: np.array([each[name] for each in found], dtype=np.int64) for name in COST_NAMES}
