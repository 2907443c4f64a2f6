"""Methods of different papers in one recipe: those that have been joined are taken, all others refused."""

from itertools import combinations

import pytest

from nas.fields import InvalidFieldError
from nas.recipe_pairs import METHODS, PAIRS, methods_of
from nas.recipes import recipe_from_json

# What else a recipe needs for the method not to be refused for a reason of its own.
NEEDS = {
    "progressive": {"sampler": "uniform", "distillation": "none", "dropout": 0.0},
    "delayed_epsilon": {},
    "importance": {},
    "attentive": {},
    "shift": {"held_out_fraction": 0.04},
    "alpha": {"clip": "value"},
    "frozen": {"distillation": "soft"},
}
JOINED = [
    {"schedule": "progressive", "teacher": "frozen"},
    {"schedule": "delayed_epsilon", "teacher": "frozen"},
    {"schedule": "delayed_epsilon", "random_paths": "importance"},
    {"schedule": "delayed_epsilon", "random_paths": "attentive"},
    {"schedule": "delayed_epsilon", "random_paths": "shift"},
    {"schedule": "delayed_epsilon", "data_sampler": "importance"},
    {"schedule": "delayed_epsilon", "distillation": "alpha"},
    {"random_paths": "importance", "data_sampler": "importance"},
    {"random_paths": "shift", "data_sampler": "importance"},
]


def recipe_of(methods):
    needed = {}
    for value in methods.values():
        needed.update(NEEDS[value])
    return recipe_from_json({**needed, **methods})


def all_pairs():
    for first, second in combinations(METHODS, 2):
        if first[0] != second[0]:
            yield {first[0]: first[1].value, second[0]: second[1].value}


UNJOINED = [pair for pair in all_pairs() if pair not in JOINED]


@pytest.mark.parametrize("methods", JOINED, ids="+".join)
def test_methods_that_have_been_joined_are_taken_together(methods):
    used = {(name, value.value) for name, value in methods_of(recipe_of(methods))}
    assert used == set(methods.items())


@pytest.mark.parametrize("methods", UNJOINED, ids="+".join)
def test_methods_that_nobody_has_joined_are_refused_with_what_to_choose(methods):
    with pytest.raises(InvalidFieldError, match="choose") as refusal:
        recipe_of(methods)
    assert refusal.value.field in methods


@pytest.mark.parametrize(
    ("request_json", "field", "other", "allowed"),
    [
        (
            {"name": "alphanet", "random_paths": "importance"},
            "distillation",
            "random_paths 'importance'",
            "none or soft or soft_hard with random_paths importance",
        ),
        (
            {"name": "ofa", "data_sampler": "importance"},
            "data_sampler",
            "schedule 'progressive'",
            "uniform with schedule progressive",
        ),
    ],
)
def test_the_refusal_names_both_methods_and_what_goes_instead(request_json, field, other, allowed):
    with pytest.raises(InvalidFieldError, match=f"worked out together with {other}") as refusal:
        recipe_from_json(request_json)
    assert (refusal.value.field, refusal.value.allowed) == (field, allowed)
    # What is allowed is taken.
    for value in allowed.split(" with ")[0].split(" or "):
        assert getattr(recipe_from_json({**request_json, field: value}), field) == value


def test_who_has_no_teacher_uses_no_frozen_one():
    assert methods_of(recipe_from_json({"name": "spos", "teacher": "frozen"})) == ()


def test_no_entry_joins_two_values_of_one_field():
    assert all(len({name for name, _ in pair}) == 2 for pair in PAIRS)
