"""What a handler may ask for, as types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from sqlalchemy.orm import Session

from api.creation import Creation
from api.schemas.devices import DEVICE_NAME
from api.services import Services
from nas.store.artifacts import ArtifactStore
from nas.store.jobs import JobQueue

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")]
"""An id, or the name of a space or an artefact, as part of a path."""


def get_services(request: Request) -> Services:
    """What the lifespan opened."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def get_session(services: ServicesDep) -> Iterator[Session]:
    """A session for reading."""
    with services.database.session() as session:
        yield session


def get_queue(services: ServicesDep) -> JobQueue:
    """The jobs."""
    return services.queue


def get_artifacts(services: ServicesDep) -> ArtifactStore:
    """The bytes."""
    return services.artifacts


def get_creation(
    request: Request,
    services: ServicesDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A creating request repeated with the same key and body within 24 hours is answered "
            "as it was the first time, also when the resource was deleted meanwhile.",
            pattern=r"^[\x21-\x7e]{1,255}$",
        ),
    ] = None,
) -> Creation:
    """Runs a creating request once."""
    return Creation(services.database, path=request.url.path, key=idempotency_key)


# Closed before the answer is sent: a slow reader of a download must not hold a connection.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
QueueDep = Annotated[JobQueue, Depends(get_queue)]
ArtifactsDep = Annotated[ArtifactStore, Depends(get_artifacts)]
CreationDep = Annotated[Creation, Depends(get_creation)]
IfNoneMatch = Annotated[
    str | None, Header(description="ETags the client holds; a match is answered with 304.")
]
SupernetFilter = Annotated[
    str | None, Query(pattern=r"^[a-z]+_[a-z0-9]{1,64}$", description="Only those of this supernet.")
]
DeviceQuery = Annotated[
    str | None,
    Query(pattern=DEVICE_NAME, description="Whose latencies to show, to bound and to lower; predicted."),
]
