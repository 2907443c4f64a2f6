"""A data set's splits as files to download."""

from __future__ import annotations

import hashlib

import pytest

from nas.client import DownloadError, NotReadyError
from nas.job import JobKind
from tests.api.conftest import DIGITS, SPLIT_FILES


@pytest.fixture
def dataset(client, worker):
    dataset = client.datasets.create(DIGITS)
    worker.import_dataset(SPLIT_FILES)
    return dataset.refresh()


def test_the_listing_tells_what_the_downloads_give(http, dataset):
    items = http.get(dataset["links"]["splits"]).json()["items"]
    assert [item["name"] for item in items] == sorted(SPLIT_FILES)
    for item in items:
        content = SPLIT_FILES[item["name"]]
        assert item["links"]["self"] == f"/v1/datasets/{dataset.id}/splits/{item['name']}"
        response = http.get(item["links"]["self"])
        assert response.content == content
        assert item["size_bytes"] == len(content)
        assert response.headers["etag"] == f'"{item["sha256"]}"'
        assert item["sha256"] == hashlib.sha256(content).hexdigest()
        head = http.head(item["links"]["self"])
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))


def test_a_part_comes_when_it_is_asked_for(http, dataset):
    response = http.get(f"/v1/datasets/{dataset.id}/splits/val.npz", headers={"Range": "bytes=3-7"})
    assert (response.status_code, response.content) == (206, SPLIT_FILES["val.npz"][3:8])


def test_an_unknown_split_is_told_with_those_there_are(http, dataset):
    response = http.get(f"/v1/datasets/{dataset.id}/splits/calibration.npz")
    assert response.status_code == 404
    assert "its files: 'test.npz', 'train.npz', 'val.npz'" in response.json()["detail"]


def test_before_the_import_is_done_there_is_nothing_to_download(client, http, worker):
    dataset = client.datasets.create(DIGITS)
    path = f"/v1/datasets/{dataset.id}/splits/train.npz"
    assert http.get(f"/v1/datasets/{dataset.id}/splits").json() == {"items": []}
    response = http.get(path)
    assert (response.status_code, response.json()["state"]) == (409, "queued")
    assert response.json()["detail"].endswith(
        "is queued and has no splits to download; wait for its job to succeed"
    )
    with pytest.raises(NotReadyError):
        dataset.transport.get(path)
    worker.fail(JobKind.IMPORT_DATASET, "unreadable")
    assert http.get(path).json()["detail"].endswith("; register the images again")


def test_the_client_fetches_a_split_once(dataset, tmp_path):
    path = dataset.download("train", tmp_path / "images")
    assert path == tmp_path / "images" / "train.npz"
    assert path.read_bytes() == SPLIT_FILES["train.npz"]
    with pytest.raises(DownloadError, match="no split 'all' to download; it has: 'test', 'train', 'val'"):
        dataset.download("all", tmp_path)
