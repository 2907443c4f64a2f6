"""Nearest network and least costs by elimination, against looking at every network."""

from __future__ import annotations

import numpy as np
import pytest

from nas.pareto import pareto_front
from nas.prefilter.elimination import PartedNetworks, cost_tables
from nas.prefilter.within import Pruning, networks_within
from nas.search.constraints import Bounds
from nas.search.cost_model import PartKind
from nas.search.region import FeasibleRegion
from tests.prefilter.parted_costs import TINY, PartedCosts, all_codes, random_cost

CODES = all_codes(TINY)


def random_region(rng, *, is_whole):
    kinds = rng.choice([PartKind.SUM, PartKind.SUM, PartKind.MAX], size=rng.integers(1, 5))
    made_of = {f"cost{i}": random_cost(TINY, kind, rng, is_whole=is_whole) for i, kind in enumerate(kinds)}
    costs = PartedCosts(TINY, made_of)
    # Around the costs of some network, so that some bounds can just be kept and others just not.
    near = costs.batch(CODES[rng.integers(len(CODES), size=1)], costs.names)
    factors = rng.choice([0.0, 0.5, 0.8, 0.9, 1.0, 1.1, 1e200], size=len(kinds), p=[0.05, *[0.18] * 5, 0.05])
    limits = [(name, float(near[name][0] * factor)) for name, factor in zip(near, factors, strict=True)]
    return FeasibleRegion(costs, Bounds(tuple(limits)))


def networks_of(region):
    return PartedNetworks.of(region, {name: region.costs.parts(name) for name in region.bounds.names})


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_nearest_network_is_that_of_all(is_whole):
    rng = np.random.default_rng(1)
    verdicts = set()
    for _ in range(150):
        region = random_region(rng, is_whole=is_whole)
        least = region.worst_ratio(CODES).min()
        networks = networks_of(region)
        ratio = region.worst_ratio(networks.nearest()[None, :])[0]
        if least <= 1:
            assert ratio <= 1
        else:
            assert ratio == (least if is_whole else pytest.approx(least, rel=1e-12))
        assert networks.proved_ratio() <= least * (1 + (0 if is_whole else 1e-12))
        verdicts.add(bool(least <= 1))
    assert verdicts == {True, False}


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_least_of_each_cost_beside_the_other_bounds_is_that_of_all(is_whole):
    rng = np.random.default_rng(2)
    found = set()
    for _ in range(100):
        region = random_region(rng, is_whole=is_whole)
        costs = region.costs.batch(CODES, region.bounds.names)
        networks = networks_of(region)
        for name in region.bounds.names:
            others = Bounds(tuple(limit for limit in region.bounds.limits if limit[0] != name))
            rows = others.holds(costs) if others.limits else np.ones(len(CODES), dtype=bool)
            code = networks.cheapest(name)
            assert (code is not None) == rows.any()
            found.add(code is not None)
            if code is not None:
                least = costs[name][rows].min()
                mine = region.costs.batch(code[None, :], region.bounds.names)
                assert mine[name][0] == (least if is_whole else pytest.approx(least, rel=1e-12))
                assert not others.limits or others.holds(mine)[0]
    assert found == {True, False}


def test_what_lies_within_limits_is_found_but_for_what_is_undercut():
    rng = np.random.default_rng(3)
    num_found = []
    for _ in range(100):
        kinds = [PartKind.SUM] * rng.integers(1, 4) + [PartKind.MAX] * rng.integers(0, 2)
        parts = [random_cost(TINY, kind, rng) for kind in kinds]
        model = PartedCosts(TINY, {str(number): cost for number, cost in enumerate(parts)})
        figures = np.stack([*model.batch(CODES, model.names).values()], axis=1)
        tables = cost_tables(TINY, parts)
        weights = rng.random((rng.integers(0, 4), tables.num_sums))
        limits = np.quantile(figures, rng.choice([0.02, 0.1, 0.3]), axis=0)
        labels = networks_within(Pruning.of(tables, weights), limits)
        within = figures[(figures <= limits).all(axis=1)]
        expected = {tuple(row) for row in within[pareto_front(within)]} if len(within) else set()
        assert {tuple(row) for row in labels.values} == expected
        codes = labels.codes.astype(np.int64)
        of_codes = np.stack([*model.batch(codes, model.names).values()], axis=1)
        assert (of_codes == labels.values).all()
        num_found.append(len(expected))
    assert max(num_found) > 15
    assert min(num_found) == 0
