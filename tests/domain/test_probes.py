"""Probes and plateaus: which networks show how a training goes, and when they have stopped to rise."""

import numpy as np
import pytest

from nas.costs import costs
from nas.plateau import LEAST_RISE, WINDOW, are_flat
from nas.probes import ProbeRole, choose_probes, front_of
from search_spaces import SPACES

SIZES = {"num_classes": 10, "in_channels": 3}


def chosen(space, num_drawn, seed=0):
    return choose_probes(SPACES[space], num_drawn, np.random.default_rng(seed), **SIZES)


@pytest.mark.parametrize("space", ["micro", "micro_8", "nas_bench_macro"])
def test_probes_are_the_ends_and_networks_spread_evenly_over_macs(space):
    probes = chosen(space, 8)
    assert [probe.number for probe in probes] == list(range(10))
    assert [probe.role for probe in probes[:3]] == [ProbeRole.LARGEST, ProbeRole.SMALLEST, ProbeRole.DRAWN]
    most, least = probes[0].macs, probes[1].macs
    wanted = np.linspace(least, most, 10)[1:-1]
    assert np.abs([probe.macs for probe in probes[2:]] - wanted).max() < 0.03 * (most - least)
    for probe in probes:
        found = costs(SPACES[space], probe.architecture, **SIZES)
        assert found == {name: getattr(probe, name) for name in found}


def test_probes_are_the_seeds():
    assert chosen("micro_8", 4) == chosen("micro_8", 4)
    assert chosen("micro_8", 4) != chosen("micro_8", 4, seed=1)
    assert len({probe.architecture.key for probe in chosen("micro_8", 64)}) == 66


def test_without_drawn_networks_there_are_the_ends():
    assert [probe.role for probe in chosen("micro_8", 0)] == [ProbeRole.LARGEST, ProbeRole.SMALLEST]


def test_the_front_is_what_no_other_beats():
    assert front_of([30, 10, 20, 25], [0.9, 0.5, 0.4, 0.9]) == [1, 3]


# Plateaus

EPOCHS = np.arange(WINDOW)


def noisy(slope, noise, seed=0):
    return 0.8 + slope * EPOCHS + noise * np.random.default_rng(seed).standard_normal(WINDOW)


def test_curves_that_stand_still_are_flat_and_one_that_rises_is_enough_not_to_be():
    still, rising = noisy(0.0, 0.001), noisy(0.003, 0.001)
    assert are_flat([still, noisy(0.0, 0.001, seed=1)])
    assert not are_flat([still, rising])


def test_a_falling_curve_is_flat():
    assert are_flat([noisy(-0.01, 0.002)])


def test_where_the_scatter_hides_a_rise_nothing_is_called_flat():
    assert not are_flat([noisy(0.0, 0.03)])


def test_a_rise_is_called_flat_no_more_often_than_the_interval_allows():
    """Of curves that rise by exactly the least rise, 5 % are called flat, but for the draw's own error."""
    slope = LEAST_RISE / (WINDOW - 1)
    called = sum(are_flat([noisy(slope, 0.003, seed=seed)]) for seed in range(2000))
    assert 60 <= called <= 140


def test_another_number_of_epochs_is_refused():
    with pytest.raises(ValueError, match="rows of 10 accuracies"):
        are_flat([[0.5] * 9])
