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
_LONGEST_BEAT_S = 1.0
"""A heartbeat also brings the request to cancel, which is to be seen soon however long the lease."""


class JobCancelledError(NasError):
    """Somebody asked for the job to stop."""


class WorkerDrainingError(NasError):
    """The worker itself is to stop; the job goes back to the queue."""


class AttemptLostError(Exception):
    """What did the job's work is gone, as if the worker had died: the lease is to run out."""


class JobContext:
    """Keeps the lease alive in a thread of its own while the job's code runs in the caller's.

    Made right after the claim: from then on a clock of its own runs against the lease, for a database
    that cannot be reached tells nobody that the lease is lost.
    """

    def __init__(self, queue: JobQueue, lease: Lease, *, lease_s: float, draining: threading.Event) -> None:
        self._queue = queue
        self._lease = lease
        self._lease_s = lease_s
        self._draining = draining
        self._renewed_at = time.monotonic()
        self._progress: Progress | None = None
        self._landed = 0
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
        # Not for ever: a heartbeat may wait for a database that is out of reach.
        self._thread.join(self._lease_s)

    def report(self, phase: str, done: int, total: int) -> None:
        """Tell how far the job is; the next heartbeat carries it, with the time left at the rate so far."""
        now = time.monotonic()
        if self._progress is None or self._progress.phase != phase:
            self._phase_started = (now, done)
        started, done_before = self._phase_started
        rate = (done - done_before) / (now - started) if now > started else 0.0
        eta = (total - done) / rate if rate > 0 else None
        self._progress = Progress(phase=phase, done=done, total=total, eta_seconds=eta)

    def landed(self, count: int) -> None:
        """Tell that `count` units of the job's work are durable: a next attempt need not repeat them.

        In the job's own unit, counted from the job's beginning. Within `transaction` it lands with it,
        else with the next heartbeat or transaction. Attempts that land something do not use the job up.
        """
        self._landed = max(self._landed, count)

    def lost(self, session: Session) -> None:
        """Within `transaction`: what had landed is there no more; whatever lands next is progress again."""
        self._landed = 0
        self._queue.lose(self._lease, session)

    def check(self) -> None:
        """Raise if the job is cancelled, the worker draining, or the lease lost. Cheap: call it often."""
        if self._is_lost.is_set():
            raise LeaseLostError(f"job {self._lease.job.id} was taken from this worker")
        if time.monotonic() - self._renewed_at > self._lease_s:
            raise LeaseLostError(
                f"the lease on job {self._lease.job.id} could not be renewed for {self._lease_s:g} s; "
                "another worker may have the job now"
            )
        if self._is_cancelled.is_set():
            raise JobCancelledError(f"job {self._lease.job.id} was cancelled")
        if self._draining.is_set():
            raise WorkerDrainingError("the worker is stopping")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that still holds the lease: the only way to write the job's results."""
        with self._queue.leased(self._lease) as session:
            if self._progress is not None:  # no heartbeat follows the transaction that ends the job
                self._queue.note_progress(self._lease, session, self._progress)
            yield session
            self._queue.land(self._lease, session, self._landed)

    def _beat(self) -> None:
        while not self._stop.wait(min(self._lease_s / _BEATS_PER_LEASE, _LONGEST_BEAT_S)):
            # The database counts from when it hears of it, which is never earlier.
            asked_at = time.monotonic()
            try:
                state = self._queue.heartbeat(
                    self._lease, lease_s=self._lease_s, progress=self._progress, landed=self._landed
                )
            except LeaseLostError:
                self._is_lost.set()
                return
            except SQLAlchemyError as error:
                # The database may be restarting; the lease itself says when it is too late.
                logger.warning("heartbeat failed", extra={"job_id": self._lease.job.id, "error": str(error)})
                continue
            self._renewed_at = asked_at
            if state is JobState.CANCELLING:
                self._is_cancelled.set()
