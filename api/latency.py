"""What predicts latency on the device that a request names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from api.problems import ProblemError, invalid_field
from api.schemas.evaluations import Latency, MeasuredLatency
from nas.architecture import Architecture
from nas.devices.latency_costs import DeviceCosts, networks_of
from nas.devices.table import MissingBlockError
from nas.errors import ConflictError, NotFoundError
from nas.search.cost_model import SpaceCosts
from nas.store.latency import LatencySource, current_source, read_model
from nas.store.measurements import MeasuredNetwork, measured_networks
from nas.store.tables import EvaluationRow

_MOST_KEPT = 32


@dataclass(frozen=True)
class DeviceLatency:
    """Predicts latencies on a device, for the networks whose exact costs it knows too."""

    source: LatencySource
    costs: DeviceCosts

    def predict_ms(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Milliseconds of each encoded network, shape (n,)."""
        return self.costs.latency.predict_ms(codes)

    def of_networks(self, networks: Sequence[Architecture]) -> list[Latency]:
        """As answers show them."""
        return self._described(self.predict_ms(self.costs.space.encode(networks)))

    def of_rows(self, rows: Sequence[EvaluationRow], session: Session | None = None) -> list[Latency]:
        """As answers show them; with a session, those that were measured beside their predictions."""
        shown = self._described(self.of_rows_ms(rows))
        if session is None or not rows:
            return shown
        networks = networks_of(self.costs.exact)
        keys = [row.architecture_key for row in rows]
        measured = measured_networks(session, self.source.device_id, networks, keys, next_to=self.source.id)
        return [
            latency.model_copy(update={"measurement": _measured(measured[key])})
            if key in measured
            else latency
            for latency, key in zip(shown, keys, strict=True)
        ]

    def of_rows_ms(self, rows: Sequence[EvaluationRow]) -> NDArray[np.float64]:
        """Predicted milliseconds, shape (n,)."""
        space = self.costs.space
        codes = [
            np.frombuffer(row.code, np.uint8)
            if row.code
            else space.encode([space.parse(row.architecture)])[0]
            for row in rows
        ]
        if not codes:
            return np.empty(0)
        return self.predict_ms(np.stack(codes).astype(np.int64))

    def described(self, milliseconds: float) -> Latency:
        """As answers show it."""
        accuracy = self.costs.model.accuracy
        return Latency(
            value=milliseconds,
            device=self.source.device_id,
            predicted_by=self.source.id,
            mape=None if accuracy is None else accuracy.mape,
        )

    def _described(self, milliseconds: NDArray[np.float64]) -> list[Latency]:
        return [self.described(value) for value in milliseconds.tolist()]


def _measured(found: MeasuredNetwork) -> MeasuredLatency:
    return MeasuredLatency(
        value=found.p50_ms, again=found.again_ms, measured_by=found.measurements_id, speed=found.speed
    )


def latency_on(session: Session, exact: SpaceCosts, device: str, *, field: str = "device") -> DeviceLatency:
    """What predicts on the device of this name now; ProblemError where there is none, or nothing does."""
    try:
        source = current_source(session, device, networks_of(exact))
    except NotFoundError as error:
        raise invalid_field(field, device, str(error), slug="unknown-device") from error
    except ConflictError as error:
        raise ProblemError("device-not-ready", 409, str(error)) from error
    return latency_by(session, exact, source)


def latency_by(session: Session, exact: SpaceCosts, source: LatencySource) -> DeviceLatency:
    """What predicts by this table or these measurements."""
    key = (source.id, exact.space.name, exact.num_classes, exact.in_channels)
    found = _kept.get(key)
    if found is None:
        try:
            model = read_model(session, source, networks_of(exact))
        except MissingBlockError as error:
            raise ProblemError("device-not-ready", 409, str(error)) from error
        found = DeviceLatency(source, DeviceCosts(exact=exact, model=model))
        _kept.put(key, found)
    return found


class _Kept:
    """The predictors used last. What one is named by never changes, so none grows old."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: OrderedDict[tuple[object, ...], DeviceLatency] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> DeviceLatency | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: tuple[object, ...], latency: DeviceLatency) -> None:
        with self._lock:
            self._found[key] = latency
            if len(self._found) > _MOST_KEPT:
                self._found.popitem(last=False)


_kept = _Kept()
