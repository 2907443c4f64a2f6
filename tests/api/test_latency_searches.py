"""Searches and batches under a latency: certified, kept to what predicted at the start, told as predicted."""

from __future__ import annotations

import pytest

from tests.api.test_devices import put_table
from tests.api.test_hostile_requests import check
from tests.api.test_latency_answers import figure, hand_sum
from tests.api.worker import SPACE, ladder
from tests.devices.lines import table_of, text_of

SMALLEST, LARGEST = (hand_sum(network.to_json()) for network in (SPACE.smallest(), SPACE.largest()))


@pytest.fixture
def host(http) -> None:
    http.post("/v1/devices", json={"name": "host"}).raise_for_status()
    put_table(http, text_of(table_of())).raise_for_status()


@pytest.fixture
def ask(http, supernet, host):
    def ask(path="searches", **fields):
        body = {"supernet_id": supernet.id, "device": "host", "num_trials": 5, **fields}
        return http.post(f"/v1/{path}", json={k: v for k, v in body.items() if v is not None})

    return ask


def test_an_additive_model_is_certified_exactly(ask, http):
    for bound, feasible in [(SMALLEST * (1 - 1e-9), False), (SMALLEST * (1 + 1e-9), True)]:
        answer = ask("searches:validate", constraints={"max_latency_ms": bound}).json()
        assert answer["verdict"] == ("feasible" if feasible else "infeasible"), answer
        assert answer["device"] == "host"
        if feasible:
            latency = answer["witness"]["latency_ms"]
            assert (latency["provenance"], latency["device"]) == ("predicted", "host")
            assert latency["value"] == pytest.approx(hand_sum(answer["witness"]["architecture"]))
            assert latency["value"] <= answer["constraints"]["max_latency_ms"]
    problem = check(
        ask(constraints={"max_latency_ms": SMALLEST / 2, "max_macs": "90%"}),
        422,
        "infeasible-constraints",
        "constraints.max_latency_ms",
    )
    assert problem["nearest"]["latency_ms"]["value"] == pytest.approx(SMALLEST)
    assert problem["nearest"]["latency_ms"]["provenance"] == "predicted"
    assert problem["relax"]["max_latency_ms"] == pytest.approx(SMALLEST)
    made = ask(constraints=problem["relax"])
    assert made.status_code == 201, made.text
    alone = problem["relax_alone"]["max_latency_ms"]
    assert ask(constraints={"max_latency_ms": alone, "max_macs": "90%"}).status_code == 201


def test_a_percentage_is_of_the_largest_networks_latency(ask):
    made = ask(constraints={"max_latency_ms": "60%"}).json()
    assert made["constraints"]["max_latency_ms"] == pytest.approx(0.6 * LARGEST)
    assert made["device"] == "host" and made["predicted_by"].startswith("lt_")
    assert made["links"]["device"] == "/v1/devices/host"


def test_a_search_goes_on_with_what_predicted_at_its_start(ask, http, worker):
    asked = {"constraints": {"max_latency_ms": "100%"}, "objectives": ["accuracy", "latency_ms"]}
    search = ask(**asked).json()
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    path = f"/v1/searches/{search['id']}"
    trials = http.get(f"{path}/trials").json()["items"]
    for trial in trials:
        assert figure(trial, "latency_ms") == pytest.approx(hand_sum(trial["architecture"]))
        assert trial["latency_ms"]["predicted_by"] == search["predicted_by"]
    frontier = http.get(f"{path}/pareto").json()["items"]
    latencies = [figure(item, "latency_ms") for item in frontier]
    assert latencies == sorted(latencies) and len(frontier) > 1
    put_table(http, text_of(table_of(scale=3.0))).raise_for_status()
    assert http.get(f"{path}/trials").json()["items"] == trials
    later = ask(**asked).json()
    assert later["predicted_by"] != search["predicted_by"]
    extending = http.post("/v1/searches", json={"extends": search["id"], "num_trials": 3}).json()
    assert (extending["device"], extending["objectives"]) == ("host", search["objectives"])
    assert extending["predicted_by"] == later["predicted_by"]


def test_a_device_is_kept_while_searches_and_batches_are_of_it(ask, http, supernet):
    search = ask(constraints={"max_latency_ms": "90%"}).json()
    body = {"device": "host", "architectures": [SPACE.smallest().to_json()]}
    batch = http.post(f"/v1/supernets/{supernet.id}/evaluations", json=body).json()
    problem = check(http.delete("/v1/devices/host"), 409, "resource-in-use")
    users = [(user["kind"], user["id"]) for user in problem["used_by"]]
    assert users == [("search", search["id"]), ("evaluation_batch", batch["id"])]
    for made in (search, batch):
        http.post(f"/v1/jobs/{made['job_id']}/cancel").raise_for_status()
        assert http.delete(made["links"]["self"]).status_code == 204
    assert http.delete("/v1/devices/host").status_code == 204


def test_a_batch_tells_each_networks_latency_and_which_breaks_the_bound(http, host, supernet):
    given = [SPACE.smallest().to_json(), SPACE.largest().to_json()]
    bound = (SMALLEST + LARGEST) / 2
    body = {"device": "host", "architectures": given, "constraints": {"max_latency_ms": bound}}
    batch = http.post(f"/v1/supernets/{supernet.id}/evaluations", json=body).json()
    assert (batch["device"], batch["num_infeasible"]) == ("host", 1)
    items = http.get(f"/v1/evaluation-batches/{batch['id']}/networks").json()["items"]
    assert [item["breaks"] for item in items] == [[], ["max_latency_ms"]]
    for item, network in zip(items, given, strict=True):
        assert figure(item, "latency_ms") == pytest.approx(hand_sum(network))
        assert item["latency_ms"]["provenance"] == "predicted"


def test_what_needs_a_device_is_refused_without_one(ask, http, supernet):
    check(ask(device="pi5"), 422, "unknown-device", "device")
    check(ask(device="Pi 5"), 422, "invalid-request", "device")
    check(
        ask(device=None, constraints={"max_latency_ms": 5}),
        422,
        "invalid-request",
        "constraints.max_latency_ms",
    )
    check(ask(device=None, objectives=["accuracy", "latency_ms"]), 422, "invalid-request", "objectives")
    body = {"architectures": [SPACE.smallest().to_json()], "constraints": {"max_latency_ms": 5}}
    response = http.post(f"/v1/supernets/{supernet.id}/evaluations", json=body)
    check(response, 422, "invalid-request", "constraints.max_latency_ms")
