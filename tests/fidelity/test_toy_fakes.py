"""Toy versions of the methods: each looks like its method, and a law of the method finds it out."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from supernet.gates import Gates, gated_architecture
from supernet.training import alpha_divergence, data_importance, path_importance
from supernet.training.delayed_epsilon import DelayedEpsilonSchedule
from supernet.training.distillation import NoDistillation, SoftDistillation
from supernet.training.gradient import SummedGradients
from supernet.training.paths import Role, SandwichSampler, Slot
from supernet.training.shift_paths import ShiftPaths
from tests.fidelity import test_alphanet as alphanet
from tests.fidelity import test_bignas as bignas
from tests.fidelity import test_deps as deps
from tests.fidelity import test_panda as panda
from tests.fidelity import test_shiftnas as shiftnas


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bignas_taught_by_the_labels(monkeypatch):
    def for_batch(self, images, labels_n, **options):
        by_labels = NoDistillation(label_smoothing=self._student_loss.label_smoothing)
        return by_labels.for_batch(images, labels_n, **options)

    monkeypatch.setattr(SoftDistillation, "for_batch", for_batch)


def bignas_that_averages_its_networks(monkeypatch):
    monkeypatch.setattr(SummedGradients, "weight", lambda self, role, epsilon: epsilon / 4)


def bignas_whose_smallest_is_a_random_small_network(monkeypatch):
    propose = SandwichSampler.propose

    def with_another(self, phase, context):
        *others, _ = propose(self, phase, context)
        # Next to the smallest, and cheap as it is.
        choices = dict(phase.space.smallest().choices) | {"stage1.width": 16}
        return (*others, Slot(Role.MIN, phase.space.space.parse(choices)))

    monkeypatch.setattr(SandwichSampler, "propose", with_another)


def deps_whose_epsilon_stays_below_1(monkeypatch):
    epsilon = DelayedEpsilonSchedule._epsilon
    monkeypatch.setattr(DelayedEpsilonSchedule, "_epsilon", lambda self, step: 0.5 * epsilon(self, step))


def deps_whose_epsilon_is_how_often_others_are_trained(monkeypatch):
    propose = SandwichSampler.propose

    def sometimes(self, phase, context):
        slots = propose(self, phase, context)
        draw = torch.rand((), generator=torch.Generator().manual_seed(context.step)).item()
        return slots if draw < phase.epsilon else slots[:1]

    monkeypatch.setattr(SandwichSampler, "propose", sometimes)


def shiftnas_by_the_level_of_the_loss(monkeypatch):
    def level(self, context, noise_no):
        images, labels_n = context.held_out(0)

        def loss(place):
            flat = self.write(place[None], noise_no)[0]
            gates = Gates(self._space, flat)
            logits = context.supernet(images, gated_architecture(self._space, gates), gates=gates)
            return F.cross_entropy(logits, labels_n)

        return loss

    monkeypatch.setattr(ShiftPaths, "_loss_change", level)


def shiftnas_whose_generator_is_not_told_the_cost(monkeypatch):
    write = ShiftPaths.write
    monkeypatch.setattr(
        ShiftPaths, "write", lambda self, places_n, noise: write(self, torch.full_like(places_n, 0.5), noise)
    )


def panda_that_mixes_by_a_constant(monkeypatch):
    for module in (path_importance, data_importance):
        monkeypatch.setattr(module, "learned_part", lambda epoch, num_epochs, limit: 0.5)


def alphanet_without_a_limit_on_ratios(monkeypatch):
    divergence = alpha_divergence.alpha_divergence
    monkeypatch.setattr(
        alpha_divergence, "alpha_divergence", lambda q, p, alpha, limit: divergence(q, p, alpha, 1e12)
    )


def what_shiftnas_asks_for_decides_what_it_writes():
    """The law of (d) without its long lesson: of a generator that is loud, if not right."""
    trainer = shiftnas.shift_trainer()
    paths = shiftnas.paths_of(trainer)
    paths.before_step(0, trainer.supernet, None)
    with torch.no_grad():
        for parameter in paths.generator.module.parameters():
            parameter.mul_(10)
        noise = shiftnas.gumbel(0, 1, paths.num_gates).expand(shiftnas.NUM_BINS, -1)
        rows = paths.write(paths.bins.module.places, noise)
    assert len({tuple(row) for row in rows.tolist()}) > 1


FAKES = [
    (bignas_taught_by_the_labels, bignas.test_b_a_students_loss_does_not_depend_on_the_labels),
    (
        bignas_that_averages_its_networks,
        bignas.test_d_the_gradient_of_a_step_is_the_sum_of_the_individual_gradients,
    ),
    (
        bignas_whose_smallest_is_a_random_small_network,
        partial(bignas.test_a_each_step_runs_max_min_and_n_random_with_one_optimizer_step, 2),
    ),
    (deps_whose_epsilon_stays_below_1, deps.test_b_epsilon_is_its_closed_form),
    (
        deps_whose_epsilon_is_how_often_others_are_trained,
        deps.test_in_the_ramp_every_step_trains_all_networks_of_the_whole_space,
    ),
    (
        shiftnas_by_the_level_of_the_loss,
        partial(shiftnas.test_b_without_a_change_of_weights_the_bins_have_a_gradient_of_0, "score"),
    ),
    (
        shiftnas_by_the_level_of_the_loss,
        partial(shiftnas.test_b_without_a_change_of_weights_the_bins_have_a_gradient_of_0, "generator"),
    ),
    (shiftnas_whose_generator_is_not_told_the_cost, what_shiftnas_asks_for_decides_what_it_writes),
    (
        panda_that_mixes_by_a_constant,
        partial(panda.test_g_lambda_and_tau_grow_evenly_from_the_second_epochs_end_up_to_the_limit, 1.0),
    ),
    (alphanet_without_a_limit_on_ratios, alphanet.test_d_a_ratio_above_the_limit_counts_as_the_limit),
    (
        alphanet_without_a_limit_on_ratios,
        alphanet.test_with_a_limit_a_students_gradient_stays_small_whatever_it_predicts,
    ),
]
"""A toy version, and the law that it breaks."""


@pytest.mark.parametrize(
    ("fake", "law"), [pytest.param(*pair, id=f"{n}-{pair[0].__name__}") for n, pair in enumerate(FAKES)]
)
def test_a_law_that_holds_finds_the_toy_version_out(monkeypatch, fake, law):
    law()
    fake(monkeypatch)
    with pytest.raises(AssertionError):
        law()
