"""Once-for-All (Cai et al., ICLR 2020): the lettered laws of its training, each under its letter."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from math import cos, pi

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from nas.errors import InvalidRequestError
from nas.progressive_phases import PUBLISHED_PHASES, phases_of_run
from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.batchnorm import recalibrate
from supernet.elastic.batch_norm import normalise_by_batch
from supernet.elastic.conv import ElasticConv
from supernet.network import Supernet, slot_key
from supernet.training import TorchCollective, Trainer, build_stack, load_checkpoint, save_checkpoint
from supernet.training.distillation import SoftDistillation, StudentLoss
from supernet.training.frozen_teacher import FrozenTeacher
from supernet.training.paths import Role, Slot
from supernet.training.progressive import exposed_channels
from tests.training.toy import (
    NUM_CLASSES,
    RecordingSupernet,
    ToyBatches,
    slot_in,
    slots_of,
    step_context,
    toy_recipe,
    toy_supernet,
    wake_gammas,
)

EPOCHS = 7
"""Of four steps on the toy: the fewest in which every phase has a step."""
SMALL = replace(
    SPACES["micro_8"], name="small", stages=SPACES["micro_8"].stages[1:3], stem_stride=2, head_width=64
)
"""Every kind of decision, and a squeeze-excite; whole runs of it take a second."""
NAMES = ("full", "kernel", "depth 1", "depth 2", "width 1", "width 2")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ofa_trainer(*, kind=Supernet, awake=True, dtype=torch.float32, collective=None, **overrides):
    recipe = toy_recipe("ofa", **{"epochs": EPOCHS, **overrides})
    supernet = small_supernet(kind, kernel_transform=True).to(dtype)
    if awake:
        wake_gammas(supernet)
    batches = ToyBatches(batch_size=recipe.batch_size, dtype=dtype)
    stack = build_stack(recipe, SMALL, steps_per_epoch=batches.steps_per_epoch, seed=0)
    return Trainer(supernet, batches, stack, collective=collective)


def small_supernet(kind=Supernet, **kwargs):
    generator = torch.Generator().manual_seed(0)
    return kind(SMALL, num_classes=NUM_CLASSES, generator=generator, **kwargs)


def first_steps(trainer):
    """The first step of each phase, by its name."""
    phases = phases_of_run(trainer.supernet.space, trainer.stack.num_steps)
    return {phase.published.name: phase.first_step for phase in phases}


def begin_step(trainer):
    """What strategies do before the next step, and not yet the step."""
    for strategy in trainer.stack.strategies.values():
        strategy.before_step(trainer.step, trainer.supernet, trainer._optimizer)


def shake(supernet):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def outputs(supernet, networks):
    images = ToyBatches().batch(900)[0]
    with torch.no_grad():
        return [supernet.train()(images, network) for network in networks]


def changes(before, after):
    return [float((a - b).abs().max()) for a, b in zip(before, after, strict=True)]


def weights_of(supernet):
    return torch.cat([p.detach().flatten() for p in supernet.parameters()])


def digest(tensors):
    state = hashlib.sha256()
    for name in sorted(tensors):
        state.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return state.hexdigest()


# (a)


@pytest.mark.parametrize("phase", ["width 1", "width 2"])
def test_a_sorting_as_widths_shrink_leaves_the_largest_network_and_changes_the_smallest(phase):
    trainer = ofa_trainer()
    trainer.run(first_steps(trainer)[phase])
    # So few steps have not changed what is important since the sorting before.
    shake(trainer.supernet)
    ends = (trainer.supernet.space.largest(), trainer.supernet.space.smallest())
    before = outputs(trainer.supernet, ends)
    begin_step(trainer)
    largest, smallest = changes(before, outputs(trainer.supernet, ends))
    assert largest < 1e-5
    assert smallest > 1e-3


def test_a_the_second_sorting_leaves_every_network_that_was_trained_so_far():
    trainer = ofa_trainer()
    trainer.run(first_steps(trainer)["width 2"])
    shake(trainer.supernet)
    trained = trainer.stack.shrink.phase(trainer.step - 1).space
    rng = np.random.default_rng(0)
    networks = [trained.largest(), trained.smallest(), *(trained.sample(rng) for _ in range(20))]
    before = outputs(trainer.supernet, networks)
    begin_step(trainer)
    assert max(changes(before, outputs(trainer.supernet, networks))) < 1e-5


def test_a_exposed_are_all_numbers_of_channels_that_networks_of_a_phase_have():
    supernet = toy_supernet()
    (part,) = (p.space for p in phases_of_run(supernet.space, 605) if p.published.name == "width 1")
    seen = defaultdict(set)
    rng = np.random.default_rng(0)
    for _ in range(300):
        for layer in supernet.lower(part.sample(rng)):
            seen[layer.name].add(layer.out_channels)
    assert exposed_channels(supernet, part) == {name: tuple(sorted(n)) for name, n in seen.items()}


def test_a_channels_are_sorted_by_the_projections_l1_norm_and_not_by_anything_else():
    trainer = ofa_trainer()
    trainer.run(first_steps(trainer)["width 1"])
    begin_step(trainer)
    slots = trainer.supernet.slots
    for name in ("stage2.block2", "stage3.block2"):
        importance = slots[slot_key(f"{name}.project")].weights.weight.abs().sum((0, 2, 3))
        assert torch.equal(importance, importance.sort(descending=True).values)
        for other in (
            slots[slot_key(f"{name}.expand")].weights.weight.abs().sum((1, 2, 3)),
            slots[slot_key(f"{name}.depthwise")].bn.weight.abs(),
        ):
            assert not torch.equal(other, other.sort(descending=True).values)


def test_a_channels_are_sorted_as_each_phase_of_widths_begins_and_never_else(monkeypatch):
    sorted_at = []
    monkeypatch.setattr(
        "supernet.training.progressive.sort_channels",
        lambda supernet, optimizer, *, exposed: sorted_at.append(trainer.step),
    )
    trainer = ofa_trainer()
    trainer.run()
    starts = first_steps(trainer)
    assert sorted_at == [starts["width 1"], starts["width 2"]]
    sorted_at.clear()
    trainer = ofa_trainer(channel_sort=False)
    trainer.run()
    assert sorted_at == []


def test_a_momentum_is_sorted_with_its_channels_or_forgotten():
    for restarts in (False, True):
        trainer = ofa_trainer(restart_momentum=restarts)
        trainer.run(first_steps(trainer)["width 1"])
        state = trainer._optimizer.state
        if not restarts:
            # Momentum in the place of the weights: the sort must treat both alike.
            for parameter in trainer.supernet.parameters():
                state[parameter]["momentum_buffer"].copy_(parameter.detach())
            assert len(state) == len(list(trainer.supernet.parameters()))
        begin_step(trainer)
        if restarts:
            assert not state
        else:
            for parameter in trainer.supernet.parameters():
                assert torch.equal(state[parameter]["momentum_buffer"], parameter)


# (b)


def networks_of_kernel(space):
    """The largest network with every kernel 3, 5, 7."""
    choices = space.largest().to_json()
    return {
        k: space.parse({n: k if n.endswith("kernel") else v for n, v in choices.items()}) for k in (3, 5, 7)
    }


def test_b_with_identity_matrices_a_smaller_kernel_is_the_centre_of_the_larger():
    plain, transformed = (wake_gammas(toy_supernet(kernel_transform=has)) for has in (False, True))
    networks = networks_of_kernel(plain.space).values()
    transformed.load_state_dict(plain.state_dict(), strict=False)
    for bare, through_matrices in zip(outputs(plain, networks), outputs(transformed, networks), strict=True):
        torch.testing.assert_close(through_matrices, bare, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("matrix", "expected"), [("5", [True, True, False]), ("3", [True, False, False])])
def test_b_the_matrix_from_7_to_5_acts_on_5_and_3_and_that_from_5_to_3_on_3_alone(matrix, expected):
    supernet = wake_gammas(toy_supernet(kernel_transform=True))
    networks = networks_of_kernel(supernet.space).values()
    before = outputs(supernet, networks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, ElasticConv) and module.transforms:
                transform = module.transforms[matrix]
                transform.add_(0.1 * torch.randn(transform.shape, generator=generator))
    assert [change > 1e-3 for change in changes(before, outputs(supernet, networks))] == expected


@pytest.mark.parametrize("freezes", [False, True])
def test_b_transforms_are_trained_after_the_phase_of_kernels_unless_they_are_frozen(freezes):
    trainer = ofa_trainer(freeze_transforms=freezes, weight_decay=0.01)

    def transforms():
        named = trainer.supernet.named_parameters()
        return torch.cat([p.detach().flatten() for name, p in named if ".transforms." in name])

    fresh = transforms()
    starts = first_steps(trainer)
    trainer.run(starts["kernel"])
    at_start = transforms()
    # Else decay would have worn the identity down before any kernel went through it.
    assert torch.equal(at_start, fresh)
    trainer.run(starts["depth 1"] - starts["kernel"])
    after_kernels = transforms()
    assert not torch.equal(after_kernels, at_start)
    trainer.run()
    assert torch.equal(transforms(), after_kernels) == freezes


def test_b_a_run_that_goes_back_to_the_phase_of_kernels_trains_transforms_again(tmp_path):
    trainer = ofa_trainer(freeze_transforms=True)
    trainer.run(first_steps(trainer)["depth 1"] - 1)
    path = save_checkpoint(trainer.state(), tmp_path)
    trainer.run(1)
    straight = weights_of(trainer.supernet)
    trainer.run(2)
    trainer.restore(load_checkpoint(path))
    trainer.run(1)
    assert torch.equal(weights_of(trainer.supernet), straight)


# (c)

ALLOWED = {
    "full": ({7}, {4}, {6}),
    "kernel": ({3, 5, 7}, {4}, {6}),
    "depth 1": ({3, 5, 7}, {3, 4}, {6}),
    "depth 2": ({3, 5, 7}, {2, 3, 4}, {6}),
    "width 1": ({3, 5, 7}, {2, 3, 4}, {4, 6}),
    "width 2": ({3, 5, 7}, {2, 3, 4}, {3, 4, 6}),
}
"""The paper's table: kernels, depths, expansions."""
NUM_NETWORKS = {"full": 1, "kernel": 1, "depth 1": 2, "depth 2": 2, "width 1": 4, "width 2": 4}
ENDS = {"full": 180, "kernel": 305, "depth 1": 330, "depth 2": 455, "width 1": 480, "width 2": 605}
"""In epochs of the paper's 605."""


@pytest.fixture(scope="module")
def paper_run():
    """The slots of every step of the paper's length, at two steps an epoch, by phase."""
    recipe = replace(RECIPES["ofa"], epochs=605)
    stack = build_stack(recipe, SPACES["ofa_mobilenetv3"], steps_per_epoch=2, seed=0)
    slots = [slots_of(stack, step) for step in range(stack.num_steps)]
    starts = [0, *(2 * end for end in ENDS.values())]
    return {name: slots[start:end] for name, (start, end) in zip(ENDS, pairwise(starts), strict=True)}


def values_of(slots, kind):
    return Counter(
        value
        for step in slots
        for slot in step
        for name, value in slot.architecture.choices
        if name.rpartition(".")[2] == kind
    )


@pytest.mark.parametrize("phase", NAMES)
def test_c_each_phase_draws_what_it_permits_and_all_of_it(paper_run, phase):
    for kind, allowed in zip(("kernel", "depth", "expansion"), ALLOWED[phase], strict=True):
        drawn = values_of(paper_run[phase], kind)
        assert drawn.keys() == allowed
        # The larger ones among them as often as the others.
        expected = drawn.total() / len(allowed)
        assert all(abs(count - expected) < 0.25 * expected for count in drawn.values())


@pytest.mark.parametrize("phase", NAMES)
def test_c_each_phase_trains_its_number_of_networks_a_step(paper_run, phase):
    assert {len(slots) for slots in paper_run[phase]} == {NUM_NETWORKS[phase]}


@pytest.mark.parametrize("phase", NAMES)
def test_c_resolution_is_elastic_throughout_and_one_a_step(paper_run, phase):
    by_step = [{slot.architecture["resolution"] for slot in slots} for slots in paper_run[phase]]
    assert {len(sizes) for sizes in by_step} == {1}
    seen = set().union(*by_step)
    assert min(seen) < 140 < 210 < max(seen) <= 224


def test_c_resolution_depends_on_seed_and_step_alone():
    stacks = [
        build_stack(toy_recipe("ofa", epochs=7, num_random=n), SPACES["micro"], steps_per_epoch=9, seed=seed)
        for n, seed in ((4, 0), (8, 0), (4, 1))
    ]
    drawn = [
        [slots_of(stack, step)[0].architecture["resolution"] for step in reversed(range(63))]
        for stack in stacks
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("num_random", "expected"), [(1, [1] * 6), (2, [1, 1, 1, 1, 2, 2]), (8, [1, 2, 4, 4, 8, 8])]
)
def test_c_the_number_of_networks_scales_and_the_largest_alone_is_one(num_random, expected):
    stack = build_stack(
        toy_recipe("ofa", epochs=605, num_random=num_random), SPACES["micro"], steps_per_epoch=1, seed=0
    )
    starts = [0, *ENDS.values()][:-1]
    assert [len(slots_of(stack, step)) for step in starts] == expected


def test_c_a_networks_probability_is_that_of_its_phase():
    stack = build_stack(toy_recipe("ofa", epochs=605), SPACES["micro"], steps_per_epoch=1, seed=0)
    (largest,) = slots_of(stack, 0)
    # Of three resolutions.
    assert largest.log_probability == pytest.approx(-np.log(3))
    (kernels,) = slots_of(stack, 200)
    assert kernels.log_probability == pytest.approx(-np.log(3) - 12 * np.log(3))


def test_c_a_phase_that_adds_nothing_is_left_out_and_the_others_share_its_time():
    space = SPACES["ofa_mobilenetv3_32"]
    fixed = replace(space, stages=tuple(replace(s, kernels=s.kernels[-1:]) for s in space.stages))
    phases = phases_of_run(fixed, 480)
    assert [phase.published.name for phase in phases] == ["full", "depth 1", "depth 2", "width 1", "width 2"]
    assert [phase.num_steps for phase in phases] == [180, 25, 125, 25, 125]


@pytest.mark.parametrize("space", ["nas_bench_macro", "nas_bench_201"])
def test_c_a_space_of_operations_is_refused_with_the_reason(space):
    with pytest.raises(
        InvalidRequestError, match=r"shrinks .*kernel, depth.*is none of them; choose another"
    ):
        phases_of_run(SPACES[space], 1000)
    with pytest.raises(InvalidRequestError, match=r"shrinks .*lacks the weights of other.*; choose another"):
        build_stack(RECIPES["ofa"], SPACES[space], steps_per_epoch=100, seed=0)


def test_c_a_run_in_which_a_phase_would_have_no_step_is_refused_with_the_fewest_steps():
    space = SPACES["micro_8"]
    with pytest.raises(InvalidRequestError, match=r"takes 25 steps or more.*has 24; choose more epochs"):
        phases_of_run(space, 24)
    for num_steps in range(25, 400):
        phases = phases_of_run(space, num_steps)
        assert len(phases) == 6
        assert all(phase.num_steps >= 1 for phase in phases)
        assert phases[0].first_step == 0
        assert all(before.end_step == after.first_step for before, after in pairwise(phases))
        assert phases[-1].end_step == num_steps


# (d)


def teacher_weights(trainer):
    state = trainer.stack.distillation.state_dict()
    return {key: value for key, value in state.items() if key.startswith("weights/")}


def test_d_the_teacher_is_the_network_at_the_end_of_the_full_phase_and_never_changes():
    trainer = ofa_trainer()
    start = first_steps(trainer)["kernel"]
    trainer.run(start)
    assert not teacher_weights(trainer)
    expected = digest({f"weights/{name}": t for name, t in trainer.supernet.state_dict().items()})
    hashes = set()
    trainer.run(on_step=lambda stats: hashes.add(digest(teacher_weights(trainer))))
    assert hashes == {expected}
    assert trainer.stack.distillation.describe() == {"taken_at_step": start}
    assert digest({f"weights/{name}": t for name, t in trainer.supernet.state_dict().items()}) != expected


def test_d_a_restored_run_has_the_teacher_that_it_had_or_had_not(tmp_path):
    trainer = ofa_trainer()
    start = first_steps(trainer)["kernel"]
    trainer.run(start - 1)
    before = save_checkpoint(trainer.state(), tmp_path / "before")
    trainer.run(3)
    after = save_checkpoint(trainer.state(), tmp_path / "after")
    expected = digest(teacher_weights(trainer))
    trainer.restore(load_checkpoint(before))
    assert not teacher_weights(trainer)
    other = ofa_trainer()
    other.restore(load_checkpoint(after))
    assert digest(teacher_weights(other)) == expected
    other.run(2)
    assert digest(teacher_weights(other)) == expected


class TaughtFromStart:
    """A schedule whose full phase is step 0."""

    def __init__(self, space, num_steps=605):
        stack = build_stack(toy_recipe("ofa", epochs=num_steps), space, steps_per_epoch=1, seed=0)
        self._shrink = stack.shrink

    def phase(self, step):
        return self._shrink.phase(0 if step == 0 else 604)


def frozen_teacher(supernet, **options):
    options = {"label_smoothing": 0.1, "keeps_labels": True, **options}
    distillation = FrozenTeacher(StudentLoss(**options), TaughtFromStart(supernet.space))
    distillation.before_step(0, supernet, None)
    return distillation


def test_d_the_loss_is_the_labels_alone_before_there_is_a_teacher():
    supernet = toy_supernet()
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    batch_loss = frozen_teacher(supernet).for_batch(torch.zeros(6, 3, 8, 8), labels)
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    assert torch.equal(batch_loss(slot_in(Role.RANDOM), logits), expected)


@pytest.mark.parametrize("keeps_labels", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_d_every_network_drawn_then_learns_from_the_teacher_and_from_the_labels_unless_dropped(
    keeps_labels, temperature
):
    supernet = wake_gammas(small_supernet())
    distillation = frozen_teacher(supernet, keeps_labels=keeps_labels, temperature=temperature)
    distillation.before_step(1, supernet, None)
    images, labels = ToyBatches().batch(0)
    with torch.no_grad():
        teacher = supernet.train()(images, supernet.space.largest())
        for parameter in supernet.parameters():
            parameter.add_(1.0)
    batch_loss = distillation.for_batch(images, labels)
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    soft = -((teacher / temperature).softmax(1) * (logits / temperature).log_softmax(1)).sum(1)
    expected = temperature**2 * soft
    if keeps_labels:
        target = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
        expected = expected - (target * logits.log_softmax(1)).sum(1)
    for architecture in (supernet.space.smallest(), supernet.space.largest()):
        torch.testing.assert_close(batch_loss(Slot(Role.RANDOM, architecture), logits), expected)
    smallest = Slot(Role.MIN, supernet.space.smallest())
    torch.testing.assert_close(batch_loss(smallest, logits), expected)


def test_d_the_largest_network_of_a_sandwich_goes_on_learning_from_labels():
    """DεpS with a frozen teacher: from nothing but its own copy it could learn nothing new."""
    supernet = wake_gammas(small_supernet())
    distillation = frozen_teacher(supernet, keeps_labels=False)
    distillation.before_step(1, supernet, None)
    images, labels = ToyBatches().batch(0)
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    largest = Slot(Role.MAX, supernet.space.largest())
    found = distillation.for_batch(images, labels)(largest, logits)
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_d_the_teacher_gets_no_gradient_no_dropout_and_is_normalised_as_the_step_is():
    trainer = ofa_trainer(dropout=0.5)
    trainer.run(first_steps(trainer)["kernel"] + 1)
    teacher = trainer.stack.distillation._teacher
    assert teacher.training
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    seen = []

    def normalise(*args):
        seen.append(torch.is_grad_enabled())
        return normalise_by_batch(*args)

    images, labels = ToyBatches().batch(0)
    slot = Slot(Role.RANDOM, trainer.supernet.space.smallest())
    losses = []
    for _ in range(2):
        batch_loss = trainer.stack.distillation.for_batch(images, labels, normalise=normalise)
        losses.append(batch_loss(slot, torch.zeros(8, 4)))
    # The largest network's layers, without autograd.
    largest = trainer.supernet.lower(trainer.supernet.space.largest())
    assert seen == [False] * 2 * sum(layer.bn for layer in largest)
    assert torch.equal(*losses)


def test_d_the_teacher_is_run_once_a_resolution_and_at_that_of_the_student():
    supernet = Supernet(SPACES["micro"], num_classes=4, generator=torch.Generator().manual_seed(0))
    distillation = frozen_teacher(wake_gammas(supernet))
    distillation.before_step(1, supernet, None)
    sides = []
    distillation._teacher.register_forward_hook(
        lambda module, args, output: sides.append(args[1]["resolution"])
    )
    images, labels = torch.randn(2, 3, 32, 32), torch.zeros(2).long()
    choices = supernet.space.smallest().to_json()
    batch_loss = distillation.for_batch(images, labels)
    for side in (24, 32, 24):
        batch_loss(
            Slot(Role.RANDOM, supernet.space.parse({**choices, "resolution": side})), torch.zeros(2, 4)
        )
    assert sides == [24, 32]


def test_d_taking_the_teacher_leaves_torchs_global_generator_alone():
    trainer = ofa_trainer()
    before = torch.get_rng_state()
    trainer.run(first_steps(trainer)["kernel"] + 1)
    assert torch.equal(before, torch.get_rng_state())


def test_d_without_a_phase_of_the_largest_network_alone_there_is_no_teacher_and_it_is_said():
    stack = build_stack(toy_recipe(), SPACES["micro_8"], steps_per_epoch=4, seed=0)
    with pytest.raises(InvalidRequestError, match="trains others from the first step; choose a longer delay"):
        FrozenTeacher(StudentLoss(label_smoothing=0.1), stack.shrink)


def test_d_in_place_soft_distillation_may_keep_the_labels_and_soften_predictions():
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 6, 4, generator=generator)
    labels = torch.arange(6) % 4
    loss = SoftDistillation(label_smoothing=0.0, temperature=2.0, keeps_labels=True)
    batch_loss = loss.for_batch(torch.empty(0), labels)
    batch_loss(slot_in(Role.MAX), teacher)
    soft = -4 * ((teacher / 2).softmax(1) * (student / 2).log_softmax(1)).sum(1)
    expected = soft + F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(batch_loss(slot_in(Role.MIN), student), expected)


# (e)


def explicit_statistics(supernet, architecture, batches):
    """For each layer the mean over the batches of each batch's mean and unbiased variance, by hand."""
    gathered = defaultdict(list)

    def normalise(x, slot, weight, bias):
        gathered[slot].append((x.mean((0, 2, 3)), x.var((0, 2, 3))))
        return normalise_by_batch(x, slot, weight, bias)

    with torch.no_grad():
        for images in batches:
            supernet(images, architecture, normalise=normalise)
    means = {slot: torch.stack([m for m, _ in seen]).mean(0) for slot, seen in gathered.items()}
    variances = {slot: torch.stack([v for _, v in seen]).mean(0) for slot, seen in gathered.items()}
    return means, variances


def test_e_recalibrated_statistics_equal_the_explicit_mean_and_differ_between_networks():
    trainer = ofa_trainer()
    trainer.run()
    supernet = trainer.supernet
    calibration = [ToyBatches(batch_size=16).batch(100 + i)[0] for i in range(3)]
    narrow, wide = supernet.space.smallest(), supernet.space.largest()
    found = {network: recalibrate(supernet, network, calibration) for network in (narrow, wide)}
    for network, statistics in found.items():
        means, variances = explicit_statistics(supernet, network, calibration)
        torch.testing.assert_close(dict(statistics.means), means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(dict(statistics.variances), variances, rtol=1e-4, atol=1e-5)
    name = "stage2.block1.project"
    shared = len(found[narrow].means[name])
    assert (found[narrow].means[name] - found[wide].means[name][:shared]).abs().max() > 1e-2


# (f)


def test_f_a_narrow_forward_in_training_changes_nothing_and_there_are_no_running_statistics():
    supernet = wake_gammas(toy_supernet(kernel_transform=True)).train()
    images, labels = ToyBatches().batch(0)
    before = digest(supernet.state_dict())
    assert not list(supernet.buffers())
    narrow = supernet.space.smallest()
    F.cross_entropy(supernet(images, narrow), labels).backward()
    recalibrate(supernet, narrow, [images])
    assert digest(supernet.state_dict()) == before


def test_f_batch_norm_past_the_width_of_a_network_gets_no_gradient():
    supernet = wake_gammas(toy_supernet()).train()
    images, labels = ToyBatches().batch(0)
    narrow = supernet.space.smallest()
    F.cross_entropy(supernet(images, narrow), labels).backward()
    num_beyond = 0
    for layer in supernet.lower(narrow):
        if layer.bn:
            bn = supernet.slot(layer).bn
            assert bn.weight.grad[: layer.out_channels].any()
            for gradient in (bn.weight.grad, bn.bias.grad):
                assert not gradient[layer.out_channels :].any()
            num_beyond += len(bn.weight) - layer.out_channels
    assert num_beyond > 100


# Rates


def test_each_phase_has_its_own_warm_up_peak_and_half_a_cosine():
    recipe = replace(RECIPES["ofa"], epochs=605, base_learning_rate=2.6)
    rate = build_stack(recipe, SPACES["micro"], steps_per_epoch=10, seed=0).learning_rate
    starts = dict(zip(NAMES, [0, *ENDS.values()], strict=False))
    peaks = {"full": 2.6, "kernel": 0.96, "depth 1": 0.08, "depth 2": 0.24, "width 1": 0.08, "width 2": 0.24}
    for name, peak in peaks.items():
        start, end = 10 * starts[name], 10 * ENDS[name]
        has_warmup = name not in ("depth 1", "width 1")
        num_warmup = 50 if has_warmup else 0
        rates = np.array([rate.at(step) for step in range(start, end)])
        assert int(rates.argmax()) == num_warmup
        assert rates.max() == pytest.approx(peak)
        rising = rates[:num_warmup]
        np.testing.assert_allclose(rising, peak * np.arange(1, num_warmup + 1) / (num_warmup + 1))
        length = end - start - num_warmup
        cosine = [peak * 0.5 * (1 + cos(pi * t / length)) for t in range(length)]
        np.testing.assert_allclose(rates[num_warmup:], cosine, atol=1e-5)


def test_rates_keep_the_papers_relation_at_any_base():
    recipe = toy_recipe("ofa", epochs=605, base_learning_rate=0.1)
    rate = build_stack(recipe, SPACES["micro"], steps_per_epoch=10, seed=0).learning_rate
    peaks = [max(rate.at(10 * s + t) for t in range(100)) for s in (0, *list(ENDS.values())[:-1])]
    np.testing.assert_allclose(peaks, 0.1 * np.array([2.6, 0.96, 0.08, 0.24, 0.08, 0.24]) / 2.6)
    assert [p.num_epochs for p in PUBLISHED_PHASES] == [180, 125, 25, 125, 25, 125]


# Regularisation


def test_every_network_has_dropout_and_each_its_own():
    trainer = ofa_trainer(kind=RecordingSupernet, dropout=0.3)
    trainer.run()
    steps = trainer.supernet.calls
    assert len(steps) > 30
    assert all(dropout == 0.3 and moved for _, dropout, moved, _ in steps)
    slot = Slot(Role.RANDOM, trainer.supernet.space.largest())
    context = step_context(3, supernet=trainer.supernet)
    first, second, again = (trainer._logits(slot, index, context) for index in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


# The run


def test_all_networks_learn_and_smaller_ones_in_their_phases():
    trainer = ofa_trainer(awake=False, epochs=12, batch_size=16, base_learning_rate=0.2)
    space = trainer.supernet.space
    images, labels = ToyBatches(batch_size=64).batch(500)

    def losses():
        with torch.no_grad():
            networks = (space.largest(), space.smallest())
            return [F.cross_entropy(trainer.supernet.train()(images, n), labels).item() for n in networks]

    before = losses()
    trainer.run(first_steps(trainer)["width 1"])
    untrained = losses()
    trainer.run()
    after = losses()
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.5 * before[1]
    assert after[1] < untrained[1]


def test_the_view_tells_the_phase():
    trainer = ofa_trainer()
    seen = []
    trainer.run(on_step=lambda stats: seen.append(trainer.stack.shrink.describe()["phase"]))
    assert tuple(dict.fromkeys(seen)) == NAMES
    assert trainer.stack.shrink.describe()["end_step"] == trainer.stack.num_steps


@pytest.mark.parametrize("phase", ["kernel", "depth 1", "width 1", "width 2"])
def test_a_run_killed_as_a_phase_begins_and_again_in_it_ends_with_the_same_bits(phase, tmp_path, undisturbed):
    trainer = ofa_trainer(freeze_transforms=True)
    trainer.run(first_steps(trainer)[phase])
    path = save_checkpoint(trainer.state(), tmp_path)
    resumed = ofa_trainer(awake=False, freeze_transforms=True)
    assert resumed.restore(load_checkpoint(path)) == ()
    resumed.run(2)
    path = save_checkpoint(resumed.state(), tmp_path)
    last = ofa_trainer(awake=False, freeze_transforms=True)
    last.restore(load_checkpoint(path))
    last.run()
    assert torch.equal(weights_of(last.supernet), undisturbed)


@pytest.fixture(scope="module")
def undisturbed():
    torch.set_num_threads(1)
    trainer = ofa_trainer(freeze_transforms=True)
    trainer.run()
    return weights_of(trainer.supernet)


# Two ranks

RANKS = {"batch_norm": "synchronised", "dropout": 0.0}


def run_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    trainer = ofa_trainer(dtype=torch.float64, collective=TorchCollective(), **RANKS)
    trainer.run()
    result = {"weights": weights_of(trainer.supernet), **teacher_weights(trainer)}
    torch.save(result, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_agree_and_do_what_one_does(tmp_path):
    mp.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert digest(first) == digest(second)
    alone = ofa_trainer(dtype=torch.float64, **RANKS)
    alone.run()
    torch.testing.assert_close(first["weights"], weights_of(alone.supernet), rtol=1e-6, atol=1e-7)
