"""Laws of single strategies that belong to no one paper."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch import nn

from nas.recipe_choices import ClipKind
from nas.subspace import SubSpace
from search_spaces import SPACES
from supernet.training.collective import SingleProcess
from supernet.training.distillation import SoftDistillation
from supernet.training.gradient import FlatGradients, SummedGradients
from supernet.training.learning_rate import CosineWithFloor, ExponentialWithFloor, Warmup
from supernet.training.memory import tune_malloc
from supernet.training.optimizer import build_optimizer
from supernet.training.paths import Role, SandwichSampler, UniformPaths, UniformSampler
from supernet.training.regularisation import parameter_groups
from supernet.training.rng import Stream, generator_for, torch_seeded
from supernet.training.shrink import Phase, StaticSchedule
from tests.training.toy import slot_in, step_context, toy_recipe, toy_supernet


def test_the_cosine_meets_its_ends_and_never_goes_below_the_floor():
    rate = CosineWithFloor(2.0, floor=0.05, num_steps=100)
    assert rate.at(0) == 2.0
    assert rate.at(50) == pytest.approx(1.0)
    assert rate.at(100) == rate.at(1000) == 0.1
    rates = [rate.at(step) for step in range(101)]
    assert rates == sorted(rates, reverse=True)


def test_the_exponential_halves_where_it_should():
    rate = ExponentialWithFloor(1.0, floor=1 / 16, floor_step=40)
    assert [rate.at(step) for step in (0, 10, 20, 40, 400)] == pytest.approx(
        [1, 1 / 2, 1 / 4, 1 / 16, 1 / 16]
    )


def test_warmup_rises_evenly_to_the_first_rate():
    rate = Warmup(ExponentialWithFloor(1.0, floor=0.05, floor_step=10), num_steps=4)
    assert [rate.at(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate.at(14) == pytest.approx(0.05)
    assert Warmup(rate, num_steps=0).at(3) == rate.at(3)


def test_draws_depend_on_seed_stream_step_and_index_alone():
    def draw(*key):
        return generator_for(*key).integers(2**60)

    keys = [(0, Stream.PATH, 0, 0), (1, Stream.PATH, 0, 0), (0, Stream.DROPOUT, 0, 0)]
    keys += [(0, Stream.PATH, 1, 0), (0, Stream.PATH, 0, 1)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(*keys[0]) == draw(*keys[0])


def test_no_stream_repeats_the_draws_of_the_data():
    data = {int(np.random.default_rng([0, stream, 5]).integers(2**60)) for stream in (0, 1)}
    assert not data & {int(generator_for(0, stream, 5, 0).integers(2**60)) for stream in Stream}


def test_seeding_torch_is_undone():
    before = torch.get_rng_state()
    device = torch.device("cpu")
    with torch_seeded(0, Stream.DROPOUT, 3, 0, device):
        first = torch.rand(4)
    with torch_seeded(0, Stream.DROPOUT, 3, 0, device):
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(before, torch.get_rng_state())


def test_the_log_probability_is_that_of_uniform_choices():
    space = SubSpace(SPACES["micro_8"])
    # 4 widths of 2, 4 depths of 3, and kernel and expansion, of 3 each, of the blocks there are.
    assert space.log_probability(space.smallest()) == pytest.approx(-log(2**4 * 3**4 * 9**4))
    assert space.log_probability(space.largest()) == pytest.approx(-log(2**4 * 3**4 * 9**12))
    slots = UniformSampler(UniformPaths(0)).propose(Phase(space=space, num_random=3), step_context(0))
    assert all(0 < exp(slot.log_probability) < 1 for slot in slots)


def test_slots_do_not_depend_on_which_steps_came_before():
    schedule = StaticSchedule(SubSpace(SPACES["micro"]), num_random=2)

    def drawn_at(steps):
        sampler = SandwichSampler(UniformPaths(3))
        return [sampler.propose(schedule.phase(step), step_context(step)) for step in steps]

    forward, backward = drawn_at(range(5)), drawn_at(reversed(range(5)))
    assert forward == backward[::-1]


def test_epsilon_0_runs_the_largest_network_alone():
    phase = Phase(space=SubSpace(SPACES["micro"]), num_random=2, epsilon=0.0)
    slots = SandwichSampler(UniformPaths(0)).propose(phase, step_context(0))
    assert [slot.role for slot in slots] == [Role.MAX]


def test_epsilon_weighs_every_network_but_the_largest():
    policy = SummedGradients(ClipKind.NONE, 1.0)
    assert [policy.weight(role, 0.3) for role in (Role.MAX, Role.RANDOM, Role.MIN)] == [1.0, 0.3, 0.3]


def test_a_student_before_its_teacher_is_a_bug_and_says_so():
    batch_loss = SoftDistillation(label_smoothing=0.0).for_batch(torch.empty(0), torch.zeros(2).long())
    with pytest.raises(RuntimeError, match="'random' came before 'max'"):
        batch_loss(slot_in(Role.RANDOM), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ClipKind.NONE, [3.0, -4.0, 0.5]),
        (ClipKind.VALUE, [1.0, -1.0, 0.5]),
        (ClipKind.NORM, [0.5970, -0.7960, 0.0995]),
    ],
)
def test_clipping(kind, expected):
    gradients = torch.tensor([3.0, -4.0, 0.5])
    SummedGradients(kind, 1.0).clip(gradients)
    torch.testing.assert_close(gradients, torch.tensor(expected), rtol=0, atol=1e-4)


def test_gradients_within_the_norm_are_left_alone():
    gradients = torch.tensor([0.3, -0.4])
    SummedGradients(ClipKind.NORM, 1.0).clip(gradients)
    assert torch.equal(gradients, torch.tensor([0.3, -0.4]))


def test_backward_passes_add_to_one_buffer():
    layers = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(7, 7))
    gradients = FlatGradients(layers)
    gradients.values.fill_(9.0)
    gradients.start()
    x = torch.ones(4, 3)
    for _ in range(2):
        layers[1](layers[0](x)).sum().backward()
    gradients.sum_over(SingleProcess())
    flat = torch.cat([p.grad.flatten() for p in layers.parameters()])
    assert torch.equal(gradients.values, flat)
    assert layers[1].bias.grad.item() == 8.0
    assert not layers[2].weight.grad.any()
    storage = gradients.values.untyped_storage().data_ptr()
    assert all(p.grad.untyped_storage().data_ptr() == storage for p in layers.parameters())


def test_every_parameter_is_in_exactly_one_group_and_only_weights_decay():
    supernet = toy_supernet()
    decaying, spared = parameter_groups(supernet.parameters(), 0.1)
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    grouped = [id(p) for group in (decaying, spared) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in supernet.parameters())
    names = {id(p): name for name, p in supernet.named_parameters()}
    assert all(".bn." in names[id(p)] or names[id(p)].endswith("bias") for p in spared["params"])
    assert not any(".bn." in names[id(p)] or names[id(p)].endswith("bias") for p in decaying["params"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterovs(momentum):
    optimizer = build_optimizer(toy_recipe(momentum=momentum), nn.Linear(2, 2))
    assert optimizer.defaults["nesterov"] == (momentum > 0)


def test_tuning_malloc_works_here_or_does_nothing():
    assert tune_malloc() in (True, False)
    assert torch.ones(2**24).sum() == 2**24
