"""Accuracies of two networks on the same images: their difference, and what its interval covers."""

import numpy as np
import pytest

from nas.paired import PairedDifference, paired_difference


def bitmap(bits) -> bytes:
    return np.packbits(np.asarray(bits, dtype=np.uint8)).tobytes()


def test_images_that_one_alone_gets_right_are_counted():
    found = paired_difference(bitmap([1, 1, 0, 0, 1]), bitmap([1, 0, 0, 1, 0]), num_images=5)
    assert (found.num_gained, found.num_lost, found.num_images) == (2, 1, 5)
    assert found.value == pytest.approx(1 / 5)


def test_padding_of_the_last_byte_is_no_image():
    assert paired_difference(b"\xff", b"\x00", num_images=3).num_gained == 3


def test_turned_round_the_interval_is_turned_round():
    one = PairedDifference(num_images=50, num_gained=9, num_lost=2)
    other = PairedDifference(num_images=50, num_gained=2, num_lost=9)
    assert other.value == -one.value
    assert other.interval_95 == pytest.approx(tuple(-bound for bound in reversed(one.interval_95)))


def test_equal_networks_differ_by_nothing_but_not_surely():
    low, high = PairedDifference(num_images=100, num_gained=0, num_lost=0).interval_95
    assert low < 0 < high < 0.05


def test_it_never_leaves_the_possible():
    assert PairedDifference(num_images=2, num_gained=2, num_lost=0).interval_95[1] <= 1


@pytest.mark.parametrize(("gained", "lost"), [(0.05, 0.05), (0.06, 0.02), (0.15, 0.1), (0.01, 0.002)])
def test_of_100_intervals_95_hold_the_truth(gained, lost):
    rng = np.random.default_rng(0)
    num_images, hits = 300, 0
    draws = rng.multinomial(num_images, [gained, lost, 1 - gained - lost], size=4000)
    for num_gained, num_lost, _ in draws:
        low, high = PairedDifference(
            num_images=num_images, num_gained=int(num_gained), num_lost=int(num_lost)
        ).interval_95
        hits += low <= gained - lost <= high
    assert 0.935 <= hits / 4000 <= 0.985
