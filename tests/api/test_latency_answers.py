"""Answers by latency: exact over everything measured, and always told as predicted, by what and how well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from api import known
from api.services import Services
from api.warm_answers import warmed_answers
from nas.costs import COST_NAMES
from nas.devices.blocks import fused_blocks
from nas.devices.device import Device
from nas.store import devices, evaluations
from nas.store.evaluation_columns import packed_code
from tests.api.conftest import ACCURACIES
from tests.api.test_devices import measure, put_table
from tests.api.test_hostile_requests import check
from tests.api.worker import NUM_VAL, SPACE, costs_of, ladder, measurement
from tests.devices.lines import BASE_MS, probe_lines, probe_lines_of, table_of, text_of

TABLE = table_of()


def hand_sum(architecture) -> float:
    """Read off the lowering, block by block."""
    layers = SPACE.lower(SPACE.parse(architecture), num_classes=10, in_channels=1)
    return BASE_MS + sum(TABLE.rows[block] for block in fused_blocks(layers))


@pytest.fixture
def host(http) -> None:
    http.post("/v1/devices", json={"name": "host"}).raise_for_status()


@pytest.fixture
def table(http, host) -> None:
    put_table(http, text_of(TABLE)).raise_for_status()


@pytest.fixture
def ask(http, supernet):
    def ask(what, **params):
        return http.get(f"/v1/supernets/{supernet.id}/{what}", params=params)

    return ask


@pytest.fixture
def record(database, supernet):
    """Networks with made-up accuracies, every second one as earlier releases recorded them."""

    def record(count, seed=0):
        rng = np.random.default_rng(seed)
        networks = {SPACE.sample(rng) for _ in range(count)}
        with database.begin() as session:
            for number, network in enumerate(sorted(networks, key=lambda network: network.key)):
                evaluations.record(
                    session,
                    supernet.id,
                    measurement(network, int(rng.integers(NUM_VAL // 2, NUM_VAL))),
                    costs_of(network),
                    code=packed_code(SPACE, network) if number % 2 else None,
                )

    return record


def everything(ask) -> list[dict]:
    page = ask("evaluations", device="host", page_size=200).json()
    assert page["next_page_token"] is None
    return page["items"]


def scanned_best(found, limits):
    """What a person would do: go through all of them."""
    kept = [e for e in found if all(figure(e, name) <= limit for name, limit in limits.items())]
    order = {e["architecture_key"]: i for i, e in enumerate(reversed(found))}
    return min(
        kept,
        key=lambda e: (-e["accuracy_val"]["num_correct"], e["costs"]["macs"], order[e["architecture_key"]]),
        default=None,
    )


def figure(evaluation, name):
    return evaluation["latency_ms"]["value"] if name == "latency_ms" else evaluation["costs"][name]


def test_a_latency_is_the_sum_of_the_tables_blocks(ask, table, record):
    record(20)
    for evaluation in everything(ask):
        latency = evaluation["latency_ms"]
        assert latency["value"] == pytest.approx(hand_sum(evaluation["architecture"]), rel=1e-12)
        assert (latency["provenance"], latency["measured"], latency["device"]) == ("predicted", False, "host")
        assert latency["predicted_by"].startswith("lt_") and latency["mape"] is None
        assert evaluation["accuracy_val"]["provenance"] == "measured"


def test_an_edited_block_changes_the_networks_that_have_it_and_no_others(http, ask, table, record):
    record(30)
    before = {e["architecture_key"]: e for e in everything(ask)}
    blocks = {
        key: {*fused_blocks(SPACE.lower(SPACE.parse(e["architecture"]), num_classes=10, in_channels=1))}
        for key, e in before.items()
    }
    edited = min(TABLE.rows, key=lambda block: abs(sum(block in own for own in blocks.values()) - 10))
    users = {key for key, own in blocks.items() if edited in own}
    assert 0 < len(users) < len(before)
    rows = {**TABLE.rows, edited: 2 * TABLE.rows[edited]}
    put_table(http, text_of(type(TABLE)(device=TABLE.device, base_ms=BASE_MS, rows=rows))).raise_for_status()
    after = {e["architecture_key"]: figure(e, "latency_ms") for e in everything(ask)}
    assert {key for key in after if after[key] != figure(before[key], "latency_ms")} == users


def test_the_best_by_latency_is_the_one_that_a_full_scan_finds(ask, table, record):
    record(120)
    found, rng = everything(ask), np.random.default_rng(1)
    latencies = sorted(figure(e, "latency_ms") for e in found)
    num_answers = 0
    for number in range(25):
        names = ["latency_ms", *rng.choice(COST_NAMES, int(rng.integers(0, 3)), replace=False)]
        # Networks on a bound keep it.
        limits = {name: figure(found[int(rng.integers(len(found)))], name) for name in names}
        answer = ask("best", device="host", **{f"max_{name}": repr(v) for name, v in limits.items()})
        expected = scanned_best(found, limits)
        if expected is None:
            check(answer, 404, "no-network-within-bounds")
            continue
        assert answer.json() == {**expected, "rivals": []}, number
        num_answers += 1
    assert num_answers > 5
    # Some that another is as accurate as, and no dearer but for the latency, are an answer here.
    assert (
        ask("best", device="host", max_latency_ms=latencies[0]).json()["latency_ms"]["value"] == latencies[0]
    )


def test_the_frontier_of_accuracy_and_latency_is_that_of_a_full_scan(ask, table, record):
    record(120)
    found = everything(ask)
    answer = ask("frontier", device="host", objectives="latency_ms").json()
    points = [(figure(e, "latency_ms"), -e["accuracy_val"]["num_correct"]) for e in found]
    expected = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))
    shown = [(figure(e, "latency_ms"), -e["accuracy_val"]["num_correct"]) for e in answer["items"]]
    assert shown == expected and answer["device"] == "host" and answer["num_evaluations"] == len(found)
    assert all(item["frontier_probability"] > 0 for item in answer["items"])
    bound = sorted(latency for latency, _ in points)[40]
    within = ask("frontier", device="host", max_latency_ms=repr(bound)).json()
    assert within["num_evaluations"] == 41
    assert all(figure(item, "latency_ms") <= bound for item in within["items"])
    plain = ask("frontier").json()
    assert plain["device"] is None and all(item["latency_ms"] is None for item in plain["items"])


def test_what_is_measured_later_counts_from_then_on(ask, table, record):
    record(20)
    bound = {"device": "host", "max_latency_ms": "100%"}
    assert ask("best", **bound).json() == {**scanned_best(everything(ask), {}), "rivals": []}
    record(60, seed=5)
    found = everything(ask)
    assert len(found) > 60
    assert ask("best", **bound).json() == {**scanned_best(found, {}), "rivals": []}
    largest = hand_sum(SPACE.largest().to_json())
    assert ask("frontier", **bound).json()["constraints"]["max_latency_ms"] == pytest.approx(largest)


def test_where_nothing_is_fast_enough_what_is_told_would_do(ask, table, record):
    record(40)
    limits = {"max_latency_ms": 0.3, "max_macs": 100_000}
    problem = check(ask("best", device="host", **limits), 404, "no-network-within-bounds")
    assert problem["nearest"]["latency_ms"]["provenance"] == "predicted"
    relaxed = ask("best", device="host", **{name: repr(value) for name, value in problem["relax"].items()})
    assert relaxed.status_code == 200, relaxed.text


def test_a_fitted_model_is_told_with_its_error(http, ask, table, record, worker):
    record(10)
    sent = measure(http, probe_lines()).json()
    assert ask("best", device="host").json()["latency_ms"]["predicted_by"].startswith("lt_")
    worker.fit_latency()
    latency = ask("best", device="host").json()["latency_ms"]
    assert latency["predicted_by"] == sent["id"] and 0 < latency["mape"] < 0.03


def test_a_device_that_says_nothing_is_refused(http, ask, host, record):
    record(5)
    for what in ("best", "frontier", "evaluations"):
        problem = check(ask(what, device="pi5"), 422, "unknown-device", "device")
        assert "there are host" in problem["detail"]
        problem = check(ask(what, device="host"), 409, "device-not-ready")
        assert "nas device probe host" in problem["detail"]
        check(ask(what, device="A\0"), 422, "invalid-request", "device")
    text = text_of(type(TABLE)(device=TABLE.device, base_ms=0.0, rows=dict([*TABLE.rows.items()][:5])))
    put_table(http, text).raise_for_status()
    assert "are not in the table" in check(ask("best", device="host"), 409, "device-not-ready")["detail"]


def test_a_latency_without_a_device_is_refused(http, ask, supernet):
    for what in ("best", "frontier"):
        check(ask(what, max_latency_ms=5), 422, "invalid-request", "max_latency_ms")
    check(ask("frontier", objectives="latency_ms"), 422, "invalid-request", "objectives")
    body = {"supernet_id": supernet.id, "constraints": {"max_latency_ms": 5}}
    check(http.post("/v1/subnets", json=body), 422, "invalid-request", "constraints.max_latency_ms")


def test_a_subnet_is_the_best_on_a_device(http, ask, table, record, supernet):
    record(40)
    bound = sorted(figure(e, "latency_ms") for e in everything(ask))[15]
    best = ask("best", device="host", max_latency_ms=repr(bound)).json()
    body = {"supernet_id": supernet.id, "device": "host", "constraints": {"max_latency_ms": bound}}
    made = http.post("/v1/subnets", json=body)
    assert made.json()["architecture_key"] == best["architecture_key"], made.text


def test_networks_that_were_measured_show_their_times_beside_the_predictions(http, table, ask, record):
    record(12)
    assert all(e["latency_ms"]["measurement"] is None for e in everything(ask))
    lines = [json.loads(line) for line in probe_lines(count=5, with_blocks=False)]
    chosen = [e["architecture"] for e in everything(ask)[:5]]
    for kind in ("network", "network_again"):
        rows = [line for line in lines if line.get("kind") == kind]
        for number, (row, architecture) in enumerate(zip(rows, chosen, strict=True)):
            row |= {"architecture": architecture, "p50_ms": 1.0 + number + (0.01 if "again" in kind else 0)}
    sent = measure(http, [json.dumps(line) for line in lines])
    assert sent.status_code == 201, sent.text
    keys = [e["architecture_key"] for e in everything(ask)[:5]]
    found = {e["architecture_key"]: e["latency_ms"] for e in everything(ask)}
    for number, key in enumerate(keys):
        assert found[key]["measurement"] == {
            "value": 1.0 + number,
            "again": 1.01 + number,
            "provenance": "measured",
            "measured": True,
            "measured_by": sent.json()["id"],
            "speed": None,
        }
        assert found[key]["provenance"] == "predicted"
    assert sum(latency["measurement"] is not None for latency in found.values()) == 5
    # Another measurement of one of them: the newest counts.
    for line in lines:
        if line.get("architecture") == chosen[0]:
            line["p50_ms"] = 7.0
    measure(http, [json.dumps(line) for line in lines]).raise_for_status()
    shown = {e["architecture_key"]: e["latency_ms"]["measurement"] for e in everything(ask)}
    assert shown[keys[0]]["value"] == 7.0
    front = ask("frontier", device="host").json()["items"]
    assert [e["latency_ms"]["measurement"] for e in front] == [shown[e["architecture_key"]] for e in front]
    best = ask("best", device="host").json()
    assert best["latency_ms"]["measurement"] == shown[best["architecture_key"]]
    # They are known by their times, and no model is made of so few.
    assert best["latency_ms"]["predicted_by"].startswith("lt_")


def test_a_measured_time_says_how_fast_the_device_was_next_to_the_predictions_sitting(
    http, host, worker, ask, record
):
    record(12)
    measure(http, probe_lines(count=40, sentinel_ms=2.0)).raise_for_status()
    worker.fit_latency()
    chosen = [e["architecture"] for e in everything(ask)[:2]]
    keys = [e["architecture_key"] for e in everything(ask)[:2]]

    def sitting(**told):
        """Both networks measured anew; what answers say of the first one's speed."""
        measure(http, probe_lines_of(chosen, asked_for=True, **told)).raise_for_status()
        worker.fit_latency()
        found = {e["architecture_key"]: e["latency_ms"]["measurement"] for e in everything(ask)}
        return found[keys[0]]["speed"]

    assert sitting(sentinel_ms=1.6) == pytest.approx(1.25)
    assert sitting(sentinel_ms=4.0) == pytest.approx(0.5)
    # Of a probe that does not tell.
    assert sitting() is None


def test_a_service_that_starts_reads_ahead_what_answers_are_found_among(
    database, artifact_store, untrained, table, ask, record, monkeypatch
):
    record(40)
    # Devices that nothing predicts on, and supernets that are not trained, are passed over.
    with database.begin() as session:
        devices.create(session, Device(name="new", runtime="onnxruntime"), notes="")
    num_read = []
    read = known.read

    def counted(*args, **options):
        found = read(*args, **options)
        num_read.append(len(found.codes))
        return found

    monkeypatch.setattr(known, "read", counted)
    services = Services(database, artifact_store, 0)
    with warmed_answers(services) as thread:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert num_read == [len(everything(ask))]
    services.certificates.close()


def test_finalists_of_a_search_by_latency_are_its_frontier_and_told_with_it(
    http, client, worker, table, supernet
):
    search = client.searches.create(supernet.id, 5, device="host", objectives=["accuracy", "latency_ms"])
    worker.search(ladder(5), ACCURACIES)
    front = http.get(f"/v1/searches/{search.id}/pareto").json()["items"]
    asked = search.finalise()
    assert [network["trial_number"] for network in asked.networks()] == sorted(t["number"] for t in front)
    worker.verify()
    latency = {trial["number"]: trial["latency_ms"] for trial in front}
    found = search.finalists()
    assert {finalist["number"]: finalist["latency_ms"] for finalist in found} == latency
    assert all(figure["provenance"] == "predicted" for figure in latency.values())


def test_rivals_by_latency_are_those_that_a_full_scan_finds(ask, table, record):
    record(40)
    found = everything(ask)
    bound = sorted(figure(e, "latency_ms") for e in found)[30]
    best = ask("best", device="host", max_latency_ms=repr(bound), max_rivals=1).json()
    expected = [
        e
        for e in sorted(found, key=lambda e: figure(e, "latency_ms"))
        if figure(e, "latency_ms") <= bound
        and e["architecture_key"] != best["architecture_key"]
        and e["accuracy_val"]["interval_95"][1] >= best["accuracy_val"]["interval_95"][0]
    ]
    assert len(expected) > 1
    assert [e["architecture_key"] for e in best["rivals"]] == [e["architecture_key"] for e in expected[:1]]
    assert best["rivals"][0]["latency_ms"]["provenance"] == "predicted"
