"""Finalists and verifications over HTTP: what is asked, what is refused, and what the answers tell."""

from __future__ import annotations

import pytest

from nas.client import (
    NotMeasuredError,
    RequestRefusedError,
    ResourceNotFoundError,
    StateConflictError,
    UnknownArchitectureError,
)
from nas.job import JobState
from nas.recipe import Recipe
from nas.trial import wilson_interval
from tests.api.test_http_conventions import problem_of
from tests.api.worker import CHECKPOINT, INHERITED, NUM_VAL, SPACE, costs_of, ladder

FRONTIER = [0, 1, 3, 4]
"""Of the five networks of `search`; the third is dominated."""


def test_finalists_are_the_frontier_and_told_with_test_once_measured(client, search, worker):
    assert search.finalists() == []
    asked = search.finalise(display_name="report")
    assert (asked.state, asked["num_networks"], asked["num_runs"]) == (JobState.QUEUED, 4, 0)
    assert asked["spec"] == {"search_id": search.id, "trainings": []}
    waiting = list(asked.networks())
    assert [network["trial_number"] for network in waiting] == FRONTIER
    assert {network.accuracy_test for network in waiting} == {None}
    with pytest.raises(NotMeasuredError, match="network 0 is not measured yet"):
        assert waiting[0].accuracy
    worker.verify()
    measured = asked.results(timeout=60)
    assert [network.accuracy_test for network in measured] == [INHERITED / NUM_VAL] * 4
    found = search.finalists()
    assert [point["number"] for point in found] == FRONTIER
    assert found[0]["accuracy_test"] == {
        "value": INHERITED / NUM_VAL,
        "num_correct": INHERITED,
        "num_images": NUM_VAL,
        "interval_95": list(wilson_interval(INHERITED, NUM_VAL)),
        "split": "test",
        "provenance": "measured",
        "measured": True,
    }
    assert [point["accuracy_val"]["split"] for point in found] == ["val"] * 4


def test_what_a_subnet_or_another_search_has_measured_on_test_is_told_of_this_one_too(
    client, supernet, search, subnet, worker
):
    assert [point["number"] for point in search.finalists()] == [4]
    other = client.searches.create(supernet.id, 5)
    worker.search(ladder(5), [100, 140, 120, 180, 190])
    assert [point["number"] for point in other.finalists()] == [4]


def test_named_trials_are_finalists_also_while_the_search_goes_on(client, supernet, search):
    named = search.finalise([2, 0])
    assert [network["trial_number"] for network in named.networks()] == [2, 0]
    going_on = client.searches.create(supernet.id, 5)
    with pytest.raises(StateConflictError, match="its frontier may still change"):
        going_on.finalise()
    going_on.cancel()
    with pytest.raises(StateConflictError, match="is cancelled and has no trial"):
        going_on.finalise()


def test_a_verification_tells_inherited_beside_trained_with_the_paired_difference(client, search, worker):
    asked = client.verifications.create(
        search_id=search.id,
        trial_numbers=[4],
        trainings=["alone", "fine_tuned"],
        learning_rates=[0.05, 0.1],
        epochs=3,
        seed=7,
    )
    assert (asked["num_networks"], asked["num_runs"], asked["seed"]) == (1, 4, 7)
    assert [(run["training"], run["learning_rate"], run["epochs"]) for run in asked.runs()] == [
        ("alone", 0.05, 3),
        ("alone", 0.1, 3),
        ("fine_tuned", 0.05, 3),
        ("fine_tuned", 0.1, 3),
    ]
    worker.verify({0: 160, 1: 170, 3: 140})
    (network,) = asked.results(timeout=60)
    alone, tuned = network.trained["alone"], network.trained["fine_tuned"]
    assert (alone["learning_rate"], alone["rate_factor"], alone["run_number"]) == (0.1, 1, 1)
    assert alone["accuracy_test"]["value"] == 170 / NUM_VAL
    assert alone["difference_test"]["value"] == pytest.approx((170 - INHERITED) / NUM_VAL)
    low, high = alone["difference_test"]["interval_95"]
    assert 0 < low < 0.1 < high
    assert (alone["difference_val"]["split"], alone["difference_val"]["num_lost"]) == ("val", 20)
    assert tuned["difference_test"]["interval_95"][1] < 0
    states = [(run["state"], run["is_chosen"], run["error"]) for run in asked.runs()]
    assert states == [
        ("measured", False, None),
        ("measured", True, None),
        ("failed", False, "it diverged"),
        ("measured", True, None),
    ]
    found = asked.refresh()
    assert (found["num_finished"], found["num_measured"], found["num_failed"]) == (1, 3, 1)
    # What networks learned on their own is no answer about the supernet.
    supernet = client.supernets.get(search["supernet_id"])
    assert {point["checkpoint"] for point in supernet.evaluations()} == {CHECKPOINT}


def test_a_network_is_taken_out_with_what_it_was_trained_to(client, search, worker, http):
    asked = client.verifications.create(
        search_id=search.id, trial_numbers=[4], trainings=["alone"], learning_rates=[0.05, 0.1], epochs=3
    )
    named = {"verification_id": asked.id, "network_number": 0, "training": "alone"}
    with pytest.raises(StateConflictError, match=r"is queued and has no weights .*wait for its end"):
        client.subnets.create(**named)
    worker.verify({0: 160, 1: 170})
    with pytest.raises(ResourceNotFoundError, match="no network 1"):
        client.subnets.create(**{**named, "network_number": 1})
    with pytest.raises(StateConflictError, match="verify it with training 'fine_tuned'"):
        client.subnets.create(**{**named, "training": "fine_tuned"})
    subnet = client.subnets.create(**named)
    (network,) = asked.networks()
    assert subnet["architecture_key"] == network["architecture_key"]
    assert subnet["supernet_id"] == search["supernet_id"]
    told = {"training": "alone", "learning_rate": 0.1, "epochs": 3, "seed": 0}
    assert subnet["own_training"] == {"verification_id": asked.id, **told}
    assert client.subnets.create(search_id=search.id, trial_number=4)["own_training"] is None

    # The verification is needed until the bundle is there; what the weights are is known after it as well.
    problem_of(http.delete(f"/v1/verifications/{asked.id}"), 409, "resource-in-use")
    subnet.cancel()
    assert http.delete(f"/v1/verifications/{asked.id}").status_code == 204
    assert client.subnets.get(subnet.id)["own_training"] == {"verification_id": None, **told}


def test_what_is_left_out_comes_from_the_supernets_recipe(client, supernet):
    asked = client.verifications.create(
        supernet_id=supernet.id,
        architectures=[SPACE.largest().to_json()],
        trainings=["alone", "fine_tuned"],
    )
    runs = list(asked.runs())
    base = Recipe().base_learning_rate
    assert [run["learning_rate"] / base for run in runs] == pytest.approx(
        [1 / 8, 1 / 4, 1 / 2, 1, 1 / 64, 1 / 32, 1 / 16, 1 / 8]
    )
    assert [run["epochs"] for run in runs] == [3] * 4 + [1] * 4
    (network,) = asked.networks()
    assert (network.architecture, network.costs) == (SPACE.largest().to_json(), costs_of(SPACE.largest()))
    assert network["trial_number"] is None


def test_spellings_of_one_network_are_verified_once(client, supernet):
    given = SPACE.smallest().to_json()
    asked = client.verifications.create(
        supernet_id=supernet.id, architectures=[given, dict(reversed(given.items()))], trainings=[]
    )
    assert asked["num_networks"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"supernet_id": "sn_x"}, "body"),
        ({"search_id": "se_x", "supernet_id": "sn_x", "architectures": [{}]}, "body"),
        ({"supernet_id": "sn_x", "architectures": [{}], "trial_numbers": [0]}, "body"),
        ({"search_id": "se_x", "architectures": [{}]}, "body"),
        ({"search_id": "se_x", "trainings": ["both"]}, "trainings.0"),
        ({"search_id": "se_x", "trainings": ["alone", "alone"]}, "body"),
        ({"search_id": "se_x", "trial_numbers": []}, "trial_numbers"),
        ({"search_id": "se_x", "trial_numbers": [-1]}, "trial_numbers.0"),
        ({"search_id": "se_x", "trial_numbers": [1.5]}, "trial_numbers.0"),
        ({"search_id": "se_x", "learning_rates": []}, "learning_rates"),
        ({"search_id": "se_x", "learning_rates": [0.0]}, "learning_rates.0"),
        ({"search_id": "se_x", "learning_rates": [0.1, 0.1]}, "body"),
        ({"search_id": "se_x", "learning_rates": ["0.1"]}, "learning_rates.0"),
        ({"search_id": "se_x", "learning_rates": [0.1] * 9}, "learning_rates"),
        ({"search_id": "se_x", "epochs": 0}, "epochs"),
        ({"search_id": "se_x", "epochs": True}, "epochs"),
        ({"search_id": "se_x", "seed": -1}, "seed"),
        ({"search_id": "se_x", "num_workers": 2}, "num_workers"),
    ],
)
def test_an_impossible_verification_is_refused_by_name(http, body, field):
    problem = problem_of(http.post("/v1/verifications", json=body), 422, "invalid-request")
    assert problem["errors"][0]["field"] == field


def test_what_a_verification_names_must_exist(client, supernet, search):
    with pytest.raises(ResourceNotFoundError, match="no search 'se_nowhere'"):
        client.verifications.create(search_id="se_nowhere")
    with pytest.raises(RequestRefusedError, match="has no trial 9") as refused:
        client.verifications.create(search_id=search.id, trial_numbers=[0, 9])
    assert refused.value.errors[0]["field"] == "trial_numbers.1"
    with pytest.raises(UnknownArchitectureError) as unknown:
        client.verifications.create(supernet_id=supernet.id, architectures=[SPACE.smallest().to_json(), {}])
    assert unknown.value.errors[0]["field"] == "architectures.1"
    assert list(client.verifications.list()) == []


def test_more_runs_than_one_job_may_do_are_refused(client, supernet):
    networks = [network.to_json() for network in ladder(30)]
    with pytest.raises(RequestRefusedError, match="30 networks of 16 trainings each are 480 runs"):
        client.verifications.create(
            supernet_id=supernet.id,
            architectures=networks,
            trainings=["alone", "fine_tuned"],
            learning_rates=[rate / 100 for rate in range(1, 9)],
        )


def test_a_deleted_verification_leaves_its_figures_on_test(client, search, worker):
    asked = search.finalise([0])
    worker.verify()
    asked.refresh().delete()
    with pytest.raises(ResourceNotFoundError):
        asked.refresh()
    assert [point["number"] for point in search.finalists()] == [0]


def test_a_supernet_is_in_use_by_its_verifications(http, client, search, worker):
    asked = search.finalise([0])
    worker.verify()
    problem = problem_of(http.delete(f"/v1/supernets/{search['supernet_id']}"), 409, "resource-in-use")
    assert {"kind": "verification", "id": asked.id, "display_name": ""} in problem["used_by"]
