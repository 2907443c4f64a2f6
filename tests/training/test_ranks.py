"""Two ranks against one process: the same gradients, one reduction a step, replicas alike."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from nas.recipes import RECIPES
from supernet.elastic.batch_norm import EPS, normalise_by_batch
from supernet.network import WEIGHTED
from supernet.training import SingleProcess, build_stack
from supernet.training.batch_norm import BatchNormPolicy, LocalBatchNorm, SynchronisedBatchNorm
from supernet.training.paths import SandwichSampler
from tests.training.toy import ToyBatches, gradients_of, toy_recipe, toy_trainer
from tests.training.two_ranks import WORLD_SIZE, on_two_ranks
from tests.training.watchers import GivenData, WatchingPaths, trainer_with

NUM_STEPS = 2
UNEQUAL_WEIGHTS = [0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 0.25, 1.0]


class FrozenBatchNorm(BatchNormPolicy):
    """The same mean and variance for every batch, so that ranks have nothing to differ in."""

    def normaliser(self, collective):
        del collective
        return _normalise_frozen


def _normalise_frozen(x, slot, weight, bias):
    generator = torch.Generator().manual_seed(sum(slot.encode()))
    mean = 0.1 * torch.randn(512, generator=generator).to(x)[: x.shape[1]]
    variance = (0.5 + torch.rand(512, generator=generator)).to(x)[: x.shape[1]]
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=EPS)


class BatchNormByHalves(BatchNormPolicy):
    """In one process, what two ranks with batch norms of their own do."""

    def normaliser(self, collective):
        del collective

        def normalise(x, slot, weight, bias):
            return torch.cat([normalise_by_batch(half, slot, weight, bias) for half in x.chunk(WORLD_SIZE)])

        return normalise


POLICIES = {"frozen": FrozenBatchNorm, "synchronised": SynchronisedBatchNorm, "local": LocalBatchNorm}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def flat_weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.supernet.parameters()])


# What runs, on a rank or alone


def gradients(collective, *, policy, dtype):
    trainer = trainer_with(dtype=DTYPES[dtype], batch_norm=policy(), collective=collective)
    steps = []
    for step in range(NUM_STEPS):
        losses = trainer.train_step(step).slot_losses
        steps.append({"losses": losses, "gradient": gradients_of(trainer.supernet).clone()})
    return {"steps": steps, "weights": flat_weights(trainer)}


def everything_shown(collective):
    """Own gradients, scores and weighted images."""
    paths, data = WatchingPaths(), GivenData(positions=[5, 3, 3, 9, 20, 31, 0, 1], weights=UNEQUAL_WEIGHTS)
    trainer = trainer_with(
        sampler=SandwichSampler(paths), data=data, batch_norm=SynchronisedBatchNorm(), collective=collective
    )
    trainer.train_step(0)
    return {"parts": paths.seen[0][1], "scores": data.seen[0][1]}


def exchanges(collective, *, policy):
    trainer = trainer_with(batch_norm=policy(), collective=collective)
    lowered = [
        sum(layer.bn for layer in trainer.supernet.lower(slot.architecture) if layer.kind in WEIGHTED)
        for step in range(NUM_STEPS)
        for slot in trainer.train_step(step).slots
    ]
    return {
        "lengths": collective.lengths,
        "length_of_all": trainer._gradients._buffer.numel(),
        "num_batch_norms": sum(lowered),
    }


def recipe_run(collective, *, name):
    """A short run of a recipe, from other weights on each rank than on rank 0."""
    # Each phase of progressive shrinking takes a step at least.
    recipe = toy_recipe(name, base_learning_rate=0.02, epochs=7 if name == "ofa" else 2)
    trainer = toy_trainer(recipe=recipe, seed=0, collective=None)
    with torch.no_grad():
        for parameter in trainer.supernet.parameters():
            parameter.add_(float(collective.rank))
    batches = ToyBatches(batch_size=recipe.batch_size)
    stack = build_stack(
        recipe, trainer.supernet.space, steps_per_epoch=batches.steps_per_epoch, seed=0,
        num_images=batches.num_images,
    )  # fmt: skip
    trainer = type(trainer)(trainer.supernet, batches, stack, collective=collective)
    slots, unused = [], 0
    while trainer.step < stack.num_steps:
        stats = trainer.train_step(trainer.step)
        slots.append([(slot.role.value, slot.architecture.key, slot.importance) for slot in stats.slots])
        # What is not trained in a phase has no gradient at all.
        unused += sum(p.grad is not None and not p.grad.any() for p in trainer.supernet.parameters())
    state = trainer.state()
    tensors = {
        f"{strategy}/{name}": value
        for strategy, kept in state.strategies.items()
        for name, value in kept.items()
    }
    return {
        "slots": slots,
        "num_unused": unused,
        "weights": flat_weights(trainer),
        "optimizer": torch.cat([v.flatten() for _, v in sorted(state.optimizer.items())]),
        "learned": tensors,
        "described": [repr(strategy.describe()) for strategy in stack.strategies.values()],
    }


SCENARIOS = {
    **{
        f"{policy} {dtype}": partial(gradients, policy=POLICIES[policy], dtype=dtype)
        for policy in POLICIES
        for dtype in DTYPES
    },
    "everything shown": everything_shown,
    **{f"exchanges {policy}": partial(exchanges, policy=POLICIES[policy]) for policy in POLICIES},
    **{f"recipe {name}": partial(recipe_run, name=str(name)) for name in RECIPES},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What every scenario came to, on each rank."""
    return on_two_ranks(SCENARIOS, tmp_path_factory.mktemp("ranks"))


# Gradients


def relative_difference(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("policy", ["frozen", "synchronised"])
def test_two_ranks_have_the_gradients_of_one_process(ranks, policy, dtype, allowed):
    first, second = ranks[f"{policy} {dtype}"]
    alone = gradients(SingleProcess(), policy=POLICIES[policy], dtype=dtype)
    for ours, theirs, expected in zip(first["steps"], second["steps"], alone["steps"], strict=True):
        assert torch.equal(ours["gradient"], theirs["gradient"])
        assert ours["losses"] == theirs["losses"]
        assert relative_difference(ours["gradient"], expected["gradient"]) < allowed
        worst = (ours["gradient"] - expected["gradient"]).abs().max()
        assert worst < allowed * expected["gradient"].abs().max()
        assert ours["losses"] == pytest.approx(expected["losses"], rel=10 * allowed)
    assert relative_difference(first["weights"], alone["weights"]) < allowed


def test_with_batch_norm_local_two_ranks_differ_from_one_process_by_the_statistics_alone(ranks):
    first, second = ranks["local float64"]
    by_halves = gradients(SingleProcess(), policy=BatchNormByHalves, dtype="float64")
    whole = gradients(SingleProcess(), policy=LocalBatchNorm, dtype="float64")
    for ours, expected in zip(first["steps"], by_halves["steps"], strict=True):
        assert relative_difference(ours["gradient"], expected["gradient"]) < 1e-10
    assert torch.equal(first["weights"], second["weights"])
    assert relative_difference(first["weights"], by_halves["weights"]) < 1e-10
    # And that is not little: half of eight images has other means than the eight.
    assert relative_difference(first["steps"][0]["gradient"], whole["steps"][0]["gradient"]) > 0.1


def test_what_a_step_shows_its_strategies_is_of_the_whole_batch(ranks):
    first, second = ranks["everything shown"]
    alone = everything_shown(SingleProcess())
    for ours in (first, second):
        torch.testing.assert_close(ours["scores"], alone["scores"], rtol=1e-10, atol=1e-12)
        assert relative_difference(ours["parts"], alone["parts"]) < 1e-10
    assert alone["scores"].all()
    assert torch.equal(first["parts"], second["parts"])


# Exchanges


@pytest.mark.parametrize("policy", ["frozen", "local"])
def test_a_step_makes_one_reduction(ranks, policy):
    for rank in ranks[f"exchanges {policy}"]:
        assert rank["lengths"] == NUM_STEPS * [rank["length_of_all"]]


def test_synchronised_batch_norm_adds_two_small_exchanges_a_layer_each_way(ranks):
    for rank in ranks["exchanges synchronised"]:
        large = [length for length in rank["lengths"] if length == rank["length_of_all"]]
        small = [length for length in rank["lengths"] if length != rank["length_of_all"]]
        assert len(large) == NUM_STEPS
        assert len(small) == 4 * rank["num_batch_norms"]
        assert max(small) < 1000


def test_in_one_process_synchronised_batch_norm_is_batch_norm():
    assert SynchronisedBatchNorm().normaliser(SingleProcess()) is normalise_by_batch


# Replicas


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_ranks_train_the_same_networks_and_stay_the_same_replica(ranks, name):
    first, second = ranks[f"recipe {name}"]
    assert first["slots"] == second["slots"]
    assert torch.equal(first["weights"], second["weights"])
    assert torch.equal(first["optimizer"], second["optimizer"])
    assert first["learned"].keys() == second["learned"].keys()
    for key, value in first["learned"].items():
        other = second["learned"][key]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, key
    assert first["described"] == second["described"]


def test_steps_that_leave_parameters_unused_are_among_them(ranks):
    for rank in ranks["recipe spos"]:
        assert rank["num_unused"] > 0
