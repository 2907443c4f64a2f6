"""Overrides of a training recipe: a model made of the recipe's own fields, so that no limit is told twice."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, create_model

from api.schemas.common import RequestModel
from nas.fields import CheckedField
from nas.recipe import RECIPE_FIELDS
from nas.recipe import Recipe as WholeRecipe
from nas.recipe_choices import RecipeName
from nas.recipes import RECIPES, recipe_from_json


class RecipeOverrides(RequestModel):
    """What the model of overrides can do; its fields are made below."""

    def resolve(self) -> WholeRecipe:
        """The whole recipe; InvalidFieldError where its choices do not go together."""
        return recipe_from_json(self.model_dump(exclude_none=True))


def _override(field: CheckedField) -> tuple[Any, Any]:
    """The field's type and limits, with null as if it were left out."""
    kind: Any = Literal[field.options] if field.options else field.kind
    # A recipe's name is the one field whose default no other field decides.
    if field.name == "name":
        return kind, Field(default=RecipeName.BIGNAS.value, description=field.meaning)
    limits = {"ge": field.interval.low, "le": field.interval.high} if field.interval else {}
    return kind | None, Field(default=None, description=f"{field.meaning} {_defaults(field)}", **limits)


def _defaults(field: CheckedField) -> str:
    """Such as 'Default: 0.2; 0.0 in spos, panda.'"""
    names_by_value: dict[str, list[str]] = {}
    for name, recipe in RECIPES.items():
        names_by_value.setdefault(json.dumps(recipe.to_json()[field.name]), []).append(name.value)
    # The first recipe is the one that a request without a name gets.
    default, *others = names_by_value
    exceptions = [f"{value} in {', '.join(names_by_value[value])}" for value in others]
    return f"Default: {'; '.join([default, *exceptions])}."


Recipe = create_model(
    "Recipe",
    __base__=RecipeOverrides,
    __module__=__name__,
    __doc__="A named recipe and the fields to change in it; what is left out keeps the recipe's own value.",
    **{field.name: _override(field) for field in RECIPE_FIELDS},
)
