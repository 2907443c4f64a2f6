"""What happens to a training when its storage fails: it goes on with the same bits, or fails and says why."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import pytest

from nas.job import JobState
from supernet.training.checkpoint import checkpoints, latest_checkpoint, load_checkpoint
from supernet.training.formats import CheckpointError
from tests.workers.test_training_run import (
    Interruption,
    Watcher,
    assert_same_bits,
    final_state,
    plan_of,
    run,
)
from workers.storage_errors import storage_message
from workers.training_job import TrainingJob, checkpoint_folder


@pytest.fixture(scope="module")
def expected(digits, tmp_path_factory):
    plan = plan_of(digits, tmp_path_factory.mktemp("alone") / "run")
    run(plan)
    return final_state(plan)


@pytest.fixture
def plan(digits, tmp_path):
    return plan_of(digits, tmp_path / "run")


class Doing(Watcher):
    """Does something once, when a step is done."""

    def __init__(self, step, deed) -> None:
        super().__init__()
        self._step, self._deed = step, deed

    def on_step(self, done, total):
        super().on_step(done, total)
        if done == self._step:
            self._deed()


# What a run survives


def test_its_checkpoints_deleted_in_mid_run_it_writes_new_ones(plan, expected):
    run(plan, Doing(5, lambda: shutil.rmtree(plan.checkpoints)))
    assert_same_bits(final_state(plan), expected)


def test_its_decoded_images_deleted_in_mid_run_it_goes_on_and_is_resumed(digits, tmp_path, expected):
    digits = replace(digits, caches=tmp_path / "caches")
    plan = plan_of(digits, tmp_path / "run")
    digits.load()

    def vandalise():
        shutil.rmtree(digits.cache)
        raise Interruption

    with pytest.raises(Interruption):
        run(plan, Doing(6, vandalise))
    run(plan, Doing(7, lambda: shutil.rmtree(digits.cache)))
    assert_same_bits(final_state(plan), expected)


def test_every_checkpoint_damaged_it_begins_anew_and_says_so(plan, expected):
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=6))
    names = [path.name for path in checkpoints(plan.checkpoints)]
    for name in names:
        (plan.checkpoints / name / "weights.safetensors").write_bytes(b"")
    watcher = run(plan)
    assert (watcher.damaged, watcher.resumes) == (names[::-1], [])
    assert_same_bits(final_state(plan), expected)


# What it does not, and what it says then


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
def test_checkpoints_that_cannot_be_read_for_now_stop_the_run_and_stay(plan, expected, monkeypatch, error):
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=6))
    kept = checkpoints(plan.checkpoints)
    watcher = Watcher()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", refuse(error))
        with pytest.raises(CheckpointError, match=r"0005 cannot be read \(refused.*left as it is"):
            run(plan, watcher)
    assert (checkpoints(plan.checkpoints), watcher.damaged) == (kept, [])
    assert run(plan).resumes == [(5, ())]
    assert_same_bits(final_state(plan), expected)


def refuse(error):
    def run(*arguments, **fields):
        raise OSError(error, "refused", "somewhere")

    return run


def test_a_damaged_checkpoint_that_cannot_be_put_aside_stops_the_run(plan, monkeypatch):
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=6))
    newest = latest_checkpoint(plan.checkpoints)
    (newest / "state.json").write_text("{}")
    monkeypatch.setattr("pathlib.Path.rename", refuse(errno.EROFS))
    with pytest.raises(CheckpointError, match=r"0005 is damaged and cannot be put aside .*delete it"):
        run(plan)
    assert latest_checkpoint(plan.checkpoints) == newest


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_takes_no_checkpoint_stops_the_run_and_the_one_before_is_intact(
    plan, monkeypatch, error
):
    expected = pytest.raises(CheckpointError, match=r"step 5 .*go on from step 4")
    with monkeypatch.context() as patch, expected as told:
        run(plan, Doing(5, lambda: patch.setattr("pathlib.Path.mkdir", refuse(error))))
    assert "refused" in str(told.value)
    assert load_checkpoint(latest_checkpoint(plan.checkpoints)).step == 4


def test_a_file_where_the_folder_should_be_is_told(plan):
    plan.checkpoints.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step 1 could not be written"):
        run(plan)


# Whole jobs


def ended(site):
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id)
    site.work([dataset.job.id, supernet.job.id])
    return site.queue.get(supernet.job.id)


def test_a_disk_that_fails_anywhere_else_fails_the_job_clearly(site, monkeypatch):
    monkeypatch.setattr("workers.training_job.checkpoint_folder", refuse(errno.EIO))
    job = ended(site)
    told = "the worker's storage failed at somewhere (refused); the disk cannot be read or written: check it"
    assert (job.state, job.error) == (JobState.FAILED, f"{told}, then start the work again")


def test_a_final_checkpoint_that_is_gone_fails_the_job_clearly(site, monkeypatch):
    train = TrainingJob._train

    def train_and_lose(self, row, plan, *rest):
        train(self, row, plan, *rest)
        shutil.rmtree(plan.checkpoints)

    monkeypatch.setattr(TrainingJob, "_train", train_and_lose)
    job = ended(site)
    assert (job.state, "final checkpoint was deleted" in job.error) == (JobState.FAILED, True)


def test_a_job_tells_of_a_checkpoint_that_was_damaged(site, monkeypatch):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    supernet = site.add_supernet(dataset.row.id)
    folder = checkpoint_folder(site.home, supernet.row.id)
    (folder / "step-0000000004").mkdir(parents=True)
    site.work([supernet.job.id])
    assert site.queue.get(supernet.job.id).state is JobState.SUCCEEDED
    (told,) = site.event_payloads(supernet.job.id, "checkpoint_damaged")
    assert told["name"] == "step-0000000004"
    assert "No such file or directory: state.json" in told["reason"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "grant it"),
        (errno.EIO, "check it"),
        (errno.ENOENT, "restore it"),
    ],
)
def test_each_failure_of_storage_has_its_remedy(number, remedy):
    assert remedy in storage_message(OSError(number, "why", "/where"))
    assert "at /where (why)" in storage_message(OSError(number, "why", "/where"))


def test_what_storage_has_no_part_in_is_no_failure_of_storage():
    assert storage_message(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert storage_message(OSError("no number")) is None
