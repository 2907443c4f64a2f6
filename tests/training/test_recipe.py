"""Recipes: defaults filled in, nonsense refused with the field, the value, what is allowed and the remedy."""

import json
from dataclasses import fields

import pytest

from nas.errors import InvalidRequestError
from search_spaces import SPACES
from supernet.training import RECIPES, Recipe, build_stack, recipe_from_json


def test_an_empty_request_is_bignas():
    assert recipe_from_json({}) == Recipe() == RECIPES["bignas"]
    assert RECIPES["bignas"].name == "bignas"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_json_names_the_recipe(name):
    recipe = RECIPES[name]
    text = json.dumps(recipe.to_json())
    assert recipe_from_json(json.loads(text)) == recipe
    assert set(recipe.to_json()) == {field.name for field in fields(Recipe)}
    assert recipe_from_json({"name": name}) == recipe


def test_a_request_overrides_fields_of_the_named_recipe():
    recipe = recipe_from_json({"name": "spos", "epochs": 3, "base_learning_rate": 1})
    assert (recipe.epochs, recipe.sampler, recipe.num_random) == (3, "uniform", 1)
    assert recipe.base_learning_rate == 1.0


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("learning_speed", 1, "base_learning_rate"),
        ("name", "bignass", "bignas, spos"),
        ("name", ["bignas"], "bignas, spos"),
        ("epochs", 0, "from 1 to"),
        ("epochs", 2.5, "whole number"),
        ("epochs", True, "whole number"),
        ("epochs", "10", "whole number"),
        ("epochs", None, "whole number"),
        ("batch_size", 1, "from 2 to"),
        ("num_random", 31, "from 0 to 30"),
        ("base_learning_rate", 0, "from 1e-08"),
        ("base_learning_rate", float("nan"), "number"),
        ("base_learning_rate", float("inf"), "number"),
        ("dropout", 1.0, "from 0.0 to 0.9"),
        ("optimizer", "adam", "sgd, rmsprop"),
        ("optimizer", 3, "sgd, rmsprop"),
        ("clip", None, "none, norm, value"),
        ("learning_rate_policy", "COSINE", "exponential, cosine"),
        ("kernel_transform", "yes", "true or false"),
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value, allowed):
    with pytest.raises(InvalidRequestError) as refusal:
        recipe_from_json({field: value})
    message = str(refusal.value)
    assert allowed in message
    assert repr(value) in message or field in message
    assert "choose" in message or "leave" in message


@pytest.mark.parametrize(
    ("request_json", "reason"),
    [
        ({"sampler": "uniform"}, "needs the largest network"),
        ({"sampler": "uniform", "distillation": "none"}, "dropout 0.2 acts on the largest"),
        ({"name": "spos", "num_random": 0}, "no network to train"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(request_json, reason):
    with pytest.raises(InvalidRequestError, match=reason):
        build_stack(recipe_from_json(request_json), SPACES["micro"], steps_per_epoch=10, seed=0)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_resolved_stack_is_json_and_names_every_strategy(name):
    record = build_stack(RECIPES[name], SPACES["micro"], steps_per_epoch=10, seed=7).to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["num_steps"] == 10 * RECIPES[name].epochs
    expected = {"bignas": "SandwichSampler", "spos": "UniformSampler"}
    assert record["strategies"]["sampler"] == expected[name]
