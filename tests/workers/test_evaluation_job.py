"""Batches from outside, measured by a table: killed, cancelled, beaten by others, and run again."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from nas.job import JobState
from nas.store import evaluation_batches, evaluations, searches, supernets
from tests.api.worker import NUM_VAL, costs_of, ladder, measurement
from tests.workers.conftest import SPACE, take_away
from tests.workers.table import Killed, Table, measured_keys, run_with_table
from workers.trained import describe_supernet

NETWORKS = ladder(8)


def answers(site, batch) -> list[tuple]:
    """For each network given: its key, how many images it got right, and whether that was known before."""
    with site.database.session() as session:
        return [
            (
                found.item.architecture_key,
                None if found.evaluation is None else found.evaluation.num_correct,
                found.item.is_reused,
            )
            for found in evaluation_batches.items(session, batch.row.id)
        ]


def looked_up(network) -> int:
    return int(network.key[:6], 16) % NUM_VAL


def test_each_network_is_measured_once_and_answered_at_every_place(site, supernet_id):
    given = [NETWORKS[3], NETWORKS[0], NETWORKS[3], NETWORKS[5], NETWORKS[0]]
    batch, table = site.add_batch(supernet_id, given), Table()
    run_with_table(site, batch.job.id, table)
    job = site.queue.get(batch.job.id)
    assert (job.state, job.progress.done, job.progress.total) == (JobState.SUCCEEDED, 3, 3)
    assert table.measured == [network.key for network in (NETWORKS[3], NETWORKS[0], NETWORKS[5])]
    assert answers(site, batch) == [(network.key, looked_up(network), False) for network in given]
    assert site.event_payloads(batch.job.id, "evaluations_ended") == [
        {"num_measured": 5, "num_infeasible": 0}
    ]
    assert table.is_closed


def test_what_is_infeasible_is_not_measured(site, supernet_id):
    batch, table = site.add_batch(supernet_id, NETWORKS[:4], infeasible={0, 2}), Table()
    run_with_table(site, batch.job.id, table)
    assert table.measured == [NETWORKS[1].key, NETWORKS[3].key]
    assert [correct is None for _, correct, _ in answers(site, batch)] == [True, False, True, False]


def test_where_nothing_is_to_be_measured_no_evaluator_is_opened(site, supernet_id):
    first = site.add_batch(supernet_id, NETWORKS)
    run_with_table(site, first.job.id, Table())
    again, table = site.add_batch(supernet_id, NETWORKS), Table()
    run_with_table(site, again.job.id, table)
    assert (table.measured, table.is_closed) == ([], False)
    assert answers(site, again) == [(key, correct, True) for key, correct, _ in answers(site, first)]


@pytest.mark.parametrize("num_measured", [0, 1, 5, 7])
def test_a_killed_batch_run_again_records_nothing_twice(site, supernet_id, num_measured):
    batch = site.add_batch(supernet_id, NETWORKS)

    def die(num_done):
        if num_done == num_measured:
            raise Killed

    first, second = Table(die), Table()
    with pytest.raises(Killed):
        run_with_table(site, batch.job.id, first)
    assert [correct is not None for _, correct, _ in answers(site, batch)].count(True) == num_measured
    run_with_table(site, batch.job.id, second)
    job = site.queue.get(batch.job.id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert first.measured + second.measured == [network.key for network in NETWORKS]
    assert measured_keys(site, supernet_id) == first.measured + second.measured
    # What its own first attempt measured is no less the batch's.
    assert answers(site, batch) == [(network.key, looked_up(network), False) for network in NETWORKS]


def test_a_batch_killed_at_every_other_network_still_ends(site, supernet_id):
    networks = ladder(14)
    batch = site.add_batch(supernet_id, networks)

    def die_after_two(num_done):
        if num_done == 2:
            raise Killed

    for _ in range(6):
        with pytest.raises(Killed):
            run_with_table(site, batch.job.id, Table(die_after_two))
    run_with_table(site, batch.job.id, Table())
    assert site.queue.get(batch.job.id).state is JobState.SUCCEEDED


def test_a_worker_that_lost_its_lease_writes_nothing_more(site, supernet_id):
    batch, seen = site.add_batch(supernet_id, NETWORKS), SimpleNamespace(is_taken=False)

    def another_takes_over(num_done):
        if num_done == 3 and not seen.is_taken:
            take_away(site.queue, site.database)
            seen.is_taken = True

    table = Table(another_takes_over)
    run_with_table(site, batch.job.id, table)
    assert site.queue.get(batch.job.id).state is JobState.SUCCEEDED
    # The fourth was measured, could not be written, and was measured again.
    assert len(table.measured) == len(NETWORKS) + 1
    assert len(measured_keys(site, supernet_id)) == len(NETWORKS)


def test_cancelled_it_ends_within_seconds_and_keeps_what_was_measured(site, supernet_id):
    batch, told = site.add_batch(supernet_id, NETWORKS), SimpleNamespace(at=None)

    def cancel(num_done):
        if num_done == 2:
            site.queue.request_cancel(batch.job.id)
            told.at = time.monotonic()
            while True:
                table.check()
                time.sleep(0.02)

    table = Table(cancel)
    run_with_table(site, batch.job.id, table)
    assert time.monotonic() - told.at < 10
    assert site.queue.get(batch.job.id).state is JobState.CANCELLED
    assert table.is_closed
    found = answers(site, batch)
    assert [correct is not None for _, correct, _ in found] == [True] * 2 + [False] * 6


def test_what_is_measured_between_its_making_and_its_start_is_taken_over(site, supernet_id):
    batch = site.add_batch(supernet_id, NETWORKS[:3])
    _record(site, supernet_id, NETWORKS[1], num_correct=1)
    table = Table()
    run_with_table(site, batch.job.id, table)
    assert table.measured == [NETWORKS[0].key, NETWORKS[2].key]
    assert answers(site, batch)[1] == (NETWORKS[1].key, 1, True)


def test_beaten_to_a_network_it_shows_what_was_recorded_first(site, supernet_id):
    batch = site.add_batch(supernet_id, NETWORKS[:3])
    table = Table(lambda num_done: num_done == 1 and _record(site, supernet_id, NETWORKS[1], num_correct=1))
    run_with_table(site, batch.job.id, table)
    assert len(table.measured) == 3
    assert answers(site, batch)[1] == (NETWORKS[1].key, 1, True)
    assert len(measured_keys(site, supernet_id)) == 3


def test_a_search_knows_what_a_batch_has_measured(site, add_trained):
    alone, table = add_trained(), Table()
    run_with_table(site, site.add_search(alone, num_trials=6).job.id, table)
    with site.database.session() as session:
        protocol = describe_supernet(session, supernets.get(session, alone).row).protocol
        networks = [SPACE.parse(row.architecture) for row in evaluations.known(session, protocol).values()]
    shared = add_trained()
    batch = site.add_batch(shared, networks)
    run_with_table(site, batch.job.id, Table())
    search, idle = site.add_search(shared, num_trials=6), Table()
    run_with_table(site, search.job.id, idle)
    assert len(table.measured) == 6
    assert idle.measured == []
    with site.database.session() as session:
        trials = searches.trials(session, search.row.id)
    assert [trial.evaluation.architecture_key for trial in trials] == table.measured
    assert all(trial.trial.is_reused for trial in trials)


def test_an_evaluator_that_fails_ends_the_job_with_its_reason(site, supernet_id):
    batch = site.add_batch(supernet_id, NETWORKS)

    def fail(num_done):
        raise ValueError("out of paper")

    table = Table(fail)
    run_with_table(site, batch.job.id, table)
    job = site.queue.get(batch.job.id)
    assert (job.state, table.is_closed) == (JobState.FAILED, True)
    assert "out of paper" in job.error


def _record(site, supernet_id, network, *, num_correct: int) -> None:
    with site.database.begin() as session:
        evaluations.record(session, supernet_id, measurement(network, num_correct), costs_of(network))
