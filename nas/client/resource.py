# Made by `python -m nas.client.derive` from nas/client/asynchronous/resource.py: change that one.
"""What a job makes, as the service's JSON: it can be waited for, watched, renamed, cancelled and deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from nas.client.concurrency import sleep
from nas.client.errors import JobCancelledError, JobFailedError, WaitTimeoutError
from nas.client.event import Event
from nas.client.events import job_events
from nas.client.transport import Transport
from nas.job import JobState

_FIRST_POLL_S = 0.1
_LONGEST_POLL_S = 2.0


@dataclass(frozen=True, eq=False)
class JsonObject(Mapping[str, Any]):
    """The service's JSON, read like a mapping."""

    data: Mapping[str, Any]
    transport: Transport = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Resource(JsonObject):
    """Something that a job makes, as it was when it was read."""

    @property
    def id(self) -> str:
        """Its name in the service."""
        return str(self["id"])

    @property
    def state(self) -> JobState:
        """Where its job stood."""
        return JobState(self["state"])

    @property
    def is_terminal(self) -> bool:
        """Whether its job has ended, well or not."""
        return self.state.is_terminal

    @property
    def job_id(self) -> str:
        """The job that makes it."""
        return str(self["job_id"])

    def refresh(self) -> Self:
        """The same resource, read again."""
        return type(self)(self.transport.get(self["links"]["self"]), self.transport)

    def wait(
        self,
        timeout: float | None = None,
        on_progress: Callable[[Self], None] | None = None,
    ) -> Self:
        """The resource once its job has succeeded; `on_progress` is given it whenever it has moved.

        `timeout` is in seconds. Raises JobFailedError, JobCancelledError or WaitTimeoutError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        current, shown, poll_s = self.refresh(), None, _FIRST_POLL_S
        while True:
            if on_progress is not None and (current.state, current["progress"]) != shown:
                shown = (current.state, current["progress"])
                on_progress(current)
            if current.is_terminal:
                return _succeeded(current)
            left_s = _LONGEST_POLL_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise WaitTimeoutError(f"{self.id} is still {current.state} after {timeout} s; it goes on")
            sleep(min(poll_s, left_s))
            poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)
            current = current.refresh()

    def events(self, after_id: int = 0) -> Generator[Event, None]:
        """Its job's events as they happen, until the job has ended."""
        return job_events(self.transport, self.job_id, after_id=after_id)

    def cancel(self) -> Self:
        """Ask its job to stop; the resource read again."""
        self.transport.post(f"/v1/jobs/{self.job_id}/cancel")
        return self.refresh()


class Job(Resource):
    """The work behind a resource."""

    @property
    def job_id(self) -> str:
        """Itself."""
        return self.id


class Product(Resource):
    """What a job makes: it has a name, and can be deleted once its job has ended."""

    def update(self, *, display_name: str | None = None, labels: Mapping[str, str] | None = None) -> Self:
        """Another name or other labels; StateConflictError once its job has ended."""
        body = {"display_name": display_name, "labels": labels}
        return type(self)(self.transport.patch(self["links"]["self"], body), self.transport)

    def delete(self) -> None:
        """Delete it; StateConflictError before its job has ended, or while something is built on it."""
        self.transport.delete(self["links"]["self"])


ResourceT = TypeVar("ResourceT", bound=Resource)


def _succeeded(resource: ResourceT) -> ResourceT:
    if resource.state is JobState.FAILED:
        raise JobFailedError(f"{resource.id} failed: {resource['error'] or resource['state_reason']}")
    if resource.state is JobState.CANCELLED:
        raise JobCancelledError(f"{resource.id} was cancelled: {resource['state_reason']}")
    return resource
