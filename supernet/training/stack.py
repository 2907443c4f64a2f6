"""Stack: the strategies of one run, built from its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.errors import InvalidRequestError
from nas.recipe import Recipe
from nas.recipe_rules import check_space
from nas.recipes import recipe_from_json
from nas.space import SearchSpace
from supernet.training.batch_norm import BatchNormPolicy, LocalBatchNorm
from supernet.training.data_sampler import DataSampler, UniformData
from supernet.training.distillation import Distillation
from supernet.training.from_recipe import FromRecipe
from supernet.training.gradient import GradientPolicy
from supernet.training.guard import DivergenceGuard
from supernet.training.learning_rate import LearningRate
from supernet.training.meter import LossMeter
from supernet.training.paths import PathSampler
from supernet.training.precision import FullPrecision, Precision
from supernet.training.regularisation import Regularisation
from supernet.training.shrink import ShrinkSchedule
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
    precision: Precision
    loss_meter: LossMeter = field(default_factory=LossMeter)
    guard: DivergenceGuard = field(default_factory=DivergenceGuard)

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
            "precision": self.precision,
            "loss_meter": self.loss_meter,
            "guard": self.guard,
        }

    def describe(self) -> dict[str, Any]:
        """What the strategies that learn have come to so far, by their names; JSON."""
        described = {name: strategy.describe() for name, strategy in self.strategies.items()}
        return {name: found for name, found in described.items() if found}

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
    made = FromRecipe(
        recipe=recipe,
        space=space,
        seed=seed,
        steps_per_epoch=steps_per_epoch,
        num_images=num_images or steps_per_epoch * recipe.batch_size,
    )
    return Stack(
        recipe=recipe,
        seed=seed,
        num_steps=made.num_steps,
        shrink=made.shrink,
        data=made.data(),
        sampler=made.sampler(),
        distillation=made.distillation(),
        gradient=made.gradient(),
        learning_rate=made.learning_rate,
        regularisation=made.regularisation(),
        batch_norm=made.batch_norm(),
        precision=made.precision(),
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


_STRATEGIES_BEFORE = {
    "data": UniformData.__name__,
    "batch_norm": LocalBatchNorm.__name__,
    "precision": FullPrecision.__name__,
    # Without one a run ended where it diverged; of those that go on none has.
    "guard": DivergenceGuard.__name__,
}
"""Of records made before a run had them: what was done then."""
