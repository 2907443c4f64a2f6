"""Recipe: every number and choice of a training run, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nas.errors import InvalidRequestError
from supernet.training.gradient import MAX_SLOTS, ClipKind


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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run's choices. The defaults are BigNAS, its rates set for short runs on small images."""

    name: str = "bignas"
    """The recipe it started from, one of `RECIPES`."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 64
    """Images in one step, over all ranks."""
    sampler: SamplerKind = SamplerKind.SANDWICH
    """Which networks one step trains."""
    num_random: int = 2
    """Random networks in one step."""
    distillation: DistillationKind = DistillationKind.SOFT
    """What networks other than the largest learn from."""
    optimizer: OptimizerKind = OptimizerKind.SGD
    """The update rule. BigNAS: RMSProp, rate 0.256 at batch 4096."""
    momentum: float = 0.9
    """Of either optimizer."""
    base_learning_rate: float = 0.2
    """The rate after warm-up, as it is: not scaled by the batch size. Gradients of networks are summed."""
    warmup_fraction: float = 0.05
    """Part of the run in which the rate rises to its base. AttentiveNAS: 5 epochs of 360."""
    learning_rate_policy: RatePolicy = RatePolicy.EXPONENTIAL
    """The shape of the rate after the warm-up."""
    decay_fraction: float = 0.9
    """Part of an exponential run after which the floor is reached. EfficientNet's 0.97 every 2.4 epochs
    takes 236 of 360; short runs cannot spare a third of their steps at the floor."""
    floor_fraction: float = 0.05
    """The smallest rate after the warm-up, as a part of the base."""
    weight_decay: float = 1e-5
    """L2 on weights, not on biases and batch norms, as if of the largest network alone."""
    label_smoothing: float = 0.1
    """Of the labels that the largest network learns from."""
    dropout: float = 0.2
    """Before the classifier, in the largest network alone."""
    clip: ClipKind = ClipKind.VALUE
    """How large summed gradients are cut."""
    clip_threshold: float = 1.0
    """The limit that `clip` speaks of."""
    kernel_transform: bool = False
    """Whether smaller kernels are learned transforms of the larger ones (Once-for-All), not bare centres."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _checked(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; `recipe_from_json` reads it back."""
        return {name: _plain(value) for name, value in asdict(self).items()}


_ENUMS: Mapping[str, type[StrEnum]] = {
    "sampler": SamplerKind,
    "distillation": DistillationKind,
    "optimizer": OptimizerKind,
    "learning_rate_policy": RatePolicy,
    "clip": ClipKind,
}

_WHOLE: Mapping[str, tuple[int, int]] = {
    "epochs": (1, 100_000),
    "batch_size": (2, 1_000_000),
    "num_random": (0, MAX_SLOTS - 2),
}

_REAL: Mapping[str, tuple[float, float]] = {
    "momentum": (0.0, 0.9999),
    "base_learning_rate": (1e-8, 100.0),
    "warmup_fraction": (0.0, 0.9),
    "decay_fraction": (0.01, 1.0),
    "floor_fraction": (1e-6, 1.0),
    "weight_decay": (0.0, 1.0),
    "label_smoothing": (0.0, 0.9),
    "dropout": (0.0, 0.9),
    "clip_threshold": (1e-6, 1e6),
}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _checked(name: str, value: Any) -> Any:
    if name in _ENUMS:
        return _checked_enum(name, value)
    if name in _WHOLE:
        return _checked_number(name, value, *_WHOLE[name], kind=int)
    if name in _REAL:
        return _checked_number(name, value, *_REAL[name], kind=float)
    expected = bool if name == "kernel_transform" else str
    if not isinstance(value, expected):
        raise InvalidRequestError(
            f"recipe field '{name}' is {value!r}, not a {'true or false' if expected is bool else 'text'}; "
            "correct it or leave it out"
        )
    return value


def _checked_enum(name: str, value: Any) -> StrEnum:
    options = [option.value for option in _ENUMS[name]]
    if not isinstance(value, str) or value not in options:
        raise InvalidRequestError(
            f"recipe field '{name}' is {value!r}, not one of {', '.join(options)}; choose one of them"
        )
    return _ENUMS[name](value)


def _checked_number(name: str, value: Any, low: float, high: float, *, kind: type[int | float]) -> float:
    # bool is an int in Python, yet nobody means True epochs. A NaN fails the comparison.
    is_number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        noun = "whole number" if kind is int else "number"
        raise InvalidRequestError(
            f"recipe field '{name}' is {value!r}, not a {noun} from {low} to {high}; "
            "choose one in that range or leave the field out"
        )
    return kind(value)


# Below the checks, which run as soon as a recipe is made.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "bignas": Recipe(),
        "spos": Recipe(
            name="spos",
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

    Raises InvalidRequestError naming the field, its value and what is allowed.
    """
    allowed = [field.name for field in fields(Recipe)]
    for name in request:
        if name not in allowed:
            raise InvalidRequestError(
                f"recipe field {name!r} is unknown; the fields are {', '.join(allowed)}; leave it out"
            )
    named = request.get("name", "bignas")
    # Looked up only once it is known to be text: a list is no key.
    if not isinstance(named, str) or named not in RECIPES:
        raise InvalidRequestError(f"recipe {named!r} is not one of {', '.join(RECIPES)}; choose one of them")
    return replace(RECIPES[named], **request)
