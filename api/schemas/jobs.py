"""Jobs and their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.common import AnswerModel, JobShape, describe_progress, job_links
from nas.job import Job as StoredJob
from nas.job import JobKind
from nas.store.jobs import JobEvent as StoredEvent
from nas.store.resources import Names

_COLLECTIONS = {
    JobKind.IMPORT_DATASET: "datasets",
    JobKind.TRAIN: "supernets",
    JobKind.SEARCH: "searches",
    JobKind.SPECIALISE: "subnets",
    JobKind.EVALUATE: "evaluation-batches",
    JobKind.VERIFY: "verifications",
    JobKind.MAKE_WORK_FILE: "work-files",
    JobKind.FIT_LATENCY: "measurements",
}


class Job(JobShape):
    """The work behind a resource."""

    kind: JobKind
    resource_id: str
    attempt: int = Field(description="How many workers have taken it up.")


class JobEvent(AnswerModel):
    """Something that happened to a job; ids grow."""

    id: int
    kind: str
    payload: dict[str, Any]
    created_at: datetime


def describe_job(job: StoredJob, names: Names) -> Job:
    """The job as answers show it, under the names of the resource that it makes."""
    links = job_links(job.id)
    links["self"] = links.pop("job")
    links["resource"] = f"/v1/{_COLLECTIONS[job.kind]}/{job.resource_id}"
    return Job(
        id=job.id,
        display_name=names.display_name,
        labels=names.labels,
        kind=job.kind,
        resource_id=job.resource_id,
        attempt=job.attempt,
        spec=job.spec,
        state=job.state,
        state_reason=job.state_reason,
        progress=describe_progress(job.progress),
        error=job.error,
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        updated_at=job.updated_at,
        links=links,
    )


def describe_event(event: StoredEvent) -> JobEvent:
    """The event as answers show it."""
    return JobEvent(id=event.id, kind=event.kind, payload=event.payload, created_at=event.created_at)
