"""/v1/devices: machines to find networks for, their tables, and what was measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import CreationDep, IfNoneMatch, Name, ServicesDep, SessionDep
from api.etags import etag_of, is_held
from api.json_lines import REQUEST_BODY, read_lines
from api.pages import PageDep, each
from api.problems import ProblemError, invalid_field
from api.routes.search_spaces import InChannels, NumClasses
from api.schemas.common import DisplayName, Page, ResourcePatch
from api.schemas.devices import (
    DEVICE_NAME,
    MAX_GAPS,
    MAX_NETWORKS,
    MIN_NETWORKS,
    PROBE,
    DeviceAnswer,
    DeviceCreate,
    LatencyTable,
    LatencyTableGaps,
    Measurements,
    MeasurementsIdentity,
    describe_device,
    describe_measurements,
    describe_table,
)
from api.strict import StrictRoute
from nas.devices.device import Device
from nas.devices.measurements import Measurements as Measured
from nas.devices.measurements import read_measurements, space_of
from nas.devices.parts import NetworkBlocks
from nas.devices.table import LatencyTable as Table
from nas.errors import InvalidRequestError, NotFoundError
from nas.store import devices, measurements
from nas.store.deletion import DEVICE, MEASUREMENTS
from nas.store.resources import rename
from nas.store.tables import DeviceRow, MeasurementsRow
from search_spaces import SPACES

router = APIRouter(tags=["devices"], route_class=StrictRoute)

T = TypeVar("T")
DeviceFilter = Annotated[str | None, Query(pattern=DEVICE_NAME, description="Only those of this device.")]
_LINES = "application/jsonl"


@router.post("/devices", status_code=201, response_model=DeviceAnswer, operation_id="create_device")
def create_device(body: DeviceCreate, create: CreationDep) -> Response:
    """Name a machine and the way that networks run on it."""

    def make(session: Session) -> DeviceAnswer:
        return describe_device(devices.create(session, body.device(), notes=body.notes), [], None)

    return create(body, make)


@router.get("/devices", operation_id="list_devices")
def list_devices(session: SessionDep, page: PageDep) -> Page[DeviceAnswer]:
    """Devices, newest first."""
    found = devices.list(session, page_size=page.num_to_read, after=page.after_resource("devices"))
    return page.cut(
        "devices", found, lambda row: (row.created_at, row.id), lambda rows: _described(session, [*rows])
    )


@router.get(f"/devices/{PROBE}", operation_id="download_probe", response_class=Response)
def download_probe(if_none_match: IfNoneMatch = None) -> Response:
    """The probe: one file for any machine with Python 3.9, NumPy and ONNX Runtime.

    `python probe.py work.zip out.jsonl --device NAME` measures what a work file holds."""
    source = _probe_source()
    headers = {
        "ETag": etag_of(hashlib.sha256(source).hexdigest()),
        "Cache-Control": "no-cache",
        "Content-Disposition": f'attachment; filename="{PROBE}"',
    }
    if is_held(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(source, headers=headers, media_type="text/x-python")


@router.get("/devices/{name}", operation_id="get_device")
def get_device(name: Name, session: SessionDep) -> DeviceAnswer:
    """One device, with the models that predict latencies on it."""
    return _described(session, [devices.get(session, name)])[0]


@router.delete("/devices/{name}", status_code=204, response_class=Response, operation_id="delete_device")
def delete_device(name: Name, services: ServicesDep) -> Response:
    """Delete a device with its tables, measurements and models.

    Refused while searches or evaluation batches were asked for it; `used_by` names them."""
    return delete(services, DEVICE, name)


# Tables


@router.put(
    "/devices/{name}/latency-table",
    response_model=LatencyTable,
    operation_id="put_latency_table",
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def put_latency_table(
    name: Name,
    request: Request,
    services: ServicesDep,
    *,
    fills_gaps: Annotated[
        bool, Query(description="Estimate blocks that it lacks, where it has some around them.")
    ] = False,
) -> LatencyTable:
    """Give a device its latency table, as JSON lines: a header, then a line a block (see `docs/latency.md`).

    Lines that are refused are named by their numbers: those of another device, of times that are not
    milliseconds, told twice, or with fields that are missing or impossible. Times that are merely unusual are
    `warnings`. The table predicts for spaces of which nothing was measured, as it stands; what is under way
    with an earlier table goes on with that one. What it lacks for a space is listed at `gaps`.
    """
    text = await read_lines(request)

    def put() -> LatencyTable:
        table = _lines_checked(lambda: _table(text))
        with services.database.begin() as session:
            _check_device(devices.get(session, name), table.device)
            return describe_table(devices.put_table(session, table, fills_gaps=fills_gaps))

    return await run_in_threadpool(put)


@router.get(
    "/devices/{name}/latency-table",
    operation_id="get_latency_table",
    response_class=Response,
    responses={200: {"description": "The lines.", "content": {_LINES: {"schema": {"type": "string"}}}}},
)
def get_latency_table(name: Name, session: SessionDep, if_none_match: IfNoneMatch = None) -> Response:
    """The device's latency table as JSON lines, blocks in order."""
    row = devices.current_tables(session, [devices.get(session, name).id]).get(name)
    if row is None:
        raise NotFoundError(f"device {name!r} was given no latency table; PUT one here")
    content = devices.table_of(session, row.id).content.encode() + b"\n"
    headers = {"ETag": etag_of(hashlib.sha256(content).hexdigest()), "Cache-Control": "no-cache"}
    if is_held(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_LINES)


@router.get("/devices/{name}/latency-table/gaps", operation_id="get_latency_table_gaps")
def get_latency_table_gaps(
    name: Name,
    session: SessionDep,
    search_space: Annotated[str, Query(max_length=200, description="Whose networks it is to serve.")],
    num_classes: NumClasses = None,
    in_channels: InChannels = None,
) -> LatencyTableGaps:
    """The blocks of a space's networks that the device's latency table lacks; all, before it has one."""
    networks = _networks(search_space, num_classes, in_channels)
    blocks = missing = networks.distinct()
    row = devices.current_tables(session, [devices.get(session, name).id]).get(name)
    if row is not None:
        missing = Table.parse(devices.table_of(session, row.id).content.splitlines()).missing(blocks)
    return LatencyTableGaps(
        search_space=search_space,
        num_classes=networks.num_classes,
        in_channels=networks.in_channels,
        num_blocks=len(blocks),
        num_missing=len(missing),
        missing=[block.to_json() for block in missing[:MAX_GAPS]],
    )


# Measurements


@router.post(
    "/devices/{name}/measurements",
    status_code=201,
    response_model=Measurements,
    operation_id="create_measurements",
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def create_measurements(
    name: Name,
    request: Request,
    services: ServicesDep,
    create: CreationDep,
    display_name: Annotated[
        DisplayName, AfterValidator(str.strip), Query(description="For people; need not be unique.")
    ] = "",
) -> Response:
    """Send what the probe wrote. A worker fits a latency model to it, and chooses it by cross-validation.

    Or whole networks that were timed with a runtime that has no probe, in the same form (`docs/latency.md`).
    Three networks of ten have no part in the fit: by them the model's accuracy is told. From then on the
    model predicts for this space on this device.
    """
    text = await read_lines(request)
    digest = hashlib.sha256(text.encode()).hexdigest()

    def send() -> Response:
        measured = _measured(text)

        def make(session: Session) -> Measurements:
            _check_device(devices.get(session, name), measured.networks.device)
            found = measurements.create(
                session,
                display_name=display_name,
                labels={},
                measured=measured,
                content=text,
                spec={"device": name, "sha256": digest},
            )
            return describe_measurements(found)

        identity = MeasurementsIdentity(device=name, display_name=display_name, sha256=digest)
        return create(identity, make)

    return await run_in_threadpool(send)


@router.get("/measurements", operation_id="list_measurements")
def list_measurements(session: SessionDep, page: PageDep, device: DeviceFilter = None) -> Page[Measurements]:
    """What was measured on devices, newest first."""
    read = partial(measurements.list, session, device_id=device)
    return page.of_resources("measurements", read, each(describe_measurements))


@router.get("/measurements/{measurements_id}", operation_id="get_measurements")
def get_measurements(measurements_id: Name, session: SessionDep) -> Measurements:
    """What one run of a probe measured, and the model that was fitted to it."""
    return describe_measurements(measurements.get(session, measurements_id))


@router.patch("/measurements/{measurements_id}", operation_id="change_measurements")
def change_measurements(measurements_id: Name, body: ResourcePatch, services: ServicesDep) -> Measurements:
    """Rename measurements or label them anew, until their job has ended."""
    with services.database.begin() as session:
        rename(session, MeasurementsRow, measurements_id, body.changes(), noun="measurements")
        return get_measurements(measurements_id, session)


@router.delete(
    "/measurements/{measurements_id}",
    status_code=204,
    response_class=Response,
    operation_id="delete_measurements",
)
def delete_measurements(measurements_id: Name, services: ServicesDep) -> Response:
    """Delete measurements with their model; earlier ones of the same space count again.

    Refused while searches or evaluation batches predict by the model; `used_by` names them."""
    return delete(services, MEASUREMENTS, measurements_id)


def _described(session: Session, rows: list[DeviceRow]) -> list[DeviceAnswer]:
    names = [row.id for row in rows]
    models, tables = measurements.models(session, names), devices.current_tables(session, names)
    return [
        describe_device(row, [m for m in models if m.device_id == row.id], tables.get(row.id)) for row in rows
    ]


def _probe_source() -> bytes:
    # Read, not imported: it needs onnxruntime, which the service does not.
    spec = find_spec("nas.devices.probe")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_bytes()


def _lines_checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except InvalidRequestError as error:
        raise ProblemError("invalid-lines", 422, str(error)) from error


def _table(text: str) -> Table:
    table = Table.parse(text.splitlines())
    table.refuse_impossible_speed()
    return table


def _networks(search_space: str, num_classes: int | None, in_channels: int | None) -> NetworkBlocks:
    if search_space not in SPACES:
        message = f"search space {search_space!r} is unknown; choose one of {', '.join(SPACES)}"
        raise invalid_field("search_space", search_space, message, slug="unknown-search-space")
    return NetworkBlocks.of(SPACES[search_space], num_classes=num_classes, in_channels=in_channels)


def _measured(text: str) -> Measured:
    lines = text.splitlines()
    name = _lines_checked(lambda: space_of(lines))
    if name not in SPACES:
        detail = f"line 1: search space {name!r} is unknown; those there are: {', '.join(SPACES)}"
        raise ProblemError("invalid-lines", 422, detail)
    measured = _lines_checked(lambda: read_measurements(lines, SPACES[name]))
    counted = measured.drawn if measured.is_for_fit else measured.networks
    least = MIN_NETWORKS if measured.is_for_fit else 1
    if not least <= len(counted) <= len(measured.networks) <= MAX_NETWORKS:
        detail = (
            f"{len(counted)} whole networks were measured; to fit a model and to judge it takes "
            f"{MIN_NETWORKS} to {MAX_NETWORKS}: make a work file with as many, or one of architectures alone"
        )
        raise ProblemError("invalid-lines", 422, detail)
    return measured


def _check_device(row: DeviceRow, told: Device) -> None:
    """Figures of another device, or another way to run, would be taken for this one's."""
    known, found = devices.as_device(row).to_json(), told.to_json()
    apart = [f"{name} {found[name]!r}, not {known[name]!r}" for name in known if found[name] != known[name]]
    if apart:
        detail = (
            f"line 1: the figures are of {'; '.join(apart)} as device {row.id!r} has it; send them to the "
            "device they are of, or measure on this one"
        )
        raise ProblemError("invalid-lines", 422, detail)
