"""Laws of hypervolume gained and of breeding candidates, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nas.pareto import hypervolume, pareto_front
from nas.search.candidates import breed, every_feasible
from nas.search.gain import best_batch, gains
from tests.search.synthetic import all_networks, region_of


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_gain_is_the_hypervolume_with_the_row_less_that_without(num_objectives, seed):
    rng = np.random.default_rng(seed)
    # Coarse numbers, so that there are ties, copies, and rows on and beyond the corner.
    front, losses = (rng.integers(0, 7, (num, num_objectives)) / 6 for num in (8, 30))
    corner = np.full(num_objectives, 5 / 6)
    gained = gains(losses, front, corner)
    for row, gain in zip(losses, gained, strict=True):
        expected = hypervolume(np.vstack([front, row]), corner) - hypervolume(front, corner)
        assert gain == pytest.approx(expected, abs=1e-12)
        assert gain >= 0


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_before_anything_is_measured_a_row_gains_all_that_it_dominates(num_objectives):
    losses = np.random.default_rng(0).random((5, num_objectives))
    corner = np.ones(num_objectives)
    gained = gains(losses, np.empty((0, num_objectives)), corner)
    assert gained == pytest.approx((1 - losses).prod(axis=1))


def test_a_batch_is_chosen_one_by_one_for_the_mean_gain_over_opinions():
    rng = np.random.default_rng(1)
    front, corner = rng.random((4, 2)), np.ones(2)
    samples = 0.8 * rng.random((3, 12, 2))
    chosen = best_batch(samples, front, corner, 4)
    known: list[int] = []
    for best in chosen:

        def mean_gain(candidate, held):
            return np.mean(
                [
                    hypervolume(np.vstack([front, s[[*held, candidate]]]), corner)
                    - hypervolume(np.vstack([front, s[held]]), corner)
                    for s in samples
                ]
            )

        expected = {c: mean_gain(c, known) for c in range(12) if c not in known}
        assert expected[best] == pytest.approx(max(expected.values()))
        known.append(best)
    assert len({*chosen}) == 4


def test_where_nothing_gains_beside_the_chosen_they_are_put_out_of_mind_and_then_the_front():
    losses = np.array([[[0.4], [0.95], [0.3], [0.5], [0.8]]])
    # Over the front 0.6 gain three; below the corner lies one more.
    assert best_batch(losses, np.array([[0.6]]), np.array([0.9]), 9) == [2, 0, 3, 4]
    assert best_batch(losses, np.array([[0.6]]), np.array([0.9]), 2) == [2, 0]
    in_plane = np.array([[[0.5, 0.5], [2.0, 0.1], [0.6, 0.6], [0.95, 0.95]]])
    assert best_batch(in_plane, np.array([[0.9, 0.9]]), np.ones(2), 9) == [0, 2, 3]


def test_a_batch_ends_where_no_opinion_holds_one_below_the_corner():
    samples = np.array([[[2.0, 0.1], [0.5, 1.0]]])
    assert best_batch(samples, np.array([[0.9, 0.9]]), np.ones(2), 3) == []
    assert best_batch(samples[:, :0], np.array([[0.9, 0.9]]), np.ones(2), 3) == []


@pytest.mark.parametrize("fields", [{}, {"max_macs": "30%"}])
def test_a_small_space_is_listed_whole(fields):
    region = region_of("nas_bench_macro", **fields)
    listed = every_feasible(region)
    assert listed is not None
    assert len({*listed.networks}) == len(listed.networks)
    assert {*listed.networks} == {a for a in all_networks(region.space) if region.contains(a)}
    assert (region.space.encode(listed.networks) == listed.codes).all()
    assert every_feasible(region_of("micro_8")) is None


def test_bred_candidates_reach_the_true_front_of_what_is_predicted():
    """The prediction is a known function, so the front is known by listing the space."""
    region = region_of("nas_bench_macro", max_macs="60%")
    weights = np.random.default_rng(2).random(len(region.space.decisions))

    def predict(codes):
        macs = region.costs.batch(codes, ["macs"])["macs"] / 1e8
        return np.column_stack([-np.sqrt(codes @ weights), macs])

    every = every_feasible(region)
    assert every is not None
    losses = predict(every.codes)
    corner = losses.max(axis=0)
    whole = hypervolume(losses, corner)
    rng = np.random.default_rng(3)
    parents = [every.networks[i] for i in rng.choice(len(every.networks), 10, replace=False)]
    bred = breed(region, parents, predict, rng, num_evaluations=4000)
    assert all(region.contains(network) for network in bred.networks)
    assert len({*bred.networks}) == len(bred.networks)
    reached = predict(bred.codes)
    assert hypervolume(reached, corner) > 0.999 * whole
    assert hypervolume(predict(region.space.encode(parents)), corner) < 0.95 * whole
    # The best fronts lead: the first network handed on is on the front of all of them.
    assert 0 in pareto_front(reached)


def test_breeding_ends_in_a_space_that_has_no_more():
    region = region_of("nas_bench_macro", max_macs="8%")
    every = every_feasible(region)
    assert every is not None
    bred = breed(
        region,
        every.networks[:1],
        lambda codes: codes[:, :2] * 1.0,
        np.random.default_rng(0),
        num_evaluations=1000,
    )
    assert {*bred.networks} <= {*every.networks}
