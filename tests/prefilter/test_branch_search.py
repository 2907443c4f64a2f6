"""Branch and bound over scaled sums, against looking at every network."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from nas.prefilter.branch_search import BranchedNetworks
from nas.prefilter.listing import canonical_codes
from nas.search.branches import Branches, OptionLayout
from nas.search.constraints import Bounds
from nas.search.cost_model import PartKind
from nas.search.region import FeasibleRegion
from tests.prefilter.parted_costs import TINY, cost_of, random_cost
from tests.prefilter.scaled_costs import ONE_STAGE, ScaledCosts, counting, inputs_of, random_scaled, spelled

KINDS = ["interactions", "trees"]


def random_region(space, kind, rng):
    """A scaled cost, or two, with up to three others; bounds that some networks just keep, or just do not."""
    made_of = {"scaled": random_scaled(space, kind, rng)}
    if rng.random() < 0.2:
        made_of["scaled_too"] = random_scaled(space, rng.choice(KINDS), rng)
    for number in range(rng.integers(0, 4)):
        other = rng.choice([PartKind.SUM, PartKind.SUM, PartKind.MAX])
        made_of[f"cost{number}"] = random_cost(space, other, rng, is_whole=rng.random() < 0.5)
    costs = ScaledCosts(space, made_of)
    codes = canonical_codes(space)
    figures = costs.batch(codes, costs.names)
    near = rng.integers(len(codes))
    if rng.random() < 0.6:
        # The best network of some weighting: near to what can just be had.
        near = sum(rng.random() * figures[name] / figures[name].mean() for name in figures).argmin()
    factors = rng.choice([0.0, 0.5, 0.9, 0.98, 1.0, 1.02, 1.2, 1e200], size=len(made_of),
                         p=[0.03, 0.1, 0.2, 0.2, 0.2, 0.12, 0.12, 0.03])  # fmt: skip
    limits = [
        (name, float(figures[name][near] * f)) for name, f in zip(sorted(figures), factors, strict=True)
    ]
    return FeasibleRegion(costs, Bounds(tuple(limits)))


def networks_of(region):
    space = region.space
    parts = {name: region.costs.parts(name) for name in region.bounds.names}
    return BranchedNetworks(region, parts, space.encode([space.smallest(), space.largest()]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", [TINY, ONE_STAGE], ids=lambda space: space.name)
def test_verdict_nearest_and_cheapest_are_those_of_all_networks(space, kind):
    rng = np.random.default_rng(len(space.name))
    codes = canonical_codes(space)
    verdicts, helped = set(), set()
    for _ in range(12):
        region = random_region(space, kind, rng)
        ratios = region.worst_ratio(codes)
        if abs(ratios.min() - 1) < 1e-14:
            # Rounding may take it to either side.
            continue
        networks = networks_of(region)
        within = networks.within(inf)
        assert within.is_proved
        verdicts.add(bool(ratios.min() <= 1))
        assert (within.measure <= 1) == (ratios.min() <= 1)
        nearest = networks.nearest(inf)
        assert nearest.is_proved
        assert nearest.measure == pytest.approx(ratios.min(), rel=1e-9)
        assert region.worst_ratio(nearest.code[None, :])[0] == nearest.measure
        figures = region.costs.batch(codes, region.bounds.names)
        for name in region.bounds.names:
            others = region.bounds.without(name)
            rows = others.holds(figures) if others.limits else np.ones(len(codes), dtype=bool)
            cheapest = networks.cheapest(name, inf)
            assert cheapest.is_proved
            assert (cheapest.code is not None) == rows.any()
            helped.add(bool(rows.any()))
            if rows.any():
                assert cheapest.measure == pytest.approx(figures[name][rows].min(), rel=1e-9)
    assert verdicts == helped == {True, False}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", [TINY, ONE_STAGE], ids=lambda space: space.name)
def test_a_factor_lies_above_its_floor_in_every_branch_and_on_it_where_nothing_is_open(space, kind):
    rng = np.random.default_rng(5)
    layout = OptionLayout.of(space)
    codes = spelled(space)
    chosen = counting(space, codes)
    for _ in range(20):
        factor = random_scaled(space, kind, rng).log_factor
        true = factor.residual.log_factor(inputs_of(factor, space, codes))
        figures = np.array([cost_of(figure, codes) for figure in factor.figures]).reshape(-1, len(codes))
        num_left = rng.choice([0.2, 0.5, 0.9])
        allowed = rng.random((8, len(layout.owners))) < num_left
        # Some network is in each.
        allowed |= chosen[rng.integers(len(codes), size=8)]
        allowed[0] = chosen[rng.integers(len(codes))]
        branches = Branches(layout, allowed)
        inside = [np.flatnonzero((~chosen | row).all(axis=1)) for row in allowed]
        least, most = (
            np.array([end(figures[:, rows], axis=1) for rows in inside]) for end in (np.min, np.max)
        )
        floor = factor.floor(branches, least, most)
        low = floor.least(branches)
        for row, members in enumerate(inside):
            below = floor.constant[row] + np.where(chosen[members], floor.by_option[row], 0.0).sum(axis=1)
            assert (below <= true[members] + 1e-12).all()
            assert (low[row] <= below + 1e-12).all()
            if len(members) == 1:
                assert below == pytest.approx(true[members])


def test_what_the_time_cuts_short_is_not_proved_and_still_names_the_best_network_met():
    rng = np.random.default_rng(3)
    cut_short = 0
    for _ in range(20):
        region = random_region(ONE_STAGE, "trees", rng)
        found = networks_of(region).nearest(-inf)
        least = region.worst_ratio(canonical_codes(ONE_STAGE)).min()
        assert region.worst_ratio(found.code[None, :])[0] == found.measure
        assert found.measure >= least * (1 - 1e-9)
        if found.is_proved:
            assert found.measure == pytest.approx(least, rel=1e-9)
        cut_short += not found.is_proved
    assert cut_short > 5


def test_a_cheap_spelling_of_a_dear_network_is_not_met():
    """Where a network's canonical spelling costs more than another, it counts with what that one costs."""
    region = random_region(TINY, "interactions", np.random.default_rng(0))
    networks = networks_of(region)
    for found in (networks.nearest(inf), networks.cheapest("scaled", inf)):
        spelled = TINY.encode([TINY.canonical(TINY.decode(found.code))])[0]
        assert np.array_equal(spelled, found.code)
    wide = replace(region, bounds=Bounds((("scaled", 1e300),)))
    assert networks_of(wide).within(inf).measure <= 1
