"""What predicts `latency_ms` on a device: a model fitted to measurements, else the table that was given.

A search keeps the one it began with: measuring anew, or another table, changes no answer that is under way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.devices.interpolation import interpolate
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.table import LatencyTable, refuse_missing
from nas.errors import ConflictError
from nas.job import JobState
from nas.store import devices, measurements
from nas.store.resources import hold as hold_resource
from nas.store.tables import EvaluationBatchRow, JobRow, LatencyTableRow, MeasurementsRow, SearchRow


@dataclass(frozen=True, kw_only=True)
class LatencySource:
    """Which table, or which measurements, predict for a device."""

    device_id: str
    latency_table_id: str | None = None
    measurements_id: str | None = None

    @property
    def id(self) -> str:
        """Of the one that there is."""
        found = self.latency_table_id or self.measurements_id
        assert found is not None
        return found


def columns_of(source: LatencySource | None) -> dict[str, str | None]:
    """As rows keep it; all null for what was asked without a device."""
    return {
        "device_id": None if source is None else source.device_id,
        "latency_table_id": None if source is None else source.latency_table_id,
        "measurements_id": None if source is None else source.measurements_id,
    }


def current_source(session: Session, device_name: str, networks: NetworkBlocks) -> LatencySource:
    """The newest measurements with a model for these networks; else the device's table.

    NotFoundError for an unknown device, ConflictError where it has neither.
    """
    device = devices.get(session, device_name)
    newest = (
        select(MeasurementsRow.id)
        .where(*_are_of(device.id, networks), MeasurementsRow.num_judged.is_not(None))
        .order_by(MeasurementsRow.created_at.desc(), MeasurementsRow.id.desc())
    )
    if (found := session.scalar(newest.limit(1))) is not None:
        return LatencySource(device_id=device.id, measurements_id=found)
    table = devices.current_tables(session, [device.id]).get(device.id)
    if table is None:
        raise ConflictError(_nothing_predicts(session, device.id, networks))
    return LatencySource(device_id=device.id, latency_table_id=table.id)


def hold(session: Session, source: LatencySource | None) -> None:
    """Nothing of it can be deleted until the transaction ends: for what is about to refer to it."""
    if source is None:
        return
    devices.hold(session, source.device_id)
    if source.measurements_id is not None:
        hold_resource(session, MeasurementsRow, source.measurements_id, noun="measurements")
        return
    query = select(LatencyTableRow.id).where(LatencyTableRow.id == source.latency_table_id)
    if session.scalar(query.with_for_update(read=True, key_share=True)) is None:
        raise ConflictError(
            f"device {source.device_id!r} was given another latency table just now; ask again"
        )


def source_of(row: SearchRow | EvaluationBatchRow) -> LatencySource | None:
    """What a search or a batch was made with."""
    if row.device_id is None:
        return None
    return LatencySource(
        device_id=row.device_id,
        latency_table_id=row.latency_table_id,
        measurements_id=row.measurements_id,
    )


def read_model(session: Session, source: LatencySource, networks: NetworkBlocks) -> LatencyModel:
    """The model that predicts for these networks.

    MissingBlockError where it is a table that lacks some of their blocks, and is not to fill its gaps.
    """
    if source.measurements_id is not None:
        row = measurements.with_model(session, source.measurements_id)
        assert row.model is not None  # only those that have one are a source
        return LatencyModel.from_json(json.loads(row.model))
    table = devices.table_of(session, source.id)
    return model_of_table(
        LatencyTable.parse(table.content.splitlines()), networks, fills_gaps=table.fills_gaps
    )


def model_of_table(table: LatencyTable, networks: NetworkBlocks, *, fills_gaps: bool) -> LatencyModel:
    """The table as it stands, for networks whose every block it has, or whose gaps it may fill."""
    blocks = networks.distinct()
    if fills_gaps:
        filled = interpolate(table, blocks)
        return LatencyModel.of_table(filled.table, filled.interpolated)
    refuse_missing(table.missing(blocks), f"the table of device '{table.device.name}'")
    return LatencyModel.of_table(table)


def _nothing_predicts(session: Session, device_id: str, networks: NetworkBlocks) -> str:
    what = f"'{networks.space.name}' with {networks.num_classes} classes and {networks.in_channels} channels"
    under_way = session.scalar(
        select(MeasurementsRow.id)
        .join(JobRow, JobRow.id == MeasurementsRow.job_id)
        .where(*_are_of(device_id, networks), JobRow.state.not_in([s for s in JobState if s.is_terminal]))
        .limit(1)
    )
    if under_way is not None:
        return f"the model of device {device_id!r} for {what} is being fitted ({under_way}); ask again soon"
    others = [
        f"'{m.search_space}' ({m.num_classes}, {m.in_channels})"
        for m in measurements.models(session, [device_id])
    ]
    has = f"; it has one of {', '.join(others)}" if others else ""
    return (
        f"nothing predicts latency on device {device_id!r} for {what}{has}; measure it with "
        f"`nas device probe {device_id}`, or give it a latency table"
    )


def _are_of(device_id: str, networks: NetworkBlocks) -> tuple[Any, ...]:
    return (
        MeasurementsRow.device_id == device_id,
        MeasurementsRow.search_space == networks.space.name,
        MeasurementsRow.num_classes == networks.num_classes,
        MeasurementsRow.in_channels == networks.in_channels,
    )
