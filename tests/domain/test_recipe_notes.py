"""Notes on a recipe: of its fields those that were changed in vain, and no others."""

from dataclasses import replace

import pytest

from nas.recipe import RECIPE_FIELDS, Recipe
from nas.recipe_notes import NEEDS, notes_on
from nas.recipes import RECIPES, recipe_from_json

BY_NAME = {field.name: field for field in RECIPE_FIELDS}


def another(field, value):
    """Some other value that the field may have."""
    declared = BY_NAME[field]
    if declared.options:
        return next(option for option in declared.options if option != value)
    if declared.kind is bool:
        return not value
    return declared.interval.low if value != declared.interval.low else declared.interval.high


@pytest.mark.parametrize("name", RECIPES)
def test_there_is_nothing_to_say_of_a_recipe_as_it_is(name):
    assert notes_on(RECIPES[name]) == ()


IDLE = [
    (name, field)
    for name, named in RECIPES.items()
    for field, (_, is_met) in NEEDS.items()
    if not is_met(named)
]


@pytest.mark.parametrize(("name", "field"), IDLE)
def test_a_field_changed_in_vain_is_told_with_what_it_needs(name, field):
    named = RECIPES[name]
    need, _ = NEEDS[field]
    recipe = replace(named, **{field: another(field, getattr(named, field))})
    assert notes_on(recipe) == (f"{field} {getattr(recipe, field)} has no effect: it needs {need}",)


@pytest.mark.parametrize(
    "request_json",
    [
        {"name": "deps", "delay_fraction": 0.3},
        {"name": "alphanet", "ratio_limit": 4.0},
        {"name": "panda", "carry_scores": True, "importance_limit": 0.5},
        {"name": "shiftnas", "held_out_fraction": 0.1, "num_bins": 4},
        {"name": "attentive", "attention": "worst_up", "num_bins": 4},
        {"temperature": 2.0, "clip_threshold": 2.0, "decay_fraction": 0.5, "epochs": 3},
    ],
)
def test_a_field_that_has_an_effect_is_not_told(request_json):
    assert notes_on(recipe_from_json(request_json)) == ()


def test_every_field_with_a_need_is_idle_somewhere_and_used_somewhere():
    idle = {field for _, field in IDLE}
    assert idle == {*NEEDS}
    used = {field for field, (_, is_met) in NEEDS.items() if any(is_met(r) for r in RECIPES.values())}
    # A need that no named recipe has by itself.
    assert {*NEEDS} - used <= {"weight_limit"}


def test_the_examples_people_fall_for():
    (note,) = notes_on(recipe_from_json({"delay_fraction": 0.3}))
    assert note == "delay_fraction 0.3 has no effect: it needs schedule delayed_epsilon, as in recipe deps"
    (note,) = notes_on(recipe_from_json({"name": "alphanet", "temperature": 4}))
    assert note == "temperature 4.0 has no effect: it needs distillation soft or soft_hard"


def test_images_held_out_for_nothing_are_told():
    (note,) = notes_on(Recipe(held_out_fraction=0.5))
    assert "held_out_fraction 0.5 keeps images from the weights, and nothing learns from them" in note
