"""The interval that every measured accuracy carries."""

import pytest

from nas.trial import wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Wilson's score interval, worked by hand from the formula with z = 1.96.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (980, 1000, 0.9693, 0.9870)],
)
def test_the_interval_is_wilsons(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_an_impossible_count_is_refused(correct, total):
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(correct, total)
