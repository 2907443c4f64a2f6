"""The training loss of an epoch, kept with the run so that a resumed epoch's mean is of the whole epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supernet.training.gradient import FlatGradients
from supernet.training.paths import Role, Slot
from supernet.training.strategy import Strategy, StrategyState


class LossMeter(Strategy):
    """Mean loss of the largest network over an epoch; of all networks where the largest is not trained."""

    def __init__(self) -> None:
        self.last_mean: float | None = None
        """Of the last whole epoch."""
        self._sum = 0.0
        self._count = 0

    def observe(self, step: int, slots: Sequence[Slot], gradients: FlatGradients) -> None:
        """Adds the step's loss."""
        del step
        losses = gradients.losses[: len(slots)].tolist()
        largest = [loss for slot, loss in zip(slots, losses, strict=True) if slot.role is Role.MAX]
        chosen = largest or losses
        if not chosen:
            return
        self._sum += sum(chosen) / len(chosen)
        self._count += 1

    def end_epoch(self, epoch: int) -> None:
        """Closes the epoch's mean."""
        del epoch
        self.last_mean = self._sum / self._count if self._count else None
        self._sum, self._count = 0.0, 0

    def state_dict(self) -> StrategyState:
        """The unfinished epoch."""
        return {"sum": self._sum, "count": self._count, "last_mean": self.last_mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self._sum, self._count, self.last_mean = state["sum"], state["count"], state["last_mean"]
