"""A warm start is asked for, and refused where it is known to be impossible; weights are downloaded."""

from __future__ import annotations

import hashlib
import json

import pytest

from nas.client import Client, NotReadyError, RequestRefusedError, ResourceNotFoundError
from nas.job import JobKind, JobState
from nas.recipes import recipe_from_json
from nas.store import supernets
from tests.api.conftest import DIGITS
from tests.api.weights import SPACE, bundle_file, card, supernet_file, with_content
from tests.api.worker import CALIBRATION, CHECKPOINT

WEIGHTS = bytes(range(256)) * 40


def sent(http, content: bytes) -> str:
    headers = {"Content-Type": "application/octet-stream"}
    response = http.post("/v1/uploads", content=content, headers=headers)
    assert response.status_code == 201, response.text
    return response.json()["id"]


@pytest.fixture
def create(client: Client, supernet):
    """Asks for a training on the images of the trained supernet."""

    def ask(warm_start, *, search_space="micro_8", **fields):
        return client.supernets.create(supernet["dataset_id"], search_space, warm_start=warm_start, **fields)

    return ask


def error_of(refused) -> dict:
    (error,) = refused.value.errors
    return error


# What a training may begin from


def test_a_training_begins_from_a_trained_supernet(create, supernet):
    started = create({"supernet_id": supernet.id})
    told = {"supernet_id": supernet.id, "upload_id": None, "sha256": CHECKPOINT}
    assert started["warm_start"] == told
    assert started["spec"]["warm_start"] == {"supernet_id": supernet.id}
    assert supernet["warm_start"] is None


@pytest.mark.parametrize("content", [supernet_file(), bundle_file()], ids=["supernet", "bundle"])
def test_a_training_begins_from_a_file_that_was_sent(create, http, content):
    upload_id = sent(http, content)
    started = create({"upload_id": upload_id})
    sha256 = hashlib.sha256(content).hexdigest()
    assert started["warm_start"] == {"supernet_id": None, "upload_id": upload_id, "sha256": sha256}


def test_other_classes_are_no_hindrance(create, http):
    assert create({"upload_id": sent(http, supernet_file(class_names=("cat", "dog")))}).state == "queued"


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_training_begins_from_one_that_ended_badly_once_that_had_a_checkpoint(create, client, worker, end):
    ended = create(None)
    lease = worker.claim(JobKind.TRAIN)
    worker.queue.heartbeat(lease, lease_s=60, landed=8)
    if end == "fail":
        worker.queue.fail(lease, "no room")
    else:
        worker.queue.request_cancel(ended.job_id)
        worker.queue.cancelled(lease)
    # Which checkpoint that is, only a worker can read.
    told = {"supernet_id": ended.id, "upload_id": None, "sha256": None}
    assert create({"supernet_id": ended.id})["warm_start"] == told


# What it may not


@pytest.mark.parametrize("warm_start", [{}, {"supernet_id": "sn_a", "upload_id": "up_a"}])
def test_exactly_one_source_is_named(create, warm_start):
    with pytest.raises(RequestRefusedError, match="exactly one of supernet_id and upload_id"):
        create(warm_start)


def test_a_source_that_does_not_exist_is_not_found(create):
    for source in ({"supernet_id": "sn_nothing"}, {"upload_id": "up_nothing"}):
        with pytest.raises(ResourceNotFoundError, match="nothing"):
            create(source)


def test_a_training_that_goes_on_is_no_source_yet(create, supernet):
    running = create(None)
    with pytest.raises(NotReadyError) as refused:
        create({"supernet_id": running.id})
    error = error_of(refused)
    assert (error["field"], error["value"]) == ("warm_start.supernet_id", running.id)
    assert error["allowed"] == "a supernet whose training has ended"
    assert "is queued" in error["message"]
    assert "wait for its training to end, or cancel it" in error["message"]


def test_a_training_that_ended_before_its_first_checkpoint_is_no_source(create):
    cancelled = create(None).cancel()
    assert cancelled.state is JobState.CANCELLED
    with pytest.raises(NotReadyError, match="cancelled before its first checkpoint, and has no weights"):
        create({"supernet_id": cancelled.id})


def test_weights_of_another_space_are_refused(create, http, supernet):
    for source in ({"supernet_id": supernet.id}, {"upload_id": sent(http, supernet_file())}):
        with pytest.raises(RequestRefusedError) as refused:
            create(source, search_space="micro")
        error = error_of(refused)
        assert (error["field"], error["value"], error["allowed"]) == ("search_space", "micro", "micro_8")
        assert "ask for 'micro_8', or start from weights of 'micro'" in error["message"]


REFUSED = {
    "another version of the space": (supernet_file(space_fingerprint="0" * 64), "another version of search"),
    "channels": (supernet_file(in_channels=4), "4 channels, the data set's have 1; only 1 .* and 3"),
    "transforms": (supernet_file(kernel_transform=True), "set recipe.kernel_transform to true"),
    "a network of no such space": (
        bundle_file(
            {
                "card.json": card(
                    architecture={"space": SPACE.name, "decisions": {"stage1.block1.kernel": 9}}
                ),
                "model.safetensors": b"",
            }
        ),
        "none of search space 'micro_8'",
    ),
    "one byte": (b"P", "neither safetensors nor a zip"),
    "text": (b"hello, these are my weights, really", "neither safetensors nor a zip"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "neither safetensors nor a zip"),
    "no description": (supernet_file({}), "does not say which supernet .* warm_start.supernet_id"),
    "cut": (supernet_file()[:-4], "it is cut or damaged"),
    "longer": (supernet_file() + b"more", "it is cut or damaged"),
    "cut in the header": (supernet_file()[:40], "neither safetensors nor a zip"),
    "a newer format": (with_content(format=2), "format 2, written by a newer release; .* up to 1"),
    "no such format": (with_content(format="1"), "format '1' is none that a release has written"),
    "no class names": (with_content(class_names=[]), "no list of class names"),
    "a member missing": (with_content(recipe=None), "it lacks 'recipe'"),
    "channels that are none": (with_content(in_channels=0), "0 is no count"),
    "a header that is no object": ((2).to_bytes(8, "little") + b"[]", "neither safetensors nor a zip"),
    "a deep header": (
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "neither safetensors nor a zip",
    ),
    "a zip of something else": (bundle_file({"readme.txt": b"hello"}), "the zip holds no model.safetensors"),
    "a zip without a card": (bundle_file({"model.safetensors": b""}), "the zip holds no card.json"),
    "a zip that is cut": (bundle_file()[:-30], "the zip is cut"),
    "a newer card": (
        bundle_file({"card.json": card(schema=2), "model.safetensors": b""}),
        "schema 2, written by a newer release",
    ),
    "a card that is no JSON": (
        bundle_file({"card.json": b"{", "model.safetensors": b""}),
        "card.json cannot be read",
    ),
    "a card that is no card": (
        bundle_file({"card.json": card(architecture=3), "model.safetensors": b""}),
        "card.json cannot be read",
    ),
    "a huge directory": (
        bundle_file({f"{number:0200}": b"" for number in range(400)}),
        "holds more than the files of a bundle",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_begun_from_says_why(create, http, client, case):
    content, message = REFUSED[case]
    upload_id = sent(http, content)
    before = len(list(client.supernets.list()))
    with pytest.raises(RequestRefusedError, match=message) as refused:
        create({"upload_id": upload_id})
    error = error_of(refused)
    assert error["field"] in ("warm_start.upload_id", "search_space", "dataset_id", "recipe.kernel_transform")
    assert error["allowed"]
    assert "value" in error
    assert len(list(client.supernets.list())) == before


def test_transforms_are_kept_where_the_recipe_has_them(create, http):
    upload_id = sent(http, supernet_file(kernel_transform=True))
    recipe = {"kernel_transform": True}
    assert create({"upload_id": upload_id}, recipe=recipe)["recipe"] == recipe_from_json(recipe).to_json()


def test_where_the_images_are_not_imported_yet_a_worker_looks_at_their_channels(client, http):
    dataset = client.datasets.create(DIGITS)
    upload_id = sent(http, supernet_file(in_channels=4))
    started = client.supernets.create(dataset.id, "micro_8", warm_start={"upload_id": upload_id})
    assert started.state is JobState.QUEUED


# What a training needs is not deleted


def test_a_source_is_kept_until_the_training_has_ended(create, client, http, supernet, worker):
    upload_id = sent(http, supernet_file())
    for path, source in (
        (f"/v1/supernets/{supernet.id}", {"supernet_id": supernet.id}),
        (f"/v1/uploads/{upload_id}", {"upload_id": upload_id}),
    ):
        started = create(source, display_name="needs it")
        refused = http.delete(path)
        assert refused.status_code == 409
        problem = refused.json()
        assert problem["type"].endswith("resource-in-use")
        user = {"kind": "supernet", "id": started.id, "display_name": "needs it"}
        assert problem["used_by"] == [user]
        started.cancel()
        assert http.delete(path).status_code == 204
        after = client.supernets.get(started.id)
        # What it began from is still told, though not where that is.
        told = {"supernet_id": None, "upload_id": None, "sha256": started["warm_start"]["sha256"]}
        assert after["warm_start"] == told
        assert after["spec"]["warm_start"] == source


# Downloads


@pytest.fixture
def published(untrained, worker, artifact_store):
    """A supernet whose weights are there; its file has the name that earlier releases gave it."""
    worker.import_dataset()
    with worker.job(JobKind.TRAIN) as (session, supernet_id):
        stored = artifact_store.put(f"supernets/{supernet_id}/a/weights.safetensors", WEIGHTS)
        supernets.set_weights(
            session,
            supernet_id,
            checkpoint=stored.sha256,
            weights_uri=stored.uri,
            calibration=CALIBRATION,
        )
    return untrained.refresh()


def test_the_weights_are_listed_and_downloaded(published, http):
    path = f"/v1/supernets/{published.id}/artifacts"
    assert published["links"]["artifacts"] == path
    (listed,) = http.get(path).json()["items"]
    assert listed == {
        "name": "supernet.safetensors",
        "size_bytes": len(WEIGHTS),
        "sha256": published["checkpoint"],
        "media_type": "application/octet-stream",
        "links": {"self": f"{path}/supernet.safetensors"},
    }
    whole = http.get(listed["links"]["self"])
    assert whole.content == WEIGHTS
    assert whole.headers["etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    part = http.get(listed["links"]["self"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert http.head(listed["links"]["self"]).headers["content-length"] == str(len(WEIGHTS))
    held = http.get(listed["links"]["self"], headers={"If-None-Match": whole.headers["etag"]})
    assert held.status_code == 304


def test_before_training_has_ended_there_is_nothing_to_download(untrained, http):
    path = f"/v1/supernets/{untrained.id}/artifacts"
    assert http.get(path).json() == {"items": []}
    refused = http.get(f"{path}/supernet.safetensors")
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    assert "wait for its training to succeed" in refused.json()["detail"]


def test_another_name_is_not_found_with_the_one_there_is(published, http):
    refused = http.get(f"/v1/supernets/{published.id}/artifacts/model.onnx")
    assert refused.status_code == 404
    assert "it has 'supernet.safetensors'" in refused.json()["detail"]


def test_equal_weights_are_equal_bytes_whoever_describes_them():
    assert supernet_file() == supernet_file()
    told = json.loads(supernet_file()[8 : 8 + int.from_bytes(supernet_file()[:8], "little")])
    assert list(told["__metadata__"]) == ["supernet"]
