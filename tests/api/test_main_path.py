"""From images to a downloaded network, over HTTP with the client."""

from __future__ import annotations

import hashlib
import json

import pytest

from api.routes import frontiers
from nas.client import (
    InfeasibleConstraintsError,
    JobCancelledError,
    JobFailedError,
    NoNetworkWithinBoundsError,
    NotReadyError,
    RequestRefusedError,
    ResourceNotFoundError,
    StateConflictError,
    UnknownArchitectureError,
    WaitTimeoutError,
)
from nas.job import JobKind, JobState
from nas.recipes import recipe_from_json
from nas.store import supernets
from nas.trial import Provenance, wilson_interval
from search_spaces import SPACES
from tests.api.conftest import ACCURACIES, DIGITS
from tests.api.worker import CHECKPOINT, NUM_VAL, REPORT, SPACE, costs_of, ladder


def test_a_data_set_shows_what_the_import_found(client, worker):
    dataset = client.datasets.create(DIGITS, display_name="digits", labels={"team": "vision"})
    assert (dataset.state, dataset["counts"], dataset["progress"]) == (JobState.QUEUED, None, None)
    assert dataset["spec"]["split"]["val_fraction"] == 0.1
    assert (dataset["display_name"], dataset["labels"]) == ("digits", {"team": "vision"})
    worker.import_dataset()
    dataset = dataset.wait(timeout=60)
    assert dataset["class_names"] == [str(digit) for digit in range(10)]
    assert dataset["counts"] == {"train": 1000, "calibration": 256, "val": NUM_VAL, "test": 300}
    assert (dataset["num_unreadable"], dataset["stored_rule"]) == (0, "one channel, 8 x 8 pixels")
    assert dataset["given_splits"] == ["train"]
    assert dataset["report"] == REPORT
    (listed,) = client.datasets.list()
    assert "report" not in listed


def test_the_report_on_refused_images_can_be_read(client, worker):
    dataset = client.datasets.create(DIGITS)
    assert client.datasets.get(dataset.id)["report"] is None
    worker.refuse_dataset()
    refused = client.datasets.get(dataset.id)
    assert (refused.state, refused["fingerprint"]) == (JobState.FAILED, None)
    assert refused["report"] == REPORT


def test_a_supernet_is_trained_after_its_images_are_imported(client, worker):
    dataset = client.datasets.create(DIGITS)
    supernet = client.supernets.create(dataset.id, "micro_8", recipe={"epochs": 3}, seed=7)
    assert supernet["spec"] == {
        "dataset_id": dataset.id,
        "search_space": "micro_8",
        "recipe": recipe_from_json({"epochs": 3}).to_json(),
        "seed": 7,
        "num_probes": 8,
        "num_workers": 1,
    }
    worker.import_dataset()
    worker.train()
    supernet = supernet.wait(timeout=60)
    assert supernet["checkpoint"] == CHECKPOINT
    assert supernet["progress"] == {"phase": "work", "done": 1, "total": 2, "eta_seconds": None}
    assert supernet["curves"] == supernet.curves()
    assert [point["train_loss"] for point in supernet.curves()] == [2.0]


@pytest.mark.parametrize("search_space", SPACES)
def test_every_space_may_be_trained(client, search_space):
    dataset = client.datasets.create(DIGITS)
    supernet = client.supernets.create(dataset.id, search_space)
    assert (supernet["search_space"], supernet.state) == (search_space, JobState.QUEUED)


def test_probes_are_read_whole_and_only_when_they_have_changed(supernet, untrained, http, worker):
    probes = supernet.probes()
    assert [network["role"] for network in probes["networks"]] == ["largest", "smallest", *["drawn"] * 3]
    assert probes["networks"][0]["architecture_key"] == worker.probes.networks[0].architecture.key
    (epoch,) = probes["epochs"]
    assert (epoch["epoch"], epoch["front"]) == (1, [1, 3, 0])
    largest = epoch["items"][0]["accuracy_val"]
    assert (largest["num_correct"], largest["num_images"], largest["split"]) == (190, NUM_VAL, "val")
    assert probes["flat_at_epoch"] is None
    first = http.get(f"/v1/supernets/{supernet.id}/probes")
    tag = {"If-None-Match": first.headers["etag"]}
    assert http.get(f"/v1/supernets/{supernet.id}/probes", headers=tag).status_code == 304


def test_before_the_first_epoch_there_are_no_probes(untrained, client):
    assert client.supernets.probes(untrained.id)["epochs"] == []
    assert untrained["num_probes"] == 8


def test_a_supernet_tells_of_its_returns_from_divergence(supernet, database):
    assert (supernet["rollbacks"], supernet["probes_flat_at_epoch"]) == ([], None)
    rollback = {"step": 4, "from_step": 6, "reason": "the loss is nan", "rate_factor": 0.5}
    with database.begin() as session:
        supernets.set_rollbacks(session, supernet.id, [rollback])
    assert supernet.refresh()["rollbacks"] == [rollback]


def test_a_supernet_tells_where_its_training_departed_from_an_undisturbed_one(supernet, database):
    assert (supernet["is_exact"], supernet["resume_departures"]) == (True, [])
    departures = ["step 40: threads: 2 before, 1 now"]
    with database.begin() as session:
        supernets.set_resume_departures(session, supernet.id, departures)
    again = supernet.refresh()
    assert (again["is_exact"], again["resume_departures"]) == (False, departures)


def test_the_frontier_leaves_out_what_is_dominated(client, search):
    networks = ladder(5)
    points = search.pareto()
    assert [point["number"] for point in points] == [0, 1, 3, 4]
    assert [point.costs for point in points] == [costs_of(networks[n]) for n in (0, 1, 3, 4)]
    assert points[0].architecture == networks[0].to_json()
    assert points[0].accuracy == ACCURACIES[0] / NUM_VAL
    assert points[0].interval_95 == pytest.approx(wilson_interval(ACCURACIES[0], NUM_VAL))
    assert points[0]["accuracy_val"]["measured"] is True
    assert points[0].accuracy_provenance is Provenance.MEASURED
    assert points[0].costs_provenance is Provenance.COUNTED
    supernet = client.supernets.get(search["supernet_id"])
    assert [point["architecture_key"] for point in supernet.frontier()] == [
        point["architecture_key"] for point in points
    ]


def test_a_frontier_says_how_sure_each_of_its_networks_is(client, search, monkeypatch):
    points = search.pareto()
    chances = [point["frontier_probability"] for point in points]
    # Each gets right what the one before does and more, so that none is matched by a cheaper one by chance.
    assert chances[0] == 1.0
    assert all(0.99 < chance <= 1.0 for chance in chances)
    supernet = client.supernets.get(search["supernet_id"])
    assert [point["frontier_probability"] for point in supernet.frontier()] == chances

    monkeypatch.setattr(frontiers, "_MOST_WITH_PROBABILITIES", 3)
    unsaid = supernet.frontier()
    assert [point["frontier_probability"] for point in unsaid] == [None] * len(points)
    assert [point.costs for point in unsaid] == [point.costs for point in points]


def test_the_frontier_is_asked_under_bounds_and_other_objectives(client, search):
    supernet = client.supernets.get(search["supernet_id"])
    largest = costs_of(SPACE.largest())
    under = supernet.frontier(max_macs="99%")
    assert [point.accuracy * NUM_VAL for point in under] == [100, 140, 180]
    assert supernet.frontier(max_macs=largest["macs"] - 1)[-1].accuracy * NUM_VAL == 180
    both = supernet.frontier(objectives=["params", "peak_activation_bytes"])
    assert both[0].architecture == SPACE.smallest().to_json()
    with pytest.raises(RequestRefusedError, match="latency"):
        supernet.frontier(objectives=["latency"])


def test_beside_the_best_are_told_those_that_may_be_as_good(client, search):
    supernet = client.supernets.get(search["supernet_id"])
    low, _ = wilson_interval(ACCURACIES[4], NUM_VAL)
    may_be = [correct for correct in ACCURACIES[:4] if wilson_interval(correct, NUM_VAL)[1] >= low]
    assert may_be == [180]
    best = supernet.best(max_rivals=3)
    assert [rival["accuracy_val"]["num_correct"] for rival in best["rivals"]] == may_be
    assert supernet.best()["rivals"] == []
    # The cheapest network has no rival beneath its own costs.
    assert (
        supernet.best(max_rivals=3, **{f"max_{n}": c for n, c in costs_of(SPACE.smallest()).items()})[
            "rivals"
        ]
        == []
    )


def test_best_is_the_most_accurate_measured_network_within_the_bounds(client, search):
    networks = ladder(5)
    supernet = client.supernets.get(search["supernet_id"])
    assert supernet.best().accuracy == ACCURACIES[4] / NUM_VAL
    third = costs_of(networks[2])
    # The third keeps the bound too, but the second is better.
    assert supernet.best(max_macs=third["macs"]).accuracy == ACCURACIES[1] / NUM_VAL
    assert supernet.best(max_macs=float(third["macs"]), max_params="100%").costs == costs_of(networks[1])


def test_where_nothing_fits_the_nearest_is_named(client, search):
    supernet = client.supernets.get(search["supernet_id"])
    smallest = costs_of(SPACE.smallest())
    with pytest.raises(NoNetworkWithinBoundsError) as refused:
        supernet.best(max_macs=10, max_params="100%")
    assert refused.value.nearest["architecture"] == SPACE.smallest().to_json()
    assert refused.value.relax == {"max_macs": smallest["macs"], "max_params": smallest["params"]}
    assert supernet.best(**refused.value.relax).costs == smallest


def test_nothing_is_answered_before_there_is_something_to_answer_with(client, untrained, worker):
    for ask in (untrained.best, untrained.frontier, lambda: client.searches.create(untrained.id, 5)):
        with pytest.raises(NotReadyError, match="queued"):
            ask()
    worker.import_dataset()
    worker.train()
    assert untrained.frontier() == []
    with pytest.raises(NotReadyError, match="run a search first"):
        untrained.best()


def test_a_search_that_cannot_find_anything_is_refused(client, supernet):
    floor = costs_of(SPACE.smallest())["macs"]
    with pytest.raises(InfeasibleConstraintsError) as refused:
        client.searches.create(supernet.id, 5, constraints={"max_macs": 10})
    assert refused.value.errors[0]["field"] == "constraints.max_macs"
    bound = refused.value.problem["relax_alone"]["max_macs"]
    assert 10 < bound <= floor
    assert client.searches.create(supernet.id, 5, constraints={"max_macs": floor})["state"] == "queued"


def test_a_search_keeps_its_constraints_as_asked_and_resolved(client, supernet):
    search = client.searches.create(supernet.id, 5, constraints={"max_macs": "50%"})
    assert search["spec"]["constraints"] == {"max_macs": "50%"}
    assert search["constraints"] == {"max_macs": costs_of(SPACE.largest())["macs"] / 2}
    assert search["spec"]["objectives"] == ["accuracy", "macs"]
    assert (search["spec"]["proposer"], search["spec"]["seed"]) == ("model", 0)


def test_a_search_takes_any_of_its_objectives(client, supernet):
    search = client.searches.create(supernet.id, 5, objectives=["params", "accuracy"])
    assert search["objectives"] == ["params", "accuracy"]
    with pytest.raises(RequestRefusedError, match="include 'accuracy'"):
        client.searches.create(supernet.id, 5, objectives=["params"])


def test_trials_come_in_order_page_by_page(search, http):
    assert [point["number"] for point in search.trials()] == [0, 1, 2, 3, 4]
    numbers, params = [], {"page_size": 2}
    while True:
        page = http.get(f"/v1/searches/{search.id}/trials", params=params).json()
        numbers.append([trial["number"] for trial in page["items"]])
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]
    assert numbers == [[0, 1], [2, 3], [4]]


def test_a_running_search_shows_its_frontier_so_far(client, supernet):
    search = client.searches.create(supernet.id, 5)
    assert search.pareto() == []
    assert list(search.trials()) == []


@pytest.mark.parametrize(
    "described",
    [
        SPACE.largest().to_json(),
        {"ks": [7] * 12, "e": [4] * 12, "d": [3] * 4, "w": [16, 24, 48, 80], "r": 8},
        json.dumps(SPACE.largest().to_json()),
    ],
    ids=["readable", "native", "text"],
)
def test_a_subnet_is_named_by_its_architecture(client, supernet, described):
    subnet = client.subnets.create(supernet_id=supernet.id, architecture=described)
    assert subnet["architecture_key"] == SPACE.largest().key
    assert subnet["costs"] == costs_of(SPACE.largest())
    assert (subnet["accuracy_val"], subnet["published_at"], subnet.artifacts()) == (None, None, [])


def test_a_subnet_is_named_by_constraints_or_by_a_trial(client, search):
    networks = ladder(5)
    supernet_id = search["supernet_id"]
    best = client.subnets.create(supernet_id=supernet_id, constraints={"max_macs": "99%"})
    assert best["architecture_key"] == networks[3].key
    chosen = client.subnets.create(search_id=search.id, trial_number=2)
    assert chosen["architecture_key"] == networks[2].key
    assert chosen["supernet_id"] == supernet_id
    with pytest.raises(ResourceNotFoundError, match="no trial 9"):
        client.subnets.create(search_id=search.id, trial_number=9)
    with pytest.raises(NoNetworkWithinBoundsError):
        client.subnets.create(supernet_id=supernet_id, constraints={"max_macs": 10})


def test_an_unknown_architecture_is_told_in_the_space_s_words(client, supernet):
    described = {**SPACE.largest().to_json(), "stage1.block1.kernel": 9}
    with pytest.raises(UnknownArchitectureError, match=r"stage1.block1.kernel 9 is not in \(3, 5, 7\)"):
        client.subnets.create(supernet_id=supernet.id, architecture=described)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"supernet_id": "sn_x"},
        {"supernet_id": "sn_x", "architecture": {}, "constraints": {}},
        {"search_id": "se_x", "trial_number": 0, "supernet_id": "sn_x"},
        {"verification_id": "vf_x", "network_number": 0},
    ],
)
def test_a_subnet_is_named_in_exactly_one_way(client, body):
    with pytest.raises(RequestRefusedError, match="exactly one of these sets"):
        client.subnets.create(**body)


def test_a_published_subnet_is_downloaded_and_checked(subnet, tmp_path):
    assert subnet["accuracy_val"]["num_correct"] == 190
    assert subnet["accuracy_test"]["split"] == "test"
    assert (subnet["accuracy_test"]["provenance"], subnet["costs_provenance"]) == ("measured", "counted")
    listed = {artifact["name"]: artifact for artifact in subnet.artifacts()}
    paths = subnet.download(tmp_path / "bundle")
    assert sorted(path.name for path in paths) == sorted(listed) == ["model.py", "model.safetensors"]
    for path in paths:
        data = path.read_bytes()
        assert len(data) == listed[path.name]["size_bytes"]
        assert hashlib.sha256(data).hexdigest() == listed[path.name]["sha256"]


def test_waiting_shows_progress_and_ends_with_the_job(client, untrained, worker):
    seen = []
    with pytest.raises(WaitTimeoutError, match="still queued"):
        untrained.wait(timeout=0.3, on_progress=lambda supernet: seen.append(supernet.state))
    assert seen == [JobState.QUEUED]
    worker.import_dataset()
    worker.fail(JobKind.TRAIN, "the images are too small")
    with pytest.raises(JobFailedError, match="too small"):
        client.supernets.wait(untrained.id, timeout=60)


def test_cancelling_is_idempotent_until_the_job_has_ended_otherwise(client, untrained, worker, search):
    job = client.jobs.get(untrained.job_id)
    assert job.is_terminal  # `search` needs it trained
    with pytest.raises(StateConflictError, match="succeeded"):
        client.jobs.cancel(job.id)
    queued = client.searches.create(untrained.id, 5)
    assert [queued.cancel().state, queued.cancel().state] == [JobState.CANCELLED] * 2
    with pytest.raises(JobCancelledError):
        queued.wait()


def test_a_data_set_that_failed_trains_nothing(client, worker):
    dataset = client.datasets.create({"kind": "parquet", "path": "/nowhere"})
    worker.fail(JobKind.IMPORT_DATASET, "/nowhere does not exist")
    with pytest.raises(NotReadyError, match="was not imported: its job is failed; register"):
        client.supernets.create(dataset.id, "micro")
    assert client.datasets.get(dataset.id)["error"] == "/nowhere does not exist"


def test_lists_show_everything_newest_first(client, subnet, search):
    assert [found.id for found in client.subnets.list()] == [subnet.id]
    assert [found.id for found in client.searches.list(supernet_id=search["supernet_id"])] == [search.id]
    assert list(client.searches.list(supernet_id="sn_other")) == []
    kinds = [job["kind"] for job in client.jobs.list()]
    assert kinds == ["specialise", "search", "train", "import_dataset"]
    assert list(client.jobs.list(state=["failed", "queued"])) == []


def test_spaces_tell_their_decisions_their_size_and_their_costs(client):
    listed = {space["name"]: space for space in client.search_spaces.list()}
    assert "decisions" not in listed["micro"]
    space = client.search_spaces.get("micro_8", num_classes=10, in_channels=1)
    assert space["costs"]["macs"] == {
        "smallest": costs_of(SPACE.smallest())["macs"],
        "largest": costs_of(SPACE.largest())["macs"],
    }
    assert space["decisions"][2]["name"] == SPACE.decisions[2].name
    assert space["num_networks"] == SPACE.size()
    ofa = client.search_spaces.get("ofa_mobilenetv3")
    assert int(ofa["num_networks_text"]) == ofa["num_networks"] > 2**53
    with pytest.raises(ResourceNotFoundError, match="micro_8"):
        client.search_spaces.get("nothing")


def test_collections_ask_by_id_alone(client, search, subnet, tmp_path):
    supernet_id = search["supernet_id"]
    assert client.supernets.best(supernet_id, max_macs="99%").accuracy == ACCURACIES[3] / NUM_VAL
    assert len(client.supernets.frontier(supernet_id)) == len(client.searches.pareto(search.id)) == 4
    assert len(client.supernets.curves(supernet_id)) == 1
    assert len(list(client.searches.trials(search.id))) == 5
    assert len(client.subnets.artifacts(subnet.id)) == len(client.subnets.download(subnet.id, tmp_path)) == 2


def test_a_point_is_specialised_as_it_was_measured(client, search):
    point = client.supernets.best(search["supernet_id"])
    subnet = point.specialise(display_name="best")
    assert subnet["architecture_key"] == point["architecture_key"]
    assert (subnet["costs"], subnet["display_name"]) == (point.costs, "best")
