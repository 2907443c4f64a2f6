"""BigNAS (Yu et al., ECCV 2020): the lettered laws of its training, each under its letter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.layers import LayerKind
from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.elastic.batch_norm import normalise_by_batch
from supernet.elastic.stateless import activate, run_stateless
from supernet.extract import extract
from supernet.graph import run_layers
from supernet.network import WEIGHTED, Supernet, slot_key
from supernet.training import build_stack
from supernet.training.distillation import SoftDistillation
from supernet.training.paths import Role
from tests.small_spaces import SMALL_SPACES
from tests.training.toy import (
    RecordingSupernet,
    ToyBatches,
    gradients_of,
    slot_in,
    slots_of,
    toy_recipe,
    toy_supernet,
    toy_trainer,
    wake_gammas,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def count_optimizer_steps(trainer):
    counter = []
    trainer._optimizer.register_step_post_hook(lambda *_: counter.append(1))
    return counter


# (a)


@pytest.mark.parametrize("num_random", [0, 1, 2, 4])
def test_a_each_step_runs_max_min_and_n_random_with_one_optimizer_step(num_random):
    trainer = toy_trainer(kind=RecordingSupernet, recipe=toy_recipe(num_random=num_random))
    updates = count_optimizer_steps(trainer)
    space = trainer.supernet.space
    for step in range(3):
        trainer.supernet.calls.clear()
        stats = trainer.train_step(step)
        ran = [call[0] for call in trainer.supernet.calls]
        assert ran == [slot.architecture for slot in stats.slots]
        assert ran[0] == space.largest()
        assert ran[-1] == space.smallest()
        roles = [slot.role for slot in stats.slots]
        assert roles == [Role.MAX, *[Role.RANDOM] * num_random, Role.MIN]
        assert len(updates) == step + 1


def test_a_random_networks_differ_within_a_step_between_steps_and_between_seeds():
    stacks = [build_stack(toy_recipe(), SPACES["micro"], steps_per_epoch=10, seed=seed) for seed in (0, 1)]
    drawn = [
        slot.architecture
        for stack in stacks
        for step in range(20)
        for slot in slots_of(stack, step)
        if slot.role is Role.RANDOM
    ]
    assert len(set(drawn)) == len(drawn) == 80


def test_a_the_bignas_recipe_has_two_random_networks():
    assert RECIPES["bignas"].num_random == 2


# (b)


def students_loss(images, labels, supernet, architecture):
    """A student's loss together with the logits that taught it."""
    batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(images, labels)
    teacher = supernet(images, supernet.space.largest())
    teacher.retain_grad()
    batch_loss(slot_in(Role.MAX), teacher)
    return batch_loss(slot_in(Role.RANDOM), supernet(images, architecture)), teacher


def test_b_no_gradient_of_a_student_reaches_the_logits_of_its_teacher():
    supernet = wake_gammas(toy_supernet()).train()
    images, labels = ToyBatches().batch(0)
    loss, teacher = students_loss(images, labels, supernet, supernet.space.smallest())
    loss.sum().backward()
    assert teacher.grad is None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in supernet.parameters())


def test_b_a_students_loss_does_not_depend_on_the_labels():
    supernet = wake_gammas(toy_supernet()).train()
    images, labels = ToyBatches().batch(0)
    permuted = (labels + 1) % 4
    given, _ = students_loss(images, labels, supernet, supernet.space.smallest())
    shuffled, _ = students_loss(images, permuted, supernet, supernet.space.smallest())
    assert torch.equal(given, shuffled)


def test_b_a_students_loss_is_the_soft_cross_entropy_at_temperature_1():
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 6, 4, generator=generator)
    batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(torch.empty(0), torch.zeros(6).long())
    batch_loss(slot_in(Role.MAX), teacher)
    expected = -(teacher.softmax(1) * student.log_softmax(1)).sum(1)
    torch.testing.assert_close(batch_loss(slot_in(Role.MIN), student), expected)


def test_b_the_teacher_learns_from_smoothed_labels():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(torch.empty(0), labels)
    target = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    torch.testing.assert_close(
        batch_loss(slot_in(Role.MAX), logits), -(target * logits.log_softmax(1)).sum(1)
    )


# (c)


def recorded_layers(supernet, architecture, images):
    """(layer, its inputs, its output) of every layer of one forward."""
    seen = []

    def run_layer(layer, inputs):
        if layer.kind in WEIGHTED:
            x = inputs[0].flatten(1) if layer.kind is LayerKind.LINEAR else inputs[0]
            output = supernet.slot(layer)(x, layer, normalise_by_batch)
        else:
            output = activate(run_stateless(layer, inputs), layer.act)
        seen.append((layer, inputs, output))
        return output

    layers = supernet.lower(architecture)
    run_layers(layers, images, run_layer)
    return seen


def slots_before_an_addition(supernet):
    """Slots whose output is added to a shortcut in every network that has them.

    Not where a rectifier stands between, as in the stem of ResNet-50D: behind a gamma of 0 it is dead.
    """
    always, never = set(), set()
    rng = np.random.default_rng(0)
    space = supernet.space
    for architecture in [*space.covering(), *(space.sample(rng) for _ in range(100))]:
        layers = supernet.lower(architecture)
        last = [layers[add.inputs[-1]] for add in layers if add.kind is LayerKind.ADD]
        added = {layer.name for layer in last if layer.act is None}
        always |= added
        never |= {layer.name for layer in layers if layer.bn} - added
    return always - never


@pytest.mark.parametrize("space", ["micro_8", "ofa_mobilenetv3_32", "attentive_nas", "ofa_resnet50"])
def test_c_at_the_start_every_shortcut_block_is_its_shortcut_and_no_other_gamma_is_0(space):
    supernet = Supernet(SMALL_SPACES[space], num_classes=4, generator=torch.Generator().manual_seed(0))
    expected = {slot_key(name) for name in slots_before_an_addition(supernet)}
    zero = {key for key, slot in supernet.slots.items() if slot.bn is not None and not slot.bn.weight.any()}
    partly = {key for key, slot in supernet.slots.items() if slot.bn is not None and not slot.bn.weight.all()}
    assert zero == partly == expected != set()

    size = supernet.space.resolutions_px()[-1]
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    for architecture in (supernet.space.largest(), supernet.space.sample(rng)):
        layers = supernet.lower(architecture)
        for layer, inputs, output in recorded_layers(supernet, architecture, images):
            if layer.kind is LayerKind.ADD and slot_key(layers[layer.inputs[-1]].name) in expected:
                assert torch.equal(output, activate(inputs[0], layer.act))


# (d)


def individual_gradients(supernet, images, labels, slots):
    """The gradient of each network alone, its teacher's logits given."""
    gradients = []
    for index in range(len(slots)):
        supernet.zero_grad()
        batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(images, labels)
        losses = [batch_loss(slot, supernet(images, slot.architecture)).mean() for slot in slots]
        losses[index].backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in supernet.parameters()]
        gradients.append(torch.cat([part.flatten() for part in parts]))
    return gradients


def test_d_the_gradient_of_a_step_is_the_sum_of_the_individual_gradients():
    recipe = toy_recipe(dropout=0.0, clip="none")
    trainer = toy_trainer(recipe=recipe, dtype=torch.float64)
    wake_gammas(trainer.supernet).train()
    images, labels = ToyBatches(dtype=torch.float64).batch(0)
    stack = trainer.stack
    slots = slots_of(stack, 0)
    alone = individual_gradients(trainer.supernet, images, labels, slots)

    trainer.train_step(0)

    together = gradients_of(trainer.supernet)
    torch.testing.assert_close(together, torch.stack(alone).sum(0), rtol=1e-10, atol=1e-12)
    assert all(gradient.abs().sum() > 0 for gradient in alone)


# (e)


def test_e_dropout_and_its_generator_are_for_the_largest_network_alone():
    trainer = toy_trainer(kind=RecordingSupernet, recipe=toy_recipe(dropout=0.3))
    stats = trainer.train_step(0)
    for slot, (_, dropout, moved, _) in zip(stats.slots, trainer.supernet.calls, strict=True):
        is_largest = slot.role is Role.MAX
        assert dropout == (0.3 if is_largest else 0.0)
        assert moved == is_largest


def test_e_training_leaves_torchs_global_generator_alone():
    trainer = toy_trainer(recipe=toy_recipe(dropout=0.3))
    before = torch.get_rng_state()
    trainer.run(2)
    assert torch.equal(before, torch.get_rng_state())


def test_e_the_dropout_mask_depends_on_the_step_and_on_nothing_before_it():
    def largest_logits(step, *, disturb):
        trainer = toy_trainer(kind=RecordingSupernet, recipe=toy_recipe(dropout=0.5))
        torch.rand(disturb)
        trainer._batches = ConstantBatches()
        trainer.train_step(step)
        return trainer.supernet.calls[0][3]

    class ConstantBatches(ToyBatches):
        def batch(self, step, rank=0, world_size=1, *, positions=None):
            del step
            return super().batch(0, rank, world_size, positions=positions)

    assert torch.equal(largest_logits(3, disturb=0), largest_logits(3, disturb=5))
    assert not torch.equal(largest_logits(3, disturb=0), largest_logits(4, disturb=0))


def test_e_weight_decay_adds_the_l2_of_each_weight_once_and_spares_biases_and_batch_norms():
    decay, rate = 0.01, 0.1
    plain = {"dropout": 0.0, "momentum": 0.0, "warmup_fraction": 0.0, "base_learning_rate": rate}
    without, with_decay = (
        toy_trainer(recipe=toy_recipe(**plain, weight_decay=value), dtype=torch.float64)
        for value in (0.0, decay)
    )
    initial = {name: p.detach().clone() for name, p in without.supernet.named_parameters()}
    without.train_step(0)
    with_decay.train_step(0)
    decayed = dict(with_decay.supernet.named_parameters())
    for name, parameter in without.supernet.named_parameters():
        pull = rate * decay * initial[name] if parameter.ndim > 1 else torch.zeros_like(parameter)
        torch.testing.assert_close(decayed[name], parameter - pull, rtol=0, atol=1e-12)


# (f)


def test_f_the_rate_is_constant_after_first_reaching_5_percent_of_the_initial():
    stack = build_stack(toy_recipe(epochs=50), SPACES["micro_8"], steps_per_epoch=20, seed=0)
    rates = np.array([stack.learning_rate.at(step) for step in range(stack.num_steps + 100)])
    initial = stack.recipe.base_learning_rate
    peak = int(rates.argmax())
    assert rates[peak] == initial
    first = int(np.flatnonzero(rates[peak:] <= 0.05 * initial)[0]) + peak
    assert peak < first < stack.num_steps
    assert (rates[first:] == 0.05 * initial).all()
    decaying = rates[peak + 1 : first] / rates[peak : first - 1]
    np.testing.assert_allclose(decaying, decaying[0])
    assert decaying[0] < 1


# (g)


def test_g_a_network_has_the_same_accuracy_sliced_and_exported():
    trainer = toy_trainer(recipe=toy_recipe(epochs=4, batch_size=16))
    trainer.run()
    supernet, batches = trainer.supernet, ToyBatches(batch_size=64)
    calibration = [batches.batch(100 + i)[0] for i in range(2)]
    images, labels = batches.batch(200)
    rng = np.random.default_rng(0)
    for architecture in (supernet.space.largest(), supernet.space.smallest(), supernet.space.sample(rng)):
        statistics = recalibrate(supernet, architecture, calibration)
        with torch.no_grad():
            sliced = supernet.eval()(images, architecture, statistics)
            exported = extract(supernet, architecture, statistics)(images)
        assert (sliced - exported).abs().max() < 1e-5
        assert (sliced.argmax(1) == labels).sum() == (exported.argmax(1) == labels).sum()


# Beside the letters: what would give a toy version away


def test_a_weight_outside_every_networks_slice_gets_a_gradient_of_exactly_0():
    recipe = toy_recipe("spos", clip="none")
    trainer = toy_trainer(kind=RecordingSupernet, recipe=recipe)
    wake_gammas(trainer.supernet)
    trainer.train_step(0)
    ((architecture, *_),) = trainer.supernet.calls
    used = {slot_key(layer.name): layer for layer in trainer.supernet.lower(architecture)}
    num_unused = 0
    for key, slot in trainer.supernet.slots.items():
        layer = used.get(key)
        for name, parameter in slot.named_parameters():
            inside = torch.zeros_like(parameter, dtype=torch.bool)
            if layer is not None:
                inside[slice_of(layer, name, parameter)] = True
            assert not parameter.grad[~inside].any()
            num_unused += int((~inside).sum())
    assert num_unused > 0


def slice_of(layer, name, parameter):
    if parameter.ndim == 1:
        return (slice(layer.out_channels),)
    channels = (slice(layer.out_channels), slice(layer.in_channels // layer.groups))
    if parameter.ndim == 2:
        return channels
    margin = (parameter.shape[-1] - layer.kernel) // 2
    centre = slice(margin, margin + layer.kernel)
    return (*channels, centre, centre)


def test_resolution_is_elastic_during_training():
    supernet = Supernet(SPACES["micro"], num_classes=4)
    stack = build_stack(toy_recipe(), supernet.space, steps_per_epoch=10, seed=0)
    sizes = {
        supernet.lower(slot.architecture)[0].in_height for step in range(10) for slot in slots_of(stack, step)
    }
    assert sizes == {24, 28, 32}
