"""The store's tests run on the embedded server, and on every version the system has installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nas.architecture import Architecture
from nas.job import JobKind
from nas.store import datasets, supernets
from nas.store.database import Database
from nas.store.embedded import EmbeddedPostgres
from nas.store.jobs import JobQueue
from nas.store.postgres_install import installed_servers
from nas.trial import Evaluation, Split
from tests.conftest import forgo_durability

COSTS = {"macs": 1000, "params": 100, "size_bytes": 400, "peak_activation_bytes": 64}


@pytest.fixture(scope="session", params=["embedded", *installed_servers()])
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server_factory: Callable
) -> Iterator[EmbeddedPostgres]:
    if request.param == "embedded":
        yield request.getfixturevalue("embedded_server")
        return
    home = tmp_path_factory.mktemp("home")
    with server_factory(home, bin_dir=installed_servers()[request.param]) as server:
        forgo_durability(server)
        yield server


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database)


@pytest.fixture
def enqueue(database: Database, queue: JobQueue) -> Callable[..., str]:
    """Makes a job and gives its id."""

    def make(kind: JobKind = JobKind.TRAIN, depends_on: str | None = None) -> str:
        with database.begin() as session:
            job = queue.enqueue(
                session, kind=kind, resource_id="sn_x", spec={"epochs": 3}, depends_on=depends_on
            )
        return job.id

    return make


@pytest.fixture
def supernet_id(database: Database) -> str:
    with database.begin() as session:
        dataset = datasets.create(
            session, display_name="digits", labels={}, source={"name": "digits"}, spec={}
        )
        supernet = supernets.create(
            session,
            display_name="first",
            labels={"team": "vision"},
            dataset_id=dataset.row.id,
            search_space="micro",
            recipe={"epochs": 3},
            seed=7,
            num_workers=1,
            spec={},
        )
    return supernet.row.id


@pytest.fixture
def costs() -> dict[str, int]:
    return dict(COSTS)


@pytest.fixture
def evaluation() -> Callable[..., Evaluation]:
    """Makes an evaluation of the architecture of the given width."""

    def make(width: int = 8, *, num_correct: int = 90, checkpoint: str = "c0") -> Evaluation:
        choices = (("width", width),)
        return Evaluation(
            architecture=Architecture("micro", identity=choices, choices=choices),
            checkpoint=checkpoint,
            split=Split.VAL,
            num_images=100,
            calibration="train[:256]/64",
            num_correct=num_correct,
            per_class_correct=(num_correct, 0),
            per_class_images=(60, 40),
            correct_bitmap=b"\xff" * 13,
            duration_s=0.5,
        )

    return make
