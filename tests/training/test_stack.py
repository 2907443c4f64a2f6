"""Stacks: what a recipe becomes, on record."""

import json

import pytest

from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.training import build_stack


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_resolved_stack_is_json_and_names_every_strategy(name):
    record = build_stack(RECIPES[name], SPACES["micro"], steps_per_epoch=10, seed=7).to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["num_steps"] == 10 * RECIPES[name].epochs
    expected = {
        "bignas": "SandwichSampler",
        "spos": "UniformSampler",
        "attentive": "SandwichSampler",
        "alphanet": "SandwichSampler",
    }
    assert record["strategies"]["sampler"] == expected[name]
