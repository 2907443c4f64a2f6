"""The divergence guard: when a run counts as diverged, and at what rate it goes on."""

import json

import pytest

from nas.errors import NasError
from supernet.training import (
    CheckpointError,
    TrainingDivergedError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from supernet.training.checkpoint import checkpoints, newest_readable_step, rewind_checkpoints
from supernet.training.guard import MAX_ROLLBACKS, DivergenceGuard
from tests.training.toy import toy_trainer

NUM_IMAGES = 1000
CHANCE = 0.1


def judged(guard, *counts):
    for epoch, num_correct in enumerate(counts, 1):
        guard.judge(epoch, num_correct=num_correct, num_images=NUM_IMAGES, chance=CHANCE)
    return guard


def diverged(step=7):
    return TrainingDivergedError("the loss is nan", step=step)


@pytest.mark.parametrize("low", [0, 60, 100, 120])
def test_a_network_back_at_chance_after_it_was_clearly_above_has_collapsed(low):
    with pytest.raises(TrainingDivergedError, match=rf"back at chance after step 3: {low} of 1000 .* 10%"):
        judged(DivergenceGuard(), 100, 400, low)


@pytest.mark.parametrize(
    "counts",
    [
        # Never yet above chance, or not clearly: nothing is lost.
        (90, 100, 110),
        (100, 140, 100),
        # Worse than before, yet no guess.
        (100, 900, 140),
        (0, 0, 0),
    ],
)
def test_a_network_that_has_learned_nothing_yet_or_is_above_chance_is_good(counts):
    assert judged(DivergenceGuard(), *counts).good_step == len(counts)


def test_what_counts_as_chance_depends_on_the_number_of_images():
    """Of 20 images 4 right, twice what guessing gets, tell nothing: of 2,000 they tell enough."""
    for num_images, is_above in ((20, False), (2000, True)):
        guard = DivergenceGuard()
        guard.judge(1, num_correct=num_images, num_images=num_images, chance=CHANCE)
        if is_above:
            guard.judge(2, num_correct=num_images // 5, num_images=num_images, chance=CHANCE)
        else:
            with pytest.raises(TrainingDivergedError):
                guard.judge(2, num_correct=num_images // 5, num_images=num_images, chance=CHANCE)


def test_each_rollback_halves_the_rate_and_the_fourth_is_no_more():
    guard = DivergenceGuard()
    factors = []
    for _ in range(MAX_ROLLBACKS):
        assert guard.may_roll_back
        factors.append(guard.roll_back(diverged(), to_step=4).rate_factor)
    assert factors == [0.5, 0.25, 0.125]
    assert not guard.may_roll_back
    assert guard.num_steps_lost == 9
    error = guard.given_up(diverged(9), 0.8)
    assert isinstance(error, NasError)
    assert "diverged 4 times" in str(error)
    assert "recipe.base_learning_rate below 0.1" in str(error)


def test_the_trainer_steps_at_the_rate_that_the_guard_leaves():
    trainer = toy_trainer()
    before = trainer.train_step(0).learning_rate
    trainer.stack.guard.roll_back(diverged(), to_step=0)
    assert trainer.train_step(0).learning_rate == before / 2


def test_its_state_is_json_and_comes_back(tmp_path):
    trainer = toy_trainer()
    judged(trainer.stack.guard, 100, 400)
    trainer.stack.guard.roll_back(diverged(), to_step=2)
    again = toy_trainer()
    again.restore(load_checkpoint(save_checkpoint(trainer.state(), tmp_path)))
    assert again.stack.guard.state_dict() == trainer.stack.guard.state_dict()
    assert json.loads(json.dumps(again.stack.guard.state_dict())) == again.stack.guard.state_dict()
    with pytest.raises(TrainingDivergedError):
        again.stack.guard.judge(3, num_correct=100, num_images=NUM_IMAGES, chance=CHANCE)


def test_a_checkpoint_of_before_there_was_a_guard_is_gone_on_from(tmp_path):
    path = save_checkpoint(toy_trainer().state(), tmp_path)
    description = json.loads((path / "state.json").read_text())
    del description["strategies"]["guard"]
    del description["identity"]["stack"]["strategies"]["guard"]
    (path / "state.json").write_text(json.dumps(description))
    trainer = toy_trainer()
    trainer.restore(load_checkpoint(path))
    assert trainer.stack.guard.rate_factor == 1.0


# The checkpoints that it needs


def steps_kept(folder):
    return [int(path.name.rpartition("-")[2]) for path in checkpoints(folder)]


def run_and_save(folder, *, spare_step, num_steps=5):
    trainer = toy_trainer()
    for _ in range(num_steps):
        trainer.run(1)
        save_checkpoint(trainer.state(), folder, spare_step=spare_step)


def test_the_last_good_checkpoint_outlives_the_two_newest(tmp_path):
    run_and_save(tmp_path, spare_step=2)
    assert steps_kept(tmp_path) == [2, 4, 5]


def test_rewinding_leaves_what_is_not_past_the_step(tmp_path):
    run_and_save(tmp_path, spare_step=2)
    assert rewind_checkpoints(tmp_path, 2).name == "step-0000000002"
    assert steps_kept(tmp_path) == [2]
    assert rewind_checkpoints(tmp_path, 1) is None
    assert rewind_checkpoints(tmp_path / "none", 1) is None


def test_a_good_checkpoint_that_is_damaged_is_no_place_to_go_back_to(tmp_path):
    run_and_save(tmp_path, spare_step=2)
    assert newest_readable_step(tmp_path, 2) == 2
    (tmp_path / "step-0000000002" / "state.json").write_text("{}")
    assert newest_readable_step(tmp_path, 2) == 0
    assert newest_readable_step(tmp_path, 4) == 4


def test_what_cannot_be_deleted_is_said(tmp_path, monkeypatch):
    run_and_save(tmp_path, spare_step=2)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(
        CheckpointError, match=r"past step 2 could not be deleted .*Permission denied.*right to"
    ):
        rewind_checkpoints(tmp_path, 2)
    assert latest_checkpoint(tmp_path).name == "step-0000000005"


def test_a_loss_far_beyond_that_of_guessing_is_a_divergence_too():
    guard = DivergenceGuard()
    guard.judge_loss(4, 20.0, num_classes=10)
    with pytest.raises(TrainingDivergedError, match=r"mean loss of the epoch before step 8 is 24, .* 2\.3"):
        guard.judge_loss(8, 24.0, num_classes=10)
