"""Tables of a new supernet's space: made in the background once its images are known, come what may."""

from __future__ import annotations

import threading
import time

import pytest

from api import warm_tables
from api.settings import ApiSettings
from api.warm_tables import TableWarmer
from nas.client import Client
from nas.search.cost_model import SpaceCosts
from nas.store import datasets
from nas.store.artifacts import ArtifactStore
from search_spaces import SPACES
from tests.api.conftest import DIGITS, running
from tests.api.worker import CONTENTS, PlayedWorker

PATIENT_S = 120.0
"""Longer than a machine takes that is busy with other things."""
A_WHILE_S = 0.3


def costs_of(search_space: str) -> SpaceCosts:
    return SpaceCosts(
        space=SPACES[search_space], num_classes=CONTENTS.num_classes, in_channels=CONTENTS.in_channels
    )


def await_that(holds) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Tables:
    """In place of the processes: notes what is made, held up or failing where a test says so."""

    def __init__(self) -> None:
        self.made: list[SpaceCosts] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False

    def make_tables(self, costs: SpaceCosts) -> None:
        self.may_go_on.wait(PATIENT_S)
        self.made.append(costs)
        if self.fails:
            raise RuntimeError("on purpose")


@pytest.fixture
def tables():
    tables = Tables()
    yield tables
    tables.may_go_on.set()


@pytest.fixture
def warmer(database, tables, monkeypatch):
    monkeypatch.setattr(warm_tables, "_POLL_S", 0.05)
    with TableWarmer(database, tables) as warmer:
        yield warmer
        tables.may_go_on.set()


@pytest.fixture
def played(database, tmp_path) -> PlayedWorker:
    return PlayedWorker(database, ArtifactStore(str(tmp_path / "artifacts")))


@pytest.fixture
def add_dataset(database):
    def add() -> str:
        with database.begin() as session:
            found = datasets.create(
                session, display_name="", labels={}, source=DIGITS, spec={"source": DIGITS, "split": {}}
            )
            return found.row.id

    return add


def test_they_are_made_once_the_images_are_known(warmer, tables, played, add_dataset):
    dataset_id = add_dataset()
    warmer.want(search_space="micro_8", dataset_id=dataset_id)
    time.sleep(A_WHILE_S)
    assert tables.made == []
    played.import_dataset()
    await_that(lambda: tables.made == [costs_of("micro_8")])
    warmer.want(search_space="micro", dataset_id=dataset_id)
    await_that(lambda: tables.made == [costs_of("micro_8"), costs_of("micro")])


def test_images_that_will_never_come_are_waited_for_no_longer(
    warmer, tables, played, add_dataset, monkeypatch
):
    looked_at = []
    get = datasets.get
    monkeypatch.setattr(datasets, "get", lambda session, each: looked_at.append(each) or get(session, each))
    refused = add_dataset()
    played.refuse_dataset()
    for dataset_id in (refused, "ds_deleted"):
        warmer.want(search_space="micro_8", dataset_id=dataset_id)
    await_that(lambda: len(looked_at) == 2)
    time.sleep(A_WHILE_S)
    assert looked_at == [refused, "ds_deleted"]
    assert tables.made == []


def test_one_that_fails_is_not_the_last(warmer, tables, played, add_dataset):
    dataset_id = add_dataset()
    played.import_dataset()
    tables.fails = True
    warmer.want(search_space="micro_8", dataset_id=dataset_id)
    await_that(lambda: tables.made == [costs_of("micro_8")])
    tables.fails = False
    warmer.want(search_space="micro", dataset_id=dataset_id)
    await_that(lambda: tables.made == [costs_of("micro_8"), costs_of("micro")])


def test_ended_it_waits_for_no_images(database, tables, add_dataset):
    before = {*threading.enumerate()}
    with TableWarmer(database, tables) as warmer:
        warmer.want(search_space="micro_8", dataset_id=add_dataset())
    assert tables.made == []
    assert {*threading.enumerate()} <= before


@pytest.fixture
def service(postgres_server, database, tmp_path):
    """A service of its own, that has warmed nothing."""
    settings = ApiSettings(database_url=postgres_server.url, artifact_url=str(tmp_path / "artifacts"), port=0)
    with running(settings) as (server, url), Client(url, timeout_s=PATIENT_S) as client:
        yield server.app.state.services, client


def test_a_process_has_them_before_anybody_asks(service, played):
    services, client = service
    dataset = client.datasets.create(DIGITS)
    played.import_dataset()
    assert services.certificates.pids == []
    client.supernets.create(dataset.id, "micro_8")
    await_that(lambda: services.certificates.pids != [])


def test_who_creates_a_supernet_does_not_wait_for_them(service, played, tables, monkeypatch):
    services, client = service
    monkeypatch.setattr(services.certificates, "make_tables", tables.make_tables)
    dataset = client.datasets.create(DIGITS)
    played.import_dataset()
    tables.may_go_on.clear()
    for _ in range(3):
        assert client.supernets.create(dataset.id, "micro_8").state == "queued"
    assert tables.made == []
    tables.may_go_on.set()
    await_that(lambda: tables.made)
    assert {*tables.made} == {costs_of("micro_8")}
