"""The worker's loop: claim a job, run it, end it; until told to stop."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from nas.errors import LeaseLostError, NasError
from nas.job import Job, JobKind
from nas.store.jobs import JobQueue, Lease
from workers.context import AttemptLostError, JobCancelledError, JobContext, WorkerDrainingError
from workers.storage_errors import storage_message

logger = logging.getLogger(__name__)

_TIDY_EVERY_S = 600.0
_FIRST_PAUSE_SHARE = 1 / 20
"""Of the longest pause: whoever waited for a job that has just ended may send the next at once."""
_PAUSE_GROWTH = 1.3

Finish = Callable[[Session], None]
"""Writes a job's last results in the transaction that ends it."""


class JobRunner(Protocol):
    """Does one kind of job."""

    def run(self, job: Job, context: JobContext) -> Finish:
        """Do the work; results on the way are written through `context.transaction`."""
        ...


class WorkerService:
    """One worker process: one job at a time."""

    def __init__(
        self,
        queue: JobQueue,
        runners: Mapping[JobKind, JobRunner],
        *,
        lease_s: float,
        poll_s: float,
        tidy: Callable[[], None] = lambda: None,
        let_go: Callable[[], None] = lambda: None,
    ) -> None:
        """An idle worker looks for a job every `poll_s`, and more often soon after one.

        `tidy` is called while there is no job, at the start and now and then; `let_go` at the end, for
        what runners keep from job to job.
        """
        self._queue = queue
        self._runners = runners
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._pause_s = poll_s
        self._tidy = tidy
        self._let_go = let_go
        self._tidied_at: float | None = None
        self._draining = threading.Event()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def drain(self) -> None:
        """Stop after giving the current job back."""
        self._draining.set()

    def run(self) -> None:
        """Work until drained."""
        logger.info("worker started", extra={"worker": self._name})
        try:
            while not self._draining.is_set():
                self._work_or_pause()
        finally:
            self._let_go()

    def _work_or_pause(self) -> None:
        try:
            has_worked = self._work_once()
        except OperationalError as error:
            logger.warning("the database does not answer: %s", error.orig)
            has_worked = False
        if has_worked:
            self._pause_s = self._poll_s * _FIRST_PAUSE_SHARE
            return
        self._tidy_if_due()
        # Not `wait`: the signal handler that drains may interrupt it while it holds the event's lock.
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * _PAUSE_GROWTH, self._poll_s)

    def _tidy_if_due(self) -> None:
        now = time.monotonic()
        if self._tidied_at is not None and now - self._tidied_at < _TIDY_EVERY_S:
            return
        self._tidied_at = now
        try:
            self._tidy()
        except Exception:
            # What is left over takes up room and does no other harm: the next time will do.
            logger.exception("tidying up failed")

    def _work_once(self) -> bool:
        self._queue.sweep()
        lease = self._queue.claim(self._name, lease_s=self._lease_s, kinds=list(self._runners))
        if lease is None:
            return False
        logger.info("job claimed", extra={"job_id": lease.job.id, "kind": lease.job.kind})
        try:
            self._run_job(lease)
        except LeaseLostError as error:
            # Nothing to undo: whatever was not written under the lease was never written.
            logger.warning("lease lost: %s", error, extra={"job_id": lease.job.id})
        return True

    def _run_job(self, lease: Lease) -> None:
        job = lease.job
        try:
            with JobContext(self._queue, lease, lease_s=self._lease_s, draining=self._draining) as context:
                finish = self._runners[job.kind].run(job, context)
                context.check()
                with context.transaction() as session:
                    finish(session)
                    self._queue.succeed(lease, session)
            logger.info("job ended", extra={"job_id": job.id})
        except JobCancelledError:
            self._queue.cancelled(lease)
        except WorkerDrainingError as error:
            self._queue.release(lease, str(error))
        except (LeaseLostError, OperationalError):
            raise
        except AttemptLostError as error:
            # Once the lease has run out the job goes on from what has landed, here or elsewhere.
            logger.warning("attempt lost: %s", error, extra={"job_id": job.id})
            self._queue.note_lost(lease, str(error))
        except NasError as error:
            logger.warning("job failed: %s", error, extra={"job_id": job.id})
            self._queue.fail(lease, str(error))
        except OSError as error:
            message = storage_message(error)
            logger.exception("job failed by the system", extra={"job_id": job.id})
            self._queue.fail(lease, message or f"internal error ({type(error).__name__}): {error}")
        except Exception as error:
            logger.exception("job failed by a defect of ours", extra={"job_id": job.id})
            self._queue.fail(lease, f"internal error ({type(error).__name__}): {error}")
