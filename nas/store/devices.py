"""Devices by their names, and the latency tables that were given for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import delete, exists, or_, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, undefer

from nas.devices.device import Device
from nas.devices.table import LatencyTable
from nas.errors import ConflictError, NotFoundError
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor
from nas.store.tables import DeviceRow, EvaluationBatchRow, LatencyTableRow, SearchRow

_MAX_LISTED = 20


def create(session: Session, device: Device, *, notes: str) -> DeviceRow:
    """The new device; ConflictError where there is one of this name."""
    values = {**device.to_json(), "notes": notes}
    values["id"] = values.pop("name")
    created: DeviceRow | None = session.scalar(
        insert(DeviceRow).values(values).on_conflict_do_nothing(index_elements=["id"]).returning(DeviceRow)
    )
    if created is None:
        raise ConflictError(
            f"there is a device {device.name!r} already; give this one another name, or delete that one first"
        )
    return created


def get(session: Session, name: str) -> DeviceRow:
    """The device; NotFoundError lists those there are."""
    row = session.get(DeviceRow, name)
    if row is None:
        raise NotFoundError(f"no device {name!r}; {known(session)}")
    return row


def known(session: Session) -> str:
    """In words, the devices there are."""
    names = session.scalars(select(DeviceRow.id).order_by(DeviceRow.id).limit(_MAX_LISTED + 1)).all()
    if not names:
        return "there is none yet: add one with `nas device add`"
    more = ", and others" if len(names) > _MAX_LISTED else ""
    return f"there are {', '.join(names[:_MAX_LISTED])}{more}"


def hold(session: Session, name: str) -> DeviceRow:
    """The device, which cannot be deleted until the transaction ends: for what is about to refer to it."""
    query = select(DeviceRow).where(DeviceRow.id == name).with_for_update(read=True, key_share=True)
    row = session.scalar(query)
    if row is None:
        raise NotFoundError(f"no device {name!r}; {known(session)}")
    return row


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[DeviceRow]:
    """A page of devices, newest first."""
    query = select(DeviceRow)
    if after is not None:
        query = query.where(tuple_(DeviceRow.created_at, DeviceRow.id) < tuple_(*after))
    query = query.order_by(DeviceRow.created_at.desc(), DeviceRow.id.desc()).limit(page_size)
    return session.scalars(query).all()


def as_device(row: DeviceRow) -> Device:
    """The row as the domain knows it."""
    return Device(name=row.id, **{f.name: getattr(row, f.name) for f in fields(Device) if f.name != "name"})


# Tables


def put_table(session: Session, table: LatencyTable, *, fills_gaps: bool) -> LatencyTableRow:
    """The device's table from now on. Earlier ones go, but for those that searches still predict by."""
    device = hold(session, table.device.name)
    row = LatencyTableRow(
        id=new_id(Prefix.LATENCY_TABLE),
        device_id=device.id,
        content="\n".join(table.lines()),
        fills_gaps=fills_gaps,
        num_blocks=len(table.rows),
        base_ms=table.base_ms,
        tools=dict(table.tools),
        warnings=[*table.warnings()],
    )
    session.add(row)
    session.flush()
    _forget_unused(session, device.id, except_id=row.id)
    return row


def current_tables(session: Session, device_ids: Sequence[str]) -> dict[str, LatencyTableRow]:
    """The newest table of each device that has one."""
    row = LatencyTableRow
    query = select(row).ext(distinct_on(row.device_id)).where(row.device_id.in_(device_ids))
    newest = query.order_by(row.device_id, row.created_at.desc(), row.id.desc())
    return {found.device_id: found for found in session.scalars(newest)}


def table_of(session: Session, table_id: str) -> LatencyTableRow:
    """One table with its content."""
    row = session.get(LatencyTableRow, table_id, options=[undefer(LatencyTableRow.content)])
    if row is None:
        raise NotFoundError(f"no latency table {table_id!r}")
    return row


def _forget_unused(session: Session, device_id: str, *, except_id: str) -> None:
    users = (SearchRow.latency_table_id, EvaluationBatchRow.latency_table_id)
    is_used = or_(*(exists().where(column == LatencyTableRow.id) for column in users))
    session.execute(
        delete(LatencyTableRow).where(
            LatencyTableRow.device_id == device_id, LatencyTableRow.id != except_id, ~is_used
        ),
        execution_options={"synchronize_session": False},
    )
