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
    RandomPathKind,
    RatePolicy,
    SamplerKind,
)
from nas.recipe_rules import check_space
from nas.recipes import recipe_from_json
from nas.space import SearchSpace
from nas.subspace import SubSpace
from supernet.training.batch_norm import BatchNormPolicy, LocalBatchNorm, SynchronisedBatchNorm
from supernet.training.data_sampler import DataSampler, UniformData
from supernet.training.distillation import Distillation, NoDistillation, SoftDistillation
from supernet.training.gradient import GradientPolicy, SummedGradients
from supernet.training.learning_rate import CosineWithFloor, ExponentialWithFloor, LearningRate, Warmup
from supernet.training.meter import LossMeter
from supernet.training.paths import (
    PathSampler,
    RandomPaths,
    SandwichSampler,
    UniformPaths,
    UniformSampler,
)
from supernet.training.regularisation import LargestOnly, Regularisation
from supernet.training.shift_paths import ShiftPaths
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
    check_space(recipe, space)
    num_steps = recipe.epochs * steps_per_epoch
    return Stack(
        recipe=recipe,
        seed=seed,
        num_steps=num_steps,
        shrink=StaticSchedule(SubSpace(space), num_random=recipe.num_random),
        data=UniformData(),
        sampler=_sampler(recipe, space, seed, num_steps),
        distillation=_distillation(recipe),
        gradient=SummedGradients(recipe.clip, recipe.clip_threshold),
        learning_rate=_learning_rate(recipe, num_steps),
        regularisation=LargestOnly(dropout=recipe.dropout),
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


def _sampler(recipe: Recipe, space: SearchSpace, seed: int, num_steps: int) -> PathSampler:
    paths = _random_paths(recipe, space, seed, num_steps)
    match recipe.sampler:
        case SamplerKind.SANDWICH:
            return SandwichSampler(paths)
        case SamplerKind.UNIFORM:
            return UniformSampler(paths)


def _random_paths(recipe: Recipe, space: SearchSpace, seed: int, num_steps: int) -> RandomPaths:
    match recipe.random_paths:
        case RandomPathKind.SHIFT:
            return ShiftPaths(recipe, space, seed=seed, num_steps=num_steps)
        case _:
            return UniformPaths(seed)


def _batch_norm(recipe: Recipe) -> BatchNormPolicy:
    match recipe.batch_norm:
        case BatchNormKind.LOCAL:
            return LocalBatchNorm()
        case BatchNormKind.SYNCHRONISED:
            return SynchronisedBatchNorm()


def _distillation(recipe: Recipe) -> Distillation:
    match recipe.distillation:
        case DistillationKind.SOFT:
            return SoftDistillation(label_smoothing=recipe.label_smoothing)
        case DistillationKind.NONE:
            return NoDistillation(label_smoothing=recipe.label_smoothing)


def _learning_rate(recipe: Recipe, num_steps: int) -> LearningRate:
    num_warmup_steps = round(recipe.warmup_fraction * num_steps)
    num_left = num_steps - num_warmup_steps
    return Warmup(_after_warmup(recipe, num_left), num_steps=num_warmup_steps)


def _after_warmup(recipe: Recipe, num_steps: int) -> LearningRate:
    initial, floor = recipe.base_learning_rate, recipe.floor_fraction
    match recipe.learning_rate_policy:
        case RatePolicy.EXPONENTIAL:
            floor_step = round(recipe.decay_fraction * num_steps)
            return ExponentialWithFloor(initial, floor=floor, floor_step=floor_step)
        case RatePolicy.COSINE:
            return CosineWithFloor(initial, floor=floor, num_steps=num_steps)
