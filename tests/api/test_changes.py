"""PATCH and DELETE: when they are possible, what they leave, and what they say when they are not."""

from __future__ import annotations

import hashlib

import pytest

from nas.job import JobKind
from nas.store import discards
from tests.api.conftest import DIGITS
from tests.api.test_http_conventions import problem_of
from tests.api.worker import SPACE

OCTETS = {"Content-Type": "application/octet-stream"}


def path_of(resource) -> str:
    return resource["links"]["self"]


@pytest.fixture(params=["dataset", "supernet", "search", "batch", "subnet"])
def queued(request, client, worker):
    """A resource of each kind whose job waits, and how its job ends well."""
    dataset = client.datasets.create(DIGITS)
    if request.param == "dataset":
        return dataset, worker.import_dataset
    worker.import_dataset()
    supernet = client.supernets.create(dataset.id, "micro_8")
    if request.param == "supernet":
        return supernet, worker.train
    worker.train()
    if request.param == "search":
        return client.searches.create(supernet.id, 5), lambda: worker.search([], [])
    if request.param == "batch":
        return supernet.evaluate([SPACE.smallest().to_json()]), lambda: worker.evaluate([100])
    subnet = client.subnets.create(supernet_id=supernet.id, architecture=SPACE.smallest().to_json())
    return subnet, lambda: worker.specialise({"model.py": b"m"})


def test_names_and_labels_are_changed_until_the_job_has_ended(http, queued):
    resource, end = queued
    path = path_of(resource)
    first = http.patch(path, json={"display_name": "Größe 🐈", "labels": {"a": "1", "b": "2"}})
    assert first.status_code == 200
    assert (first.json()["display_name"], first.json()["labels"]) == ("Größe 🐈", {"a": "1", "b": "2"})
    # What is not given stays; labels that are given replace all there were.
    second = http.patch(path, json={"labels": {"c": "3"}}).json()
    assert (second["display_name"], second["labels"]) == ("Größe 🐈", {"c": "3"})
    # The job goes by the same names, alone and in the list.
    job = http.get(resource["links"]["job"]).json()
    assert (job["display_name"], job["labels"]) == ("Größe 🐈", {"c": "3"})
    assert job in http.get("/v1/jobs").json()["items"]
    assert http.patch(path, json={"display_name": ""}).json()["labels"] == {"c": "3"}
    assert http.get(path).json()["display_name"] == ""
    end()
    ended = http.get(path).json()
    problem = problem_of(http.patch(path, json={"display_name": "late"}), 409, "conflict")
    assert "has succeeded, and is final" in problem["detail"]
    assert http.get(path).json() == ended


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"display_name": None}, "display_name"),
        ({"labels": None}, "labels"),
        ({"labels": {"team": None}}, "labels.team"),
        ({"labels": {"": "x"}}, "labels."),
        ({"display_name": "x" * 201}, "display_name"),
        ({"display_name": 1}, "display_name"),
        ({"seed": 1}, "seed"),
    ],
)
def test_an_impossible_change_is_refused_by_name(http, client, body, field):
    path = path_of(client.datasets.create(DIGITS))
    problem = problem_of(http.patch(path, json=body), 422, "invalid-request")
    assert problem["errors"][0]["field"].startswith(field)


@pytest.mark.parametrize(
    "collection",
    ["datasets", "supernets", "searches", "subnets", "evaluation-batches", "verifications", "uploads"],
)
def test_what_does_not_exist_is_neither_changed_nor_deleted(http, collection):
    path = f"/v1/{collection}/x_nowhere"
    problem_of(http.delete(path), 404, "not-found")
    if collection != "uploads":
        problem_of(http.patch(path, json={"display_name": "x"}), 404, "not-found")


def test_a_resource_is_deleted_once_its_job_has_ended_and_then_nowhere(http, queued):
    resource, end = queued
    path, job = path_of(resource), resource["links"]["job"]
    problem = problem_of(http.delete(path), 409, "conflict")
    assert "is queued; cancel its job" in problem["detail"]
    end()
    response = http.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    for gone in (path, job, f"{job}/events"):
        problem_of(http.get(gone), 404, "not-found")
    problem_of(http.post(f"{job}/cancel"), 404, "not-found")
    problem_of(http.delete(path), 404, "not-found")
    collection = path.rpartition("/")[0]
    assert http.get(collection).json()["items"] == []


def test_what_is_in_use_is_refused_with_its_users(http, subnet, search):
    supernet = http.get(subnet["links"]["supernet"]).json()
    problem = problem_of(http.delete(path_of(supernet)), 409, "resource-in-use")
    assert problem["used_by"] == [
        {"kind": "search", "id": search.id, "display_name": search["display_name"]},
        {"kind": "subnet", "id": subnet.id, "display_name": subnet["display_name"]},
    ]
    assert problem["num_users"] == 2
    problem = problem_of(http.delete(supernet["links"]["dataset"]), 409, "resource-in-use")
    assert [user["id"] for user in problem["used_by"]] == [supernet["id"]]


def test_a_deleted_subnet_takes_its_bytes_along(http, subnet, artifact_store):
    artifact = http.get(f"{path_of(subnet)}/artifacts").json()["items"][0]
    uri = f"{artifact_store._root}/subnets/{subnet.id}/{artifact['name']}"
    assert artifact_store.exists(uri)
    assert http.delete(path_of(subnet)).status_code == 204
    assert not artifact_store.exists(uri)
    problem_of(http.get(artifact["links"]["self"]), 404, "not-found")
    problem_of(http.get(f"{path_of(subnet)}/artifacts"), 404, "not-found")


def test_a_deleted_upload_takes_its_bytes_along(http, artifact_store):
    upload = http.post("/v1/uploads", content=b"x", headers=OCTETS).json()
    assert f"uploads/{upload['id']}" in artifact_store.folders("uploads")
    assert http.delete(path_of(upload)).status_code == 204
    assert f"uploads/{upload['id']}" not in artifact_store.folders("uploads")
    problem_of(http.get(path_of(upload)), 404, "not-found")


def test_bytes_that_cannot_be_removed_just_now_are_removed_later(
    http, subnet, artifact_store, database, monkeypatch
):
    def refuse(self, key):
        raise OSError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(type(artifact_store), "delete_folder", refuse)
        assert http.delete(path_of(subnet)).status_code == 204
    assert artifact_store.exists(f"{artifact_store._root}/subnets/{subnet.id}/model.py")
    problem_of(http.get(path_of(subnet)), 404, "not-found")
    discards.remove_due(database, artifact_store)
    assert not artifact_store.exists(f"{artifact_store._root}/subnets/{subnet.id}/model.py")


def test_a_deleted_search_leaves_what_it_measured(http, search):
    frontier = f"/v1/supernets/{search['supernet_id']}/frontier"
    before = http.get(frontier).json()
    assert http.delete(path_of(search)).status_code == 204
    assert http.get(frontier).json() == before
    assert before["num_evaluations"] == 5


def test_a_deleted_batch_leaves_what_it_measured_and_keeps_its_supernet_until_then(http, batch):
    supernet = f"/v1/supernets/{batch['supernet_id']}"
    problem = problem_of(http.delete(supernet), 409, "resource-in-use")
    assert problem["used_by"] == [{"kind": "evaluation_batch", "id": batch.id, "display_name": ""}]
    before = http.get(f"{supernet}/evaluations").json()
    assert http.delete(path_of(batch)).status_code == 204
    assert http.get(f"{supernet}/evaluations").json() == before
    assert len(before["items"]) == 2
    assert http.delete(supernet).status_code == 204


def test_a_creation_is_replayed_though_its_resource_was_deleted(http, worker):
    """The answer tells what happened then; a second resource would break the key's promise."""
    headers = {"Idempotency-Key": "once"}
    first = http.post("/v1/datasets", json={"source": DIGITS}, headers=headers)
    worker.fail(JobKind.IMPORT_DATASET, "broken")
    assert http.delete(first.headers["location"]).status_code == 204
    again = http.post("/v1/datasets", json={"source": DIGITS}, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    problem_of(http.get(first.headers["location"]), 404, "not-found")
    upload = {**OCTETS, "Idempotency-Key": "upload"}
    sent = http.post("/v1/uploads", content=b"x", headers=upload)
    assert sent.json()["sha256"] == hashlib.sha256(b"x").hexdigest()
    http.delete(sent.headers["location"])
    assert http.post("/v1/uploads", content=b"x", headers=upload).content == sent.content
    assert http.get("/v1/uploads").json()["items"] == []


def test_a_resource_whose_data_set_is_gone_is_not_made(http, worker):
    dataset = http.post("/v1/datasets", json={"source": DIGITS}).json()
    worker.import_dataset()
    assert http.delete(path_of(dataset)).status_code == 204
    body = {"dataset_id": dataset["id"], "search_space": "micro_8"}
    assert dataset["id"] in problem_of(http.post("/v1/supernets", json=body), 404, "not-found")["detail"]
