"""Networks of a step side by side: the gradients are those of one after the other, and the bits repeat."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from nas.recipes import RECIPES
from supernet.training import load_checkpoint, save_checkpoint
from supernet.training.batch_norm import LocalBatchNorm, SynchronisedBatchNorm
from supernet.training.lanes import Lanes
from tests.training.toy import RecordingSupernet, toy_recipe, toy_trainer, wake_gammas

EPOCHS = 7
LATE = 27
"""The last step, at which every schedule has several networks."""


def after_a_step(recipe, *, num_lanes, dtype=torch.float64, kind=None):
    more = {} if kind is None else {"kind": kind}
    trainer = toy_trainer(recipe=recipe, dtype=dtype, num_lanes=num_lanes, **more)
    wake_gammas(trainer.supernet)
    stats = trainer.train_step(LATE)
    return trainer, stats


def all_of(trainer):
    state = trainer.state()
    return {**state.weights, **state.optimizer}


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_lanes_change_nothing_but_the_order_of_sums(recipe):
    alone, told_alone = after_a_step(toy_recipe(recipe, epochs=EPOCHS), num_lanes=1)
    trainer, told = after_a_step(toy_recipe(recipe, epochs=EPOCHS), num_lanes=3)
    assert told.slots == told_alone.slots
    assert told.slot_losses == pytest.approx(told_alone.slot_losses, rel=1e-10)
    for name, expected in all_of(alone).items():
        torch.testing.assert_close(all_of(trainer)[name], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("num_lanes", [3])
def test_the_bits_repeat_whichever_lane_a_network_falls_to(num_lanes):
    torch.set_num_threads(4)
    first, _ = after_a_step(toy_recipe(epochs=EPOCHS), num_lanes=num_lanes, dtype=torch.float32)
    for _ in range(2):
        again, _ = after_a_step(toy_recipe(epochs=EPOCHS), num_lanes=num_lanes, dtype=torch.float32)
        assert all(torch.equal(all_of(again)[name], tensor) for name, tensor in all_of(first).items())


def test_networks_really_run_side_by_side():
    class Meeting(RecordingSupernet):
        """The networks after the first wait for one another."""

        door = threading.Barrier(3)

        def forward(self, *args, **kwargs):
            if self.calls:
                self.door.wait(timeout=60)
            return super().forward(*args, **kwargs)

    _, stats = after_a_step(toy_recipe(epochs=EPOCHS), num_lanes=4, kind=Meeting)
    assert len(stats.slots) == 4


def test_networks_that_draw_from_the_one_generator_run_in_turn():
    recipe = toy_recipe(epochs=EPOCHS, regularised="all", dropout=0.5)
    alone, _ = after_a_step(recipe, num_lanes=1)
    trainer, _ = after_a_step(recipe, num_lanes=3)
    assert all(torch.equal(all_of(trainer)[name], tensor) for name, tensor in all_of(alone).items())


def test_ranks_that_exchange_within_a_pass_do_so_in_one_order():
    two = SimpleNamespace(world_size=2)
    assert SynchronisedBatchNorm().exchanges(two)
    assert not LocalBatchNorm().exchanges(two)


def test_a_run_that_goes_on_keeps_its_lanes(tmp_path):
    first = toy_trainer(num_lanes=3)
    first.run(1)
    path = save_checkpoint(first.state(), tmp_path)
    resumed = toy_trainer(num_lanes=1)
    assert resumed.restore(load_checkpoint(path)) == ()
    assert resumed.state().environment["lanes"] == 3


def test_lanes_do_not_change_how_many_threads_there_are():
    torch.set_num_threads(4)
    lanes = Lanes(2)
    assert [*lanes.run([torch.get_num_threads, torch.get_num_threads])] == [2, 2]
    assert torch.get_num_threads() == 4
    torch.set_num_threads(6)
    assert [*lanes.run([torch.get_num_threads, torch.get_num_threads])] == [3, 3]
    assert [*Lanes(1).run([torch.get_num_threads])] == [6]


def test_a_piece_that_fails_is_told_in_its_place_once_none_runs():
    done = []

    def slow():
        time.sleep(0.2)
        done.append("slow")
        return "slow"

    def failing():
        raise ValueError("of no use")

    found = Lanes(3).run([lambda: "quick", failing, slow])
    assert next(found) == "quick"
    with pytest.raises(ValueError, match="of no use"):
        next(found)
    assert done == ["slow"]
