# Made by `python -m nas.client.derive` from nas/client/asynchronous/events.py: change that one.
"""A job's events, read as a stream that is picked up again where it was cut."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import httpx

from nas.client.concurrency import sleep
from nas.client.errors import ServiceUnavailableError
from nas.client.event import Event
from nas.client.messages import retry_pauses_s
from nas.client.transport import Transport
from nas.job import JobState

_SILENCE_S = 40.0
"""The service comments every 15 s; after this long the connection is dead."""


def job_events(transport: Transport, job_id: str, *, after_id: int = 0) -> Generator[Event, None]:
    """Events as they happen, each once and in order, until the job has ended."""
    pauses, had_ended = retry_pauses_s(), False
    while True:
        try:
            # Closed here: whoever stops reading must not leave a connection to the garbage collector.
            with closing(_connected(transport, job_id, after_id)) as events:
                for event in events:
                    after_id, pauses = event.id, retry_pauses_s()
                    yield event
                    if event.is_terminal:
                        return
            # Only a stream begun after the end has surely brought all that was left.
            if had_ended:
                return
            job = transport.get(f"/v1/jobs/{job_id}")
            had_ended = JobState(job["state"]).is_terminal
        except httpx.TransportError as error:
            _pause(pauses, error)


def _pause(pauses: Iterator[float], error: httpx.TransportError) -> None:
    pause_s = next(pauses, None)
    if pause_s is None:
        raise ServiceUnavailableError(f"the stream of events broke and cannot be resumed: {error}") from error
    sleep(pause_s)


def _connected(transport: Transport, job_id: str, after_id: int) -> Generator[Event, None]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after_id)}
    path = f"/v1/jobs/{job_id}/events"
    with transport.stream(path, headers, read_timeout_s=_SILENCE_S) as response:
        for event in parse_events(response.iter_lines()):
            yield event


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events that the lines of a stream spell; one cut in the middle is not given."""
    data = ""
    for line in lines:
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
        elif not line and data:
            yield Event.from_json(json.loads(data))
            data = ""
