"""How surely a network is on the frontier: against direct resampling, and in cases with a known answer."""

import numpy as np
import pytest

from nas.front_probability import NUM_RESAMPLES, NUM_RIVALS, front_probabilities
from nas.pareto import pareto_front

NUM_IMAGES = 203


def packed(correct_nk):
    return [np.packbits(row).tobytes() for row in correct_nk]


def network(num_correct, num_images=NUM_IMAGES, start=0):
    """Right on so many images, from the given one on."""
    return np.roll(np.arange(num_images) < num_correct, start)


def probabilities(correct_nk, costs_nm, members=None):
    costs_nm = np.asarray(costs_nm, dtype=float)
    members = np.arange(len(costs_nm)) if members is None else np.asarray(members)
    correct_nk = np.array(correct_nk)
    return front_probabilities(
        correct_nk.sum(axis=1),
        costs_nm,
        members,
        lambda positions: packed(correct_nk[positions]),
        num_images=correct_nk.shape[1],
    )


@pytest.mark.parametrize("num_costs", [1, 2, 3])
def test_it_is_the_share_of_resamples_whose_front_holds_the_network(num_costs):
    rng = np.random.default_rng(num_costs)
    correct = rng.random((30, NUM_IMAGES)) < rng.uniform(0.5, 0.7, (30, 1))
    # Few values, so that costs and accuracies tie.
    costs = rng.integers(0, 4, (30, num_costs)).astype(float)
    counts = np.random.default_rng(0).multinomial(
        NUM_IMAGES, np.full(NUM_IMAGES, 1 / NUM_IMAGES), size=NUM_RESAMPLES
    )
    fronts = [pareto_front(np.column_stack([costs, -(correct @ count)])) for count in counts]
    expected = np.mean([np.isin(np.arange(30), front) for front in fronts], axis=0)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(probabilities(correct, costs), expected, atol=1e-12)


def test_what_nothing_cheaper_rivals_is_certain():
    assert probabilities([network(10), network(150)], [[1.0], [2.0]]).tolist() == [1.0, 1.0]


def test_equals_in_all_have_one_that_stands_for_them():
    assert probabilities([network(90), network(90)], [[1.0], [1.0]]).tolist() == [1.0, 0.0]
    assert probabilities([network(90), network(90)], [[2.0], [1.0]]).tolist() == [0.0, 1.0]


def test_the_same_images_right_tell_more_than_the_same_number_of_others():
    # Three images more than the cheaper one: all of the same and three besides, or others altogether.
    paired = probabilities([network(100), network(103)], [[1.0], [2.0]])[1]
    unpaired = probabilities([network(100), network(103, start=100)], [[1.0], [2.0]])[1]
    assert unpaired < 0.7 < 0.9 < paired


def test_more_images_make_it_surer():
    few = probabilities([network(50, 100), network(52, 100, start=48)], [[1.0], [2.0]])[1]
    many = probabilities([network(2500, 5000), network(2600, 5000, start=2400)], [[1.0], [2.0]])[1]
    assert few < many


def test_only_those_asked_for_are_told_in_their_order():
    rng = np.random.default_rng(3)
    correct = rng.random((12, NUM_IMAGES)) < 0.6
    costs = rng.random((12, 1))
    every = probabilities(correct, costs)
    assert probabilities(correct, costs, members=[7, 2]).tolist() == every[[7, 2]].tolist()


def test_the_least_accurate_of_very_many_rivals_are_left_out():
    strong = [network(190 - i % 3, start=i) for i in range(NUM_RIVALS)]
    weak = [network(20, start=i) for i in range(50)]
    own = network(191, start=150)
    costs = [[1.0]] * (NUM_RIVALS + 50) + [[2.0]]
    with_weak = probabilities([*strong, *weak, own], costs, members=[NUM_RIVALS + 50])
    without = probabilities([*strong, own], [*costs[:NUM_RIVALS], [2.0]], members=[NUM_RIVALS])
    assert with_weak.tolist() == without.tolist()
