"""Search jobs whose networks are measured by a table: cancelled, infeasible, killed and run again."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from nas.costs import costs
from nas.errors import LeaseLostError
from nas.job import JobState
from nas.pareto import pareto_front
from nas.store import evaluations, searches
from supernet.training import state
from tests.api.worker import NUM_VAL, costs_of, measurement
from tests.workers.conftest import SPACE, expire_leases, take_away
from tests.workers.table import Killed, Table, measured_keys, run_with_table

NUM_TRIALS = 12
NUM_BEATEN_AT = 3
"""Within the first round, whose figures decide the next."""


def trials_of(site, search_id: str) -> list[tuple]:
    with site.database.session() as session:
        found = searches.trials(session, search_id)
    return [
        (
            t.trial.number,
            t.trial.round,
            t.trial.is_reused,
            t.evaluation.architecture_key,
            t.evaluation.num_correct,
        )
        for t in found
    ]


def macs_of(site, search) -> list[int]:
    with site.database.session() as session:
        return [item.evaluation.macs for item in searches.trials(session, search.row.id)]


def last_frontier(site, job_id: str) -> list[int]:
    return site.event_payloads(job_id, "round")[-1]["frontier"]


def undisturbed(site, add_trained, **fields):
    """The same search on a supernet of the same weights, left alone."""
    search = site.add_search(add_trained(), num_trials=NUM_TRIALS, **fields)
    run_with_table(site, search.job.id, Table())
    return trials_of(site, search.row.id), last_frontier(site, search.job.id)


def test_a_search_left_alone_measures_each_network_once_and_frees_its_pool(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    table = Table()
    run_with_table(site, search.job.id, table)
    assert len(trials_of(site, search.row.id)) == len(set(table.measured)) == NUM_TRIALS
    assert (table.num_opened, table.is_closed) == (1, True)


def test_cancelled_in_mid_round_it_ends_within_seconds_and_keeps_what_was_measured(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    num_seeds = NUM_TRIALS // 3
    told = SimpleNamespace(at=None)

    def cancel_in_second_round(num_measured):
        if num_measured == num_seeds + 2:
            site.queue.request_cancel(search.job.id)
            told.at = time.monotonic()
            while True:
                # As the pool does while it waits for its actors.
                table.check()
                time.sleep(0.02)

    table = Table(cancel_in_second_round)
    run_with_table(site, search.job.id, table)
    assert time.monotonic() - told.at < 10
    assert site.queue.get(search.job.id).state is JobState.CANCELLED
    assert table.is_closed
    assert measured_keys(site, supernet_id) == table.measured
    assert len(table.measured) == num_seeds + 2
    # The round in hand is no round; the one before stands.
    assert [trial[0] for trial in trials_of(site, search.row.id)] == list(range(num_seeds))


def test_an_infeasible_constraint_fails_with_the_reason(site, supernet_id):
    search = site.add_search(supernet_id, max_macs=1)
    table = Table()
    run_with_table(site, search.job.id, table)
    job = site.queue.get(search.job.id)
    assert job.state is JobState.FAILED
    assert "max_macs" in job.error
    assert not job.error.startswith("internal error")
    assert (table.num_opened, table.measured) == (0, [])


@pytest.mark.parametrize("num_measured", [0, 2, 4, 7, 11])
def test_a_killed_search_run_again_gives_the_trials_of_one_left_alone(
    site, supernet_id, add_trained, num_measured
):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)

    def die(num_done):
        if num_done == num_measured:
            raise Killed

    first, second = Table(die), Table()
    with pytest.raises(Killed):
        run_with_table(site, search.job.id, first)
    assert site.queue.get(search.job.id).state is JobState.RUNNING
    run_with_table(site, search.job.id, second)
    job = site.queue.get(search.job.id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert measured_keys(site, supernet_id) == first.measured + second.measured
    assert len(set(first.measured + second.measured)) == NUM_TRIALS
    expected_trials, expected_frontier = undisturbed(site, add_trained)
    assert trials_of(site, search.row.id) == expected_trials
    assert last_frontier(site, search.job.id) == expected_frontier


def test_a_worker_that_lost_its_lease_in_mid_round_writes_nothing_more(site, supernet_id, add_trained):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    seen = SimpleNamespace(refused=False)

    def another_takes_over(num_done):
        if num_done == 6 and not seen.refused:
            # Asleep past its lease, like a laptop with its lid closed.
            take_away(site.queue, site.database)
            seen.refused = True

    table = Table(another_takes_over)
    run_with_table(site, search.job.id, table)
    assert seen.refused
    job = site.queue.get(search.job.id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    # The seventh was measured, could not be written, and was measured again.
    assert len(table.measured) == NUM_TRIALS + 1
    assert len(measured_keys(site, supernet_id)) == NUM_TRIALS
    assert trials_of(site, search.row.id) == undisturbed(site, add_trained)[0]


def test_what_others_measure_meanwhile_changes_neither_trials_nor_what_counts_as_reused(
    site, supernet_id, add_trained
):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)

    def die(num_done):
        if num_done == 6:
            raise Killed

    with pytest.raises(Killed):
        run_with_table(site, search.job.id, Table(die))
    # Another search of the same seed gets to the same networks first.
    with site.database.begin() as session:
        session.execute(
            text("UPDATE jobs SET lease_expires_at = clock_timestamp() + interval '1 h' WHERE id = :id"),
            {"id": search.job.id},
        )
    other = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    run_with_table(site, other.job.id, Table())
    assert sum(trial[2] for trial in trials_of(site, other.row.id)) == 6
    expire_leases(site.database)
    idle = Table()
    run_with_table(site, search.job.id, idle)
    assert (idle.num_opened, idle.measured) == (0, [])
    assert trials_of(site, search.row.id) == undisturbed(site, add_trained)[0]


def extended(site, supernet_id: str, *, num_trials: int = 4, **fields):
    """A search that has ended, and one that extends it."""
    earlier = site.add_search(supernet_id, num_trials=8)
    run_with_table(site, earlier.job.id, Table())
    return earlier, site.add_search(supernet_id, num_trials=num_trials, extends=earlier.row.id, **fields)


def test_an_extending_search_takes_the_trials_over_and_adds_its_own(site, supernet_id):
    earlier, later = extended(site, supernet_id)
    table = Table()
    run_with_table(site, later.job.id, table)
    before, after = trials_of(site, earlier.row.id), trials_of(site, later.row.id)
    assert [trial[3:] for trial in after[:8]] == [trial[3:] for trial in before]
    assert [trial[0] for trial in after] == list(range(12))
    assert [trial[2] for trial in after] == [True] * 8 + [False] * 4
    # Of the new ones each is measured once, and none of the old ones again.
    assert [trial[3] for trial in after[8:]] == table.measured
    assert len({trial[3] for trial in after}) == 12
    assert site.event_payloads(later.job.id, "search_ended")[0]["num_trials"] == 12
    # Its frontier is that of both.
    figures = [(NUM_VAL - trial[4], macs) for trial, macs in zip(after, macs_of(site, later), strict=True)]
    frontier = {*pareto_front(figures).tolist()}
    assert {*last_frontier(site, later.job.id)} == frontier
    assert frontier & {*range(8)}
    assert trials_of(site, earlier.row.id) == before


def test_an_extending_search_takes_only_over_what_keeps_its_own_bounds(site, supernet_id):
    earlier, later = extended(site, supernet_id, max_macs="30%")
    run_with_table(site, later.job.id, Table())
    bound = 0.3 * costs(SPACE, SPACE.largest(), num_classes=10, in_channels=1)["macs"]
    with site.database.session() as session:
        before = [t.evaluation for t in searches.trials(session, earlier.row.id)]
        after = [t.evaluation for t in searches.trials(session, later.row.id)]
    kept = [evaluation.id for evaluation in before if evaluation.macs <= bound]
    assert 0 < len(kept) < len(before)
    assert [evaluation.id for evaluation in after[: len(kept)]] == kept
    assert len(after) == len(kept) + 4
    assert all(evaluation.macs <= bound for evaluation in after)


def test_where_nothing_is_taken_over_an_extending_search_begins_with_seeds(site, supernet_id):
    earlier = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    site.queue.request_cancel(earlier.job.id)
    later = site.add_search(supernet_id, num_trials=NUM_TRIALS, extends=earlier.row.id)
    plain = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    for search in (later, plain):
        run_with_table(site, search.job.id, Table())
    trials, expected = trials_of(site, later.row.id), trials_of(site, plain.row.id)
    assert [trial[3:] for trial in trials] == [trial[3:] for trial in expected]


@pytest.mark.parametrize("num_measured", [0, 1, 3])
def test_a_killed_extending_search_run_again_gives_the_trials_of_one_left_alone(
    site, add_trained, num_measured
):
    def die(num_done):
        if num_done == num_measured:
            raise Killed

    _, disturbed = extended(site, add_trained())
    with pytest.raises(Killed):
        run_with_table(site, disturbed.job.id, Table(die))
    run_with_table(site, disturbed.job.id, Table())
    _, left_alone = extended(site, add_trained())
    run_with_table(site, left_alone.job.id, Table())
    assert trials_of(site, disturbed.row.id) == trials_of(site, left_alone.row.id)
    assert last_frontier(site, disturbed.job.id) == last_frontier(site, left_alone.job.id)


def test_a_search_resumed_on_another_kind_of_machine_tells_so_from_then_on(site, supernet_id, monkeypatch):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)

    def die_after_two(num_measured):
        if num_measured == 2:
            raise Killed

    cpus = iter(["one", "one", "another", "another"])
    monkeypatch.setattr(state, "_cpu_kind", lambda: next(cpus))
    for _ in range(3):
        with pytest.raises(Killed):
            run_with_table(site, search.job.id, Table(die_after_two))
    run_with_table(site, search.job.id, Table())
    (started,) = site.event_payloads(search.job.id, "search_started")
    assert (started["is_exact"], started["machine"]["cpu"]) == (True, "one")
    resumed = site.event_payloads(search.job.id, "resumed")
    told = ["cpu: one before, another now"]
    assert [(p["is_exact"], p["departures"]) for p in resumed] == [(True, []), (False, told), (False, told)]


class Beaten(Table):
    """Another search is quicker to one of the networks, and counts otherwise."""

    def __init__(self, site, supernet_id, before=lambda num_measured: None) -> None:
        super().__init__(before)
        self._site, self._supernet_id = site, supernet_id

    def evaluate(self, architectures, on_result):
        def told(evaluation):
            if len(measured_keys(self._site, self._supernet_id)) == NUM_BEATEN_AT:
                other = measurement(evaluation.architecture, NUM_VAL - evaluation.num_correct)
                with self._site.database.begin() as session:
                    evaluations.record(session, self._supernet_id, other, costs_of(evaluation.architecture))
            on_result(evaluation)

        return super().evaluate(architectures, told)


def test_beaten_to_a_network_a_search_goes_on_as_it_would_when_killed_then(site, add_trained):
    def die(num_done):
        if num_done == NUM_BEATEN_AT + 1:
            raise Killed

    alone, killed = add_trained(), add_trained()
    first = site.add_search(alone, num_trials=NUM_TRIALS)
    run_with_table(site, first.job.id, Beaten(site, alone))
    # Not before: the worker of the first would take it up until it is told to stop.
    second = site.add_search(killed, num_trials=NUM_TRIALS)
    with pytest.raises(Killed):
        run_with_table(site, second.job.id, Beaten(site, killed, die))
    run_with_table(site, second.job.id, Table())
    assert trials_of(site, first.row.id) == trials_of(site, second.row.id)
    assert trials_of(site, first.row.id) != undisturbed(site, add_trained)[0]


def test_every_trial_keeps_the_bounds(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS, max_macs="30%")
    run_with_table(site, search.job.id, Table())
    with site.database.session() as session:
        macs = [item.evaluation.macs for item in searches.trials(session, search.row.id)]
    largest = costs(SPACE, SPACE.largest(), num_classes=10, in_channels=1)["macs"]
    assert len(macs) == NUM_TRIALS
    assert max(macs) <= 0.3 * largest


def test_a_search_killed_at_every_other_network_still_ends(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)

    def die_after_two(num_measured):
        if num_measured == 2:
            raise Killed

    # More kills than a job has attempts, but each attempt records two networks.
    for _ in range(NUM_TRIALS // 2):
        with suppress(Killed):
            run_with_table(site, search.job.id, Table(die_after_two))
    run_with_table(site, search.job.id, Table())
    job = site.queue.get(search.job.id)
    assert job.state is JobState.SUCCEEDED
    assert job.attempt == NUM_TRIALS // 2
    assert len(measured_keys(site, supernet_id)) == NUM_TRIALS


def test_a_search_that_always_dies_at_the_same_network_is_given_up(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)

    def poisoned(num_measured):
        if len(measured_keys(site, supernet_id)) == 3:
            raise Killed

    for _ in range(6):
        with pytest.raises(Killed):
            run_with_table(site, search.job.id, Table(poisoned))
    # The first attempt got somewhere, the five after it did not.
    run_with_table(site, search.job.id, Table(poisoned))
    job = site.queue.get(search.job.id)
    assert job.state is JobState.FAILED
    assert job.attempt >= 6
    # Where an attempt lived long enough to tell, how far it was is named too.
    told = (
        r"killed its worker 5 times in a row without getting further(, last in phase 'search' at \d+ of 12)?"
    )
    assert re.fullmatch(told, job.error)


def test_an_evaluators_lost_lease_ends_the_attempt_quietly(site, supernet_id):
    search = site.add_search(supernet_id, num_trials=NUM_TRIALS)
    calls = SimpleNamespace(count=0)

    def lose_once(num_done):
        calls.count += 1
        if calls.count == 3:
            take_away(site.queue, site.database)
            raise LeaseLostError("taken")

    run_with_table(site, search.job.id, Table(lose_once))
    assert site.queue.get(search.job.id).state is JobState.SUCCEEDED
