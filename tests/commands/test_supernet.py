"""`nas supernet frontier` and `nas supernet evaluations`: all that was measured, whatever asked for it."""

from __future__ import annotations

import pytest

from nas.commands.points import EVALUATION_COLUMNS, SUPERNET_FRONTIER_COLUMNS
from tests.api.worker import NUM_VAL, ladder
from tests.devices.lines import table_of, text_of


@pytest.fixture
def host(client) -> None:
    client.devices.create("host")
    client.devices.put_table("host", text_of(table_of()))


def test_the_frontier_is_over_what_searches_and_batches_measured(nas, supernet, search, worker):
    chosen = next(network for network in ladder(9) if network not in ladder(5))
    supernet.evaluate([chosen.to_json()])
    worker.evaluate([NUM_VAL])
    found = nas("supernet", "frontier", supernet.id, "-o", "json").json()
    assert found == [dict(point) for point in supernet.frontier()]
    assert chosen.key in [point["architecture_key"] for point in found]
    assert len(found) > 1, "those of the search are on it too"
    head, *rows = nas("supernet", "frontier", supernet.id).out.splitlines()
    assert all(title in head for title in SUPERNET_FRONTIER_COLUMNS) and "LATENCY_MS" not in head
    assert len(rows) == len(found)
    keys = nas("supernet", "frontier", supernet.id, "-o", "id").out.split()
    assert keys == [point["architecture_key"] for point in found]


def test_a_frontier_is_under_any_bounds_and_objectives(nas, search, host):
    supernet = search["supernet_id"]
    asked = ["--device", "host", "--max-latency-ms", "80%", "--max-macs", "90%"]
    both = [*asked, "--objective", "latency_ms", "--objective", "params"]
    found = nas("supernet", "frontier", supernet, *both, "-o", "json").json()
    times = [point["latency_ms"]["value"] for point in found]
    assert times == sorted(times) and len(times) > 1
    head, *rows = nas("supernet", "frontier", supernet, *both).out.splitlines()
    assert head.endswith("LATENCY_MS")
    assert len(rows) == len(found) and all("(predicted, error unknown)" in row for row in rows)
    assert nas("supernet", "frontier", supernet, "--max-latency-ms", 5).status == 2
    unknown = nas("supernet", "frontier", supernet, "--objective", "colour")
    assert unknown.status == 2 and "colour" in unknown.err


def test_a_frontier_without_a_network_says_what_to_do(nas, supernet):
    empty = nas("supernet", "frontier", supernet.id)
    assert empty.status == 0 and f"nas search create {supernet.id}" in empty.err
    bounded = nas("supernet", "frontier", supernet.id, "--max-macs", 10)
    assert bounded.status == 0 and "no network measured so far keeps the bounds" in bounded.err
    assert nas("supernet", "frontier", supernet.id, "-o", "json").json() == []


def test_evaluations_are_listed_newest_first_and_cut_where_told(nas, supernet, search, batch):
    listed = nas("supernet", "evaluations", supernet.id, "-o", "json").json()
    assert listed == [dict(point) for point in supernet.evaluations()]
    assert len(listed) == 7
    head, *rows = nas("supernet", "evaluations", supernet.id).out.splitlines()
    assert all(title in head for title in EVALUATION_COLUMNS) and len(rows) == 7
    cut = nas("supernet", "evaluations", supernet.id, "--limit", 2)
    assert len(cut.out.splitlines()) == 3 and "--limit 8" in cut.err
    assert nas("supernet", "evaluations", supernet.id, "--limit", 7).err == ""


def test_evaluations_on_a_device_have_their_latencies(nas, search, host):
    head, *rows = nas("supernet", "evaluations", search["supernet_id"], "--device", "host").out.splitlines()
    assert head.endswith("LATENCY_MS") and len(rows) == 5
    unknown = nas("supernet", "evaluations", search["supernet_id"], "--device", "pi5")
    assert unknown.status == 2 and "there are host" in unknown.err


def test_before_anything_is_measured_there_are_no_evaluations(nas, supernet):
    empty = nas("supernet", "evaluations", supernet.id)
    assert (empty.status, len(empty.out.splitlines())) == (0, 1)
    assert f"nas search create {supernet.id}" in empty.err
