"""Two Ray Train workers: they end with weights, tell what they do, survive a death and stop when told."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
import torch

from nas.errors import InvalidRequestError, NasError
from nas.job import JobState
from nas.store import supernets
from supernet.training.checkpoint import latest_checkpoint, load_checkpoint, step_of
from supernet.training.collective import SingleProcess
from tests.processes import is_descendant
from tests.workers import conftest, test_training_run
from tests.workers.test_training_run import (
    NUM_STEPS,
    STEPS_PER_EPOCH,
    Interruption,
    Watcher,
    assert_same_bits,
    final_state,
)
from workers import ray_training
from workers.context import AttemptLostError, JobCancelledError, WorkerDrainingError
from workers.datasets import DatasetReference
from workers.ray_training import train_on_ray
from workers.training import train

pytestmark = [
    pytest.mark.slow,
    # Ray Train's own, about settings that it will change in a later release.
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


RECIPE = {**conftest.RECIPE, "batch_size": 256}
"""Halves of a batch that have much the same statistics, and steps that take long enough to be killed in."""


@pytest.fixture
def digits(all_digits):
    return all_digits


def plan_of(digits, checkpoints, **fields):
    return replace(test_training_run.plan_of(digits, checkpoints, **fields), recipe=RECIPE)


class Patient(Watcher):
    """Told the progress now and then only, and of a run of any length."""

    def on_step(self, done, total):
        self.steps.append(done)


def ranks() -> list[int]:
    """The processes of Ray Train's ranks."""
    return processes("TrainWorker")


def processes(kind: str) -> list[int]:
    """Those of this process's Ray that name themselves so."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and kind.encode() in name and is_descendant(int(folder.name)):
            found.append(int(folder.name))
    return sorted(found)


def test_a_job_on_two_ranks_ends_with_weights_progress_and_curves(site, local_ray):
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id, num_workers=2)
    site.work([dataset.job.id, supernet.job.id])
    job = site.queue.get(supernet.job.id)
    assert (job.state, job.error, job.attempt) == (JobState.SUCCEEDED, None, 1)
    with site.database.session() as session:
        row = supernets.get(session, supernet.row.id).row
        points = supernets.curve(session, supernet.row.id)
    assert [(point.epoch, point.step) for point in points] == [(0, 4), (1, 8)]
    assert site.artifacts.exists(row.weights_uri)
    phases = [payload["phase"] for payload in site.event_payloads(supernet.job.id, "progress")]
    assert "train" in phases


def test_two_ranks_train_close_to_one(digits, tmp_path, local_ray):
    together, alone = plan_of(digits, tmp_path / "two"), plan_of(digits, tmp_path / "one")
    watcher = Patient()
    train_on_ray(together, num_workers=2, observer=watcher, check=lambda: None)
    single = Watcher()
    train(alone, collective=SingleProcess(), observer=single)
    states = [load_checkpoint(latest_checkpoint(plan.checkpoints)) for plan in (together, alone)]
    assert [state.step for state in states] == [NUM_STEPS, NUM_STEPS]
    flat = [torch.cat([w.flatten() for _, w in sorted(state.weights.items())]) for state in states]
    # Batch norm sees half the batch on each rank, which is all that differs.
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.95
    assert [p.train_loss for p in watcher.points] == pytest.approx(
        [p.train_loss for p in single.points], rel=0.1
    )


def all_weights(plan) -> torch.Tensor:
    return torch.cat([w.flatten() for _, w in sorted(final_state(plan).weights.items())])


def test_with_batch_norm_synchronised_two_ranks_train_as_one(digits, tmp_path, local_ray):
    # Dropout is drawn by each rank for its own part.
    recipe = {**RECIPE, "batch_norm": "synchronised", "dropout": 0.0}
    together, alone = (replace(plan_of(digits, tmp_path / name), recipe=recipe) for name in ("two", "one"))
    watcher, single = Patient(), Watcher()
    train_on_ray(together, num_workers=2, observer=watcher, check=lambda: None)
    train(alone, collective=SingleProcess(), observer=single)
    found, expected = all_weights(together), all_weights(alone)
    # In float32 each of the steps rounds otherwise, and the next goes on from there.
    assert (found - expected).norm() < 1e-3 * expected.norm()
    assert [p.train_loss for p in watcher.points] == pytest.approx(
        [p.train_loss for p in single.points], rel=1e-3
    )


# Two whole runs under Ray, one of them started twice.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("batch_norm", "which"), [("local", -1), ("synchronised", 0)])
def test_where_a_rank_dies_all_go_on_from_the_checkpoint(digits, tmp_path, local_ray, batch_norm, which):
    recipe = {**RECIPE, "batch_norm": batch_norm}
    plan = replace(plan_of(digits, tmp_path / "run"), recipe=recipe)
    watcher = Patient()
    over = threading.Event()
    killed = []

    def kill_one() -> None:
        while not over.is_set() and not killed:
            found = ranks()
            if latest_checkpoint(plan.checkpoints) is not None and found:
                os.kill(found[which], signal.SIGKILL)
                killed.append(found[which])
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        train_on_ray(plan, num_workers=2, observer=watcher, check=lambda: None)
    finally:
        over.set()
        thread.join()
    assert killed
    ((step, differences),) = watcher.resumes
    assert 1 <= step <= NUM_STEPS
    assert differences == ()
    assert [point.epoch for point in watcher.points] == list(range(RECIPE["epochs"]))
    left_alone = replace(plan_of(digits, tmp_path / "alone"), recipe=recipe)
    train_on_ray(left_alone, num_workers=2, observer=Patient(), check=lambda: None)
    assert_same_bits(final_state(plan), final_state(left_alone))


def test_an_epochs_point_that_died_with_its_reader_is_told_again(digits, tmp_path, local_ray):
    plan = plan_of(digits, tmp_path / "run")
    with pytest.raises(Interruption):
        train_on_ray(plan, num_workers=2, observer=Patient(at_point=0), check=lambda: None)
    # The ranks were done with the epoch, and must not have saved what lies past the point.
    assert final_state(plan).step < STEPS_PER_EPOCH
    watcher = Patient()
    train_on_ray(plan, num_workers=2, observer=watcher, check=lambda: None)
    assert [(point.epoch, point.step) for point in watcher.points] == [(0, 4), (1, 8)]


def test_what_no_rank_could_do_is_told_before_any_starts(digits, tmp_path, local_ray):
    plan = replace(plan_of(digits, tmp_path / "run"), recipe={**RECIPE, "batch_size": 255})
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match="a batch of 255 cannot be shared evenly by 2 workers"):
        train_on_ray(plan, num_workers=2, observer=Patient(), check=lambda: None)
    assert time.monotonic() - started < 30
    assert not (plan.checkpoints / "ray").exists()


def test_an_error_of_the_users_on_the_ranks_is_told_once_and_not_tried_again(digits, tmp_path, local_ray):
    # A checkpoint of another run, which every rank refuses at its start.
    other = replace(plan_of(digits, tmp_path / "run"), seed=4, recipe={**RECIPE, "epochs": 1})
    train(other, collective=SingleProcess(), observer=Patient())
    plan = plan_of(digits, tmp_path / "run")
    with pytest.raises(NasError, match="belongs to another run") as raised:
        train_on_ray(plan, num_workers=2, observer=Patient(), check=lambda: None)
    assert "Traceback" not in str(raised.value)


@dataclass(frozen=True, kw_only=True)
class FailingOnRanks(DatasetReference):
    """Images that the driver can read, and no rank: as with a defect that no other try mends."""

    driver: int

    def load(self):
        if os.getpid() != self.driver:
            raise RuntimeError("something of ours\nis broken")
        return super().load()


@pytest.mark.timeout(600)
def test_what_fails_on_the_ranks_each_time_is_told_in_a_sentence(digits, tmp_path, local_ray):
    broken = FailingOnRanks(**vars(digits), driver=os.getpid())
    plan = replace(plan_of(digits, tmp_path / "run"), data=broken)
    with pytest.raises(NasError, match=r"died 4 times in a row .*RuntimeError: is broken") as raised:
        train_on_ray(plan, num_workers=2, observer=Patient(), check=lambda: None)
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.timeout(900)
def test_ranks_may_die_any_number_of_times_as_long_as_the_run_gets_further(digits, tmp_path, local_ray):
    plan = plan_of(digits, tmp_path / "run")
    over = threading.Event()
    killed_at = []

    def kill_after_every_step() -> None:
        while not over.is_set() and len(killed_at) < 5:
            newest = latest_checkpoint(plan.checkpoints)
            found = ranks()
            if newest is not None and found and step_of(newest) > max(killed_at, default=0):
                killed_at.append(step_of(newest))
                os.kill(found[-1], signal.SIGKILL)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_after_every_step)
    thread.start()
    try:
        train_on_ray(plan, num_workers=2, observer=Patient(), check=lambda: None)
    finally:
        over.set()
        thread.join()
    # One more than Ray by itself starts them again.
    assert len(killed_at) == 5
    assert final_state(plan).step == NUM_STEPS


def test_what_the_ranks_tell_is_lost_the_attempt_is_and_its_checkpoints_stay(digits, tmp_path, local_ray):
    plan = replace(plan_of(digits, tmp_path / "run"), recipe={**RECIPE, "epochs": 1000})
    killed = []

    def kill_board() -> None:
        if latest_checkpoint(plan.checkpoints) is not None and not killed:
            (board,) = processes("NoticeBoard")
            os.kill(board, signal.SIGKILL)
            killed.append(board)

    with pytest.raises(AttemptLostError, match="Ray failed: "):
        train_on_ray(plan, num_workers=2, observer=Patient(), check=kill_board)
    assert killed
    assert final_state(plan).step >= 1


def test_a_rank_that_measures_hears_that_it_is_to_stop(local_ray, monkeypatch):
    monkeypatch.setattr(ray_training, "_POLL_S", 0.0)
    board = ray_training.NoticeBoard.remote()
    observer = ray_training._BoardObserver(board, SingleProcess())
    observer.check()
    ray.get(board.stop.remote())
    with pytest.raises(WorkerDrainingError):
        observer.check()
    # And at the step after it the others do too.
    with pytest.raises(WorkerDrainingError):
        observer.on_step(1, 2)
    ray.kill(board)


def test_cancelled_it_stops_within_seconds_and_leaves_no_rank(digits, tmp_path, local_ray):
    # Epochs of many steps: one whose point is not told yet is not saved, and so begun again.
    recipe = {**RECIPE, "epochs": 1000, "batch_size": 8}
    plan = replace(plan_of(digits, tmp_path / "run", interval_s=3600.0), recipe=recipe)
    watcher = Patient()
    asked = []

    def check() -> None:
        if any(done > 2 for done in watcher.steps):
            asked.append(time.monotonic())
            raise JobCancelledError("cancelled")

    with pytest.raises(JobCancelledError):
        train_on_ray(plan, num_workers=2, observer=watcher, check=check)
    assert time.monotonic() - asked[0] < 10
    # It stopped at a step common to all, and saved it: an hour's interval would have saved none.
    assert load_checkpoint(latest_checkpoint(plan.checkpoints)).step >= watcher.steps[-1]
    deadline = time.monotonic() + 10
    while ranks() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ranks() == []
