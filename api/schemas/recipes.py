"""Overrides of a training recipe. Names and limits are those of `supernet.training.recipe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.common import RequestModel


class Recipe(RequestModel):
    """A named recipe and the fields to change in it; what is left out keeps the recipe's own value."""

    name: Literal["bignas", "spos"] = "bignas"
    epochs: int | None = Field(default=None, ge=1, le=100_000, description="Passes over the training images.")
    batch_size: int | None = Field(
        default=None, ge=2, le=1_000_000, description="Images in a step, over all workers."
    )
    sampler: Literal["sandwich", "uniform"] | None = Field(
        default=None, description="Which networks a step trains."
    )
    num_random: int | None = Field(default=None, ge=0, le=30, description="Random networks in a step.")
    distillation: Literal["none", "soft"] | None = Field(
        default=None, description="What networks other than the largest learn from."
    )
    optimizer: Literal["sgd", "rmsprop"] | None = None
    momentum: float | None = Field(default=None, ge=0, le=0.9999)
    base_learning_rate: float | None = Field(
        default=None, ge=1e-8, le=100, description="The rate after warm-up, not scaled by the batch size."
    )
    warmup_fraction: float | None = Field(default=None, ge=0, le=0.9, description="Part of the run.")
    learning_rate_policy: Literal["exponential", "cosine"] | None = None
    decay_fraction: float | None = Field(
        default=None,
        ge=0.01,
        le=1,
        description="Part of an exponential run after which the floor is reached.",
    )
    floor_fraction: float | None = Field(
        default=None, ge=1e-6, le=1, description="The smallest rate after warm-up, as a part of the base."
    )
    weight_decay: float | None = Field(default=None, ge=0, le=1)
    label_smoothing: float | None = Field(default=None, ge=0, le=0.9)
    dropout: float | None = Field(default=None, ge=0, le=0.9)
    clip: Literal["none", "norm", "value"] | None = None
    clip_threshold: float | None = Field(default=None, ge=1e-6, le=1e6)
    kernel_transform: bool | None = Field(
        default=None,
        description="Smaller kernels are learned transforms of the larger ones, not bare centres.",
    )
