"""Recipes: defaults filled in, nonsense refused with the field, the value, what is allowed and the remedy."""

import json
from dataclasses import fields
from math import inf, nan, nextafter

import pytest

from nas.errors import InvalidRequestError
from nas.fields import InvalidFieldError
from nas.recipe import RECIPE_FIELDS, Recipe
from nas.recipe_choices import RecipeName
from nas.recipes import RECIPES, recipe_from_json

NUMBERS = [field for field in RECIPE_FIELDS if field.interval is not None]
CHOICES = [field for field in RECIPE_FIELDS if field.options]


def by_name(field):
    return field.name


def just_outside(field):
    low, high = field.interval.low, field.interval.high
    return (low - 1, high + 1) if field.kind is int else (nextafter(low, -inf), nextafter(high, inf))


def test_an_empty_request_is_bignas():
    assert recipe_from_json({}) == Recipe() == RECIPES["bignas"]


def test_every_recipe_stands_under_its_name():
    assert list(RECIPES) == list(RecipeName)
    assert [recipe.name for recipe in RECIPES.values()] == list(RecipeName)


@pytest.mark.parametrize("name", RecipeName)
def test_a_whole_recipe_is_read_back_as_it_is(name):
    recipe = RECIPES[name]
    text = json.dumps(recipe.to_json())
    assert recipe_from_json(json.loads(text)) == recipe
    assert list(recipe.to_json()) == [field.name for field in fields(Recipe)]
    assert recipe_from_json({"name": name}) == recipe


def test_resolving_again_changes_nothing():
    once = recipe_from_json({"name": "spos", "epochs": 3}).to_json()
    assert recipe_from_json(once).to_json() == once


def test_a_record_from_before_a_field_is_read_with_its_recipes_default():
    for name, field in [("bignas", "dropout"), ("spos", "dropout"), ("spos", "sampler")]:
        record = RECIPES[name].to_json()
        del record[field]
        assert recipe_from_json(record) == RECIPES[name]


def test_a_request_overrides_fields_of_the_named_recipe():
    recipe = recipe_from_json({"name": "spos", "epochs": 3, "base_learning_rate": 1})
    assert (recipe.epochs, recipe.sampler, recipe.num_random) == (3, "uniform", 1)
    assert isinstance(recipe.base_learning_rate, float)


@pytest.mark.parametrize("field", RECIPE_FIELDS, ids=by_name)
def test_every_field_says_what_it_means_and_what_it_may_be(field):
    assert field.meaning.endswith(".")
    assert (field.interval is not None) == (field.kind in (int, float))
    assert len(field.allowed) > len("one of ")


@pytest.mark.parametrize("field", NUMBERS, ids=by_name)
def test_a_number_may_be_either_end_of_its_interval(field):
    for value in (field.interval.low, field.interval.high):
        assert getattr(recipe_from_json({field.name: value}), field.name) == value


@pytest.mark.parametrize("field", NUMBERS, ids=by_name)
def test_a_number_outside_its_interval_is_refused(field):
    for value in (*just_outside(field), nan, inf, -inf, True, "1", None, [1]):
        assert_refused(field, value)
    if field.kind is int:
        assert_refused(field, float(field.interval.low))


@pytest.mark.parametrize("field", CHOICES, ids=by_name)
def test_what_is_not_in_a_closed_list_is_refused_with_the_list(field):
    for value in ("other", field.options[0].upper(), "", 3, None, ["x"]):
        assert_refused(field, value)


def test_neither_a_text_nor_a_number_is_a_truth_value():
    for field in RECIPE_FIELDS:
        if field.kind is bool:
            for value in ("yes", 1, 0, None):
                assert_refused(field, value)


def assert_refused(field, value):
    with pytest.raises(InvalidFieldError) as refusal:
        recipe_from_json({field.name: value})
    assert (refusal.value.field, refusal.value.value) == (field.name, pytest.approx(value, nan_ok=True))
    assert refusal.value.allowed == field.allowed
    message = str(refusal.value)
    for part in (f"'{field.name}'", repr(value), field.allowed, "choose"):
        assert part in message


def test_an_unknown_field_is_told_those_there_are():
    with pytest.raises(InvalidRequestError, match=r"'learning_speed' is unknown.*base_learning_rate.*leave"):
        recipe_from_json({"learning_speed": 1})


@pytest.mark.parametrize(
    ("request_json", "field", "reason"),
    [
        ({"sampler": "uniform"}, "distillation", "needs the largest network"),
        ({"name": "spos", "distillation": "soft"}, "distillation", "needs the largest network"),
        ({"sampler": "uniform", "distillation": "none"}, "dropout", "dropout 0.2 acts on the largest"),
        ({"name": "spos", "num_random": 0}, "num_random", "no network to train"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(request_json, field, reason):
    with pytest.raises(InvalidFieldError, match=rf"{reason}.*choose") as refusal:
        recipe_from_json(request_json)
    assert refusal.value.field == field
    assert "with sampler uniform" in refusal.value.allowed


@pytest.mark.parametrize(
    ("request_json", "field", "reason"),
    [
        ({"restart_momentum": True}, "restart_momentum", "only schedule 'progressive' has phases"),
        (
            {"freeze_transforms": True, "kernel_transform": True},
            "freeze_transforms",
            "only schedule 'progressive' has one",
        ),
        (
            {"name": "ofa", "freeze_transforms": True, "kernel_transform": False},
            "freeze_transforms",
            "needs kernel transforms to freeze",
        ),
        ({"learning_rate_policy": "phased"}, "learning_rate_policy", "needs the phases of a progressive"),
        ({"teacher": "frozen"}, "teacher", "schedule 'static' never trains it alone"),
        (
            {"name": "deps", "teacher": "frozen", "delay_fraction": 0.2, "ramp_fraction": 0.2},
            "teacher",
            "others are trained from the first step",
        ),
        ({"name": "ofa", "sampler": "sandwich"}, "schedule", "adds the largest and the smallest"),
    ],
)
def test_what_needs_the_phases_of_progressive_shrinking_is_refused_without_them(request_json, field, reason):
    with pytest.raises(InvalidFieldError, match=rf"{reason}.*choose") as refusal:
        recipe_from_json(request_json)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("request_json", "field", "reason"),
    [
        (
            {"name": "attentive", "schedule": "progressive", "sampler": "uniform"},
            "schedule",
            "'progressive' changes the space from phase to phase",
        ),
        ({"name": "attentive", "importance_weighting": "exact"}, "importance_weighting", "known probability"),
        (
            {"name": "alphanet", "teacher": "frozen", "schedule": "delayed_epsilon"},
            "teacher",
            "'frozen' does not learn with its students",
        ),
    ],
)
def test_what_attentive_sampling_and_alpha_distillation_do_not_go_with(request_json, field, reason):
    with pytest.raises(InvalidFieldError, match=rf"{reason}.*choose") as refusal:
        recipe_from_json(request_json)
    assert refusal.value.field == field


@pytest.mark.parametrize("kind", ["exact", "self_normalised", "clipped"])
@pytest.mark.parametrize(
    ("request_json", "reason"),
    [
        ({}, "networks and images are drawn uniformly"),
        ({"name": "spos"}, "networks and images are drawn uniformly"),
        ({"name": "shiftnas"}, "generates networks for a cost"),
        ({"name": "attentive"}, "'attentive' picks by the loss"),
        # The network that is picked depends on the images drawn, which their weights do not make up for.
        ({"name": "attentive", "data_sampler": "importance"}, "'attentive' picks by the loss"),
    ],
)
def test_weights_where_nothing_is_drawn_that_they_could_undo_are_refused(request_json, reason, kind):
    with pytest.raises(InvalidFieldError, match=rf"{reason}.*choose") as refusal:
        recipe_from_json({**request_json, "importance_weighting": kind})
    assert refusal.value.field == "importance_weighting"
    assert refusal.value.allowed.startswith("none with")


@pytest.mark.parametrize(
    "request_json",
    [
        {"name": "panda"},
        {"name": "panda", "random_paths": "uniform"},
        {"name": "panda", "data_sampler": "uniform"},
        {"name": "shiftnas", "data_sampler": "importance"},
    ],
)
def test_weights_go_with_whatever_is_drawn_by_importance(request_json):
    assert recipe_from_json({**request_json, "importance_weighting": "exact"}).importance_weighting == "exact"


def test_alpha_distillation_without_a_limit_on_gradients_is_refused():
    with pytest.raises(
        InvalidFieldError, match=r"clip 'none' lets every gradient through.*choose"
    ) as refusal:
        recipe_from_json({"name": "alphanet", "clip": "none"})
    assert (refusal.value.field, refusal.value.allowed) == ("clip", "norm or value with distillation alpha")
    assert recipe_from_json({"name": "alphanet", "clip": "norm"}).clip == "norm"


def test_attentive_sampling_goes_with_a_delayed_epsilon():
    assert recipe_from_json({"name": "attentive", "schedule": "delayed_epsilon"}).random_paths == "attentive"


def test_the_largest_network_may_stand_alone_in_a_sandwich():
    assert recipe_from_json({"num_random": 0}).num_random == 0
