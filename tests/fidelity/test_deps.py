"""DεpS (ECCV 2024): the lettered laws of its training, each under its letter."""

from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.optim import SGD

from nas.costs import costs
from nas.families.mbconv import MBConvSpace, Stage
from nas.fields import InvalidFieldError
from nas.layers import Act
from nas.recipes import RECIPES, recipe_from_json
from nas.subspace import SubSpace
from search_spaces import SPACES
from supernet.data import (
    Augmentation,
    DataSource,
    ResizedSplits,
    SourceKind,
    TrainingBatches,
    load_source,
    make_splits,
)
from supernet.evaluate import SubnetEvaluator
from supernet.network import Supernet
from supernet.training import (
    TorchCollective,
    Trainer,
    build_stack,
    delayed_epsilon,
    load_checkpoint,
    save_checkpoint,
)
from supernet.training.distillation import SoftDistillation
from supernet.training.paths import Role
from supernet.training.regularisation import parameter_groups
from supernet.training.rng import Stream, torch_seeded
from tests.training.toy import (
    RecordingSupernet,
    ToyBatches,
    gradients_of,
    slots_of,
    toy_recipe,
    toy_supernet,
    toy_trainer,
    wake_gammas,
)

NUM_STEPS, FIRST, FULL = 24, 4, 12
"""Of the toy run: 6 epochs of 4 steps, the ramp from step 4 to step 12."""
PAPER_STEPS = {"per_epoch": 20, "first": 145 * 20, "full": 150 * 20}
"""Of 270 epochs."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def deps_recipe(**overrides):
    short = {"epochs": 6, "delay_fraction": FULL / NUM_STEPS, "ramp_fraction": (FULL - FIRST) / NUM_STEPS}
    return toy_recipe("deps", **{**short, **overrides})


def deps_trainer(*, kind=Supernet, dtype=torch.float32, collective=None, **overrides):
    return toy_trainer(kind=kind, recipe=deps_recipe(**overrides), dtype=dtype, collective=collective)


def paper_stack(**overrides):
    recipe = replace(RECIPES["deps"], **{"epochs": 270, **overrides})
    return build_stack(recipe, SPACES["micro_8"], steps_per_epoch=PAPER_STEPS["per_epoch"], seed=0)


def weights_of(supernet):
    return torch.cat([p.detach().flatten() for p in supernet.parameters()])


def plain_run(num_steps):
    """The largest network trained by hand: cross-entropy, Nesterov's momentum, a cosine."""
    recipe, supernet, batches = deps_recipe(), toy_supernet().train(), ToyBatches()
    groups = parameter_groups(supernet.parameters(), recipe.weight_decay)
    optimizer = SGD(groups, lr=1.0, momentum=recipe.momentum, nesterov=True)
    for step in range(num_steps):
        images, labels = batches.batch(step)
        with torch_seeded(0, Stream.DROPOUT, step, 0, images.device):
            logits = supernet(images, supernet.space.largest(), dropout=recipe.dropout)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        (losses.sum() / recipe.batch_size).backward()
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, NUM_STEPS)
        optimizer.step()
    return weights_of(supernet)


def cosine(step, num_steps):
    recipe = RECIPES["deps"]
    return recipe.base_learning_rate * max(recipe.floor_fraction, 0.5 * (1 + cos(pi * step / num_steps)))


# (a)


def test_a_before_the_ramp_no_network_but_the_largest_is_run():
    trainer = deps_trainer(kind=RecordingSupernet)
    trainer.run(FIRST)
    largest = trainer.supernet.space.largest()
    assert [call[0] for call in trainer.supernet.calls] == [largest] * FIRST
    trainer.run(1)
    assert len(trainer.supernet.calls) == FIRST + 4


def test_a_before_the_ramp_the_weights_are_those_of_a_plain_run_to_the_bit():
    trainer = deps_trainer()
    trainer.run(FIRST)
    assert torch.equal(weights_of(trainer.supernet), plain_run(FIRST))


def test_a_the_delay_does_not_shorten_the_run():
    trainer = deps_trainer()
    trainer.run()
    assert trainer.step == NUM_STEPS
    assert paper_stack().num_steps == 270 * PAPER_STEPS["per_epoch"]


# (b)


def epsilons(stack):
    return np.array([stack.shrink.phase(step).epsilon for step in range(stack.num_steps)])


def test_b_epsilon_is_its_closed_form():
    first, full, num_steps = PAPER_STEPS["first"], PAPER_STEPS["full"], 270 * PAPER_STEPS["per_epoch"]
    expected = np.zeros(num_steps)
    for step in range(first, full):
        share = (step - first + 1) / (full - first)
        expected[step] = share * cosine(full, num_steps) / cosine(step, num_steps)
    expected[full:] = 1
    np.testing.assert_allclose(epsilons(paper_stack()), expected, rtol=1e-12)


@pytest.mark.parametrize("policy", ["cosine", "exponential"])
def test_b_the_others_rate_rises_in_a_straight_line_to_that_of_the_largest(policy):
    stack = paper_stack(learning_rate_policy=policy, warmup_fraction=0.05)
    first, full = PAPER_STEPS["first"], PAPER_STEPS["full"]
    found = epsilons(stack)
    assert (found[:first] == 0).all()
    assert (found[full:] == 1).all()
    assert 0 < found[first] < 2 / (full - first)
    assert (np.diff(found[first : full + 1]) > 0).all()

    steps = np.arange(first, full)
    rates = found[first:full] * [stack.learning_rate.at(int(step)) for step in steps]
    line = np.polynomial.Polynomial.fit(steps, rates, 1)
    assert 1 - np.var(rates - line(steps)) / np.var(rates) > 0.999
    assert rates[-1] == pytest.approx(stack.learning_rate.at(full))


def test_b_without_a_ramp_epsilon_jumps():
    found = epsilons(paper_stack(ramp_fraction=0.0))
    assert found.tolist() == [0.0] * PAPER_STEPS["full"] + [1.0] * (len(found) - PAPER_STEPS["full"])


def test_b_the_recipe_has_the_papers_lengths():
    recipe = RECIPES["deps"]
    assert (270 * recipe.delay_fraction, 270 * recipe.ramp_fraction) == (150, 5)
    assert (recipe.num_random, recipe.temperature, recipe.distillation) == (2, 1.0, "soft")


# (c)


def test_c_with_epsilon_forced_to_0_the_run_is_a_plain_one_to_the_bit(monkeypatch):
    trainer = deps_trainer(kind=RecordingSupernet, channel_sort=False)
    monkeypatch.setattr(trainer.stack.gradient, "weight", lambda role, _: float(role is Role.MAX))
    trainer.run()
    # The others did run.
    assert len(trainer.supernet.calls) == FIRST + 4 * (NUM_STEPS - FIRST)
    assert torch.equal(weights_of(trainer.supernet), plain_run(NUM_STEPS))


def test_c_a_delay_that_never_ends_is_a_plain_run_to_the_bit():
    trainer = deps_trainer(delay_fraction=1.0, ramp_fraction=0.0)
    trainer.run()
    assert torch.equal(weights_of(trainer.supernet), plain_run(NUM_STEPS))


# (d)


def gradient_alone(supernet, slots, index):
    """The gradient of one network by its own loss, its teacher's logits given."""
    images, labels = ToyBatches(dtype=torch.float64).batch(0)
    supernet.zero_grad()
    batch_loss = SoftDistillation(label_smoothing=0.1).for_batch(images, labels)
    losses = [batch_loss(slot, supernet(images, slot.architecture)).mean() for slot in slots]
    losses[index].backward()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in supernet.parameters()]
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("step", [FIRST, 7, FULL - 1, FULL])
def test_d_the_gradient_is_that_of_the_largest_and_epsilon_times_the_sum_of_the_others(step):
    trainer = deps_trainer(dtype=torch.float64, dropout=0.0, channel_sort=False)
    batches = ToyBatches(dtype=torch.float64)
    trainer._batches = type("Constant", (), {"batch_size": 8, "steps_per_epoch": 4})()
    trainer._batches.batch = lambda *_, **__: batches.batch(0)
    wake_gammas(trainer.supernet).train()
    slots = slots_of(trainer.stack, step)
    largest, *others = [gradient_alone(trainer.supernet, slots, index) for index in range(4)]

    trainer.train_step(step)

    epsilon = trainer.stack.shrink.phase(step).epsilon
    assert (epsilon == 1.0) == (step == FULL)
    torch.testing.assert_close(
        gradients_of(trainer.supernet), largest + epsilon * sum(others), rtol=1e-6, atol=1e-10
    )
    assert all(gradient.any() for gradient in others)


# (e)


NARROW = MBConvSpace(
    name="narrow",
    resolutions=(8,),
    stem_widths=(8,),
    stem_stride=1,
    stages=tuple(
        Stage(
            name=name,
            widths=(width,),
            stride=stride,
            depths=(1, 2),
            kernels=(3,),
            expansions=(2, 4),
            has_squeeze_excite=False,
            act=Act.RELU,
        )
        for name, width, stride in [("stage1", 16, 2), ("stage2", 24, 1)]
    ),
    head_width=64,
)
DIP_EPOCHS, DIP_RAMP = 12, 2


def digits_trainer(splits, *, seed, has_ramp):
    """Begins to train the others after 4 of 12 epochs, over a ramp of 2 epochs or at once."""
    first = DIP_EPOCHS // 2 - DIP_RAMP
    recipe = replace(
        RECIPES["deps"],
        epochs=DIP_EPOCHS,
        delay_fraction=(first + has_ramp * DIP_RAMP) / DIP_EPOCHS,
        ramp_fraction=has_ramp * DIP_RAMP / DIP_EPOCHS,
    )
    augmentation = Augmentation(crop_padding=1, horizontal_flip=False)
    batches = TrainingBatches(splits, recipe.batch_size, seed, augmentation)
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(NARROW, num_classes=10, in_channels=1, generator=generator)
    stack = build_stack(recipe, NARROW, steps_per_epoch=batches.steps_per_epoch, seed=seed)
    return Trainer(supernet, batches, stack), first * batches.steps_per_epoch


def accuracy_of_largest(trainer, data):
    """In percent, on images that it does not learn from."""
    evaluator = SubnetEvaluator(trainer.supernet.eval(), data, checkpoint="")
    found = evaluator.evaluate(NARROW.largest())
    return 100 * found.num_correct / found.num_images


def accuracies_around_switch(data, *, seed, has_ramp):
    """Just before the others are first trained, and then every 4 steps for 6 times, within the ramp."""
    trainer, first = digits_trainer(data.splits, seed=seed, has_ramp=has_ramp)
    found = []
    for num_steps in [first, *[4] * 6]:
        trainer.run(num_steps)
        found.append(accuracy_of_largest(trainer, data))
    return found


def test_e_the_largest_network_dips_at_the_switch_less_with_epsilon_than_without():
    digits = load_source(DataSource(kind=SourceKind.BUNDLED, name="digits"))
    data = ResizedSplits(make_splits(digits))
    seeds = range(4)
    ramped, abrupt = (
        np.array([accuracies_around_switch(data, seed=seed, has_ramp=ramp) for seed in seeds])
        for ramp in (True, False)
    )
    assert (ramped[:, 0] == abrupt[:, 0]).all()
    dips = [curves[:, 0].mean() - curves[:, 1:].mean(axis=0).min() for curves in (ramped, abrupt)]
    assert dips[0] < 1.0 < dips[1]
    # For every seed the worst moment is worse without epsilon.
    assert (abrupt[:, 1:].min(axis=1) < ramped[:, 1:].min(axis=1)).all()


# (f)


def test_f_a_step_costs_2_to_3_times_as_much_once_all_are_trained():
    """The paper says T and 3 T, of time. Multiply-adds of the forwards are fewer: small networks are slow."""
    space = SPACES["ofa_mobilenetv3_32"]
    kernels = {d.name: (7,) for d in space.decisions if d.name.endswith("kernel")}
    stack = build_stack(replace(RECIPES["deps"], epochs=270), space, steps_per_epoch=20, seed=0)
    shrink = stack.shrink
    # The paper's space has one kernel.
    shrink._space = SubSpace(space, kernels)

    def macs(step):
        return sum(costs(space, slot.architecture)["macs"] for slot in slots_of(stack, step))

    before, after = (
        np.mean([macs(step) for step in range(start, start + 40)])
        for start in (PAPER_STEPS["first"] - 40, PAPER_STEPS["full"])
    )
    assert before == costs(space, space.largest())["macs"]
    assert 2.0 < after / before < 3.0


# Beside the letters: what would give a toy version away


def test_in_the_ramp_every_step_trains_all_networks_of_the_whole_space():
    trainer = deps_trainer(kind=RecordingSupernet)
    space = trainer.supernet.space
    drawn = set()
    trainer.run(FIRST)
    for step in range(FIRST, FULL):
        slots = trainer.train_step(step).slots
        assert [slot.role for slot in slots] == [Role.MAX, Role.RANDOM, Role.RANDOM, Role.MIN]
        assert slots[-1].architecture == space.smallest()
        drawn |= {choice for slot in slots for choice in slot.architecture.choices}
    assert drawn >= {(d.name, option) for d in space.decisions for option in d.options if not d.active_if}


def test_from_the_first_step_of_the_ramp_the_others_learn_from_the_largest_and_have_no_dropout():
    trainer = deps_trainer(kind=RecordingSupernet)
    trainer.run(FIRST)
    trainer.supernet.calls.clear()
    stats = trainer.train_step(FIRST)
    (_, dropout, _, teacher), *others = trainer.supernet.calls
    assert dropout == 0.1
    for (_, dropout, _, logits), loss in zip(others, stats.slot_losses[1:], strict=True):
        assert dropout == 0.0
        assert loss == pytest.approx(F.cross_entropy(logits, teacher.softmax(1)).item(), rel=1e-5)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_channels_are_sorted_once_just_before_the_ramp_and_only_when_asked_for(monkeypatch, is_sorted):
    trainer = deps_trainer(channel_sort=is_sorted)
    sorted_at = []
    monkeypatch.setattr(delayed_epsilon, "sort_channels", lambda *_: sorted_at.append(trainer.step))
    trainer.run()
    assert sorted_at == [FIRST] * is_sorted


def test_the_sort_leaves_the_largest_network_as_it_was():
    trainer = deps_trainer()
    wake_gammas(trainer.supernet)
    trainer.run(FIRST)
    space, images = trainer.supernet.space, ToyBatches().batch(99)[0]

    def logits():
        with torch.no_grad():
            return [trainer.supernet(images, network) for network in (space.largest(), space.smallest())]

    before = logits()
    trainer.stack.shrink.before_step(FIRST, trainer.supernet, trainer._optimizer)
    changes = [(now - then).abs().max() for now, then in zip(logits(), before, strict=True)]
    assert changes[0] < 1e-5 < changes[1]


@pytest.mark.parametrize("stopped_at", [FIRST - 1, FIRST, FIRST + 1, FULL])
def test_a_run_resumed_at_any_moment_ends_with_the_same_bits(tmp_path, stopped_at):
    undisturbed, first, resumed = deps_trainer(), deps_trainer(), deps_trainer()
    undisturbed.run()
    first.run(stopped_at)
    path = save_checkpoint(first.state(), tmp_path)
    resumed.run(1)
    assert resumed.restore(load_checkpoint(path)) == ()
    resumed.run()
    expected, found = undisturbed.state(), resumed.state()
    for kind in ("weights", "optimizer"):
        tensors = getattr(found, kind)
        assert all(torch.equal(tensors[name], value) for name, value in getattr(expected, kind).items())
    assert found.strategies == expected.strategies


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    trainer = deps_trainer(collective=TorchCollective())
    trainer.run(FIRST + 2)
    torch.save(weights_of(trainer.supernet), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_stay_alike_through_the_sort(tmp_path):
    mp.spawn(run_rank, args=(tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(*ranks)


def test_a_watcher_sees_the_part_of_the_run_and_its_epsilon():
    trainer = deps_trainer()
    seen = {}
    trainer.run(on_step=lambda stats: seen.update({stats.step: trainer.stack.shrink.describe()}))
    assert seen[FIRST - 1] == {"part": "largest_alone", "epsilon": 0.0}
    assert seen[FIRST]["part"] == "ramp"
    assert 0 < seen[FIRST]["epsilon"] < seen[FULL - 1]["epsilon"] < 1
    assert seen[FULL] == seen[NUM_STEPS - 1] == {"part": "all", "epsilon": 1.0}


@pytest.mark.parametrize(
    ("overrides", "field", "reason"),
    [
        ({"optimizer": "rmsprop"}, "schedule", "'rmsprop' divides it out again; choose optimizer 'sgd'"),
        ({"ramp_fraction": 0.6}, "ramp_fraction", "longer than the delay that it ends; choose"),
        ({"sampler": "uniform"}, "schedule", "'uniform' does not run it; choose sampler 'sandwich'"),
    ],
)
def test_what_does_not_go_with_epsilon_is_refused_with_the_reason(overrides, field, reason):
    with pytest.raises(InvalidFieldError, match=reason) as refusal:
        recipe_from_json({"name": "deps", **overrides})
    assert refusal.value.field == field
