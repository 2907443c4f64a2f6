"""Recipe: every number and choice of a training run, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any

from nas.errors import InvalidRequestError
from nas.fields import Interval, InvalidFieldError, checked_fields

MAX_SLOTS = 32
"""Most networks in one step."""


class RecipeName(StrEnum):
    """The recipes of `RECIPES`."""

    BIGNAS = "bignas"
    """The sandwich rule with in-place distillation (Yu et al. 2020)."""
    SPOS = "spos"
    """One uniformly drawn network a step (Guo et al. 2020)."""


class OptimizerKind(StrEnum):
    """The update rule."""

    SGD = "sgd"
    """With Nesterov momentum (AttentiveNAS)."""
    RMSPROP = "rmsprop"
    """With momentum (BigNAS)."""


class RatePolicy(StrEnum):
    """The shape of the learning rate after the warm-up."""

    EXPONENTIAL = "exponential"
    """A constant factor a step, then constant at the floor (BigNAS)."""
    COSINE = "cosine"
    """Half a cosine, never below the floor (AttentiveNAS, without a floor)."""


class SamplerKind(StrEnum):
    """Which networks one step trains."""

    SANDWICH = "sandwich"
    """The largest, random ones, the smallest."""
    UNIFORM = "uniform"
    """Random ones alone."""


class DistillationKind(StrEnum):
    """What networks other than the largest learn from."""

    NONE = "none"
    """The labels."""
    SOFT = "soft"
    """The largest network's predictions alone."""


class ClipKind(StrEnum):
    """How large gradients are cut."""

    NONE = "none"
    NORM = "norm"
    """All scaled so that their joint Euclidean norm stays within the threshold."""
    VALUE = "value"
    """Each entry limited to the threshold (AttentiveNAS, AlphaNet)."""


class FlipKind(StrEnum):
    """Which training images are mirrored left to right."""

    AUTO = "auto"
    """Half of them; in the bundled digits none, since a mirrored digit is another or no digit."""
    HALF = "half"
    """Half of them, drawn anew each time."""
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run's choices. The defaults are BigNAS, its rates set for short runs on small images.

    A field's limits and meaning stand beside its type and nowhere else: the API's schema is made from them.
    The default of a field added later must be what was done before, for old records are read with it.
    Raises InvalidFieldError for a value that is not allowed, and for values that do not go together.
    """

    name: Annotated[RecipeName, "The recipe to start from."] = RecipeName.BIGNAS
    epochs: Annotated[int, Interval(1, 100_000), "Passes over the training images."] = 10
    batch_size: Annotated[int, Interval(2, 1_000_000), "Images in one step, over all workers."] = 64
    sampler: Annotated[SamplerKind, "Which networks one step trains."] = SamplerKind.SANDWICH
    num_random: Annotated[int, Interval(0, MAX_SLOTS - 2), "Random networks in one step."] = 2
    distillation: Annotated[DistillationKind, "What networks other than the largest learn from."] = (
        DistillationKind.SOFT
    )
    optimizer: Annotated[OptimizerKind, "The update rule. BigNAS: RMSProp, rate 0.256 at batch 4096."] = (
        OptimizerKind.SGD
    )
    momentum: Annotated[float, Interval(0.0, 0.9999), "Of either optimizer."] = 0.9
    base_learning_rate: Annotated[
        float,
        Interval(1e-8, 100.0),
        "The rate after warm-up, as it is: not scaled by the batch size. Gradients of networks are summed.",
    ] = 0.2
    warmup_fraction: Annotated[
        float,
        Interval(0.0, 0.9),
        "Part of the run in which the rate rises to its base. AttentiveNAS: 5 epochs of 360.",
    ] = 0.05
    learning_rate_policy: Annotated[RatePolicy, "The shape of the rate after the warm-up."] = (
        RatePolicy.EXPONENTIAL
    )
    # EfficientNet's 0.97 every 2.4 epochs takes 236 of 360 epochs to the floor; short runs cannot spare a
    # third of their steps there.
    decay_fraction: Annotated[
        float, Interval(0.01, 1.0), "Part of an exponential run after which the floor is reached."
    ] = 0.9
    floor_fraction: Annotated[
        float, Interval(1e-6, 1.0), "The smallest rate after the warm-up, as a part of the base."
    ] = 0.05
    weight_decay: Annotated[
        float,
        Interval(0.0, 1.0),
        "L2 on weights, not on biases and batch norms, as if of the largest network alone.",
    ] = 1e-5
    label_smoothing: Annotated[
        float, Interval(0.0, 0.9), "Of the labels that the largest network learns from."
    ] = 0.1
    dropout: Annotated[float, Interval(0.0, 0.9), "Before the classifier, in the largest network alone."] = (
        0.2
    )
    clip: Annotated[ClipKind, "How large summed gradients are cut."] = ClipKind.VALUE
    clip_threshold: Annotated[float, Interval(1e-6, 1e6), "The limit that `clip` speaks of."] = 1.0
    crop_fraction: Annotated[
        float,
        Interval(0.0, 0.5),
        "Padding around a training image before a crop of its old size is drawn, as a part of its shorter "
        "side: whole pixels, one at least; 0 crops nothing.",
    ] = 0.125
    horizontal_flip: Annotated[
        FlipKind, "Which training images are mirrored: never where left and right differ in meaning."
    ] = FlipKind.AUTO
    kernel_transform: Annotated[
        bool,
        "Whether smaller kernels are learned transforms of the larger ones (Once-for-All), not bare centres.",
    ] = False

    def __post_init__(self) -> None:
        for field in RECIPE_FIELDS:
            value = field.checked(getattr(self, field.name), owner="recipe")
            object.__setattr__(self, field.name, value)
        _check_combination(self)

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; `recipe_from_json` reads it back."""
        return {name: _plain(value) for name, value in asdict(self).items()}


RECIPE_FIELDS = checked_fields(Recipe)
"""The fields of a recipe, in order, with their limits and meanings."""


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _check_combination(recipe: Recipe) -> None:
    """Raise InvalidFieldError, with the reason, where choices do not go together."""
    if recipe.sampler is SamplerKind.SANDWICH:
        return
    if recipe.distillation is DistillationKind.SOFT:
        raise InvalidFieldError(
            "distillation 'soft' needs the largest network in every step as the teacher, and sampler "
            "'uniform' does not run it; choose sampler 'sandwich' or distillation 'none'",
            field="distillation",
            value=recipe.distillation.value,
            allowed="none with sampler uniform",
        )
    if recipe.dropout > 0:
        raise InvalidFieldError(
            f"dropout {recipe.dropout} acts on the largest network alone, and sampler 'uniform' does not run "
            "it; choose sampler 'sandwich' or dropout 0",
            field="dropout",
            value=recipe.dropout,
            allowed="0 with sampler uniform",
        )
    if recipe.num_random == 0:
        raise InvalidFieldError(
            "num_random 0 leaves sampler 'uniform' no network to train; choose 1 or more",
            field="num_random",
            value=recipe.num_random,
            allowed="1 or more with sampler uniform",
        )


# Below the fields and checks, which run as soon as a recipe is made.
RECIPES: Mapping[RecipeName, Recipe] = MappingProxyType(
    {
        RecipeName.BIGNAS: Recipe(),
        RecipeName.SPOS: Recipe(
            name=RecipeName.SPOS,
            sampler=SamplerKind.UNIFORM,
            num_random=1,
            distillation=DistillationKind.NONE,
            dropout=0.0,
        ),
    }
)
"""The recipes that have a name; a request overrides their fields."""


def recipe_from_json(request: Mapping[str, Any]) -> Recipe:
    """The named recipe ('bignas' unless `name` says otherwise) with the request's fields in place of its own.

    A whole recipe is read back as it is. Raises InvalidRequestError naming the field, its value and what
    is allowed.
    """
    by_name = {field.name: field for field in RECIPE_FIELDS}
    for name in request:
        if name not in by_name:
            raise InvalidRequestError(
                f"recipe field {name!r} is unknown; the fields are {', '.join(by_name)}; leave it out"
            )
    named = by_name["name"].checked(request.get("name", RecipeName.BIGNAS), owner="recipe")
    return replace(RECIPES[named], **request)
