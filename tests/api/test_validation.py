"""The dry run of a search: what it tells, and that it makes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.api.test_http_conventions import problem_of
from tests.api.worker import SPACE, costs_of

VALIDATE = "/v1/searches:validate"


def counts(http) -> list[int]:
    return [len(http.get(f"/v1/{path}").json()["items"]) for path in ("searches", "jobs")]


def test_a_search_that_can_be_made_is_feasible_and_told_its_price(http, search):
    before = counts(http)
    body = {"supernet_id": search["supernet_id"], "num_trials": 60, "constraints": {"max_macs": "50%"}}
    answer = http.post(VALIDATE, json=body).json()
    assert answer["verdict"] == "feasible"
    assert answer["constraints"] == {"max_macs": 0.5 * costs_of(SPACE.largest())["macs"]}
    assert answer["search_space"]["name"] == "micro_8"
    assert answer["search_space"]["costs"]["macs"]["largest"] == costs_of(SPACE.largest())["macs"]
    assert answer["num_evaluations"] == 5
    assert answer["seconds_per_network"] == pytest.approx(0.1)
    assert answer["seconds_from"] == "evaluations"
    assert answer["estimated_seconds"] == pytest.approx(6.0)
    assert counts(http) == before


def test_before_anything_is_measured_the_price_is_told_by_what_training_took_for_the_ends(http, supernet):
    answer = http.post(VALIDATE, json={"supernet_id": supernet.id, "num_trials": 60}).json()
    assert (answer["num_evaluations"], answer["seconds_from"]) == (0, "probes")
    assert answer["seconds_per_network"] == pytest.approx(0.35)
    assert answer["estimated_seconds"] == pytest.approx(21)


def test_where_no_duration_is_known_no_price_is_told(http, untrained, worker):
    worker.import_dataset()
    worker.probes = replace(
        worker.probes, results=tuple(replace(result, duration_s=None) for result in worker.probes.results)
    )
    worker.train()
    answer = http.post(VALIDATE, json={"supernet_id": untrained.id, "num_trials": 60}).json()
    told = ("seconds_per_network", "seconds_from", "estimated_seconds")
    assert [answer[name] for name in told] == [None, None, None]


def test_what_no_network_keeps_is_answered_and_the_creation_refused(http, supernet):
    body = {"supernet_id": supernet.id, "num_trials": 1, "constraints": {"max_macs": 1, "max_params": 1e9}}
    response = http.post(VALIDATE, json=body)
    assert response.status_code == 200
    answer = response.json()
    least = costs_of(SPACE.smallest())
    assert (answer["verdict"], answer["witness"]) == ("infeasible", None)
    assert SPACE.parse(answer["nearest"]["architecture"]) == SPACE.smallest()
    assert answer["nearest"]["costs"] == least
    assert answer["relax"] == {"max_macs": least["macs"], "max_params": least["params"]}
    # However many parameters are allowed, no network does with one multiplication.
    assert answer["relax_alone"] == {"max_macs": least["macs"], "max_params": None}
    assert str(least["macs"]) in answer["reason"]
    problem = problem_of(http.post("/v1/searches", json=body), 422, "infeasible-constraints")
    for told in ("nearest", "relax", "relax_alone"):
        assert problem[told] == answer[told]
    assert [error["field"] for error in problem["errors"]] == ["constraints.max_macs"]
    for relaxed in (answer["relax"], {**body["constraints"], "max_macs": answer["relax_alone"]["max_macs"]}):
        assert http.post("/v1/searches", json={**body, "constraints": relaxed}).status_code == 201


def test_bounds_that_are_each_out_of_reach_are_told_with_no_value_that_would_do_alone(http, supernet):
    body = {"supernet_id": supernet.id, "num_trials": 1, "constraints": {"max_macs": 1, "max_params": 1}}
    problem = problem_of(http.post("/v1/searches", json=body), 422, "infeasible-constraints")
    assert problem["relax_alone"] == {"max_macs": None, "max_params": None}
    assert [error["field"] for error in problem["errors"]] == [
        "constraints.max_macs",
        "constraints.max_params",
    ]


def test_nothing_is_to_be_relaxed_where_a_network_keeps_the_bounds(http, supernet):
    answer = http.post(VALIDATE, json={"supernet_id": supernet.id, "num_trials": 1}).json()
    assert [answer[told] for told in ("nearest", "relax", "relax_alone")] == [None, None, None]


@pytest.mark.parametrize(
    "constraints",
    [
        {},
        {"max_macs": "50%"},
        {"max_macs": costs_of(SPACE.smallest())["macs"]},
        {"max_macs": "30%", "max_params": "25%", "max_peak_activation_bytes": "60%", "max_size_bytes": 1e6},
    ],
)
def test_with_feasible_comes_a_network_that_keeps_every_bound(http, supernet, constraints):
    body = {"supernet_id": supernet.id, "num_trials": 1, "constraints": constraints}
    answer = http.post(VALIDATE, json=body).json()
    assert answer["verdict"] == "feasible"
    witness = answer["witness"]
    network = SPACE.parse(witness["architecture"])
    assert SPACE.contains(network)
    assert (witness["architecture_key"], witness["costs"]) == (network.key, costs_of(network))
    assert (witness["costs_provenance"], witness["latency_ms"]) == ("counted", None)
    assert answer["constraints"].keys() == constraints.keys()
    for field, limit in answer["constraints"].items():
        assert witness["costs"][field.removeprefix("max_")] <= limit


def test_an_extension_is_validated_with_what_it_takes_over(http, search):
    answer = http.post(VALIDATE, json={"extends": search.id, "num_trials": 3}).json()
    assert (answer["supernet_id"], answer["objectives"]) == (search["supernet_id"], search["objectives"])


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"supernet_id": "sn_x", "num_trials": 1}, 404, "not-found"),
        ({"num_trials": 1}, 422, "invalid-request"),
        ({"supernet_id": "sn_x", "num_trials": 0}, 422, "invalid-request"),
        ({"supernet_id": "sn_x", "num_trials": 1, "unknown": 1}, 422, "invalid-request"),
    ],
)
def test_an_impossible_search_is_refused_as_its_creation_would_be(http, body, status, slug):
    for path in (VALIDATE, "/v1/searches"):
        problem_of(http.post(path, json=body), status, slug)


def test_a_supernet_in_training_is_not_ready(http, untrained):
    response = http.post(VALIDATE, json={"supernet_id": untrained.id, "num_trials": 1})
    problem_of(response, 409, "supernet-not-ready")
