"""A search under a latency: predicted to its end by what predicted at its start, whoever goes on with it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from nas.devices.blocks import fused_blocks
from nas.job import JobState
from nas.store import devices, latency, searches
from tests.devices.lines import BASE_MS, HOST, NETWORKS, table_of
from tests.workers.conftest import SPACE
from tests.workers.table import Killed, Table, run_with_table
from tests.workers.test_search_job import trials_of

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
    assert job.state is JobState.FAILED and "max_latency_ms" in job.error and table.measured == []
