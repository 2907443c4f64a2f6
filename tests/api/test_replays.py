"""Creating requests replayed with their keys, and lists read while they change."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from nas.job import JobKind
from tests.api.conftest import ACCURACIES, DIGITS
from tests.api.worker import ladder

NUM_REQUESTS = 200
CONCURRENCY = 8
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Recorded:
    """A creating request as it was sent."""

    path: str
    media_type: str
    body: bytes
    key: str

    def send(self, http: httpx.Client) -> httpx.Response:
        return http.post(self.path, content=self.body, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.media_type, "Idempotency-Key": self.key}

    def send_and_cut(self, url: httpx.URL, share: float) -> None:
        """Send so much of it, 1.0 being all, and reset the connection without a look at the answer."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        data = "\r\n".join([*lines, "", ""]).encode() + self.body
        with suppress(OSError), socket.create_connection((url.host, url.port), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(data[: int(share * len(data))])


@pytest.fixture
def recorded(supernet, search) -> list[Recorded]:
    """Requests of every kind that creates, each with a key and a body of its own."""
    architectures = [network.to_json() for network in ladder(5)]
    bodies = {
        "/v1/datasets": lambda n: {"source": DIGITS, "split": {"seed": n}},
        "/v1/supernets": lambda n: {
            "dataset_id": supernet["dataset_id"],
            "search_space": "micro_8",
            "seed": n,
            "recipe": {"epochs": 1 + n},
        },
        "/v1/searches": lambda n: (
            {"extends": search.id, "num_trials": 1 + n}
            if n % 2
            else {"supernet_id": supernet.id, "num_trials": 1 + n, "constraints": {"max_macs": "50%"}}
        ),
        "/v1/subnets": lambda n: {
            "supernet_id": supernet.id,
            "architecture": architectures[n % 5],
            "labels": {"n": str(n)},
        },
        f"/v1/supernets/{supernet.id}/evaluations": lambda n: {
            "architectures": architectures[: 1 + n % 5],
            "labels": {"n": str(n)},
        },
        "/v1/uploads": lambda n: random.Random(n).randbytes(50_000),
    }
    made = []
    for number in range(NUM_REQUESTS):
        path = [*bodies][number % len(bodies)]
        body = bodies[path](number)
        is_file = isinstance(body, bytes)
        content = body if is_file else json.dumps(body).encode()
        media_type = "application/octet-stream" if is_file else "application/json"
        made.append(Recorded(path, media_type, content, f"key-{number}"))
    return made


def test_200_recorded_requests_replayed_in_any_order_make_one_resource_each(http, service_url, recorded):
    """8 at once, in random order; some twice at once, some with the connection cut at any byte."""
    rng, url = random.Random(7), httpx.URL(service_url)
    before = {path: len(ids_of(http, listed(path))) for path in {request.path for request in recorded}}
    answers: dict[str, list[httpx.Response]] = defaultdict(list)
    lock = threading.Lock()

    def send(request: Recorded) -> None:
        deadline = time.monotonic() + 60
        while (response := request.send(http)).status_code == 409:
            assert response.json()["type"] == "/problems/idempotency-in-flight"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with lock:
            answers[request.key].append(response)

    def act(step) -> None:
        request, share = step
        if share is None:
            send(request)
        else:
            request.send_and_cut(url, share)

    cut = [(request, rng.choice([rng.random(), 1.0, 1.0])) for request in rng.sample(recorded, 60)]
    twice = [(request, None) for request in rng.sample(recorded, 60) for _ in range(2)]
    steps = [*cut, *twice, *[(request, None) for request in recorded]]
    for _ in range(2):
        rng.shuffle(steps)
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(act, steps))
        steps = [(request, None) for request in recorded]

    created = defaultdict(set)
    for request in recorded:
        found = answers[request.key]
        assert {response.status_code for response in found} == {201}, found[0].text
        assert len({(response.content, response.headers["location"]) for response in found}) == 1
        # Whoever cut the connection may have been the first, and then every answer is a replay.
        assert sum("idempotent-replayed" not in response.headers for response in found) <= 1
        assert all("idempotent-replayed" in response.headers for response in found[-1:])
        created[request.path].add(found[0].json()["id"])
    assert sum(map(len, created.values())) == NUM_REQUESTS
    for path, ids in created.items():
        now = ids_of(http, listed(path))
        assert len(now) == before[path] + len(ids)
        assert ids <= {*now}


def listed(path: str) -> str:
    """Where what is created there is listed."""
    return "/v1/evaluation-batches" if path.endswith("/evaluations") else path


def ids_of(http: httpx.Client, path: str, *, page_size: int = 200) -> list[str]:
    """Everything in a list, page by page."""
    found, params = [], {"page_size": page_size}
    while True:
        page = http.get(path, params=params).json()
        found += [item["id"] for item in page["items"]]
        if page["next_page_token"] is None:
            return found
        params["page_token"] = page["next_page_token"]


def test_pages_are_stable_while_rows_come_and_go(http):
    """What stays all the while is listed exactly once and in its order, whatever is made and deleted."""

    def add() -> str:
        return http.post("/v1/uploads", content=b"x", headers=OCTETS).json()["id"]

    staying, going = [], []
    for _ in range(30):
        staying.append(add())
        going.append(add())
    stop = threading.Event()

    def disturb() -> None:
        rng = random.Random(5)
        while not stop.is_set():
            going.append(add())
            assert http.delete(f"/v1/uploads/{going.pop(rng.randrange(len(going)))}").status_code == 204

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for page_size in (1, 3, 7, 1, 3, 7):
            seen = ids_of(http, "/v1/uploads", page_size=page_size)
            assert len(set(seen)) == len(seen)
            assert [upload_id for upload_id in seen if upload_id in {*staying}] == staying[::-1]
    finally:
        stop.set()
        thread.join()


def test_a_page_goes_on_though_the_row_it_ended_with_is_gone(http, worker):
    made = []
    for _ in range(6):
        made.append(http.post("/v1/datasets", json={"source": DIGITS}).json()["id"])
        worker.fail(JobKind.IMPORT_DATASET, "broken")
    first = http.get("/v1/datasets", params={"page_size": 3}).json()
    assert [item["id"] for item in first["items"]] == made[:2:-1]
    for resource_id in made[2:4]:
        assert http.delete(f"/v1/datasets/{resource_id}").status_code == 204
    rest = http.get("/v1/datasets", params={"page_token": first["next_page_token"]}).json()
    assert [item["id"] for item in rest["items"]] == made[1::-1]


def test_trials_and_events_are_paged_whole_while_they_are_written(client, http, supernet, worker):
    search = client.searches.create(supernet.id, 5)
    path = search["links"]["events"]
    begun = http.get(path, params={"page_size": 1}, headers={"Accept": "application/json"}).json()
    worker.search(ladder(5), ACCURACIES)
    seen, token = [item["id"] for item in begun["items"]], begun["next_page_token"]
    assert token is None
    after = {"Accept": "application/json", "Last-Event-ID": str(seen[-1])}
    rest = http.get(path, headers=after).json()
    assert [*seen, *(item["id"] for item in rest["items"])] == [event.id for event in search.events()]
    numbers, params = [], {"page_size": 2}
    while True:
        page = http.get(f"/v1/searches/{search.id}/trials", params=params).json()
        numbers += [item["number"] for item in page["items"]]
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]
    assert numbers == [*range(5)]
