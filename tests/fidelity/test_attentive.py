"""AttentiveNAS (Wang et al., CVPR 2021): the lettered laws of its sampling, each under its letter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from scipy.stats import chi2_contingency

from nas.costs import costs
from nas.recipe_choices import AttentionKind
from nas.recipes import RECIPES
from nas.subspace import SubSpace
from search_spaces import SPACES
from supernet.training import TorchCollective, build_stack, load_checkpoint, save_checkpoint
from supernet.training.attentive_paths import AttentivePaths
from supernet.training.budget_tables import MAX_RETRIES, BudgetTables
from supernet.training.paths import Role, SandwichSampler
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase
from tests.training.toy import (
    RecordingSupernet,
    step_context,
    toy_recipe,
    toy_supernet,
    toy_trainer,
    wake_gammas,
)

SPACE = SPACES["micro_8"]
PHASE = Phase(space=SubSpace(SPACE), num_random=2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def supernet():
    """One whose networks differ in their losses."""
    return wake_gammas(toy_supernet(RecordingSupernet)).train()


def attentive_paths(*, seed=0, attention="best_up", num_candidates=3, num_bins=8, label_smoothing=0.0):
    return AttentivePaths(
        seed,
        attention=AttentionKind(attention),
        num_candidates=num_candidates,
        num_bins=num_bins,
        label_smoothing=label_smoothing,
    )


def drawn_and_measured(supernet, paths, step):
    """(slots of the step, for each its candidates with their logits), and the labels."""
    context = step_context(step, supernet=supernet)
    supernet.calls.clear()
    slots = paths.draw(PHASE, context)
    calls = [(call[0], call[3]) for call in supernet.calls]
    size = len(calls) // len(slots)
    groups = [calls[start : start + size] for start in range(0, len(calls), size)]
    return slots, groups, context.labels_n


def macs_of(architecture):
    return costs(SPACE, architecture, num_classes=4)["macs"]


# (b)


@pytest.mark.parametrize(("attention", "best"), [("best_up", min), ("worst_up", max)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_b_the_pick_is_the_candidate_of_the_smallest_or_the_largest_loss(
    supernet, attention, best, label_smoothing
):
    paths = attentive_paths(attention=attention, label_smoothing=label_smoothing)
    places = Counter()
    for step in range(8):
        slots, groups, labels = drawn_and_measured(supernet, paths, step)
        for slot, group in zip(slots, groups, strict=True):
            target = (1 - label_smoothing) * F.one_hot(labels, 4) + label_smoothing / 4
            losses = [-(target * logits.log_softmax(1)).sum().item() for _, logits in group]
            place = losses.index(best(losses))
            assert slot.architecture == group[place][0]
            places[place] += 1
    assert set(places) == {0, 1, 2}


def test_b_the_candidates_of_a_slot_are_of_one_budget_and_slots_of_several(supernet):
    paths = attentive_paths()
    edges = paths.tables(PHASE.space, supernet).budgets.edges_macs
    budgets = Counter()
    num_alike = num_distinct = 0
    for step in range(25):
        _, groups, _ = drawn_and_measured(supernet, paths, step)
        for group in groups:
            bins = {int(np.searchsorted(edges, macs_of(a), side="right")) for a, _ in group}
            num_alike += len(bins) == 1
            num_distinct += len({a for a, _ in group}) == 3
            budgets.update(bins)
    # One that misses its budget a hundred times over is accepted anyway, but that is rare.
    assert num_alike >= 49
    assert num_distinct >= 49
    assert len(budgets) >= 4


def test_b_a_candidate_is_drawn_anew_until_its_macs_match_and_then_accepted_anyway(supernet, monkeypatch):
    tables = attentive_paths().tables(PHASE.space, supernet)
    tried = []

    def never(self, architecture):
        tried.append(architecture)
        return -1

    monkeypatch.setattr(BudgetTables, "bin_of", never)
    drawn = tables.draw_within(2, generator_for(0, Stream.PATH, 0, 0))
    assert len(tried) == MAX_RETRIES + 1 == 101
    assert drawn == tried[-1]
    tried.clear()
    monkeypatch.setattr(BudgetTables, "bin_of", lambda self, a: never(self, a) + 3 * (len(tried) == 5))
    assert tables.draw_within(2, generator_for(0, Stream.PATH, 0, 0)) == tried[-1]
    assert len(tried) == 5


def test_b_candidates_are_measured_as_the_step_normalises_without_dropout_or_gradient(supernet):
    paths = attentive_paths()
    asked = []

    def normalise(x, slot, weight, bias):
        asked.append(slot)
        return F.batch_norm(x, None, None, weight, bias, training=True)

    context = replace(step_context(0, supernet=supernet), normalise=normalise)
    supernet.calls.clear()
    paths.draw(PHASE, context)
    assert asked
    assert len(supernet.calls) == 6
    for _, dropout, moved, logits in supernet.calls:
        assert (dropout, moved, logits.requires_grad) == (0.0, False, False)


def test_b_attention_is_for_the_random_slots_alone(supernet):
    sampler = SandwichSampler(attentive_paths())
    supernet.calls.clear()
    slots = sampler.propose(PHASE, step_context(0, supernet=supernet))
    assert [slot.role for slot in slots] == [Role.MAX, Role.RANDOM, Role.RANDOM, Role.MIN]
    assert (slots[0].architecture, slots[-1].architecture) == (SPACE.largest(), SPACE.smallest())
    assert len(supernet.calls) == 6


def test_b_a_step_of_the_largest_network_alone_measures_no_candidate(supernet):
    sampler = SandwichSampler(attentive_paths())
    supernet.calls.clear()
    slots = sampler.propose(replace(PHASE, epsilon=0.0), step_context(0, supernet=supernet))
    assert ([slot.role for slot in slots], supernet.calls) == ([Role.MAX], [])


# (c)


def bins_drawn(supernet, paths, num_steps):
    """How often networks of each bin are trained."""
    tables = paths.tables(PHASE.space, supernet)
    counts = np.zeros(tables.budgets.num_bins, dtype=int)
    for step in range(num_steps):
        for slot in paths.draw(PHASE, step_context(step, supernet=supernet)):
            counts[tables.bin_of(slot.architecture)] += 1
    return counts


def bins_of_uniform_draws(tables, num_draws):
    rng = np.random.default_rng(7)
    codes = SPACE.encode([SPACE.sample(rng) for _ in range(num_draws)])
    return np.bincount(tables.budgets.bins_of(codes), minlength=tables.budgets.num_bins)


def probability_of_one_source(first, second):
    """Chi-square: that two rows of counts are draws from one distribution."""
    seen = first + second >= 10
    rare = [row[~seen].sum() for row in (first, second)]
    table = np.array([[*row[seen], few] for row, few in zip((first, second), rare, strict=True)])
    return chi2_contingency(table[:, table.sum(0) > 0]).pvalue


@pytest.mark.parametrize("num_bins", [4, 8])
def test_c_one_candidate_leaves_the_budget_prior_and_is_not_measured(supernet, num_bins):
    paths = attentive_paths(num_candidates=1, num_bins=num_bins)
    supernet.calls.clear()
    drawn = bins_drawn(supernet, paths, 400)
    assert not supernet.calls
    uniform = bins_of_uniform_draws(paths.tables(PHASE.space, supernet), 6000)
    assert probability_of_one_source(drawn, uniform) > 1e-3
    # The test can tell: a flat choice of bins is another distribution.
    flat = np.full(num_bins, 800 // num_bins)
    assert probability_of_one_source(flat, uniform) < 1e-6


def test_c_attention_chooses_within_a_budget_and_leaves_the_prior_of_budgets(supernet):
    paths = attentive_paths(attention="worst_up", num_bins=4)
    drawn = bins_drawn(supernet, paths, 80)
    uniform = bins_of_uniform_draws(paths.tables(PHASE.space, supernet), 6000)
    assert probability_of_one_source(drawn, uniform) > 1e-3


def test_c_the_tables_hold_what_was_counted_among_random_networks(supernet):
    tables = attentive_paths(num_bins=4).tables(PHASE.space, supernet)
    rng = generator_for(0, Stream.BUDGET_TABLES, 0, 0)
    observed = [SPACE.sample(rng) for _ in range(8192)]
    edges = np.linspace(macs_of(SPACE.smallest()), macs_of(SPACE.largest()), 5)
    bins = [min(int(np.searchsorted(edges, macs_of(a), side="right")) - 1, 3) for a in observed[:2000]]
    np.testing.assert_array_equal(bins, tables.budgets.bins_of(SPACE.encode(observed[:2000])))
    assert tables.prior_b.sum() == pytest.approx(1)
    bins = tables.budgets.bins_of(SPACE.encode(observed))
    for decision in (SPACE.decisions[0], next(d for d in SPACE.decisions if d.active_if)):
        chosen = [
            dict(a.choices)[decision.name]
            for a, b in zip(observed, bins, strict=True)
            if b == 1 and decision.name in dict(a.choices)
        ]
        expected = [chosen.count(option) / len(chosen) for option in decision.options]
        np.testing.assert_allclose(tables.conditional(decision)[1], expected)


# Beside the letters


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_space_has_tables_and_networks_of_its_budgets(name):
    part = SubSpace(SPACES[name])
    paths = attentive_paths(num_candidates=1)
    phase = Phase(space=part, num_random=2)
    context = step_context(0, supernet=FakeSupernet())
    slots = paths.draw(phase, context)
    assert all(part.contains(slot.architecture) for slot in slots)
    prior = paths.describe()["bin_probabilities"]
    assert sum(prior) == pytest.approx(1)


class FakeSupernet:
    """What the tables ask of a supernet."""

    num_classes, in_channels = 4, 3


def test_a_part_of_the_space_gets_tables_of_its_own():
    kept = {SPACE.decisions[0].name: SPACE.decisions[0].options[:1]}
    paths = attentive_paths(num_candidates=1)
    whole = paths.tables(PHASE.space, FakeSupernet())
    assert paths.tables(SubSpace(SPACE), FakeSupernet()) is whole
    part = SubSpace(SPACE, kept)
    assert paths.tables(part, FakeSupernet()) is not whole
    slots = paths.draw(Phase(space=part, num_random=8), step_context(0, supernet=FakeSupernet()))
    assert all(part.contains(slot.architecture) for slot in slots)


def test_slots_do_not_depend_on_which_steps_came_before(supernet):
    def drawn_at(steps):
        paths = attentive_paths(seed=3)
        return [paths.draw(PHASE, step_context(step, supernet=supernet)) for step in steps]

    forward, backward = drawn_at(range(3)), drawn_at(reversed(range(3)))
    assert forward == backward[::-1]
    others = attentive_paths(seed=4).draw(PHASE, step_context(0, supernet=supernet))
    assert others != forward[0]


def test_a_run_broken_off_and_resumed_ends_with_the_same_bits(tmp_path):
    recipe = toy_recipe("attentive")
    undisturbed, first, second = (toy_trainer(recipe=recipe) for _ in range(3))
    undisturbed.run()
    first.run(3)
    second.restore(load_checkpoint(save_checkpoint(first.state(), tmp_path)))
    assert second.run() is None
    assert second.departures == ()
    for one, other in zip(undisturbed.supernet.parameters(), second.supernet.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_recipe_is_bignas_with_the_best_of_three_candidates():
    recipe = RECIPES["attentive"]
    assert recipe == replace(
        RECIPES["bignas"],
        name="attentive",
        random_paths="attentive",
        learning_rate_policy="cosine",
        floor_fraction=1e-6,
    )
    assert (recipe.attention, recipe.num_candidates, recipe.num_random) == ("best_up", 3, 2)
    sampler = build_stack(recipe, SPACE, steps_per_epoch=4, seed=0).sampler
    assert isinstance(sampler, SandwichSampler)
    assert isinstance(sampler.paths, AttentivePaths)


# Ranks

NUM_STEPS = 2


def ranked_trainer(collective=None):
    recipe = toy_recipe("attentive", dropout=0.0, batch_norm="synchronised", base_learning_rate=0.02)
    trainer = toy_trainer(recipe=recipe, dtype=torch.float64, collective=collective)
    wake_gammas(trainer.supernet)
    return trainer


def result_of(trainer):
    slots = [trainer.train_step(step).slots for step in range(NUM_STEPS)]
    weights = torch.cat([p.detach().flatten() for p in trainer.supernet.parameters()])
    return {"weights": weights, "networks": [str(slot.architecture) for step in slots for slot in step]}


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(result_of(ranked_trainer(TorchCollective())), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_pick_the_networks_that_one_picks(tmp_path):
    mp.spawn(run_rank, args=(tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    alone = result_of(ranked_trainer())
    assert ranks[0]["networks"] == ranks[1]["networks"] == alone["networks"]
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    torch.testing.assert_close(ranks[0]["weights"], alone["weights"], rtol=1e-9, atol=1e-11)
