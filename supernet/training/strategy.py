"""What every strategy may do beside its own job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from supernet.network import Supernet
    from supernet.training.gradient import FlatGradients
    from supernet.training.paths import Slot

StrategyState = dict[str, Tensor | Any]
"""Tensors, or values that JSON can hold, by name."""


class Strategy:
    """Moments of a run at which a strategy may act, all optional, and the state it carries.

    A strategy that learns must come to the same state on every rank: it may use only what every rank
    sees, such as summed gradients and draws from `rng.py`.
    """

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """Before anything of the step is drawn: the moment to change shared weights, momentum included."""

    def observe(self, step: int, slots: Sequence[Slot], gradients: FlatGradients) -> None:
        """Gradients summed over ranks, not yet clipped; also of single slots where a sampler wants them."""

    def end_epoch(self, epoch: int) -> None:
        """After the last step of an epoch, counted from 0."""

    def describe(self) -> dict[str, Any]:
        """What a watcher of the run may want to see of what was learned so far, as JSON; often nothing."""
        return {}

    def state_dict(self) -> StrategyState:
        """What a resumed run needs; empty for a pure function of the step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, yet the checkpoint has {sorted(state)}")
