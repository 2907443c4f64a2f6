"""Trained accuracies from public tables in place of measurements, and searches confined to their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from nas.architecture import Architecture
from nas.costs import batch_costs
from nas.pareto import pareto_front
from nas.search.constraints import Bounds
from nas.search.cost_model import Codes, Costs
from nas.search.region import FeasibleRegion
from nas.space import SearchSpace
from search_spaces import SPACES

_ABSENT = "absent"
"""1 for a network that the table lacks: bounded by 0, it is never proposed."""


@dataclass(frozen=True)
class Table:
    """The distinct networks of a table, each with its accuracy and its costs."""

    space: SearchSpace
    cost: str
    """Searched for beside accuracy."""
    networks: tuple[Architecture, ...]
    accuracies: np.ndarray
    """Fractions, one a network."""
    costs: Mapping[str, np.ndarray]
    """By name; of the canonical spelling where they are computed."""

    @property
    def names(self) -> tuple[str, ...]:
        """The costs, of which that of a network the table lacks is one."""
        return (*self.costs, _ABSENT)

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks, whatever their spelling; those absent cost nothing else."""
        rows = self._row_of[np.ravel_multi_index(tuple(codes.T), self._sizes)]
        found: dict[str, Any] = {}
        for name in names:
            is_absent = rows < 0
            found[name] = is_absent.astype(int) if name == _ABSENT else self.costs[name][rows]
        return found

    def floors(self, names: Sequence[str]) -> dict[str, float]:
        """The least of the table."""
        return {name: 0.0 if name == _ABSENT else float(self.costs[name].min()) for name in names}

    @property
    def region(self) -> FeasibleRegion:
        """The networks that the table has."""
        return FeasibleRegion(self, Bounds(((_ABSENT, 0.0),)))

    @cached_property
    def accuracy_of(self) -> dict[Architecture, float]:
        """What a search measures."""
        return dict(zip(self.networks, self.accuracies.tolist(), strict=True))

    @property
    def losses(self) -> np.ndarray:
        """Cost and accuracy lost of every network, shape (n, 2)."""
        return np.column_stack([self.costs[self.cost], -self.accuracies])

    @cached_property
    def front(self) -> np.ndarray:
        """The losses of the true front, by rising cost."""
        return self.losses[pareto_front(self.losses)]

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(d.options) for d in self.space.decisions)

    @cached_property
    def _row_of(self) -> np.ndarray:
        """For every assignment of the space the row of its network, -1 where there is none."""
        rows = {network: row for row, network in enumerate(self.networks)}
        codes = np.indices(self._sizes).reshape(len(self._sizes), -1).T
        return np.array([rows.get(self.space.decode(code), -1) for code in codes])


def macro(data: Path) -> Table:
    """NAS-Bench-Macro: mean of three trainings, and MACs."""
    columns = pq.read_table(data / "nas_bench_macro/train.parquet").to_pydict()
    space = SPACES["nas_bench_macro"]
    found = {
        space.canonical(space.parse(name)): accuracy / 100
        for name, accuracy in zip(columns["canonical_arch"], columns["mean_acc"], strict=True)
    }
    return _table(space, "macs", found, {})


def cells(data: Path) -> Table:
    """NAS-Bench-201: CIFAR-100 after 200 epochs, and milliseconds of ONNX Runtime on a Raspberry Pi 5.

    Both of the spelling that the benchmark lists first; networks whose output is cut off are left out,
    because the converter folded them away.
    """
    filters = [("device", "=", "raspberry_pi_5"), ("framework", "=", "onnx"), ("task", "=", "cifar100")]
    timed = pq.read_table(data / "latency/nas_bench_201_devices_train.parquet", filters=filters).to_pylist()
    latency_ms = {row["canonical_index"]: row["latency_ms"] for row in timed if not row["degenerate"]}
    space = SPACES["nas_bench_201"]
    found: dict[Architecture, float] = {}
    latencies: list[float] = []
    for row in pq.read_table(data / "nas_bench_201/train.parquet").to_pylist():
        index = row["canonical_index"]
        if row["arch_index"] == index and index in latency_ms:
            found[space.canonical(space.parse(row["arch"]))] = row["cifar100_test_acc_200ep"] / 100
            latencies.append(latency_ms[index])
    return _table(space, "latency_ms", found, {"latency_ms": np.array(latencies)})


def _table(
    space: SearchSpace, cost: str, found: Mapping[Architecture, float], measured: Mapping[str, np.ndarray]
) -> Table:
    networks = tuple(found)
    computed = batch_costs(space, space.encode(networks), names=("macs", "params"))
    return Table(space, cost, networks, np.array([*found.values()]), {**computed, **measured})
