"""Feasible sampling and stratified seeds."""

from __future__ import annotations

import numpy as np
import pytest

from nas.costs import batch_costs, costs
from nas.search.sampling import sample_feasible, stratified_seeds
from search_spaces import SPACES
from tests.search.synthetic import all_networks, region_of

QUICK_SPACES = ("micro", "micro_8", "nas_bench_macro")


def minimum(space: str, cost: str) -> int:
    return costs(SPACES[space], SPACES[space].smallest())[cost]


@pytest.mark.parametrize("space", QUICK_SPACES)
@pytest.mark.parametrize("fields", [{}, {"max_macs": "40%"}, {"max_macs": "30%", "max_params": "25%"}])
def test_samples_are_distinct_canonical_and_feasible(space, fields):
    region = region_of(space, **fields)
    samples = sample_feasible(region, 50, np.random.default_rng(0))
    assert len({a.key for a in samples}) == 50
    assert all(region.contains(a) and region.space.canonical(a).choices == a.choices for a in samples)


def test_samples_leave_out_the_excluded():
    region = region_of("nas_bench_macro", max_macs="20%")
    first = sample_feasible(region, 30, np.random.default_rng(0))
    second = sample_feasible(region, 30, np.random.default_rng(0), exclude=set(first))
    assert not set(first) & set(second)


def test_a_region_that_chance_never_hits_is_entered_from_the_smallest_network():
    region = region_of("micro", max_macs=1.1 * minimum("micro", "macs"))
    sizes = [len(d.options) for d in region.space.decisions]
    codes = np.random.default_rng(0).integers(0, sizes, (20_000, len(sizes)))
    assert not region.holds(codes).any()
    samples = sample_feasible(region, 20, np.random.default_rng(0))
    assert len(samples) == 20
    assert all(region.contains(a) for a in samples)


def test_a_small_space_gives_every_feasible_network():
    region = region_of("nas_bench_macro", max_macs="15%")
    every = all_networks(region.space)
    expected = {a for a in every if region.contains(a)}
    assert 0 < len(expected) < len(every) == 3969
    assert set(sample_feasible(region, 10_000, np.random.default_rng(0))) == expected


@pytest.mark.parametrize("space", ["micro", "micro_8"])
@pytest.mark.parametrize("share", ["100%", "50%", "25%"])
def test_seeds_cover_the_range_of_log_macs_evenly(space, share):
    region = region_of(space, max_macs=share)
    seeds = stratified_seeds(region, 12, np.random.default_rng(1))
    assert len(set(seeds)) == 12
    assert all(region.contains(a) for a in seeds)
    log_macs = np.log([costs(region.space, a)["macs"] for a in seeds])
    targets = np.linspace(np.log(minimum(space, "macs")), np.log(region.bounds.limits[0][1]), 12)
    assert log_macs[0] == targets[0]
    assert np.abs(log_macs - targets).max() < 0.3 * (targets[1] - targets[0])


@pytest.mark.parametrize("cost", ["params", "peak_activation_bytes"])
def test_seeds_cover_the_range_of_the_cost_that_is_sought(cost):
    region = region_of("micro")
    seeds = stratified_seeds(region, 12, np.random.default_rng(1), cost=cost)
    log_cost = np.log([costs(region.space, a)[cost] for a in seeds])
    assert [*log_cost] == sorted(log_cost)
    targets = np.linspace(log_cost[0], log_cost[-1], 12)
    assert log_cost[0] == np.log(minimum("micro", cost))
    # Peaks take few values, so that the next one may be most of a step away.
    assert np.abs(log_cost - targets).max() < 0.8 * (targets[1] - targets[0])
    # Spread over MACs they would be elsewhere.
    by_macs = stratified_seeds(region, 12, np.random.default_rng(1))
    assert set(by_macs) != set(seeds)


@pytest.mark.parametrize("share", ["100%", "50%", "25%"])
def test_seeds_cover_a_range_with_gaps_as_well_as_its_networks_allow(share):
    region = region_of("nas_bench_macro", max_macs=share)
    seeds = stratified_seeds(region, 12, np.random.default_rng(1))
    assert len(set(seeds)) == 12
    every = region.space.encode(a for a in all_networks(region.space) if region.contains(a))
    possible = np.log(batch_costs(region.space, every)["macs"])
    log_macs = np.log(batch_costs(region.space, region.space.encode(seeds))["macs"])
    assert log_macs.min() == possible.min()
    assert log_macs.max() > possible.max() - 0.01
    targets = np.linspace(possible.min(), possible.max(), 12)
    unavoidable = np.abs(possible[:, None] - targets).min(axis=0)
    missed = np.abs(log_macs[:, None] - targets).min(axis=0) - unavoidable
    assert missed.max() < 0.5 * (targets[1] - targets[0])


def test_seeds_include_the_largest_network_where_it_is_feasible():
    region = region_of("micro")
    for count in (1, 2, 7):
        assert region.space.largest() in stratified_seeds(region, count, np.random.default_rng(0))


def test_as_many_seeds_as_there_are_networks_at_most():
    least = {f"max_{cost}": minimum("micro_8", cost) for cost in ("macs", "params")}
    region = region_of("micro_8", **least)
    assert stratified_seeds(region, 5, np.random.default_rng(0)) == [region.space.smallest()]
    assert stratified_seeds(region, 0, np.random.default_rng(0)) == []
    impossible = region_of("micro_8", max_macs=1)
    assert stratified_seeds(impossible, 5, np.random.default_rng(0)) == []
    assert sample_feasible(impossible, 5, np.random.default_rng(0)) == []
