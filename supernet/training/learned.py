"""A small module that a strategy learns by an optimizer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from torch import nn
from torch.optim import Adam

from supernet.training.optimizer import load_optimizer_tensors, optimizer_tensors, set_learning_rate
from supernet.training.strategy import StrategyState

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Learned(Generic[ModuleT]):
    """A module on the CPU, its Adam, and the state of both. Its gradients must be the same on every rank."""

    def __init__(self, name: str, module: ModuleT) -> None:
        """`name` tells its state from that of others."""
        self.module = module
        self._name = name
        self._adam = Adam(module.parameters())

    def start(self) -> None:
        """Forgets the gradients of the last step."""
        self._adam.zero_grad()

    def step(self, learning_rate: float) -> None:
        """One update by the gradients that were collected."""
        set_learning_rate(self._adam, learning_rate)
        self._adam.step()

    def state_dict(self) -> StrategyState:
        """Weights and moments, by '<name>/<weight>[/<moment>]'."""
        tensors = {**self.module.state_dict(), **optimizer_tensors(self._adam, self.module)}
        return {f"{self._name}/{key}": value for key, value in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back, out of a strategy's whole state, what `state_dict` gave."""
        prefix = f"{self._name}/"
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        weights = {key: value for key, value in own.items() if "/" not in key}
        self.module.load_state_dict(weights)
        moments = {key: value for key, value in own.items() if "/" in key}
        load_optimizer_tensors(self._adam, self.module, moments)
