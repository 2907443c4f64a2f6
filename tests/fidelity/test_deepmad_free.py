"""DeepMAD with free widths: arrays against the lowering, bounds against networks, the search against both."""

from dataclasses import replace

import numpy as np
import pytest

from nas.prefilter.deepmad import Monotone, backbone_params, deepmad_flops, is_monotone, score
from nas.prefilter.deepmad.free_bound import Multipliers, certify, grid, multipliers_near, upper_bound
from nas.prefilter.deepmad.free_relaxed import Relaxation
from nas.prefilter.deepmad.free_search import search_free
from nas.prefilter.deepmad.free_widths import FreeNetworks, FreeTask, tangent
from nas.prefilter.deepmad.score import PenalisedStages, ScoreRules, needed_log_width
from tests.fidelity.deepmad_networks import PUBLISHED

R18 = FreeTask(max_flops=1.82e9, max_params=11.69e6, max_effectiveness=0.3)
R34 = FreeTask(max_flops=3.68e9, max_params=21.8e6, max_effectiveness=0.3)
TASKS = {"R18": R18, "R34": R34}
STRICT = replace(R18, min_depths=(1, 2, 2, 3, 2), penalised_stages=PenalisedStages.ALL)
"""Without the loophole that early stages may be as shallow as they like."""
REFERENCE = {"R18": 36404.9, "R34": 48398.5}
"""The best that a mutation search of 25 s found, once."""


def code_of(structure):
    code = [structure.stages[0].out_channels]
    for stage in structure.stages[1:]:
        code += [stage.out_channels, stage.inner_channels, stage.kernel, stage.depth]
    return code


def random_codes(task, count, rng):
    """Networks of the task's rules, whether or not they keep its limits."""
    codes = np.zeros((count, 1 + 4 * task.num_stages), dtype=np.int64)
    codes[:, 0] = width = 8 * rng.integers(1, task.max_stem // 8 + 1, size=count)
    for stage in range(task.num_stages):
        most = np.minimum(task.max_growth * width, task.max_width) // 8
        width = 8 * np.maximum(1, np.round(most * rng.random(count)).astype(np.int64))
        least = -(-width // (8 * task.max_narrowing))
        inner = 8 * (least + ((width // 8 - least) * rng.random(count) ** 3).astype(np.int64))
        depth = rng.integers(task.min_depths[stage], task.max_depths[stage] + 1, size=count)
        codes[:, 1 + 4 * stage : 5 + 4 * stage] = np.stack(
            [width, inner, rng.choice(task.kernels, size=count), depth], axis=1
        )
    return codes


def test_the_arrays_are_what_the_lowering_says():
    codes = np.concatenate(
        [
            random_codes(R18, 60, np.random.default_rng(0)),
            [code_of(PUBLISHED[name].structure) for name in ("R18", "R34", "R50")],
        ]
    )
    networks = FreeNetworks(R18, codes)
    for row in range(len(codes)):
        layers = networks.structure(row).lower()
        found = score(layers)
        ratios = (
            deepmad_flops(layers) / R18.max_flops,
            backbone_params(layers) / R18.max_params,
            found.effectiveness / R18.max_effectiveness,
        )
        assert networks.objective[row] == pytest.approx(found.objective, rel=1e-12)
        assert networks.excess[row] == pytest.approx(max(ratios), rel=1e-12)


def test_the_tangent_is_never_above_what_effectiveness_asks_for():
    slope, at_zero = tangent(R18, 127.0)
    for num_convs in range(1, 400):
        assert slope * num_convs + at_zero <= needed_log_width(num_convs, 0.3) + 1e-9
    assert slope * 127 + at_zero == pytest.approx(needed_log_width(127, 0.3))


@pytest.mark.parametrize("task", [R18, R34, STRICT], ids=["R18", "R34", "strict"])
def test_the_bound_is_above_every_network_that_keeps_the_task(task):
    rng = np.random.default_rng(1)
    networks = FreeNetworks(task, random_codes(task, 100_000, rng))
    kept = networks.excess <= 1
    assert kept.sum() > 20
    found = search_free(task, rng, starts=1, beam=2).objective[0]
    best = max(found, networks.objective[kept].max())
    for ratio in (1.0, 1.1, 1.3):
        # Any multipliers at all: good ones and bad ones.
        for _ in range(3 if ratio > 1 else 1):
            factors = rng.uniform(0.3, 3.0, size=4)
            near = multipliers_near(found, 130.0)
            multipliers = Multipliers(
                near.flops * factors[0],
                near.params * factors[1],
                near.log_width * factors[2],
                near.num_convs * factors[3],
            )
            step = 2.0 if ratio == 1 else 0.5
            assert upper_bound(task, multipliers, grid(task, ratio=ratio, step=step)) >= best


@pytest.mark.parametrize("depths", [(1, 1, 1, 1, 1), (3, 4, 6, 6, 6)])
def test_the_bound_of_networks_that_cost_nothing_is_the_entropy_of_the_deepest(depths):
    # Widths and kernels leave no choice; the deepest network has most entropy, and only the levels round.
    task = replace(R18, max_stem=8, max_width=8, max_depths=depths, kernels=(3,), max_effectiveness=50.0)
    code = [8, *(number for depth in depths for number in (8, 8, 3, depth))]
    deepest = FreeNetworks(task, np.array([code])).objective[0]
    free = Multipliers(1e-9, 1e-9, 1e-9, 100.0)
    for step in (1e-2, 1e-3):
        bound = upper_bound(task, free, grid(task, ratio=1.0, step=step))
        # The penalty of equal depths is exactly the 10 that the bound subtracts; five weights are rounded up.
        assert 0 <= bound - deepest <= 5 * step * 60 * sum(depths)


def test_finer_grids_give_no_worse_a_bound():
    multipliers = multipliers_near(36000.0, 127.0)
    bounds = [
        upper_bound(R18, multipliers, grid(R18, ratio=ratio, step=step))
        for ratio, step in ((1.3, 1.0), (1.1, 0.5), (1.03, 0.25))
    ]
    assert bounds == sorted(bounds, reverse=True)


def test_certifying_lowers_the_bound_of_its_start():
    start = multipliers_near(30000.0, 100.0)
    small = replace(R18, max_width=512)
    found = certify(small, start, evaluations=30, step=0.5)
    assert found.bound < upper_bound(small, start, grid(small, ratio=1.0, step=0.5))


@pytest.mark.parametrize("monotone", Monotone)
def test_what_the_search_finds_keeps_the_task_by_the_independent_counter(monotone):
    task = replace(R18, monotone=monotone)
    found = search_free(task, np.random.default_rng(2), starts=1, beam=2)
    assert len(found.codes) > 100
    for row in (0, 1, len(found.codes) - 1):
        layers = found.structure(row).lower()
        assert deepmad_flops(layers) <= task.max_flops
        assert backbone_params(layers) <= task.max_params
        assert score(layers).effectiveness <= task.max_effectiveness
        assert is_monotone(layers, monotone)
    best = score(found.structure(0).lower()).objective
    assert best == pytest.approx(found.objective.max(), rel=1e-12)
    # The published network, which exceeds its own FLOPs, is no match.
    assert best > PUBLISHED["R18"].objective


def test_depths_are_as_deep_as_asked_and_all_of_them_alike_where_all_are_penalised():
    found = search_free(STRICT, np.random.default_rng(2), starts=1, beam=2)
    depths = found.codes[:, 4::4]
    assert (depths >= STRICT.min_depths).all()
    rules = ScoreRules(penalised_stages=PenalisedStages.ALL)
    best = score(found.structure(0).lower(), rules)
    assert best.objective == pytest.approx(found.objective[0], rel=1e-12)
    # The official penalty lets the first stages be shallow, and so they are.
    official = search_free(R18, np.random.default_rng(2), starts=1, beam=2).codes[0, 4::4]
    assert official[:2].tolist() == [1, 1]
    assert np.std(depths[0]) < np.std(official)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TASKS)
def test_the_search_reaches_the_reference_incumbents_without_knowing_them(name, seed):
    found = search_free(TASKS[name], np.random.default_rng(seed))
    layers = found.structure(0).lower()
    assert score(layers).objective >= REFERENCE[name]
    assert deepmad_flops(layers) <= TASKS[name].max_flops
    assert backbone_params(layers) <= TASKS[name].max_params
    assert score(layers).effectiveness <= TASKS[name].max_effectiveness


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_convs"), [("R18", 127), ("R34", 160)])
def test_no_network_of_the_task_is_proved_8_percent_above_the_reference_incumbent(name, num_convs):
    found = certify(TASKS[name], multipliers_near(REFERENCE[name], num_convs))
    assert REFERENCE[name] < found.bound < REFERENCE[name] / (1 - 0.08)


def test_a_search_repeats_itself():
    small = replace(R18, max_width=512, kernels=(5,))
    first, second = (search_free(small, np.random.default_rng(3), starts=1, beam=2) for _ in range(2))
    assert (first.codes == second.codes).all()


def test_a_climb_keeps_what_is_held_and_every_limit():
    task = replace(R18, monotone=Monotone.INNER)
    start = np.array([32, 64, 16, 128, 24, 256, 32, 512, 64, 768, 96, 1, 3, 6, 6, 6], dtype=float)
    climbed = Relaxation(task, (5, 5, 5, 3, 5)).climb(start, {4: 40.0, 13: 7.0})
    assert climbed.numbers[[4, 13]] == pytest.approx([40.0, 7.0])
    code = np.empty(1 + 4 * 5)
    code[0], code[1::4], code[2::4] = climbed.numbers[0], climbed.numbers[1:11:2], climbed.numbers[2:12:2]
    code[3::4], code[4::4] = climbed.kernels, climbed.numbers[11:]
    network = FreeNetworks(task, code[None])
    assert network.excess[0] <= 1 + 1e-6
    assert network.objective[0] == pytest.approx(climbed.objective)
    assert (np.diff(code[2::4]) >= -1e-3).all()
    # It went uphill: the start keeps the limits too, and is worse.
    code[0], code[1::4], code[2::4], code[4::4] = start[0], start[1:11:2], start[2:12:2], start[11:]
    assert FreeNetworks(task, code[None]).objective[0] < climbed.objective
