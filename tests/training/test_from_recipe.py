"""From a recipe to its strategies: every field arrives, for one that gets lost on the way makes no noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.recipe import RECIPE_FIELDS
from nas.recipe_choices import RandomPathKind
from nas.recipe_notes import NEEDS
from nas.recipes import RECIPES, recipe_from_json
from search_spaces import SPACES
from supernet.training import build_stack
from supernet.training.paths import Role, Slot
from supernet.training.rng import Stream
from tests.domain.test_recipe_notes import another
from tests.training.toy import slot_in, toy_recipe, toy_supernet, toy_trainer

SPACE = SPACES["micro_8"]
EPOCHS, STEPS = 4, 10
"""Of every run here, and of an epoch."""
ELSEWHERE = {"name", "held_out_fraction", "kernel_transform", "crop_fraction", "horizontal_flip"}
"""Fields that no strategy has: images are cut and supernets are built by them."""
LOGITS = 3 * torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(6) % 4


def stack_of(**request):
    return build_stack(
        recipe_from_json({"epochs": EPOCHS, **request}), SPACE, steps_per_epoch=STEPS, seed=0, num_images=640
    )


def paths(stack):
    return stack.sampler.paths


def kind(strategy):
    return type(strategy).__name__


def first_step(stack, is_reached):
    return next(step for step in range(stack.num_steps + 1) if is_reached(stack.shrink.phase(step)))


def clipped(clip):
    gradients = torch.tensor([3.0, -4.0])
    clip(gradients)
    return gradients.tolist()


def rate(stack, step):
    return stack.learning_rate.at(step)


def losses(stack):
    """(the largest network's, a student's) of one batch, summed."""
    batch_loss = stack.distillation.for_batch(torch.empty(0), LABELS)
    teacher, student = LOGITS
    return [
        batch_loss(slot_in(role), logits).sum().item()
        for role, logits in ((Role.MAX, teacher), (Role.RANDOM, student))
    ]


def hard(logits, smoothing):
    return F.cross_entropy(logits, LABELS, reduction="sum", label_smoothing=smoothing).item()


def soft(temperature):
    target = (LOGITS[0] / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(LOGITS[1] / temperature, target, reduction="sum").item()


def optimizer(stack):
    """That of a trainer, which is made from the recipe of the stack."""
    return toy_trainer(recipe=stack.recipe)._optimizer


def near(value):
    return pytest.approx(value, abs=1e-6)


DEPS = {"name": "deps", "delay_fraction": 0.5, "ramp_fraction": 0.25}
PANDA = {"name": "panda", "importance_weighting": "clipped"}
COSINE = {"learning_rate_policy": "cosine", "warmup_fraction": 0.0}

ARRIVALS = [
    ("epochs", {"epochs": 7}, lambda s: s.num_steps, 70),
    ("epochs", {**PANDA, "epochs": 7}, lambda s: (paths(s)._num_epochs, s.data._num_epochs), (7, 7)),
    ("batch_size", {"name": "panda", "batch_size": 24}, lambda s: len(s.data.draw(0).positions_n), 24),
    ("schedule", {"schedule": "delayed_epsilon"}, lambda s: kind(s.shrink), "DelayedEpsilonSchedule"),
    ("delay_fraction", DEPS, lambda s: first_step(s, lambda p: p.epsilon == 1), 20),
    ("ramp_fraction", DEPS, lambda s: first_step(s, lambda p: p.epsilon > 0), 10),
    ("channel_sort", {**DEPS, "channel_sort": False}, lambda s: s.shrink._sorts_channels, False),
    ("channel_sort", {"name": "ofa", "channel_sort": False}, lambda s: s.shrink._sorts_channels, False),
    (
        "restart_momentum",
        {"name": "ofa", "restart_momentum": True},
        lambda s: s.shrink._restarts_momentum,
        True,
    ),
    (
        "freeze_transforms",
        {"name": "ofa", "freeze_transforms": True},
        lambda s: s.shrink._freezes_transforms,
        True,
    ),
    (
        "sampler",
        {"sampler": "uniform", "distillation": "none", "dropout": 0.0},
        lambda s: kind(s.sampler),
        "UniformSampler",
    ),
    ("num_random", {"num_random": 5}, lambda s: s.shrink.phase(0).num_random, 5),
    ("num_random", {**DEPS, "num_random": 5}, lambda s: s.shrink.phase(0).num_random, 5),
    ("num_random", {"name": "ofa", "num_random": 7}, lambda s: s.shrink.phase(39).num_random, 7),
    ("random_paths", {"random_paths": "attentive"}, lambda s: kind(paths(s)), "AttentivePaths"),
    ("data_sampler", {"data_sampler": "importance"}, lambda s: kind(s.data), "ImportanceData"),
    ("importance_limit", {**PANDA, "importance_limit": 0.2}, lambda s: paths(s)._limit, 0.2),
    (
        "importance_limit",
        {**PANDA, "importance_limit": 0.2},
        lambda s: (s.data.end_epoch(3), s.data.describe()["learned_part"])[1],
        0.2,
    ),
    (
        "carry_scores",
        {**PANDA, "carry_scores": True},
        lambda s: s.data.state_dict()["scores"].min() > 0,
        True,
    ),
    (
        "importance_weighting",
        PANDA,
        lambda s: (paths(s)._weights.kind, s.data._weights.kind),
        ("clipped",) * 2,
    ),
    (
        "weight_limit",
        {**PANDA, "weight_limit": 3.0},
        lambda s: [weights.of(np.array([9.0])).item() for weights in (paths(s)._weights, s.data._weights)],
        [3.0, 3.0],
    ),
    (
        "normalise_path_norms",
        {**PANDA, "normalise_path_norms": True},
        lambda s: paths(s)._norms._normalise,
        True,
    ),
    (
        "observe_clipped",
        {**PANDA, "observe_clipped": True, "clip": "value", "clip_threshold": 0.5},
        lambda s: clipped(paths(s)._clip),
        [0.5, -0.5],
    ),
    ("attention", {"name": "attentive", "attention": "worst_up"}, lambda s: paths(s)._attention, "worst_up"),
    ("num_candidates", {"name": "attentive", "num_candidates": 5}, lambda s: paths(s)._num_candidates, 5),
    ("num_bins", {"name": "attentive", "num_bins": 5}, lambda s: paths(s)._num_bins, 5),
    ("num_bins", {"name": "shiftnas", "num_bins": 5}, lambda s: len(paths(s).bins.module.places), 5),
    (
        "bin_warmup_fraction",
        {"name": "shiftnas", "bin_warmup_fraction": 0.5},
        lambda s: paths(s)._warmup_steps,
        20,
    ),
    (
        "distillation",
        {"distillation": "soft_hard"},
        losses,
        [hard(LOGITS[0], 0.1), soft(1) + hard(LOGITS[1], 0.1)],
    ),
    ("distillation", {"distillation": "none"}, losses, [hard(LOGITS[0], 0.1), hard(LOGITS[1], 0.1)]),
    ("teacher", {**DEPS, "teacher": "frozen"}, lambda s: kind(s.distillation), "FrozenTeacher"),
    ("temperature", {"temperature": 4.0}, losses, [hard(LOGITS[0], 0.1), soft(4.0)]),
    (
        "temperature",
        {"name": "ofa", "temperature": 4.0},
        lambda s: s.distillation._student_loss.temperature,
        4.0,
    ),
    ("ratio_limit", {"name": "alphanet", "ratio_limit": 2.0}, lambda s: s.distillation._ratio_limit, 2.0),
    ("label_smoothing", {"label_smoothing": 0.3}, lambda s: losses(s)[0], hard(LOGITS[0], 0.3)),
    (
        "label_smoothing",
        {"name": "spos", "label_smoothing": 0.3},
        lambda s: losses(s)[1],
        hard(LOGITS[1], 0.3),
    ),
    (
        "label_smoothing",
        {"name": "alphanet", "label_smoothing": 0.3},
        lambda s: losses(s)[0],
        hard(LOGITS[0], 0.3),
    ),
    # Before it has a teacher the loss is that of the labels.
    (
        "label_smoothing",
        {"name": "ofa", "label_smoothing": 0.3},
        lambda s: losses(s)[1],
        hard(LOGITS[1], 0.3),
    ),
    (
        "label_smoothing",
        {"name": "attentive", "label_smoothing": 0.3},
        lambda s: paths(s)._label_smoothing,
        0.3,
    ),
    ("optimizer", {"optimizer": "rmsprop"}, lambda s: kind(optimizer(s)), "RMSprop"),
    ("momentum", {"momentum": 0.5}, lambda s: optimizer(s).param_groups[0]["momentum"], 0.5),
    (
        "momentum",
        {"optimizer": "rmsprop", "momentum": 0.5},
        lambda s: optimizer(s).param_groups[0]["momentum"],
        0.5,
    ),
    ("weight_decay", {"weight_decay": 0.5}, lambda s: optimizer(s).param_groups[0]["weight_decay"], 0.5),
    ("base_learning_rate", {"base_learning_rate": 0.7}, lambda s: rate(s, 2), 0.7),
    ("base_learning_rate", {"name": "ofa", "base_learning_rate": 0.7}, lambda s: rate(s, 0), 0.7),
    ("warmup_fraction", {"warmup_fraction": 0.5}, lambda s: rate(s, 9), 0.2 * 10 / 21),
    ("learning_rate_policy", COSINE, lambda s: rate(s, 20), 0.1),
    (
        "decay_fraction",
        {"decay_fraction": 0.5, "warmup_fraction": 0.0},
        lambda s: [rate(s, 19) > 0.01 + 1e-9, rate(s, 20) == near(0.01)],
        [True, True],
    ),
    ("floor_fraction", {"floor_fraction": 0.5}, lambda s: rate(s, 39), 0.1),
    ("floor_fraction", {**COSINE, "floor_fraction": 0.5}, lambda s: rate(s, 39), 0.1),
    ("floor_fraction", {"name": "ofa", "floor_fraction": 1.0}, lambda s: rate(s, 5), 0.2),
    ("dropout", {"dropout": 0.4}, lambda s: [s.regularisation.dropout(role) for role in Role], [0.4, 0, 0]),
    ("dropout", {"name": "ofa", "dropout": 0.4}, lambda s: s.regularisation.dropout(Role.RANDOM), 0.4),
    ("regularised", {"regularised": "all"}, lambda s: s.regularisation.dropout(Role.MIN), 0.2),
    ("batch_norm", {"batch_norm": "synchronised"}, lambda s: kind(s.batch_norm), "SynchronisedBatchNorm"),
    ("precision", {"precision": "bfloat16"}, lambda s: kind(s.precision), "Bfloat16Autocast"),
    ("clip", {"clip": "norm"}, lambda s: clipped(s.gradient.clip), [0.6, -0.8]),
    ("clip_threshold", {"clip_threshold": 2.0}, lambda s: clipped(s.gradient.clip), [2.0, -2.0]),
]
"""(field, a request that sets it, what is read off the stack, what is there)."""


@pytest.mark.parametrize(
    ("field", "request_json", "read", "expected"),
    [pytest.param(*row, id=f"{row[0]}-{row[1].get('name', 'bignas')}-{n}") for n, row in enumerate(ARRIVALS)],
)
def test_what_a_request_sets_arrives_at_the_strategy_that_has_it(field, request_json, read, expected):
    assert field in request_json
    default = RECIPES[request_json.get("name", "bignas")]
    assert request_json[field] != getattr(default, field)
    found = read(stack_of(**request_json))
    if isinstance(expected, str | bool | tuple):
        assert found == expected
    else:
        assert found == near(expected)


SHIFT_FIELDS = {"bin_interval", "bin_gradient", "bin_learning_rate", "cost_weight", "generator_batch"}
SHIFT_FIELDS |= {"gumbel_temperature"}
"""What shift sampling does with each of them is asked below, and of `bin_interval` and `bin_gradient` by the
laws under (a) and (c) in tests/fidelity/test_shiftnas.py."""


def test_no_field_of_a_recipe_is_left_out_here():
    assert {field for field, *_ in ARRIVALS} | SHIFT_FIELDS | ELSEWHERE == {f.name for f in RECIPE_FIELDS}


# Shift sampling, which reads its recipe itself


def shift_paths(**overrides):
    """Paths that know what networks cost, and whose generator listens to the cost."""
    trainer = toy_trainer(recipe=toy_recipe("shiftnas", bin_warmup_fraction=0.0, **overrides))
    found = trainer.stack.sampler.paths
    found.before_step(0, trainer.supernet, None)
    with torch.no_grad():
        for parameter in found.generator.module.parameters():
            parameter.mul_(10)
    return trainer, found


def test_the_bins_learn_at_the_rate_of_the_recipe():
    trainer, found = shift_paths(bin_learning_rate=0.03, bin_gradient="score")
    found._previous = {name: weight + 0.1 for name, weight in trainer.supernet.named_parameters()}
    found._update_bins(trainer._context(0, trainer.stack.data.draw(0)))
    # Adam's first step is as long as its rate.
    assert found.bins.module.logits.abs().max().item() == pytest.approx(0.03, rel=1e-3)


def cost_gradient(**overrides):
    _, found = shift_paths(generator_batch=4, **overrides)
    found.generator.step = lambda rate: None
    found.observe(0, (), None)
    return torch.cat([p.grad.flatten() for p in found.generator.module.parameters()])


def test_the_loss_of_the_cost_is_weighed_by_the_recipe():
    once, thrice = (cost_gradient(cost_weight=weight) for weight in (1.0, 3.0))
    torch.testing.assert_close(thrice, 3 * once)


def test_the_generator_learns_from_as_many_costs_as_the_recipe_says():
    _, found = shift_paths(generator_batch=5)
    assert len(found._write(0, 1).places_n) == len(found._write(0, 0).places_n) == 5


def test_the_generators_choices_have_the_gradient_of_the_recipes_temperature():
    cold, warm = (cost_gradient(cost_weight=1.0, gumbel_temperature=t) for t in (1.0, 10.0))
    assert warm.abs().sum() < 0.5 * cold.abs().sum()


def test_the_bins_are_chosen_with_the_gradient_of_the_recipes_temperature():
    """The generator is left at one temperature: the bins' own part is that of their softmax."""
    found = {}
    for temperature in (1.0, 10.0):
        trainer, shift = shift_paths(gumbel_temperature=temperature)
        shift._loss_change = lambda context, noise: lambda place: place
        gradient = shift._bin_gradient(trainer._context(0, trainer.stack.data.draw(0)))
        noise = shift._gumbel(Stream.BIN_UPDATE, 0, 0, (len(gradient),))
        soft_choice = (noise / temperature).softmax(0)
        places = shift.bins.module.places
        expected = soft_choice * (places - soft_choice @ places) / temperature
        torch.testing.assert_close(gradient, expected)
        found[temperature] = gradient
    assert not torch.allclose(found[1.0], found[10.0])


# Once-for-All


def test_a_student_of_the_ofa_recipe_learns_from_its_frozen_teacher_and_from_the_labels():
    recipe = RECIPES["ofa"]
    stack = stack_of(name="ofa")
    supernet = toy_supernet(kernel_transform=recipe.kernel_transform)
    first = first_step(stack, lambda phase: not phase.trains_largest_alone)
    stack.distillation.before_step(first, supernet, None)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    student, given, others = LOGITS[1].float(), LABELS, (LABELS + 1) % 4
    slot = Slot(Role.RANDOM, SPACE.smallest())
    with torch.no_grad():
        teacher = supernet.train()(images, SPACE.largest())
    soft_n = F.cross_entropy(student, teacher.softmax(1), reduction="none")
    told = []
    for labels in (given, others):
        losses_n = stack.distillation.for_batch(images, labels)(slot, student)
        hard_n = F.cross_entropy(student, labels, reduction="none", label_smoothing=recipe.label_smoothing)
        torch.testing.assert_close(losses_n, soft_n + hard_n)
        told.append(losses_n)
    assert not torch.allclose(*told)


# Fields without effect


def weights_after(recipe, num_steps=3):
    trainer = toy_trainer(recipe=recipe)
    trainer.run(num_steps)
    return torch.cat([p.detach().flatten() for p in trainer.supernet.parameters()])


IDLE = [
    (name, field)
    for name in ("bignas", "spos", "deps")
    for field, (_, is_met) in NEEDS.items()
    if not is_met(RECIPES[name])
]


@pytest.mark.parametrize(("name", "field"), IDLE)
def test_a_field_that_is_said_to_have_no_effect_changes_no_bit(name, field):
    recipe = toy_recipe(name, batch_size=4)
    changed = replace(recipe, **{field: another(field, getattr(recipe, field))})
    assert torch.equal(weights_after(changed), weights_after(recipe))


# Random networks, none of them


@pytest.mark.parametrize("random_paths", RandomPathKind)
@pytest.mark.parametrize("schedule", ["static", "delayed_epsilon"])
def test_a_sandwich_of_the_ends_alone_is_trained_whatever_draws_between_them(random_paths, schedule):
    fields = {"num_random": 0, "schedule": schedule, "random_paths": random_paths, "held_out_fraction": 0.1}
    trainer = toy_trainer(recipe=toy_recipe(**fields, delay_fraction=0.5, ramp_fraction=0.25))
    roles = []
    trainer.run(on_step=lambda stats: roles.append([slot.role for slot in stats.slots]))
    assert roles[-1] == [Role.MAX, Role.MIN]
