"""A job's events, read as a stream that is picked up again where it was cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from nas.client.errors import ServiceUnavailableError
from nas.client.transport import Transport, retry_pauses_s
from nas.job import JobState

_SILENCE_S = 40.0
"""The service comments every 15 s; after this long the connection is dead."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: int
    kind: str
    payload: dict[str, Any]
    created_at: str

    @property
    def is_terminal(self) -> bool:
        """Whether the job ended with it."""
        return self.kind == "state" and JobState(self.payload["state"]).is_terminal


def job_events(transport: Transport, job_id: str, *, after_id: int = 0) -> Iterator[Event]:
    """Events as they happen, each once and in order, until the job has ended."""
    pauses, had_ended = retry_pauses_s(), False
    while True:
        try:
            for event in _connected(transport, job_id, after_id):
                after_id, pauses = event.id, retry_pauses_s()
                yield event
                if event.is_terminal:
                    return
            # Only a stream begun after the end has surely brought all that was left.
            if had_ended:
                return
            had_ended = JobState(transport.get(f"/v1/jobs/{job_id}")["state"]).is_terminal
        except httpx.TransportError as error:
            _pause(pauses, error)


def _pause(pauses: Iterator[float], error: httpx.TransportError) -> None:
    pause_s = next(pauses, None)
    if pause_s is None:
        raise ServiceUnavailableError(f"the stream of events broke and cannot be resumed: {error}") from error
    time.sleep(pause_s)


def _connected(transport: Transport, job_id: str, after_id: int) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after_id)}
    path = f"/v1/jobs/{job_id}/events"
    with transport.stream(path, headers, read_timeout_s=_SILENCE_S) as response:
        yield from parse_events(response.iter_lines())


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events that the lines of a stream spell; one cut in the middle is not given."""
    data = ""
    for line in lines:
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
        elif not line and data:
            yield _as_event(json.loads(data))
            data = ""


def _as_event(data: dict[str, Any]) -> Event:
    # By name: a later service may tell more.
    return Event(data["id"], data["kind"], data["payload"], data["created_at"])
