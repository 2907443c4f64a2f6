"""A real service on a real port and a real database; only the workers are played."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from api.__main__ import Server, make_server
from api.settings import ApiSettings
from nas.client import Client, EvaluationBatch, Search, Subnet, Supernet, Verification
from nas.store.artifacts import ArtifactStore
from tests.api.worker import PlayedWorker, ladder

DIGITS = {"kind": "bundled", "name": "digits"}
SPLIT_FILES = {f"{split}.npz": split.encode() * 1000 for split in ("train", "val", "test")}
ACCURACIES = [100, 140, 120, 180, 190]
"""Of the ladder's five networks: the third is dominated."""


@contextmanager
def running(settings: ApiSettings) -> Iterator[tuple[Server, str]]:
    """The service and its URL."""
    server = make_server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    assert server.started
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.handle_exit(15, None)
        thread.join()


@pytest.fixture(scope="session")
def artifact_store(tmp_path_factory) -> ArtifactStore:
    return ArtifactStore(str(tmp_path_factory.getbasetemp() / "api-artifacts"))


@pytest.fixture(scope="session")
def service_url(postgres_server, artifact_store, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.getbasetemp() / "api-artifacts"
    settings = ApiSettings(database_url=postgres_server.url, artifact_url=str(folder), port=0)
    with running(settings) as (_, url):
        yield url


@pytest.fixture
def http(service_url, database_url) -> Iterator[httpx.Client]:
    """Plain HTTP, for what the client would not send."""
    with httpx.Client(base_url=service_url, timeout=20) as http:
        yield http


@pytest.fixture
def client(service_url, database_url) -> Iterator[Client]:
    with Client(service_url) as client:
        yield client


@pytest.fixture
def worker(database, artifact_store) -> PlayedWorker:
    return PlayedWorker(database, artifact_store)


@pytest.fixture
def untrained(client) -> Supernet:
    dataset = client.datasets.create(DIGITS)
    return client.supernets.create(dataset.id, "micro_8", recipe={"epochs": 3})


@pytest.fixture
def supernet(untrained, worker) -> Supernet:
    worker.import_dataset(SPLIT_FILES)
    worker.train()
    return untrained.refresh()


@pytest.fixture
def search(client, supernet, worker) -> Search:
    """Five networks measured."""
    search = client.searches.create(supernet.id, 5)
    worker.search(ladder(5), ACCURACIES)
    return search.refresh()


@pytest.fixture
def batch(client, supernet, worker) -> EvaluationBatch:
    """Two networks, none of the ladder's five, measured because something outside chose them."""
    new = [network for network in ladder(9) if network not in ladder(5)]
    batch = supernet.evaluate([network.to_json() for network in new[:2]])
    worker.evaluate([140, 120])
    return batch.refresh()


@pytest.fixture
def verification(client, search, worker) -> Verification:
    """One network measured on test, with what it inherits and fine-tuned."""
    verification = client.verifications.create(
        search_id=search.id, trial_numbers=[0], trainings=["fine_tuned"], learning_rates=[0.1], epochs=1
    )
    worker.verify({0: 160})
    return verification.refresh()


@pytest.fixture
def subnet(client, search, worker) -> Subnet:
    """A published network."""
    subnet = client.subnets.create(search_id=search.id, trial_number=4)
    worker.specialise({"model.py": b"print('model')\n", "model.safetensors": bytes(range(256)) * 5000})
    return subnet.refresh()
