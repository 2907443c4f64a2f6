"""PA&DA (Lu et al., CVPR 2023): the lettered laws of its samplers, each under its letter."""

import json
from dataclasses import replace
from functools import cache
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from scipy import stats

from nas.families.cell import CONV_1, CONV_3, NONE, POOL, SKIP, CellSpace
from nas.families.layer_choice import LayerChoiceSpace, LayerOption
from nas.recipe_choices import WeightingKind
from nas.recipes import RECIPES
from nas.subspace import SubSpace
from search_spaces import SPACES
from supernet.network import Supernet
from supernet.training import (
    TorchCollective,
    Trainer,
    build_stack,
    load_checkpoint,
    save_checkpoint,
)
from supernet.training.data_importance import ImportanceData
from supernet.training.distillation import Distillation
from supernet.training.importance import ImportanceWeights, mixed_probabilities
from supernet.training.path_importance import ImportancePaths
from supernet.training.path_norms import PathNorms
from supernet.training.paths import Role, Slot
from supernet.training.shrink import Phase, ShrinkSchedule
from tests.training.toy import (
    NUM_CLASSES,
    RecordingSupernet,
    ToyBatches,
    step_context,
    toy_recipe,
    toy_supernet,
    wake_gammas,
)

CELL = CellSpace(name="tiny_cell", resolution=8, stage_widths=(4, 8), cells_per_stage=2)
CHAIN = LayerChoiceSpace(
    name="tiny_chain",
    resolution=8,
    stem_width=4,
    stage_widths=(8,),
    stage_layers=(3,),
    options=(
        LayerOption(name="identity"),
        LayerOption(name="small", kernel=3, expansion=1),
        LayerOption(name="large", kernel=5, expansion=2),
    ),
    head_width=16,
)
OPERATIONS = [NONE, SKIP, POOL, CONV_1, CONV_3]
NUM_EPOCHS = 10
NUM_STEPS = 4
"""Of an epoch."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def importance_weights(kind=WeightingKind.EXACT, limit=10.0):
    return ImportanceWeights(kind=kind, limit=limit)


def make_paths(space=CELL, *, normalise=False, **overrides):
    settings = {
        "num_epochs": NUM_EPOCHS,
        "seed": 0,
        "limit": 1.0,
        "weights": importance_weights(),
        "norms": PathNorms(space, normalise=normalise),
    }
    return ImportancePaths(space, **{**settings, **overrides})


def make_data(num_images=48, *, batch_size=12, **overrides):
    settings = {
        "num_epochs": NUM_EPOCHS,
        "steps_per_epoch": num_images // batch_size,
        "seed": 0,
        "limit": 1.0,
        "weights": importance_weights(),
        "carries_scores": False,
    }
    return ImportanceData(num_images=num_images, batch_size=batch_size, **{**settings, **overrides})


def tiny_supernet(space, kind=Supernet):
    supernet = kind(space, num_classes=NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    return wake_gammas(supernet)


def panda_trainer(
    *, space=CELL, kind=Supernet, dtype=torch.float32, collective=None, batches=None, parts=None, **overrides
):
    recipe = toy_recipe("panda", **{"epochs": 3, **overrides})
    batches = batches or ToyBatches(batch_size=recipe.batch_size, steps_per_epoch=NUM_STEPS, dtype=dtype)
    stack = build_stack(
        recipe,
        space,
        steps_per_epoch=batches.steps_per_epoch,
        seed=0,
        num_images=batches.num_images,
    )
    supernet = tiny_supernet(space, kind).to(dtype)
    return Trainer(supernet, batches, replace(stack, **(parts or {})), collective=collective)


class FakeGradients:
    """Of one random network; `norm_of` says each parameter's norm by its name."""

    def __init__(self, norm_of):
        self._norm_of = norm_of

    def norms(self, part):
        assert part == 1
        return _Asked(self._norm_of)


class _Asked(dict):
    def __init__(self, norm_of):
        super().__init__()
        self._norm_of = norm_of

    def __missing__(self, name):
        return self._norm_of(name)


def loud(name):
    """A gradient that differs from operation to operation, and from edge to edge."""
    return (5.0 if CONV_3 in name else 1.0) * (2.0 if "edge0to1" in name else 1.0)


def draw_one(paths, step, supernet=None, space=CELL):
    (slot,) = paths.draw(Phase(space=SubSpace(space), num_random=1), step_context(step, supernet=supernet))
    return slot


def teach_paths(paths, *, num_epochs, norm_of=loud, space=CELL):
    """Epochs of networks drawn as they come, with fake gradients."""
    supernet = tiny_supernet(space)
    for step in range(num_epochs * NUM_STEPS):
        slot = draw_one(paths, step, supernet, space)
        paths.observe(step, (slot,), FakeGradients(norm_of))
        if step % NUM_STEPS == NUM_STEPS - 1:
            paths.end_epoch(step // NUM_STEPS)


def teach_data(data, score_of, *, num_epochs, steps_per_epoch):
    """Epochs of images drawn as they come, their scores a function of the positions."""
    for epoch in range(num_epochs):
        for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
            draw = data.draw(step)
            data.observe_scores(step, draw, torch.from_numpy(score_of(draw.positions_n)))
        data.end_epoch(epoch)


def operation_probabilities(paths):
    return paths.describe()["probabilities"]["operation"]


def accumulated(paths):
    return paths.state_dict()["accumulated"].tolist()


# (a)


def counts_of_operations(paths, *, num_networks):
    drawn = [draw_one(paths, 1000 + i).architecture.choices for i in range(num_networks)]
    return [sum(option == wanted for choices in drawn for _, option in choices) for wanted in OPERATIONS]


@pytest.mark.parametrize(("limit", "is_uniform"), [(0.0, True), (1.0, False)])
def test_a_with_lambda_0_operations_are_uniform(limit, is_uniform):
    paths = make_paths(limit=limit)
    teach_paths(paths, num_epochs=6)
    p_value = stats.chisquare(counts_of_operations(paths, num_networks=1500)).pvalue
    assert p_value > 1e-3 if is_uniform else p_value < 1e-9


@pytest.mark.parametrize(("limit", "is_uniform"), [(0.0, True), (1.0, False)])
def test_a_with_tau_0_images_are_uniform(limit, is_uniform):
    data = make_data(steps_per_epoch=1000, limit=limit)
    teach_data(data, lambda positions: 1.0 + positions, num_epochs=1, steps_per_epoch=4)
    for epoch in (1, 2):
        data.observe_scores(0, data.draw(epoch * 1000), torch.arange(12.0))
        data.end_epoch(epoch)
    drawn = np.concatenate([data.draw(3000 + step).positions_n for step in range(1000)])
    p_value = stats.chisquare(np.bincount(drawn, minlength=48)).pvalue
    assert p_value > 1e-3 if is_uniform else p_value < 1e-9


def test_a_the_first_epoch_sees_each_image_once_and_the_second_draws_uniformly_with_replacement():
    data = make_data(50)
    first = np.concatenate([data.draw(step).positions_n for step in range(4)])
    assert len(set(first)) == len(first) == 48
    teach_data(data, lambda positions: 1.0 + positions, num_epochs=1, steps_per_epoch=4)
    second = np.concatenate([data.draw(4 + step).positions_n for step in range(4)])
    assert len(set(second)) < len(second) == 48
    np.testing.assert_allclose(data.state_dict()["probabilities"], 1 / 50)


# (b)

NUM_IMAGES = 24
NUM_DRAWS = 100_000
NUM_PROJECTIONS = 20
BATCH = 1000


@cache
def frozen_gradients():
    """Of a frozen supernet: every network of CHAIN, the projected gradient of every image in each of them
    (networks, images, projections), and the norms of each network's mean gradient by parameter."""
    supernet = tiny_supernet(CHAIN).double().eval()
    batches = ToyBatches(batch_size=NUM_IMAGES, dtype=torch.float64)
    images, labels = batches.batch(0, positions=np.arange(NUM_IMAGES))
    names, parameters = zip(*supernet.named_parameters(), strict=True)
    size = sum(p.numel() for p in parameters)
    directions = torch.randn(size, NUM_PROJECTIONS, generator=torch.Generator().manual_seed(1)).double()
    options = [option.name for option in CHAIN.options]
    spelled = [{"layer1": a, "layer2": b, "layer3": c} for a in options for b in options for c in options]
    projected, norms = [], []
    for values in spelled:
        losses = F.cross_entropy(supernet(images, CHAIN.parse(values)), labels, reduction="none")
        rows = [
            torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            for loss in losses
        ]
        projected.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]) @ directions)
        means = [torch.stack(column).mean(0) for column in zip(*rows, strict=True)]
        norms.append(dict(zip(names, (float(mean.norm()) for mean in means), strict=True)))
    # Any scores will do; those of an untrained network are too much alike for a bias to show.
    scores = torch.rand(NUM_IMAGES, generator=torch.Generator().manual_seed(2)).double()
    return spelled, torch.stack(projected).numpy(), norms, scores


def taught_by(spelled, norms, scores):
    """Both samplers after an epoch in which each network and each image was seen, at λ = τ = 0.8."""
    paths = make_paths(CHAIN)
    supernet = tiny_supernet(CHAIN)
    for values, norms_of_network in zip(spelled, norms, strict=True):
        draw_one(paths, 0, supernet, CHAIN)
        slot = Slot(Role.RANDOM, CHAIN.parse(values))
        paths.observe(0, (slot,), FakeGradients(norms_of_network.__getitem__))
    paths.end_epoch(8)
    data = make_data(NUM_IMAGES, batch_size=BATCH, steps_per_epoch=NUM_DRAWS // BATCH)
    first = data.draw(0)
    data.observe_scores(0, replace(first, weights_n=np.ones(NUM_IMAGES)), scores[first.positions_n])
    data.end_epoch(8)
    return paths, data


@cache
def draws():
    """NUM_DRAWS gradients of one image in one network along each projection, the products of their two
    weights, and the mean over all images and networks."""
    spelled, projected, norms, scores = frozen_gradients()
    paths, data = taught_by(spelled, norms, scores)
    # Identities move to the end of a stage: several spellings are one network, and have one gradient.
    number = {CHAIN.parse(values).choices: i for i, values in enumerate(spelled)}
    phase = Phase(space=SubSpace(CHAIN), num_random=BATCH)
    gradients, weights = [], []
    for step in range(9 * NUM_DRAWS // BATCH, 10 * NUM_DRAWS // BATCH):
        draw, slots = data.draw(step), paths.draw(phase, step_context(step))
        networks = [number[slot.architecture.choices] for slot in slots]
        gradients.append(projected[networks, draw.positions_n])
        weights.append(draw.weights_n * np.array([slot.importance for slot in slots]))
    return np.concatenate(gradients), np.concatenate(weights), projected.mean((0, 1))


def z_scores(estimates, mean):
    assert estimates.shape == (NUM_DRAWS, NUM_PROJECTIONS)
    return np.abs(estimates.mean(0) - mean) / (estimates.std(0) / sqrt(NUM_DRAWS))


THREE_STANDARD_ERRORS = stats.norm.isf(stats.norm.sf(3.0) / NUM_PROJECTIONS)
"""Bonferroni-corrected."""


def test_b_the_exactly_weighted_gradient_is_unbiased():
    gradients, weights, mean = draws()
    assert z_scores(weights[:, None] * gradients, mean).max() < THREE_STANDARD_ERRORS


def test_b_the_unweighted_gradient_of_the_published_code_is_not():
    gradients, _, mean = draws()
    assert z_scores(gradients, mean).max() > 3 * THREE_STANDARD_ERRORS


def test_b_weights_of_every_kind():
    ratios = np.array([0.5, 1.0, 4.0, 20.0])
    expected = {
        WeightingKind.NONE: [1.0, 1.0, 1.0, 1.0],
        WeightingKind.EXACT: [0.5, 1.0, 4.0, 20.0],
        WeightingKind.CLIPPED: [0.5, 1.0, 4.0, 10.0],
        WeightingKind.SELF_NORMALISED: (ratios / 6.375).tolist(),
    }
    for kind in WeightingKind:
        np.testing.assert_allclose(importance_weights(kind).of(ratios), expected[kind])


def test_b_the_weights_are_the_uniform_probability_over_the_samplers_own():
    paths, data = make_paths(), make_data()
    teach_paths(paths, num_epochs=6)
    teach_data(data, lambda positions: 1.0 + positions, num_epochs=6, steps_per_epoch=4)
    slot = draw_one(paths, 24)
    likely = operation_probabilities(paths)
    probability = np.prod([likely[option] for _, option in slot.architecture.choices])
    assert slot.log_probability == pytest.approx(log(probability))
    assert slot.importance == pytest.approx(0.2**6 / probability)
    draw = data.draw(24)
    chosen = data.state_dict()["probabilities"].numpy()[draw.positions_n]
    np.testing.assert_allclose(draw.weights_n, 1 / (48 * chosen))
    assert np.ptp(draw.weights_n) > 0.1


def test_b_the_published_code_weighs_nothing():
    none = importance_weights(WeightingKind.NONE)
    paths, data = make_paths(weights=none), make_data(weights=none)
    teach_paths(paths, num_epochs=6)
    teach_data(data, lambda positions: 1.0 + positions, num_epochs=6, steps_per_epoch=4)
    assert draw_one(paths, 24).importance == 1
    assert (data.draw(24).weights_n == 1).all()


def test_b_a_step_multiplies_the_losses_by_both_weights():
    trainer = panda_trainer(
        dtype=torch.float64, clip="none", importance_weighting="exact", epochs=4, base_learning_rate=0.01
    )
    trainer.run(3 * NUM_STEPS)
    step = trainer.step
    draw = trainer.stack.data.draw(step)
    images, labels = trainer._batches.batch(step, positions=draw.positions_n)
    before = Supernet(CELL, num_classes=NUM_CLASSES).double().train()
    before.load_state_dict(trainer.supernet.state_dict())

    (slot,) = trainer.train_step(step).slots

    assert slot.importance != 1.0
    losses = F.cross_entropy(before(images, slot.architecture), labels, reduction="none")
    (slot.importance * (torch.from_numpy(draw.weights_n) * losses).mean()).backward()
    for found, expected in zip(trainer.supernet.parameters(), before.parameters(), strict=True):
        by_hand = torch.zeros_like(found) if expected.grad is None else expected.grad
        torch.testing.assert_close(found.grad, by_hand, rtol=1e-9, atol=1e-12)


# (c)


def trace_of_variance(gradients, probabilities):
    """Of g_i / (n p_i), i drawn by p: the mean squared norm less the squared norm of the mean."""
    n = len(gradients)
    squares = (gradients**2).sum(1)
    return (squares / (n**2 * probabilities)).sum() - (gradients.mean(0) ** 2).sum()


@pytest.mark.parametrize("seed", range(20))
def test_c_probabilities_by_norm_have_the_least_variance(seed):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(30, 5)) * rng.exponential(size=(30, 1))
    norms = np.linalg.norm(gradients, axis=1)
    optimal = trace_of_variance(gradients, mixed_probabilities(norms, 1.0))
    assert optimal < trace_of_variance(gradients, np.full(30, 1 / 30))
    for _ in range(20):
        assert optimal < trace_of_variance(gradients, rng.dirichlet(np.ones(30)))


def test_c_the_variance_is_that_of_uniform_draws_exactly_where_the_norms_are_equal():
    gradients = np.random.default_rng(0).normal(size=(30, 5))
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    optimal = trace_of_variance(gradients, mixed_probabilities(np.ones(30), 1.0))
    assert optimal == pytest.approx(trace_of_variance(gradients, np.full(30, 1 / 30)), rel=1e-12)


# (d)


class TowardsFixed(Distillation):
    """Every network learns from the same soft targets."""

    def __init__(self, targets_nk):
        self._targets_nk = targets_nk

    def for_batch(self, images, labels_n, *, normalise):
        del images, labels_n, normalise
        return lambda slot, logits_nk: F.cross_entropy(logits_nk, self._targets_nk, reduction="none")


SOFT = torch.randn(8, NUM_CLASSES, generator=torch.Generator().manual_seed(3)).softmax(1)


@pytest.mark.parametrize(
    ("overrides", "soft"),
    [
        ({}, None),
        ({"label_smoothing": 0.1}, None),
        ({}, SOFT),
        ({"sampler": "sandwich", "distillation": "soft", "label_smoothing": 0.1}, None),
    ],
)
def test_d_the_score_is_the_norm_of_each_images_loss_gradient_by_its_logits(monkeypatch, overrides, soft):
    parts = {} if soft is None else {"distillation": TowardsFixed(soft)}
    trainer = panda_trainer(kind=RecordingSupernet, importance_weighting="exact", parts=parts, **overrides)
    seen = []
    monkeypatch.setattr(
        trainer.stack.data, "observe_scores", lambda step, draw, scores: seen.append((draw, scores.clone()))
    )
    trainer.train_step(0)
    ((draw, scores),) = seen
    logits = trainer.supernet.calls[0][3].detach().requires_grad_()
    _, labels = trainer._batches.batch(0, positions=draw.positions_n)
    smoothing = trainer.stack.recipe.label_smoothing
    target = (1 - smoothing) * F.one_hot(labels, NUM_CLASSES) + smoothing / NUM_CLASSES
    target = target if soft is None else soft

    F.cross_entropy(logits, target, reduction="sum").backward()
    torch.testing.assert_close(scores, logits.grad.norm(dim=1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        scores, (logits.detach().softmax(1) - target).norm(dim=1), rtol=1e-5, atol=1e-6
    )


def test_d_the_score_is_not_multiplied_by_the_weights_of_the_images():
    class Weighted(ImportanceData):
        def draw(self, step):
            draw = super().draw(step)
            return replace(draw, weights_n=np.full(len(draw.positions_n), 7.0))

    settings = {"num_images": 32, "batch_size": 8, "steps_per_epoch": NUM_STEPS}
    plain, weighted = (
        make_data(**settings),
        Weighted(
            **settings, num_epochs=3, seed=0, limit=1.0, weights=importance_weights(), carries_scores=False
        ),
    )
    for data in (plain, weighted):
        panda_trainer(parts={"data": data}).train_step(0)
    assert torch.equal(plain.state_dict()["scores"], weighted.state_dict()["scores"])


def test_d_the_images_of_a_step_are_those_drawn():
    asked = []

    class Watched(ToyBatches):
        def batch(self, step, rank=0, world_size=1, *, positions=None):
            asked.append((step, positions))
            return super().batch(step, rank, world_size, positions=positions)

    trainer = panda_trainer(batches=Watched(steps_per_epoch=NUM_STEPS))
    drawn = []
    while trainer.step < 2 * NUM_STEPS:
        drawn.append(trainer.stack.data.draw(trainer.step).positions_n)
        trainer.train_step(trainer.step)
    assert [step for step, _ in asked] == list(range(2 * NUM_STEPS))
    assert all(np.array_equal(found, wanted) for (_, found), wanted in zip(asked, drawn, strict=True))


# (e)


def test_e_operations_without_weights_and_those_unseen_get_the_uniform_part_alone():
    paths = make_paths()
    supernet = tiny_supernet(CELL)
    draw_one(paths, 0, supernet)
    seen = CELL.parse("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|")
    paths.observe(0, (Slot(Role.RANDOM, seen),), FakeGradients(loud))
    paths.end_epoch(4)
    likely = operation_probabilities(paths)
    assert likely[CONV_1] == likely[NONE] == likely[SKIP] == likely[POOL] == pytest.approx(0.6 / 5)
    assert likely[CONV_3] == pytest.approx(0.4 + 0.6 / 5)


def test_e_where_no_norm_was_seen_all_are_equally_likely():
    paths = make_paths()
    teach_paths(paths, num_epochs=6, norm_of=lambda name: 0.0)
    assert all(p == pytest.approx(0.2) for p in operation_probabilities(paths).values())
    data = make_data()
    teach_data(data, lambda positions: np.zeros(len(positions)), num_epochs=6, steps_per_epoch=4)
    np.testing.assert_allclose(data.state_dict()["probabilities"], 1 / 48)


def test_e_an_image_not_drawn_scores_0_or_keeps_its_score():
    for carries, expected in ((False, 0.5 / 48), (True, 0.5 / 48 + 0.5 * 3 / (47 * 1 + 3))):
        data = make_data(carries_scores=carries)
        everywhere = replace(data.draw(0), positions_n=np.arange(48), weights_n=np.ones(48))
        scores = torch.ones(48)
        scores[7] = 3.0
        data.observe_scores(0, everywhere, scores)
        data.end_epoch(0)
        others = np.delete(np.arange(48), 7)
        data.observe_scores(4, replace(everywhere, positions_n=others, weights_n=np.ones(47)), torch.ones(47))
        data.end_epoch(5)
        assert data.state_dict()["probabilities"][7].item() == pytest.approx(expected)


def distinct_at_the_end(*, carries_scores):
    """The part of 1,000 images in the last of 250 epochs, their scores fixed, uniform from 0.05 to 1."""
    data = make_data(1000, batch_size=1000, num_epochs=250, steps_per_epoch=1, carries_scores=carries_scores)
    scores = np.random.default_rng(0).uniform(0.05, 1, 1000)
    teach_data(data, lambda positions: scores[positions], num_epochs=250, steps_per_epoch=1)
    return data.describe()["distinct_part"]


def test_e_scores_that_are_not_carried_absorb_the_images_and_carried_ones_do_not():
    # 63 % are distinct among uniform draws; by simulation 27 % in the end.
    assert distinct_at_the_end(carries_scores=False) == pytest.approx(0.27, abs=0.03)
    assert distinct_at_the_end(carries_scores=True) > 0.5


# (f)


def whole_state(trainer):
    state = trainer.state()
    tensors = {**state.weights, **{f"optimizer/{k}": v for k, v in state.optimizer.items()}}
    plain = {}
    for name, strategy in state.strategies.items():
        for key, value in strategy.items():
            (tensors if isinstance(value, torch.Tensor) else plain)[f"{name}/{key}"] = value
    return tensors, plain


@pytest.mark.parametrize(
    ("space", "stop"),
    [(CELL, 4), (CELL, 7), (CELL, 10), (SPACES["micro_8"], 10)],
    ids=["cell-4", "cell-7", "cell-10", "micro-10"],
)
def test_f_a_resumed_run_has_the_same_accumulators_and_ends_with_the_same_bits(tmp_path, space, stop):
    settings = {"space": space, "importance_weighting": "exact", "base_learning_rate": 0.02}
    undisturbed = panda_trainer(**settings)
    undisturbed.run()

    first = panda_trainer(**settings)
    first.run(stop)
    resumed = panda_trainer(**settings)
    resumed.run(stop - 1)
    assert resumed.restore(load_checkpoint(save_checkpoint(first.state(), tmp_path))) == ()
    assert resumed.stack.sampler.describe() == first.stack.sampler.describe()
    assert resumed.stack.data.describe() == first.stack.data.describe()
    resumed.run()

    (expected, expected_plain), (found, found_plain) = whole_state(undisturbed), whole_state(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found_plain == expected_plain
    assert found["sampler/probabilities"].std() > 0
    assert found["data/probabilities"].std() > 0


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    trainer = panda_trainer(
        collective=TorchCollective(), importance_weighting="exact", base_learning_rate=0.02
    )
    trainer.run(2 * NUM_STEPS + 2)
    tensors, plain = whole_state(trainer)
    drawn = [trainer.stack.data.draw(step).positions_n.tolist() for step in range(8, 10)]
    torch.save({"tensors": tensors, "plain": json.dumps(plain), "drawn": drawn}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_f_two_ranks_learn_the_same(tmp_path):
    mp.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, tensor in ranks[0]["tensors"].items():
        assert torch.equal(tensor, ranks[1]["tensors"][name]), name
    assert ranks[0]["plain"] == ranks[1]["plain"]
    # The images of both ranks are scored, on both.
    drawn = {position for positions in ranks[0]["drawn"] for position in positions}
    scores = ranks[0]["tensors"]["data/scores"]
    assert {i for i, score in enumerate(scores.tolist()) if score > 0} == drawn
    assert ranks[0]["tensors"]["sampler/probabilities"].std() > 0


# (g)


def test_g_fake_norms_give_the_probabilities_of_the_closed_form():
    paths = make_paths()
    supernet = tiny_supernet(CELL)
    # Three convolutions of 3 × 3 and one of 1 × 1, in four cells.
    cell = CELL.parse(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    draw_one(paths, 0, supernet)
    for scale in (1.0, 3.0):
        norms = FakeGradients(lambda name, scale=scale: scale * loud(name))
        paths.observe(0, (Slot(Role.RANDOM, cell),), norms)
    # Sums over cells and edges by the count in the architecture; edge 0 → 1 is twice as loud.
    by_conv_3, by_conv_1 = 4 * (10 + 5 + 5) / 3, 4 * 1.0
    # From 0: ((0 + g) / 2 + 3 g) / 2.
    expected = [0, 0, 0, 1.75 * by_conv_1, 1.75 * by_conv_3]
    assert accumulated(paths) == pytest.approx(expected)
    # A norm of 0, that of dead operations say, is passed over.
    paths.observe(0, (Slot(Role.RANDOM, cell),), FakeGradients(lambda name: 0.0))
    assert accumulated(paths) == pytest.approx(expected)

    paths.end_epoch(3)

    part = 0.3
    for operation, score in zip(OPERATIONS, expected, strict=True):
        closed_form = part * score / sum(expected) + (1 - part) / 5
        assert operation_probabilities(paths)[operation] == pytest.approx(closed_form)
    assert accumulated(paths) == [0.0] * 5


def test_g_fake_scores_give_the_probabilities_of_the_closed_form():
    data = make_data(4, batch_size=4)
    draw = data.draw(0)
    again = replace(draw, positions_n=np.array([0, 1, 1, 1]))
    data.observe_scores(4, again, torch.tensor([0.5, 0.2, 0.4, 0.9]))
    # Pair by pair: ((0.2 + 0.4) / 2 + 0.9) / 2.
    scores = [0.5, 0.6, 0.0, 0.0]
    data.end_epoch(7)
    np.testing.assert_allclose(
        data.state_dict()["probabilities"], [0.7 * s / 1.1 + 0.3 / 4 for s in scores], rtol=1e-6
    )


@pytest.mark.parametrize("limit", [1.0, 0.25])
def test_g_lambda_and_tau_grow_evenly_from_the_second_epochs_end_up_to_the_limit(limit):
    paths, data = make_paths(limit=limit), make_data(limit=limit)
    found = []
    for epoch in range(NUM_EPOCHS):
        paths.observe(epoch * NUM_STEPS, (draw_one(paths, 0, tiny_supernet(CELL)),), FakeGradients(loud))
        for sampler in (paths, data):
            sampler.end_epoch(epoch)
        found.append((paths.describe()["learned_part"], data.describe()["learned_part"]))
    assert found == [(min(e / NUM_EPOCHS, limit),) * 2 for e in range(NUM_EPOCHS)]


def test_g_lambda_counts_from_the_epoch_in_which_random_networks_count_in_full():
    """They run from epoch 2 on, by a weight that rises, and in full from epoch 4 on."""
    paths = make_paths(full_epoch=4)
    supernet = tiny_supernet(CELL)
    largest = Slot(Role.MAX, CELL.largest())
    parts = []
    for epoch in range(NUM_EPOCHS):
        slots = (largest,) if epoch < 2 else (largest, draw_one(paths, epoch * NUM_STEPS, supernet))
        paths.observe(epoch * NUM_STEPS, slots, FakeGradients(loud))
        paths.end_epoch(epoch)
        parts.append(paths.describe()["learned_part"])
        is_uniform = set(operation_probabilities(paths).values()) == {1 / 5}
        assert is_uniform == (epoch <= 4)
    assert parts == pytest.approx([0, 0, 0, 0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_g_with_a_delayed_epsilon_lambda_counts_from_where_it_reaches_1():
    """Beside importance paths: 10 epochs, the ramp from epoch 2 to epoch 5."""
    trainer = panda_trainer(
        schedule="delayed_epsilon",
        sampler="sandwich",
        data_sampler="uniform",
        epochs=10,
        delay_fraction=0.5,
        ramp_fraction=0.3,
        clip="none",
        base_learning_rate=0.02,
    )
    parts = []
    trainer.run(on_epoch=lambda *_: parts.append(trainer.stack.sampler.describe()["learned_part"]))
    assert trainer.stack.shrink.phase(2 * NUM_STEPS).epsilon > 0
    assert parts == pytest.approx([0, 0, 0, 0, 0, 0, 1 / 5, 2 / 5, 3 / 5, 4 / 5])


def test_g_a_delay_that_never_ends_leaves_paths_uniform():
    paths = make_paths(full_epoch=NUM_EPOCHS)
    teach_paths(paths, num_epochs=NUM_EPOCHS)
    assert paths.describe()["learned_part"] == 0


def norms_by_hand(trainer, architecture):
    """For each convolution of the cell: the summed norms over cells and edges, by its count."""
    norms = {}
    for operation in (CONV_1, CONV_3):
        edges = [edge for edge, option in architecture.choices if option == operation]
        total = sum(
            float(p.grad.norm())
            for name, p in trainer.supernet.named_parameters()
            if name.endswith(f"{operation}.weights.weight") and any(f"_{e}_" in name for e in edges)
        )
        norms[operation] = total / max(len(edges), 1)
    return norms


@pytest.mark.parametrize("observe_clipped", [False, True])
def test_g_the_norm_is_that_of_the_networks_own_gradient_before_or_after_it_is_cut(observe_clipped):
    def first_step(**overrides):
        trainer = panda_trainer(**overrides)
        (slot,) = trainer.train_step(0).slots
        return trainer, norms_by_hand(trainer, slot.architecture)

    _, before = first_step(clip="none")
    trainer, after = first_step(clip="norm", clip_threshold=0.01, observe_clipped=observe_clipped)
    assert sum(after.values()) < 0.5 * sum(before.values())
    expected = after if observe_clipped else before
    found = dict(zip(OPERATIONS, accumulated(trainer.stack.sampler), strict=True))
    assert found == pytest.approx({NONE: 0, SKIP: 0, POOL: 0, **{k: v / 2 for k, v in expected.items()}})


class ConstantEpsilon(ShrinkSchedule):
    def __init__(self, epsilon):
        self._epsilon = epsilon

    def phase(self, step):
        return Phase(space=SubSpace(CELL), num_random=1, epsilon=self._epsilon)


def test_g_epsilon_and_other_networks_leave_the_norms_alone():
    found = []
    for epsilon in (1.0, 0.01):
        trainer = panda_trainer(sampler="sandwich", parts={"shrink": ConstantEpsilon(epsilon)})
        trainer.train_step(0)
        found.append(accumulated(trainer.stack.sampler))
    assert found[0] == found[1]
    alone = panda_trainer()
    alone.train_step(0)
    assert found[0] == accumulated(alone.stack.sampler)
    assert sum(found[0]) > 0


# Beside the letters


def test_elastic_sizes_learn_each_decision_by_itself_from_the_layers_that_it_shapes():
    space = SPACES["micro_8"]
    norms = PathNorms(space, normalise=False)
    supernet = toy_supernet()
    slots = {name: 1.0 for name, _ in supernet.named_parameters()}
    found = norms.of(supernet.lower(space.largest()), slots)
    assert set(found) == {d.name for d in space.decisions}
    # expand, depthwise, project of one block; two optional blocks of a stage without squeeze-excite.
    assert found["stage1.block2.kernel"] == found["stage1.block2.expansion"] == 3
    assert found["stage1.depth"] == 6
    assert "stage1.depth" not in norms.of(supernet.lower(space.smallest()), slots)


def test_normalised_norms_do_not_grow_with_the_size_of_an_option():
    """Gradients of one magnitude in every weight: options of any size come out alike."""
    space, supernet = CHAIN, tiny_supernet(CHAIN)
    architecture = space.parse({"layer1": "large", "layer2": "small", "layer3": "large"})
    layers = supernet.lower(architecture)
    used = {f"slots.{layer.name.replace('.', '_')}.weights.weight": layer for layer in layers}
    sizes = {name: p.numel() for name, p in supernet.named_parameters() if name in used}
    norms = {name: 0.1 * sqrt(size) for name, size in sizes.items()}
    norms["slots.head_classifier.weights.bias"] = 0.1 * sqrt(NUM_CLASSES)
    plain = PathNorms(space, normalise=False).of(layers, norms)
    alike = PathNorms(space, normalise=True).of(layers, norms)
    assert plain["layer3"] > 1.5 * plain["layer2"]
    assert alike == pytest.approx(dict.fromkeys(plain, 0.1))


def test_options_outside_the_phase_are_not_drawn_and_the_others_keep_their_proportions():
    paths = make_paths()
    teach_paths(paths, num_epochs=6)
    kept = {decision.name: (SKIP, CONV_1, CONV_3) for decision in CELL.decisions}
    phase = Phase(space=SubSpace(CELL, kept), num_random=1)
    likely = operation_probabilities(paths)
    total = likely[SKIP] + likely[CONV_1] + likely[CONV_3]
    for step in range(20):
        (slot,) = paths.draw(phase, step_context(100 + step))
        assert phase.space.contains(slot.architecture)
        chosen = [likely[option] / total for _, option in slot.architecture.choices]
        assert exp(slot.log_probability) == pytest.approx(np.prod(chosen))


def test_what_was_learned_is_json_and_tells_the_effective_sample_size():
    trainer = panda_trainer(importance_weighting="exact", base_learning_rate=0.02)
    trainer.run()
    paths, data = (json.loads(json.dumps(s.describe())) for s in (trainer.stack.sampler, trainer.stack.data))
    assert sum(paths["probabilities"]["operation"].values()) == pytest.approx(1)
    assert paths["learned_part"] == data["learned_part"] == pytest.approx(2 / 3)
    assert 0 < paths["effective_part"] < 1
    assert 0 < data["effective_part"] < 1
    assert 0 < data["distinct_part"] < 1
    unweighted = panda_trainer()
    unweighted.run(NUM_STEPS)
    assert unweighted.stack.data.describe()["effective_part"] == 1


def loss_over_all_images(trainer):
    """Mean over a few uniform networks."""
    images, labels = ToyBatches(batch_size=64).batch(0, positions=np.arange(64))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        networks = [trainer.supernet.space.sample(rng) for _ in range(6)]
        losses = [F.cross_entropy(trainer.supernet.train()(images, a), labels) for a in networks]
    return float(torch.stack(losses).mean())


def test_the_loss_over_all_images_falls():
    """Over those drawn it need not: ever more of them are the hard ones."""
    trainer = panda_trainer(space=SPACES["micro_8"], epochs=10, batch_size=16, base_learning_rate=0.1)
    before = loss_over_all_images(trainer)
    trainer.run()
    assert loss_over_all_images(trainer) < 0.3 * before


def test_the_panda_recipe_is_the_papers_one_network_a_step_without_weights():
    recipe = RECIPES["panda"]
    assert (recipe.sampler, recipe.num_random, recipe.importance_weighting) == ("uniform", 1, "none")
    assert (recipe.random_paths, recipe.data_sampler) == ("importance", "importance")
    assert (recipe.importance_limit, recipe.carry_scores, recipe.normalise_path_norms) == (1.0, False, False)
