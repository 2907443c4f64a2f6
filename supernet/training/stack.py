"""Stack: the strategies of one run, built from its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.errors import InvalidRequestError
from nas.recipe import Recipe
from nas.recipe_choices import (
    BatchNormKind,
    DistillationKind,
    RatePolicy,
    RegularisedKind,
    SamplerKind,
    ScheduleKind,
    TeacherKind,
)
from nas.recipes import recipe_from_json
from nas.space import SearchSpace
from nas.subspace import SubSpace
from supernet.training.batch_norm import BatchNormPolicy, LocalBatchNorm, SynchronisedBatchNorm
from supernet.training.data_sampler import DataSampler, UniformData
from supernet.training.delayed_epsilon import DelayedEpsilonSchedule
from supernet.training.distillation import Distillation, NoDistillation, SoftDistillation, StudentLoss
from supernet.training.frozen_teacher import FrozenTeacher
from supernet.training.gradient import GradientPolicy, SummedGradients
from supernet.training.learning_rate import (
    CosineWithFloor,
    ExponentialWithFloor,
    LearningRate,
    Phased,
    Warmup,
)
from supernet.training.meter import LossMeter
from supernet.training.paths import PathSampler, RandomPaths, SandwichSampler, UniformPaths, UniformSampler
from supernet.training.progressive import ProgressiveSchedule
from supernet.training.progressive_phases import RunPhase, phases_of_run
from supernet.training.regularisation import EveryNetwork, LargestOnly, Regularisation
from supernet.training.shared_resolution import SharedResolutionPaths
from supernet.training.shrink import ShrinkSchedule, StaticSchedule
from supernet.training.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The strategies of one run."""

    recipe: Recipe
    seed: int
    """Of every draw of the run."""
    num_steps: int
    """Length of the whole run, for which the learning rate is made."""
    shrink: ShrinkSchedule
    data: DataSampler
    sampler: PathSampler
    distillation: Distillation
    gradient: GradientPolicy
    learning_rate: LearningRate
    regularisation: Regularisation
    batch_norm: BatchNormPolicy
    loss_meter: LossMeter = field(default_factory=LossMeter)

    @property
    def strategies(self) -> dict[str, Strategy]:
        """By the name under which a checkpoint keeps their state."""
        return {
            "shrink": self.shrink,
            "data": self.data,
            "sampler": self.sampler,
            "distillation": self.distillation,
            "gradient": self.gradient,
            "learning_rate": self.learning_rate,
            "regularisation": self.regularisation,
            "batch_norm": self.batch_norm,
            "loss_meter": self.loss_meter,
        }

    def to_json(self) -> dict[str, Any]:
        """The resolved stack, for the record of the run; `completed_record` reads an older one."""
        chosen = {name: type(strategy).__name__ for name, strategy in self.strategies.items()}
        return {
            "recipe": self.recipe.to_json(),
            "strategies": chosen,
            "seed": self.seed,
            "num_steps": self.num_steps,
        }


def build_stack(
    recipe: Recipe, space: SearchSpace, *, steps_per_epoch: int, seed: int, num_images: int | None = None
) -> Stack:
    """The strategies that the recipe names; what does not go together the recipe has refused.

    `num_images` are those that the weights learn from; None: as many as the steps of an epoch hold.
    """
    num_steps = recipe.epochs * steps_per_epoch
    learning_rate = _learning_rate(recipe, space, num_steps)
    shrink = _shrink(recipe, space, num_steps, learning_rate)
    return Stack(
        recipe=recipe,
        seed=seed,
        num_steps=num_steps,
        shrink=shrink,
        data=UniformData(),
        sampler=_sampler(recipe, seed),
        distillation=_distillation(recipe, shrink),
        gradient=SummedGradients(recipe.clip, recipe.clip_threshold),
        learning_rate=learning_rate,
        regularisation=_regularisation(recipe),
        batch_norm=_batch_norm(recipe),
    )


def completed_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `Stack.to_json` gave, perhaps in an older release, with the fields that recipes have got since."""
    try:
        recipe = recipe_from_json(record["recipe"])
    except InvalidRequestError:
        # No recipe of this release: whoever compares it will find it different.
        return dict(record)
    strategies = {**_STRATEGIES_BEFORE, **record["strategies"]}
    return {**record, "recipe": recipe.to_json(), "strategies": strategies}


_STRATEGIES_BEFORE = {"data": UniformData.__name__, "batch_norm": LocalBatchNorm.__name__}
"""Of records made before a run had them: what was done then."""


def _shrink(
    recipe: Recipe, space: SearchSpace, num_steps: int, learning_rate: LearningRate
) -> ShrinkSchedule:
    match recipe.schedule:
        case ScheduleKind.STATIC:
            return StaticSchedule(SubSpace(space), num_random=recipe.num_random)
        case ScheduleKind.PROGRESSIVE:
            return ProgressiveSchedule(
                phases_of_run(space, num_steps),
                num_random=recipe.num_random,
                sorts_channels=recipe.channel_sort,
                freezes_transforms=recipe.freeze_transforms,
                restarts_momentum=recipe.restart_momentum,
            )
        case ScheduleKind.DELAYED_EPSILON:
            return DelayedEpsilonSchedule(
                SubSpace(space),
                num_random=recipe.num_random,
                num_delay_steps=round(recipe.delay_fraction * num_steps),
                num_ramp_steps=round(recipe.ramp_fraction * num_steps),
                learning_rate=learning_rate,
                sorts_channels=recipe.channel_sort,
            )


def _sampler(recipe: Recipe, seed: int) -> PathSampler:
    match recipe.sampler:
        case SamplerKind.SANDWICH:
            return SandwichSampler(_random_paths(recipe, seed))
        case SamplerKind.UNIFORM:
            return UniformSampler(_random_paths(recipe, seed))


def _random_paths(recipe: Recipe, seed: int) -> RandomPaths:
    if recipe.schedule is ScheduleKind.PROGRESSIVE:
        return SharedResolutionPaths(seed)
    return UniformPaths(seed)


def _batch_norm(recipe: Recipe) -> BatchNormPolicy:
    match recipe.batch_norm:
        case BatchNormKind.LOCAL:
            return LocalBatchNorm()
        case BatchNormKind.SYNCHRONISED:
            return SynchronisedBatchNorm()


def _distillation(recipe: Recipe, shrink: ShrinkSchedule) -> Distillation:
    match recipe.distillation:
        case DistillationKind.SOFT | DistillationKind.SOFT_HARD:
            return _soft_distillation(recipe, shrink)
        case DistillationKind.NONE:
            return NoDistillation(label_smoothing=recipe.label_smoothing)


def _soft_distillation(recipe: Recipe, shrink: ShrinkSchedule) -> Distillation:
    options = {
        "label_smoothing": recipe.label_smoothing,
        "temperature": recipe.temperature,
        "keeps_labels": recipe.distillation is DistillationKind.SOFT_HARD,
    }
    match recipe.teacher:
        case TeacherKind.IN_PLACE:
            return SoftDistillation(**options)
        case TeacherKind.FROZEN:
            return FrozenTeacher(StudentLoss(**options), shrink)


def _regularisation(recipe: Recipe) -> Regularisation:
    match recipe.regularised:
        case RegularisedKind.LARGEST:
            return LargestOnly(dropout=recipe.dropout)
        case RegularisedKind.ALL:
            return EveryNetwork(dropout=recipe.dropout)


def _learning_rate(recipe: Recipe, space: SearchSpace, num_steps: int) -> LearningRate:
    if recipe.learning_rate_policy is RatePolicy.PHASED:
        phases = phases_of_run(space, num_steps)
        return Phased({phase.first_step: _rate_of_phase(recipe, phase, num_steps) for phase in phases})
    num_warmup_steps = round(recipe.warmup_fraction * num_steps)
    num_left = num_steps - num_warmup_steps
    return Warmup(_after_warmup(recipe, num_left), num_steps=num_warmup_steps)


def _rate_of_phase(recipe: Recipe, phase: RunPhase, num_steps: int) -> LearningRate:
    """A warm-up where the phase has one, then half a cosine; the warm-up is a part of the run, not of it."""
    num_warmup_steps = round(recipe.warmup_fraction * num_steps) if phase.published.has_warmup else 0
    num_warmup_steps = min(num_warmup_steps, phase.num_steps)
    peak = recipe.base_learning_rate * phase.published.relative_rate
    num_left = phase.num_steps - num_warmup_steps
    cosine = CosineWithFloor(peak, floor=recipe.floor_fraction, num_steps=num_left)
    return Warmup(cosine, num_steps=num_warmup_steps)


def _after_warmup(recipe: Recipe, num_steps: int) -> LearningRate:
    initial, floor = recipe.base_learning_rate, recipe.floor_fraction
    match recipe.learning_rate_policy:
        case RatePolicy.EXPONENTIAL:
            floor_step = round(recipe.decay_fraction * num_steps)
            return ExponentialWithFloor(initial, floor=floor, floor_step=floor_step)
        case RatePolicy.COSINE:
            return CosineWithFloor(initial, floor=floor, num_steps=num_steps)
