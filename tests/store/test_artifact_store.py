"""Bytes in, the same bytes out; whole or not at all; never outside the root."""

from __future__ import annotations

import hashlib
import os

import pytest

from nas.errors import ArtifactError
from nas.store.artifacts import ArtifactStore


@pytest.fixture(params=["folder", "file url", "memory"])
def store(request, tmp_path):
    root = tmp_path / "artefacts of a user"
    return ArtifactStore(
        {"folder": str(root), "file url": root.as_uri(), "memory": f"memory://{tmp_path.name}"}[request.param]
    )


def test_bytes_are_read_back_with_their_digest(store):
    content = os.urandom(3_000_000)
    stored = store.put("sub_a/model.onnx", content)
    assert stored.size_bytes == len(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(store.open(stored.uri)) == content


def test_bytes_are_fetched_only_as_those_that_were_stored(store, tmp_path):
    content = os.urandom(3_000_000)
    stored = store.put("sub_a/model.onnx", content)
    store.fetch(stored.uri, tmp_path / "copy", stored.sha256, remedy="unused")
    assert (tmp_path / "copy").read_bytes() == content
    store.put("sub_a/model.onnx", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.onnx are not those that were stored; make it again"):
        store.fetch(stored.uri, tmp_path / "copy", stored.sha256, remedy="make it again")


def test_a_file_is_stored_like_bytes(store, tmp_path):
    (tmp_path / "card.json").write_bytes(b"{}")
    stored = store.put("sub_a/card.json", tmp_path / "card.json")
    assert stored == store.put("sub_a/card.json", b"{}")


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (3, 4), (2_000_000, 1), (999_999, 1_500_000), (5, None)]
)
def test_a_range_is_exactly_what_was_asked(store, offset, length):
    content = os.urandom(2_500_000)
    uri = store.put("sub_a/weights", content).uri
    end = None if length is None else offset + length
    assert b"".join(store.open(uri, offset, length)) == content[offset:end]


def test_a_replaced_artefact_is_the_newer_one(store):
    uri = store.put("sub_a/card.json", b"old").uri
    assert store.put("sub_a/card.json", b"new").uri == uri
    assert b"".join(store.open(uri)) == b"new"


def test_deleting_is_idempotent_and_a_missing_artefact_is_told(store):
    uri = store.put("sub_a/card.json", b"{}").uri
    assert store.exists(uri)
    store.delete(uri)
    store.delete(uri)
    assert not store.exists(uri)
    with pytest.raises(ArtifactError, match="missing"):
        store.open(uri)


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.hidden", "a\\b", "a\0b", "a/"]
)
def test_a_key_cannot_leave_the_root(store, key):
    with pytest.raises(ArtifactError, match="not allowed"):
        store.put(key, b"")


def test_a_uri_cannot_leave_the_root(store, tmp_path):
    uri = store.put("sub_a/card.json", b"{}").uri
    for outside in ("file:///etc/passwd", uri.replace("sub_a/", "../"), uri + "/../../../x"):
        with pytest.raises(ArtifactError):
            store.open(outside)


def test_a_put_that_fails_leaves_the_old_bytes_and_no_rubbish(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path))
    uri = store.put("sub_a/card.json", b"old").uri

    def refuse(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("nas.store.artifacts.os.fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        store.put("sub_a/card.json", b"new")
    assert b"".join(store.open(uri)) == b"old"
    assert [path.name for path in (tmp_path / "sub_a").iterdir()] == ["card.json"]


def test_folders_are_listed_by_their_keys_and_removed_whole(store):
    kept = store.put("subnets/sub_a/t1/model.py", b"1")
    gone = [store.put(f"subnets/sub_a/t2/{name}", b"2") for name in ("model.py", "card.json")]
    store.put("subnets/sub_a/loose", b"3")
    store.put("subnets/sub_b/t3/model.py", b"4")
    assert store.folders("subnets/sub_a") == ["subnets/sub_a/t1", "subnets/sub_a/t2"]
    assert store.folders("subnets/sub_none") == []
    store.delete_folder("subnets/sub_a/t2")
    store.delete_folder("subnets/sub_a/t2")
    assert store.folders("subnets/sub_a") == ["subnets/sub_a/t1"]
    assert [store.exists(file.uri) for file in (kept, *gone)] == [True, False, False]


def test_the_key_of_a_uri_is_the_one_it_was_stored_under(store):
    assert store.key_of(store.put("subnets/sub_a/t1/model.py", b"1").uri) == "subnets/sub_a/t1/model.py"
    with pytest.raises(ArtifactError, match="does not lie in this artefact store"):
        store.key_of("file:///elsewhere/model.py")


@pytest.mark.parametrize("key", ["..", "subnets/..", "/etc", "", ".hidden"])
def test_no_folder_outside_the_root_is_listed_or_removed(store, key):
    for act in (store.folders, store.delete_folder):
        with pytest.raises(ArtifactError, match="not allowed"):
            act(key)
