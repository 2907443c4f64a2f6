"""The certificate: its verdict, and that what it says would help does, exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from nas.costs import COST_NAMES, costs
from nas.devices.basis import Basis, block_figures
from nas.devices.boosting import grow_trees
from nas.devices.device import Device
from nas.devices.latency_costs import DeviceCosts
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.residual import Interactions, ResidualInputs, chosen_options
from nas.devices.table import LatencyTable
from nas.prefilter.certificate import Verdict, certify
from nas.search.constraints import Bounds
from nas.search.cost_model import CostParts, Floor, Part, PartKind, SpaceCosts
from nas.search.region import FeasibleRegion
from search_spaces import SPACES
from tests.prefilter.parted_costs import TINY, PartedCosts, latency_of, random_cost
from tests.search.slow_costs import SlowCosts
from tests.search.synthetic import all_networks, region_of

QUICK_SPACES = tuple(name for name in SPACES if name != "nas_bench_201")
"""Its table of peaks takes long to make."""


LITTLE = 1e-9
"""Less than one of any cost, and more than rounding."""


def bounded(model, **limits):
    return FeasibleRegion(model, Bounds(tuple(sorted(limits.items()))))


def smallest_costs(name):
    return costs(SPACES[name], SPACES[name].smallest())


def random_limits(least, rng):
    """Of some of the costs, about as much as the smallest network needs."""
    names = rng.choice(sorted(least), size=rng.integers(1, len(least) + 1), replace=False)
    factors = rng.choice([0.5, 0.9, 1.0, 1.1, 1.5], size=len(names))
    return {str(name): float(least[name] * factor) for name, factor in zip(names, factors, strict=True)}


def check_relief(region, answer):
    """Bounds that are said to be kept are, and a little less of what is least is not."""
    limits = dict(region.bounds.limits)
    assert set(answer.relief.relax) == set(answer.relief.relax_alone) == set(limits)
    assert certify(bounded(region.costs, **answer.relief.relax)).verdict is Verdict.FEASIBLE
    ratio = region.worst_ratio(region.space.encode([answer.relief.nearest]))[0]
    assert ratio > 1
    for name, alone in answer.relief.relax_alone.items():
        if alone is None:
            unlimited = {other: limit for other, limit in limits.items() if other != name}
            assert certify(bounded(region.costs, **unlimited)).verdict is Verdict.INFEASIBLE
        else:
            assert certify(bounded(region.costs, **{**limits, name: alone})).verdict is Verdict.FEASIBLE
            tighter = certify(bounded(region.costs, **{**limits, name: alone * (1 - LITTLE)}))
            assert tighter.verdict is Verdict.INFEASIBLE


@pytest.mark.parametrize("name", QUICK_SPACES)
def test_what_is_said_to_help_does_and_any_less_does_not(name):
    rng = np.random.default_rng(3)
    model = SpaceCosts(space=SPACES[name], num_classes=7, in_channels=1)
    least = {cost: float(model.batch(model.space.encode([model.space.smallest()]), [cost])[cost][0])
             for cost in COST_NAMES}  # fmt: skip
    verdicts = set()
    for _ in range(5):
        region = bounded(model, **random_limits(least, rng))
        answer = certify(region)
        verdicts.add(answer.verdict)
        if answer.verdict is Verdict.FEASIBLE:
            assert region.contains(answer.architecture)
            assert answer.relief is None
        else:
            assert answer.verdict is Verdict.INFEASIBLE
            check_relief(region, answer)
    assert Verdict.INFEASIBLE in verdicts


@pytest.mark.parametrize("name", ["micro", "ofa_mobilenetv3_32"])
def test_a_latency_of_fractions_is_held_as_exactly_as_it_is_known(name):
    rng = np.random.default_rng(4)
    space = SPACES[name]
    counted = SpaceCosts(space=space)
    made_of = {cost: counted.parts(cost) for cost in ("macs", "peak_activation_bytes")}
    model = PartedCosts(space, made_of | {"latency_ms": latency_of(space, rng)})
    smallest = model.batch(space.encode([space.smallest()]), model.names)
    least = {cost: float(values[0]) for cost, values in smallest.items()}
    num_infeasible = 0
    for _ in range(5):
        region = bounded(model, **{**random_limits(least, rng), "latency_ms": least["latency_ms"] * 0.8})
        answer = certify(region)
        if answer.verdict is Verdict.INFEASIBLE:
            num_infeasible += 1
            check_relief(region, answer)
    assert num_infeasible > 1


@pytest.mark.parametrize("space", [TINY, SPACES["nas_bench_201"]], ids=lambda space: space.name)
def test_a_small_space_is_decided_by_its_canonical_networks_whatever_costs_they_have(space):
    networks = sorted(all_networks(space), key=lambda network: network.key)
    codes = space.encode(networks)
    verdicts = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        # Equal networks cost something else when they are spelled otherwise.
        made_of = {f"cost{i}": random_cost(space, PartKind.SUM, rng) for i in range(rng.integers(1, 4))}
        model = PartedCosts(space, made_of)
        figures = model.batch(codes, model.names)
        limits = {name: float(np.quantile(figures[name], rng.choice([0.001, 0.02, 0.1]))) for name in made_of}
        region = bounded(model, **limits)
        answer = certify(region)
        least = region.worst_ratio(codes).min()
        assert (answer.verdict is Verdict.FEASIBLE) == (least <= 1)
        verdicts.add(answer.verdict)
        if answer.verdict is Verdict.FEASIBLE:
            assert region.contains(answer.architecture)
            continue
        assert region.worst_ratio(space.encode([answer.relief.nearest]))[0] == least
        for name, alone in answer.relief.relax_alone.items():
            rows = region.bounds.without(name).holds(figures)
            assert alone == (figures[name][rows].min() if rows.any() else None)
    assert verdicts == {Verdict.FEASIBLE, Verdict.INFEASIBLE}


def test_a_cheap_spelling_of_a_dear_network_is_no_witness_in_a_large_space():
    """The kernel of a block that is not there costs 1 at best, and 5 in the canonical spelling."""
    space = SPACES["micro"]
    column = {decision.name: number for number, decision in enumerate(space.decisions)}
    parts = (
        Part((column["stage1.depth"],), np.array([0, 0, 10])),
        Part((column["stage1.block3.kernel"],), np.array([5, 5, 1])),
    )
    model = PartedCosts(space, {"odd": CostParts(PartKind.SUM, parts)})
    assert certify(bounded(model, odd=5)).verdict is not Verdict.INFEASIBLE
    answer = certify(bounded(model, odd=3))
    assert answer.verdict is Verdict.UNDECIDED
    assert "spelling" in answer.reason
    assert certify(bounded(model, **answer.relief.relax)).verdict is Verdict.FEASIBLE
    # No spelling at all costs less than 1.
    proved = certify(bounded(model, odd=0.5))
    assert (proved.verdict, proved.relief) == (Verdict.INFEASIBLE, None)


@pytest.mark.parametrize("name", [*QUICK_SPACES, "nas_bench_201"])
def test_no_network_does_with_nothing_and_the_least_of_a_single_bound_is_told(name):
    for cost in ("macs", "params"):
        answer = certify(region_of(name, **{f"max_{cost}": 0}))
        assert answer.verdict is Verdict.INFEASIBLE
        least = smallest_costs(name)[cost]
        assert answer.relief.relax == answer.relief.relax_alone == {cost: least}
        assert costs(SPACES[name], answer.relief.nearest)[cost] == least
        assert f"max_{cost}" in answer.reason
        assert str(least) in answer.reason


def test_bounds_next_to_nothing_and_beyond_everything_go_together():
    for limit in (0.0, 5e-324, 1e-300):
        answer = certify(bounded(SpaceCosts(space=SPACES["micro"]), macs=limit, params=1e308))
        assert answer.verdict is Verdict.INFEASIBLE
        assert answer.relief.relax_alone == {"macs": smallest_costs("micro")["macs"], "params": None}
        assert answer.relief.relax["macs"] == answer.relief.relax_alone["macs"]
    far = certify(bounded(SpaceCosts(space=SPACES["micro"]), macs=1e308, params=1e308))
    assert far.verdict is Verdict.FEASIBLE


def test_no_bounds_are_kept():
    region = region_of("ofa_mobilenetv3")
    answer = certify(region)
    assert answer.verdict is Verdict.FEASIBLE
    assert region.contains(answer.architecture)


@pytest.mark.parametrize("share", ["100%", "60%", "20%", "1%"])
def test_shares_of_the_largest_network_are_bounds_like_others(share):
    region = region_of("micro_8", max_macs=share, max_params=share)
    is_kept = region.contains(region.space.smallest())
    assert certify(region).verdict is (Verdict.FEASIBLE if is_kept else Verdict.INFEASIBLE)


def test_the_same_answer_each_time():
    region = region_of("micro", max_macs=5e5, max_params=3e4, max_peak_activation_bytes=1e4)
    assert certify(region) == certify(region)


# What cannot be concluded


@dataclass(frozen=True)
class Fitted:
    """The counted costs, and one beside that has no parts: 5 for every network."""

    space: object
    least: float = 0.0
    names: tuple[str, ...] = (*COST_NAMES, "fitted")

    def parts(self, name):
        return Floor(self.least) if "fitted" in name else SpaceCosts(space=self.space).parts(name)

    def batch(self, codes, names):
        counted = SpaceCosts(space=self.space).batch(codes, [n for n in names if "fitted" not in n])
        return {n: counted[n] if n in counted else np.full(len(codes), 5.0) for n in names}


def test_a_cost_without_parts_leaves_a_large_space_undecided():
    answer = certify(bounded(Fitted(SPACES["micro"]), fitted=4.0))
    assert answer.verdict is Verdict.UNDECIDED
    assert "max_fitted" in answer.reason
    assert (answer.relief.relax, answer.relief.relax_alone) == ({"fitted": 5.0}, {})
    assert not answer.relief.is_least
    found = certify(bounded(Fitted(SPACES["micro"]), fitted=5.0, macs=6e5))
    assert found.verdict is Verdict.FEASIBLE


def test_a_floor_under_a_cost_without_parts_is_enough_for_a_proof():
    answer = certify(bounded(Fitted(SPACES["micro"], least=4.5), fitted=4.0, macs=6e5))
    assert answer.verdict is Verdict.INFEASIBLE
    assert "max_fitted 4" in answer.reason
    # However many multiplications are allowed, and with 5 whatever they are.
    assert answer.relief.relax_alone == {"fitted": 5.0, "macs": None}
    assert not answer.relief.is_least
    above = certify(bounded(Fitted(SPACES["micro"], least=3.5), fitted=4.0, macs=6e5))
    assert above.verdict is Verdict.UNDECIDED


def test_the_bounds_on_costs_with_parts_are_enough_for_a_proof():
    answer = certify(bounded(Fitted(SPACES["micro"]), fitted=5.0, macs=10.0))
    assert answer.verdict is Verdict.INFEASIBLE
    assert "max_macs" in answer.reason
    least = smallest_costs("micro")["macs"]
    assert answer.relief.relax_alone == {"fitted": None, "macs": least}
    assert answer.relief.relax == {"fitted": 5.0, "macs": least}


def fitted_latency(name, kind, rng):
    """Costs with a latency that is a sum over blocks times interactions or trees fitted to noise.

    `wild` is what no fit would be: weights of all pairs drawn at random, each of which may go its own way.
    """
    space = SPACES[name]
    networks = NetworkBlocks.of(space)
    rows = {block: 0.01 + 2e-7 * block.macs for block in networks.distinct()}
    table = LatencyTable(device=Device(name="here", runtime="made_up"), base_ms=0.05, rows=rows)
    codes = space.encode([space.sample(rng) for _ in range(60)])
    sums = networks.sums(codes, block_figures(Basis.WORK).values)
    inputs, noise = ResidualInputs(sums, chosen_options(space, codes)), 0.05 * rng.standard_normal(60)
    if kind == "wild":
        weights = 4e-4 * rng.standard_normal((inputs.choices.shape[1],) * 2)
        residual = Interactions(0.0, weights + weights.T)
    elif kind == "interactions":
        residual = Interactions.fit(inputs, noise, strength=0.03)
    else:
        residual = grow_trees(inputs, noise, seed=0)
    model = replace(LatencyModel.of_table(table), residual=residual)
    return DeviceCosts(exact=SpaceCosts(space=space), model=model)


@pytest.mark.parametrize("kind", ["interactions", "trees"])
@pytest.mark.parametrize("name", ["micro", "ofa_mobilenetv3_32"])
def test_what_is_said_to_help_does_and_any_less_does_not_where_a_latency_is_a_scaled_sum(name, kind):
    rng = np.random.default_rng(8)
    space, model = SPACES[name], fitted_latency(name, kind, rng)
    smallest = model.batch(space.encode([space.smallest()]), model.names)
    least = {cost: float(values[0]) for cost, values in smallest.items()}
    num_relieved = 0
    for _ in range(8):
        limits = random_limits(least, rng)
        limits |= {"latency_ms": least["latency_ms"] * rng.choice([0.1, 0.9, 0.98, 1.0, 4.0])}
        region = bounded(model, **limits)
        answer = certify(region)
        if answer.verdict is Verdict.FEASIBLE:
            assert region.contains(answer.architecture)
            continue
        assert answer.verdict is Verdict.INFEASIBLE
        num_relieved += 1
        assert answer.relief.is_least
        check_relief(region, answer)
    assert num_relieved > 3


def test_a_question_with_a_scaled_sum_that_takes_too_long_is_left_with_the_nearest_network_that_was_met():
    space, model = (
        SPACES["ofa_mobilenetv3_32"],
        fitted_latency("ofa_mobilenetv3_32", "wild", np.random.default_rng(8)),
    )
    smallest = space.encode([space.smallest()])
    least = float(model.batch(smallest, ["latency_ms"])["latency_ms"][0])
    assert certify(bounded(model, latency_ms=least * 2)).verdict is Verdict.FEASIBLE
    region = bounded(model, latency_ms=least * 0.9)
    for limit_s in (0, 0.3):
        started = time.monotonic()
        answer = certify(region, limit_s=limit_s)
        assert time.monotonic() - started < limit_s + 1
        assert answer.verdict is Verdict.UNDECIDED
        assert answer.relief.relax_alone == {} and not answer.relief.is_least
        assert answer.relief.relax["latency_ms"] <= least * (1 + LITTLE)
        assert certify(bounded(model, **answer.relief.relax)).verdict is Verdict.FEASIBLE
        assert f"max_latency_ms {answer.relief.relax['latency_ms']:.15g}" in answer.reason


def test_what_would_help_is_what_was_found_where_a_proof_leaves_no_time_for_the_least():
    model = fitted_latency("micro", "wild", np.random.default_rng(8))
    region = bounded(model, latency_ms=1e-3, macs=1e9)
    answer = certify(region, limit_s=0)
    assert answer.verdict is Verdict.INFEASIBLE
    assert not answer.relief.is_least
    assert certify(bounded(model, **answer.relief.relax)).verdict is Verdict.FEASIBLE
    assert answer.relief.relax_alone["macs"] is None


def test_two_bounds_that_are_each_below_their_floor_help_neither_alone():
    two = Fitted(SPACES["micro"], least=5.0, names=(*COST_NAMES, "fitted", "fitted_too"))
    answer = certify(bounded(two, fitted=1.0, fitted_too=1.0))
    assert answer.relief.relax_alone == {"fitted": None, "fitted_too": None}
    assert answer.relief.relax == {"fitted": 5.0, "fitted_too": 5.0}


def test_a_small_space_is_decided_for_a_cost_without_parts():
    answer = certify(bounded(Fitted(SPACES["nas_bench_macro"]), fitted=4.0))
    assert answer.verdict is Verdict.INFEASIBLE
    assert answer.relief.relax_alone == {"fitted": 5.0}


def test_a_question_that_takes_too_long_is_left_undecided():
    region = bounded(SlowCosts(SPACES["ofa_mobilenetv3"]), macs=1.5)
    started = time.monotonic()
    assert certify(region, limit_s=0.2).verdict is Verdict.UNDECIDED
    assert time.monotonic() - started < 1


def test_without_time_a_proof_is_still_a_proof():
    rng = np.random.default_rng(0)
    space = SPACES["micro"]
    model = PartedCosts(space, {f"cost{i}": latency_of(space, rng, noise=1) for i in range(3)})
    floors = {name: min(model.batch(space.encode([space.sample(rng) for _ in range(500)]), [name])[name])
              for name in model.names}  # fmt: skip
    hopeless = certify(bounded(model, **{name: floor / 9 for name, floor in floors.items()}), limit_s=0)
    assert (hopeless.verdict, hopeless.relief) == (Verdict.INFEASIBLE, None)
    assert "relax" in hopeless.reason
