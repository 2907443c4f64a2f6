"""What every resource shares: names, labels, the job shape, pages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from nas.job import JobState
from nas.job import Progress as JobProgress
from nas.store.resources import WithJob
from nas.store.tables import ResourceRow

T = TypeVar("T")

MAX_SEED = 2**32 - 1
"""What every generator in use can be seeded with."""

DisplayName = Annotated[str, StringConstraints(max_length=200)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
ResourceId = Annotated[str, StringConstraints(pattern=r"^[a-z]+_[a-z0-9]{1,64}$")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class RequestModel(BaseModel):
    """A part of a request: unknown fields are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateRequest(RequestModel):
    """What every creating request may carry."""

    display_name: DisplayName = Field(default="", description="For people; need not be unique.")
    labels: dict[LabelName, LabelValue] = Field(
        default={}, max_length=64, description="Yours to give; returned as they were."
    )

    def spec(self) -> dict[str, Any]:
        """What the job is to do: everything but the names, with defaults filled in."""
        return self.model_dump(mode="json", exclude={"display_name", "labels"}, exclude_none=True)


class ResourcePatch(RequestModel):
    """What of a resource can be changed while its job goes on. What is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"display_name": "renamed", "labels": {"team": "vision"}}]}
    )

    # By a factory, so that the schema does not promise a default.
    display_name: DisplayName = Field(default_factory=str, description="For people; need not be unique.")
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=64, description="All of them: those not given again are gone."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> ResourcePatch:
        if not self.model_fields_set:
            raise ValueError("nothing to change; give display_name or labels, or both")
        return self

    def changes(self) -> dict[str, Any]:
        """What was given."""
        return self.model_dump(include=self.model_fields_set)


class AnswerModel(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class Progress(AnswerModel):
    """How far a job has come: `done` of `total` units of its current phase."""

    phase: str
    done: int
    total: int
    eta_seconds: float | None


class JobShape(AnswerModel):
    """The work behind a resource, as every resource shows it."""

    id: str
    display_name: str
    labels: dict[str, str]
    spec: dict[str, Any] = Field(description="The request, with defaults filled in.")
    state: JobState
    state_reason: str | None
    progress: Progress | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime
    links: dict[str, str]


class JobResource(JobShape):
    """A resource made by a job; it takes the job's state."""

    job_id: str


class Page(AnswerModel, Generic[T]):
    """A part of a list."""

    items: list[T]
    next_page_token: str | None = Field(description="Null on the last page.")


def job_shape(found: WithJob[Any], path: str, *, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of `JobResource`; `more` names what else lies below the resource's own path."""
    row: ResourceRow = found.row
    job = found.job
    self_link = f"/v1/{path}/{row.id}"
    links = {"self": self_link, **job_links(job.id), **{name: f"{self_link}/{name}" for name in more}}
    return {
        "id": row.id,
        "display_name": row.display_name,
        "labels": row.labels,
        "job_id": job.id,
        "spec": job.spec,
        "state": job.state,
        "state_reason": job.state_reason,
        "progress": describe_progress(job.progress),
        "error": job.error,
        # The row's own is a few statements later, and nothing may be updated before it is created.
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "updated_at": job.updated_at,
        "links": links,
    }


def job_links(job_id: str) -> dict[str, str]:
    """Where the work is watched and stopped."""
    link = f"/v1/jobs/{job_id}"
    return {"job": link, "events": f"{link}/events", "cancel": f"{link}/cancel"}


def describe_progress(progress: JobProgress | None) -> Progress | None:
    """The progress as answers show it."""
    if progress is None:
        return None
    return Progress(
        phase=progress.phase,
        done=progress.done,
        total=progress.total,
        eta_seconds=progress.eta_seconds,
    )
