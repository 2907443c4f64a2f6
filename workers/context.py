"""A running job's link to its row: progress goes out, cancel and the loss of the lease come in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from nas.errors import LeaseLostError, NasError
from nas.job import JobState, Progress
from nas.store.jobs import JobQueue, Lease

logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 5


class JobCancelledError(NasError):
    """Somebody asked for the job to stop."""


class WorkerDrainingError(NasError):
    """The worker itself is to stop; the job goes back to the queue."""


class JobContext:
    """Keeps the lease alive in a thread of its own while the job's code runs in the caller's."""

    def __init__(self, queue: JobQueue, lease: Lease, *, lease_s: float, draining: threading.Event) -> None:
        self._queue = queue
        self._lease = lease
        self._lease_s = lease_s
        self._draining = draining
        self._progress: Progress | None = None
        self._phase_started = (0.0, 0)
        self._stop = threading.Event()
        self._is_cancelled = threading.Event()
        self._is_lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> JobContext:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def report(self, phase: str, done: int, total: int) -> None:
        """Tell how far the job is; the next heartbeat carries it, with the time left at the rate so far."""
        now = time.monotonic()
        if self._progress is None or self._progress.phase != phase:
            self._phase_started = (now, done)
        started, done_before = self._phase_started
        rate = (done - done_before) / (now - started) if now > started else 0.0
        eta = (total - done) / rate if rate > 0 else None
        self._progress = Progress(phase=phase, done=done, total=total, eta_seconds=eta)

    def check(self) -> None:
        """Raise if the job is cancelled, the worker draining, or the lease lost."""
        if self._is_lost.is_set():
            raise LeaseLostError(f"job {self._lease.job.id} was taken from this worker")
        if self._is_cancelled.is_set():
            raise JobCancelledError(f"job {self._lease.job.id} was cancelled")
        if self._draining.is_set():
            raise WorkerDrainingError("the worker is stopping")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that still holds the lease: the only way to write the job's results."""
        with self._queue.leased(self._lease) as session:
            yield session

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / _BEATS_PER_LEASE):
            try:
                state = self._queue.heartbeat(self._lease, lease_s=self._lease_s, progress=self._progress)
            except LeaseLostError:
                self._is_lost.set()
                return
            except SQLAlchemyError as error:
                # The database may be restarting; the lease itself says when it is too late.
                logger.warning("heartbeat failed", extra={"job_id": self._lease.job.id, "error": str(error)})
                continue
            if state is JobState.CANCELLING:
                self._is_cancelled.set()
