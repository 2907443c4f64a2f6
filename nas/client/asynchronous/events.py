"""A job's events, read as a stream that is picked up again where it was cut."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing

import httpx

from nas.client.asynchronous.concurrency import sleep
from nas.client.asynchronous.transport import AsyncTransport
from nas.client.errors import ServiceUnavailableError
from nas.client.event import Event
from nas.client.messages import retry_pauses_s
from nas.job import JobState

_SILENCE_S = 40.0
"""The service comments every 15 s; after this long the connection is dead."""


async def job_events(
    transport: AsyncTransport, job_id: str, *, after_id: int = 0
) -> AsyncGenerator[Event, None]:
    """Events as they happen, each once and in order, until the job has ended."""
    pauses, had_ended = retry_pauses_s(), False
    while True:
        try:
            # Closed here: whoever stops reading must not leave a connection to the garbage collector.
            async with aclosing(_connected(transport, job_id, after_id)) as events:
                async for event in events:
                    after_id, pauses = event.id, retry_pauses_s()
                    yield event
                    if event.is_terminal:
                        return
            # Only a stream begun after the end has surely brought all that was left.
            if had_ended:
                return
            job = await transport.get(f"/v1/jobs/{job_id}")
            had_ended = JobState(job["state"]).is_terminal
        except httpx.TransportError as error:
            await _pause(pauses, error)


async def _pause(pauses: Iterator[float], error: httpx.TransportError) -> None:
    pause_s = next(pauses, None)
    if pause_s is None:
        raise ServiceUnavailableError(f"the stream of events broke and cannot be resumed: {error}") from error
    await sleep(pause_s)


async def _connected(transport: AsyncTransport, job_id: str, after_id: int) -> AsyncGenerator[Event, None]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after_id)}
    path = f"/v1/jobs/{job_id}/events"
    async with transport.stream(path, headers, read_timeout_s=_SILENCE_S) as response:
        async for event in parse_events(response.aiter_lines()):
            yield event


async def parse_events(lines: AsyncIterable[str]) -> AsyncIterator[Event]:
    """The events that the lines of a stream spell; one cut in the middle is not given."""
    data = ""
    async for line in lines:
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
        elif not line and data:
            yield Event.from_json(json.loads(data))
            data = ""
