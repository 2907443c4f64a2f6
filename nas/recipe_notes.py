"""What a recipe asks for in vain: fields of a method that it does not use.

Such a field is no error, for a whole recipe states every field; but who changed one meant something by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas.errors import InvalidRequestError
from nas.recipe_choices import (
    ClipKind,
    DataSamplerKind,
    DistillationKind,
    RandomPathKind,
    RatePolicy,
    ScheduleKind,
    WeightingKind,
)
from nas.recipes import RECIPES, recipe_from_json

if TYPE_CHECKING:
    from nas.recipe import Recipe

_Condition = tuple[str, "Callable[[Recipe], bool]"]
"""What a field needs, in words, and whether the recipe has it."""

_DELAYED: _Condition = (
    "schedule delayed_epsilon, as in recipe deps",
    lambda r: r.schedule is ScheduleKind.DELAYED_EPSILON,
)
_SHIFT: _Condition = (
    "random_paths shift, as in recipe shiftnas",
    lambda r: r.random_paths is RandomPathKind.SHIFT,
)
_ATTENTIVE: _Condition = (
    "random_paths attentive, as in recipe attentive",
    lambda r: r.random_paths is RandomPathKind.ATTENTIVE,
)
_PATH_IMPORTANCE: _Condition = (
    "random_paths importance, as in recipe panda",
    lambda r: r.random_paths is RandomPathKind.IMPORTANCE,
)
_DATA_IMPORTANCE: _Condition = (
    "data_sampler importance, as in recipe panda",
    lambda r: r.data_sampler is DataSamplerKind.IMPORTANCE,
)
_SOFT: _Condition = (
    "distillation soft or soft_hard",
    lambda r: r.distillation in {DistillationKind.SOFT, DistillationKind.SOFT_HARD},
)

NEEDS: Mapping[str, _Condition] = MappingProxyType(
    {
        "delay_fraction": _DELAYED,
        "ramp_fraction": _DELAYED,
        "importance_limit": (
            "random_paths or data_sampler importance, as in recipe panda",
            lambda r: _PATH_IMPORTANCE[1](r) or _DATA_IMPORTANCE[1](r),
        ),
        "carry_scores": _DATA_IMPORTANCE,
        "weight_limit": (
            "importance_weighting clipped",
            lambda r: r.importance_weighting is WeightingKind.CLIPPED,
        ),
        "normalise_path_norms": _PATH_IMPORTANCE,
        "observe_clipped": _PATH_IMPORTANCE,
        "attention": _ATTENTIVE,
        "num_candidates": _ATTENTIVE,
        "num_bins": (
            "random_paths shift or attentive, as in the recipes shiftnas and attentive",
            lambda r: _SHIFT[1](r) or _ATTENTIVE[1](r),
        ),
        "bin_warmup_fraction": _SHIFT,
        "bin_interval": _SHIFT,
        "bin_gradient": _SHIFT,
        "bin_learning_rate": _SHIFT,
        "cost_weight": _SHIFT,
        "generator_batch": _SHIFT,
        "gumbel_temperature": _SHIFT,
        "teacher": ("a distillation other than none", lambda r: r.distillation is not DistillationKind.NONE),
        "temperature": _SOFT,
        "ratio_limit": (
            "distillation alpha, as in recipe alphanet",
            lambda r: r.distillation is DistillationKind.ALPHA,
        ),
        "decay_fraction": (
            "learning_rate_policy exponential",
            lambda r: r.learning_rate_policy is RatePolicy.EXPONENTIAL,
        ),
        "regularised": ("a dropout above 0", lambda r: r.dropout > 0),
        "clip_threshold": ("clip value or norm", lambda r: r.clip is not ClipKind.NONE),
    }
)
"""The fields that do nothing by themselves."""


def notes_on_stored(record: Mapping[str, Any]) -> tuple[str, ...]:
    """As `notes_on`, of a recipe as it was stored; none of one that would be refused today."""
    try:
        return notes_on(recipe_from_json(record))
    except InvalidRequestError:
        return ()


def notes_on(recipe: Recipe) -> tuple[str, ...]:
    """A sentence for each field that was changed from the named recipe's value and has no effect.

    Images held out where nothing learns from them are told too: those do have one.
    """
    named = RECIPES[recipe.name]
    notes = [
        f"{field} {getattr(recipe, field)} has no effect: it needs {need}"
        for field, (need, is_met) in NEEDS.items()
        if getattr(recipe, field) != getattr(named, field) and not is_met(recipe)
    ]
    if recipe.held_out_fraction > 0 and not _SHIFT[1](recipe):
        notes.append(
            f"held_out_fraction {recipe.held_out_fraction:g} keeps images from the weights, and nothing "
            f"learns from them without {_SHIFT[0]}"
        )
    return tuple(notes)
