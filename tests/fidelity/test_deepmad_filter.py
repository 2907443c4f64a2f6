"""DeepMAD before a search: the cut against brute force, its seeds, and when it is believed."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from nas.costs import batch_costs
from nas.prefilter.deepmad import ScoreRules, score
from nas.prefilter.deepmad.batch import batch_objectives
from nas.prefilter.deepmad.correlation import LEAST_NETWORKS, agreement
from nas.prefilter.deepmad.ladder import KEPT, Ladder
from nas.prefilter.deepmad.search_filter import DeepMadFilter, weighted_codes
from nas.prefilter.deepmad.tables import score_tables
from nas.search.constraints import Bounds
from nas.search.cost_model import SpaceCosts
from nas.search.loop import SearchLoop
from nas.search.proposers import make_proposer
from nas.search.region import FeasibleRegion
from nas.search.rounds import Origin
from search_spaces import SPACES
from tests.fidelity.deepmad_census import SMALL, Census
from tests.search.synthetic import Measured, settings_of

MICRO = SPACES["micro_8"]


@pytest.fixture(scope="module")
def census():
    return Census()


def region_of(space, **fields):
    costs = SpaceCosts(space=space)
    return FeasibleRegion(costs, Bounds.parse(fields, costs))


def filter_of(region, *, cost_objectives=("macs",), seed=0):
    space = region.space
    return DeepMadFilter(
        region, cost_objectives=cost_objectives, num_classes=space.default_classes,
        in_channels=space.default_channels, seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def half():
    """`micro_8` under bounds, one of them on a cost that is no sum, and DeepMAD on it."""
    region = region_of(MICRO, max_macs="50%", max_peak_activation_bytes="80%")
    return region, filter_of(region)


@pytest.fixture(scope="module")
def networks(half):
    """Random networks that keep the bounds, and their objectives."""
    region, _ = half
    rng = np.random.default_rng(5)
    drawn = [MICRO.sample(rng) for _ in range(150)]
    kept = [network for network in drawn if region.contains(network)]
    return kept, np.array([objective_of(network) for network in kept])


def objective_of(network):
    return score(SPACES[network.space].lower(network)).objective


@pytest.mark.parametrize("name", ["micro_8", "ofa_resnet50"])
def test_objectives_of_many_are_those_of_the_lowerings(name):
    space = SPACES[name]
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(30)]
    found = batch_objectives(score_tables(space, ("macs",)), space.encode(drawn))
    assert found == pytest.approx([objective_of(network) for network in drawn], rel=1e-12)


def test_objectives_follow_every_switch_and_the_census(census):
    tables = score_tables(SMALL, ("macs",))
    assert batch_objectives(tables, census.codes[::97]) == pytest.approx(census.objective[::97], rel=1e-12)
    for rules in (
        ScoreRules(spread="none"),
        ScoreRules(spread="variance", penalised_stages="all"),
        ScoreRules(resolution_mode="official", last_tap_weight=2.0),
    ):
        drawn = [SMALL.decode(code) for code in census.codes[::60_000]]
        found = batch_objectives(tables, SMALL.encode(drawn), rules)
        assert found == pytest.approx([score(SMALL.lower(d), rules).objective for d in drawn], rel=1e-12)


@pytest.mark.parametrize("fields", [{}, {"max_params": "70%", "max_macs": "60%"}])
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_the_cut_leaves_every_network_that_comes_near_the_best_of_no_higher_cost(census, fields, cost):
    region = region_of(SMALL, **fields)
    ladder = Ladder.climb(region, cost, num_rungs=5)
    kept = np.ones(len(census.codes), dtype=bool)
    for name, limit in region.bounds.limits:
        kept &= census.costs[name] <= limit
    order = np.argsort(census.costs[cost], kind="stable")
    best = np.maximum.accumulate(np.where(kept, census.objective, -np.inf)[order])
    # Of equal costs all count.
    last = np.searchsorted(census.costs[cost][order], census.costs[cost], side="right") - 1
    near = kept & (census.objective >= KEPT * best[last])
    left = ladder.ratio(census.codes) <= 1
    assert near.sum() > 20
    assert left[near].all()
    # And it does cut.
    assert left[kept].mean() < 0.8


def test_without_a_cost_to_search_for_what_stays_comes_near_the_best_of_all(census):
    region = region_of(SMALL, max_macs="60%")
    ladder = Ladder.climb(region, None)
    kept = census.costs["macs"] <= dict(region.bounds.limits)["macs"]
    near = census.objective >= KEPT * census.objective[kept].max()
    assert ((ladder.ratio(census.codes) <= 1) == near).all()
    chosen = [objective_of_small(network) for network in ladder.choose(3)]
    assert chosen[0] == pytest.approx(census.objective[kept].max())
    assert chosen == sorted(chosen, reverse=True) and len(chosen) == 3


def objective_of_small(network):
    return score(SMALL.lower(network)).objective


def test_the_size_of_what_is_left_is_estimated_by_weights_that_count_networks(census):
    codes, log_weights = weighted_codes(SMALL, 20_000, np.random.default_rng(0))
    for quantile in (0.02, 0.3, 1.0):
        limit = np.quantile(census.costs["macs"], quantile)
        is_within = batch_costs(SMALL, codes, names=("macs",))["macs"] <= limit
        estimated = np.log(np.exp(log_weights[is_within]).sum() / len(codes))
        assert estimated == pytest.approx(log((census.costs["macs"] <= limit).sum()), abs=0.1)


def test_seeds_are_distinct_keep_the_bounds_and_span_the_costs(half):
    region, deepmad = half
    seeds = deepmad.seeds(15)
    assert len({*seeds}) == len(seeds) == 5
    assert all(region.contains(seed) for seed in seeds)
    macs = [region.costs_of(seed, ["macs"])["macs"] for seed in seeds]
    bound = dict(region.bounds.limits)["macs"]
    assert macs == sorted(macs, reverse=True)
    assert 0.8 * bound < macs[0] <= bound
    assert macs[-1] < 0.3 * bound
    assert deepmad.seeds(2) == []


def test_where_accuracy_follows_the_objective_it_is_cut_and_tells_how_much(half, networks):
    region, deepmad = half
    drawn, objectives = networks
    noise = np.random.default_rng(1).normal(size=len(drawn))
    accuracies = 0.5 + 1e-4 * objectives + 0.2 * 1e-4 * objectives.std() * noise
    report = deepmad.judge([*zip(drawn, accuracies.tolist(), strict=True)])
    assert report.is_cut, report.reason
    assert report.agreement.spearman.value > 0.9
    assert report.agreement.spearman_given_macs.interval_95[0] > 0
    assert report.log_size_after < report.log_size_before < log(MICRO.size())
    cut = replace(region, cut=deepmad.cut)
    assert all(cut.contains(seed) for seed in deepmad.seeds(30))
    assert not all(cut.contains(network) for network in drawn)


@pytest.mark.parametrize("seed", range(5))
def test_where_accuracies_are_shuffled_nothing_is_cut(half, networks, seed):
    _, deepmad = half
    drawn, objectives = networks
    accuracies = np.random.default_rng(seed).permutation(objectives) * 1e-4
    report = deepmad.judge([*zip(drawn, accuracies.tolist(), strict=True)])
    assert not report.is_cut
    assert "not surely above 0" in report.reason
    assert report.log_size_after is None


def test_where_accuracy_follows_cost_alone_the_objective_says_nothing_beyond_it(half, networks):
    region, deepmad = half
    drawn, _ = networks
    macs = region.costs.batch(MICRO.encode(drawn), ["macs"])["macs"]
    noise = np.random.default_rng(3).normal(size=len(drawn))
    accuracies = np.log(macs) + 0.2 * np.log(macs).std() * noise
    report = deepmad.judge([*zip(drawn, accuracies.tolist(), strict=True)])
    # Dear networks have the higher objective, so that the plain correlation is surely positive.
    assert report.agreement.spearman.is_positive
    assert not report.is_cut
    assert "MACs held" in report.reason


def test_few_networks_and_constant_accuracies_conclude_nothing(half, networks):
    _, deepmad = half
    drawn, objectives = networks
    few = [*zip(drawn, (objectives * 1e-4).tolist(), strict=True)][: LEAST_NETWORKS - 1]
    assert str(LEAST_NETWORKS) in deepmad.judge(few).reason
    assert "undefined" in deepmad.judge([(network, 0.5) for network in drawn]).reason
    assert not deepmad.judge([]).is_cut


def test_the_same_measurements_give_the_same_report(half, networks):
    region, deepmad = half
    drawn, objectives = networks
    measured = [*zip(drawn, (objectives * 1e-4).tolist(), strict=True)]
    again = filter_of(region)
    assert again.seeds(15) == deepmad.seeds(15)
    assert again.judge(measured).to_json() == deepmad.judge(measured).to_json()


def test_the_correlations_are_spearmans_and_that_of_what_macs_leave_of_the_ranks():
    rng = np.random.default_rng(4)
    macs = rng.normal(size=60)
    objectives, accuracies = macs + rng.normal(size=60), macs + rng.normal(size=60)
    found = agreement(objectives, accuracies, macs, rng)
    assert found.spearman.value == pytest.approx(spearmanr(objectives, accuracies).statistic)
    ranks = np.stack([rankdata(values) for values in (objectives, accuracies)])
    line = np.stack([np.ones(60), rankdata(macs)])
    left = ranks - ranks @ line.T @ np.linalg.inv(line @ line.T) @ line
    assert found.spearman_given_macs.value == pytest.approx(np.corrcoef(left)[0, 1])
    low, high = found.spearman.interval_95
    assert low < found.spearman.value < high


@pytest.mark.parametrize("name", ["nas_bench_201", "nas_bench_macro"])
def test_a_space_that_it_does_not_score_has_no_seeds_and_is_not_cut(name):
    region = region_of(SPACES[name])
    deepmad = filter_of(region)
    assert deepmad.seeds(30) == []
    network = region.space.sample(np.random.default_rng(0))
    report = deepmad.judge([(network, 0.5)] * 20)
    assert not report.is_cut
    assert "choose another space" in report.reason


class Believed:
    """DeepMAD in a loop, whose measurements follow its objective."""

    def __init__(self, region, settings):
        self._region, self._settings, self._filter = region, settings, filter_of(region)
        self.report = None

    def seeds(self):
        return self._filter.seeds(self._settings.num_seeds)

    def narrow(self, measured):
        self.report = self._filter.judge(measured)
        if not self.report.is_cut:
            return None
        self.region = replace(self._region, cut=self._filter.cut)
        return self.region, make_proposer(self.region, self._settings)


@pytest.mark.parametrize(
    "proposer", ["nsga2", "random", pytest.param("model", marks=pytest.mark.slow), "coarse_to_fine"]
)
def test_from_the_second_round_on_a_search_tries_only_what_is_left(half, proposer):
    region, _ = half
    settings = settings_of(num_trials=60, proposer=proposer)
    prefilter = Believed(region, settings)
    loop = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings), prefilter=prefilter
    )
    outcome = loop.run(lambda numbered: [Measured(objective_of(network) / 1e4) for _, network in numbered])
    assert prefilter.report.is_cut
    assert len(outcome.trials) == len({t.architecture for t in outcome.trials}) == 60
    first = [t for t in outcome.trials if t.round == 0]
    assert {t.architecture for t in first if t.origin is Origin.PREFILTER} == {*prefilter.seeds()}
    assert not all(prefilter.region.contains(t.architecture) for t in first)
    assert all(prefilter.region.contains(t.architecture) for t in outcome.trials if t.round > 0)
