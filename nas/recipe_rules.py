"""Which choices of a recipe go together, and why the others do not.

Source of the verdicts: the papers of the methods where they speak of each other, else the algebra of the
step. What these refuse has a reason of its own; methods that nobody has joined are `recipe_pairs`' affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nas.fields import InvalidFieldError
from nas.recipe_choices import (
    ClipKind,
    DataSamplerKind,
    DistillationKind,
    OptimizerKind,
    RandomPathKind,
    RatePolicy,
    RegularisedKind,
    SamplerKind,
    ScheduleKind,
    TeacherKind,
    WeightingKind,
)
from nas.recipe_pairs import check_pairs

if TYPE_CHECKING:
    from nas.recipe import Recipe
    from nas.space import SearchSpace

_USES_TEACHER = {DistillationKind.SOFT, DistillationKind.SOFT_HARD, DistillationKind.ALPHA}


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """A combination that is refused."""

    field: str
    """The field whose value does not go with the others."""
    applies: Callable[[Recipe], bool]
    reason: str
    remedy: str
    allowed: str


def check_combination(recipe: Recipe) -> None:
    """Raise InvalidFieldError, with the reason, for the first rule or pair that the choices break."""
    for rule in _RULES:
        if rule.applies(recipe):
            value = _plain(getattr(recipe, rule.field))
            raise InvalidFieldError(
                f"{rule.field} {_quoted(value)} {rule.reason}; {rule.remedy}",
                field=rule.field,
                value=value,
                allowed=rule.allowed,
            )
    check_pairs(recipe)


def check_space(recipe: Recipe, space: SearchSpace) -> None:
    """Raise InvalidFieldError, with the reason, where the recipe cannot train networks of this space."""
    if recipe.random_paths is RandomPathKind.SHIFT and not space.is_weight_entangled:
        raise InvalidFieldError(
            f"random_paths 'shift' masks the weights of the largest network, and that of space "
            f"'{space.name}' lacks the weights of other operations (ShiftNAS's own limitation); choose "
            "random_paths 'uniform' or a space of sizes, such as 'micro'",
            field="random_paths",
            value=_plain(recipe.random_paths),
            allowed=f"any other in space {space.name}",
        )
    if recipe.schedule is ScheduleKind.PROGRESSIVE and not space.is_weight_entangled:
        raise InvalidFieldError(
            f"schedule 'progressive' shrinks the largest network, and that of space '{space.name}' lacks the "
            "weights of other operations; choose another schedule or a space of sizes, such as 'micro'",
            field="schedule",
            value=_plain(recipe.schedule),
            allowed=f"static or delayed_epsilon in space {space.name}",
        )


def _runs_largest(recipe: Recipe) -> bool:
    return recipe.sampler is SamplerKind.SANDWICH


_RULES = (
    _Rule(
        field="schedule",
        applies=lambda r: r.schedule is ScheduleKind.DELAYED_EPSILON and not _runs_largest(r),
        reason="begins with the largest network alone, and sampler 'uniform' does not run it",
        remedy="choose sampler 'sandwich' or another schedule",
        allowed="static or progressive with sampler uniform",
    ),
    _Rule(
        field="schedule",
        applies=lambda r: r.schedule is ScheduleKind.PROGRESSIVE and _runs_largest(r),
        reason="trains random networks of its phase alone, and sampler 'sandwich' adds the largest and the "
        "smallest to every step",
        remedy="choose sampler 'uniform' or another schedule",
        allowed="static or delayed_epsilon with sampler sandwich",
    ),
    _Rule(
        field="schedule",
        applies=lambda r: (
            r.schedule is ScheduleKind.PROGRESSIVE and r.random_paths is not RandomPathKind.UNIFORM
        ),
        reason="changes the space from phase to phase, and what a path sampler learned in one phase says "
        "nothing about the next",
        remedy="choose random_paths 'uniform' or another schedule",
        allowed="static or delayed_epsilon with these random_paths",
    ),
    _Rule(
        field="schedule",
        applies=lambda r: r.schedule is ScheduleKind.DELAYED_EPSILON and r.optimizer is OptimizerKind.RMSPROP,
        reason="weighs gradients by an epsilon that stands for a learning rate, and optimizer 'rmsprop' "
        "divides it out again",
        remedy="choose optimizer 'sgd' or another schedule",
        allowed="static or progressive with optimizer rmsprop",
    ),
    _Rule(
        field="ramp_fraction",
        applies=lambda r: r.schedule is ScheduleKind.DELAYED_EPSILON and r.ramp_fraction > r.delay_fraction,
        reason="is longer than the delay that it ends",
        remedy="choose a ramp_fraction of at most delay_fraction",
        allowed="at most delay_fraction",
    ),
    _Rule(
        field="channel_sort",
        applies=lambda r: r.channel_sort and r.schedule is ScheduleKind.STATIC,
        reason="happens before smaller widths are first trained, and schedule 'static' trains them from the "
        "first step",
        remedy="choose another schedule or leave channels unsorted",
        allowed="false with schedule static",
    ),
    _Rule(
        field="restart_momentum",
        applies=lambda r: r.restart_momentum and r.schedule is not ScheduleKind.PROGRESSIVE,
        reason="happens at the start of a phase, and only schedule 'progressive' has phases",
        remedy="choose schedule 'progressive' or let momentum live on",
        allowed="false without schedule progressive",
    ),
    _Rule(
        field="freeze_transforms",
        applies=lambda r: r.freeze_transforms and r.schedule is not ScheduleKind.PROGRESSIVE,
        reason="happens after the phase of kernels, and only schedule 'progressive' has one",
        remedy="choose schedule 'progressive' or let transforms be trained",
        allowed="false without schedule progressive",
    ),
    _Rule(
        field="freeze_transforms",
        applies=lambda r: r.freeze_transforms and not r.kernel_transform,
        reason="needs kernel transforms to freeze",
        remedy="choose kernel_transform true or freeze_transforms false",
        allowed="false without kernel_transform",
    ),
    _Rule(
        field="learning_rate_policy",
        applies=lambda r: (
            r.learning_rate_policy is RatePolicy.PHASED and r.schedule is not ScheduleKind.PROGRESSIVE
        ),
        reason="needs the phases of a progressive schedule",
        remedy="choose schedule 'progressive' or another learning_rate_policy",
        allowed="exponential or cosine without schedule progressive",
    ),
    _Rule(
        field="distillation",
        applies=lambda r: (
            r.distillation in _USES_TEACHER and r.teacher is TeacherKind.IN_PLACE and not _runs_largest(r)
        ),
        reason="needs the largest network in every step as the teacher, and sampler 'uniform' does not run "
        "it",
        remedy="choose sampler 'sandwich' or distillation 'none'",
        allowed="none with sampler uniform",
    ),
    _Rule(
        field="teacher",
        applies=lambda r: (
            r.distillation in _USES_TEACHER
            and r.teacher is TeacherKind.FROZEN
            and r.schedule is ScheduleKind.STATIC
        ),
        reason="is a copy of the largest network trained alone, and schedule 'static' never trains it alone",
        remedy="choose teacher 'in_place' or another schedule",
        allowed="in_place with schedule static",
    ),
    _Rule(
        field="teacher",
        applies=lambda r: (
            r.distillation in _USES_TEACHER
            and r.teacher is TeacherKind.FROZEN
            and r.schedule is ScheduleKind.DELAYED_EPSILON
            and r.ramp_fraction == r.delay_fraction
        ),
        reason="is a copy of the largest network trained alone, and with a ramp_fraction as long as the "
        "delay_fraction others are trained from the first step",
        remedy="choose a shorter ramp_fraction or teacher 'in_place'",
        allowed="in_place with ramp_fraction equal to delay_fraction",
    ),
    _Rule(
        field="teacher",
        applies=lambda r: r.distillation is DistillationKind.ALPHA and r.teacher is TeacherKind.FROZEN,
        reason="does not learn with its students, and distillation 'alpha' is made for one that does",
        remedy="choose teacher 'in_place' or distillation 'soft'",
        allowed="in_place with distillation alpha",
    ),
    _Rule(
        field="clip",
        applies=lambda r: r.distillation is DistillationKind.ALPHA and r.clip is ClipKind.NONE,
        reason="lets every gradient through, and distillation 'alpha' has steep ones even with its ratios "
        "limited (AlphaNet cuts each entry at 1)",
        remedy="choose clip 'value' or distillation 'soft'",
        allowed="norm or value with distillation alpha",
    ),
    _Rule(
        field="importance_weighting",
        applies=lambda r: (
            r.importance_weighting is not WeightingKind.NONE and r.random_paths is RandomPathKind.ATTENTIVE
        ),
        # Whatever draws the images: the pick depends on them, and their weights do not undo that.
        reason="makes up for draws of known probability, and random_paths 'attentive' picks by the loss",
        remedy="choose importance_weighting 'none' or other random_paths",
        allowed="none with random_paths attentive",
    ),
    _Rule(
        field="dropout",
        applies=lambda r: r.dropout > 0 and r.regularised is RegularisedKind.LARGEST and not _runs_largest(r),
        reason="acts on the largest network alone, and sampler 'uniform' does not run it",
        remedy="choose sampler 'sandwich', regularised 'all' or dropout 0",
        allowed="0 with sampler uniform and regularised largest",
    ),
    _Rule(
        field="num_random",
        applies=lambda r: r.num_random == 0 and not _runs_largest(r),
        reason="leaves sampler 'uniform' no network to train",
        remedy="choose 1 or more",
        allowed="1 or more with sampler uniform",
    ),
    _Rule(
        field="random_paths",
        applies=lambda r: r.random_paths is RandomPathKind.SHIFT and r.held_out_fraction == 0,
        reason="learns from images that the weights are not trained on, and held_out_fraction is 0",
        remedy="choose a held_out_fraction above 0, such as 0.04",
        allowed="any other with held_out_fraction 0",
    ),
    _Rule(
        field="importance_weighting",
        applies=lambda r: (
            r.importance_weighting is not WeightingKind.NONE
            and r.random_paths is RandomPathKind.SHIFT
            and r.data_sampler is not DataSamplerKind.IMPORTANCE
        ),
        # Images drawn by importance may be weighed: a step's network is written before it has seen any.
        reason="makes up for draws of known probability, and random_paths 'shift' generates networks for a "
        "cost",
        remedy="choose importance_weighting 'none', other random_paths or data_sampler 'importance'",
        allowed="none with random_paths shift and data_sampler uniform",
    ),
    _Rule(
        field="importance_weighting",
        applies=lambda r: (
            r.importance_weighting is not WeightingKind.NONE
            and r.random_paths is RandomPathKind.UNIFORM
            and r.data_sampler is DataSamplerKind.UNIFORM
        ),
        reason="makes up for draws that are not uniform, and networks and images are drawn uniformly",
        remedy="choose importance_weighting 'none', random_paths 'importance' or data_sampler 'importance'",
        allowed="none with random_paths uniform and data_sampler uniform",
    ),
)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _quoted(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
