"""kill -9 at random moments of an import, a training and a search: they end as if left alone, to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from nas.job import JobState
from nas.store import datasets, searches, supernets
from tests.shared_data import shared_data
from tests.workers.conftest import Site
from workers.training_job import checkpoint_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NUM_IMAGES, BATCH_SIZE, EPOCHS, STEPS_PER_EPOCH = 500, 16, 15, 20
"""Of the images 320 are left to train on: 300 steps."""
NUM_KILLS, NUM_TRIALS = 5, 24
MOST_S = 600
"""A job takes far less, on a busy machine too."""


@dataclass
class WorkerProcess:
    """`python -m workers` on a site: always one, started again whenever it was killed."""

    site: Site
    log: Path
    num_threads: int
    """Of all ranks together."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
        settings = {
            "NAS_DATABASE_URL": self.site.url,
            "NAS_ARTIFACT_URL": str(self.site.home / "artifacts"),
            "NAS_HOME": str(self.site.home),
            "NAS_NUM_THREADS": str(self.num_threads),
            "NAS_LEASE_S": "4",
            "NAS_POLL_S": "0.1",
            # As `nas serve` has it: on a busy machine threads that spin for long stand in each other's way.
            "GOMP_SPINCOUNT": "5000",
        }
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers"],
                env=kept | settings,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9; then Ray's helpers, as whoever supervises the worker does."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        self.process.wait()
        self._kill_group()

    def restart(self) -> None:
        self.kill()
        self.start()

    def _kill_group(self) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    @contextmanager
    def running(self) -> Iterator[WorkerProcess]:
        self.start()
        try:
            yield self
        finally:
            self.kill()


@dataclass(frozen=True)
class Killer:
    """Ends the worker at moments that a seed gives, and logs them."""

    worker: WorkerProcess
    random: Random

    @property
    def site(self) -> Site:
        return self.worker.site

    def kill_in_import(self, dataset) -> None:
        self._await_attempt(dataset, 1)
        self._kill_after(self.random.uniform(0.0, 0.3), "the import")

    def kill_in_training(self, supernet) -> None:
        """Once in each fifth of the steps, or the training would be given up; the third in a file's midst."""
        share = EPOCHS * STEPS_PER_EPOCH // NUM_KILLS
        for number in range(NUM_KILLS):
            # The last must come before the end, which is a moment after its step is seen.
            step = number * share + self.random.randrange(share - STEPS_PER_EPOCH)
            self._await_attempt(supernet, number + 1)
            await_truth(lambda step=step: self._num_steps(supernet) >= step, what=f"step {step}")
            if number == 2:
                self._await_writing(supernet)
            self._kill_after(self.random.uniform(0.0, 0.3), f"the training, at step {step} or after")

    def kill_in_search(self, search) -> None:
        """Each once one more evaluation at least is recorded, or the search would be given up."""
        # The last ones are measured within moments: a kill there may come too late.
        counts = sorted(self.random.sample(range(1, NUM_TRIALS * 2 // 3), NUM_KILLS))
        for number, count in enumerate(counts):
            # A worker that is killed while it starts does not stand for a killed search.
            self._await_attempt(search, number + 1)
            await_truth(
                lambda count=count: num_evaluations(self.site, search.row.supernet_id) >= count,
                what=f"{count} evaluations",
            )
            self._kill_after(self.random.uniform(0.0, 0.1), f"the search, at {count} evaluations or more")

    def _await_attempt(self, resource, number: int) -> None:
        def is_running() -> bool:
            job = self.site.queue.get(resource.job.id)
            return job.state is JobState.RUNNING and job.attempt >= number

        await_truth(is_running, what=f"attempt {number} of {resource.job.id}")

    def _num_steps(self, supernet) -> int:
        progress = self.site.queue.get(supernet.job.id).progress
        return progress.done if progress is not None and progress.phase == "train" else 0

    def _await_writing(self, supernet) -> None:
        """Until a checkpoint that is not whole yet lies in the folder."""
        folder = checkpoint_folder(self.site.home, supernet.row.id)
        await_truth(lambda: any(folder.glob(".step-*")), what="a checkpoint", poll_s=0.001)

    def _kill_after(self, pause_s: float, what: str) -> None:
        time.sleep(pause_s)
        self.worker.restart()
        print(f"killed in the midst of {what}")  # noqa: T201


def await_truth(predicate: Callable[[], bool], *, what: str, poll_s: float = 0.02) -> None:
    deadline = time.monotonic() + MOST_S
    while not predicate():
        assert time.monotonic() < deadline, f"{what}: not within {MOST_S} s"
        time.sleep(poll_s)


def await_success(site: Site, resource) -> None:
    await_truth(lambda: site.have_ended([resource.job.id]), what=f"the end of {resource.job.id}")
    job = site.queue.get(resource.job.id)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)


def num_evaluations(site: Site, supernet_id: str) -> int:
    with site.database.session() as session:
        query = text("SELECT count(*) FROM evaluations WHERE supernet_id = :id")
        return session.execute(query, {"id": supernet_id}).scalar_one()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What an import, a training and a search came to, without the wall clock."""

    fingerprint: str
    split_files: tuple[str, ...]
    """SHA-256 of each."""
    weights: str
    """SHA-256 of the final weights' file."""
    curves: tuple[tuple, ...]
    departures: tuple[str, ...]
    trials: tuple[tuple, ...]
    frontier: tuple[int, ...]
    num_evaluations: int


def ended(site: Site, dataset, supernet, search) -> Ended:
    with site.database.session() as session:
        row = supernets.get(session, supernet.row.id).row
        points = supernets.curve(session, supernet.row.id)
        return Ended(
            fingerprint=datasets.get(session, dataset.row.id).row.fingerprint,
            split_files=tuple(file.sha256 for file in datasets.files(session, dataset.row.id)),
            weights=row.checkpoint,
            curves=tuple(astuple(replace(point, elapsed_s=0.0)) for point in points),
            departures=tuple(row.resume_departures),
            trials=tuple(
                (t.trial.number, t.trial.round, t.evaluation.architecture_key, t.evaluation.num_correct)
                for t in searches.trials(session, search.row.id)
            ),
            frontier=tuple(site.event_payloads(search.job.id, "round")[-1]["frontier"]),
            num_evaluations=num_evaluations(site, supernet.row.id),
        )


@pytest.fixture
def source(tmp_path) -> dict:
    """Some of CIFAR-10 as one small file, from which test and val are made."""
    path = tmp_path / "cifar10.parquet"
    images = next(pq.ParquetFile(shared_data("cifar10") / "train.parquet").iter_batches(NUM_IMAGES))
    with pq.ParquetWriter(path, images.schema) as writer:
        writer.write_batch(images)
    return {"kind": "parquet", "path": str(path)}


def add_supernet(site: Site, dataset, num_workers: int):
    recipe = {"name": "bignas", "epochs": EPOCHS, "batch_size": BATCH_SIZE}
    with site.database.begin() as session:
        return supernets.create(
            session,
            display_name="net",
            labels={},
            dataset_id=dataset.row.id,
            search_space="micro",
            recipe=recipe,
            seed=5,
            num_workers=num_workers,
            spec={},
        )


def leave_alone(site: Site, source, num_workers: int) -> tuple[Ended, float]:
    """What it comes to with no kill, and how long the training took, in seconds."""
    dataset = site.add_dataset(source)
    await_success(site, dataset)
    started = time.monotonic()
    supernet = add_supernet(site, dataset, num_workers)
    await_success(site, supernet)
    training_s = time.monotonic() - started
    search = site.add_search(supernet.row.id, num_trials=NUM_TRIALS)
    await_success(site, search)
    return ended(site, dataset, supernet, search), training_s


@pytest.mark.parametrize("seed", [20260417])
# One process; and Ray Train, with a thread for each rank.
@pytest.mark.parametrize(("num_workers", "num_threads"), [(1, 1), (2, 2)])
def test_killed_five_times_each_a_training_and_a_search_end_as_if_left_alone(
    site, source, tmp_path, num_workers, num_threads, seed
):
    with WorkerProcess(site, tmp_path / "worker.log", num_threads).running() as worker:
        killer = Killer(worker, Random(seed))
        expected, training_s = leave_alone(site, source, num_workers)
        print(f"seed {seed}; left alone the training took {training_s:.0f} s")  # noqa: T201
        dataset = site.add_dataset(source)
        killer.kill_in_import(dataset)
        await_success(site, dataset)
        supernet = add_supernet(site, dataset, num_workers)
        killer.kill_in_training(supernet)
        await_success(site, supernet)
        search = site.add_search(supernet.row.id, num_trials=NUM_TRIALS)
        killer.kill_in_search(search)
        await_success(site, search)
        found = ended(site, dataset, supernet, search)
    assert found == expected
    assert [point[1] for point in found.curves] == [STEPS_PER_EPOCH * (e + 1) for e in range(EPOCHS)]
    assert [trial[0] for trial in found.trials] == list(range(NUM_TRIALS))
    assert found.num_evaluations == NUM_TRIALS
    assert found.departures == ()
    for each in (supernet, search):
        assert site.queue.get(each.job.id).attempt > NUM_KILLS
        resumed = site.event_payloads(each.job.id, "resumed")
        assert resumed
        assert all(payload["is_exact"] for payload in resumed)
