"""What probes measured on devices, and the latency models that were fitted to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased, undefer

from nas.devices.accuracy import Accuracy
from nas.devices.measurements import Measurements
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.job import JobKind
from nas.store import devices
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, list_resources
from nas.store.tables import MeasuredNetworkRow, MeasurementsRow

SECOND_PASS = "second_pass"
"""Among the repeatability of a row: that of the whole networks alone, as an accuracy."""
_NOUN = "measurements"


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    measured: Measurements,
    content: str,
    spec: dict[str, Any],
) -> WithJob[MeasurementsRow]:
    """Measurements of a device that exists; their job fits a model to them."""
    reader = measured.networks.networks
    row = MeasurementsRow(
        id=new_id(Prefix.MEASUREMENTS),
        display_name=display_name,
        labels=labels,
        device_id=devices.hold(session, measured.networks.device.name).id,
        search_space=reader.space.name,
        num_classes=reader.num_classes,
        in_channels=reader.in_channels,
        content=content,
        num_networks=len(measured.networks),
        num_blocks=len(measured.table.rows),
        repeatability=_repeatability(measured),
        sentinel_key=None if measured.sentinel is None else measured.sentinel.architecture_key,
        sentinel_ms=None if measured.sentinel is None else measured.sentinel.milliseconds,
    )
    found = create_resource(session, row, kind=JobKind.FIT_LATENCY, spec=spec)
    first, again = measured.networks.times_ms(), measured.again.times_ms()
    session.add_all(
        MeasuredNetworkRow(
            measurements_id=row.id, architecture_key=key, p50_ms=p50_ms, again_ms=again.get(key)
        )
        for key, p50_ms in first.items()
    )
    session.flush()
    return found


def get(session: Session, measurements_id: str) -> WithJob[MeasurementsRow]:
    """The measurements and their job."""
    return get_resource(session, MeasurementsRow, measurements_id, noun=_NOUN)


def list(
    session: Session, *, page_size: int, after: Cursor | None = None, device_id: str | None = None
) -> Sequence[WithJob[MeasurementsRow]]:
    """A page of measurements, newest first; of one device where given."""
    where = [] if device_id is None else [MeasurementsRow.device_id == device_id]
    return list_resources(session, MeasurementsRow, page_size=page_size, after=after, where=where)


def content_of(session: Session, measurements_id: str) -> str:
    """As the probe wrote them."""
    return get_row(session, MeasurementsRow, measurements_id, noun=_NOUN).content


def set_model(
    session: Session, measurements_id: str, model: LatencyModel, table_accuracy: Accuracy | None
) -> None:
    """The model that was fitted to them, with its accuracy on networks that had no part in the fit."""
    row = get_row(session, MeasurementsRow, measurements_id, noun=_NOUN)
    accuracy = model.accuracy
    assert accuracy is not None, "a model is published with its accuracy"
    row.model = json.dumps(model.to_json())
    row.form = form_of(model)
    row.num_judged, row.mape, row.hit_rate = accuracy.num_networks, accuracy.mape, accuracy.hit_rate
    row.spearman = _or_none(accuracy.spearman)
    row.table_accuracy = None if table_accuracy is None else _shown(table_accuracy)
    session.flush()


def models(session: Session, device_ids: Sequence[str]) -> Sequence[MeasurementsRow]:
    """Of each device, space, classes and channels, the newest measurements that have a model."""
    row = MeasurementsRow
    one = (row.device_id, row.search_space, row.num_classes, row.in_channels)
    query = (
        select(MeasurementsRow)
        .ext(distinct_on(*one))
        .where(MeasurementsRow.device_id.in_(device_ids), _HAS_MODEL)
        .order_by(*one, MeasurementsRow.created_at.desc(), MeasurementsRow.id.desc())
    )
    return session.scalars(query).all()


def with_model(session: Session, measurements_id: str) -> MeasurementsRow:
    """The measurements with their model read."""
    query = select(MeasurementsRow).where(MeasurementsRow.id == measurements_id)
    return session.scalars(query.options(undefer(MeasurementsRow.model))).one()


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """What one network was measured to take."""

    measurements_id: str
    p50_ms: float
    again_ms: float | None
    speed: float | None
    """Of the device in that sitting, as a multiple of its speed in another; None where that is not known."""


def measured_networks(
    session: Session, device_id: str, networks: NetworkBlocks, keys: Sequence[str], *, next_to: str
) -> dict[str, MeasuredNetwork]:
    """Of the networks of these keys, those that were measured on the device, each as it was measured last.

    Speeds are `next_to` the sitting of these measurements.
    """
    other = aliased(MeasurementsRow)
    is_same_sentinel = (other.id == next_to) & (other.sentinel_key == MeasurementsRow.sentinel_key)
    query = (
        select(MeasuredNetworkRow, other.sentinel_ms / MeasurementsRow.sentinel_ms)
        .join(MeasurementsRow, MeasurementsRow.id == MeasuredNetworkRow.measurements_id)
        .join(other, is_same_sentinel, isouter=True)
        .where(
            MeasuredNetworkRow.architecture_key.in_(keys),
            MeasurementsRow.device_id == device_id,
            MeasurementsRow.search_space == networks.space.name,
            MeasurementsRow.num_classes == networks.num_classes,
            MeasurementsRow.in_channels == networks.in_channels,
        )
        .order_by(MeasurementsRow.created_at, MeasurementsRow.id)
    )
    return {
        row.architecture_key: MeasuredNetwork(
            measurements_id=row.measurements_id, p50_ms=row.p50_ms, again_ms=row.again_ms, speed=speed
        )
        for row, speed in session.execute(query)
    }


def _repeatability(measured: Measurements) -> dict[str, Any]:
    """Empty where nothing was measured twice."""
    second_pass = measured.second_pass
    told = {} if second_pass is None else {SECOND_PASS: _shown(second_pass)}
    return {**(measured.repeatability or {}), **told}


def form_of(model: LatencyModel) -> dict[str, Any]:
    """What the model is made of, in short."""
    residual = None if model.residual is None else model.residual.to_json()["kind"]
    return {
        "basis": model.basis.value,
        "residual": residual,
        "is_additive": model.is_additive,
        "num_interpolated_blocks": len(model.interpolated),
    }


_HAS_MODEL: ColumnElement[bool] = MeasurementsRow.num_judged.is_not(None)


def _shown(accuracy: Accuracy) -> dict[str, Any]:
    return {**accuracy.to_json(), "spearman": _or_none(accuracy.spearman)}


def _or_none(value: float) -> float | None:
    """A rank correlation that there is none of is null."""
    return value if isfinite(value) else None
