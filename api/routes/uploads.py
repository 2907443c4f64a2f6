"""/v1/uploads: files sent to the service, for data sets and weights to be made of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import CreationDep, Name, ServicesDep, SessionDep
from api.pages import PageDep, each
from api.receiving import MEDIA_TYPES, read_announcement, receive
from api.schemas.common import DisplayName, Page
from api.schemas.uploads import Upload, UploadIdentity, describe_upload
from api.services import Services
from api.strict import StrictRoute
from nas.store import uploads
from nas.store.deletion import UPLOAD

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=StrictRoute)

_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES},
}


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds NUL, which cannot be stored; leave it out")
    return text


@router.post(
    "",
    status_code=201,
    response_model=Upload,
    operation_id="create_upload",
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def create_upload(
    request: Request,
    services: ServicesDep,
    create: CreationDep,
    display_name: Annotated[
        DisplayName,
        AfterValidator(_storable),
        Query(description="For people; need not be unique.", examples=["pets.zip"]),
    ] = "",
    content_digest: Annotated[
        str | None,
        Header(description="`sha-256=:BASE64:` (RFC 9530): bytes that arrive changed are refused."),
    ] = None,
) -> Response:
    """Send a file as the body: an archive or npz of images, or weights. It is stored as it comes.

    A body that is cut leaves nothing. A request is repeated under its Idempotency-Key with the same bytes and
    name: it is the bytes' SHA-256 that is compared, so they are read before the first answer is given again.
    """
    del content_digest  # read with the other headers; named here to be documented
    max_bytes = services.max_upload_bytes
    announced = read_announcement(request, max_bytes=max_bytes)
    async with _begun(services) as upload_id:
        key = uploads.key_of(upload_id)
        stored = await receive(request, services.artifacts, key, announced=announced, max_bytes=max_bytes)

        def make(session: Session) -> Upload:
            return describe_upload(
                uploads.create(session, upload_id, display_name=display_name, stored=stored)
            )

        identity = UploadIdentity(display_name=display_name, sha256=stored.sha256)
        return await run_in_threadpool(create, identity, make)


@router.get("", operation_id="list_uploads")
def list_uploads(session: SessionDep, page: PageDep) -> Page[Upload]:
    """Uploads, newest first."""
    found = uploads.list(session, page_size=page.num_to_read, after=page.after_resource("uploads"))
    return page.cut("uploads", found, lambda row: (row.created_at, row.id), each(describe_upload))


@router.get("/{upload_id}", operation_id="get_upload")
def get_upload(upload_id: Name, session: SessionDep) -> Upload:
    """One upload."""
    return describe_upload(uploads.get(session, upload_id))


@router.delete("/{upload_id}", status_code=204, response_class=Response, operation_id="delete_upload")
def delete_upload(upload_id: Name, services: ServicesDep) -> Response:
    """Delete an upload. Refused while data sets or supernets are made of it; `used_by` names them."""
    return delete(services, UPLOAD, upload_id)


@asynccontextmanager
async def _begun(services: Services) -> AsyncIterator[str]:
    """The id of an upload; nothing is left of it at the end unless it was created meanwhile."""
    upload_id = await run_in_threadpool(_begin, services)
    try:
        yield upload_id
    finally:
        # Also when the server stops meanwhile.
        with CancelScope(shield=True):
            await run_in_threadpool(_give_up, services, upload_id)


def _begin(services: Services) -> str:
    with services.database.begin() as session:
        return uploads.begin(session)


def _give_up(services: Services, upload_id: str) -> None:
    try:
        uploads.give_up(services.database, services.artifacts, upload_id)
    except OperationalError as error:
        # What was created is to be told all the same; of what was not, a worker removes the bytes later.
        logger.warning("an upload is not tidied up yet", extra={"upload_id": upload_id, "error": str(error)})
