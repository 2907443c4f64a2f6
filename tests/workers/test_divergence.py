"""A run that diverges goes back to its last good checkpoint at half the rate, and is exact all the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nas.errors import NasError
from nas.job import JobState
from nas.plateau import WINDOW
from nas.store import supernets
from supernet.data import TrainingBatches
from supernet.training.checkpoint import checkpoints, latest_checkpoint, load_checkpoint
from supernet.training.collective import TorchCollective
from tests.workers.conftest import RECIPE
from tests.workers.test_training_run import (
    NUM_STEPS,
    Interruption,
    Watcher,
    assert_same_bits,
    final_state,
    plan_of,
    run,
)
from workers import training
from workers.context import WorkerDrainingError
from workers.probing import Probing

STEP = 6
"""In the second epoch; the first one's checkpoint, of step 4, is good."""


def diverge_at(patch, step, *, down_to=1.0, on_rank=0):
    """Plant images that are no numbers at a step, on one rank, at a rate's factor of `down_to` or more."""
    guards = []
    build, batch = training.build_stack, TrainingBatches.batch

    def noted(*arguments, **fields):
        stack = build(*arguments, **fields)
        guards.append(stack.guard)
        return stack

    def planted(self, number, rank=0, world_size=1, **fields):
        images, labels = batch(self, number, rank, world_size, **fields)
        is_bad = number == step and rank == on_rank and guards[-1].rate_factor >= down_to
        return (images * float("nan") if is_bad else images), labels

    patch.setattr(training, "build_stack", noted)
    patch.setattr(TrainingBatches, "batch", planted)


def forget_at(patch, number):
    """Have the largest network get everything right, but at the end of this epoch, counted as it comes."""
    measure = Probing.measure_ends
    calls = []

    def told(self):
        largest, smallest = measure(self)
        calls.append(None)
        is_bad = len(calls) == number
        return replace(largest, num_correct=largest.num_images // (10 if is_bad else 1)), smallest

    patch.setattr(Probing, "measure_ends", told)


@pytest.fixture
def plan(digits, tmp_path):
    return plan_of(digits, tmp_path / "run")


@pytest.fixture(scope="module")
def rolled_back(digits, tmp_path_factory):
    """What the run comes to that is left alone but for the divergence at `STEP`."""
    plan = plan_of(digits, tmp_path_factory.mktemp("rolled back") / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        diverge_at(patch, STEP)
        watcher = run(plan)
    return final_state(plan), watcher


def rollback_of(watcher):
    (rollback,) = watcher.rollbacks
    return rollback.step, rollback.from_step, rollback.rate_factor


def test_it_goes_on_from_the_last_good_checkpoint_at_half_the_rate(plan, rolled_back):
    state, watcher = rolled_back
    assert rollback_of(watcher) == (4, STEP, 0.5)
    assert "'max' network is nan at step 6" in watcher.rollbacks[0].reason
    assert watcher.steps == [*range(STEP + 1), *range(4, NUM_STEPS + 1)]
    # Steps on disk never go back: what was done twice counts twice.
    assert watcher.checkpoints == sorted(watcher.checkpoints)
    assert [(point.epoch, point.step) for point in watcher.points] == [(0, 4), (1, 8)]

    # The same by hand: the undisturbed run up to the checkpoint, then half the rate.
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=4))
    path = latest_checkpoint(plan.checkpoints) / "state.json"
    description = json.loads(path.read_text())
    description["strategies"]["guard"]["rollbacks"] = [
        {"step": 4, "from_step": STEP, "reason": "by hand", "rate_factor": 0.5}
    ]
    path.write_text(json.dumps(description))
    by_hand = run(plan)
    assert_same_bits(final_state(plan), state)
    assert by_hand.points[-1].learning_rate == watcher.points[-1].learning_rate
    assert by_hand.points[-1].train_loss == watcher.points[-1].train_loss


def test_on_a_gpu_it_goes_back_alike(plan, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: nothing of this has been checked on a GPU by this run")
    diverge_at(monkeypatch, STEP)
    on_gpu = replace(plan, device="cuda")
    watcher = run(on_gpu)
    assert rollback_of(watcher) == (4, STEP, 0.5)
    assert [(point.epoch, point.step) for point in watcher.points] == [(0, 4), (1, 8)]
    # And taken up on the processor, which is another arithmetic, it says so.
    assert run(replace(plan, device="cpu")).resumes[0][0] == NUM_STEPS
    assert final_state(plan).step == NUM_STEPS


class KilledTelling(Watcher):
    """Dies with the rollback told and nothing deleted yet."""

    def on_rollback(self, rollbacks):
        super().on_rollback(rollbacks)
        raise Interruption


class KilledAgain(Watcher):
    """Dies the second time that a step is done."""

    def on_step(self, done, total):
        super().on_step(done, total)
        if self.steps.count(done) == 2 and done == self.again:
            raise Interruption


def killed_again(step):
    watcher = KilledAgain()
    watcher.again = step
    return watcher


@pytest.mark.slow
@pytest.mark.parametrize(
    ("watcher", "resumed_at"),
    [(KilledTelling(), 6), (killed_again(4), 4), (killed_again(5), 4), (killed_again(6), 5)],
    ids=["telling", "begun again", "after a step", "after two steps"],
)
def test_killed_in_or_after_the_rollback_it_ends_with_the_same_bits(
    plan, rolled_back, monkeypatch, watcher, resumed_at
):
    diverge_at(monkeypatch, STEP)
    with pytest.raises(Interruption):
        run(plan, watcher)
    again = run(plan)
    assert [step for step, _ in again.resumes] == [resumed_at]
    assert rollback_of(again) == (4, STEP, 0.5)
    assert_same_bits(final_state(plan), rolled_back[0])
    assert final_state(plan).departures == ()


@pytest.mark.slow
def test_in_the_first_epoch_it_begins_anew_at_half_the_rate_however_often_it_is_killed(
    digits, tmp_path, monkeypatch
):
    diverge_at(monkeypatch, 2)
    alone, killed = (plan_of(digits, tmp_path / name) for name in ("alone", "killed"))
    assert rollback_of(run(alone)) == (0, 2, 0.5)
    for step in (0, 1):
        with pytest.raises(Interruption):
            run(killed, killed_again(step) if step == 0 else Watcher(at_step=1))
    assert rollback_of(run(killed)) == (0, 2, 0.5)
    assert_same_bits(final_state(killed), final_state(alone))


def test_after_three_it_is_given_up_and_the_last_good_checkpoint_is_the_newest(plan, monkeypatch):
    diverge_at(monkeypatch, STEP, down_to=0.0)
    watcher = Watcher()
    with pytest.raises(
        NasError, match=r"diverged 4 times .* below 0\.\d+; where it is the same step"
    ) as raised:
        run(plan, watcher)
    assert str(raised.value).count("is nan at step 6") == 4
    assert [rollback.rate_factor for rollback in watcher.rollbacks] == [0.5, 0.25, 0.125]
    assert [path.name for path in checkpoints(plan.checkpoints)] == ["step-0000000004"]


def test_given_up_in_the_first_epoch_it_leaves_the_beginning_alone(plan, monkeypatch):
    """Steps within the epoch were never found good, and another training may begin from the newest."""
    diverge_at(monkeypatch, 2, down_to=0.0)
    with pytest.raises(NasError, match="diverged 4 times"):
        run(plan)
    assert [path.name for path in checkpoints(plan.checkpoints)] == ["step-0000000000"]


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "num_rollbacks", "is_given_up"), [(12.0, 2, False), (100.0, 3, True)])
def test_a_rate_far_too_high_comes_down(all_digits, tmp_path, rate, num_rollbacks, is_given_up):
    """Nothing is planted: the rate itself does it."""
    recipe = {**RECIPE, "batch_size": 256, "clip": "none", "base_learning_rate": rate, "warmup_fraction": 0.0}
    plan = replace(plan_of(all_digits, tmp_path / "run"), recipe=recipe)
    watcher = Lenient()
    if is_given_up:
        with pytest.raises(NasError, match=r"diverged 4 times .* mean loss .* below 12\.5"):
            run(plan, watcher)
    else:
        run(plan, watcher)
        assert final_state(plan).step == NUM_STEPS
    assert [(r.step, r.from_step) for r in watcher.rollbacks] == [(0, 4)] * num_rollbacks


class Lenient(Watcher):
    def on_step(self, done, total):
        self.steps.append(done)


def test_a_network_that_has_forgotten_everything_is_rolled_back(plan, monkeypatch):
    forget_at(monkeypatch, 2)
    watcher = run(plan)
    assert rollback_of(watcher) == (4, 8, 0.5)
    assert "back at chance after step 8" in watcher.rollbacks[0].reason
    # The epoch is told again, and its point replaces that of the collapse.
    assert [point.epoch for point in watcher.points] == [0, 1, 1]
    assert final_state(plan).step == NUM_STEPS


def test_drained_amid_a_probe_nothing_is_judged(plan, monkeypatch):
    forget_at(monkeypatch, 2)

    class Drained(Watcher):
        def check(self):
            if self.steps[-1] >= 7:
                raise WorkerDrainingError("between two batches")

    with pytest.raises(WorkerDrainingError):
        run(plan, watcher := Drained())
    assert watcher.rollbacks == []
    assert load_checkpoint(latest_checkpoint(plan.checkpoints)).step == 7


def test_with_the_good_checkpoint_gone_it_goes_back_to_the_beginning(plan, monkeypatch):
    diverge_at(monkeypatch, STEP)

    class Vandal(Watcher):
        def on_step(self, done, total):
            super().on_step(done, total)
            if done == STEP and not self.rollbacks:
                for path in checkpoints(plan.checkpoints):
                    (path / "weights.safetensors").unlink()

    watcher = run(plan, Vandal())
    assert rollback_of(watcher) == (0, STEP, 0.5)
    assert final_state(plan).step == NUM_STEPS


def test_what_was_inexact_when_it_diverged_stays_so(plan, monkeypatch):
    diverge_at(monkeypatch, STEP)
    with pytest.raises(Interruption):
        run(plan, Watcher(at_step=6))
    path = latest_checkpoint(plan.checkpoints) / "state.json"
    description = json.loads(path.read_text())
    description["environment"]["cpu"] = "another"
    path.write_text(json.dumps(description))
    run(plan)
    (departure,) = final_state(plan).departures
    assert departure.startswith("step 5: cpu: another before")


# Two ranks


def run_rank(rank, plan, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    with pytest.MonkeyPatch.context() as patch:
        # Only one rank sees the bad images, and both go back.
        diverge_at(patch, STEP, on_rank=1)
        watcher = Watcher()
        training.train(plan, collective=TorchCollective(), observer=watcher)
    told = {"steps": watcher.steps, "rollbacks": [r.from_step for r in watcher.rollbacks]}
    torch.save(told, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_go_back_together(digits, tmp_path):
    plan = plan_of(digits, tmp_path / "run")
    mp.spawn(run_rank, args=(plan, tmp_path), nprocs=2)
    told = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert told[0]["steps"] == told[1]["steps"] == [*range(STEP + 1), *range(4, NUM_STEPS + 1)]
    assert [rank["rollbacks"] for rank in told] == [[STEP], []]
    state = final_state(plan)
    assert (state.step, state.strategies["guard"]["rollbacks"][0]["step"]) == (NUM_STEPS, 4)


# Whole jobs


def trained(site, monkeypatch, *, epochs=2, **planted):
    dataset = site.add_dataset()
    supernet = site.add_supernet(dataset.row.id, recipe={**RECIPE, "epochs": epochs})
    with monkeypatch.context() as patch:
        diverge_at(patch, STEP, **planted)
        site.work([dataset.job.id, supernet.job.id])
    with site.database.session() as session:
        row = supernets.get(session, supernet.row.id).row
    return site.queue.get(supernet.job.id), row


def test_a_job_that_was_rolled_back_succeeds_and_tells_of_it(site, monkeypatch):
    job, row = trained(site, monkeypatch)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    (told,) = site.event_payloads(job.id, "rolled_back")
    assert row.rollbacks == [told]
    assert (told["step"], told["from_step"], told["rate_factor"]) == (4, STEP, 0.5)
    assert told["reason"].startswith("the loss of a 'max' network is nan")
    assert row.resume_departures == []


def test_probes_are_flat_only_over_epochs_since_the_last_rollback(site, monkeypatch):
    measure = Probing.measure_ends

    def standing_still(self):
        return tuple(replace(result, num_correct=result.num_images // 2) for result in measure(self))

    monkeypatch.setattr(Probing, "measure_ends", standing_still)
    job, row = trained(site, monkeypatch, epochs=WINDOW + 2)
    assert (job.state, len(row.rollbacks)) == (JobState.SUCCEEDED, 1)
    (flat,) = site.event_payloads(job.id, "probes_flat")
    # It went back to the end of the first epoch.
    assert flat["epoch"] == row.probes_flat_at_epoch == WINDOW


def test_a_job_that_diverges_again_and_again_fails_and_says_what_to_do(site, monkeypatch):
    job, row = trained(site, monkeypatch, down_to=0.0)
    assert job.state is JobState.FAILED
    assert "diverged 4 times and is given up" in job.error
    assert "recipe.base_learning_rate below" in job.error
    assert len(row.rollbacks) == len(site.event_payloads(job.id, "rolled_back")) == 3
