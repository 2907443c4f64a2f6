"""Fronts, hypervolume and queries against brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from nas import dominance
from nas.costs import COST_NAMES, batch_costs
from nas.pareto import Direction, Objective, best_under, hypervolume, normalise, pareto_front
from search_spaces.micro import MICRO


def brute_force_front(values: np.ndarray) -> list[int]:
    """Dominated by nobody, equal to nobody earlier; by the rows themselves."""
    kept = [
        i
        for i, row in enumerate(values)
        if not any((other <= row).all() and (other < row).any() for other in values)
        and not any((other == row).all() for other in values[:i])
    ]
    return sorted(kept, key=lambda i: tuple(values[i]))


def inclusion_exclusion(values: np.ndarray, reference: np.ndarray) -> float:
    boxes = [row for row in values if (row < reference).all()]
    return float(
        sum(
            (-1) ** (size + 1) * np.prod(reference - np.max(chosen, axis=0))
            for size in range(1, len(boxes) + 1)
            for chosen in combinations(boxes, size)
        )
    )


def random_sets(count: int, *, max_rows: int, objectives: tuple[int, ...], seed: int = 0):
    """Small whole numbers, so that ties and duplicates abound, and continuous values in turn."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        shape = (int(rng.integers(0, max_rows + 1)), objectives[index % len(objectives)])
        yield rng.integers(0, 5, shape).astype(float) if index % 3 else rng.random(shape)


def test_front_equals_brute_force_with_ties_and_duplicates():
    for values in random_sets(500, max_rows=40, objectives=(1, 2, 3, 4, 5)):
        assert pareto_front(values).tolist() == brute_force_front(values)


def test_front_of_infinite_values_equals_brute_force():
    rng = np.random.default_rng(1)
    for _ in range(100):
        values = rng.choice([-np.inf, 0.0, -0.0, 1.0, np.inf], (12, int(rng.integers(1, 5))))
        assert pareto_front(values).tolist() == brute_force_front(values)


@pytest.fixture
def small_samples_and_blocks(monkeypatch):
    """So small that points few enough for brute force are struck by samples, and compared block by block."""
    monkeypatch.setattr(dominance, "_SAMPLE_ROWS", (2, 5))
    monkeypatch.setattr(dominance, "_BLOCK_ROWS", (2, 6))
    monkeypatch.setattr(dominance, "_WORDS_AT_ONCE", 7)


@pytest.mark.usefixtures("small_samples_and_blocks")
def test_front_found_by_samples_and_blocks_equals_brute_force():
    for values in random_sets(200, max_rows=150, objectives=(1, 2, 3, 4, 5), seed=11):
        assert pareto_front(values).tolist() == brute_force_front(values)


@pytest.mark.usefixtures("small_samples_and_blocks")
def test_no_sample_strikes_a_row_for_an_infinite_value_or_a_rounded_sum():
    rng = np.random.default_rng(12)
    for index in range(100):
        choices = [-np.inf, 0.0, -0.0, 1.0, np.inf] if index % 2 else [0.0, 1.0, 1e17, 2e17, 1e308, -1e308]
        values = rng.choice(choices, (80, int(rng.integers(1, 6))))
        assert pareto_front(values).tolist() == brute_force_front(values)


def front_by_elimination(values: np.ndarray) -> list[int]:
    """By rising objectives each row left is on the front, and strikes all that it is no worse than."""
    left, front = np.lexsort(values.T[::-1]), []
    while len(left):
        front.append(int(left[0]))
        left = left[(values[left] < values[left[0]]).any(axis=1)]
    return front


@pytest.mark.parametrize("num_objectives", [2, 3, 4, 5])
@pytest.mark.parametrize("num_values", [4, 20, None])
def test_front_of_many_points_equals_one_found_row_by_row(num_objectives, num_values):
    rng = np.random.default_rng(2)
    shape = (40_000, num_objectives)
    values = rng.random(shape) if num_values is None else rng.integers(0, num_values, shape).astype(float)
    assert pareto_front(values).tolist() == front_by_elimination(values)


@pytest.mark.parametrize("num_objectives", [3, 4, 5])
def test_front_that_most_points_are_on_equals_one_found_row_by_row(num_objectives):
    rng = np.random.default_rng(13)
    values = rng.random((6000, num_objectives))
    values *= ((1 + 0.01 * rng.random(6000)) / values.sum(axis=1))[:, None]
    assert pareto_front(values).tolist() == front_by_elimination(values)


@pytest.mark.parametrize(
    "names",
    [("macs",), ("macs", "params"), ("latency", "macs", "params"), COST_NAMES, (*COST_NAMES, "latency")],
)
def test_front_of_real_costs_equals_one_found_row_by_row(names):
    rng = np.random.default_rng(14)
    codes = np.stack([rng.integers(len(d.options), size=40_000) for d in MICRO.decisions], axis=1)
    # Networks asked for twice cost the same.
    codes[::5] = codes[1::5]
    figures = batch_costs(MICRO, codes, num_classes=10, in_channels=3)
    figures["latency"] = 2e-7 * figures["macs"] * (1 + 0.05 * rng.normal(size=len(codes)))
    accuracy = np.round(np.log(figures["macs"]) + 0.2 * rng.normal(size=len(codes)), 2)
    values = np.column_stack([-accuracy, *(figures[name] for name in names)])
    values[::5] = values[1::5]
    assert pareto_front(values).tolist() == front_by_elimination(values)


def test_front_does_not_depend_on_insertion_order():
    rng = np.random.default_rng(3)
    for values in random_sets(100, max_rows=60, objectives=(2, 3, 4), seed=4):
        shuffled = rng.permutation(values)
        assert np.array_equal(values[pareto_front(values)], shuffled[pareto_front(shuffled)])


def test_front_of_nothing_is_empty():
    assert pareto_front([]).tolist() == []
    assert pareto_front(np.empty((0, 3))).tolist() == []


@pytest.mark.parametrize("values", [[[1.0, float("nan")]], [1.0, 2.0], np.empty((2, 0))])
def test_front_refuses_nan_and_wrong_shapes(values):
    with pytest.raises(ValueError, match=r"NaN|shape"):
        pareto_front(values)


def test_hypervolume_equals_inclusion_exclusion():
    for values in random_sets(200, max_rows=12, objectives=(1, 2, 3, 4), seed=6):
        reference = np.full(values.shape[1], 4.0 if values.max(initial=0) > 1 else 0.9)
        assert hypervolume(values, reference) == pytest.approx(inclusion_exclusion(values, reference))


@pytest.mark.parametrize("num_objectives", [2, 3, 4, 5])
def test_hypervolume_never_falls_when_a_point_is_added(num_objectives):
    values = np.random.default_rng(7).random((30, num_objectives)) * 1.2
    volumes = [hypervolume(values[:count], np.ones(num_objectives)) for count in range(31)]
    assert volumes[0] == 0.0
    assert all(after >= before - 1e-12 for before, after in pairwise(volumes))


@pytest.mark.parametrize("num_objectives", [2, 3, 4])
def test_hypervolume_only_gains_by_points_better_than_the_reference_everywhere(num_objectives):
    inside = np.random.default_rng(8).random((10, num_objectives))
    beyond = np.r_[inside, [np.r_[1.0, np.full(num_objectives - 1, -9.0)]], [np.full(num_objectives, np.inf)]]
    assert hypervolume(beyond, np.ones(num_objectives)) == hypervolume(inside, np.ones(num_objectives))


def test_hypervolume_in_three_objectives_equals_that_with_a_constant_fourth():
    values = np.random.default_rng(9).random((80, 3))
    padded = np.c_[values, np.zeros(80)]
    assert hypervolume(padded, np.ones(4)) == pytest.approx(hypervolume(values, np.ones(3)))


def test_hypervolume_refuses_what_has_no_volume():
    with pytest.raises(ValueError, match="NaN"):
        hypervolume([[0.0, float("nan")]], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[0.0, 0.0]], [1.0, float("inf")])
    with pytest.raises(ValueError, match="infinite"):
        hypervolume([[0.0, -float("inf")]], [1.0, 1.0])
    with pytest.raises(ValueError, match="shape"):
        hypervolume([[0.0, 0.0, 0.0]], [1.0, 1.0])


def full_scan(accuracies, costs, bounds) -> int | None:
    allowed = [i for i, row in enumerate(costs) if all(c <= b for c, b in zip(row, bounds, strict=True))]
    return min(allowed, key=lambda i: (-accuracies[i], *costs[i][:1], i), default=None)


def test_every_query_under_bounds_equals_a_full_scan():
    rng = np.random.default_rng(10)
    for _ in range(500):
        num_rows, num_costs = int(rng.integers(0, 30)), int(rng.integers(0, 4))
        accuracies = rng.integers(0, 4, num_rows) / 4
        costs = rng.integers(0, 5, (num_rows, num_costs)).astype(float)
        bounds = rng.choice([0.0, 1.0, 3.0, np.inf], num_costs)
        assert best_under(accuracies, costs, bounds) == full_scan(accuracies, costs, bounds)


def test_query_under_bounds_refuses_nan():
    good, bad = [1.0], [float("nan")]
    for accuracies, costs, bounds in ((bad, [good], good), (good, [bad], good), (good, [good], bad)):
        with pytest.raises(ValueError, match="NaN"):
            best_under(accuracies, costs, bounds)


def test_normalise_turns_only_what_is_maximised_and_back():
    objectives = (Objective("accuracy", Direction.MAXIMISE), Objective("macs", Direction.MINIMISE))
    values = np.array([[0.9, 3.0], [0.0, 5.0]])
    turned = normalise(values, objectives)
    assert turned.tolist() == [[-0.9, 3.0], [0.0, 5.0]]
    assert np.array_equal(normalise(turned, objectives), values)
    with pytest.raises(ValueError, match="shape"):
        normalise([[1.0]], objectives)
