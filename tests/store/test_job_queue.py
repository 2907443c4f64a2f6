"""Laws of the job queue, on a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import update

from nas.errors import ConflictError, LeaseLostError, NotFoundError
from nas.job import JobKind, JobState, Progress
from nas.store.jobs import JobQueue, add_event
from nas.store.tables import JobRow


def expire(database, job_id):
    """The lease runs out, as when its worker died a while ago."""
    with database.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_expires_at=JobRow.created_at))


def states(queue, job_id):
    return [event.payload["state"] for event in queue.events(job_id) if event.kind == "state"]


def test_a_job_runs_from_queued_to_succeeded_and_says_so(queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    assert lease.job.id == job_id
    assert (lease.job.state, lease.job.attempt) == (JobState.RUNNING, 1)
    assert queue.succeed(lease) == JobState.SUCCEEDED
    job = queue.get(job_id)
    assert job.created_at <= job.started_at <= job.ended_at <= job.updated_at
    assert states(queue, job_id) == ["queued", "running", "succeeded"]


def test_an_unknown_job_is_not_found(queue):
    with pytest.raises(NotFoundError, match="job_nowhere"):
        queue.get("job_nowhere")


def test_a_job_whose_transaction_is_rolled_back_never_existed(database, queue):
    with database.session() as session:
        job = queue.enqueue(session, kind=JobKind.TRAIN, resource_id="sn_x", spec={})
        session.rollback()
    with pytest.raises(NotFoundError):
        queue.get(job.id)


def test_the_oldest_job_of_the_wanted_kinds_is_claimed_first(queue, enqueue):
    searching, first, second = enqueue(JobKind.SEARCH), enqueue(), enqueue()
    claimed = [queue.claim("w", lease_s=60, kinds=[JobKind.TRAIN]) for _ in range(3)]
    assert [lease and lease.job.id for lease in claimed] == [first, second, None]
    assert queue.claim("w", lease_s=60).job.id == searching


def test_two_claimers_never_get_the_same_job(queue, enqueue):
    job_ids = [enqueue() for _ in range(24)]

    def drain(worker):
        leases = []
        while (lease := queue.claim(f"worker-{worker}", lease_s=60)) is not None:
            leases.append(lease)
        return leases

    with ThreadPoolExecutor(8) as threads:
        leases = [lease for drained in threads.map(drain, range(8)) for lease in drained]
    assert sorted(lease.job.id for lease in leases) == sorted(job_ids)
    assert len({lease.token for lease in leases}) == 24


def test_an_expired_lease_gives_the_job_to_another_worker(database, queue, enqueue):
    job_id = enqueue()
    queue.claim("worker-1", lease_s=60)
    assert queue.sweep() == 0
    expire(database, job_id)
    assert queue.sweep() == 1
    assert "worker-1" in queue.get(job_id).state_reason
    assert queue.claim("worker-2", lease_s=60).job.attempt == 2


def test_a_short_lease_runs_out_by_itself(queue, enqueue):
    enqueue()
    lease = queue.claim("worker-1", lease_s=0)
    with pytest.raises(LeaseLostError, match="ran out"):
        queue.heartbeat(lease, lease_s=60)
    assert queue.sweep() == 1


def test_a_heartbeat_keeps_the_lease_alive(queue, enqueue):
    enqueue()
    lease = queue.claim("worker-1", lease_s=5)
    assert queue.heartbeat(lease, lease_s=60) == JobState.RUNNING
    assert queue.sweep() == 0


@pytest.mark.parametrize("taken_by_another", [False, True])
def test_a_worker_back_from_the_dead_cannot_write(database, queue, enqueue, taken_by_another):
    job_id = enqueue()
    dead = queue.claim("worker-1", lease_s=60)
    expire(database, job_id)
    if taken_by_another:
        queue.sweep()
        queue.claim("worker-2", lease_s=60)
    before = (queue.get(job_id), queue.events(job_id))
    with pytest.raises(LeaseLostError), queue.leased(dead) as session:
        add_event(session, job_id, "result", {"of": "a ghost"})
    for write in (
        lambda: queue.heartbeat(dead, lease_s=60),
        lambda: queue.succeed(dead),
        lambda: queue.fail(dead, "boom"),
        lambda: queue.release(dead, "draining"),
        lambda: queue.cancelled(dead),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert (queue.get(job_id), queue.events(job_id)) == before


def test_a_sweep_does_not_touch_a_job_whose_result_is_being_written(database, queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    with queue.leased(lease) as session:
        assert queue.sweep() == 0
        add_event(session, job_id, "result", {"accuracy": 0.9})
        assert queue.succeed(lease, session) == JobState.SUCCEEDED
    assert queue.get(job_id).state == JobState.SUCCEEDED


def test_results_and_success_appear_together_or_not_at_all(queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    with pytest.raises(ZeroDivisionError), queue.leased(lease) as session:
        add_event(session, job_id, "result", {})
        queue.succeed(lease, session)
        raise ZeroDivisionError
    assert queue.get(job_id).state == JobState.RUNNING
    assert [event.kind for event in queue.events(job_id)] == ["state", "state"]


def test_progress_is_read_back_and_only_a_new_phase_is_an_event(queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    for done in (1, 2):
        progress = Progress(phase="train", done=done, total=9, eta_seconds=4.5)
        queue.heartbeat(lease, lease_s=60, progress=progress)
    queue.heartbeat(lease, lease_s=60)
    assert queue.get(job_id).progress == progress
    told = [event.payload for event in queue.events(job_id) if event.kind == "progress"]
    assert told == [{"phase": "train", "done": 1, "total": 9, "eta_seconds": 4.5}]


def test_events_continue_after_the_last_one_seen(queue, enqueue):
    job_id = enqueue()
    queue.succeed(queue.claim("worker-1", lease_s=60))
    first, *rest = queue.events(job_id)
    assert queue.events(job_id, after_id=first.id) == rest
    assert queue.events(job_id, limit=1) == [first]


def test_cancelling_a_queued_job_ends_it_at_once(queue, enqueue):
    job_id = enqueue()
    assert queue.request_cancel(job_id).state == JobState.CANCELLED
    assert queue.request_cancel(job_id).state == JobState.CANCELLED
    assert queue.get(job_id).ended_at is not None
    assert queue.claim("worker-1", lease_s=60) is None


def test_a_worker_sees_the_request_to_cancel_at_its_next_heartbeat(queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    assert queue.request_cancel(job_id).state == JobState.CANCELLING
    assert queue.request_cancel(job_id).state == JobState.CANCELLING
    assert queue.heartbeat(lease, lease_s=60) == JobState.CANCELLING
    assert queue.cancelled(lease) == JobState.CANCELLED
    assert states(queue, job_id) == ["queued", "running", "cancelling", "cancelled"]


@pytest.mark.parametrize(
    "end",
    [
        lambda queue, lease: queue.succeed(lease),
        lambda queue, lease: queue.fail(lease, "boom"),
        lambda queue, lease: queue.release(lease, "draining"),
    ],
)
def test_a_job_being_cancelled_ends_cancelled_however_its_worker_ends(queue, enqueue, end):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    queue.request_cancel(job_id)
    assert end(queue, lease) == JobState.CANCELLED
    assert queue.get(job_id).state == JobState.CANCELLED


def test_a_job_whose_worker_died_while_cancelling_ends_cancelled(database, queue, enqueue):
    job_id = enqueue()
    queue.claim("worker-1", lease_s=60)
    queue.request_cancel(job_id)
    expire(database, job_id)
    assert queue.sweep() == 1
    assert queue.get(job_id).state == JobState.CANCELLED


def test_a_finished_job_cannot_be_cancelled(queue, enqueue):
    job_id = enqueue()
    queue.fail(queue.claim("worker-1", lease_s=60), "images cannot be read")
    with pytest.raises(ConflictError, match="failed"):
        queue.request_cancel(job_id)
    assert queue.get(job_id).error == "images cannot be read"


def test_a_drained_job_is_queued_again_and_its_attempt_does_not_count(queue, enqueue):
    job_id = enqueue()
    queue.release(queue.claim("worker-1", lease_s=60), "worker-1 is draining")
    job = queue.get(job_id)
    assert (job.state, job.attempt, job.state_reason) == (JobState.QUEUED, 0, "worker-1 is draining")
    assert queue.claim("worker-2", lease_s=60).job.attempt == 1


def test_a_job_that_keeps_killing_its_worker_fails(database, queue, enqueue):
    job_id = enqueue()
    for attempt in range(1, 6):
        lease = queue.claim("worker-1", lease_s=60)
        assert lease.job.attempt == attempt
        queue.heartbeat(lease, lease_s=60, progress=Progress(phase="train", done=3, total=9))
        expire(database, job_id)
        queue.sweep()
    job = queue.get(job_id)
    assert job.state == JobState.FAILED
    assert job.error == (
        "killed its worker 5 times in a row without getting further, last in phase 'train' at 3 of 9"
    )
    assert queue.claim("worker-1", lease_s=60) is None


def die(database, queue, job_id, *, landed=0):
    """One attempt that ends by kill -9, after it has landed so much."""
    lease = queue.claim("worker-1", lease_s=60)
    queue.heartbeat(lease, lease_s=60, landed=landed)
    expire(database, job_id)
    queue.sweep()
    return queue.get(job_id).state


def test_a_job_that_gets_further_each_time_outlives_any_number_of_kills(database, queue, enqueue):
    job_id = enqueue()
    assert [die(database, queue, job_id, landed=i) for i in range(1, 13)] == [JobState.QUEUED] * 12
    lease = queue.claim("worker-1", lease_s=60)
    assert lease.job.attempt == 13
    assert queue.succeed(lease) == JobState.SUCCEEDED


@pytest.mark.parametrize("num_before", [1, 4, 9])
def test_work_that_landed_gives_all_attempts_back(database, queue, enqueue, num_before):
    job_id = enqueue()
    for i in range(num_before - 1):
        die(database, queue, job_id, landed=i)
    assert die(database, queue, job_id, landed=100) == JobState.QUEUED
    # What was landed before is no growth, nor is less than it: an attempt that had to begin anew.
    assert [die(database, queue, job_id, landed=n) for n in (100, 3, 99, 0)] == [JobState.QUEUED] * 4
    assert die(database, queue, job_id, landed=100) == JobState.FAILED
    assert "killed its worker 5 times in a row without getting further" in queue.get(job_id).error


@pytest.mark.parametrize("is_rolled_back", [False, True])
def test_work_lands_with_the_transaction_that_writes_it_or_not_at_all(
    database, queue, enqueue, is_rolled_back
):
    job_id = enqueue()
    for _ in range(4):
        die(database, queue, job_id)
    lease = queue.claim("worker-1", lease_s=60)
    with suppress(ZeroDivisionError), queue.leased(lease) as session:
        queue.land(lease, session, 1)
        if is_rolled_back:
            raise ZeroDivisionError
    expire(database, job_id)
    queue.sweep()
    assert queue.get(job_id).state == (JobState.FAILED if is_rolled_back else JobState.QUEUED)


def test_a_drained_attempt_neither_counts_nor_lends_its_work_to_the_next(database, queue, enqueue):
    job_id = enqueue()
    lease = queue.claim("worker-1", lease_s=60)
    queue.heartbeat(lease, lease_s=60, landed=7)
    queue.release(lease, "draining")
    assert [die(database, queue, job_id, landed=7) for _ in range(5)] == [
        *[JobState.QUEUED] * 4,
        JobState.FAILED,
    ]


def test_a_claim_fails_a_job_whose_attempts_are_used_up_and_takes_the_next(database, queue, enqueue):
    spent, fresh = enqueue(), enqueue()
    with database.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == spent).values(attempt=5))
    assert queue.claim("worker-1", lease_s=60).job.id == fresh
    assert queue.get(spent).state == JobState.FAILED


def test_a_job_waits_for_the_one_it_depends_on(queue, enqueue):
    needed = enqueue()
    waiting = enqueue(depends_on=needed)
    lease = queue.claim("worker-1", lease_s=60)
    assert lease.job.id == needed
    assert queue.claim("worker-2", lease_s=60) is None
    queue.succeed(lease)
    assert queue.claim("worker-2", lease_s=60).job.id == waiting


def test_what_depends_on_a_failed_job_fails_with_the_reason(queue, enqueue):
    needed = enqueue()
    waiting = enqueue(depends_on=needed)
    last = enqueue(depends_on=waiting)
    queue.fail(queue.claim("worker-1", lease_s=60), "boom")
    assert queue.sweep() == 2
    assert queue.get(waiting).error == f"job {needed}, which it needs, has failed"
    assert queue.get(last).state == JobState.FAILED


def test_what_depends_on_a_cancelled_job_fails(queue, enqueue):
    needed = enqueue()
    waiting = enqueue(depends_on=needed)
    queue.request_cancel(needed)
    queue.sweep()
    assert "been cancelled" in queue.get(waiting).error


def test_concurrent_sweeps_take_a_job_back_once(database, queue, enqueue):
    job_ids = [enqueue() for _ in range(6)]
    for job_id in job_ids:
        queue.claim("worker-1", lease_s=60)
        expire(database, job_id)
    with ThreadPoolExecutor(4) as threads:
        changed = list(threads.map(lambda _: queue.sweep(), range(4)))
    assert sum(changed) == 6
    assert all(states(queue, job_id) == ["queued", "running", "queued"] for job_id in job_ids)


def test_a_cancel_and_a_claim_at_once_leave_a_lawful_job(queue, enqueue):
    for _ in range(10):
        job_id = enqueue()
        with ThreadPoolExecutor(2) as threads:
            claiming = threads.submit(queue.claim, "worker-1", lease_s=60)
            threads.submit(queue.request_cancel, job_id).result()
            lease = claiming.result()
        if lease is None:
            assert queue.get(job_id).state == JobState.CANCELLED
        else:
            assert queue.heartbeat(lease, lease_s=60) in (JobState.RUNNING, JobState.CANCELLING)
            assert queue.get(job_id).state == JobState.CANCELLING


def test_jobs_are_listed_newest_first_in_pages(queue, enqueue):
    job_ids = [enqueue() for _ in range(5)]
    seen, after = [], None
    while page := queue.list(page_size=2, after=after):
        seen += [job.id for job in page]
        after = (page[-1].created_at, page[-1].id)
    assert seen == job_ids[::-1]
    assert queue.list(page_size=9, states=[JobState.RUNNING]) == []


def test_a_queue_is_only_its_database(database, queue, enqueue):
    job_id = enqueue()
    assert JobQueue(database).get(job_id) == queue.get(job_id)
