"""Optimizers: the update rule, and its state by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, RMSprop

from nas.recipe import Recipe
from nas.recipe_choices import OptimizerKind
from supernet.training.regularisation import parameter_groups

RMSPROP_DECAY = 0.9
RMSPROP_EPS = 1e-3


def build_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The recipe's update rule over all parameters; its rate is set anew at every step."""
    groups = parameter_groups(model.parameters(), recipe.weight_decay)
    rate, momentum = recipe.base_learning_rate, recipe.momentum
    if recipe.optimizer is OptimizerKind.SGD:
        return SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    # Decay and eps as EfficientNet's recipe has them, which BigNAS builds on.
    return RMSprop(groups, lr=rate, momentum=momentum, alpha=RMSPROP_DECAY, eps=RMSPROP_EPS)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Momentum and the like as '<parameter>/<what>'."""
    return {
        f"{name}/{what}": value
        for name, parameter in model.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Takes back what `optimizer_tensors` gave, whatever the state was."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, value in tensors.items():
        name, _, what = key.rpartition("/")
        parameter = parameters[name]
        # A zero-dimensional counter stays where torch keeps it, on the CPU.
        device = parameter.device if value.ndim else torch.device("cpu")
        optimizer.state[parameter][what] = value.to(device, copy=True)
