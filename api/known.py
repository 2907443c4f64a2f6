"""Every evaluation of a supernet, in memory: where answers by latency are found.

The candidates of the database will not do: what they supersede may be faster on a device. So all evaluations
are read as columns the first time that a device is asked about, and after that only those that came since.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from api.latency import DeviceLatency
from api.trained import TrainedSupernet
from nas.costs import COST_NAMES
from nas.devices.device import LATENCY
from nas.search.constraints import Bounds
from nas.search.settings import ACCURACY
from nas.store.evaluation_columns import ReadEvaluations, read

_MOST_ROWS = 4_000_000
"""Of all supernets together: about 100 bytes each."""
_MOST_DEVICES = 4
"""Of one supernet, those asked about last."""
_GROWTH = 1.25
_LARGEST_COST = 2**63 - 1


@dataclass
class _Growing:
    """An array that is added to at its end. What was handed out of it stays as it was."""

    values: NDArray[Any]
    size: int = 0

    def append(self, more: NDArray[Any]) -> None:
        end = self.size + len(more)
        if end > len(self.values):
            grown = np.empty((int(_GROWTH * end) + 1, *self.values.shape[1:]), dtype=self.values.dtype)
            grown[: self.size] = self.values[: self.size]
            self.values = grown
        self.values[self.size : end] = more
        self.size = end

    @property
    def filled(self) -> NDArray[Any]:
        return self.values[: self.size]


@dataclass(frozen=True)
class KnownEvaluations:
    """All that was measured of a supernet, with the latency of each on one device, predicted."""

    evaluation_id: NDArray[np.int64]
    num_correct: NDArray[np.int32]
    costs: dict[str, NDArray[Any]]
    """`latency_ms` among them."""
    num_images: int

    def keep(self, bounds: Bounds) -> NDArray[np.bool_]:
        """Which of them keep every bound."""
        kept = np.ones(len(self.evaluation_id), dtype=bool)
        for name, limit in bounds.limits:
            # Costs but for latencies are whole numbers: one is within the limit when within its floor.
            most = limit if name == LATENCY else int(min(limit, _LARGEST_COST))
            kept &= self.costs[name] <= most
        return kept

    def best(self, bounds: Bounds) -> int | None:
        """The id of the most accurate within the bounds, if any; ties by MACs, then by the id."""
        correct = np.where(self.keep(bounds), self.num_correct, -1)
        most = correct.max(initial=-1)
        return None if most < 0 else self._first(np.flatnonzero(correct == most))

    def rivals(self, bounds: Bounds, *, least_correct: int, but: int, count: int) -> list[int]:
        """Ids of others that keep every bound with so many images right, the fastest first."""
        is_rival = self.keep(bounds) & (self.num_correct >= least_correct) & (self.evaluation_id != but)
        places = np.flatnonzero(is_rival)
        order = np.lexsort((self.evaluation_id[places], self.costs[LATENCY][places]))
        return [int(self.evaluation_id[place]) for place in places[order[:count]]]

    def nearest(self, bounds: Bounds) -> int | None:
        """The id of the one whose largest ratio of cost to bound is least; ties as in `best`."""
        if not len(self.evaluation_id):
            return None
        ratio = bounds.worst_ratio({name: self.costs[name] for name in bounds.names})
        tied = np.flatnonzero(ratio == ratio.min())
        return self._first(tied[self.num_correct[tied] == self.num_correct[tied].max()])

    def figures(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Accuracy and costs of some of them, by name."""
        accuracy = self.num_correct[positions] / self.num_images
        return {ACCURACY.name: accuracy, **{name: cost[positions] for name, cost in self.costs.items()}}

    def _first(self, tied: NDArray[np.int64]) -> int:
        macs, ids = self.costs["macs"][tied], self.evaluation_id[tied]
        return int(ids[np.lexsort((ids, macs))[0]])


@dataclass
class _Kept:
    """What is known of one supernet so far."""

    lock: Lock = field(default_factory=Lock)
    columns: dict[str, _Growing] = field(default_factory=dict)
    latencies: OrderedDict[str, _Growing] = field(default_factory=OrderedDict)
    read_until: int = 0
    recent: frozenset[int] = frozenset()
    """Evaluations that the next reading finds again."""

    @property
    def size(self) -> int:
        return self.columns["evaluation_id"].size if self.columns else 0

    def add(self, found: ReadEvaluations) -> None:
        """What was read, less what is known already."""
        ids = found.columns.evaluation_id
        is_new = ~np.isin(ids, [*self.recent]) if self.recent else np.ones(len(ids), dtype=bool)
        more = {
            "evaluation_id": ids,
            "num_correct": found.columns.num_correct.astype(np.int32),
            "codes": found.codes,
            **{name: getattr(found.columns, name) for name in COST_NAMES},
        }
        for name, values in more.items():
            column = self.columns.setdefault(name, _Growing(values[:0]))
            column.append(values[is_new])
        self.read_until = found.read_until
        self.recent = frozenset(ids[found.recorded_in >= found.read_until].tolist())

    def predict(self, latency: DeviceLatency) -> NDArray[np.float64]:
        """Of every evaluation; those that are new are predicted now."""
        kept = self.latencies.setdefault(latency.source.id, _Growing(np.empty(0)))
        self.latencies.move_to_end(latency.source.id)
        if len(self.latencies) > _MOST_DEVICES:
            self.latencies.popitem(last=False)
        kept.append(latency.predict_ms(self.columns["codes"].filled[kept.size :]))
        return kept.filled


class KnownNetworks:
    """The evaluations of the supernets that were asked about last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def of(self, session: Session, supernet: TrainedSupernet, latency: DeviceLatency) -> KnownEvaluations:
        """All that the database holds now, with predicted latencies."""
        kept = self._entry(repr(supernet.protocol))
        with kept.lock:
            kept.add(read(session, supernet.protocol, supernet.costs.space, since=kept.read_until))
            milliseconds = kept.predict(latency)
            columns = {name: column.filled for name, column in kept.columns.items()}
        self._forget_beyond(_MOST_ROWS)
        return KnownEvaluations(
            evaluation_id=columns["evaluation_id"],
            num_correct=columns["num_correct"],
            costs={**{name: columns[name] for name in COST_NAMES}, LATENCY: milliseconds},
            num_images=supernet.protocol.num_images,
        )

    def _entry(self, key: str) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            return kept

    def _forget_beyond(self, num_rows: int) -> None:
        with self._lock:
            total = sum(kept.size for kept in self._kept.values())
            while total > num_rows and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].size
