"""A search under a latency: predicted to its end by what predicted at its start, whoever goes on with it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

import pytest

from nas.devices.blocks import fused_blocks
from nas.job import JobState
from nas.prefilter.certificate import Certificate, Verdict
from nas.search import loop
from nas.store import devices, latency, searches
from tests.devices.lines import BASE_MS, HOST, NETWORKS, table_of
from tests.workers.conftest import SPACE
from tests.workers.table import Killed, Table, run_with_table
from tests.workers.test_search_job import trials_of
from workers import search_job

TABLE = table_of()
NUM_TRIALS = 12


def put_table(site, table):
    with site.database.begin() as session:
        devices.put_table(session, table, fills_gaps=False)
        return latency.current_source(session, HOST.name, NETWORKS)


@pytest.fixture
def source(site):
    with site.database.begin() as session:
        devices.create(session, HOST, notes="")
    return put_table(site, TABLE)


def latencies(site, search) -> list[float]:
    with site.database.session() as session:
        networks = [
            SPACE.parse(found.evaluation.architecture) for found in searches.trials(session, search.row.id)
        ]
    blocks = [fused_blocks(SPACE.lower(n, num_classes=10, in_channels=1)) for n in networks]
    return [BASE_MS + sum(TABLE.rows[block] for block in own) for own in blocks]


def add(site, supernet_id, source, bound):
    return site.add_search(
        supernet_id,
        num_trials=NUM_TRIALS,
        latency_source=source,
        objectives=["accuracy", "latency_ms"],
        max_latency_ms=bound,
    )


def middle() -> float:
    ends = [SPACE.smallest(), SPACE.largest()]
    blocks = [fused_blocks(SPACE.lower(n, num_classes=10, in_channels=1)) for n in ends]
    return BASE_MS + sum(sum(TABLE.rows[block] for block in own) for own in blocks) / 2


def test_no_network_above_the_bound_is_measured_whatever_becomes_of_the_table(site, add_trained, source):
    bound = middle()
    alone = add(site, add_trained(), source, bound)
    run_with_table(site, alone.job.id, Table())
    assert site.queue.get(alone.job.id).state is JobState.SUCCEEDED
    assert len(trials_of(site, alone.row.id)) == NUM_TRIALS
    assert all(value <= bound * (1 + 1e-12) for value in latencies(site, alone))

    def kill(num_measured):
        if num_measured == NUM_TRIALS // 3 + 2:
            raise Killed

    killed = add(site, add_trained(), source, bound)
    with suppress(Killed):
        run_with_table(site, killed.job.id, Table(kill))
    # Another table, by which none of its networks would keep the bound.
    put_table(site, replace(TABLE, rows={block: 100 * ms for block, ms in TABLE.rows.items()}))
    run_with_table(site, killed.job.id, Table())
    assert trials_of(site, killed.row.id) == trials_of(site, alone.row.id)


def test_a_bound_below_every_latency_fails_with_the_reason(site, supernet_id, source):
    search, table = add(site, supernet_id, source, 1e-3), Table()
    run_with_table(site, search.job.id, table)
    job = site.queue.get(search.job.id)
    assert job.state is JobState.FAILED and "max_latency_ms" in job.error
    assert (table.num_opened, table.measured) == (0, [])


@pytest.fixture
def undecided(monkeypatch):
    """Nothing is proved, as where a latency is no sum over blocks."""
    answer = Certificate(verdict=Verdict.UNDECIDED, reason="nobody knows")
    monkeypatch.setattr(search_job, "certify", lambda region, *, limit_s: answer)


def told_limits(text: str) -> list[float]:
    return [float(limit) for limit in re.findall(r"max_latency_ms (?:to )?([\d.]+)", text)]


def test_where_nothing_is_proved_and_no_network_found_it_fails_and_what_it_tells_to_relax_does(
    site, supernet_id, source, undecided
):
    search, table = add(site, supernet_id, source, 1e-3), Table()
    run_with_table(site, search.job.id, table)
    job = site.queue.get(search.job.id)
    assert (job.state, table.num_opened, table.measured) == (JobState.FAILED, 0, [])
    assert trials_of(site, search.row.id) == []
    nearest = SPACE.canonical(SPACE.smallest())
    assert f"the nearest found, {nearest.key}, costs macs " in job.error
    asked, *remedies = told_limits(job.error)
    assert asked == 1e-3 and len(remedies) == 2
    for remedy in remedies:
        relaxed = add(site, supernet_id, source, remedy)
        run_with_table(site, relaxed.job.id, Table())
        assert site.queue.get(relaxed.job.id).state is JobState.SUCCEEDED
        assert trials_of(site, relaxed.row.id)[0][3] == nearest.key


def test_a_network_measured_before_that_keeps_the_bounds_is_an_answer_where_chance_finds_none(
    site, supernet_id, source, undecided, monkeypatch
):
    earlier = add(site, supernet_id, source, middle())
    run_with_table(site, earlier.job.id, Table())
    monkeypatch.setattr(loop, "stratified_seeds", lambda *_, **__: [])
    later = add(site, supernet_id, source, middle())
    run_with_table(site, later.job.id, Table())
    assert site.queue.get(later.job.id).state is JobState.SUCCEEDED
    first = [trial for trial in trials_of(site, later.row.id) if trial[1] == 0]
    before = sorted(trials_of(site, earlier.row.id), key=lambda trial: -trial[4])
    assert [trial[3:] for trial in first] == [trial[3:] for trial in before[: len(first)]]
    assert first and all(is_reused for _, _, is_reused, *_ in first)
