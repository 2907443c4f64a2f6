"""Networks that something outside chose: given over HTTP, answered in their order."""

from __future__ import annotations

import json

import pytest

from nas.client import (
    NotMeasuredError,
    NotReadyError,
    ResourceNotFoundError,
    StateConflictError,
    UnknownArchitectureError,
)
from nas.job import JobState
from nas.trial import wilson_interval
from search_spaces import SPACES
from tests.api.conftest import ACCURACIES, DIGITS
from tests.api.test_http_conventions import problem_of
from tests.api.worker import CHECKPOINT, NUM_VAL, SPACE, costs_of, ladder

NETWORKS = ladder(5)
GIVEN = [network.to_json() for network in NETWORKS]
BOUND = costs_of(NETWORKS[2])["macs"]


def test_what_is_given_is_answered_in_its_order_with_figures_and_exact_costs(client, supernet, worker):
    batch = supernet.evaluate(GIVEN[::-1], display_name="mine", labels={"by": "me"})
    assert (batch.state, batch["num_architectures"], batch["num_measured"]) == (JobState.QUEUED, 5, 0)
    assert (batch["display_name"], batch["labels"]) == ("mine", {"by": "me"})
    # Whoever lists jobs does not get a thousand networks with each.
    assert batch["spec"] == {"constraints": {}}
    assert {network["state"] for network in batch.networks()} == {"unmeasured"}
    worker.evaluate(ACCURACIES[::-1])
    results = batch.results(timeout=60)
    assert [network.number for network in results] == [*range(5)]
    assert [network.architecture for network in results] == GIVEN[::-1]
    assert [network.costs for network in results] == [costs_of(network) for network in NETWORKS[::-1]]
    assert [network.accuracy * NUM_VAL for network in results] == ACCURACIES[::-1]
    assert results[0].interval_95 == pytest.approx(wilson_interval(ACCURACIES[-1], NUM_VAL))
    assert all(network.is_measured and not network["is_reused"] for network in results)
    assert batch.refresh()["num_measured"] == 5


def test_spellings_of_one_network_share_one_evaluation(client, supernet, worker):
    smallest, largest = SPACE.smallest().to_json(), SPACE.largest().to_json()
    batch = supernet.evaluate([smallest, largest, json.dumps(smallest), dict(reversed(smallest.items()))])
    worker.evaluate([100, 190])
    results = batch.results(timeout=60)
    assert [round(network.accuracy * NUM_VAL) for network in results] == [100, 190, 100, 100]
    assert len(list(supernet.evaluations())) == 2


def test_the_dictionaries_of_once_for_all_are_read(client, worker):
    space = SPACES["ofa_mobilenetv3"]
    dataset = client.datasets.create(DIGITS)
    supernet = client.supernets.create(dataset.id, space.name)
    worker.import_dataset()
    worker.train()
    description = {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 160}
    (network,) = supernet.evaluate([description]).networks()
    assert network.architecture == space.canonical(space.parse(description)).to_json()


def test_what_breaks_a_constraint_is_infeasible_with_its_costs_and_not_measured(client, supernet, worker):
    batch = supernet.evaluate(GIVEN, constraints={"max_macs": BOUND, "max_params": "100%"})
    largest = costs_of(SPACE.largest())
    assert batch["constraints"] == {"max_macs": BOUND, "max_params": largest["params"]}
    assert batch["num_infeasible"] == 2
    worker.evaluate(ACCURACIES[:3])
    results = batch.results(timeout=60)
    # A network on a bound keeps it.
    assert [network["state"] for network in results] == ["measured"] * 3 + ["infeasible"] * 2
    assert [network.is_infeasible for network in results] == [False] * 3 + [True] * 2
    assert [network["breaks"] for network in results] == [[]] * 3 + [["max_macs"]] * 2
    assert results[4].costs == largest
    assert (results[4]["accuracy_val"], results[4]["is_reused"]) == (None, False)
    with pytest.raises(NotMeasuredError, match="network 4 is infeasible"):
        _ = results[4].accuracy
    assert len(list(supernet.evaluations())) == 3


def test_many_are_costed_as_one_by_one(supernet):
    networks = ladder(150)
    batch = supernet.evaluate([network.to_json() for network in networks], constraints={"max_macs": BOUND})
    found = list(batch.networks())
    assert [network.costs for network in found] == [costs_of(network) for network in networks]
    assert [network.is_infeasible for network in found] == [n.costs["macs"] > BOUND for n in found]


def test_what_a_search_has_measured_is_taken_over_when_the_batch_is_made(client, search, worker):
    supernet = client.supernets.get(search["supernet_id"])
    new = SPACE.canonical(SPACE.parse(ladder(9)[4].to_json()))
    assert new not in NETWORKS
    batch = supernet.evaluate([GIVEN[3], new.to_json(), GIVEN[0]])
    assert [network["state"] for network in batch.networks()] == ["measured", "unmeasured", "measured"]
    worker.evaluate([199])
    results = batch.results(timeout=60)
    assert [network["is_reused"] for network in results] == [True, False, True]
    assert [round(n.accuracy * NUM_VAL) for n in results] == [ACCURACIES[3], 199, ACCURACIES[0]]


def test_what_is_infeasible_is_not_taken_over(client, search):
    supernet = client.supernets.get(search["supernet_id"])
    (network,) = supernet.evaluate([GIVEN[4]], constraints={"max_macs": BOUND}).networks()
    assert (network["state"], network["accuracy_val"]) == ("infeasible", None)


def test_what_was_measured_is_known_to_best_frontier_and_subnets(client, supernet, worker):
    batch = supernet.evaluate(GIVEN)
    worker.evaluate(ACCURACIES)
    best = supernet.best(max_macs=BOUND)
    assert best.architecture == GIVEN[1]
    assert [point.architecture for point in supernet.frontier()] == [GIVEN[n] for n in (0, 1, 3, 4)]
    subnet = batch.results(timeout=60)[4].specialise()
    assert subnet["architecture"] == GIVEN[4]


def test_everything_measured_is_listed_newest_first_page_by_page(http, client, search, worker):
    supernet_id = search["supernet_id"]
    batch = client.supernets.evaluate(supernet_id, [ladder(9)[4].to_json()])
    worker.evaluate([150])
    path, found, params = f"/v1/supernets/{supernet_id}/evaluations", [], {"page_size": 4}
    while True:
        page = http.get(path, params=params).json()
        found += page["items"]
        if page["next_page_token"] is None:
            break
        assert len(page["items"]) == 4
        params["page_token"] = page["next_page_token"]
    (newest,) = batch.results(timeout=60)
    expected = [newest.architecture, *GIVEN[::-1]]
    assert [evaluation["architecture"] for evaluation in found] == expected
    assert [dict(point) for point in client.supernets.evaluations(supernet_id)] == found
    assert {evaluation["checkpoint"] for evaluation in found} == {CHECKPOINT}


def test_a_foreign_network_is_told_by_its_place_and_nothing_is_made(http, supernet):
    foreign = {**GIVEN[0], "stage1.width": 9}
    body = {"architectures": [GIVEN[1], foreign]}
    response = http.post(f"/v1/supernets/{supernet.id}/evaluations", json=body)
    problem = problem_of(response, 422, "unknown-architecture")
    (error,) = problem["errors"]
    assert error["field"] == "architectures.1"
    for told in ("stage1.width", "9", "8"):
        assert told in error["message"]
    for kind in ("evaluation-batches", "jobs"):
        assert "evaluate" not in {i.get("kind") for i in http.get(f"/v1/{kind}").json()["items"]}
    assert http.get("/v1/evaluation-batches").json()["items"] == []


def test_a_thousand_long_descriptions_fit(supernet):
    batch = supernet.evaluate([SPACE.largest().to_json()] * 1000, display_name="x" * 200)
    assert batch["num_architectures"] == 1000
    assert len(list(batch.networks())) == 1000


def test_networks_of_no_supernet_or_of_one_not_trained_are_refused(client, untrained):
    with pytest.raises(ResourceNotFoundError):
        client.supernets.evaluate("sn_nowhere", GIVEN)
    with pytest.raises(NotReadyError):
        untrained.evaluate(GIVEN)
    with pytest.raises(NotReadyError):
        list(untrained.evaluations())
    with pytest.raises(ResourceNotFoundError):
        client.evaluation_batches.get("eb_nowhere")
    assert list(client.evaluation_batches.list()) == []


def test_a_key_makes_one_batch_and_belongs_to_its_supernet(http, client, supernet):
    path, headers = f"/v1/supernets/{supernet.id}/evaluations", {"Idempotency-Key": "once"}
    first = http.post(path, json={"architectures": GIVEN}, headers=headers)
    again = http.post(path, json={"architectures": GIVEN, "constraints": {}}, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert first.headers["location"] == f"/v1/evaluation-batches/{first.json()['id']}"
    other = http.post(path, json={"architectures": GIVEN[:1]}, headers=headers)
    problem_of(other, 422, "idempotency-conflict")
    assert len(http.get("/v1/evaluation-batches").json()["items"]) == 1


def test_its_job_tells_of_it_and_cancels_it(http, client, supernet):
    batch = supernet.evaluate(GIVEN)
    job = client.jobs.get(batch.job_id)
    assert (job["kind"], job["resource_id"]) == ("evaluate", batch.id)
    assert job["links"]["resource"] == batch["links"]["self"]
    assert http.get(job["links"]["resource"]).json()["id"] == batch.id
    assert batch.cancel().state is JobState.CANCELLED
    assert {network["state"] for network in batch.networks()} == {"unmeasured"}
    with pytest.raises(StateConflictError):
        batch.update(display_name="late")


def test_batches_are_listed_newest_first_and_by_their_supernet(client, supernet):
    ids = [supernet.evaluate(GIVEN[:n]).id for n in (1, 2, 3)]
    assert [batch.id for batch in client.evaluation_batches.list()] == ids[::-1]
    found = list(client.evaluation_batches.list(supernet_id=supernet.id))
    assert [batch["num_architectures"] for batch in found] == [3, 2, 1]
    assert list(client.evaluation_batches.list(supernet_id="sn_other")) == []


def test_the_error_has_the_type_of_its_problem(supernet):
    with pytest.raises(UnknownArchitectureError, match=r"stage1\.width"):
        supernet.evaluate([{**GIVEN[0], "stage1.width": 9}])
