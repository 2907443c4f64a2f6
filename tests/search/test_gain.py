"""Laws of hypervolume gained and of breeding candidates, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nas.pareto import hypervolume, pareto_front
from nas.search.candidates import breed, every_feasible
from nas.search.gain import best_batch, gains
from nas.search.sampled_gain import SampledFronts, shortlist
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


# In three objectives and more


def front_and_samples(seed, num_objectives, *, num=60, num_front=30, num_samples=4):
    """A front, and opinions on candidates that differ in one objective alone, as predictions do."""
    rng = np.random.default_rng(seed)
    front = rng.random((num_front, num_objectives)) ** 0.3
    samples = np.repeat(rng.random((1, num, num_objectives)) ** 0.5, num_samples, axis=0)
    samples[:, :, 0] *= rng.uniform(0.8, 1.0, (num_samples, num))
    return front, samples, np.ones(num_objectives)


def mean_exact(samples, front, corner, rows=slice(None)):
    return np.mean([gains(sample[rows], front, corner) for sample in samples], axis=0)


@pytest.mark.parametrize("num_objectives", [3, 4, 5])
@pytest.mark.parametrize("is_shared", [True, False])
def test_gains_at_points_are_near_the_exact_ones(num_objectives, is_shared):
    front, samples, corner = front_and_samples(0, num_objectives)
    if not is_shared:
        samples = samples * np.random.default_rng(1).uniform(0.95, 1.0, samples.shape)
    exact = mean_exact(samples, front, corner)
    found = SampledFronts(samples, front, corner).mean_gains(np.arange(samples.shape[1]))
    assert found == pytest.approx(exact, abs=0.03 * exact.max())
    assert np.corrcoef(found, exact)[0, 1] > 0.99


@pytest.mark.parametrize("num_objectives", [3, 5])
def test_a_chosen_candidate_is_from_then_on_as_if_measured(num_objectives):
    front, samples, corner = front_and_samples(1, num_objectives, num_samples=1)
    rows = np.arange(samples.shape[1])
    fronts = SampledFronts(samples, front, corner)
    fronts.choose(7)
    measured = SampledFronts(samples, np.vstack([front, samples[0][7]]), corner)
    assert fronts.mean_gains(rows) == pytest.approx(measured.mean_gains(rows), abs=1e-15)
    assert fronts.mean_gains(np.array([7]))[0] == 0.0


def test_what_lies_beyond_the_corner_or_behind_the_front_gains_nothing_at_points():
    front, corner = np.array([[0.5, 0.5, 0.5]]), np.ones(3)
    rows = np.array([[[0.6, 0.6, 0.6], [0.4, 1.1, 0.4], [1.2, 0.1, 0.1], [0.5, 0.5, 0.5], [0.4, 0.4, 0.4]]])
    found = SampledFronts(rows, front, corner).mean_gains(np.arange(5))
    assert found[:4].tolist() == [0.0] * 4
    assert found[4] == pytest.approx(0.6**3 - 0.5**3, rel=0.05)


@pytest.mark.parametrize("num_objectives", [3, 4])
def test_a_batch_chosen_at_points_gains_nearly_what_one_chosen_exactly_does(num_objectives):
    front, samples, corner = front_and_samples(2, num_objectives, num=40)

    def volume(rows):
        return np.mean([hypervolume(np.vstack([front, s[rows]]), corner) for s in samples]) - before

    before, exact = hypervolume(front, corner), []
    for _ in range(5):
        held = [np.vstack([front, sample[exact]]) for sample in samples]
        gained = np.mean([gains(s, h, corner) for s, h in zip(samples, held, strict=True)], axis=0)
        exact.append(int(gained.argmax()))
    chosen = best_batch(samples, front, corner, 5)
    assert len({*chosen}) == 5
    assert volume(chosen) > 0.97 * volume(exact)


def test_of_many_candidates_those_that_gain_most_are_looked_at_closely():
    front, samples, corner = front_and_samples(3, 4, num=3000, num_samples=2)
    exact = mean_exact(samples, front, corner, slice(0, 3000))
    listed = shortlist(samples, front, corner)
    assert len({*listed.tolist()}) == 1000
    assert {*np.argsort(-exact)[:50].tolist()} <= {*listed.tolist()}
    assert all(0 <= row < 3000 for row in best_batch(samples, front, corner, 4))


def test_in_many_objectives_a_batch_also_ends_where_nothing_is_below_the_corner():
    samples = np.array([[[2.0, 0.1, 0.1], [0.5, 1.0, 0.1]]])
    assert best_batch(samples, np.array([[0.9, 0.9, 0.9]]), np.ones(3), 3) == []
    assert best_batch(samples[:, :0], np.array([[0.9, 0.9, 0.9]]), np.ones(3), 3) == []
