"""What a step shows its strategies, and what it does with what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from supernet.training.collective import SingleProcess
from supernet.training.data_sampler import DataDraw
from supernet.training.distillation import SoftDistillation
from supernet.training.gradient import FlatGradients
from supernet.training.paths import SandwichSampler, UniformPaths, UniformSampler
from tests.training.toy import NUM_CLASSES, RecordingSupernet, ToyBatches, gradients_of, toy_recipe
from tests.training.watchers import PLAIN, GivenData, WatchingPaths, trainer_with


class Doubling(SingleProcess):
    """A peer that always holds the same; counts how often it is asked."""

    num_reductions = 0

    def all_reduce_sum(self, flat):
        self.num_reductions += 1
        flat.mul_(2)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def images_of(trainer, step=0, **more):
    return ToyBatches(batch_size=trainer.stack.recipe.batch_size, dtype=torch.float64).batch(step, **more)


def gradients_alone(trainer, slots, images, labels, weights_n=None):
    """Of each network by itself, its teacher's logits given, unweighted but for the images."""
    supernet = trainer.supernet.train()
    found = []
    for index in range(len(slots)):
        supernet.zero_grad()
        batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(images, labels)
        losses_n = [batch_loss(slot, supernet(images, slot.architecture)) for slot in slots][index]
        (losses_n if weights_n is None else losses_n * weights_n).mean().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in supernet.parameters()]
        found.append(torch.cat([g.flatten() for g in grads]))
    return found


# Networks' own gradients


def test_each_random_network_shows_its_own_gradient_as_if_it_were_alone():
    paths = WatchingPaths()
    trainer = trainer_with(sampler=SandwichSampler(paths))
    images, labels = images_of(trainer)
    stats = trainer.train_step(0)
    # The step has moved the weights; the gradients were those of the weights before.
    fresh = trainer_with()
    largest, first, second, smallest = gradients_alone(fresh, stats.slots, images, labels)
    ((slots, parts, norms),) = paths.seen
    assert slots == stats.slots
    close(parts[1], first)
    close(parts[2], second)
    # Put together already: those that share a part, and each of the others times its factor.
    close(parts[0], largest + smallest + 0.5 * first + 3.0 * second)
    close(gradients_of(trainer.supernet), parts[0])
    for norm_by_name, own in zip(norms, (first, second), strict=True):
        sizes = [p.numel() for p in fresh.supernet.parameters()]
        expected = [piece.norm().item() for piece in own.split(sizes)]
        assert list(norm_by_name) == [name for name, _ in fresh.supernet.named_parameters()]
        np.testing.assert_allclose(list(norm_by_name.values()), expected, rtol=1e-9, atol=1e-12)


def test_a_sampler_that_does_not_look_costs_no_buffer_and_gets_the_same_update():
    class Blind(WatchingPaths):
        wants_slot_gradients = False

        def observe(self, step, slots, gradients):
            assert len(gradients.parts) == 1

    looking, blind = (trainer_with(sampler=SandwichSampler(kind())) for kind in (WatchingPaths, Blind))
    looking.run(2)
    blind.run(2)
    for ours, theirs in zip(looking.supernet.parameters(), blind.supernet.parameters(), strict=True):
        close(ours, theirs)


def test_a_phase_with_fewer_random_networks_leaves_the_other_parts_zero():
    paths = WatchingPaths(importances=(2.0,))
    trainer = trainer_with(recipe=toy_recipe(**PLAIN, num_random=1), sampler=SandwichSampler(paths))
    trainer._gradients = FlatGradients(trainer.supernet, num_own=2)
    trainer.train_step(0)
    ((_, parts, _),) = paths.seen
    assert parts[1].any()
    assert not parts[2].any()


def test_importance_and_epsilon_are_factors_on_a_networks_loss_and_not_on_the_loss_that_is_told():
    class Unequal(UniformPaths):
        def draw(self, phase, context):
            return tuple(replace(slot, importance=7.0) for slot in super().draw(phase, context))

    def run(paths):
        trainer = trainer_with(recipe=toy_recipe("spos", **PLAIN), sampler=UniformSampler(paths))
        stats = trainer.train_step(0)
        return stats.slot_losses, gradients_of(trainer.supernet)

    (plain_losses, plain), (losses, weighted) = run(UniformPaths(0)), run(Unequal(0))
    assert losses == plain_losses
    close(weighted, 7.0 * plain)


def test_all_parts_losses_and_scores_go_in_one_reduction():
    collective = Doubling()
    paths, data = WatchingPaths(), GivenData()
    trainer = trainer_with(sampler=SandwichSampler(paths), data=data, collective=collective)
    alone_paths, alone_data = WatchingPaths(), GivenData()
    alone = trainer_with(sampler=SandwichSampler(alone_paths), data=alone_data)
    told, told_alone = trainer.train_step(0), alone.train_step(0)
    assert collective.num_reductions == 1
    close(paths.seen[0][1], 2 * alone_paths.seen[0][1])
    close(data.seen[0][1], 2 * alone_data.seen[0][1])
    assert told.slot_losses == tuple(2 * loss for loss in told_alone.slot_losses)


def test_the_buffer_starts_every_step_empty():
    layers = nn.Linear(3, 2)
    gradients = FlatGradients(layers, num_own=1, num_scores=4)
    for tensor in (gradients.parts, gradients.losses, gradients.scores):
        tensor.fill_(9.0)
    gradients.start()
    assert not any(tensor.any() for tensor in (gradients.parts, gradients.losses, gradients.scores))
    layers(torch.ones(1, 3)).sum().backward()
    assert gradients.parts[0].any()
    assert not gradients.parts[1].any()


# Images


def test_a_step_sees_the_images_that_are_drawn_in_their_order():
    positions = [3, 3, 0, 31, 7, 1, 2, 9]
    trainer = trainer_with(kind=RecordingSupernet, data=GivenData(positions))
    trainer.train_step(5)
    fresh = trainer_with()
    images, labels = images_of(fresh, 5, positions=np.array(positions))
    expected = fresh.supernet.train()(images, fresh.supernet.space.largest())
    assert torch.equal(trainer.supernet.calls[0][3], expected)
    assert torch.equal(images[0], images[1])
    assert labels.shape == (8,)


def test_the_weights_of_images_multiply_their_losses_in_every_network():
    weights = [0.0, 4.0, 1.0, 0.5, 2.0, 1.0, 0.0, 1.5]
    trainer = trainer_with(data=GivenData(weights=weights))
    images, labels = images_of(trainer)
    stats = trainer.train_step(0)
    alone = gradients_alone(trainer_with(), stats.slots, images, labels, torch.tensor(weights))
    close(gradients_of(trainer.supernet), sum(alone))
    # What is told is the plain mean: the curves of two samplers can be compared.
    assert stats.slot_losses == trainer_with().train_step(0).slot_losses


@pytest.mark.parametrize("weights", [None, [3.0, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_score_of_an_image_is_the_norm_of_its_losses_gradient_by_the_first_networks_logits(
    weights, label_smoothing
):
    data = GivenData(weights=weights)
    recipe = toy_recipe(**PLAIN, label_smoothing=label_smoothing)
    trainer = trainer_with(recipe=recipe, kind=RecordingSupernet, data=data)
    _, labels = images_of(trainer)
    trainer.train_step(0)
    logits = trainer.supernet.calls[0][3].detach()
    is_class = nn.functional.one_hot(labels, NUM_CLASSES).double()
    target = (1 - label_smoothing) * is_class + label_smoothing / NUM_CLASSES
    # In closed form, whatever the weights: importance must not feed on itself.
    ((step, scores),) = data.seen
    assert step == 0
    close(scores, (logits.softmax(1) - target).norm(dim=1))


def test_looking_at_scores_changes_nothing_else():
    class Blind(GivenData):
        wants_scores = False

    looking, blind = trainer_with(data=GivenData()), trainer_with(data=Blind())
    looking.run(2)
    blind.run(2)
    assert blind._gradients.scores.numel() == 0
    assert blind.stack.data.seen == []
    for ours, theirs in zip(looking.supernet.parameters(), blind.supernet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_by_default_a_step_draws_the_batches_own_order():
    trainer = trainer_with()
    assert trainer.stack.data.draw(3) == DataDraw(None, None)
    assert not trainer.stack.data.wants_scores


# Held-out images


def test_a_sampler_gets_held_out_images_of_its_rank_on_the_supernets_device():
    class Curious(UniformPaths):
        def draw(self, phase, context):
            self.held = context.held_out(2)
            self.given = (context.images, context.labels_n)
            return super().draw(phase, context)

    class SecondOfTwo(SingleProcess):
        rank, world_size = 1, 2

    paths = Curious(0)
    trainer = trainer_with(sampler=SandwichSampler(paths), collective=SecondOfTwo())
    trainer.train_step(4)
    batches = ToyBatches(dtype=torch.float64)
    for found, expected in ((paths.held, batches.held_out(2, 1, 2)), (paths.given, batches.batch(4, 1, 2))):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert len(paths.held[1]) == 4
