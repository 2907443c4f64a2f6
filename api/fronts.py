"""Which of some measured networks are on their frontier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.latency import DeviceLatency
from nas.costs import COST_NAMES
from nas.devices.device import LATENCY
from nas.front_probability import front_probabilities
from nas.pareto import Objective, normalise, pareto_front
from nas.search.settings import ACCURACY
from nas.store.evaluations import EvaluationColumns
from nas.store.tables import EvaluationRow

Figures = Mapping[str, NDArray[Any]]
"""By name one number a network."""


def front(figures: Figures, objectives: Sequence[Objective]) -> list[int]:
    """Positions of the networks on the frontier, by the first cost among the objectives."""
    costs_first = sorted(objectives, key=lambda objective: objective == ACCURACY)
    values = np.column_stack([figures[objective.name] for objective in costs_first])
    return [int(position) for position in pareto_front(normalise(values, costs_first))]


def probabilities(
    figures: Figures,
    objectives: Sequence[Objective],
    positions: Sequence[int],
    bitmaps_of: Callable[[Sequence[int]], Sequence[bytes]],
    *,
    num_images: int,
) -> list[float]:
    """How surely each network at `positions` is on the frontier, others being measured on the same images."""
    if not positions:
        return []
    costs = [figures[objective.name] for objective in objectives if objective != ACCURACY]
    count = len(figures[ACCURACY.name])
    found = front_probabilities(
        np.rint(figures[ACCURACY.name] * num_images).astype(np.int64),
        np.column_stack(costs).astype(np.float64) if costs else np.zeros((count, 0)),
        np.asarray(positions, dtype=np.int64),
        lambda needed: bitmaps_of(needed.tolist()),
        num_images=num_images,
    )
    return [float(share) for share in found]


def figures_of_columns(columns: EvaluationColumns) -> Figures:
    """Accuracy and costs by name."""
    return {ACCURACY.name: columns.accuracy, **{name: getattr(columns, name) for name in COST_NAMES}}


def figures_of_rows(rows: Sequence[EvaluationRow], latency: DeviceLatency | None = None) -> Figures:
    """Accuracy and costs by name, the latency among them where a device was named."""
    costs = {name: np.array([getattr(row, name) for row in rows]) for name in COST_NAMES}
    if latency is not None:
        costs[LATENCY] = latency.of_rows_ms(rows)
    return {ACCURACY.name: np.array([row.num_correct / row.num_images for row in rows]), **costs}
