"""A running job's link to its row: the lease is kept, cancel and loss are seen, results need the lease."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import make_url, text

from nas.errors import InvalidRequestError, LeaseLostError
from nas.job import JobKind, JobState
from nas.store.database import Database, migrate
from nas.store.jobs import JobQueue
from nas.store.tables import JobRow
from tests.conftest import administer
from tests.workers.conftest import drained_when, take_away
from workers.context import AttemptLostError, JobCancelledError, JobContext, WorkerDrainingError
from workers.service import WorkerService

LEASE_S = 4.0
"""Of leases that are to run out; a busy machine may stand still for a second or two."""
KEPT_S = 60.0
"""Of leases that are to be kept whatever the machine does; a heartbeat comes every second."""
SEEN_S = 20.0
"""What comes with a heartbeat or the end of a lease is seen within that, on any machine."""


@pytest.fixture
def queue(database) -> JobQueue:
    return JobQueue(database)


@pytest.fixture
def job_id(database) -> str:
    with database.begin() as session:
        return JobQueue.enqueue(session, kind=JobKind.TRAIN, resource_id="sn_x", spec={}).id


@pytest.fixture
def lease(queue, job_id):
    return queue.claim("first", lease_s=KEPT_S)


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def context(queue, lease, draining):
    with JobContext(queue, lease, lease_s=KEPT_S, draining=draining) as context:
        yield context


def raised_by_check(context) -> Exception:
    """What `check` raises, as a job that calls it at every step would see it."""
    deadline = time.monotonic() + SEEN_S
    while time.monotonic() < deadline:
        try:
            context.check()
        except Exception as error:
            return error
        time.sleep(0.01)
    raise AssertionError(f"check raised nothing within {SEEN_S} s")


@pytest.mark.slow
def test_the_heartbeat_outlives_the_lease(queue, job_id, draining):
    lease = queue.claim("first", lease_s=LEASE_S)
    with JobContext(queue, lease, lease_s=LEASE_S, draining=draining) as context:
        for _ in range(25):
            time.sleep(LEASE_S / 10)
            assert queue.sweep() == 0
            context.check()
        assert queue.get(job_id).state is JobState.RUNNING
        with context.transaction():
            pass


def test_progress_travels_with_the_heartbeat(queue, job_id, context):
    context.report("train", 3, 12)
    deadline = time.monotonic() + SEEN_S
    while (progress := queue.get(job_id).progress) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (progress.phase, progress.done, progress.total) == ("train", 3, 12)


def test_time_left_is_told_from_the_rate_within_the_phase(queue, job_id, context):
    context.report("decode", 0, 1)
    asked_at = time.monotonic()
    context.report("train", 50, 100)
    began_at = time.monotonic()
    time.sleep(0.2)
    least_s = time.monotonic() - began_at
    context.report("train", 60, 100)
    most_s = time.monotonic() - asked_at
    deadline = time.monotonic() + SEEN_S
    while (progress := queue.get(job_id).progress) is None or progress.done < 60:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Ten units in that time, and forty to come.
    assert 4 * least_s <= progress.eta_seconds <= 4 * most_s


def test_a_job_that_succeeds_between_two_heartbeats_has_told_all_of_its_progress(queue, job_id):
    def reporting(job, context):
        context.report("train", 0, 5)
        time.sleep(0.01)
        context.report("train", 4, 5)
        context.report("train", 5, 5)
        return lambda session: None

    run_worker(queue, Runner(reporting), lambda: queue.get(job_id).state.is_terminal)
    progress = queue.get(job_id).progress
    assert (progress.phase, progress.done, progress.total) == ("train", 5, 5)
    assert progress.eta_seconds is None
    assert [event.kind for event in queue.events(job_id)][-1] == "state"


def test_cancel_is_seen_within_a_heartbeat(queue, job_id, context):
    queue.request_cancel(job_id)
    assert isinstance(raised_by_check(context), JobCancelledError)


def test_a_lost_lease_is_seen_and_nothing_can_be_written(database, queue, job_id, context):
    take_away(queue, database)
    assert queue.claim("second", lease_s=60).job.id == job_id
    assert isinstance(raised_by_check(context), LeaseLostError)
    with pytest.raises(LeaseLostError), context.transaction():
        pass


@pytest.fixture
def unplug(postgres_server, empty_database_url):
    """A database of its own, and what takes it away: who is connected is thrown out, and nobody gets in."""
    migrate(empty_database_url)
    name = make_url(empty_database_url).database
    others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"

    def allow(is_allowed: bool) -> None:
        administer(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_allowed}; {others}")

    database = Database(empty_database_url)
    yield database, allow
    allow(True)
    database.dispose()


@pytest.mark.slow
def test_an_unreachable_database_is_a_lost_lease_once_the_lease_has_run_out(unplug, draining):
    database, allow = unplug
    queue = JobQueue(database)
    with database.begin() as session:
        JobQueue.enqueue(session, kind=JobKind.TRAIN, resource_id="sn_x", spec={})
    lease = queue.claim("first", lease_s=LEASE_S)
    with JobContext(queue, lease, lease_s=LEASE_S, draining=draining) as context:
        time.sleep(1.5 * LEASE_S)
        context.check()
        allow(False)
        gone_at = time.monotonic()
        context.check()
        error = raised_by_check(context)
    assert isinstance(error, LeaseLostError)
    assert f"could not be renewed for {LEASE_S:g} s" in str(error)
    # Not before: a database that is back within the lease costs nothing.
    assert time.monotonic() - gone_at > LEASE_S / 2


@pytest.mark.slow
def test_a_database_that_is_back_within_the_lease_costs_nothing(unplug, draining):
    database, allow = unplug
    queue = JobQueue(database)
    with database.begin() as session:
        job_id = JobQueue.enqueue(session, kind=JobKind.TRAIN, resource_id="sn_x", spec={}).id
    lease_s = 3 * LEASE_S
    lease = queue.claim("first", lease_s=lease_s)
    with JobContext(queue, lease, lease_s=lease_s, draining=draining) as context:
        allow(False)
        # A few heartbeats long.
        time.sleep(lease_s / 4)
        allow(True)
        time.sleep(lease_s)
        context.check()
        assert queue.sweep() == 0
        assert queue.get(job_id).state is JobState.RUNNING


def landed(database, job_id):
    with database.session() as session:
        row = session.get(JobRow, job_id)
        return row.landed, row.landed_at_attempt


def test_what_landed_travels_with_the_heartbeat_and_never_shrinks(database, job_id, context):
    context.landed(40)
    context.landed(3)
    deadline = time.monotonic() + SEEN_S
    while landed(database, job_id) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert landed(database, job_id) == (40, 1)


def test_what_was_lost_lands_anew(database, queue, job_id, context):
    """Checkpoints turned out damaged: the steps that are taken again are progress, not a standstill."""
    context.landed(40)
    with context.transaction() as session:
        context.lost(session)
    assert landed(database, job_id)[0] == 0
    context.landed(3)
    with context.transaction():
        pass
    assert landed(database, job_id) == (3, 1)


def test_what_landed_is_written_with_the_transaction(database, job_id, context):
    with context.transaction():
        context.landed(7)
    assert landed(database, job_id) == (7, 1)


def test_draining_is_seen(context, draining):
    draining.set()
    with pytest.raises(WorkerDrainingError):
        context.check()


class Runner:
    """Does what it is told to, with the job's context."""

    def __init__(self, do) -> None:
        self.do = do
        self.has_started = threading.Event()

    def run(self, job, context):
        self.has_started.set()
        return self.do(job, context)


def until_stopped(job, context):
    raise raised_by_check(context)


def finish_with_nothing(job, context):
    return lambda session: None


def run_worker(queue, runner, until) -> None:
    service = WorkerService(queue, {JobKind.TRAIN: runner}, lease_s=KEPT_S, poll_s=0.02)
    with drained_when(service, until, timeout_s=60):
        service.run()


def test_a_draining_worker_gives_its_job_back_and_the_attempt_does_not_count(queue, job_id):
    runner = Runner(until_stopped)
    run_worker(queue, runner, runner.has_started.is_set)
    job = queue.get(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    # Another worker takes it up at once, without waiting for a lease to run out.
    run_worker(queue, Runner(finish_with_nothing), lambda: queue.get(job_id).state.is_terminal)
    assert queue.get(job_id).state is JobState.SUCCEEDED


def test_an_attempt_that_is_lost_leaves_its_job_to_the_next_once_the_lease_has_run_out(queue, job_id):
    def lose(job, context):
        if job.attempt == 1:
            context.landed(5)
            raise AttemptLostError("Ray failed")
        assert job.error == "Ray failed"
        return finish_with_nothing(job, context)

    service = WorkerService(queue, {JobKind.TRAIN: Runner(lose)}, lease_s=LEASE_S, poll_s=0.02)
    with drained_when(service, lambda: queue.get(job_id).state.is_terminal, timeout_s=60):
        service.run()
    job = queue.get(job_id)
    assert (job.state, job.attempt, job.error) == (JobState.SUCCEEDED, 2, None)


def test_a_cancelled_job_ends_cancelled_and_the_worker_goes_on(database, queue, job_id):
    with database.begin() as session:
        next_id = JobQueue.enqueue(session, kind=JobKind.TRAIN, resource_id="sn_y", spec={}).id
    runner = Runner(
        lambda job, context: (until_stopped if job.id == job_id else finish_with_nothing)(job, context)
    )

    def cancel_first_and_await_second() -> bool:
        if runner.has_started.is_set() and queue.get(job_id).state is JobState.RUNNING:
            queue.request_cancel(job_id)
        return queue.get(next_id).state.is_terminal

    run_worker(queue, runner, cancel_first_and_await_second)
    assert queue.get(job_id).state is JobState.CANCELLED
    assert queue.get(next_id).state is JobState.SUCCEEDED


def test_an_error_of_the_users_fails_the_job_with_its_message(queue, job_id):
    def refuse(job, context):
        raise InvalidRequestError("epochs 0 is not at least 1; raise it")

    run_worker(queue, Runner(refuse), lambda: queue.get(job_id).state.is_terminal)
    job = queue.get(job_id)
    assert (job.state, job.error) == (JobState.FAILED, "epochs 0 is not at least 1; raise it")


def test_a_defect_of_ours_fails_the_job_and_says_so(queue, job_id):
    def crash(job, context):
        raise ZeroDivisionError("division by zero")

    run_worker(queue, Runner(crash), lambda: queue.get(job_id).state.is_terminal)
    job = queue.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error == "internal error (ZeroDivisionError): division by zero"


def test_results_and_the_end_of_the_job_are_one_transaction(queue, job_id):
    def half_done(job, context):
        def finish(session):
            session.execute(text("UPDATE jobs SET phase = 'written' WHERE id = :id"), {"id": job.id})
            raise ZeroDivisionError("while finishing")

        return finish

    run_worker(queue, Runner(half_done), lambda: queue.get(job_id).state.is_terminal)
    job = queue.get(job_id)
    assert (job.state, job.progress) == (JobState.FAILED, None)


def test_a_job_taken_by_another_worker_is_left_to_it(database, queue, job_id):
    def lose_it(job, context):
        take_away(queue, database)
        queue.claim("second", lease_s=60)
        raise raised_by_check(context)

    runner = Runner(lose_it)
    run_worker(queue, runner, runner.has_started.is_set)
    job = queue.get(job_id)
    assert (job.state, job.attempt, job.error) == (JobState.RUNNING, 2, None)
