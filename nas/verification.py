"""Verification: chosen networks trained on their own, at a few learning rates, beside what they inherit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nas.recipe import Recipe
from nas.recipe_choices import (
    DataSamplerKind,
    DistillationKind,
    RandomPathKind,
    RatePolicy,
    SamplerKind,
    ScheduleKind,
    TeacherKind,
    WeightingKind,
)

MAX_NETWORKS = 100
"""Of one verification: each takes a look at the test images."""
MAX_RUNS = 400
MAX_RATES = 8


class Training(StrEnum):
    """What a network's own training begins from."""

    ALONE = "alone"
    """Fresh weights of its own."""
    FINE_TUNED = "fine_tuned"
    """The weights that it inherits."""


class RunState(StrEnum):
    """What came of one training."""

    DUE = "due"
    """Not yet trained; for good where the job has ended otherwise than well."""
    MEASURED = "measured"
    FAILED = "failed"
    """Its weights are nothing to measure; `error` says why."""


_RATE_SHARES = {
    # A supernet's step adds the gradients of several networks, so its rate is that of one network or above.
    Training.ALONE: (1 / 8, 1 / 4, 1 / 2, 1.0),
    # Weights that are good already move little.
    Training.FINE_TUNED: (1 / 64, 1 / 32, 1 / 16, 1 / 8),
}
_EPOCH_SHARES = {Training.ALONE: 1.0, Training.FINE_TUNED: 0.2}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of one network."""

    training: Training
    learning_rate: float
    epochs: int


def plan_runs(
    recipe: Recipe,
    trainings: Sequence[Training],
    *,
    rates: Sequence[float] | None = None,
    epochs: int | None = None,
) -> list[PlannedRun]:
    """The grid of one network: every training at every rate.

    By default the rates are parts of the recipe's base rate: 1/8, 1/4, 1/2 and 1 alone, 1/64 to 1/8
    fine-tuned; and the epochs are the recipe's alone, and a fifth of them, one at least, fine-tuned.
    """
    return [
        PlannedRun(training=training, learning_rate=rate, epochs=epochs or _default_epochs(recipe, training))
        for training in trainings
        for rate in (rates or [share * recipe.base_learning_rate for share in _RATE_SHARES[training]])
    ]


def alone_recipe(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with one network a step that learns from labels, all of the run."""
    policy = recipe.learning_rate_policy
    return replace(
        recipe,
        schedule=ScheduleKind.STATIC,
        channel_sort=False,
        restart_momentum=False,
        freeze_transforms=False,
        sampler=SamplerKind.UNIFORM,
        num_random=1,
        random_paths=RandomPathKind.UNIFORM,
        data_sampler=DataSamplerKind.UNIFORM,
        importance_weighting=WeightingKind.NONE,
        distillation=DistillationKind.NONE,
        teacher=TeacherKind.IN_PLACE,
        dropout=0.0,
        base_learning_rate=rate,
        # One network has no phases.
        learning_rate_policy=RatePolicy.COSINE if policy is RatePolicy.PHASED else policy,
    )


def _default_epochs(recipe: Recipe, training: Training) -> int:
    return max(1, round(_EPOCH_SHARES[training] * recipe.epochs))
