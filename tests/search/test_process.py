"""Laws of the Gaussian process, against what its definition gives when worked out at length."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search import process
from nas.search.process import GaussianProcess


def noisy(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, one of which never varies, and targets smooth in the two others."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.uniform(-2, 2, num), np.full(num, 3.0), rng.uniform(0, 50, num)])
    smooth = np.sin(features[:, 0]) + 0.02 * features[:, 2]
    return features, 5.0 + smooth + rng.normal(0, 0.05, num)


def fitted(features: np.ndarray, targets: np.ndarray) -> GaussianProcess:
    return GaussianProcess.fit(features, targets, np.random.default_rng(0))


def test_a_smooth_function_is_learned_from_few_points():
    features, targets = noisy(200)
    means, spreads = fitted(features[:40], targets[:40]).mean_and_spread(features[40:])
    errors = targets[40:] - means
    assert np.std(errors) < 0.2 * np.std(targets[40:])
    assert 0.6 < np.std(errors / spreads) < 1.5


def test_what_is_held_out_is_what_the_others_alone_would_say(monkeypatch):
    features, targets = noisy(25)
    # The same length and noise, mean and scaling for all, as they are not chosen anew for each.
    monkeypatch.setattr(process, "_LENGTHS", (1.0,))
    monkeypatch.setattr(process, "_NOISES", (0.1,))
    whole = fitted(features, targets)
    points, values = whole._scaling.points(features), whole._scaling.values(targets)
    for row in (0, 7, 24):
        others = np.delete(np.arange(25), row)
        without = process._Posterior.likeliest(points[others], values[others])
        mean, spread = without.mean_and_spread(points[[row]])
        spread *= np.sqrt(whole._posterior.variance / without.variance)
        mean, spread = whole._scaling.told(mean, spread)
        assert whole.held_out[row] == pytest.approx(mean[0])
        assert whole.held_out_spread[row] == pytest.approx(spread[0])


def test_units_and_features_that_never_vary_change_nothing():
    features, targets = noisy(40)
    plain = fitted(features[:30], targets[:30]).mean_and_spread(features[30:])
    other = np.column_stack([1e3 * features[:, 2], 7 - features[:, 0]])
    scaled = fitted(other[:30], 2 - 10 * targets[:30]).mean_and_spread(other[30:])
    assert scaled[0] == pytest.approx(2 - 10 * plain[0])
    assert scaled[1] == pytest.approx(10 * plain[1])


def test_where_all_measure_the_same_that_is_expected_and_where_all_are_alike_their_mean():
    features, targets = noisy(10)
    means, _ = fitted(features, np.full(10, 0.5)).mean_and_spread(features)
    assert means == pytest.approx(np.full(10, 0.5))
    means, spreads = fitted(np.ones((10, 2)), targets).mean_and_spread(np.ones((3, 2)))
    assert means == pytest.approx(np.full(3, targets.mean()))
    assert (spreads > 0).all()


def test_of_many_points_some_are_drawn_and_the_others_held_out_too(monkeypatch):
    features, targets = noisy(120)
    monkeypatch.setattr(process, "_MAX_LEARNED", 40)
    drawn = fitted(features, targets)
    assert len(drawn._posterior.points) == 40
    means, _ = drawn.mean_and_spread(features)
    assert (drawn.held_out == means).sum() == 80
    assert np.std(targets - drawn.held_out) < 0.3 * np.std(targets)
