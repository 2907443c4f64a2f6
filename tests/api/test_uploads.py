"""Files sent to the service: whole or not at all, never whole in memory, made once for a key."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import socket
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import select, text, update

from api.settings import ApiSettings
from nas.client import Client
from nas.client.errors import ClientError
from nas.errors import ArtifactError
from nas.store import discards, uploads
from nas.store.artifacts import ArtifactStore
from nas.store.tables import DiscardedFolderRow, UploadRow
from tests.api.conftest import running
from tests.api.test_http_conventions import problem_of

UPLOADS = "/v1/uploads"
OCTETS = {"Content-Type": "application/octet-stream"}
CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def folders(store: ArtifactStore) -> list[str]:
    return store.folders("uploads")


@pytest.fixture(autouse=True)
def no_folder_stays(artifact_store):
    artifact_store.delete_folder("uploads")


@pytest.fixture
def nothing_is_left(database, artifact_store):
    """Checks at the end that the test left no row, no note and no folder."""
    yield
    deadline = time.monotonic() + 30
    while not is_clean(database, artifact_store):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_clean(database, artifact_store) -> bool:
    with database.session() as session:
        rows = [*session.scalars(select(UploadRow)), *session.scalars(select(DiscardedFolderRow))]
    return not rows and folders(artifact_store) == []


def read(database, artifact_store, upload_id) -> bytes:
    with database.session() as session:
        return b"".join(artifact_store.open(uploads.get(session, upload_id).uri))


def test_a_file_is_stored_as_it_was_sent(http, database, artifact_store):
    response = http.post(UPLOADS, content=CONTENT, headers=OCTETS, params={"display_name": "Katzen 🐈.zip"})
    assert response.status_code == 201
    upload = response.json()
    assert (upload["size_bytes"], upload["sha256"]) == (len(CONTENT), SHA256)
    assert upload["display_name"] == "Katzen 🐈.zip"
    assert upload["id"].startswith("up_")
    assert response.headers["location"] == upload["links"]["self"]
    assert http.get(upload["links"]["self"]).json() == upload
    assert http.get(UPLOADS).json()["items"] == [upload]
    assert read(database, artifact_store, upload["id"]) == CONTENT


@pytest.mark.parametrize(
    "media_type",
    ["application/zip", "application/x-tar", "application/gzip", "application/octet-stream; a=b"],
)
def test_a_file_may_say_what_it_is(http, media_type):
    assert http.post(UPLOADS, content=b"x", headers={"Content-Type": media_type}).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {**OCTETS, "Content-Encoding": "gzip"},
    ],
)
def test_a_form_and_json_are_no_file(http, headers, nothing_is_left):
    problem_of(http.post(UPLOADS, content=b"x", headers=headers), 415, "unsupported-media-type")


def test_an_empty_file_is_refused(http, nothing_is_left):
    problem_of(http.post(UPLOADS, content=b"", headers=OCTETS), 422, "empty-upload")


@pytest.mark.parametrize("name", ["x" * 201, "a\0b"])
def test_an_impossible_name_is_refused(http, name, nothing_is_left):
    response = http.post(UPLOADS, content=b"x", headers=OCTETS, params={"display_name": name})
    assert problem_of(response, 422, "invalid-request")["errors"][0]["field"] == "display_name"


def test_bytes_that_arrive_changed_are_refused(http, nothing_is_left):
    digest = b64encode(bytes.fromhex(SHA256)).decode()
    headers = {**OCTETS, "Content-Digest": f"md5=:aaaa:, sha-256=:{digest}:"}
    problem_of(http.post(UPLOADS, content=b"other", headers=headers), 422, "digest-mismatch")


def test_bytes_that_arrive_as_promised_are_taken(http):
    digest = b64encode(bytes.fromhex(SHA256)).decode()
    headers = {**OCTETS, "Content-Digest": f"sha-256=:{digest}:"}
    assert http.post(UPLOADS, content=CONTENT, headers=headers).status_code == 201


@pytest.mark.parametrize("digest", ["sha-256=x", "sha-256=::", "sha-256=:AAAA:"])
def test_a_malformed_digest_is_refused(http, digest, nothing_is_left):
    headers = {**OCTETS, "Content-Digest": digest}
    problem = problem_of(http.post(UPLOADS, content=b"x", headers=headers), 422, "invalid-request")
    assert problem["errors"][0]["field"] == "content-digest"


# Limits


@pytest.fixture
def small(postgres_server, database_url, artifact_store):
    """A service that takes 1 MB at most, in the same store."""
    settings = ApiSettings(
        database_url=postgres_server.url,
        artifact_url=artifact_store._root,
        port=0,
        max_upload_bytes=1_000_000,
    )
    with running(settings) as (_, url):
        yield httpx.URL(url)


@pytest.fixture
def small_http(small):
    with httpx.Client(base_url=small, timeout=20) as http:
        yield http


def test_a_file_too_large_is_refused_before_it_is_sent(small, nothing_is_left):
    with socket.create_connection((small.host, small.port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\n"
            b"Content-Length: 1000001\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"NAS_MAX_UPLOAD_BYTES" in answer


def test_a_file_that_turns_out_too_large_is_refused(small_http, nothing_is_left):
    response = small_http.post(UPLOADS, content=iter([b"x" * 100_000] * 11), headers=OCTETS)
    problem_of(response, 413, "body-too-large")


def test_the_limit_itself_is_allowed(small_http):
    for content in (b"x" * 1_000_000, iter([b"x" * 100_000] * 10)):
        assert small_http.post(UPLOADS, content=content, headers=OCTETS).status_code == 201


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_cut_upload_leaves_nothing(small, database, artifact_store, nothing_is_left, is_chunked):
    length = b"Transfer-Encoding: chunked\r\n" if is_chunked else b"Content-Length: 900000\r\n"
    head = b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\n" + length
    connection = socket.create_connection((small.host, small.port), timeout=60)
    body = b"x" * 300_000
    connection.sendall(head + b"\r\n" + (b"493e0\r\n" + body + b"\r\n" if is_chunked else body))
    deadline = time.monotonic() + 30
    while folders(artifact_store) == []:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection.close()


def test_an_upload_in_flight_is_not_taken_for_litter_and_one_given_up_is_not_created(
    database, artifact_store
):
    with database.begin() as session:
        upload_id = uploads.begin(session)
    stored = artifact_store.put(uploads.key_of(upload_id), b"x")
    discards.remove_due(database, artifact_store)
    assert artifact_store.exists(stored.uri)
    with database.begin() as session:
        session.execute(update(DiscardedFolderRow).values(due_at=text("clock_timestamp()")))
    discards.remove_due(database, artifact_store)
    assert not artifact_store.exists(stored.uri)
    with pytest.raises(ArtifactError, match="longer than"), database.begin() as session:
        uploads.create(session, upload_id, display_name="", stored=stored)
    with database.session() as session:
        assert session.scalars(select(UploadRow)).all() == []


def test_a_full_disk_is_told_and_nothing_stays(http, nothing_is_left):
    """A limit on the size of files meets a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        response = http.post(UPLOADS, content=CONTENT, headers=OCTETS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    problem_of(response, 507, "storage-full")


# Keys


def test_a_key_makes_one_upload_of_the_same_bytes(http, artifact_store):
    headers = {**OCTETS, "Idempotency-Key": "once"}
    first = http.post(UPLOADS, content=CONTENT, headers=headers)
    again = http.post(UPLOADS, content=CONTENT, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    other = http.post(UPLOADS, content=b"other", headers=headers)
    problem_of(other, 422, "idempotency-conflict")
    renamed = http.post(UPLOADS, content=CONTENT, headers=headers, params={"display_name": "x"})
    problem_of(renamed, 422, "idempotency-conflict")
    assert folders(artifact_store) == [f"uploads/{first.json()['id']}"]


def test_many_at_once_with_one_key_make_one_upload(http, artifact_store):
    def send(_):
        return http.post(UPLOADS, content=CONTENT, headers={**OCTETS, "Idempotency-Key": "race"})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(12)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    (upload_id,) = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert folders(artifact_store) == [f"uploads/{upload_id}"]


# The client


def test_the_client_sends_a_file_and_tells_how_far_it_is(client, tmp_path, database, artifact_store):
    path = tmp_path / "pets.zip"
    path.write_bytes(CONTENT)
    told = []
    upload = client.uploads.create(path, on_progress=lambda *seen: told.append(seen))
    assert upload["display_name"] == "pets.zip"
    assert upload["sha256"] == SHA256
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [seen for seen, _ in told] == sorted(seen for seen, _ in told)
    assert client.uploads.get(upload["id"]) == upload
    assert [*client.uploads.list()] == [upload]
    assert read(database, artifact_store, upload["id"]) == CONTENT


def test_the_client_sends_an_open_file_from_where_it_stands(client):
    file = io.BytesIO(b"before" + CONTENT)
    file.seek(6)
    assert client.uploads.create(file, display_name="rest")["sha256"] == SHA256


def test_the_client_sends_a_broken_upload_again(service_url, database_url, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    send, tries = httpx.HTTPTransport.handle_request, []

    def broken(self, request):
        tries.append(request.headers["Idempotency-Key"])
        if len(tries) == 1:
            next(iter(request.stream))
            raise httpx.WriteError("cut")
        response = send(self, request)
        if len(tries) == 2:
            response.read()
            raise httpx.ReadError("cut after the service had it")
        return response

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", broken)
    with Client(service_url) as client:
        upload = client.uploads.create(io.BytesIO(CONTENT))
        assert upload["sha256"] == SHA256
        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", send)
        assert [*client.uploads.list()] == [upload]
    assert len(tries) == 3
    assert len(set(tries)) == 1


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        yield pipe


def test_a_pipe_is_sent_though_it_does_not_tell_its_size(client, pipe):
    assert client.uploads.create(pipe, display_name="")["size_bytes"] == 14


def test_a_pipe_that_cannot_be_sent_again_is_told_so(client, pipe, monkeypatch, nothing_is_left):
    def broken(self, request):
        list(request.stream)
        raise httpx.WriteError("cut")

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", broken)
    with pytest.raises(ClientError, match="cannot be read again"):
        client.uploads.create(pipe, display_name="")
