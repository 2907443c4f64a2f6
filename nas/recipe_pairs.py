"""Which of the papers' methods go together: a list of those pairs that have been thought through.

What changes a step only by itself (rates, dropout, clipping, numbers) is no method and goes with all. Two
methods of this list that no entry joins are refused, not tried: a run takes hours, and that it ends well does
not say that both did in it what their papers say.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING

from nas.fields import InvalidFieldError
from nas.recipe_choices import (
    DataSamplerKind,
    DistillationKind,
    RandomPathKind,
    ScheduleKind,
    TeacherKind,
)

if TYPE_CHECKING:
    from nas.recipe import Recipe

_Method = tuple[str, StrEnum]
"""A field of the recipe and its value."""

_PROGRESSIVE: _Method = ("schedule", ScheduleKind.PROGRESSIVE)
_DELAYED: _Method = ("schedule", ScheduleKind.DELAYED_EPSILON)
_PATH_IMPORTANCE: _Method = ("random_paths", RandomPathKind.IMPORTANCE)
_ATTENTIVE: _Method = ("random_paths", RandomPathKind.ATTENTIVE)
_SHIFT: _Method = ("random_paths", RandomPathKind.SHIFT)
_DATA_IMPORTANCE: _Method = ("data_sampler", DataSamplerKind.IMPORTANCE)
_ALPHA: _Method = ("distillation", DistillationKind.ALPHA)
_FROZEN: _Method = ("teacher", TeacherKind.FROZEN)

METHODS: tuple[_Method, ...] = (
    _PROGRESSIVE,
    _DELAYED,
    _PATH_IMPORTANCE,
    _ATTENTIVE,
    _SHIFT,
    _DATA_IMPORTANCE,
    _ALPHA,
    _FROZEN,
)
"""All but the ground they stand on: a sandwich or single paths, labels or soft targets, all of the space."""

PAIRS: Mapping[frozenset[_Method], str] = MappingProxyType(
    {
        frozenset({_PROGRESSIVE, _FROZEN}): "Once-for-All itself",
        frozenset({_DELAYED, _FROZEN}): "the largest network is trained alone before others are taught",
        frozenset({_DELAYED, _PATH_IMPORTANCE}): "norms are gathered from the first random network on, "
        "before epsilon weighs them, and lambda counts from there",
        frozenset({_DELAYED, _ATTENTIVE}): "candidates are scored by a loss that epsilon does not weigh",
        frozenset({_DELAYED, _SHIFT}): "the generator practises on costs alone, and no pair of snapshots "
        "straddles the sorting of channels",
        frozenset(
            {_DELAYED, _DATA_IMPORTANCE}
        ): "images are scored by the largest network, which epsilon does not weigh",
        frozenset({_DELAYED, _ALPHA}): "a loss of students, as the soft one that DεpS has",
        frozenset({_PATH_IMPORTANCE, _DATA_IMPORTANCE}): "PA&DA itself",
        frozenset({_SHIFT, _DATA_IMPORTANCE}): "images held out for the bins are none that are drawn",
    }
)
"""Those that go together, and why."""


def methods_of(recipe: Recipe) -> tuple[_Method, ...]:
    """The methods that the recipe uses, in the order of `METHODS`."""
    # Who learns from no teacher names none that matters.
    taught = recipe.distillation is not DistillationKind.NONE
    return tuple(
        (name, value)
        for name, value in METHODS
        if getattr(recipe, name) is value and (taught or name != "teacher")
    )


def check_pairs(recipe: Recipe) -> None:
    """Raise InvalidFieldError for the first two methods of the recipe that no entry of `PAIRS` joins."""
    for first, second in combinations(methods_of(recipe), 2):
        if frozenset({first, second}) not in PAIRS:
            field, value = second
            raise InvalidFieldError(
                f"{field} '{value}' has not been worked out together with {first[0]} '{first[1]}'; "
                f"choose another {field} or another {first[0]}",
                field=field,
                value=value.value,
                allowed=f"{_goes_with(first, field, type(value))} with {first[0]} {first[1]}",
            )


def _goes_with(method: _Method, field: str, kind: type[StrEnum]) -> str:
    """The values of the field that go with the method, for a message."""
    values = [
        value
        for value in kind
        if (field, value) not in METHODS or frozenset({method, (field, value)}) in PAIRS
    ]
    return " or ".join(values)
