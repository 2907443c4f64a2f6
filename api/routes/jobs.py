"""/v1/jobs: the work behind the resources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import Session

from api.deps import Name, QueueDep, ServicesDep, SessionDep
from api.event_stream import event_stream
from api.pages import PageDep, PageRequest, each
from api.schemas.common import Page
from api.schemas.jobs import Job, JobEvent, describe_event, describe_job
from api.strict import StrictRoute
from nas.errors import NotFoundError
from nas.job import Job as StoredJob
from nas.job import JobState
from nas.store.jobs import JobQueue
from nas.store.resources import names_of

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StrictRoute)

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"


@router.get("", operation_id="list_jobs")
def list_jobs(
    queue: QueueDep,
    session: SessionDep,
    page: PageDep,
    state: Annotated[
        list[JobState] | None, Query(description="Only in this state; repeat it for several.")
    ] = None,
) -> Page[Job]:
    """Jobs, newest first."""
    after = page.after_resource("jobs")
    found = queue.list(page_size=page.num_to_read, after=after, states=state)
    return page.cut("jobs", found, lambda job: (job.created_at, job.id), partial(_described, session))


@router.get("/{job_id}", operation_id="get_job")
def get_job(job_id: Name, queue: QueueDep, session: SessionDep) -> Job:
    """One job."""
    return _described_one(session, queue.get(job_id))


@router.post("/{job_id}/cancel", operation_id="cancel_job")
def cancel_job(job_id: Name, queue: QueueDep, session: SessionDep) -> Job:
    """Ask for the job to stop; asking again changes nothing, and what has ended otherwise answers 409."""
    return _described_one(session, queue.request_cancel(job_id))


@router.get(
    "/{job_id}/events",
    operation_id="list_job_events",
    response_model=Page[JobEvent],
    responses={200: {"content": {_EVENT_STREAM: {"schema": {"type": "string"}}}}},
)
def list_job_events(
    job_id: Name,
    services: ServicesDep,
    page: PageDep,
    accept: Annotated[str, Header(description=f"{_JSON} for pages instead of a stream.")] = "*/*",
    last_event_id: Annotated[int, Header(ge=0, le=2**63 - 1, description="Go on after this event.")] = 0,
) -> Response:
    """What happened to the job: a stream that ends with the job, or pages."""
    services.queue.get(job_id)
    if _JSON in accept and _EVENT_STREAM not in accept:
        return JSONResponse(_page(services.queue, job_id, page, last_event_id).model_dump(mode="json"))
    return StreamingResponse(
        event_stream(services, job_id, after_id=last_event_id),
        media_type=_EVENT_STREAM,
        # A proxy that gathers a stream before it passes it on would make it useless.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _described(session: Session, jobs: Sequence[StoredJob]) -> list[Job]:
    names = names_of(session, jobs)
    # One that is deleted between the two looks is gone.
    return [describe_job(job, names[job.id]) for job in jobs if job.id in names]


def _described_one(session: Session, job: StoredJob) -> Job:
    described = _described(session, [job])
    if not described:
        raise NotFoundError(f"no job {job.id!r}")
    return described[0]


def _page(queue: JobQueue, job_id: str, page: PageRequest, last_event_id: int) -> Page[JobEvent]:
    after = max(last_event_id, page.after_number(job_id, first=1))
    found = queue.events(job_id, after_id=after, limit=page.num_to_read)
    return page.cut(job_id, found, lambda event: (event.id,), each(describe_event))
