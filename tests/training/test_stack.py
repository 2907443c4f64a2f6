"""Stacks: what a recipe becomes, on record."""

import json

import pytest

from nas.recipes import RECIPES
from search_spaces import SPACES
from supernet.training import build_stack


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_resolved_stack_is_json_and_names_every_strategy(name):
    stack = build_stack(RECIPES[name], SPACES["micro"], steps_per_epoch=10, seed=7)
    record = stack.to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["num_steps"] == 10 * RECIPES[name].epochs
    assert record["strategies"] == {kind: type(made).__name__ for kind, made in stack.strategies.items()}
