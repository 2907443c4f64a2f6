"""ShiftNAS (Zhang et al., ICCV 2023): the lettered laws, each under its letter."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.stats import chisquare

from nas.costs import costs
from nas.errors import InvalidRequestError
from nas.recipes import RECIPES
from nas.subspace import SubSpace
from search_spaces import SPACES
from supernet.data import (
    Augmentation,
    DataSource,
    SourceKind,
    TrainingBatches,
    load_source,
    make_splits,
)
from supernet.gates import Gates, gated_architecture, hard_gates
from supernet.training import TorchCollective, build_stack, load_checkpoint, save_checkpoint
from supernet.training.cost_bins import CostBins, gradient_by_score, gradient_through_generator
from supernet.training.paths import Role, SandwichSampler
from supernet.training.shift_paths import ShiftPaths
from supernet.training.shrink import Phase
from tests.training.toy import (
    RecordingSupernet,
    ToyBatches,
    gradients_of,
    step_context,
    toy_recipe,
    toy_supernet,
    toy_trainer,
    wake_gammas,
)

NUM_BINS = 8
SPACE = SPACES["micro_8"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shift_recipe(**overrides):
    return toy_recipe("shiftnas", **{"generator_batch": 2, "num_bins": NUM_BINS, **overrides})


def shift_trainer(**overrides):
    trainer = toy_trainer(recipe=shift_recipe(**overrides))
    wake_gammas(trainer.supernet)
    return trainer


def paths_of(trainer):
    return trainer.stack.sampler.paths


def gumbel(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).gumbel(size=shape)).float()


# (a)


def test_a_bins_are_constant_through_the_warm_up_then_updated_exactly_every_interval():
    # 2 epochs of 4 steps, half of them warm-up, updates every second step.
    trainer = shift_trainer(epochs=3, bin_warmup_fraction=0.5, bin_interval=2)
    bins = paths_of(trainer).bins.module
    changed = []
    for step in range(12):
        before = bins.logits.detach().clone()
        trainer.run(1)
        if not torch.equal(before, bins.logits):
            changed.append(step)
        if step < 6:
            assert torch.equal(bins.probabilities(), torch.full((NUM_BINS,), 1 / NUM_BINS))
    assert changed == [6, 8, 10]
    assert paths_of(trainer).num_updates == 3


def test_a_the_previous_weights_are_those_of_one_interval_before():
    trainer = shift_trainer(epochs=3, bin_warmup_fraction=0.5, bin_interval=2)
    weights = {}
    for step in range(12):
        weights[step] = {n: p.detach().clone() for n, p in trainer.supernet.named_parameters()}
        trainer.run(1)
        kept = paths_of(trainer)._previous
        if step < 4:
            assert not kept
        else:
            assert all(torch.equal(kept[name], weight) for name, weight in weights[step // 2 * 2].items())


def test_a_bins_learn_from_held_out_images_alone(monkeypatch):
    trainer = shift_trainer(bin_warmup_fraction=0.0, bin_interval=2)
    asked, seen = [], []
    held_out = trainer._batches.held_out
    monkeypatch.setattr(
        trainer._batches, "held_out", lambda number, *more: asked.append(number) or held_out(number, *more)
    )
    forward = trainer.supernet.forward
    monkeypatch.setattr(
        trainer.supernet, "forward", lambda images, *a, **k: seen.append(images) or forward(images, *a, **k)
    )
    trainer.run(5)
    assert asked == [1, 2]
    batches = ToyBatches()
    training = [batches.batch(step)[0] for step in range(5)]
    kept = [held_out(number)[0] for number in asked]
    expected = [training[0], training[1], kept[0], kept[0], training[2], training[3]]
    expected += [kept[1], kept[1], training[4]]
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


@pytest.mark.parametrize("fraction", [0.04, 0.3])
def test_a_held_out_images_are_in_no_training_batch_however_images_are_drawn(fraction):
    splits = make_splits(load_source(DataSource(kind=SourceKind.BUNDLED, name="digits")))
    batches = TrainingBatches(
        splits, 16, 0, Augmentation(crop_padding=0, horizontal_flip=False), held_out_fraction=fraction
    )
    num_kept = round(fraction * len(splits.train))
    assert batches.num_images == len(splits.train) - num_kept

    def keys(images):
        return {image.numpy().tobytes() for image in images}

    kept = set().union(*(keys(batches.held_out(number)[0]) for number in range(-(-num_kept // 16))))
    in_order = set().union(*(keys(batches.batch(step)[0]) for step in range(batches.steps_per_epoch)))
    positions = np.arange(batches.num_images)
    padded = np.resize(positions, -(-len(positions) // 16) * 16).reshape(-1, 16)
    drawn = set().union(*(keys(batches.batch(0, positions=row)[0]) for row in padded))
    assert len(kept) == num_kept
    assert not kept & drawn
    assert not kept & in_order
    assert len(kept | drawn) == len(splits.train)


# (b)


@pytest.mark.parametrize("bin_gradient", ["generator", "score"])
def test_b_without_a_change_of_weights_the_bins_have_a_gradient_of_0(bin_gradient):
    trainer = shift_trainer(bin_gradient=bin_gradient)
    paths, context = paths_of(trainer), trainer._context(0, trainer.stack.data.draw(0))
    paths.before_step(0, trainer.supernet, None)
    with torch.no_grad():
        # Else it writes the same for every cost, and no bin differs from another.
        for parameter in paths.generator.module.parameters():
            parameter.mul_(10)
    weights = {name: p.detach().clone() for name, p in trainer.supernet.named_parameters()}
    paths._previous = weights
    assert torch.equal(paths._bin_gradient(context), torch.zeros(NUM_BINS))
    generator = torch.Generator().manual_seed(0)
    paths._previous = {n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    assert paths._bin_gradient(context).abs().sum() > 0


# (c)


def reached_by(paths, seed):
    """Where in the range of costs the network written for a place lies, with other noise each time."""
    numbers = count(seed)

    def reached(place):
        one_hots = paths.write(place[None], gumbel(next(numbers), 1, paths.num_gates))
        low, high = paths._pricing.range.low, paths._pricing.range.high
        return (paths._pricing.macs(Gates(SPACE, one_hots))[0] - low) / (high - low)

    return reached


def learned(gradient_of, *, num_updates):
    """Probabilities of bins that were all alike."""
    bins = CostBins(NUM_BINS)
    adam = torch.optim.Adam(bins.parameters(), lr=0.02)
    for update in range(num_updates):
        bins.logits.grad = gradient_of(bins, update)
        adam.step()
    return bins.probabilities().tolist()


@pytest.mark.parametrize("sign", [1, -1])
def test_c_the_variant_by_score_finds_the_one_bin_whose_loss_has_changed(taught, sign):
    reached, centre = reached_by(taught, 0), taught.bins.module.places[2]

    def change(place):
        return -sign * torch.exp(-(((reached(place) - centre) * NUM_BINS / 0.7) ** 2))

    probabilities = learned(lambda bins, _: gradient_by_score(bins, change), num_updates=60)
    assert probabilities[2] == (max if sign > 0 else min)(probabilities)
    assert (probabilities[2] * NUM_BINS - 1) * sign > 0.2


@pytest.mark.parametrize("sign", [1, -1])
def test_c_through_the_generator_mass_moves_to_where_the_loss_falls_fastest(taught, sign):
    """A change that is least at bin 2 and grows with the distance: a slope says nothing of a single bin."""
    reached, centre = reached_by(taught, 0), taught.bins.module.places[2]

    def gradient_of(bins, update):
        noise = gumbel(5000 + update, NUM_BINS)
        return gradient_through_generator(
            bins, noise, lambda place: sign * (reached(place) - centre) ** 2, temperature=1.0
        )

    probabilities = learned(gradient_of, num_updates=200)
    if sign > 0:
        assert probabilities[2] > 1.5 / NUM_BINS
        assert sum(probabilities[4:]) < 0.25
    else:
        assert probabilities[2] < 0.5 / NUM_BINS
        assert sum(probabilities[4:]) > 0.75


def test_c_the_written_cost_follows_the_one_asked_for(taught):
    """Without this slope of about 1 no gradient of the loss would reach the bins."""
    reached = reached_by(taught, 0)
    slopes = []
    for place in taught.bins.module.places[1:-1].repeat(10):
        leaf = place.clone().requires_grad_()
        reached(leaf).backward()
        slopes.append(leaf.grad.item())
    assert 0.7 < np.mean(slopes) < 1.3


@pytest.fixture(scope="module")
def weights_before_and_after():
    """Of a short run, and the same with noise in what only dear networks have: the upper half of what each
    block expands to."""
    torch.set_num_threads(1)
    trainer = toy_trainer(recipe=toy_recipe("bignas", epochs=5))
    trainer.run()
    after = {name: weight.detach().clone() for name, weight in trainer.supernet.named_parameters()}
    before = {name: weight.clone() for name, weight in after.items()}
    generator = torch.Generator().manual_seed(0)
    for name, weight in before.items():
        if name.endswith("project.weights.weight"):
            upper = weight[:, weight.shape[1] // 2 :]
            upper += 0.5 * torch.randn(upper.shape, generator=generator)
    return before, after


def held_out_loss(trainer, network, weights):
    """On one batch of the images kept from training."""
    images, labels = ToyBatches().held_out(0)
    logits = torch.func.functional_call(trainer.supernet, weights, (images, network))
    return torch.nn.functional.cross_entropy(logits, labels).item()


def updated_bins(taught, previous, now, *, bin_gradient, num_updates):
    """The trainer whose bins learned, by updates of their own, from these two states of the weights."""
    trainer = shift_trainer(
        bin_gradient=bin_gradient, bin_interval=1, bin_warmup_fraction=0.0, bin_learning_rate=0.05
    )
    paths = paths_of(trainer)
    paths.before_step(0, trainer.supernet, None)
    paths.generator.module.load_state_dict(taught.generator.module.state_dict())
    with torch.no_grad():
        for name, parameter in trainer.supernet.named_parameters():
            parameter.copy_(now[name])
    for step in range(num_updates):
        # An update remembers the weights of today, and nothing is trained here.
        paths._previous = previous
        paths._update_bins(trainer._context(step, trainer.stack.data.draw(step)))
    assert paths.num_updates == num_updates
    return trainer


@pytest.mark.parametrize(("bin_gradient", "num_updates"), [("score", 8), ("generator", 40)])
@pytest.mark.parametrize("has_fallen", [True, False])
def test_c_bins_learn_from_two_states_of_the_weights_that_mass_goes_where_the_loss_has_fallen(
    taught, weights_before_and_after, bin_gradient, num_updates, has_fallen
):
    """By the slope of the loss through the generator it is the mean cost that follows, not a single bin."""
    previous, now = weights_before_and_after if has_fallen else reversed(weights_before_and_after)
    trainer = updated_bins(taught, previous, now, bin_gradient=bin_gradient, num_updates=num_updates)

    def change(network):
        return held_out_loss(trainer, network, now) - held_out_loss(trainer, network, previous)

    assert change(SPACE.smallest()) == 0
    assert change(SPACE.largest()) < -0.3 if has_fallen else change(SPACE.largest()) > 0.3
    bins = paths_of(trainer).bins.module
    probabilities = bins.probabilities()
    mean_place = (probabilities @ bins.places).item()
    assert mean_place > 0.55 if has_fallen else mean_place < 0.45
    if bin_gradient == "score":
        dear, cheap = probabilities[4:], probabilities[:2]
        assert dear.min() > cheap.max() if has_fallen else dear.max() < cheap.min()


def test_c_the_level_of_the_loss_moves_nothing():
    """Bins of dear networks have lower losses; only a change counts."""
    bins = CostBins(NUM_BINS)
    assert torch.equal(gradient_by_score(bins, lambda place: torch.tensor(-0.3)), torch.zeros(NUM_BINS))


# (d)

NUM_TEACHING_STEPS = 950


@pytest.fixture(scope="module")
def taught():
    """A generator at the end of a warm-up on the cost's loss alone."""
    torch.set_num_threads(1)
    recipe = shift_recipe(generator_batch=64)
    num_steps = round(NUM_TEACHING_STEPS / recipe.bin_warmup_fraction)
    paths = ShiftPaths(recipe, SPACE, seed=0, num_steps=num_steps)
    supernet = toy_supernet()
    for step in range(NUM_TEACHING_STEPS):
        paths.before_step(step, supernet, None)
        paths.observe(step, (), None)
    return paths


def written_macs(paths, place, noise):
    """By the counter of the lowering, of what is written for a cost."""
    with torch.no_grad():
        rows = paths.write(place.expand(len(noise)), noise)
    networks = [gated_architecture(SPACE, Gates(SPACE, row)) for row in rows]
    return np.array([costs(SPACE, network, num_classes=4)["macs"] for network in networks])


def test_d_the_generator_meets_the_cost_of_every_bin_within_3_percent(taught):
    noise = gumbel(0, 100, taught.num_gates)
    for place in taught.bins.module.places:
        asked = taught._pricing.range.macs(place).item()
        errors = np.abs(written_macs(taught, place, noise) / asked - 1)
        assert np.median(errors) < 0.03


def test_d_the_extreme_bins_are_next_to_the_ends_of_the_space(taught):
    low, high = (costs(SPACE, end, num_classes=4)["macs"] for end in (SPACE.smallest(), SPACE.largest()))
    macs = taught._pricing.range.macs(taught.bins.module.places)
    width = (high - low) / NUM_BINS
    expected = low + width * (np.arange(NUM_BINS) + 0.5)
    np.testing.assert_allclose(macs, expected, rtol=1e-6)


def test_d_it_is_no_table_of_one_network_a_cost(taught):
    noise = gumbel(0, 100, taught.num_gates)
    for place in taught.bins.module.places:
        with torch.no_grad():
            rows = taught.write(place.expand(100), noise)
        assert len({tuple(row) for row in rows.tolist()}) > 10
    # And the cost is what it listens to.
    with torch.no_grad():
        same_noise = taught.write(taught.bins.module.places, noise[:1].expand(NUM_BINS, -1))
    assert len({tuple(row) for row in same_noise.tolist()}) == NUM_BINS


# (e)


@pytest.mark.parametrize("logits", [[0.0] * NUM_BINS, [1.0, 0.5, 0.0, -0.5, 0.0, 0.0, 0.5, 2.0]])
def test_e_bins_are_drawn_by_their_probabilities(logits):
    paths = ShiftPaths(shift_recipe(), SPACE, seed=0, num_steps=100)
    with torch.no_grad():
        paths.bins.module.logits.copy_(torch.tensor(logits))
    drawn = torch.cat([paths.drawn_bins(step, 1) for step in range(4000)])
    counts = np.bincount(drawn, minlength=NUM_BINS)
    expected = paths.bins.module.probabilities().detach().double().numpy()
    assert chisquare(counts, 4000 * expected / expected.sum()).pvalue > 0.001


def test_e_costs_of_trained_networks_follow_the_bins_and_are_no_bell(taught):
    """Uniformly drawn networks pile up in the middle; those drawn by bins reach the ends as often."""
    drawn = torch.cat([taught.drawn_bins(step, 1) for step in range(400)])
    with torch.no_grad():
        places = taught.bins.module.places[drawn]
        rows = taught.write(places, gumbel(7, 400, taught.num_gates))
    macs = taught._pricing.macs(Gates(SPACE, rows)).numpy()
    low, high = taught._pricing.range.low, taught._pricing.range.high
    counts, _ = np.histogram(macs, bins=NUM_BINS, range=(low, high))
    assert chisquare(counts).pvalue > 0.001
    rng = np.random.default_rng(0)
    uniform = [costs(SPACE, SPACE.sample(rng), num_classes=4)["macs"] for _ in range(400)]
    counts, _ = np.histogram(uniform, bins=NUM_BINS, range=(low, high))
    assert chisquare(counts).pvalue < 1e-20


# (f)


def generator_gradients(*, cost_weight, is_taught_by_task):
    """Of one step, as the generator's optimizer gets them."""
    trainer = shift_trainer(cost_weight=cost_weight)
    paths = paths_of(trainer)
    gradients = []
    paths.generator.step = lambda rate: gradients.extend(
        p.grad.abs().sum().item() for p in paths.generator.module.parameters()
    )
    if is_taught_by_task:
        trainer.train_step(0)
    else:
        paths.before_step(0, trainer.supernet, None)
        paths.observe(0, (), None)
    return gradients


def test_f_the_task_alone_teaches_the_generator():
    assert all(gradient > 0 for gradient in generator_gradients(cost_weight=0.0, is_taught_by_task=True))


def test_f_the_cost_alone_teaches_the_generator():
    assert all(gradient > 0 for gradient in generator_gradients(cost_weight=1.0, is_taught_by_task=False))
    assert not any(generator_gradients(cost_weight=0.0, is_taught_by_task=False))


def test_f_the_tasks_gradient_is_that_of_the_loss_by_the_gates():
    trainer = shift_trainer()
    gates = []
    observe = paths_of(trainer).observe
    paths_of(trainer).observe = lambda step, slots, gradients: (
        gates.append(slots[0].gates), observe(step, slots, gradients)
    )  # fmt: skip
    other = shift_trainer()
    stats = trainer.train_step(0)
    images, labels = ToyBatches().batch(0)
    leaf = gates[0].flat.detach().clone().requires_grad_()
    logits = other.supernet(images, stats.slots[0].architecture, gates=Gates(SPACE, leaf))
    smoothing = trainer.stack.recipe.label_smoothing
    torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing).backward()
    torch.testing.assert_close(gates[0].flat.grad, leaf.grad)


# (g)


@pytest.mark.parametrize("name", sorted(name for name, space in SPACES.items() if space.is_weight_entangled))
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_g_the_network_masked_by_hard_gates_is_the_sliced_one(name, mode):
    space = SPACES[name]
    supernet = wake_gammas(toy_supernet(space=name)).train(mode == "train")
    side = space.resolutions_px()[0]
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    count = 6 if name.startswith("micro") else 1
    with torch.no_grad():
        for architecture in (space.largest(), space.smallest(), *(space.sample(rng) for _ in range(count))):
            # The smallest images: what is masked does not depend on them.
            smallest = {"resolution": side} if len(space.resolutions_px()) > 1 else {}
            architecture = space.parse({**dict(architecture.choices), **smallest})
            sliced = supernet(images, architecture)
            gated = supernet(images, architecture, gates=hard_gates(space, architecture))
            assert (sliced - gated).abs().max() < 1e-5
            assert sliced.abs().max() > 1e-2


# Beside the letters


def test_one_network_a_step_without_a_sandwich():
    trainer = toy_trainer(kind=RecordingSupernet, recipe=shift_recipe(bin_warmup_fraction=1.0))
    stats = trainer.train_step(0)
    assert [slot.role for slot in stats.slots] == [Role.RANDOM]
    assert [call[0] for call in trainer.supernet.calls] == [stats.slots[0].architecture]


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    options = {"epochs": 3, "bin_warmup_fraction": 0.2, "bin_interval": 2}
    undisturbed = shift_trainer(**options)
    undisturbed.run()
    first = shift_trainer(**options)
    first.run(7)
    path = save_checkpoint(first.state(), tmp_path)
    resumed = shift_trainer(**options)
    resumed.run(2)
    assert resumed.restore(load_checkpoint(path)) == ()
    resumed.run()
    assert paths_of(resumed).num_updates == paths_of(undisturbed).num_updates > 2
    expected, found = undisturbed.state(), resumed.state()
    for part in ("weights", "optimizer"):
        pairs = getattr(expected, part)
        assert all(torch.equal(getattr(found, part)[name], value) for name, value in pairs.items())
    learned = expected.strategies["sampler"]
    assert learned.keys() == found.strategies["sampler"].keys()
    for name, value in learned.items():
        assert torch.equal(torch.as_tensor(found.strategies["sampler"][name]), torch.as_tensor(value))


class CountingCollective(TorchCollective):
    def __init__(self):
        self.sizes = []

    def all_reduce_sum(self, flat):
        self.sizes.append(len(flat))
        super().all_reduce_sum(flat)


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    collective = CountingCollective()
    recipe = shift_recipe(epochs=2, bin_warmup_fraction=0.0, bin_interval=2)
    trainer = toy_trainer(recipe=recipe, collective=collective)
    wake_gammas(trainer.supernet)
    networks = []
    trainer.run(6, on_step=lambda stats: networks.append(stats.slots[0].architecture.to_json()))
    state = trainer.state()
    result = {"weights": dict(state.weights), "learned": dict(state.strategies["sampler"])}
    torch.save({**result, "networks": networks, "sizes": collective.sizes}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_learn_the_same_with_one_reduction_a_step_and_one_an_update_of_the_bins(tmp_path):
    mp.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["networks"] == other["networks"]
    assert one["learned"]["num_updates"] == 2
    for part in ("weights", "learned"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[part][name])), name
    assert len(one["sizes"]) == 6 + 2
    assert one["sizes"].count(NUM_BINS) == 2


def test_a_sandwich_is_legal_and_every_random_network_teaches_the_generator():
    trainer = shift_trainer(sampler="sandwich", num_random=2, epochs=1)
    stats = trainer.train_step(0)
    assert [slot.role for slot in stats.slots] == [Role.MAX, Role.RANDOM, Role.RANDOM, Role.MIN]
    assert [slot.gates is not None for slot in stats.slots] == [False, True, True, False]
    assert all(slot.gates.flat.grad.any() for slot in stats.slots[1:3])


def test_exact_weights_of_images_make_up_for_their_draws_beside_shift_sampling():
    """They weigh images alone: the network of a step is written before it has seen any."""
    options = {"data_sampler": "importance", "importance_weighting": "exact", "clip": "none", "epochs": 6}
    trainer = shift_trainer(**options, bin_warmup_fraction=1.0, base_learning_rate=0.02)
    num_before = 4 * trainer._batches.steps_per_epoch
    trainer.run(num_before)
    draw = trainer.stack.data.draw(num_before)
    likely = trainer.stack.data.state_dict()["probabilities"].numpy()[draw.positions_n]
    np.testing.assert_allclose(draw.weights_n, 1 / (trainer._batches.num_images * likely))
    assert draw.weights_n.std() > 0.1
    contexts = [step_context(step, supernet=trainer.supernet) for step in (num_before, num_before + 1)]
    contexts[1] = replace(contexts[1], step=num_before)
    assert not torch.equal(contexts[0].images, contexts[1].images)
    phase = trainer.stack.shrink.phase(num_before)
    (slot,), (other,) = (trainer.stack.sampler.propose(phase, context) for context in contexts)
    assert slot == other
    assert slot.importance == 1

    images, labels = trainer._batches.batch(num_before, positions=draw.positions_n)
    smoothing = trainer.stack.recipe.label_smoothing
    losses = torch.nn.functional.cross_entropy(
        trainer.supernet.train()(images, slot.architecture),
        labels,
        reduction="none",
        label_smoothing=smoothing,
    )
    weighed = (losses * torch.from_numpy(draw.weights_n)).mean()
    parameters = list(trainer.supernet.parameters())
    by_hand = torch.autograd.grad(weighed, parameters, materialize_grads=True)
    trainer.train_step(num_before)
    torch.testing.assert_close(
        gradients_of(trainer.supernet),
        torch.cat([g.flatten() for g in by_hand]).float(),
        rtol=1e-3,
        atol=1e-5,
    )


def test_before_other_networks_run_the_generator_learns_its_cost_and_no_weights_are_remembered():
    """As under a delayed schedule, whose sort of channels then lies between no two remembered weights."""
    paths = ShiftPaths(shift_recipe(bin_warmup_fraction=0.0, bin_interval=1), SPACE, seed=0, num_steps=100)
    sampler, supernet = SandwichSampler(paths), toy_supernet()
    phases = {0: 0.0, 1: 0.0, 2: 0.5, 3: 1.0}
    for step, epsilon in phases.items():
        before = [p.detach().clone() for p in paths.generator.module.parameters()]
        sampler.before_step(step, supernet, None)
        phase = Phase(space=SubSpace(SPACE), num_random=1, epsilon=epsilon)
        slots = sampler.propose(phase, step_context(step, supernet=supernet))
        assert bool(paths._previous) == (epsilon > 0)
        assert len(slots) == (1 if epsilon == 0 else 3)
        sampler.observe(step, (), None)
        after = list(paths.generator.module.parameters())
        assert not all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert paths.num_updates == 1


@pytest.mark.parametrize("name", sorted(n for n, space in SPACES.items() if not space.is_weight_entangled))
def test_spaces_that_choose_operations_are_refused_with_the_reason(name):
    with pytest.raises(InvalidRequestError, match=f"space '{name}' lacks the weights of other operations"):
        build_stack(RECIPES["shiftnas"], SPACES[name], steps_per_epoch=10, seed=0)


def test_what_was_learned_can_be_seen():
    trainer = shift_trainer(bin_warmup_fraction=0.0, bin_interval=2)
    trainer.run(4)
    seen = trainer.stack.sampler.describe()
    assert len(seen["bins_macs"]) == len(seen["bin_probabilities"]) == NUM_BINS
    assert sum(seen["bin_probabilities"]) == pytest.approx(1)
    assert seen["bin_updates"] == 1
    assert seen["cost_error"] > 0
