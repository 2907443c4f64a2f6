"""A job's events as Server-Sent Events: read from the database, so that a stream can be cut and resumed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from fastapi.concurrency import run_in_threadpool

from api.schemas.jobs import describe_event
from api.services import Services
from nas.errors import NotFoundError
from nas.store.jobs import JobEvent

POLL_S = 0.5
COMMENT_EVERY_S = 15.0
_BATCH = 100


async def event_stream(services: Services, job_id: str, *, after_id: int) -> AsyncIterator[bytes]:
    """Events after `after_id` as they come, a comment when nothing does; ends after the terminal one."""
    last_sent = time.monotonic()
    # Told at once, so that the client knows it is connected before anything happens.
    yield b": open\n\n"
    while True:
        events, is_over = await run_in_threadpool(_poll, services, job_id, after_id)
        for event in events:
            yield _as_message(event)
            after_id, last_sent = event.id, time.monotonic()
        # Whatever there is comes before a stop: a reader takes a clean end for a complete one.
        if is_over or (services.stopping.is_set() and not events):
            return
        if time.monotonic() - last_sent >= COMMENT_EVERY_S:
            yield b": still here\n\n"
            last_sent = time.monotonic()
        if not events:
            with suppress(TimeoutError):
                await asyncio.wait_for(services.stopping.wait(), POLL_S)


def _poll(services: Services, job_id: str, after_id: int) -> tuple[Sequence[JobEvent], bool]:
    # The state first: what is read after the end holds every event there will be.
    try:
        has_ended = services.queue.get(job_id).state.is_terminal
    except NotFoundError:
        # Deleted with its resource while the stream was open, after its end.
        return [], True
    events = services.queue.events(job_id, after_id=after_id, limit=_BATCH)
    return events, has_ended and len(events) < _BATCH


def _as_message(event: JobEvent) -> bytes:
    data = describe_event(event).model_dump_json()
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n".encode()
