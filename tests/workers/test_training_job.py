"""A training job that is killed again and again: it ends as long as each attempt gets further."""

from __future__ import annotations

import json

import pytest

from nas.job import JobState
from nas.store import supernets
from supernet.training.checkpoint import latest_checkpoint
from tests.workers.conftest import RECIPE, expire_leases
from workers.training_job import JobObserver, checkpoint_folder

NUM_EPOCHS = 7


class Killed(BaseException):
    """In place of kill -9: nothing that the worker could do about it runs."""


def work_until_killed(site, job_id):
    with pytest.raises(Killed):
        site.work([job_id])
    expire_leases(site.database)


@pytest.mark.slow
def test_killed_after_every_epoch_more_often_than_it_has_attempts_it_still_ends(site, monkeypatch):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    supernet = site.add_supernet(dataset.row.id, recipe={**RECIPE, "epochs": NUM_EPOCHS})
    on_checkpoint = JobObserver.on_checkpoint

    def die_once_an_epoch_is_saved(self, step):
        on_checkpoint(self, step)
        # On a busy machine there are more checkpoints than epochs.
        if step % 4 == 0:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(JobObserver, "on_checkpoint", die_once_an_epoch_is_saved)
        for _ in range(NUM_EPOCHS - 1):
            work_until_killed(site, supernet.job.id)
    site.work([supernet.job.id])
    job = site.queue.get(supernet.job.id)
    assert (job.state, job.error, job.attempt) == (JobState.SUCCEEDED, None, NUM_EPOCHS)
    steps = [payload["step"] for payload in site.event_payloads(supernet.job.id, "resumed")]
    assert steps == [4 * epoch for epoch in range(1, NUM_EPOCHS)]


def test_killed_in_every_first_epoch_it_is_given_up(site, monkeypatch):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    supernet = site.add_supernet(dataset.row.id)

    def die(self, done, total):
        raise Killed

    monkeypatch.setattr(JobObserver, "on_step", die)
    for _ in range(5):
        work_until_killed(site, supernet.job.id)
    site.work([supernet.job.id])
    job = site.queue.get(supernet.job.id)
    assert (job.state, job.attempt) == (JobState.FAILED, 5)
    assert job.error.startswith("killed its worker 5 times in a row without getting further")


def test_resumed_on_another_kind_of_machine_it_is_exact_no_more_however_often_it_goes_on(site, monkeypatch):
    dataset = site.add_dataset()
    site.work([dataset.job.id])
    supernet = site.add_supernet(dataset.row.id, recipe={**RECIPE, "epochs": 3})
    on_checkpoint = JobObserver.on_checkpoint

    def die_once_an_epoch_is_saved(self, step):
        on_checkpoint(self, step)
        # On a busy machine there are more checkpoints than epochs.
        if step % 4 == 0:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(JobObserver, "on_checkpoint", die_once_an_epoch_is_saved)
        work_until_killed(site, supernet.job.id)
        folder = latest_checkpoint(checkpoint_folder(site.home, supernet.row.id))
        description = json.loads((folder / "state.json").read_text())
        here = description["environment"]["cpu"]
        description["environment"]["cpu"] = "another"
        (folder / "state.json").write_text(json.dumps(description))
        work_until_killed(site, supernet.job.id)
    site.work([supernet.job.id])
    told = [f"step 4: cpu: another before, {here} now"]
    # The second time nothing differed from the checkpoint before.
    assert site.event_payloads(supernet.job.id, "resumed") == [
        {"step": step, "is_exact": False, "departures": told} for step in (4, 8)
    ]
    assert site.queue.get(supernet.job.id).state is JobState.SUCCEEDED
    with site.database.session() as session:
        assert supernets.get(session, supernet.row.id).row.resume_departures == told
