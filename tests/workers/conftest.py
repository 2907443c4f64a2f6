"""Workers that run in the tests' own process, on a real database, real Ray, and very little training."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from sqlalchemy import make_url, text

from nas.job import JobKind
from nas.store import (
    datasets,
    evaluation_batches,
    searches,
    subnets,
    supernets,
    uploads,
    verifications,
)
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database, migrate
from nas.store.jobs import JobQueue
from nas.store.tables import UploadRow
from search_spaces import SPACES
from supernet.data import DataSource, GivenSplit, SplitPlan, load_source
from supernet.data.sources import open_listing
from tests.api.worker import CALIBRATION, CHECKPOINT, CONTENTS
from tests.conftest import administer
from workers.datasets import DatasetReference
from workers.service import WorkerService
from workers.settings import WorkerSettings
from workers.trained import describe_supernet
from workers.wiring import build_service, ensure_ray

DIGITS = DataSource.from_json({"kind": "bundled", "name": "digits"}).to_json()
SPLIT = SplitPlan().to_json()
NUM_FEW = 450
"""Of the digits' 1,797 images: with `RECIPE`, training takes four steps an epoch."""
RECIPE = {"name": "bignas", "epochs": 2, "batch_size": 64}
SPACE = SPACES["micro_8"]


@pytest.fixture(autouse=True)
def threads_as_before():
    """Jobs set the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of this folder that want it."""
    ensure_ray()
    yield
    ray.shutdown()


def few_digits(folder: Path) -> dict:
    """The first of the digits as a source, whose file is made in the folder."""
    path = folder / "few_digits.npz"
    if not path.exists():
        whole = open_listing(DataSource.from_json(DIGITS)).arrays[GivenSplit.TRAIN]
        np.savez(path, images=whole.images[:NUM_FEW], labels=whole.labels[:NUM_FEW])
    return DataSource.from_json({"kind": "npz", "path": str(path)}).to_json()


@dataclass(frozen=True)
class Site:
    """One machine's worth of database, artefacts and scratch, and a worker to let loose on it."""

    database: Database
    url: str
    artifacts: ArtifactStore
    home: Path

    @property
    def queue(self) -> JobQueue:
        return JobQueue(self.database)

    def settings(self) -> WorkerSettings:
        return WorkerSettings(
            database_url=self.url,
            artifact_url=str(self.home / "artifacts"),
            home=self.home,
            num_threads=1,
            poll_s=0.05,
        )

    def work(self, job_ids: Sequence[str], *, timeout_s: float = 280) -> None:
        """Have a worker run until all of these jobs have ended.

        The last one's end is seen a moment later: until then it begins with another that waits, if one does.
        """
        service = build_service(self.settings(), self.database)
        with drained_when(service, lambda: self.have_ended(job_ids), timeout_s=timeout_s):
            service.run()

    def have_ended(self, job_ids: Sequence[str]) -> bool:
        return all(self.queue.get(job_id).state.is_terminal for job_id in job_ids)

    def add_dataset(self, source=None):
        """Of few digits where no source is given."""
        source = source or few_digits(self.home)
        with self.database.begin() as session:
            return datasets.create(
                session,
                display_name="images",
                labels={},
                source=source,
                spec={"source": source, "split": SPLIT},
            )

    def add_supernet(
        self,
        dataset_id: str,
        *,
        search_space: str = SPACE.name,
        num_workers: int = 1,
        recipe=RECIPE,
        warm_start=None,
        seed=7,
        **more,
    ):
        with self.database.begin() as session:
            return supernets.create(
                session,
                display_name="net",
                labels={},
                dataset_id=dataset_id,
                search_space=search_space,
                recipe=recipe,
                seed=seed,
                num_workers=num_workers,
                spec={},
                warm_start=warm_start,
                **more,
            )

    def add_upload(self, content: bytes) -> UploadRow:
        with self.database.begin() as session:
            upload_id = uploads.begin(session)
        stored = self.artifacts.put(uploads.key_of(upload_id), content)
        with self.database.begin() as session:
            return uploads.create(session, upload_id, display_name="sent", stored=stored)

    def add_search(
        self,
        supernet_id: str,
        *,
        num_trials: int = 8,
        seed: int = 1,
        extends=None,
        proposer="nsga2",
        objectives=("accuracy", "macs"),
        flat_rounds=None,
        prefilter="none",
        latency_source=None,
        **constraints,
    ):
        with self.database.begin() as session:
            return searches.create(
                session,
                display_name="search",
                labels={},
                supernet_id=supernet_id,
                constraints=constraints,
                objectives=objectives,
                num_trials=num_trials,
                proposer=proposer,
                seed=seed,
                prefilter=prefilter,
                spec={},
                extends=extends,
                flat_rounds=flat_rounds,
                latency_source=latency_source,
            )

    def add_batch(self, supernet_id: str, networks, *, infeasible=()):
        """Networks to be measured; those at the places in `infeasible` count as such."""
        with self.database.begin() as session:
            trained = describe_supernet(session, supernets.get(session, supernet_id).row)
            return evaluation_batches.create(
                session,
                display_name="batch",
                labels={},
                protocol=trained.protocol,
                constraints={},
                networks=[
                    evaluation_batches.GivenNetwork(
                        architecture=network,
                        costs=trained.costs(network),
                        is_infeasible=number in infeasible,
                    )
                    for number, network in enumerate(networks)
                ],
                spec={},
            )

    def add_subnet(self, supernet_id: str, architecture, own_weights=None):
        with self.database.begin() as session:
            return subnets.create(
                session,
                display_name="chosen",
                labels={},
                supernet_id=supernet_id,
                architecture=architecture,
                # Of a network for these classes and channels; the job counts again on its own.
                costs={"macs": 1, "params": 1, "size_bytes": 1, "peak_activation_bytes": 1},
                spec={},
                own_weights=own_weights,
            )

    def add_verification(self, supernet_id: str, networks, runs=(), *, seed: int = 0):
        """Networks to be measured to the end, and each to be trained by every one of the runs."""
        with self.database.begin() as session:
            trained = describe_supernet(session, supernets.get(session, supernet_id).row)
            return verifications.create(
                session,
                display_name="verified",
                labels={},
                supernet_id=supernet_id,
                seed=seed,
                networks=[
                    verifications.ChosenNetwork(architecture=network, costs=trained.costs(network))
                    for network in networks
                ],
                runs=list(runs),
                spec={},
            )

    def event_payloads(self, job_id: str, kind: str) -> list[dict]:
        return [e.payload for e in self.queue.events(job_id, limit=1000) if e.kind == kind]


def expire_leases(database: Database) -> None:
    """As if what was claimed had been claimed long ago. Of a worker that is dead: one alive renews it."""
    with database.begin() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = clock_timestamp() WHERE state = 'running'"))


def take_away(queue: JobQueue, database: Database) -> None:
    """Put the running job back into the queue under a worker that is alive, as after a long sleep."""
    # A heartbeat may fall between the two; then the lease is a new one.
    while queue.sweep() == 0:
        expire_leases(database)


@contextmanager
def drained_when(service: WorkerService, predicate, *, timeout_s: float) -> Iterator[None]:
    """Drain the service, which runs in this thread meanwhile, as soon as `predicate` holds."""
    outcome = SimpleNamespace(is_late=False, is_over=False)

    def watch() -> None:
        deadline = time.monotonic() + timeout_s
        while not outcome.is_over and not predicate():
            if time.monotonic() > deadline:
                outcome.is_late = True
                break
            time.sleep(0.05)
        service.drain()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        outcome.is_over = True
        thread.join()
    assert not outcome.is_late, f"the jobs have not ended after {timeout_s} s"


@pytest.fixture
def site(database, database_url, tmp_path) -> Site:
    """With an empty database."""
    return Site(database, database_url, ArtifactStore(str(tmp_path / "artifacts")), tmp_path)


@pytest.fixture(scope="session")
def lasting_site(postgres_server, tmp_path_factory) -> Iterator[Site]:
    """With a database of its own, kept from test to test."""
    administer(postgres_server, "CREATE DATABASE lasting TEMPLATE template0")
    url = make_url(postgres_server.url).set(database="lasting").render_as_string()
    migrate(url)
    database = Database(url)
    home = tmp_path_factory.mktemp("lasting")
    yield Site(database, url, ArtifactStore(str(home / "artifacts")), home)
    database.dispose()
    administer(postgres_server, "DROP DATABASE lasting WITH (FORCE)")


def reference_to(source: dict, caches: Path) -> DatasetReference:
    """The images as a worker refers to them."""
    return DatasetReference(
        dataset_id="ds_digits",
        source=source,
        split=SPLIT,
        fingerprint=load_source(DataSource.from_json(source)).fingerprint,
        caches=caches,
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> DatasetReference:
    """A few of the digits."""
    folder = tmp_path_factory.mktemp("digits")
    return reference_to(few_digits(folder), folder / "caches")


@pytest.fixture(scope="session")
def all_digits(tmp_path_factory) -> DatasetReference:
    return reference_to(DIGITS, tmp_path_factory.mktemp("all_digits"))


@pytest.fixture
def add_trained(site):
    """Adds a supernet that counts as trained; the same table measures it."""

    def add() -> str:
        dataset = site.add_dataset()
        supernet = site.add_supernet(dataset.row.id)
        for kind in (JobKind.IMPORT_DATASET, JobKind.TRAIN):
            lease = site.queue.claim("played", lease_s=60, kinds=[kind])
            with site.queue.leased(lease) as session:
                if kind is JobKind.IMPORT_DATASET:
                    datasets.set_contents(session, dataset.row.id, CONTENTS)
                else:
                    row = supernets.get(session, supernet.row.id).row
                    row.recipe = {**row.recipe, "kernel_transform": False}
                    supernets.set_weights(
                        session,
                        row.id,
                        checkpoint=CHECKPOINT,
                        weights_uri="file:///w",
                        calibration=CALIBRATION,
                    )
                site.queue.succeed(lease, session)
        return supernet.row.id

    return add


@pytest.fixture
def supernet_id(add_trained) -> str:
    return add_trained()
