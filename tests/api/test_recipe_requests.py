"""Recipes in requests: the schema is the recipe's own, and what is created is resolved or refused at once."""

from __future__ import annotations

from math import inf, nan, nextafter

import pytest
from pydantic import ValidationError

from api.schemas.recipes import Recipe as RecipeRequest
from nas.fields import InvalidFieldError
from nas.progressive_phases import phases_of_run
from nas.recipe import RECIPE_FIELDS, Recipe
from nas.recipes import RECIPES, recipe_from_json
from nas.store import supernets
from search_spaces import SPACES
from tests.api.conftest import DIGITS
from tests.api.test_http_conventions import problem_of
from tests.api.worker import CONTENTS

PATH = "/v1/supernets"


def by_name(field):
    return field.name


def accepts(make, refusal: type[Exception]) -> bool:
    try:
        make()
    except refusal:
        return False
    return True


def edges_of(field) -> list:
    if field.interval is None:
        return []
    low, high = field.interval.low, field.interval.high
    outside = [low - 1, high + 1] if field.kind is int else [nextafter(low, -inf), nextafter(high, inf)]
    return [low, high, *outside]


@pytest.mark.parametrize("field", RECIPE_FIELDS, ids=by_name)
def test_the_schema_accepts_what_the_recipe_accepts(field):
    strange = [True, False, 0, 1, 2.0, -1, 10**400, nan, inf, -inf, "1", "", "yes", "UNIFORM", [], {}]
    values = [*edges_of(field), *field.options, *strange]
    verdicts = set()
    for value in values:
        ours = accepts(lambda value=value: RecipeRequest(**{field.name: value}), ValidationError)
        theirs = accepts(lambda value=value: field.checked(value, owner="recipe"), InvalidFieldError)
        assert ours == theirs, value
        verdicts.add(ours)
    assert verdicts == {True, False}


@pytest.mark.parametrize("field", RECIPE_FIELDS, ids=by_name)
def test_the_schema_tells_type_limits_and_meaning(field):
    told = RecipeRequest.model_json_schema()["properties"][field.name]
    assert told["description"].startswith(field.meaning)
    kind = told["anyOf"][0] if "anyOf" in told else told
    assert kind["type"] == {int: "integer", float: "number", bool: "boolean"}.get(field.kind, "string")
    if field.options:
        assert kind["enum"] == [*field.options]
    if field.interval:
        assert (kind["minimum"], kind["maximum"]) == (field.interval.low, field.interval.high)


def test_the_schema_has_the_recipes_fields_and_tells_each_recipes_defaults():
    properties = RecipeRequest.model_json_schema()["properties"]
    assert list(properties) == [field.name for field in RECIPE_FIELDS]
    assert properties["epochs"]["description"].endswith("Default: 10.")
    assert properties["dropout"]["description"].endswith(
        "Default: 0.2; 0.0 in spos, panda, shiftnas; 0.1 in ofa, deps, house."
    )


@pytest.mark.parametrize("name", RECIPES)
def test_null_is_as_if_left_out(name):
    nulls = {field.name: None for field in RECIPE_FIELDS} | {"name": name.value}
    assert RecipeRequest(**nulls).resolve() == RecipeRequest(name=name.value).resolve() == RECIPES[name]


# Over HTTP


@pytest.fixture
def body(http) -> dict:
    """A request for a supernet of images that are not imported yet."""
    dataset = http.post("/v1/datasets", json={"source": DIGITS}).json()
    return {"dataset_id": dataset["id"], "search_space": "micro_8"}


def refusal(response) -> dict:
    (error,) = problem_of(response, 422, "invalid-request")["errors"]
    return error


@pytest.mark.parametrize("request_json", [{}, {"epochs": 3}, {"name": "spos", "base_learning_rate": 1}])
def test_the_whole_recipe_is_stored_and_echoed_at_once(http, body, database, request_json):
    created = http.post(PATH, json={**body, "recipe": request_json}).json()
    whole = recipe_from_json(request_json)
    assert created["recipe"] == created["spec"]["recipe"] == whole.to_json()
    assert created["recipe"].keys() == Recipe.__dataclass_fields__.keys()
    assert http.get(f"{PATH}/{created['id']}").json()["recipe"] == whole.to_json()
    with database.session() as session:
        assert supernets.get(session, created["id"]).row.recipe == whole.to_json()


def test_the_echoed_recipe_may_be_sent_again(http, body):
    first = http.post(PATH, json={**body, "recipe": {"name": "spos", "epochs": 3}}).json()
    again = http.post(PATH, json={**body, "recipe": first["recipe"]}).json()
    assert again["recipe"] == first["recipe"]


@pytest.mark.parametrize(
    ("request_json", "field", "value", "allowed"),
    [
        ({"sampler": "uniform"}, "distillation", "soft", "none with sampler uniform"),
        (
            {"sampler": "uniform", "distillation": "none"},
            "dropout",
            0.2,
            "0 with sampler uniform and regularised largest",
        ),
        ({"name": "spos", "num_random": 0}, "num_random", 0, "1 or more with sampler uniform"),
        (
            {"name": "deps", "optimizer": "rmsprop"},
            "schedule",
            "delayed_epsilon",
            "static or progressive with optimizer rmsprop",
        ),
        ({"channel_sort": True}, "channel_sort", True, "false with schedule static"),
        ({"random_paths": "shift"}, "random_paths", "shift", "any other with held_out_fraction 0"),
        (
            {"name": "shiftnas", "importance_weighting": "exact"},
            "importance_weighting",
            "exact",
            "none with random_paths shift and data_sampler uniform",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_refused(http, body, request_json, field, value, allowed):
    error = refusal(http.post(PATH, json={**body, "recipe": request_json}))
    assert (error["field"], error["value"]) == (f"recipe.{field}", value)
    assert error["allowed"] == allowed
    assert "choose" in error["message"]
    assert http.get(PATH).json()["items"] == []


@pytest.mark.parametrize(
    ("batch_size", "num_workers", "nearest"), [(64, 3, 2), (9, 6, 3), (7, 2, 1), (2, 256, 2)]
)
def test_a_batch_that_workers_cannot_share_evenly_is_refused(http, body, batch_size, num_workers, nearest):
    request_json = {**body, "recipe": {"batch_size": batch_size}, "num_workers": num_workers}
    error = refusal(http.post(PATH, json=request_json))
    assert (error["field"], error["value"]) == ("num_workers", num_workers)
    assert error["allowed"] == f"a divisor of recipe.batch_size, {batch_size}"
    assert f"choose num_workers {nearest}," in error["message"]
    # The remedy works.
    assert http.post(PATH, json={**request_json, "num_workers": nearest}).status_code == 201


def test_a_batch_of_more_than_the_training_images_is_refused_once_they_are_counted(http, body, worker):
    too_many = {**body, "recipe": {"batch_size": CONTENTS.num_train + 1}}
    all_of_them = {**body, "recipe": {"batch_size": CONTENTS.num_train}}
    assert http.post(PATH, json=too_many).status_code == 201
    worker.import_dataset()
    error = refusal(http.post(PATH, json=too_many))
    assert (error["field"], error["value"]) == ("recipe.batch_size", CONTENTS.num_train + 1)
    assert error["allowed"] == f"a whole number from 2 to {CONTENTS.num_train}"
    assert http.post(PATH, json=all_of_them).status_code == 201


def test_images_held_out_do_not_count_as_those_to_learn_from(http, body, worker):
    worker.import_dataset()
    num_learned = CONTENTS.num_train - round(0.25 * CONTENTS.num_train)
    recipe = {"name": "shiftnas", "held_out_fraction": 0.25}
    too_many = {**body, "recipe": {**recipe, "batch_size": num_learned + 1}}
    error = refusal(http.post(PATH, json=too_many))
    assert (error["field"], error["value"]) == ("recipe.batch_size", num_learned + 1)
    assert error["allowed"] == f"a whole number from 2 to {num_learned}"
    assert "held out" in error["message"]
    all_of_them = {**body, "recipe": {**recipe, "batch_size": num_learned}}
    assert http.post(PATH, json=all_of_them).status_code == 201


def test_a_part_to_be_held_out_that_is_no_image_at_all_is_refused(http, body, worker):
    worker.import_dataset()
    fraction = 0.4 / CONTENTS.num_train
    error = refusal(
        http.post(PATH, json={**body, "recipe": {"name": "shiftnas", "held_out_fraction": fraction}})
    )
    assert (error["field"], error["value"]) == ("recipe.held_out_fraction", fraction)
    assert "choose a recipe.held_out_fraction of at least" in error["message"]


def test_progressive_shrinking_with_fewer_steps_than_phases_need_is_refused(http, body, worker):
    worker.import_dataset()
    # As one batch, so that an epoch is a step.
    recipe = {"name": "ofa", "batch_size": CONTENTS.num_train}
    error = refusal(http.post(PATH, json={**body, "recipe": {**recipe, "epochs": 3}}))
    assert (error["field"], error["value"]) == ("recipe.epochs", 3)
    least = error["allowed"].removesuffix(" or more")
    assert "this run has 3; choose more epochs or a smaller batch_size" in error["message"]
    refusal(http.post(PATH, json={**body, "recipe": {**recipe, "epochs": int(least) - 1}}))
    created = http.post(PATH, json={**body, "recipe": {**recipe, "epochs": int(least)}})
    assert created.status_code == 201
    phases_of_run(SPACES["micro_8"], int(least))


def test_what_a_recipe_asks_for_in_vain_is_told(http, body):
    created = http.post(PATH, json={**body, "recipe": {"delay_fraction": 0.3}}).json()
    (note,) = created["recipe_notes"]
    assert note == "delay_fraction 0.3 has no effect: it needs schedule delayed_epsilon, as in recipe deps"
    assert http.get(f"{PATH}/{created['id']}").json()["recipe_notes"] == [note]
    assert http.post(PATH, json={**body, "recipe": {"name": "deps"}}).json()["recipe_notes"] == []


@pytest.mark.parametrize("space", ["nas_bench_201", "nas_bench_macro"])
@pytest.mark.parametrize(
    ("name", "field", "value", "allowed"),
    [
        ("shiftnas", "random_paths", "shift", "any other"),
        ("ofa", "schedule", "progressive", "static or delayed_epsilon"),
    ],
)
def test_a_recipe_that_cannot_train_networks_of_the_space_is_refused(
    http, body, space, name, field, value, allowed
):
    error = refusal(http.post(PATH, json={**body, "search_space": space, "recipe": {"name": name}}))
    assert (error["field"], error["value"]) == (f"recipe.{field}", value)
    assert error["allowed"] == f"{allowed} in space {space}"
    assert "lacks the weights of other operations" in error["message"]
    assert http.get(PATH).json()["items"] == []


def test_a_refused_recipe_leaves_its_key_free_and_a_resolved_one_is_replayed(http, body, worker):
    worker.import_dataset()
    headers = {"Idempotency-Key": "recipe"}
    for wrong in ({"sampler": "uniform"}, {"batch_size": CONTENTS.num_train + 1}):
        refusal(http.post(PATH, json={**body, "recipe": wrong}, headers=headers))
    right = {**body, "recipe": {"epochs": 3}}
    first = http.post(PATH, json=right, headers=headers)
    again = http.post(PATH, json={**right, "recipe": {"name": "bignas", "epochs": 3}}, headers=headers)
    assert (first.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"


def stored(database, body, recipe):
    """A supernet as an older release stored it."""
    with database.begin() as session:
        return supernets.create(
            session,
            display_name="",
            labels={},
            dataset_id=body["dataset_id"],
            search_space="micro_8",
            recipe=recipe,
            seed=0,
            num_workers=1,
            spec={},
        )


def test_a_supernet_of_a_recipe_that_would_be_refused_today_is_shown_and_listed(http, body, database):
    refused = {"name": "alphanet", "clip": "none"}
    with pytest.raises(InvalidFieldError):
        recipe_from_json(refused)
    old = stored(database, body, refused)
    shown = http.get(f"{PATH}/{old.row.id}").json()
    assert (shown["recipe"], shown["recipe_notes"]) == (refused, [])
    assert [item["id"] for item in http.get(PATH).json()["items"]] == [old.row.id]


def test_a_supernet_stored_with_overrides_alone_is_shown_as_it_was_stored(http, body, database):
    old = stored(database, body, {"epochs": 3})
    assert http.get(f"{PATH}/{old.row.id}").json()["recipe"] == {"epochs": 3}
