"""Proportions of images and their intervals."""

import pytest

from nas.trial import least_rival, wilson_interval


@pytest.mark.parametrize("num_images", [1, 20, 5000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_a_rival_is_one_whose_interval_meets_that_of_the_best(num_images, share):
    best = round(share * num_images)
    low, _ = wilson_interval(best, num_images)
    meets = [count for count in range(best + 1) if wilson_interval(count, num_images)[1] >= low]
    assert least_rival(best, num_images) == meets[0]
    assert meets == [*range(meets[0], best + 1)]
