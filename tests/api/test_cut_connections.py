"""Connections that really break: downloads and event streams are taken up where they were cut."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading

import httpx
import pytest

from nas.client import Client
from nas.job import JobKind
from nas.store.jobs import add_event
from tests.api.conftest import DIGITS
from tests.api.cutting_proxy import CuttingProxy

NUM_CUTS = 20
CONTENT = random.Random(0).randbytes(6_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NUM_EVENTS = 300


@pytest.fixture
def artifact(client, http, search, worker) -> dict:
    """One large file, published."""
    subnet = client.subnets.create(search_id=search.id, trial_number=4)
    worker.specialise({"model.safetensors": CONTENT})
    return http.get(f"/v1/subnets/{subnet.id}/artifacts").json()["items"][0]


def budgets(low: int, high: int, seed: int):
    """Random numbers of bytes, one for each cut."""
    rng = random.Random(seed)
    return iter([rng.randint(low, high) for _ in range(NUM_CUTS)])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_download_cut_at_random_bytes_and_resumed_is_the_same_file(service_url, artifact, seed):
    """By hand: each connection is reset at a random byte, and the next asks for the rest."""
    url, rng = httpx.URL(service_url), random.Random(seed)
    held = b""
    for cut in range(NUM_CUTS + 1):
        num_left = len(CONTENT) - len(held)
        wanted = None if cut == NUM_CUTS else rng.randint(0, num_left // (NUM_CUTS - cut + 1) * 2 - 1)
        headers, body = _fetch(url, artifact, held, wanted)
        assert headers["etag"] == f'"{SHA256}"'
        assert int(headers["content-length"]) == num_left
        held += body
    assert hashlib.sha256(held).hexdigest() == artifact["sha256"] == SHA256


def _fetch(url: httpx.URL, artifact: dict, held: bytes, wanted: int | None) -> tuple[dict, bytes]:
    """The answer's headers, and as many bytes of its body as are wanted before the connection is reset."""
    rest = f'Range: bytes={len(held)}-\r\nIf-Range: "{artifact["sha256"]}"\r\n' if held else ""
    request = f"GET {artifact['links']['self']} HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n"
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            status = answer.readline()
            assert status.split()[1] == (b"206" if held else b"200")
            headers = {}
            while line := answer.readline().strip():
                name, _, value = line.decode().partition(": ")
                headers[name.lower()] = value
            return headers, answer.read(int(headers["content-length"]) if wanted is None else wanted)


def test_the_client_brings_a_file_whole_over_a_connection_that_is_cut_again_and_again(
    service_url, artifact, tmp_path, monkeypatch
):
    monkeypatch.setattr("nas.client.concurrency.time.sleep", lambda seconds: None)
    # The first connection lists the files; the rest of it then carries the first part.
    proxy = CuttingProxy(httpx.URL(service_url).port, budgets(2_000, 250_000, seed=3))
    subnet_id = artifact["links"]["self"].split("/")[3]
    with proxy.running(), Client(proxy.url) as client:
        (path,) = client.subnets.download(subnet_id, tmp_path)
    assert proxy.num_cuts == NUM_CUTS
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def test_a_stream_cut_again_and_again_tells_every_event_once_and_in_order(
    service_url, client, worker, monkeypatch
):
    """While the events are being written: the reader is at their heels or far behind, as it comes."""
    monkeypatch.setattr("nas.client.concurrency.time.sleep", lambda seconds: None)
    dataset = client.datasets.create(DIGITS)
    lease = worker.claim(JobKind.IMPORT_DATASET)
    is_read = threading.Semaphore(0)

    def write() -> None:
        for number in range(NUM_EVENTS):
            # Never more than some ahead of the reader, so that most are written while it reads.
            if number >= 40:
                assert is_read.acquire(timeout=30)
            with worker.queue.leased(lease) as session:
                add_event(session, lease.job.id, "note", {"number": number})
        worker.queue.succeed(lease)

    proxy = CuttingProxy(httpx.URL(service_url).port, budgets(300, 3_000, seed=4))
    seen = []
    with proxy.running(), Client(proxy.url) as cut_client:
        writer = threading.Thread(target=write)
        writer.start()
        for event in cut_client.jobs.events(dataset.job_id):
            seen.append(event)
            is_read.release()
        writer.join(30)
    assert proxy.num_cuts == NUM_CUTS
    assert [event.payload["number"] for event in seen if event.kind == "note"] == [*range(NUM_EVENTS)]
    assert [event.payload["state"] for event in seen if event.kind == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    # Read at leisure, they are the same.
    assert [*client.jobs.events(dataset.job_id)] == seen
    assert [*client.jobs.events(dataset.job_id, after_id=seen[9].id)] == seen[10:]
