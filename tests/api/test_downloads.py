"""Bytes of artefacts: whole, in part, resumed, checked."""

from __future__ import annotations

import hashlib

import pytest

from nas.client import Client, DownloadError, NotReadyError
from nas.client.download import fetch

BYTES = bytes(range(256)) * 5000
ETAG = f'"{hashlib.sha256(BYTES).hexdigest()}"'


@pytest.fixture
def path(subnet) -> str:
    return f"/v1/subnets/{subnet.id}/artifacts/model.safetensors"


def test_a_file_comes_whole_with_its_name_and_digest(http, path):
    response = http.get(path)
    assert response.content == BYTES
    assert response.headers["etag"] == ETAG
    assert response.headers["content-length"] == str(len(BYTES))
    assert response.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["accept-ranges"] == "bytes"


def test_head_tells_the_same_without_the_bytes(http, path):
    response = http.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(BYTES))
    assert response.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1279000-", 1279000, 1279999),
        ("bytes=-5", 1279995, 1279999),
        ("bytes=-9999999", 0, 1279999),
        ("bytes=10-9999999", 10, 1279999),
    ],
)
def test_a_part_comes_when_it_is_asked_for(http, path, asked, first, last):
    response = http.get(path, headers={"Range": asked})
    assert response.status_code == 206
    assert response.content == BYTES[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(BYTES)}"


@pytest.mark.parametrize("asked", ["bytes=1280000-", "bytes=-0", "bytes=99999999-999999999"])
def test_a_part_outside_is_not_satisfiable(http, path, asked):
    response = http.get(path, headers={"Range": asked})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(BYTES)}"
    assert response.json()["type"] == "/problems/range-not-satisfiable"


@pytest.mark.parametrize(
    "asked", ["bytes=5-1", "lines=1-2", "bytes=", "bytes=-", "bytes=0-1,5-6", "x", "bytes=a-"]
)
def test_a_range_that_is_not_understood_is_ignored(http, path, asked):
    response = http.get(path, headers={"Range": asked})
    assert (response.status_code, response.content) == (200, BYTES)


def test_the_rest_comes_only_to_who_holds_the_same_beginning(http, path):
    same = http.get(path, headers={"Range": "bytes=5-", "If-Range": ETAG})
    other = http.get(path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_held_bytes_are_not_sent_again(http, path):
    response = http.get(path, headers={"If-None-Match": ETAG})
    assert (response.status_code, response.content) == (304, b"")


def test_files_exist_once_they_are_published(client, http, search):
    subnet = client.subnets.create(search_id=search.id, trial_number=0)
    response = http.get(f"/v1/subnets/{subnet.id}/artifacts/model.py")
    assert response.json()["type"] == "/problems/subnet-not-ready"
    with pytest.raises(NotReadyError):
        client.subnets.get(subnet.id).transport.get(f"/v1/subnets/{subnet.id}/artifacts/model.py")


def test_bytes_that_are_gone_are_told_so(http, subnet, path, artifact_store, database):
    from nas.store import subnets

    with database.session() as session:
        artifact_store.delete(subnets.artifact(session, subnet.id, "model.safetensors").uri)
    response = http.get(path)
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/artifact-unavailable"


def test_a_cut_download_goes_on_where_it_ended(subnet, tmp_path):
    (tmp_path / "model.safetensors.part").write_bytes(BYTES[:1000])
    subnet.download(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == BYTES
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.py", "model.safetensors"]


def test_changed_bytes_are_not_kept(subnet, tmp_path):
    artifact = {**subnet.artifacts()[0], "sha256": "0" * 64}
    with pytest.raises(DownloadError, match="arrived changed"):
        fetch(subnet.transport, artifact, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "..", ""])
def test_a_file_name_cannot_leave_the_folder(subnet, tmp_path, name):
    with pytest.raises(DownloadError, match="no plain file name"):
        fetch(subnet.transport, {**subnet.artifacts()[0], "name": name}, tmp_path)


def test_what_is_there_already_is_not_fetched_again(service_url, subnet, tmp_path, monkeypatch):
    subnet.download(tmp_path)
    monkeypatch.setattr("nas.client.download._append", lambda *_: pytest.fail("fetched again"))
    with Client(service_url) as other:
        other.subnets.download(subnet.id, tmp_path)
