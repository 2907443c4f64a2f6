"""DELETE, for every kind of resource: the rows first, then the bytes."""

from __future__ import annotations

import logging

from fastapi import Response

from api.services import Services
from nas.store import discards
from nas.store.deletion import ResourceKind, delete_resource, folder_of

logger = logging.getLogger(__name__)


def delete(services: Services, kind: ResourceKind, resource_id: str) -> Response:
    """204 once the rows are gone; bytes that cannot be removed just now, a worker removes later."""
    with services.database.begin() as session:
        delete_resource(session, kind, resource_id)
    try:
        discards.remove(services.database, services.artifacts, folder_of(kind, resource_id))
    except Exception:
        # Whatever an artefact store may raise: the note stands, and what was asked for is done.
        logger.exception("bytes are not removed yet", extra={"kind": kind.name, "resource_id": resource_id})
    return Response(status_code=204)
