"""kill -9 at random moments of an import, a training and a search: they end as if left alone, to the bit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from tests.e2e.service import QUICK, Home, wait_until
from tests.shared_data import shared_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NUM_IMAGES, EPOCHS, BATCH_SIZE, STEPS_PER_EPOCH = 2000, 15, 64, 20
"""Of the images 1280 are left to train on: 300 steps."""
NUM_KILLS, NUM_TRIALS = 5, 30
SETTINGS = {**QUICK, "NAS_NUM_THREADS": "2"}


@pytest.fixture
def images(tmp_path) -> Path:
    """Some of CIFAR-10 as one small file, from which test and val are made."""
    path = tmp_path / "cifar10.parquet"
    source = pq.ParquetFile(shared_data("cifar10") / "train.parquet")
    pq.write_table(source.read().slice(0, NUM_IMAGES), path)
    return path


@dataclass
class Killer:
    """Ends the worker at the moments that a seed gives, and logs them."""

    home: Home
    random: Random

    def kill_in_import(self, dataset) -> None:
        self._await_attempt(dataset, 1)
        self._kill_after(self.random.uniform(0.0, 0.5), f"of the import {dataset.id}")

    def kill_in_training(self, supernet, duration_s: float) -> None:
        """One kill in each fifth of the time it takes when left alone; the third while a file is written."""
        share_s = 0.9 * duration_s / NUM_KILLS
        moments = [(number + self.random.random()) * share_s for number in range(NUM_KILLS)]
        for number, (before, moment) in enumerate(zip([0.0, *moments], moments, strict=False)):
            self._await_attempt(supernet, number + 1)
            time.sleep(moment - before)
            if number == 2:
                self._await_writing(supernet)
            self._kill_after(0.0, f"of the training {supernet.id}, kill {number + 1}")

    def kill_in_search(self, search) -> None:
        """Each once one more evaluation at least is recorded, or the search would be given up."""
        counts = sorted(self.random.sample(range(1, NUM_TRIALS - 2), NUM_KILLS))
        recorded = f"SELECT count(*) FROM evaluations WHERE supernet_id = '{search['supernet_id']}'"
        for count in counts:
            wait_until(
                lambda count=count: self.home.query(recorded)[0][0] >= count,
                timeout_s=180,
                what=f"{count} evaluations",
            )
            self._kill_after(self.random.uniform(0.0, 0.3), f"of the search, at {count} evaluations or more")

    def _await_attempt(self, resource, number: int) -> None:
        attempts = f"SELECT attempt FROM jobs WHERE id = '{resource.job_id}' AND state = 'running'"
        wait_until(
            lambda: (found := self.home.query(attempts)) and found[0][0] >= number,
            timeout_s=120,
            what=f"attempt {number} of {resource.id}",
        )

    def _await_writing(self, supernet) -> None:
        """Until a checkpoint that is not whole yet lies in the folder."""
        folder = self.home.folder / "checkpoints" / supernet.id
        deadline = time.monotonic() + 60
        while not any(folder.glob(".step-*")):
            assert time.monotonic() < deadline, "no checkpoint was written within a minute"
            time.sleep(0.001)

    def _kill_after(self, pause_s: float, what: str) -> None:
        time.sleep(pause_s)
        pid = self.home.worker()
        assert pid is not None
        self.home.kill_worker()
        print(f"killed worker {pid} in the midst {what}")  # noqa: T201
        wait_until(lambda: self.home.worker() not in (None, pid), timeout_s=60, what="another worker")


@dataclass(frozen=True, kw_only=True)
class Left:
    """A path that was left alone, and how long its training took."""

    dataset: object
    supernet: object
    search: object
    training_s: float


def leave_alone(client, source, **fields) -> Left:
    dataset = client.datasets.create(source).wait(timeout=120)
    started = time.monotonic()
    supernet = client.supernets.create(dataset.id, "micro", **fields).wait(timeout=400)
    training_s = time.monotonic() - started
    search = client.searches.create(supernet.id, NUM_TRIALS, seed=11).wait(timeout=300)
    return Left(dataset=dataset, supernet=supernet, search=search, training_s=training_s)


def curves(supernet) -> list[dict]:
    """Everything but the wall clock."""
    return [{k: v for k, v in point.items() if k != "elapsed_s"} for point in supernet.curves()]


def trials(search) -> list[tuple]:
    return [
        (point["number"], point["round"], point["architecture_key"], point["accuracy_val"]["value"])
        for point in search.trials()
    ]


def events(resource, kind: str) -> list[dict]:
    return [event.payload for event in resource.events() if event.kind == kind]


@pytest.mark.parametrize("seed", [20260417])
def test_killed_five_times_each_a_training_and_a_search_end_as_if_left_alone(home, images, seed):
    killer = Killer(home, Random(seed))
    print(f"seed {seed}")  # noqa: T201
    serving = home.start(settings=SETTINGS)
    serving.wait_ready()
    source = {"kind": "parquet", "path": str(images)}
    recipe = {"name": "bignas", "epochs": EPOCHS, "batch_size": BATCH_SIZE}
    with home.client() as client:
        left = leave_alone(client, source, recipe=recipe, seed=5)
        dataset = client.datasets.create(source)
        killer.kill_in_import(dataset)
        dataset = dataset.wait(timeout=120)
        supernet = client.supernets.create(dataset.id, "micro", recipe=recipe, seed=5)
        killer.kill_in_training(supernet, left.training_s)
        supernet = supernet.wait(timeout=400)
        search = client.searches.create(supernet.id, NUM_TRIALS, seed=11)
        killer.kill_in_search(search)
        search = search.wait(timeout=300)

        assert dataset["fingerprint"] == left.dataset["fingerprint"]
        assert [s["sha256"] for s in dataset.splits()] == [s["sha256"] for s in left.dataset.splits()]

        assert supernet["checkpoint"] == left.supernet["checkpoint"]
        assert curves(supernet) == curves(left.supernet)
        assert [point["step"] for point in curves(supernet)] == [
            STEPS_PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)
        ]
        assert (supernet["is_exact"], supernet["resume_departures"]) == (True, [])
        resumed = events(supernet, "resumed")
        assert resumed
        assert all(event["is_exact"] for event in resumed)
        assert client.jobs.get(supernet.job_id)["attempt"] > NUM_KILLS

        assert trials(search) == trials(left.search)
        assert [trial[0] for trial in trials(search)] == list(range(NUM_TRIALS))
        assert [p["number"] for p in search.pareto()] == [p["number"] for p in left.search.pareto()]
        assert client.jobs.get(search.job_id)["attempt"] > NUM_KILLS
    for each in (left.supernet, supernet):
        recorded = f"SELECT count(*) FROM evaluations WHERE supernet_id = '{each.id}'"
        assert home.query(recorded) == [(NUM_TRIALS,)]
    assert home.query("SELECT count(DISTINCT evaluation_id), count(*) FROM trials") == [
        (2 * NUM_TRIALS, 2 * NUM_TRIALS)
    ]
    assert serving.output.count("the worker process ended with status -9") == 1 + 2 * NUM_KILLS
