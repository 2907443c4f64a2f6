"""A space of one network: its costs, and that its weights are that network's alone."""

import numpy as np
import pytest
import torch

from nas.costs import batch_costs, costs
from nas.errors import InvalidArchitectureError
from nas.single_network import SingleNetworkSpace
from search_spaces import SPACES
from supernet.extract import extract
from supernet.network import Supernet

NAMES = ("micro", "nas_bench_macro", "nas_bench_201")


def one_of(name, seed=0):
    whole = SPACES[name]
    network = whole.sample(np.random.default_rng(seed))
    return SingleNetworkSpace(whole, network), network


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_its_network_and_no_other(name):
    alone, network = one_of(name)
    only = alone.largest()
    assert alone.smallest() == alone.sample(np.random.default_rng(1)) == only
    assert alone.size() == len(alone.covering()) == 1
    assert alone.lower(only) == SPACES[name].lower(network)
    assert alone.contains(only)
    assert not alone.contains(network)


@pytest.mark.parametrize("name", NAMES)
def test_its_costs_are_the_networks(name):
    alone, network = one_of(name)
    known = costs(SPACES[name], network)
    assert costs(alone, alone.largest()) == known
    batch = batch_costs(alone, alone.encode([alone.largest()]))
    assert {cost: int(values[0]) for cost, values in batch.items()} == known


@pytest.mark.parametrize("name", NAMES)
def test_its_weights_are_as_many_as_the_network_has(name):
    alone, network = one_of(name)
    weights = Supernet(alone, generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in weights.parameters()) == costs(SPACES[name], network)["params"]
    images = torch.randn(2, 3, *2 * alone.resolutions_px())
    plain = extract(weights, alone.largest())
    torch.testing.assert_close(plain(images), weights.eval()(images, alone.largest()))


def test_two_networks_are_told_apart():
    spaces = [one_of("micro", seed)[0] for seed in (0, 1)]
    assert spaces[0].name != spaces[1].name
    assert spaces[0].fingerprint != spaces[1].fingerprint


def test_a_network_of_another_space_is_refused():
    with pytest.raises(InvalidArchitectureError, match="belongs to space 'micro_8'"):
        SingleNetworkSpace(SPACES["micro"], SPACES["micro_8"].largest())
