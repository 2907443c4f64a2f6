"""A search that has ended, extended by a new one."""

from __future__ import annotations

import pytest

from nas.job import JobKind
from tests.api.conftest import ACCURACIES
from tests.api.test_http_conventions import problem_of
from tests.api.worker import ladder

SEARCHES = "/v1/searches"


@pytest.fixture
def bounded(http, supernet, worker) -> dict:
    """A search under constraints of its own, ended."""
    body = {
        "supernet_id": supernet.id,
        "num_trials": 5,
        "constraints": {"max_macs": "90%", "max_params": 1e9},
        "objectives": ["accuracy", "params"],
    }
    search = http.post(SEARCHES, json=body).json()
    worker.search(ladder(5), ACCURACIES)
    return search


def test_what_is_left_out_is_taken_from_the_search_extended_and_echoed(http, bounded):
    response = http.post(SEARCHES, json={"extends": bounded["id"], "num_trials": 7})
    assert response.status_code == 201, response.text
    search = response.json()
    for name in ("supernet_id", "constraints", "objectives"):
        assert search[name] == bounded[name]
        assert search["spec"][name] == bounded[name]
    assert (search["extends"], search["spec"]["extends"]) == (bounded["id"], bounded["id"])
    assert (search["num_trials"], bounded["extends"]) == (7, None)
    assert search["links"]["extends"] == bounded["links"]["self"]
    assert http.get(search["links"]["self"]).json() == search


def test_what_is_given_counts(http, bounded, supernet):
    body = {
        "supernet_id": supernet.id,
        "extends": bounded["id"],
        "num_trials": 7,
        "constraints": {},
        "objectives": ["accuracy", "macs"],
    }
    search = http.post(SEARCHES, json=body).json()
    assert (search["constraints"], search["objectives"]) == ({}, ["accuracy", "macs"])


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_any_end_can_be_extended(http, supernet, worker, end):
    earlier = http.post(SEARCHES, json={"supernet_id": supernet.id, "num_trials": 5}).json()
    if end == "cancel":
        http.post(earlier["links"]["cancel"])
    else:
        worker.fail(JobKind.SEARCH, "broken")
    assert http.post(SEARCHES, json={"extends": earlier["id"], "num_trials": 1}).status_code == 201


def test_a_search_that_goes_on_is_not_extended(http, supernet):
    earlier = http.post(SEARCHES, json={"supernet_id": supernet.id, "num_trials": 5}).json()
    response = http.post(SEARCHES, json={"extends": earlier["id"], "num_trials": 1})
    assert "wait for its end" in problem_of(response, 409, "conflict")["detail"]


def test_a_search_of_another_supernet_is_not_extended(http, client, worker, bounded, supernet):
    other = client.supernets.create(supernet["dataset_id"], "micro_8")
    worker.train()
    body = {"supernet_id": other.id, "extends": bounded["id"], "num_trials": 1}
    problem = problem_of(http.post(SEARCHES, json=body), 422, "invalid-request")
    assert problem["errors"][0]["field"] == "extends"
    assert "same supernet" in problem["detail"]


def test_a_search_that_does_not_exist_is_not_extended(http):
    response = http.post(SEARCHES, json={"extends": "se_nowhere", "num_trials": 1})
    assert "se_nowhere" in problem_of(response, 404, "not-found")["detail"]


def test_a_search_of_nothing_is_refused(http):
    problem = problem_of(http.post(SEARCHES, json={"num_trials": 1}), 422, "invalid-request")
    assert "give supernet_id, or extends" in problem["detail"]


def test_the_client_extends_a_search(client, bounded):
    assert client.searches.create(extends=bounded["id"], num_trials=3)["extends"] == bounded["id"]
